//! Messages to bytes and back: the only place that names bincode.
//!
//! bincode 2.0.1 through serde, variable-length integers, always with a limit, and never with bytes left over. A control
//! frame is `u32 length | u8 frame version | list of messages`; length counts what follows it. Results' buffers never come
//! here. The format is not self-describing, so message types avoid serde's `flatten`, `untagged` and `skip_serializing_if`.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The layout of frames; raised when this file changes its format.
pub const FRAME_VERSION: u8 = 1;

/// Bytes before a frame's body: length and version.
pub const FRAME_HEADER_NBYTES: usize = 5;

/// Longest frame on the worker and data planes, in bytes.
pub const FRAME_LIMIT: usize = 16 << 20;

/// Longest frame on the client plane, in bytes: graphs of many millions of tasks travel in one.
pub const GRAPH_FRAME_LIMIT: usize = 256 << 20;

// The limit counts decoded bytes, and an integer that takes one byte on the wire counts up to eight. So eight times the
// frame limit never refuses an honest message, while an announced length cannot claim more than that.
const SMALL: Configuration<LittleEndian, Varint, Limit<{ FRAME_LIMIT * 8 }>> =
    bincode::config::standard().with_limit::<{ FRAME_LIMIT * 8 }>();
const LARGE: Configuration<LittleEndian, Varint, Limit<{ GRAPH_FRAME_LIMIT * 8 }>> =
    bincode::config::standard().with_limit::<{ GRAPH_FRAME_LIMIT * 8 }>();

/// Bytes that are not the message they should be, or a message that cannot become bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not decode.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A message decoded, and bytes were left.
    #[error("malformed message: {0} bytes too many")]
    TrailingBytes(usize),
    /// A frame of another layout.
    #[error("frame of version {0}, this program speaks version {FRAME_VERSION}")]
    FrameVersion(u8),
    /// A frame, or a single message, that is longer than its plane allows.
    #[error("a frame of {nbytes} bytes, the limit here is {limit}")]
    TooLong {
        /// Its length.
        nbytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A value that serde cannot write.
    #[error("cannot encode message: {0}")]
    Unencodable(String),
}

/// Append `message` to `out`.
///
/// # Errors
/// When serde cannot write it, which for the messages of this crate does not happen.
pub fn encode<M: Serialize + ?Sized>(message: &M, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(message, out, LARGE)
        .map(|_written| ())
        .map_err(|error| CodecError::Unencodable(error.to_string()))
}

/// The message that `bytes` are, all of them.
///
/// # Errors
/// When they are not exactly one `M`.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    let decoded = if bytes.len() <= FRAME_LIMIT {
        bincode::serde::decode_from_slice::<M, _>(bytes, SMALL)
    } else {
        bincode::serde::decode_from_slice::<M, _>(bytes, LARGE)
    };
    let (message, used) = decoded.map_err(|error| CodecError::Malformed(error.to_string()))?;
    if used == bytes.len() { Ok(message) } else { Err(CodecError::TrailingBytes(bytes.len() - used)) }
}

/// One frame with `message` alone.
///
/// # Errors
/// When it would be longer than [`FRAME_LIMIT`].
pub(crate) fn frame_of<M: Serialize>(message: &M) -> Result<Bytes, CodecError> {
    let mut frame = Vec::new();
    encode_frame(std::slice::from_ref(message), FRAME_LIMIT, &mut frame)?;
    Ok(Bytes::from(frame))
}

/// Append one frame with `messages` to `out`.
///
/// # Errors
/// When the frame would be longer than `limit`; `out` is as before then.
pub fn encode_frame<M: Serialize>(messages: &[M], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, FRAME_VERSION]);
    let encoded = encode(messages, out).and_then(|()| seal_frame(start, limit, out));
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

/// The header of a frame whose body has `body_nbytes` bytes.
///
/// # Errors
/// When the frame would be longer than `limit`.
pub fn frame_header(body_nbytes: usize, limit: usize) -> Result<[u8; FRAME_HEADER_NBYTES], CodecError> {
    let nbytes = body_nbytes + 1;
    let too_long = || CodecError::TooLong { nbytes: nbytes as u64, limit: limit as u64 };
    if nbytes > limit {
        return Err(too_long());
    }
    let length = u32::try_from(nbytes).map_err(|_| too_long())?.to_le_bytes();
    Ok([length[0], length[1], length[2], length[3], FRAME_VERSION])
}

fn seal_frame(start: usize, limit: usize, out: &mut [u8]) -> Result<(), CodecError> {
    let header = frame_header(out.len() - start - FRAME_HEADER_NBYTES, limit)?;
    out[start..start + FRAME_HEADER_NBYTES].copy_from_slice(&header);
    Ok(())
}

/// How many bytes a frame beginning with `head` has in all, once its length can be read; checked before anything is allocated.
///
/// # Errors
/// When it is longer than `limit`, or of another frame version.
pub fn frame_nbytes(head: &[u8], limit: usize) -> Result<Option<usize>, CodecError> {
    let Some(&[a, b, c, d]) = head.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > limit {
        return Err(CodecError::TooLong { nbytes: length as u64, limit: limit as u64 });
    }
    if length == 0 {
        return Err(CodecError::Malformed("a frame without a version".to_owned()));
    }
    match head.get(4) {
        Some(&version) if version != FRAME_VERSION => Err(CodecError::FrameVersion(version)),
        Some(_) | None => Ok(Some(length + 4)),
    }
}

/// The messages of a whole frame.
///
/// # Errors
/// When its body is not a list of `M`.
pub fn decode_frame<M: DeserializeOwned>(frame: &[u8]) -> Result<Vec<M>, CodecError> {
    match frame.split_at_checked(FRAME_HEADER_NBYTES) {
        Some((_header, body)) => decode(body),
        None => Err(CodecError::Malformed("a frame without a body".to_owned())),
    }
}

/// A frame whose messages are decoded as they are asked for: what they take is bounded by how many that are, not by how many a
/// few bytes announce.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    at: usize,
    n_left: u64,
}

impl Frame {
    /// Take a whole frame, header included, apart.
    ///
    /// # Errors
    /// When it does not hold a list.
    pub fn new(bytes: Vec<u8>) -> Result<Self, CodecError> {
        let body = bytes.get(FRAME_HEADER_NBYTES..).ok_or_else(|| CodecError::Malformed("a frame without a body".to_owned()))?;
        let (n_left, used) = decode_first::<u64>(body, bytes.len())?;
        let frame = Self { at: FRAME_HEADER_NBYTES + used, n_left, bytes };
        // Every message takes a byte at least.
        if frame.n_left > (frame.bytes.len() - frame.at) as u64 {
            return Err(CodecError::Malformed(format!("{n_left} messages announced in a frame of {} bytes", frame.bytes.len())));
        }
        frame.check_end()?;
        Ok(frame)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all its messages have been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.n_left == 0
    }

    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// When what comes is no `M`, or something comes after the last.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, CodecError> {
        if self.n_left == 0 {
            return Ok(None);
        }
        let (message, used) = decode_first::<M>(&self.bytes[self.at..], self.bytes.len())?;
        self.at += used;
        self.n_left -= 1;
        self.check_end()?;
        Ok(Some(message))
    }

    fn check_end(&self) -> Result<(), CodecError> {
        let n_left_over = self.bytes.len() - self.at;
        if self.n_left == 0 && n_left_over > 0 { Err(CodecError::TrailingBytes(n_left_over)) } else { Ok(()) }
    }
}

/// The message at the beginning of `bytes`, which are part of a frame of `frame_nbytes`, and its length.
fn decode_first<M: DeserializeOwned>(bytes: &[u8], frame_nbytes: usize) -> Result<(M, usize), CodecError> {
    let decoded = if frame_nbytes <= FRAME_LIMIT {
        bincode::serde::decode_from_slice::<M, _>(bytes, SMALL)
    } else {
        bincode::serde::decode_from_slice::<M, _>(bytes, LARGE)
    };
    decoded.map_err(|error| CodecError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{FromClient, FromWorker, RunInput, SubmitOptions, ToWorker, WorkerStatus};
    use rask_graphs::{Attempt, FinishOptions, GraphBuilder, GraphId, Part, TaskId, TaskIdx, TaskOptions, WorkerId};

    fn task(idx: u32) -> TaskId {
        TaskId::new(GraphId(3), TaskIdx(idx))
    }

    fn samples() -> Vec<FromWorker> {
        vec![
            FromWorker::Finished { task: task(70_000), attempt: Attempt(2), nbytes: 1 << 40, n_parts: 0, duration_us: 17 },
            FromWorker::Status(Box::new(WorkerStatus { is_paused: true, rss_nbytes: 9, ..WorkerStatus::default() })),
            FromWorker::Retiring,
        ]
    }

    #[test]
    fn messages_come_back() {
        let mut bytes = Vec::new();
        encode(&samples(), &mut bytes).unwrap();
        assert_eq!(decode::<Vec<FromWorker>>(&bytes).unwrap(), samples());
    }

    #[test]
    fn every_truncation_and_any_surplus_is_refused() {
        let mut bytes = Vec::new();
        encode(&samples(), &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode::<Vec<FromWorker>>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes.push(0);
        assert_eq!(decode::<Vec<FromWorker>>(&bytes), Err(CodecError::TrailingBytes(1)));
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        // A list of 2^60 messages in ten bytes: it must fail quickly, having reserved next to nothing.
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1_u64 << 60).to_le_bytes());
        assert!(matches!(decode::<Vec<ToWorker>>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<String>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn an_enormous_count_anywhere_in_a_graph_is_refused() {
        let mut graph = GraphBuilder::new();
        let a = graph.task("a", "core.noop", 1, "{}").add();
        let group = graph.group(vec![a]);
        let options = TaskOptions { workers: vec!["w".to_owned()], ..TaskOptions::default() };
        graph.task("b", "core.noop", 1, "{}").input(a).input_group(group, Part(0)).options(options).add();
        let graph = Box::new(graph.finish(&FinishOptions::default()).unwrap().graph);
        let submission = FromClient::Submit { request: 1, graph, options: SubmitOptions::default() };
        let mut bytes = Vec::new();
        encode(&submission, &mut bytes).unwrap();
        assert_eq!(decode::<FromClient>(&bytes).unwrap(), submission);
        for at in 0..bytes.len() {
            let mut forged = bytes[..at].to_vec();
            forged.push(253);
            forged.extend_from_slice(&u64::MAX.to_le_bytes());
            forged.extend_from_slice(&bytes[at..]);
            assert!(decode::<FromClient>(&forged).is_err(), "2^64 - 1 at {at}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..state % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push((state >> 56) as u8);
            }
            state = state.rotate_left(7).wrapping_add(1);
            let _ = decode::<Vec<ToWorker>>(&bytes);
            let _ = decode::<Vec<FromWorker>>(&bytes);
        }
    }

    #[test]
    fn frames_know_their_length_and_version() {
        let mut out = vec![1, 2, 3];
        encode_frame(&samples(), FRAME_LIMIT, &mut out).unwrap();
        let frame = &out[3..];
        for head in 0..4 {
            assert_eq!(frame_nbytes(&frame[..head], FRAME_LIMIT).unwrap(), None);
        }
        assert_eq!(frame_nbytes(frame, FRAME_LIMIT).unwrap(), Some(frame.len()));
        assert_eq!(decode_frame::<FromWorker>(frame).unwrap(), samples());
        assert!(matches!(frame_nbytes(frame, 3), Err(CodecError::TooLong { limit: 3, .. })));
        let mut other = frame.to_vec();
        other[4] = 9;
        assert_eq!(frame_nbytes(&other, FRAME_LIMIT), Err(CodecError::FrameVersion(9)));
    }

    #[test]
    fn a_frame_is_taken_apart_message_by_message() {
        let mut out = Vec::new();
        encode_frame(&samples(), FRAME_LIMIT, &mut out).unwrap();
        let mut frame = Frame::new(out.clone()).unwrap();
        let mut messages = Vec::new();
        while let Some(message) = frame.next_message::<FromWorker>().unwrap() {
            messages.push(message);
        }
        assert_eq!(messages, samples());
        assert!(frame.is_done());
        for cut in FRAME_HEADER_NBYTES..out.len() {
            let taken = Frame::new(out[..cut].to_vec()).and_then(|mut frame| {
                while frame.next_message::<FromWorker>()?.is_some() {}
                Ok(())
            });
            assert!(taken.is_err(), "cut at {cut}");
        }
        out.push(0);
        let mut frame = Frame::new(out).unwrap();
        let taken = std::iter::from_fn(|| frame.next_message::<FromWorker>().transpose()).collect::<Result<Vec<_>, _>>();
        assert_eq!(taken, Err(CodecError::TrailingBytes(1)));
        let mut empty = Vec::new();
        encode_frame::<FromWorker>(&[], FRAME_LIMIT, &mut empty).unwrap();
        assert!(Frame::new(empty).unwrap().is_done());
    }

    #[test]
    fn millions_of_messages_announced_in_a_few_bytes_take_nothing() {
        let mut bytes = vec![0, 0, 0, 0, FRAME_VERSION, 253];
        bytes.extend_from_slice(&(1_u64 << 40).to_le_bytes());
        bytes.extend_from_slice(&[0; 100]);
        assert!(matches!(Frame::new(bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn a_frame_that_is_too_long_leaves_the_buffer_alone() {
        let mut out = vec![7];
        assert!(matches!(encode_frame(&samples(), 4, &mut out), Err(CodecError::TooLong { .. })));
        assert_eq!(out, [7]);
    }

    #[test]
    fn a_run_input_is_small() {
        let input = RunInput {
            task: task(900_000),
            attempt: Attempt(1),
            part: Part::WHOLE,
            nbytes: 8_000_000,
            holders: vec![WorkerId(3)],
            is_made: true,
        };
        let mut bytes = Vec::new();
        encode(&input, &mut bytes).unwrap();
        assert!(bytes.len() <= 24, "{} bytes", bytes.len());
    }
}
