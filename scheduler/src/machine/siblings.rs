//! Root tasks that feed the same consumer are kept together.
//!
//! Roots are held back in the common queue so that loading never runs ahead of consuming; taken one by one by whoever has room,
//! neighbours would land on different workers and their results would have to meet. So the worker that is given a root takes
//! its siblings, the roots that its first consumer needs too, into its backlog. That reserves nothing: a worker that would be
//! idle takes from the longest backlog. Dask has to choose between the two, queueing and co-assignment.

use rask_graphs::{Source, TaskId, WorkerId};

use super::core::Core;
use super::graph_run::{IS_CONSTRAINED, NOBODY, Node, TaskState};
use super::placement;

/// A consumer of more than this has siblings all over the cluster anyway.
const MAX_FAMILY: usize = 32;
/// Roots expected to be shorter than this are given in blocks, which keeps neighbours together too, in nanoseconds.
const MIN_ADOPTED_NS: u32 = 1_000_000;

/// `worker` has been given `root`, which came from the common queue: its siblings are to wait there for it.
pub(super) fn adopt(core: &mut Core, root: TaskId, worker: WorkerId) {
    if core.entry(root).estimate_ns < MIN_ADOPTED_NS {
        return;
    }
    let run = core.run(root.graph);
    let consumers = run.dependents(Node::Task(root.idx)).map(|at| run.dependent(at));
    let first = consumers.filter_map(|node| if let Node::Task(idx) = node { Some(idx) } else { None }).next();
    let Some(consumer) = first.filter(|idx| run.inputs(*idx).len() <= MAX_FAMILY) else { return };
    let siblings: Vec<TaskId> = run.graph.inputs[run.inputs(consumer)]
        .iter()
        .filter_map(|input| if let Source::Task(idx) = input.source() { Some(idx) } else { None })
        .filter(|idx| {
            let entry = run.entry(*idx);
            let waits = entry.state == TaskState::Queued && entry.worker == NOBODY && entry.n_crashes == 0;
            waits && run.is_root(*idx) && !entry.has(IS_CONSTRAINED)
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
