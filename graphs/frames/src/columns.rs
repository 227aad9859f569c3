//! Columns as plain numbers and back: the bridge to arrays, which do not know Arrow.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use rask_graphs::KernelError;

use crate::partition::Partition;
use crate::types::type_name;

/// The columns as `f64`, rows after rows, and the number of rows: element `row * columns.len() + column`. All columns when
/// `columns` is empty. Booleans are 0 and 1, missing values are NaN, integers beyond 2^53 lose their last digits.
///
/// # Errors
/// When a column does not exist or is neither number nor boolean.
pub fn columns_to_f64(partition: &Partition, columns: &[String]) -> Result<(Vec<f64>, usize), KernelError> {
    let schema = partition.schema();
    let idxs = column_idxs(schema, columns)?;
    let (n_rows, n_columns) = (partition.n_rows(), idxs.len());
    let mut values = vec![0.0; n_rows * n_columns];
    let mut first_row = 0;
    for batch in partition.batches() {
        for (at, &idx) in idxs.iter().enumerate() {
            let column = cast(batch.column(idx), &DataType::Float64)?;
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
