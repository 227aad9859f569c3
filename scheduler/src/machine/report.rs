//! How the cluster is, for people.

use rask_comm::message::{GraphReport, StatusReport, WorkerReport};

use super::core::Core;
use super::graph_run::TaskState;

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
    }
}
