//! Reading CSV and JSON lines: whole files, or the lines that begin in a range of bytes.
//!
//! A row that cannot be read is an error that names the file and the line in it, also when the task read only a slice.

use std::io::{BufRead, BufReader, Cursor};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder as CsvReaderBuilder;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder as JsonReaderBuilder;
use rask_graphs::KernelError;

use super::scan::{Request, Sink};
use crate::error::FrameError;
use crate::source::infer::json_array;
use crate::source::lines::{ends_inside_quotes, n_lines_before, read_lines};
use crate::source::split::starts_with_bracket;

const BATCH_ROWS: usize = 8192;

/// The text of the slice and the number of lines before it.
struct Text {
    reader: Box<dyn BufRead>,
    first_byte: u64,
}

fn open(request: &Request<'_>, check: impl Fn(&[u8]) -> Result<(), KernelError>) -> Result<Text, KernelError> {
    let mut file = request.open()?;
    let Some((start, end)) = request.range else {
        return Ok(Text { reader: Box::new(BufReader::with_capacity(256 << 10, file)), first_byte: 0 });
    };
    let (lines, first_byte) = read_lines(&mut file, start, end).map_err(|error| FrameError::io(request.path, &error))?;
    check(&lines)?;
    Ok(Text { reader: Box::new(Cursor::new(lines)), first_byte })
}

/// Read CSV.
pub(super) fn csv(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    let options = request.options;
    let text = open(request, |lines| {
        if ends_inside_quotes(lines, options.delimiter_byte(), options.quote_byte()) {
            return Err(
                request.fail("a quoted field contains a line end where the file is cut; read it with quoted_newlines = true")
            );
        }
        Ok(())
    })?;
    let has_header = options.header && text.first_byte == 0;
    let mut projection = Vec::with_capacity(request.needed.fields().len());
    for field in request.needed.fields() {
        projection.push(request.file_schema.index_of(field.name())?);
    }
    let reader = CsvReaderBuilder::new(Arc::clone(request.file_schema))
        .with_format(options.csv_format(has_header).map_err(KernelError)?)
        .with_header(has_header)
        .with_projection(projection)
        .with_batch_size(BATCH_ROWS)
        .build_buffered(text.reader)
        .map_err(|error| request.fail(error))?;
    for batch in reader {
        let batch = batch.map_err(|error| csv_failure(request, text.first_byte, &error))?;
        if !sink.push(&batch)? {
            break;
        }
    }
    Ok(())
}

/// Arrow counts records from where it began to read, values from 0 and ragged rows from 1; people count lines from the top
/// of the file. The two differ by the blank lines and quoted line ends before the row, which few files have.
fn csv_failure(request: &Request<'_>, first_byte: u64, error: &ArrowError) -> KernelError {
    let message = error.to_string();
    let message = message.strip_prefix("Parser error: ").or(message.strip_prefix("Csv error: ")).unwrap_or(&message);
    let (before, after) = message.split_once(" at line ").or_else(|| message.split_once(" for line ")).unwrap_or((message, ""));
    let n_digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let Ok(line) = after[..n_digits].parse::<u64>() else { return request.fail(message) };
    let counts_from_zero = u64::from(message.starts_with("Error"));
    let n_before = request.open().ok().and_then(|mut file| n_lines_before(&mut file, first_byte).ok()).unwrap_or(0);
    // The offending row, which Arrow appends, may be a megabyte long.
    let rest: String = after[n_digits..].chars().take(200).collect();
    let before = name_column(request, before.trim_end());
    KernelError(format!("{}:{}: {before}{rest}", request.path.display(), line + counts_from_zero + n_before))
}

/// Arrow names the column by its number.
fn name_column(request: &Request<'_>, message: &str) -> String {
    let Some((before, number)) = message.rsplit_once(" for column ") else { return message.to_owned() };
    let idx = number.parse::<usize>().ok().filter(|&idx| idx < request.file_schema.fields().len());
    match idx {
        Some(idx) => format!("{before} for column \"{}\"", request.file_schema.field(idx).name()),
        None => message.to_owned(),
    }
}

/// Read JSON: an object a line, or one array of objects.
pub(super) fn json(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    if request.range.is_none() && starts_with_bracket(&request.ctx.files, request.path)? {
        return json_elements(request, sink);
    }
    let text = open(request, |_| Ok(()))?;
    let reader = json_reader(&request.needed).build(text.reader).map_err(|error| request.fail(error))?;
    for batch in reader {
        let batch = batch.map_err(|error| json_failure(request, &error))?;
        if !sink.push(&batch)? {
            break;
        }
    }
    Ok(())
}

fn json_reader(schema: &SchemaRef) -> JsonReaderBuilder {
    // A number where a string is wanted is a string; rows may have fields nobody asked for.
    JsonReaderBuilder::new(Arc::clone(schema)).with_batch_size(BATCH_ROWS).with_coerce_primitive(true).with_strict_mode(false)
}

fn json_elements(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    let rows = json_array(&request.ctx.files, request.path)?;
    for (rows, n_before) in rows.chunks(BATCH_ROWS).zip((0..).step_by(BATCH_ROWS)) {
        let batch = decode_rows(&request.needed, rows);
        let batch = batch.map_err(|error| request.fail(format!("in elements {n_before} and following: {error}")))?;
        if let Some(batch) = batch
            && !sink.push(&batch)?
        {
            break;
        }
    }
    Ok(())
}

fn decode_rows(schema: &SchemaRef, rows: &[serde_json::Value]) -> Result<Option<RecordBatch>, ArrowError> {
    let mut decoder = json_reader(schema).build_decoder()?;
    decoder.serialize(rows)?;
    decoder.flush()
}

/// The JSON reader does not say where it failed, so read the file again, line by line, to the first that fails alone.
fn json_failure(request: &Request<'_>, error: &ArrowError) -> KernelError {
    let plain = |error: &ArrowError| error.to_string().replacen("Json error: ", "", 1);
    let Ok(file) = request.open() else { return request.fail(plain(error)) };
    for (line, number) in BufReader::new(file).lines().zip(1_u64..) {
        let Ok(line) = line else { break };
        let failure = match serde_json::from_str::<serde_json::Value>(&line) {
            _ if line.trim().is_empty() => continue,
            Err(error) => error.to_string(),
            Ok(row) => match decode_rows(&request.needed, &[row]) {
                Ok(_) => continue,
                Err(error) => plain(&error),
            },
        };
        return KernelError(format!("{}:{number}: {failure}", request.path.display()));
    }
    request.fail(plain(error))
}
