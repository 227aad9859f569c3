//! `rask bench overhead`: what a task costs from end to end, when it does nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::executor::block_on;
use rask::graphs::FinishOptions;
use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, Graph, GraphBuilder, TaskIdx, TaskOptions};
use rask::{Client, ClusterOptions, LocalCluster, LocalOptions, SubmitOptions};
use serde_json::{Value, json};

use super::{OverheadArgs, print, round};

pub(super) fn run(args: &OverheadArgs) -> Result<()> {
    let registry = rask::registry();
    let (client, n_workers, _cluster) = match args.cluster {
        None => {
            let options = LocalOptions { n_slots: 1, ..LocalOptions::new(registry) };
            (Client::local(options)?, 1, None)
        }
        Some(n_workers) => {
            let binary = std::env::current_exe().context("cannot find this program's own file")?;
            let cluster = block_on(LocalCluster::processes(ClusterOptions::new(binary, n_workers)))?;
            (block_on(cluster.client(registry))?, n_workers, Some(cluster))
        }
    };
    // Connections are made and the operator's duration is learned before the clock runs.
    time(&client, independent(1_000)?)?;
    let independent = time(&client, independent(args.tasks)?)?;
    let tree = time(&client, tree(args.tree)?)?;
    let chain_graph = chain(args.chain, &[])?;
    let chain_time = time(&client, chain_graph)?;
    let mut line = json!({
        "bench": "overhead",
        "mode": if args.cluster.is_some() { "cluster" } else { "in-process" },
        "n_workers": n_workers,
        "independent": rate(args.tasks, independent),
        "tree": rate(args.tree, tree),
        "chain": {
            "n_tasks": args.chain,
            "seconds": round(chain_time.as_secs_f64()),
            "us_per_task": round(chain_time.as_secs_f64() * 1e6 / f64::from(args.chain)),
        },
    });
    if args.cluster.is_some() && n_workers >= 2 {
        let hops = time(&client, chain(args.chain, &["worker-0", "worker-1"])?)?;
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
/// begins when that is over, which is when another graph has made its way through every queue behind it.
fn time(client: &Client, graph: Graph) -> Result<Duration> {
    let begun = Instant::now();
    let job = block_on(client.submit(graph, SubmitOptions::default()))?;
    block_on(job.wait())?;
    let elapsed = begun.elapsed();
    drop(job);
    let settling = block_on(client.submit(independent(100)?, SubmitOptions::default()))?;
    block_on(settling.wait())?;
    Ok(elapsed)
}

/// Nothing is fused or dropped: the tasks are what is measured.
const AS_IS: FinishOptions = FinishOptions { cull: false, fuse: false, order: true };

fn finish(builder: GraphBuilder) -> Result<Graph> {
    Ok(builder.finish(&AS_IS)?.graph)
}

/// `n_tasks` no-ops, every one an output.
fn independent(n_tasks: u32) -> Result<Graph> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("noop"), graph.body(Body::single("core.noop", 1, "{}")));
    for member in 0..n_tasks {
        let task = graph.task_with(KeyRef { family, member: Some(member) }, body).add();
        graph.output(task);
    }
    finish(graph)
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
    finish(graph)
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
    finish(graph)
}
