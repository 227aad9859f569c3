//! How tasks change state, and what one change makes of others.
//!
//! Needs drive everything. An active task needs each of its inputs once an edge; a client needs its outputs. A result that
//! becomes needed while released is made (again); one that is needed by nobody is let go, or no longer made. A gather
//! group needs its members while any active task needs the group. All cascades run on explicit stacks: graphs are as deep
//! as users make them.

use std::sync::Arc;

use rask_comm::message::{FailureKind, TaskFailure, ToWorker};
use rask_graphs::{Attempt, GraphId, Source, TaskId, TaskIdx, WorkerId};

use super::clients;
use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{
    BOUND_EARLY, DOUBTED, EXECUTING, FINISHED_ONCE, HAS_EXTERNAL, NOBODY, Node, OUTPUT_PENDING, SPECULATED, TaskState, UPLOADED,
    WANTED,
};
use super::{early, placement, replicas, speculation, stealing, uploads};

/// Make released results that are needed: they and, as far as necessary, their inputs become waiting or ready.
pub(super) fn released_to_waiting(core: &mut Core, mut stack: Vec<TaskId>, out: &mut Actions) {
    let mut ready = Vec::new();
    let mut doomed = Vec::new();
    while let Some(task) = stack.pop() {
        if core.entry(task).state != TaskState::Released || !core.entry(task).is_needed() {
            continue;
        }
        core.set_state(task, TaskState::Waiting, None);
        let (mut n_missing, mut n_unplaced) = (0, 0);
        let mut failure = None;
        for at in core.run(task.graph).inputs(task.idx) {
            let source = core.run(task.graph).graph.inputs[at].source();
            add_need(core, task.graph, source, &mut stack);
            n_missing += u32::from(!core.run(task.graph).is_available(source));
            n_unplaced += u32::from(!core.run(task.graph).is_placed(source));
            failure = failure.or(source_failure(core, task.graph, source));
        }
        let entry = core.entry_mut(task);
        (entry.n_missing, entry.n_unplaced) = (n_missing, n_unplaced);
        if let Some(failure) = failure {
            doomed.push((task, failure));
        } else if n_missing == 0 {
            ready.push(task);
        } else {
            early::note_bindable(core, task);
        }
    }
    for (task, failure) in doomed {
        to_erred(core, task, failure, out);
    }
    ready.sort_unstable();
    for task in ready {
        if core.entry(task).state == TaskState::Waiting {
            placement::waiting_to_queued(core, task, out);
        }
    }
}

/// One more edge needs `source`; what has to be made for it goes onto `stack`.
fn add_need(core: &mut Core, graph: GraphId, source: Source, stack: &mut Vec<TaskId>) {
    match source {
        Source::Task(idx) => add_need_of_task(core, TaskId::new(graph, idx), stack),
        Source::Group(group) => {
            let run = core.run_mut(graph);
            let entry = &mut run.groups[group as usize];
            entry.n_consumers += 1;
            if entry.n_consumers > 1 {
                return;
            }
            for at in run.members(group) {
                let idx = core.run(graph).graph.group_members[at];
                add_need_of_task(core, TaskId::new(graph, idx), stack);
            }
        }
        Source::External(external) => {
            let run = core.run_mut(graph);
            let entry = &mut run.externals[external as usize];
            entry.n_consumers += 1;
            if entry.n_consumers == 1 {
                let task = run.graph.externals[external as usize];
                add_need_of_task(core, task, stack);
            }
        }
    }
}

fn add_need_of_task(core: &mut Core, task: TaskId, stack: &mut Vec<TaskId>) {
    let entry = core.entry_mut(task);
    entry.n_consumers += 1;
    if entry.state == TaskState::Released {
        stack.push(task);
    }
}

/// A task gives up its needs: it has its result, has failed, or is not wanted any more.
fn drop_needs_of(core: &mut Core, task: TaskId, out: &mut Actions) {
    let mut unneeded = Vec::new();
    drop_needs_onto(core, task, &mut unneeded);
    let is_done = core.entry(task).state == TaskState::Memory;
    let_go_of(core, unneeded, is_done, out);
}

fn drop_needs_onto(core: &mut Core, task: TaskId, unneeded: &mut Vec<TaskId>) {
    for at in core.run(task.graph).inputs(task.idx) {
        let source = core.run(task.graph).graph.inputs[at].source();
        match source {
            Source::Task(idx) => drop_need_of_task(core, TaskId::new(task.graph, idx), unneeded),
            Source::Group(group) => {
                let run = core.run_mut(task.graph);
                let entry = &mut run.groups[group as usize];
                entry.n_consumers -= 1;
                if entry.n_consumers > 0 {
                    continue;
                }
                for at in run.members(group) {
                    let idx = core.run(task.graph).graph.group_members[at];
                    drop_need_of_task(core, TaskId::new(task.graph, idx), unneeded);
                }
            }
            Source::External(external) => {
                let run = core.run_mut(task.graph);
                let entry = &mut run.externals[external as usize];
                entry.n_consumers -= 1;
                if entry.n_consumers == 0 {
                    let task = run.graph.externals[external as usize];
                    drop_need_of_task(core, task, unneeded);
                }
            }
        }
    }
}

fn drop_need_of_task(core: &mut Core, task: TaskId, unneeded: &mut Vec<TaskId>) {
    let entry = core.entry_mut(task);
    entry.n_consumers -= 1;
    if !entry.is_needed() {
        unneeded.push(task);
    }
}

/// Let go of results, or of making them, where nobody needs them any more.
pub(super) fn let_go(core: &mut Core, unneeded: Vec<TaskId>, out: &mut Actions) {
    let_go_of(core, unneeded, false, out);
}

/// As [`let_go`]; `are_made` tells that they were inputs of a run that has finished, so that they have been made even where
/// their makers' reports have not come.
fn let_go_of(core: &mut Core, mut unneeded: Vec<TaskId>, are_made: bool, out: &mut Actions) {
    while let Some(task) = unneeded.pop() {
        let entry = core.entry(task);
        if entry.is_needed() {
            continue;
        }
        match entry.state {
            TaskState::Memory => memory_to_released(core, task, out),
            TaskState::Waiting | TaskState::Queued => {
                core.set_state(task, TaskState::Released, None);
                drop_needs_onto(core, task, &mut unneeded);
            }
            TaskState::Processing => {
                if are_made {
                    early::note_made(core, task);
                }
                abandon_run(core, task, !core.config.has_fault(Fault::ForgetToCancel), out);
                core.set_state(task, TaskState::Released, None);
                drop_needs_onto(core, task, &mut unneeded);
            }
            TaskState::Released | TaskState::Erred => {}
        }
    }
}

/// Nobody needs a result: its holders drop it.
fn memory_to_released(core: &mut Core, task: TaskId, out: &mut Actions) {
    let holders = std::mem::take(&mut core.entry_mut(task).holders);
    for holder in holders {
        let found = core.workers.update(holder, |worker| {
            worker.n_results -= 1;
            worker.moving.remove(&task);
        });
        // One that is gone may still be named while its results are being seen to.
        if found.is_some() && !core.config.has_fault(Fault::ForgetToFree) {
            tell_free(out, holder, task);
        }
    }
    leave_memory(core, task);
    core.set_state(task, TaskState::Released, None);
}

/// Results that one message lets go of: it has to fit a frame.
const MAX_FREED: usize = 65_536;

/// Have a worker drop a result; several in a row go in one message.
pub(super) fn tell_free(out: &mut Actions, worker: WorkerId, task: TaskId) {
    let messages = out.to_workers.entry(worker).or_default();
    if let Some(ToWorker::Free { tasks }) = messages.last_mut()
        && tasks.len() < MAX_FREED
    {
        tasks.push(task);
    } else {
        messages.push(ToWorker::Free { tasks: vec![task] });
    }
}

/// A processing task's run ends without a result; its share of the worker is given back, and the worker is told unless
/// it has let go itself.
pub(super) fn abandon_run(core: &mut Core, task: TaskId, tell: bool, out: &mut Actions) {
    let (worker, attempt) = (core.entry(task).worker, core.entry(task).attempt);
    give_back(core, task);
    speculation::end(core, task, true, out);
    cancel_early_holders(core, task, out);
    core.needs_filling = true;
    if tell && core.workers.get(worker).is_some() {
        out.tell_worker(worker, ToWorker::Cancel { task, attempt });
    }
}

/// The run of `task` is over without a result, as far as is known here: who has fetched it drops it.
pub(super) fn cancel_early_holders(core: &mut Core, task: TaskId, out: &mut Actions) {
    let attempt = core.entry(task).attempt;
    for holder in early::take_early_holders(core, task) {
        if core.workers.get(holder).is_some() {
            out.tell_worker(holder, ToWorker::Cancel { task, attempt });
        }
    }
}

/// Return the slot share and the resources of a processing task.
pub(super) fn give_back(core: &mut Core, task: TaskId) {
    if core.entry(task).has(UPLOADED) {
        uploads::give_back(core, task);
        return;
    }
    stealing::end_move(core, task);
    if core.entry(task).has(EXECUTING) {
        speculation::forget_executing(core, task);
    }
    let entry = core.entry_mut(task);
    let (worker, estimate, is_early) = (entry.worker, u64::from(entry.estimate_ns), entry.is_early());
    let is_doubted = entry.has(DOUBTED);
    entry.worker = NOBODY;
    entry.estimate_ns = 0;
    entry.clear(EXECUTING);
    entry.clear(BOUND_EARLY);
    replicas::run_ended(core, task, worker);
    if core.config.has_fault(Fault::LeakSlot) {
        return;
    }
    let run = core.graphs.get(&task.graph).expect("a task in transition has a graph");
    let options = run.graph.options_of(task.idx);
    core.workers.update(worker, |worker| {
        worker.n_processing -= 1;
        worker.n_doubted -= u32::from(is_doubted);
        worker.occupancy_ns -= estimate;
        if is_early {
            worker.count_early(false, estimate);
        }
        if let Some(options) = options {
            worker.adjust_resources(&options.resources, 1.0);
        }
    });
}

/// The accepted end of a run: a result exists.
pub(super) fn processing_to_memory(core: &mut Core, task: TaskId, nbytes: u64, n_parts: u32, out: &mut Actions) {
    let worker = core.entry(task).worker;
    give_back(core, task);
    // Before anything is freed that it needs.
    speculation::end(core, task, true, out);
    let entry = core.entry_mut(task);
    entry.nbytes = nbytes;
    entry.n_parts = n_parts;
    entry.holders.push(worker);
    let early_holders = early::take_early_holders(core, task);
    for holder in early_holders {
        if holder != worker && core.workers.update(holder, |worker| worker.n_results += 1).is_some() {
            core.entry_mut(task).holders.push(holder);
        }
    }
    let entry = core.entry_mut(task);
    let is_first = !entry.has(FINISHED_ONCE);
    entry.set(FINISHED_ONCE);
    core.delays.forget(task);
    let entry = core.entry_mut(task);
    // Whatever killed a worker that had this, it was not this.
    entry.n_crashes = 0;
    entry.clear(DOUBTED);
    core.workers.update(worker, |worker| worker.n_results += 1);
    core.set_state(task, TaskState::Memory, Some(worker));
    let run = core.run_mut(task.graph);
    run.counts.n_finished += u32::from(is_first);
    run.n_deaths = if is_first { 0 } else { run.n_deaths };
    run.n_executions += 1;
    enter_memory(core, task, out);
    if !core.config.has_fault(Fault::ReleaseInputsEarly) {
        drop_needs_of(core, task, out);
        replicas::shrink_inputs(core, task, out);
    }
    clients::tell_in_memory(core, task, out);
    if !core.entry(task).is_needed() {
        let_go(core, vec![task], out);
    }
}

/// With [`Fault::ReleaseInputsEarly`]: what a correct machine does when the run has finished.
pub(super) fn release_inputs_early(core: &mut Core, task: TaskId, out: &mut Actions) {
    drop_needs_of(core, task, out);
}

/// A result has come into memory: dependants miss one input less.
fn enter_memory(core: &mut Core, task: TaskId, out: &mut Actions) {
    let mut ready = Vec::new();
    let was_placed = !core.entry(task).has(SPECULATED);
    for at in core.run(task.graph).dependents(Node::Task(task.idx)) {
        match core.run(task.graph).dependent(at) {
            Node::Task(idx) => one_arrived(core, TaskId::new(task.graph, idx), was_placed, &mut ready),
            Node::Group(group) => {
                let run = core.run_mut(task.graph);
                run.groups[group as usize].n_missing -= 1;
                if run.groups[group as usize].n_missing == 0 {
                    for at in run.dependents(Node::Group(group)) {
                        if let Node::Task(idx) = core.run(task.graph).dependent(at) {
                            one_arrived(core, TaskId::new(task.graph, idx), false, &mut ready);
                        }
                    }
                }
            }
            Node::External(_) => {}
        }
    }
    for (graph, external) in external_users(core, task) {
        core.run_mut(graph).externals[external as usize].is_present = true;
        for at in core.run(graph).dependents(Node::External(external)) {
            if let Node::Task(idx) = core.run(graph).dependent(at) {
                one_arrived(core, TaskId::new(graph, idx), false, &mut ready);
            }
        }
    }
    for task in ready {
        placement::waiting_to_queued(core, task, out);
    }
}

/// `was_placed` tells whether the input was known to be on its way.
fn one_arrived(core: &mut Core, task: TaskId, was_placed: bool, ready: &mut Vec<TaskId>) {
    if !core.entry(task).is_active() {
        return;
    }
    early::count_missing(core, task, false);
    let loses_wake_up = core.config.has_fault(Fault::LoseWakeUp) && task.idx.0 % 7 == 6;
    let entry = core.entry_mut(task);
    entry.n_unplaced -= u32::from(!was_placed);
    match entry.state {
        TaskState::Waiting | TaskState::Queued if entry.n_missing == 0 && !loses_wake_up => ready.push(task),
        TaskState::Waiting if entry.n_unplaced == 0 => core.bindable.push_back(task),
        TaskState::Released
        | TaskState::Waiting
        | TaskState::Queued
        | TaskState::Processing
        | TaskState::Memory
        | TaskState::Erred => {}
    }
}

/// A result has left memory: dependants miss one input more, and those that were ready wait again.
pub(super) fn leave_memory(core: &mut Core, task: TaskId) {
    replicas::forget(core, task);
    uploads::forget_copies(core, task);
    for at in core.run(task.graph).dependents(Node::Task(task.idx)) {
        match core.run(task.graph).dependent(at) {
            Node::Task(idx) => one_left(core, TaskId::new(task.graph, idx)),
            Node::Group(group) => {
                let run = core.run_mut(task.graph);
                run.groups[group as usize].n_missing += 1;
                run.groups[group as usize].version += 1;
                if run.groups[group as usize].n_missing == 1 {
                    for at in run.dependents(Node::Group(group)) {
                        if let Node::Task(idx) = core.run(task.graph).dependent(at) {
                            one_left(core, TaskId::new(task.graph, idx));
                        }
                    }
                }
            }
            Node::External(_) => {}
        }
    }
    for (graph, external) in external_users(core, task) {
        core.run_mut(graph).externals[external as usize].is_present = false;
        for at in core.run(graph).dependents(Node::External(external)) {
            if let Node::Task(idx) = core.run(graph).dependent(at) {
                one_left(core, TaskId::new(graph, idx));
            }
        }
    }
}

/// A processing task is left alone: its worker may have the input already, and says so if not.
fn one_left(core: &mut Core, task: TaskId) {
    if !core.entry(task).is_active() {
        return;
    }
    early::count_missing(core, task, true);
    core.entry_mut(task).n_unplaced += 1;
    if core.entry(task).state == TaskState::Queued {
        core.set_state(task, TaskState::Waiting, None);
    }
}

fn external_users(core: &Core, task: TaskId) -> Vec<(GraphId, u32)> {
    if !core.entry(task).has(HAS_EXTERNAL) {
        return Vec::new();
    }
    core.run(task.graph).external_users.get(&task.idx).cloned().unwrap_or_default()
}

/// A run was given back, or its worker is gone: the task is ready again, or waits for inputs that have been lost since. What
/// was bound to the run is taken back.
pub(super) fn processing_to_waiting(core: &mut Core, task: TaskId, out: &mut Actions) {
    core.set_state(task, TaskState::Waiting, None);
    early::unplace(core, task, out);
    let run = core.run(task.graph);
    let failure = run.inputs(task.idx).find_map(|at| source_failure(core, task.graph, run.graph.inputs[at].source()));
    if let Some(failure) = failure {
        to_erred(core, task, failure, out);
    } else if core.entry(task).n_missing == 0 {
        placement::waiting_to_queued(core, task, out);
    } else {
        early::note_bindable(core, task);
    }
}

/// Why `source` will never be there, if that is so.
pub(super) fn source_failure(core: &Core, graph: GraphId, source: Source) -> Option<Arc<TaskFailure>> {
    let of_task = |task: TaskId| {
        let run = core.run(task.graph);
        (run.entry(task.idx).state == TaskState::Erred).then(|| {
            let cause = run.cause_of.get(&task.idx).copied().unwrap_or_default();
            Arc::clone(&run.failures[cause as usize])
        })
    };
    match source {
        Source::Task(idx) => of_task(TaskId::new(graph, idx)),
        Source::Group(group) => {
            let run = core.run(graph);
            run.graph.group_members[run.members(group)].iter().find_map(|idx| of_task(TaskId::new(graph, *idx)))
        }
        Source::External(external) => of_task(core.run(graph).graph.externals[external as usize]),
    }
}

/// A task has failed for good, and so has everything that waits for it.
pub(super) fn to_erred(core: &mut Core, task: TaskId, failure: Arc<TaskFailure>, out: &mut Actions) {
    let mut stack = vec![task];
    while let Some(task) = stack.pop() {
        if !core.entry(task).is_active() {
            continue;
        }
        let was_processing = core.entry(task).state == TaskState::Processing;
        if was_processing {
            abandon_run(core, task, true, out);
        }
        core.set_state(task, TaskState::Erred, None);
        if was_processing {
            early::unplace(core, task, out);
        }
        let run = core.run_mut(task.graph);
        let same = run.failures.last().is_some_and(|last| Arc::ptr_eq(last, &failure));
        if !same {
            run.failures.push(Arc::clone(&failure));
        }
        let cause = run.failures.len() as u32 - 1;
        run.cause_of.insert(task.idx, cause);
        clients::tell_failed(core, task, &failure, out);
        if !core.config.has_fault(Fault::SwallowFailure) {
            push_waiting_dependents(core, task, &mut stack);
        }
        drop_needs_of(core, task, out);
    }
}

/// Dependants that wait for `task`, at a worker too; one that is executing has what it needs.
fn push_waiting_dependents(core: &Core, task: TaskId, stack: &mut Vec<TaskId>) {
    let push = |graph: GraphId, idx: TaskIdx, stack: &mut Vec<TaskId>| {
        let entry = core.run(graph).entry(idx);
        if entry.is_active() && entry.is_early() && !entry.has(EXECUTING) {
            stack.push(TaskId::new(graph, idx));
        }
    };
    let run = core.run(task.graph);
    for at in run.dependents(Node::Task(task.idx)) {
        match run.dependent(at) {
            Node::Task(idx) => push(task.graph, idx, stack),
            Node::Group(group) => {
                for at in run.dependents(Node::Group(group)) {
                    if let Node::Task(idx) = run.dependent(at) {
                        push(task.graph, idx, stack);
                    }
                }
            }
            Node::External(_) => {}
        }
    }
    for (graph, external) in external_users(core, task) {
        let user = core.run(graph);
        for at in user.dependents(Node::External(external)) {
            if let Node::Task(idx) = user.dependent(at) {
                push(graph, idx, stack);
            }
        }
    }
}

/// A client wants an output no more.
pub(super) fn unwant(core: &mut Core, task: TaskId, out: &mut Actions) {
    let run = core.run_mut(task.graph);
    let entry = run.entry_mut(task.idx);
    if !entry.has(WANTED) {
        return;
    }
    entry.clear(WANTED);
    let was_pending = entry.has(OUTPUT_PENDING);
    entry.clear(OUTPUT_PENDING);
    run.n_wanted -= 1;
    run.n_outputs_pending -= u32::from(was_pending);
    let_go(core, vec![task], out);
    if was_pending {
        // It may have been the last one that its client was still waiting for.
        clients::end_if_done(core, task.graph, out);
    }
    core.note_maybe_over(task.graph);
}

/// A failure of `task` as clients are told it.
pub(super) fn failure_of(
    core: &Core,
    task: TaskId,
    kind: FailureKind,
    worker: &str,
    operator: Option<String>,
    message: String,
) -> Arc<TaskFailure> {
    let run = core.run(task.graph);
    Arc::new(TaskFailure {
        task,
        key: run.graph.keys.name(task.idx.0),
        kind,
        operator: operator.unwrap_or_else(|| run.graph.body(task.idx).name()),
        worker: worker.to_owned(),
        attempt: run.entry(task.idx).attempt,
        message,
    })
}

/// Whether news of `attempt` of `task` from `worker` concerns the present run.
pub(super) fn is_current(core: &Core, task: TaskId, attempt: Attempt, worker: WorkerId) -> bool {
    core.task(task).is_some_and(|entry| {
        entry.state == TaskState::Processing
            && entry.worker == worker
            && (entry.attempt == attempt || core.config.has_fault(Fault::SkipAttemptCheck))
    })
}
