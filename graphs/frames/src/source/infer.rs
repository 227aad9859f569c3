//! The columns of files: from footers where the format has them, from a sample of the rows of every file where not.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::reader::infer_json_schema_from_iterator;
use rask_graphs::FileAccess;

use super::open;
use super::options::{Format, ReadOptions};
use super::split::{parquet_metadata, starts_with_bracket};
use crate::error::FrameError;
use crate::types::parse_type;

/// Sampling thousands of files would take longer than reading a few of them; so many, evenly spread, are looked at.
const MAX_SAMPLED_FILES: usize = 64;

/// The common schema of `paths`. Every file is opened, so that one that cannot be read is known before any task runs.
pub(crate) fn schema(
    files: &FileAccess,
    format: Format,
    paths: &[PathBuf],
    options: &ReadOptions,
) -> Result<SchemaRef, FrameError> {
    for path in paths {
        open(files, path)?;
    }
    let merged = match format {
        Format::Csv => merge(paths, MAX_SAMPLED_FILES, |path| csv_schema(files, path, options), merge_csv)?,
        Format::Json => merge(paths, MAX_SAMPLED_FILES, |path| json_schema(files, path, options), merge_by_name)?,
        Format::Parquet => {
            merge(paths, usize::MAX, |path| Ok(parquet_metadata(files, path)?.schema().as_ref().clone()), merge_by_name)?
        }
        Format::Arrow => merge(paths, usize::MAX, |path| arrow_schema(files, path), merge_by_name)?,
    };
    let schema = match format {
        Format::Csv | Format::Json => settle(&merged, options)?,
        Format::Parquet | Format::Arrow => merged,
    };
    // Metadata written by other programs (a pandas index, say) means nothing here and would travel with every task.
    Ok(Arc::new(Schema::new(schema.fields().clone())))
}

fn merge(
    paths: &[PathBuf],
    max_files: usize,
    schema_of: impl Fn(&Path) -> Result<Schema, FrameError>,
    combine: impl Fn(Schema, &Schema) -> Result<Schema, String>,
) -> Result<Schema, FrameError> {
    let stride = paths.len().div_ceil(max_files).max(1);
    let mut merged: Option<(Schema, &PathBuf)> = None;
    for path in paths.iter().step_by(stride) {
        let schema = schema_of(path)?;
        merged = Some(match merged {
            None => (schema, path),
            Some((so_far, first)) => {
                let combined = combine(so_far, &schema);
                let explain = |reason| FrameError::data(path, format!("{reason} (in {})", first.display()));
                (combined.map_err(explain)?, first)
            }
        });
    }
    merged.map(|(schema, _)| schema).ok_or_else(|| FrameError::Plan("no path given".to_owned()))
}

fn csv_schema(files: &FileAccess, path: &Path, options: &ReadOptions) -> Result<Schema, FrameError> {
    let file = open(files, path)?;
    let format = options.csv_format(options.header).map_err(FrameError::Plan)?;
    let (schema, _) =
        format.infer_schema(BufReader::new(file), Some(options.infer_rows)).map_err(|error| FrameError::data(path, error))?;
    if schema.fields().is_empty() {
        return Err(FrameError::data(path, "no columns: the file is empty"));
    }
    Ok(schema)
}

/// CSV columns are found by position, so files must agree on their number and, with headers, on their names.
fn merge_csv(first: Schema, other: &Schema) -> Result<Schema, String> {
    if first.fields().len() != other.fields().len() {
        return Err(format!("{} columns where the first file has {}", other.fields().len(), first.fields().len()));
    }
    let fields = first.fields().iter().zip(other.fields()).map(|(a, b)| {
        if a.name() != b.name() {
            return Err(format!("column \"{}\" where the first file has \"{}\"", b.name(), a.name()));
        }
        Ok(Field::new(a.name(), widen(a.data_type(), b.data_type()).unwrap_or(DataType::Utf8), true))
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>, _>>()?))
}

/// Columns by name; those that a file does not have are null there. Types that differ must have a common one.
fn merge_by_name(first: Schema, other: &Schema) -> Result<Schema, String> {
    let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    for field in &mut fields {
        if other.field_with_name(field.name()).is_err() {
            field.set_nullable(true);
        }
    }
    for field in other.fields() {
        let Some(own) = fields.iter_mut().find(|own| own.name() == field.name()) else {
            fields.push(field.as_ref().clone().with_nullable(true));
            continue;
        };
        let common = widen(own.data_type(), field.data_type()).ok_or_else(|| {
            let (a, b) = (crate::types::type_name(own.data_type()), crate::types::type_name(field.data_type()));
            format!("column \"{}\" is {b} where the first file has {a}", field.name())
        })?;
        *own = Field::new(own.name(), common, own.is_nullable() || field.is_nullable());
    }
    Ok(Schema::new(fields))
}

/// The narrowest type that holds values of both.
fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Date32, Float32, Float64, Int8, Int16, Int32, Int64, Null, Timestamp, UInt8, UInt16, UInt32};
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (Int64, Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32) | (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32, Int64) => {
            Some(Int64)
        }
        (Int32, Int8 | Int16) | (Int8 | Int16, Int32) => Some(Int32),
        (Float64, Int8 | Int16 | Int32 | Int64 | Float32) | (Int8 | Int16 | Int32 | Int64 | Float32, Float64) => Some(Float64),
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) => Some(Timestamp(*unit, None)),
        (Timestamp(a, zone_a), Timestamp(b, zone_b)) if zone_a == zone_b => Some(Timestamp(finer(*a, *b), zone_a.clone())),
        _ => None,
    }
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

/// Put the wanted types in, and give columns without any value the type that holds anything.
fn settle(schema: &Schema, options: &ReadOptions) -> Result<Schema, FrameError> {
    for name in options.types.keys() {
        if schema.field_with_name(name).is_err() {
            return Err(FrameError::Plan(format!("types: there is no column \"{name}\"")));
        }
    }
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let data_type = match options.types.get(field.name()) {
            Some(name) => parse_type(name).map_err(FrameError::Plan)?,
            None if field.data_type() == &DataType::Null => DataType::Utf8,
            None => field.data_type().clone(),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    Ok(Schema::new(fields))
}

fn json_schema(files: &FileAccess, path: &Path, options: &ReadOptions) -> Result<Schema, FrameError> {
    let file = open(files, path)?;
    let mut reader = BufReader::new(file);
    if starts_with_bracket(files, path)? {
        let rows = json_array(files, path)?;
        let sample = rows.into_iter().take(options.infer_rows).map(Ok);
        return infer_json_schema_from_iterator(sample).map_err(|error| FrameError::data(path, error));
    }
    let mut values = Vec::new();
    let mut line = String::new();
    let mut line_number = 0_u64;
    while values.len() < options.infer_rows {
        line.clear();
        line_number += 1;
        if reader.read_line(&mut line).map_err(|error| FrameError::io(path, &error))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let value: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| FrameError::data(path, format!("line {line_number}: {error}")))?;
        values.push(Ok(value));
    }
    infer_json_schema_from_iterator(values.into_iter()).map_err(|error| FrameError::data(path, error))
}

/// The elements of a JSON file that is one array.
pub(crate) fn json_array(files: &FileAccess, path: &Path) -> Result<Vec<serde_json::Value>, FrameError> {
    let file = open(files, path)?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| FrameError::data(path, error))
}

fn arrow_schema(files: &FileAccess, path: &Path) -> Result<Schema, FrameError> {
    let file = open(files, path)?;
    let reader = crate::operators::scan_arrow::open(file).map_err(|error| FrameError::data(path, error))?;
    Ok(reader.schema().as_ref().clone())
}
