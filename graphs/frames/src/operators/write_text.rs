//! Rows as text files: CSV, and JSON an object a line.
//!
//! What is written is read back as it was, as far as the format goes. In CSV a missing value is an empty field (or the
//! text chosen for it), and a text that would look the same stands in quotes, as PostgreSQL has it. JSON has no
//! NaN and no infinities: they are the texts `"NaN"`, `"Infinity"` and `"-Infinity"`, as in `--json`. A value that has no
//! text (a date beyond the calendar) is an error that names its column, never a text about an error.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::{SortOptions, cast, sort_to_indices};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{
    Encoder, EncoderFactory, EncoderOptions, LineDelimited, NullableEncoder, Writer as ArrowJsonWriter, make_encoder,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rask_graphs::KernelError;

use crate::error::arrow_message;
use crate::types::{any_type, type_name};

/// How a CSV file looks.
pub(super) struct CsvStyle<'a> {
    pub(super) delimiter: u8,
    /// The text for "no value".
    pub(super) null: &'a str,
}

fn about(field: &Field, error: &ArrowError) -> KernelError {
    KernelError(format!("column \"{}\": {}", field.name(), arrow_message(error)))
}

/// Writes CSV, line by line.
pub(super) struct CsvWriter<'a, W> {
    out: W,
    style: CsvStyle<'a>,
    line: Vec<u8>,
    cell: Vec<u8>,
    /// Whether an empty line is a row without value: that of the only column, which has texts.
    may_be_empty: bool,
}

impl<'a, W: Write> CsvWriter<'a, W> {
    pub(super) fn new(out: W, style: CsvStyle<'a>) -> Self {
        Self { out, style, line: Vec::new(), cell: Vec::new(), may_be_empty: false }
    }

    /// The names of the columns as a line.
    pub(super) fn header(&mut self, fields: &[FieldRef]) -> Result<(), KernelError> {
        self.line.clear();
        for (at, field) in fields.iter().enumerate() {
            self.cell.clear();
            self.cell.extend_from_slice(field.name().as_bytes());
            self.end_cell(at, false);
        }
        self.end_line(fields.len())
    }

    /// All rows of `batch`.
    pub(super) fn rows(&mut self, batch: &RecordBatch) -> Result<(), KernelError> {
        let schema = batch.schema();
        let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(NotFinite));
        let formats = FormatOptions::default().with_display_error(false);
        let fields = schema.fields();
        let columns: Vec<ArrayRef> = batch.columns().iter().map(plain_values).collect::<Result<_, _>>()?;
        let mut cells = Vec::with_capacity(columns.len());
        for (field, column) in fields.iter().zip(&columns) {
            check_encodable(field, column)?;
            let of_column = CsvCells::of(field, column, &formats, &options).map_err(|error| about(field, &error))?;
            // Columns of nothing but nulls have no list of them.
            cells.push((of_column, column.logical_nulls(), field));
        }
        self.may_be_empty = matches!(columns.as_slice(), [only] if is_text(only.data_type()));
        for row in 0..batch.num_rows() {
            self.line.clear();
            for (at, (cells, nulls, field)) in cells.iter_mut().enumerate() {
                self.cell.clear();
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    self.cell.extend_from_slice(self.style.null.as_bytes());
                    self.end_cell(at, false);
                } else {
                    cells.write(row, &mut self.cell).map_err(|error| about(field, &error))?;
                    self.end_cell(at, true);
                }
            }
            self.end_line(columns.len())?;
        }
        Ok(())
    }

    /// Put the cell into the line, quoted where it would otherwise be read as something else.
    fn end_cell(&mut self, at: usize, is_value: bool) {
        if at > 0 {
            self.line.push(self.style.delimiter);
        }
        let is_special = |byte: &u8| *byte == self.style.delimiter || matches!(byte, b'"' | b'\n' | b'\r');
        let looks_missing = is_value && self.cell == self.style.null.as_bytes();
        if !looks_missing && !self.cell.iter().any(is_special) {
            self.line.extend_from_slice(&self.cell);
            return;
        }
        self.line.push(b'"');
        for &byte in &self.cell {
            if byte == b'"' {
                self.line.push(b'"');
            }
            self.line.push(byte);
        }
        self.line.push(b'"');
    }

    fn end_line(&mut self, n_columns: usize) -> Result<(), KernelError> {
        // Many readers pass over empty lines, and then there would be a row less. Among texts there is no other way.
        if self.line.is_empty() && n_columns > 0 && !self.may_be_empty {
            self.line.extend_from_slice(b"\"\"");
        }
        self.line.push(b'\n');
        Ok(self.out.write_all(&self.line)?)
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Dictionaries and runs spelled out: their nulls are those of their values.
fn plain_values(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: all others have values of their own")]
    match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values),
        DataType::RunEndEncoded(_, values) => cast(column, values.data_type()),
        _ => Ok(Arc::clone(column)),
    }
}

/// The cells of one column.
enum CsvCells<'a> {
    Text(ArrayFormatter<'a>),
    /// Lists, structs and maps are JSON.
    Json(NullableEncoder<'a>),
}

impl<'a> CsvCells<'a> {
    fn of(
        field: &'a FieldRef,
        column: &'a ArrayRef,
        formats: &FormatOptions<'a>,
        options: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        if column.data_type().is_nested() {
            return Ok(Self::Json(make_encoder(field, column.as_ref(), options)?));
        }
        Ok(Self::Text(ArrayFormatter::try_new(column, formats)?))
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self {
            Self::Text(formatter) => {
                let mut text = String::new();
                formatter.value(row).write(&mut text)?;
                out.extend_from_slice(text.as_bytes());
            }
            Self::Json(encoder) => encoder.encode(row, out),
        }
        Ok(())
    }
}

/// Writes an object a line.
pub(super) struct JsonWriter<W: Write>(ArrowJsonWriter<W, LineDelimited>);

impl<W: Write> JsonWriter<W> {
    pub(super) fn new(out: W) -> Self {
        // With nulls spelled out every line has all columns, in order, and a reader finds them.
        let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(NotFinite));
        Self(builder.build(out))
    }

    /// All rows of `batch`.
    pub(super) fn rows(&mut self, batch: &RecordBatch) -> Result<(), KernelError> {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            check_encodable(field, column)?;
        }
        self.0.write(batch).map_err(|error| KernelError(arrow_message(&error)))
    }

    pub(super) fn into_inner(mut self) -> Result<W, KernelError> {
        self.0.finish()?;
        Ok(self.0.into_inner())
    }
}

/// Writes floats that are not finite as texts, where Arrow would write null.
#[derive(Debug)]
struct NotFinite;

impl EncoderFactory for NotFinite {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: all others are for Arrow to write")]
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float16 => Box::new(FloatCells(array.as_primitive::<Float16Type>(), f32::from)),
            DataType::Float32 => Box::new(FloatCells(array.as_primitive::<Float32Type>(), |value| value)),
            DataType::Float64 => Box::new(FloatCells(array.as_primitive::<Float64Type>(), |value| value)),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct FloatCells<'a, T: ArrowPrimitiveType, F>(&'a PrimitiveArray<T>, fn(T::Native) -> F);

impl<T: ArrowPrimitiveType, F: Copy + Into<f64> + serde::Serialize> Encoder for FloatCells<'_, T, F> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        let value = (self.1)(self.0.value(idx));
        let wide: f64 = value.into();
        if wide.is_finite() {
            // The shortest digits that are read back as the same number of this width; writing into memory cannot fail.
            let _ = serde_json::to_writer(out, &value);
        } else {
            let text = if wide.is_nan() {
                "NaN"
            } else if wide > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            out.extend_from_slice(format!("\"{text}\"").as_bytes());
        }
    }
}

/// Fails, with the column's name, when a value has no text: Arrow's writer would write a text about an error.
fn check_encodable(field: &Field, column: &ArrayRef) -> Result<(), KernelError> {
    check_values(column).map_err(|error| about(field, &error))?;
    if any_type(column.data_type(), &|kind| matches!(kind, DataType::Union(..))) {
        let kind = type_name(column.data_type());
        return Err(KernelError(format!("column \"{}\" is {kind}, which text files cannot hold", field.name())));
    }
    Ok(())
}

fn check_values(column: &ArrayRef) -> Result<(), ArrowError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: every other type has a text for each value")]
    match column.data_type() {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            // Cheaper than it looks: the first and the last of all are in the calendar, so all are.
            let options = SortOptions { descending: false, nulls_first: false };
            let ends = |descending| sort_to_indices(column, Some(SortOptions { descending, ..options }), Some(1));
            let formats = FormatOptions::default().with_display_error(false);
            let formatter = ArrayFormatter::try_new(column.as_ref(), &formats)?;
            for end in [ends(false)?, ends(true)?] {
                for idx in end.values().iter().map(|&idx| idx as usize).filter(|&idx| column.is_valid(idx)) {
                    formatter.value(idx).try_to_string()?;
                }
            }
            Ok(())
        }
        DataType::List(_) => check_values(column.as_list::<i32>().values()),
        DataType::LargeList(_) => check_values(column.as_list::<i64>().values()),
        DataType::ListView(_) => check_values(column.as_list_view::<i32>().values()),
        DataType::LargeListView(_) => check_values(column.as_list_view::<i64>().values()),
        DataType::FixedSizeList(..) => check_values(column.as_fixed_size_list().values()),
        DataType::Map(..) => column.as_map().entries().columns().iter().try_for_each(check_values),
        DataType::Struct(_) => column.as_struct().columns().iter().try_for_each(check_values),
        DataType::Dictionary(..) => check_values(column.as_any_dictionary().values()),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "write_text_tests.rs"]
mod tests;
