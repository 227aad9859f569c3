//! A client of a scheduler elsewhere: QUIC on a thread of its own.
//!
//! The network runs on a current-thread runtime, so a message's way in never changes threads twice, and callers may use
//! any executor. Results are fetched and decoded on that thread, straight from the workers.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rask_comm::endpoint::Endpoint;
use rask_comm::identity::Role;
use rask_comm::message::{ClientHello, FromClient, Holder, PROTOCOL_VERSION, ToClient};
use rask_comm::{ExpectedPeer, Grants, Outbox, PartRequest, Peers, Plane, StateDir, Token};
use rask_graphs::{Registry, Value};
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::gather::{Fetching, PartSource};
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
    Identity(String),
    /// Nobody answers, or the one who does is not the scheduler of this cluster, or refuses.
    #[error("{0}")]
    Connection(String),
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
    reply: mpsc::UnboundedSender<(usize, Result<Value, String>)>,
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
    fn fetch(&self, holder: &Holder, grants: Grants, items: Vec<PartRequest>) -> Fetching {
        // No more waits in it than was asked for, which whoever asks bounds.
        let (reply, answers) = mpsc::unbounded_channel();
        let job = FetchJob { address: holder.address, name: holder.name.clone(), grants, items, reply };
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
    let mut addresses = options.scheduler.to_socket_addrs().map_err(|error| resolve(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| resolve("it has no address".to_owned()))?;
    let token = options.token.as_deref().map(str::parse::<Token>).transpose();
    let token = token.map_err(|error| ConnectError::Identity(error.to_string()))?;
    let role = match token.map(|token| token.role) {
        None => Role::Client,
        Some(role @ (Role::Client | Role::Viewer | Role::Admin)) => role,
        Some(role @ (Role::Worker | Role::Scheduler)) => {
            let reason = format!("the token is for {}, and a client's, viewer's or admin's is needed", role.with_article());
            return Err(ConnectError::Identity(reason));
        }
    };
    // Whose it is goes by the token; a process of the cluster's own user is told from others of that user.
    let name = rask_comm::process_name();
    let identity = rask_comm::obtain_identity(role, &name, address, &options.state_dir, options.token.as_deref())
        .await
        .map_err(|error| ConnectError::Identity(error.to_string()))?;
    let endpoint = Endpoint::for_connecting_to(address, &identity).map_err(|error| ConnectError::System(error.to_string()))?;
    let connection = endpoint
        .connect(address, Plane::Client, ExpectedPeer::any(Role::Scheduler))
        .await
        .map_err(|error| ConnectError::Connection(error.to_string()))?;
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
    let mover = async {
        while let Some(job) = jobs.recv().await {
            match job {
                NetworkJob::Fetch(job) => drop(tokio::spawn(fetch(peers.clone(), Arc::clone(&options.registry), job))),
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

/// How long a connection to a worker may take before another holder is tried.
const FETCH_CONNECT_LIMIT: Duration = Duration::from_secs(5);

async fn fetch(peers: Peers, registry: Arc<Registry>, job: FetchJob) {
    let connecting = tokio::time::timeout(FETCH_CONNECT_LIMIT, peers.get(job.address, &job.name));
    let reply = |idx, outcome| drop(job.reply.send((idx, outcome)));
    let reason = match connecting.await {
        Err(_elapsed) => "no answer".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(connection)) => {
            let fetching = rask_comm::fetch(&connection, &job.grants, &job.items, &registry, |idx, result| {
                reply(idx, result.map(|fetched| fetched.value).map_err(|error| error.to_string()));
            });
            tokio::select! {
                biased;
                () = fetching => {}
                // Nobody wants it any more.
                () = job.reply.closed() => {}
            }
            return;
        }
    };
    for idx in 0..job.items.len() {
        reply(idx, Err(reason.clone()));
    }
}
