//! What is to be said to one peer: many threads put messages in, one future writes all that is there as one frame.
//!
//! Messages are encoded as they come in, so the bound is in bytes that really wait, not in messages of unknown size. A peer
//! that does not read fast enough fills its outbox; then its connection is closed, because dropping single messages would
//! break the conversation, and waiting would let one slow peer hold up all others.
//!
//! A message that can wait does so for [`PATIENCE`] at most, and whoever puts it in does not wake the writer for it: waking a
//! sleeping thread costs both threads more than the message does.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::codec::{self, CodecError, FRAME_HEADER_NBYTES};
use crate::connection::{CloseCode, close};
use crate::control::{ControlSender, SendError};

/// Bound of an outbox unless another is given, in bytes.
pub const OUTBOX_LIMIT: usize = 256 << 20;

/// A batch is closed at this size, and the next one begun; a single longer message makes a longer batch.
const BATCH_NBYTES: usize = 1 << 20;

/// How long messages that can wait are kept for company.
pub const PATIENCE: Duration = Duration::from_micros(500);

/// Attached bytes up to this length are copied behind the frame, so that many small ones leave as one piece.
const COPIED_NBYTES: usize = 4 << 10;

/// Bytes kept free in front of a batch: the header of its frame and the number of its messages.
const HEAD_NBYTES: usize = FRAME_HEADER_NBYTES + 9;

/// Room that a batch begins with, in bytes: enough for the few messages of a quiet moment.
const FIRST_NBYTES: usize = 256;

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

/// Encoded messages that will be one frame, and what is attached to them: raw bytes that follow the frame in order.
struct Batch {
    n_messages: u64,
    /// [`HEAD_NBYTES`] of room, then the messages.
    body: Vec<u8>,
    /// What has been attached, but for the last small pieces, which are in `tail`.
    attached: Vec<Bytes>,
    tail: Vec<u8>,
    nbytes: usize,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    nbytes: usize,
    /// Messages that wait for company, in case all that wait do.
    n_patient: usize,
    /// Whether something waits that is to be written now.
    is_urgent: bool,
    /// Whether the writer looks again within [`PATIENCE`] by itself, and need not be woken for messages that can wait.
    is_ticking: bool,
    is_finished: bool,
    has_overflowed: bool,
    connection: Option<quinn::Connection>,
}

/// What the writer does next.
enum Step {
    Write(Batch),
    /// Sleep until woken, or, where there is a time, until then.
    Sleep(Option<Instant>),
    End,
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

    /// Whether both are clones of one outbox.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
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
        let connection = sender.connection().clone();
        let mut lost = pin!(connection.closed());
        // The end of the time for which messages wait, while there are such.
        let mut tick = None;
        loop {
            match self.next_step(&mut tick) {
                Step::Write(batch) => {
                    let nbytes = batch.nbytes;
                    let (frame, attached) = batch.into_frame(sender.limit())?;
                    sender.write(frame).await?;
                    for piece in attached {
                        sender.write(piece).await?;
                    }
                    let mut state = self.state();
                    state.nbytes = state.nbytes.saturating_sub(nbytes);
                }
                Step::End => return Ok(()),
                Step::Sleep(until) => {
                    let ticked = async {
                        match until {
                            Some(until) => sleep_until(until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        () = ticked => {}
                        error = &mut lost => return Err(crate::control::StreamError::from(error).into()),
                    }
                }
            }
        }
    }

    fn next_step(&self, tick: &mut Option<Instant>) -> Step {
        let mut state = self.state();
        let is_due = state.is_urgent || state.is_finished || tick.is_some_and(|tick| Instant::now() >= tick);
        if is_due && let Some(batch) = state.batches.pop_front() {
            if state.batches.is_empty() {
                // Whoever had something to say that could wait is likely to have more: so look again by itself, once.
                *tick = state.is_ticking.then(|| Instant::now() + PATIENCE);
                state.is_urgent = false;
                state.n_patient = 0;
            }
            return Step::Write(batch);
        }
        if state.is_finished {
            return Step::End;
        }
        if state.batches.is_empty() && tick.is_some_and(|tick| Instant::now() >= tick) {
            state.is_ticking = false;
        }
        if !state.is_ticking {
            *tick = None;
        } else if tick.is_none() {
            *tick = Some(Instant::now() + PATIENCE);
        }
        Step::Sleep(*tick)
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
        self.put(&messages, &[], 0)
    }

    /// Queue `messages`, which can wait for [`PATIENCE`] or until `n_patient` of their kind wait, whichever comes first. A
    /// later [`Outbox::push`] takes them along.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn push_patiently(&self, messages: Vec<Out>, n_patient: usize) -> Result<(), PushError> {
        self.put(&messages, &[], n_patient)
    }

    /// Queue one message, and `attached` to be written behind the frame that it is in: raw bytes, not copied when they are
    /// many. Attachments of one frame follow it in the order of their messages.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub(crate) fn push_attached(&self, message: Out, attached: &[Bytes]) -> Result<(), PushError> {
        self.put(&[message], attached, 0)
    }

    fn put(&self, messages: &[Out], attached: &[Bytes], n_patient: usize) -> Result<(), PushError> {
        let mut state = self.state();
        if state.has_overflowed {
            return Err(PushError::Overflow { limit: self.shared.limit });
        }
        if state.is_finished {
            return Err(PushError::Over);
        }
        if messages.is_empty() {
            return Ok(());
        }
        for message in messages {
            if state.batches.back().is_none_or(|batch| batch.nbytes >= BATCH_NBYTES) {
                state.batches.push_back(Batch::default());
            }
            let Some(batch) = state.batches.back_mut() else { continue };
            let nbytes = batch.add(message, attached)?;
            state.nbytes += nbytes;
            if state.nbytes > self.shared.limit {
                state.has_overflowed = true;
                self.close_overflown(&mut state);
                self.shared.wake.notify_one();
                return Err(PushError::Overflow { limit: self.shared.limit });
            }
        }
        state.n_patient += messages.len();
        let needs_writer = if state.n_patient >= n_patient {
            !std::mem::replace(&mut state.is_urgent, true)
        } else {
            !std::mem::replace(&mut state.is_ticking, true)
        };
        drop(state);
        if needs_writer {
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

impl Default for Batch {
    fn default() -> Self {
        let mut body = Vec::with_capacity(FIRST_NBYTES);
        body.resize(HEAD_NBYTES, 0);
        Self { n_messages: 0, body, attached: Vec::new(), tail: Vec::new(), nbytes: 0 }
    }
}

impl Batch {
    /// Add a message and what is attached to it; how many bytes that makes.
    fn add<Out: Serialize>(&mut self, message: &Out, attached: &[Bytes]) -> Result<usize, CodecError> {
        let before = self.body.len();
        if let Err(error) = codec::encode(message, &mut self.body) {
            self.body.truncate(before);
            return Err(error);
        }
        for piece in attached {
            if piece.len() <= COPIED_NBYTES {
                self.tail.extend_from_slice(piece);
            } else {
                self.end_tail();
                self.attached.push(piece.clone());
            }
        }
        let nbytes = self.body.len() - before + attached.iter().map(Bytes::len).sum::<usize>();
        self.n_messages += 1;
        self.nbytes += nbytes;
        Ok(nbytes)
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.attached.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    /// The frame, and what follows it. A list on the wire is its length and then its elements, which are here already.
    fn into_frame(mut self, limit: usize) -> Result<(Bytes, Vec<Bytes>), CodecError> {
        let mut head = Vec::with_capacity(HEAD_NBYTES);
        codec::encode(&self.n_messages, &mut head)?;
        let header = codec::frame_header(head.len() + self.body.len() - HEAD_NBYTES, limit)?;
        head.splice(..0, header);
        let start = HEAD_NBYTES - head.len();
        self.body[start..HEAD_NBYTES].copy_from_slice(&head);
        if self.attached.is_empty() {
            self.body.append(&mut self.tail);
        }
        self.end_tail();
        Ok((Bytes::from(self.body).slice(start..), self.attached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_frame_of_a_list() {
        for n_messages in [0_usize, 1, 250, 251, 70_000] {
            let messages: Vec<u32> = (0..n_messages as u32).collect();
            let mut batch = Batch::default();
            for message in &messages {
                batch.add(message, &[]).unwrap();
            }
            let (frame, attached) = batch.into_frame(codec::FRAME_LIMIT).unwrap();
            let mut expected = Vec::new();
            codec::encode_frame(&messages, codec::FRAME_LIMIT, &mut expected).unwrap();
            assert_eq!((frame, attached), (Bytes::from(expected), Vec::new()));
        }
    }

    #[test]
    fn attached_bytes_follow_in_order_and_large_ones_are_not_copied() {
        let (small, large) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; COPIED_NBYTES + 1]));
        for lengths in [&[][..], &[1], &[1, 1], &[2], &[1, 2, 1, 1, 2], &[2, 2, 1]] {
            let mut batch = Batch::default();
            let (mut messages, mut expected) = (Vec::new(), Vec::new());
            for (&kind, message) in lengths.iter().zip(0_u32..) {
                let piece = if kind == 1 { &small } else { &large };
                batch.add(&message, std::slice::from_ref(piece)).unwrap();
                messages.push(message);
                expected.extend_from_slice(piece);
            }
            let mut bytes = Vec::new();
            codec::encode_frame(&messages, codec::FRAME_LIMIT, &mut bytes).unwrap();
            bytes.extend_from_slice(&expected);
            let (frame, attached) = batch.into_frame(codec::FRAME_LIMIT).unwrap();
            let n_large = attached.iter().filter(|piece| piece.as_ptr() == large.as_ptr()).count();
            assert_eq!(n_large, lengths.iter().filter(|kind| **kind == 2).count());
            let all: Vec<u8> = std::iter::once(&frame).chain(&attached).flatten().copied().collect();
            assert_eq!(all, bytes);
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

    fn n_written(step: Step) -> u64 {
        let Step::Write(batch) = step else { panic!("there is something to write") };
        batch.n_messages
    }

    #[test]
    fn messages_that_can_wait_leave_in_time_in_company_or_when_they_are_many() {
        let outbox: Outbox<u32> = Outbox::default();
        let mut tick = None;
        assert!(matches!(outbox.next_step(&mut tick), Step::Sleep(None)));
        outbox.push_patiently(vec![1], 3).unwrap();
        let Step::Sleep(Some(until)) = outbox.next_step(&mut tick) else { panic!("it waits, and not for ever") };
        assert!(until <= Instant::now() + PATIENCE);
        outbox.push(vec![2]).unwrap();
        assert_eq!(n_written(outbox.next_step(&mut tick)), 2, "it leaves with one that cannot wait");
        outbox.push_patiently(vec![1, 2], 3).unwrap();
        assert!(matches!(outbox.next_step(&mut tick), Step::Sleep(Some(_))));
        outbox.push_patiently(vec![3], 3).unwrap();
        assert_eq!(n_written(outbox.next_step(&mut tick)), 3, "they are as many as may wait");
        outbox.push_patiently(vec![1], 3).unwrap();
        tick = Some(Instant::now());
        assert_eq!(n_written(outbox.next_step(&mut tick)), 1, "its time is over");
        outbox.push_patiently(vec![1], 0).unwrap();
        assert_eq!(n_written(outbox.next_step(&mut tick)), 1, "none may wait");
    }

    #[test]
    fn the_writer_looks_again_by_itself_until_a_look_was_in_vain() {
        let outbox: Outbox<u32> = Outbox::default();
        let mut tick = None;
        outbox.push_patiently(vec![1], 3).unwrap();
        assert!(matches!(outbox.next_step(&mut tick), Step::Sleep(Some(_))));
        tick = Some(Instant::now());
        assert_eq!(n_written(outbox.next_step(&mut tick)), 1);
        assert!(matches!(outbox.next_step(&mut tick), Step::Sleep(Some(_))), "more may come");
        tick = Some(Instant::now());
        assert!(matches!(outbox.next_step(&mut tick), Step::Sleep(None)), "nothing came");
        assert!(!outbox.state().is_ticking, "the next message has to wake the writer");
    }
}
