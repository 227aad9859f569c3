//! Stealing: an idle worker is given runs that another was given and has not started.
//!
//! What has not been sent is moved freely ([`super::dispatch`]); this is about the rest, so it needs the victim's consent: it is
//! asked, gives up only what it has not started, and names the attempt. Only an idle worker steals, one run at a time, from the
//! end of a busy worker's list, and only what it would finish earlier, transfers and moves under way included. So a run that
//! has been moved starts at once, and nothing goes back and forth. Runs shorter than a message's way are left where they are, as far
//! as is known: what an operator takes is learned while its runs go on, and counts for those that were given before. What a worker
//! cannot start for want of memory is taken from it in any case.
//!
//! Dask keeps candidates in levels of transfer over compute; here a bounded look at the latest runs of the most loaded workers
//! takes the one of the lowest level, without an index to keep for every task.

use rask_comm::message::ToWorker;
use rask_graphs::{Attempt, TaskId, WorkerId};

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{EXECUTING, MOVING, TaskState};
use super::learning::Learning;
use super::{dispatch, placement, replicas, speculation, transitions};

/// How many of the most loaded workers, and of those that are short of memory, and how many of the latest runs of each, are looked at.
const N_VICTIMS: usize = 4;
const N_RUNS: usize = 32;
/// Runs expected to be shorter than this are not worth a word, in nanoseconds.
const MIN_STEALABLE_NS: u32 = 1_000_000;

/// What runs of the operator of `task` take is learned, by `learn`. Tells whether it is only now that they seem worth stealing:
/// then whoever is idle should [`look_again`], at those that were given before.
pub(super) fn learn(core: &mut Core, task: TaskId, learn: impl FnOnce(&mut Learning, u32)) -> bool {
    let operator = placement::operator_of(core, task);
    let was_worth_it = core.learning.estimate_ns(operator) >= MIN_STEALABLE_NS;
    learn(&mut core.learning, operator);
    !was_worth_it && core.learning.estimate_ns(operator) >= MIN_STEALABLE_NS
}

fn is_given(core: &Core, task: TaskId, attempt: Attempt, worker: WorkerId) -> bool {
    core.task(task).is_some_and(|entry| {
        entry.state == TaskState::Processing && entry.worker == worker && entry.attempt == attempt && !entry.has(EXECUTING)
    })
}

/// `thief` has nothing left that was meant for it: ask a busy worker for a run, if that would help.
pub(super) fn steal_for(core: &mut Core, thief: WorkerId, out: &mut Actions) {
    if !core.workers.get(thief).is_some_and(|entry| entry.is_idle()) {
        return;
    }
    let most_loaded = |is_paused| core.workers.most_loaded(is_paused).take(N_VICTIMS);
    let victims: Vec<WorkerId> = most_loaded(true).chain(most_loaded(false)).filter(|victim| *victim != thief).collect();
    for victim in &victims {
        forget_latest_ended(core, *victim);
    }
    let candidate = victims.into_iter().find_map(|victim| Some((victim, candidate_of(core, victim, thief)?)));
    let Some((victim, task)) = candidate else { return };
    let attempt = core.entry(task).attempt;
    core.entry_mut(task).set(MOVING);
    core.moves.insert(task, thief);
    core.workers.update(victim, |entry| entry.n_outgoing += 1);
    core.workers.update(thief, |entry| entry.n_incoming += 1);
    core.counters.n_steal_requests += 1;
    out.tell_worker(victim, ToWorker::Revoke { task, attempt });
}

/// Runs at the end of a worker's list that are over, given up ones among them, would hide those before them.
fn forget_latest_ended(core: &mut Core, worker: WorkerId) {
    loop {
        let last = core.workers.get(worker).and_then(|entry| entry.given.back().copied());
        if last.is_none_or(|(task, attempt)| is_given(core, task, attempt, worker)) {
            return;
        }
        core.workers.update(worker, |entry| entry.given.pop_back());
    }
}

/// The run of `victim` that costs least to move in proportion to what it takes, if `thief` would finish one earlier.
fn candidate_of(core: &Core, victim: WorkerId, thief: WorkerId) -> Option<TaskId> {
    let entry = core.workers.get(victim)?;
    // One that is short of memory may not be able to start what it has, however little that is.
    let is_stuck = entry.status.is_paused && entry.status.n_executing == 0;
    // As many as it has slots are executing, whether or not it has said so.
    let n_executing = if is_stuck { 0 } else { entry.n_slots() };
    if entry.n_ready().saturating_sub(entry.n_outgoing) <= n_executing {
        return None;
    }
    let ready_ns = entry.occupancy_ns - entry.early_ns;
    let levels = entry.given.iter().rev().take(N_RUNS).filter_map(|&(task, attempt)| {
        let run = core.task(task).filter(|_| is_given(core, task, attempt, victim))?;
        let estimate = placement::estimate_ns(core, task);
        let is_long = is_stuck || estimate >= MIN_STEALABLE_NS;
        if run.is_early() || run.has(MOVING) || !is_long || !placement::may_run(core, task, thief, true) {
            return None;
        }
        // What it takes may have been learned since it was given; then the others have been misjudged likewise.
        let before = u64::from(run.estimate_ns.max(1));
        let wait = ready_ns.saturating_sub(before) / u64::from(entry.n_slots());
        let wait = (wait as f64 * (f64::from(estimate) / before as f64)) as u64;
        let wait = wait.saturating_add(entry.pause_ns(core.now_ns()));
        let missing = dispatch::missing_nbytes(core, task, thief);
        let transfer = if missing == 0 { 0 } else { placement::transfer_ns(core, victim, thief, missing, estimate, false) };
        let is_worth_it = (is_stuck || transfer < wait) && !replicas::has_to_wait(core, task, thief);
        is_worth_it.then(|| (level(transfer, u64::from(estimate)), task))
    });
    levels.min_by_key(|(level, _)| *level).map(|(_, task)| task)
}

/// Powers of two of transfer over compute; 0 when nothing has to be moved.
fn level(transfer: u64, estimate: u64) -> u32 {
    if transfer == 0 { 0 } else { 64 + transfer.ilog2() - estimate.max(1).ilog2() }
}

/// A victim has answered: it has given the run up, or it has started it.
pub(super) fn answered(core: &mut Core, task: TaskId, given_up: bool, out: &mut Actions) {
    let thief = core.moves.get(&task).copied().filter(|_| core.entry(task).has(MOVING));
    let is_taken_anyway = core.config.has_fault(Fault::TakeRefused) && thief.is_some();
    if !given_up && !is_taken_anyway {
        end_move(core, task);
        core.entry_mut(task).set(EXECUTING);
        return;
    }
    if speculation::promote(core, task, false, out) {
        // Its backup is its run.
        return;
    }
    dispatch::refund(core, task);
    // Giving back the run ends the move.
    transitions::abandon_run(core, task, false, out);
    let suits = |thief: &WorkerId| {
        let is_idle = core.workers.get(*thief).is_some_and(|entry| entry.is_idle());
        is_idle && !core.entry(task).is_early() && placement::may_run(core, task, *thief, true)
    };
    match thief.filter(suits) {
        Some(thief) => {
            core.counters.n_stolen += 1;
            core.set_state(task, TaskState::Waiting, None);
            super::early::unplace(core, task, out);
            core.set_state(task, TaskState::Queued, None);
            dispatch::queued_to_processing(core, task, thief, out);
        }
        None => transitions::processing_to_waiting(core, task, out),
    }
}

/// The run of `task` is over, or stays where it is: nobody waits for it to be given up.
pub(super) fn end_move(core: &mut Core, task: TaskId) {
    let entry = core.entry_mut(task);
    if !entry.has(MOVING) {
        return;
    }
    entry.clear(MOVING);
    let victim = entry.worker;
    core.workers.update(victim, |entry| entry.n_outgoing -= 1);
    if let Some(thief) = core.moves.remove(&task) {
        core.workers.update(thief, |entry| entry.n_incoming -= 1);
    }
}

/// Now and then: whoever is idle looks again, because tasks take longer than expected and workers join.
pub(super) fn look_again(core: &mut Core, out: &mut Actions) {
    let idle: Vec<WorkerId> = core
        .workers
        .least_loaded()
        .take(N_RUNS)
        .filter(|worker| core.workers.get(*worker).is_some_and(|entry| entry.is_idle()))
        .collect();
    for thief in idle {
        steal_for(core, thief, out);
    }
}
