//! The taking end of a link.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rask_graphs::Registry;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use super::memory::{KeptFiles, Range};
use super::reading::Readable;
use super::socket::{self, Reader, Writer, garbage};
use super::{Handed, MAX_COPIERS, MEMORY_FROM_NBYTES, Place, Wish};
use crate::codec;
use crate::connection::Connection;
use crate::data::{FetchError, Fetched, NO_PROGRESS_LIMIT, PartRequest, REQUEST_LIMIT};
use crate::grant::Grants;

/// Results that have been taken in and wait for those before them.
const MAX_TAKEN: usize = 64;

/// Copies up to this size are made on the handover's own thread: to wake another takes as long.
const COPY_HERE_NBYTES: u64 = 256 << 10;

/// A way to a worker on this host. Clones share it. It belongs to a QUIC connection and ends with it.
#[derive(Clone)]
pub struct Link {
    /// Bounded by whoever asks: a worker has two requests on the way to a peer.
    errands: mpsc::UnboundedSender<Errand>,
    is_broken: Arc<AtomicBool>,
}

type OnItem = Box<dyn FnMut(usize, Outcome) + Send>;
type OnRest = Box<dyn FnOnce(Vec<usize>) + Send>;
type Outcome = Result<Fetched, FetchError>;

/// Something to tell the giving end.
enum Errand {
    Fetch(Job),
    Taken,
}

/// One request. However it ends, whoever asked hears of each item, or that it did not come this way.
struct Job {
    grants: Grants,
    items: Arc<[PartRequest]>,
    registry: Arc<Registry>,
    on_item: OnItem,
    on_rest: Option<OnRest>,
    /// Items that have been settled: in the order asked for, so the first ones.
    n_settled: usize,
    /// Those among them that the peer cannot hand over.
    rest: Vec<usize>,
}

impl Job {
    /// The next item has come, or will not come this way. Gives the job back while it is not over.
    fn settle(mut self, outcome: Option<Outcome>) -> Option<Self> {
        let idx = self.n_settled;
        self.n_settled += 1;
        match outcome {
            Some(outcome) => (self.on_item)(idx, outcome),
            None => self.rest.push(idx),
        }
        (self.n_settled < self.items.len()).then_some(self)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend(self.n_settled..self.items.len());
        if let Some(on_rest) = self.on_rest.take() {
            on_rest(rest);
        }
    }
}

/// What comes in, in the order in which it was asked for.
enum Taken {
    /// Answers to this follow.
    Job(Job),
    /// `None` when it is to be had another way.
    Item(Option<Outcome>),
    /// The same, and the peer waits for word that it was read.
    Read(io::Result<Outcome>),
    /// The same, as soon as it has been read.
    Reading(JoinHandle<io::Result<Outcome>>),
}

impl Link {
    /// Use `stream` on the runtime that calls this.
    pub(super) fn start(stream: UnixStream, connection: Connection, kept: Arc<KeptFiles>, peer: Option<Readable>) -> Self {
        let (errands, queue) = mpsc::unbounded_channel();
        let is_broken = Arc::new(AtomicBool::new(false));
        let (flag, weak) = (Arc::clone(&is_broken), errands.downgrade());
        tokio::spawn(async move {
            let (reader, writer) = socket::split(stream);
            let (asked_in, asked) = mpsc::unbounded_channel();
            let (taken_in, taken) = mpsc::channel(MAX_TAKEN);
            let taking = Taking { reader, kept, peer, room: Arc::new(Semaphore::new(MAX_COPIERS)), taken: taken_in };
            let ended = tokio::select! {
                _closed = connection.closed() => Ok(()),
                ended = ask(queue, writer, asked_in, peer.is_some()) => ended,
                // What has been taken in is settled however taking ends.
                (ended, ()) = async { tokio::join!(taking.run(asked), settle(taken, weak)) } => ended,
            };
            flag.store(true, Ordering::Release);
            if let Err(error) = ended {
                tracing::warn!(peer = %connection.peer(), %error, "results of this peer come by the network for now");
            }
        });
        Self { errands, is_broken }
    }

    /// Whether nothing comes this way any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Fetch `items`, of graphs that `grants` open, in this order; at most [`REQUEST_LIMIT`]. Callable from any thread, does not wait. `on_item` is called
    /// for each item that comes, or of which the peer says why it does not, as [`crate::fetch`] does. When that is over,
    /// `on_rest` is told of those that cannot be had this way. Both are called on the handover's thread, or `on_rest` in this
    /// call.
    pub fn fetch(
        &self,
        grants: Grants,
        items: Vec<PartRequest>,
        registry: Arc<Registry>,
        on_item: impl FnMut(usize, Result<Fetched, FetchError>) + Send + 'static,
        on_rest: impl FnOnce(Vec<usize>) + Send + 'static,
    ) {
        let (on_item, on_rest) = (Box::new(on_item), Box::new(on_rest));
        let job = Job { grants, items: items.into(), registry, on_item, on_rest: Some(on_rest), n_settled: 0, rest: Vec::new() };
        if job.items.len() <= REQUEST_LIMIT {
            // A link that has ended gives the job back, and dropping it tells the rest.
            let _ = self.errands.send(Errand::Fetch(job));
        }
    }
}

/// Write what the peer is to know, and pass on whose answers are to be expected.
async fn ask(
    mut queue: mpsc::UnboundedReceiver<Errand>,
    mut writer: Writer,
    asked: mpsc::UnboundedSender<Job>,
    reads: bool,
) -> io::Result<()> {
    writer.add(frame(&Wish::Reads(reads))?).await?;
    while let Some(errand) = queue.recv().await {
        let frame = match &errand {
            Errand::Fetch(job) => frame(&Wish::Parts { grants: Cow::Borrowed(&job.grants), items: Cow::Borrowed(&job.items) })?,
            Errand::Taken => frame(&Wish::Taken)?,
        };
        if let Errand::Fetch(job) = errand {
            // First, so that however writing ends, the job's end is told.
            if asked.send(job).is_err() {
                break;
            }
        }
        writer.add(frame).await?;
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}

fn frame(wish: &Wish<'_>) -> io::Result<Bytes> {
    codec::frame_of(wish).map_err(io::Error::other)
}

/// Tell whoever asked of what has come, in the order asked for, and the peer of what it need not hold any more.
async fn settle(mut taken: mpsc::Receiver<Taken>, errands: mpsc::WeakUnboundedSender<Errand>) {
    let mut job: Option<Job> = None;
    while let Some(taken) = taken.recv().await {
        let outcome = match taken {
            Taken::Job(next) => {
                job = Some(next).filter(|job| !job.items.is_empty());
                continue;
            }
            Taken::Item(outcome) => outcome,
            Taken::Read(read) => has_read(read, &errands),
            Taken::Reading(reading) => has_read(reading.await.map_err(io::Error::other).flatten(), &errands),
        };
        job = job.and_then(|job| job.settle(outcome));
    }
}

/// Tell the peer, however that went.
fn has_read(read: io::Result<Outcome>, errands: &mpsc::WeakUnboundedSender<Errand>) -> Option<Outcome> {
    if let Some(errands) = errands.upgrade() {
        let _ = errands.send(Errand::Taken);
    }
    read.inspect_err(|error| tracing::debug!(%error, "a result cannot be read where it is")).ok()
}

/// Takes answers in, one job after another.
struct Taking {
    reader: Reader,
    kept: Arc<KeptFiles>,
    peer: Option<Readable>,
    room: Arc<Semaphore>,
    taken: mpsc::Sender<Taken>,
}

impl Taking {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Job>) -> io::Result<()> {
        while let Some(job) = asked.recv().await {
            let (items, registry) = (Arc::clone(&job.items), Arc::clone(&job.registry));
            self.pass(Taken::Job(job)).await?;
            for item in &*items {
                let taken = self.take(item, &registry).await?;
                self.pass(taken).await?;
            }
        }
        Ok(())
    }

    async fn pass(&self, taken: Taken) -> io::Result<()> {
        self.taken.send(taken).await.map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }

    /// The answer to one item. An error is the end of the link.
    async fn take(&mut self, wanted: &PartRequest, registry: &Arc<Registry>) -> io::Result<Taken> {
        let (kind, header, place) = loop {
            let answer = tokio::time::timeout(NO_PROGRESS_LIMIT, take_answer(&mut self.reader, wanted));
            match answer.await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?? {
                Answer::NotYet => {}
                Answer::Found(kind, header, place) => break (kind, header, place),
                Answer::Not(outcome) => return Ok(Taken::Item(outcome)),
            }
        };
        let buffers = match place {
            Place::Memory { nbytes, buffers } => self.kept.map(self.reader.file()?, nbytes, &buffers)?,
            Place::Here(lengths) => {
                let taken = tokio::time::timeout(NO_PROGRESS_LIMIT, take_here(&mut self.reader, &lengths));
                taken.await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??
            }
            Place::There(places) => return self.read(places, kind, header, registry).await,
        };
        Ok(Taken::Item(Some(decode(registry, &kind, &header, buffers))))
    }

    /// Begin to copy what is at `places` in the peer's memory.
    async fn read(&self, places: Vec<Range>, kind: String, header: Bytes, registry: &Arc<Registry>) -> io::Result<Taken> {
        let peer = self.peer.ok_or_else(|| garbage("a result in memory that cannot be read"))?;
        let nbytes = places.iter().fold(0_u64, |sum, place| sum.saturating_add(place.nbytes));
        let registry = Arc::clone(registry);
        let read = move || Ok(decode(&registry, &kind, &header, peer.read(&places)?));
        if nbytes <= COPY_HERE_NBYTES {
            return Ok(Taken::Read(read()));
        }
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
        Ok(Taken::Reading(spawn_blocking(move || {
            let _room: OwnedSemaphorePermit = room;
            read()
        })))
    }
}

/// What is said of an item.
enum Answer {
    /// A sign of life.
    NotYet,
    /// The kind of the result, its header, and where its buffers are.
    Found(String, Bytes, Place),
    /// It does not come, or not this way.
    Not(Option<Outcome>),
}

/// The next word about one item.
async fn take_answer(reader: &mut Reader, wanted: &PartRequest) -> io::Result<Answer> {
    let frame = reader.frame().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut messages = codec::decode_frame::<Handed<'static>>(&frame).map_err(garbage)?;
    let message = messages.pop().filter(|_| messages.is_empty()).ok_or_else(|| garbage("one item a frame expected"))?;
    match message {
        Handed::Reading => Ok(Answer::NotYet),
        Handed::NotThere => Ok(Answer::Not(Some(Err(FetchError::NotThere)))),
        Handed::NotSendable(reason) => {
            let reason = crate::connection::escaped(reason.as_bytes());
            Ok(Answer::Not(Some(Err(FetchError::NotSendable(reason)))))
        }
        Handed::NotThisWay => Ok(Answer::Not(None)),
        Handed::Found { item, kind, header, place } if item == *wanted => Ok(Answer::Found(kind.into_owned(), header, place)),
        Handed::Found { .. } => Err(garbage("it is another result than was asked for")),
    }
}

/// Buffers that follow on the socket.
async fn take_here(reader: &mut Reader, lengths: &[u64]) -> io::Result<Vec<Bytes>> {
    let nbytes = lengths.iter().fold(0_u64, |sum, nbytes| sum.saturating_add(*nbytes));
    if nbytes >= MEMORY_FROM_NBYTES {
        return Err(garbage(format!("{nbytes} bytes on a socket")));
    }
    let mut buffers = Vec::with_capacity(lengths.len());
    for nbytes in lengths {
        buffers.push(reader.buffer(*nbytes).await?);
    }
    Ok(buffers)
}

fn decode(registry: &Registry, kind: &str, header: &Bytes, buffers: Vec<Bytes>) -> Outcome {
    let nbytes = header.len() as u64 + buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
    match registry.decode(kind, header, buffers) {
        Ok(value) => Ok(Fetched { value, nbytes }),
        Err(error) => Err(FetchError::Damaged(crate::connection::escaped(error.to_string().as_bytes()))),
    }
}
