//! What a worker can only say if it is broken, or lies.
//!
//! News may be late, of a run that was taken back long ago: that is stale, and counted. News of a run that was never given, of
//! a task that does not exist, or of a result larger than any memory cannot be late. Whoever sends it cannot be believed in
//! anything, so its connection is closed; all it had is lost, as when it dies.

use rask_comm::message::FromWorker;
use rask_graphs::{Attempt, GraphId, Source, TaskId};

use super::core::Core;
use super::graph_run::{SPECULATED, UPLOADED};

/// No result is larger than this, in bytes: sums over all results must not overflow.
pub(super) const MAX_NBYTES: u64 = 1 << 50;
/// No run takes longer than this, in microseconds (30 years).
const MAX_DURATION_US: u64 = 1 << 50;

/// Why `message` breaks the contract, if it does.
pub(super) fn breach(core: &Core, message: &FromWorker) -> Option<String> {
    match message {
        FromWorker::Finished { task, attempt, nbytes, duration_us, .. } => {
            never_given(core, *task, *attempt).or_else(|| absurd(*nbytes, *duration_us))
        }
        FromWorker::Fetched { task, attempt, nbytes, duration_us, .. } => {
            never_given(core, *task, *attempt).or_else(|| absurd(*nbytes, *duration_us))
        }
        FromWorker::FetchedParts { graph, nbytes } | FromWorker::Spilled { graph, nbytes } => {
            let is_unheard_of = (*graph >= GraphId(core.next_graph)).then(|| format!("there has never been a graph {graph}"));
            is_unheard_of.or_else(|| absurd(*nbytes, 0))
        }
        FromWorker::Failed { task, attempt, .. } | FromWorker::Burdened { task, attempt } => never_given(core, *task, *attempt),
        FromWorker::Revoked { task, attempt, .. } | FromWorker::Executing { task, attempt } => {
            never_given(core, *task, *attempt).or_else(|| not_run(core, *task))
        }
        FromWorker::InputLost { task, attempt, input, .. } => {
            never_given(core, *task, *attempt).or_else(|| never_was(core, *input)).or_else(|| no_input_of(core, *task, *input))
        }
        FromWorker::Lost { task } | FromWorker::NotReplicated { task } => never_was(core, *task),
        FromWorker::Status(_) | FromWorker::Retiring => None,
    }
}

fn never_given(core: &Core, task: TaskId, attempt: Attempt) -> Option<String> {
    // A task that has had a backup has one number more.
    let last = core.task(task).map(|entry| entry.attempt.0 + u32::from(entry.has(SPECULATED)));
    let is_future = last.is_some_and(|last| attempt.0 > last) || attempt == Attempt(0);
    never_was(core, task).or_else(|| is_future.then(|| format!("{attempt} of {task} was never given to anybody")))
}

fn never_was(core: &Core, task: TaskId) -> Option<String> {
    let is_unheard_of = task.graph >= GraphId(core.next_graph);
    let is_beyond = core.graphs.get(&task.graph).is_some_and(|run| task.idx.0 >= run.n_tasks());
    (is_unheard_of || is_beyond).then(|| format!("there has never been a task {task}"))
}

fn not_run(core: &Core, task: TaskId) -> Option<String> {
    let is_uploaded = core.task(task).is_some_and(|entry| entry.has(UPLOADED));
    is_uploaded.then(|| format!("{task} is uploaded by a client, and not run by anybody"))
}

/// A run cannot lack what it does not take. Rare news, so that a look at all inputs does no harm.
fn no_input_of(core: &Core, task: TaskId, input: TaskId) -> Option<String> {
    let run = core.graphs.get(&task.graph)?;
    let is_input = run.graph.inputs[run.inputs(task.idx)].iter().any(|edge| match edge.source() {
        Source::Task(idx) => run.task_id(idx) == input,
        Source::External(external) => run.graph.externals[external as usize] == input,
        Source::Group(group) => input.graph == task.graph && run.graph.group_members[run.members(group)].contains(&input.idx),
    });
    (!is_input).then(|| format!("{input} is no input of {task}"))
}

fn absurd(nbytes: u64, duration_us: u64) -> Option<String> {
    (nbytes > MAX_NBYTES || duration_us > MAX_DURATION_US).then(|| format!("{nbytes} bytes in {duration_us} us cannot be"))
}
