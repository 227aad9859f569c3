//! The data plane: results, whole or in parts, from the worker that holds them to whoever needs them.
//!
//! One stream a request: a frame that says what is wanted. A list of items is answered item by item with a frame that describes
//! the item and then its raw buffers; the wish to watch for items begins a conversation ([`crate::watch`]). Buffers are sent
//! without copying and received with one copy, into memory aligned to 64 bytes. Each buffer has a checksum, each item one of
//! what it claims to be, and nothing is decoded before all of them are right. The checksum of a long buffer comes after it, so
//! that both sides make it piece by piece, while the piece is in the processor's cache anyway. Which results exist, and what a
//! failure leads to, is decided elsewhere.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
/// What [`PartSource::read_back`] returns.
pub use futures::future::BoxFuture;
use quinn::{RecvStream, SendStream, VarInt};
use rask_graphs::{Attempt, Encoded, Part, Registry, TaskId, Value};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::aligned::AlignedBuffer;
use crate::codec::{self, CodecError, FRAME_HEADER_NBYTES, FRAME_LIMIT};
use crate::connection::Connection;
use crate::control::StreamError;
use crate::handover::{Answer, Handover};
use crate::identity::Role;
use crate::tuning::Urgency;
use crate::watch::{PUSH_LIMIT, WatchHello, Watcher};

/// Most items in one request.
pub const REQUEST_LIMIT: usize = 65_536;

/// Longest buffer that is accepted, in bytes; a stream carries fewer than 2^62.
const BUFFER_LIMIT: u64 = 1 << 40;

/// From this length on a buffer's checksum comes after it.
const LATE_CHECKSUM_NBYTES: u64 = 128 << 10;
const _: () = assert!(PUSH_LIMIT < LATE_CHECKSUM_NBYTES, "nothing follows what is sent unasked");

/// Bytes of a long buffer that are handed to the network at once.
const PIECE_NBYTES: usize = 256 << 10;

/// What is gathered of short answers before it is handed to the network.
const BATCH_NBYTES: usize = 128 << 10;
/// The same as a number of pieces.
const BATCH_PIECES: usize = 256;

/// A peer that is asked and sends less than [`LEAST_PROGRESS_NBYTES`] in this time is given up.
pub(crate) const NO_PROGRESS_LIMIT: Duration = Duration::from_secs(5);

/// Any link of a cluster brings this much in a moment. It is counted for all of a connection, since requests are answered one
/// after another, and it is more than signs of life and acknowledgements come to.
const LEAST_PROGRESS_NBYTES: u64 = 16 << 10;

/// A result, or a part of one, as it was made by one run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PartRequest {
    /// The task whose result it is.
    pub task: TaskId,
    /// The run that made it.
    pub attempt: Attempt,
    /// The part.
    pub part: Part,
}

/// What a stream is for; the only message of its first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    /// Send these.
    Parts(Cow<'a, [PartRequest]>),
    /// Begin to watch.
    Watch(WatchHello),
    /// Agree on handing results over without the network, if both are on this host; see [`crate::handover`].
    Handover {
        /// What identifies the host that asks.
        host: Cow<'a, str>,
    },
}

impl PartRequest {
    /// A checksum of the identity: a buffer that is sound and of another result is as wrong as a damaged one.
    fn checksum(&self) -> u64 {
        let mut bytes = [0; 16];
        let numbers = [self.task.graph.0, self.task.idx.0, self.attempt.0, self.part.0];
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        xxh3_64(&bytes)
    }
}

/// What a worker serves from.
pub trait PartSource: Send + Sync + 'static {
    /// The result or part, if it is here. Called on the network's thread: it must be quick and must not block.
    fn get(&self, item: &PartRequest) -> Option<Value>;

    /// This process's part in handing results over within the host, if it takes part.
    fn handover(&self) -> Option<&Handover> {
        None
    }

    /// The result or part when [`PartSource::get`] does not have it at hand but it can be read from a disk.
    fn read_back<'a>(&'a self, item: &'a PartRequest) -> BoxFuture<'a, Option<Value>> {
        let _ = item;
        Box::pin(std::future::ready(None))
    }

    /// A worker begins a conversation in which it watches for results. Dropping the other end refuses it.
    fn watched_by(&self, watcher: Watcher) {
        drop(watcher);
    }
}

/// Why an item did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The peer answered that it does not have it.
    #[error("the peer does not have it")]
    NotThere,
    /// The peer has it and cannot send it.
    #[error("the peer cannot send it: {0}")]
    NotSendable(String),
    /// The connection or the stream broke before it came.
    #[error("{0}")]
    Unreachable(String),
    /// What came is not what it should be: wrong length, checksum, identity or kind.
    #[error("what came is damaged: {0}")]
    Damaged(String),
}

/// An item that arrived.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The result.
    pub value: Value,
    /// Bytes of its header and buffers on the wire.
    pub nbytes: u64,
}

/// What comes before the buffers of an item, or instead of them.
#[derive(Debug, Serialize, Deserialize)]
enum ItemHeader {
    Found(FoundHeader),
    NotThere,
    NotSendable(String),
}

/// What is said of a value whose buffers follow.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundHeader {
    pub(crate) item: PartRequest,
    item_checksum: u64,
    kind: Cow<'static, str>,
    value_header: Bytes,
    value_header_checksum: u64,
    buffers: Vec<BufferHeader>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct BufferHeader {
    nbytes: u64,
    /// `None` when it comes after the buffer, as eight bytes, the lowest first.
    checksum: Option<u64>,
}

impl FoundHeader {
    pub(crate) fn new(item: &PartRequest, encoded: &Encoded) -> Self {
        let header_of = |buffer: &Bytes| {
            let nbytes = buffer.len() as u64;
            BufferHeader { nbytes, checksum: (nbytes < LATE_CHECKSUM_NBYTES).then(|| xxh3_64(buffer)) }
        };
        Self {
            item: *item,
            item_checksum: item.checksum(),
            kind: Cow::Borrowed(encoded.kind),
            value_header_checksum: xxh3_64(&encoded.header),
            value_header: encoded.header.clone(),
            buffers: encoded.buffers.iter().map(header_of).collect(),
        }
    }

    /// Bytes of the value on the wire: its header and its buffers.
    pub(crate) fn nbytes(&self) -> u64 {
        let buffers = self.buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.nbytes));
        buffers.saturating_add(self.value_header.len() as u64)
    }
}

/// A stream that is reset unless it was finished: dropped at any point, it must not look complete. Short pieces are gathered.
struct ReplyStream {
    stream: Option<SendStream>,
    pieces: Vec<Bytes>,
    nbytes: usize,
}

impl ReplyStream {
    fn new(stream: SendStream) -> Self {
        Urgency::Short.set(&stream);
        Self { stream: Some(stream), pieces: Vec::new(), nbytes: 0 }
    }

    async fn add(&mut self, piece: Bytes) -> Result<(), StreamError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.nbytes += piece.len();
        self.pieces.push(piece);
        if self.nbytes >= BATCH_NBYTES || self.pieces.len() >= BATCH_PIECES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        let stream = self.stream.as_mut().ok_or(StreamError::Closed)?;
        self.nbytes = 0;
        stream.write_all_chunks(&mut self.pieces).await?;
        self.pieces.clear();
        Ok(())
    }

    /// A long buffer, and its checksum after it.
    async fn add_long(&mut self, mut buffer: Bytes) -> Result<(), StreamError> {
        if let Some(stream) = &self.stream {
            Urgency::Bulk.set(stream);
        }
        let mut checksum = Xxh3::new();
        while !buffer.is_empty() {
            let piece = buffer.split_to(PIECE_NBYTES.min(buffer.len()));
            checksum.update(&piece);
            self.add(piece).await?;
        }
        self.add(Bytes::copy_from_slice(&checksum.digest().to_le_bytes())).await
    }

    async fn finish(mut self) -> Result<(), StreamError> {
        self.flush().await?;
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.finish();
        }
        Ok(())
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.reset(VarInt::from_u32(1));
        }
    }
}

/// Serve requests on an accepted connection of the data plane until it ends. A request that makes no sense closes the
/// connection; requests are answered side by side, as many as the connection has streams.
pub async fn serve_data(connection: Connection, source: Arc<dyn PartSource>) {
    while let Ok((send, receive)) = connection.inner.accept_bi().await {
        let (connection, source) = (connection.clone(), Arc::clone(&source));
        tokio::spawn(async move {
            let mut reader = StreamReader::new(receive);
            let served = match read_request(&mut reader).await {
                Ok(Some(Request::Parts(items))) => serve_parts(ReplyStream::new(send), &items, &*source).await,
                Ok(Some(Request::Watch(hello))) if connection.peer().role == Role::Worker => {
                    source.watched_by(Watcher::new(hello, connection.clone(), send, reader));
                    Ok(())
                }
                Ok(Some(Request::Handover { host })) => agree(ReplyStream::new(send), &host, &connection, &source).await,
                Ok(Some(Request::Watch(_))) => Err(ServeError::Garbage(CodecError::Malformed("only workers watch".to_owned()))),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match served {
                Ok(()) => {}
                Err(ServeError::Garbage(error)) => {
                    tracing::warn!(peer = %connection.peer(), %error, "closing a peer that asked for results in no known way");
                    connection.close_misbehaved(&error.to_string());
                }
                Err(ServeError::Stream(error)) => tracing::debug!(peer = %connection.peer(), %error, "a fetch was cut short"),
            }
        });
    }
}

enum ServeError {
    Garbage(CodecError),
    Stream(StreamError),
}

impl From<StreamError> for ServeError {
    fn from(error: StreamError) -> Self {
        ServeError::Stream(error)
    }
}

/// What the stream is for; `None` when it ends without having said so.
async fn read_request(reader: &mut StreamReader) -> Result<Option<Request<'static>>, ServeError> {
    let frame = match reader.frame().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(ReadFrameError::Codec(error)) => return Err(ServeError::Garbage(error)),
        Err(ReadFrameError::Stream(error)) => return Err(ServeError::Stream(error)),
    };
    let mut requests = codec::decode_frame::<Request>(&frame).map_err(ServeError::Garbage)?;
    let request = requests.pop().filter(|_| requests.is_empty());
    request.map(Some).ok_or_else(|| ServeError::Garbage(CodecError::Malformed("one request expected".to_owned())))
}

/// Answer whether, and how, results can be handed over.
async fn agree(
    mut reply: ReplyStream,
    host: &str,
    connection: &Connection,
    source: &Arc<dyn PartSource>,
) -> Result<(), ServeError> {
    let handover = source.handover().filter(|_| connection.peer().role == Role::Worker);
    let answer = handover.map_or(Answer::No, |handover| handover.answer(host, connection, source));
    let mut frame = Vec::new();
    codec::encode_frame(&[answer], FRAME_LIMIT, &mut frame).map_err(ServeError::Garbage)?;
    reply.add(Bytes::from(frame)).await?;
    Ok(reply.finish().await?)
}

async fn serve_parts(mut reply: ReplyStream, items: &[PartRequest], source: &dyn PartSource) -> Result<(), ServeError> {
    for item in items {
        let (header, buffers) = answer(item, find(source, item).await);
        let mut frame = Vec::new();
        codec::encode_frame(&[header], FRAME_LIMIT, &mut frame).map_err(ServeError::Garbage)?;
        reply.add(Bytes::from(frame)).await?;
        for buffer in buffers {
            if buffer.len() as u64 >= LATE_CHECKSUM_NBYTES { reply.add_long(buffer).await? } else { reply.add(buffer).await? }
        }
    }
    Ok(reply.finish().await?)
}

/// A result or part from wherever `source` has it.
pub(crate) async fn find(source: &dyn PartSource, item: &PartRequest) -> Option<Value> {
    match source.get(item) {
        Some(value) => Some(value),
        None => source.read_back(item).await,
    }
}

fn answer(item: &PartRequest, value: Option<Value>) -> (ItemHeader, Vec<Bytes>) {
    let Some(value) = value else { return (ItemHeader::NotThere, Vec::new()) };
    match value.encode() {
        Ok(encoded) => (ItemHeader::Found(FoundHeader::new(item, &encoded)), encoded.buffers),
        Err(error) => (ItemHeader::NotSendable(error.to_string()), Vec::new()),
    }
}

/// Fetch `items` from the worker at the other end, in this order. `on_item` is called exactly once for each, with its index in
/// `items`, as soon as it is whole and decoded, or when it is known that it will not come. Dropping the future stops the
/// transfer; items that were not reported then never will be.
pub async fn fetch(
    connection: &Connection,
    items: &[PartRequest],
    registry: &Registry,
    mut on_item: impl FnMut(usize, Result<Fetched, FetchError>),
) {
    for (batch_idx, batch) in items.chunks(REQUEST_LIMIT).enumerate() {
        let first = batch_idx * REQUEST_LIMIT;
        let mut n_reported = 0;
        let fetched = fetch_batch(connection, batch, registry, |idx, outcome| {
            n_reported += 1;
            on_item(first + idx, outcome);
        });
        if let Err(error) = fetched.await {
            // The rest of the stream cannot be told apart any more. One item may be damaged, the others merely did not come.
            for idx in n_reported..batch.len() {
                let outcome = match &error {
                    FetchError::Damaged(reason) if idx > n_reported => FetchError::Unreachable(reason.clone()),
                    FetchError::Damaged(_) | FetchError::Unreachable(_) | FetchError::NotThere | FetchError::NotSendable(_) => {
                        error.clone()
                    }
                };
                on_item(first + idx, Err(outcome));
            }
        }
    }
}

async fn fetch_batch(
    connection: &Connection,
    items: &[PartRequest],
    registry: &Registry,
    on_item: impl FnMut(usize, Result<Fetched, FetchError>),
) -> Result<(), FetchError> {
    let mut request = Vec::new();
    let wanted = [Request::Parts(Cow::Borrowed(items))];
    codec::encode_frame(&wanted, FRAME_LIMIT, &mut request).map_err(|error| FetchError::NotSendable(error.to_string()))?;
    let (send, receive) = connection.inner.open_bi().await.map_err(|error| lost(error.into()))?;
    let mut send = ReplyStream::new(send);
    send.add(Bytes::from(request)).await.map_err(lost)?;
    send.finish().await.map_err(lost)?;
    let reader = StreamReader::new(receive);
    tokio::select! {
        biased;
        received = receive_batch(reader, items, registry, on_item) => received,
        () = no_progress(connection) => {
            Err(FetchError::Unreachable(format!("the peer has sent next to nothing for {NO_PROGRESS_LIMIT:?}")))
        }
    }
}

/// Ready when the peer has stopped sending, or as good as that.
async fn no_progress(connection: &Connection) {
    let received = || connection.inner.stats().udp_rx.bytes;
    let mut before = received();
    loop {
        tokio::time::sleep(NO_PROGRESS_LIMIT).await;
        let now = received();
        if now - before < LEAST_PROGRESS_NBYTES {
            return;
        }
        before = now;
    }
}

async fn receive_batch(
    mut reader: StreamReader,
    items: &[PartRequest],
    registry: &Registry,
    mut on_item: impl FnMut(usize, Result<Fetched, FetchError>),
) -> Result<(), FetchError> {
    for (idx, item) in items.iter().enumerate() {
        let frame = reader.frame().await.map_err(useless)?;
        let Some(frame) = frame else { return Err(FetchError::Damaged("the answer ended early".to_owned())) };
        let mut headers = codec::decode_frame::<ItemHeader>(&frame).map_err(|error| FetchError::Damaged(error.to_string()))?;
        let header = headers.pop().filter(|_| headers.is_empty());
        match header.ok_or_else(|| FetchError::Damaged("one item a frame expected".to_owned()))? {
            ItemHeader::NotThere => on_item(idx, Err(FetchError::NotThere)),
            ItemHeader::NotSendable(reason) => {
                on_item(idx, Err(FetchError::NotSendable(crate::connection::escaped(reason.as_bytes()))))
            }
            ItemHeader::Found(header) => on_item(idx, receive_item(&mut reader, item, header, registry).await.map_err(useless)?),
        }
    }
    Ok(())
}

fn lost(error: StreamError) -> FetchError {
    match error {
        StreamError::EndedEarly => FetchError::Damaged("the answer ended early".to_owned()),
        StreamError::Lost(_) | StreamError::GivenUp(_) | StreamError::Closed => FetchError::Unreachable(error.to_string()),
    }
}

fn useless(error: ReadFrameError) -> FetchError {
    match error {
        ReadFrameError::Stream(error) => lost(error),
        ReadFrameError::Codec(error) => FetchError::Damaged(error.to_string()),
    }
}

/// Receive the buffers of one item. The outer error means that the stream is of no use any more, the inner one that only this
/// item is wrong: then its bytes have been read to their end.
pub(crate) async fn receive_item(
    reader: &mut StreamReader,
    item: &PartRequest,
    header: FoundHeader,
    registry: &Registry,
) -> Result<Result<Fetched, FetchError>, ReadFrameError> {
    let mut nbytes = header.value_header.len() as u64;
    let mut buffers = Vec::with_capacity(header.buffers.len());
    let mut damage = None;
    if header.item != *item || header.item_checksum != item.checksum() {
        damage = Some("it is another result than was asked for".to_owned());
    }
    if xxh3_64(&header.value_header) != header.value_header_checksum {
        damage = Some("the checksum of its header is wrong".to_owned());
    }
    for (idx, announced) in header.buffers.iter().enumerate() {
        if announced.nbytes > BUFFER_LIMIT {
            let too_long = CodecError::TooLong { nbytes: announced.nbytes, limit: BUFFER_LIMIT };
            return Err(ReadFrameError::Codec(too_long));
        }
        let (buffer, found) = reader.buffer(announced.nbytes).await?;
        let checksum = match announced.checksum {
            Some(checksum) => checksum,
            None => reader.checksum().await?,
        };
        if found != checksum {
            damage = Some(format!("the checksum of buffer {idx} is wrong"));
        }
        nbytes += announced.nbytes;
        buffers.push(buffer);
    }
    if let Some(reason) = damage {
        return Ok(Err(FetchError::Damaged(reason)));
    }
    Ok(match registry.decode(&header.kind, &header.value_header, buffers) {
        Ok(value) => Ok(Fetched { value, nbytes }),
        Err(error) => Err(FetchError::Damaged(crate::connection::escaped(error.to_string().as_bytes()))),
    })
}

pub(crate) enum ReadFrameError {
    Stream(StreamError),
    Codec(CodecError),
}

impl From<StreamError> for ReadFrameError {
    fn from(error: StreamError) -> Self {
        ReadFrameError::Stream(error)
    }
}

/// Reads frames and buffers from a stream, holding at most one chunk that has not been handed out.
pub(crate) struct StreamReader {
    stream: RecvStream,
    left: Bytes,
}

impl StreamReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, left: Bytes::new() }
    }

    /// At least one byte and at most `limit`, or nothing at the end.
    async fn some(&mut self, limit: u64) -> Result<Option<Bytes>, StreamError> {
        while self.left.is_empty() {
            match self.stream.read_chunk(usize::MAX, true).await? {
                Some(chunk) => self.left = chunk.bytes,
                None => return Ok(None),
            }
        }
        let nbytes = usize::try_from(limit).map_or(self.left.len(), |limit| limit.min(self.left.len()));
        Ok(Some(self.left.split_to(nbytes)))
    }

    /// The next whole frame; `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Result<Option<Vec<u8>>, ReadFrameError> {
        let mut frame = Vec::new();
        let mut wanted = FRAME_HEADER_NBYTES;
        while frame.len() < wanted {
            let Some(bytes) = self.some((wanted - frame.len()) as u64).await? else {
                return if frame.is_empty() { Ok(None) } else { Err(StreamError::EndedEarly.into()) };
            };
            frame.extend_from_slice(&bytes);
            if wanted == FRAME_HEADER_NBYTES && frame.len() == wanted {
                wanted = codec::frame_nbytes(&frame, FRAME_LIMIT).map_err(ReadFrameError::Codec)?.unwrap_or(wanted);
            }
        }
        Ok(Some(frame))
    }

    /// The next `nbytes` bytes, aligned, and their checksum.
    async fn buffer(&mut self, nbytes: u64) -> Result<(Bytes, u64), StreamError> {
        let mut buffer = AlignedBuffer::new(nbytes);
        let mut checksum = (nbytes >= LATE_CHECKSUM_NBYTES).then(Xxh3::new);
        let mut missing = nbytes;
        while missing > 0 {
            let Some(bytes) = self.some(missing).await? else { return Err(StreamError::EndedEarly) };
            missing -= bytes.len() as u64;
            if let Some(checksum) = &mut checksum {
                checksum.update(&bytes);
            }
            buffer.extend(&bytes);
        }
        let buffer = buffer.freeze();
        let checksum = checksum.map_or_else(|| xxh3_64(&buffer), |checksum| checksum.digest());
        Ok((buffer, checksum))
    }

    /// A checksum that comes after its buffer.
    async fn checksum(&mut self) -> Result<u64, StreamError> {
        let mut bytes = [0; 8];
        let mut n_read = 0;
        while n_read < bytes.len() {
            let Some(some) = self.some((bytes.len() - n_read) as u64).await? else { return Err(StreamError::EndedEarly) };
            bytes[n_read..n_read + some.len()].copy_from_slice(&some);
            n_read += some.len();
        }
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn short_results_overtake_long_ones() {
        let pair = crate::tests::data_pair().await;
        let (send, _receive) = pair.client.inner.open_bi().await.unwrap();
        let mut reply = ReplyStream::new(send);
        let urgency = |reply: &ReplyStream| reply.stream.as_ref().unwrap().priority().unwrap();
        reply.add(Bytes::from_static(b"short")).await.unwrap();
        assert_eq!(urgency(&reply), Urgency::Short as i32);
        reply.add_long(Bytes::from(vec![1; LATE_CHECKSUM_NBYTES as usize])).await.unwrap();
        assert_eq!(urgency(&reply), Urgency::Bulk as i32);
        assert!(Urgency::Control > Urgency::Short && Urgency::Short > Urgency::Bulk);
    }
}
