//! Values of a column from text. Every value is of the type in full, or an error that says which is not.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanBuilder, GenericStringBuilder, OffsetSizeTrait, PrimitiveArray, PrimitiveBuilder,
    StringArray, StringViewBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use super::guess::Guess;
use super::{number, time};
use crate::types::{option_name, type_name};

/// The texts of a column; `None` is no value.
pub(crate) trait Texts {
    fn len(&self) -> usize;
    fn get(&self, row: usize) -> Option<&[u8]>;
}

impl Texts for StringArray {
    fn len(&self) -> usize {
        Array::len(self)
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        self.is_valid(row).then(|| self.value(row).as_bytes())
    }
}

/// A value that is not of its column's type.
#[derive(Debug, PartialEq)]
pub(crate) struct BadValue {
    pub(crate) row: usize,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// A type that holds it and what else the type was chosen for.
    pub(crate) better: String,
}

/// Where the type of a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Guessed from values: what it does not hold exactly was not meant.
    Guessed,
    /// Given by somebody, who may want numbers rounded.
    Given,
}

/// The values of `texts` as a column of type `to`.
///
/// # Errors
/// At the first value that is not of the type.
pub(crate) fn column(texts: &impl Texts, to: &DataType, origin: Origin) -> Result<ArrayRef, BadValue> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: rare types go Arrow's way")]
    match to {
        DataType::Boolean => booleans(texts, to, origin),
        DataType::Int8 => primitives::<Int8Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::Int16 => primitives::<Int16Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::Int32 => primitives::<Int32Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::Int64 => primitives::<Int64Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::UInt8 => primitives::<UInt8Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::UInt16 => primitives::<UInt16Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::UInt32 => primitives::<UInt32Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::UInt64 => primitives::<UInt64Type>(texts, to, |text| plain(text)?.parse().ok()),
        DataType::Float32 => primitives::<Float32Type>(texts, to, |text| float(text, origin, 24, f32::is_infinite)),
        DataType::Float64 => primitives::<Float64Type>(texts, to, |text| float(text, origin, 53, f64::is_infinite)),
        DataType::Utf8 => strings::<i32>(texts),
        DataType::LargeUtf8 => strings::<i64>(texts),
        DataType::Utf8View => string_views(texts),
        DataType::Date32 => primitives::<Date32Type>(texts, to, time::date),
        DataType::Timestamp(TimeUnit::Second, None) => primitives::<TimestampSecondType>(texts, to, |text| moment(text, 1)),
        DataType::Timestamp(TimeUnit::Millisecond, None) => {
            primitives::<TimestampMillisecondType>(texts, to, |text| moment(text, 1000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            primitives::<TimestampMicrosecondType>(texts, to, |text| moment(text, 1_000_000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            primitives::<TimestampNanosecondType>(texts, to, |text| moment(text, 1_000_000_000))
        }
        DataType::Decimal128(precision, scale) => {
            let parse = |text: &[u8]| match number::decimal(text.trim_ascii(), *precision, *scale) {
                Some((value, is_exact)) if is_exact || origin == Origin::Given => Some(value),
                Some(_) | None => None,
            };
            primitives::<Decimal128Type>(texts, to, parse)
        }
        other => by_cast(texts, other),
    }
}

fn bad(row: usize, text: &[u8], to: &DataType) -> BadValue {
    let text_of: String = String::from_utf8_lossy(text).chars().take(60).collect();
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: what is rare is text when it is nothing else")]
    let seen = match to {
        DataType::Boolean => Guess::BOOLEAN,
        kind if kind.is_integer() => Guess::of(b"0"),
        DataType::Float32 | DataType::Float64 => Guess::of(b"0.5"),
        DataType::Date32 => Guess::of(b"1970-01-01"),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => Guess::of(b"1970-01-01T00:00:00.000000001"),
        DataType::Timestamp(_, None) => Guess::of(b"1970-01-01T00:00:00"),
        _ => Guess::TEXT,
    };
    let better = seen.union(Guess::of(text)).data_type();
    // A guess that comes to the type that has just failed holds the value only after rounding.
    let better = if &better == to { DataType::Utf8 } else { better };
    BadValue { row, reason: format!("{text_of:?} is no {}", type_name(to)), better: option_name(&better) }
}

fn primitives<T: ArrowPrimitiveType>(
    texts: &impl Texts,
    to: &DataType,
    parse: impl Fn(&[u8]) -> Option<T::Native>,
) -> Result<ArrayRef, BadValue> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(texts.len());
    for row in 0..texts.len() {
        match texts.get(row) {
            None => builder.append_null(),
            Some(text) => builder.append_value(parse(text).ok_or_else(|| bad(row, text, to))?),
        }
    }
    let values: PrimitiveArray<T> = builder.finish();
    Ok(Arc::new(values.with_data_type(to.clone())))
}

fn plain(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text.trim_ascii()).ok()
}

fn float<T: std::str::FromStr + Copy>(text: &[u8], origin: Origin, n_bits: u32, is_infinite: fn(T) -> bool) -> Option<T> {
    let text = plain(text)?;
    let value: T = text.parse().ok()?;
    let is_word = !text.bytes().any(|byte| byte.is_ascii_digit());
    let is_held = origin == Origin::Given || number::is_exact_in_float(text, n_bits);
    (is_held && (is_word || !is_infinite(value))).then_some(value)
}

fn moment(text: &[u8], per_second: i64) -> Option<i64> {
    if let Some(days) = time::date(text) {
        return i64::from(days).checked_mul(86_400)?.checked_mul(per_second);
    }
    let moment = time::moment(text)?;
    let nanos_each = 1_000_000_000 / per_second;
    let nanos = i64::from(moment.nanos);
    // Digits below the unit are not cut.
    if nanos % nanos_each != 0 {
        return None;
    }
    // Before 1970 the seconds may be out of range where their sum with the fraction is not.
    i64::try_from(i128::from(moment.seconds) * i128::from(per_second) + i128::from(nanos / nanos_each)).ok()
}

fn booleans(texts: &impl Texts, to: &DataType, origin: Origin) -> Result<ArrayRef, BadValue> {
    let mut builder = BooleanBuilder::with_capacity(texts.len());
    let is = |text: &[u8], words: &[&[u8]]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    for row in 0..texts.len() {
        let Some(text) = texts.get(row) else {
            builder.append_null();
            continue;
        };
        let value = if is(text, &[b"true"]) || origin == Origin::Given && is(text, &[b"t", b"1", b"yes", b"y"]) {
            true
        } else if is(text, &[b"false"]) || origin == Origin::Given && is(text, &[b"f", b"0", b"no", b"n"]) {
            false
        } else {
            return Err(bad(row, text, to));
        };
        builder.append_value(value);
    }
    Ok(Arc::new(builder.finish()))
}

fn utf8(row: usize, text: &[u8]) -> Result<&str, BadValue> {
    std::str::from_utf8(text).map_err(|_| {
        let text_of: String = String::from_utf8_lossy(text).chars().take(60).collect();
        BadValue { row, reason: format!("{text_of:?} is not UTF-8; convert the file"), better: String::new() }
    })
}

fn strings<O: OffsetSizeTrait>(texts: &impl Texts) -> Result<ArrayRef, BadValue> {
    let mut builder = GenericStringBuilder::<O>::with_capacity(texts.len(), 8 * texts.len());
    for row in 0..texts.len() {
        match texts.get(row) {
            None => builder.append_null(),
            Some(text) => builder.append_value(utf8(row, text)?),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn string_views(texts: &impl Texts) -> Result<ArrayRef, BadValue> {
    let mut builder = StringViewBuilder::with_capacity(texts.len());
    for row in 0..texts.len() {
        match texts.get(row) {
            None => builder.append_null(),
            Some(text) => builder.append_value(utf8(row, text)?),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// Types that only `types` can ask for: Arrow's conversion, and its failure traced to the row.
fn by_cast(texts: &impl Texts, to: &DataType) -> Result<ArrayRef, BadValue> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let strings = strings::<i32>(texts)?;
    let error = match cast_with_options(&strings, to, &strict) {
        Ok(values) => return Ok(values),
        Err(error) => error,
    };
    for row in 0..texts.len() {
        if let Some(text) = texts.get(row)
            && cast_with_options(&strings.slice(row, 1), to, &strict).is_err()
        {
            return Err(bad(row, text, to));
        }
    }
    Err(BadValue { row: 0, reason: error.to_string(), better: option_name(&DataType::Utf8) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str], to: &str, origin: Origin) -> Result<Vec<String>, BadValue> {
        let texts = StringArray::from(texts.iter().map(|&text| (text != "-").then_some(text)).collect::<Vec<_>>());
        let values = column(&texts, &crate::parse_type(to).unwrap(), origin)?;
        assert_eq!(values.data_type(), &crate::parse_type(to).unwrap());
        let format = arrow::util::display::FormatOptions::default().with_null("null");
        let shown = arrow::util::display::ArrayFormatter::try_new(&values, &format).unwrap();
        Ok((0..Array::len(&values)).map(|row| shown.value(row).to_string()).collect())
    }

    #[test]
    fn values_are_read_in_full() {
        for (texts, to, expected) in [
            (&["1", "-", "-7"][..], "i64", &["1", "null", "-7"][..]),
            (&["18446744073709551615"], "u64", &["18446744073709551615"]),
            (&["1", "2.5", "NaN", "-inf"], "f64", &["1.0", "2.5", "NaN", "-inf"]),
            (&["true", "FALSE"], "bool", &["true", "false"]),
            (&["2024-02-29", "9999-12-31"], "date", &["2024-02-29", "9999-12-31"]),
            (
                &["2024-01-01", "2024-01-01T10:00:00.25", "9999-12-31 23:59:59"],
                "timestamp",
                &["2024-01-01T00:00:00", "2024-01-01T10:00:00.250", "9999-12-31T23:59:59"],
            ),
            (&["1.25", "7"], "decimal(10,2)", &["1.25", "7.00"]),
            (&["a", ""], "string", &["a", ""]),
        ] {
            assert_eq!(read(texts, to, Origin::Guessed).unwrap(), expected, "{to}");
        }
        assert_eq!(read(&["1.239", "-1.235"], "decimal(10,2)", Origin::Given).unwrap(), ["1.24", "-1.24"]);
        assert_eq!(read(&["9007199254740993"], "f64", Origin::Given).unwrap(), ["9007199254740992.0"]);
        assert_eq!(read(&["yes", "0"], "bool", Origin::Given).unwrap(), ["true", "false"]);
    }

    #[test]
    fn nothing_is_cut() {
        for (texts, to, origin, row, better) in [
            (&["1", "1.5"][..], "i64", Origin::Guessed, 1, "f64"),
            (&["1.5"], "i64", Origin::Given, 0, "f64"),
            (&["9223372036854775808"], "i64", Origin::Guessed, 0, "u64"),
            (&["x"], "i64", Origin::Guessed, 0, "string"),
            (&["300"], "u8", Origin::Given, 0, "i64"),
            (&["9007199254740993"], "f64", Origin::Guessed, 0, "string"),
            (&["1e999"], "f64", Origin::Given, 0, "string"),
            (&["2024-01-01", "2024-01-01T10:00:00"], "date", Origin::Guessed, 1, "timestamp"),
            (&["2024-02-30"], "date", Origin::Given, 0, "string"),
            (&["2024-01-01T00:00:00.0000005"], "timestamp", Origin::Given, 0, "Timestamp(ns)"),
            (&["9999-01-01"], "Timestamp(ns)", Origin::Given, 0, "string"),
            (&["1.239"], "decimal(10,2)", Origin::Guessed, 0, "string"),
            (&["123456789.0"], "decimal(10,2)", Origin::Given, 0, "string"),
            (&["1"], "bool", Origin::Guessed, 0, "string"),
        ] {
            let error = read(texts, to, origin).unwrap_err();
            assert_eq!((error.row, error.better.as_str()), (row, better), "{texts:?} as {to}: {error:?}");
            assert!(error.reason.contains(texts[row]), "{error:?}");
        }
    }
}
