//! One registration with the scheduler, from hello to end.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rask_comm::message::{FromWorker, LostResults, PROTOCOL_VERSION, ToWorker, WorkerHello};
use rask_comm::peers::Peers;
use rask_comm::{CloseKind, Connection, ControlReceiver, ControlSender, host_identity};
use rask_graphs::Registry;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::network::{Current, CurrentRegistration, FromPeers, ToScheduler};
use super::traffic::Meters;
use super::watching::{Identity, Watching};
use super::{WorkerConfig, WorkerError, termination};
use crate::exec::{CoreConfig, Ending, Fetcher, Uplink, WorkerCore};
use crate::machine::Machine;
use crate::store::spill::SpillArea;

/// How long the last messages may take to reach a scheduler that has let this worker go.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How a registration ended.
pub(super) enum Outcome {
    /// The scheduler let this worker go.
    Left {
        /// What no other worker was there for.
        lost: LostResults,
    },
    /// The worker was asked to stop, and waited long enough; what it held and ran then.
    Hurried { n_results: usize, nbytes: u64, n_running: usize },
    /// The scheduler does not want this worker.
    Refused {
        /// In its words.
        reason: String,
    },
    /// The scheduler has no place for this worker now, and may have later.
    NotNow {
        /// In its words.
        reason: String,
    },
    /// This worker has run out of memory.
    Exhausted {
        /// How much it takes.
        reason: String,
    },
    /// The scheduler is gone, or has ended a registration that it had accepted.
    Lost {
        /// What was seen of that.
        reason: String,
    },
}

/// What all registrations of a process have in common.
pub(super) struct Registration<'a> {
    pub(super) config: &'a WorkerConfig,
    pub(super) name: &'a str,
    pub(super) registry: Arc<Registry>,
    pub(super) data_address: SocketAddr,
    pub(super) spill: Option<Arc<SpillArea>>,
    pub(super) peers: Peers,
    pub(super) current: Arc<CurrentRegistration>,
    pub(super) meters: Arc<Meters>,
}

impl Registration<'_> {
    /// Register over `connection` and work until it ends.
    pub(super) async fn serve<S>(&self, connection: &Connection, shutdown: Pin<&mut S>) -> Result<Outcome, WorkerError>
    where
        S: Future<Output = ()>,
    {
        let (sender, receiver) = match self.greet(connection).await {
            Ok(streams) => streams,
            Err(outcome) => return Ok(outcome),
        };
        let uplink = Arc::new(ToScheduler::default());
        let watching =
            Arc::new(Watching::new(Handle::current(), self.peers.clone(), Arc::clone(&self.registry), Arc::clone(&self.meters)));
        let core = self.start_core(&uplink, &watching)?;
        let outcome = self.converse(&core, &uplink, &watching, connection, (sender, receiver), shutdown).await;
        core.shutdown();
        self.current.set(None);
        watching.end();
        Ok(outcome)
    }

    async fn greet(&self, connection: &Connection) -> Result<(ControlSender<FromWorker>, ControlReceiver<ToWorker>), Outcome> {
        let hello = WorkerHello {
            version: PROTOCOL_VERSION,
            name: self.name.to_owned(),
            n_slots: self.config.n_slots,
            memory_limit: self.config.memory_limit,
            resources: self.config.resources.clone(),
            data_address: self.data_address,
            host: host_identity(),
            registry_fingerprint: self.registry.fingerprint(),
        };
        let lost = |reason: String| Outcome::Lost { reason };
        let (mut sender, receiver) = connection.open_control().await.map_err(|error| lost(error.to_string()))?;
        sender.send_hello(&hello).await.map_err(|error| lost(error.to_string()))?;
        Ok((sender, receiver))
    }

    fn start_core(&self, uplink: &Arc<ToScheduler>, watching: &Arc<Watching>) -> Result<WorkerCore, WorkerError> {
        let mut config = CoreConfig::new(self.name, self.config.n_slots);
        config.memory_limit = self.config.memory_limit;
        config.spill = self.spill.clone();
        config.files = self.config.files.clone();
        let (peers, registry) = (self.peers.clone(), Arc::clone(&self.registry));
        let (watching, meters) = (Arc::clone(watching), Arc::clone(&self.meters));
        let fetcher: Arc<dyn Fetcher> = Arc::new(FromPeers { runtime: Handle::current(), peers, registry, watching, meters });
        let uplink: Arc<dyn Uplink> = Arc::clone(uplink) as _;
        Ok(WorkerCore::start(&config, Arc::clone(&self.registry), uplink, fetcher)?)
    }

    /// Pass messages on until something ends it. Everything waited for here is cancel-safe, but for the writer of the outbox,
    /// which is the same future from beginning to end.
    async fn converse<S>(
        &self,
        core: &WorkerCore,
        uplink: &ToScheduler,
        watching: &Arc<Watching>,
        connection: &Connection,
        (sender, mut receiver): (ControlSender<FromWorker>, ControlReceiver<ToWorker>),
        mut shutdown: Pin<&mut S>,
    ) -> Outcome
    where
        S: Future<Output = ()>,
    {
        let mut writer = pin!(uplink.outbox.run(sender));
        let mut hurry: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(pending());
        let mut status = interval(self.config.status_interval);
        status.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut is_welcome, mut is_retiring) = (false, false);
        let reason = loop {
            tokio::select! {
                received = receiver.recv() => match received {
                    Ok(Some(messages)) => {
                        if let (false, Some(ToWorker::Close { reason })) = (is_welcome, messages.first()) {
                            return Outcome::Refused { reason: reason.clone() };
                        }
                        if let (false, Some(&ToWorker::Welcome { worker, epoch, keys })) = (is_welcome, messages.first()) {
                            let (me, watching) = (Identity { epoch, worker }, Arc::clone(watching));
                            watching.begin(me, keys);
                            self.current.set(Some(Current { me, core: core.clone(), watching }));
                            tracing::info!("joined the scheduler at {} as \"{}\"", self.config.scheduler, self.name.escape_debug());
                        }
                        is_welcome = true;
                        core.deliver(messages);
                    }
                    Ok(None) => break "the scheduler ended the conversation".to_owned(),
                    Err(error) => break error.to_string(),
                },
                written = &mut writer => break written.err().map_or_else(|| "the outbox ended".to_owned(), |error| error.to_string()),
                ending = uplink.ended() => match ending {
                    Ending::Left { lost } => {
                        uplink.outbox.finish();
                        let _ = timeout(FLUSH_LIMIT, &mut writer).await;
                        return Outcome::Left { lost };
                    }
                    Ending::Closed { reason } => break reason,
                    Ending::Exhausted { reason } => {
                        tracing::error!(%reason, "out of memory: this worker ends before the system kills it");
                        return Outcome::Exhausted { reason };
                    }
                },
                _ = status.tick(), if is_welcome => core.measure(self.meters.read(Instant::now())),
                () = shutdown.as_mut(), if !is_retiring => {
                    let limit = self.config.drain_limit.as_secs_f64();
                    tracing::info!("asked to stop: waiting up to {limit} s for running tasks and for results to be moved");
                    is_retiring = true;
                    core.retire();
                    hurry = Box::pin(lose_patience(self.config.drain_limit));
                }
                () = hurry.as_mut() => return hurried(core),
            }
        };
        match connection.close_reason() {
            // Whoever asked for the end of this worker does not want it to look for another scheduler.
            _ if is_retiring => hurried(core),
            // A connection that the other side closes before its welcome is a refusal; later, it is a loss.
            Some(closed) if !is_welcome && closed.kind == CloseKind::Peer => Outcome::Refused { reason: closed.text },
            Some(closed) if !is_welcome && closed.kind == CloseKind::Busy => Outcome::NotNow { reason: closed.text },
            Some(_) | None => Outcome::Lost { reason },
        }
    }
}

/// What goes with a worker that cannot wait.
fn hurried(core: &WorkerCore) -> Outcome {
    let (n_results, nbytes) = core.store().whole_results();
    Outcome::Hurried { n_results, nbytes, n_running: core.inspect(Machine::n_executing) }
}

/// Ready when a worker that was asked to stop must not wait any longer.
async fn lose_patience(drain_limit: Duration) {
    let asked_again = async {
        match termination() {
            Ok(asked) => asked.await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep(drain_limit) => {
            tracing::warn!("the scheduler has not let this worker go within {} s; leaving anyway", drain_limit.as_secs_f64());
        }
        () = asked_again => tracing::warn!("asked again to stop; leaving at once"),
    }
}
