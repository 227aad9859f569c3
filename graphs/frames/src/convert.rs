//! Files that differ: a common type for columns that mean the same, and values converted to it exactly.
//!
//! A type is common when it holds what both may hold. Where only the values can tell (integers beside floats, days beside
//! nanoseconds), the type is taken, and a value that it does not hold is an error when it is read; no conversion rounds, wraps or
//! makes a null.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, LargeListArray, ListArray, PrimitiveArray, StructArray, make_array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Field, FieldRef, Fields, Float16Type, Float32Type, Float64Type,
    Int64Type, TimeUnit, UInt64Type,
};

use crate::types::type_name;

/// A type for the values of both.
pub(crate) fn unify(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return Some(a.clone());
    }
    let common = match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        // Keys that number one file's values may be too few for those of all.
        (Dictionary(_, a), Dictionary(_, b)) => Dictionary(Box::new(Int32), Box::new(unify(a, b)?)),
        (Dictionary(_, values), other) | (other, Dictionary(_, values)) => unify(values, other)?,
        (RunEndEncoded(_, values), other) | (other, RunEndEncoded(_, values)) => unify(values.data_type(), other)?,
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => LargeUtf8,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary | LargeBinary | BinaryView | FixedSizeBinary(_)) => {
            LargeBinary
        }
        (Date32 | Date64, Date32 | Date64) => Date64,
        (Date32 | Date64, Timestamp(unit, None)) | (Timestamp(unit, None), Date32 | Date64) => Timestamp(*unit, None),
        (Timestamp(a, None), Timestamp(b, None)) => Timestamp(finer(*a, *b), None),
        // The same moments whatever the clocks that show them.
        (Timestamp(a, Some(zone)), Timestamp(b, Some(other))) => {
            Timestamp(finer(*a, *b), Some(if zone == other { Arc::clone(zone) } else { "UTC".into() }))
        }
        (Time32(a) | Time64(a), Time32(b) | Time64(b)) => match finer(*a, *b) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => Time64(unit),
        },
        (Duration(a), Duration(b)) => Duration(finer(*a, *b)),
        (Struct(a), Struct(b)) => Struct(unify_fields(a, b)?),
        (Map(a, is_sorted), Map(b, _)) => Map(unify_field(a, b)?, *is_sorted),
        _ if is_list(a).is_some() && is_list(b).is_some() => {
            let items = unify_field(is_list(a)?, is_list(b)?)?;
            if matches!((a, b), (LargeList(_) | LargeListView(_), _) | (_, LargeList(_) | LargeListView(_))) {
                LargeList(items)
            } else {
                List(items)
            }
        }
        _ => return unify_numbers(a, b),
    };
    Some(common)
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

fn is_list(data_type: &DataType) -> Option<&FieldRef> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours")]
    match data_type {
        DataType::List(items)
        | DataType::LargeList(items)
        | DataType::ListView(items)
        | DataType::LargeListView(items)
        | DataType::FixedSizeList(items, _) => Some(items),
        _ => None,
    }
}

fn unify_field(a: &Field, b: &Field) -> Option<FieldRef> {
    let common = unify(a.data_type(), b.data_type())?;
    Some(Arc::new(Field::new(a.name(), common, a.is_nullable() || b.is_nullable())))
}

/// Fields by name; those that one of the two does not have are null there.
fn unify_fields(a: &Fields, b: &Fields) -> Option<Fields> {
    let mut fields: Vec<FieldRef> = Vec::with_capacity(a.len());
    for own in a {
        fields.push(match b.find(own.name()) {
            Some((_, other)) => unify_field(own, other)?,
            None => Arc::new(own.as_ref().clone().with_nullable(true)),
        });
    }
    let new = b.iter().filter(|field| a.find(field.name()).is_none());
    fields.extend(new.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
    Some(fields.into())
}

/// Bits of an integer type, and whether it is signed.
fn integer(data_type: &DataType) -> Option<(u32, bool)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours")]
    match data_type {
        DataType::Int8 => Some((8, true)),
        DataType::Int16 => Some((16, true)),
        DataType::Int32 => Some((32, true)),
        DataType::Int64 => Some((64, true)),
        DataType::UInt8 => Some((8, false)),
        DataType::UInt16 => Some((16, false)),
        DataType::UInt32 => Some((32, false)),
        DataType::UInt64 => Some((64, false)),
        _ => None,
    }
}

/// Bits of significand of a float type.
fn float(data_type: &DataType) -> Option<u32> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours")]
    match data_type {
        DataType::Float16 => Some(11),
        DataType::Float32 => Some(24),
        DataType::Float64 => Some(53),
        _ => None,
    }
}

/// Digits before and after the point.
fn decimal(data_type: &DataType) -> Option<(i16, i16)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours")]
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale))),
        _ => None,
    }
}

fn unify_numbers(a: &DataType, b: &DataType) -> Option<DataType> {
    if let (Some((bits_a, signed_a)), Some((bits_b, signed_b))) = (integer(a), integer(b)) {
        if signed_a == signed_b {
            return Some(if bits_a >= bits_b { a.clone() } else { b.clone() });
        }
        let (unsigned, signed) = if signed_a { (bits_b, bits_a) } else { (bits_a, bits_b) };
        // There is no signed type above 64 bits; whether one is needed, the values tell.
        return Some(match signed.max(2 * unsigned) {
            16 => DataType::Int16,
            32 => DataType::Int32,
            _ => DataType::Int64,
        });
    }
    if let (Some(bits_a), Some(bits_b)) = (float(a), float(b)) {
        return Some(if bits_a >= bits_b { a.clone() } else { b.clone() });
    }
    for (float_type, other) in [(a, b), (b, a)] {
        if let (Some(significand), Some((bits, is_signed))) = (float(float_type), integer(other)) {
            let is_held = bits - u32::from(is_signed) <= significand;
            return Some(if is_held { float_type.clone() } else { DataType::Float64 });
        }
    }
    let digits = |data_type: &DataType| {
        decimal(data_type).or_else(|| {
            integer(data_type).map(|(bits, is_signed)| match (bits, is_signed) {
                (8, _) => (3, 0),
                (16, _) => (5, 0),
                (32, _) => (10, 0),
                (_, true) => (19, 0),
                (_, false) => (20, 0),
            })
        })
    };
    let ((whole_a, scale_a), (whole_b, scale_b)) = (digits(a)?, digits(b)?);
    let scale = scale_a.max(scale_b);
    let precision = whole_a.max(whole_b) + scale;
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    match precision {
        1..=38 => Some(DataType::Decimal128(precision, scale)),
        39..=76 => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}

/// `array` as `to`, value by value the same.
///
/// # Errors
/// At a value that `to` does not hold, or when there is no conversion.
pub(crate) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    use DataType::*;
    let from = array.data_type();
    if from == to {
        return Ok(same_nans(array));
    }
    let made: Result<ArrayRef, String> = match (from, to) {
        (Struct(_), Struct(fields)) => {
            let own = array.as_struct();
            let columns = fields.iter().map(|field| match own.column_by_name(field.name()) {
                Some(column) => convert(column, field.data_type()).map_err(|error| format!("{}: {error}", field.name())),
                None => Ok(new_null_array(field.data_type(), own.len())),
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let made = StructArray::try_new_with_length(fields.clone(), columns, own.nulls().cloned(), own.len());
            Ok(Arc::new(made.map_err(|error| error.to_string())?))
        }
        (List(_), List(items)) => {
            let own = array.as_list::<i32>();
            let values = convert(own.values(), items.data_type())?;
            let made = ListArray::try_new(Arc::clone(items), own.offsets().clone(), values, own.nulls().cloned());
            Ok(Arc::new(made.map_err(|error| error.to_string())?))
        }
        (LargeList(_), LargeList(items)) => {
            let own = array.as_list::<i64>();
            let values = convert(own.values(), items.data_type())?;
            let made = LargeListArray::try_new(Arc::clone(items), own.offsets().clone(), values, own.nulls().cloned());
            Ok(Arc::new(made.map_err(|error| error.to_string())?))
        }
        // The kind of list first, with the items as they are; then the items.
        _ if is_list(from).is_some() && matches!(to, List(_) | LargeList(_)) => {
            let items = is_list(from).map(Arc::clone).ok_or_else(|| no_conversion(from, to))?;
            let same_items = if matches!(to, List(_)) { List(items) } else { LargeList(items) };
            convert(&strict_cast(array, &same_items)?, to)
        }
        (Dictionary(_, values), _) if !matches!(to, Dictionary(..)) => convert(&strict_cast(array, values)?, to),
        (RunEndEncoded(_, values), _) => convert(&strict_cast(array, values.data_type())?, to),
        (Date32, Timestamp(unit, _)) => {
            let seconds = exactly::<Date32Type, Int64Type>(array, to, |days| i64::from(days).checked_mul(86_400))?;
            strict_cast(&strict_cast(&seconds, &Timestamp(TimeUnit::Second, None))?, &Timestamp(*unit, None))
        }
        (Date64, Timestamp(unit, _)) => {
            let millis = exactly::<Date64Type, Int64Type>(array, to, Some)?;
            let millis = strict_cast(&millis, &Timestamp(TimeUnit::Millisecond, None))?;
            strict_cast(&millis, &Timestamp(*unit, None))
        }
        _ if integer(from).is_some() && float(to).is_some() => integers_as_floats(array, to),
        (Null, _) => Ok(new_null_array(to, array.len())),
        _ => strict_cast(array, to),
    };
    made.map(|made| same_nans(&made))
}

fn no_conversion(from: &DataType, to: &DataType) -> String {
    format!("no conversion from {} to {}", type_name(from), type_name(to))
}

fn strict_cast(array: &dyn Array, to: &DataType) -> Result<ArrayRef, String> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &strict).map_err(|error| {
        let text = error.to_string();
        let text = text.split_once(" error: ").map_or(text.as_str(), |(_, rest)| rest);
        format!("{text} (from {} to {})", type_name(array.data_type()), type_name(to))
    })
}

fn exactly<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    convert: impl Fn(A::Native) -> Option<B::Native>,
) -> Result<ArrayRef, String> {
    let own = array.as_primitive::<A>();
    let made: Result<PrimitiveArray<B>, String> =
        own.try_unary(|value| convert(value).ok_or_else(|| format!("{value:?} is beyond what {} holds exactly", type_name(to))));
    Ok(Arc::new(made?))
}

fn integers_as_floats(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    // Everything up to 2^53 is exact, and no value is looked at twice in types below that.
    let check_signed = |value: i64| (value as f64 as i128 == i128::from(value)).then_some(value);
    let check_unsigned = |value: u64| (value as f64 as i128 == i128::from(value)).then_some(value);
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: narrower whole numbers are all exact")]
    let checked = match array.data_type() {
        DataType::Int64 => exactly::<Int64Type, Int64Type>(array, to, check_signed)?,
        DataType::UInt64 => exactly::<UInt64Type, UInt64Type>(array, to, check_unsigned)?,
        _ => Arc::clone(array),
    };
    strict_cast(&checked, to)
}

/// `array` with one NaN instead of the many that floats have: what is written with a sign or a payload compares, groups and joins
/// like any other.
fn same_nans(array: &ArrayRef) -> ArrayRef {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef, is_odd: impl Fn(T::Native) -> bool, nan: T::Native) -> ArrayRef {
        let own = array.as_primitive::<T>();
        if !own.values().iter().any(|&value| is_odd(value)) {
            return Arc::clone(array);
        }
        Arc::new(own.unary::<_, T>(|value| if is_odd(value) { nan } else { value }))
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: all others have no NaN but in their children")]
    match array.data_type() {
        DataType::Float16 => {
            let nan = <Float16Type as ArrowPrimitiveType>::Native::NAN;
            of::<Float16Type>(array, |value| value.is_nan() && value.to_bits() != nan.to_bits(), nan)
        }
        DataType::Float32 => of::<Float32Type>(array, |value| value.is_nan() && value.to_bits() != f32::NAN.to_bits(), f32::NAN),
        DataType::Float64 => of::<Float64Type>(array, |value| value.is_nan() && value.to_bits() != f64::NAN.to_bits(), f64::NAN),
        DataType::Struct(_)
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Map(..)
        | DataType::Dictionary(..) => {
            let data = array.to_data();
            let old: Vec<ArrayRef> = data.child_data().iter().map(|child| make_array(child.clone())).collect();
            let new: Vec<ArrayRef> = old.iter().map(same_nans).collect();
            if old.iter().zip(&new).all(|(old, new)| Arc::ptr_eq(old, new)) {
                return Arc::clone(array);
            }
            let children = new.iter().map(|child| child.to_data()).collect();
            // Only bits of floats differ, so what was valid still is.
            data.into_builder().child_data(children).build().map_or_else(|_| Arc::clone(array), make_array)
        }
        _ => Arc::clone(array),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::Int32Type;

    fn common(a: &str, b: &str) -> Option<String> {
        let parse = |name: &str| crate::parse_type(name).unwrap();
        let (one, two) = (unify(&parse(a), &parse(b)), unify(&parse(b), &parse(a)));
        assert_eq!(one, two, "{a} {b}");
        one.map(|common| crate::types::option_name(&common))
    }

    #[test]
    fn types_that_differ_harmlessly_have_a_common_one() {
        for (a, b, expected) in [
            ("i8", "i16", Some("i16")),
            ("u8", "u16", Some("u16")),
            ("u8", "i8", Some("i16")),
            ("u32", "i8", Some("i64")),
            ("u64", "i8", Some("i64")),
            ("f32", "f64", Some("f64")),
            ("f32", "i16", Some("f32")),
            ("f32", "i32", Some("f64")),
            ("f64", "i64", Some("f64")),
            ("decimal(4,2)", "decimal(6,2)", Some("decimal(6,2)")),
            ("decimal(4,2)", "decimal(6,4)", Some("decimal(6,4)")),
            ("decimal(38,2)", "decimal(38,4)", Some("Decimal256(40, 4)")),
            ("decimal(10,2)", "i64", Some("decimal(21,2)")),
            ("decimal(10,2)", "f64", None),
            ("string", "LargeUtf8", Some("LargeUtf8")),
            ("string", "Dictionary(Int8, Utf8)", Some("string")),
            ("date", "timestamp", Some("timestamp")),
            ("Timestamp(ms)", "Timestamp(ns)", Some("Timestamp(ns)")),
            ("timestamp", "Timestamp(us, \"UTC\")", None),
            ("Timestamp(s, \"Europe/Paris\")", "Timestamp(us, \"UTC\")", Some("Timestamp(µs, \"UTC\")")),
            ("string", "i64", None),
            ("bool", "i64", None),
        ] {
            assert_eq!(common(a, b).as_deref(), expected, "{a} and {b}");
        }
    }

    #[test]
    fn structs_and_lists_grow() {
        let int = |name: &str| Field::new(name, DataType::Int64, true);
        let one: ArrayRef =
            Arc::new(StructArray::from(vec![(Arc::new(int("x")), Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]));
        let grown = DataType::Struct(vec![int("x"), int("y")].into());
        let common = unify(one.data_type(), &grown).unwrap();
        assert_eq!(common, grown);
        let made = convert(&one, &common).unwrap();
        assert_eq!(made.as_struct().column(1).null_count(), 2);
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]));
        let longs = DataType::LargeList(Arc::new(Field::new_list_field(DataType::Int64, true)));
        let common = unify(lists.data_type(), &longs).unwrap();
        let made = convert(&lists, &common).unwrap();
        assert_eq!(made.as_list::<i64>().value(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(1), None]));
    }

    #[test]
    fn values_are_converted_exactly_or_refused() {
        let ok = |array: ArrayRef, to: &str| convert(&array, &crate::parse_type(to).unwrap());
        let big = 9_007_199_254_740_993_i64;
        assert!(ok(Arc::new(Int64Array::from(vec![big])), "f64").unwrap_err().contains("9007199254740993"));
        assert!(ok(Arc::new(Int64Array::from(vec![Some(big - 1), None])), "f64").is_ok());
        assert!(ok(Arc::new(UInt64Array::from(vec![u64::MAX])), "f64").is_err());
        assert!(ok(Arc::new(UInt64Array::from(vec![u64::MAX])), "i64").is_err());
        assert!(ok(Arc::new(TimestampMillisecondArray::from(vec![253_402_300_799_000])), "Timestamp(ns)").is_err());
        for far in [2_932_896, i32::MAX] {
            assert!(ok(Arc::new(Date32Array::from(vec![far])), "Timestamp(ns)").is_err());
        }
        assert!(ok(Arc::new(Date64Array::from(vec![i64::MAX / 2])), "Timestamp(ns)").is_err());
        let days = ok(Arc::new(Date32Array::from(vec![1])), "timestamp").unwrap();
        assert_eq!(days.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0), 86_400_000_000);
    }

    #[test]
    fn all_nans_are_one() {
        let odd: ArrayRef = Arc::new(Float64Array::from(vec![-f64::NAN, 1.0, f64::from_bits(f64::NAN.to_bits() | 1)]));
        let made = convert(&odd, &DataType::Float64).unwrap();
        let values = made.as_primitive::<Float64Type>().values().to_vec();
        assert!(values[0].to_bits() == f64::NAN.to_bits() && values[2].to_bits() == f64::NAN.to_bits());
        let items = Arc::new(Field::new_list_field(DataType::Float64, true));
        let lists: ArrayRef = Arc::new(FixedSizeListArray::try_new(items, 3, odd, None).unwrap());
        let made = convert(&lists, lists.data_type()).unwrap();
        let values = made.as_fixed_size_list().values().as_primitive::<Float64Type>();
        assert_eq!(values.value(0).to_bits(), f64::NAN.to_bits());
    }
}
