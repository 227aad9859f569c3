//! One spilled result as a file: a header, the buffers, and a table that says what is where.
//!
//! ```text
//! header   magic, version, graph, task, attempt, where the table is, its length and checksum, checksum of the header
//! buffers  one after another, each as it is or in LZ4 blocks
//! table    kind and header of the whole result and of each of its parts, and for each buffer its place and checksum
//! ```
//!
//! A part can be read without the rest when its buffers are buffers of the whole; otherwise the whole is read and the part
//! taken from it. Everything that is used is checked against its checksum first, so whatever happens to a file (flipped, cut,
//! deleted, swapped with another), reading it fails. Files belong to one process: there is no compatibility to keep.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use rask_graphs::{Attempt, EncodeError, Encoded, Part, Registry, TaskId, Value};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::compression;

const MAGIC: [u8; 8] = *b"RaskSpil";
const VERSION: u32 = 1;
const HEADER_NBYTES: usize = 56;
/// Buffers come back aligned as those from the wire do: a cache line, and what Arrow recommends.
const ALIGNMENT: usize = 64;

/// Whose result a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    CannotEncode(#[from] EncodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a result could not be read back. Whatever the reason, the copy counts as lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("its file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("its file is damaged: {0}")]
    Damaged(String),
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, ReadError> {
    Err(ReadError::Damaged(reason.into()))
}

#[derive(Serialize, Deserialize)]
struct Table {
    whole: EntryOf,
    parts: Vec<EntryOf>,
    buffers: Vec<StoredBuffer>,
}

/// A value: how to decode it, and which buffers to give the decoder.
#[derive(Serialize, Deserialize)]
struct EntryOf {
    kind: String,
    header: Bytes,
    buffers: Vec<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct StoredBuffer {
    at: u64,
    stored_nbytes: u64,
    nbytes: u64,
    is_compressed: bool,
    /// Of the stored bytes.
    checksum: u64,
}

/// Write `value` to `file`, which is empty. Gives the file's length.
///
/// # Errors
/// When the value cannot be encoded, or the disk does not take it. What is in the file then is useless.
pub(super) fn write(file: &File, owner: Owner, value: &Value) -> Result<u64, WriteError> {
    let whole = value.encode()?;
    let mut writer = BufWriter::with_capacity(256 << 10, file);
    writer.write_all(&[0; HEADER_NBYTES])?;
    let mut at = HEADER_NBYTES as u64;
    let mut buffers = Vec::with_capacity(whole.buffers.len());
    for buffer in &whole.buffers {
        let stored = write_buffer(&mut writer, at, buffer)?;
        at += stored.stored_nbytes;
        buffers.push(stored);
    }
    let parts = parts_of(value, &whole);
    let n_buffers = u32::try_from(whole.buffers.len()).map_err(io::Error::other)?;
    let whole = EntryOf { kind: whole.kind.to_owned(), header: whole.header, buffers: (0..n_buffers).collect() };
    let table = rmp_serde::to_vec(&Table { whole, parts, buffers }).map_err(io::Error::other)?;
    writer.write_all(&table)?;
    writer.flush()?;
    let header = header_bytes(owner, at, table.len() as u64, xxh3_64(&table));
    let mut file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    Ok(at + table.len() as u64)
}

fn write_buffer(writer: &mut impl Write, at: u64, buffer: &[u8]) -> io::Result<StoredBuffer> {
    let nbytes = buffer.len() as u64;
    if !compression::pays(buffer) {
        writer.write_all(buffer)?;
        return Ok(StoredBuffer { at, stored_nbytes: nbytes, nbytes, is_compressed: false, checksum: xxh3_64(buffer) });
    }
    let (mut checksum, mut stored_nbytes) = (Xxh3Default::new(), 0);
    compression::compress(buffer, |bytes| {
        checksum.update(bytes);
        stored_nbytes += bytes.len() as u64;
        writer.write_all(bytes)
    })?;
    Ok(StoredBuffer { at, stored_nbytes, nbytes, is_compressed: true, checksum: checksum.digest() })
}

/// The parts of `value` in terms of the buffers of the whole; none when that cannot be said of all of them.
fn parts_of(value: &Value, whole: &Encoded) -> Vec<EntryOf> {
    let place_of = |buffer: &Bytes| (buffer.as_ptr().addr(), buffer.len());
    let places = whole.buffers.iter().map(place_of).zip(0_u32..).collect::<FxHashMap<_, _>>();
    let part_of = |idx: u32| {
        let encoded = value.part(idx)?.encode().ok()?;
        let buffers =
            encoded.buffers.iter().map(|buffer| places.get(&place_of(buffer)).copied()).collect::<Option<Vec<u32>>>()?;
        Some(EntryOf { kind: encoded.kind.to_owned(), header: encoded.header, buffers })
    };
    (0..value.n_parts()).map(part_of).collect::<Option<Vec<EntryOf>>>().unwrap_or_default()
}

fn header_bytes(owner: Owner, table_at: u64, table_nbytes: u64, table_checksum: u64) -> [u8; HEADER_NBYTES] {
    let mut header = [0; HEADER_NBYTES];
    header[..8].copy_from_slice(&MAGIC);
    let numbers = [VERSION, owner.task.graph.0, owner.task.idx.0, owner.attempt.0];
    for (place, number) in header[8..24].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    for (place, number) in header[24..48].chunks_exact_mut(8).zip([table_at, table_nbytes, table_checksum]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let checksum = xxh3_64(&header[..48]);
    header[48..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Read the result of `owner`, or a part of it, from `file`.
///
/// # Errors
/// When the file is not what [`write`] has written of this very result.
pub(super) fn read(file: &mut File, owner: Owner, part: Part, registry: &Registry) -> Result<Value, ReadError> {
    let table = read_table(file, owner)?;
    if part.is_whole() {
        return read_entry(file, &table, &table.whole, registry);
    }
    if let Some(entry) = table.parts.get(part.0 as usize) {
        return read_entry(file, &table, entry, registry);
    }
    let whole = read_entry(file, &table, &table.whole, registry)?;
    whole.part(part.0).ok_or_else(|| ReadError::Damaged(format!("it has no part {}", part.0)))
}

fn read_table(file: &mut File, owner: Owner) -> Result<Table, ReadError> {
    let mut header = [0; HEADER_NBYTES];
    file.read_exact(&mut header)?;
    let number = |at: usize| header[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (at, nbytes, checksum) = (number(24), number(32), number(40));
    if header != header_bytes(owner, at, nbytes, checksum) {
        return damaged("its header is not that of this result");
    }
    let table = read_at(file, at, nbytes)?;
    if xxh3_64(&table) != checksum {
        return damaged("the checksum of its table is wrong");
    }
    rmp_serde::from_slice(&table).map_err(|error| ReadError::Damaged(error.to_string()))
}

fn read_entry(file: &mut File, table: &Table, entry: &EntryOf, registry: &Registry) -> Result<Value, ReadError> {
    let mut buffers = Vec::with_capacity(entry.buffers.len());
    for &idx in &entry.buffers {
        let Some(stored) = table.buffers.get(idx as usize) else { return damaged("its table names a buffer that is not") };
        buffers.push(read_buffer(file, stored)?);
    }
    registry.decode(&entry.kind, &entry.header, buffers).map_err(|error| ReadError::Damaged(error.to_string()))
}

fn read_buffer(file: &mut File, stored: &StoredBuffer) -> Result<Bytes, ReadError> {
    let bytes = read_at(file, stored.at, stored.stored_nbytes)?;
    if xxh3_64(&bytes) != stored.checksum {
        return damaged("the checksum of a buffer is wrong");
    }
    if !stored.is_compressed {
        return Ok(bytes);
    }
    let nbytes = usize::try_from(stored.nbytes).unwrap_or(usize::MAX);
    let (mut buffer, start) = reserve(nbytes);
    buffer.resize(start + nbytes, 0);
    if !compression::decompress(&bytes, &mut buffer[start..]) {
        return damaged("a buffer cannot be decompressed");
    }
    Ok(Bytes::from(buffer).slice(start..))
}

/// Exactly `nbytes` bytes from `at` on, aligned. Allocates no more than the file has.
fn read_at(file: &mut File, at: u64, nbytes: u64) -> Result<Bytes, ReadError> {
    if at.checked_add(nbytes).is_none_or(|end| file.metadata().map_or(true, |metadata| end > metadata.len())) {
        return damaged("it is too short");
    }
    file.seek(SeekFrom::Start(at))?;
    let (mut buffer, start) = reserve(usize::try_from(nbytes).unwrap_or(usize::MAX));
    let n_read = file.take(nbytes).read_to_end(&mut buffer)?;
    if n_read as u64 != nbytes {
        return damaged("it is too short");
    }
    Ok(Bytes::from(buffer).slice(start..))
}

/// A vector with room for `nbytes` after its aligned start, which it is filled up to.
fn reserve(nbytes: usize) -> (Vec<u8>, usize) {
    // So much more than is needed that reading to the end never finds the vector full, and never moves it.
    let mut buffer: Vec<u8> = Vec::with_capacity(nbytes + 2 * ALIGNMENT);
    let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    buffer.resize(start, 0);
    (buffer, start)
}
