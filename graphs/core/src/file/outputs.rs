//! `[output.NAME]` sections: what to compute and where it goes.

use std::collections::HashMap;

use super::arrays::formula;
use super::diagnostic::{Problems, did_you_mean, one_of};
use super::document::Entry;
use super::keys::OUTPUT;
use super::names::{Draft, Names, extension, split_part};
use super::resolve::resolve_formula;
use super::values::fields;
use super::{DeclarationId, DeclarationKind, OutputDeclaration, OutputOf, Text, Write, WriteFormat};
use crate::expression::{Expression, TYPE_NAMES};
use crate::graph::Part;

const FORMATS: [(&str, WriteFormat); 5] = [
    ("parquet", WriteFormat::Parquet),
    ("csv", WriteFormat::Csv),
    ("json", WriteFormat::Json),
    ("npy", WriteFormat::Npy),
    ("zarr", WriteFormat::Zarr),
];

/// Read one output; what it names is looked up in `names`.
pub(super) fn read(
    entry: &Entry<'_>,
    names: &Names<'_>,
    written: &mut HashMap<String, String>,
    problems: &mut Problems,
) -> Option<OutputDeclaration> {
    let fields = fields(&OUTPUT, entry, problems)?;
    let write = fields.text("write").and_then(|path| write(path, &entry.key, written, problems));
    let of = of(fields.text("of")?, names, problems)?;
    if let Some(write) = &write {
        check_format(write, &of, names, problems);
    }
    Some(OutputDeclaration { name: entry.key.to_string(), span: entry.key_span, of, write })
}

/// A name if there is one of exactly this spelling (`half-0` is a name before it is a difference), else an expression.
fn of(text: Text, names: &Names<'_>, problems: &mut Problems) -> Option<OutputOf> {
    let name = text.value.trim();
    if let Some(id) = names.get(name) {
        return Some(OutputOf::Name(id, Part::WHOLE));
    }
    if let Some((whole, part)) = split_part(name)
        && let Some(id) = names.get(whole)
        && names.draft(id).section == "task"
    {
        return Some(OutputOf::Name(id, part));
    }
    // `-x` and `x.T` are of the letters of names, too, but they mean something as they are.
    let known = |name: &str| names.get(name).is_some() || TYPE_NAMES.contains(&name);
    let is_formula = Expression::parse(name).is_ok_and(|formula| formula.names().iter().all(|(name, _)| known(name)));
    let looks_like_a_name =
        !is_formula && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) && !name.is_empty();
    let near = if looks_like_a_name { did_you_mean(name, names.all()) } else { None };
    if near.is_some() || name.contains('*') && !name.contains(' ') && names.matches(name).next().is_some() {
        let hint =
            near.unwrap_or_else(|| "an output is one name or expression; bundle them with op = \"core.part_list\"".to_owned());
        problems.hinted(text.span, format!("unknown name \"{name}\""), hint);
        return None;
    }
    let mut formula = formula(text, problems)?;
    resolve_formula(&mut formula, names, problems).then_some(OutputOf::Expression(formula))
}

fn write(path: Text, output: &str, written: &mut HashMap<String, String>, problems: &mut Problems) -> Option<Write> {
    if let Some(other) = written.insert(path.value.clone(), output.to_owned()) {
        problems.error(path.span, format!("\"{}\" is written by output \"{other}\" already", path.value));
    }
    let ending = extension(path.value.trim_end_matches('/'));
    let format = ending.and_then(|ending| FORMATS.iter().find(|(name, _)| name.eq_ignore_ascii_case(ending)));
    let Some((_, format)) = format else {
        let known = || FORMATS.iter().map(|(name, _)| *name);
        let near = ending.and_then(|ending| did_you_mean(ending, known()));
        let hint =
            near.unwrap_or_else(|| format!("end it with .{}", one_of(known()).replace(", ", ", .").replace(" or ", " or .")));
        problems.hinted(path.span, format!("the format of \"{}\" is not known by its extension", path.value), hint);
        return None;
    };
    Some(Write { path, format: *format })
}

fn check_format(write: &Write, of: &OutputOf, names: &Names<'_>, problems: &mut Problems) {
    let section = match of {
        OutputOf::Expression(_) => "array",
        OutputOf::Name(id, _) => names.draft(*id).section,
    };
    let wrong = match (section, write.format) {
        ("frame", WriteFormat::Npy | WriteFormat::Zarr) => "a frame is written as .parquet, .csv or .json",
        ("array", WriteFormat::Parquet) => "an array is written as .npy, .zarr, .csv or .json",
        _ => return,
    };
    problems.hinted(write.path.span, format!("\"{}\" cannot hold this output", write.path.value), wrong);
}

/// Every name that nothing uses, for files without outputs. `kinds` are those of `drafts`, resolved.
pub(super) fn unused(drafts: &[Draft], kinds: &[Option<DeclarationKind>]) -> Vec<OutputDeclaration> {
    let mut is_used = vec![false; drafts.len()];
    for used in kinds.iter().flatten().flat_map(DeclarationKind::uses) {
        if let Some(is_used) = is_used.get_mut(used.index()) {
            *is_used = true;
        }
    }
    let unused = (0u32..).zip(drafts).zip(is_used).filter(|(_, is_used)| !is_used);
    let output = |(at, draft): (u32, &Draft)| OutputDeclaration {
        name: draft.name.clone(),
        span: draft.span,
        of: OutputOf::Name(DeclarationId(at), Part::WHOLE),
        write: None,
    };
    unused.map(|(numbered, _)| output(numbered)).collect()
}
