//! A farm: the scheduler machine and real worker machines in virtual time, for tests of where and when runs take place.
//!
//! A family of names has a duration and a size of result; a message takes 50 us, a worker sends 1 GB/s, one parcel after the
//! other. Nothing is drawn: the same test gives the same schedule. What happened is kept as lists, and questions about it
//! (who ran what, what was moved) are answered from them. A run that starts without its inputs is a failure of the farm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rask_comm::message::{ClientHello, FromClient, FromWorker, SubmitOptions, ToClient, ToWorker};
use rask_comm::time::Time;
use rask_graphs::keys::Keys;
use rask_graphs::{Attempt, ClientId, Graph, GraphId, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, Machine};
use rask_worker::machine::{
    Action, Event as WorkerEvent, FetchFailure, FetchId, FetchItem, Machine as WorkerMachine, MachineConfig,
};

/// One way, between any two.
pub(crate) const LATENCY: Duration = Duration::from_micros(50);
/// What a worker sends in a second, in bytes.
const BANDWIDTH: u64 = 1_000_000_000;
/// Results up to this size go along with the word that they are made.
const MAX_PUSHED_NBYTES: u64 = 64 << 10;
const CLIENT: ClientId = ClientId(0);

/// What a run of a family costs.
#[derive(Clone, Copy)]
struct Cost {
    duration: Duration,
    nbytes: u64,
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) worker: WorkerId,
    pub(crate) family: String,
    pub(crate) name: String,
    pub(crate) ended: Duration,
}

/// A result that has gone from one worker to another.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    pub(crate) from: WorkerId,
    pub(crate) family: String,
    pub(crate) nbytes: u64,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
}

struct Node {
    machine: WorkerMachine,
    store: BTreeSet<FetchItem>,
    sends_until: Duration,
    timer_at: Option<Duration>,
}

struct Parcel {
    from: WorkerId,
    to: WorkerId,
    item: FetchItem,
    began: Duration,
    why: Why,
}

#[derive(Clone, Copy)]
enum Why {
    Fetched { fetch: FetchId, asked_at: Duration },
    Pushed,
    Announced,
}

enum Delivery {
    Timer,
    ToWorker { worker: WorkerId, messages: Vec<ToWorker> },
    FromWorker { worker: WorkerId, messages: Vec<FromWorker> },
    Executed { worker: WorkerId, task: TaskId, attempt: Attempt, begun: Duration },
    Asked { peer: WorkerId, by: WorkerId, fetch: FetchId, items: Vec<FetchItem>, asked_at: Duration },
    Arrived(Parcel),
    Word { worker: WorkerId, event: WorkerEvent },
    WorkerTimer { worker: WorkerId },
}

/// The farm.
pub(crate) struct Farm {
    pub(crate) machine: Machine,
    pub(crate) now: Duration,
    pub(crate) ran: Vec<Ran>,
    pub(crate) moved: Vec<Moved>,
    /// Runs that workers were asked to give up.
    pub(crate) n_revokes: usize,
    /// Failures as the client heard of them.
    pub(crate) failures: Vec<String>,
    nodes: BTreeMap<WorkerId, Node>,
    n_workers: u32,
    agenda: BTreeMap<(Duration, u64), Delivery>,
    sequence: u64,
    timer_at: Option<Duration>,
    costs: BTreeMap<String, Cost>,
    keys: Vec<Keys>,
    n_ended: usize,
    /// Results of a family at a worker: now, and at most.
    held: BTreeMap<(WorkerId, String), (usize, usize)>,
    n_tasks: usize,
    n_events: usize,
}

impl Farm {
    /// A farm of workers with `slots`, and what runs of each family cost: `"root 100ms 8000000"`, microseconds as `us`.
    pub(crate) fn new(config: Config, slots: &[u32], costs: &[&str]) -> Self {
        let mut farm = Self {
            machine: Machine::new(config),
            now: Duration::ZERO,
            ran: Vec::new(),
            moved: Vec::new(),
            n_revokes: 0,
            failures: Vec::new(),
            nodes: BTreeMap::new(),
            n_workers: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            timer_at: None,
            costs: costs.iter().map(|line| cost(line)).collect(),
            keys: Vec::new(),
            n_ended: 0,
            held: BTreeMap::new(),
            n_tasks: 0,
            n_events: 0,
        };
        let hello = ClientHello { version: 1, name: "client".to_owned(), weight: 1.0 };
        farm.tell(Event::ClientJoined {
            client: CLIENT,
            hello,
            peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, "here"),
        });
        for n_slots in slots {
            farm.join(*n_slots);
        }
        farm
    }

    /// A worker joins.
    pub(crate) fn join(&mut self, n_slots: u32) -> WorkerId {
        let worker = WorkerId(self.n_workers);
        self.n_workers += 1;
        let machine = WorkerMachine::new(MachineConfig::new(n_slots, 0));
        self.nodes.insert(worker, Node { machine, store: BTreeSet::new(), sends_until: Duration::ZERO, timer_at: None });
        let hello = super::hello(worker, &format!("w{}", worker.0), n_slots, &[]);
        self.tell(Event::WorkerJoined { worker, hello, key: rask_comm::KeyId::default() });
        worker
    }

    /// A worker dies, with what it held and what it was sending.
    pub(crate) fn kill(&mut self, worker: WorkerId) {
        self.nodes.remove(&worker).expect("a worker that lives");
        self.held.retain(|(holder, _), _| *holder != worker);
        for peer in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.say(peer, WorkerEvent::WatchLost { from: worker });
            self.say(peer, WorkerEvent::PeerGone { peer: worker });
        }
        self.tell(Event::WorkerLost { worker, was_graceful: false, reason: "it was killed".to_owned() });
    }

    /// The client submits a graph.
    pub(crate) fn submit(&mut self, text: &str) -> GraphId {
        self.submit_on(text, &[])
    }

    /// The client submits a graph that uses results of earlier ones, by these names.
    pub(crate) fn submit_on(&mut self, text: &str, externals: &[(&str, TaskId)]) -> GraphId {
        let graph: Graph = super::graph_on(text, externals);
        let id = GraphId(self.keys.len() as u32);
        self.n_tasks += graph.n_tasks();
        self.keys.push(graph.keys.clone());
        let options = SubmitOptions { name: id.to_string(), ..SubmitOptions::default() };
        let message = FromClient::Submit { request: id.0, graph: Box::new(graph), options };
        self.tell(Event::ClientSaid { client: CLIENT, message });
        id
    }

    /// The client cancels a graph.
    pub(crate) fn cancel(&mut self, graph: GraphId) {
        self.tell(Event::ClientSaid { client: CLIENT, message: FromClient::Cancel { request: 0, graph } });
    }

    /// How many results there are at workers, copies included.
    pub(crate) fn n_stored(&self) -> usize {
        self.nodes.values().map(|node| node.store.len()).sum()
    }

    /// Runs of a family cost something else, those under way apart.
    pub(crate) fn set_cost(&mut self, line: &str) {
        self.costs.extend([cost(line)]);
    }

    /// Have one task of each of `families` run, so that what they cost is known, and forget that it happened.
    pub(crate) fn learn(&mut self, families: &[&str]) {
        for family in families {
            let graph = self.submit(&format!("{family}*"));
            self.run();
            let tasks = vec![TaskId::new(graph, TaskIdx(0))];
            self.tell(Event::ClientSaid { client: CLIENT, message: FromClient::Release { tasks } });
            self.run_for(Duration::from_millis(1));
        }
        self.ran.clear();
        self.moved.clear();
        self.held.clear();
        assert!(self.nodes.values().all(|node| node.store.is_empty()), "what was learned by is gone");
    }

    /// Let everything that has been submitted come to its end.
    pub(crate) fn run(&mut self) {
        while self.n_ended < self.keys.len() {
            assert!(self.step(Duration::from_secs(100_000)), "it never ends: {:?}", self.ran.last());
        }
    }

    /// Let time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    // Questions.

    /// Runs of `family` by worker, in the order of workers that there have been.
    pub(crate) fn runs_of(&self, family: &str) -> Vec<usize> {
        let n_runs = |worker| self.ran.iter().filter(|ran| ran.worker == WorkerId(worker) && ran.family == family).count();
        (0..self.n_workers).map(n_runs).collect()
    }

    /// The workers where `names` ran.
    pub(crate) fn places_of(&self, names: &[String]) -> BTreeSet<WorkerId> {
        self.ran.iter().filter(|ran| names.contains(&ran.name)).map(|ran| ran.worker).collect()
    }

    /// How many results of `family` went from worker to worker.
    pub(crate) fn n_moved(&self, family: &str) -> usize {
        self.moved.iter().filter(|moved| moved.family == family).count()
    }

    /// Most results of `family` at any one worker at once, copies included.
    pub(crate) fn most_held(&self, family: &str) -> usize {
        let of = self.held.iter().filter(|((_, held), _)| held == family);
        of.map(|(_, (_, most))| *most).max().unwrap_or(0)
    }

    /// How many runs of `graph` each worker has been given and not finished, in the order of workers.
    pub(crate) fn n_given(&self, graph: GraphId) -> Vec<usize> {
        let tasks = (0..self.keys[graph.0 as usize].len() as u32).map(|idx| TaskId::new(graph, TaskIdx(idx)));
        let places: Vec<_> = tasks.filter_map(|task| self.machine.processing_on(task)).collect();
        (0..self.n_workers).map(|worker| places.iter().filter(|place| **place == WorkerId(worker)).count()).collect()
    }

    // The scheduler.

    fn tell(&mut self, event: Event) {
        let mut actions = Actions::default();
        self.machine.handle(Time(self.now), event, &mut actions);
        self.carry_out_for_scheduler(actions);
    }

    fn carry_out_for_scheduler(&mut self, actions: Actions) {
        // Checking everything takes time linear in the tasks; of big graphs not every event is checked.
        self.n_events += 1;
        if self.n_events.is_multiple_of(1 + self.n_tasks / 100) {
            self.machine.validate();
        }
        assert!(actions.close_workers.is_empty() && actions.close_clients.is_empty(), "nobody has misbehaved");
        for (worker, messages) in actions.to_workers {
            self.n_revokes += messages.iter().filter(|message| matches!(message, ToWorker::Revoke { .. })).count();
            self.push(self.now + LATENCY, Delivery::ToWorker { worker, messages });
        }
        for message in actions.to_clients.into_values().flatten() {
            match message {
                ToClient::GraphEnded { .. } => self.n_ended += 1,
                ToClient::TaskFailed { failure, .. } => self.failures.push(format!("{}: {}", failure.key, failure.message)),
                ToClient::Rejected { reason, .. } | ToClient::Close { reason } => panic!("the scheduler refuses: {reason}"),
                ToClient::Welcome { .. }
                | ToClient::Accepted { .. }
                | ToClient::Cancelled { .. }
                | ToClient::Progress { .. }
                | ToClient::Waits { .. }
                | ToClient::TaskDone { .. }
                | ToClient::Located { .. }
                | ToClient::Upload { .. }
                | ToClient::Status { .. } => {}
            }
        }
        let Some((due, _)) = self.machine.poll_timeout() else { return };
        if self.timer_at.is_none_or(|at| due.0 < at) {
            self.timer_at = Some(due.0);
            self.push(due.0, Delivery::Timer);
        }
    }

    // Time.

    fn push(&mut self, at: Duration, delivery: Delivery) {
        self.sequence += 1;
        self.agenda.insert((at.max(self.now), self.sequence), delivery);
    }

    /// The next thing happens, if it is to happen by `until`.
    fn step(&mut self, until: Duration) -> bool {
        let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= until) else { return false };
        let ((at, _), delivery) = entry.remove_entry();
        self.now = at;
        match delivery {
            Delivery::Timer => {
                self.timer_at = None;
                if self.machine.poll_timeout().is_some_and(|(due, _)| due.0 <= at) {
                    let mut actions = Actions::default();
                    self.machine.handle_timeout(Time(at), &mut actions);
                    self.carry_out_for_scheduler(actions);
                }
            }
            Delivery::ToWorker { worker, messages } => {
                self.tell_worker(worker, messages.into_iter().map(WorkerEvent::SchedulerSaid).collect());
            }
            Delivery::FromWorker { worker, messages } => {
                for message in messages {
                    if self.nodes.contains_key(&worker) {
                        self.tell(Event::WorkerSaid { worker, message });
                    }
                }
            }
            Delivery::Executed { worker, task, attempt, begun } => self.end_run(worker, task, attempt, begun),
            Delivery::Asked { peer, by, fetch, items, asked_at } => self.serve(peer, by, fetch, items, asked_at),
            Delivery::Arrived(parcel) => self.unpack(parcel),
            Delivery::Word { worker, event } => self.tell_worker(worker, vec![event]),
            Delivery::WorkerTimer { worker } => {
                let Some(node) = self.nodes.get_mut(&worker) else { return true };
                node.timer_at = None;
                let mut actions = Vec::new();
                if node.machine.poll_timeout().is_some_and(|(due, _)| due.0 <= at) {
                    node.machine.handle_timeout(Time(at), &mut actions);
                }
                self.carry_out(worker, actions);
            }
        }
        true
    }

    // Workers. What reaches one that is dead is lost.

    fn tell_worker(&mut self, worker: WorkerId, events: Vec<WorkerEvent>) {
        let Some(node) = self.nodes.get_mut(&worker) else { return };
        let mut actions = Vec::new();
        for event in events {
            node.machine.handle(Time(self.now), event, &mut actions);
        }
        node.machine.validate();
        self.carry_out(worker, actions);
    }

    fn carry_out(&mut self, worker: WorkerId, actions: Vec<Action>) {
        let mut messages = Vec::new();
        for action in actions {
            match action {
                Action::Tell(message) => messages.push(message),
                Action::AddBody { .. } | Action::ForgetBodies { .. } | Action::Interrupt { .. } | Action::Admit { .. } => {}
                Action::Execute { task, attempt, inputs, .. } => {
                    let absent = inputs.iter().find(|item| !self.nodes[&worker].store.contains(item));
                    assert!(absent.is_none(), "{task} starts on {worker} without {absent:?}");
                    let ends_at = self.now + self.cost_of(task).duration;
                    self.push(ends_at, Delivery::Executed { worker, task, attempt, begun: self.now });
                }
                Action::Fetch { fetch, from, items, .. } => {
                    let asked = Delivery::Asked { peer: from, by: worker, fetch, items, asked_at: self.now };
                    self.push(self.now + LATENCY, asked);
                }
                Action::Watch { from, items, .. } => {
                    if self.nodes.contains_key(&from) {
                        self.say(from, WorkerEvent::PeerWatches { peer: worker, items });
                    } else {
                        self.say(worker, WorkerEvent::WatchLost { from });
                    }
                }
                Action::Unwatch { from, items } => self.say(from, WorkerEvent::PeerUnwatches { peer: worker, items }),
                Action::Push { to, item } => {
                    let is_small = self.cost_of(item.task).nbytes <= MAX_PUSHED_NBYTES;
                    self.send(worker, to, item, if is_small { Why::Pushed } else { Why::Announced });
                }
                Action::Drop(item) => self.drop_item(worker, item),
                Action::Exit { .. } => panic!("{worker} leaves, and nobody told it to"),
                Action::Spill { .. } | Action::Evict { .. } | Action::Abort { .. } => panic!("{worker} has no limit on memory"),
                Action::Close { reason } => panic!("{worker} ends the conversation: {reason}"),
            }
        }
        if !messages.is_empty() {
            self.push(self.now + LATENCY, Delivery::FromWorker { worker, messages });
        }
        let Some(node) = self.nodes.get_mut(&worker) else { return };
        let Some((due, _)) = node.machine.poll_timeout() else { return };
        if node.timer_at.is_none_or(|at| due.0 < at) {
            node.timer_at = Some(due.0);
            self.push(due.0, Delivery::WorkerTimer { worker });
        }
    }

    fn end_run(&mut self, worker: WorkerId, task: TaskId, attempt: Attempt, begun: Duration) {
        if !self.nodes.contains_key(&worker) {
            return;
        }
        let Cost { nbytes, .. } = self.cost_of(task);
        let (family, name) = (self.family_of(task), self.keys[task.graph.0 as usize].name(task.idx.0));
        self.ran.push(Ran { worker, family, name, ended: self.now });
        self.put(worker, FetchItem::whole(task, attempt));
        let duration_us = (self.now - begun).as_micros() as u64;
        let finished = WorkerEvent::ExecutionFinished { task, attempt, nbytes, n_parts: 0, duration_us, nbytes_peak: 0 };
        self.tell_worker(worker, vec![finished]);
    }

    // The network between workers.

    fn say(&mut self, to: WorkerId, event: WorkerEvent) {
        self.push(self.now + LATENCY, Delivery::Word { worker: to, event });
    }

    fn serve(&mut self, peer: WorkerId, by: WorkerId, fetch: FetchId, items: Vec<FetchItem>, asked_at: Duration) {
        for item in items {
            match self.nodes.get(&peer).map(|node| node.store.contains(&item)) {
                Some(true) => self.send(peer, by, item, Why::Fetched { fetch, asked_at }),
                Some(false) => self.say(by, WorkerEvent::FetchFailed { fetch, item, reason: FetchFailure::NotThere }),
                None => self.say(by, WorkerEvent::FetchFailed { fetch, item, reason: FetchFailure::Unreachable }),
            }
        }
    }

    fn send(&mut self, from: WorkerId, to: WorkerId, item: FetchItem, why: Why) {
        let nbytes = if matches!(why, Why::Announced) { 0 } else { self.cost_of(item.task).nbytes };
        let Some(node) = self.nodes.get_mut(&from) else { return };
        node.sends_until = node.sends_until.max(self.now) + Duration::from_nanos(nbytes * 1_000_000_000 / BANDWIDTH);
        let arrives = node.sends_until + LATENCY;
        self.push(arrives, Delivery::Arrived(Parcel { from, to, item, began: self.now, why }));
    }

    fn unpack(&mut self, parcel: Parcel) {
        let Parcel { from, to, item, began, why } = parcel;
        if !self.nodes.contains_key(&to) {
            return;
        }
        if !self.nodes.contains_key(&from) {
            // The connection broke before the last byte.
            if let Why::Fetched { fetch, .. } = why {
                self.say(to, WorkerEvent::FetchFailed { fetch, item, reason: FetchFailure::Unreachable });
            }
            return;
        }
        let nbytes = self.cost_of(item.task).nbytes;
        if !matches!(why, Why::Announced) {
            self.moved.push(Moved { from, family: self.family_of(item.task), nbytes, began, ended: self.now });
            self.put(to, item);
        }
        let event = match why {
            Why::Fetched { fetch, asked_at } => {
                let duration_us = (self.now - asked_at).as_micros() as u64;
                WorkerEvent::FetchArrived { fetch, item, nbytes, duration_us }
            }
            Why::Pushed => WorkerEvent::Pushed { from, item, nbytes },
            Why::Announced => WorkerEvent::Made { from, item, nbytes },
        };
        self.tell_worker(to, vec![event]);
    }

    // Results.

    fn put(&mut self, worker: WorkerId, item: FetchItem) {
        let family = self.family_of(item.task);
        if self.nodes.get_mut(&worker).is_some_and(|node| node.store.insert(item)) {
            let (held, most) = self.held.entry((worker, family)).or_default();
            *held += 1;
            *most = (*most).max(*held);
        }
    }

    fn drop_item(&mut self, worker: WorkerId, item: FetchItem) {
        let family = self.family_of(item.task);
        if self.nodes.get_mut(&worker).is_some_and(|node| node.store.remove(&item)) {
            let held = self.held.entry((worker, family)).or_default();
            held.0 = held.0.saturating_sub(1);
        }
    }

    fn family_of(&self, task: TaskId) -> String {
        self.keys[task.graph.0 as usize].family_name(task.idx.0).to_owned()
    }

    fn cost_of(&self, task: TaskId) -> Cost {
        let family = self.keys[task.graph.0 as usize].family_name(task.idx.0);
        *self.costs.get(family).unwrap_or_else(|| panic!("nobody said what \"{family}\" costs"))
    }
}

/// `"family 100ms 8000000"`, with `s`, `ms` or `us`; without a size the result has 100 bytes.
fn cost(line: &str) -> (String, Cost) {
    let mut words = line.split_whitespace();
    let family = words.next().expect("a family").to_owned();
    let duration = words.next().expect("a duration");
    let digits = duration.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let n: u64 = digits.parse().expect("a number");
    let duration = match &duration[digits.len()..] {
        "us" => Duration::from_micros(n),
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        unit => panic!("no unit \"{unit}\""),
    };
    let nbytes = words.next().map_or(100, |text| text.parse().expect("bytes"));
    (family, Cost { duration, nbytes })
}
