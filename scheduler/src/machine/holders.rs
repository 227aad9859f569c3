//! Who holds a result no more: one holder of several, or the last, which takes the result with it.

use rask_comm::message::ToWorker;
use rask_graphs::{TaskId, WorkerId};

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{Node, TaskState};
use super::{early, transitions};

/// Workers have been told where the members of the groups of `task` are; that is not true any more.
fn note_group_moved(core: &mut Core, task: TaskId) {
    for at in core.run(task.graph).dependents(Node::Task(task.idx)) {
        if let Node::Group(group) = core.run(task.graph).dependent(at) {
            core.run_mut(task.graph).groups[group as usize].version += 1;
        }
    }
}

/// How a result was lost at one of its holders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// The worker left in agreement: what it had to tell its peers it has told, or their connections tell them.
    Left,
    /// The worker is gone, or has said that it does not have the result any more.
    Gone,
    /// Others say that the result cannot be had there; the worker may still have it.
    Unreachable,
}

/// One holder of a result does not have it any more. The last one takes the result with it.
pub(super) fn remove_holder(core: &mut Core, task: TaskId, holder: WorkerId, loss: Loss, out: &mut Actions) {
    let Some(entry) = core.graphs.get_mut(&task.graph).and_then(|run| run.tasks.get_mut(task.idx.index())) else { return };
    let n_before = entry.holders.len();
    entry.holders.retain(|worker| *worker != holder);
    if entry.holders.len() == n_before {
        return;
    }
    let (is_last, attempt) = (entry.holders.is_empty(), entry.attempt);
    note_group_moved(core, task);
    core.workers.update(holder, |worker| {
        worker.n_results -= 1;
        worker.moving.remove(&task);
    });
    if loss == Loss::Unreachable && core.workers.get(holder).is_some() {
        out.tell_worker(holder, ToWorker::Cancel { task, attempt });
    }
    if is_last {
        core.counters.n_lost_results += 1;
        transitions::leave_memory(core, task);
    }
    if loss != Loss::Left && !core.config.has_fault(Fault::ForgetEarlyRuns) {
        early::holder_lost(core, task, out);
    }
    if is_last {
        core.set_state(task, TaskState::Released, Some(holder));
        if core.entry(task).is_needed() && !core.config.has_fault(Fault::ForgetLineage) {
            transitions::released_to_waiting(core, vec![task], out);
        }
    }
}

/// One of several holders of a result is to drop it.
pub(super) fn drop_replica(core: &mut Core, task: TaskId, holder: WorkerId, out: &mut Actions) {
    core.entry_mut(task).holders.retain(|worker| *worker != holder);
    core.workers.update(holder, |worker| worker.n_results -= 1);
    transitions::tell_free(out, holder, task);
}
