//! What the formats of files can hold.

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use rask_graphs::KernelError;

use crate::types::{any_type, type_name};

/// No format keeps two columns of one name apart, and rows without columns are none.
pub(super) fn check_columns(schema: &Schema) -> Result<(), KernelError> {
    if schema.fields().is_empty() {
        return Err(KernelError("there are no columns to write".to_owned()));
    }
    let mut names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let hint = "give one of them another name, as in SELECT .. AS other";
            Err(KernelError(format!("two columns are called \"{}\", and a file cannot tell them apart: {hint}", pair[0])))
        }
        None => Ok(()),
    }
}

/// Fails for what Parquet has no type for.
pub(super) fn check_parquet(field: &Field) -> Result<(), KernelError> {
    let has_no_type = |kind: &DataType| {
        matches!(kind, DataType::Union(..) | DataType::Interval(IntervalUnit::MonthDayNano))
            || matches!(kind, DataType::Struct(fields) if fields.is_empty())
    };
    if any_type(field.data_type(), &has_no_type) {
        let (name, kind) = (field.name(), type_name(field.data_type()));
        return Err(KernelError(format!(
            "column \"{name}\" is {kind}, which Parquet cannot hold: cast it to text, or write .arrow"
        )));
    }
    Ok(())
}
