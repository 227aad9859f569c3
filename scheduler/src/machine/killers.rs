//! Graphs whose workers die again and again while nothing of them gets done: they are stopped, whatever it is that kills.
//!
//! Tasks are blamed for what happens while they run or fetch ([`super::lineage`], [`super::quarantine`]). A result can kill too: the
//! worker that sends it, when what it takes on the wire is more than there is. No run can be blamed for that; the worker's
//! death gives nothing but the graphs that had to do with it. When that is one graph, it is counted against it, until some task of it
//! is done for the first time. A graph with several tasks that have been found guilty is not tried to its last one either. Workers that die together count once: what goes with a host or a network is nobody's fault.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rask_comm::message::FailureKind;
use rask_graphs::{GraphId, TaskId, TaskIdx};

use super::core::Core;
use super::event::Actions;
use super::graph_run::{GraphRun, TaskEntry, WANTED};
use super::lineage::Blame;
use super::transitions;

/// Deaths closer together than this have one cause.
const TOGETHER: Duration = Duration::from_secs(6);

/// So many deaths stop a graph: more than it takes to blame a task twice over.
fn n_allowed(core: &Core) -> u32 {
    2 * core.config.allowed_failures.saturating_add(1) + 2
}

/// A graph with so many tasks that had to be failed for killing workers has no more to be tried.
const MAX_KILLERS: u32 = 3;

/// A worker has died that had been given `runs` and held `held`.
pub(super) fn note_death(core: &mut Core, runs: &[(TaskId, Blame)], held: &[TaskId]) {
    let graphs_of = |tasks: &mut dyn Iterator<Item = TaskId>| tasks.map(|task| task.graph).collect::<BTreeSet<GraphId>>();
    let is_used = |task: &TaskId| core.entry(*task).n_consumers > 0;
    let is_wanted = |task: &TaskId| core.entry(*task).has(WANTED);
    let mut concerned = graphs_of(&mut runs.iter().map(|(task, _)| *task));
    if concerned.is_empty() {
        concerned = graphs_of(&mut held.iter().copied().filter(is_used));
    }
    if concerned.is_empty() {
        concerned = graphs_of(&mut held.iter().copied().filter(is_wanted));
    }
    let now = core.now;
    if let (Some(graph), 1) = (concerned.first(), concerned.len())
        && let Some(run) = core.graphs.get_mut(graph)
        && run.last_death.is_none_or(|last| now.since(last) >= TOGETHER)
    {
        run.n_deaths += 1;
        run.last_death = Some(now);
    }
}

/// Stop the graphs that have gone too far.
pub(super) fn stop(core: &mut Core, out: &mut Actions) {
    let n_allowed = n_allowed(core);
    let has_gone_too_far = |run: &GraphRun| run.n_deaths > n_allowed || run.n_killers >= MAX_KILLERS;
    let killers: Vec<GraphId> = core.graphs.values().filter(|run| has_gone_too_far(run)).map(|run| run.id).collect();
    for graph in killers {
        let run = core.run_mut(graph);
        let (n_deaths, n_killers) = (std::mem::take(&mut run.n_deaths), std::mem::take(&mut run.n_killers));
        let why = if n_killers >= MAX_KILLERS {
            format!("{n_killers} tasks of it have killed workers again and again")
        } else {
            format!("workers that worked for it alone died {n_deaths} times, and no task of it was done in between")
        };
        let message = format!("its graph is stopped: {why}; the last one was {}", core.last_loss);
        let mut failure = None;
        // Later ones first: what nobody needs any more is let go of on the way.
        for idx in (0..core.run(graph).n_tasks()).rev().map(TaskIdx) {
            let task = TaskId::new(graph, idx);
            if core.task(task).is_some_and(TaskEntry::is_active) {
                let of_first = || transitions::failure_of(core, task, FailureKind::KilledWorkers, "", None, message.clone());
                let failure = failure.get_or_insert_with(of_first);
                transitions::to_erred(core, task, Arc::clone(failure), out);
            }
        }
    }
}
