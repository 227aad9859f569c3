//! The giving end: requests in, results out, from memory or from wherever they have to be read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rask_graphs::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{
    BoxFuture, Found, FoundHeader, ItemHeader, NO_PROGRESS_LIMIT, PartRequest, PartSource, REQUEST_LIMIT, ReadFrameError,
    ReplyStream, Request, Room, StreamReader,
};
use crate::codec::{self, CodecError, FRAME_LIMIT};
use crate::connection::Connection;
use crate::control::StreamError;
use crate::grant::Opened;
use crate::handover::Answer;
use crate::identity::{PeerIdentity, Role};
use crate::limits::{LIST_UNIT_NBYTES, MAX_REQUESTED_NBYTES, REQUEST_NBYTES};
use crate::watch::Watcher;
use crate::words::size_text;
use crate::{quiet, upload};

/// Whoever waits for a result that is being read from a disk is told so this often, and this many times at most.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_SIGNS_OF_LIFE: u32 = 600;

/// Serve requests on an accepted connection of the data plane until it ends. A request that makes no sense closes the
/// connection; requests are answered side by side, as many as the connection has streams, and as their lists have room.
pub async fn serve_data(connection: Connection, source: Arc<dyn PartSource>) {
    let lists = Arc::new(Semaphore::new(MAX_REQUESTED_NBYTES / LIST_UNIT_NBYTES));
    while let Ok((send, receive)) = connection.inner.accept_bi().await {
        let (connection, source, lists) = (connection.clone(), Arc::clone(&source), Arc::clone(&lists));
        tokio::spawn(async move {
            let mut reader = StreamReader::new(receive);
            let (request, room) = match read_request(&mut reader, &lists).await {
                Ok(Some((request, room))) => (Ok(Some(request)), Some(room)),
                Ok(None) => (Ok(None), None),
                Err(error) => (Err(error), None),
            };
            let served = match request {
                Ok(Some(Request::Parts { grants, items })) => {
                    let opened = grants.opened(|graph, grant| source.opens(graph, grant));
                    let reply = ReplyStream::to_reader(send, &connection.inner);
                    serve_parts(reply, &items, &opened, connection.peer(), &*source).await
                }
                Ok(Some(Request::Watch(hello))) if connection.peer().role == Role::Worker => {
                    source.watched_by(Watcher::new(hello, connection.clone(), send, reader));
                    Ok(())
                }
                Ok(Some(Request::Upload(offer))) => {
                    upload::serve(ReplyStream::new(send), reader, offer, &connection, &*source).await
                }
                Ok(Some(Request::Handover { host })) => agree(ReplyStream::new(send), &host, &connection, &source).await,
                Ok(Some(Request::Watch(_))) => Err(ServeError::Garbage(CodecError::Malformed("only workers watch".to_owned()))),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            drop(room);
            match served {
                Ok(()) => {}
                Err(ServeError::Garbage(error)) => {
                    if let Some(n_left_out) = quiet::may_say("garbage", connection.remote_address().ip()) {
                        let peer = connection.peer();
                        tracing::warn!(%peer, %error, n_left_out, "closing a peer that asked for results in no known way");
                    }
                    connection.close_misbehaved(&error.to_string());
                }
                Err(ServeError::Stream(error)) => tracing::debug!(peer = %connection.peer(), %error, "a fetch was cut short"),
            }
        });
    }
}

pub(crate) enum ServeError {
    Garbage(CodecError),
    Stream(StreamError),
}

impl From<StreamError> for ServeError {
    fn from(error: StreamError) -> Self {
        ServeError::Stream(error)
    }
}

/// What the stream is for, and the room that saying so takes; `None` when it ends without having said so, as when it is long in
/// saying so.
async fn read_request(
    reader: &mut StreamReader,
    lists: &Arc<Semaphore>,
) -> Result<Option<(Request<'static>, OwnedSemaphorePermit)>, ServeError> {
    let failed = |error| match error {
        ReadFrameError::Codec(error) => ServeError::Garbage(error),
        ReadFrameError::Stream(error) => ServeError::Stream(error),
    };
    let mut frame = Vec::new();
    let header = timeout(NO_PROGRESS_LIMIT, reader.frame_header(&mut frame, REQUEST_NBYTES)).await;
    let Some(nbytes) = header.unwrap_or(Ok(None)).map_err(failed)? else { return Ok(None) };
    let n_units = u32::try_from(nbytes.div_ceil(LIST_UNIT_NBYTES)).unwrap_or(u32::MAX);
    let Ok(room) = Arc::clone(lists).acquire_many_owned(n_units).await else { return Ok(None) };
    match timeout(NO_PROGRESS_LIMIT, reader.frame_body(&mut frame, nbytes)).await {
        Ok(read) => read.map_err(failed)?,
        Err(_elapsed) => return Ok(None),
    }
    let mut requests = codec::decode_frame::<Request>(&frame).map_err(ServeError::Garbage)?;
    let is_sound = |request: &Request<'_>| match request {
        // No more proofs to look at than there are items.
        Request::Parts { grants, items } => items.len() <= REQUEST_LIMIT && grants.len() <= items.len(),
        Request::Watch(_) | Request::Handover { .. } | Request::Upload(_) => true,
    };
    let request = requests.pop().filter(|request| requests.is_empty() && is_sound(request));
    let garbage = || ServeError::Garbage(CodecError::Malformed("one request of some items expected".to_owned()));
    Ok(Some((request.ok_or_else(garbage)?, room)))
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
    reply.add_frame(&answer).await?;
    Ok(reply.finish().await?)
}

async fn serve_parts(
    mut reply: ReplyStream,
    items: &[PartRequest],
    opened: &Opened,
    peer: &PeerIdentity,
    source: &dyn PartSource,
) -> Result<(), ServeError> {
    let guest = peer.to_string();
    for item in items {
        if !opened.has(item) {
            reply.add_frame(&ItemHeader::NotThere).await?;
            continue;
        }
        let mut finding = Finding::new(source, &guest, item);
        let Found { value, room } = loop {
            match finding.wait().await {
                Sought::Found(found) => break found,
                Sought::NotYet => {
                    reply.add_frame(&ItemHeader::Reading).await?;
                    reply.flush().await?;
                }
            }
        };
        let (header, buffers) = answer(item, value, room.as_ref());
        let (frame, buffers) = match codec::frame_of(&header) {
            Ok(frame) => (frame, buffers),
            // What it is made of takes more words than a frame has room for.
            Err(error) => {
                let words = ItemHeader::NotSendable(too_many_pieces(buffers.len(), &error));
                (codec::frame_of(&words).map_err(ServeError::Garbage)?, Vec::new())
            }
        };
        reply.add(frame).await?;
        for buffer in buffers {
            reply.add_buffer(buffer, &mut |_nbytes| {}).await?;
        }
        if room.is_some() {
            reply.flush().await?;
        }
    }
    Ok(reply.finish().await?)
}

/// A result or part on its way from wherever a source has it, which may be a slow disk or a long line before one.
pub(crate) enum Finding<'a> {
    AtHand(Option<Value>),
    Later { found: BoxFuture<'a, Found>, n_signs: u32 },
}

/// What [`Finding::wait`] comes to.
pub(crate) enum Sought {
    Found(Found),
    /// It is time for a sign of life.
    NotYet,
}

impl<'a> Finding<'a> {
    pub(crate) fn new(source: &'a dyn PartSource, guest: &'a str, item: &'a PartRequest) -> Self {
        let room = source.room_to_send(guest, item);
        if room.is_none()
            && let Some(value) = source.get(item)
        {
            return Finding::AtHand(Some(value));
        }
        let found = Box::pin(async move {
            let find = async {
                match source.get(item) {
                    Some(value) => Some(value),
                    None => source.read_back(item).await,
                }
            };
            match room {
                None => Found { value: find.await, room: None },
                Some(room) => {
                    let room = room.await;
                    Found { value: room.value(find).await, room: Some(room) }
                }
            }
        });
        Finding::Later { found, n_signs: 0 }
    }

    /// Wait for it, or until whoever asked should hear that it is still being looked for.
    pub(crate) async fn wait(&mut self) -> Sought {
        match self {
            Finding::AtHand(value) => Sought::Found(Found { value: value.take(), room: None }),
            Finding::Later { found, n_signs } => match tokio::time::timeout(SIGN_OF_LIFE_INTERVAL, found).await {
                Ok(found) => Sought::Found(found),
                Err(_elapsed) if *n_signs >= MAX_SIGNS_OF_LIFE => Sought::Found(Found { value: None, room: None }),
                Err(_elapsed) => {
                    *n_signs += 1;
                    Sought::NotYet
                }
            },
        }
    }
}

/// What a short buffer takes to describe at least: its length, that a checksum is there, and the checksum.
const MIN_DESCRIPTION_NBYTES: usize = 1 + 1 + 8;

/// Words that fit any frame.
fn shortened(words: &str) -> String {
    words.chars().take(4_096).collect()
}

/// Why a value of so many buffers cannot be sent.
fn too_many_pieces(n_buffers: usize, error: &CodecError) -> String {
    match error {
        CodecError::TooLong { nbytes, limit } => format!(
            "it is made of {n_buffers} pieces, and to describe them takes {} where {} is possible; let the task put them together",
            size_text(*nbytes),
            size_text(*limit),
        ),
        CodecError::Malformed(_) | CodecError::TrailingBytes(_) | CodecError::FrameVersion(_) | CodecError::Unencodable(_) => {
            error.to_string()
        }
    }
}

fn answer(item: &PartRequest, value: Option<Value>, room: Option<&Room>) -> (ItemHeader, Vec<Bytes>) {
    let Some(value) = value else { return (ItemHeader::NotThere, Vec::new()) };
    let own;
    let encoded = match room {
        Some(room) => room.encoded(&value),
        None => {
            own = value.encode();
            &own
        }
    };
    match encoded {
        // Not worth the work of describing them.
        Ok(encoded) if encoded.buffers.len() > FRAME_LIMIT / MIN_DESCRIPTION_NBYTES => {
            let nbytes = (encoded.buffers.len() * MIN_DESCRIPTION_NBYTES) as u64;
            let too_long = CodecError::TooLong { nbytes, limit: FRAME_LIMIT as u64 };
            (ItemHeader::NotSendable(too_many_pieces(encoded.buffers.len(), &too_long)), Vec::new())
        }
        Ok(encoded) => (ItemHeader::Found(FoundHeader::new(item, encoded)), encoded.buffers.clone()),
        Err(error) => (ItemHeader::NotSendable(shortened(&error.to_string())), Vec::new()),
    }
}
