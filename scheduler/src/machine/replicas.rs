//! How many copies of a result there are: more while many need it, fewer as they are served.
//!
//! A whole result that a worker fetches stays there as a replica, which later consumers fetch from, too. Two things follow.
//! *Fan-out*: a big result that many workers want at once is sent to a few at a time; whoever has it serves the next, so it
//! spreads in waves that grow geometrically, instead of one worker serving all. *Shrinking*: replicas that no consumer left
//! needs are let go before the last consumer has finished, never the last one.

use rask_graphs::{Part, Source, TaskId, WorkerId};
use smallvec::SmallVec;

use super::config::Fault;
use super::core::Core;
use super::event::Actions;
use super::graph_run::{HAS_EXTERNAL, NOBODY, Node, TaskState};
use super::{holders, placement};

/// Fetches of one result that each of its holders serves at once.
const N_PER_HOLDER: usize = 2;

/// A big result that is being fetched.
#[derive(Default)]
pub(super) struct Hot {
    /// Who fetches it, for which runs' sake.
    fetching: SmallVec<[(WorkerId, u32); 4]>,
    /// Consumers that wait for a replica to fetch it from, and where they are to run.
    parked: Vec<(TaskId, WorkerId)>,
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

/// Whether a ready task has to wait until a replica of a big input is made; it is parked then and comes back by itself.
pub(super) fn park_if_hot(core: &mut Core, task: TaskId, worker: WorkerId) -> bool {
    for input in hot_inputs(core, task, worker) {
        let n_holders = core.entry(input).holders.len();
        let Some(hot) = core.hot.get_mut(&input) else { continue };
        let is_fetching = hot.fetching.iter().any(|(other, _)| *other == worker);
        if !is_fetching && hot.fetching.len() >= N_PER_HOLDER * n_holders {
            hot.parked.push((task, worker));
            core.entry_mut(task).worker = worker;
            return true;
        }
    }
    false
}

/// `task` is being given to `worker`: it fetches the big inputs that are not there.
pub(super) fn note_fetching(core: &mut Core, task: TaskId, worker: WorkerId) {
    for input in hot_inputs(core, task, worker) {
        let hot = core.hot.entry(input).or_default();
        match hot.fetching.iter_mut().find(|(other, _)| *other == worker) {
            Some((_, n_runs)) => *n_runs += 1,
            None => hot.fetching.push((worker, 1)),
        }
    }
}

/// `worker` fetches `input` no more: it has it, or a run that wanted it there is over (`all` false).
pub(super) fn fetch_ended(core: &mut Core, input: TaskId, worker: WorkerId, all: bool) {
    let Some(hot) = core.hot.get_mut(&input) else { return };
    let Some(at) = hot.fetching.iter().position(|(other, _)| *other == worker) else { return };
    hot.fetching[at].1 -= 1;
    if all || hot.fetching[at].1 == 0 {
        hot.fetching.swap_remove(at);
        release(core, input);
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

/// Places have become free at the holders of `input`: parked consumers are looked at again.
fn release(core: &mut Core, input: TaskId) {
    let Some(hot) = core.hot.get_mut(&input) else { return };
    let parked = std::mem::take(&mut hot.parked);
    if hot.fetching.is_empty() {
        core.hot.remove(&input);
    }
    if core.config.has_fault(Fault::ForgetParked) {
        return;
    }
    for (task, worker) in parked {
        let waits = core.task(task).is_some_and(|entry| {
            entry.state == TaskState::Queued && entry.worker == worker && !entry.is_early() && core.workers.get(worker).is_some()
        });
        if waits && placement::is_constrained(core, task) {
            core.entry_mut(task).worker = NOBODY;
            placement::push_constrained(core, task);
        } else if waits {
            placement::push_backlog(core, worker, task);
            core.needs_filling = true;
        }
    }
}

/// A result is in memory no more. Its consumers wait for it again, those parked here too.
pub(super) fn forget(core: &mut Core, input: TaskId) {
    core.hot.remove(&input);
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

/// The hot table names only what is in memory and being fetched.
///
/// # Panics
/// When it does not.
pub(super) fn validate(core: &Core) {
    for (input, hot) in &core.hot {
        assert!(core.task(*input).is_some_and(|entry| entry.state == TaskState::Memory), "{input}: hot, and not in memory");
        assert!(!hot.fetching.is_empty(), "{input}: hot, and fetched by nobody");
        for (worker, n_runs) in &hot.fetching {
            assert!(core.workers.get(*worker).is_some() && *n_runs > 0, "{input}: fetched by {worker}, which is gone");
        }
    }
}
