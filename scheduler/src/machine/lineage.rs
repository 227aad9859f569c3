//! Workers that come, go and speak: the one path by which a worker is lost, and what its messages change.
//!
//! When a worker is lost its runs go elsewhere and its results lose a holder; a result without holders that is still
//! needed is made again from its inputs, recursively. What was executing is blamed: workers name runs that take long;
//! of the others, the first in line for a slot are suspected, and those behind them doubted, as are those for which inputs were
//! on their way: to fetch and to decode can kill a worker too. A doubted task waits for its inputs, and for a slot, before it is given
//! again, so that it is suspected if that worker dies as well.

use rask_comm::KeyId;
use rask_comm::limits::MAX_RETRIES;
use rask_comm::message::{FailureKind, FromWorker, RunFailure, ToWorker, WorkerHello};
use rask_comm::time::Time;
use rask_graphs::{Attempt, Source, TaskId, TaskIdx, WorkerId};

use super::clients;
use super::config::Fault;
use super::core::Core;
use super::event::{Actions, Note};
use super::graph_run::{DOUBTED, EXECUTING, GraphRun, IS_CONSTRAINED, NOT_EARLY, TaskState, UPLOADED};
use super::holders::Loss;
use super::workers::Worker;
use super::{
    constraints, contract, delays, dispatch, early, holders, killers, placement, quarantine, replicas, retirement, speculation,
    stealing, transitions, uploads,
};

pub(super) fn worker_joined(core: &mut Core, worker: WorkerId, hello: WorkerHello, key: KeyId, out: &mut Actions) {
    core.workers.insert(worker, hello, key);
    quarantine::workers_changed(core);
    (core.no_workers_since, core.deserted_until) = (None, None);
    out.tell_worker(worker, ToWorker::Welcome { worker, epoch: core.config.epoch, keys: core.config.secret.for_worker(worker) });
    // Whatever waits for room finds it there; the others have no more room than before.
    core.to_fill.push(worker);
    uploads::look_again(core);
    retirement::advance_all(core, out);
}

pub(super) fn worker_lost(core: &mut Core, worker: WorkerId, was_graceful: bool, reason: &str, out: &mut Actions) {
    let Some(gone) = core.workers.remove(worker) else { return };
    let reason = if was_graceful { "it was told to stop, and left" } else { reason };
    core.last_loss = format!("worker \"{}\": {reason}", gone.hello.name);
    core.learning.forget_worker(worker);
    quarantine::workers_changed(core);
    replicas::worker_gone(core, worker);
    out.to_workers.remove(&worker);
    let (mut executing, mut others, mut held, mut backlog) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut uploading = Vec::new();
    for run in core.graphs.values() {
        for (idx, entry) in run.tasks.iter().enumerate() {
            let task = run.task_id(TaskIdx(idx as u32));
            match entry.state {
                TaskState::Processing if entry.worker == worker && entry.has(UPLOADED) => uploading.push(task),
                TaskState::Processing if entry.worker == worker => {
                    if entry.has(EXECUTING) { &mut executing } else { &mut others }.push((run.options.priority, task));
                }
                TaskState::Queued if entry.worker == worker => backlog.push(task),
                TaskState::Memory if entry.holders.contains(&worker) => held.push(task),
                TaskState::Released
                | TaskState::Waiting
                | TaskState::Queued
                | TaskState::Processing
                | TaskState::Memory
                | TaskState::Erred => {}
            }
        }
    }
    for task in core.speculation.backups_at(worker) {
        let is_executing = core.speculation.backups.get(&task).is_some_and(|backup| backup.is_executing);
        let priority = core.run(task.graph).options.priority;
        if is_executing { &mut executing } else { &mut others }.push((priority, task));
    }
    // Those that waited for inputs were hardly on a slot; should one have been, it will be ready the next time.
    others.sort_by_key(|(priority, task)| {
        let entry = core.entry(*task);
        (entry.is_early(), entry.round, std::cmp::Reverse(*priority), *task)
    });
    let n_ready = others.iter().filter(|(_, task)| !core.entry(*task).is_early()).count();
    let n_suspects = (gone.n_slots() as usize).saturating_sub(executing.len()).min(n_ready);
    // With every slot accounted for, the others were not executing; they may have been fetching.
    let has_free_slot = executing.len() < gone.n_slots() as usize;
    let is_doubtful = |task: TaskId| has_free_slot || is_fetching(core, task, worker);
    let of_the_rest = |task| if is_doubtful(task) { Blame::Doubted } else { Blame::Innocent };
    let runs = executing.into_iter().map(|(_, task)| (task, Blame::Suspected));
    let others = others.into_iter().enumerate();
    let others = others.map(|(at, (_, task))| (task, if at < n_suspects { Blame::Suspected } else { of_the_rest(task) }));
    let mut runs: Vec<(TaskId, Blame)> = runs.chain(others).collect();
    if !was_graceful {
        killers::note_death(core, &runs, &held);
        let n_results = held.iter().filter(|task| core.entry(**task).holders.len() == 1).count();
        let (name, n_runs) = (gone.hello.name.clone(), runs.len());
        out.note(Note::WorkerLost { name, reason: reason.to_owned(), n_runs, n_results });
    }
    if was_graceful {
        runs.iter_mut().for_each(|(_, blame)| *blame = Blame::Innocent);
    }
    if core.config.has_fault(Fault::KeepDeadHolders) {
        held.clear();
    }
    // Results first: a run that is given to another worker must not be told of holders that are gone.
    for task in held {
        let loss = if was_graceful { Loss::Left } else { Loss::Gone };
        holders::remove_holder(core, task, worker, loss, out);
    }
    for (task, blame) in runs {
        run_lost(core, task, worker, &gone, blame, out);
    }
    // What was on its way there cannot have killed it.
    for task in uploading {
        run_lost(core, task, worker, &gone, Blame::Innocent, out);
    }
    uploads::worker_gone(core, worker, out);
    for task in backlog {
        if core.task(task).is_some_and(|entry| entry.state == TaskState::Queued && entry.worker == worker) {
            placement::requeue(core, task, out);
        }
    }
    killers::stop(core, out);
    dispatch::fill_workers(core, out);
    retirement::advance_all(core, out);
    note_no_workers(core);
}

/// Whether `worker` has to fetch something, or to wait for it, before it can run `task`.
fn is_fetching(core: &Core, task: TaskId, worker: WorkerId) -> bool {
    if core.config.has_fault(Fault::TrustFetchers) {
        return false;
    }
    let is_elsewhere = |task: TaskId| core.task(task).is_some_and(|entry| !entry.holders.contains(&worker));
    let run = core.run(task.graph);
    run.graph.inputs[run.inputs(task.idx)].iter().any(|input| match input.source() {
        Source::Task(idx) => is_elsewhere(TaskId::new(task.graph, idx)),
        Source::External(external) => is_elsewhere(run.graph.externals[external as usize]),
        Source::Group(group) => {
            let members = run.graph.group_members[run.members(group)].iter();
            members.take(placement::N_MEMBERS_SAMPLED).any(|idx| is_elsewhere(TaskId::new(task.graph, *idx)))
        }
    })
}

/// What a run may have to do with the death of its worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    Innocent,
    /// It should not have been executing, and may have been.
    Doubted,
    /// It was executing, or was among the next to.
    Suspected,
}

/// A run has gone with its worker. A task blamed too often fails, so that it does not kill one worker after the other.
fn run_lost(core: &mut Core, task: TaskId, worker: WorkerId, gone: &Worker, blame: Blame, out: &mut Actions) {
    let is_suspect = blame == Blame::Suspected;
    if !core.task(task).is_some_and(|entry| entry.state == TaskState::Processing) {
        return;
    }
    if core.config.has_fault(Fault::ForgetRunsOfDead) {
        return;
    }
    let n_crashes = u8::from(is_suspect) + u8::from(is_suspect && core.config.has_fault(Fault::CountCrashTwice));
    let allowed = core.config.allowed_failures;
    let trusts_fetchers = core.config.has_fault(Fault::TrustFetchers);
    let entry = core.entry_mut(task);
    entry.n_crashes = entry.n_crashes.saturating_add(n_crashes);
    let is_deadly = is_suspect && u32::from(entry.n_crashes) > allowed;
    let n_crashes = entry.n_crashes;
    if is_suspect || blame == Blame::Doubted && !trusts_fetchers {
        entry.set(NOT_EARLY);
    }
    let is_backup = core.speculation.is_backup_at(task, worker);
    if is_backup && !is_deadly {
        speculation::end(core, task, false, out);
        return;
    }
    if !is_deadly && speculation::promote(core, task, false, out) {
        return;
    }
    transitions::abandon_run(core, task, is_backup, out);
    if is_deadly {
        let message = format!("its worker died {n_crashes} times while it worked on it; the last one was {}", core.last_loss);
        let failure = transitions::failure_of(core, task, FailureKind::KilledWorkers, &gone.hello.name, None, message);
        let run = core.run_mut(task.graph);
        // Several may be suspected of one death.
        run.n_killers += u32::from(run.last_killed.replace(worker) != Some(worker));
        transitions::to_erred(core, task, failure, out);
    } else {
        if blame == Blame::Doubted {
            core.entry_mut(task).set(DOUBTED);
        }
        transitions::processing_to_waiting(core, task, out);
    }
}

/// Start the grace period when nobody is there to work, unless it is running. A graph that comes later has all of it.
pub(super) fn note_no_workers(core: &mut Core) {
    if core.workers.len() == 0 && core.graphs.values().any(|run| run.n_active > 0) {
        core.no_workers_since.get_or_insert(core.now);
    } else {
        core.no_workers_since = None;
    }
    let waiting = core.graphs.values().filter_map(|run| deserted_until(core, run));
    core.deserted_until = waiting.filter(|until| *until >= core.now).min();
}

/// Until when `run` waits while nobody is there to work.
pub(super) fn deserted_until(core: &Core, run: &GraphRun) -> Option<Time> {
    let since = core.no_workers_since?;
    let since = if core.config.has_fault(Fault::ShareGrace) { since } else { since.max(run.accepted_at) };
    (run.n_active > 0).then(|| since.after(core.config.no_worker_grace))
}

/// A worker has said what cannot be: it is believed nothing more, and its connection is closed.
fn expel(core: &mut Core, worker: WorkerId, reason: String, out: &mut Actions) {
    core.counters.n_expelled += 1;
    core.workers.update(worker, |entry| entry.is_expelled = true);
    out.tell_worker(worker, ToWorker::Close { reason });
    out.close_workers.push(worker);
}

/// One message of a worker.
pub(super) fn worker_said(core: &mut Core, worker: WorkerId, message: FromWorker, out: &mut Actions) {
    if core.workers.get(worker).is_none_or(|entry| entry.is_expelled) {
        return;
    }
    if let Some(reason) = contract::breach(core, &message) {
        expel(core, worker, reason, out);
        return;
    }
    match message {
        FromWorker::Finished { task, attempt, nbytes, n_parts, duration_us } => {
            finished(core, worker, (task, attempt), nbytes, n_parts, duration_us, out);
        }
        FromWorker::Failed { task, attempt, failure } => failed(core, worker, (task, attempt), failure, out),
        FromWorker::InputLost { task, attempt, input, holders } => {
            if core.speculation.is_backup(task, attempt, worker) {
                speculation::end(core, task, false, out);
                for holder in holders {
                    holders::remove_holder(core, input, holder, Loss::Unreachable, out);
                }
            } else if transitions::is_current(core, task, attempt, worker) {
                let cannot_be = part_that_is_not(core, task, input);
                // Its backup goes on, if it has one: that says so itself if it lacks the input too.
                let goes_on = speculation::promote(core, task, false, out);
                if !goes_on {
                    transitions::abandon_run(core, task, false, out);
                }
                // What could not be had although it was about to be made is waited for here the next time.
                core.entry_mut(task).set(NOT_EARLY);
                if !goes_on {
                    delays::input_lost(core, task);
                }
                // They have what there is.
                let holders = if cannot_be.is_some() { Vec::new() } else { holders };
                for holder in holders {
                    holders::remove_holder(core, input, holder, Loss::Unreachable, out);
                }
                match cannot_be.filter(|_| !goes_on) {
                    Some(message) => {
                        let name = core.workers.get(worker).map_or_else(String::new, |entry| entry.hello.name.clone());
                        let failure = transitions::failure_of(core, task, FailureKind::Operator, &name, None, message);
                        transitions::to_erred(core, task, failure, out);
                    }
                    // What is lost for good has failed it by now.
                    None if !goes_on && core.entry(task).state == TaskState::Processing => {
                        transitions::processing_to_waiting(core, task, out)
                    }
                    None => {}
                }
            } else {
                core.counters.n_stale += 1;
            }
        }
        FromWorker::Fetched { task, attempt, nbytes, from, duration_us } => {
            core.learning.observe_transfer(from, worker, nbytes, duration_us);
            core.count_transferred(task.graph, nbytes);
            add_holder(core, worker, task, attempt, out);
        }
        FromWorker::FetchedParts { graph, nbytes } => core.count_transferred(graph, nbytes),
        FromWorker::Burdened { task, attempt } => replicas::let_go_if_possible(core, task, attempt, worker, out),
        FromWorker::Spilled { graph, nbytes } => core.count_spilled(graph, nbytes),
        FromWorker::Revoked { task, attempt, given_up } => {
            if transitions::is_current(core, task, attempt, worker) {
                stealing::answered(core, task, given_up, out);
            } else {
                core.counters.n_stale += u64::from(given_up);
            }
        }
        FromWorker::Lost { task } => holders::remove_holder(core, task, worker, Loss::Gone, out),
        FromWorker::NotReplicated { task } => {
            retirement::not_replicated(core, task);
            uploads::copied(core, task, worker, false, out);
        }
        FromWorker::Executing { task, attempt } => {
            if transitions::is_current(core, task, attempt, worker) {
                core.entry_mut(task).set(EXECUTING);
                speculation::note_executing(core, task);
                let at_least = speculation::NAMED_AFTER_NS;
                if stealing::learn(core, task, |learning, operator| learning.observe_at_least(operator, at_least)) {
                    stealing::look_again(core, out);
                }
            } else if let Some(backup) = core.speculation.backup_mut(task, attempt, worker) {
                backup.is_executing = true;
            } else {
                core.counters.n_stale += 1;
            }
        }
        FromWorker::Status(status) => {
            let now = core.now_ns();
            core.workers.update(worker, |worker| {
                worker.note_status(now, *status);
                worker.nbytes_uploaded = 0;
            });
            uploads::look_again(core);
        }
        FromWorker::Retiring => retirement::begin(core, worker, out),
    }
    dispatch::fill_worker(core, worker, out);
    retirement::advance_if_retiring(core, worker, out);
}

/// Why `task` can never have its `input`, if it takes a part of it that the result, when it was made, did not have: to make that
/// again would not help. Not said of a run that was given before its inputs were made.
fn part_that_is_not(core: &Core, task: TaskId, input: TaskId) -> Option<String> {
    if core.entry(task).is_early() {
        return None;
    }
    let run = core.run(task.graph);
    let is_it = |source: Source| match source {
        Source::Task(idx) => TaskId::new(task.graph, idx) == input,
        Source::External(external) => run.graph.externals[external as usize] == input,
        Source::Group(group) => input.graph == task.graph && run.graph.group_members[run.members(group)].contains(&input.idx),
    };
    let n_parts = core.task(input)?.n_parts;
    let wanted = run.graph.inputs[run.inputs(task.idx)].iter();
    let part = wanted
        .filter(|wanted| is_it(wanted.source()))
        .map(|wanted| wanted.part)
        .find(|part| !part.is_whole() && part.0 >= n_parts)?;
    let key = core.run(input.graph).graph.keys.name(input.idx.0);
    Some(format!("it takes part {} of the result of \"{key}\", which has {n_parts} parts", part.0))
}

fn finished(
    core: &mut Core,
    worker: WorkerId,
    (task, attempt): (TaskId, Attempt),
    nbytes: u64,
    n_parts: u32,
    duration_us: u64,
    out: &mut Actions,
) {
    if core.speculation.is_backup(task, attempt, worker) {
        speculation::promote(core, task, true, out);
        core.counters.n_backups_won += 1;
    } else if !transitions::is_current(core, task, attempt, worker) {
        core.counters.n_stale += 1;
        speculation::note_replaced(core, task, attempt, worker, out);
        out.tell_worker(worker, ToWorker::Cancel { task, attempt });
        return;
    }
    if core.entry(task).has(UPLOADED) {
        uploads::arrived(core, worker, task, nbytes, n_parts, out);
        return;
    }
    speculation::note_done(core, task, duration_us);
    let is_worth_stealing = stealing::learn(core, task, |learning, operator| learning.observe(operator, duration_us, nbytes));
    dispatch::charge_what_it_took(core, task, duration_us);
    let (now, planned) = (core.now_ns(), core.entry(task).expected_end_ns);
    if !core.run(task.graph).is_root(task.idx) {
        core.workers.update(worker, |worker| worker.note_ended(now, planned));
    }
    transitions::processing_to_memory(core, task, nbytes, n_parts, out);
    if is_worth_stealing {
        stealing::look_again(core, out);
    }
}

fn failed(core: &mut Core, worker: WorkerId, (task, attempt): (TaskId, Attempt), failure: RunFailure, out: &mut Actions) {
    if core.speculation.is_backup(task, attempt, worker) {
        speculation::end(core, task, false, out);
        return;
    }
    if !transitions::is_current(core, task, attempt, worker) {
        core.counters.n_stale += 1;
        return;
    }
    let name = core.workers.get(worker).map(|worker| worker.hello.name.clone()).unwrap_or_default();
    let run = core.run_mut(task.graph);
    run.n_executions += 1;
    let retries = run.graph.options_of(task.idx).map_or(0, |options| options.retries.min(MAX_RETRIES));
    let entry = run.entry_mut(task.idx);
    entry.n_failures = entry.n_failures.saturating_add(1);
    let n_failures = u32::from(entry.n_failures);
    if failure.kind == FailureKind::TooLarge && has_larger(core, task, worker) {
        if !speculation::promote(core, task, false, out) {
            transitions::abandon_run(core, task, false, out);
            transitions::processing_to_waiting(core, task, out);
        }
        return;
    }
    let may_retry = n_failures <= retries || core.config.has_fault(Fault::RetryForEver);
    if may_retry && speculation::promote(core, task, false, out) {
        // The retry is under way.
        return;
    }
    transitions::abandon_run(core, task, false, out);
    if may_retry {
        delays::failed(core, task, n_failures);
        transitions::processing_to_waiting(core, task, out);
    } else {
        let failure = transitions::failure_of(core, task, failure.kind, &name, Some(failure.operator), failure.message);
        transitions::to_erred(core, task, failure, out);
    }
}

/// `task` takes more than the memory of `worker`. Whether another one has more: if so, the task is only for such from here on.
fn has_larger(core: &mut Core, task: TaskId, worker: WorkerId) -> bool {
    let Some(limit) = core.workers.get(worker).map(|worker| worker.hello.memory_limit).filter(|limit| *limit > 0) else {
        return false;
    };
    let run = core.run_mut(task.graph);
    let needs = run.needs_above.entry(task.idx).or_default();
    *needs = (*needs).max(limit);
    if run.entry(task.idx).has(UPLOADED) {
        let (run, workers) = (core.run(task.graph), core.workers.iter());
        return workers.into_iter().any(|(_, at)| uploads::may_hold(run, at) && constraints::has_more_than(at, limit));
    }
    run.entry_mut(task.idx).set(IS_CONSTRAINED | NOT_EARLY);
    core.workers.iter().any(|(at, _)| placement::may_run(core, task, at, false))
}

/// A worker has fetched a whole result and keeps it.
fn add_holder(core: &mut Core, worker: WorkerId, task: TaskId, attempt: Attempt, out: &mut Actions) {
    let state = core.task(task).filter(|entry| entry.attempt == attempt).map(|entry| entry.state);
    if state == Some(TaskState::Processing) {
        early::note_early_holder(core, task, worker);
        return;
    }
    if state != Some(TaskState::Memory) {
        core.counters.n_stale += 1;
        out.tell_worker(worker, ToWorker::Cancel { task, attempt });
        return;
    }
    let entry = core.entry_mut(task);
    if !entry.holders.contains(&worker) {
        entry.holders.push(worker);
        core.workers.update(worker, |worker| worker.n_results += 1);
    }
    replicas::fetch_ended(core, task, worker, true);
    retirement::replicated(core, task, out);
    uploads::copied(core, task, worker, true, out);
    clients::tell_in_memory(core, task, out);
}
