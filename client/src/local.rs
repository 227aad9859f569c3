//! A whole cluster in this process: the scheduler machine, workers with slots, and no network.
//!
//! There is no scheduler thread. Whoever has news for the machine, a slot that finished a run or a client with a question,
//! puts it into the inbox, and unless somebody is at it already, drives the machine and delivers what it says, on the
//! spot (flat combining, Hendler et al. 2010). So between two links of a chain no thread waits for another.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rask_comm::message::{ClientHello, FromClient, FromWorker, Holder, PROTOCOL_VERSION, Traffic, WorkerHello};
use rask_comm::time::Time;
use rask_comm::{Grants, Offer, PartRequest};
use rask_graphs::{ClientId, Registry, Value, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, Machine};
use rask_worker::exec::{CoreConfig, Ending, FetchOrder, Fetcher, FilePolicy, Uplink, WatchOrder, WorkerCore};
use rask_worker::machine::{FetchFailure, FetchItem};
use rask_worker::store::spill::{SpillArea, SpillConfig};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::gather::{Fetching, Manner, Miss, PartSource};
use crate::session::{Link, Session, UploadOrder, Uploader};

/// The only client of an embedded cluster.
const CLIENT: ClientId = ClientId(0);

/// What an embedded cluster consists of.
#[derive(Clone)]
pub struct LocalOptions {
    /// Workers; more than one only to see what moves between them.
    pub n_workers: u32,
    /// Slots of each worker.
    pub n_slots: u32,
    /// Memory limit of each worker in bytes, 0 for none.
    pub memory_limit: u64,
    /// Where each worker puts results that memory is too short for, in a directory of its own that goes with the cluster;
    /// `None` to keep them in memory.
    pub spill_dir: Option<PathBuf>,
    /// Directories that file operators may touch; `None` for all that this process's user may.
    pub data_roots: Option<Vec<PathBuf>>,
    /// Operators.
    pub registry: Arc<Registry>,
}

impl LocalOptions {
    /// One worker with a slot a core.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        let n_slots = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        Self { n_workers: 1, n_slots, memory_limit: 0, spill_dir: Some(default_spill_dir()), data_roots: None, registry }
    }
}

/// Where programs put big files that need not last: `TMPDIR` if that is set, else `/var/tmp`, which unlike `/tmp` is on a disk.
#[must_use]
pub fn default_spill_dir() -> PathBuf {
    let on_disk = PathBuf::from("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && on_disk.is_dir() { on_disk } else { std::env::temp_dir() }
}

/// Why an embedded cluster could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start an embedded cluster: {0}")]
pub struct LocalError(#[from] std::io::Error);

#[derive(Default)]
struct Inbox {
    events: VecDeque<Event>,
    /// Whether a thread is driving; it will see to what is added meanwhile.
    is_driven: bool,
}

/// The machine and everyone it speaks to.
struct Hub {
    inbox: Mutex<Inbox>,
    machine: Mutex<Machine>,
    workers: OnceLock<Vec<WorkerCore>>,
    session: OnceLock<Weak<Session>>,
    begun: Instant,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Hub {
    fn now(&self) -> Time {
        Time(self.begun.elapsed())
    }

    fn post(&self, events: impl Iterator<Item = Event>) {
        {
            let mut inbox = self.inbox.lock();
            inbox.events.extend(events);
            if inbox.is_driven {
                return;
            }
            inbox.is_driven = true;
        }
        self.drive();
    }

    /// Take turns of the machine until the inbox is empty. Only the thread that set `is_driven` is here.
    fn drive(&self) {
        let mut events = VecDeque::new();
        loop {
            {
                let mut inbox = self.inbox.lock();
                if inbox.events.is_empty() {
                    inbox.is_driven = false;
                    return;
                }
                std::mem::swap(&mut inbox.events, &mut events);
            }
            let mut out = Actions::default();
            let now = self.now();
            {
                let mut machine = self.machine.lock();
                for event in events.drain(..) {
                    machine.handle(now, event, &mut out);
                }
            }
            self.deliver(out);
        }
    }

    fn deliver(&self, out: Actions) {
        let workers = self.workers.get().map(Vec::as_slice).unwrap_or_default();
        for (worker, messages) in out.to_workers {
            if let Some(core) = workers.get(worker.index()) {
                core.deliver(messages);
            }
        }
        let session = self.session.get().and_then(Weak::upgrade);
        for (_, messages) in out.to_clients {
            if let Some(session) = &session {
                session.deliver(messages);
            }
        }
    }

    /// The machine's timeouts and the workers' measurements, on a thread of their own, until the cluster stops.
    fn keep_time(&self) {
        let mut last_measured = Instant::now();
        let mut stop = self.stop.lock();
        while !*stop {
            self.stopped.wait_for(&mut stop, Duration::from_millis(50));
            parking_lot::MutexGuard::unlocked(&mut stop, || {
                self.call_timeouts();
                if last_measured.elapsed() >= Duration::from_secs(1) {
                    last_measured = Instant::now();
                    self.workers.get().into_iter().flatten().for_each(|core| core.measure(Traffic::default()));
                }
            });
        }
    }

    fn call_timeouts(&self) {
        // Being the driver keeps the order of what the machine says.
        {
            let mut inbox = self.inbox.lock();
            if inbox.is_driven {
                return;
            }
            inbox.is_driven = true;
        }
        let mut out = Actions::default();
        {
            let now = self.now();
            let mut machine = self.machine.lock();
            if machine.poll_timeout().is_some_and(|(due, _)| due <= now) {
                machine.handle_timeout(now, &mut out);
            }
        }
        self.deliver(out);
        self.drive();
    }
}

/// A worker's way to the machine, and to its peers' stores.
struct Port {
    hub: Weak<Hub>,
    worker: WorkerId,
}

impl Uplink for Port {
    fn tell(&self, messages: &mut Vec<FromWorker>, _n_patient: usize) {
        if let Some(hub) = self.hub.upgrade() {
            let worker = self.worker;
            hub.post(messages.drain(..).map(|message| Event::WorkerSaid { worker, message }));
        }
    }

    fn end(&self, _ending: Ending) {
        if let Some(hub) = self.hub.upgrade() {
            hub.post(std::iter::once(Event::WorkerLost {
                worker: self.worker,
                was_graceful: true,
                reason: "it left".to_owned(),
            }));
        }
    }
}

impl Fetcher for Port {
    fn fetch(&self, core: &WorkerCore, order: FetchOrder) {
        let begun = Instant::now();
        let hub = self.hub.upgrade();
        let peer = hub.as_ref().and_then(|hub| hub.workers.get()?.get(order.from.index()));
        let fetch = order.fetch;
        for item in order.items {
            let core = core.clone();
            let answer = move |value| match value {
                Some(value) => drop(core.fetch_arrived(fetch, item, value, begun)),
                None => core.fetch_failed(fetch, item, FetchFailure::NotThere),
            };
            match peer {
                Some(peer) => peer.read_later(item, answer),
                None => answer(None),
            }
        }
    }

    fn watch(&self, core: &WorkerCore, order: WatchOrder) {
        let hub = self.hub.upgrade();
        match hub.as_ref().and_then(|hub| hub.workers.get()?.get(order.from.index())) {
            Some(peer) if order.begin.is_some() => peer.peer_watches(self.worker, order.items),
            Some(peer) => peer.peer_unwatches(self.worker, order.items),
            None => core.watch_lost(order.from),
        }
    }

    fn push(&self, core: &WorkerCore, to: WorkerId, item: FetchItem, value: Value) {
        let hub = self.hub.upgrade();
        match hub.as_ref().and_then(|hub| hub.workers.get()?.get(to.index())) {
            // Nothing is copied in this process, so nothing is too big to be sent along.
            Some(peer) => peer.pushed(self.worker, item, value),
            None => core.peer_gone(to),
        }
    }

    fn announce(&self, core: &WorkerCore, to: WorkerId, item: FetchItem, nbytes: u64) {
        let hub = self.hub.upgrade();
        match hub.as_ref().and_then(|hub| hub.workers.get()?.get(to.index())) {
            Some(peer) => peer.made(self.worker, item, nbytes),
            None => core.peer_gone(to),
        }
    }
}

struct ClientPort {
    hub: Weak<Hub>,
}

impl Link for ClientPort {
    fn send(&self, messages: Vec<FromClient>) {
        if let Some(hub) = self.hub.upgrade() {
            hub.post(messages.into_iter().map(|message| Event::ClientSaid { client: CLIENT, message }));
        }
    }
}

struct Stores {
    hub: Weak<Hub>,
}

impl PartSource for Stores {
    fn fetch(&self, holder: &Holder, _grants: Grants, items: Vec<PartRequest>, _manner: Manner) -> Fetching {
        let (reply, answers) = mpsc::unbounded_channel();
        let hub = self.hub.upgrade();
        let core = hub.as_ref().and_then(|hub| hub.workers.get()?.get(holder.worker.index()));
        for (idx, item) in items.into_iter().enumerate() {
            let reply = reply.clone();
            // Whoever asked may have gone meanwhile.
            let answer = move |value: Option<Value>| {
                drop(reply.send((idx, value.ok_or_else(|| Miss::of("it does not hold the result")))));
            };
            let item = FetchItem { task: item.task, attempt: item.attempt, part: item.part };
            match core {
                Some(core) => core.read_later(item, answer),
                None => answer(None),
            }
        }
        answers
    }
}

/// Puts values of the client into the workers' stores, as they are.
struct Shelf {
    hub: Weak<Hub>,
}

impl Uploader for Shelf {
    fn measure(&self, value: &Value) -> Result<u64, String> {
        Ok(value.nbytes())
    }

    fn upload(&self, orders: Vec<UploadOrder>) {
        let Some(hub) = self.hub.upgrade() else { return };
        for order in orders {
            let core = hub.workers.get().and_then(|workers| workers.get(order.to.worker.index()));
            let Some(core) = core.cloned() else { continue };
            let (UploadOrder { item, ticket, value, meter, .. }, taker) = (order, core.clone());
            let session = hub.session.get().cloned();
            let id = core.offer(Offer { ticket, items: vec![item] }, move |verdict| {
                if verdict == [true] {
                    meter.update(|progress| progress.nbytes_moved += item.nbytes);
                    taker.upload_arrived(item.task, item.attempt, value, Duration::ZERO);
                } else if let Some(session) = session.and_then(|session| session.upgrade()) {
                    session.not_uploaded(&item, false, "the worker does not take it".to_owned());
                }
            });
            // The worker heard what to expect before this client did.
            core.offer_overdue(id);
        }
    }
}

/// Stops the cluster when the client goes.
struct Cluster {
    hub: Arc<Hub>,
    spill: Vec<Arc<SpillArea>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        *self.hub.stop.lock() = true;
        self.hub.stopped.notify_all();
        self.hub.workers.get().into_iter().flatten().for_each(WorkerCore::shutdown);
        // Slots may go on for a while; the files need not.
        self.spill.iter().for_each(|area| area.close());
    }
}

pub(crate) fn start_local(options: LocalOptions) -> Result<Client, LocalError> {
    let hub = Arc::new(Hub {
        inbox: Mutex::default(),
        machine: Mutex::new(Machine::new(Config::default())),
        workers: OnceLock::new(),
        session: OnceLock::new(),
        begun: Instant::now(),
        stop: Mutex::new(false),
        stopped: Condvar::new(),
    });
    let mut cluster = Cluster { hub: Arc::clone(&hub), spill: Vec::new() };
    let mut cores = Vec::new();
    for idx in 0..options.n_workers.max(1) {
        let mut config = CoreConfig::new(&format!("local-{idx}"), options.n_slots);
        config.memory_limit = options.memory_limit;
        config.fails_tasks = true;
        config.n_in_process = options.n_workers.max(1);
        if let Some(directory) = options.spill_dir.as_ref().filter(|_| options.memory_limit > 0) {
            let area = SpillArea::create(&SpillConfig::new(directory), Arc::clone(&options.registry))?;
            cluster.spill.push(Arc::clone(&area));
            config.spill = Some(area);
        }
        if let Some(roots) = &options.data_roots {
            config.files = FilePolicy::beneath(roots, &[])?;
        }
        let port = Arc::new(Port { hub: Arc::downgrade(&hub), worker: WorkerId(idx) });
        cores.push(WorkerCore::start(&config, Arc::clone(&options.registry), Arc::clone(&port) as _, port)?);
    }
    let _ = hub.workers.set(cores);
    let timekeeper = Arc::clone(&hub);
    std::thread::Builder::new().name("local-clock".to_owned()).spawn(move || timekeeper.keep_time())?;

    let shelf = Box::new(Shelf { hub: Arc::downgrade(&hub) });
    let session = Arc::new(Session::new(Arc::new(ClientPort { hub: Arc::downgrade(&hub) }), shelf));
    let _ = hub.session.set(Arc::downgrade(&session));
    let client_hello = ClientHello { version: PROTOCOL_VERSION, name: "local".to_owned(), weight: 1.0 };
    let joins = (0..options.n_workers.max(1)).map(|idx| Event::WorkerJoined {
        worker: WorkerId(idx),
        hello: hello(idx, &options),
        key: rask_comm::KeyId::default(),
    });
    hub.post(joins.chain(std::iter::once(Event::ClientJoined {
        client: CLIENT,
        hello: client_hello,
        peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, "here"),
    })));
    let source = Arc::new(Stores { hub: Arc::downgrade(&hub) });
    Ok(Client::new(session, source, Box::new(cluster)))
}

fn hello(idx: u32, options: &LocalOptions) -> WorkerHello {
    WorkerHello {
        version: PROTOCOL_VERSION,
        name: format!("local-{idx}"),
        n_slots: options.n_slots.max(1),
        memory_limit: options.memory_limit,
        resources: Vec::new(),
        data_address: ([127, 0, 0, 1], 0).into(),
        host: "local".to_owned(),
        registry_fingerprint: options.registry.fingerprint(),
    }
}
