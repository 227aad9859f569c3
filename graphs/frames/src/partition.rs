//! A partition of a frame as a result: Arrow batches of one schema that workers hold, serve and receive.
//!
//! On the wire a partition is Arrow IPC taken apart: the header carries the flatbuffers messages (schema, dictionaries,
//! batches), each message's body is one buffer. Encoding copies every array once into its body; decoding copies nothing
//! as long as the bodies arrive 64-byte aligned. Received bytes are never trusted; see [`crate::ipc`].

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayData, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::Bytes;
use rask_graphs::{Data, EncodeError, Encoded, KernelError, Value};
use rustc_hash::FxHashSet;

use crate::ipc::{Messages, guarded, nbytes_without_bytes};

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
                let data = column.to_data();
                total += nbytes_of(&data, &mut seen) + nbytes_without_bytes(&data);
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

/// Bytes of one batch.
pub(crate) fn nbytes_of_batch(batch: &RecordBatch) -> u64 {
    let mut seen = FxHashSet::default();
    batch.columns().iter().map(|column| nbytes_of(&column.to_data(), &mut seen)).sum()
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
    guarded(|| decode_messages(header, buffers)).map(Value::new).map_err(|error| error.to_string())
}

fn decode_messages(header: &[u8], buffers: Vec<Bytes>) -> Result<Partition, ArrowError> {
    let messages = split_messages(header)?;
    let Some((schema_message, messages)) = messages.split_first() else {
        return Err(ArrowError::IpcError("no schema".to_owned()));
    };
    if messages.len() != buffers.len() {
        return Err(ArrowError::IpcError(format!("{} messages with {} bodies", messages.len(), buffers.len())));
    }
    let mut reader = Messages::new(schema_message)?;
    let mut batches = Vec::new();
    for (message, body) in messages.iter().zip(buffers) {
        batches.extend(reader.read(message, &Buffer::from(body))?);
    }
    Ok(Partition { schema: Arc::clone(reader.schema()), batches })
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

/// The schema as bytes, for task arguments.
pub(crate) fn schema_to_bytes(schema: &Schema) -> Vec<u8> {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options).ipc_message
}

/// Read back what [`schema_to_bytes`] made.
pub(crate) fn schema_from_bytes(bytes: &[u8]) -> Result<SchemaRef, String> {
    guarded(|| Messages::new(bytes)).map(|messages| Arc::clone(messages.schema())).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
