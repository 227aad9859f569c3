//! `rask status` and `rask cancel`: what a cluster is doing, and stopping some of it.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use rask::Client;
use rask_comm::message::{StatusReport, WorkerReport, WorkerStatus};
use rask_graphs::GraphId;
use serde_json::{Value as Json, json};

use crate::arguments::{CancelArguments, StatusArguments};
use crate::blocking::block_on;
use crate::connect::connect;
use crate::exit::{Exit, Failure};
use crate::report::{size_text, time_text};
use crate::settings::Settings;
use crate::terminal::{escape, print_to_stdout};

/// `rask status`
pub(crate) fn run(arguments: &StatusArguments, settings: &Settings) -> anyhow::Result<Exit> {
    block_on(async {
        let client: Client = connect(&arguments.connect, settings).await?;
        let report = client.status().await.map_err(|error| Failure::unreachable(error.to_string()))?;
        let text = if arguments.json { to_json(&report).to_string() } else { to_text(&report) };
        print_to_stdout(&text)?;
        Ok(Exit::Done)
    })
}

/// `rask cancel`
pub(crate) fn cancel(arguments: &CancelArguments, settings: &Settings) -> anyhow::Result<Exit> {
    block_on(async {
        let client = connect(&arguments.connect, settings).await?;
        let graph = GraphId(arguments.graph);
        let was_known = client.cancel(graph).await.map_err(|error| Failure::unreachable(error.to_string()))?;
        if !was_known {
            let failure = Failure::failed(format!("there is no graph {graph}")).with_hint("rask status lists the graphs");
            return Err(failure.into());
        }
        print_to_stdout(&format!("cancelled {graph}"))?;
        Ok(Exit::Done)
    })
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn to_text(report: &StatusReport) -> String {
    let mut text = format!("up for {}, {} clients connected\n\n", time_text(report.uptime_seconds), report.n_clients);
    if report.workers.is_empty() {
        text.push_str("no workers\n");
    } else {
        let mut workers = table(&[
            "worker",
            "address",
            "threads",
            "running",
            "results",
            "limit",
            "held",
            "in flight",
            "spilled",
            "unmanaged",
            "state",
        ]);
        for worker in &report.workers {
            workers.add_row([
                escape(&worker.name),
                worker.address.to_string(),
                worker.n_slots.to_string(),
                worker.n_processing.to_string(),
                worker.n_results.to_string(),
                size_text(worker.memory_limit),
                size_text(worker.status.nbytes_results),
                size_text(worker.status.nbytes_in_flight),
                size_text(worker.status.nbytes_spilled),
                size_text(unmanaged(&worker.status)),
                state_of(worker),
            ]);
        }
        text.push_str(&format!("{workers}\n"));
    }
    for unmet in &report.unmet {
        let resources = unmet.resources.iter().map(|(name, amount)| format!("{}={amount}", escape(name)));
        let wishes: Vec<String> = resources.chain(unmet.workers.iter().map(|name| format!("worker {}", escape(name)))).collect();
        text.push_str(&format!("\nno worker fits {} waiting tasks: {}\n", unmet.n_tasks, wishes.join(", ")));
    }
    if report.graphs.is_empty() {
        text.push_str("\nno graphs");
        return text;
    }
    let mut graphs = table(&["graph", "name", "tasks", "finished", "failed", "time", "state"]);
    for graph in &report.graphs {
        let state = match (graph.has_ended, graph.has_failed, graph.client) {
            (true, true, _) => "failed",
            (true, false, _) => "done",
            (false, _, None) => "running, detached",
            (false, _, Some(_)) => "running",
        };
        graphs.add_row([
            graph.graph.to_string(),
            escape(&graph.name),
            graph.counts.n_tasks.to_string(),
            graph.counts.n_finished.to_string(),
            graph.counts.n_erred.to_string(),
            time_text(graph.seconds),
            state.to_owned(),
        ]);
    }
    text.push_str(&format!("\n{graphs}"));
    text
}

/// Memory of the process that no result explains: kernels at work, the program itself, what the allocator keeps.
fn unmanaged(status: &WorkerStatus) -> u64 {
    status.rss_nbytes.saturating_sub(status.nbytes_results)
}

/// What keeps a worker from work.
fn state_of(worker: &WorkerReport) -> String {
    let states =
        [(worker.is_retiring, "leaving"), (worker.status.is_paused, "paused"), (worker.status.is_spill_full, "spill disk full")];
    let states: Vec<&str> = states.into_iter().filter(|(is_so, _)| *is_so).map(|(_, state)| state).collect();
    states.join(", ")
}

fn to_json(report: &StatusReport) -> Json {
    let workers: Vec<Json> = report
        .workers
        .iter()
        .map(|worker| {
            json!({
                "id": worker.worker.to_string(), "name": worker.name, "address": worker.address.to_string(),
                "n_slots": worker.n_slots, "memory_limit": worker.memory_limit, "n_processing": worker.n_processing,
                "n_results": worker.n_results, "nbytes_results": worker.status.nbytes_results,
                "nbytes_in_flight": worker.status.nbytes_in_flight, "nbytes_reserved": worker.status.nbytes_reserved,
                "nbytes_spilled": worker.status.nbytes_spilled, "nbytes_written": worker.status.nbytes_written,
                "rss_nbytes": worker.status.rss_nbytes, "nbytes_unmanaged": unmanaged(&worker.status),
                "is_spill_full": worker.status.is_spill_full,
                "n_executing": worker.status.n_executing, "is_paused": worker.status.is_paused, "is_retiring": worker.is_retiring,
            })
        })
        .collect();
    let graphs: Vec<Json> = report
        .graphs
        .iter()
        .map(|graph| {
            json!({
                "id": graph.graph.to_string(), "name": graph.name, "has_ended": graph.has_ended, "has_failed": graph.has_failed,
                "is_attended": graph.client.is_some(), "seconds": graph.seconds, "n_tasks": graph.counts.n_tasks,
                "n_waiting": graph.counts.n_waiting, "n_queued": graph.counts.n_queued,
                "n_processing": graph.counts.n_processing, "n_finished": graph.counts.n_finished, "n_erred": graph.counts.n_erred,
            })
        })
        .collect();
    let unmet: Vec<Json> = report
        .unmet
        .iter()
        .map(|unmet| {
            let resources: BTreeMap<&str, f64> = unmet.resources.iter().map(|(name, amount)| (name.as_str(), *amount)).collect();
            json!({ "resources": resources, "workers": unmet.workers, "n_tasks": unmet.n_tasks })
        })
        .collect();
    json!({
        "uptime_seconds": report.uptime_seconds, "n_clients": report.n_clients, "workers": workers, "graphs": graphs, "unmet": unmet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rask_comm::message::{GraphReport, TaskCounts};

    #[test]
    fn names_cannot_steer_the_terminal() {
        let graph = GraphReport {
            graph: GraphId(3),
            name: "\x1b]0;mine\x07".to_owned(),
            client: None,
            has_ended: false,
            has_failed: false,
            seconds: 1.0,
            counts: TaskCounts { n_tasks: 4, n_finished: 2, ..TaskCounts::default() },
        };
        let report = StatusReport { graphs: vec![graph], ..StatusReport::default() };
        let text = to_text(&report);
        assert!(!text.contains('\x1b') && text.contains("\\u{1b}]0;mine"), "{text}");
        assert!(text.contains("running, detached") && text.contains("no workers"), "{text}");
        assert_eq!(to_json(&report)["graphs"][0]["id"], "g3");
    }

    #[test]
    fn memory_is_told_apart() {
        let status = WorkerStatus {
            nbytes_results: 3 << 30,
            nbytes_spilled: 5 << 30,
            rss_nbytes: 7 << 29,
            is_paused: true,
            is_spill_full: true,
            ..WorkerStatus::default()
        };
        let worker = WorkerReport {
            worker: rask_graphs::WorkerId(0),
            name: "a".to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            n_slots: 1,
            memory_limit: 4 << 30,
            n_processing: 0,
            n_results: 9,
            is_retiring: false,
            status,
        };
        assert_eq!(unmanaged(&worker.status), 1 << 29);
        let report = StatusReport { workers: vec![worker], ..StatusReport::default() };
        let text = to_text(&report);
        assert!(text.contains("paused, spill disk full") && text.contains("unmanaged"), "{text}");
        assert_eq!(to_json(&report)["workers"][0]["nbytes_unmanaged"], 1 << 29);
    }
}
