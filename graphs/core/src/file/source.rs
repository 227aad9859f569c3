//! The text of a graph file and positions in it: lines, columns, and places inside strings.
//!
//! Everything else carries byte offsets ([`Span`]); they become lines and columns only when a message is made. A place
//! inside a string (a name in an expression, a table in SQL) is found again by walking the string as written: past its
//! quotes, its escapes, and the parameters that were put into it.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::expression::Span;

/// Where a stretch of a string after substitution comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its first byte after substitution.
    pub(super) after: usize,
    /// Its first byte before substitution.
    pub(super) before: usize,
    /// Whether it is the author's text; a parameter's value has no places of its own.
    pub(super) is_literal: bool,
}

/// A named text with its line table.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
    line_starts: Vec<usize>,
    /// Strings that parameters were put into, by where the string begins.
    pub(super) substituted: HashMap<u32, Vec<Stretch>, FxBuildHasher>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        Self { name: name.to_owned(), text: text.to_owned(), line_starts, substituted: HashMap::default() }
    }

    /// Line and column of byte `offset`, both from 1; columns count characters.
    pub(super) fn resolve(&self, offset: u32) -> (usize, usize) {
        let mut offset = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self.line_starts[line - 1];
        let characters = self.text[start..offset].chars();
        (line, characters.filter(|&c| c != '\u{feff}').count() + 1)
    }

    /// The span in this text of `inner`, bytes of the value of the string that stands at `string`.
    pub(super) fn within(&self, string: Span, inner: Span) -> Span {
        let start = self.offset_within(string, inner.start as usize);
        let end = self.offset_within(string, inner.end as usize);
        Span::new(start, end.max(start))
    }

    fn offset_within(&self, string: Span, inner: usize) -> usize {
        let mut inner = inner;
        if let Some(stretches) = self.substituted.get(&string.start) {
            let at = stretches.partition_point(|stretch| stretch.after <= inner).saturating_sub(1);
            if let Some(stretch) = stretches.get(at) {
                inner = stretch.before + if stretch.is_literal { inner.saturating_sub(stretch.after) } else { 0 };
            }
        }
        let (start, end) = (string.start as usize, (string.end as usize).min(self.text.len()));
        let Some(written) = self.text.get(start..end) else { return start };
        start + offset_as_written(written, inner)
    }
}

/// The offset in `written` (a string with its quotes, TOML or JSON) of byte `inner` of its value.
fn offset_as_written(written: &str, inner: usize) -> usize {
    let bytes = written.as_bytes();
    let quote = bytes.first().copied().unwrap_or(b'"');
    let is_multiline = written.starts_with("\"\"\"") || written.starts_with("'''");
    let mut at = if is_multiline { 3 } else { 1 };
    if is_multiline {
        // A line break right after the opening quotes belongs to neither value nor position.
        at += if written[at..].starts_with("\r\n") { 2 } else { usize::from(written[at..].starts_with('\n')) };
    }
    let mut decoded = 0;
    while decoded < inner && at < written.len() {
        if bytes[at] == b'\\' && quote == b'"' {
            let (length, width) = escape(&written[at..]);
            at += length;
            decoded += width;
        } else {
            at += 1;
            decoded += 1;
        }
    }
    at.min(written.len())
}

/// How many bytes the escape at the start of `text` takes as written, and how many in the value.
fn escape(text: &str) -> (usize, usize) {
    let code = |from: usize, to: usize| text.get(from..to).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let width = |code: Option<u32>| code.and_then(char::from_u32).map_or(1, char::len_utf8);
    match text.as_bytes().get(1) {
        Some(b'u') if matches!(code(2, 6), Some(0xd800..=0xdbff)) => (12, 4),
        Some(b'u') => (6, width(code(2, 6))),
        Some(b'U') => (10, width(code(2, 10))),
        Some(b'x') => (4, width(code(2, 4))),
        // A backslash at the end of a line swallows all white space after it.
        Some(b'\n' | b'\r' | b' ' | b'\t') => (text.len() - text[1..].trim_start().len(), 0),
        Some(_) => (2, 1),
        None => (1, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_inside_strings_survive_escapes_and_line_breaks() {
        let table = [
            ("\"abc\"", 1, "bc\""),
            ("'a\\c'", 2, "c'"),
            ("\"a\\nc\"", 2, "c\""),
            ("\"\\u00e9c\"", 2, "c\""),
            ("\"\\ud83d\\ude00c\"", 4, "c\""),
            ("\"\"\"\nab\nc\"\"\"", 3, "c\"\"\""),
            ("\"\"\"a\\\n   c\"\"\"", 1, "\\\n   c\"\"\""),
            ("\"\"\"a\\\n   bc\"\"\"", 2, "c\"\"\""),
        ];
        for (written, inner, rest) in table {
            assert_eq!(&written[offset_as_written(written, inner)..], rest, "{written}");
        }
    }

    #[test]
    fn columns_count_characters() {
        let source = Source::new("x", "é = 1\nab");
        assert_eq!(source.resolve(3), (1, 3));
        assert_eq!(source.resolve(7), (2, 1));
        assert_eq!(source.resolve(1000), (2, 3));
    }
}
