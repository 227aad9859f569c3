//! The taking end of a link.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rask_graphs::Registry;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::memory::KeptFiles;
use super::socket::{self, Reader, Writer, garbage};
use super::{Handed, MEMORY_FROM_NBYTES, Place};
use crate::codec::{self, FRAME_LIMIT};
use crate::connection::Connection;
use crate::data::{FetchError, Fetched, NO_PROGRESS_LIMIT, PartRequest, REQUEST_LIMIT};

/// A way to a worker on this host. Clones share it. It belongs to a QUIC connection and ends with it.
#[derive(Clone)]
pub struct Link {
    /// Bounded by whoever asks: a worker has two requests on the way to a peer.
    jobs: mpsc::UnboundedSender<Job>,
    is_broken: Arc<AtomicBool>,
}

type OnItem = Box<dyn FnMut(usize, Result<Fetched, FetchError>) + Send>;
type OnRest = Box<dyn FnOnce(Vec<usize>) + Send>;

/// One request. However it ends, whoever asked hears of each item, or that it did not come this way.
struct Job {
    items: Vec<PartRequest>,
    registry: Arc<Registry>,
    on_item: OnItem,
    on_rest: Option<OnRest>,
    /// Items that have been settled: in the order asked for, so the first ones.
    n_settled: usize,
    /// Those among them that the peer cannot hand over.
    rest: Vec<usize>,
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

impl Link {
    /// Use `stream` on the runtime that calls this.
    pub(super) fn start(stream: UnixStream, connection: Connection, kept: Arc<KeptFiles>) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        let is_broken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_broken);
        tokio::spawn(async move {
            let (reader, writer) = socket::split(stream);
            let (asked_in, asked) = mpsc::unbounded_channel();
            let ended = tokio::select! {
                _closed = connection.closed() => Ok(()),
                ended = ask(queue, writer, asked_in) => ended,
                ended = take(asked, reader, &kept) => ended,
            };
            flag.store(true, Ordering::Release);
            if let Err(error) = ended {
                tracing::warn!(peer = %connection.peer(), %error, "results of this peer come by the network from now on");
            }
        });
        Self { jobs, is_broken }
    }

    /// Whether nothing comes this way any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Fetch `items`, in this order; at most [`REQUEST_LIMIT`]. Callable from any thread, does not wait. `on_item` is called
    /// for each item that comes, or of which the peer says why it does not, as [`crate::fetch`] does. When that is over,
    /// `on_rest` is told of those that cannot be had this way. Both are called on the handover's thread, or `on_rest` in this
    /// call.
    pub fn fetch(
        &self,
        items: Vec<PartRequest>,
        registry: Arc<Registry>,
        on_item: impl FnMut(usize, Result<Fetched, FetchError>) + Send + 'static,
        on_rest: impl FnOnce(Vec<usize>) + Send + 'static,
    ) {
        let (on_item, on_rest) = (Box::new(on_item), Box::new(on_rest));
        let job = Job { items, registry, on_item, on_rest: Some(on_rest), n_settled: 0, rest: Vec::new() };
        if job.items.len() <= REQUEST_LIMIT {
            // A link that has ended gives the job back, and dropping it tells the rest.
            let _ = self.jobs.send(job);
        }
    }
}

/// Write requests, and pass on whose answers are to be expected.
async fn ask(mut queue: mpsc::UnboundedReceiver<Job>, mut writer: Writer, asked: mpsc::UnboundedSender<Job>) -> io::Result<()> {
    while let Some(job) = queue.recv().await {
        let mut frame = Vec::new();
        codec::encode_frame(&job.items, FRAME_LIMIT, &mut frame).map_err(io::Error::other)?;
        // First, so that however writing ends, the job's end is told.
        if asked.send(job).is_err() {
            break;
        }
        writer.add(Bytes::from(frame)).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Take answers in, one job after another.
async fn take(mut asked: mpsc::UnboundedReceiver<Job>, mut reader: Reader, kept: &Arc<KeptFiles>) -> io::Result<()> {
    while let Some(mut job) = asked.recv().await {
        while job.n_settled < job.items.len() {
            let idx = job.n_settled;
            let taken = tokio::time::timeout(NO_PROGRESS_LIMIT, take_item(&mut reader, &job.items[idx], &job.registry, kept));
            let taken = taken.await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
            match taken {
                Taken::NotYet => continue,
                Taken::Outcome(outcome) => {
                    job.n_settled += 1;
                    (job.on_item)(idx, outcome);
                }
                Taken::NotThisWay => {
                    job.n_settled += 1;
                    job.rest.push(idx);
                }
            }
        }
    }
    Ok(())
}

/// What has come for an item.
enum Taken {
    /// A sign of life.
    NotYet,
    /// It is to be had another way.
    NotThisWay,
    Outcome(Result<Fetched, FetchError>),
}

/// The next word about an item. An error is the end of the link.
async fn take_item(reader: &mut Reader, wanted: &PartRequest, registry: &Registry, kept: &Arc<KeptFiles>) -> io::Result<Taken> {
    let frame = reader.frame().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut messages = codec::decode_frame::<Handed<'static>>(&frame).map_err(garbage)?;
    let message = messages.pop().filter(|_| messages.is_empty()).ok_or_else(|| garbage("one item a frame expected"))?;
    let (item, kind, header, place) = match message {
        Handed::Reading => return Ok(Taken::NotYet),
        Handed::NotThere => return Ok(Taken::Outcome(Err(FetchError::NotThere))),
        Handed::NotSendable(reason) => {
            return Ok(Taken::Outcome(Err(FetchError::NotSendable(crate::connection::escaped(reason.as_bytes())))));
        }
        Handed::NotThisWay => return Ok(Taken::NotThisWay),
        Handed::Found { item, kind, header, place } => (item, kind, header, place),
    };
    if item != *wanted {
        return Err(garbage("it is another result than was asked for"));
    }
    let buffers = match place {
        Place::Memory { nbytes, buffers } => kept.map(reader.file()?, nbytes, &buffers)?,
        Place::Here(lengths) => {
            let nbytes = lengths.iter().fold(0_u64, |sum, nbytes| sum.saturating_add(*nbytes));
            if nbytes >= MEMORY_FROM_NBYTES {
                return Err(garbage(format!("{nbytes} bytes on a socket")));
            }
            let mut buffers = Vec::with_capacity(lengths.len());
            for nbytes in lengths {
                buffers.push(reader.buffer(nbytes).await?);
            }
            buffers
        }
    };
    let nbytes = header.len() as u64 + buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
    Ok(Taken::Outcome(match registry.decode(&kind, &header, buffers) {
        Ok(value) => Ok(Fetched { value, nbytes }),
        Err(error) => Err(FetchError::Damaged(crate::connection::escaped(error.to_string().as_bytes()))),
    }))
}
