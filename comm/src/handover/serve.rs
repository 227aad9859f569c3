//! The giving end of a link: requests in, results out, in the order asked for.
//!
//! Big results are copied by other threads, a few ahead of what is being written: while the peer takes one in, the next is made
//! ready. Everything else is done on the handover's own thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rask_graphs::Encoded;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use super::memory::{KeptFiles, Range, lay_out, seal_copy};
use super::socket::{self, Reader, Writer};
use super::{Handed, MEMORY_FROM_NBYTES, Place};
use crate::codec::{self, FRAME_LIMIT};
use crate::data::{Found, PartRequest, PartSource, Room, find};

/// Answers that are ready before they can be written.
const MAX_ANSWERS: usize = 64;
/// Big ones among them, those being copied included.
const MAX_BIG_ANSWERS: usize = 2;

/// An answer, or the promise of one.
enum Answer {
    Short {
        frame: Bytes,
        buffers: Vec<Bytes>,
    },
    Big {
        copying: JoinHandle<io::Result<InMemory>>,
        item: PartRequest,
        encoded: Encoded,
        _turn: OwnedSemaphorePermit,
        _room: Option<Room>,
    },
    Kept {
        item: PartRequest,
        encoded: Encoded,
        memory: InMemory,
        _room: Option<Room>,
    },
}

/// A file, its length, and where the buffers of a result are in it.
struct InMemory {
    file: Arc<OwnedFd>,
    nbytes: u64,
    buffers: Vec<Range>,
}

/// Answer requests until the peer ends it.
pub(super) async fn serve(stream: UnixStream, source: &dyn PartSource, kept: &KeptFiles) -> io::Result<()> {
    let (mut reader, mut writer) = socket::split(stream);
    let (answers_in, mut answers) = mpsc::channel(MAX_ANSWERS);
    let prepare = async move {
        let turns = Arc::new(Semaphore::new(MAX_BIG_ANSWERS));
        while let Some(items) = read_request(&mut reader).await? {
            for item in items {
                if answers_in.send(answer(item, source, kept, &turns).await?).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let write = async {
        while let Some(answer) = answers.recv().await {
            write_answer(answer, &mut writer).await?;
            if answers.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    };
    tokio::try_join!(prepare, write).map(|((), ())| ())
}

async fn read_request(reader: &mut Reader) -> io::Result<Option<Vec<PartRequest>>> {
    let Some(frame) = reader.frame().await? else { return Ok(None) };
    codec::decode_frame(&frame).map(Some).map_err(socket::garbage)
}

async fn answer(item: PartRequest, source: &dyn PartSource, kept: &KeptFiles, turns: &Arc<Semaphore>) -> io::Result<Answer> {
    let short = |message: &Handed<'_>| Ok(Answer::Short { frame: frame(message)?, buffers: Vec::new() });
    let Found { value: Some(value), room } = find(source, &item).await else { return short(&Handed::NotThere) };
    let encoded = match value.encode() {
        Ok(encoded) => encoded,
        Err(error) => return short(&Handed::NotSendable(error.to_string())),
    };
    drop(value);
    let lengths: Vec<u64> = encoded.buffers.iter().map(|buffer| buffer.len() as u64).collect();
    if lengths.iter().sum::<u64>() < MEMORY_FROM_NBYTES {
        let frame = frame(&found(&item, &encoded, Place::Here(lengths)))?;
        return Ok(Answer::Short { frame, buffers: encoded.buffers });
    }
    if let Some((file, nbytes, buffers)) = kept.find(&encoded.buffers) {
        return Ok(Answer::Kept { item, encoded, memory: InMemory { file, nbytes, buffers }, _room: room });
    }
    let turn = Arc::clone(turns).acquire_owned().await.map_err(io::Error::other)?;
    let copied = encoded.buffers.clone();
    let copying = spawn_blocking(move || {
        let (buffers, nbytes) = lay_out(lengths);
        let file = Arc::new(seal_copy(&copied, &buffers, nbytes)?);
        Ok(InMemory { file, nbytes, buffers })
    });
    Ok(Answer::Big { copying, item, encoded, _turn: turn, _room: room })
}

async fn write_answer(answer: Answer, writer: &mut Writer) -> io::Result<()> {
    match answer {
        Answer::Short { frame, buffers } => {
            writer.add(frame).await?;
            for buffer in buffers {
                writer.add(buffer).await?;
            }
            Ok(())
        }
        Answer::Kept { item, encoded, memory, _room } => hand(&item, &encoded, memory, writer).await,
        Answer::Big { copying, item, encoded, _turn, _room } => match copying.await.map_err(io::Error::other).flatten() {
            Ok(memory) => hand(&item, &encoded, memory, writer).await,
            // No descriptors or no memory left, both of which QUIC can do without.
            Err(error) => {
                tracing::debug!(%error, task = %item.task, "a result cannot be handed over");
                writer.add(frame(&Handed::NotThisWay)?).await
            }
        },
    }
}

async fn hand(item: &PartRequest, encoded: &Encoded, memory: InMemory, writer: &mut Writer) -> io::Result<()> {
    let InMemory { file, nbytes, buffers } = memory;
    let message = frame(&found(item, encoded, Place::Memory { nbytes, buffers }))?;
    match writer.write_with_file(message, file.as_fd()).await {
        // Too many descriptors are on their way already; nothing of the frame has been written.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) => {
            writer.add(frame(&Handed::NotThisWay)?).await
        }
        written => written,
    }
}

fn found<'a>(item: &PartRequest, encoded: &'a Encoded, place: Place) -> Handed<'a> {
    Handed::Found { item: *item, kind: encoded.kind.into(), header: encoded.header.clone(), place }
}

fn frame(message: &impl Serialize) -> io::Result<Bytes> {
    let mut frame = Vec::new();
    codec::encode_frame(std::slice::from_ref(message), FRAME_LIMIT, &mut frame).map_err(io::Error::other)?;
    Ok(Bytes::from(frame))
}
