//! The data plane: results, whole or in parts, from the worker that holds them to whoever needs them.
//!
//! One stream a request: a frame that says what is wanted. A list of items is answered item by item with a frame that describes
//! the item and then its raw buffers; the wish to watch for items begins a conversation ([`crate::watch`]). Buffers are sent
//! without copying and received with one copy, into memory aligned to 64 bytes. Each buffer has a checksum, each item one of
//! what it claims to be, and nothing is decoded before all of them are right. The checksum of a long buffer comes after it, so
//! that both sides make it piece by piece, while the piece is in the processor's cache anyway. Which results exist, and what a
//! failure leads to, is decided elsewhere.

mod fetch;
mod serve;
mod streams;

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
/// What [`PartSource::read_back`] returns.
pub use futures::future::BoxFuture;
use rask_graphs::{Attempt, EncodeError, Encoded, GraphId, Part, TaskId, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

pub use self::fetch::fetch;
pub(crate) use self::fetch::{LEAST_PROGRESS_NBYTES, NO_PROGRESS_LIMIT, lost, no_progress, receive_item, useless};
pub use self::serve::serve_data;
pub(crate) use self::serve::{Finding, ServeError, Sought};
pub(crate) use self::streams::{ReadFrameError, ReplyStream, StreamReader};
use crate::grant::{Grant, Grants};
use crate::handover::Handover;
use crate::upload::{self, Admitted, Offer};
use crate::watch::{PUSH_LIMIT, WatchHello, Watcher};

/// Most items in one request.
pub const REQUEST_LIMIT: usize = 65_536;

/// From this length on a buffer's checksum comes after it.
const LATE_CHECKSUM_NBYTES: u64 = 128 << 10;
const _: () = assert!(PUSH_LIMIT < LATE_CHECKSUM_NBYTES, "nothing follows what is sent unasked");

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
    /// Send these, of graphs that these grants open.
    Parts {
        /// For each of their graphs.
        grants: Cow<'a, Grants>,
        /// What is wanted.
        items: Cow<'a, [PartRequest]>,
    },
    /// Begin to watch.
    Watch(WatchHello),
    /// Agree on handing results over without the network, if both are on this host; see [`crate::handover`].
    Handover {
        /// What identifies the host that asks.
        host: Cow<'a, str>,
    },
    /// Take these in; see [`crate::upload`].
    Upload(Offer),
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
    /// Whether `grant` is the scheduler's word that whoever shows it may have results of `graph`. What is asked for without it is
    /// answered as what is not there, and not looked for.
    fn opens(&self, graph: GraphId, grant: &Grant) -> bool;

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

    /// Room for sending the result or part to `guest`, when that is so big that not everybody may be sent theirs at once: to be
    /// waited for before the result is looked for, and kept until it is sent. Nobody goes on without: who does not read what
    /// is sent loses the connection, and so gives back the room.
    fn room_to_send<'a>(&'a self, guest: &'a str, item: &'a PartRequest) -> Option<BoxFuture<'a, Room>> {
        let _ = (guest, item);
        None
    }

    /// A client offers values. Ready once the worker has decided about each of them and has room for those that it takes.
    /// Dropped before, the offer is withdrawn.
    fn offered(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Admitted>> {
        Box::pin(std::future::ready(upload::refuse_all(&offer)))
    }

    /// A worker begins a conversation in which it watches for results. Dropping the other end refuses it.
    fn watched_by(&self, watcher: Watcher) {
        drop(watcher);
    }
}

/// Room that something takes while it is being sent; given back when dropped.
pub struct Room {
    _keep: Box<dyn Any + Send + Sync>,
    sent: Arc<Sent>,
}

/// A result that is being sent: looked for once and encoded once, however many are being sent it.
#[derive(Default)]
pub struct Sent {
    value: OnceCell<Value>,
    encoded: OnceLock<Result<Encoded, EncodeError>>,
}

impl Room {
    /// Room that `keep` gives back when it is dropped, shared by all who are being sent what is in `sent`.
    pub fn new(keep: impl Any + Send + Sync, sent: Arc<Sent>) -> Self {
        Self { _keep: Box::new(keep), sent }
    }

    /// What is sent, found now if nobody has found it before.
    async fn value(&self, find: impl Future<Output = Option<Value>>) -> Option<Value> {
        let found = self.sent.value.get_or_try_init(|| async { find.await.ok_or(()) }).await;
        found.ok().cloned()
    }

    /// How `value`, which is what is sent, is encoded.
    pub(crate) fn encoded(&self, value: &Value) -> &Result<Encoded, EncodeError> {
        self.sent.encoded.get_or_init(|| value.encode())
    }
}

/// A result or part that is to be sent.
pub(crate) struct Found {
    pub(crate) value: Option<Value>,
    pub(crate) room: Option<Room>,
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
pub(crate) enum ItemHeader {
    /// A sign of life: it is being read from a disk. Another header follows.
    Reading,
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
