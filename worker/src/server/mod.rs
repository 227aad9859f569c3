//! The worker as a process: one UDP socket for control and data, a conversation with the scheduler, and how both end.
//!
//! The network lives on the runtime that calls [`run`], which should be a current-thread one: a message's path then stays on
//! one thread until it is a run for a slot. Each registration gets a fresh core with an empty store, since what an older one
//! held means nothing to a scheduler that has forgotten it.

mod driver;
mod looking;
mod network;
mod registration;
mod seldom;
#[cfg(test)]
mod tests;
mod traffic;
mod uploads;
mod watching;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rask_comm::message::LostResults;
use rask_comm::peers::Peers;
use rask_comm::{BindError, Endpoint, Handover, Identity, Plane};
use rask_graphs::Registry;
use tokio::signal::unix::{SignalKind, signal};

use looking::{Looking, Reached};
use network::{CurrentRegistration, serve};
use registration::{Outcome, Registration};
use traffic::Meters;

use crate::exec::{CoreConfig, FilePolicy};
use crate::store::spill::{SpillArea, SpillConfig};

/// What a worker process is started with. Its name is that of its [`Identity`].
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// `HOST:PORT` of the scheduler, looked up at every attempt to reach it.
    pub scheduler: String,
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
    pub fn new(scheduler: impl ToString, n_slots: u32) -> Self {
        Self {
            scheduler: scheduler.to_string(),
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The scheduler let it go: nothing is lost.
    Left,
    /// The scheduler let it go, and there was no other worker for results that only this one held.
    Last {
        /// What was lost.
        lost: LostResults,
    },
    /// It was asked to stop and could not wait for the scheduler any longer: what only it held is lost.
    Hurried {
        /// Whole results that were here, with those that others have too, and their bytes in memory and files.
        n_results: usize,
        /// Their bytes.
        nbytes: u64,
        /// Runs that were cut short.
        n_running: usize,
    },
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No socket for control and data.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The scheduler was not there for longer than the worker's patience.
    #[error("no scheduler at {scheduler} for {:.0} s: {last}", waited.as_secs_f64())]
    NoScheduler {
        /// As it was named.
        scheduler: String,
        /// How long it was looked for.
        waited: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// There is a scheduler, and it does not want this worker. Trying again would not help.
    #[error("the scheduler at {address} refused this worker: {reason}")]
    Refused {
        /// The scheduler, as it was named.
        address: String,
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
/// tells the scheduler and leaves when that has moved what is needed; a signal of [`termination`] after that, or
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
    let mut shutdown = pin!(shutdown);
    let spill = config.spill.as_ref().map(|spill| spill_area(spill, &registry)).transpose()?;
    let mut looking = Looking::new(&config);
    let ended = loop {
        let towards = tokio::select! {
            towards = looking.find(&identity) => towards,
            () = shutdown.as_mut() => break Ok(Exit::Left),
        };
        match towards {
            Ok(towards) => match run_at(towards, &config, &identity, &registry, spill.as_ref(), shutdown.as_mut()).await {
                Ok(Some(exit)) => break Ok(exit),
                // It is where this socket does not reach.
                Ok(None) => looking = Looking::new(&config),
                Err(error) => break Err(error),
            },
            Err(error) => break Err(error),
        }
    };
    // Slots may go on for a while; the files need not.
    spill.iter().for_each(|area| area.close());
    ended
}

/// Work with the socket that reaches the scheduler at `towards`. `None` when the scheduler has moved to where it does not.
async fn run_at<S: Future<Output = ()>>(
    towards: SocketAddr,
    config: &WorkerConfig,
    identity: &Identity,
    registry: &Arc<Registry>,
    spill: Option<&Arc<SpillArea>>,
    shutdown: Pin<&mut S>,
) -> Result<Option<Exit>, WorkerError> {
    let endpoint = Endpoint::bind(listen_address(config, towards)?, identity, &[Plane::Data])?;
    let data_address = advertised_address(towards, &endpoint)?;
    let handover = start_handover(config);
    let meters = Arc::new(Meters::new(endpoint.socket_buffers()));
    let current = Arc::new(CurrentRegistration::new(handover.clone(), Arc::clone(registry), Arc::clone(&meters)));
    let serving = tokio::spawn(serve(endpoint.clone(), Arc::clone(&current)));
    tracing::debug!(name = identity.name(), %data_address, scheduler = %config.scheduler, "worker starts");
    let registration = Registration {
        config,
        name: identity.name(),
        registry: Arc::clone(registry),
        data_address,
        spill: spill.cloned(),
        peers: Peers::new(endpoint.clone()).with_handover(handover),
        current,
        meters,
    };
    let ended = work(&registration, &endpoint, identity, shutdown).await;
    endpoint.shut_down("the worker ends").await;
    serving.abort();
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
    identity: &Identity,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Exit>, WorkerError> {
    let config = registration.config;
    let mut n_short = 0;
    let mut waiting_since: Option<Instant> = None;
    loop {
        let mut looking = Looking::new(config);
        let reached = tokio::select! {
            reached = looking.reach(endpoint, identity) => reached?,
            () = shutdown.as_mut() => return Ok(Some(Exit::Left)),
        };
        let Reached::Scheduler(connection) = reached else { return Ok(None) };
        let begun = Instant::now();
        let waits_since = waiting_since.take();
        let outcome = registration.serve(&connection, shutdown.as_mut()).await?;
        // The slots of the registration are told to end; it was the last to use its connection.
        let (exit, reason) = match outcome {
            Outcome::Left { lost } if lost.n_results == 0 => (Some(Exit::Left), "the worker leaves".to_owned()),
            Outcome::Left { lost } => (Some(Exit::Last { lost }), "the worker leaves".to_owned()),
            Outcome::Hurried { n_results, nbytes, n_running } => {
                (Some(Exit::Hurried { n_results, nbytes, n_running }), "it was told to stop at once".to_owned())
            }
            Outcome::Refused { reason } => {
                connection.close(&reason);
                return Err(WorkerError::Refused { address: config.scheduler.clone(), reason });
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
                    return Err(WorkerError::Refused { address: config.scheduler.clone(), reason });
                }
                if waits_since.is_none() {
                    tracing::warn!(%reason, "not let in yet; trying again");
                }
                waiting_since = Some(since);
                tokio::select! {
                    () = tokio::time::sleep(NOT_NOW_PAUSE) => {}
                    () = shutdown.as_mut() => return Ok(Some(Exit::Left)),
                }
                continue;
            }
            Outcome::Lost { reason } => (None, reason),
        };
        connection.close(&reason);
        if exit.is_some() {
            return Ok(exit);
        }
        n_short = if begun.elapsed() < SHORT_REGISTRATION { n_short + 1 } else { 0 };
        if n_short >= MAX_SHORT_REGISTRATIONS {
            return Err(WorkerError::Refused { address: config.scheduler.clone(), reason });
        }
        tracing::warn!(%reason, "the scheduler is gone; everything held is dropped, and another registration is tried");
    }
}

fn listen_address(config: &WorkerConfig, towards: SocketAddr) -> io::Result<SocketAddr> {
    match config.listen {
        Some(address) => Ok(address),
        None => Ok(SocketAddr::new(address_towards(towards)?, 0)),
    }
}

/// The address at which peers reach `endpoint`: where it listens, or (when that is every address) the one towards the scheduler.
fn advertised_address(towards: SocketAddr, endpoint: &Endpoint) -> io::Result<SocketAddr> {
    let bound = endpoint.local_addr()?;
    if bound.ip().is_unspecified() { Ok(SocketAddr::new(address_towards(towards)?, bound.port())) } else { Ok(bound) }
}

/// The own address that packets to `remote` carry. The kernel decides when a socket is connected; nothing is sent.
fn address_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0))?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}

/// Ready when this process gets SIGTERM, SIGINT or SIGHUP (its terminal has gone): what a daemon gives [`run`] as `shutdown`. From here on these signals do
/// not end the process by themselves any more. To be called on a runtime.
///
/// # Errors
/// When the system does not let this process handle signals.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
