//! The scheduler as a daemon: QUIC on one thread around the machine.
//!
//! Everything runs on the calling thread's runtime, the machine included, so a message's way through the scheduler never
//! changes threads. Readers (`peers`) turn frames into events, part by part (`parts`); the hub takes all that have come in, lets the machine
//! handle them as one turn, and puts the answers into outboxes, one frame a peer. A peer that sends garbage, or does not
//! read, loses its connection and nothing else.

mod admission;
mod hub;
mod parts;
mod peers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rask_comm::SecretKey;
use rask_comm::authority::{Authority, AuthorityError, StateDir};
use rask_comm::endpoint::{BindError, Endpoint, Incoming};
use rask_comm::identity::{Identity, IdentityError, Role};
use rask_comm::join::serve_join;
use rask_comm::plane::Plane;
use rask_comm::token::TokenStore;
use rask_graphs::Epoch;
use tokio::sync::mpsc;

use crate::machine::Config;
use admission::Admission;
use hub::{Hub, News};
use peers::Terms;

/// Parts of frames that wait for the hub; readers wait when it is full, and so do their peers.
const INBOX_LIMIT: usize = 1024;

/// What a scheduler is started with.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Where to listen; port 0 for any.
    pub listen: SocketAddr,
    /// Holds the cluster's authority, its join tokens and the epoch.
    pub state_dir: StateDir,
    /// Settings of the machine; its epoch is replaced by the state directory's next one, its secret by a random one.
    pub machine: Config,
    /// Whether workers that joined by a token may have their data planes on other hosts than they come from themselves, as where
    /// addresses are translated on the way. Others would be told to go wherever such a worker says.
    pub believes_addresses: bool,
    /// A worker tells its state every second. One that does not for so long is dropped, though its network may be alive.
    pub silence_limit: Duration,
}

impl SchedulerConfig {
    /// A scheduler at `listen` with the usual settings.
    #[must_use]
    pub fn new(listen: SocketAddr, state_dir: StateDir) -> Self {
        Self { listen, state_dir, machine: Config::default(), believes_addresses: false, silence_limit: Duration::from_secs(30) }
    }
}

/// Why a scheduler could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The cluster's authority cannot be opened or made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No certificate can be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state directory cannot be used.
    #[error("cannot use {path}: {source}")]
    State {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Run a scheduler until `shutdown` completes. `on_ready` gets the address it listens on.
///
/// # Errors
/// When it cannot start. Once it runs, what peers do wrong is theirs to hear.
pub async fn run(
    mut config: SchedulerConfig,
    on_ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let authority = Arc::new(Authority::open_or_create(&config.state_dir)?);
    config.machine.epoch = Epoch(config.state_dir.next_epoch()?);
    let random = |source| ServerError::State { path: "random numbers".to_owned(), source };
    config.machine.secret = SecretKey::random().map_err(random)?;
    let identity = Identity::issue(&authority, Role::Scheduler, "scheduler")?;
    let endpoint = Endpoint::bind(config.listen, &identity, &[Plane::Worker, Plane::Client, Plane::Join])?;
    let tokens = Arc::new(TokenStore::of(&config.state_dir));
    let admission = Arc::new(Admission::new(config.state_dir.clone(), &authority));
    let address =
        endpoint.local_addr().map_err(|source| ServerError::State { path: "the socket's address".to_owned(), source })?;
    if endpoint.socket_buffers().are_small() {
        tracing::info!("{}", endpoint.socket_buffers().report());
    }
    let (news, inbox) = mpsc::channel(INBOX_LIMIT);
    let terms = Terms { believes_addresses: config.believes_addresses, silence_limit: config.silence_limit };
    let hub = Hub::new(config.machine, inbox);
    on_ready(address);
    tokio::select! {
        () = hub.run() => {}
        () = accept(&endpoint, &authority, &tokens, &admission, terms, &news) => {}
        () = Arc::clone(&admission).watch(news.clone()) => {}
        () = shutdown => {}
    }
    endpoint.shut_down("the scheduler stops").await;
    Ok(())
}

async fn accept(
    endpoint: &Endpoint,
    authority: &Arc<Authority>,
    tokens: &Arc<TokenStore>,
    admission: &Arc<Admission>,
    terms: Terms,
    news: &mpsc::Sender<News>,
) {
    let mut ids = peers::Ids::default();
    let intake = parts::Intake::default();
    while let Some(incoming) = endpoint.accept().await {
        match incoming {
            Incoming::Peer { connection, plane: Plane::Worker, .. } => {
                let (worker, admission, news, intake) = (ids.worker(), Arc::clone(admission), news.clone(), intake.clone());
                tokio::spawn(async move {
                    if admission.admits(&connection).await {
                        peers::serve_worker(worker, connection, terms, news, intake).await;
                    }
                });
            }
            Incoming::Peer { connection, plane: Plane::Client, .. } => {
                let (client, admission, news, intake) = (ids.client(), Arc::clone(admission), news.clone(), intake.clone());
                tokio::spawn(async move {
                    if admission.admits(&connection).await {
                        peers::serve_client(client, connection, news, intake).await;
                    }
                });
            }
            Incoming::Peer { connection, plane: Plane::Data | Plane::Join, .. } => connection.close("not served here"),
            Incoming::Join(connection) => {
                let (authority, tokens, quiet) = (Arc::clone(authority), Arc::clone(tokens), Arc::clone(&intake.quiet));
                tokio::spawn(async move {
                    let from = connection.remote_address();
                    match tokio::time::timeout(Duration::from_secs(10), serve_join(connection, &authority, &tokens)).await {
                        Ok(Ok(peer)) => tracing::info!(%from, %peer, by = %peer.origin, "a node joined the cluster"),
                        Ok(Err(error)) => {
                            if let Some(n_left_out) = quiet.may_say("not let in", from.ip()) {
                                tracing::warn!(%from, %error, n_left_out, "a node was not let into the cluster");
                            }
                        }
                        Err(_elapsed) => tracing::debug!(%from, "a node did not finish joining"),
                    }
                });
            }
        }
    }
}
