//! Root tasks that feed the same consumer are kept together.
//!
//! Roots are held back in the common queue so that loading never runs ahead of consuming; taken one by one by whoever has room,
//! neighbours would land on different workers and their results would have to meet. So the worker that is given a root takes
//! its siblings, the roots that its first consumer needs too, into its backlog. That reserves nothing: a worker that would be
//! idle takes from the longest backlog. Dask has to choose between the two, queueing and co-assignment.

use rask_graphs::{Source, TaskId, TaskIdx, WorkerId};

use super::core::Core;
use super::graph_run::{GraphRun, IS_CONSTRAINED, NOBODY, Node, TaskState};
use super::placement;

/// A consumer of more than this has siblings all over the cluster anyway.
const MAX_FAMILY: usize = 32;
/// Roots expected to be shorter than this are given in blocks, which keeps neighbours together too, in nanoseconds.
const MIN_ADOPTED_NS: u32 = 1_000_000;
/// How many tasks in a row, each of which needs the one before only, are looked through.
const MAX_LINKS: usize = 4;

/// `worker` has been given `root`, which came from the common queue: its siblings are to wait there for it.
pub(super) fn adopt(core: &mut Core, root: TaskId, worker: WorkerId) {
    if core.entry(root).estimate_ns < MIN_ADOPTED_NS {
        return;
    }
    let run = core.run(root.graph);
    let Some(consumer) = first_meeting(run, root.idx).filter(|idx| run.inputs(*idx).len() <= MAX_FAMILY) else { return };
    let siblings: Vec<TaskId> = run.graph.inputs[run.inputs(consumer)]
        .iter()
        .filter_map(|input| root_of(run, input.source()))
        .filter(|idx| {
            let entry = run.entry(*idx);
            let waits = entry.state == TaskState::Queued && entry.worker == NOBODY && entry.n_crashes == 0;
            waits && !entry.has(IS_CONSTRAINED)
        })
        .map(|idx| run.task_id(idx))
        .collect();
    for sibling in siblings {
        // An input that is named twice is adopted once.
        if core.entry(sibling).worker == NOBODY {
            placement::push_backlog(core, worker, sibling);
        }
    }
}

/// The first task that needs what becomes of `root` and something else: the first consumer, or, behind consumers that need
/// nothing else, the first of the last of them.
fn first_meeting(run: &GraphRun, root: TaskIdx) -> Option<TaskIdx> {
    let mut idx = root;
    for _ in 0..MAX_LINKS {
        let mut consumers = run.dependents(Node::Task(idx)).map(|at| run.dependent(at));
        idx = consumers.find_map(|node| if let Node::Task(idx) = node { Some(idx) } else { None })?;
        if run.inputs(idx).len() > 1 {
            return Some(idx);
        }
    }
    None
}

/// The root that `source` is made from, by way of tasks that need nothing else, if there is such a root.
fn root_of(run: &GraphRun, mut source: Source) -> Option<TaskIdx> {
    for _ in 0..MAX_LINKS {
        let Source::Task(idx) = source else { return None };
        let inputs = &run.graph.inputs[run.inputs(idx)];
        match inputs {
            [] => return Some(idx),
            [only] => source = only.source(),
            _ => return None,
        }
    }
    None
}
