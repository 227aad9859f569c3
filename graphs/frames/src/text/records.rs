//! CSV taken apart: records of fields, each record with its place in the file.
//!
//! As RFC 4180 has it, a quote opens a field only as its first character, a doubled one stands for itself, and lines may end
//! in a quoted field. Line ends are `\n`, `\r\n` or `\r`. What cannot be meant is an error with its line: a quoted field that
//! never ends, or goes on after its closing quote. Blank lines are nothing, except in files of one column, where they are a
//! record of one empty field.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2, memchr3};

/// Bytes asked for at once.
const BLOCK: usize = 64 << 10;

/// A record beyond this is a file that is not CSV, or a quote that is not closed.
const MAX_RECORD: usize = 256 << 20;

/// The characters that mean something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    /// What begins a line to leave out.
    pub(crate) comment: Option<u8>,
}

/// Why a file cannot be taken apart.
#[derive(Debug)]
pub(crate) enum RecordError {
    Io(io::Error),
    /// The line, from 1, and what is wrong there.
    At(u64, String),
}

/// A field of the record read last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    start: usize,
    end: usize,
    /// Whether it stands in quotes.
    pub(crate) is_quoted: bool,
    has_doubled: bool,
}

/// Reads records one after the other.
pub(crate) struct Records<R> {
    input: R,
    dialect: Dialect,
    /// Of the record: how many fields it must have, once that is known.
    n_fields: Option<usize>,
    /// Records that begin here or later, in the file, are not read.
    end: u64,
    buffer: Vec<u8>,
    /// Where the next record begins, and where the bytes end.
    at: usize,
    filled: usize,
    is_at_end: bool,
    /// Of the first byte of the buffer, in the file.
    offset: u64,
    /// Of the next record, from 1.
    line: u64,
    /// Of the record read last: its line, and its position in the file.
    record_line: u64,
    record_start: u64,
    fields: Vec<Field>,
    /// Whether a quoted field has no end.
    is_open: bool,
}

enum Step {
    /// A record, and the position after it.
    Record(usize),
    /// A line that is no record.
    Nothing(usize),
    NeedMore,
    End,
}

impl<R: Read> Records<R> {
    /// Records from `input`, whose first byte stands at `offset` of the file, in line `line`.
    pub(crate) fn new(input: R, dialect: Dialect, offset: u64, line: u64) -> Self {
        let (buffer, fields) = (Vec::new(), Vec::new());
        Self {
            input,
            dialect,
            n_fields: None,
            end: u64::MAX,
            buffer,
            at: 0,
            filled: 0,
            is_at_end: false,
            offset,
            line,
            record_line: line,
            record_start: offset,
            fields,
            is_open: false,
        }
    }

    /// From here on every record has `n_fields` fields.
    pub(crate) fn expect_fields(&mut self, n_fields: usize) {
        self.n_fields = Some(n_fields);
    }

    /// Read only records that begin before this position of the file.
    pub(crate) fn stop_at(&mut self, end: u64) {
        self.end = end;
    }

    /// Where the next record begins, as a position in the file.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// Whether the record that could not be read goes on to the end of what there is.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_open
    }

    /// The line of the record read last.
    #[expect(clippy::misnamed_getters, reason = "the reader's own line is already that of the next record")]
    pub(crate) fn line(&self) -> u64 {
        self.record_line
    }

    /// Where the record read last begins, as a position in the file.
    pub(crate) fn start(&self) -> u64 {
        self.record_start
    }

    /// Fields of the record read last that have a quote in them without standing in quotes: as rare as it is allowed.
    pub(crate) fn n_odd_fields(&self) -> usize {
        let is_odd =
            |field: &&Field| !field.is_quoted && memchr(self.dialect.quote, &self.buffer[field.start..field.end]).is_some();
        self.fields.iter().filter(is_odd).count()
    }

    /// The fields of the record read last.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Append the text of field `idx` of the record read last.
    pub(crate) fn append(&self, field: Field, out: &mut Vec<u8>) {
        let text = &self.buffer[field.start..field.end];
        if !field.has_doubled {
            out.extend_from_slice(text);
            return;
        }
        let mut rest = text;
        while let Some(at) = memchr(self.dialect.quote, rest) {
            out.extend_from_slice(&rest[..=at]);
            // The other one of the pair.
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
    }

    /// Read the next record; `false` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or is no CSV there.
    pub(crate) fn read(&mut self) -> Result<bool, RecordError> {
        while self.position() < self.end {
            match self.step()? {
                Step::Record(next) => {
                    self.record_start = self.position();
                    self.at = next;
                    if let Some(wanted) = self.n_fields
                        && wanted != self.fields.len()
                    {
                        let found = self.fields.len();
                        return Err(RecordError::At(self.record_line, format!("{found} fields where {wanted} are expected")));
                    }
                    return Ok(true);
                }
                Step::Nothing(next) => self.at = next,
                Step::NeedMore => self.fill()?,
                Step::End => return Ok(false),
            }
        }
        Ok(false)
    }

    fn fill(&mut self) -> Result<(), RecordError> {
        if self.at > 0 {
            self.buffer.copy_within(self.at..self.filled, 0);
            self.offset += self.at as u64;
            self.filled -= self.at;
            self.at = 0;
        }
        if self.filled >= MAX_RECORD {
            return Err(RecordError::At(self.line, "a record of more than 256 MiB; is a quote not closed?".to_owned()));
        }
        // Doubling, so that a long record is looked at a few times and not once for every block.
        let wanted = (self.filled * 2).max(BLOCK);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        match self.input.read(&mut self.buffer[self.filled..]) {
            Ok(0) => self.is_at_end = true,
            Ok(n_read) => self.filled += n_read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RecordError::Io(error)),
        }
        Ok(())
    }

    /// Take the record at `self.at` apart, if all of it is there.
    fn step(&mut self) -> Result<Step, RecordError> {
        let bytes = &self.buffer[..self.filled];
        let Some(&first) = bytes.get(self.at) else { return Ok(if self.is_at_end { Step::End } else { Step::NeedMore }) };
        if Some(first) == self.dialect.comment {
            let Some(length) = memchr2(b'\n', b'\r', &bytes[self.at..]) else {
                return Ok(if self.is_at_end { Step::Nothing(self.filled) } else { Step::NeedMore });
            };
            let Some(next) = after_line_end(bytes, self.at + length, self.is_at_end) else { return Ok(Step::NeedMore) };
            self.line += 1;
            return Ok(Step::Nothing(next));
        }
        if matches!(first, b'\n' | b'\r') {
            let Some(next) = after_line_end(bytes, self.at, self.is_at_end) else { return Ok(Step::NeedMore) };
            self.record_line = self.line;
            self.line += 1;
            if self.n_fields != Some(1) {
                return Ok(Step::Nothing(next));
            }
            self.fields.clear();
            self.fields.push(Field { start: self.at, end: self.at, is_quoted: false, has_doubled: false });
            return Ok(Step::Record(next));
        }
        self.fields.clear();
        let mut at = self.at;
        let mut n_inner_lines = 0_u64;
        loop {
            let after = if bytes.get(at) == Some(&self.dialect.quote) {
                match quoted(bytes, at, self.dialect.quote, self.is_at_end) {
                    Quoted::Field(field, after) => {
                        n_inner_lines += memchr_iter(b'\n', &bytes[field.start..field.end]).count() as u64;
                        self.fields.push(field);
                        // Blanks between a closing quote and what ends the field mean nothing.
                        let n_blanks = bytes[after..].iter().take_while(|&&b| b == b' ' && b != self.dialect.delimiter).count();
                        after + n_blanks
                    }
                    Quoted::NeedMore => return Ok(Step::NeedMore),
                    Quoted::Open => {
                        self.is_open = true;
                        let line = self.line + n_inner_lines;
                        let what = "a quoted field begins here and does not end; is a quote missing?".to_owned();
                        return Err(RecordError::At(line, what));
                    }
                }
            } else {
                let end = memchr3(self.dialect.delimiter, b'\n', b'\r', &bytes[at..]).map_or(self.filled, |length| at + length);
                self.fields.push(Field { start: at, end, is_quoted: false, has_doubled: false });
                end
            };
            match bytes.get(after) {
                None if self.is_at_end => {
                    self.record_line = self.line;
                    self.line += 1 + n_inner_lines;
                    return Ok(Step::Record(after));
                }
                None => return Ok(Step::NeedMore),
                Some(&byte) if byte == self.dialect.delimiter => at = after + 1,
                Some(b'\n' | b'\r') => {
                    let Some(next) = after_line_end(bytes, after, self.is_at_end) else { return Ok(Step::NeedMore) };
                    self.record_line = self.line;
                    self.line += 1 + n_inner_lines;
                    return Ok(Step::Record(next));
                }
                Some(_) => {
                    let what = "text after the closing quote of a field; a quote inside of one is written twice";
                    return Err(RecordError::At(self.line + n_inner_lines, what.to_owned()));
                }
            }
        }
    }
}

/// The position after the line end at `at`; `None` while it is not known whether a `\n` follows a `\r`.
fn after_line_end(bytes: &[u8], at: usize, is_at_end: bool) -> Option<usize> {
    if bytes[at] == b'\n' {
        return Some(at + 1);
    }
    match bytes.get(at + 1) {
        Some(b'\n') => Some(at + 2),
        Some(_) => Some(at + 1),
        None => is_at_end.then_some(at + 1),
    }
}

enum Quoted {
    Field(Field, usize),
    NeedMore,
    Open,
}

/// The quoted field that begins with the quote at `open`, and the position after its closing quote.
fn quoted(bytes: &[u8], open: usize, quote: u8, is_at_end: bool) -> Quoted {
    let mut has_doubled = false;
    let mut from = open + 1;
    loop {
        let Some(length) = memchr(quote, &bytes[from..]) else {
            return if is_at_end { Quoted::Open } else { Quoted::NeedMore };
        };
        let close = from + length;
        match bytes.get(close + 1) {
            Some(&next) if next == quote => {
                has_doubled = true;
                from = close + 2;
            }
            None if !is_at_end => return Quoted::NeedMore,
            Some(_) | None => {
                let field = Field { start: open + 1, end: close, is_quoted: true, has_doubled };
                return Quoted::Field(field, close + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one byte at a time, so that every place in a record is once the end of what is known.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            out[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    const DIALECT: Dialect = Dialect { delimiter: b',', quote: b'"', comment: Some(b'#') };

    type Taken = Vec<(u64, Vec<String>)>;

    fn take_apart(text: &str, n_fields: Option<usize>) -> Result<Taken, RecordError> {
        let mut records = Records::new(Slowly(text.as_bytes()), DIALECT, 0, 1);
        records.n_fields = n_fields;
        let mut taken = Vec::new();
        while records.read()? {
            let fields = records.fields().iter().map(|&field| {
                let mut text = Vec::new();
                records.append(field, &mut text);
                format!("{}{}", if field.is_quoted { "q:" } else { "" }, String::from_utf8(text).unwrap())
            });
            taken.push((records.line(), fields.collect()));
        }
        assert_eq!(records.position(), text.len() as u64);
        Ok(taken)
    }

    #[test]
    fn records_have_their_fields_and_lines() {
        type Case<'a> = (&'a str, &'a [(u64, &'a [&'a str])]);
        let cases: &[Case<'_>] = &[
            ("a,b\n1,2\n", &[(1, &["a", "b"]), (2, &["1", "2"])]),
            ("a,b\r\n1,2", &[(1, &["a", "b"]), (2, &["1", "2"])]),
            ("a,b\r1,2\r", &[(1, &["a", "b"]), (2, &["1", "2"])]),
            ("\n\na,\n\n,b\n", &[(3, &["a", ""]), (5, &["", "b"])]),
            ("# \"open\na,b\n#\n1,2#\n#end", &[(2, &["a", "b"]), (4, &["1", "2#"])]),
            ("\"a\nb\",c\nd,\"\"\n", &[(1, &["q:a\nb", "c"]), (3, &["d", "q:"])]),
            ("\"say \"\"hi\"\"\",5\" pipe\n", &[(1, &["q:say \"hi\"", "5\" pipe"])]),
            ("\"a\" ,\"b\"  \n", &[(1, &["q:a", "q:b"])]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let expected: Taken = expected.iter().map(|(line, f)| (*line, f.iter().map(|&s| s.to_owned()).collect())).collect();
            assert_eq!(take_apart(text, None).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn blank_lines_of_one_column_are_records() {
        let taken = take_apart("1\n\n\"\"\n", Some(1)).unwrap();
        assert_eq!(taken, [(1, vec!["1".to_owned()]), (2, vec![String::new()]), (3, vec!["q:".to_owned()])]);
    }

    #[test]
    fn what_cannot_be_meant_has_its_line() {
        for (text, n_fields, at, words) in [
            ("a,b\n1,\"x\n2,y\n3,z\n", None, 2, "does not end"),
            ("a,b\n\"1\n\",\"x\n", None, 3, "does not end"),
            ("a\n\"x\"y\n", None, 2, "after the closing quote"),
            ("a,b\n1,2\n3\n", Some(2), 3, "1 fields where 2"),
            ("\"\n\n\",2\n1,2,3\n", Some(2), 4, "3 fields where 2"),
        ] {
            let Err(RecordError::At(line, what)) = take_apart(text, n_fields) else { panic!("{text:?} is accepted") };
            assert!(line == at && what.contains(words), "{text:?}: {line}: {what}");
        }
    }
}
