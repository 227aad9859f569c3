//! Numbers of any type as columns of that type: how the elements of arrays become tables without losing a digit.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use rask_graphs::KernelError;

use crate::partition::Partition;

/// Numbers of one type, rows after rows.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the types say it")]
pub enum Numbers<'a> {
    /// Truth values, 0 or 1.
    Bool(&'a [u8]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// Every n-th value from each of the first n, as a column.
fn columns<T: ArrowPrimitiveType>(values: &[T::Native], n: usize) -> Vec<ArrayRef> {
    let column = |at| PrimitiveArray::<T>::from_iter_values(values.iter().skip(at).step_by(n).copied());
    (0..n).map(|at| Arc::new(column(at)) as ArrayRef).collect()
}

/// A partition of columns called `names`: element `row * names.len() + column` is in that row and column. NaN stays NaN.
///
/// # Errors
/// When the number of values is not a multiple of the number of columns, or there are no columns.
pub fn numbers_to_columns(names: &[String], numbers: Numbers<'_>) -> Result<Partition, KernelError> {
    let n = names.len();
    let n_values = match numbers {
        Numbers::Bool(values) | Numbers::U8(values) => values.len(),
        Numbers::I8(values) => values.len(),
        Numbers::I16(values) => values.len(),
        Numbers::I32(values) => values.len(),
        Numbers::I64(values) => values.len(),
        Numbers::U16(values) => values.len(),
        Numbers::U32(values) => values.len(),
        Numbers::U64(values) => values.len(),
        Numbers::F32(values) => values.len(),
        Numbers::F64(values) => values.len(),
    };
    if names.is_empty() || !n_values.is_multiple_of(n) {
        return Err(KernelError(format!("{n_values} values do not fill {n} columns")));
    }
    let truths =
        |values: &[u8], at: usize| -> BooleanArray { values.iter().skip(at).step_by(n).map(|&x| Some(x != 0)).collect() };
    let columns = match numbers {
        Numbers::Bool(values) => (0..n).map(|at| Arc::new(truths(values, at)) as ArrayRef).collect(),
        Numbers::I8(values) => columns::<Int8Type>(values, n),
        Numbers::I16(values) => columns::<Int16Type>(values, n),
        Numbers::I32(values) => columns::<Int32Type>(values, n),
        Numbers::I64(values) => columns::<Int64Type>(values, n),
        Numbers::U8(values) => columns::<UInt8Type>(values, n),
        Numbers::U16(values) => columns::<UInt16Type>(values, n),
        Numbers::U32(values) => columns::<UInt32Type>(values, n),
        Numbers::U64(values) => columns::<UInt64Type>(values, n),
        Numbers::F32(values) => columns::<Float32Type>(values, n),
        Numbers::F64(values) => columns::<Float64Type>(values, n),
    };
    let kind = columns.first().map_or(DataType::Float64, |column| column.data_type().clone());
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, kind.clone(), true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Partition::try_new(schema, vec![batch])
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;

    #[test]
    fn every_digit_comes_through() {
        let names = ["a".to_owned(), "b".to_owned()];
        let most = [u64::MAX, (1 << 53) + 1, 0, 7];
        let partition = numbers_to_columns(&names, Numbers::U64(&most)).unwrap();
        let batch = &partition.batches()[0];
        assert_eq!(batch.column(0).as_primitive::<UInt64Type>().values(), &[u64::MAX, 0]);
        assert_eq!(batch.column(1).as_primitive::<UInt64Type>().values(), &[(1 << 53) + 1, 7]);
        let truths = numbers_to_columns(&names[..1], Numbers::Bool(&[1, 0])).unwrap();
        assert_eq!(truths.batches()[0].column(0).as_boolean().iter().flatten().collect::<Vec<bool>>(), [true, false]);
    }

    #[test]
    fn what_makes_no_table_is_refused() {
        assert!(numbers_to_columns(&["a".to_owned(), "b".to_owned()], Numbers::F64(&[1.0])).is_err());
        assert!(numbers_to_columns(&[], Numbers::F64(&[])).is_err());
    }
}
