//! The giving end: requests in, results out, from memory or from wherever they have to be read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rask_graphs::Value;

use super::{
    BoxFuture, Found, FoundHeader, ItemHeader, NO_PROGRESS_LIMIT, PartRequest, PartSource, REQUEST_LIMIT, ReadFrameError,
    ReplyStream, Request, StreamReader,
};
use crate::codec::{self, CodecError};
use crate::connection::Connection;
use crate::control::StreamError;
use crate::handover::Answer;
use crate::identity::Role;
use crate::upload;
use crate::watch::Watcher;
use crate::words::size_text;

/// Whoever waits for a result that is being read from a disk is told so this often, and this many times at most.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_SIGNS_OF_LIFE: u32 = 600;

/// Serve requests on an accepted connection of the data plane until it ends. A request that makes no sense closes the
/// connection; requests are answered side by side, as many as the connection has streams.
pub async fn serve_data(connection: Connection, source: Arc<dyn PartSource>) {
    while let Ok((send, receive)) = connection.inner.accept_bi().await {
        let (connection, source) = (connection.clone(), Arc::clone(&source));
        tokio::spawn(async move {
            let mut reader = StreamReader::new(receive);
            let request = tokio::time::timeout(NO_PROGRESS_LIMIT, read_request(&mut reader)).await;
            let served = match request.unwrap_or(Ok(None)) {
                Ok(Some(Request::Parts(items))) => serve_parts(ReplyStream::new(send), &items, &*source).await,
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

pub(crate) enum ServeError {
    Garbage(CodecError),
    Stream(StreamError),
}

impl From<StreamError> for ServeError {
    fn from(error: StreamError) -> Self {
        ServeError::Stream(error)
    }
}

/// What the stream is for; `None` when it ends without having said so, as when it is long in saying so.
async fn read_request(reader: &mut StreamReader) -> Result<Option<Request<'static>>, ServeError> {
    let frame = match reader.frame().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(ReadFrameError::Codec(error)) => return Err(ServeError::Garbage(error)),
        Err(ReadFrameError::Stream(error)) => return Err(ServeError::Stream(error)),
    };
    let mut requests = codec::decode_frame::<Request>(&frame).map_err(ServeError::Garbage)?;
    let is_sound = |request: &Request<'_>| !matches!(request, Request::Parts(items) if items.len() > REQUEST_LIMIT);
    let request = requests.pop().filter(|request| requests.is_empty() && is_sound(request));
    request.map(Some).ok_or_else(|| ServeError::Garbage(CodecError::Malformed("one request of some items expected".to_owned())))
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

async fn serve_parts(mut reply: ReplyStream, items: &[PartRequest], source: &dyn PartSource) -> Result<(), ServeError> {
    for item in items {
        let mut finding = Finding::new(source, item);
        let Found { value, room } = loop {
            match finding.wait().await {
                Sought::Found(found) => break found,
                Sought::NotYet => {
                    reply.add_frame(&ItemHeader::Reading).await?;
                    reply.flush().await?;
                }
            }
        };
        let (header, buffers) = answer(item, value);
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
    pub(crate) fn new(source: &'a dyn PartSource, item: &'a PartRequest) -> Self {
        let room = source.room_to_send(item);
        if room.is_none()
            && let Some(value) = source.get(item)
        {
            return Finding::AtHand(Some(value));
        }
        let found = Box::pin(async move {
            let room = match room {
                Some(room) => Some(room.await),
                None => None,
            };
            let value = match source.get(item) {
                Some(value) => Some(value),
                None => source.read_back(item).await,
            };
            Found { value, room }
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

fn answer(item: &PartRequest, value: Option<Value>) -> (ItemHeader, Vec<Bytes>) {
    let Some(value) = value else { return (ItemHeader::NotThere, Vec::new()) };
    match value.encode() {
        Ok(encoded) => (ItemHeader::Found(FoundHeader::new(item, &encoded)), encoded.buffers),
        Err(error) => (ItemHeader::NotSendable(shortened(&error.to_string())), Vec::new()),
    }
}
