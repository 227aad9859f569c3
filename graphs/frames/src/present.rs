//! Rows for people and programs: a table of the first rows as text, and all rows as JSON values.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use rask_graphs::KernelError;
use serde_json::Value as Json;

use crate::partition::Partition;
use crate::types::type_name;

/// A partition as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonRows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// Their types, see [`type_name`].
    pub types: Vec<String>,
    /// The values, a list for each row.
    pub rows: Vec<Vec<Json>>,
}

/// All rows as JSON: NaN and infinities are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`; decimals are numbers (of 17
/// digits at most); dates and times are ISO 8601 strings, binary is hexadecimal, lists are arrays, structs are objects.
///
/// # Errors
/// When Arrow cannot format a value (a timestamp outside the calendar, for example).
pub fn rows_as_json(partition: &Partition) -> Result<JsonRows, KernelError> {
    let fields = partition.schema().fields();
    let mut rows = Vec::with_capacity(partition.n_rows());
    for batch in partition.batches() {
        let columns = batch.columns().iter().map(json_column).collect::<Result<Vec<_>, _>>()?;
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        for _ in 0..batch.num_rows() {
            rows.push(columns.iter_mut().map(|column| column.next().unwrap_or(Json::Null)).collect());
        }
    }
    Ok(JsonRows {
        columns: fields.iter().map(|field| field.name().clone()).collect(),
        types: fields.iter().map(|field| type_name(field.data_type())).collect(),
        rows,
    })
}

/// Whole columns at a time, so that types are told apart once a column and not once a value.
fn json_column(column: &ArrayRef) -> Result<Vec<Json>, KernelError> {
    let numbers = |values: Vec<Json>| with_nulls(column, values);
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: every other type is shown as text")]
    Ok(match column.data_type() {
        DataType::Null => vec![Json::Null; column.len()],
        DataType::Boolean => numbers(column.as_boolean().iter().map(|v| Json::from(v.unwrap_or_default())).collect()),
        DataType::UInt64 => numbers(column.as_primitive::<UInt64Type>().values().iter().map(|&v| Json::from(v)).collect()),
        kind if kind.is_integer() => {
            let wide = cast(column, &DataType::Int64)?;
            numbers(wide.as_primitive::<Int64Type>().values().iter().map(|&v| Json::from(v)).collect())
        }
        kind if kind.is_floating() => {
            let wide = cast(column, &DataType::Float64)?;
            numbers(wide.as_primitive::<Float64Type>().values().iter().map(|&v| json_f64(v)).collect())
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            texts(column)?.into_iter().map(|text| text.map_or(Json::Null, |text| json_decimal(&text))).collect()
        }
        DataType::Dictionary(_, values) => json_column(&cast(column, values)?)?,
        DataType::List(_) => lists(column, |idx| column.as_list::<i32>().value(idx))?,
        DataType::LargeList(_) => lists(column, |idx| column.as_list::<i64>().value(idx))?,
        DataType::FixedSizeList(..) => lists(column, |idx| column.as_fixed_size_list().value(idx))?,
        DataType::Struct(_) => structs(column)?,
        _ => texts(column)?.into_iter().map(|text| text.map_or(Json::Null, Json::from)).collect(),
    })
}

fn with_nulls(column: &ArrayRef, mut values: Vec<Json>) -> Vec<Json> {
    for (idx, value) in values.iter_mut().enumerate() {
        if column.is_null(idx) {
            *value = Json::Null;
        }
    }
    values
}

fn json_f64(value: f64) -> Json {
    if value.is_nan() {
        Json::from("NaN")
    } else if value.is_infinite() {
        Json::from(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        Json::from(value)
    }
}

fn json_decimal(text: &str) -> Json {
    match text.parse::<i64>() {
        Ok(whole) => Json::from(whole),
        Err(_) => text.parse::<f64>().map_or_else(|_| Json::from(text), json_f64),
    }
}

fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>, KernelError> {
    let options = FormatOptions::default().with_display_error(false);
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let text = |idx| if column.is_null(idx) { Ok(None) } else { Ok(Some(formatter.value(idx).try_to_string()?)) };
    (0..column.len()).map(text).collect()
}

fn lists(column: &ArrayRef, value: impl Fn(usize) -> ArrayRef) -> Result<Vec<Json>, KernelError> {
    let list = |idx| if column.is_null(idx) { Ok(Json::Null) } else { Ok(Json::from(json_column(&value(idx))?)) };
    (0..column.len()).map(list).collect()
}

fn structs(column: &ArrayRef) -> Result<Vec<Json>, KernelError> {
    let array = column.as_struct();
    let mut objects = vec![serde_json::Map::new(); column.len()];
    for (field, child) in array.fields().iter().zip(array.columns()) {
        for (object, value) in objects.iter_mut().zip(json_column(child)?) {
            object.insert(field.name().clone(), value);
        }
    }
    Ok(with_nulls(column, objects.into_iter().map(Json::from).collect()))
}

/// The first `limit` rows of all partitions as a table, and below it the number of rows when there are more.
///
/// # Errors
/// When Arrow cannot format a value.
pub fn to_table_string(partitions: &[&Partition], limit: usize) -> Result<String, KernelError> {
    let Some(first) = partitions.first() else { return Ok(String::new()) };
    let mut shown: Vec<RecordBatch> = Vec::new();
    let mut n_left = limit;
    for batch in partitions.iter().flat_map(|partition| partition.batches()) {
        let n_rows = batch.num_rows().min(n_left);
        shown.push(batch.slice(0, n_rows));
        n_left -= n_rows;
        if n_left == 0 {
            break;
        }
    }
    if shown.is_empty() {
        shown.push(RecordBatch::new_empty(std::sync::Arc::clone(first.schema())));
    }
    let options = FormatOptions::default().with_null("null");
    let mut text = pretty_format_batches_with_options(&shown, &options)?.to_string();
    let n_rows: usize = partitions.iter().map(|partition| partition.n_rows()).sum();
    if n_rows > limit {
        text.push_str(&format!("\n{limit} of {n_rows} rows"));
    } else {
        text.push_str(&format!("\n{n_rows} row{}", if n_rows == 1 { "" } else { "s" }));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "present_tests.rs"]
mod tests;
