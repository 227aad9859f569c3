//! Which worker suits a task.
//!
//! A ready task goes to the candidate that could start it first: holders of its inputs (or workers that are making them),
//! biggest share first, and a few of the least loaded workers; never all workers. Start = when a slot is free there, or when
//! the last input is there, whichever is later. Tasks with wishes of their own go to queues that only workers that fit look at.

use std::cmp::Reverse;

use rask_comm::message::part_nbytes;
use rask_graphs::{Attempt, GraphId, Input, Source, TaskId, TaskOptions, WorkerId};
use smallvec::SmallVec;

use super::backlog::Backlog;
use super::core::Core;
use super::event::Actions;
use super::fairness::FlowId;
use super::graph_run::{DELAYED, DOUBTED, FOLLOWED, IS_CONSTRAINED, NOBODY, TaskEntry, TaskState, UPLOADED};
use super::workers::{Rank, Worker};
use super::{constraints, dispatch, early, quarantine, replicas, uploads};

/// How many holders, and how many of the least loaded workers, are considered.
pub(super) const N_HOLDERS: usize = 6;
const N_LEAST_LOADED: usize = 3;
/// How many members of a gather group are looked at when judging where its data is.
pub(super) const N_MEMBERS_SAMPLED: usize = 16;
/// Cost of any transfer at all, in nanoseconds: one that has to be asked for, and one that is pushed along when it is made (25 us on
/// loopback).
const FETCH_NS: u64 = 200_000;
pub(super) const PUSH_NS: u64 = 25_000;
/// Results up to this size are pushed along.
const MAX_PUSHED_NBYTES: u64 = 64 << 10;
/// How many times its time a transfer counts at least, and at most.
const MIN_RELUCTANCE: u64 = 2;
const MAX_RELUCTANCE: u64 = 64;

/// All inputs of a task are in memory: send it, or keep it where the worker that suits it will find it.
pub(super) fn waiting_to_queued(core: &mut Core, task: TaskId, out: &mut Actions) {
    // It may have been queued before, while its inputs were being made.
    if core.entry(task).state != TaskState::Queued {
        core.set_state(task, TaskState::Queued, None);
    }
    core.entry_mut(task).worker = NOBODY;
    if core.entry(task).has(UPLOADED) {
        uploads::push(core, task);
        return;
    }
    if core.entry(task).has(DELAYED) {
        return;
    }
    if core.entry(task).n_crashes > 0 && quarantine::push(core, task) {
        return;
    }
    if is_constrained(core, task) {
        push_constrained(core, task);
        return;
    }
    let is_root = core.run(task.graph).is_root(task.idx);
    let worker = if is_root { first_with_room(core) } else { choose_worker(core, task).map(|choice| choice.worker) };
    let is_doubted = core.entry(task).has(DOUBTED);
    let has_room = |worker: &WorkerId| core.workers.get(*worker).is_some_and(|at| at.has_room_for(&core.config, is_doubted));
    let with_room = worker.filter(has_room);
    if let Some(worker) = with_room {
        if dispatch::is_turn_of(core, task, worker) {
            if !replicas::park_if_hot(core, task, worker) {
                dispatch::queued_to_processing(core, task, worker, out);
            }
            return;
        }
        core.to_fill.push(worker);
    }
    match worker {
        Some(worker) if !is_root => push_backlog(core, worker, task),
        Some(_) | None => push_common(core, task),
    }
}

fn push_common(core: &mut Core, task: TaskId) {
    let (flow, rank) = (flow_of(core, task), rank_of(core, task));
    core.queue.push(flow, rank);
}

/// As [`waiting_to_queued`], or for a task whose inputs are still being made: look at it again when the turn ends.
pub(super) fn requeue(core: &mut Core, task: TaskId, out: &mut Actions) {
    core.set_state(task, TaskState::Waiting, None);
    if core.entry(task).is_early() {
        early::note_bindable(core, task);
    } else {
        waiting_to_queued(core, task, out);
    }
}

/// Whether the task may not run everywhere.
pub(super) fn is_constrained(core: &Core, task: TaskId) -> bool {
    core.entry(task).has(IS_CONSTRAINED)
}

/// Whether `worker` may run `task`; with `now`, whether it has the resources left for it, too.
pub(super) fn may_run(core: &Core, task: TaskId, worker: WorkerId, now: bool) -> bool {
    let Some(entry) = core.workers.get(worker).filter(|entry| !entry.is_retiring) else { return false };
    if !is_constrained(core, task) {
        return true;
    }
    let run = core.run(task.graph);
    let needs_above = run.needs_above.get(&task.idx).copied().unwrap_or_default();
    let options = run.graph.options_of(task.idx);
    constraints::has_more_than(entry, needs_above)
        && options.is_none_or(|options| constraints::suits(options, entry, &core.workers, now))
}

/// A queued task with wishes of its own waits with its like.
pub(super) fn push_constrained(core: &mut Core, task: TaskId) {
    let rank = rank_of(core, task);
    let is_early = core.entry(task).is_early();
    let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
    // It is given out when the turn ends, together with the others, so that all of them go in order.
    let any = TaskOptions::default();
    let options = run.graph.options_of(task.idx).unwrap_or(&any);
    let needs_above = run.needs_above.get(&task.idx).copied().unwrap_or_default();
    let class = core.constraints.class(options, needs_above);
    core.constraints.push(class, run.flow, rank, is_early, core.now);
    if core.constraints.is_due_for_sweep() {
        let mut constraints = std::mem::take(&mut core.constraints);
        constraints.sweep(|task, early| core.is_queued_at(task, NOBODY, early));
        core.constraints = constraints;
    }
    if options.workers.is_empty() || options.allow_other_workers {
        core.needs_filling = true;
    } else {
        core.to_fill.extend(options.workers.iter().flat_map(|name| core.workers.named(name)));
    }
}

pub(super) fn rank_of(core: &Core, task: TaskId) -> Rank {
    (Reverse(core.run(task.graph).options.priority), task)
}

/// Whose share of the workers `task` is run with.
pub(super) fn flow_of(core: &Core, task: TaskId) -> FlowId {
    core.run(task.graph).flow
}

fn first_with_room(core: &Core) -> Option<WorkerId> {
    core.workers
        .least_loaded()
        .take(N_LEAST_LOADED)
        .find(|worker| core.workers.get(*worker).is_some_and(|worker| worker.has_room(&core.config)))
}

/// A ready task waits for room at `worker`.
pub(super) fn push_backlog(core: &mut Core, worker: WorkerId, task: TaskId) {
    let (flow, rank, estimate) = (flow_of(core, task), rank_of(core, task), estimate_ns(core, task));
    core.entry_mut(task).worker = worker;
    let is_due = core.workers.update(worker, |worker| {
        worker.backlog.push(flow, rank, estimate);
        worker.backlog.is_due_for_sweep()
    });
    if is_due == Some(true) {
        sweep(core, worker, false);
    }
}

/// Drop what is in the backlog of `worker`, or in that of early runs, of tasks that have moved on.
pub(super) fn sweep(core: &mut Core, worker: WorkerId, early: bool) {
    let place =
        |entry: &mut Worker, backlog| std::mem::replace(if early { &mut entry.early } else { &mut entry.backlog }, backlog);
    let Some(mut backlog) = core.workers.update(worker, |entry| place(entry, Backlog::default())) else { return };
    backlog.sweep(|task| core.is_queued_at(task, worker, early));
    core.workers.update(worker, |entry| place(entry, backlog));
}

/// The operator that `task` is learned under.
pub(super) fn operator_of(core: &Core, task: TaskId) -> u32 {
    let run = core.run(task.graph);
    run.operator_of[run.graph.body_of[task.idx.index()] as usize]
}

pub(super) fn estimate_ns(core: &Core, task: TaskId) -> u32 {
    core.learning.estimate_ns(operator_of(core, task))
}

/// A worker's share of a task's inputs.
struct Share {
    worker: WorkerId,
    nbytes: u64,
    /// When the last of those that are being made there is made, and which that is.
    made_at: u64,
    last: Option<TaskId>,
}

/// What is where of a task's inputs.
struct Whereabouts {
    shares: SmallVec<[Share; 8]>,
    nbytes: u64,
    /// When the last of all is made, and where; and the last of those made elsewhere.
    last_made: [(u64, WorkerId); 2],
    /// Where the inputs are made that nobody is to be bound to but there, and whether that is at several workers.
    only: Option<WorkerId>,
    is_torn: bool,
}

impl Whereabouts {
    fn of(core: &Core, task: TaskId) -> Self {
        let mut inputs = Self { shares: SmallVec::new(), nbytes: 0, last_made: [(0, NOBODY); 2], only: None, is_torn: false };
        let run = core.run(task.graph);
        for input in &run.graph.inputs[run.inputs(task.idx)] {
            for_each_result(core, task.graph, *input, N_MEMBERS_SAMPLED, |result| inputs.add(&result));
        }
        inputs
    }

    fn add(&mut self, result: &InputResult<'_>) {
        // Even nothing has to be fetched when it is elsewhere: it counts as a byte.
        let nbytes = result.nbytes.max(1);
        self.nbytes = self.nbytes.saturating_add(nbytes);
        let being_made = (!result.is_made).then_some(result.task);
        for &worker in result.holders {
            match self.shares.iter_mut().find(|share| share.worker == worker) {
                Some(share) => {
                    share.nbytes += nbytes;
                    if being_made.is_some() && result.made_at_ns >= share.made_at {
                        (share.made_at, share.last) = (result.made_at_ns, being_made);
                    }
                }
                None => self.shares.push(Share { worker, nbytes, made_at: result.made_at_ns, last: being_made }),
            }
            if being_made.is_some() {
                self.note_made(worker, result.made_at_ns);
            }
        }
        if result.is_to_stay
            && let Some(&maker) = result.holders.first()
        {
            self.is_torn |= self.only.replace(maker).is_some_and(|other| other != maker);
        }
    }

    fn note_made(&mut self, worker: WorkerId, made_at: u64) {
        let [first, second] = &mut self.last_made;
        if made_at > first.0 {
            if first.1 != worker {
                *second = *first;
            }
            *first = (made_at, worker);
        } else if worker != first.1 && made_at > second.0 {
            *second = (made_at, worker);
        }
    }

    /// When the last input that is not made at `worker` is made.
    fn last_made_elsewhere(&self, worker: WorkerId) -> u64 {
        let [first, second] = self.last_made;
        if first.1 == worker { second.0 } else { first.0 }
    }
}

/// Where a task is best run.
pub(super) struct Choice {
    pub(super) worker: WorkerId,
    /// The run there whose slot it has when that is over, in case it is given early.
    pub(super) follows: Option<TaskId>,
}

/// The candidate that could start `task` first; nobody, if it is better not to say so before its inputs are made.
pub(super) fn choose_worker(core: &Core, task: TaskId) -> Option<Choice> {
    let mut inputs = Whereabouts::of(core, task);
    if inputs.is_torn {
        return None;
    }
    inputs.shares.sort_unstable_by_key(|share| (Reverse(share.nbytes), share.worker));
    if let Some(only) = inputs.only {
        inputs.shares.retain(|share| share.worker == only);
    } else {
        inputs.shares.truncate(N_HOLDERS);
        for worker in core.workers.least_loaded().take(N_LEAST_LOADED) {
            if !inputs.shares.iter().any(|share| share.worker == worker) {
                inputs.shares.push(Share { worker, nbytes: 0, made_at: 0, last: None });
            }
        }
    }
    let estimate = estimate_ns(core, task);
    let largest = inputs.shares.first().map_or(NOBODY, |share| share.worker);
    let is_early = core.entry(task).is_early();
    let now = core.now_ns();
    let start = |share: &Share| {
        let worker = share.worker;
        let entry = core.workers.get(worker)?;
        if entry.is_retiring {
            return None;
        }
        let missing = inputs.nbytes.saturating_sub(share.nbytes);
        let transfer = if missing == 0 { 0 } else { transfer_ns(core, largest, worker, missing, estimate, is_early) };
        let mut follows = None;
        let start = if is_early {
            let begins = if missing == 0 { 0 } else { now };
            let elsewhere = inputs.last_made_elsewhere(worker).max(begins).saturating_add(transfer);
            // Whoever makes the last input has a slot free when it is made: for one consumer.
            follows = share.last.filter(|last| share.made_at >= elsewhere && !core.entry(*last).has(FOLLOWED));
            let free_at = if follows.is_some() { now } else { entry.free_at_ns(now) };
            free_at.max(share.made_at).max(elsewhere)
        } else {
            entry.wait_ns().saturating_add(transfer)
        };
        Some((start.saturating_add(entry.pause_ns(now)), entry.status.nbytes_results, worker, follows))
    };
    let best = inputs.shares.iter().filter_map(start).min_by_key(|(start, nbytes, worker, _)| (*start, *nbytes, *worker));
    best.map(|(_, _, worker, follows)| Choice { worker, follows })
}

/// What bringing `missing` bytes to `worker` counts for a task that takes `estimate` nanoseconds: the time it takes, and more
/// when that is long beside the task, because moving data keeps two workers busy while the task keeps one.
pub(super) fn transfer_ns(core: &Core, from: WorkerId, worker: WorkerId, missing: u64, estimate: u32, is_early: bool) -> u64 {
    let latency = if is_early && missing <= MAX_PUSHED_NBYTES { PUSH_NS } else { FETCH_NS };
    let time = latency.saturating_add(core.learning.transfer_ns(from, worker, missing));
    time.saturating_mul((time / u64::from(estimate.max(1))).clamp(MIN_RELUCTANCE, MAX_RELUCTANCE))
}

/// A result that a task takes, made or being made.
pub(super) struct InputResult<'a> {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    /// Size of the part wanted, estimated unless it is a whole result that is made.
    pub(super) nbytes: u64,
    /// Who has it, or is to make it.
    pub(super) holders: &'a [WorkerId],
    pub(super) is_made: bool,
    /// Being made, and either nobody knows how big it will be or it is big and many want it: consumers are bound to it early
    /// at its maker only. The others are placed when it is made.
    pub(super) is_to_stay: bool,
    /// When it is expected to be made, in nanoseconds of the machine's time; 0 when it is.
    pub(super) made_at_ns: u64,
}

/// Call `visit` for the results behind an input: one, or up to `limit` members of a group.
pub(super) fn for_each_result(core: &Core, graph: GraphId, input: Input, limit: usize, mut visit: impl FnMut(InputResult<'_>)) {
    let mut visit_task = |task: TaskId, entry: &TaskEntry| {
        let attempt = entry.attempt;
        if entry.state == TaskState::Processing {
            let estimate = core.learning.estimate_nbytes(operator_of(core, task));
            let nbytes = estimate.unwrap_or(0);
            let is_wanted_by_many = entry.n_consumers as usize > 1 + replicas::N_PER_HOLDER;
            let is_to_stay = estimate.is_none() || nbytes >= core.config.hot_nbytes && is_wanted_by_many;
            let maker = core.workers.get(entry.worker);
            let made_at_ns = maker.map_or(0, |maker| maker.expected(entry.expected_end_ns)).max(core.now_ns());
            let holders = std::slice::from_ref(&entry.worker);
            visit(InputResult { task, attempt, nbytes, holders, is_made: false, is_to_stay, made_at_ns });
        } else {
            let nbytes = part_nbytes(entry.nbytes, entry.n_parts, input.part);
            let holders = &entry.holders;
            visit(InputResult { task, attempt, nbytes, holders, is_made: true, is_to_stay: false, made_at_ns: 0 });
        }
    };
    let run = core.run(graph);
    match input.source() {
        Source::Task(idx) => visit_task(TaskId::new(graph, idx), run.entry(idx)),
        Source::External(external) => {
            let task = run.graph.externals[external as usize];
            visit_task(task, core.entry(task));
        }
        Source::Group(group) => {
            for idx in run.graph.group_members[run.members(group)].iter().take(limit) {
                visit_task(TaskId::new(graph, *idx), run.entry(*idx));
            }
        }
    }
}
