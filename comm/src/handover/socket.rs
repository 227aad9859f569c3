//! A Unix stream socket over which frames, bytes and descriptors go.
//!
//! A descriptor travels with the first byte of the frame that speaks of it. The kernel never gives out the bytes of two such
//! messages in one read, so descriptors arrive in the order of their frames and no later than they. What does not fit the
//! receiver's table of descriptors is cut off by the kernel, which says so; the order would be lost then, and so the socket is
//! given up.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::aligned::AlignedBuffer;
use crate::codec::{self, FRAME_HEADER_NBYTES, FRAME_LIMIT};

/// What is gathered before it is written.
const BATCH_NBYTES: usize = 128 << 10;
/// Pieces of one write; the kernel takes 1,024.
const MAX_PIECES: usize = 512;
/// What is read at once.
const READ_NBYTES: usize = 256 << 10;
/// The same to begin with, until more comes at once.
const MIN_READ_NBYTES: usize = 8 << 10;
/// What the kernel may hold for the other end; it gives less when it is told to.
const SOCKET_NBYTES: usize = 1 << 20;
/// Descriptors that have arrived ahead of their frames; an honest peer sends one a frame.
const MAX_WAITING_FILES: usize = 64;

/// The writing end. Gathers pieces, and writes them when there are enough.
pub(super) struct Writer {
    stream: Arc<UnixStream>,
    pieces: Vec<Bytes>,
    nbytes: usize,
}

/// The reading end.
pub(super) struct Reader {
    stream: Arc<UnixStream>,
    /// As long as what comes at once, within bounds: a node has a link to every other one on its host.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    files: VecDeque<OwnedFd>,
}

pub(super) fn split(stream: UnixStream) -> (Reader, Writer) {
    if let Err(error) = socket2::SockRef::from(&stream).set_send_buffer_size(SOCKET_NBYTES) {
        tracing::debug!(%error, "the buffer of a socket stays as it is");
    }
    let stream = Arc::new(stream);
    let buffer = vec![0; MIN_READ_NBYTES];
    let reader = Reader { stream: Arc::clone(&stream), buffer, start: 0, end: 0, files: VecDeque::new() };
    (reader, Writer { stream, pieces: Vec::new(), nbytes: 0 })
}

impl Writer {
    /// Add a piece to what will be written.
    pub(super) async fn add(&mut self, piece: Bytes) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.nbytes += piece.len();
        self.pieces.push(piece);
        if self.nbytes >= BATCH_NBYTES || self.pieces.len() >= MAX_PIECES { self.flush().await } else { Ok(()) }
    }

    /// Write what has been added.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.write(None).await
    }

    /// Write `frame`, after what has been added, and a descriptor with it. When the kernel does not take the descriptor,
    /// nothing of the frame has been written.
    pub(super) async fn write_with_file(&mut self, frame: Bytes, file: BorrowedFd<'_>) -> io::Result<()> {
        self.flush().await?;
        self.nbytes = frame.len();
        self.pieces.push(frame);
        self.write(Some(file)).await
    }

    async fn write(&mut self, mut file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let pieces = std::mem::take(&mut self.pieces);
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        let mut nbytes = std::mem::take(&mut self.nbytes);
        while nbytes > 0 {
            let written = self.stream.async_io(Interest::WRITABLE, || send(&self.stream, left, file)).await?;
            file = None;
            nbytes -= written;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }
}

fn send(stream: &UnixStream, slices: &[IoSlice<'_>], file: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = file.map(|file| [file]);
    if let Some(files) = &files {
        ancillary.push(SendAncillaryMessage::ScmRights(files));
    }
    Ok(sendmsg(stream.as_fd(), slices, &mut ancillary, SendFlags::NOSIGNAL)?)
}

impl Reader {
    /// The next whole frame; `None` at the end.
    pub(super) async fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = Vec::new();
        let mut wanted = FRAME_HEADER_NBYTES;
        while frame.len() < wanted {
            if self.start == self.end && self.fill().await? == 0 {
                return if frame.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            frame.extend_from_slice(self.some(wanted - frame.len()));
            if wanted == FRAME_HEADER_NBYTES && frame.len() == wanted {
                let nbytes = codec::frame_nbytes(&frame, FRAME_LIMIT).map_err(garbage)?;
                wanted = nbytes.unwrap_or(wanted);
            }
        }
        Ok(Some(frame))
    }

    /// The next `nbytes` bytes, aligned.
    pub(super) async fn buffer(&mut self, nbytes: u64) -> io::Result<Bytes> {
        let mut buffer = AlignedBuffer::new(nbytes);
        let mut missing = nbytes;
        while missing > 0 {
            if self.start == self.end && self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let some = self.some(usize::try_from(missing).unwrap_or(usize::MAX));
            missing -= some.len() as u64;
            buffer.extend(some);
        }
        Ok(buffer.freeze())
    }

    /// The descriptor that came with the last frame.
    pub(super) fn file(&mut self) -> io::Result<OwnedFd> {
        self.files.pop_front().ok_or_else(|| garbage("a frame speaks of a descriptor, and none came"))
    }

    /// Up to `limit` bytes that have been read.
    fn some(&mut self, limit: usize) -> &[u8] {
        let begin = self.start;
        self.start = self.end.min(begin.saturating_add(limit));
        &self.buffer[begin..self.start]
    }

    /// Read more, after all that was read has been used. 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.end == self.buffer.len() && self.buffer.len() < READ_NBYTES {
            self.buffer.resize((self.buffer.len() * 4).min(READ_NBYTES), 0);
        }
        let Self { stream, buffer, files, .. } = self;
        let nbytes = stream.async_io(Interest::READABLE, || receive(stream, buffer, files)).await?;
        (self.start, self.end) = (0, nbytes);
        Ok(nbytes)
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8], files: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("no room for a descriptor; is the limit of open files too low?"));
    }
    if files.len() > MAX_WAITING_FILES {
        return Err(garbage("descriptors that no frame speaks of"));
    }
    Ok(received.bytes)
}

pub(super) fn garbage(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every peer on the host has such a buffer here, two of them with what it fetches from here.
    #[tokio::test]
    async fn a_link_takes_memory_only_while_much_comes_by_it() {
        let (left, right) = UnixStream::pair().unwrap();
        let ((mut reader, _), (_, mut writer)) = (split(left), split(right));
        for nbytes in [100_usize, 1 << 20] {
            let piece = Bytes::from(vec![7; nbytes]);
            let (written, read) = tokio::join!(
                async {
                    writer.add(piece.clone()).await.unwrap();
                    writer.flush().await
                },
                reader.buffer(nbytes as u64)
            );
            written.unwrap();
            assert_eq!(read.unwrap(), piece);
            let expected = if nbytes < MIN_READ_NBYTES { MIN_READ_NBYTES } else { READ_NBYTES };
            assert_eq!(reader.buffer.len(), expected, "after {nbytes} bytes");
        }
    }
}
