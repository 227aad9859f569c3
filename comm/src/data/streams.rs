//! Both ends of a stream of the data plane: frames and buffers, gathered on the way out and aligned on the way in.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use serde::Serialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{LATE_CHECKSUM_NBYTES, LEAST_PROGRESS_NBYTES, NO_PROGRESS_LIMIT, ServeError};
use crate::aligned::AlignedBuffer;
use crate::codec::{self, CodecError, FRAME_HEADER_NBYTES, FRAME_LIMIT};
use crate::connection::{CloseCode, close};
use crate::control::StreamError;
use crate::tuning::Urgency;

/// Bytes of a long buffer that are handed to the network at once.
const PIECE_NBYTES: usize = 256 << 10;

/// What is gathered of short answers before it is handed to the network.
const BATCH_NBYTES: usize = 128 << 10;
/// Pieces shorter than this are copied together. The network keeps a list of what it has been handed and is not acknowledged, and
/// looks through it for every packet: a list of many short pieces costs far more than copying them.
const COPIED_NBYTES: usize = 8 << 10;

/// After so many pieces others have their turn on this thread, which may be all that the network has.
pub(crate) const N_PIECES_A_TURN: usize = 256;

/// A stream that is reset unless it was finished: dropped at any point, it must not look complete. Short pieces are gathered.
pub(crate) struct ReplyStream {
    stream: Option<SendStream>,
    pieces: Vec<Bytes>,
    /// Short pieces that come after those.
    gathered: BytesMut,
    nbytes: usize,
    /// When it answers a request: whose reading is watched.
    reader: Option<quinn::Connection>,
    n_added: usize,
}

impl ReplyStream {
    pub(crate) fn new(stream: SendStream) -> Self {
        Urgency::Short.set(&stream);
        Self { stream: Some(stream), pieces: Vec::new(), gathered: BytesMut::new(), nbytes: 0, reader: None, n_added: 0 }
    }

    /// As [`ReplyStream::new`], for an answer whose reader has to read it: one that takes in next to nothing for
    /// [`NO_PROGRESS_LIMIT`] loses its connection, and with it what is kept for it.
    pub(crate) fn to_reader(stream: SendStream, reader: &quinn::Connection) -> Self {
        let mut reply = Self::new(stream);
        reply.reader = Some(reader.clone());
        reply
    }

    pub(crate) async fn add(&mut self, piece: Bytes) -> Result<(), StreamError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.nbytes += piece.len();
        if piece.len() < COPIED_NBYTES {
            self.gathered.extend_from_slice(&piece);
        } else {
            self.close_gathered();
            self.pieces.push(piece);
        }
        self.n_added += 1;
        if self.n_added.is_multiple_of(N_PIECES_A_TURN) {
            tokio::task::yield_now().await;
        }
        if self.nbytes >= BATCH_NBYTES { self.flush().await } else { Ok(()) }
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.pieces.push(self.gathered.split().freeze());
        }
    }

    /// A frame of one message.
    pub(crate) async fn add_frame(&mut self, message: &impl Serialize) -> Result<(), ServeError> {
        let frame = codec::frame_of(message).map_err(ServeError::Garbage)?;
        Ok(self.add(frame).await?)
    }

    pub(crate) async fn flush(&mut self) -> Result<(), StreamError> {
        self.close_gathered();
        let stream = self.stream.as_mut().ok_or(StreamError::Closed)?;
        self.nbytes = 0;
        let writing = stream.write_all_chunks(&mut self.pieces);
        match &self.reader {
            None => writing.await?,
            Some(reader) => while_read(reader, writing).await?,
        }
        self.pieces.clear();
        Ok(())
    }

    /// A buffer, and its checksum after it when it is long. `on_sent` is told how much has been handed to the network.
    pub(crate) async fn add_buffer(&mut self, mut buffer: Bytes, on_sent: &mut impl FnMut(u64)) -> Result<(), StreamError> {
        let nbytes = buffer.len() as u64;
        if nbytes < LATE_CHECKSUM_NBYTES {
            self.add(buffer).await?;
            on_sent(nbytes);
            return Ok(());
        }
        if let Some(stream) = &self.stream {
            Urgency::Bulk.set(stream);
        }
        let mut checksum = Xxh3::new();
        while !buffer.is_empty() {
            let piece = buffer.split_to(PIECE_NBYTES.min(buffer.len()));
            checksum.update(&piece);
            let nbytes = piece.len() as u64;
            self.add(piece).await?;
            on_sent(nbytes);
        }
        self.add(Bytes::copy_from_slice(&checksum.digest().to_le_bytes())).await
    }

    pub(crate) async fn finish(mut self) -> Result<(), StreamError> {
        self.flush().await?;
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.finish();
        }
        Ok(())
    }
}

/// Wait for something to be written, as long as its reader reads anything at all.
async fn while_read(
    reader: &quinn::Connection,
    writing: impl Future<Output = Result<(), quinn::WriteError>>,
) -> Result<(), StreamError> {
    let mut writing = pin!(writing);
    loop {
        let before = reader.stats().udp_tx.bytes;
        match tokio::time::timeout(NO_PROGRESS_LIMIT, writing.as_mut()).await {
            Ok(written) => return Ok(written?),
            // Other streams may have had the link. What is read moves the window on; signs of life are shorter.
            Err(_elapsed) if reader.stats().udp_tx.bytes - before >= LEAST_PROGRESS_NBYTES => {}
            Err(_elapsed) => {
                let reason = format!("it has read next to nothing of what it asked for in {NO_PROGRESS_LIMIT:?}");
                close(reader, CloseCode::Overflow, &reason);
                return Err(StreamError::Closed);
            }
        }
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.reset(VarInt::from_u32(1));
        }
    }
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
    pub(crate) async fn some(&mut self, limit: u64) -> Result<Option<Bytes>, StreamError> {
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
        let Some(nbytes) = self.frame_header(&mut frame, FRAME_LIMIT).await? else { return Ok(None) };
        self.frame_body(&mut frame, nbytes).await?;
        Ok(Some(frame))
    }

    /// The header of the next frame, of at most `limit` bytes, and how long the frame is; `None` at the end of the stream.
    pub(crate) async fn frame_header(&mut self, frame: &mut Vec<u8>, limit: usize) -> Result<Option<usize>, ReadFrameError> {
        while frame.len() < FRAME_HEADER_NBYTES {
            let Some(bytes) = self.some((FRAME_HEADER_NBYTES - frame.len()) as u64).await? else {
                return if frame.is_empty() { Ok(None) } else { Err(StreamError::EndedEarly.into()) };
            };
            frame.extend_from_slice(&bytes);
        }
        codec::frame_nbytes(frame, limit).map_err(ReadFrameError::Codec)
    }

    /// What follows the header of a frame of `nbytes` bytes.
    pub(crate) async fn frame_body(&mut self, frame: &mut Vec<u8>, nbytes: usize) -> Result<(), ReadFrameError> {
        while frame.len() < nbytes {
            let Some(bytes) = self.some((nbytes - frame.len()) as u64).await? else { return Err(StreamError::EndedEarly.into()) };
            frame.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// The next `nbytes` bytes, aligned, and their checksum.
    pub(crate) async fn buffer(&mut self, nbytes: u64) -> Result<(Bytes, u64), StreamError> {
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
    pub(crate) async fn checksum(&mut self) -> Result<u64, StreamError> {
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

    /// What the network is handed decides what every packet costs it.
    #[tokio::test]
    async fn short_pieces_are_handed_over_together_and_in_order() {
        let pair = crate::tests::data_pair().await;
        let (send, _receive) = pair.client.inner.open_bi().await.unwrap();
        let mut reply = ReplyStream::new(send);
        let long = Bytes::from(vec![7; COPIED_NBYTES]);
        for _ in 0..1_000 {
            reply.add(Bytes::from_static(b"short")).await.unwrap();
        }
        reply.add(long.clone()).await.unwrap();
        reply.add(Bytes::from_static(b"last")).await.unwrap();
        reply.close_gathered();
        let lengths: Vec<usize> = reply.pieces.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [5_000, COPIED_NBYTES, 4]);
        assert_eq!(reply.pieces[1].as_ptr(), long.as_ptr(), "a long piece is not copied");
    }

    #[tokio::test]
    async fn short_results_overtake_long_ones() {
        let pair = crate::tests::data_pair().await;
        let (send, _receive) = pair.client.inner.open_bi().await.unwrap();
        let mut reply = ReplyStream::new(send);
        let urgency = |reply: &ReplyStream| reply.stream.as_ref().unwrap().priority().unwrap();
        reply.add(Bytes::from_static(b"short")).await.unwrap();
        assert_eq!(urgency(&reply), Urgency::Short as i32);
        let long = Bytes::from(vec![1; LATE_CHECKSUM_NBYTES as usize]);
        reply.add_buffer(long, &mut |_nbytes| {}).await.unwrap();
        assert_eq!(urgency(&reply), Urgency::Bulk as i32);
        assert!(Urgency::Control > Urgency::Short && Urgency::Short > Urgency::Bulk);
    }
}
