//! Columns as plain numbers and back: the bridge to arrays, which do not know Arrow.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rask_graphs::KernelError;

use crate::error::arrow_message;
use crate::partition::Partition;
use crate::types::type_name;

/// The columns as `f64`, rows after rows, and the number of rows: element `row * columns.len() + column`. All columns when
/// `columns` is empty. Booleans are 0 and 1, missing values are NaN.
///
/// # Errors
/// When a column does not exist or is neither number nor boolean, or has an integer that an `f64` cannot be (only beyond
/// 2^53).
pub fn columns_to_f64(partition: &Partition, columns: &[String]) -> Result<(Vec<f64>, usize), KernelError> {
    let schema = partition.schema();
    let idxs = column_idxs(schema, columns)?;
    let (n_rows, n_columns) = (partition.n_rows(), idxs.len());
    let mut values = vec![0.0; n_rows * n_columns];
    let mut first_row = 0;
    for batch in partition.batches() {
        for (at, &idx) in idxs.iter().enumerate() {
            let column = to_f64(batch.column(idx), schema.field(idx).name())?;
            let column = column.as_primitive::<Float64Type>();
            let rows = values[first_row * n_columns..].iter_mut().skip(at).step_by(n_columns);
            for (value, cell) in column.iter().zip(rows) {
                *cell = value.unwrap_or(f64::NAN);
            }
        }
        first_row += batch.num_rows();
    }
    Ok((values, n_rows))
}

/// The numbers of a column called `name` as `f64`.
///
/// # Errors
/// When one is a whole number that an `f64` cannot be: the column, and the number.
pub(crate) fn to_f64(column: &ArrayRef, name: &str) -> Result<ArrayRef, KernelError> {
    let plain = |error| KernelError(format!("column \"{name}\": {}", arrow_message(&error)));
    let floats = cast(column, &DataType::Float64).map_err(plain)?;
    let data_type = column.data_type();
    // Smaller ones fit in any case, and fractions of decimals are rounded by nature.
    let is_whole = matches!(
        data_type,
        DataType::Int64 | DataType::UInt64 | DataType::Decimal64(_, 0) | DataType::Decimal128(_, 0) | DataType::Decimal256(_, 0)
    );
    if !is_whole {
        return Ok(floats);
    }
    let large = |value: Option<f64>| value.is_some_and(|value| value.abs() >= EXACT);
    let mut idxs = floats.as_primitive::<Float64Type>().iter().enumerate().filter(|(_, value)| large(*value)).peekable();
    if idxs.peek().is_none() {
        return Ok(floats);
    }
    let formats = FormatOptions::default();
    let digits = ArrayFormatter::try_new(column.as_ref(), &formats).map_err(plain)?;
    for (idx, value) in idxs {
        let (digits, value) = (digits.value(idx).to_string(), value.unwrap_or_default());
        if digits != format!("{value:.0}") {
            let hint = "cast it to f64 where its last digits do not matter";
            return Err(KernelError(format!("column \"{name}\" has {digits}, which a number of type f64 cannot be: {hint}")));
        }
    }
    Ok(floats)
}

/// Below this every whole number is an `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn column_idxs(schema: &Schema, columns: &[String]) -> Result<Vec<usize>, KernelError> {
    let idxs: Vec<usize> = if columns.is_empty() {
        (0..schema.fields().len()).collect()
    } else {
        let find = |name: &String| schema.index_of(name).map_err(|_| KernelError(format!("there is no column \"{name}\"")));
        columns.iter().map(find).collect::<Result<_, _>>()?
    };
    for &idx in &idxs {
        let field = schema.field(idx);
        if !field.data_type().is_numeric() && field.data_type() != &DataType::Boolean {
            let (name, kind) = (field.name(), type_name(field.data_type()));
            return Err(KernelError(format!("column \"{name}\" is {kind}, not a number")));
        }
    }
    Ok(idxs)
}

/// A partition of `f64` columns from values in the order of [`columns_to_f64`]. NaN stays NaN.
///
/// # Errors
/// When the number of values is not a multiple of the number of columns, or there are no columns.
pub fn f64_to_columns(names: &[String], values: &[f64]) -> Result<Partition, KernelError> {
    if names.is_empty() || !values.len().is_multiple_of(names.len()) {
        return Err(KernelError(format!("{} values do not fill {} columns", values.len(), names.len())));
    }
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Float64, true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let column =
        |at: usize| -> ArrayRef { Arc::new(values.iter().skip(at).step_by(names.len()).copied().collect::<Float64Array>()) };
    let batch = RecordBatch::try_new(Arc::clone(&schema), (0..names.len()).map(column).collect())?;
    Partition::try_new(schema, vec![batch])
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Int64Array, StringArray};

    fn sample() -> Partition {
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
            ("s", Arc::new(StringArray::from(vec!["x", "y"]))),
        ])
        .unwrap();
        Partition::try_new(batch.schema(), vec![batch.clone(), batch]).unwrap()
    }

    #[test]
    fn rows_follow_rows_and_nulls_are_nan() {
        let (values, n_rows) = columns_to_f64(&sample(), &["b".to_owned(), "a".to_owned()]).unwrap();
        assert_eq!(n_rows, 4);
        assert_eq!([values[0], values[1], values[2]], [1.0, 1.0, 0.0]);
        assert!(values[3].is_nan() && values[7].is_nan() && values[5] == 1.0);
    }

    #[test]
    fn whole_numbers_are_exact_or_refused() {
        let decimal = |value: i128| -> ArrayRef {
            Arc::new(arrow::array::Decimal128Array::from(vec![value]).with_precision_and_scale(38, 0).unwrap())
        };
        let cases: Vec<(ArrayRef, Option<&str>)> = vec![
            (Arc::new(Int64Array::from(vec![1 << 53, -(1 << 53), i64::MIN, (1 << 53) + 2])), None),
            (Arc::new(Int64Array::from(vec![Some(1), None, Some((1 << 53) + 1)])), Some("9007199254740993")),
            (Arc::new(Int64Array::from(vec![i64::MAX])), Some("9223372036854775807")),
            (Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX])), Some("18446744073709551615")),
            (Arc::new(arrow::array::UInt64Array::from(vec![1 << 63])), None),
            (decimal(1 << 100), None),
            (decimal((1 << 100) + 1), Some("1267650600228229401496703205377")),
        ];
        for (column, refused) in cases {
            match (to_f64(&column, "k"), refused) {
                (Ok(_), None) => {}
                (Err(error), Some(digits)) => assert!(error.0.contains("\"k\"") && error.0.contains(digits), "{error}"),
                (got, want) => panic!("{got:?} for {want:?}"),
            }
        }
    }

    #[test]
    fn only_numbers_become_numbers() {
        let error = columns_to_f64(&sample(), &[]).unwrap_err();
        assert_eq!(error.0, "column \"s\" is string, not a number");
        assert!(columns_to_f64(&sample(), &["z".to_owned()]).is_err());
    }

    #[test]
    fn values_go_round() {
        let names = ["p".to_owned(), "q".to_owned()];
        let partition = f64_to_columns(&names, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(columns_to_f64(&partition, &[]).unwrap(), (vec![1.0, 2.0, 3.0, 4.0], 2));
        assert!(f64_to_columns(&names, &[1.0]).is_err());
        assert!(f64_to_columns(&[], &[]).is_err());
    }
}
