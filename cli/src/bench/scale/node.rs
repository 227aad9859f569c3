//! A simulated worker: the real worker machine with a store that holds no bytes, slots that only take time, and two links.
//!
//! Everything a worker sends leaves through its outgoing link, one parcel after the other, and everything that reaches a
//! worker comes through its incoming link likewise. The network between has room for everything.

use anyhow::{Result, bail, ensure};
use rask_comm::message::WorkerStatus;
use rask_graphs::{Attempt, TaskId, WorkerId};
use rask_worker::machine::{Action, Event, FetchFailure, FetchId, FetchItem, Machine, MachineConfig};
use rustc_hash::FxHashSet;

use super::world::{Delivery, LATENCY_NS, World, time};

/// What a link carries: 1 GB/s.
const NS_PER_BYTE: u64 = 1;
/// Results up to this size go along with the word that they are made.
const MAX_PUSHED_NBYTES: u64 = 64 << 10;

/// Something on its way between two workers.
pub(super) struct Parcel {
    from: WorkerId,
    to: WorkerId,
    item: FetchItem,
    /// On the wire; 0 for mere word that it is made.
    nbytes: u64,
    why: Why,
}

enum Why {
    Fetched { fetch: FetchId, asked_at: u64 },
    Pushed,
    Announced,
}

/// Where a worker's slots have spent time without a run, in slot nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Idle {
    /// With runs given to the worker that miss inputs.
    pub(super) for_data: u64,
    /// With nothing given to it.
    pub(super) for_work: u64,
    since: u64,
    n_free: u64,
    has_runs: bool,
}

impl Idle {
    fn note(&mut self, now: u64, n_free: u64, has_runs: bool) {
        let spent = (now - self.since) * self.n_free;
        *(if self.has_runs { &mut self.for_data } else { &mut self.for_work }) += spent;
        (self.since, self.n_free, self.has_runs) = (now, n_free, has_runs);
    }
}

/// A simulated worker.
pub(super) struct Node {
    machine: Machine,
    n_slots: u64,
    pub(super) store: FxHashSet<FetchItem>,
    nbytes: u64,
    /// Most bytes of results held at once.
    pub(super) peak_nbytes: u64,
    pub(super) idle: Idle,
    outgoing_free_at: u64,
    incoming_free_at: u64,
    timer_at: Option<u64>,
}

impl Node {
    pub(super) fn new(n_slots: u32) -> Self {
        let config = MachineConfig { story_len: 0, ..MachineConfig::new(n_slots, 0) };
        Self {
            machine: Machine::new(config),
            n_slots: u64::from(n_slots),
            store: FxHashSet::default(),
            nbytes: 0,
            peak_nbytes: 0,
            idle: Idle { n_free: u64::from(n_slots), ..Idle::default() },
            outgoing_free_at: 0,
            incoming_free_at: 0,
            timer_at: None,
        }
    }

    /// Whether the very item, or the whole result it is a part of, is here.
    fn has(&self, item: FetchItem) -> bool {
        self.store.contains(&item) || self.store.contains(&FetchItem::whole(item.task, item.attempt))
    }

    fn put(&mut self, item: FetchItem, nbytes: u64) {
        if self.store.insert(item) {
            self.nbytes += nbytes;
            self.peak_nbytes = self.peak_nbytes.max(self.nbytes);
        }
    }

    fn drop_item(&mut self, item: FetchItem, nbytes: u64) {
        if self.store.remove(&item) {
            self.nbytes -= nbytes;
        }
    }
}

impl World<'_> {
    fn node(&mut self, worker: WorkerId) -> &mut Node {
        &mut self.nodes[worker.index()]
    }

    fn nbytes_of(&self, item: FetchItem) -> u64 {
        self.workload.part_nbytes(item.task.idx, item.part)
    }

    /// One turn of a worker: hand it what has happened, then carry out what it asks for.
    pub(super) fn tell_worker(&mut self, worker: WorkerId, events: impl IntoIterator<Item = Event>) -> Result<()> {
        let (now, mut actions) = (self.now, std::mem::take(&mut self.actions));
        let node = self.node(worker);
        for event in events {
            node.machine.handle(time(now), event, &mut actions);
        }
        self.carry_out(worker, actions)
    }

    pub(super) fn worker_timer(&mut self, worker: WorkerId) -> Result<()> {
        let (now, mut actions) = (self.now, std::mem::take(&mut self.actions));
        let node = self.node(worker);
        node.timer_at = None;
        if node.machine.poll_timeout().is_some_and(|(due, _)| due <= time(now)) {
            node.machine.handle_timeout(time(now), &mut actions);
        }
        self.carry_out(worker, actions)
    }

    pub(super) fn tell_status(&mut self, worker: WorkerId) -> Result<()> {
        let status = WorkerStatus { nbytes_results: self.node(worker).nbytes, ..WorkerStatus::default() };
        self.tell_worker(worker, [Event::Measured(Box::new(status))])
    }

    fn carry_out(&mut self, worker: WorkerId, mut actions: Vec<Action>) -> Result<()> {
        let mut messages = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Tell(message) => messages.push(message),
                Action::AddBody { .. } | Action::ForgetBodies { .. } | Action::Admit { .. } => {}
                Action::Execute { task, attempt, inputs, .. } => self.begin_run(worker, task, attempt, &inputs)?,
                // A kernel that does not look whether it was cancelled.
                Action::Interrupt { .. } => {}
                Action::Fetch { fetch, from, items, .. } => {
                    let asked = Delivery::Asked { peer: from, by: worker, fetch, items, asked_at: self.now };
                    self.agenda.push(self.now + LATENCY_NS, asked);
                }
                Action::Watch { from, items, .. } => self.say(from, Event::PeerWatches { peer: worker, items }),
                Action::Unwatch { from, items } => self.say(from, Event::PeerUnwatches { peer: worker, items }),
                Action::Push { to, item } => self.push(worker, to, item),
                Action::Drop(item) => {
                    let nbytes = self.nbytes_of(item);
                    self.node(worker).drop_item(item, nbytes);
                }
                Action::Spill { .. } | Action::Evict { .. } | Action::Abort { .. } => {
                    bail!("{worker} has no limit, and is short of memory")
                }
                Action::Exit { .. } => bail!("{worker} leaves, and nobody told it to"),
                Action::Close { reason } => bail!("{worker} ends the conversation: {reason}"),
            }
        }
        self.actions = actions;
        if !messages.is_empty() {
            self.counts.n_frames_up += 1;
            self.agenda.push(self.now + LATENCY_NS, Delivery::FromWorker { worker, messages });
        }
        self.settle(worker);
        Ok(())
    }

    /// A worker's turn is over: arm its timer, and note how busy it is.
    fn settle(&mut self, worker: WorkerId) {
        let (now, has_ended) = (self.now, self.ended_at.is_some());
        let node = self.node(worker);
        if !has_ended {
            let n_free = node.n_slots - node.machine.n_executing() as u64;
            node.idle.note(now, n_free, node.machine.n_waiting() > 0);
        }
        let Some((due, _)) = node.machine.poll_timeout() else { return };
        let due = (due.0.as_nanos() as u64).max(now);
        if node.timer_at.is_none_or(|at| due < at) {
            node.timer_at = Some(due);
            self.agenda.push(due, Delivery::WorkerTimer { worker });
        }
    }

    /// Time without a run at the end, by worker added up.
    pub(super) fn idle(&mut self) -> Idle {
        let until = self.ended_at.unwrap_or(self.now);
        let mut all = Idle::default();
        for node in &mut self.nodes {
            node.idle.note(until.max(node.idle.since), 0, false);
            all.for_data += node.idle.for_data;
            all.for_work += node.idle.for_work;
        }
        all
    }

    // Slots.

    fn begin_run(&mut self, worker: WorkerId, task: TaskId, attempt: Attempt, inputs: &[FetchItem]) -> Result<()> {
        let absent = inputs.iter().find(|item| !self.nodes[worker.index()].has(**item));
        ensure!(absent.is_none(), "{task} starts on {worker} without {absent:?}");
        let duration_us = self.workload.costs[task.idx.index()].duration_us;
        let ends_at = self.now + u64::from(duration_us) * 1_000;
        self.agenda.push(ends_at, Delivery::Executed { worker, task, attempt, begun: self.now });
        Ok(())
    }

    pub(super) fn end_run(&mut self, worker: WorkerId, task: TaskId, attempt: Attempt, begun: u64) -> Result<()> {
        let cost = self.workload.costs[task.idx.index()];
        self.counts.n_runs += 1;
        self.n_runs_of[task.idx.index()] += 1;
        let (now, key) = (self.now, self.schedule.is_some().then(|| self.key(task.idx)));
        if let (Some(schedule), Some(key)) = (&mut self.schedule, key) {
            schedule.add_run(begun, now, worker, key);
        }
        let nbytes = u64::from(cost.nbytes);
        self.node(worker).put(FetchItem::whole(task, attempt), nbytes);
        let duration_us = (now - begun) / 1_000;
        self.tell_worker(
            worker,
            [Event::ExecutionFinished { task, attempt, nbytes, n_parts: cost.n_parts, duration_us, nbytes_peak: 0 }],
        )
    }

    // The network between workers.

    fn say(&mut self, to: WorkerId, event: Event) {
        self.agenda.push(self.now + LATENCY_NS, Delivery::Word { worker: to, event });
    }

    /// A peer answers a fetch.
    pub(super) fn serve(&mut self, peer: WorkerId, by: WorkerId, fetch: FetchId, items: Vec<FetchItem>, asked_at: u64) {
        for item in items {
            if self.node(peer).has(item) {
                let nbytes = self.nbytes_of(item);
                self.send(Parcel { from: peer, to: by, item, nbytes, why: Why::Fetched { fetch, asked_at } });
            } else {
                self.counts.n_misses += 1;
                self.say(by, Event::FetchFailed { fetch, item, reason: FetchFailure::NotThere });
            }
        }
    }

    /// Send a small result to a peer that watches it, or word of a big one.
    fn push(&mut self, from: WorkerId, to: WorkerId, item: FetchItem) {
        let nbytes = self.nbytes_of(item);
        let parcel = if nbytes <= MAX_PUSHED_NBYTES {
            Parcel { from, to, item, nbytes, why: Why::Pushed }
        } else {
            Parcel { from, to, item, nbytes: 0, why: Why::Announced }
        };
        self.send(parcel);
    }

    fn send(&mut self, parcel: Parcel) {
        let now = self.now;
        let sender = self.node(parcel.from);
        sender.outgoing_free_at = sender.outgoing_free_at.max(now) + parcel.nbytes * NS_PER_BYTE;
        let sent_at = sender.outgoing_free_at;
        self.agenda.push(sent_at, Delivery::Sent(Box::new(parcel)));
    }

    /// A parcel has left its sender. It has been coming in all the while, unless the receiver's link was taken.
    pub(super) fn receive(&mut self, parcel: Box<Parcel>) {
        let now = self.now;
        let receiver = self.node(parcel.to);
        receiver.incoming_free_at = now.max(receiver.incoming_free_at + parcel.nbytes * NS_PER_BYTE);
        let arrives_at = receiver.incoming_free_at + LATENCY_NS;
        self.agenda.push(arrives_at, Delivery::Arrived(parcel));
    }

    pub(super) fn unpack(&mut self, parcel: Parcel) -> Result<()> {
        let Parcel { from, to, item, nbytes, why } = parcel;
        let size = self.nbytes_of(item);
        if !matches!(why, Why::Announced) {
            self.counts.n_transfers += 1;
            self.counts.nbytes_moved += nbytes;
            self.node(to).put(item, size);
        }
        let (now, key) = (self.now, self.schedule.is_some().then(|| self.key(item.task.idx)));
        if let (Some(schedule), Some(key)) = (&mut self.schedule, key) {
            schedule.add_transfer(now, from, to, key, nbytes);
        }
        let event = match why {
            Why::Fetched { fetch, asked_at } => {
                Event::FetchArrived { fetch, item, nbytes, duration_us: (now - asked_at) / 1_000 }
            }
            Why::Pushed => {
                self.counts.n_pushed += 1;
                Event::Pushed { from, item, nbytes }
            }
            Why::Announced => Event::Made { from, item, nbytes: size },
        };
        self.tell_worker(to, [event])
    }
}
