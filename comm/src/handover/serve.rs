//! The giving end of a link: requests in, results out, in the order asked for.
//!
//! To a peer that reads this process's memory, an answer is word of where a result is; it is held until the peer has read it. For
//! others big results are copied by other threads, a few ahead of what is being written: while the peer takes one in, the next is
//! made ready. Everything else is done on the handover's own thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rask_graphs::Encoded;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use super::memory::{KeptFiles, Range, lay_out, seal_copy};
use super::reading::places;
use super::socket::{self, Reader, Writer};
use super::{Handed, MAX_LENT, MEMORY_FROM_NBYTES, Place, READ_FROM_NBYTES, Wish};
use crate::codec;
use crate::data::{Finding, Found, PartRequest, PartSource, REQUEST_LIMIT, Room, Sought};
use crate::grant::Opened;

/// Requests of one peer that wait; a worker has two.
const MAX_REQUESTS: usize = 64;
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
    There {
        frame: Bytes,
        loan: Loan,
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

/// Links served so far.
static N_LINKS: AtomicU64 = AtomicU64::new(0);

/// What the peer reads where it is, the oldest first.
struct Lent {
    results: Mutex<VecDeque<Loan>>,
    turns: Arc<Semaphore>,
}

/// Buffers that have to stay where they are.
struct Loan {
    _buffers: Vec<Bytes>,
    _turn: OwnedSemaphorePermit,
    _room: Option<Room>,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Loan>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What answers are made from.
struct Giving<'a> {
    kept: &'a KeptFiles,
    /// For copies.
    turns: Arc<Semaphore>,
    /// When the peer reads results where they are.
    lent: Option<&'a Lent>,
}

/// Answer requests until the peer ends it.
pub(super) async fn serve(stream: UnixStream, source: &dyn PartSource, kept: &KeptFiles) -> io::Result<()> {
    let (mut reader, mut writer) = socket::split(stream);
    let lent = Lent { results: Mutex::default(), turns: Arc::new(Semaphore::new(MAX_LENT)) };
    // Every link is a guest of its own.
    let guest = format!("link {}", N_LINKS.fetch_add(1, Ordering::Relaxed));
    let Some(Wish::Reads(reads)) = read_wish(&mut reader).await? else {
        return Err(socket::garbage("whether it reads has to be said first"));
    };
    let giving = Giving { kept, turns: Arc::new(Semaphore::new(MAX_BIG_ANSWERS)), lent: reads.then_some(&lent) };
    let (requests_in, mut requests) = mpsc::channel::<(Opened, Vec<PartRequest>)>(MAX_REQUESTS);
    let (answers_in, mut answers) = mpsc::channel(MAX_ANSWERS);
    // Not held up by answers: some of them wait for the word that others have been taken.
    let listen = async {
        while let Some(wish) = read_wish(&mut reader).await? {
            match wish {
                Wish::Parts { grants, items } if items.len() <= REQUEST_LIMIT && grants.len() <= items.len() => {
                    let opened = grants.opened(|graph, grant| source.opens(graph, grant));
                    requests_in.try_send((opened, items.into_owned())).map_err(socket::garbage)?;
                }
                Wish::Parts { .. } => return Err(socket::garbage("a request of too many items, or grants")),
                Wish::Taken => drop(lent.lock().pop_front().ok_or_else(|| socket::garbage("it takes what it was not given"))?),
                Wish::Reads(_) => return Err(socket::garbage("whether it reads was said before")),
            }
        }
        Ok(())
    };
    let prepare = async move {
        while let Some((opened, items)) = requests.recv().await {
            for item in items {
                if !opened.has(&item) {
                    let answer = Answer::Short { frame: frame(&Handed::NotThere)?, buffers: Vec::new() };
                    if answers_in.send(answer).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                let mut finding = Finding::new(source, &guest, &item);
                let found = loop {
                    match finding.wait().await {
                        Sought::Found(found) => break found,
                        Sought::NotYet => {
                            let sign = Answer::Short { frame: frame(&Handed::Reading)?, buffers: Vec::new() };
                            if answers_in.send(sign).await.is_err() {
                                return Ok(());
                            }
                        }
                    }
                };
                if answers_in.send(giving.answer(item, found).await?).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let write = async {
        while let Some(answer) = answers.recv().await {
            write_answer(answer, &mut writer, &lent).await?;
            if answers.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    };
    tokio::select! {
        heard = listen => heard,
        answered = async { tokio::try_join!(prepare, write) } => answered.map(|((), ())| ()),
    }
}

async fn read_wish(reader: &mut Reader) -> io::Result<Option<Wish<'static>>> {
    let Some(frame) = reader.frame().await? else { return Ok(None) };
    let mut wishes = codec::decode_frame(&frame).map_err(socket::garbage)?;
    let wish = wishes.pop().filter(|_| wishes.is_empty());
    wish.map(Some).ok_or_else(|| socket::garbage("one wish a frame expected"))
}

impl Giving<'_> {
    async fn answer(&self, item: PartRequest, found: Found) -> io::Result<Answer> {
        let short = |message: &Handed<'_>| Ok(Answer::Short { frame: frame(message)?, buffers: Vec::new() });
        // Its description does not fit a frame: QUIC, which is asked then, says so.
        let elsewhere = || short(&Handed::NotThisWay);
        let Found { value: Some(value), room } = found else { return short(&Handed::NotThere) };
        let encoded = match value.encode() {
            Ok(encoded) => encoded,
            Err(error) => return short(&Handed::NotSendable(error.to_string())),
        };
        drop(value);
        let lengths: Vec<u64> = encoded.buffers.iter().map(|buffer| buffer.len() as u64).collect();
        let nbytes = lengths.iter().sum::<u64>();
        if let Some(lent) = self.lent.filter(|_| nbytes >= READ_FROM_NBYTES) {
            let Ok(frame) = frame(&described(&item, &encoded, Place::There(places(&encoded.buffers)))) else {
                return elsewhere();
            };
            let turn = Arc::clone(&lent.turns).acquire_owned().await.map_err(io::Error::other)?;
            return Ok(Answer::There { frame, loan: Loan { _buffers: encoded.buffers, _turn: turn, _room: room } });
        }
        if nbytes < MEMORY_FROM_NBYTES {
            let Ok(frame) = frame(&described(&item, &encoded, Place::Here(lengths))) else { return elsewhere() };
            return Ok(Answer::Short { frame, buffers: encoded.buffers });
        }
        if let Some((file, nbytes, buffers)) = self.kept.find(&encoded.buffers) {
            return Ok(Answer::Kept { item, encoded, memory: InMemory { file, nbytes, buffers }, _room: room });
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)?;
        let copied = encoded.buffers.clone();
        let copying = spawn_blocking(move || {
            let (buffers, nbytes) = lay_out(lengths);
            let file = Arc::new(seal_copy(&copied, &buffers, nbytes)?);
            Ok(InMemory { file, nbytes, buffers })
        });
        Ok(Answer::Big { copying, item, encoded, _turn: turn, _room: room })
    }
}

async fn write_answer(answer: Answer, writer: &mut Writer, lent: &Lent) -> io::Result<()> {
    match answer {
        Answer::There { frame, loan } => {
            // First: the peer may say that it has taken it before this thread gets on.
            lent.lock().push_back(loan);
            writer.add(frame).await
        }
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
    let Ok(message) = frame(&described(item, encoded, Place::Memory { nbytes, buffers })) else {
        return writer.add(frame(&Handed::NotThisWay)?).await;
    };
    match writer.write_with_file(message, file.as_fd()).await {
        // Too many descriptors are on their way already; nothing of the frame has been written.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) => {
            writer.add(frame(&Handed::NotThisWay)?).await
        }
        written => written,
    }
}

fn described<'a>(item: &PartRequest, encoded: &'a Encoded, place: Place) -> Handed<'a> {
    Handed::Found { item: *item, kind: encoded.kind.into(), header: encoded.header.clone(), place }
}

fn frame(message: &impl Serialize) -> io::Result<Bytes> {
    codec::frame_of(message).map_err(io::Error::other)
}
