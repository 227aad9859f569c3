//! Control streams: frames of messages, in order, in both directions.
//!
//! A receiver never holds more than what has arrived twice over plus a mebibyte, whatever length a frame announces. What the
//! messages mean, and who may send them, is not known here.

use std::marker::PhantomData;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

pub use crate::codec::Frame;
use crate::codec::{self, CodecError};
use crate::connection::CloseReason;
use crate::gate::{Gate, Passage};
use crate::limits::LONG_FRAME_NBYTES;
use crate::tuning::Urgency;

/// Reserved at a time beyond what has arrived.
const STEP_NBYTES: usize = 1 << 20;

/// A buffer that once held a big frame and is nearly empty is given back above this size.
const KEPT_NBYTES: usize = 4 << 20;

const TOO_SLOW: &str = "a long frame that comes too slowly: others wait for its room";

/// A stream that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The connection has ended.
    #[error("connection lost: {0}")]
    Lost(CloseReason),
    /// The other side gave up this stream.
    #[error("the other side gave up the stream (code {0})")]
    GivenUp(u64),
    /// The stream ended in the middle of something.
    #[error("the stream ended early")]
    EndedEarly,
    /// This side has finished or given up the stream before.
    #[error("the stream is closed on this side")]
    Closed,
}

impl From<quinn::ConnectionError> for StreamError {
    fn from(error: quinn::ConnectionError) -> Self {
        StreamError::Lost(error.into())
    }
}

impl From<quinn::ReadError> for StreamError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => StreamError::GivenUp(code.into_inner()),
            quinn::ReadError::ConnectionLost(error) => error.into(),
            quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead | quinn::ReadError::ZeroRttRejected => {
                StreamError::Closed
            }
        }
    }
}

impl From<quinn::WriteError> for StreamError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => StreamError::GivenUp(code.into_inner()),
            quinn::WriteError::ConnectionLost(error) => error.into(),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => StreamError::Closed,
        }
    }
}

/// A frame that could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The stream or its connection has ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A single message is longer than a frame may be.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Messages that could not be received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The stream or its connection has ended otherwise than by finishing between two frames.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer sent something that is no frame of such messages. Close the connection: nothing after it can be trusted.
    #[error(transparent)]
    Garbage(#[from] CodecError),
}

/// The sending half of a control stream. Dropped without [`ControlSender::finish`], it is given up, not finished.
pub struct ControlSender<Out> {
    connection: quinn::Connection,
    stream: SendStream,
    limit: usize,
    is_finished: bool,
    message: PhantomData<fn(Out)>,
}

impl<Out> ControlSender<Out> {
    pub(crate) fn new(connection: quinn::Connection, stream: SendStream, limit: usize) -> Self {
        Urgency::Control.set(&stream);
        Self { connection, stream, limit, is_finished: false, message: PhantomData }
    }

    /// Send one message of another type in a frame of its own: the hello that begins a conversation.
    ///
    /// # Errors
    /// When the stream has ended or the message is too long.
    pub async fn send_hello<M: Serialize>(&mut self, hello: &M) -> Result<(), SendError> {
        let mut frame = Vec::new();
        codec::encode_frame(&[hello], self.limit, &mut frame)?;
        self.write(Bytes::from(frame)).await
    }

    /// Write a frame made elsewhere. Must not be dropped half-way: a part of the frame may be on its way.
    pub(crate) async fn write(&mut self, frame: Bytes) -> Result<(), SendError> {
        Ok(self.stream.write_chunk(frame).await.map_err(StreamError::from)?)
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Say that no more will come, and wait until the peer has received all of it.
    ///
    /// # Errors
    /// When the stream or connection ends before.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        self.stream.finish().map_err(|_| StreamError::Closed)?;
        self.is_finished = true;
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::GivenUp(code.into_inner())),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Closed),
        }
    }
}

impl<Out: Serialize> ControlSender<Out> {
    /// Send `messages`, in one frame unless that would be longer than the plane allows. Not cancel-safe: a future dropped
    /// half-way leaves half a frame.
    ///
    /// # Errors
    /// When the stream has ended or a single message is too long.
    pub async fn send(&mut self, messages: &[Out]) -> Result<(), SendError> {
        let mut waiting = vec![messages];
        while let Some(messages) = waiting.pop() {
            let mut frame = Vec::new();
            match codec::encode_frame(messages, self.limit, &mut frame) {
                Ok(()) => self.write(Bytes::from(frame)).await?,
                Err(CodecError::TooLong { .. }) if messages.len() > 1 => {
                    let (first, second) = messages.split_at(messages.len() / 2);
                    waiting.extend([second, first]);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl<Out> Drop for ControlSender<Out> {
    fn drop(&mut self) {
        if !self.is_finished {
            // A dropped stream would finish, and a conversation cut short would look complete.
            let _ = self.stream.reset(VarInt::from_u32(1));
        }
    }
}

/// The receiving half of a control stream.
pub struct ControlReceiver<In> {
    stream: RecvStream,
    buffer: Vec<u8>,
    /// Where the first frame that has not been handed out begins.
    start: usize,
    limit: usize,
    /// The first error, repeated at every later call: a stream that broke would otherwise look finished the next time.
    broken: Option<ReceiveError>,
    /// Room for long frames, shared with other conversations, and what the frame that is coming has of it.
    gate: Option<Gate>,
    passage: Option<Passage>,
    /// Whether that frame has been handed out: its room is given back when the next one is asked for.
    is_handed_out: bool,
    message: PhantomData<fn() -> In>,
}

impl<In> ControlReceiver<In> {
    pub(crate) fn new(stream: RecvStream, limit: usize) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            start: 0,
            limit,
            broken: None,
            gate: None,
            passage: None,
            is_handed_out: false,
            message: PhantomData,
        }
    }

    /// Receive one message of another type in a frame of its own: the hello that begins a conversation. Cancel-safe.
    ///
    /// # Errors
    /// When the stream ends, or what comes is not such a message.
    pub async fn recv_hello<M: DeserializeOwned>(&mut self) -> Result<M, ReceiveError> {
        let Some(mut messages) = self.messages::<M>().await? else { return Err(StreamError::EndedEarly.into()) };
        match (messages.pop(), messages.is_empty()) {
            (Some(hello), true) => Ok(hello),
            (Some(_) | None, _) => Err(CodecError::Malformed("one hello expected".to_owned()).into()),
        }
    }

    /// Receive a hello as [`ControlReceiver::recv_hello`], of at most `limit` bytes: from somebody who is not known yet.
    ///
    /// # Errors
    /// As [`ControlReceiver::recv_hello`], or when it is longer.
    pub async fn recv_hello_within<M: DeserializeOwned>(&mut self, limit: usize) -> Result<M, ReceiveError> {
        let usual = std::mem::replace(&mut self.limit, limit);
        let hello = self.recv_hello().await;
        self.limit = usual;
        hello
    }

    /// Refuse frames that are longer than `limit` bytes from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Have long frames wait for room in `gate` before they are read, and come at a decent pace then.
    pub fn set_gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// The next frame, still to be decoded, or `None` once the peer has finished. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends, or the peer sends garbage; close the connection then.
    pub async fn recv_frame(&mut self) -> Result<Option<Frame>, ReceiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let received = match self.frame().await {
            Ok(Some(place)) => {
                let is_all = place.start == 0 && place.end == self.buffer.len();
                let bytes = if is_all && place.end > STEP_NBYTES {
                    self.start = 0;
                    std::mem::take(&mut self.buffer)
                } else {
                    self.buffer[place].to_vec()
                };
                Frame::new(bytes).map(Some).map_err(ReceiveError::from)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        self.broken = received.as_ref().err().cloned();
        received
    }

    async fn messages<M: DeserializeOwned>(&mut self) -> Result<Option<Vec<M>>, ReceiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let received = match self.frame().await {
            Ok(Some(frame)) => codec::decode_frame(&self.buffer[frame]).map(Some).map_err(ReceiveError::from),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        self.broken = received.as_ref().err().cloned();
        received
    }

    /// The place of the next frame in the buffer; `None` once the stream has finished.
    async fn frame(&mut self) -> Result<Option<std::ops::Range<usize>>, ReceiveError> {
        if std::mem::take(&mut self.is_handed_out) {
            self.passage = None;
        }
        loop {
            let arrived = self.buffer.len() - self.start;
            let announced = codec::frame_nbytes(&self.buffer[self.start..], self.limit)?;
            if let Some(nbytes) = announced.filter(|nbytes| arrived >= *nbytes) {
                let start = self.start;
                self.start += nbytes;
                self.is_handed_out = true;
                return Ok(Some(start..start + nbytes));
            }
            if let (Some(gate), Some(nbytes), None) = (&self.gate, announced, &self.passage)
                && nbytes > LONG_FRAME_NBYTES
            {
                self.passage = Some(gate.pass(nbytes).await);
            }
            self.make_room(announced);
            let chunk = match &self.passage {
                None => self.stream.read_chunk(usize::MAX, true).await,
                Some(passage) => match timeout_at(passage.until, self.stream.read_chunk(usize::MAX, true)).await {
                    Ok(chunk) => chunk,
                    Err(_elapsed) => return Err(CodecError::Malformed(TOO_SLOW.to_owned()).into()),
                },
            };
            match chunk.map_err(StreamError::from)? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if arrived == 0 => return Ok(None),
                None => return Err(StreamError::EndedEarly.into()),
            }
        }
    }

    /// Move what is left to the front, and reserve towards the announced length in steps that what arrived has earned.
    fn make_room(&mut self, announced: Option<usize>) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.capacity() > KEPT_NBYTES && self.buffer.len() < STEP_NBYTES {
                self.buffer.shrink_to(STEP_NBYTES);
            }
        }
        let (arrived, capacity) = (self.buffer.len(), self.buffer.capacity());
        if let Some(nbytes) = announced
            && capacity < nbytes
            && capacity - arrived < 64 << 10
        {
            self.buffer.reserve_exact((nbytes - arrived).min(arrived.max(STEP_NBYTES)));
        }
    }
}

impl<In: DeserializeOwned> ControlReceiver<In> {
    /// The messages of the next frame, or `None` once the peer has finished. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends, or the peer sends garbage; close the connection then.
    pub async fn recv(&mut self) -> Result<Option<Vec<In>>, ReceiveError> {
        self.messages().await
    }
}
