//! The workers: what each offers, what it has been given, and an index of them by load.
//!
//! Which tasks a worker runs or holds is not kept here but in the task entries: looking for them is one pass over the
//! entries when a worker is lost or retires, and free the rest of the time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use rask_comm::KeyId;
use rask_comm::message::{WorkerHello, WorkerStatus};
use rask_graphs::{Attempt, BodyId, GraphId, TaskId, WorkerId};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::backlog::Backlog;
use super::config::Config;
use super::fairness::FlowId;

/// Order in which ready tasks of one client run: higher priority, then earlier graph, then lower index.
pub(super) type Rank = (Reverse<i32>, TaskId);

/// Slots beyond this number are planned as if they were this many.
const MAX_SLOTS_PLANNED: u32 = 64;
/// How many runs given to a worker are remembered at least; and twice as many as it has not finished.
const N_GIVEN: usize = 32;
/// How long a plan may expect slots to wait for inputs, beyond as long as they work.
const MAX_GAP_NS: u64 = 1_000_000;
/// What a worker that is short of memory counts for, in nanoseconds of waiting: that much, and so much more for each nanosecond
/// that it has been. What waits for it stays there for a moment, for moving data is dear, but not for ever.
const PAUSED_NS: u64 = 1_000_000_000;
const PAUSED_GROWTH: u64 = 16;

/// One worker.
pub(super) struct Worker {
    pub(super) hello: WorkerHello,
    /// The key of its certificate.
    pub(super) key: KeyId,
    /// What is left of each of `hello.resources`, in the same order.
    pub(super) free_resources: Vec<f64>,
    pub(super) n_processing: u32,
    /// Estimated cost of what it has been given, in nanoseconds.
    pub(super) occupancy_ns: u64,
    /// Of these: runs some of whose inputs are not in memory, and their estimated cost in nanoseconds.
    pub(super) n_early: u32,
    pub(super) early_ns: u64,
    /// The latest runs given to it, oldest first: at least as many as it has not finished. Entries of runs that are over are
    /// skipped when met.
    pub(super) given: VecDeque<(TaskId, Attempt)>,
    /// Runs that it has been asked to give up, and runs that others have been asked to give up for it.
    pub(super) n_outgoing: u32,
    pub(super) n_incoming: u32,
    /// When each slot is expected to have done what has been given, in nanoseconds of the machine's time.
    slot_ends: SmallVec<[u64; 4]>,
    /// How much later than planned the last run ended, in nanoseconds.
    drift_ns: i64,
    pub(super) n_results: u32,
    /// Values that clients have been asked to upload to it, and their bytes.
    pub(super) n_uploads: u32,
    pub(super) nbytes_uploading: u64,
    /// Bytes of values that it has taken in since it last told its state.
    pub(super) nbytes_uploaded: u64,
    pub(super) is_retiring: bool,
    /// Of the runs given to it: those of doubted tasks. With one of these it is given no more runs than it has slots.
    pub(super) n_doubted: u32,
    /// It is given nothing, so that a suspect can run alone.
    pub(super) is_reserved: bool,
    /// It has broken the contract, and its connection is being closed.
    pub(super) is_expelled: bool,
    /// It has been told that it may leave.
    pub(super) is_dismissed: bool,
    /// While retiring: results it alone holds, on their way to others.
    pub(super) moving: BTreeSet<TaskId>,
    pub(super) status: WorkerStatus,
    /// Since when it has been short of memory, in nanoseconds of the machine's time.
    paused_since: Option<u64>,
    pub(super) known_bodies: FxHashSet<BodyId>,
    /// The gather groups it has been told of, and in which version.
    pub(super) known_groups: FxHashMap<(GraphId, u32), u32>,
    pub(super) known_peers: FxHashSet<WorkerId>,
    /// Ready tasks that are best run here and wait for room.
    pub(super) backlog: Backlog,
    /// Tasks bound to this worker whose inputs are still being made and that wait for early room.
    pub(super) early: Backlog,
    /// Estimated cost of tasks that are to run here once they may fetch a big input, in nanoseconds.
    pub(super) parked_ns: u64,
    /// The client it was last given a run for, and how often that has changed.
    round: (Option<FlowId>, u32),
}

impl Worker {
    fn new(hello: WorkerHello, key: KeyId) -> Self {
        Self {
            slot_ends: SmallVec::from_elem(0, hello.n_slots.clamp(1, MAX_SLOTS_PLANNED) as usize),
            free_resources: hello.resources.iter().map(|(_, amount)| *amount).collect(),
            hello,
            key,
            n_processing: 0,
            occupancy_ns: 0,
            given: VecDeque::new(),
            n_outgoing: 0,
            n_incoming: 0,
            drift_ns: 0,
            n_early: 0,
            early_ns: 0,
            n_results: 0,
            n_uploads: 0,
            nbytes_uploading: 0,
            nbytes_uploaded: 0,
            is_retiring: false,
            n_doubted: 0,
            is_reserved: false,
            is_expelled: false,
            is_dismissed: false,
            moving: BTreeSet::new(),
            status: WorkerStatus::default(),
            paused_since: None,
            known_bodies: FxHashSet::default(),
            known_groups: FxHashMap::default(),
            known_peers: FxHashSet::default(),
            backlog: Backlog::default(),
            early: Backlog::default(),
            parked_ns: 0,
            round: (None, 0),
        }
    }

    pub(super) fn n_slots(&self) -> u32 {
        self.hello.n_slots.max(1)
    }

    /// Estimated nanoseconds until a slot is free for one more task.
    pub(super) fn wait_ns(&self) -> u64 {
        if self.n_ready() < self.n_slots() && self.backlog.is_empty() && self.parked_ns == 0 {
            return 0;
        }
        (self.occupancy_ns + self.backlog.cost_ns() + self.parked_ns) / u64::from(self.n_slots())
    }

    /// It has told its state.
    pub(super) fn note_status(&mut self, now: u64, status: WorkerStatus) {
        self.paused_since = status.is_paused.then(|| self.paused_since.unwrap_or(now));
        self.status = status;
    }

    /// What being short of memory counts for, in nanoseconds of waiting.
    pub(super) fn pause_ns(&self, now: u64) -> u64 {
        self.paused_since.map_or(0, |since| PAUSED_NS.saturating_add(now.saturating_sub(since).saturating_mul(PAUSED_GROWTH)))
    }

    /// Runs that it has been given and can start, or has started.
    pub(super) fn n_ready(&self) -> u32 {
        self.n_processing - self.n_early
    }

    /// A run given to it begins (or ceases) to miss inputs.
    pub(super) fn count_early(&mut self, is_early: bool, estimate_ns: u64) {
        if is_early {
            self.n_early += 1;
            self.early_ns += estimate_ns;
        } else {
            self.n_early -= 1;
            self.early_ns -= estimate_ns;
        }
    }

    /// What was planned for `planned`, as it stands now: the plan moves with what the last finished run taught. In nanoseconds of
    /// the machine's time, as everything here.
    pub(super) fn expected(&self, planned: u64) -> u64 {
        planned.saturating_add_signed(self.drift_ns)
    }

    /// A run that was planned to end at `planned` has ended: the plan was wrong by so much.
    pub(super) fn note_ended(&mut self, now: u64, planned: u64) {
        let bound = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        self.drift_ns = bound(now) - bound(planned);
    }

    /// When a slot is expected to be free for a run with inputs that is given now. Roots do not count: they come later in the
    /// order than what continues work begun, so such a run does not wait for them. Gaps in which slots wait for inputs count;
    /// where estimates have drifted from what happened, the number of runs given bounds the error.
    pub(super) fn free_at_ns(&self, now: u64) -> u64 {
        let backlog = (self.backlog.cost_ns() + self.early.cost_ns()) / u64::from(self.n_slots());
        if self.n_processing == 0 {
            return now + backlog;
        }
        let given = self.occupancy_ns / u64::from(self.n_slots());
        let planned = self.slot_ends.iter().copied().min().unwrap_or(now);
        self.expected(planned).clamp(now, now + 2 * given + MAX_GAP_NS) + backlog
    }

    /// Plan a run with inputs that can start at `ready` (0: at once) on the slot that is free first; it has not been counted
    /// yet. Tells when it is planned to end.
    pub(super) fn take_slot(&mut self, now: u64, ready: u64, estimate_ns: u64) -> u64 {
        if self.n_processing == 0 {
            self.slot_ends.fill(now);
            self.drift_ns = 0;
        }
        // What waits in the backlogs comes after it.
        let backlog = (self.backlog.cost_ns() + self.early.cost_ns()) / u64::from(self.n_slots());
        let end = (self.free_at_ns(now) - backlog).max(ready) + estimate_ns;
        let planned = end.saturating_add_signed(-self.drift_ns);
        if let Some(slot) = self.slot_ends.iter_mut().min() {
            *slot = planned;
        }
        planned
    }

    /// When a root that is given now is planned to end: after everything given before.
    pub(super) fn plan_root(&mut self, now: u64, estimate_ns: u64) -> u64 {
        let end = now + self.occupancy_ns / u64::from(self.n_slots()) + estimate_ns;
        end.saturating_add_signed(-self.drift_ns)
    }

    /// It is given a run.
    pub(super) fn note_given(&mut self, task: TaskId, attempt: Attempt) {
        self.given.push_back((task, attempt));
        while self.given.len() > 2 * self.n_processing as usize + N_GIVEN {
            self.given.pop_front();
        }
    }

    /// Whether a slot has nothing to do, nor will have for what is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.takes_runs() && self.n_ready() + self.n_incoming < self.n_slots()
    }

    /// The round of a run that is given now for `flow`. The worker goes by rounds first, so that clients get their turns there
    /// in the order in which they got them here, and a client's own order counts between its own runs.
    pub(super) fn next_round(&mut self, flow: FlowId) -> u32 {
        let (last, round) = &mut self.round;
        *round += u32::from(last.is_some_and(|last| last != flow));
        *last = Some(flow);
        *round
    }

    pub(super) fn takes_runs(&self) -> bool {
        !self.is_retiring && !self.is_reserved && !self.is_expelled && !self.status.is_paused
    }

    /// Whether another run may be sent: below saturation, or below the prefill while tasks are short.
    pub(super) fn has_room(&self, config: &Config) -> bool {
        if !self.takes_runs() || (self.n_doubted > 0 && !self.has_free_slot()) {
            return false;
        }
        let is_short = self.n_ready() < config.max_prefill && self.occupancy_ns - self.early_ns < self.prefill_ns(config);
        !self.is_saturated(config) || is_short
    }

    /// As [`Worker::has_room`]; a doubted task is given only when it can start at once.
    pub(super) fn has_room_for(&self, config: &Config, is_doubted: bool) -> bool {
        self.has_room(config) && (!is_doubted || self.has_free_slot())
    }

    fn has_free_slot(&self) -> bool {
        self.n_processing < self.n_slots()
    }

    /// Whether another run may be sent whose inputs are still being made: one a slot, or a few milliseconds' worth.
    pub(super) fn has_early_room(&self, config: &Config) -> bool {
        if !self.takes_runs() || self.n_doubted > 0 {
            return false;
        }
        self.n_early < config.max_early && (self.n_early < self.n_slots() || self.early_ns < self.prefill_ns(config))
    }

    /// Whether it has been given as many tasks as keep its slots busy while tasks are long.
    pub(super) fn is_saturated(&self, config: &Config) -> bool {
        self.n_ready() >= (f64::from(self.n_slots()) * config.saturation).ceil() as u32
    }

    /// Whether it has so much ahead that giving it more can wait.
    pub(super) fn is_well_ahead(&self, config: &Config) -> bool {
        let ready_ns = self.occupancy_ns - self.early_ns;
        let has_half = self.n_ready() >= config.max_prefill / 2 || ready_ns >= self.prefill_ns(config) / 2;
        self.is_saturated(config) && has_half
    }

    /// As [`Worker::is_well_ahead`], of runs whose inputs are still being made.
    pub(super) fn is_well_ahead_early(&self, config: &Config) -> bool {
        let has_half = self.n_early >= config.max_early / 2 || self.early_ns >= self.prefill_ns(config) / 2;
        self.n_early >= self.n_slots() && has_half
    }

    fn prefill_ns(&self, config: &Config) -> u64 {
        config.prefill.as_nanos() as u64 * u64::from(self.n_slots())
    }

    /// The position of resource `name` in `free_resources`.
    fn resource(&self, name: &str) -> Option<usize> {
        self.hello.resources.iter().position(|(own, _)| own == name)
    }

    /// Whether the worker has `wanted` at all, or, with `free`, has it left.
    pub(super) fn offers(&self, wanted: &[(String, f64)], free: bool) -> bool {
        wanted.iter().all(|(name, amount)| {
            self.resource(name).is_some_and(|at| {
                let there = if free { self.free_resources[at] } else { self.hello.resources[at].1 };
                there >= *amount
            })
        })
    }

    /// Take (`sign` -1) or give back (`sign` +1) resources.
    pub(super) fn adjust_resources(&mut self, wanted: &[(String, f64)], sign: f64) {
        for (name, amount) in wanted {
            if let Some(at) = self.resource(name) {
                self.free_resources[at] += sign * amount;
            }
        }
    }
}

/// Whether a worker is short of memory, nanoseconds of work (a slot, in the index by load), and the worker.
type Place = (bool, u64, WorkerId);

/// All workers by id, and the schedulable ones by load.
#[derive(Default)]
pub(super) struct Workers {
    table: Vec<Option<Box<Worker>>>,
    /// Workers that do not retire, the least loaded first; and those whose backlog is not empty, longest last. Those that are
    /// short of memory come after the others in both.
    by_load: BTreeSet<Place>,
    by_backlog: BTreeSet<Place>,
    /// Workers by the name that restrictions use.
    by_name: FxHashMap<String, SmallVec<[WorkerId; 1]>>,
    n_connected: u32,
}

impl Workers {
    pub(super) fn insert(&mut self, id: WorkerId, hello: WorkerHello, key: KeyId) {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        self.by_name.entry(hello.name.clone()).or_default().push(id);
        self.table[id.index()] = Some(Box::new(Worker::new(hello, key)));
        self.by_load.insert((false, 0, id));
        self.n_connected += 1;
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Box<Worker>> {
        let worker = self.table.get_mut(id.index())?.take()?;
        if let Some(named) = self.by_name.get_mut(&worker.hello.name) {
            named.retain(|other| *other != id);
            if named.is_empty() {
                self.by_name.remove(&worker.hello.name);
            }
        }
        self.by_load.remove(&load_place(id, &worker));
        self.by_backlog.remove(&backlog_place(id, &worker));
        self.n_connected -= 1;
        Some(worker)
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.table.get(id.index())?.as_deref()
    }

    /// The workers called `name`.
    pub(super) fn named(&self, name: &str) -> &[WorkerId] {
        self.by_name.get(name).map(SmallVec::as_slice).unwrap_or_default()
    }

    pub(super) fn len(&self) -> u32 {
        self.n_connected
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.table.iter().enumerate().filter_map(|(id, worker)| Some((WorkerId(id as u32), worker.as_deref()?)))
    }

    /// Change a worker and keep the indexes true.
    pub(super) fn update<R>(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        let worker = self.table.get_mut(id.index())?.as_deref_mut()?;
        let (old_load, old_backlog, was_retiring) = (load_place(id, worker), backlog_place(id, worker), worker.is_retiring);
        let result = change(worker);
        let (new_load, new_backlog) = (load_place(id, worker), backlog_place(id, worker));
        if old_load != new_load || was_retiring != worker.is_retiring {
            self.by_load.remove(&old_load);
            if !worker.is_retiring {
                self.by_load.insert(new_load);
            }
        }
        if old_backlog != new_backlog {
            self.by_backlog.remove(&old_backlog);
            if new_backlog.1 > 0 {
                self.by_backlog.insert(new_backlog);
            }
        }
        Some(result)
    }

    /// Schedulable workers, least loaded first; those that are short of memory last.
    pub(super) fn least_loaded(&self) -> impl Iterator<Item = WorkerId> {
        self.by_load.iter().map(|(_, _, id)| *id)
    }

    /// Schedulable workers that are (or are not) short of memory, most loaded first.
    pub(super) fn most_loaded(&self, is_paused: bool) -> impl Iterator<Item = WorkerId> {
        self.by_load.range(those_that_are(is_paused)).rev().map(|(_, _, id)| *id)
    }

    /// The worker with the longest backlog of those that are (or are not) short of memory.
    pub(super) fn longest_backlog(&self, is_paused: bool) -> Option<WorkerId> {
        self.by_backlog.range(those_that_are(is_paused)).next_back().map(|(_, _, id)| *id)
    }

    /// Panics when an index does not match the table.
    pub(super) fn validate(&self) {
        for (id, worker) in self.iter() {
            assert_eq!(self.by_load.contains(&load_place(id, worker)), !worker.is_retiring, "{id}: load index");
            worker.backlog.validate();
            let place = backlog_place(id, worker);
            assert_eq!(self.by_backlog.contains(&place), place.1 > 0, "{id}: backlog index");
            for (at, (name, total)) in worker.hello.resources.iter().enumerate() {
                let free = worker.free_resources[at];
                assert!(free >= -1e-9 && free <= total + 1e-9, "{id}: {free} of {total} {name} free");
            }
        }
        assert_eq!(self.iter().count(), self.n_connected as usize, "number of workers");
        assert_eq!(self.by_name.values().map(SmallVec::len).sum::<usize>(), self.n_connected as usize, "workers by name");
    }
}

fn load_place(id: WorkerId, worker: &Worker) -> Place {
    (worker.status.is_paused, (worker.occupancy_ns + worker.parked_ns) / u64::from(worker.n_slots()), id)
}

fn backlog_place(id: WorkerId, worker: &Worker) -> Place {
    (worker.status.is_paused, worker.backlog.cost_ns(), id)
}

fn those_that_are(is_paused: bool) -> RangeInclusive<Place> {
    (is_paused, 0, WorkerId(0))..=(is_paused, u64::MAX, WorkerId(u32::MAX))
}
