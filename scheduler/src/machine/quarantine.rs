//! Suspects: a task that may have killed a worker runs alone the next time, so that it is known who did it.
//!
//! When a worker dies its last reports die with it, and of what it had been given nobody can say what was executing. Whoever is
//! suspected wrongly is cleared by a run on a worker that has nothing else to do; whoever is guilty is caught by it. A worker is
//! reserved for that: it is given nothing more, and once it has done what it had, the suspect.
//!
//! Those behind the suspects in line are *doubted*: the worker may have done with the suspects and died before it said so. A doubted
//! task is given to a worker only when it can start at once, and that worker is given no more runs than it has slots meanwhile. So if
//! it is guilty, it is among the suspects the next time it kills, however many innocent tasks come before it; once it has run, it is
//! like any other.

use std::collections::{BTreeMap, BTreeSet};

use rask_graphs::{TaskId, WorkerId};

use super::core::Core;
use super::event::Actions;
use super::graph_run::{NOBODY, TaskState};
use super::workers::Rank;
use super::{dispatch, placement};

/// Suspects that are ready, and workers reserved for some of them.
#[derive(Default)]
pub(super) struct Quarantine {
    waiting: BTreeSet<Rank>,
    reserved: BTreeMap<WorkerId, TaskId>,
    /// Whether something has happened since that may help those who wait.
    is_due: bool,
}

impl Quarantine {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reserved.is_empty()
    }

    pub(super) fn is_reserved(&self, worker: WorkerId) -> bool {
        self.reserved.contains_key(&worker)
    }
}

/// A suspect is ready. Tells whether it waits here; one that no connected worker may run waits with its like.
pub(super) fn push(core: &mut Core, task: TaskId) -> bool {
    if placement::is_constrained(core, task)
        && !core.workers.iter().any(|(worker, _)| placement::may_run(core, task, worker, false))
    {
        return false;
    }
    let rank = placement::rank_of(core, task);
    core.quarantine.waiting.insert(rank);
    core.quarantine.is_due = true;
    true
}

/// Workers have come, gone or begun to leave.
pub(super) fn workers_changed(core: &mut Core) {
    core.quarantine.is_due = true;
}

fn is_waiting(core: &Core, task: TaskId) -> bool {
    core.task(task).is_some_and(|entry| entry.state == TaskState::Queued && !entry.is_early() && entry.worker == NOBODY)
}

/// Give reserved workers that have come to rest their suspects, let go of those that have done with theirs, reserve others.
pub(super) fn advance(core: &mut Core, out: &mut Actions) {
    for (worker, task) in core.quarantine.reserved.clone() {
        let is_running = core.task(task).is_some_and(|entry| entry.state == TaskState::Processing && entry.worker == worker);
        if is_running {
            continue;
        }
        let n_processing = core.workers.get(worker).filter(|entry| !entry.is_retiring).map(|entry| entry.n_processing);
        // It may have turned out to be too large for the worker that was kept for it.
        let is_for_it = is_waiting(core, task) && placement::may_run(core, task, worker, false);
        match n_processing {
            Some(0) if is_for_it => dispatch::queued_to_processing(core, task, worker, out),
            Some(_) if is_for_it => {}
            Some(_) | None => let_go(core, worker, task),
        }
    }
    if std::mem::take(&mut core.quarantine.is_due) {
        reserve(core, out);
    }
}

/// Reserve workers for those that wait.
fn reserve(core: &mut Core, out: &mut Actions) {
    // Never all workers, or one death would stop everybody.
    let n_at_most = (core.workers.len() as usize / 2).max(1);
    for rank in std::mem::take(&mut core.quarantine.waiting) {
        let task = rank.1;
        if !is_waiting(core, task) {
            continue;
        }
        if core.quarantine.reserved.len() >= n_at_most {
            core.quarantine.waiting.insert(rank);
            continue;
        }
        let fits = |worker: &WorkerId| placement::may_run(core, task, *worker, false);
        let is_free = |worker: &WorkerId| !core.quarantine.is_reserved(*worker) && fits(worker);
        // A task with wishes may have to look at many: suspects are few.
        let free = core.workers.least_loaded().find(is_free);
        let has_left =
            free.is_none() && placement::is_constrained(core, task) && !core.workers.least_loaded().any(|at| fits(&at));
        if let Some(worker) = free {
            core.quarantine.reserved.insert(worker, task);
            core.workers.update(worker, |entry| entry.is_reserved = true);
            if core.workers.get(worker).is_some_and(|entry| entry.n_processing == 0) {
                dispatch::queued_to_processing(core, task, worker, out);
            }
        } else if has_left {
            // Those that could run it have left: it waits with its like, and fails with them if nobody comes.
            placement::push_constrained(core, task);
        } else {
            core.quarantine.waiting.insert(rank);
        }
    }
}

fn let_go(core: &mut Core, worker: WorkerId, task: TaskId) {
    core.quarantine.reserved.remove(&worker);
    core.workers.update(worker, |entry| entry.is_reserved = false);
    core.needs_filling = true;
    core.quarantine.is_due = true;
    if is_waiting(core, task) {
        let rank = placement::rank_of(core, task);
        core.quarantine.waiting.insert(rank);
    }
}
