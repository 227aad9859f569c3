//! Handing results from worker to worker within a host, without the network.
//!
//! Two workers of one user on one host agree on it over their authenticated QUIC connection: the one asks with what identifies
//! its host, the other answers with the name of a Unix socket and a secret that is good for one use, soon, and for that
//! connection only. Requests then go over the socket (`socket`). Small results come back on it. Of others the answer says where
//! they are in the sender's memory, and the receiver copies them from there (`reading`) while the sender holds them for it. Where
//! the system does not allow that, big results come in sealed memory, whose descriptor is passed along and which the receiver maps
//! and uses in place (`memory`). Either way that is one copy; none for what came to its sender in sealed memory.
//!
//! Whatever fails here is no failure of a fetch: what did not come this way is fetched over QUIC. Nothing that was handed over
//! has a checksum. The bytes never leave this host's memory, where nothing else is checked either; what can go wrong is taking
//! one thing for another, and against that each answer names its result and its lengths, and the kernel vouches for the
//! length of memory and for nobody changing it.
//!
//! All of it runs on one thread of its own, and on a few more that copy big results, because copying 64 MiB would keep the network's thread
//! from its peers for 20 ms. Results are decoded and reported on the handover's thread.

mod link;
mod memory;
mod reading;
mod serve;
mod socket;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Resource, getrlimit, getuid};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::codec::{self, FRAME_LIMIT};
use crate::connection::Connection;
use crate::data::{PartRequest, PartSource, Request, StreamReader};
use crate::grant::Grants;
use crate::host::host_identity;

pub use link::Link;
use memory::{KeptFiles, Range};
use reading::{Readable, Specimen, SpecimenPlace};

/// How long each step of an agreement may take.
const STEP_LIMIT: Duration = Duration::from_secs(2);

/// Secrets that have been given out and not used, at most.
const MAX_PENDING: usize = 1_024;

/// Threads that copy big results, at most; they end when there is nothing to do. Memory, not processors, is what more would wait for.
const MAX_COPIERS: usize = 4;

/// Results from this size on go in memory of their own: what a descriptor and a mapping cost is what copying this much does.
const MEMORY_FROM_NBYTES: u64 = 128 << 10;

/// Results from this size on are read where they are.
const READ_FROM_NBYTES: u64 = 16 << 10;

/// Results that are held for a receiver that reads them, at most.
const MAX_LENT: usize = 64;

type Secret = [u8; 32];

/// The answer to [`Request::Handover`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Not between these two.
    No,
    /// Come here, and say this.
    Offer {
        /// Name of a Unix socket outside of the file system.
        name: Vec<u8>,
        /// Good once.
        secret: Secret,
        /// Where to try whether this process can be read; `None` when it had better not be.
        specimen: Option<Specimen>,
    },
}

/// What a receiver says after the secret.
#[derive(Debug, Serialize, Deserialize)]
enum Wish<'a> {
    /// The first: whether it reads results where they are.
    Reads(bool),
    /// Give these, of graphs that these grants open.
    Parts { grants: Cow<'a, Grants>, items: Cow<'a, [PartRequest]> },
    /// The oldest of the results that were to be read has been, or will not be.
    Taken,
}

/// What comes before a handed result, or instead of it.
#[derive(Debug, Serialize, Deserialize)]
enum Handed<'a> {
    Found {
        item: PartRequest,
        kind: Cow<'a, str>,
        header: Bytes,
        place: Place,
    },
    /// A sign of life: it is being read from a disk. Another message follows.
    Reading,
    NotThere,
    NotSendable(String),
    /// It is there, and cannot be handed over: ask for it over QUIC.
    NotThisWay,
}

#[derive(Debug, Serialize, Deserialize)]
enum Place {
    /// The buffers follow, and have these lengths.
    Here(Vec<u64>),
    /// They are in a file that comes with this frame and has this length.
    Memory { nbytes: u64, buffers: Vec<Range> },
    /// They are at these addresses of the sender, until the receiver says that it has taken them.
    There(Vec<Range>),
}

/// This process's part in handing results over. Clones share it; the last one to go ends its thread.
#[derive(Clone)]
pub struct Handover {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    name: Vec<u8>,
    runtime: Handle,
    kept: Arc<KeptFiles>,
    specimen: Option<SpecimenPlace>,
    /// Whether it may read its own memory as a peer's, as tests with both ends in one process need it. A peer that could have it
    /// do so would be given anything that is in it.
    reads_itself: bool,
    pending: Arc<Mutex<HashMap<Secret, Pending>>>,
    /// Dropped, it ends the thread.
    _alive: oneshot::Sender<()>,
}

/// Somebody who has been given a secret.
struct Pending {
    connection: Connection,
    source: Arc<dyn PartSource>,
    offered: Instant,
}

impl Handover {
    /// Begin to listen, on a thread of its own.
    ///
    /// # Errors
    /// When the system refuses the thread or the socket.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Some(SpecimenPlace::new()?), false)
    }

    fn start_with(specimen: Option<SpecimenPlace>, reads_itself: bool) -> io::Result<Self> {
        let name = format!("rask-{}-{}", std::process::id(), data_encoding::HEXLOWER.encode(&random::<16>()?)).into_bytes();
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(MAX_COPIERS).build()?;
        let (alive, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        // A quarter of what this process may open: its own sockets and the tasks' files need the rest.
        let max_files = getrlimit(Resource::Nofile).current.map_or(4_096, |limit| (limit / 4).min(4_096));
        let kept = Arc::new(KeptFiles::new(usize::try_from(max_files).unwrap_or(0)));
        let pending: Arc<Mutex<HashMap<Secret, Pending>>> = Arc::default();
        let door = (Arc::clone(&pending), Arc::clone(&kept));
        thread::Builder::new().name("handover".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ended = ended => {}
                    error = take_in(listener, door.0, door.1) => tracing::warn!(%error, "results are not handed over any more"),
                }
            });
        })?;
        let inner = Inner { host: host_identity(), name, runtime: handle, kept, specimen, reads_itself, pending, _alive: alive };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What to say to a peer on `connection` that wants results of `source` and says that it is on `host`.
    pub(crate) fn answer(&self, host: &str, connection: &Connection, source: &Arc<dyn PartSource>) -> Answer {
        let Ok(secret) = random() else { return Answer::No };
        let mut pending = self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|_, pending| pending.offered.elapsed() < STEP_LIMIT && !pending.connection.is_closed());
        if host != self.inner.host || pending.len() >= MAX_PENDING {
            return Answer::No;
        }
        let (connection, source) = (connection.clone(), Arc::clone(source));
        pending.insert(secret, Pending { connection, source, offered: Instant::now() });
        Answer::Offer {
            name: self.inner.name.clone(),
            secret,
            specimen: self.inner.specimen.as_ref().map(SpecimenPlace::specimen),
        }
    }

    /// Agree with the peer of `connection` on handing over.
    pub async fn connect(&self, connection: &Connection) -> Linked {
        let offer = match timeout(STEP_LIMIT, ask(connection, &self.inner.host)).await {
            Ok(Ok(Some(offer))) => offer,
            Ok(Ok(None)) => return Linked::Unwanted,
            Ok(Err(reason)) => {
                tracing::debug!(peer = %connection.peer(), reason, "no handover");
                return Linked::Failed;
            }
            Err(_elapsed) => return Linked::Failed,
        };
        let (connection, kept) = (connection.clone(), Arc::clone(&self.inner.kept));
        let reads_itself = self.inner.reads_itself;
        let linked = self.inner.runtime.spawn(async move {
            let connected = timeout(STEP_LIMIT, enter(&offer.name, &offer.secret)).await;
            match connected.map_err(io::Error::from).and_then(|stream| stream) {
                Ok((stream, process)) => {
                    let readable = offer.specimen.and_then(|specimen| Readable::find(specimen, process, reads_itself));
                    Linked::Link(Link::start(stream, connection, kept, readable))
                }
                Err(error) => {
                    tracing::warn!(peer = %connection.peer(), %error, "cannot take results over; they come by the network");
                    Linked::Failed
                }
            }
        });
        linked.await.unwrap_or(Linked::Failed)
    }
}

/// What came of agreeing on a link.
#[derive(Clone)]
pub enum Linked {
    /// There is one.
    Link(Link),
    /// The peer is elsewhere, or does not want to: asking again is of no use.
    Unwanted,
    /// It did not work this time.
    Failed,
}

impl Linked {
    /// The link, while it works.
    #[must_use]
    pub fn usable(self) -> Option<Link> {
        match self {
            Linked::Link(link) => Some(link).filter(|link| !link.is_broken()),
            Linked::Unwanted | Linked::Failed => None,
        }
    }
}

/// What a peer has answered.
struct Offer {
    name: Vec<u8>,
    secret: Secret,
    specimen: Option<Specimen>,
}

/// Ask over QUIC. `None` when the answer is no.
async fn ask(connection: &Connection, host: &str) -> Result<Option<Offer>, String> {
    let (mut send, receive) = connection.inner.open_bi().await.map_err(|error| error.to_string())?;
    let mut frame = Vec::new();
    let request = [Request::Handover { host: Cow::Borrowed(host) }];
    codec::encode_frame(&request, FRAME_LIMIT, &mut frame).map_err(|error| error.to_string())?;
    send.write_all(&frame).await.map_err(|error| error.to_string())?;
    let _ = send.finish();
    let Ok(Some(frame)) = StreamReader::new(receive).frame().await else { return Err("no answer".to_owned()) };
    let answer = codec::decode_frame::<Answer>(&frame).map_err(|error| error.to_string())?.pop();
    match answer.ok_or_else(|| "an empty answer".to_owned())? {
        Answer::No => Ok(None),
        Answer::Offer { name, secret, specimen } => Ok(Some(Offer { name, secret, specimen })),
    }
}

/// Connect to the socket `name`, and say the secret.
///
/// Who offers it is authenticated, and believed nothing else: the name has to be that of a socket of this kind, and the socket that
/// of the process that its name says. So nothing is said to other programs' sockets, and only the process at the other end of the
/// stream is ever read from. (Processes that do not see each other's numbers fail here, and use the network.)
async fn enter(name: &[u8], secret: &Secret) -> io::Result<(UnixStream, i32)> {
    let named = process_named_in(name).ok_or_else(|| socket::garbage("not the name of a worker's socket"))?;
    // Not a wait: a Unix socket takes a connection in at once, or refuses it.
    let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    check_user(&stream)?;
    if stream.peer_cred()?.pid() != Some(named) {
        return Err(socket::garbage("the socket belongs to another process than its name says"));
    }
    let mut done = 0;
    while done < secret.len() {
        stream.writable().await?;
        match stream.try_write(&secret[done..]) {
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok((stream, named))
}

/// The process that made the socket with this name, if it is a socket for handing results over: `rask-<process>-<random>`.
fn process_named_in(name: &[u8]) -> Option<i32> {
    let (process, random) = std::str::from_utf8(name).ok()?.strip_prefix("rask-")?.split_once('-')?;
    let is_random = random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    process.parse().ok().filter(|process| is_random && *process > 0)
}

/// Whether the process at the other end is this user's.
fn check_user(stream: &UnixStream) -> io::Result<()> {
    if stream.peer_cred()?.uid() == getuid().as_raw() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Take in whoever comes with a secret, for as long as this process wants to.
async fn take_in(listener: StdListener, pending: Arc<Mutex<HashMap<Secret, Pending>>>, kept: Arc<KeptFiles>) -> io::Error {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    loop {
        match listener.accept().await {
            Ok((stream, _address)) => {
                tokio::spawn(serve_stranger(stream, Arc::clone(&pending), Arc::clone(&kept)));
            }
            // No descriptor left, most likely. Whoever waits gives up after a while and uses the network.
            Err(error) => {
                tracing::debug!(%error, "cannot take in a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Find out who this is, and serve it while its QUIC connection lasts.
async fn serve_stranger(stream: UnixStream, pending: Arc<Mutex<HashMap<Secret, Pending>>>, kept: Arc<KeptFiles>) {
    let found = async {
        check_user(&stream)?;
        let mut secret = Secret::default();
        let mut done = 0;
        while done < secret.len() {
            stream.readable().await?;
            match stream.try_read(&mut secret[done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let pending = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&secret);
        pending.filter(|pending| pending.offered.elapsed() < STEP_LIMIT).ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    };
    let peer = match timeout(STEP_LIMIT, found).await.map_err(io::Error::from).and_then(|found| found) {
        Ok(peer) => peer,
        Err(error) => {
            if let Some(n_left_out) = crate::quiet::may_say("handover", std::net::Ipv4Addr::LOCALHOST.into()) {
                tracing::warn!(%error, n_left_out, "somebody without a secret came to take results over");
            }
            return;
        }
    };
    let served = tokio::select! {
        _closed = peer.connection.closed() => Ok(()),
        served = serve::serve(stream, &*peer.source, &kept) => served,
    };
    if let Err(error) = served {
        tracing::debug!(peer = %peer.connection.peer(), %error, "results are not handed to this peer any more");
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
