//! The type of a column by its values: what has been seen, as a set, so that guesses of many files are joined by union.

use arrow::datatypes::{DataType, TimeUnit};

use super::number::{self, Shape};
use super::time;

/// Everything that values of a column have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guess(u16);

const BOOLEAN: u16 = 1;
/// Within 64 bits and a sign.
const INTEGER: u16 = 1 << 1;
const NEGATIVE: u16 = 1 << 2;
/// Beyond the largest i64, within u64.
const UNSIGNED: u16 = 1 << 3;
/// Beyond both, of 38 digits at most.
const LONG: u16 = 1 << 4;
const FLOAT: u16 = 1 << 5;
const DATE: u16 = 1 << 6;
const TIME: u16 = 1 << 7;
/// Digits below the microsecond.
const NANOS: u16 = 1 << 8;
/// A moment (or day) that no count of nanoseconds reaches.
const FAR: u16 = 1 << 9;
const TEXT: u16 = 1 << 10;
/// A word for what is no finite number, where text could have stood: a number among numbers, text otherwise.
const WORD: u16 = 1 << 11;

const NUMBERS: u16 = INTEGER | NEGATIVE | UNSIGNED | LONG | FLOAT | WORD;
const TIMES: u16 = DATE | TIME | NANOS | FAR;

/// Digits that any decimal holds.
const MAX_DIGITS: usize = 38;

impl Guess {
    /// Nothing but text.
    pub(crate) const TEXT: Self = Self(TEXT);
    /// Truth values.
    pub(crate) const BOOLEAN: Self = Self(BOOLEAN);

    /// What one value is.
    pub(crate) fn of(text: &[u8]) -> Self {
        Self(classify(text))
    }

    /// What a number is, given by its text; anything else is text.
    pub(crate) fn of_number(text: &[u8]) -> Self {
        Self(match number::shape(text) {
            Some(Shape::Integer) => integer(text),
            Some(Shape::Float) => FLOAT,
            None => TEXT,
        })
    }

    /// What a text is that could have been a number: JSON has no other way to spell what is not finite.
    pub(crate) fn of_word(text: &str) -> Self {
        Self(if matches!(text, "NaN" | "Infinity" | "-Infinity") { WORD } else { TEXT })
    }

    /// Take another value into account.
    pub(crate) fn see(&mut self, text: &[u8]) {
        if self.0 & TEXT == 0 {
            self.0 |= classify(text);
        }
    }

    /// Both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The narrowest type that holds every value seen; `Null` when none was.
    pub(crate) fn data_type(self) -> DataType {
        let seen = self.0;
        if seen == 0 {
            DataType::Null
        } else if seen == BOOLEAN {
            DataType::Boolean
        } else if seen & !NUMBERS == 0 && seen != WORD {
            number_type(seen)
        } else if seen == DATE || seen == DATE | FAR {
            DataType::Date32
        } else if seen & !TIMES == 0 && seen & (NANOS | FAR) != NANOS | FAR {
            let unit = if seen & NANOS == 0 { TimeUnit::Microsecond } else { TimeUnit::Nanosecond };
            DataType::Timestamp(unit, None)
        } else {
            DataType::Utf8
        }
    }
}

fn number_type(seen: u16) -> DataType {
    if seen & (FLOAT | WORD) != 0 {
        DataType::Float64
    } else if seen & LONG != 0 || seen & (UNSIGNED | NEGATIVE) == UNSIGNED | NEGATIVE {
        DataType::Decimal128(38, 0)
    } else if seen & UNSIGNED != 0 {
        DataType::UInt64
    } else {
        DataType::Int64
    }
}

fn classify(text: &[u8]) -> u16 {
    match number::shape(text) {
        Some(Shape::Integer) => return integer(text),
        Some(Shape::Float) => return FLOAT,
        None => {}
    }
    if text.eq_ignore_ascii_case(b"true") || text.eq_ignore_ascii_case(b"false") {
        return BOOLEAN;
    }
    if let Some(days) = time::date(text) {
        // 1677-09-22 to 2262-04-11.
        return if (-106_751..=106_751).contains(&days) { DATE } else { DATE | FAR };
    }
    match time::moment(text) {
        Some(moment) => {
            let is_far = moment.seconds.checked_mul(1_000_000_000).is_none_or(|n| n.checked_add(moment.nanos.into()).is_none());
            let has_nanos = !moment.nanos.is_multiple_of(1000);
            TIME | if is_far { FAR } else { 0 } | if has_nanos { NANOS } else { 0 }
        }
        None => TEXT,
    }
}

fn integer(text: &[u8]) -> u16 {
    let sign = if text.first() == Some(&b'-') { NEGATIVE } else { 0 };
    if text.len() <= 18 {
        return INTEGER | sign;
    }
    let text = String::from_utf8_lossy(text);
    if text.parse::<i64>().is_ok() {
        INTEGER | sign
    } else if text.parse::<u64>().is_ok() {
        UNSIGNED
    } else if text.trim_start_matches('-').trim_start_matches('0').len() <= MAX_DIGITS {
        LONG | sign
    } else {
        TEXT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(texts: &[&str]) -> DataType {
        texts.iter().fold(Guess::default(), |guess, text| guess.union(Guess::of(text.as_bytes()))).data_type()
    }

    #[test]
    fn types_hold_all_that_was_seen() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let cases: &[(&[&str], DataType)] = &[
            (&[], DataType::Null),
            (&["1", "-2"], DataType::Int64),
            (&["1", "2.5"], DataType::Float64),
            (&["1", "NaN"], DataType::Float64),
            (&["9223372036854775808", "1"], DataType::UInt64),
            (&["9223372036854775808", "-1"], DataType::Decimal128(38, 0)),
            (&["-9223372036854775808"], DataType::Int64),
            (&["18446744073709551616"], DataType::Decimal128(38, 0)),
            (&["123456789012345678901234567890123456789"], DataType::Utf8),
            (&["true", "False"], DataType::Boolean),
            (&["true", "1"], DataType::Utf8),
            (&["2024-01-01"], DataType::Date32),
            (&["2024-01-01", "9999-01-01"], DataType::Date32),
            (&["2024-01-01", "2024-01-01T10:00:00"], micros.clone()),
            (&["2024-01-01T10:00:00.5"], micros.clone()),
            (&["9999-12-31T10:00:00.5"], micros),
            (&["2024-01-01T10:00:00.123456789"], DataType::Timestamp(TimeUnit::Nanosecond, None)),
            (&["2024-01-01T10:00:00.123456789", "9999-12-31"], DataType::Utf8),
            (&["2024-02-30"], DataType::Utf8),
            (&["2024-01-01", "0000-00-00"], DataType::Utf8),
            (&["2024-01-01", "5"], DataType::Utf8),
            (&["+5"], DataType::Utf8),
        ];
        for (texts, expected) in cases {
            assert_eq!(guess(texts), *expected, "{texts:?}");
        }
    }
}
