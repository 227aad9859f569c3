//! When tasks are sent, and what is said with them.
//!
//! A worker is sent only a little more than it has slots, or a few milliseconds' worth of short tasks; the rest stays here, in
//! the worker's backlog (when its data is there) or in the common queue (tasks without inputs), so late information still
//! counts and moving a task that has not been sent costs nothing. Runs whose inputs are still being made have room of their own.

use rask_comm::Owner;
use rask_comm::message::{GroupMember, Run, RunGroup, RunInput, ToWorker};
use rask_graphs::{BodyId, GraphId, Part, Source, TaskId, WorkerId};

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::fairness::{FlowId, StartTag};
use super::graph_run::{BOUND_EARLY, DOUBTED, FOLLOWED, NOBODY, SPECULATED, TaskState};
use super::learning::FLOOR_NS;
use super::placement::{N_HOLDERS, N_MEMBERS_SAMPLED, PUSH_NS, estimate_ns, flow_of, for_each_result, transfer_ns};
use super::workers::Rank;
use super::{early, frames, quarantine, replicas, siblings, stealing, transitions};

/// So many peers more than twice those that are there may be remembered of each worker.
const MIN_PEERS_SWEPT: usize = 64;
/// How many short tasks a worker is given in a row.
const BLOCK: usize = 64;

/// Where a ready task waits.
enum Claim {
    Backlog,
    Common,
    Constrained(usize),
}

/// Give every worker with room what waits for it. Workers take turns, so that a new graph is spread evenly.
pub(super) fn fill_workers(core: &mut Core, out: &mut Actions) {
    core.needs_filling = false;
    let mut workers: Vec<WorkerId> = core.workers.least_loaded().collect();
    while !workers.is_empty() {
        workers.retain(|worker| fill_turn(core, *worker, out));
    }
    stealing::look_again(core, out);
}

/// One worker's turn: one task while it has none to spare, a block of neighbours once tasks are given ahead, because
/// neighbours in the order tend to feed the same task.
fn fill_turn(core: &mut Core, worker: WorkerId, out: &mut Actions) -> bool {
    for _ in 0..BLOCK {
        if !fill_one(core, worker, out) {
            return fill_one_early(core, worker, out);
        }
        if !core.workers.get(worker).is_some_and(|entry| entry.is_saturated(&core.config)) {
            break;
        }
    }
    true
}

/// The turn's end: bind what can be bound, and fill every worker if something has happened that may concern any of them.
pub(super) fn settle(core: &mut Core, out: &mut Actions) {
    loop {
        if !core.quarantine.is_empty() {
            quarantine::advance(core, out);
        }
        if !core.needs_filling && core.to_fill.is_empty() && core.bindable.is_empty() {
            return;
        }
        while let Some(worker) = core.to_fill.pop() {
            fill_worker(core, worker, out);
        }
        if core.needs_filling {
            fill_workers(core, out);
        }
        early::bind(core, out);
    }
}

/// Give `worker` what waits for it, until it has no room. Ahead of need it is given work in blocks: not before half of what
/// it was given has been done.
pub(super) fn fill_worker(core: &mut Core, worker: WorkerId, out: &mut Actions) {
    if core.workers.get(worker).is_some_and(|entry| !entry.is_well_ahead(&core.config)) {
        while fill_one(core, worker, out) {}
    }
    if core.workers.get(worker).is_some_and(|entry| !entry.is_well_ahead_early(&core.config)) {
        while fill_one_early(core, worker, out) {}
    }
    stealing::steal_for(core, worker, out);
}

/// Send one task to `worker` if it has room and there is one.
fn fill_one(core: &mut Core, worker: WorkerId, out: &mut Actions) -> bool {
    loop {
        if !core.workers.get(worker).is_some_and(|entry| entry.has_room(&core.config)) {
            return false;
        }
        let Some((claim, (_, flow), (_, task))) = next_for(core, worker) else {
            return take_from_longest_backlog(core, worker, out);
        };
        let is_doubted = core.task(task).is_some_and(|entry| entry.has(DOUBTED));
        if !core.workers.get(worker).is_some_and(|entry| entry.has_room_for(&core.config, is_doubted)) {
            return false;
        }
        pop_claim(core, worker, &claim, flow);
        let is_common = matches!(claim, Claim::Common | Claim::Constrained(_));
        let is_here = is_common && core.is_queued_at(task, NOBODY, false) || core.is_queued_at(task, worker, false);
        if is_here && replicas::park_if_hot(core, task, worker) {
            continue;
        }
        if is_here {
            queued_to_processing(core, task, worker, out);
            if matches!(claim, Claim::Common) {
                siblings::adopt(core, task, worker);
            }
            return true;
        }
    }
}

/// Send one task whose inputs are still being made, if `worker` has room for such and there is one.
fn fill_one_early(core: &mut Core, worker: WorkerId, out: &mut Actions) -> bool {
    loop {
        if !core.workers.get(worker).is_some_and(|entry| entry.has_early_room(&core.config)) {
            return false;
        }
        let constrained = core.constraints.first_for(worker, &core.workers, &core.flows, true, false);
        let constrained = constrained.map(|(tag, rank, class)| (tag, rank, Some(class)));
        let own =
            core.workers.get(worker).and_then(|entry| entry.early.first(&core.flows)).map(|(tag, rank, _)| (tag, rank, None));
        let Some(((_, flow), (_, task), class)) = own.into_iter().chain(constrained).min() else { return false };
        if !is_turn_of_flow(core, flow, worker) {
            return false;
        }
        match class {
            Some(class) => core.constraints.pop(class, flow, true),
            None => {
                core.workers.update(worker, |entry| entry.early.pop(flow));
            }
        }
        let place = if class.is_some() { NOBODY } else { worker };
        if core.is_queued_at(task, place, true) {
            queued_to_processing(core, task, worker, out);
            return true;
        }
    }
}

/// The first ready task that waits for `worker` or for any like it, where it waits, and whose turn it is.
fn next_for(core: &Core, worker: WorkerId) -> Option<(Claim, StartTag, Rank)> {
    let common = core.queue.first(&core.flows).map(|(tag, rank)| (Claim::Common, tag, rank));
    let ignore = core.config.has_fault(Fault::IgnoreResources);
    let constrained = core.constraints.first_for(worker, &core.workers, &core.flows, false, ignore);
    let constrained = constrained.map(|(tag, rank, class)| (Claim::Constrained(class), tag, rank));
    let entry = core.workers.get(worker)?;
    let own = entry.backlog.first(&core.flows).map(|(tag, rank, _)| (Claim::Backlog, tag, rank));
    [own, constrained, common].into_iter().flatten().min_by_key(|(_, tag, rank)| (*tag, *rank))
}

fn pop_claim(core: &mut Core, worker: WorkerId, claim: &Claim, flow: FlowId) {
    match claim {
        Claim::Common => core.queue.pop(flow),
        Claim::Constrained(class) => core.constraints.pop(*class, flow, false),
        Claim::Backlog => {
            core.workers.update(worker, |worker| worker.backlog.pop(flow));
        }
    }
}

/// Whether `task` may be given to `worker` although others wait for it: unless another client comes first.
pub(super) fn is_turn_of(core: &Core, task: TaskId, worker: WorkerId) -> bool {
    core.flows.is_alone() || is_turn_of_flow(core, flow_of(core, task), worker)
}

fn is_turn_of_flow(core: &Core, flow: FlowId, worker: WorkerId) -> bool {
    if core.flows.is_alone() {
        return true;
    }
    let tag = core.flows.start_tag(flow);
    next_for(core, worker).is_none_or(|(_, first, _)| tag <= first)
}

/// A processing task's run is given back without having started: its client is not charged for it.
pub(super) fn refund(core: &mut Core, task: TaskId) {
    let estimate = u64::from(core.entry(task).estimate_ns);
    core.flows.correct(flow_of(core, task), estimate, 0);
}

/// A processing task has finished: its client is charged what it took, not what it was thought to.
pub(super) fn charge_what_it_took(core: &mut Core, task: TaskId, duration_us: u64) {
    let estimate = u64::from(core.entry(task).estimate_ns);
    core.flows.correct(flow_of(core, task), estimate, duration_us.saturating_mul(1000).max(FLOOR_NS));
}

/// An idle worker takes the first task of the longest backlog, or of the longest of the workers that are short of memory.
fn take_from_longest_backlog(core: &mut Core, thief: WorkerId, out: &mut Actions) -> bool {
    if core.workers.get(thief).is_none_or(|worker| worker.n_processing >= worker.n_slots()) {
        return false;
    }
    [true, false].into_iter().any(|is_paused| {
        let victim = core.workers.longest_backlog(is_paused).filter(|victim| *victim != thief);
        victim.is_some_and(|victim| take_from_backlog(core, victim, thief, out))
    })
}

/// `thief` takes the first task of the backlog of `victim` when it can start it, transfers included, before that would.
fn take_from_backlog(core: &mut Core, victim: WorkerId, thief: WorkerId, out: &mut Actions) -> bool {
    loop {
        let Some(entry) = core.workers.get(victim) else { return false };
        let Some(((_, flow), (_, task), estimate)) = entry.backlog.first(&core.flows) else { return false };
        let wait_ns = entry.wait_ns().saturating_add(entry.pause_ns(core.now_ns()));
        if !core.is_queued_at(task, victim, false) {
            pop_claim(core, victim, &Claim::Backlog, flow);
            continue;
        }
        let missing = missing_nbytes(core, task, thief);
        if transfer_ns(core, victim, thief, missing, estimate, false).saturating_add(u64::from(estimate)) >= wait_ns {
            return false;
        }
        if replicas::is_waited_for(core, task, thief) {
            return false;
        }
        pop_claim(core, victim, &Claim::Backlog, flow);
        core.counters.n_moved += 1;
        if replicas::park_if_hot(core, task, thief) {
            return false;
        }
        queued_to_processing(core, task, thief, out);
        return true;
    }
}

/// Bytes of inputs of `task` that `worker` would have to fetch; groups are judged by some of their members.
pub(super) fn missing_nbytes(core: &Core, task: TaskId, worker: WorkerId) -> u64 {
    let mut missing = 0u64;
    let run = core.run(task.graph);
    for input in &run.graph.inputs[run.inputs(task.idx)] {
        for_each_result(core, task.graph, *input, N_MEMBERS_SAMPLED, |result| {
            missing = missing.saturating_add(if result.holders.contains(&worker) { 0 } else { result.nbytes });
        });
    }
    missing
}

/// Send a queued task to a worker.
pub(super) fn queued_to_processing(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) {
    let (estimate, flow) = (estimate_ns(core, task), flow_of(core, task));
    core.flows.charge(flow, u64::from(estimate));
    let round = core.workers.update(worker, |worker| worker.next_round(flow)).unwrap_or_default();
    let entry = core.entry_mut(task);
    // A backup of its last run took a number too.
    entry.attempt.0 += 1 + u32::from(entry.has(SPECULATED));
    entry.clear(SPECULATED);
    entry.clear(FOLLOWED);
    entry.worker = worker;
    entry.estimate_ns = estimate;
    entry.round = round;
    core.set_state(task, TaskState::Processing, Some(worker));
    core.counters.n_runs += 1;
    replicas::note_fetching(core, task, worker);
    introduce_body(core, task, worker, out);
    let (message, inputs_made_at) = describe_run(core, task, worker, out);
    let (now, is_early) = (core.now_ns(), core.entry(task).is_early());
    let run = core.graphs.get_mut(&task.graph).expect("a task in transition has a graph");
    let attempt = run.entry(task.idx).attempt;
    let (is_root, is_doubted) = (run.is_root(task.idx), run.entry(task.idx).has(DOUBTED));
    let options = run.graph.options_of(task.idx);
    let end = core.workers.update(worker, |worker| {
        let estimate_ns = u64::from(estimate);
        let end = if is_root { worker.plan_root(now, estimate_ns) } else { worker.take_slot(now, inputs_made_at, estimate_ns) };
        worker.n_processing += 1;
        worker.n_doubted += u32::from(is_doubted);
        worker.note_given(task, attempt);
        worker.occupancy_ns += u64::from(estimate);
        if is_early {
            worker.count_early(true, u64::from(estimate));
        }
        if let Some(options) = options {
            worker.adjust_resources(&options.resources, -1.0);
        }
        end
    });
    let entry = run.entry_mut(task.idx);
    entry.expected_end_ns = end.unwrap_or_default();
    if is_early {
        entry.set(BOUND_EARLY);
    }
    out.tell_worker(worker, ToWorker::Run(message));
    early::place(core, task);
    if core.config.has_fault(Fault::ReleaseInputsEarly) {
        transitions::release_inputs_early(core, task, out);
    }
}

/// Send a body before the first run that names it.
pub(super) fn introduce_body(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) {
    let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
    let idx = run.graph.body_of[task.idx.index()];
    let id = BodyId { graph: task.graph, idx };
    let is_new = core.workers.update(worker, |worker| worker.known_bodies.insert(id)).unwrap_or(false);
    if is_new {
        let body = run.graph.bodies[idx as usize].clone();
        let label = frames::label(run.graph.keys.family_name(task.idx.0));
        let is_of_user = run.owner == Owner::Local;
        out.tell_worker(worker, ToWorker::Body { id, body, label, is_of_user });
    }
}

/// The message for a run, with where its inputs are and when the last of them is expected; peers not met before are
/// introduced first.
pub(super) fn describe_run(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) -> (Run, u64) {
    let run = core.run(task.graph);
    let declared = &run.graph.inputs[run.inputs(task.idx)];
    let mut inputs = Vec::with_capacity(declared.len());
    let n_holders = n_holders_named(declared.len());
    let mut groups = Vec::new();
    let mut last_made_at = 0;
    for (input, at) in declared.iter().zip(0u32..) {
        if let Source::Group(group) = input.source() {
            groups.push(RunGroup { at, group, part: input.part });
            continue;
        }
        for_each_result(core, task.graph, *input, 1, |result| {
            let mut holders = name_holders(core, result.task, result.holders, worker);
            holders.truncate(n_holders);
            let arrives = if holders[..] == [worker] || result.is_made { 0 } else { PUSH_NS };
            last_made_at = last_made_at.max(result.made_at_ns + arrives);
            let (task, attempt, nbytes, is_made) = (result.task, result.attempt, result.nbytes, result.is_made);
            inputs.push(RunInput { task, attempt, part: input.part, nbytes, holders, is_made });
        });
    }
    let (attempt, round) = (run.entry(task.idx).attempt, run.entry(task.idx).round);
    let body = run.graph.body_of[task.idx.index()];
    let priority = run.options.priority;
    for input in &inputs {
        introduce_peers(core, &input.holders, worker, out);
    }
    for group in &groups {
        introduce_group(core, task.graph, group.group, worker, out);
    }
    (Run { task, attempt, body, round, priority, inputs, groups }, last_made_at)
}

/// How many holders of each of so many results are named in one message.
fn n_holders_named(n_results: usize) -> usize {
    if n_results > frames::MAX_ENTRIES_WITH_HOLDERS { 1 } else { N_HOLDERS }
}

/// Tell `worker` where the members of a group are, unless it knows.
fn introduce_group(core: &mut Core, graph: GraphId, group: u32, worker: WorkerId, out: &mut Actions) {
    let version = core.run(graph).groups[group as usize].version;
    let known = core.workers.update(worker, |entry| entry.known_groups.insert((graph, group), version)).flatten();
    if known == Some(version) {
        return;
    }
    let run = core.run(graph);
    let mut members = Vec::new();
    let n_holders = n_holders_named(run.members(group).len());
    for idx in &run.graph.group_members[run.members(group)] {
        let (task, entry) = (run.task_id(*idx), run.entry(*idx));
        let mut holders = name_holders(core, task, &entry.holders, worker);
        holders.truncate(n_holders);
        members.push(GroupMember { task, attempt: entry.attempt, nbytes: entry.nbytes, n_parts: entry.n_parts, holders });
    }
    for member in &members {
        introduce_peers(core, &member.holders, worker, out);
    }
    out.tell_worker(worker, ToWorker::Group { graph, group, members });
}

/// The holders of a result to name to `worker`: itself if it is one, else a few, in the order in which it is to ask them. Others
/// come first for other results and workers, so that a result that many want is fetched from many.
fn name_holders(core: &Core, result: TaskId, holders: &[WorkerId], worker: WorkerId) -> Vec<WorkerId> {
    if let [_] = holders {
        return holders.to_vec();
    }
    if holders.contains(&worker) {
        return vec![worker];
    }
    let decided =
        replicas::first_to_ask(core, result, worker).and_then(|first| holders.iter().position(|holder| *holder == first));
    let first = decided.unwrap_or_else(|| scatter(result, worker) % holders.len().max(1));
    holders[first..].iter().chain(&holders[..first]).take(N_HOLDERS).copied().collect()
}

/// A number that differs without a pattern from result to result and from worker to worker (Fibonacci hashing, Knuth).
fn scatter(result: TaskId, worker: WorkerId) -> usize {
    let both = u64::from(result.idx.0) << 32 | u64::from(worker.0);
    (both.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

/// Tell `worker` the addresses of holders it has not met.
pub(super) fn introduce_peers(core: &mut Core, holders: &[WorkerId], worker: WorkerId, out: &mut Actions) {
    for &holder in holders.iter().filter(|holder| **holder != worker) {
        let Some(peer) = core.workers.get(holder) else { continue };
        let (address, name) = (peer.hello.data_address, peer.hello.name.clone());
        let n_at_most = 2 * core.workers.len() as usize + MIN_PEERS_SWEPT;
        let met = core.workers.update(worker, |worker| (worker.known_peers.insert(holder), worker.known_peers.len() > n_at_most));
        let (is_new, has_met_many) = met.unwrap_or_default();
        if has_met_many {
            forget_peers_that_are_gone(core, worker);
        }
        if is_new {
            let key = core.workers.get(worker).map(|entry| entry.key).unwrap_or_default();
            let pass = core.config.secret.for_worker(holder).passes.pass(worker, key);
            out.tell_worker(worker, ToWorker::Peer { worker: holder, address, name, pass });
        }
    }
}

/// Half of the peers that `worker` has been told of are not there any more.
fn forget_peers_that_are_gone(core: &mut Core, worker: WorkerId) {
    let taken = core.workers.update(worker, |entry| std::mem::take(&mut entry.known_peers));
    let Some(mut peers) = taken else { return };
    peers.retain(|peer| core.workers.get(*peer).is_some());
    core.workers.update(worker, |entry| entry.known_peers = peers);
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
