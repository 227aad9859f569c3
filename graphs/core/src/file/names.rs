//! The names of a file: one namespace for frames, arrays and tasks, looked up exactly, by pattern, or as SQL does.

use std::cmp::Ordering;
use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::diagnostic::Problems;
use super::params::is_identifier;
use super::{DeclarationId, DeclarationKind, Text};
use crate::expression::Span;
use crate::graph::Part;

/// Stands for a declaration that has not been looked up.
pub(super) const UNRESOLVED: DeclarationId = DeclarationId(u32::MAX);

/// A declaration on its way.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) span: Span,
    /// `frame`, `array` or `task`.
    pub(super) section: &'static str,
    /// `None` after mistakes; the name stays known, so that its uses are no mistakes too.
    pub(super) kind: Option<DeclarationKind>,
    /// Inputs of a task as written, formulas evaluated.
    pub(super) inputs: Vec<Text>,
    /// A family whose members' names are not known because of a mistake.
    pub(super) is_broken_family: bool,
}

impl Draft {
    pub(super) fn new(name: &str, span: Span, section: &'static str) -> Self {
        Self { name: name.to_owned(), span, section, kind: None, inputs: Vec::new(), is_broken_family: false }
    }

    /// Frames and arrays are named in SQL and in expressions, so only identifiers will do.
    pub(super) fn check_identifier(&self, problems: &mut Problems) {
        if !is_identifier(&self.name) {
            let section = self.section;
            let hint = "names are letters, digits and _, not beginning with a digit";
            problems.hinted(self.span, format!("\"{}\" cannot name {} {section}", self.name, article(section)), hint);
        }
    }
}

/// `a` or `an`.
pub(super) fn article(word: &str) -> &'static str {
    if word.starts_with('a') { "an" } else { "a" }
}

/// All names with their drafts.
pub(super) struct Names<'a> {
    drafts: &'a [Draft],
    exact: HashMap<&'a str, u32, FxBuildHasher>,
    /// Tasks by name, for patterns.
    tasks: Vec<u32>,
    /// Whether names may be missing because of a mistake that is reported already.
    pub(super) is_incomplete: bool,
}

impl<'a> Names<'a> {
    /// Index `drafts`; names given twice are reported.
    pub(super) fn new(drafts: &'a [Draft], problems: &mut Problems) -> Self {
        let mut exact: HashMap<&str, u32, FxBuildHasher> = HashMap::default();
        exact.reserve(drafts.len());
        for (at, draft) in (0u32..).zip(drafts) {
            let Some(first) = exact.insert(&draft.name, at) else { continue };
            let first_draft = &drafts[first as usize];
            if first_draft.span == draft.span {
                problems.error(draft.span, format!("two members of this family are called \"{}\"", draft.name));
            } else {
                let (line, _) = problems.source.resolve(first_draft.span.start);
                let hint = format!("{} {} has it, on line {line}", article(first_draft.section), first_draft.section);
                problems.hinted(draft.span, format!("the name \"{}\" is taken", draft.name), hint);
            }
        }
        let mut tasks: Vec<u32> = (0u32..).zip(drafts).filter(|(_, draft)| draft.section == "task").map(|(at, _)| at).collect();
        tasks.sort_by(|a, b| drafts[*a as usize].name.cmp(&drafts[*b as usize].name));
        let is_incomplete = drafts.iter().any(|draft| draft.is_broken_family);
        Self { drafts, exact, tasks, is_incomplete }
    }

    pub(super) fn get(&self, name: &str) -> Option<DeclarationId> {
        self.exact.get(name).copied().map(DeclarationId)
    }

    /// As SQL looks up a name without quotes: letter case does not matter when only one name fits.
    pub(super) fn get_ignoring_case(&self, name: &str) -> Option<DeclarationId> {
        let mut alike =
            (0u32..).zip(self.drafts).filter(|(_, draft)| draft.section != "task" && draft.name.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some((at, _)), None) => Some(DeclarationId(at)),
            _ => None,
        }
    }

    pub(super) fn draft(&self, id: DeclarationId) -> &'a Draft {
        &self.drafts[id.index()]
    }

    /// All names, in file order.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a str> {
        self.drafts.iter().map(|draft| draft.name.as_str())
    }

    /// The names of one section's declarations.
    pub(super) fn of_section(&self, section: &'static str) -> impl Iterator<Item = &'a str> {
        self.drafts.iter().filter(move |draft| draft.section == section).map(|draft| draft.name.as_str())
    }

    /// Tasks whose name fits `pattern`, in no useful order.
    pub(super) fn matches(&self, pattern: &str) -> impl Iterator<Item = DeclarationId> {
        let prefix = pattern.split('*').next().unwrap_or_default().to_owned();
        let name = |at: u32| self.drafts[at as usize].name.as_str();
        let start = self.tasks.partition_point(|&at| name(at) < prefix.as_str());
        let candidates = self.tasks[start..].iter().take_while(move |&&at| name(at).starts_with(&prefix));
        candidates.filter(move |&&at| fits(pattern, name(at))).map(|&at| DeclarationId(at))
    }

    /// Tasks whose name fits `pattern`, numbers in names compared as numbers: `x-2` before `x-10`.
    pub(super) fn matches_in_order(&self, pattern: &str) -> Vec<DeclarationId> {
        let mut found: Vec<DeclarationId> = self.matches(pattern).collect();
        found.sort_by(|a, b| natural_order(&self.draft(*a).name, &self.draft(*b).name));
        found
    }
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// Text order, except that runs of digits compare as numbers.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (a_digits, b_digits) = (leading_digits(a_rest), leading_digits(b_rest));
        if !a_digits.is_empty() && !b_digits.is_empty() {
            let (a_number, b_number) = (a_digits.trim_start_matches('0'), b_digits.trim_start_matches('0'));
            let order = a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number));
            if order != Ordering::Equal {
                return order;
            }
            (a_rest, b_rest) = (&a_rest[a_digits.len()..], &b_rest[b_digits.len()..]);
            continue;
        }
        match (a_rest.chars().next(), b_rest.chars().next()) {
            (Some(left), Some(right)) if left == right => {
                (a_rest, b_rest) = (&a_rest[left.len_utf8()..], &b_rest[right.len_utf8()..]);
            }
            // Equal but for leading zeros: any order will do as long as it is always the same.
            (None, None) => return a.cmp(b),
            (left, right) => return left.cmp(&right),
        }
    }
}

fn leading_digits(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}

/// `x[2]` as `x` and part 2.
pub(super) fn split_part(name: &str) -> Option<(&str, Part)> {
    let (whole, digits) = name.strip_suffix(']')?.rsplit_once('[')?;
    let part: u32 = digits.parse().ok()?;
    let part = Part(part);
    (!part.is_whole() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some((whole, part))
}

/// What follows the last dot of a path's last piece.
pub(super) fn extension(path: &str) -> Option<&str> {
    let file = path.rsplit('/').next()?;
    file.rsplit_once('.').map(|(_, ending)| ending).filter(|ending| !ending.is_empty())
}

/// The byte offset in `text` of a line and a column, both from 1, in characters; the end of the text at most.
pub(super) fn offset_at(text: &str, line: usize, column: usize) -> usize {
    let line_start = match line {
        0 | 1 => 0,
        line => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(at, _)| at + 1),
    };
    let rest = &text[line_start..];
    rest.char_indices().nth(column.saturating_sub(1)).map_or(text.len(), |(at, _)| line_start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        let table = [
            ("half-*", "half-3", true),
            ("half-*", "halves-3", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("x", "x", true),
            ("x", "xy", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn numbers_in_names_are_compared_as_numbers() {
        let mut names = ["c-10-2", "c-2-10", "c-2-9", "c-2", "c-02", "c", "b-99"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["b-99", "c", "c-02", "c-2", "c-2-9", "c-2-10", "c-10-2"]);
    }

    #[test]
    fn parts_are_plain_numbers() {
        assert_eq!(split_part("x[2]"), Some(("x", Part(2))));
        for name in ["x", "x[]", "x[-1]", "x[+1]", "x[4294967295]", "x]2["] {
            assert_eq!(split_part(name), None, "{name}");
        }
    }
}
