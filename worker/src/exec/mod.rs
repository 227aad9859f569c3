//! Slots: a pool of threads that run kernels and drive the machine themselves.
//!
//! The point of the design: a slot that finishes a run locks the worker's core, tells the machine, and takes the next run
//! itself. Between two runs there is no hand-off to another thread. Networks are somebody else's: messages leave through an
//! [`Uplink`] and fetches through a [`Fetcher`].
//!
//! **How an embedder drives it.** [`WorkerCore::start`] spawns the slots. Give it every message of the scheduler in order with
//! [`WorkerCore::deliver`], the first being `Welcome`. Answer every [`FetchOrder`] item by item with
//! [`WorkerCore::fetch_arrived`] or [`WorkerCore::fetch_failed`]. Call [`WorkerCore::measure`] every second or so. One core
//! serves one registration: when the scheduler is gone, [`WorkerCore::shutdown`] it, drop it with its store, and start another.
//!
//! **Order and locks.** The uplink is called in the order in which the machine spoke, by one thread at a time, and never under
//! the core's lock; neither is the fetcher. So both may call straight back into this or another core (an in-process cluster
//! does), and whatever that makes the machine say is told after they return, by the thread that is telling already.

mod bodies;
mod files;
pub(crate) mod lending;
mod panics;
mod ports;
mod sending;
mod slot;
#[cfg(test)]
mod spill_tests;
mod spilling;
#[cfg(test)]
mod tests;
mod uploads;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rask_comm::message::{FromWorker, ToWorker};
use rask_comm::time::Time;
use rask_graphs::{Attempt, Registry, TaskId, Value, WorkerId};
use rustc_hash::FxHashMap;

use crate::machine::{Action, Event, FetchFailure, FetchId, FetchItem, Machine, MachineConfig, OfferId};
use crate::store::Store;
use crate::store::spill::SpillArea;
use bodies::Bodies;
pub use files::FilePolicy;
pub use ports::{Ending, FetchOrder, Fetcher, Uplink, WatchOrder};
use sending::Sending;
use slot::{IS_BETWEEN_RUNS, Job};
use spilling::Spilling;
use uploads::OnAdmitted;

/// Something a [`Fetcher`] is to do once the lock is released, in order.
enum Errand {
    Fetch(FetchOrder),
    Watch(WatchOrder),
    Push { to: WorkerId, item: FetchItem, value: Value },
    Announce { to: WorkerId, item: FetchItem, nbytes: u64 },
    Admit { on_admitted: OnAdmitted, verdict: Vec<bool> },
}

/// What a core is started with.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Name of the worker, for the names of its threads.
    pub name: String,
    /// Runs it executes at once: threads in the pool.
    pub n_slots: u32,
    /// Memory limit of the process in bytes, 0 for none.
    pub memory_limit: u64,
    /// Where results go that memory is too short for; `None` to keep them in memory.
    pub spill: Option<Arc<SpillArea>>,
    /// Whether runs fail when memory is as good as used up, rather than [`Ending::Exhausted`] ask for the end of the process.
    pub fails_tasks: bool,
    /// Workers in this process: each counts an equal share of what the process takes.
    pub n_in_process: u32,
    /// The files that graphs may touch.
    pub files: FilePolicy,
    /// Stack of a slot in bytes; only what is used of it costs memory.
    pub stack_nbytes: usize,
}

impl CoreConfig {
    /// `n_slots` slots with 16 MiB of stack, no memory limit, all files.
    #[must_use]
    pub fn new(name: &str, n_slots: u32) -> Self {
        Self {
            name: name.to_owned(),
            n_slots: n_slots.max(1),
            memory_limit: 0,
            spill: None,
            fails_tasks: false,
            n_in_process: 1,
            files: FilePolicy::everything(),
            stack_nbytes: 16 << 20,
        }
    }
}

/// A worker without its network; see the module's documentation. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct WorkerCore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Idle slots wait here for [`State::jobs`].
    work: Condvar,
    /// Whether there is one, for slots that look without the lock: a hint.
    has_jobs: AtomicBool,
    /// The timekeeper waits here for something to time.
    timer: Condvar,
    store: Arc<Store>,
    spilling: Spilling,
    sending: Sending,
    registry: Arc<Registry>,
    uplink: Arc<dyn Uplink>,
    fetcher: Arc<dyn Fetcher>,
    files: FilePolicy,
    memory_limit: Option<u64>,
    begun: Instant,
}

/// Everything behind the core's lock.
struct State {
    machine: Machine,
    bodies: Bodies,
    /// Runs that a slot has to take. The machine starts a run only when a slot is free, so never more than slots.
    jobs: VecDeque<Job>,
    /// The cancel flag of every run that the machine has started; as many as slots at most.
    flags: Vec<(TaskId, Attempt, Arc<AtomicBool>)>,
    /// Actions of the turn under way; empty between turns.
    actions: Vec<Action>,
    /// What is to be told, fetched and freed once the lock is released. Emptied at the end of every turn.
    outgoing: Vec<FromWorker>,
    errands: Vec<Errand>,
    /// Who made the offers that wait.
    offers: FxHashMap<OfferId, OnAdmitted>,
    n_offers: u64,
    garbage: Vec<Value>,
    ending: Option<Ending>,
    has_ended: bool,
    /// When a result that a peer has made was last heard of.
    last_heard_of_peers: Option<Instant>,
    /// Whether a thread is telling and fetching right now; it will see to what is added meanwhile.
    is_draining: bool,
    n_idle: usize,
    /// Idle slots that have been woken and have not come to yet.
    n_woken: usize,
    /// Slots that look for a run without sleeping.
    n_looking: usize,
    is_timer_parked: bool,
    is_shut_down: bool,
}

/// A worker whose peers were heard of this lately is likely to hear of them again as soon.
const LATELY: Duration = Duration::from_millis(1);

impl State {
    /// How many messages may wait for company, so that the scheduler is not woken for every task: as many as there are runs
    /// left to go on with. None when one of them wants an answer, and none when this worker has nothing to run and what it
    /// waits for has not been coming in lately.
    fn patience(&self) -> usize {
        let can_wait = |message: &FromWorker| {
            matches!(message, FromWorker::Finished { .. } | FromWorker::Fetched { .. } | FromWorker::Executing { .. })
        };
        let is_idle = self.machine.n_executing() == 0;
        if is_idle && self.last_heard_of_peers.is_none_or(|at| at.elapsed() > LATELY) || !self.outgoing.iter().all(can_wait) {
            return 0;
        }
        self.machine.n_waiting()
    }
}

impl WorkerCore {
    /// Start the slots of a worker that has not been welcomed yet.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        config: &CoreConfig,
        registry: Arc<Registry>,
        uplink: Arc<dyn Uplink>,
        fetcher: Arc<dyn Fetcher>,
    ) -> io::Result<Self> {
        let mut machine = MachineConfig::new(config.n_slots, config.memory_limit);
        machine.memory.can_spill = config.spill.is_some();
        machine.memory.fails_tasks = config.fails_tasks;
        let state = State {
            machine: Machine::new(machine),
            bodies: Bodies::default(),
            jobs: VecDeque::new(),
            flags: Vec::new(),
            actions: Vec::new(),
            outgoing: Vec::new(),
            errands: Vec::new(),
            offers: FxHashMap::default(),
            n_offers: 0,
            garbage: Vec::new(),
            ending: None,
            has_ended: false,
            last_heard_of_peers: None,
            is_draining: false,
            n_idle: 0,
            n_woken: 0,
            n_looking: 0,
            is_timer_parked: false,
            is_shut_down: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            has_jobs: AtomicBool::new(false),
            timer: Condvar::new(),
            store: Arc::new(Store::new()),
            spilling: Spilling::new(config),
            sending: Sending::new(config.memory_limit),
            registry,
            uplink,
            fetcher,
            files: config.files.clone(),
            memory_limit: Some(config.memory_limit).filter(|&limit| limit > 0),
            begun: Instant::now(),
        });
        panics::install();
        let core = Self { shared };
        if let Err(error) = core.spawn_threads(config) {
            core.shutdown();
            return Err(error);
        }
        Ok(core)
    }

    fn spawn_threads(&self, config: &CoreConfig) -> io::Result<()> {
        for idx in 0..config.n_slots.max(1) {
            let core = self.clone();
            let thread = thread::Builder::new().name(format!("{}-slot{idx}", config.name)).stack_size(config.stack_nbytes);
            thread.spawn(move || slot::run(&core))?;
        }
        if self.shared.spilling.is_needed() {
            let core = self.clone();
            thread::Builder::new().name(format!("{}-spill", config.name)).spawn(move || core.tend_files())?;
        }
        let core = self.clone();
        thread::Builder::new().name(format!("{}-timer", config.name)).spawn(move || core.keep_time())?;
        Ok(())
    }

    /// Messages of the scheduler, in the order sent.
    pub fn deliver(&self, messages: impl IntoIterator<Item = ToWorker>) {
        let mut messages = messages.into_iter().peekable();
        // A long batch is taken in pieces, so that a slot that finishes meanwhile need not wait for the end of it.
        while messages.peek().is_some() {
            let mut state = self.shared.state.lock();
            for message in messages.by_ref().take(MAX_BATCH) {
                self.handle(&mut state, Event::SchedulerSaid(message));
            }
            self.drain(&mut state);
        }
    }

    /// One item of a [`FetchOrder`] that `begun` then has arrived. Returns how long that took until it was stored.
    pub fn fetch_arrived(&self, fetch: FetchId, item: FetchItem, value: Value, begun: Instant) -> Duration {
        let nbytes = value.nbytes();
        let mut state = self.shared.state.lock();
        // In one turn with the news: what is put here must not be dropped by the turn of a push that it has overtaken.
        let replaced = self.shared.store.put(item, value);
        let took = begun.elapsed();
        self.handle(&mut state, Event::FetchArrived { fetch, item, nbytes, duration_us: micros(took) });
        self.drain(&mut state);
        drop(state);
        drop(replaced);
        took
    }

    /// One item of a [`FetchOrder`] will not come.
    pub fn fetch_failed(&self, fetch: FetchId, item: FetchItem, reason: FetchFailure) {
        self.turn(Event::FetchFailed { fetch, item, reason });
    }

    /// An item of a [`WatchOrder`] was made by the peer `from` and came along.
    pub fn pushed(&self, from: WorkerId, item: FetchItem, value: Value) {
        let nbytes = value.nbytes();
        let mut state = self.shared.state.lock();
        // What nobody waits for from this peer must not take the place of what is held.
        let unused = if state.machine.awaits(from, item) { self.shared.store.put(item, value) } else { Some(value) };
        self.hear_of_peer(&mut state, Event::Pushed { from, item, nbytes });
        drop(state);
        drop(unused);
    }

    /// An item of a [`WatchOrder`] was made by the peer `from` and is to be fetched.
    pub fn made(&self, from: WorkerId, item: FetchItem, nbytes: u64) {
        self.hear_of_peer(&mut self.shared.state.lock(), Event::Made { from, item, nbytes });
    }

    fn hear_of_peer(&self, state: &mut MutexGuard<'_, State>, event: Event) {
        state.last_heard_of_peers = Some(Instant::now());
        self.handle(state, event);
        self.drain(state);
    }

    /// Nothing that is watched at the peer `from` will be heard of.
    pub fn watch_lost(&self, from: WorkerId) {
        self.turn(Event::WatchLost { from });
    }

    /// A peer watches for results of this worker.
    pub fn peer_watches(&self, peer: WorkerId, items: Vec<FetchItem>) {
        self.turn(Event::PeerWatches { peer, items });
    }

    /// A peer does not watch for these any more.
    pub fn peer_unwatches(&self, peer: WorkerId, items: Vec<FetchItem>) {
        self.turn(Event::PeerUnwatches { peer, items });
    }

    /// A peer that watched for results of this worker is gone, or its connection is.
    pub fn peer_gone(&self, peer: WorkerId) {
        self.turn(Event::PeerGone { peer });
    }

    /// Ask the scheduler to let this worker go; [`Uplink::end`] follows when it has.
    pub fn retire(&self) {
        self.turn(Event::RetireRequested);
    }

    /// The results held here, for serving them to peers and clients.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Look at the machine, for tests and for people.
    pub fn inspect<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.shared.state.lock().machine)
    }

    /// Tell every slot to end after its run, and every run to stop at its next check. Does not wait: a kernel that does not
    /// check goes on until its end, and what it makes is dropped with the store.
    pub fn shutdown(&self) {
        let mut state = self.shared.state.lock();
        state.is_shut_down = true;
        state.jobs.clear();
        // Dropped once the lock is: whoever waits hears of it.
        let offers = std::mem::take(&mut state.offers);
        for (_, _, flag) in &state.flags {
            flag.store(true, Ordering::Relaxed);
        }
        drop(state);
        drop(offers);
        self.shared.work.notify_all();
        self.shared.timer.notify_all();
        self.shared.spilling.shutdown();
    }

    fn now(&self) -> Time {
        Time(self.shared.begun.elapsed())
    }

    fn turn(&self, event: Event) {
        let mut state = self.shared.state.lock();
        self.handle(&mut state, event);
        self.drain(&mut state);
    }

    /// Let the machine decide, and do what can be done under the lock; [`WorkerCore::drain`] does the rest.
    fn handle(&self, state: &mut State, event: Event) {
        if state.is_shut_down {
            return;
        }
        let mut actions = std::mem::take(&mut state.actions);
        state.machine.handle(self.now(), event, &mut actions);
        for action in actions.drain(..) {
            self.perform(state, action);
        }
        state.actions = actions;
    }

    fn perform(&self, state: &mut State, action: Action) {
        match action {
            Action::Tell(message) => state.outgoing.push(message),
            Action::AddBody { id, body, label, is_of_user } => {
                state.bodies.add(id, body, &label, self.shared.files.of(is_of_user).clone());
            }
            Action::ForgetBodies { graph } => state.bodies.forget(graph),
            Action::Execute { task, attempt, body, inputs, spread } => {
                let cancelled = Arc::new(AtomicBool::new(false));
                state.flags.push((task, attempt, Arc::clone(&cancelled)));
                let is_in_file = |input| self.shared.store.spilled_nbytes(input).is_some();
                let reads_files = self.shared.spilling.has_files() && inputs.iter().any(is_in_file);
                let body = state.bodies.get(body);
                state.jobs.push_back(Job { task, attempt, body, inputs, spread, reads_files, cancelled });
                if state.is_timer_parked {
                    state.is_timer_parked = false;
                    self.shared.timer.notify_one();
                }
            }
            Action::Interrupt { task, attempt } => {
                for (_, _, flag) in state.flags.iter().filter(|(of, which, _)| *of == task && *which == attempt) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
            Action::Fetch { fetch, from, address, name, items } => {
                state.errands.push(Errand::Fetch(FetchOrder { fetch, from, address, name, items }));
            }
            Action::Watch { from, address, name, pass, items } => {
                state.errands.push(Errand::Watch(WatchOrder { from, begin: Some((address, name, pass)), items }));
            }
            Action::Unwatch { from, items } => {
                state.errands.push(Errand::Watch(WatchOrder { from, begin: None, items }));
            }
            Action::Push { to, item } => {
                // A part that cannot be taken out of its whole never comes; the watcher's run fails when it asks by itself.
                if let Some(value) = self.shared.store.get(&item) {
                    state.errands.push(Errand::Push { to, item, value });
                } else if let Some(nbytes) = self.shared.store.spilled_nbytes(&item) {
                    state.errands.push(Errand::Announce { to, item, nbytes });
                }
            }
            Action::Admit { offer, verdict } => {
                if let Some(on_admitted) = state.offers.remove(&offer) {
                    state.errands.push(Errand::Admit { on_admitted, verdict });
                }
            }
            Action::Drop(item) => state.garbage.extend(self.shared.store.remove(&item)),
            Action::Spill { task, attempt } => self.shared.spilling.write(task, attempt),
            Action::Evict { task, attempt } => state.garbage.extend(self.shared.store.evict(task, attempt)),
            Action::Abort { reason } => state.ending = Some(Ending::Exhausted { reason }),
            Action::Exit { lost } => state.ending = Some(Ending::Left { lost }),
            Action::Close { reason } => state.ending = Some(Ending::Closed { reason }),
        }
    }

    /// Tell, fetch and free what the turn has left to do, with the lock released meanwhile, until nothing is left. A thread
    /// that finds another one at it leaves its share to that one: so order is kept, and a callback may take turns.
    fn drain(&self, state: &mut MutexGuard<'_, State>) {
        if state.is_draining {
            self.wake_slots(state, IS_BETWEEN_RUNS.get());
            return;
        }
        state.is_draining = true;
        let mut takes_a_job = IS_BETWEEN_RUNS.get();
        while !(state.outgoing.is_empty() && state.errands.is_empty() && state.garbage.is_empty() && state.ending.is_none()) {
            self.wake_slots(state, takes_a_job);
            let n_patient = state.patience();
            let mut outgoing = std::mem::take(&mut state.outgoing);
            let errands = std::mem::take(&mut state.errands);
            let garbage = std::mem::take(&mut state.garbage);
            let ending = state.ending.take().filter(|_| !state.has_ended);
            state.has_ended |= ending.is_some();
            MutexGuard::unlocked(state, || {
                // Results go before reports: a peer waits for them. What is of no use any more can wait.
                for errand in errands {
                    match errand {
                        Errand::Fetch(order) => self.shared.fetcher.fetch(self, order),
                        Errand::Watch(order) => self.shared.fetcher.watch(self, order),
                        Errand::Push { to, item, value } => self.shared.fetcher.push(self, to, item, value),
                        Errand::Announce { to, item, nbytes } => self.shared.fetcher.announce(self, to, item, nbytes),
                        Errand::Admit { on_admitted, verdict } => on_admitted(verdict),
                    }
                }
                if !outgoing.is_empty() {
                    self.shared.uplink.tell(&mut outgoing, n_patient);
                }
                if let Some(ending) = ending {
                    self.shared.uplink.end(ending);
                }
                drop(garbage);
            });
            if state.outgoing.is_empty() {
                outgoing.clear();
                state.outgoing = outgoing;
            } else {
                // Others keep this thread busy with their news: let another slot have the run it meant to take.
                takes_a_job = false;
            }
        }
        state.is_draining = false;
        self.wake_slots(state, takes_a_job);
    }

    /// A run has ended on this thread: tell the machine. [`WorkerCore::drain`] is to follow.
    fn take_end(&self, state: &mut State, news: Event) {
        if let Event::ExecutionFinished { task, attempt, .. }
        | Event::ExecutionFailed { task, attempt, .. }
        | Event::InputGone { task, attempt, .. } = &news
        {
            state.flags.retain(|(of, which, _)| of != task || which != attempt);
        }
        self.handle(state, news);
    }

    /// Wake as many idle slots as there are runs to take, less the one that the calling thread takes itself: as a slot, or as
    /// a thread that has lent itself.
    fn wake_slots(&self, state: &mut State, takes_a_job: bool) {
        if lending::is_lent()
            && let Some(job) = state.jobs.pop_front_if(|job| job.is_short() && !job.reads_files)
        {
            lending::give(self, job);
        }
        self.shared.has_jobs.store(!state.jobs.is_empty(), Ordering::Relaxed);
        let n_jobs = state.jobs.len().saturating_sub(usize::from(takes_a_job) + state.n_looking);
        while state.n_woken < n_jobs.min(state.n_idle) {
            state.n_woken += 1;
            self.shared.work.notify_one();
        }
    }

    /// Call the machine's timeouts. Parked while there is none; a burst of short runs wakes this thread every
    /// [`MachineConfig::blame_after`] at most.
    fn keep_time(&self) {
        let mut state = self.shared.state.lock();
        while !state.is_shut_down {
            let Some((due, _)) = state.machine.poll_timeout() else {
                state.is_timer_parked = true;
                self.shared.timer.wait(&mut state);
                continue;
            };
            let now = self.now();
            if due > now {
                self.shared.timer.wait_for(&mut state, due.since(now));
                continue;
            }
            let mut actions = std::mem::take(&mut state.actions);
            state.machine.handle_timeout(now, &mut actions);
            for action in actions.drain(..) {
                self.perform(&mut state, action);
            }
            state.actions = actions;
            self.drain(&mut state);
        }
    }
}

/// Messages that are taken in under one lock.
const MAX_BATCH: usize = 64;

impl fmt::Debug for WorkerCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerCore").finish_non_exhaustive()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
