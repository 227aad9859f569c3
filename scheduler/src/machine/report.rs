//! How the cluster is, for people.

use std::cmp::Reverse;

use rask_comm::message::{GraphReport, HotLink, StatusReport, TaskFailure, WorkerReport};

use rask_graphs::WorkerId;

use super::core::Core;
use super::graph_run::TaskState;
use super::waiting;
use super::workers::Worker;

/// Links that a report names.
const N_HOT_LINKS: usize = 10;

pub(super) fn status(core: &Core) -> StatusReport {
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
    let graphs = core.graphs.values().map(|run| GraphReport {
        graph: run.id,
        name: run.options.name.clone(),
        client: run.client,
        has_ended: run.ended_at.is_some(),
        has_failed: !run.failures.is_empty(),
        failure: run.failures.first().map(|failure| failure_text(failure)).unwrap_or_default(),
        waits: waiting::reason(core, run),
        nbytes_kept: run.nbytes_kept,
        seconds: run.ended_at.unwrap_or(core.now).since(run.accepted_at).as_secs_f64(),
        counts: run.counts,
    });
    StatusReport {
        uptime_seconds: core.now.0.as_secs_f64(),
        n_clients: core.clients.graphs_of.len() as u32,
        workers: workers.collect(),
        graphs: graphs.collect(),
        unmet: core.constraints.unmet(&core.workers, |task| {
            core.task(task).is_some_and(|entry| entry.state == TaskState::Queued && !entry.is_early())
        }),
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
