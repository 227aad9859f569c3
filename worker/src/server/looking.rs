//! Looking for the scheduler: every address of its name, looked up anew at every attempt, for as long as patience lasts.
//!
//! A worker has one socket, and one that listens on loopback does not reach another host. So it is found out before there is a
//! socket which of the addresses answers; a scheduler that comes back elsewhere is told apart from one that this socket reaches.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rask_comm::reach::{STAGGER, lookup, race};
use rask_comm::{ConnectError, Connection, Endpoint, ExpectedPeer, Identity, Plane, Role};

use super::{WorkerConfig, WorkerError};

/// Pauses between attempts grow up to this.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How often somebody who reads the log is told that it is still being looked for.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Where the scheduler was met.
pub(super) enum Reached {
    /// Here it is.
    Scheduler(Connection),
    /// It answers at an address that needs another socket.
    Elsewhere,
}

/// One search.
pub(super) struct Looking<'a> {
    config: &'a WorkerConfig,
    begun: Instant,
    pause: Duration,
    told: Option<Instant>,
}

enum Miss {
    /// The name has no address, at least for now.
    Name(String),
    Connect(ConnectError),
}

impl Miss {
    /// Which of several failures a person wants to hear of.
    fn weight(&self) -> u32 {
        match self {
            Self::Name(_) => 0,
            Self::Connect(error) => error.weight(),
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Name(reason) => reason.clone(),
            Self::Connect(error) => error.to_string(),
        }
    }
}

impl<'a> Looking<'a> {
    pub(super) fn new(config: &'a WorkerConfig) -> Self {
        Self { config, begun: Instant::now(), pause: Duration::from_millis(50), told: None }
    }

    /// An address by which the scheduler is to be reached: of several the one that answers.
    pub(super) async fn find(&mut self, identity: &Identity) -> Result<SocketAddr, WorkerError> {
        loop {
            let missed = match lookup(&self.config.scheduler).await {
                // With one, what its socket has to be is known without asking.
                Ok(addresses) if addresses.len() == 1 => return Ok(addresses[0]),
                Ok(addresses) => {
                    let attempt = |address| async move { elsewhere(address, identity).await.map(|_connection| address) };
                    match race(&addresses, STAGGER, attempt, ConnectError::weight).await {
                        Ok(address) => return Ok(address),
                        Err(error) => Miss::Connect(error),
                    }
                }
                Err(reason) => Miss::Name(reason),
            };
            self.miss(missed).await?;
        }
    }

    /// Connect to the scheduler.
    pub(super) async fn reach(&mut self, endpoint: &Endpoint, identity: &Identity) -> Result<Reached, WorkerError> {
        loop {
            let missed = match lookup(&self.config.scheduler).await {
                Ok(addresses) => {
                    let may_move = self.config.listen.is_none();
                    let attempt = |address: SocketAddr| async move {
                        if suits(endpoint, address) || !may_move {
                            let connecting = endpoint.connect(address, Plane::Worker, ExpectedPeer::any(Role::Scheduler));
                            return connecting.await.map(Reached::Scheduler).map_err(Miss::Connect);
                        }
                        elsewhere(address, identity).await.map(|_| Reached::Elsewhere).map_err(Miss::Connect)
                    };
                    match race(&addresses, STAGGER, attempt, Miss::weight).await {
                        Ok(reached) => return Ok(reached),
                        Err(missed) => missed,
                    }
                }
                Err(reason) => Miss::Name(reason),
            };
            self.miss(missed).await?;
        }
    }

    /// An attempt came to nothing: say so now and then, wait a growing while, and give up in the end.
    async fn miss(&mut self, missed: Miss) -> Result<(), WorkerError> {
        let scheduler = &self.config.scheduler;
        if let Miss::Connect(error) = &missed
            && error.is_final()
        {
            return Err(WorkerError::Refused { address: scheduler.clone(), reason: error.to_string() });
        }
        let waited = self.begun.elapsed();
        if waited >= self.config.patience {
            return Err(WorkerError::NoScheduler { scheduler: scheduler.clone(), waited, last: missed.in_words() });
        }
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            let (seconds, reason) = (waited.as_secs(), missed.in_words());
            let patience = self.config.patience.as_secs();
            tracing::info!("waiting for the scheduler at {scheduler} ({seconds} of {patience} s): {reason}");
        }
        let rest = self.config.patience.saturating_sub(waited);
        tokio::time::sleep(self.pause.min(rest)).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}

/// Whether `endpoint` can send to `address`: of the same family, and on loopback as it is.
fn suits(endpoint: &Endpoint, address: SocketAddr) -> bool {
    let Ok(local) = endpoint.local_addr() else { return true };
    let is_reached = local.ip().is_unspecified() || local.ip().is_loopback() == address.ip().is_loopback();
    local.is_ipv4() == address.is_ipv4() && is_reached
}

/// Whether the scheduler answers at `address`, from a socket made for the question.
async fn elsewhere(address: SocketAddr, identity: &Identity) -> Result<(), ConnectError> {
    let local = |error: rask_comm::BindError| ConnectError::Local { address, reason: error.to_string() };
    let endpoint = Endpoint::for_connecting_to(address, identity).map_err(local)?;
    let connection = endpoint.connect(address, Plane::Worker, ExpectedPeer::any(Role::Scheduler)).await?;
    connection.close("only asking");
    endpoint.shut_down("only asking").await;
    Ok(())
}
