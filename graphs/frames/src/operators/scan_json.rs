//! Reading JSON: objects one after the other, or one array of objects; whole files, or the lines that begin in a range.
//!
//! Arrow's reader takes the text apart with every plain value as text, and these are read as strictly as those of CSV. It does
//! not say where it failed, so after a failure the text is looked through again for the first row that fails by itself.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use rask_graphs::KernelError;

use super::scan::{Request, Sink};
use crate::error::FrameError;
use crate::text::json::{Elements, Keys, Row, Rows, as_texts, check, from_texts};
use crate::text::{cuts, input};
use crate::types::option_name;

const BATCH_ROWS: usize = 8192;
const BATCH_FIELDS: usize = 1 << 20;

/// Rows that are tried at once in search of a bad one.
const SEARCH_ROWS: usize = 1000;

/// Read the slice.
pub(super) fn json(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    let (text, start) = open(request)?;
    let schema = Arc::new(Schema::new(as_texts(request.file_schema.fields())));
    let reader = builder(&schema).build(BufReader::with_capacity(256 << 10, Elements::new(text)));
    for batch in reader.map_err(|error| request.fail(error))? {
        let batch = batch.map_err(|error| error.to_string()).and_then(|texts| values(request, &texts));
        let batch = batch.map_err(|error| failure(request, &schema, start, &error))?;
        if !sink.push(&batch)? {
            break;
        }
    }
    Ok(())
}

fn builder(schema: &SchemaRef) -> ReaderBuilder {
    // All columns are read, needed or not, so that a key that is none of them is noticed.
    let n_rows = (BATCH_FIELDS / schema.flattened_fields().len().max(1)).clamp(1, BATCH_ROWS);
    ReaderBuilder::new(Arc::clone(schema)).with_batch_size(n_rows).with_coerce_primitive(true).with_strict_mode(true)
}

/// The text of the slice, and where it begins.
fn open(request: &Request<'_>) -> Result<(Box<dyn Read + Send>, u64), KernelError> {
    let io = |error: std::io::Error| FrameError::io(request.path, &error);
    let mut file = request.open()?;
    let Some((start, end)) = request.range else {
        return Ok((input::open(file, request.path).map_err(io)?.0, 0));
    };
    if input::is_packed(request.path) {
        return Err(request.fail("a packed file is read as a whole, without a range"));
    }
    let nbytes = file.metadata().map_err(io)?.len();
    let start = cuts::after_line_feed(&mut file, start, nbytes).map_err(io)?;
    let end = cuts::after_line_feed(&mut file, end, nbytes).map_err(io)?.max(start);
    file.seek(SeekFrom::Start(start)).map_err(io)?;
    if start > 0 {
        return Ok((Box::new(file.take(end - start)), start));
    }
    let (text, offset) = input::open(file, request.path).map_err(io)?;
    Ok((Box::new(text.take(end.saturating_sub(offset))), 0))
}

/// The columns needed, of their types.
fn values(request: &Request<'_>, texts: &RecordBatch) -> Result<RecordBatch, String> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(request.needed.fields().len());
    let places = super::scan::places(texts.schema_ref());
    for field in request.needed.fields() {
        let column = places.get(field.name().as_str()).map(|&place| texts.column(place));
        let column = column.ok_or_else(|| format!("no column \"{}\"", field.name()))?;
        let made = from_texts(column, field.data_type(), request.origin_of(field.name()));
        columns.push(made.map_err(|bad| request.describe(field, &bad))?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(texts.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(&request.needed), columns, &options).map_err(|error| error.to_string())
}

/// `error` with the line of the first row that has one.
fn failure(request: &Request<'_>, schema: &SchemaRef, start: u64, error: &str) -> KernelError {
    let mut bytes = Vec::new();
    let text = open(request).map(|(text, _)| text.take(1 << 30).read_to_end(&mut bytes));
    let found = match text {
        Ok(Ok(_)) => first_bad_row(request, schema, &bytes),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some((line, reason)) = found else { return request.fail(plain(error)) };
    let n_before = match start {
        0 => 0,
        _ => request.open().ok().and_then(|mut file| cuts::n_lines_before(&mut file, start).ok()).unwrap_or(0),
    };
    request.fail_at(n_before + line, reason)
}

fn first_bad_row(request: &Request<'_>, schema: &SchemaRef, text: &[u8]) -> Option<(u64, String)> {
    let mut rows = Rows::new(text);
    loop {
        let mut some: Vec<Row<'_>> = Vec::with_capacity(SEARCH_ROWS);
        let end = loop {
            match rows.next() {
                Ok(Some(row)) => some.push(row),
                Ok(None) => break Some(None),
                Err(error) => break Some(Some(error)),
            }
            if some.len() == SEARCH_ROWS {
                break None;
            }
        };
        let together: Vec<&[u8]> = some.iter().map(|row| row.text).collect();
        if try_rows(request, schema, &together.concat()).is_err() {
            for row in some {
                if let Err((inner, reason)) = check(row.text) {
                    return Some((row.line + inner, reason));
                }
                if let Err(error) = try_rows(request, schema, row.text) {
                    return Some((row.line, unknown_key(&error, row.text).unwrap_or_else(|| plain(&error))));
                }
            }
        }
        if let Some(end) = end {
            return end;
        }
    }
}

fn try_rows(request: &Request<'_>, schema: &SchemaRef, rows: &[u8]) -> Result<(), String> {
    for batch in builder(schema).build(rows).map_err(|error| error.to_string())? {
        values(request, &batch.map_err(|error| error.to_string())?)?;
    }
    Ok(())
}

/// The words of Arrow's reader without the name of its category.
fn plain(error: &str) -> String {
    error.strip_prefix("Json error: ").unwrap_or(error).to_owned()
}

/// What to do about a key that is no column, if that is what `error` is about.
fn unknown_key(error: &str, row: &[u8]) -> Option<String> {
    let (before, _) = error.split_once("' missing from schema")?;
    let (outer, key) = before.split_once("column '")?;
    let what = format!("key \"{key}\" is in none of the rows that were looked at for columns");
    if outer.contains("field '") {
        return Some(format!("{what}; a larger infer_rows looks at more"));
    }
    let mut keys = Keys::default();
    keys.look_at(row, 1, true).ok()?;
    let found = keys.schema().ok().and_then(|schema| schema.field_with_name(key).cloned().ok());
    let better = found.map_or(DataType::Utf8, |field| field.data_type().clone());
    if better.is_nested() {
        return Some(format!("{what}; a larger infer_rows looks at more"));
    }
    let better = if better == DataType::Null { DataType::Utf8 } else { better };
    Some(format!("{what}; make it a column with types = {{ {} = \"{}\" }}", super::scan::toml_key(key), option_name(&better)))
}
