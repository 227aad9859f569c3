//! Floats as numbers rather than bits: NaN in one form, so that it is equal to itself and above everything in every
//! comparison, sort, group and join; and keys that order floats as integers.
//!
//! Arrow orders floats by their bits. There NaN with its sign set, which is what `0.0 / 0.0` gives on x86, is below every
//! number and different from other NaN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use rask_graphs::KernelError;

/// The values with every NaN in its positive form; other types, and floats without any, as they are.
pub(super) fn canonical(values: &ArrayRef) -> ArrayRef {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: no other type has NaN that is computed with")]
    match values.data_type() {
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>();
            if !floats.values().iter().any(|v| v.is_nan() && v.to_bits() != f64::NAN.to_bits()) {
                return Arc::clone(values);
            }
            Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }))
        }
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>();
            if !floats.values().iter().any(|v| v.is_nan() && v.to_bits() != f32::NAN.to_bits()) {
                return Arc::clone(values);
            }
            Arc::new(floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v }))
        }
        _ => Arc::clone(values),
    }
}

/// A batch whose float columns are [`canonical`].
pub(crate) fn canonical_batch(batch: RecordBatch) -> Result<RecordBatch, KernelError> {
    if !batch.schema().fields().iter().any(|field| field.data_type().is_floating()) {
        return Ok(batch);
    }
    let columns = batch.columns().iter().map(canonical).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// The values as they are to be sorted: as [`canonical`], and zero without a sign.
pub(super) fn sort_key(values: &ArrayRef) -> ArrayRef {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: only floats have two zeros")]
    match values.data_type() {
        DataType::Float64 => Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(plain)),
        DataType::Float32 => {
            let key = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(key))
        }
        _ => Arc::clone(values),
    }
}

fn plain(value: f64) -> f64 {
    // Negative zero plus zero is zero.
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// Integers in the order of the floats `values`, NaN the largest.
pub(super) fn to_keys(values: &ArrayRef) -> Result<Int64Array, arrow::error::ArrowError> {
    let values = arrow::compute::cast(values, &DataType::Float64)?;
    Ok(values.as_primitive::<Float64Type>().unary::<_, Int64Type>(|value| flip(plain(value).to_bits().cast_signed())))
}

/// The floats that [`to_keys`] made integers of, as `data_type`.
#[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: there are three floats")]
pub(super) fn from_keys(keys: &Int64Array, data_type: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    let floats: Float64Array = keys.unary(|key| f64::from_bits(flip(key).cast_unsigned()));
    match data_type {
        DataType::Float32 => {
            let floats: Float32Array = floats.unary(|value| value as f32);
            Ok(Arc::new(floats))
        }
        other => arrow::compute::cast(&floats, other),
    }
}

/// Bits of a float as an integer of the same order, and back.
fn flip(bits: i64) -> i64 {
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_floats_and_come_back() {
        let negative_nan = f64::from_bits(f64::NAN.to_bits() | (1 << 63));
        let sorted = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
        let array: ArrayRef = Arc::new(Float64Array::from(sorted.to_vec()));
        let keys = to_keys(&array).unwrap();
        assert!(keys.values().windows(2).all(|pair| pair[0] < pair[1]), "{keys:?}");
        let back = from_keys(&keys, &DataType::Float64).unwrap();
        assert!(back.as_primitive::<Float64Type>().values().iter().zip(sorted).all(|(a, b)| a.total_cmp(&b).is_eq()));
        let odd: ArrayRef = Arc::new(Float64Array::from(vec![negative_nan, f64::NAN, -0.0, 0.0]));
        let keys = to_keys(&odd).unwrap();
        assert_eq!((keys.value(0), keys.value(2)), (keys.value(1), keys.value(3)));
        assert_eq!(canonical(&odd).as_primitive::<Float64Type>().value(0).to_bits(), f64::NAN.to_bits());
        assert!(canonical(&odd).as_primitive::<Float64Type>().value(2).is_sign_negative());
        assert!(sort_key(&odd).as_primitive::<Float64Type>().value(2).is_sign_positive());
    }
}
