//! Watching: word of a result as soon as a peer has made it, and the result itself when it is small.
//!
//! One stream of the data plane a pair of watcher and maker, for as long as both are registered. The watcher says which
//! results it wants to hear of, and which no longer; the maker sends small ones along and tells of big ones, which are then
//! fetched. Both sides speak through an [`Outbox`]: what is said while the network's thread is at work leaves in one frame,
//! and who does not read is closed. In frames of the maker, the buffers of the results follow the frame that describes them.
//! Who watches for what, and what a broken stream leads to, is decided elsewhere.

use std::sync::Arc;

use quinn::SendStream;
use rask_graphs::{Epoch, Registry, Value, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::codec::{self, CodecError};
use crate::connection::Connection;
use crate::control::{ControlSender, StreamError};
use crate::data::{Fetched, FoundHeader, PartRequest, REQUEST_LIMIT, ReadFrameError, Request, StreamReader, receive_item};
use crate::grant::Grant;
use crate::identity::PeerIdentity;
use crate::outbox::{Outbox, OutboxError, PushError};

/// Longest result that is sent unasked, in bytes of its header and buffers on the wire.
pub const PUSH_LIMIT: u64 = 64 << 10;

/// Bound of what waits to be said to one peer, in bytes: a thousand of the longest results.
pub const WATCH_OUTBOX_LIMIT: usize = 64 << 20;

/// Who watches whom. Ids mean something within an epoch only, so it is named too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchHello {
    /// The scheduler's epoch.
    pub epoch: Epoch,
    /// The registration that watches.
    pub watcher: WorkerId,
    /// The registration that is watched.
    pub maker: WorkerId,
    /// The scheduler's word that the watcher, with its certificate's key, may watch there.
    pub pass: Grant,
}

/// What a watcher says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromWatcher {
    /// Tell of these once they are made.
    Watch(Vec<PartRequest>),
    /// These are not wanted any more; some may be on their way.
    Unwatch(Vec<PartRequest>),
}

/// What a maker says.
#[derive(Debug, Serialize, Deserialize)]
enum FromMaker {
    /// A result; its buffers follow the frame.
    Pushed(FoundHeader),
    /// A result that is too big to be sent unasked.
    Made { item: PartRequest, nbytes: u64 },
}

/// What a watcher hears of an item.
#[derive(Clone, Debug)]
pub enum News {
    /// It is made, and here.
    Pushed(Fetched),
    /// It is made, and to be fetched: it is big, or what came was no use.
    Made {
        /// Its size in bytes.
        nbytes: u64,
    },
}

/// Why a conversation between watcher and maker ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The stream or its connection has ended, as every conversation does.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer does not read.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The peer said something that makes no sense; its connection has been closed.
    #[error("the peer sent garbage: {0}")]
    Garbage(String),
}

impl From<ReadFrameError> for WatchError {
    fn from(error: ReadFrameError) -> Self {
        match error {
            ReadFrameError::Stream(error) => WatchError::Stream(error),
            ReadFrameError::Codec(error) => garbage(&error),
        }
    }
}

fn garbage(error: &CodecError) -> WatchError {
    WatchError::Garbage(error.to_string())
}

/// Close the connection to a peer whose words make no sense.
fn punish(connection: &Connection, ended: WatchError) -> WatchError {
    if let WatchError::Garbage(reason) = &ended {
        connection.close_misbehaved(reason);
    }
    ended
}

/// The watcher's end of a conversation, from before there is a connection. Clones share it.
#[derive(Clone)]
pub struct Watch {
    outbox: Outbox<FromWatcher>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { outbox: Outbox::new(WATCH_OUTBOX_LIMIT) }
    }
}

impl Watch {
    /// Ask for word of `items`. Callable from any thread; takes effect in the order of calls, once [`Watch::run`] runs.
    ///
    /// # Errors
    /// When the conversation has ended.
    pub fn watch(&self, items: &[PartRequest]) -> Result<(), PushError> {
        self.outbox.push(items.chunks(REQUEST_LIMIT).map(|items| FromWatcher::Watch(items.to_vec())).collect())
    }

    /// Stop watching for `items`.
    ///
    /// # Errors
    /// When the conversation has ended.
    pub fn unwatch(&self, items: &[PartRequest]) -> Result<(), PushError> {
        self.outbox.push(items.chunks(REQUEST_LIMIT).map(|items| FromWatcher::Unwatch(items.to_vec())).collect())
    }

    /// Whether both are the same conversation's.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.outbox.is(&other.outbox)
    }

    /// Begin the conversation on `connection` and pass on what comes until it ends. `on_news` is called on this future's
    /// thread, in the order in which the maker spoke, for whatever items the maker names.
    ///
    /// Nothing that was asked for and not heard of when this returns will ever be; [`Watch::watch`] fails from then on.
    pub async fn run(
        &self,
        connection: &Connection,
        hello: WatchHello,
        registry: &Registry,
        mut on_news: impl FnMut(PartRequest, News),
    ) -> WatchError {
        let conversation = async {
            let (send, receive) = connection.inner.open_bi().await.map_err(StreamError::from)?;
            let mut sender = control_sender(connection, send);
            sender.send_hello(&Request::Watch(hello)).await.map_err(OutboxError::from)?;
            let hear = hear(StreamReader::new(receive), registry, &mut on_news);
            tokio::select! {
                biased;
                heard = hear => heard,
                written = self.outbox.run(sender) => written.map_err(WatchError::from),
            }
        };
        let ended = conversation.await.err().unwrap_or(WatchError::Stream(StreamError::Closed));
        self.outbox.finish();
        punish(connection, ended)
    }
}

fn control_sender<Out>(connection: &Connection, send: SendStream) -> ControlSender<Out> {
    ControlSender::new(connection.inner.clone(), send, connection.plane().frame_limit())
}

/// Take in what the maker says until it stops.
async fn hear(
    mut reader: StreamReader,
    registry: &Registry,
    on_news: &mut impl FnMut(PartRequest, News),
) -> Result<(), WatchError> {
    while let Some(frame) = reader.frame().await? {
        for message in codec::decode_frame::<FromMaker>(&frame).map_err(|error| garbage(&error))? {
            match message {
                FromMaker::Made { item, nbytes } => on_news(item, News::Made { nbytes }),
                FromMaker::Pushed(header) => {
                    let (item, nbytes) = (header.item, header.nbytes());
                    if nbytes > PUSH_LIMIT {
                        return Err(WatchError::Garbage(format!("a result of {nbytes} bytes was sent unasked")));
                    }
                    let news = match receive_item(&mut reader, &item, header, registry).await? {
                        Ok(fetched) => News::Pushed(fetched),
                        Err(error) => {
                            tracing::warn!(task = %item.task, %error, "a result that was sent along is no use; it will be fetched");
                            News::Made { nbytes }
                        }
                    };
                    on_news(item, news);
                }
            }
        }
    }
    Ok(())
}

/// The maker's end of a conversation that a watcher has begun. Dropped, it refuses the conversation.
pub struct Watcher {
    hello: WatchHello,
    connection: Connection,
    sender: ControlSender<FromMaker>,
    reader: StreamReader,
}

impl Watcher {
    pub(crate) fn new(hello: WatchHello, connection: Connection, send: SendStream, reader: StreamReader) -> Self {
        let sender = control_sender(&connection, send);
        Self { hello, connection, sender, reader }
    }

    /// Who watches whom, as the watcher says.
    #[must_use]
    pub fn hello(&self) -> WatchHello {
        self.hello
    }

    /// Who it is, as its certificate says.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        self.connection.peer()
    }

    /// Refuse the conversation, and have no more of its peer.
    pub fn refuse(self, reason: &str) {
        self.connection.close_misbehaved(reason);
    }

    /// Listen until the conversation ends, and send what `pusher` is given. `on_message` is called on this future's thread, in
    /// the order in which the watcher spoke.
    pub async fn run(mut self, pusher: &Pusher, mut on_message: impl FnMut(FromWatcher)) -> WatchError {
        let listen = async {
            while let Some(frame) = self.reader.frame().await? {
                codec::decode_frame(&frame).map_err(|error| garbage(&error))?.into_iter().for_each(&mut on_message);
            }
            Ok(())
        };
        let ended = tokio::select! {
            biased;
            () = pusher.stop.notified() => Ok(()),
            heard = listen => heard,
            written = pusher.outbox.run(self.sender) => written.map_err(WatchError::from),
        };
        pusher.outbox.finish();
        punish(&self.connection, ended.err().unwrap_or(WatchError::Stream(StreamError::Closed)))
    }
}

/// Sends results to one watcher. Clones share it.
#[derive(Clone)]
pub struct Pusher {
    outbox: Outbox<FromMaker>,
    stop: Arc<Notify>,
}

impl Default for Pusher {
    fn default() -> Self {
        Self { outbox: Outbox::new(WATCH_OUTBOX_LIMIT), stop: Arc::default() }
    }
}

impl Pusher {
    /// Send `value`, which is `item`, or word of it when it is longer than [`PUSH_LIMIT`] or cannot be encoded (then the
    /// watcher's fetch will say why). Callable from any thread; never waits for the network.
    ///
    /// # Errors
    /// When the conversation has ended. A watcher that does not read ends it.
    pub fn push(&self, item: PartRequest, value: &Value) -> Result<(), PushError> {
        let nbytes = value.nbytes();
        if nbytes <= PUSH_LIMIT
            && let Ok(encoded) = value.encode()
        {
            let header = FoundHeader::new(&item, &encoded);
            if header.nbytes() <= PUSH_LIMIT {
                return self.outbox.push_attached(FromMaker::Pushed(header), &encoded.buffers);
            }
        }
        self.outbox.push(vec![FromMaker::Made { item, nbytes }])
    }

    /// Send word that a result of about `nbytes` bytes has been made and can be fetched.
    ///
    /// # Errors
    /// As [`Pusher::push`].
    pub fn announce(&self, item: PartRequest, nbytes: u64) -> Result<(), PushError> {
        self.outbox.push(vec![FromMaker::Made { item, nbytes }])
    }

    /// End the conversation at once; what waits is not sent.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Whether both are the same conversation's.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.outbox.is(&other.outbox)
    }
}

/// A frame that announces `encoded`, whatever its length.
#[cfg(test)]
pub(crate) fn encode_pushed_for_test(item: &PartRequest, encoded: &rask_graphs::Encoded, out: &mut Vec<u8>) {
    let message = FromMaker::Pushed(FoundHeader::new(item, encoded));
    codec::encode_frame(&[message], codec::FRAME_LIMIT, out).unwrap();
}
