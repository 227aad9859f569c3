//! Which worker suits a task.
//!
//! A ready task goes to the candidate that could start it first: holders of its inputs (or workers that are making them),
//! biggest share first, and a few of the least loaded workers; never all workers. Start = when a slot is free there, or when
//! the last input is there, whichever is later. Tasks with wishes of their own go to queues that only workers that fit look at.

use std::cmp::Reverse;

use rask_comm::message::part_nbytes;
use rask_graphs::{Attempt, GraphId, Input, Source, TaskId, WorkerId};
use smallvec::SmallVec;

use super::core::Core;
use super::event::Actions;
use super::fairness::FlowId;
use super::graph_run::{IS_CONSTRAINED, NOBODY, TaskEntry, TaskState};
use super::workers::Rank;
use super::{dispatch, early, quarantine, replicas};

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
/// What a worker that is short of memory counts for, in nanoseconds of waiting.
const PAUSED_NS: u64 = 1_000_000_000;

/// All inputs of a task are in memory: send it, or keep it where the worker that suits it will find it.
pub(super) fn waiting_to_queued(core: &mut Core, task: TaskId, out: &mut Actions) {
    // It may have been queued before, while its inputs were being made.
    if core.entry(task).state != TaskState::Queued {
        core.set_state(task, TaskState::Queued, None);
    }
    core.entry_mut(task).worker = NOBODY;
    if core.entry(task).n_crashes > 0 && quarantine::push(core, task) {
        return;
    }
    if is_constrained(core, task) {
        push_constrained(core, task);
        return;
    }
    let is_root = core.run(task.graph).is_root(task.idx);
    let worker = if is_root { first_with_room(core) } else { choose_worker(core, task) };
    let with_room = worker.filter(|worker| core.workers.get(*worker).is_some_and(|worker| worker.has_room(&core.config)));
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
    let options = core.run(task.graph).graph.options_of(task.idx);
    options.is_none_or(|options| super::constraints::suits(options, entry, &core.workers, now))
}

/// A queued task with wishes of its own waits with its like.
pub(super) fn push_constrained(core: &mut Core, task: TaskId) {
    let rank = rank_of(core, task);
    let is_early = core.entry(task).is_early();
    let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
    // It is given out when the turn ends, together with the others, so that all of them go in order.
    let Some(options) = run.graph.options_of(task.idx) else { return };
    let class = core.constraints.class(options);
    core.constraints.push(class, run.flow, rank, is_early);
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
    core.workers.update(worker, |worker| worker.backlog.push(flow, rank, estimate));
}

/// The operator that `task` is learned under.
pub(super) fn operator_of(core: &Core, task: TaskId) -> u32 {
    let run = core.run(task.graph);
    run.operator_of[run.graph.body_of[task.idx.index()] as usize]
}

pub(super) fn estimate_ns(core: &Core, task: TaskId) -> u32 {
    core.learning.estimate_ns(operator_of(core, task))
}

/// What is where of a task's inputs.
#[derive(Default)]
struct Whereabouts {
    /// Workers with a share of them, in bytes, and when the last of that share is made there.
    shares: SmallVec<[(WorkerId, u64, u64); 8]>,
    nbytes: u64,
    /// When the last of all is made, and where; and the last of those made elsewhere.
    last_made: [(u64, WorkerId); 2],
}

impl Whereabouts {
    fn add(&mut self, worker: WorkerId, nbytes: u64, made_at: u64) {
        match self.shares.iter_mut().find(|(other, ..)| *other == worker) {
            Some((_, share, last)) => {
                *share += nbytes;
                *last = made_at.max(*last);
            }
            None => self.shares.push((worker, nbytes, made_at)),
        }
        if made_at == 0 {
            return;
        }
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

/// The candidate that could start `task` first.
pub(super) fn choose_worker(core: &Core, task: TaskId) -> Option<WorkerId> {
    let mut inputs = Whereabouts { last_made: [(0, NOBODY); 2], ..Whereabouts::default() };
    let run = core.run(task.graph);
    for input in &run.graph.inputs[run.inputs(task.idx)] {
        for_each_result(core, task.graph, *input, N_MEMBERS_SAMPLED, |result| {
            // Even nothing has to be fetched when it is elsewhere: it counts as a byte.
            let nbytes = result.nbytes.max(1);
            inputs.nbytes = inputs.nbytes.saturating_add(nbytes);
            for holder in result.holders {
                inputs.add(*holder, nbytes, result.made_at_ns);
            }
        });
    }
    inputs.shares.sort_unstable_by_key(|(worker, share, _)| (Reverse(*share), *worker));
    inputs.shares.truncate(N_HOLDERS);
    for worker in core.workers.least_loaded().take(N_LEAST_LOADED) {
        if !inputs.shares.iter().any(|(other, ..)| *other == worker) {
            inputs.shares.push((worker, 0, 0));
        }
    }
    let estimate = estimate_ns(core, task);
    let largest = inputs.shares.first().map_or(NOBODY, |(worker, ..)| *worker);
    let is_early = core.entry(task).is_early();
    let start = |&(worker, share, made_at): &(WorkerId, u64, u64)| {
        let entry = core.workers.get(worker)?;
        if entry.is_retiring {
            return None;
        }
        let missing = inputs.nbytes.saturating_sub(share);
        let transfer = if missing == 0 { 0 } else { transfer_ns(core, largest, worker, missing, estimate, is_early) };
        let paused = if entry.status.is_paused { PAUSED_NS } else { 0 };
        let start = if is_early {
            let arrives = made_at.max(inputs.last_made_elsewhere(worker).saturating_add(transfer));
            entry.free_at_ns(core.now_ns()).max(arrives)
        } else {
            entry.wait_ns().saturating_add(transfer)
        };
        Some((start.saturating_add(paused), entry.status.nbytes_results, worker))
    };
    inputs.shares.iter().filter_map(start).min().map(|(_, _, worker)| worker)
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
    /// When it is expected to be made, in nanoseconds of the machine's time; 0 when it is.
    pub(super) made_at_ns: u64,
}

/// Call `visit` for the results behind an input: one, or up to `limit` members of a group.
pub(super) fn for_each_result(core: &Core, graph: GraphId, input: Input, limit: usize, mut visit: impl FnMut(InputResult<'_>)) {
    let mut visit_task = |task: TaskId, entry: &TaskEntry| {
        let attempt = entry.attempt;
        if entry.state == TaskState::Processing {
            let nbytes = core.learning.estimate_nbytes(operator_of(core, task));
            let maker = core.workers.get(entry.worker);
            let made_at_ns = maker.map_or(0, |maker| maker.expected(entry.expected_end_ns)).max(core.now_ns());
            let holders = std::slice::from_ref(&entry.worker);
            visit(InputResult { task, attempt, nbytes, holders, is_made: false, made_at_ns });
        } else {
            let nbytes = part_nbytes(entry.nbytes, entry.n_parts, input.part);
            visit(InputResult { task, attempt, nbytes, holders: &entry.holders, is_made: true, made_at_ns: 0 });
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
