//! Cutting text files at line ends: the bytes of a slice, and what the end of a slice says about quotes.
//!
//! A slice `[start, end)` holds the lines that begin in it, so any set of cut points gives every line to exactly one
//! slice, and nobody has to look for line ends before the work is handed out. A line end inside a quoted field would break
//! this; [`ends_inside_quotes`] finds it: the first slice knows that it begins outside quotes, and if it also ends outside
//! then so begins the second, and so on. Every slice checks itself, so one that begins inside quotes is never accepted
//! together with all of its predecessors.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// The first position at or after `position` where a line begins, or the file's length.
pub(crate) fn line_start(file: &mut File, position: u64, nbytes: u64) -> io::Result<u64> {
    if position == 0 {
        return Ok(0);
    }
    if position >= nbytes {
        return Ok(nbytes);
    }
    file.seek(SeekFrom::Start(position - 1))?;
    let mut at = position - 1;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n_read = file.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(nbytes);
        }
        if let Some(found) = buffer[..n_read].iter().position(|&byte| byte == b'\n') {
            return Ok(at + found as u64 + 1);
        }
        at += n_read as u64;
    }
}

/// The lines that begin in `[start, end)`, and the position of the first byte.
pub(crate) fn read_lines(file: &mut File, start: u64, end: u64) -> io::Result<(Vec<u8>, u64)> {
    let nbytes = file.metadata()?.len();
    let first = line_start(file, start, nbytes)?;
    let last = line_start(file, end, nbytes)?;
    file.seek(SeekFrom::Start(first))?;
    let length = last.saturating_sub(first);
    let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut data)?;
    Ok((data, first))
}

/// Number of line ends before `position`.
pub(crate) fn n_lines_before(file: &mut File, position: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut left = file.take(position);
    let mut buffer = vec![0; 64 << 10];
    let mut n_lines = 0;
    loop {
        let n_read = left.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(n_lines);
        }
        n_lines += buffer[..n_read].iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
}

/// Whether `data`, which begins at the beginning of a record, ends within a quoted field.
///
/// As in the CSV reader, a quote opens a field only as its first character, and a doubled one stands for itself.
pub(crate) fn ends_inside_quotes(data: &[u8], delimiter: u8, quote: u8) -> bool {
    #[derive(PartialEq)]
    enum State {
        FieldStart,
        Plain,
        Quoted,
        QuoteInQuoted,
    }
    if !data.contains(&quote) {
        return false;
    }
    let mut state = State::FieldStart;
    for &byte in data {
        let ends_field = byte == delimiter || byte == b'\n' || byte == b'\r';
        state = match state {
            State::FieldStart if byte == quote => State::Quoted,
            State::Quoted if byte == quote => State::QuoteInQuoted,
            State::Quoted => State::Quoted,
            State::QuoteInQuoted if byte == quote => State::Quoted,
            State::FieldStart | State::Plain | State::QuoteInQuoted if ends_field => State::FieldStart,
            State::FieldStart | State::Plain | State::QuoteInQuoted => State::Plain,
        };
    }
    state == State::Quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn any_cut_points_give_every_line_to_one_slice() {
        for text in ["", "\n", "a\n", "a", "a\nbb\n\nccc\r\ndddd", "\n\n\n", "long line without an end\nx\n"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let nbytes = text.len() as u64;
            for step in 1..=nbytes + 1 {
                let mut whole = Vec::new();
                let mut start = 0;
                while start < nbytes {
                    let (lines, first) = read_lines(&mut file, start, start + step).unwrap();
                    assert!(lines.is_empty() || first as usize == whole.len());
                    whole.extend(lines);
                    start += step;
                }
                assert_eq!(whole, text.as_bytes(), "step {step}");
            }
        }
    }

    #[test]
    fn open_quotes_are_seen() {
        let cases = [
            ("a,b\n1,2\n", false),
            ("a,\"b\nc", true),
            ("a,\"b\nc\"\n", false),
            ("a,5\" pipe\n", false),
            ("a,\"5\"\" pipe\"\n", false),
            ("a,\"5\"\" pipe\n", true),
            ("\"", true),
            ("\"\"", false),
            ("\"a\"b\"\n", false),
        ];
        for (text, is_open) in cases {
            assert_eq!(ends_inside_quotes(text.as_bytes(), b',', b'"'), is_open, "{text:?}");
        }
    }
}
