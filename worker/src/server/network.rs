//! The core's hands: messages into the outbox, fetches from peers, and results out to whoever asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rask_comm::data::{self, FetchError, PartRequest, PartSource};
use rask_comm::message::FromWorker;
use rask_comm::peers::Peers;
use rask_comm::{Endpoint, Incoming, Outbox, Plane, WatchHello, Watcher};
use rask_graphs::{Registry, Value, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::watching::{Identity, Watching, fetch_item, request};
use crate::exec::{Ending, FetchOrder, Fetcher, Uplink, WatchOrder, WorkerCore};
use crate::machine::{FetchFailure, FetchItem};

/// A registration that the scheduler has welcomed.
pub(super) struct Current {
    pub(super) me: Identity,
    pub(super) core: WorkerCore,
    pub(super) watching: Arc<Watching>,
}

/// The registration that is current, if any; the data plane outlives registrations.
#[derive(Default)]
pub(super) struct CurrentRegistration {
    current: watch::Sender<Option<Arc<Current>>>,
}

impl CurrentRegistration {
    pub(super) fn set(&self, current: Option<Current>) {
        self.current.send_replace(current.map(Arc::new));
    }
}

impl PartSource for CurrentRegistration {
    fn get(&self, item: &PartRequest) -> Option<Value> {
        let current = self.current.borrow().clone()?;
        current.core.store().get(&fetch_item(item))
    }

    fn read_back<'a>(&'a self, item: &'a PartRequest) -> data::BoxFuture<'a, Option<Value>> {
        Box::pin(async move {
            let current = self.current.borrow().clone()?;
            let (give, given) = oneshot::channel();
            // Whoever asked may have gone meanwhile.
            current.core.read_later(fetch_item(item), move |value| drop(give.send(value)));
            given.await.ok().flatten()
        })
    }

    fn watched_by(&self, watcher: Watcher) {
        let mut registrations = self.current.subscribe();
        tokio::spawn(async move {
            let WatchHello { epoch, maker, .. } = watcher.hello();
            let wanted = Identity { epoch, worker: maker };
            // A peer may hear of this worker before its own welcome is here.
            let is_wanted = |current: &Option<Arc<Current>>| current.as_ref().is_some_and(|current| current.me == wanted);
            let welcomed = registrations.wait_for(is_wanted);
            if let Ok(Ok(current)) = timeout(CONNECT_LIMIT, welcomed).await
                && let Some(current) = current.as_ref()
            {
                current.watching.receive(current.core.clone(), watcher);
            }
        });
    }
}

/// Serve results to peers and clients until the endpoint is closed.
pub(super) async fn serve(endpoint: Endpoint, registration: Arc<CurrentRegistration>) {
    while let Some(incoming) = endpoint.accept().await {
        match incoming {
            Incoming::Peer { connection, plane: Plane::Data, .. } => {
                let source: Arc<dyn PartSource> = Arc::clone(&registration) as _;
                tokio::spawn(data::serve_data(connection, source));
            }
            Incoming::Peer { connection, plane: Plane::Worker | Plane::Client | Plane::Join, .. } => {
                connection.close("a worker serves results only");
            }
            Incoming::Join(_) => {}
        }
    }
}

/// Messages to the scheduler, by way of an outbox: however many runs finish while the network's thread is at work, it is
/// woken once, and they leave in one frame.
#[derive(Default)]
pub(super) struct ToScheduler {
    pub(super) outbox: Outbox<FromWorker>,
    ending: Mutex<Option<Ending>>,
    has_ended: Notify,
}

impl ToScheduler {
    /// Ready once the machine wants the registration to end.
    pub(super) async fn ended(&self) -> Ending {
        loop {
            let ended = self.has_ended.notified();
            if let Some(ending) = self.ending.lock().take() {
                return ending;
            }
            ended.await;
        }
    }
}

impl Uplink for ToScheduler {
    fn tell(&self, messages: &mut Vec<FromWorker>, n_patient: usize) {
        if let Err(error) = self.outbox.push_patiently(std::mem::take(messages), n_patient) {
            // The connection is lost or about to be closed; the registration notices that by itself and ends.
            tracing::debug!(%error, "a message to the scheduler has nowhere to go");
        }
    }

    fn end(&self, ending: Ending) {
        *self.ending.lock() = Some(ending);
        self.has_ended.notify_one();
    }
}

/// Fetches and watches over QUIC, as futures on the network's runtime.
pub(super) struct FromPeers {
    pub(super) runtime: Handle,
    pub(super) peers: Peers,
    pub(super) registry: Arc<Registry>,
    pub(super) watching: Arc<Watching>,
}

impl Fetcher for FromPeers {
    fn fetch(&self, core: &WorkerCore, order: FetchOrder) {
        let fetching = fetch(core.clone(), self.peers.clone(), Arc::clone(&self.registry), order);
        self.runtime.spawn(fetching);
    }

    fn watch(&self, core: &WorkerCore, order: WatchOrder) {
        self.watching.watch(core, order);
    }

    fn push(&self, _core: &WorkerCore, to: WorkerId, item: FetchItem, value: Value) {
        self.watching.push(to, &item, &value);
    }

    fn announce(&self, _core: &WorkerCore, to: WorkerId, item: FetchItem, nbytes: u64) {
        self.watching.announce(to, &item, nbytes);
    }
}

/// How long a peer may take to answer before its results are looked for elsewhere, or made again: a dead one never will.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(2);

async fn fetch(core: WorkerCore, peers: Peers, registry: Arc<Registry>, order: FetchOrder) {
    let begun = Instant::now();
    let FetchOrder { fetch, from, address, name, items } = order;
    let connecting = timeout(CONNECT_LIMIT, peers.get(address, &name));
    let connection =
        match connecting.await.map_err(|_elapsed| "no answer".to_owned()).and_then(|it| it.map_err(|error| error.to_string())) {
            Ok(connection) => connection,
            Err(reason) => {
                tracing::warn!(peer = %from, %address, reason, "a peer cannot be reached");
                for item in items {
                    core.fetch_failed(fetch, item, FetchFailure::Unreachable);
                }
                return;
            }
        };
    let requests: Vec<PartRequest> = items.iter().map(request).collect();
    let on_item = |idx: usize, outcome: Result<data::Fetched, FetchError>| match outcome {
        Ok(fetched) => core.fetch_arrived(fetch, items[idx], fetched.value, begun.elapsed()),
        Err(error) => {
            tracing::warn!(peer = %from, task = %items[idx].task, %error, "a result did not come");
            core.fetch_failed(fetch, items[idx], failure_of(&error));
        }
    };
    data::fetch(&connection, &requests, &registry, on_item).await;
}

fn failure_of(error: &FetchError) -> FetchFailure {
    match error {
        FetchError::NotThere | FetchError::NotSendable(_) => FetchFailure::NotThere,
        FetchError::Unreachable(_) => FetchFailure::Unreachable,
        FetchError::Damaged(_) => FetchFailure::Damaged,
    }
}
