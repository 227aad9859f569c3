//! The names people use for column types, in options, tables and JSON.
//!
//! Arrow has several physical forms of one idea (three kinds of strings); people see one name.

use arrow::datatypes::{DataType, TimeUnit};

/// The name of a column type: `i64`, `f64`, `string`, `date`, `timestamp`, `decimal(10,2)`, `list<string>` ...
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Int8 => "i8".to_owned(),
        DataType::Int16 => "i16".to_owned(),
        DataType::Int32 => "i32".to_owned(),
        DataType::Int64 => "i64".to_owned(),
        DataType::UInt8 => "u8".to_owned(),
        DataType::UInt16 => "u16".to_owned(),
        DataType::UInt32 => "u32".to_owned(),
        DataType::UInt64 => "u64".to_owned(),
        DataType::Float16 => "f16".to_owned(),
        DataType::Float32 => "f32".to_owned(),
        DataType::Float64 => "f64".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "binary".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(zone)) => format!("timestamp({zone})"),
        DataType::Duration(_) => "duration".to_owned(),
        DataType::Interval(_) => "interval".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => format!("list<{}>", type_name(field.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: entries are a struct of two")]
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("map<{}, {}>", type_name(fields[0].data_type()), type_name(fields[1].data_type()))
            }
            other => format!("map<{}>", type_name(other)),
        },
        DataType::Union(fields, _) => {
            let kinds: Vec<String> = fields.iter().map(|(_, field)| type_name(field.data_type())).collect();
            format!("union<{}>", kinds.join(", "))
        }
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
    }
}

/// The name of a type as [`parse_type`] reads it back, which tells the units of times apart.
pub(crate) fn option_name(data_type: &DataType) -> String {
    let name = type_name(data_type);
    if parse_type(&name).as_ref() == Ok(data_type) { name } else { data_type.to_string() }
}

/// The type called `name`, by the names of [`type_name`] or by Arrow's own (`Timestamp(ns)`).
///
/// # Errors
/// When there is no such type; the text lists the usual ones.
pub fn parse_type(name: &str) -> Result<DataType, String> {
    let plain = match name {
        "bool" => DataType::Boolean,
        "i8" => DataType::Int8,
        "i16" => DataType::Int16,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "u8" => DataType::UInt8,
        "u16" => DataType::UInt16,
        "u32" => DataType::UInt32,
        "u64" => DataType::UInt64,
        "f32" => DataType::Float32,
        "f64" => DataType::Float64,
        "string" => DataType::Utf8,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => return parse_decimal(other).or_else(|| other.parse().ok()).ok_or_else(|| unknown_type(other)),
    };
    Ok(plain)
}

/// Whether `data_type`, or a type within it, is one that `is_wanted`.
pub(crate) fn any_type(data_type: &DataType, is_wanted: &dyn Fn(&DataType) -> bool) -> bool {
    if is_wanted(data_type) {
        return true;
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: every other type has none within it")]
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => any_type(field.data_type(), is_wanted),
        DataType::RunEndEncoded(_, values) => any_type(values.data_type(), is_wanted),
        DataType::Dictionary(_, values) => any_type(values, is_wanted),
        DataType::Struct(fields) => fields.iter().any(|field| any_type(field.data_type(), is_wanted)),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| any_type(field.data_type(), is_wanted)),
        _ => false,
    }
}

/// Most values that one value of a column may consist of by its type alone: a list of fixed size takes its room whether
/// anything is in it or not.
const MAX_WIDTH: u64 = 1 << 20;

/// Fails when a single value of `data_type` takes an absurd amount of memory by the type alone.
pub(crate) fn check_width(data_type: &DataType) -> Result<(), String> {
    let width = width(data_type);
    if width > MAX_WIDTH {
        return Err(format!(
            "one value of type {} takes room for {width} values, at most {MAX_WIDTH} are allowed",
            type_name(data_type)
        ));
    }
    Ok(())
}

fn width(data_type: &DataType) -> u64 {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: every other type has values of one size")]
    match data_type {
        DataType::FixedSizeBinary(length) => u64::try_from(*length).unwrap_or(u64::MAX),
        DataType::FixedSizeList(field, length) => {
            u64::try_from(*length).unwrap_or(u64::MAX).saturating_mul(width(field.data_type()).max(1))
        }
        DataType::Struct(fields) => fields.iter().fold(1, |sum, field| sum.saturating_add(width(field.data_type()))),
        DataType::Union(fields, _) => fields.iter().fold(1, |sum, (_, field)| sum.saturating_add(width(field.data_type()))),
        DataType::Dictionary(_, values) => width(values),
        DataType::RunEndEncoded(_, values) => width(values.data_type()),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::Map(field, _) => width(field.data_type()),
        _ => 1,
    }
}

fn unknown_type(name: &str) -> String {
    format!("unknown type \"{name}\"; there are bool, i8 to i64, u8 to u64, f32, f64, string, date, timestamp, decimal(p,s)")
}

fn parse_decimal(name: &str) -> Option<DataType> {
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let is_possible = (1..=38).contains(&precision) && i16::from(scale) <= i16::from(precision);
    is_possible.then_some(DataType::Decimal128(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in ["bool", "i8", "u64", "f32", "f64", "string", "date", "timestamp", "decimal(10,2)"] {
            assert_eq!(type_name(&parse_type(name).unwrap()), name);
        }
        assert_eq!(parse_type("Timestamp(ns)").unwrap(), DataType::Timestamp(TimeUnit::Nanosecond, None));
        for wrong in ["int", "decimal(50,2)", "decimal(4,5)", ""] {
            assert!(parse_type(wrong).is_err(), "{wrong}");
        }
    }
}
