//! Where a text file may be cut, so that several tasks can read it: positions at which a record begins.
//!
//! A line end is such a position unless it stands in a quoted field. Reading from the beginning tells; a file too long for that
//! is read from around the wanted position, once as if the position were outside of quotes and once as if it were inside, and
//! what makes records of the right number of fields is what it is. That is a guess, so the task before the cut checks it: its
//! last record must end exactly there. The first slice begins right; if each also ends where the next begins, all are right.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use memchr::{memchr, memchr2};

use super::records::{Dialect, RecordError, Records};

/// How far is read for a guess: as little as decides it.
const WINDOWS: [u64; 3] = [64 << 10, 1 << 20, 16 << 20];

/// For each of `wanted`, in ascending order, the first position at or after it where a record begins.
///
/// # Errors
/// When the file cannot be read or is no CSV.
pub(crate) fn exact<R: Read>(records: &mut Records<R>, wanted: &[u64]) -> Result<Vec<u64>, RecordError> {
    let mut cuts = Vec::with_capacity(wanted.len());
    for &position in wanted {
        records.stop_at(position);
        while records.read()? {}
        cuts.push(records.position().max(position));
    }
    Ok(cuts)
}

/// What may be the first position at or after `wanted` where a record of `n_fields` fields begins.
pub(crate) fn likely(file: &mut File, wanted: u64, dialect: Dialect, n_fields: usize) -> io::Result<u64> {
    let nbytes = file.metadata()?.len();
    // The byte before tells whether a record begins right there.
    let from = before_quotes(file, wanted.saturating_sub(1), dialect.quote)?;
    for window in WINDOWS {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut *file).take(window).read_to_end(&mut bytes)?;
        let is_all = from + bytes.len() as u64 >= nbytes;
        let outside = judge(&[], &bytes, is_all, dialect, n_fields);
        // A letter after the quote, lest the two quotes of a closed field look like a doubled one.
        let inside = judge(&[dialect.quote, b'x'], &bytes, is_all, dialect, n_fields);
        let decided = match (outside.start, inside.start) {
            (Some(start), _) if outside.is_possible && (!inside.is_possible || inside.start.is_none()) => Some(start),
            (_, Some(start)) if inside.is_possible && !outside.is_possible => Some(start),
            (Some(start), Some(other)) if outside.is_possible && start == other => Some(start),
            (Some(start), _) if outside.is_possible && outside.n_odd < inside.n_odd => Some(start),
            (_, Some(start)) if inside.is_possible && inside.n_odd < outside.n_odd => Some(start),
            _ => None,
        };
        match decided {
            Some(start) => return Ok(from + start),
            None if is_all || window == WINDOWS[WINDOWS.len() - 1] => break,
            None => {}
        }
    }
    // Nothing speaks for either. Quotes are rarer than lines.
    line_start(file, wanted, nbytes)
}

/// `position`, or the beginning of the quotes right before it: from between the two of a pair nothing looks right.
fn before_quotes(file: &mut File, position: u64, quote: u8) -> io::Result<u64> {
    let from = position.saturating_sub(256);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    (&mut *file).take(position - from).read_to_end(&mut bytes)?;
    let n_quotes = bytes.iter().rev().take_while(|&&byte| byte == quote).count();
    Ok(position - n_quotes as u64)
}

struct Verdict {
    /// Whether everything read may be CSV.
    is_possible: bool,
    /// Where the first whole record begins, if one was read.
    start: Option<u64>,
    /// Fields that are allowed and hardly ever meant.
    n_odd: usize,
}

/// Read `before` and `bytes` as CSV of which the first record is only a part.
fn judge(before: &[u8], bytes: &[u8], is_all: bool, dialect: Dialect, n_fields: usize) -> Verdict {
    let length = (before.len() + bytes.len()) as u64;
    let mut records = Records::new(Cursor::new(before).chain(bytes), dialect, 0, 1);
    let mut start = None;
    let mut n_odd = 0;
    // The rest of the first record, or of the line end before it.
    records.stop_at(1);
    loop {
        match records.read() {
            Ok(_) if records.position() == length && !is_all => return Verdict { is_possible: true, start, n_odd },
            Ok(false) if start.is_some() => return Verdict { is_possible: true, start, n_odd },
            Ok(is_record) if start.is_none() => {
                n_odd += if is_record { records.n_odd_fields() } else { 0 };
                start = Some(records.position() - before.len() as u64);
                records.stop_at(u64::MAX);
                records.expect_fields(n_fields);
            }
            Ok(_) => n_odd += records.n_odd_fields(),
            // What is cut off at the end of the window proves nothing.
            Err(_) if !is_all && (records.is_cut_off() || records.position() == length) => {
                return Verdict { is_possible: true, start, n_odd };
            }
            Err(_) => return Verdict { is_possible: false, start, n_odd },
        }
    }
}

/// The first position at or after `position` where a line begins, or the file's length.
pub(crate) fn line_start(file: &mut File, position: u64, nbytes: u64) -> io::Result<u64> {
    if position == 0 || position >= nbytes {
        return Ok(position.min(nbytes));
    }
    let mut at = position - 1;
    file.seek(SeekFrom::Start(at))?;
    let mut buffer = vec![0; 64 << 10];
    let mut follows_return = false;
    loop {
        let n_read = file.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(nbytes);
        }
        let bytes = &buffer[..n_read];
        if follows_return {
            return Ok(at + u64::from(bytes[0] == b'\n'));
        }
        if let Some(found) = memchr2(b'\n', b'\r', bytes) {
            let after = at + found as u64 + 1;
            match (bytes[found], bytes.get(found + 1)) {
                (b'\n', _) => return Ok(after),
                (_, Some(b'\n')) => return Ok(after + 1),
                (_, Some(_)) => return Ok(after),
                (_, None) => follows_return = true,
            }
        }
        at += n_read as u64;
    }
}

/// The first position at or after `position` that follows a `\n`, or the file's length: where lines of JSON begin.
pub(crate) fn after_line_feed(file: &mut File, position: u64, nbytes: u64) -> io::Result<u64> {
    if position == 0 || position >= nbytes {
        return Ok(position.min(nbytes));
    }
    let mut at = position - 1;
    file.seek(SeekFrom::Start(at))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n_read = file.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(nbytes);
        }
        if let Some(found) = memchr(b'\n', &buffer[..n_read]) {
            return Ok(at + found as u64 + 1);
        }
        at += n_read as u64;
    }
}

/// Number of lines that end before `position`.
pub(crate) fn n_lines_before(file: &mut File, position: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut left = file.take(position);
    let mut buffer = vec![0; 64 << 10];
    let mut n_lines = 0;
    let mut last = b'\n';
    loop {
        let n_read = left.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(n_lines + u64::from(last == b'\r'));
        }
        for &byte in &buffer[..n_read] {
            // A return counts once it is known that no line feed follows.
            n_lines += u64::from(byte == b'\n') + u64::from(last == b'\r' && byte != b'\n');
            last = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const DIALECT: Dialect = Dialect { delimiter: b',', quote: b'"', comment: None };

    fn file_of(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn starts(text: &str) -> Vec<u64> {
        let mut records = Records::new(text.as_bytes(), DIALECT, 0, 1);
        let mut starts = vec![0];
        while records.read().unwrap() {
            starts.push(records.position());
        }
        starts
    }

    fn rows(n_rows: usize, row: impl Fn(usize) -> String) -> String {
        (0..n_rows).map(row).collect()
    }

    #[test]
    fn records_begin_where_they_do_wherever_a_file_is_cut() {
        let texts = [
            rows(15, |n| format!("{n},plain\n")),
            rows(15, |n| format!("{n},\"line one\nline, two of {n}\"\n")),
            rows(15, |n| format!("{n},\"says \"\"{n}\"\",\n\"\"\"\r\n")),
            rows(15, |n| if n % 3 == 0 { format!("{n},\"a\n\n\nb\"\n") } else { format!("{n},5\" pipe\n") }),
            format!("1,\"{}\"\n2,y\n", "x\n".repeat(60)),
            rows(15, |n| format!("{n},b\r")),
        ];
        for text in texts {
            let starts = starts(&text);
            let mut file = file_of(&text);
            for wanted in 1..text.len() as u64 {
                let first = *starts.iter().find(|&&start| start >= wanted).unwrap();
                let mut records = Records::new(text.as_bytes(), DIALECT, 0, 1);
                assert_eq!(exact(&mut records, &[wanted]).unwrap(), [first], "{text:?} at {wanted}");
                let guess = likely(&mut file, wanted, DIALECT, 2).unwrap();
                assert_eq!(guess, first, "{text:?} at {wanted}");
            }
        }
    }

    #[test]
    fn lines_are_found_and_counted_whatever_ends_them() {
        for (text, line_starts) in [("a\nb\n", &[2, 4][..]), ("a\r\nb", &[3, 4]), ("a\rb\rc", &[2, 4, 5]), ("abc", &[3])] {
            let mut file = file_of(text);
            let nbytes = text.len() as u64;
            for position in 1..nbytes {
                let first = *line_starts.iter().find(|&&start| start >= position).unwrap();
                assert_eq!(line_start(&mut file, position, nbytes).unwrap(), first, "{text:?} {position}");
            }
            assert_eq!(
                n_lines_before(&mut file, nbytes).unwrap(),
                text.replace("\r\n", "\n").matches(['\n', '\r']).count() as u64
            );
        }
    }
}
