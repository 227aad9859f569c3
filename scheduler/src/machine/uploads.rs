//! Values that clients upload: which worker takes which, and what becomes of them when it is lost.
//!
//! A scatter is a graph of tasks without inputs whose results come from the client. A ready one waits here instead of in the
//! queues of runs, because it needs room in memory and on the wire and no slot: a client that uploads slowly keeps nobody from
//! computing. It goes to the worker with the least in memory that has room; worker and client are told, and the rest is as
//! with a run: attempts, the worker's report, and another upload when the result is lost. Clients take turns, and each has a window
//! of its own at each worker: one that announces more than it ever uploads keeps nobody else waiting. What really comes is
//! bounded by the worker, which lets in what it has memory for.
//!
//! A value that more than one worker is to hold is copied from worker to worker once it has arrived, in waves, as
//! everything that many want.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rask_comm::Ticket;
use rask_comm::message::{FailureKind, Holder, Spread, ToClient, ToWorker};
use rask_comm::time::Time;
use rask_comm::words::size_text;
use rask_graphs::{Attempt, ClientId, GraphId, TaskId, TaskIdx, WorkerId};

use super::core::Core;
use super::event::Actions;
use super::fairness::FlowId;
use super::graph_run::{GraphRun, NOBODY, TaskState};
use super::replicas::N_PER_HOLDER;
use super::workers::Worker;
use super::{constraints, dispatch, transitions};

/// Bytes that may be on their way from one client to one worker, and no more than an eighth of its memory, and half of that when
/// others upload too; a value that is longer goes alone.
const WINDOW_NBYTES: u64 = 256 << 20;
/// Values that may be on their way from one client to one worker.
const MAX_UPLOADS: u32 = 1_024;
/// How many workers in turn may fail to be reached by the client before it is told that nobody takes its value.
const MAX_FAILURES: u8 = 3;
/// Entries of tasks that have moved on are tolerated up to this number, or as many as there are others.
const MIN_SWEPT: usize = 1_024;
/// Longest reason of a client that is passed on, in characters.
const REASON_LIMIT: usize = 512;

/// What is special about a graph whose results are uploaded.
#[derive(Clone)]
pub(super) struct Scatter {
    pub(super) nbytes: Vec<u64>,
    pub(super) ticket: Ticket,
    pub(super) spread: Spread,
    /// Since when no connected worker has been one of those named.
    stranded_since: Option<Time>,
}

impl Scatter {
    pub(super) fn new(nbytes: Vec<u64>, ticket: Ticket, spread: Spread) -> Self {
        Self { nbytes, ticket, spread, stranded_since: None }
    }
}

/// The values that are not where they belong yet.
#[derive(Default)]
pub(super) struct Uploads {
    /// Ready ones by client; entries of tasks that have moved on are skipped.
    waiting: BTreeMap<ClientId, VecDeque<TaskId>>,
    n_waiting: usize,
    /// Entries after the last sweep.
    n_swept: usize,
    /// The client whose turn it was last.
    last: Option<ClientId>,
    /// Whose client has gone.
    orphans: Vec<TaskId>,
    /// What is on its way, by worker and by whose it is: values and bytes.
    under_way: BTreeMap<(WorkerId, FlowId), (u32, u64)>,
    /// Workers that a client could not reach; it is sent elsewhere if there is another.
    avoid: BTreeMap<TaskId, WorkerId>,
    /// Values that are being copied to more workers, and those that have been asked to fetch them or have failed to.
    spreading: BTreeMap<TaskId, Copies>,
    /// Whether something has happened since the last look that may help those who wait.
    is_due: bool,
}

#[derive(Default)]
struct Copies {
    asked: BTreeSet<WorkerId>,
    failed: BTreeSet<WorkerId>,
}

impl Uploads {
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }
}

/// A value is wanted and nowhere: its client is to upload it once a worker has room.
pub(super) fn push(core: &mut Core, task: TaskId) {
    core.uploads.is_due = true;
    let Some(client) = core.run(task.graph).client else {
        core.uploads.orphans.push(task);
        return;
    };
    core.uploads.waiting.entry(client).or_default().push_back(task);
    core.uploads.n_waiting += 1;
    if core.uploads.n_waiting > MIN_SWEPT.max(2 * core.uploads.n_swept) {
        let mut waiting = std::mem::take(&mut core.uploads.waiting);
        waiting.values_mut().for_each(|tasks| tasks.retain(|task| core.is_queued_at(*task, NOBODY, false)));
        waiting.retain(|_, tasks| !tasks.is_empty());
        core.uploads.n_waiting = waiting.values().map(VecDeque::len).sum();
        core.uploads.n_swept = core.uploads.n_waiting;
        core.uploads.waiting = waiting;
    }
}

/// Room may have appeared.
pub(super) fn look_again(core: &mut Core) {
    core.uploads.is_due = true;
}

/// The turn's end: have clients upload what workers have room for.
pub(super) fn settle(core: &mut Core, out: &mut Actions) {
    if !std::mem::take(&mut core.uploads.is_due) {
        return;
    }
    for task in std::mem::take(&mut core.uploads.orphans) {
        if core.is_queued_at(task, NOBODY, false) {
            fail(core, task, FailureKind::NotUploaded, "the client that was to upload it has gone".to_owned(), out);
        }
    }
    if core.uploads.n_waiting == 0 || core.workers.len() == 0 {
        return;
    }
    // One look at all workers a turn, however many values wait.
    let mut by_load: BTreeSet<(u64, WorkerId)> = core.workers.iter().map(|(id, worker)| (load(worker), id)).collect();
    let mut blocked = BTreeSet::new();
    while let Some(client) = next_client(core, &blocked) {
        let Some(task) = core.uploads.waiting.get(&client).and_then(VecDeque::front).copied() else { break };
        if core.is_queued_at(task, NOBODY, false) {
            match choose(core, task, &by_load) {
                Choice::Worker(worker) => {
                    let before = core.workers.get(worker).map(load);
                    give(core, task, client, worker, out);
                    if let (Some(before), Some(entry)) = (before, core.workers.get(worker)) {
                        by_load.remove(&(before, worker));
                        by_load.insert((load(entry), worker));
                    }
                }
                Choice::NoRoom => {
                    blocked.insert(client);
                    continue;
                }
                Choice::Never => {
                    let nbytes = nbytes_of(core.run(task.graph), task.idx);
                    let message = format!("it takes {} of memory, and no worker has as much", size_text(nbytes));
                    fail(core, task, FailureKind::TooLarge, message, out);
                }
            }
        }
        pop(core, client);
    }
}

/// The client after the last one, among those that wait and are not held up by their first.
fn next_client(core: &mut Core, blocked: &BTreeSet<ClientId>) -> Option<ClientId> {
    let waiting = &core.uploads.waiting;
    let is_later = |client: &&ClientId| core.uploads.last.is_none_or(|last| **client > last);
    let free = || waiting.keys().filter(|client| !blocked.contains(client));
    let next = free().find(is_later).or_else(|| free().next()).copied();
    core.uploads.last = next.or(core.uploads.last);
    next
}

fn pop(core: &mut Core, client: ClientId) {
    let uploads = &mut core.uploads;
    let Some(tasks) = uploads.waiting.get_mut(&client) else { return };
    uploads.n_waiting -= usize::from(tasks.pop_front().is_some());
    if tasks.is_empty() {
        uploads.waiting.remove(&client);
    }
}

enum Choice {
    Worker(WorkerId),
    /// Some worker will do once it has room, or comes.
    NoRoom,
    /// It is too big for all that are there.
    Never,
}

/// What a worker has in memory and in files, and what is on its way to it: the least goes first.
fn load(worker: &Worker) -> u64 {
    let status = &worker.status;
    let held = status.nbytes_results.saturating_add(status.nbytes_spilled);
    held.saturating_add(worker.nbytes_uploading).saturating_add(worker.nbytes_uploaded)
}

fn choose(core: &Core, task: TaskId, by_load: &BTreeSet<(u64, WorkerId)>) -> Choice {
    let run = core.run(task.graph);
    let nbytes = nbytes_of(run, task.idx);
    let avoided = core.uploads.avoid.get(&task);
    let needs_above = run.needs_above.get(&task.idx).copied().unwrap_or_default();
    let (mut is_named, mut is_fit, mut fallback) = (false, false, None);
    for (_, id) in by_load {
        let Some(worker) = core.workers.get(*id) else { continue };
        if !may_hold(run, worker) {
            continue;
        }
        is_named = true;
        let is_too_small = worker.hello.memory_limit > 0 && nbytes > worker.hello.memory_limit;
        if is_too_small || !constraints::has_more_than(worker, needs_above) {
            continue;
        }
        is_fit = true;
        if !has_room(core, *id, worker, run.flow, nbytes) {
            continue;
        }
        if avoided == Some(id) {
            fallback = Some(*id);
        } else {
            return Choice::Worker(*id);
        }
    }
    match fallback {
        Some(worker) => Choice::Worker(worker),
        None if is_named && !is_fit => Choice::Never,
        None => Choice::NoRoom,
    }
}

pub(super) fn may_hold(run: &GraphRun, worker: &Worker) -> bool {
    let names = run.scatter.as_ref().map(|scatter| &scatter.spread.workers[..]).unwrap_or_default();
    !worker.is_retiring && !worker.is_expelled && (names.is_empty() || names.contains(&worker.hello.name))
}

fn has_room(core: &Core, id: WorkerId, worker: &Worker, flow: FlowId, nbytes: u64) -> bool {
    let (n_own, nbytes_own) = core.uploads.under_way.get(&(id, flow)).copied().unwrap_or_default();
    let is_alone = core.uploads.waiting.len() <= 1 && worker.n_uploads == n_own;
    let window = match worker.hello.memory_limit {
        0 => WINDOW_NBYTES,
        limit => WINDOW_NBYTES.min(limit / 8),
    };
    let fits = n_own == 0 || nbytes_own.saturating_add(nbytes) <= if is_alone { window } else { window / 2 };
    fits && n_own < MAX_UPLOADS && !worker.status.is_paused
}

fn nbytes_of(run: &GraphRun, idx: TaskIdx) -> u64 {
    run.scatter.as_ref().and_then(|scatter| scatter.nbytes.get(idx.index())).copied().unwrap_or_default()
}

/// Have `client` upload the value of a queued task to `worker`.
fn give(core: &mut Core, task: TaskId, client: ClientId, worker: WorkerId, out: &mut Actions) {
    let entry = core.entry_mut(task);
    entry.attempt.0 += 1;
    entry.worker = worker;
    let attempt = entry.attempt;
    core.set_state(task, TaskState::Processing, Some(worker));
    let run = core.run(task.graph);
    let nbytes = nbytes_of(run, task.idx);
    let flow = run.flow;
    let Some(ticket) = run.scatter.as_ref().map(|scatter| scatter.ticket) else { return };
    core.counters.n_uploads += 1;
    let (n_own, nbytes_own) = core.uploads.under_way.entry((worker, flow)).or_default();
    *n_own += 1;
    *nbytes_own += nbytes;
    core.workers.update(worker, |worker| {
        worker.n_uploads += 1;
        worker.nbytes_uploading += nbytes;
    });
    out.tell_worker(worker, ToWorker::Expect { task, attempt, nbytes, ticket });
    if let Some(entry) = core.workers.get(worker) {
        let to = Holder { worker, address: entry.hello.data_address, name: entry.hello.name.clone() };
        out.tell_client(client, ToClient::Upload { task, attempt, to });
    }
}

/// The upload of a processing task is over, whatever came of it: its share of the worker is given back.
pub(super) fn give_back(core: &mut Core, task: TaskId) {
    let nbytes = nbytes_of(core.run(task.graph), task.idx);
    let flow = core.run(task.graph).flow;
    let worker = std::mem::replace(&mut core.entry_mut(task).worker, NOBODY);
    if let Some((n_own, nbytes_own)) = core.uploads.under_way.get_mut(&(worker, flow)) {
        (*n_own, *nbytes_own) = (*n_own - 1, *nbytes_own - nbytes);
        if *n_own == 0 {
            core.uploads.under_way.remove(&(worker, flow));
        }
    }
    core.workers.update(worker, |worker| {
        worker.n_uploads -= 1;
        worker.nbytes_uploading -= nbytes;
    });
    core.uploads.is_due = true;
}

/// A worker has taken a value in.
pub(super) fn arrived(core: &mut Core, worker: WorkerId, task: TaskId, nbytes: u64, n_parts: u32, out: &mut Actions) {
    core.workers.update(worker, |worker| worker.nbytes_uploaded = worker.nbytes_uploaded.saturating_add(nbytes));
    core.uploads.avoid.remove(&task);
    transitions::processing_to_memory(core, task, nbytes, n_parts, out);
    copy(core, task, out);
}

/// A client cannot upload what it was asked for.
pub(super) fn not_uploaded(
    core: &mut Core,
    client: ClientId,
    (task, attempt): (TaskId, Attempt),
    is_final: bool,
    reason: &str,
    out: &mut Actions,
) {
    let is_asked = core.graphs.get(&task.graph).is_some_and(|run| run.scatter.is_some() && run.client == Some(client));
    let is_current = core.task(task).is_some_and(|entry| entry.state == TaskState::Processing && entry.attempt == attempt);
    if !is_asked || !is_current {
        core.counters.n_stale += 1;
        return;
    }
    let entry = core.entry_mut(task);
    entry.n_failures = entry.n_failures.saturating_add(1);
    let (worker, n_failures) = (entry.worker, entry.n_failures);
    transitions::abandon_run(core, task, true, out);
    if is_final || n_failures > MAX_FAILURES {
        let reason: String = reason.chars().take(REASON_LIMIT).collect();
        fail(core, task, FailureKind::NotUploaded, reason, out);
    } else {
        core.uploads.avoid.insert(task, worker);
        transitions::processing_to_waiting(core, task, out);
    }
}

fn fail(core: &mut Core, task: TaskId, kind: FailureKind, message: String, out: &mut Actions) {
    core.uploads.avoid.remove(&task);
    let failure = transitions::failure_of(core, task, kind, "", None, message);
    transitions::to_erred(core, task, failure, out);
}

/// The client of a graph has gone: what it has not uploaded, and somebody else needs, will not come.
pub(super) fn client_gone(core: &mut Core, client: ClientId, graph: GraphId, out: &mut Actions) {
    if let Some(tasks) = core.uploads.waiting.remove(&client) {
        core.uploads.n_waiting -= tasks.len();
    }
    let Some(run) = core.graphs.get(&graph).filter(|run| run.scatter.is_some()) else { return };
    let active = run.tasks.iter().enumerate().filter(|(_, entry)| entry.is_active());
    let tasks: Vec<TaskId> = active.map(|(idx, _)| run.task_id(TaskIdx(idx as u32))).collect();
    for task in tasks {
        fail(core, task, FailureKind::NotUploaded, "the client that was to upload it has gone".to_owned(), out);
    }
}

/// A worker begins to leave: what is on its way to it goes elsewhere.
pub(super) fn withdraw_from(core: &mut Core, worker: WorkerId, out: &mut Actions) {
    for task in at_worker(core, worker) {
        transitions::abandon_run(core, task, true, out);
        transitions::processing_to_waiting(core, task, out);
    }
}

/// The uploads that are under way to `worker`.
fn at_worker(core: &Core, worker: WorkerId) -> Vec<TaskId> {
    let mut tasks = Vec::new();
    for run in core.graphs.values().filter(|run| run.scatter.is_some()) {
        let there =
            run.tasks.iter().enumerate().filter(|(_, entry)| entry.state == TaskState::Processing && entry.worker == worker);
        tasks.extend(there.map(|(idx, _)| run.task_id(TaskIdx(idx as u32))));
    }
    tasks
}

/// Have more workers fetch a value that is in memory, as many at once as its holders may serve.
pub(super) fn copy(core: &mut Core, task: TaskId, out: &mut Actions) {
    let Some(run) = core.graphs.get(&task.graph) else { return };
    let Some(n_copies) = run.scatter.as_ref().map(|scatter| scatter.spread.n_copies as usize).filter(|n| *n > 1) else { return };
    let entry = run.entry(task.idx);
    if entry.state != TaskState::Memory {
        return;
    }
    let mut copies = core.uploads.spreading.remove(&task).unwrap_or_default();
    let mut holders = entry.holders.to_vec();
    copies.asked.retain(|worker| core.workers.get(*worker).is_some() && !holders.contains(worker));
    let n_missing = n_copies.saturating_sub(holders.len() + copies.asked.len());
    let n_places = (N_PER_HOLDER * holders.len()).saturating_sub(copies.asked.len());
    let nbytes = entry.nbytes;
    let is_candidate = |id: &WorkerId, worker: &Worker| {
        let fits = worker.hello.memory_limit == 0 || nbytes <= worker.hello.memory_limit;
        fits && may_hold(run, worker) && !holders.contains(id) && !copies.asked.contains(id) && !copies.failed.contains(id)
    };
    let candidates = core.workers.iter().filter(|(id, worker)| is_candidate(id, worker));
    let mut candidates: Vec<(u64, WorkerId)> = candidates.map(|(id, worker)| (load(worker), id)).collect();
    candidates.sort_unstable();
    let targets: Vec<WorkerId> = candidates.into_iter().take(n_missing.min(n_places)).map(|(_, id)| id).collect();
    for (at, target) in targets.into_iter().enumerate() {
        dispatch::introduce_peers(core, &holders, target, out);
        let mut input = dispatch::describe_input(core, task);
        // Each is told of the holders in another order, so that they do not all ask the same.
        holders.rotate_left(at.min(1));
        input.holders.clone_from(&holders);
        out.tell_worker(target, ToWorker::Replicate { input });
        copies.asked.insert(target);
    }
    if !copies.asked.is_empty() {
        core.uploads.spreading.insert(task, copies);
    }
}

/// `worker` has fetched a value for its own sake (or could not): others may be next.
pub(super) fn copied(core: &mut Core, task: TaskId, worker: WorkerId, has_it: bool, out: &mut Actions) {
    let Some(copies) = core.uploads.spreading.get_mut(&task) else { return };
    if copies.asked.remove(&worker) && !has_it {
        copies.failed.insert(worker);
    }
    copy(core, task, out);
}

/// A value is in memory no more.
pub(super) fn forget_copies(core: &mut Core, task: TaskId) {
    if !core.uploads.spreading.is_empty() {
        core.uploads.spreading.remove(&task);
    }
}

/// A worker is gone: what it was to copy, others may.
pub(super) fn worker_gone(core: &mut Core, worker: WorkerId, out: &mut Actions) {
    core.uploads.is_due = true;
    let concerned = core.uploads.spreading.iter().filter(|(_, copies)| copies.asked.contains(&worker));
    for task in concerned.map(|(task, _)| *task).collect::<Vec<_>>() {
        copied(core, task, worker, false, out);
    }
}

/// A graph is forgotten.
pub(super) fn forget_graph(core: &mut Core, graph: GraphId) {
    let of_graph = TaskId::new(graph, TaskIdx(0))..=TaskId::new(graph, TaskIdx(u32::MAX));
    for task in core.uploads.avoid.range(of_graph).map(|(task, _)| *task).collect::<Vec<_>>() {
        core.uploads.avoid.remove(&task);
    }
}

/// Fail values that are for workers which have not been there for long.
pub(super) fn fail_stranded(core: &mut Core, out: &mut Actions) {
    let (now, grace, has_no_workers) = (core.now, core.config.no_worker_grace, core.workers.len() == 0);
    let clients: Vec<Vec<TaskId>> = core.uploads.waiting.values().map(|tasks| tasks.iter().copied().collect()).collect();
    for task in clients.into_iter().flatten() {
        if !core.is_queued_at(task, NOBODY, false) {
            continue;
        }
        let run = core.run(task.graph);
        let is_there = core.workers.iter().any(|(_, worker)| may_hold(run, worker));
        let Some(scatter) = &mut core.run_mut(task.graph).scatter else { continue };
        // While there is no worker at all, that has a grace of its own.
        if is_there || has_no_workers {
            scatter.stranded_since = None;
            continue;
        }
        let since = *scatter.stranded_since.get_or_insert(now);
        if since.after(grace) <= now {
            let names = constraints::names(&scatter.spread.workers);
            fail(core, task, FailureKind::Unsatisfiable, format!("it is for worker {names}, which is not there"), out);
        }
    }
}

/// Counts are those of what is under way, and what is ready waits here.
///
/// # Panics
/// When they are not.
pub(super) fn validate(core: &Core) {
    let mut under_way: BTreeMap<WorkerId, (u32, u64)> = BTreeMap::new();
    let mut by_flow: BTreeMap<(WorkerId, FlowId), (u32, u64)> = BTreeMap::new();
    let waiting: BTreeSet<TaskId> = core.uploads.waiting.values().flatten().chain(&core.uploads.orphans).copied().collect();
    for run in core.graphs.values().filter(|run| run.scatter.is_some()) {
        for (idx, entry) in run.tasks.iter().enumerate() {
            let task = run.task_id(TaskIdx(idx as u32));
            if entry.state == TaskState::Processing {
                let (n, nbytes) = under_way.entry(entry.worker).or_default();
                *n += 1;
                *nbytes += nbytes_of(run, task.idx);
                let (n, nbytes) = by_flow.entry((entry.worker, run.flow)).or_default();
                *n += 1;
                *nbytes += nbytes_of(run, task.idx);
            }
            assert!(entry.state != TaskState::Queued || waiting.contains(&task), "{task}: ready, and nobody will be asked");
        }
    }
    for (id, worker) in core.workers.iter() {
        let counted = under_way.remove(&id).unwrap_or_default();
        assert_eq!((worker.n_uploads, worker.nbytes_uploading), counted, "{id}: uploads");
    }
    assert_eq!(core.uploads.under_way, by_flow, "uploads by whose they are");
    assert!(under_way.is_empty(), "uploads to workers that are gone: {under_way:?}");
    let n_waiting = core.uploads.waiting.values().map(VecDeque::len).sum::<usize>();
    assert_eq!(core.uploads.n_waiting, n_waiting, "values that wait");
    for task in core.uploads.spreading.keys() {
        assert!(core.task(*task).is_some_and(|entry| entry.state == TaskState::Memory), "{task}: copied, and not in memory");
    }
}
