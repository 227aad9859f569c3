//! How the cluster is, for people.

use std::cmp::Reverse;

use rask_comm::limits::{MAX_STATUS_GRAPHS, MAX_STATUS_UNMET};
use rask_comm::message::{GraphReport, HotLink, StatusReport, TaskFailure, WorkerReport};

use rask_comm::Owner;
use rask_graphs::WorkerId;

use super::core::Core;
use super::graph_run::{GraphRun, TaskState};
use super::waiting;
use super::workers::Worker;

/// Links that a report names.
const N_HOT_LINKS: usize = 10;

/// What those may be told who may see the graphs that `is_seen` says.
pub(super) fn status(core: &Core, is_seen: impl Fn(&GraphRun) -> bool) -> StatusReport {
    let workers = core.workers.iter().map(|(id, worker)| WorkerReport {
        worker: id,
        name: worker.hello.name.clone(),
        address: worker.hello.data_address,
        n_slots: worker.hello.n_slots,
        memory_limit: worker.hello.memory_limit,
        n_processing: worker.n_processing,
        n_results: worker.n_results,
        is_retiring: worker.is_retiring,
        status: worker.status,
    });
    let n_graphs = core.graphs.len();
    let graphs = core.graphs.values().filter(|run| is_seen(run)).map(|run| GraphReport {
        graph: run.id,
        name: run.options.name.clone(),
        owner: match &run.owner {
            Owner::Local => None,
            Owner::Named(name) => Some(name.clone()),
        },
        client: run.client,
        has_ended: run.ended_at.is_some(),
        has_failed: !run.failures.is_empty(),
        failure: run.failures.first().map(|failure| failure_text(failure)).unwrap_or_default(),
        waits: waiting::reason(core, run),
        nbytes_kept: run.nbytes_kept,
        seconds: run.ended_at.unwrap_or(core.now).since(run.accepted_at).as_secs_f64(),
        counts: run.counts,
    });
    let graphs: Vec<GraphReport> = graphs.collect();
    let n_seen = graphs.len();
    let graphs: Vec<GraphReport> = graphs.into_iter().take(MAX_STATUS_GRAPHS).collect();
    let unmet = core.constraints.unmet(&core.workers, |task| {
        let is_seen = core.graphs.get(&task.graph).is_some_and(|run| is_seen(run));
        is_seen && core.task(task).is_some_and(|entry| entry.state == TaskState::Queued && !entry.is_early())
    });
    StatusReport {
        uptime_seconds: core.now.0.as_secs_f64(),
        n_clients: core.clients.graphs_of.len() as u32,
        workers: workers.collect(),
        n_other_graphs: (n_graphs - n_seen) as u32,
        n_more_graphs: (n_seen - graphs.len()) as u32,
        graphs,
        n_more_unmet: unmet.len().saturating_sub(MAX_STATUS_UNMET) as u32,
        unmet: unmet.into_iter().take(MAX_STATUS_UNMET).collect(),
        hot_links: hot_links(core),
    }
}

/// A failure in one sentence, not too long a one.
fn failure_text(failure: &TaskFailure) -> String {
    const N_CHARS: usize = 500;
    let place = if failure.worker.is_empty() { String::new() } else { format!(" on worker \"{}\"", failure.worker) };
    let text = format!("task \"{}\"{place}: {}", failure.key, failure.message);
    text.chars().take(N_CHARS).collect()
}

/// Each worker names the few peers from which most comes to it, so a busy link of a worker with busier ones is not among these.
fn hot_links(core: &Core) -> Vec<HotLink> {
    let of_worker = |(to, worker): (WorkerId, &Worker)| {
        worker.status.traffic.busiest.into_iter().flatten().map(move |traffic| HotLink { to, traffic })
    };
    let mut links: Vec<HotLink> = core.workers.iter().flat_map(of_worker).collect();
    // Peers that have left are known to nobody who reads this.
    links.retain(|link| core.workers.get(link.traffic.from).is_some());
    links.sort_unstable_by_key(|link| (Reverse(link.traffic.nbytes_per_second), link.to, link.traffic.from));
    links.truncate(N_HOT_LINKS);
    links
}
