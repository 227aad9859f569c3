//! Early binding: tasks are given to workers while their inputs are still being made.
//!
//! An input is *placed* once it is in memory or its run has been given to a worker. A waiting task whose inputs are all
//! placed is bound: given to a worker, with word of who makes what, so that makers tell that worker directly and it starts
//! without asking here. When a run ends without a result, whatever was bound to it is taken back first. How much a worker is
//! given early is bounded apart from what is ready, so early runs never take the place of work that could start.

use rask_graphs::{TaskId, WorkerId};

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{BOUND_EARLY, DOUBTED, EXECUTING, FOLLOWED, NOBODY, NOT_EARLY, Node, SPECULATED, TaskState};
use super::{dispatch, placement, transitions};

/// The run of `task` has been given to a worker: to its dependants it is placed.
pub(super) fn place(core: &mut Core, task: TaskId) {
    let Core { graphs, bindable, .. } = core;
    let Some(run) = graphs.get_mut(&task.graph) else { return };
    for at in run.dependents(Node::Task(task.idx)) {
        let Node::Task(idx) = run.dependent(at) else { continue };
        let entry = run.entry_mut(idx);
        if entry.is_active() {
            entry.n_unplaced -= 1;
            if entry.n_unplaced == 0 && entry.state == TaskState::Waiting {
                bindable.push_back(TaskId::new(task.graph, idx));
            }
        }
    }
}

/// The run of `task` is over without a result: its dependants wait again, and those that were bound to it are taken back,
/// and so on. One that is executing has what it needs.
pub(super) fn unplace(core: &mut Core, task: TaskId, out: &mut Actions) {
    let forgets = core.config.has_fault(Fault::ForgetEarlyRuns);
    let mut stack = vec![task];
    while let Some(task) = stack.pop() {
        if core.entry(task).has(SPECULATED) {
            // It has not been placed since it had a backup.
            continue;
        }
        for at in core.run(task.graph).dependents(Node::Task(task.idx)) {
            let Node::Task(idx) = core.run(task.graph).dependent(at) else { continue };
            let dependent = TaskId::new(task.graph, idx);
            let entry = core.entry_mut(dependent);
            if !entry.is_active() {
                continue;
            }
            entry.n_unplaced += 1;
            if entry.state == TaskState::Queued {
                core.set_state(dependent, TaskState::Waiting, None);
            } else if !forgets && take_back(core, dependent, out) {
                stack.push(dependent);
            }
        }
    }
}

/// Take back a run that was given early, unless it is executing: then it has what it needs. What is bound to it in turn has to
/// be told by the caller ([`unplace`]).
fn take_back(core: &mut Core, task: TaskId, out: &mut Actions) -> bool {
    let entry = core.entry(task);
    if entry.state != TaskState::Processing || !entry.has(BOUND_EARLY) || entry.has(EXECUTING) {
        return false;
    }
    // The runs of a worker that is gone are seen to by whoever found it gone: there is blame to give.
    if core.workers.get(entry.worker).is_none() {
        return false;
    }
    dispatch::refund(core, task);
    transitions::abandon_run(core, task, true, out);
    core.set_state(task, TaskState::Waiting, None);
    true
}

/// `holder` does not have the result of `task` any more. A run that was bound to its being made there may wait for word of it
/// that never comes: it is given anew.
pub(super) fn holder_lost(core: &mut Core, task: TaskId, out: &mut Actions) {
    let mut taken_back = Vec::new();
    for at in core.run(task.graph).dependents(Node::Task(task.idx)) {
        let Node::Task(idx) = core.run(task.graph).dependent(at) else { continue };
        let dependent = TaskId::new(task.graph, idx);
        if take_back(core, dependent, out) {
            taken_back.push(dependent);
        }
    }
    for dependent in taken_back {
        unplace(core, dependent, out);
        // Not sent at once: other inputs may be about to lose the same holder.
        note_bindable(core, dependent);
    }
}

/// Have a waiting task looked at when the turn ends, if all its inputs are placed.
pub(super) fn note_bindable(core: &mut Core, task: TaskId) {
    let entry = core.entry(task);
    if entry.state == TaskState::Waiting && entry.n_unplaced == 0 {
        core.bindable.push_back(task);
    }
}

/// Bind what can be bound, and send on what has become ready meanwhile. Binding a task places it, which may make others bindable; rooms are bounded, so this ends.
pub(super) fn bind(core: &mut Core, out: &mut Actions) {
    while let Some(task) = core.bindable.pop_front() {
        let Some(entry) = core.task(task).filter(|entry| entry.state == TaskState::Waiting && entry.n_unplaced == 0) else {
            continue;
        };
        if !entry.is_early() {
            placement::waiting_to_queued(core, task, out);
            continue;
        }
        if entry.has(NOT_EARLY) || entry.has(DOUBTED) || core.config.max_early == 0 {
            continue;
        }
        if placement::is_constrained(core, task) {
            core.set_state(task, TaskState::Queued, None);
            core.entry_mut(task).worker = NOBODY;
            placement::push_constrained(core, task);
        } else if let Some(placement::Choice { worker, follows }) = placement::choose_worker(core, task) {
            core.set_state(task, TaskState::Queued, None);
            if let Some(last) = follows {
                core.entry_mut(last).set(FOLLOWED);
            }
            let has_room = core.workers.get(worker).is_some_and(|worker| worker.has_early_room(&core.config));
            if has_room && dispatch::is_turn_of(core, task, worker) {
                dispatch::queued_to_processing(core, task, worker, out);
            } else {
                push_early(core, worker, task);
            }
        }
    }
}

fn push_early(core: &mut Core, worker: WorkerId, task: TaskId) {
    let (flow, rank) = (placement::flow_of(core, task), placement::rank_of(core, task));
    let estimate = placement::estimate_ns(core, task);
    core.entry_mut(task).worker = worker;
    let is_due = core.workers.update(worker, |worker| {
        worker.early.push(flow, rank, estimate);
        worker.early.is_due_for_sweep()
    });
    if is_due == Some(true) {
        placement::sweep(core, worker, true);
    }
}

/// Another input of an active task is in memory, or (`is_back`) one is not any more.
pub(super) fn count_missing(core: &mut Core, task: TaskId, is_back: bool) {
    let entry = core.entry_mut(task);
    let was_early = entry.is_early();
    if is_back {
        entry.n_missing += 1;
    } else {
        entry.n_missing -= 1;
    }
    let is_early = entry.is_early();
    if entry.state == TaskState::Processing && was_early != is_early {
        let (worker, estimate) = (entry.worker, u64::from(entry.estimate_ns));
        core.workers.update(worker, |worker| worker.count_early(is_early, estimate));
    }
}

/// A run has finished that was given while its inputs were being made: they have been made, whether or not their makers'
/// reports have come. Those that nobody else needs will not be waited for, so they are counted here.
pub(super) fn note_made(core: &mut Core, task: TaskId) {
    let run = core.run_mut(task.graph);
    let entry = run.entry_mut(task.idx);
    let is_first = !entry.has(super::graph_run::FINISHED_ONCE);
    entry.set(super::graph_run::FINISHED_ONCE);
    run.counts.n_finished += u32::from(is_first);
    run.n_executions += 1;
}

/// A worker has fetched the result of a run that is not known to have finished. It has: the report is on its way.
pub(super) fn note_early_holder(core: &mut Core, task: TaskId, worker: WorkerId) {
    if core.config.has_fault(Fault::ForgetEarlyHolders) {
        return;
    }
    let holders = core.early_holders.entry(task).or_default();
    if !holders.contains(&worker) {
        holders.push(worker);
    }
}

/// The run of `task` is over: who fetched its result before that was known.
pub(super) fn take_early_holders(core: &mut Core, task: TaskId) -> Vec<WorkerId> {
    if core.early_holders.is_empty() {
        return Vec::new();
    }
    core.early_holders.remove(&task).unwrap_or_default()
}
