//! Which worker runs what, and when it is sent.
//!
//! A ready task goes to the candidate that could start it first: holders of its inputs, biggest share first, and a few of
//! the least loaded workers; never all workers. Start = work queued there per slot + missing bytes / bandwidth. A worker is
//! sent only a little more than it has slots, or a few milliseconds' worth of short tasks; the rest stays here, in the
//! worker's backlog (when its data is there) or in the common queue (tasks without inputs), so late information still
//! counts and moving a task that has not been sent costs nothing.

use std::cmp::Reverse;

use rask_comm::message::{Run, RunInput, ToWorker};
use rask_graphs::{Attempt, BodyId, GraphId, Input, Part, Source, TaskId, WorkerId};
use smallvec::SmallVec;

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{IS_CONSTRAINED, NOBODY, TaskState};
use super::transitions::{self, part_nbytes};
use super::workers::Rank;

/// How many holders, and how many of the least loaded workers, are considered.
const N_HOLDERS: usize = 6;
const N_LEAST_LOADED: usize = 3;
/// How many short tasks a worker is given in a row.
const BLOCK: usize = 64;
/// How many members of a gather group are looked at when judging where its data is.
const N_MEMBERS_SAMPLED: usize = 16;
/// Cost of moving a byte (1 GB/s), and of any transfer at all, in nanoseconds.
const NS_PER_BYTE: u64 = 1;
const TRANSFER_NS: u64 = 200_000;

/// How many times its time a transfer counts at most.
const MAX_RELUCTANCE: u64 = 64;

/// Where a ready task waits.
enum Claim {
    Backlog,
    Common,
    Constrained(usize),
}

/// All inputs of a waiting task are in memory: send it, or keep it where the worker that suits it will find it.
pub(super) fn waiting_to_queued(core: &mut Core, task: TaskId, out: &mut Actions) {
    core.set_state(task, TaskState::Queued, None);
    core.entry_mut(task).worker = NOBODY;
    let rank = rank_of(core, task);
    if core.entry(task).has(IS_CONSTRAINED) {
        let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
        if let Some(options) = run.graph.options_of(task.idx) {
            let class = core.constraints.class(options);
            core.constraints.push(class, rank);
        }
        // Together with the others of this turn, so that all of them go in order.
        core.needs_filling = true;
        return;
    }
    let best = if core.run(task.graph).is_root(task.idx) { first_with_room(core) } else { choose_worker(core, task) };
    match best {
        Some(worker) if core.workers.get(worker).is_some_and(|worker| worker.has_room(&core.config)) => {
            queued_to_processing(core, task, worker, out);
        }
        Some(worker) if !core.run(task.graph).is_root(task.idx) => push_backlog(core, worker, rank),
        Some(_) | None => core.queue.push(rank.0.0, task),
    }
}

fn rank_of(core: &Core, task: TaskId) -> Rank {
    (Reverse(core.run(task.graph).options.priority), task)
}

fn first_with_room(core: &Core) -> Option<WorkerId> {
    core.workers
        .least_loaded()
        .take(N_LEAST_LOADED)
        .find(|worker| core.workers.get(*worker).is_some_and(|worker| worker.has_room(&core.config)))
}

fn push_backlog(core: &mut Core, worker: WorkerId, rank: Rank) {
    let estimate = estimate_ns(core, rank.1);
    core.entry_mut(rank.1).worker = worker;
    core.workers.update(worker, |worker| {
        worker.backlog.push(Reverse((rank, estimate)));
        worker.backlog_ns += u64::from(estimate);
    });
}

fn estimate_ns(core: &Core, task: TaskId) -> u32 {
    let run = core.run(task.graph);
    let body = run.graph.body_of[task.idx.index()] as usize;
    core.learning.estimate_ns(run.operator_of[body])
}

/// The candidate that could start `task` first.
fn choose_worker(core: &Core, task: TaskId) -> Option<WorkerId> {
    let mut shares: SmallVec<[(WorkerId, u64); 8]> = SmallVec::new();
    let mut total = 0u64;
    let run = core.run(task.graph);
    for input in &run.graph.inputs[run.inputs(task.idx)] {
        for_each_result(core, task.graph, *input, N_MEMBERS_SAMPLED, |_, nbytes, _, holders| {
            // Even nothing has to be fetched when it is elsewhere: it counts as a byte.
            let nbytes = nbytes.max(1);
            total += nbytes;
            for holder in holders {
                match shares.iter_mut().find(|(worker, _)| worker == holder) {
                    Some((_, share)) => *share += nbytes,
                    None => shares.push((*holder, nbytes)),
                }
            }
        });
    }
    shares.sort_unstable_by_key(|(worker, share)| (Reverse(*share), *worker));
    shares.truncate(N_HOLDERS);
    for worker in core.workers.least_loaded().take(N_LEAST_LOADED) {
        if !shares.iter().any(|(other, _)| *other == worker) {
            shares.push((worker, 0));
        }
    }
    let estimate = estimate_ns(core, task);
    let start = |worker: WorkerId, share: u64| {
        let entry = core.workers.get(worker)?;
        if entry.is_retiring {
            return None;
        }
        let missing = total.saturating_sub(share);
        let transfer = if missing == 0 { 0 } else { transfer_ns(missing, estimate) };
        let paused = if entry.status.is_paused { 1_000_000_000 } else { 0 };
        Some((entry.wait_ns() + transfer + paused, entry.status.nbytes_results, worker))
    };
    shares.iter().filter_map(|(worker, share)| start(*worker, *share)).min().map(|(_, _, worker)| worker)
}

/// What fetching `missing` bytes counts for a task that takes `estimate` nanoseconds: the time it takes, and more when that
/// is long beside the task, because moving data keeps two workers busy while the task keeps one.
fn transfer_ns(missing: u64, estimate: u32) -> u64 {
    let time = TRANSFER_NS + missing * NS_PER_BYTE;
    time * (time / u64::from(estimate.max(1))).clamp(1, MAX_RELUCTANCE)
}

/// Call `visit(task, nbytes, attempt, holders)` for the results behind an input: one, or up to `limit` members of a group.
fn for_each_result(
    core: &Core,
    graph: GraphId,
    input: Input,
    limit: usize,
    mut visit: impl FnMut(TaskId, u64, Attempt, &[WorkerId]),
) {
    let mut visit_task = |task: TaskId| {
        let entry = core.entry(task);
        visit(task, part_nbytes(entry.nbytes, entry.n_parts, input.part), entry.attempt, &entry.holders);
    };
    let run = core.run(graph);
    match input.source() {
        Source::Task(idx) => visit_task(TaskId::new(graph, idx)),
        Source::External(external) => visit_task(run.graph.externals[external as usize]),
        Source::Group(group) => {
            for idx in run.graph.group_members[run.members(group)].iter().take(limit) {
                visit_task(TaskId::new(graph, *idx));
            }
        }
    }
}

/// Give every worker with room what waits for it. Workers take turns, so that a new graph is spread evenly.
pub(super) fn fill_workers(core: &mut Core, out: &mut Actions) {
    core.needs_filling = false;
    let mut workers: Vec<WorkerId> = core.workers.least_loaded().collect();
    while !workers.is_empty() {
        workers.retain(|worker| fill_turn(core, *worker, out));
    }
}

/// One worker's turn: one task while it has none to spare, a block of neighbours once tasks are given ahead, because
/// neighbours in the order tend to feed the same task.
fn fill_turn(core: &mut Core, worker: WorkerId, out: &mut Actions) -> bool {
    for _ in 0..BLOCK {
        if !fill_one(core, worker, out) {
            return false;
        }
        if !core.workers.get(worker).is_some_and(|entry| entry.is_saturated(&core.config)) {
            break;
        }
    }
    true
}

/// The turn's end: fill every worker if something has happened that may concern any of them.
pub(super) fn fill_if_needed(core: &mut Core, out: &mut Actions) {
    if core.needs_filling {
        fill_workers(core, out);
    }
}

/// Give `worker` what waits for it, until it has no room. Ahead of need it is given work in blocks: not before half of what
/// it was given has been done.
pub(super) fn fill_worker(core: &mut Core, worker: WorkerId, out: &mut Actions) {
    if core.workers.get(worker).is_some_and(|entry| !entry.is_well_ahead(&core.config)) {
        while fill_one(core, worker, out) {}
    }
}

/// Send one task to `worker` if it has room and there is one.
fn fill_one(core: &mut Core, worker: WorkerId, out: &mut Actions) -> bool {
    loop {
        if !core.workers.get(worker).is_some_and(|entry| entry.has_room(&core.config)) {
            return false;
        }
        let Some((claim, (_, task))) = next_for(core, worker) else {
            return take_from_longest_backlog(core, worker, out);
        };
        pop_claim(core, worker, &claim);
        let is_common = matches!(claim, Claim::Common | Claim::Constrained(_));
        let is_here = core.task(task).is_some_and(|entry| {
            entry.state == TaskState::Queued && (is_common && entry.worker == NOBODY || entry.worker == worker)
        });
        if is_here {
            queued_to_processing(core, task, worker, out);
            return true;
        }
    }
}

fn next_for(core: &mut Core, worker: WorkerId) -> Option<(Claim, Rank)> {
    let common = core.queue.peek().map(|rank| (Claim::Common, rank));
    let ignore = core.config.has_fault(Fault::IgnoreResources);
    let constrained =
        core.constraints.peek_for(worker, &core.workers, ignore).map(|(class, rank)| (Claim::Constrained(class), rank));
    let entry = core.workers.get(worker)?;
    let own = entry.backlog.peek().map(|Reverse((rank, _))| (Claim::Backlog, *rank));
    [own, constrained, common].into_iter().flatten().min_by_key(|(_, rank)| *rank)
}

fn pop_claim(core: &mut Core, worker: WorkerId, claim: &Claim) {
    match claim {
        Claim::Common => core.queue.pop(),
        Claim::Constrained(class) => core.constraints.pop(*class),
        Claim::Backlog => {
            core.workers.update(worker, |worker| {
                if let Some(Reverse((_, estimate))) = worker.backlog.pop() {
                    worker.backlog_ns -= u64::from(estimate);
                }
            });
        }
    }
}

/// An idle worker takes the first task of the longest backlog when it can start it, transfers included, before the
/// backlog's owner would.
fn take_from_longest_backlog(core: &mut Core, thief: WorkerId, out: &mut Actions) -> bool {
    let is_idle = core.workers.get(thief).is_some_and(|worker| worker.n_processing < worker.n_slots());
    let Some(victim) = core.workers.longest_backlog().filter(|victim| is_idle && *victim != thief) else { return false };
    loop {
        let Some(entry) = core.workers.get(victim) else { return false };
        let Some(&Reverse(((_, task), estimate))) = entry.backlog.peek() else { return false };
        let wait_ns = entry.wait_ns();
        let is_there = core.task(task).is_some_and(|entry| entry.state == TaskState::Queued && entry.worker == victim);
        if !is_there {
            pop_claim(core, victim, &Claim::Backlog);
            continue;
        }
        let mut missing = 0;
        let run = core.run(task.graph);
        for input in &run.graph.inputs[run.inputs(task.idx)] {
            for_each_result(core, task.graph, *input, usize::MAX, |_, nbytes, _, holders| {
                missing += if holders.contains(&thief) { 0 } else { nbytes };
            });
        }
        if transfer_ns(missing, estimate) + u64::from(estimate) >= wait_ns {
            return false;
        }
        pop_claim(core, victim, &Claim::Backlog);
        core.counters.n_moved += 1;
        queued_to_processing(core, task, thief, out);
        return true;
    }
}

/// Send a ready task to a worker.
fn queued_to_processing(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) {
    let estimate = estimate_ns(core, task);
    let entry = core.entry_mut(task);
    entry.attempt.0 += 1;
    entry.worker = worker;
    entry.estimate_ns = estimate;
    core.set_state(task, TaskState::Processing, Some(worker));
    core.counters.n_runs += 1;
    let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
    let options = run.graph.options_of(task.idx);
    core.workers.update(worker, |worker| {
        worker.n_processing += 1;
        worker.occupancy_ns += u64::from(estimate);
        if let Some(options) = options {
            worker.adjust_resources(&options.resources, -1.0);
        }
    });
    introduce_body(core, task, worker, out);
    let message = describe_run(core, task, worker, out);
    out.tell_worker(worker, ToWorker::Run(message));
    if core.config.has_fault(Fault::ReleaseInputsEarly) {
        transitions::release_inputs_early(core, task, out);
    }
}

/// Send a body before the first run that names it.
fn introduce_body(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) {
    let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
    let idx = run.graph.body_of[task.idx.index()];
    let id = BodyId { graph: task.graph, idx };
    let is_new = core.workers.update(worker, |worker| worker.known_bodies.insert(id)).unwrap_or(false);
    if is_new {
        let body = run.graph.bodies[idx as usize].clone();
        let label = run.graph.keys.family_name(task.idx.0).to_owned();
        out.tell_worker(worker, ToWorker::Body { id, body, label });
    }
}

/// The message for a run, with where its inputs are; peers not met before are introduced first.
fn describe_run(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) -> Run {
    let run = core.run(task.graph);
    let declared = &run.graph.inputs[run.inputs(task.idx)];
    let mut inputs = Vec::with_capacity(declared.len());
    let mut spread = Vec::new();
    for input in declared {
        let before = inputs.len();
        for_each_result(core, task.graph, *input, usize::MAX, |source, nbytes, attempt, holders| {
            let holders = name_holders(holders, worker, task);
            inputs.push(RunInput { task: source, attempt, part: input.part, nbytes, holders, is_made: true });
        });
        if matches!(input.source(), Source::Group(_)) && spread.is_empty() {
            spread = vec![1; before];
        }
        if matches!(input.source(), Source::Group(_)) || !spread.is_empty() {
            spread.push((inputs.len() - before) as u32);
        }
    }
    let (attempt, body) = (run.entry(task.idx).attempt, run.graph.body_of[task.idx.index()]);
    let priority = run.options.priority;
    for input in &inputs {
        introduce_peers(core, &input.holders, worker, out);
    }
    Run { task, attempt, body, priority, inputs, spread }
}

/// The holders to name to `worker`: itself if it is one, else a few, other ones for other tasks, so that a result that
/// many want is fetched from many.
fn name_holders(holders: &[WorkerId], worker: WorkerId, task: TaskId) -> Vec<WorkerId> {
    if holders.contains(&worker) {
        return vec![worker];
    }
    let first = task.idx.index() % holders.len().max(1);
    holders[first..].iter().chain(&holders[..first]).take(N_HOLDERS).copied().collect()
}

/// Tell `worker` the addresses of holders it has not met.
pub(super) fn introduce_peers(core: &mut Core, holders: &[WorkerId], worker: WorkerId, out: &mut Actions) {
    for &holder in holders.iter().filter(|holder| **holder != worker) {
        let Some(peer) = core.workers.get(holder) else { continue };
        let (address, name) = (peer.hello.data_address, peer.hello.name.clone());
        let is_new = core.workers.update(worker, |worker| worker.known_peers.insert(holder)).unwrap_or(false);
        if is_new {
            out.tell_worker(worker, ToWorker::Peer { worker: holder, address, name });
        }
    }
}

/// A whole result as an input, for replication.
pub(super) fn describe_input(core: &Core, task: TaskId) -> RunInput {
    let entry = core.entry(task);
    RunInput {
        task,
        attempt: entry.attempt,
        part: Part::WHOLE,
        nbytes: entry.nbytes,
        holders: entry.holders.to_vec(),
        is_made: true,
    }
}
