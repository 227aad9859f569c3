//! How many copies of a result there are: more while many need it, fewer as they are served.
//!
//! A whole result that a worker fetches stays there as a replica, which later consumers fetch from, too. Two things follow.
//! *Fan-out*: a big result that many workers want at once is sent to a few at a time; whoever has it serves the next, so it
//! spreads in waves that grow geometrically, instead of one worker serving all. A consumer that has to wait for its turn is
//! *parked*; it counts as work of the worker that it is meant for, so that the next one is meant for another. *Shrinking*: replicas that no consumer left
//! needs are let go before the last consumer has finished, never the last one.

use std::collections::BTreeMap;

use rask_comm::message::ToWorker;
use rask_graphs::{Attempt, GraphId, Part, Source, TaskId, WorkerId};
use smallvec::SmallVec;

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{HAS_EXTERNAL, NOBODY, Node, TaskState};
use super::{holders, placement};

/// Fetches of one result that each of its holders serves at once.
pub(super) const N_PER_HOLDER: usize = 2;

/// A big result that is being fetched.
#[derive(Default)]
pub(super) struct Hot {
    fetching: SmallVec<[Fetching; 4]>,
    /// Consumers that wait for a replica to fetch it from, and their estimated costs, by where they are to run.
    parked: BTreeMap<WorkerId, Vec<(TaskId, u32)>>,
}

/// A worker that fetches a big result.
struct Fetching {
    worker: WorkerId,
    /// For the sake of how many runs.
    n_runs: u32,
    /// The holder that it was told to ask first.
    from: WorkerId,
}

impl Hot {
    fn is_fetching(&self, worker: WorkerId) -> bool {
        self.fetching.iter().any(|fetching| fetching.worker == worker)
    }

    /// How many more workers may fetch it at once from `n_holders`.
    fn n_places(&self, n_holders: usize) -> usize {
        (N_PER_HOLDER * n_holders).saturating_sub(self.fetching.len())
    }

    /// The holder that the fewest ask.
    fn least_asked(&self, holders: &[WorkerId]) -> Option<WorkerId> {
        let n_asking = |holder: &WorkerId| self.fetching.iter().filter(|fetching| fetching.from == *holder).count();
        holders.iter().copied().min_by_key(n_asking)
    }
}

/// The big inputs of `task` that `worker` would have to fetch whole, when it is given the task.
fn hot_inputs(core: &Core, task: TaskId, worker: WorkerId) -> SmallVec<[TaskId; 2]> {
    let run = core.run(task.graph);
    let inputs = run.graph.inputs[run.inputs(task.idx)].iter().filter(|input| input.part == Part::WHOLE);
    let hot = inputs.filter_map(|input| match input.source() {
        Source::Task(idx) => Some(TaskId::new(task.graph, idx)),
        Source::External(external) => Some(run.graph.externals[external as usize]),
        Source::Group(_) => None,
    });
    let is_hot = |input: &TaskId| {
        let entry = core.entry(*input);
        entry.state == TaskState::Memory && entry.nbytes >= core.config.hot_nbytes && !entry.holders.contains(&worker)
    };
    hot.filter(is_hot).collect()
}

/// The big input of `task` that `worker` would have to wait for before it may fetch it, if there is one.
fn input_waited_for(core: &Core, task: TaskId, worker: WorkerId) -> Option<TaskId> {
    if core.hot.is_empty() {
        return None;
    }
    hot_inputs(core, task, worker).into_iter().find(|input| {
        let n_holders = core.entry(*input).holders.len();
        core.hot.get(input).is_some_and(|hot| !hot.is_fetching(worker) && hot.n_places(n_holders) == 0)
    })
}

/// Whether `task` would have to wait for a replica of a big input if it were given to `worker`.
pub(super) fn has_to_wait(core: &Core, task: TaskId, worker: WorkerId) -> bool {
    input_waited_for(core, task, worker).is_some()
}

/// Whether `task` would have to wait for what another task that is meant for `worker` waits for there.
pub(super) fn is_waited_for(core: &Core, task: TaskId, worker: WorkerId) -> bool {
    let waited_for = input_waited_for(core, task, worker).and_then(|input| core.hot.get(&input));
    waited_for.is_some_and(|hot| hot.parked.contains_key(&worker))
}

/// Whether a ready task has to wait until a replica of a big input is made; it is parked then and comes back by itself.
pub(super) fn park_if_hot(core: &mut Core, task: TaskId, worker: WorkerId) -> bool {
    let Some(input) = input_waited_for(core, task, worker) else { return false };
    let estimate = placement::estimate_ns(core, task);
    let Some(hot) = core.hot.get_mut(&input) else { return false };
    hot.parked.entry(worker).or_default().push((task, estimate));
    core.workers.update(worker, |worker| worker.parked_ns += u64::from(estimate));
    core.entry_mut(task).worker = worker;
    true
}

/// `task` is being given to `worker`: it fetches the big inputs that are not there.
pub(super) fn note_fetching(core: &mut Core, task: TaskId, worker: WorkerId) {
    for input in hot_inputs(core, task, worker) {
        let Core { hot, graphs, .. } = core;
        let hot = hot.entry(input).or_default();
        if let Some(fetching) = hot.fetching.iter_mut().find(|fetching| fetching.worker == worker) {
            fetching.n_runs += 1;
            continue;
        }
        let holders = graphs.get(&input.graph).map(|run| &run.entry(input.idx).holders[..]);
        let from = holders.and_then(|holders| hot.least_asked(holders)).unwrap_or(NOBODY);
        hot.fetching.push(Fetching { worker, n_runs: 1, from });
    }
}

/// The holder that `worker` should ask first for `input`, if that has been decided.
pub(super) fn first_to_ask(core: &Core, input: TaskId, worker: WorkerId) -> Option<WorkerId> {
    if core.hot.is_empty() {
        return None;
    }
    core.hot.get(&input)?.fetching.iter().find(|fetching| fetching.worker == worker).map(|fetching| fetching.from)
}

/// `worker` fetches `input` no more: it has it, or a run that wanted it there is over (`all` false).
pub(super) fn fetch_ended(core: &mut Core, input: TaskId, worker: WorkerId, all: bool) {
    let Some(hot) = core.hot.get_mut(&input) else { return };
    let Some(at) = hot.fetching.iter().position(|fetching| fetching.worker == worker) else { return };
    hot.fetching[at].n_runs -= 1;
    if all || hot.fetching[at].n_runs == 0 {
        hot.fetching.swap_remove(at);
        release(core, input, worker);
    }
}

/// The run of `task` at `worker` is over: whatever it was fetching is not fetched for its sake any more.
pub(super) fn run_ended(core: &mut Core, task: TaskId, worker: WorkerId) {
    if core.hot.is_empty() {
        return;
    }
    let run = core.run(task.graph);
    let sources: SmallVec<[Source; 4]> = run.graph.inputs[run.inputs(task.idx)].iter().map(|input| input.source()).collect();
    for source in sources {
        let input = match source {
            Source::Task(idx) => TaskId::new(task.graph, idx),
            Source::External(external) => core.run(task.graph).graph.externals[external as usize],
            Source::Group(_) => continue,
        };
        fetch_ended(core, input, worker, false);
    }
}

/// A worker is gone: it fetches nothing any more.
pub(super) fn worker_gone(core: &mut Core, worker: WorkerId) {
    let inputs: Vec<TaskId> = core.hot.keys().copied().collect();
    for input in inputs {
        fetch_ended(core, input, worker, true);
    }
}

/// `worker` fetches `input` no more: consumers parked for it are looked at again, and those for as many others as may fetch
/// now, or for all when nobody else fetches it.
fn release(core: &mut Core, input: TaskId, worker: WorkerId) {
    let n_holders = core.entry(input).holders.len();
    let Some(hot) = core.hot.get_mut(&input) else { return };
    let (mut n_places, is_over) = (hot.n_places(n_holders), hot.fetching.is_empty());
    let mut next = hot.parked.remove(&worker).map(|tasks| (worker, tasks));
    loop {
        if let Some((worker, tasks)) = next.take() {
            let is_taken = unpark(core, worker, tasks);
            n_places -= usize::from(is_taken && n_places > 0);
        }
        let Some(hot) = core.hot.get_mut(&input).filter(|_| is_over || n_places > 0) else { break };
        next = hot.parked.pop_first();
        if next.is_none() {
            break;
        }
    }
    if is_over {
        core.hot.remove(&input);
    }
}

/// Consumers that were parked for `worker` go back to where it finds them. Tells whether there still were any.
fn unpark(core: &mut Core, worker: WorkerId, tasks: Vec<(TaskId, u32)>) -> bool {
    let parked_ns: u64 = tasks.iter().map(|(_, estimate)| u64::from(*estimate)).sum();
    let is_there = core.workers.update(worker, |worker| worker.parked_ns -= parked_ns).is_some();
    if !is_there || core.config.has_fault(Fault::ForgetParked) {
        return false;
    }
    let mut any = false;
    for (task, _) in tasks {
        let waits = core.is_queued_at(task, worker, false);
        if waits && placement::is_constrained(core, task) {
            core.entry_mut(task).worker = NOBODY;
            placement::push_constrained(core, task);
        } else if waits {
            placement::push_backlog(core, worker, task);
        }
        any |= waits;
    }
    if any {
        core.to_fill.push(worker);
    }
    any
}

/// A result is in memory no more. Its consumers wait for it again, those parked here too.
pub(super) fn forget(core: &mut Core, input: TaskId) {
    let Some(hot) = core.hot.remove(&input) else { return };
    for (worker, tasks) in hot.parked {
        let parked_ns: u64 = tasks.iter().map(|(_, estimate)| u64::from(*estimate)).sum();
        core.workers.update(worker, |worker| worker.parked_ns -= parked_ns);
    }
}

/// Consumers of the inputs of `task` have become fewer: let go of replicas that those left do not need.
pub(super) fn shrink_inputs(core: &mut Core, task: TaskId, out: &mut Actions) {
    for at in core.run(task.graph).inputs(task.idx) {
        if let Source::Task(idx) = core.run(task.graph).graph.inputs[at].source() {
            shrink(core, TaskId::new(task.graph, idx), out);
        }
    }
}

/// Looked at when the number of consumers has halved, so that the walk over them costs little in all.
fn shrink(core: &mut Core, task: TaskId, out: &mut Actions) {
    let entry = core.entry(task);
    let n_consumers = entry.n_consumers as usize;
    let is_time = n_consumers <= 1 || n_consumers.is_power_of_two();
    if entry.state != TaskState::Memory || entry.holders.len() <= n_consumers.max(1) || !is_time || entry.has(HAS_EXTERNAL) {
        return;
    }
    let run = core.run(task.graph);
    let mut needed: SmallVec<[WorkerId; 4]> = SmallVec::new();
    for at in run.dependents(Node::Task(task.idx)) {
        // Members of groups are fetched in parts from wherever workers were told they are.
        let Node::Task(idx) = run.dependent(at) else { return };
        let consumer = run.entry(idx);
        if matches!(consumer.state, TaskState::Processing | TaskState::Queued) {
            let backup = core.speculation.backups.get(&run.task_id(idx)).map(|backup| backup.worker);
            for worker in std::iter::once(consumer.worker).chain(backup) {
                if consumer.state == TaskState::Processing && !entry.holders.contains(&worker) {
                    return;
                }
                needed.push(worker);
            }
        }
    }
    let mut surplus: Vec<WorkerId> = entry.holders.iter().copied().filter(|holder| !needed.contains(holder)).collect();
    let n_most = entry.holders.len() - n_consumers.max(1);
    if surplus.len() == entry.holders.len() {
        // The one that stays should not be about to leave, nor short of memory.
        let burden = |holder: &WorkerId| {
            core.workers.get(*holder).map_or((true, true, u64::MAX), |worker| {
                (worker.is_retiring, worker.status.is_paused, worker.status.nbytes_results)
            })
        };
        surplus.sort_by_key(|holder| std::cmp::Reverse((burden(holder), *holder)));
    }
    surplus.truncate(n_most);
    // A worker that is leaving keeps what it is moving, and what was moved must not be dropped before it has left.
    let is_moving = |holder: &WorkerId| core.workers.get(*holder).is_some_and(|worker| worker.is_retiring);
    if entry.holders.iter().any(is_moving) {
        return;
    }
    for holder in surplus {
        core.counters.n_replicas_dropped += 1;
        holders::drop_replica(core, task, holder, out);
    }
}

/// `worker` asks whether its replica of `task` may go. It may when others have it who stay, and nothing that was given to
/// anybody counts on this one.
pub(super) fn let_go_if_possible(core: &mut Core, task: TaskId, attempt: Attempt, worker: WorkerId, out: &mut Actions) {
    let may_go = core.task(task).is_some_and(|entry| {
        let is_retiring = |holder: &WorkerId| core.workers.get(*holder).is_none_or(|worker| worker.is_retiring);
        let stays = entry.holders.iter().any(|holder| *holder != worker && !is_retiring(holder));
        let is_current = entry.state == TaskState::Memory && entry.attempt == attempt && entry.holders.contains(&worker);
        is_current && stays && !entry.holders.iter().any(is_retiring)
    });
    if may_go && !is_counted_on(core, task, worker) {
        core.counters.n_replicas_dropped += 1;
        holders::drop_replica(core, task, worker, out);
    } else {
        out.tell_worker(worker, ToWorker::Keep { task, attempt });
    }
}

/// Whether a run that was given to `worker` has `task` as an input, or one that may be fetching it, or a group that it is in.
fn is_counted_on(core: &Core, task: TaskId, worker: WorkerId) -> bool {
    let holders = &core.entry(task).holders;
    let counts_on_it = |consumer: TaskId| {
        let entry = core.entry(consumer);
        let backup = core.speculation.backups.get(&consumer).map(|backup| backup.worker);
        let mut runs_at = std::iter::once(entry.worker).chain(backup);
        entry.state == TaskState::Processing && runs_at.any(|at| at == worker || !holders.contains(&at))
    };
    let run = core.run(task.graph);
    let by_own_graph = run.dependents(Node::Task(task.idx)).any(|at| match run.dependent(at) {
        Node::Task(idx) => counts_on_it(run.task_id(idx)),
        Node::Group(_) | Node::External(_) => true,
    });
    let users = run.external_users.get(&task.idx).map(Vec::as_slice).unwrap_or_default();
    by_own_graph || users.iter().any(|&(graph, external)| is_counted_on_by(core, graph, external, counts_on_it))
}

/// Whether `counts_on_it` says so of a task of `graph` that has the external result of this number as an input.
fn is_counted_on_by(core: &Core, graph: GraphId, external: u32, counts_on_it: impl Fn(TaskId) -> bool) -> bool {
    let Some(run) = core.graphs.get(&graph) else { return false };
    run.dependents(Node::External(external)).any(|at| match run.dependent(at) {
        Node::Task(idx) => counts_on_it(run.task_id(idx)),
        Node::Group(_) | Node::External(_) => true,
    })
}

/// The hot table names only what is in memory and being fetched, and what is parked is counted.
///
/// # Panics
/// When it does not.
pub(super) fn validate(core: &Core) {
    let mut parked_ns: BTreeMap<WorkerId, u64> = BTreeMap::new();
    for (input, hot) in &core.hot {
        assert!(core.task(*input).is_some_and(|entry| entry.state == TaskState::Memory), "{input}: hot, and not in memory");
        assert!(!hot.fetching.is_empty(), "{input}: hot, and fetched by nobody");
        for Fetching { worker, n_runs, .. } in &hot.fetching {
            assert!(core.workers.get(*worker).is_some() && *n_runs > 0, "{input}: fetched by {worker}, which is gone");
        }
        for (worker, tasks) in &hot.parked {
            *parked_ns.entry(*worker).or_default() += tasks.iter().map(|(_, estimate)| u64::from(*estimate)).sum::<u64>();
        }
    }
    for (id, worker) in core.workers.iter() {
        assert_eq!(worker.parked_ns, parked_ns.get(&id).copied().unwrap_or_default(), "{id}: parked");
    }
}
