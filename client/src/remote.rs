//! A client of a scheduler elsewhere: QUIC on a thread of its own.
//!
//! The network runs on a current-thread runtime, so a message's way in never changes threads twice, and callers may use
//! any executor. Results are fetched and decoded on that thread, straight from the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rask_comm::endpoint::Endpoint;
use rask_comm::identity::Role;
use rask_comm::message::{ClientHello, FromClient, Holder, PROTOCOL_VERSION, ToClient};
use rask_comm::reach::{STAGGER, gone, lookup, race};
use rask_comm::{ExpectedPeer, FetchError, Grants, Outbox, PartRequest, Peers, Plane, StateDir, Token};
use rask_graphs::{Registry, Value};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::gather::{Fetching, Manner, Miss, PartSource};
use crate::session::{Link, Session, UploadOrder, Uploader};
use crate::upload::Lanes;

/// Where the scheduler is, and how to prove who one is.
#[derive(Clone)]
pub struct ConnectOptions {
    /// `HOST:PORT` of the scheduler.
    pub scheduler: String,
    /// The state directory; being able to read the authority in it is the proof on the scheduler's own host.
    pub state_dir: StateDir,
    /// A join token, on other hosts. What this client may do, and whose its graphs are, goes by it.
    pub token: Option<String>,
    /// Operators; results are decoded with their kinds.
    pub registry: Arc<Registry>,
    /// The share of the workers that this client has beside others, relative to theirs, from 0.01 to 100; 1 is usual.
    pub weight: f64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The scheduler's name cannot be resolved.
    #[error("cannot find scheduler \"{scheduler}\": {reason}")]
    Address {
        /// As it was given.
        scheduler: String,
        /// Why.
        reason: String,
    },
    /// There is no way to prove who this client is.
    #[error("cannot join the cluster: {0}")]
    Identity(rask_comm::JoinError),
    /// Nobody answers, or the one who does is not the scheduler of this cluster, or refuses.
    #[error(transparent)]
    Connection(rask_comm::ConnectError),
    /// The system refused a socket or a thread.
    #[error("cannot start the network: {0}")]
    System(String),
}

/// What the network thread is asked to do.
enum NetworkJob {
    Fetch(FetchJob),
    Upload(Vec<UploadOrder>),
}

/// One request to one worker.
struct FetchJob {
    address: SocketAddr,
    name: String,
    grants: Grants,
    items: Vec<PartRequest>,
    manner: Manner,
    reply: mpsc::UnboundedSender<(usize, Result<Value, Miss>)>,
}

struct RemoteLink {
    outbox: Outbox<FromClient>,
}

impl Link for RemoteLink {
    fn send(&self, messages: Vec<FromClient>) {
        // A conversation that is over is reported by the reader, with the reason.
        let _ = self.outbox.push(messages);
    }
}

impl Drop for RemoteLink {
    fn drop(&mut self) {
        self.outbox.finish();
    }
}

struct RemoteSource {
    jobs: mpsc::UnboundedSender<NetworkJob>,
}

impl PartSource for RemoteSource {
    fn fetch(&self, holder: &Holder, grants: Grants, items: Vec<PartRequest>, manner: Manner) -> Fetching {
        // No more waits in it than was asked for, which whoever asks bounds.
        let (reply, answers) = mpsc::unbounded_channel();
        let job = FetchJob { address: holder.address, name: holder.name.clone(), grants, items, manner, reply };
        // Where the network has ended, so do the answers.
        let _ = self.jobs.send(NetworkJob::Fetch(job));
        answers
    }
}

struct RemoteUploader {
    jobs: mpsc::UnboundedSender<NetworkJob>,
}

impl Uploader for RemoteUploader {
    fn measure(&self, value: &Value) -> Result<u64, String> {
        let encoded = value.encode().map_err(|error| error.to_string())?;
        // What it takes of the worker's memory, or of the wire, whichever is more.
        Ok(rask_comm::upload::nbytes_of(&encoded).max(value.nbytes()))
    }

    fn upload(&self, orders: Vec<UploadOrder>) {
        // A conversation that is over is reported by the reader.
        let _ = self.jobs.send(NetworkJob::Upload(orders));
    }
}

/// Ends the network thread when the client goes, after what was said last has arrived.
struct Network {
    outbox: Outbox<FromClient>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.outbox.finish();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) async fn connect(options: ConnectOptions) -> Result<Client, ConnectError> {
    let outbox = Outbox::default();
    let (jobs_in, jobs) = mpsc::unbounded_channel();
    let link = Arc::new(RemoteLink { outbox: outbox.clone() });
    let session = Arc::new(Session::new(link, Box::new(RemoteUploader { jobs: jobs_in.clone() })));
    let (ready_in, ready) = oneshot::channel();
    let (weak, network_outbox) = (Arc::downgrade(&session), outbox.clone());
    let thread = thread::Builder::new().name("rask-client-io".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready_in.send(Err(ConnectError::System(error.to_string())));
                return;
            }
        };
        runtime.block_on(async move {
            match open(&options).await {
                Ok((endpoint, connection)) => {
                    let _ = ready_in.send(Ok(()));
                    let reason = converse(&endpoint, &connection, &network_outbox, jobs, &options, &weak).await;
                    if let Some(session) = weak.upgrade() {
                        session.close(&reason);
                    }
                    endpoint.shut_down("the client is done").await;
                }
                Err(error) => {
                    let _ = ready_in.send(Err(error));
                }
            }
        });
    });
    let thread = Some(thread.map_err(|error| ConnectError::System(error.to_string()))?);
    let network = Network { outbox, thread };
    ready.await.map_err(|_| ConnectError::System("the network thread ended".to_owned()))??;
    Ok(Client::new(session, Arc::new(RemoteSource { jobs: jobs_in }), Box::new(network)))
}

async fn open(options: &ConnectOptions) -> Result<(Endpoint, rask_comm::Connection), ConnectError> {
    let resolve = |reason: String| ConnectError::Address { scheduler: options.scheduler.clone(), reason };
    let addresses = lookup(&options.scheduler).await.map_err(resolve)?;
    // A token may count how often it is used, so the next address waits for longer.
    let stagger = if options.token.is_some() { TOKEN_STAGGER } else { STAGGER };
    race(&addresses, stagger, |address| open_at(address, options), weight).await
}

/// With a token, how long an address may take before the next one is tried too.
const TOKEN_STAGGER: Duration = Duration::from_millis(1_500);

/// Which of several failures a person wants to hear of.
fn weight(error: &ConnectError) -> u32 {
    match error {
        ConnectError::System(_) | ConnectError::Address { .. } => 0,
        ConnectError::Connection(error) | ConnectError::Identity(rask_comm::JoinError::Connect(error)) => error.weight(),
        ConnectError::Identity(_) => 5,
    }
}

async fn open_at(address: SocketAddr, options: &ConnectOptions) -> Result<(Endpoint, rask_comm::Connection), ConnectError> {
    let token = options.token.as_deref().map(str::parse::<Token>).transpose();
    let token = token.map_err(|error| ConnectError::Identity(rask_comm::JoinError::Token(error)))?;
    let role = match token.map(|token| token.role) {
        None => Role::Client,
        Some(role @ (Role::Client | Role::Viewer | Role::Admin)) => role,
        Some(role @ (Role::Worker | Role::Scheduler)) => {
            return Err(ConnectError::Identity(rask_comm::JoinError::WrongRole { token: role, wanted: Role::Client }));
        }
    };
    // Whose it is goes by the token; a process of the cluster's own user is told from others of that user.
    let name = rask_comm::process_name();
    let identity = rask_comm::obtain_identity(role, &name, address, &options.state_dir, options.token.as_deref())
        .await
        .map_err(ConnectError::Identity)?;
    let endpoint = Endpoint::for_connecting_to(address, &identity).map_err(|error| ConnectError::System(error.to_string()))?;
    let connecting = endpoint.connect(address, Plane::Client, ExpectedPeer::any(Role::Scheduler));
    let connection = connecting.await.map_err(ConnectError::Connection)?;
    Ok((endpoint, connection))
}

/// Carry messages both ways until one side ends it; why it ended.
async fn converse(
    endpoint: &Endpoint,
    connection: &rask_comm::Connection,
    outbox: &Outbox<FromClient>,
    mut jobs: mpsc::UnboundedReceiver<NetworkJob>,
    options: &ConnectOptions,
    session: &std::sync::Weak<Session>,
) -> String {
    let (mut sender, mut receiver) = match connection.open_control::<FromClient, ToClient>().await {
        Ok(halves) => halves,
        Err(error) => return error.to_string(),
    };
    let hello = ClientHello {
        version: PROTOCOL_VERSION,
        name: rask_comm::limits::tame_name(&rask_comm::host_name()),
        weight: options.weight,
    };
    if let Err(error) = sender.send_hello(&hello).await {
        return error.to_string();
    }
    let reader = async {
        loop {
            match receiver.recv().await {
                Ok(Some(messages)) => match session.upgrade() {
                    Some(session) => session.deliver(messages),
                    None => std::future::pending().await,
                },
                Ok(None) => return "the scheduler ended the conversation".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    let peers = Peers::new(endpoint.clone());
    let lanes = Lanes::new(peers.clone(), session.clone());
    let silent = Silent::default();
    let mover = async {
        while let Some(job) = jobs.recv().await {
            match job {
                NetworkJob::Fetch(job) => {
                    let (peers, registry, silent) = (peers.clone(), Arc::clone(&options.registry), silent.clone());
                    drop(tokio::spawn(fetch(peers, registry, silent, job)));
                }
                NetworkJob::Upload(orders) => lanes.add(orders),
            }
        }
        std::future::pending::<String>().await
    };
    tokio::select! {
        reason = reader => connection.close_reason().map_or(reason, |end| end.to_string()),
        reason = mover => reason,
        written = outbox.run(sender) => {
            written.err().map_or_else(|| "closed by this client".to_owned(), |error| error.to_string())
        }
    }
}

/// How long a connection to a worker may take before another holder is tried, and when there certainly is one.
const FETCH_CONNECT_LIMIT: Duration = Duration::from_secs(5);
const FETCH_CONNECT_LIMIT_WITH_OTHERS: Duration = Duration::from_secs(1);

/// How long a worker that did not answer is not asked for what others have.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// Workers that did not answer a moment ago.
#[derive(Clone, Default)]
struct Silent(Arc<Mutex<FxHashMap<SocketAddr, Instant>>>);

impl Silent {
    fn note(&self, worker: SocketAddr) {
        let mut silent = self.0.lock();
        silent.retain(|_, since| since.elapsed() < SILENT_FOR);
        silent.insert(worker, Instant::now());
    }

    fn has(&self, worker: SocketAddr) -> bool {
        self.0.lock().get(&worker).is_some_and(|since| since.elapsed() < SILENT_FOR)
    }
}

async fn fetch(peers: Peers, registry: Arc<Registry>, silent: Silent, job: FetchJob) {
    if !job.manner.pause.is_zero() {
        tokio::time::sleep(job.manner.pause).await;
    }
    let has_others = job.manner.has_others;
    let limit = if has_others { FETCH_CONNECT_LIMIT_WITH_OTHERS } else { FETCH_CONNECT_LIMIT };
    let connecting = tokio::time::timeout(limit, peers.get(job.address, &job.name));
    // Items are reported in order.
    let n_reported = AtomicUsize::new(0);
    let reply = |idx, outcome| {
        n_reported.store(idx + 1, Ordering::Relaxed);
        drop(job.reply.send((idx, outcome)));
    };
    let connected = if has_others && silent.has(job.address) { None } else { Some(connecting.await) };
    let reason = match connected {
        None => "it did not answer a moment ago".to_owned(),
        Some(Err(_elapsed)) => {
            silent.note(job.address);
            "no answer".to_owned()
        }
        Some(Ok(Err(error))) => error.to_string(),
        Some(Ok(Ok(connection))) => {
            let fetching = rask_comm::fetch(&connection, &job.grants, &job.items, &registry, |idx, result| {
                reply(idx, result.map(|fetched| fetched.value).map_err(|error| miss(&error)));
            });
            tokio::select! {
                biased;
                () = fetching => return,
                // Nobody wants it any more.
                () = job.reply.closed() => return,
                () = gone(&connection, has_others) => {
                    // Whoever asks next does not wait for it either.
                    peers.forget(job.address, &job.name);
                    silent.note(job.address);
                    "it does not answer any more".to_owned()
                }
            }
        }
    };
    for idx in n_reported.load(Ordering::Relaxed)..job.items.len() {
        reply(idx, Err(Miss::of(reason.clone())));
    }
}

fn miss(error: &FetchError) -> Miss {
    Miss { reason: error.to_string(), is_final: matches!(error, FetchError::NotSendable(_)) }
}
