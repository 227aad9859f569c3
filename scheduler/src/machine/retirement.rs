//! Workers that leave in agreement: no new runs, what has not started goes elsewhere, results that only they hold are
//! copied to others, and then they may go. Nothing has to be computed twice because a worker was asked to stop.

use rask_comm::message::{LostResults, ToWorker};
use rask_graphs::{TaskId, TaskIdx, WorkerId};

use super::config::Fault;
use super::core::Core;
use super::event::{Actions, Note};
use super::graph_run::{EXECUTING, MOVING, TaskState, UPLOADED};
use super::{dispatch, note, placement, quarantine, speculation, uploads};

/// A worker asks to leave.
pub(super) fn begin(core: &mut Core, worker: WorkerId, out: &mut Actions) {
    let is_new = core.workers.update(worker, |entry| !std::mem::replace(&mut entry.is_retiring, true)).unwrap_or(false);
    if !is_new {
        return;
    }
    quarantine::workers_changed(core);
    let (mut given, mut backlog) = (Vec::new(), Vec::new());
    for run in core.graphs.values() {
        for (idx, entry) in run.tasks.iter().enumerate().filter(|(_, entry)| entry.worker == worker) {
            let task = run.task_id(TaskIdx(idx as u32));
            if entry.state == TaskState::Processing && !entry.has(EXECUTING) && !entry.has(MOVING) && !entry.has(UPLOADED) {
                given.push((task, entry.attempt));
            } else if entry.state == TaskState::Queued {
                backlog.push(task);
            }
        }
    }
    for (task, attempt) in given {
        out.tell_worker(worker, ToWorker::Revoke { task, attempt });
    }
    uploads::withdraw_from(core, worker, out);
    // Nor is it kept by what another worker does as well.
    for task in core.speculation.backups_at(worker) {
        speculation::end(core, task, true, out);
    }
    for task in backlog {
        placement::requeue(core, task, out);
    }
}

/// Go on with the retirement of `worker`, if it retires.
pub(super) fn advance_if_retiring(core: &mut Core, worker: WorkerId, out: &mut Actions) {
    let Some(entry) = core.workers.get(worker) else { return };
    if !entry.is_retiring || entry.is_dismissed || entry.n_processing > 0 || !entry.moving.is_empty() {
        return;
    }
    let unique = if core.config.has_fault(Fault::LeaveTooEarly) { Vec::new() } else { results_only_at(core, worker) };
    let targets: Vec<WorkerId> = core.workers.least_loaded().take(8).collect();
    if unique.is_empty() || targets.is_empty() {
        // Without another worker there is nowhere to move results to; what is still needed is made again later.
        core.workers.update(worker, |entry| entry.is_dismissed = true);
        let lost = lost_results(core, &unique);
        out.note(Note::WorkerLeaves { name: note::worker_name(core, worker), lost: lost.clone() });
        out.tell_worker(worker, ToWorker::Leave { lost });
        return;
    }
    for (at, task) in unique.into_iter().enumerate() {
        let target = targets[at % targets.len()];
        dispatch::introduce_peers(core, &[worker], target, out);
        let input = dispatch::describe_input(core, task);
        out.tell_worker(target, ToWorker::Replicate { input });
        core.workers.update(worker, |entry| entry.moving.insert(task));
    }
}

/// What is lost, for people.
fn lost_results(core: &Core, lost: &[TaskId]) -> LostResults {
    const N_NAMED: usize = 5;
    let name = |task: &TaskId| format!("{} of {}", core.run(task.graph).graph.keys.name(task.idx.0), task.graph);
    LostResults {
        n_results: u32::try_from(lost.len()).unwrap_or(u32::MAX),
        nbytes: lost.iter().fold(0, |sum, task| sum.saturating_add(core.entry(*task).nbytes)),
        names: lost.iter().take(N_NAMED).map(name).collect(),
    }
}

/// Workers have come or gone: targets of moves may have gone with them, so every retirement plans its moves anew.
pub(super) fn advance_all(core: &mut Core, out: &mut Actions) {
    let retiring: Vec<WorkerId> = core.workers.iter().filter(|(_, worker)| worker.is_retiring).map(|(id, _)| id).collect();
    for worker in retiring {
        core.workers.update(worker, |entry| entry.moving.clear());
        advance_if_retiring(core, worker, out);
    }
}

fn results_only_at(core: &Core, worker: WorkerId) -> Vec<TaskId> {
    let is_retiring = |holder: &WorkerId| core.workers.get(*holder).is_none_or(|holder| holder.is_retiring);
    let mut unique = Vec::new();
    for run in core.graphs.values() {
        for (idx, entry) in run.tasks.iter().enumerate() {
            let is_here = entry.state == TaskState::Memory && entry.holders.contains(&worker);
            if is_here && entry.holders.iter().all(is_retiring) {
                unique.push(run.task_id(TaskIdx(idx as u32)));
            }
        }
    }
    unique
}

/// A result has got another holder: the moves that were for it are over.
pub(super) fn replicated(core: &mut Core, task: TaskId, out: &mut Actions) {
    for worker in moves_of(core, task) {
        core.workers.update(worker, |entry| entry.moving.remove(&task));
        advance_if_retiring(core, worker, out);
    }
}

/// A move failed: forget it. The retiring worker's next message, its status at the latest, has it planned anew.
pub(super) fn not_replicated(core: &mut Core, task: TaskId) {
    for worker in moves_of(core, task) {
        core.workers.update(worker, |entry| entry.moving.remove(&task));
    }
}

fn moves_of(core: &Core, task: TaskId) -> Vec<WorkerId> {
    let Some(entry) = core.task(task) else { return Vec::new() };
    let holds_move = |holder: &&WorkerId| core.workers.get(**holder).is_some_and(|holder| holder.moving.contains(&task));
    entry.holders.iter().filter(holds_move).copied().collect()
}
