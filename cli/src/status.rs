//! `rask status` and `rask cancel`: what a cluster is doing, and stopping some of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use rask::Client;
use rask_comm::SocketBuffers;
use rask_comm::message::{GraphReport, HotLink, StatusReport, WorkerReport, WorkerStatus};
use rask_graphs::{GraphId, WorkerId};
use serde_json::{Value as Json, json};

use crate::arguments::{CancelArguments, StatusArguments};
use crate::blocking::block_on;
use crate::connect::connect;
use crate::exit::{Exit, Failure};
use crate::report::{plural, size_text, time_text};
use crate::settings::Settings;
use crate::terminal::{escape, escape_name, print_to_stdout};

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
        text.push_str(&workers_text(&report.workers));
        text.push_str(&links_text(report));
    }
    for unmet in &report.unmet {
        let resources = unmet.resources.iter().map(|(name, amount)| format!("{}={amount}", escape_name(name)));
        let wishes: Vec<String> =
            resources.chain(unmet.workers.iter().map(|name| format!("worker {}", escape_name(name)))).collect();
        text.push_str(&format!("\nno worker fits {} waiting tasks: {}\n", unmet.n_tasks, wishes.join(", ")));
    }
    if report.n_more_unmet > 0 {
        text.push_str(&format!("\n... and {} more wishes that no worker fits\n", report.n_more_unmet));
    }
    let others = match report.n_other_graphs {
        0 => String::new(),
        n => format!("\n{} of others", plural(n, "graph")),
    };
    if report.graphs.is_empty() {
        text.push_str(if others.is_empty() { "\nno graphs" } else { &others });
        return text;
    }
    let mut graphs = table(&["graph", "name", "owner", "tasks", "finished", "failed", "time", "state"]);
    let listed = graphs_to_list(&report.graphs);
    for graph in &listed {
        let state = match (graph.has_ended, graph.has_failed, graph.client) {
            (true, true, _) => "failed",
            (true, false, _) => "done",
            (false, _, None) => "running, detached",
            (false, _, Some(_)) => "running",
        };
        graphs.add_row([
            graph.graph.to_string(),
            escape_name(&graph.name),
            graph.owner.as_deref().map_or_else(|| "-".to_owned(), escape_name),
            graph.counts.n_tasks.to_string(),
            graph.counts.n_finished.to_string(),
            graph.counts.n_erred.to_string(),
            time_text(graph.seconds),
            state.to_owned(),
        ]);
    }
    text.push_str(&format!("\n{graphs}"));
    if listed.len() < report.graphs.len() {
        text.push_str(&format!("\nand {} more graphs; --json lists them all", report.graphs.len() - listed.len()));
    }
    if report.n_more_graphs > 0 {
        text.push_str(&format!("\n... and {} more", report.n_more_graphs));
    }
    text.push_str(&others);
    for graph in listed {
        let id = graph.graph;
        if !graph.failure.is_empty() {
            text.push_str(&format!("\n{id} has failed: {}", escape(&graph.failure)));
        } else if !graph.waits.is_empty() {
            text.push_str(&format!("\n{id} waits: {}", escape(&graph.waits)));
        }
    }
    let kept = report.graphs.iter().filter(|graph| graph.has_ended && graph.client.is_none() && graph.nbytes_kept > 0);
    let (n_kept, nbytes) = kept.fold((0, 0_u64), |(n, sum), graph| (n + 1, sum.saturating_add(graph.nbytes_kept)));
    if n_kept > 0 {
        let size = size_text(nbytes);
        text.push_str(&format!("\n{size} of results are kept of {}; rask cancel lets go of them", plural(n_kept, "ended graph")));
    }
    text
}

/// Graphs up to this many are listed.
const MANY_GRAPHS: usize = 40;
/// Of more, this many are.
const SOME_GRAPHS: usize = 20;

/// All, or of many those that somebody should look at first: what has failed, what waits, what runs; the latest of each.
fn graphs_to_list(graphs: &[GraphReport]) -> Vec<&GraphReport> {
    let mut listed: Vec<&GraphReport> = graphs.iter().collect();
    if listed.len() > MANY_GRAPHS {
        let is_plain = |graph: &GraphReport| (graph.failure.is_empty() && graph.waits.is_empty(), graph.has_ended);
        listed.sort_by_key(|graph| (is_plain(graph), Reverse(graph.graph)));
        listed.truncate(SOME_GRAPHS);
    }
    listed
}

/// Workers up to this many are listed one by one.
const MANY_WORKERS: usize = 40;
/// Of more, this many are.
const SOME_WORKERS: usize = 20;

fn workers_text(workers: &[WorkerReport]) -> String {
    let mut listed: Vec<&WorkerReport> = workers.iter().collect();
    let n_left_out = if listed.len() > MANY_WORKERS { listed.len() - SOME_WORKERS } else { 0 };
    if n_left_out > 0 {
        let traffic = |worker: &WorkerReport| {
            let traffic = &worker.status.traffic;
            traffic.nbytes_in_per_second.saturating_add(traffic.nbytes_out_per_second)
        };
        // Those that somebody should look at, and then those that do most; the others in the order in which they came.
        listed.sort_by_key(|worker| (state_of(worker).is_empty(), Reverse(traffic(worker)), Reverse(worker.n_processing)));
        listed.truncate(SOME_WORKERS);
    }
    let mut rows = table(&[
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
        "in",
        "out",
        "state",
    ]);
    for worker in listed {
        let first = [escape_name(&worker.name), worker.address.to_string()];
        rows.add_row(first.into_iter().chain(columns(std::slice::from_ref(worker))).chain([state_of(worker)]));
    }
    if workers.len() > 1 {
        let first = [format!("all {}", workers.len()), String::new()];
        rows.add_row(first.into_iter().chain(columns(workers)).chain([states_of(workers)]));
    }
    let mut text = format!("{rows}\n");
    if n_left_out > 0 {
        text.push_str(&format!("{n_left_out} more workers; --json lists them all\n"));
    }
    let small: Vec<SocketBuffers> =
        workers.iter().map(|worker| worker.status.traffic.socket_buffers).filter(SocketBuffers::are_small).collect();
    if let Some(first) = small.first() {
        let n_workers = plural(small.len() as u32, "worker");
        text.push_str(&format!("\n{n_workers}: {}\n", first.report()));
    }
    text
}

/// The numbers of some workers, added up.
fn columns(workers: &[WorkerReport]) -> [String; 10] {
    let count = |of: fn(&WorkerReport) -> u32| workers.iter().map(|worker| u64::from(of(worker))).sum::<u64>().to_string();
    let sum = |of: fn(&WorkerReport) -> u64| workers.iter().fold(0_u64, |sum, worker| sum.saturating_add(of(worker)));
    let size = |of| size_text(sum(of));
    [
        count(|worker| worker.n_slots),
        count(|worker| worker.n_processing),
        count(|worker| worker.n_results),
        size(|worker| worker.memory_limit),
        size(|worker| worker.status.nbytes_results),
        size(|worker| worker.status.nbytes_in_flight),
        size(|worker| worker.status.nbytes_spilled),
        size(|worker| unmanaged(&worker.status)),
        rate_text(sum(|worker| worker.status.traffic.nbytes_in_per_second)),
        rate_text(sum(|worker| worker.status.traffic.nbytes_out_per_second)),
    ]
}

fn rate_text(nbytes_per_second: u64) -> String {
    format!("{}/s", size_text(nbytes_per_second))
}

fn links_text(report: &StatusReport) -> String {
    if report.hot_links.is_empty() {
        return String::new();
    }
    let names = names(report);
    let name = |worker: WorkerId| names.get(&worker).map_or_else(|| worker.to_string(), |name| escape_name(name));
    let mut links = table(&["from", "to", "moves", "in flight"]);
    for HotLink { to, traffic } in &report.hot_links {
        let (rate, in_flight) = (rate_text(traffic.nbytes_per_second), size_text(traffic.nbytes_in_flight));
        links.add_row([name(traffic.from), name(*to), rate, in_flight]);
    }
    format!("\nbusiest links between workers\n{links}\n")
}

fn names(report: &StatusReport) -> BTreeMap<WorkerId, &str> {
    report.workers.iter().map(|worker| (worker.worker, worker.name.as_str())).collect()
}

/// Memory of the process that no result explains: kernels at work, the program itself, what the allocator keeps.
fn unmanaged(status: &WorkerStatus) -> u64 {
    status.rss_nbytes.saturating_sub(status.nbytes_results)
}

type State = (fn(&WorkerReport) -> bool, &'static str);

/// What keeps a worker from work.
const STATES: [State; 3] = [
    (|worker| worker.is_retiring, "leaving"),
    (|worker| worker.status.is_paused, "paused"),
    (|worker| worker.status.is_spill_full, "spill disk full"),
];

fn state_of(worker: &WorkerReport) -> String {
    let states: Vec<&str> = STATES.iter().filter(|(is_so, _)| is_so(worker)).map(|(_, state)| *state).collect();
    states.join(", ")
}

/// How many are in each state.
fn states_of(workers: &[WorkerReport]) -> String {
    let count = |is_so: fn(&WorkerReport) -> bool| workers.iter().filter(|worker| is_so(worker)).count();
    let states = STATES.iter().map(|(is_so, state)| (count(*is_so), state)).filter(|(n_workers, _)| *n_workers > 0);
    states.map(|(n_workers, state)| format!("{n_workers} {state}")).collect::<Vec<String>>().join(", ")
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
                "nbytes_in_per_second": worker.status.traffic.nbytes_in_per_second,
                "nbytes_out_per_second": worker.status.traffic.nbytes_out_per_second,
                "fetch_p50_us": worker.status.traffic.fetch_p50_ns as f64 / 1e3,
                "fetch_p99_us": worker.status.traffic.fetch_p99_ns as f64 / 1e3,
                "socket_nbytes_in": worker.status.traffic.socket_buffers.receive,
                "socket_nbytes_out": worker.status.traffic.socket_buffers.send,
            })
        })
        .collect();
    let graphs: Vec<Json> = report
        .graphs
        .iter()
        .map(|graph| {
            json!({
                "id": graph.graph.to_string(), "name": graph.name, "owner": graph.owner, "has_ended": graph.has_ended, "has_failed": graph.has_failed,
                "failure": graph.failure, "waits": graph.waits, "nbytes_kept": graph.nbytes_kept,
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
    let names = names(report);
    let hot_links: Vec<Json> = report
        .hot_links
        .iter()
        .map(|HotLink { to, traffic }| {
            json!({
                "from": traffic.from.to_string(), "from_name": names.get(&traffic.from), "to": to.to_string(),
                "to_name": names.get(to), "nbytes_per_second": traffic.nbytes_per_second,
                "nbytes_in_flight": traffic.nbytes_in_flight,
            })
        })
        .collect();
    json!({
        "uptime_seconds": report.uptime_seconds, "n_clients": report.n_clients, "workers": workers, "graphs": graphs,
        "n_more_graphs": report.n_more_graphs, "n_other_graphs": report.n_other_graphs,
        "unmet": unmet, "n_more_unmet": report.n_more_unmet,
        "hot_links": hot_links,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rask_comm::message::{PeerTraffic, TaskCounts};

    #[test]
    fn names_cannot_steer_the_terminal() {
        let graph = GraphReport {
            graph: GraphId(3),
            name: "\x1b]0;mine\x07".to_owned(),
            owner: Some("al\u{1b}ice".to_owned()),
            client: None,
            has_ended: false,
            has_failed: false,
            failure: String::new(),
            waits: String::new(),
            nbytes_kept: 0,
            seconds: 1.0,
            counts: TaskCounts { n_tasks: 4, n_finished: 2, ..TaskCounts::default() },
        };
        let report = StatusReport { graphs: vec![graph], ..StatusReport::default() };
        let text = to_text(&report);
        assert!(!text.contains('\x1b') && text.contains("al\\u{1b}ice") && text.contains("\\u{1b}]0;mine"), "{text}");
        assert!(text.contains("running, detached") && text.contains("no workers"), "{text}");
        assert_eq!(to_json(&report)["graphs"][0]["id"], "g3");
    }

    #[test]
    fn a_thousand_graphs_fit_a_screen_and_those_in_trouble_come_first() {
        let graph = |id: u32| GraphReport {
            graph: GraphId(id),
            name: String::new(),
            owner: None,
            client: None,
            has_ended: true,
            has_failed: false,
            failure: String::new(),
            waits: String::new(),
            nbytes_kept: 1 << 20,
            seconds: 1.0,
            counts: TaskCounts::default(),
        };
        let mut graphs: Vec<GraphReport> = (0..1_000).map(graph).collect();
        graphs[3].failure = "task \"x\": out of luck".to_owned();
        graphs[5].waits = "no worker fits: gpu=1".to_owned();
        let text = to_text(&StatusReport { graphs, ..StatusReport::default() });
        assert!(text.lines().count() < 40, "{text}");
        assert!(text.contains("and 980 more graphs"), "{text}");
        assert!(text.contains("g3 has failed: task \"x\": out of luck") && text.contains("g5 waits: no worker fits"), "{text}");
        assert!(text.contains("1000.0 MiB of results are kept of 1000 ended graphs"), "{text}");
    }

    fn worker(id: u32) -> WorkerReport {
        WorkerReport {
            worker: WorkerId(id),
            name: format!("node-{id}"),
            address: ([127, 0, 0, 1], 1).into(),
            n_slots: 2,
            memory_limit: 4 << 30,
            n_processing: 1,
            n_results: 9,
            is_retiring: false,
            status: WorkerStatus::default(),
        }
    }

    #[test]
    fn what_moves_is_told() {
        let mut workers = vec![worker(0), worker(1)];
        workers[1].status.traffic.nbytes_in_per_second = 3 << 20;
        let traffic = PeerTraffic { from: WorkerId(0), nbytes_per_second: 3 << 20, nbytes_in_flight: 64 << 20 };
        workers[0].status.traffic.socket_buffers = SocketBuffers { asked: 8 << 20, receive: 8 << 20, send: 8 << 20 };
        workers[1].status.traffic.socket_buffers = SocketBuffers { asked: 8 << 20, receive: 208 << 10, send: 208 << 10 };
        let gone = HotLink { to: WorkerId(1), traffic: PeerTraffic { from: WorkerId(7), ..traffic } };
        let hot_links = vec![HotLink { to: WorkerId(1), traffic }, gone];
        let report = StatusReport { workers, hot_links, ..StatusReport::default() };
        let text = to_text(&report);
        assert!(text.contains("busiest links between workers"), "{text}");
        let is_link = |line: &&str| line.split_whitespace().eq(["node-0", "node-1", "3.0", "MiB/s", "64.0", "MiB"]);
        assert_eq!(text.lines().filter(is_link).count(), 1, "{text}");
        assert!(text.contains("1 worker: UDP socket buffers: 208 KiB in") && text.contains("rmem_max"), "{text}");
        let json = to_json(&report);
        assert_eq!(json["hot_links"][0]["to_name"], "node-1");
        assert!(json["hot_links"][1]["from_name"].is_null());
        assert_eq!(json["workers"][1]["nbytes_in_per_second"], 3 << 20);
        assert_eq!(json["workers"][1]["socket_nbytes_in"], 208 << 10);
    }

    #[test]
    fn a_thousand_workers_fit_a_screen() {
        let mut workers: Vec<WorkerReport> = (0..1_000).map(worker).collect();
        workers[700].status.is_paused = true;
        workers[800].status.traffic.nbytes_out_per_second = 1 << 30;
        let report = StatusReport { workers, ..StatusReport::default() };
        let text = to_text(&report);
        assert!(text.lines().count() < 40, "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("node-")).collect();
        assert!(rows.len() == SOME_WORKERS && rows[0].contains("node-700") && rows[1].contains("node-800"), "{text}");
        assert!(text.contains("980 more workers"), "{text}");
        let all = text.lines().find(|line| line.contains("all 1000")).unwrap();
        assert!(
            all.contains("2000") && all.contains("3.9 TiB") && all.contains("1.0 GiB/s") && all.contains("1 paused"),
            "{all}"
        );
        assert_eq!(to_json(&report)["workers"].as_array().unwrap().len(), 1_000);
        let report = StatusReport { workers: vec![worker(0)], ..StatusReport::default() };
        assert!(!to_text(&report).contains("all 1"), "one worker is its own sum");
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
        let worker = WorkerReport { status, ..worker(0) };
        assert_eq!(unmanaged(&worker.status), 1 << 29);
        let report = StatusReport { workers: vec![worker], ..StatusReport::default() };
        let text = to_text(&report);
        assert!(text.contains("paused, spill disk full") && text.contains("unmanaged"), "{text}");
        assert_eq!(to_json(&report)["workers"][0]["nbytes_unmanaged"], 1 << 29);
    }
}
