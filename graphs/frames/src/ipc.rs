//! Arrow IPC taken in: one way for messages from files, from peers and from the spill directory.
//!
//! Nothing in a message is believed. Lengths are compared with the bytes that are there before anything is made of them, and
//! contents are checked by Arrow's validating readers. Rows may also have no bytes at all (nulls, runs of one value): a few
//! hundred bytes can say that they are 2^62. What such rows would take once somebody looks at them is limited by the bytes
//! that came with them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, make_array};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::reader::{read_dictionary, read_record_batch};

/// Rows of one batch: what 32 bits count, as offsets and indices do.
const MAX_ROWS: i64 = i32::MAX as i64;

/// Bytes that rows without bytes may stand for, beside [`MAX_RATIO`] for each byte of the message.
const FREE_NBYTES: u64 = 64 << 20;

/// Bytes that one byte of a message may stand for.
const MAX_RATIO: u64 = 1024;

fn malformed(what: impl Into<String>) -> ArrowError {
    ArrowError::IpcError(what.into())
}

/// Run what reads messages: Arrow's readers check contents but assert some of the structure, and a panic there is the fault of
/// whoever wrote the bytes.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(malformed("malformed Arrow IPC message")))
}

/// Turns messages into batches.
pub(crate) struct Messages {
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Bytes of bodies so far, and what rows without bytes among them stand for.
    received: u64,
    stood_for: u64,
}

impl Messages {
    /// Messages that follow the schema message `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, ArrowError> {
        let message = parse(bytes)?;
        let schema = message.header_as_schema().ok_or_else(|| malformed("no schema"))?;
        Self::of(schema)
    }

    fn of(schema: ipc::Schema<'_>) -> Result<Self, ArrowError> {
        if schema.endianness() != ipc::Endianness::Little {
            return Err(malformed("numbers are big-endian"));
        }
        let schema = Arc::new(ipc::convert::fb_to_schema(schema));
        Ok(Self { schema, dictionaries: HashMap::new(), received: 0, stood_for: 0 })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a message, or `None` when it holds a dictionary.
    pub(crate) fn read(&mut self, bytes: &[u8], body: &Buffer) -> Result<Option<RecordBatch>, ArrowError> {
        let message = parse(bytes)?;
        self.received = self.received.saturating_add(body.len() as u64);
        if let Some(batch) = message.header_as_record_batch() {
            check_batch(batch, body, &self.schema)?;
            let schema = Arc::clone(&self.schema);
            let batch = read_record_batch(body, batch, schema, &self.dictionaries, None, &message.version())?;
            self.stand_for(batch.columns().iter().map(|column| column.to_data()))?;
            return Ok(Some(batch));
        }
        let dictionary =
            message.header_as_dictionary_batch().ok_or_else(|| malformed("a message that is neither rows nor dictionary"))?;
        let data = dictionary.data().ok_or_else(|| malformed("empty dictionary message"))?;
        check_batch_buffers(data, body)?;
        read_dictionary(body, dictionary, &self.schema, &mut self.dictionaries, &message.version())?;
        if let Some(values) = self.dictionaries.get(&dictionary.id()).map(|values| values.to_data()) {
            self.stand_for(std::iter::once(values))?;
        }
        Ok(None)
    }

    /// Count what `columns` stand for: many small messages are no more than one.
    fn stand_for(&mut self, columns: impl Iterator<Item = ArrayData>) -> Result<(), ArrowError> {
        let nbytes = columns.fold(0_u64, |sum, column| sum.saturating_add(nbytes_without_bytes(&column)));
        self.stood_for = self.stood_for.saturating_add(nbytes);
        check_ratio(self.stood_for, self.received)
    }
}

fn parse(bytes: &[u8]) -> Result<ipc::Message<'_>, ArrowError> {
    ipc::root_as_message(bytes).map_err(|error| malformed(format!("bad message: {error}")))
}

/// Checks of a batch that Arrow's reader asserts instead of reporting.
fn check_batch(batch: ipc::RecordBatch<'_>, body: &Buffer, schema: &Schema) -> Result<(), ArrowError> {
    check_batch_buffers(batch, body)?;
    let n_view_columns: usize = schema.fields().iter().map(|field| n_views(field.data_type())).sum();
    let n_counts = batch.variadicBufferCounts().map_or(0, |counts| counts.len());
    if n_view_columns != n_counts {
        return Err(malformed(format!("{n_view_columns} view columns with {n_counts} buffer counts")));
    }
    Ok(())
}

fn check_batch_buffers(batch: ipc::RecordBatch<'_>, body: &Buffer) -> Result<(), ArrowError> {
    if batch.length() < 0 {
        return Err(malformed("a negative number of rows"));
    }
    if batch.length() > MAX_ROWS {
        return Err(malformed(format!("{} rows in one batch; {MAX_ROWS} at most", batch.length())));
    }
    // Elements of lists may be more than the rows; each has a bit at least.
    let max_length = MAX_ROWS.max(i64::try_from(body.len()).unwrap_or(i64::MAX).saturating_mul(8));
    for node in batch.nodes().into_iter().flatten() {
        if !(0..=max_length).contains(&node.length()) || node.null_count() < 0 || node.null_count() > node.length() {
            return Err(malformed("a column of impossible length"));
        }
    }
    let is_packed = batch.compression().is_some();
    let mut unpacked = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let inside = |number: i64| usize::try_from(number).ok();
        let bytes = inside(buffer.offset()).zip(inside(buffer.length()));
        let bytes = bytes.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
        let bytes = bytes.ok_or_else(|| malformed("a buffer outside its message"))?;
        if is_packed && let Some(length) = bytes.first_chunk::<8>() {
            // -1 says that this buffer is not packed.
            let length = i64::from_le_bytes(*length);
            unpacked = unpacked.saturating_add(u64::try_from(length).unwrap_or(if length == -1 { 0 } else { u64::MAX }));
        }
    }
    check_ratio(unpacked, body.len() as u64)
}

fn check_ratio(nbytes: u64, received: u64) -> Result<(), ArrowError> {
    let limit = FREE_NBYTES.saturating_add(MAX_RATIO.saturating_mul(received));
    if nbytes <= limit {
        return Ok(());
    }
    Err(malformed(format!("{received} bytes that stand for {nbytes}; they may stand for {limit}")))
}

/// What rows of `data` that have no bytes of their own take when they are written out: nulls a bit, runs their value each time.
pub(crate) fn nbytes_without_bytes(data: &ArrayData) -> u64 {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: values of all other types have bytes")]
    let own = match data.data_type() {
        DataType::Null | DataType::FixedSizeBinary(0) | DataType::FixedSizeList(_, 0) => (data.len() as u64).div_ceil(8),
        DataType::Struct(fields) if fields.is_empty() => (data.len() as u64).div_ceil(8),
        DataType::RunEndEncoded(_, _) => nbytes_of_runs(data),
        _ => 0,
    };
    data.child_data().iter().fold(own, |sum, child| sum.saturating_add(nbytes_without_bytes(child)))
}

/// The longest value of the runs for each row: a bound, and cheap.
fn nbytes_of_runs(data: &ArrayData) -> u64 {
    let Some(values) = data.child_data().get(1) else { return 0 };
    let values = make_array(values.clone());
    let longest = (0..values.len()).map(|idx| values.slice(idx, 1).to_data().get_slice_memory_size().unwrap_or(usize::MAX)).max();
    (data.len() as u64).saturating_mul(longest.unwrap_or(0) as u64)
}

/// How many view arrays a column of this type has among itself and its children. Those inside a dictionary travel in
/// dictionary messages and do not count.
fn n_views(data_type: &DataType) -> usize {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: every other type has no children")]
    match data_type {
        DataType::Utf8View | DataType::BinaryView => 1,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => n_views(field.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| n_views(field.data_type())).sum(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| n_views(field.data_type())).sum(),
        DataType::RunEndEncoded(_, values) => n_views(values.data_type()),
        _ => 0,
    }
}

/// Reads a file of either form: `ARROW1` files, which say at their end where their messages are, and streams.
pub(crate) struct FileReader {
    file: BufReader<File>,
    nbytes: u64,
    messages: Messages,
    /// Where the messages of a file are, in the order to read them; those of a stream follow each other.
    blocks: Option<std::vec::IntoIter<ipc::Block>>,
}

const MAGIC: &[u8; 6] = b"ARROW1";

impl FileReader {
    /// Look at the beginning of `file`, and at its end if it has the other form.
    pub(crate) fn open(file: File) -> Result<Self, ArrowError> {
        let nbytes = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut magic = [0; 6];
        let is_file = nbytes >= 8 && file.read_exact(&mut magic).is_ok() && &magic == MAGIC;
        if is_file {
            return guarded(|| Self::open_file(file, nbytes));
        }
        file.seek(SeekFrom::Start(0))?;
        guarded(|| {
            let message = read_stream_message(&mut file, nbytes)?.ok_or_else(|| malformed("no Arrow file: it is empty"))?;
            Ok(Self { file, nbytes, messages: Messages::new(&message)?, blocks: None })
        })
    }

    fn open_file(mut file: BufReader<File>, nbytes: u64) -> Result<Self, ArrowError> {
        let cut_short = || malformed("an Arrow file cut short");
        let end = nbytes.checked_sub(10).ok_or_else(cut_short)?;
        file.seek(SeekFrom::Start(end))?;
        let mut tail = [0; 10];
        file.read_exact(&mut tail)?;
        let [length @ .., _, _, _, _, _, _] = tail;
        let length = u64::try_from(i32::from_le_bytes(length)).map_err(|_| cut_short())?;
        if &tail[4..] != MAGIC || length > end {
            return Err(cut_short());
        }
        file.seek(SeekFrom::Start(end - length))?;
        let footer = read_bytes(&mut file, length, nbytes)?;
        let footer = ipc::root_as_footer(&footer).map_err(|error| malformed(format!("bad footer: {error}")))?;
        let messages = Messages::of(footer.schema().ok_or_else(|| malformed("no schema"))?)?;
        let blocks = footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten());
        let blocks: Vec<ipc::Block> = blocks.copied().collect();
        Ok(Self { file, nbytes, messages, blocks: Some(blocks.into_iter()) })
    }

    /// The columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(self.messages.schema())
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        loop {
            if let Some(blocks) = &mut self.blocks {
                let Some(block) = blocks.next() else { return Ok(None) };
                self.file.seek(SeekFrom::Start(u64::try_from(block.offset()).map_err(|_| malformed("a bad position"))?))?;
            }
            let Some(message) = read_stream_message(&mut self.file, self.nbytes)? else { return Ok(None) };
            let length = u64::try_from(parse(&message)?.bodyLength()).map_err(|_| malformed("a body of negative length"))?;
            let body = read_bytes(&mut self.file, length, self.nbytes)?;
            if let Some(batch) = self.messages.read(&message, &body)? {
                return Ok(Some(batch));
            }
        }
    }
}

impl Iterator for FileReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        guarded(|| self.read()).transpose()
    }
}

/// The next message without its body; `None` at the end.
fn read_stream_message(file: &mut BufReader<File>, nbytes: u64) -> Result<Option<Buffer>, ArrowError> {
    let mut word = [0; 4];
    match file.read_exact(&mut word) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Before version 0.15 the length came first.
    if word == [0xff; 4] {
        file.read_exact(&mut word)?;
    }
    match u64::try_from(i32::from_le_bytes(word)) {
        Ok(0) => Ok(None),
        Ok(length) => read_bytes(file, length, nbytes).map(Some),
        Err(_) => Err(malformed("no Arrow file")),
    }
}

/// `length` bytes, if the file has them: the length is only a claim.
fn read_bytes(file: &mut BufReader<File>, length: u64, nbytes: u64) -> Result<Buffer, ArrowError> {
    let left = nbytes.saturating_sub(file.stream_position()?);
    if length > left {
        return Err(malformed(format!("{length} bytes announced where {left} are left: no Arrow file, or one cut short")));
    }
    let mut bytes = MutableBuffer::from_len_zeroed(usize::try_from(length).unwrap_or(usize::MAX));
    file.read_exact(bytes.as_slice_mut())?;
    Ok(bytes.into())
}
