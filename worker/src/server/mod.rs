//! The worker as a process: one UDP socket for control and data, a conversation with the scheduler, and how both end.
//!
//! The network lives on the runtime that calls [`run`], which should be a current-thread one: a message's path then stays on
//! one thread until it is a run for a slot. Each registration gets a fresh core with an empty store, since what an older one
//! held means nothing to a scheduler that has forgotten it.

mod driver;
mod network;
mod registration;
#[cfg(test)]
mod tests;
mod traffic;
mod uploads;
mod watching;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rask_comm::peers::Peers;
use rask_comm::{BindError, ConnectError, Connection, Endpoint, ExpectedPeer, Handover, Identity, Plane, Role};
use rask_graphs::Registry;
use tokio::signal::unix::{SignalKind, signal};

use network::{CurrentRegistration, serve};
use registration::{Outcome, Registration};
use traffic::Meters;

use crate::exec::{CoreConfig, FilePolicy};
use crate::store::spill::{SpillArea, SpillConfig};

/// What a worker process is started with. Its name is that of its [`Identity`].
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The scheduler.
    pub scheduler: SocketAddr,
    /// Tasks run at once.
    pub n_slots: u32,
    /// Memory limit of the process in bytes, 0 for none.
    pub memory_limit: u64,
    /// Where results go that memory is too short for; `None` to keep them in memory.
    pub spill: Option<SpillConfig>,
    /// Abstract resources offered, `("gpu", 1.0)`.
    pub resources: Vec<(String, f64)>,
    /// Where to listen for peers; `None` for any port on the address by which the scheduler is reached.
    pub listen: Option<SocketAddr>,
    /// Whether results are handed to and from workers of the same user on this host without the network.
    pub has_handover: bool,
    /// The files that graphs may touch: nothing unless more is said.
    pub files: FilePolicy,
    /// How long to look for a scheduler that is not there, at the start and after it is lost.
    pub patience: Duration,
    /// How long a worker that was asked to stop waits for the scheduler to let it go.
    pub drain_limit: Duration,
    /// Time between two reports of the worker's state.
    pub status_interval: Duration,
}

impl WorkerConfig {
    /// `n_slots` slots for the scheduler at `scheduler`: no memory limit, a minute of patience, 30 s to drain.
    #[must_use]
    pub fn new(scheduler: SocketAddr, n_slots: u32) -> Self {
        Self {
            scheduler,
            n_slots: n_slots.max(1),
            memory_limit: 0,
            spill: None,
            resources: Vec::new(),
            listen: None,
            has_handover: true,
            files: FilePolicy::nothing(),
            patience: Duration::from_secs(60),
            drain_limit: Duration::from_secs(30),
            status_interval: Duration::from_secs(1),
        }
    }
}

/// How a worker that did its duty ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The scheduler let it go: nothing is lost.
    Left,
    /// It was asked to stop and could not wait for the scheduler any longer: what only it held is lost.
    Hurried,
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No socket for control and data.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The scheduler was not there for longer than the worker's patience.
    #[error("no scheduler for {:.0} s: {last}", waited.as_secs_f64())]
    NoScheduler {
        /// How long it was looked for.
        waited: Duration,
        /// What the last attempt met.
        last: ConnectError,
    },
    /// There is a scheduler, and it does not want this worker. Trying again would not help.
    #[error("the scheduler at {address} refused this worker: {reason}")]
    Refused {
        /// The scheduler.
        address: SocketAddr,
        /// In its words.
        reason: String,
    },
    /// There is no place for spill files.
    #[error("cannot spill to {}: {source}", directory.display())]
    Spill {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process takes about as much memory as it may: it ends before the system kills it.
    #[error("out of memory: {reason}")]
    Exhausted {
        /// How much it takes.
        reason: String,
    },
    /// The operating system refused threads, signals or addresses.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// How long until a scheduler is asked again that has no place for this worker now.
const NOT_NOW_PAUSE: Duration = Duration::from_millis(500);
/// Registrations that end at once are tried again this often before it counts as a refusal.
const MAX_SHORT_REGISTRATIONS: u32 = 5;
/// A registration that ends sooner than this ended at once.
const SHORT_REGISTRATION: Duration = Duration::from_secs(10);

/// Work until the scheduler lets this worker go or there is no more scheduler. Once `shutdown` is ready the worker retires: it
/// tells the scheduler and leaves when that has moved what is needed; a SIGTERM or SIGINT after that, or
/// [`WorkerConfig::drain_limit`], ends it anyway.
///
/// # Errors
/// When there is no scheduler for too long, when it refuses this worker, or when the system refuses what a worker needs.
pub async fn run(
    config: WorkerConfig,
    identity: Identity,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()>,
) -> Result<Exit, WorkerError> {
    let endpoint = Endpoint::bind(listen_address(&config)?, &identity, &[Plane::Data])?;
    let data_address = advertised_address(&config, &endpoint)?;
    let handover = start_handover(&config);
    let spill = config.spill.as_ref().map(|spill| spill_area(spill, &registry)).transpose()?;
    let meters = Arc::new(Meters::new(endpoint.socket_buffers()));
    let current = Arc::new(CurrentRegistration::new(handover.clone(), Arc::clone(&registry), Arc::clone(&meters)));
    let serving = tokio::spawn(serve(endpoint.clone(), Arc::clone(&current)));
    tracing::info!(name = identity.name(), %data_address, scheduler = %config.scheduler, "worker starts");
    let registration = Registration {
        config: &config,
        name: identity.name(),
        registry,
        data_address,
        spill: spill.clone(),
        peers: Peers::new(endpoint.clone()).with_handover(handover),
        current,
        meters,
    };
    let ended = work(&registration, &endpoint, shutdown).await;
    endpoint.shut_down("the worker ends").await;
    serving.abort();
    // Slots may go on for a while; the files need not.
    spill.iter().for_each(|area| area.close());
    ended
}

/// This worker's part in handing results over. It can do without.
fn start_handover(config: &WorkerConfig) -> Option<Handover> {
    if !config.has_handover {
        return None;
    }
    let started = Handover::start();
    started.inspect_err(|error| tracing::warn!(%error, "results cannot be handed over; they go by the network")).ok()
}

fn spill_area(config: &SpillConfig, registry: &Arc<Registry>) -> Result<Arc<SpillArea>, WorkerError> {
    let directory = config.directory.clone();
    SpillArea::create(config, Arc::clone(registry)).map_err(|source| WorkerError::Spill { directory, source })
}

/// As [`run`], from beginning to end on threads of this process's own: the calling one, and one that drives the network and
/// executes short runs itself, so that a task which waits for a peer's result starts on the thread that brings it.
///
/// # Errors
/// As [`run`].
pub fn run_blocking(
    config: WorkerConfig,
    identity: Identity,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Exit, WorkerError> {
    let stack_nbytes = CoreConfig::new(identity.name(), config.n_slots).stack_nbytes;
    driver::drive(stack_nbytes, run(config, identity, registry, shutdown))?
}

/// One registration after another.
async fn work(
    registration: &Registration<'_>,
    endpoint: &Endpoint,
    shutdown: impl Future<Output = ()>,
) -> Result<Exit, WorkerError> {
    let config = registration.config;
    let mut shutdown = pin!(shutdown);
    let mut n_short = 0;
    let mut waiting_since: Option<Instant> = None;
    loop {
        let connection = tokio::select! {
            connection = connect(config, endpoint) => connection?,
            () = &mut shutdown => return Ok(Exit::Left),
        };
        let begun = Instant::now();
        let waits_since = waiting_since.take();
        let outcome = registration.serve(&connection, shutdown.as_mut()).await?;
        // The slots of the registration are told to end; it was the last to use its connection.
        let (exit, reason) = match outcome {
            Outcome::Left => (Some(Exit::Left), "the worker leaves".to_owned()),
            Outcome::Hurried => (Some(Exit::Hurried), "the worker was told to stop at once".to_owned()),
            Outcome::Refused { reason } => {
                connection.close(&reason);
                return Err(WorkerError::Refused { address: config.scheduler, reason });
            }
            Outcome::Exhausted { reason } => {
                let error = WorkerError::Exhausted { reason };
                connection.close(&error.to_string());
                return Err(error);
            }
            // Another one of its name, most likely: the one that ran here before and is not known to be dead yet.
            Outcome::NotNow { reason } => {
                let since = waits_since.unwrap_or(begun);
                connection.close(&reason);
                if since.elapsed() >= config.patience {
                    return Err(WorkerError::Refused { address: config.scheduler, reason });
                }
                if waits_since.is_none() {
                    tracing::warn!(%reason, "not let in yet; trying again");
                }
                waiting_since = Some(since);
                tokio::select! {
                    () = tokio::time::sleep(NOT_NOW_PAUSE) => {}
                    () = &mut shutdown => return Ok(Exit::Left),
                }
                continue;
            }
            Outcome::Lost { reason } => (None, reason),
        };
        connection.close(&reason);
        if let Some(exit) = exit {
            return Ok(exit);
        }
        n_short = if begun.elapsed() < SHORT_REGISTRATION { n_short + 1 } else { 0 };
        if n_short >= MAX_SHORT_REGISTRATIONS {
            return Err(WorkerError::Refused { address: config.scheduler, reason });
        }
        tracing::warn!(%reason, "the scheduler is gone; everything held is dropped, and another registration is tried");
    }
}

/// Connect to the scheduler, trying again with growing pauses while it is not there.
async fn connect(config: &WorkerConfig, endpoint: &Endpoint) -> Result<Connection, WorkerError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let attempt = endpoint.connect(config.scheduler, Plane::Worker, ExpectedPeer::any(Role::Scheduler)).await;
        let error = match attempt {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if is_final(&error) {
            return Err(WorkerError::Refused { address: config.scheduler, reason: error.to_string() });
        }
        let waited = begun.elapsed();
        if waited >= config.patience {
            return Err(WorkerError::NoScheduler { waited, last: error });
        }
        tracing::debug!(%error, "no scheduler yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Whether trying again would meet the same.
fn is_final(error: &ConnectError) -> bool {
    match error {
        ConnectError::CertificateRefused { .. }
        | ConnectError::OwnCertificateRefused { .. }
        | ConnectError::WrongPeer { .. }
        | ConnectError::WrongPlane { .. }
        | ConnectError::Version { .. }
        | ConnectError::RoleRefused { .. } => true,
        ConnectError::Unreachable { .. } | ConnectError::Ended { .. } | ConnectError::Local { .. } => false,
    }
}

fn listen_address(config: &WorkerConfig) -> io::Result<SocketAddr> {
    match config.listen {
        Some(address) => Ok(address),
        None => Ok(SocketAddr::new(address_towards(config.scheduler)?, 0)),
    }
}

/// The address at which peers reach `endpoint`: where it listens, or (when that is every address) the one towards the scheduler.
fn advertised_address(config: &WorkerConfig, endpoint: &Endpoint) -> io::Result<SocketAddr> {
    let bound = endpoint.local_addr()?;
    if bound.ip().is_unspecified() { Ok(SocketAddr::new(address_towards(config.scheduler)?, bound.port())) } else { Ok(bound) }
}

/// The own address that packets to `remote` carry. The kernel decides when a socket is connected; nothing is sent.
fn address_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0))?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}

/// Ready when this process gets SIGTERM or SIGINT: what a daemon gives [`run`] as `shutdown`. From here on these signals do
/// not end the process by themselves any more. To be called on a runtime.
///
/// # Errors
/// When the system does not let this process handle signals.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
