//! `rask bench overhead`: what a task costs from end to end, when it does nothing, and how soon the first one runs.

use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use futures::executor::block_on;
use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, Graph, GraphBuilder, TaskIdx, TaskOptions};
use serde_json::{Value, json};

use super::cluster::{Cluster, finish};
use super::kernels::time_until_stamp;
use super::{OverheadArgs, print, round};

pub(super) fn run(args: &OverheadArgs) -> Result<()> {
    let cluster = Cluster::start(args.cluster, 1)?;
    // Connections are made and the operators' durations are learned before the clock runs.
    time_independent(&cluster, 1_000)?;
    let independent = time_independent(&cluster, args.tasks)?;
    let tree = time(&cluster, tree(args.tree)?)?;
    let chain_time = time(&cluster, chain(args.chain, &[])?)?;
    let mut line = json!({
        "bench": "overhead",
        "mode": cluster.mode,
        "n_workers": cluster.n_workers,
        "independent": rate(args.tasks, independent.total),
        "tree": rate(args.tree, tree),
        "chain": {
            "n_tasks": args.chain,
            "seconds": round(chain_time.as_secs_f64()),
            "us_per_task": round(chain_time.as_secs_f64() * 1e6 / f64::from(args.chain)),
        },
    });
    line["independent"]["first_task_ms"] = json!(round(independent.until_first.as_secs_f64() * 1e3));
    if args.cluster.is_some() && cluster.n_workers >= 2 {
        let hops = time(&cluster, chain(args.chain, &["worker-0", "worker-1"])?)?;
        line["hop"] = json!({ "n_tasks": args.chain, "us_per_hop": round(hops.as_secs_f64() * 1e6 / f64::from(args.chain)) });
    }
    print(&line, args.json);
    Ok(())
}

fn rate(n_tasks: u32, elapsed: Duration) -> Value {
    let seconds = elapsed.as_secs_f64();
    json!({ "n_tasks": n_tasks, "seconds": round(seconds), "tasks_per_second": (f64::from(n_tasks) / seconds).round() })
}

/// From submission until every output is known to be done. Letting go of the results is not part of it; what is timed next
/// begins when that is over.
fn time(cluster: &Cluster, graph: Graph) -> Result<Duration> {
    let (elapsed, job) = cluster.time(graph)?;
    drop(job);
    cluster.settle()?;
    Ok(elapsed)
}

struct Independent {
    /// From submission until every task is known to be done.
    total: Duration,
    /// From submission until the first task ran on a worker.
    until_first: Duration,
}

fn time_independent(cluster: &Cluster, n_tasks: u32) -> Result<Independent> {
    let (graph, first) = independent(n_tasks)?;
    let begin = SystemTime::now();
    let (total, job) = cluster.time(graph)?;
    let stamp = block_on(job.gather(first))?;
    let until_first = time_until_stamp(begin, &stamp).map_err(|error| anyhow!("{error}"))?;
    drop(job);
    cluster.settle()?;
    Ok(Independent { total, until_first })
}

/// `n_tasks` independent tasks, every one an output, and the first of them in execution order. That one says when it ran,
/// the others are no-ops.
fn independent(n_tasks: u32) -> Result<(Graph, TaskIdx)> {
    let mut graph = GraphBuilder::new();
    let family = graph.family("noop");
    let (stamp, noop) = (graph.body(Body::single("bench.stamp", 1, "{}")), graph.body(Body::single("core.noop", 1, "{}")));
    for member in 0..n_tasks {
        let body = if member == 0 { stamp } else { noop };
        let task = graph.task_with(KeyRef { family, member: Some(member) }, body).add();
        graph.output(task);
    }
    let finished = finish(graph)?;
    match finished.renumbering.first() {
        Some(Some(first)) if first.index() == 0 => Ok((finished.graph, *first)),
        _ => Err(anyhow!("the task that was added first is not the first to run")),
    }
}

/// A binary tree of about `n_tasks` no-ops, its root the only output.
fn tree(n_tasks: u32) -> Result<Graph> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("tree"), graph.body(Body::single("core.noop", 1, "{}")));
    let mut member = 0;
    let mut add = |graph: &mut GraphBuilder, inputs: &[TaskIdx]| {
        member += 1;
        graph.task_with(KeyRef { family, member: Some(member - 1) }, body).inputs(inputs.iter().copied()).add()
    };
    let mut level: Vec<TaskIdx> = (0..n_tasks.div_ceil(2)).map(|_| add(&mut graph, &[])).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if pair.len() == 2 { add(&mut graph, pair) } else { pair[0] }).collect();
    }
    graph.output(level[0]);
    Ok(finish(graph)?.graph)
}

/// A chain of `n_tasks` no-ops; with `workers`, each next link on the next of them.
fn chain(n_tasks: u32, workers: &[&str]) -> Result<Graph> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("chain"), graph.body(Body::single("core.noop", 1, "{}")));
    let mut last: Option<TaskIdx> = None;
    for member in 0..n_tasks {
        let mut task = graph.task_with(KeyRef { family, member: Some(member) }, body).inputs(last);
        if !workers.is_empty() {
            let worker = workers[member as usize % workers.len()].to_owned();
            task = task.options(TaskOptions { workers: vec![worker], ..TaskOptions::default() });
        }
        last = Some(task.add());
    }
    if let Some(last) = last {
        graph.output(last);
    }
    Ok(finish(graph)?.graph)
}
