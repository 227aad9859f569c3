//! Backup copies of stragglers: a run that takes far longer than its siblings is given to an idle worker as well, and the first
//! result is taken (Dean and Ghemawat's MapReduce, OSDI 2004; when and how many follows Spark).
//!
//! *Siblings* are the tasks of one graph with the same operator. They are counted only once one of them is known to be executing,
//! which workers tell of runs longer than 20 ms: graphs of short tasks cost nothing here. A run is a straggler when there are 10
//! siblings, half of them done, and it has taken 3 times their median. Its task entry goes on describing the first run; the backup,
//! one attempt later, is kept in a table beside. What ends a task's run without a result makes its backup the run
//! ([`promote`]), so winning is being promoted and then finishing as any run does.
//!
//! While a task has two runs nobody can be told which result to wait for, so it is not *placed* ([`super::early`]): runs bound to
//! it are taken back, and given when there is a result. That costs them a message's time after a run of many milliseconds.
//!
//! A backup changes when a task is done, never whether: the first run's failure counts as without a backup (which then is
//! the retry), a backup's does not count. Only its killing a worker does, as any run's.

use std::collections::BTreeMap;
use std::time::Duration;

use rask_comm::message::ToWorker;
use rask_comm::time::Time;
use rask_graphs::{Attempt, GraphId, TaskId, TaskIdx, WorkerId};

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{DOUBTED, EXECUTING, FINISHED_ONCE, SPECULATED, TaskState};
use super::holders::Loss;
use super::{dispatch, early, holders, placement, transitions};

/// Fewer siblings have no typical duration.
const MIN_SIBLINGS: u32 = 10;
/// How many times the median makes a straggler.
const SLOWNESS: u64 = 3;
/// Workers name runs that have been on a slot for this long: 20 ms.
pub(super) const NAMED_AFTER_NS: u64 = 20_000_000;
/// When no worker is idle, stragglers are looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How many of the siblings' durations are kept: the latest.
const N_DURATIONS: usize = 64;
/// How many of the least loaded workers are considered.
const N_CANDIDATES: usize = 16;

/// The second run of a task that is processing.
#[derive(Debug)]
pub(super) struct Backup {
    pub(super) worker: WorkerId,
    pub(super) attempt: Attempt,
    pub(super) estimate_ns: u32,
    pub(super) is_executing: bool,
}

/// The tasks of a graph with the same operator.
#[derive(Default)]
struct Siblings {
    n_tasks: u32,
    n_done: u32,
    /// The latest durations, in nanoseconds, in a ring.
    durations: Vec<u64>,
    next: usize,
    /// Runs known to be executing that have had no backup, and since when, in nanoseconds of the machine's time.
    executing: BTreeMap<TaskIdx, u64>,
}

impl Siblings {
    fn add_duration(&mut self, duration_ns: u64) {
        if self.durations.len() < N_DURATIONS {
            self.durations.push(duration_ns);
        } else {
            self.durations[self.next] = duration_ns;
            self.next = (self.next + 1) % N_DURATIONS;
        }
    }

    /// How long a run takes at least that is a straggler, in nanoseconds, once that can be said.
    fn patience_ns(&self) -> Option<u64> {
        if self.n_tasks < MIN_SIBLINGS || self.n_done * 2 < self.n_tasks || self.durations.is_empty() {
            return None;
        }
        let mut sorted = self.durations.clone();
        let middle = sorted.len() / 2;
        let (_, median, _) = sorted.select_nth_unstable(middle);
        Some(median.saturating_mul(SLOWNESS).max(NAMED_AFTER_NS))
    }

    /// When the first of its runs is a straggler.
    fn due_ns(&self) -> Option<u64> {
        let first = self.executing.values().min()?;
        Some(first.saturating_add(self.patience_ns()?))
    }
}

/// Who might be a straggler, and the backups there are.
#[derive(Default)]
pub(super) struct Speculation {
    siblings: BTreeMap<(GraphId, u32), Siblings>,
    pub(super) backups: BTreeMap<TaskId, Backup>,
    /// When to look for stragglers next.
    pub(super) next_look: Option<Time>,
}

impl Speculation {
    fn look_at(&mut self, due_ns: u64) {
        let at = Time(Duration::from_nanos(due_ns));
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    pub(super) fn is_backup(&self, task: TaskId, attempt: Attempt, worker: WorkerId) -> bool {
        self.backups.get(&task).is_some_and(|backup| backup.attempt == attempt && backup.worker == worker)
    }

    pub(super) fn backup_mut(&mut self, task: TaskId, attempt: Attempt, worker: WorkerId) -> Option<&mut Backup> {
        self.backups.get_mut(&task).filter(|backup| backup.attempt == attempt && backup.worker == worker)
    }

    pub(super) fn is_backup_at(&self, task: TaskId, worker: WorkerId) -> bool {
        self.backups.get(&task).is_some_and(|backup| backup.worker == worker)
    }

    pub(super) fn backups_at(&self, worker: WorkerId) -> Vec<TaskId> {
        self.backups.iter().filter(|(_, backup)| backup.worker == worker).map(|(task, _)| *task).collect()
    }

    pub(super) fn forget_graph(&mut self, graph: GraphId) {
        self.siblings.retain(|(of, _), _| *of != graph);
    }
}

/// The run of `task` is known to be executing, for [`NAMED_AFTER_NS`] by now.
pub(super) fn note_executing(core: &mut Core, task: TaskId) {
    if core.config.backup_share <= 0.0 || core.entry(task).has(SPECULATED) {
        return;
    }
    let operator = placement::operator_of(core, task);
    let now = core.now_ns();
    let Core { speculation, graphs, learning, .. } = core;
    let Some(run) = graphs.get(&task.graph) else { return };
    let siblings = speculation.siblings.entry((task.graph, operator)).or_insert_with(|| {
        let mut siblings = Siblings::default();
        for (body, entry) in run.graph.body_of.iter().zip(&run.tasks) {
            if run.operator_of[*body as usize] == operator {
                siblings.n_tasks += 1;
                siblings.n_done += u32::from(entry.has(FINISHED_ONCE));
            }
        }
        if siblings.n_done > 0 {
            // Those that were done before anybody looked are known by their average.
            siblings.add_duration(u64::from(learning.estimate_ns(operator)));
        }
        siblings
    });
    siblings.executing.insert(task.idx, now.saturating_sub(NAMED_AFTER_NS));
    if let Some(due) = siblings.due_ns() {
        speculation.look_at(due);
    }
}

/// The run of `task` that was known to be executing is over.
pub(super) fn forget_executing(core: &mut Core, task: TaskId) {
    let operator = placement::operator_of(core, task);
    if let Some(siblings) = core.speculation.siblings.get_mut(&(task.graph, operator)) {
        siblings.executing.remove(&task.idx);
    }
}

/// A run of `task` has finished and is about to be accepted.
pub(super) fn note_done(core: &mut Core, task: TaskId, duration_us: u64) {
    if core.speculation.siblings.is_empty() {
        return;
    }
    let operator = placement::operator_of(core, task);
    let is_first = !core.entry(task).has(FINISHED_ONCE);
    let Some(siblings) = core.speculation.siblings.get_mut(&(task.graph, operator)) else { return };
    siblings.n_done += u32::from(is_first);
    siblings.add_duration(duration_us.saturating_mul(1_000));
    let is_half = siblings.n_done == siblings.n_tasks.div_ceil(2);
    if is_first
        && is_half
        && let Some(due) = siblings.due_ns()
    {
        core.speculation.look_at(due);
    }
}

/// Give stragglers to idle workers, if it is time to look for them.
pub(super) fn look(core: &mut Core, out: &mut Actions) {
    if core.speculation.next_look.is_none_or(|at| at > core.now) {
        return;
    }
    core.speculation.next_look = None;
    // Ready work goes first: only who is idle after that is idle.
    dispatch::settle(core, out);
    let now = core.now_ns();
    let mut due = Vec::new();
    for ((graph, _), siblings) in &core.speculation.siblings {
        let Some(patience) = siblings.patience_ns() else { continue };
        let runs = siblings.executing.iter().filter(|(_, since)| since.saturating_add(patience) <= now);
        due.extend(runs.map(|(idx, since)| (*since, TaskId::new(*graph, *idx))));
    }
    due.sort_unstable();
    let mut n_at_most = None;
    for (_, task) in due {
        let n_at_most = *n_at_most.get_or_insert_with(|| max_backups(core));
        if !may_have_backup(core, task) {
            forget_executing(core, task);
        } else if core.speculation.backups.len() < n_at_most
            && let Some(worker) = idle_worker(core, task)
        {
            send(core, task, worker, out);
        }
    }
    let again = now + LOOK_AGAIN.as_nanos() as u64;
    if let Some(due) = core.speculation.siblings.values().filter_map(Siblings::due_ns).min() {
        core.speculation.look_at(due.max(again));
    }
}

fn max_backups(core: &Core) -> usize {
    let n_slots: u64 = core.workers.iter().map(|(_, worker)| u64::from(worker.n_slots())).sum();
    ((n_slots as f64 * core.config.backup_share) as usize).max(1)
}

/// Not one that may kill workers; not one whose inputs have been lost since; not one whose result has been seen already.
fn may_have_backup(core: &Core, task: TaskId) -> bool {
    core.task(task).is_some_and(|entry| {
        let is_running = entry.state == TaskState::Processing && entry.has(EXECUTING) && !entry.has(SPECULATED);
        let is_harmless = entry.n_crashes == 0 && !entry.has(DOUBTED);
        is_running && is_harmless && !entry.is_early() && !core.early_holders.contains_key(&task)
    })
}

/// A worker with a free slot and free resources that may run `task`, other than the one that does.
fn idle_worker(core: &Core, task: TaskId) -> Option<WorkerId> {
    let primary = core.entry(task).worker;
    core.workers.least_loaded().take(N_CANDIDATES).find(|worker| {
        let Some(entry) = core.workers.get(*worker).filter(|_| *worker != primary) else { return false };
        let is_idle = entry.is_idle() && entry.n_processing < entry.n_slots();
        is_idle && placement::may_run(core, task, *worker, true)
    })
}

/// Send a second run of `task` to `worker`.
fn send(core: &mut Core, task: TaskId, worker: WorkerId, out: &mut Actions) {
    forget_executing(core, task);
    early::unplace(core, task, out);
    let estimate_ns = placement::estimate_ns(core, task);
    let entry = core.entry_mut(task);
    entry.set(SPECULATED);
    let attempt = Attempt(entry.attempt.0 + 1);
    core.counters.n_runs += 1;
    core.counters.n_backups += 1;
    dispatch::introduce_body(core, task, worker, out);
    let (mut message, _) = dispatch::describe_run(core, task, worker, out);
    message.attempt = attempt;
    take_share(core, task, worker, estimate_ns);
    core.speculation.backups.insert(task, Backup { worker, attempt, estimate_ns, is_executing: false });
    out.tell_worker(worker, ToWorker::Run(message));
}

/// Count a backup that `worker` is given. It is never early: it was given with all its inputs in memory.
fn take_share(core: &mut Core, task: TaskId, worker: WorkerId, estimate_ns: u32) {
    let now = core.now_ns();
    let Core { workers, graphs, .. } = core;
    let options = graphs.get(&task.graph).and_then(|run| run.graph.options_of(task.idx));
    workers.update(worker, |worker| {
        worker.n_processing += 1;
        worker.occupancy_ns += u64::from(estimate_ns);
        if let Some(options) = options {
            worker.adjust_resources(&options.resources, -1.0);
        }
        worker.take_slot(now, 0, u64::from(estimate_ns));
    });
}

/// The backup of `task`, if it has one, is not wanted any more. Its worker is told, if `tell` and it is there.
pub(super) fn end(core: &mut Core, task: TaskId, tell: bool, out: &mut Actions) {
    if core.speculation.backups.is_empty() {
        return;
    }
    let Some(backup) = core.speculation.backups.remove(&task) else { return };
    core.needs_filling = true;
    if !core.config.has_fault(Fault::LeakBackupSlot) {
        let Core { workers, graphs, .. } = core;
        let options = graphs.get(&task.graph).and_then(|run| run.graph.options_of(task.idx));
        workers.update(backup.worker, |worker| {
            worker.n_processing -= 1;
            worker.occupancy_ns -= u64::from(backup.estimate_ns);
            if let Some(options) = options {
                worker.adjust_resources(&options.resources, 1.0);
            }
        });
    }
    cancel(core, task, backup.attempt, backup.worker, tell, out);
}

fn cancel(core: &Core, task: TaskId, attempt: Attempt, worker: WorkerId, tell: bool, out: &mut Actions) {
    if tell && core.workers.get(worker).is_some() && !core.config.has_fault(Fault::KeepLoser) {
        out.tell_worker(worker, ToWorker::Cancel { task, attempt });
    }
}

/// The run of `task` is over, or of no interest any more (then `tell` has it cancelled): its backup, if it has one, is its run
/// from here on. Tells whether that is so.
pub(super) fn promote(core: &mut Core, task: TaskId, tell: bool, out: &mut Actions) -> bool {
    if core.speculation.backups.is_empty() {
        return false;
    }
    let Some(backup) = core.speculation.backups.remove(&task) else { return false };
    let (worker, attempt) = (core.entry(task).worker, core.entry(task).attempt);
    transitions::give_back(core, task);
    transitions::cancel_early_holders(core, task, out);
    cancel(core, task, attempt, worker, tell, out);
    core.needs_filling = true;
    let takes_number = !core.config.has_fault(Fault::MixUpAttempts);
    let entry = core.entry_mut(task);
    entry.worker = backup.worker;
    entry.estimate_ns = backup.estimate_ns;
    if takes_number {
        entry.attempt = backup.attempt;
    }
    if backup.is_executing {
        entry.set(EXECUTING);
    }
    if entry.is_early() {
        core.workers.update(backup.worker, |worker| worker.count_early(true, u64::from(backup.estimate_ns)));
    }
    true
}

/// `worker` says that run `attempt` of `task` has finished, which nobody wants. If that is a later run than the one whose result was
/// taken, its result has taken the place of the copy of that one which the worker may have had.
pub(super) fn note_replaced(core: &mut Core, task: TaskId, attempt: Attempt, worker: WorkerId, out: &mut Actions) {
    if core.task(task).is_none_or(|entry| entry.attempt >= attempt) {
        return;
    }
    if let Some(holders) = core.early_holders.get_mut(&task) {
        holders.retain(|holder| *holder != worker);
        if holders.is_empty() {
            core.early_holders.remove(&task);
        }
    }
    holders::remove_holder(core, task, worker, Loss::Gone, out);
}

/// # Panics
/// When a table contradicts another.
pub(super) fn validate(core: &Core) {
    for (task, backup) in &core.speculation.backups {
        let entry = core.entry(*task);
        assert_eq!(entry.state, TaskState::Processing, "{task}: a backup of no run");
        assert!(entry.has(SPECULATED) && backup.worker != entry.worker, "{task}: {backup:?} of {entry:?}");
        assert_eq!(backup.attempt.0, entry.attempt.0 + 1, "{task}: the backup's number");
        assert!(core.workers.get(backup.worker).is_some(), "{task}: its backup was given to nobody");
    }
    for ((graph, operator), siblings) in &core.speculation.siblings {
        let run = core.run(*graph);
        assert!(siblings.n_done <= siblings.n_tasks, "{graph}: siblings done");
        for idx in siblings.executing.keys() {
            let entry = run.entry(*idx);
            let is_there = entry.state == TaskState::Processing && entry.has(EXECUTING);
            assert!(is_there, "{graph} {idx:?}: watched as executing, but {entry:?}");
            assert_eq!(run.operator_of[run.graph.body_of[idx.index()] as usize], *operator, "{graph} {idx:?}: siblings");
        }
    }
}
