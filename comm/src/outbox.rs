//! What is to be said to one peer: many threads put messages in, one future writes all that is there as one frame.
//!
//! Messages are encoded as they come in, so the bound is in bytes that really wait, not in messages of unknown size. A peer
//! that does not read fast enough fills its outbox; then its connection is closed, because dropping single messages would
//! break the conversation, and waiting would let one slow peer hold up all others.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

use crate::codec::{self, CodecError, FRAME_HEADER_NBYTES};
use crate::connection::{CloseCode, close};
use crate::control::{ControlSender, SendError};

/// Bound of an outbox unless another is given, in bytes.
pub const OUTBOX_LIMIT: usize = 256 << 20;

/// A batch is closed at this size, and the next one begun; a single longer message makes a longer batch.
const BATCH_NBYTES: usize = 1 << 20;

/// A message that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// More waits than the bound allows; the connection is being closed.
    #[error("the peer does not keep up: more than {limit} bytes wait for it")]
    Overflow {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The outbox has been finished, or its connection has ended.
    #[error("the conversation is over")]
    Over,
    /// A message that cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Why the writer of an outbox stopped before it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// A push went over the bound.
    #[error("the peer does not keep up: more than {limit} bytes wait for it")]
    Overflow {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The stream ended, or a message was longer than a frame may be.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Encoded messages that will be one frame: room for the count in front is kept when it is written.
#[derive(Default)]
struct Batch {
    n_messages: u64,
    body: Vec<u8>,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    nbytes: usize,
    is_finished: bool,
    has_overflowed: bool,
    connection: Option<quinn::Connection>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    limit: usize,
}

/// A bounded queue of messages to one peer. Clones share it.
pub struct Outbox<Out> {
    shared: Arc<Shared>,
    message: PhantomData<fn(Out)>,
}

impl<Out> Clone for Outbox<Out> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), message: PhantomData }
    }
}

impl<Out> Default for Outbox<Out> {
    fn default() -> Self {
        Self::new(OUTBOX_LIMIT)
    }
}

impl<Out> Outbox<Out> {
    /// An empty outbox that holds at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), wake: Notify::new(), limit }), message: PhantomData }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.state().nbytes
    }

    /// Take no more; [`Outbox::run`] ends well once all that waits has reached the peer.
    pub fn finish(&self) {
        self.state().is_finished = true;
        self.shared.wake.notify_one();
    }

    /// Write what waits, batch by batch, until the outbox is finished and the peer has received everything. On overflow the
    /// connection is closed with the reason. Once this ends, pushes are refused.
    ///
    /// # Errors
    /// When the stream ends before, on overflow, or when a message is longer than a frame of the plane may be.
    pub async fn run(&self, mut sender: ControlSender<Out>) -> Result<(), OutboxError> {
        {
            let mut state = self.state();
            state.connection = Some(sender.connection().clone());
            if state.has_overflowed {
                self.close_overflown(&mut state);
            }
        }
        let written = self.write_all(&mut sender).await;
        let has_overflowed = {
            let mut state = self.state();
            state.is_finished = true;
            state.batches.clear();
            state.nbytes = 0;
            state.connection = None;
            state.has_overflowed
        };
        match written {
            _ if has_overflowed => Err(OutboxError::Overflow { limit: self.shared.limit }),
            Err(error) => Err(error.into()),
            Ok(()) => sender.finish().await.map_err(|error| OutboxError::Send(error.into())),
        }
    }

    async fn write_all(&self, sender: &mut ControlSender<Out>) -> Result<(), SendError> {
        loop {
            let (batch, is_finished) = {
                let mut state = self.state();
                (state.batches.pop_front(), state.is_finished)
            };
            match batch {
                Some(batch) => {
                    let nbytes = batch.body.len();
                    let frame = batch.into_frame(sender.limit())?;
                    sender.write(frame).await?;
                    let mut state = self.state();
                    state.nbytes = state.nbytes.saturating_sub(nbytes);
                }
                None if is_finished => return Ok(()),
                None => {
                    let lost = sender.connection().closed();
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        error = lost => return Err(crate::control::StreamError::from(error).into()),
                    }
                }
            }
        }
    }

    fn close_overflown(&self, state: &mut State) {
        state.batches.clear();
        state.nbytes = 0;
        if let Some(connection) = &state.connection {
            let reason = format!("the peer does not keep up: more than {} bytes wait for it", self.shared.limit);
            close(connection, CloseCode::Overflow, &reason);
        }
    }
}

impl<Out: Serialize> Outbox<Out> {
    /// Queue `messages`, in order. Callable from any thread; never waits for the network.
    ///
    /// # Errors
    /// When the conversation is over, or more would wait than the bound allows; then it is over after this call, and its
    /// connection is closed.
    pub fn push(&self, messages: Vec<Out>) -> Result<(), PushError> {
        let mut state = self.state();
        if state.has_overflowed {
            return Err(PushError::Overflow { limit: self.shared.limit });
        }
        if state.is_finished {
            return Err(PushError::Over);
        }
        for message in &messages {
            let is_full = |batch: &Batch| batch.body.len() >= BATCH_NBYTES;
            if state.batches.back().is_none_or(is_full) {
                state.batches.push_back(Batch::default());
            }
            let Some(batch) = state.batches.back_mut() else { continue };
            let before = batch.body.len();
            if let Err(error) = codec::encode(message, &mut batch.body) {
                batch.body.truncate(before);
                return Err(error.into());
            }
            batch.n_messages += 1;
            let nbytes = batch.body.len() - before;
            state.nbytes += nbytes;
            if state.nbytes > self.shared.limit {
                state.has_overflowed = true;
                self.close_overflown(&mut state);
                self.shared.wake.notify_one();
                return Err(PushError::Overflow { limit: self.shared.limit });
            }
        }
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Batch {
    /// The frame: a list on the wire is its length and then its elements, which are here already.
    fn into_frame(self, limit: usize) -> Result<Bytes, CodecError> {
        let mut count = Vec::with_capacity(9);
        codec::encode(&self.n_messages, &mut count)?;
        let header = codec::frame_header(count.len() + self.body.len(), limit)?;
        let mut frame = Vec::with_capacity(FRAME_HEADER_NBYTES + count.len() + self.body.len());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&count);
        frame.extend_from_slice(&self.body);
        Ok(Bytes::from(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_frame_of_a_list() {
        for n_messages in [0_usize, 1, 250, 251, 70_000] {
            let messages: Vec<u32> = (0..n_messages as u32).collect();
            let mut batch = Batch { n_messages: n_messages as u64, body: Vec::new() };
            for message in &messages {
                codec::encode(message, &mut batch.body).unwrap();
            }
            let frame = batch.into_frame(codec::FRAME_LIMIT).unwrap();
            let mut expected = Vec::new();
            codec::encode_frame(&messages, codec::FRAME_LIMIT, &mut expected).unwrap();
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn the_bound_is_in_bytes() {
        let outbox: Outbox<String> = Outbox::new(1000);
        outbox.push(vec!["x".repeat(400), "y".repeat(400)]).unwrap();
        assert!(outbox.nbytes() > 800);
        assert_eq!(outbox.push(vec!["z".repeat(400)]), Err(PushError::Overflow { limit: 1000 }));
        assert_eq!(outbox.push(vec![String::new()]), Err(PushError::Overflow { limit: 1000 }));
        assert_eq!(outbox.nbytes(), 0, "what cannot be sent any more is dropped at once");
    }

    #[test]
    fn a_finished_outbox_takes_no_more() {
        let outbox: Outbox<u32> = Outbox::default();
        outbox.finish();
        assert_eq!(outbox.push(vec![1]), Err(PushError::Over));
    }
}
