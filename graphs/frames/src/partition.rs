//! A partition of a frame as a result: Arrow batches of one schema that workers hold, serve and receive.
//!
//! On the wire a partition is Arrow IPC taken apart: the header carries the flatbuffers messages (schema, dictionaries,
//! batches), each message's body is one buffer. Encoding copies every array once into its body; decoding copies nothing
//! as long as the bodies arrive 64-byte aligned. Received bytes are never trusted: lengths are checked here, contents by
//! Arrow's validating readers, and a reader that panics on nonsense is an error like any other.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::Bytes;
use rask_graphs::{Data, EncodeError, Encoded, KernelError, Value};
use rustc_hash::FxHashSet;

/// The kind of a [`Partition`] in a registry.
pub const KIND: &str = "frame";

/// Rows of a frame: any number of batches of one schema.
#[derive(Clone, Debug)]
pub struct Partition {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Partition {
    /// A partition of `batches`.
    ///
    /// # Errors
    /// When a batch has other columns than `schema`: names and types must be equal, nullability and metadata may differ.
    pub fn try_new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self, KernelError> {
        let mut aligned = Vec::with_capacity(batches.len());
        for batch in batches {
            if batch.schema_ref() == &schema {
                aligned.push(batch);
                continue;
            }
            check_same_columns(&schema, batch.schema_ref())?;
            aligned.push(with_schema(&batch, &schema)?);
        }
        Ok(Self { schema, batches: aligned })
    }

    /// No rows.
    #[must_use]
    pub fn empty(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new() }
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows.
    #[must_use]
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// `batch` under `schema`, whose columns have the same types. Nullability is loosened where the data needs it.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
}

/// Fails unless both schemas have columns of the same names and types in the same order.
pub(crate) fn check_same_columns(want: &Schema, got: &Schema) -> Result<(), KernelError> {
    let describe = |schema: &Schema| {
        let columns: Vec<String> =
            schema.fields().iter().map(|f| format!("{} {}", f.name(), crate::types::type_name(f.data_type()))).collect();
        columns.join(", ")
    };
    let same = |a: &Arc<Field>, b: &Arc<Field>| a.name() == b.name() && a.data_type().equals_datatype(b.data_type());
    if want.fields().len() == got.fields().len() && want.fields().iter().zip(got.fields()).all(|(a, b)| same(a, b)) {
        return Ok(());
    }
    Err(KernelError(format!("partitions with different columns: ({}) and ({})", describe(want), describe(got))))
}

impl Data for Partition {
    fn kind(&self) -> &'static str {
        KIND
    }

    /// Arrow's own count takes a buffer once for every column that looks into it, which makes a received batch, all of
    /// whose columns are slices of one body, many times its size.
    fn nbytes(&self) -> u64 {
        let mut seen = FxHashSet::default();
        let mut total = 0;
        for batch in &self.batches {
            for column in batch.columns() {
                total += nbytes_of(&column.to_data(), &mut seen);
            }
        }
        total
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        encode(self).map_err(|error| EncodeError(error.to_string()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Bytes of the buffers of `data` that are not in `seen`. Slices of one allocation that do not start at the same address
/// are different memory, so the address and length of the slice identify it.
fn nbytes_of(data: &ArrayData, seen: &mut FxHashSet<(usize, usize)>) -> u64 {
    let own = data.buffers().iter().chain(data.nulls().map(arrow::buffer::NullBuffer::buffer));
    let mut total = 0;
    for buffer in own {
        if seen.insert((buffer.as_ptr() as usize, buffer.len())) {
            total += buffer.len() as u64;
        }
    }
    total + data.child_data().iter().map(|child| nbytes_of(child, seen)).sum::<u64>()
}

/// Header: for each message its length (u32, little endian) and bytes, each padded to 8 so that flatbuffers may assume
/// alignment. The first message is the schema and has no body; buffer `i` is the body of message `i + 1`.
fn encode(partition: &Partition) -> Result<Encoded, ArrowError> {
    let options = IpcWriteOptions::default();
    let generator = IpcDataGenerator::default();
    let mut tracker = DictionaryTracker::new(false);
    let mut context = IpcWriteContext::default();
    let mut header = Vec::new();
    let mut buffers = Vec::new();
    let schema = generator.schema_to_bytes_with_dictionary_tracker(&partition.schema, &mut tracker, &options);
    push_message(&mut header, &schema.ipc_message)?;
    for batch in &partition.batches {
        let (dictionaries, rows) = generator.encode(batch, &mut tracker, &options, &mut context)?;
        for data in dictionaries.into_iter().chain([rows]) {
            push_message(&mut header, &data.ipc_message)?;
            buffers.push(Bytes::from(data.arrow_data));
        }
    }
    Ok(Encoded { kind: KIND, header: Bytes::from(header), buffers })
}

fn push_message(header: &mut Vec<u8>, message: &[u8]) -> Result<(), ArrowError> {
    let length = u32::try_from(message.len()).map_err(|_| ArrowError::IpcError("a message above 4 GiB".to_owned()))?;
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(message);
    Ok(())
}

/// Rebuild a [`Partition`]; the decoder of kind [`KIND`].
///
/// # Errors
/// When the bytes are not a partition.
pub fn decode(header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String> {
    // Arrow's readers check contents but assert some of the structure; a panic there is the sender's fault, not ours.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_messages(header, buffers)));
    match decoded {
        Ok(Ok(partition)) => Ok(Value::new(partition)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("malformed Arrow IPC message".to_owned()),
    }
}

fn decode_messages(header: &[u8], buffers: Vec<Bytes>) -> Result<Partition, ArrowError> {
    let messages = split_messages(header)?;
    let Some((schema_message, messages)) = messages.split_first() else {
        return Err(ArrowError::IpcError("no schema".to_owned()));
    };
    if messages.len() != buffers.len() {
        return Err(ArrowError::IpcError(format!("{} messages with {} bodies", messages.len(), buffers.len())));
    }
    let schema_message = read_message(schema_message)?;
    let schema = schema_message.header_as_schema().ok_or_else(|| ArrowError::IpcError("no schema".to_owned()))?;
    let schema = Arc::new(ipc::convert::fb_to_schema(schema));
    let mut dictionaries: HashMap<i64, ArrayRef> = HashMap::new();
    let mut batches = Vec::new();
    for (message, body) in messages.iter().zip(buffers) {
        let message = read_message(message)?;
        let body = Buffer::from(body);
        if let Some(batch) = message.header_as_record_batch() {
            check_batch(batch, &body, &schema)?;
            let batch = read_record_batch(&body, batch, Arc::clone(&schema), &dictionaries, None, &message.version())?;
            batches.push(batch);
        } else if let Some(dictionary) = message.header_as_dictionary_batch() {
            let data = dictionary.data().ok_or_else(|| ArrowError::IpcError("empty dictionary message".to_owned()))?;
            check_batch_buffers(data, &body)?;
            read_dictionary(&body, dictionary, &schema, &mut dictionaries, &message.version())?;
        } else {
            return Err(ArrowError::IpcError("a message that is neither rows nor dictionary".to_owned()));
        }
    }
    Ok(Partition { schema, batches })
}

/// The messages of a header, each copied to its own allocation: flatbuffers need alignment that a slice cannot promise.
fn split_messages(mut header: &[u8]) -> Result<Vec<Vec<u8>>, ArrowError> {
    let short = || ArrowError::IpcError("header cut short".to_owned());
    let mut messages = Vec::new();
    while !header.is_empty() {
        let (length, rest) = header.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > rest.len() {
            return Err(short());
        }
        let (message, rest) = rest.split_at(length);
        messages.push(message.to_vec());
        header = rest;
    }
    Ok(messages)
}

fn read_message(bytes: &[u8]) -> Result<ipc::Message<'_>, ArrowError> {
    ipc::root_as_message(bytes).map_err(|error| ArrowError::IpcError(format!("bad message: {error}")))
}

/// Checks of a batch that Arrow's reader asserts instead of reporting.
fn check_batch(batch: ipc::RecordBatch<'_>, body: &Buffer, schema: &Schema) -> Result<(), ArrowError> {
    check_batch_buffers(batch, body)?;
    let n_view_columns: usize = schema.fields().iter().map(|field| n_views(field.data_type())).sum();
    let n_counts = batch.variadicBufferCounts().map_or(0, |counts| counts.len());
    if n_view_columns != n_counts {
        return Err(ArrowError::IpcError(format!("{n_view_columns} view columns with {n_counts} buffer counts")));
    }
    Ok(())
}

fn check_batch_buffers(batch: ipc::RecordBatch<'_>, body: &Buffer) -> Result<(), ArrowError> {
    if batch.length() < 0 {
        return Err(ArrowError::IpcError("a negative number of rows".to_owned()));
    }
    for node in batch.nodes().into_iter().flatten() {
        if node.length() < 0 || node.null_count() < 0 || node.null_count() > node.length() {
            return Err(ArrowError::IpcError("a column of impossible length".to_owned()));
        }
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        let is_inside = buffer.offset() >= 0
            && buffer.length() >= 0
            && end.and_then(|end| usize::try_from(end).ok()).is_some_and(|end| end <= body.len());
        if !is_inside {
            return Err(ArrowError::IpcError("a buffer outside its message".to_owned()));
        }
    }
    Ok(())
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

/// The schema as bytes, for task arguments.
pub(crate) fn schema_to_bytes(schema: &Schema) -> Vec<u8> {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options).ipc_message
}

/// Read back what [`schema_to_bytes`] made.
pub(crate) fn schema_from_bytes(bytes: &[u8]) -> Result<SchemaRef, String> {
    let read = catch_unwind(|| {
        let message = read_message(bytes)?;
        let schema = message.header_as_schema().ok_or_else(|| ArrowError::IpcError("no schema".to_owned()))?;
        Ok::<_, ArrowError>(Arc::new(ipc::convert::fb_to_schema(schema)))
    });
    match read {
        Ok(schema) => schema.map_err(|error| error.to_string()),
        Err(_) => Err("malformed schema".to_owned()),
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
