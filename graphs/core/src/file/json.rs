//! JSON with the position of every value: RFC 8259, nothing beyond it, duplicate keys refused.
//!
//! A small reader of our own because the usual one forgets where values stood. Strings without escapes are borrowed, so a
//! file of 100,000 tasks costs little more than its tree.

use std::borrow::Cow;
use std::collections::HashSet;

use rustc_hash::FxBuildHasher;

use super::document::{Entry, Node, Raw};
use crate::expression::Span;

/// The same limit as the TOML reader's.
const MAX_DEPTH: u32 = 80;

type Result<T> = std::result::Result<T, (Span, String)>;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// The value that `text` is, all of it, or the first mistake and where it is.
pub(super) fn read(text: &str) -> Result<Node<'_>> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    if text.starts_with('\u{feff}') {
        reader.at = 3;
    }
    let node = reader.value()?;
    reader.skip_spaces();
    if reader.at < text.len() { Err(reader.fail("expected the end of the file")) } else { Ok(node) }
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn fail(&self, expected: &str) -> (Span, String) {
        let found = self.text[self.at..].chars().next();
        let found = found.map_or("the end of the file".to_owned(), |c| format!("`{}`", c.escape_debug()));
        let end = (self.at + 1).min(self.text.len());
        (Span::new(self.at, end), format!("{expected}, found {found}"))
    }

    fn value(&mut self) -> Result<Node<'a>> {
        self.skip_spaces();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::table)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'"') => Raw::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) | None => self.word()?,
        };
        Ok(Node { span: Span::new(start, self.at), value })
    }

    fn word(&mut self) -> Result<Raw<'a>> {
        for (word, value) in [("true", Raw::Boolean(true)), ("false", Raw::Boolean(false)), ("null", Raw::Null)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.fail("expected a value"))
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Raw<'a>>) -> Result<Raw<'a>> {
        if self.depth == MAX_DEPTH {
            return Err((Span::new(self.at, self.at + 1), format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_spaces();
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// Whether another item follows; passes the comma or the closing bracket.
    fn goes_on(&mut self, closer: u8) -> Result<bool> {
        self.skip_spaces();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.skip_spaces();
                Ok(true)
            }
            Some(byte) if byte == closer => {
                self.at += 1;
                Ok(false)
            }
            Some(_) | None => Err(self.fail(&format!("expected `,` or `{}`", char::from(closer)))),
        }
    }

    fn list(&mut self) -> Result<Raw<'a>> {
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Raw::List(items));
        }
        loop {
            items.push(self.value()?);
            if !self.goes_on(b']')? {
                return Ok(Raw::List(items));
            }
        }
    }

    fn table(&mut self) -> Result<Raw<'a>> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Raw::Table(entries));
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.fail("expected a key in double quotes"));
            }
            let key = self.string()?;
            let key_span = Span::new(start, self.at);
            self.skip_spaces();
            if self.peek() != Some(b':') {
                return Err(self.fail("expected `:`"));
            }
            self.at += 1;
            let node = self.value()?;
            entries.push(Entry { key, key_span, node });
            if !self.goes_on(b'}')? {
                break;
            }
        }
        let mut seen: HashSet<&str, FxBuildHasher> = HashSet::default();
        for entry in &entries {
            if !seen.insert(&entry.key) {
                return Err((entry.key_span, format!("duplicate key \"{}\"", entry.key)));
            }
        }
        Ok(Raw::Table(entries))
    }

    fn number(&mut self) -> Result<Raw<'a>> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let written = &rest[..length];
        let span = Span::new(start, start + length);
        let malformed = || (span, format!("malformed number {written}"));
        let digits = written.strip_prefix('-').unwrap_or(written);
        let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        if whole == 0 || (whole > 1 && digits.starts_with('0')) {
            return Err(malformed());
        }
        self.at += length;
        if whole == digits.len() {
            let too_large = |_| (span, format!("the integer {written} does not fit 64 bits"));
            return written.parse().map(Raw::Integer).map_err(too_large);
        }
        let after_point = digits[whole..].strip_prefix('.').map(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        match written.parse::<f64>() {
            Ok(value) if value.is_finite() && after_point != Some(false) => Ok(Raw::Float(value)),
            Ok(_) | Err(_) => Err(malformed()),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>> {
        let opening = self.at;
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut copied = start;
        loop {
            match self.peek() {
                None => return Err((Span::new(opening, opening + 1), "this string is never closed".to_owned())),
                Some(b'"') => {
                    let tail = &self.text[copied..self.at];
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(tail),
                        Some(text) => Cow::Owned(text + tail),
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_default();
                    text.push_str(&self.text[copied..self.at]);
                    text.push(self.escape()?);
                    copied = self.at;
                }
                Some(0..=0x1f) => return Err(self.fail("expected the rest of a string (line breaks are written \\n)")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        let letter = self.text.as_bytes().get(start + 1).copied();
        self.at += 2;
        let plain = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex(start)?;
                let mut code = first;
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let second = self.hex(start)?;
                    // A wrong second half leaves the first one alone, which is no character.
                    if (0xdc00..0xe000).contains(&second) {
                        code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    }
                }
                return char::from_u32(code).ok_or_else(|| (Span::new(start, self.at), "half of a surrogate pair".to_owned()));
            }
            Some(_) | None => return Err((Span::new(start, start + 1), "unknown escape in a string".to_owned())),
        };
        Ok(plain)
    }

    fn hex(&mut self, escape: usize) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        self.at += 4;
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        code.ok_or_else(|| (Span::new(escape, escape + 2), "\\u needs four hexadecimal digits".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_are_those_of_the_usual_reader() {
        for text in
            ["\"a\\u00e9\\n\\/\\ud83d\\ude00z\"", "\"\"", "-0.5e-3", "12", "1e3", "-0", "0.0", "[1 , 2]", " {\"a\" : null} "]
        {
            let usual: serde_json::Value = serde_json::from_str(text).expect("good JSON");
            let ours = read(text).unwrap_or_else(|(_, message)| panic!("{text}: {message}"));
            assert_eq!(format!("{:?}", plain(&ours)), format!("{usual:?}"), "{text}");
        }
        for text in [
            "\"\\ud83d\"",
            "\"\\ud83dx\"",
            "\"\\ud83d\\u0041\"",
            "\"\\u12\"",
            "\"\\x\"",
            "\"\\",
            "1.",
            ".5",
            "1.e3",
            "+1",
            "- 1",
            "01",
            "tru",
            "[1,]",
            "\"\n\"",
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text} is good after all");
            assert!(read(text).is_err(), "{text}");
        }
    }

    fn plain(node: &Node<'_>) -> serde_json::Value {
        match &node.value {
            Raw::Null => serde_json::Value::Null,
            Raw::Boolean(value) => (*value).into(),
            // The usual reader keeps the sign of a zero by making it a float.
            Raw::Integer(0) if node.span.end - node.span.start == 2 => (-0.0).into(),
            Raw::Integer(value) => (*value).into(),
            Raw::Float(value) => (*value).into(),
            Raw::Text(text) => text.to_string().into(),
            Raw::List(items) => items.iter().map(plain).collect(),
            Raw::Table(entries) => entries.iter().map(|entry| (entry.key.to_string(), plain(&entry.node))).collect(),
        }
    }
}
