//! Why a graph does not get on, for the person who waits for it: nobody is there to work, nobody fits, or memory is short.
//!
//! Looked at as often as clients hear of progress, and told when it has changed. A graph of which something runs waits for nothing.

use rask_comm::message::ToClient;
use rask_comm::words::size_text;
use rask_graphs::GraphId;

use super::core::Core;
use super::event::Actions;
use super::graph_run::GraphRun;

/// Graphs that are named.
const N_NAMED: usize = 3;

/// Tell clients what their graphs wait for, where that has changed.
pub(super) fn tell(core: &mut Core, out: &mut Actions) {
    let changed: Vec<(GraphId, String)> = core
        .graphs
        .values()
        .filter(|run| run.client.is_some())
        .map(|run| (run, reason(core, run)))
        .filter(|(run, reason)| run.told_waits != *reason)
        .map(|(run, reason)| (run.id, reason))
        .collect();
    for (graph, reason) in changed {
        let run = core.run_mut(graph);
        run.told_waits.clone_from(&reason);
        // One that has ended waits for nothing, which its client knows.
        if let Some(client) = run.client.filter(|_| run.n_active > 0) {
            out.tell_client(client, ToClient::Waits { graph, reason });
        }
    }
}

/// What `run` waits for; empty when it gets on, or has ended.
pub(super) fn reason(core: &Core, run: &GraphRun) -> String {
    if run.n_active == 0 || run.counts.n_processing > 0 {
        return String::new();
    }
    if core.workers.len() == 0 {
        return "no workers are connected".to_owned();
    }
    if let Some(wishes) = core.constraints.stranded_wishes(run.id) {
        return format!("no worker fits: {wishes}");
    }
    if core.workers.iter().all(|(_, worker)| worker.is_retiring) {
        return "all workers are leaving".to_owned();
    }
    if run.counts.n_queued > 0 && core.workers.iter().all(|(_, worker)| worker.status.is_paused || worker.is_retiring) {
        return format!("all workers are paused, since their memory is short{}", who_keeps_memory(core));
    }
    String::new()
}

/// Results that nobody may be waiting for any more.
fn who_keeps_memory(core: &Core) -> String {
    let kept = || core.graphs.values().filter(|run| run.client.is_none() && run.ended_at.is_some() && run.nbytes_kept > 0);
    let nbytes = kept().fold(0_u64, |sum, run| sum.saturating_add(run.nbytes_kept));
    if nbytes == 0 {
        return String::new();
    }
    let names: Vec<String> = kept().take(N_NAMED).map(|run| run.id.to_string()).collect();
    let n_more = kept().count().saturating_sub(names.len());
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    let size = size_text(nbytes);
    format!("; {size} are results of detached graphs that are done ({}{more}): `rask cancel` lets go of them", names.join(", "))
}
