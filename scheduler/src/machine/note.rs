//! What is worth a line in the log of whoever runs the cluster: graphs that come and end, workers that come and go. By name.

use std::fmt;

use rask_comm::PeerIdentity;
use rask_comm::message::LostResults;
use rask_comm::words::size_text;
use rask_graphs::{GraphId, WorkerId};

/// One line. Words of others are escaped where it is shown.
#[derive(Clone, PartialEq, Debug)]
pub enum Note {
    /// A graph begins.
    GraphAccepted {
        /// Which.
        graph: GraphId,
        /// Its name, for people.
        name: String,
        /// Who submitted it.
        client: String,
        /// Its tasks.
        n_tasks: u32,
    },
    /// All its outputs are done, have failed, or are not wanted any more.
    GraphEnded {
        /// Which.
        graph: GraphId,
        /// Its name, for people.
        name: String,
        /// Since it was accepted.
        seconds: f64,
        /// What came of it.
        end: GraphEnd,
    },
    /// A graph is followed again.
    GraphAttached {
        /// Which.
        graph: GraphId,
        /// By whom.
        by: PeerIdentity,
    },
    /// A client asked for what its role may not do, and is shown out.
    Overstepped {
        /// Who.
        by: PeerIdentity,
    },
    /// A worker is gone without having been let go.
    WorkerLost {
        /// Its name.
        name: String,
        /// How it ended.
        reason: String,
        /// Runs that it had been given, and results that nobody else has.
        n_runs: usize,
        /// Of what it held.
        n_results: usize,
    },
    /// A worker has been let go.
    WorkerLeaves {
        /// Its name.
        name: String,
        /// What goes with it.
        lost: LostResults,
    },
}

/// What came of a graph.
#[derive(Clone, PartialEq, Debug)]
pub enum GraphEnd {
    /// Every output.
    Done {
        /// Its tasks.
        n_tasks: u32,
        /// Runs beyond those.
        n_again: u32,
    },
    /// Not all outputs; the first failure.
    Failed {
        /// In words.
        reason: String,
    },
    /// Somebody has cancelled it.
    Cancelled {
        /// Who.
        by: String,
    },
    /// Its client has gone.
    Abandoned {
        /// Who that was.
        client: String,
    },
}

impl Note {
    /// Whether somebody should look at it.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::GraphAccepted { .. } | Self::GraphAttached { .. } => false,
            Self::GraphEnded { end, .. } => matches!(end, GraphEnd::Failed { .. }),
            Self::WorkerLost { .. } | Self::Overstepped { .. } => true,
            Self::WorkerLeaves { lost, .. } => lost.n_results > 0,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GraphAccepted { graph, name, client, n_tasks } => {
                write!(f, "graph {graph} \"{}\" accepted from {}: {n_tasks} tasks", name.escape_debug(), client.escape_debug())
            }
            Self::GraphEnded { graph, name, seconds, end } => {
                write!(f, "graph {graph} \"{}\" {end} after {seconds:.2} s", name.escape_debug())?;
                if let GraphEnd::Failed { reason } = end {
                    write!(f, ": {}", reason.escape_debug())?;
                }
                Ok(())
            }
            Self::GraphAttached { graph, by } => write!(f, "graph {graph} is followed again, by {by}"),
            Self::Overstepped { by } => write!(f, "closed {by}, which asked for what it may not do"),
            Self::WorkerLost { name, reason, n_runs, n_results } => write!(
                f,
                "worker \"{}\" lost: {}; it had {n_runs} runs, and {n_results} results that nobody else has",
                name.escape_debug(),
                reason.escape_debug()
            ),
            Self::WorkerLeaves { name, lost } if lost.n_results == 0 => {
                write!(f, "worker \"{}\" leaves; nothing is lost with it", name.escape_debug())
            }
            Self::WorkerLeaves { name, lost } => {
                write!(f, "worker \"{}\" leaves, and no other is there for {}", name.escape_debug(), lost_text(lost))
            }
        }
    }
}

/// `3 results (1.0 MiB): a of g0, b of g0 and 1 more`.
fn lost_text(lost: &LostResults) -> String {
    let names: Vec<String> = lost.names.iter().map(|name| name.escape_debug().to_string()).collect();
    let n_more = (lost.n_results as usize).saturating_sub(names.len());
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    format!("{} results ({}): {}{more}", lost.n_results, size_text(lost.nbytes), names.join(", "))
}

impl fmt::Display for GraphEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { n_tasks, n_again: 0 } => write!(f, "done: {n_tasks} tasks"),
            Self::Done { n_tasks, n_again } => write!(f, "done: {n_tasks} tasks and {n_again} runs again"),
            Self::Failed { .. } => f.write_str("failed"),
            Self::Cancelled { by } => write!(f, "cancelled by {}", by.escape_debug()),
            Self::Abandoned { client } => write!(f, "stopped, since {} has gone,", client.escape_debug()),
        }
    }
}

/// Which worker, for notes.
pub(super) fn worker_name(core: &super::core::Core, worker: WorkerId) -> String {
    core.workers.get(worker).map_or_else(String::new, |worker| worker.hello.name.clone())
}

/// Word for the log of how a graph ended, once.
pub(super) fn end(core: &mut super::core::Core, graph: GraphId, end: GraphEnd, out: &mut super::event::Actions) {
    let now = core.now;
    let Some(run) = core.graphs.get_mut(&graph).filter(|run| !run.is_end_noted) else { return };
    run.is_end_noted = true;
    // A scatter is a value on its way, not somebody's work.
    if run.scatter.is_none() {
        let seconds = now.since(run.accepted_at).as_secs_f64();
        out.note(Note::GraphEnded { graph, name: run.options.name.clone(), seconds, end });
    }
}

pub(super) fn end_of_itself(core: &mut super::core::Core, graph: GraphId, out: &mut super::event::Actions) {
    let run = core.run(graph);
    let n_tasks = run.counts.n_tasks;
    let outcome = match run.failures.first() {
        Some(failure) => GraphEnd::Failed { reason: format!("\"{}\": {}", failure.key, failure.message) },
        None => GraphEnd::Done { n_tasks, n_again: run.n_executions.saturating_sub(n_tasks) },
    };
    end(core, graph, outcome, out);
}
