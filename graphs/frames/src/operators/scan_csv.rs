//! Reading CSV: whole files, or the records that begin in a range of bytes.
//!
//! The columns of each file are found by the names in its own header. A value that cannot be read is an error that names the
//! file, the line in it and the column, also when the task read only a slice.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::DataType;
use rask_graphs::KernelError;

use super::scan::{self, Request, Sink};
use crate::error::FrameError;
use crate::source::ReadOptions;
use crate::source::infer::{csv_names, csv_order};
use crate::text::records::{RecordError, Records};
use crate::text::values::{Texts, column};
use crate::text::{cuts, input};

/// Rows, fields and bytes that make a batch, whichever comes first: rows of very many columns are few.
const BATCH_ROWS: usize = 8192;
const BATCH_FIELDS: usize = 1 << 20;
const BATCH_NBYTES: usize = 16 << 20;

/// Read the slice.
pub(super) fn csv(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    let mut reader = Reader::open(request)?;
    let mut rows = Rows::new(reader.places.len());
    if reader.is_at_row {
        rows.add(&reader.records, &reader.places);
    }
    let mut wants_more = true;
    loop {
        // Even when no more rows are wanted: whether the slice ends where the next begins is only known at its end.
        let is_record = reader.records.read().map_err(|error| reader.fail(request, error))?;
        if wants_more && (!is_record || rows.are_enough()) {
            wants_more = sink.push(&rows.batch(request, &reader)?)?;
            rows.clear();
        }
        if !is_record || !wants_more && reader.end.is_none() {
            break;
        }
        if wants_more {
            rows.add(&reader.records, &reader.places);
        } else {
            request.ctx.check_cancelled()?;
        }
    }
    reader.check_end(request)
}

struct Reader {
    records: Records<Box<dyn Read + Send>>,
    /// For each column needed its place in the records of this file.
    places: Vec<usize>,
    /// Whether the record read last is a row: files without a header have one in its place.
    is_at_row: bool,
    /// Where the header ends, the slice begins (0 for all) and ends, and the length of the file.
    header_end: u64,
    start: u64,
    end: Option<u64>,
    nbytes: u64,
}

impl Reader {
    fn open(request: &Request<'_>) -> Result<Self, KernelError> {
        let options = request.options;
        let io = |error: std::io::Error| FrameError::io(request.path, &error);
        let mut file = request.open()?;
        let nbytes = file.metadata().map_err(io)?.len();
        let is_packed = input::is_packed(request.path);
        let (start, end) = match request.range {
            None => (0, None),
            Some(_) if is_packed => return Err(request.fail("a packed file is read as a whole, without a range")),
            Some((start, end)) => (cuts::line_start(&mut file, start, nbytes).map_err(io)?, Some(end)),
        };
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let (text, offset) = input::open(file, request.path).map_err(io)?;
        let mut records = Records::new(text, options.dialect(), offset, 1);
        let Some(names) = csv_names(request.path, &mut records, options)? else {
            // A file of no bytes has no rows.
            return Ok(Self { records, places: Vec::new(), is_at_row: false, header_end: 0, start: 0, end: None, nbytes: 0 });
        };
        let planned: Vec<String> = request.file_schema.fields().iter().map(|field| field.name().clone()).collect();
        let order = csv_order(&planned, &names, "the plan").map_err(|reason| request.fail(reason))?;
        let mut places = Vec::with_capacity(request.needed.fields().len());
        let planned = scan::places(request.file_schema);
        for field in request.needed.fields() {
            let place = planned.get(field.name().as_str());
            places.push(*place.map(|&place| &order[place]).ok_or_else(|| request.fail(format!("no column {}", field.name())))?);
        }
        let header_end = if options.header { records.position() } else { 0 };
        let mut is_at_row = !options.header && end.is_none_or(|end| records.start() < end);
        if start > records.position() || start > 0 && !options.header {
            let mut file = request.open()?;
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            records = Records::new(Box::new(file), options.dialect(), start, 1);
            records.expect_fields(names.len());
            is_at_row = false;
        }
        records.stop_at(end.unwrap_or(u64::MAX));
        Ok(Self { records, places, is_at_row, header_end, start, end, nbytes })
    }

    /// Lines before the slice, which are only counted for somebody who wants to read about them.
    fn n_lines_before(&self, request: &Request<'_>) -> u64 {
        if self.start == 0 {
            return 0;
        }
        request.open().ok().and_then(|mut file| cuts::n_lines_before(&mut file, self.start).ok()).unwrap_or(0)
    }

    fn fail(&self, request: &Request<'_>, error: RecordError) -> KernelError {
        match error {
            RecordError::Io(error) => FrameError::io(request.path, &error).into(),
            RecordError::At(line, what) => request.fail_at(self.n_lines_before(request) + line, what),
        }
    }

    /// The next slice begins at the first line end from where this one was to end; its first record must begin there too.
    fn check_end(&self, request: &Request<'_>) -> Result<(), KernelError> {
        // A slice that ends in the header, or in comments before it, has no rows.
        let Some(end) = self.end.filter(|&end| end < self.nbytes && end > self.header_end) else { return Ok(()) };
        let io = |error: std::io::Error| FrameError::io(request.path, &error);
        let next = cuts::line_start(&mut request.open()?, end, self.nbytes).map_err(io)?;
        if self.records.position().max(end) == next {
            return Ok(());
        }
        Err(request.fail(format!(
            "a quoted field goes on where the file is cut, at byte {end}; read it in one piece, with partition_nbytes = {}",
            self.nbytes
        )))
    }
}

/// Rows taken out of records: the text of the fields needed, one after the other.
struct Rows {
    n_columns: usize,
    text: Vec<u8>,
    /// Of each field, the end of its text, and whether it stood in quotes.
    fields: Vec<(usize, bool)>,
    /// Of each row, its line.
    lines: Vec<u64>,
}

impl Rows {
    fn new(n_columns: usize) -> Self {
        Self { n_columns, text: Vec::new(), fields: Vec::new(), lines: Vec::new() }
    }

    fn add<R: Read>(&mut self, records: &Records<R>, places: &[usize]) {
        self.lines.push(records.line());
        let fields = records.fields();
        for &place in places {
            let field = fields[place];
            records.append(field, &mut self.text);
            self.fields.push((self.text.len(), field.is_quoted));
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.lines.clear();
    }

    fn are_enough(&self) -> bool {
        self.lines.len() >= BATCH_ROWS || self.fields.len() >= BATCH_FIELDS || self.text.len() >= BATCH_NBYTES
    }

    fn batch(&self, request: &Request<'_>, reader: &Reader) -> Result<RecordBatch, KernelError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.n_columns);
        for (idx, field) in request.needed.fields().iter().enumerate().take(self.n_columns) {
            let is_text_wanted = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            let texts = Column { rows: self, idx, options: request.options, is_text_wanted };
            let values = column(&texts, field.data_type(), request.origin_of(field.name()));
            columns.push(values.map_err(|bad| {
                let line = reader.n_lines_before(request) + self.lines.get(bad.row).copied().unwrap_or(0);
                request.fail_at(line, request.describe(field, &bad))
            })?);
        }
        if columns.is_empty() && self.lines.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&request.needed)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.lines.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&request.needed), columns, &options)?)
    }
}

/// One column of [`Rows`].
struct Column<'a> {
    rows: &'a Rows,
    idx: usize,
    options: &'a ReadOptions,
    is_text_wanted: bool,
}

impl Texts for Column<'_> {
    fn len(&self) -> usize {
        self.rows.lines.len()
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        let at = row * self.rows.n_columns + self.idx;
        let start = if at == 0 { 0 } else { self.rows.fields[at - 1].0 };
        let (end, is_quoted) = self.rows.fields[at];
        let text = &self.rows.text[start..end];
        (!self.options.is_null(text, is_quoted, self.is_text_wanted)).then_some(text)
    }
}
