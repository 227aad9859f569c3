//! Rows for people and programs: a table of the first rows as text, and all rows as JSON values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use rask_graphs::KernelError;
use serde_json::Value as Json;

use crate::error::arrow_message;
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

/// Most values that are made into JSON. Rows need not take any bytes, so a limit on those does not bound them.
const MAX_JSON_VALUES: usize = 1 << 26;

/// All rows as JSON: NaN and infinities are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`; decimals are numbers, or
/// strings of all their digits where a number of 64 bits would have others; dates and times are ISO 8601 strings, binary is
/// hexadecimal, lists are arrays, structs and maps are objects.
///
/// # Errors
/// When there are more than 2^26 values, or Arrow cannot format one (a timestamp outside the calendar, for example).
pub fn rows_as_json(partition: &Partition) -> Result<JsonRows, KernelError> {
    let fields = partition.schema().fields();
    if partition.n_rows().saturating_mul(fields.len().max(1)) > MAX_JSON_VALUES {
        let (n_rows, n_columns) = (partition.n_rows(), fields.len());
        return Err(KernelError(format!("{n_rows} rows of {n_columns} columns are too many to print: write them to a file")));
    }
    let mut rows = Vec::with_capacity(partition.n_rows());
    for batch in partition.batches() {
        let named = fields.iter().zip(batch.columns());
        let in_column = |(field, column): (&Arc<Field>, &ArrayRef)| {
            json_column(column).map_err(|error| KernelError(format!("column \"{}\": {error}", field.name())))
        };
        let columns = named.map(in_column).collect::<Result<Vec<_>, _>>()?;
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
        DataType::ListView(_) => lists(column, |idx| column.as_list_view::<i32>().value(idx))?,
        DataType::LargeListView(_) => lists(column, |idx| column.as_list_view::<i64>().value(idx))?,
        DataType::FixedSizeList(..) => lists(column, |idx| column.as_fixed_size_list().value(idx))?,
        DataType::Map(..) => maps(column)?,
        DataType::Union(..) => unions(column)?,
        DataType::RunEndEncoded(_, values) => json_column(&cast(column, values.data_type())?)?,
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

/// A number where one of 64 bits has all the digits, else the digits as text.
fn json_decimal(text: &str) -> Json {
    if let Ok(whole) = text.parse::<i64>() {
        return Json::from(whole);
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Json::from(whole);
    }
    // Seventeen digits tell any two floats apart, and fifteen are told apart by any float.
    let n_digits = |text: &str| {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let whole = !text.contains('.');
        let digits = digits.trim_start_matches('0');
        if whole { digits.len() } else { digits.trim_end_matches('0').len() }
    };
    match text.parse::<f64>() {
        Ok(value) if n_digits(text) <= 15 => json_f64(value),
        Ok(_) | Err(_) => Json::from(text),
    }
}

fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>, KernelError> {
    let plain = |error| KernelError(arrow_message(&error));
    let options = FormatOptions::default().with_display_error(false);
    let formatter = ArrayFormatter::try_new(column, &options).map_err(plain)?;
    let text = |idx| if column.is_null(idx) { Ok(None) } else { formatter.value(idx).try_to_string().map(Some).map_err(plain) };
    (0..column.len()).map(text).collect()
}

fn lists(column: &ArrayRef, value: impl Fn(usize) -> ArrayRef) -> Result<Vec<Json>, KernelError> {
    let list = |idx| if column.is_null(idx) { Ok(Json::Null) } else { Ok(Json::from(json_column(&value(idx))?)) };
    (0..column.len()).map(list).collect()
}

/// Objects whose keys are texts. Of a key that is there twice the last value counts, as in JSON.
fn maps(column: &ArrayRef) -> Result<Vec<Json>, KernelError> {
    let array = column.as_map();
    let mut keys = json_column(array.keys())?.into_iter();
    let mut values = json_column(array.values())?.into_iter();
    let first = usize::try_from(array.value_offsets()[0]).unwrap_or(0);
    keys.by_ref().take(first).for_each(drop);
    values.by_ref().take(first).for_each(drop);
    let mut objects = Vec::with_capacity(array.len());
    for idx in 0..array.len() {
        let n = array.value_length(idx);
        let pairs = keys.by_ref().take(usize::try_from(n).unwrap_or(0)).zip(values.by_ref());
        let text = |key| if let Json::String(text) = key { text } else { key.to_string() };
        objects.push(Json::Object(pairs.map(|(key, value)| (text(key), value)).collect()));
    }
    Ok(with_nulls(column, objects))
}

/// Each value as its own type has it.
fn unions(column: &ArrayRef) -> Result<Vec<Json>, KernelError> {
    let array = column.as_union();
    let one = |idx| json_column(&array.value(idx)).map(|values| values.into_iter().next().unwrap_or(Json::Null));
    (0..array.len()).map(one).collect()
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
        shown.push(RecordBatch::new_empty(Arc::clone(first.schema())));
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
