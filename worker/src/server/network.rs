//! The core's hands: messages into the outbox, fetches from peers, and results out to whoever asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rask_comm::data::{self, FetchError, PartRequest, PartSource};
use rask_comm::message::FromWorker;
use rask_comm::peers::Peers;
use rask_comm::upload::refuse_all;
use rask_comm::{Admitted, Endpoint, Grant, Handover, Incoming, Link, Offer, Outbox, Plane, SecretKey, WatchHello, Watcher};
use rask_graphs::{GraphId, Registry, Value, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::traffic::Meters;
use super::uploads;
use super::watching::{Identity, Watching, fetch_item, request};
use crate::exec::{Ending, FetchOrder, Fetcher, Uplink, WatchOrder, WorkerCore};
use crate::machine::{FetchFailure, FetchId, FetchItem};

/// A registration that the scheduler has welcomed.
pub(super) struct Current {
    pub(super) me: Identity,
    pub(super) core: WorkerCore,
    pub(super) watching: Arc<Watching>,
}

/// The registration that is current, if any; the data plane outlives registrations.
pub(super) struct CurrentRegistration {
    current: watch::Sender<Option<Arc<Current>>>,
    handover: Option<Handover>,
    registry: Arc<Registry>,
    meters: Arc<Meters>,
}

impl CurrentRegistration {
    pub(super) fn new(handover: Option<Handover>, registry: Arc<Registry>, meters: Arc<Meters>) -> Self {
        Self { current: watch::Sender::default(), handover, registry, meters }
    }

    pub(super) fn set(&self, current: Option<Current>) {
        self.current.send_replace(current.map(Arc::new));
    }
}

impl PartSource for CurrentRegistration {
    fn opens(&self, graph: GraphId, grant: &Grant) -> bool {
        self.current.borrow().as_ref().is_some_and(|current| current.watching.grant_key().opens(graph, grant))
    }

    fn get(&self, item: &PartRequest) -> Option<Value> {
        let current = self.current.borrow().clone()?;
        let value = current.core.store().get(&fetch_item(item))?;
        self.meters.goes(value.nbytes());
        Some(value)
    }

    fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }

    fn read_back<'a>(&'a self, item: &'a PartRequest) -> data::BoxFuture<'a, Option<Value>> {
        Box::pin(async move {
            let current = self.current.borrow().clone()?;
            let (give, given) = oneshot::channel();
            // Whoever asked may have gone meanwhile.
            current.core.read_later(fetch_item(item), move |value| drop(give.send(value)));
            let value = given.await.ok().flatten()?;
            self.meters.goes(value.nbytes());
            Some(value)
        })
    }

    fn room_to_send<'a>(&'a self, guest: &'a str, item: &'a PartRequest) -> Option<data::BoxFuture<'a, data::Room>> {
        let current = self.current.borrow().clone()?;
        let item = fetch_item(item);
        // Looked at first, because most need none.
        current
            .core
            .needs_room_to_send(&item)
            .then(|| -> data::BoxFuture<'a, data::Room> { Box::pin(async move { current.core.room_to_send(guest, item).await }) })
    }

    fn offered(&self, offer: Offer) -> data::BoxFuture<'_, Box<dyn Admitted>> {
        Box::pin(async move {
            let current = self.current.borrow().clone();
            match current {
                Some(current) => uploads::take_in(&current.core, Arc::clone(&self.registry), offer).await,
                None => refuse_all(&offer),
            }
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
                if current.watching.admits(&watcher) {
                    current.watching.receive(current.core.clone(), watcher);
                } else {
                    tracing::warn!(peer = %watcher.peer(), claims = %watcher.hello().watcher, "refused to tell a stranger of results");
                    watcher.refuse("this watch is not the scheduler's wish");
                }
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

/// Fetches and watches over QUIC, as futures on the network's runtime. Where a peer on this host hands results over, fetching is
/// on the handover's thread, and does not wake the network's.
pub(super) struct FromPeers {
    pub(super) runtime: Handle,
    pub(super) peers: Peers,
    pub(super) registry: Arc<Registry>,
    pub(super) watching: Arc<Watching>,
    pub(super) meters: Arc<Meters>,
}

impl Fetcher for FromPeers {
    fn fetch(&self, core: &WorkerCore, order: FetchOrder) {
        let fetching = Fetching::new(core.clone(), self, order);
        match self.peers.ready_link(fetching.address, &fetching.name) {
            Some(link) => fetching.take_over(&link),
            None => drop(self.runtime.spawn(fetching.begin())),
        }
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

/// One request to one peer, on whatever way it takes.
struct Fetching {
    core: WorkerCore,
    runtime: Handle,
    peers: Peers,
    registry: Arc<Registry>,
    meters: Arc<Meters>,
    grant_key: SecretKey,
    begun: Instant,
    fetch: FetchId,
    from: WorkerId,
    address: SocketAddr,
    name: String,
    items: Vec<FetchItem>,
}

impl Fetching {
    fn new(core: WorkerCore, ways: &FromPeers, order: FetchOrder) -> Self {
        let FetchOrder { fetch, from, address, name, items } = order;
        let (runtime, peers) = (ways.runtime.clone(), ways.peers.clone());
        let (registry, meters) = (Arc::clone(&ways.registry), Arc::clone(&ways.meters));
        let grant_key = ways.watching.grant_key();
        Self { core, runtime, peers, registry, meters, grant_key, begun: Instant::now(), fetch, from, address, name, items }
    }

    /// Fetch by the link to the peer, if there is to be one, and over QUIC otherwise.
    async fn begin(self) {
        // Bounds what it takes to get there: a link is agreed on over the connection.
        let linking = timeout(CONNECT_LIMIT, self.peers.link(self.address, &self.name));
        match linking.await {
            Ok(Some(link)) => self.take_over(&link),
            Ok(None) | Err(_) => self.by_network().await,
        }
    }

    fn take_over(self, link: &Link) {
        let this = Arc::new(self);
        let requests: Vec<PartRequest> = this.items.iter().map(request).collect();
        let (registry, grants) = (Arc::clone(&this.registry), this.grant_key.grants_of(&requests));
        let reporting = Arc::clone(&this);
        let on_item = move |idx: usize, outcome| reporting.report(idx, outcome);
        let on_rest = move |rest: Vec<usize>| {
            if !rest.is_empty() {
                this.runtime.clone().spawn(async move { this.rest(&rest).by_network().await });
            }
        };
        link.fetch(grants, requests, registry, on_item, on_rest);
    }

    /// The same request for some of its items only.
    fn rest(&self, idxs: &[usize]) -> Self {
        Self {
            core: self.core.clone(),
            runtime: self.runtime.clone(),
            peers: self.peers.clone(),
            registry: Arc::clone(&self.registry),
            meters: Arc::clone(&self.meters),
            name: self.name.clone(),
            items: idxs.iter().map(|idx| self.items[*idx]).collect(),
            ..*self
        }
    }

    async fn by_network(self) {
        let connecting = timeout(CONNECT_LIMIT, self.peers.get(self.address, &self.name));
        let connected = connecting.await.map_err(|_elapsed| "no answer".to_owned());
        let connection = match connected.and_then(|connected| connected.map_err(|error| error.to_string())) {
            Ok(connection) => connection,
            Err(reason) => {
                self.warn(&format!("cannot be reached at {}: {reason}", self.address));
                for &item in &self.items {
                    self.core.fetch_failed(self.fetch, item, FetchFailure::Unreachable);
                }
                return;
            }
        };
        let requests: Vec<PartRequest> = self.items.iter().map(request).collect();
        let grants = self.grant_key.grants_of(&requests);
        data::fetch(&connection, &grants, &requests, &self.registry, |idx, outcome| self.report(idx, outcome)).await;
    }

    /// Something is wrong with the peer, and perhaps with all that was asked of it.
    fn warn(&self, what: &str) {
        if let Some(n_others) = self.meters.complaints.now(Instant::now()) {
            let others = if n_others > 0 { format!(" (and {n_others} such failures before)") } else { String::new() };
            tracing::warn!("worker \"{}\" {what}{others}", self.name.escape_debug());
        }
    }

    fn report(&self, idx: usize, outcome: Result<data::Fetched, FetchError>) {
        match outcome {
            Ok(fetched) => {
                self.meters.came(self.from, fetched.nbytes);
                let took = self.core.fetch_arrived(self.fetch, self.items[idx], fetched.value, self.begun);
                if idx == 0 {
                    self.meters.fetched(took);
                }
            }
            Err(error) => {
                let task = self.items[idx].task;
                match &error {
                    // It has let go of it meanwhile, as when a graph ends.
                    FetchError::NotThere => tracing::debug!(peer = self.name, %task, %error, "a result did not come"),
                    FetchError::NotSendable(_) | FetchError::Unreachable(_) | FetchError::Damaged(_) => {
                        self.warn(&format!("did not send the result of {task}: {error}"));
                    }
                }
                self.core.fetch_failed(self.fetch, self.items[idx], failure_of(&error));
            }
        }
    }
}

fn failure_of(error: &FetchError) -> FetchFailure {
    match error {
        FetchError::NotThere => FetchFailure::NotThere,
        FetchError::NotSendable(why) => FetchFailure::NotSendable(why.clone()),
        FetchError::Unreachable(_) => FetchFailure::Unreachable,
        FetchError::Damaged(_) => FetchFailure::Damaged,
    }
}
