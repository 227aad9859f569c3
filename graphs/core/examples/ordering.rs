//! How much is alive at once when a graph runs in our order: of the named graphs, or of graphs given on standard input.
//!
//! ```console
//! $ cargo run --release -p rask-graphs --example ordering             # the named graphs, one JSON object a line
//! $ cargo run --release -p rask-graphs --example ordering -- --stdin  # lines {"name": "..", "inputs": [[], [0], ..]}
//! $ cargo run --release -p rask-graphs --example ordering -- --time   # what a million tasks cost
//! ```
//!
//! `tests/peers/ordering.py` orders the same graphs with Dask, and graphs of Dask's collections with us.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, FinishOptions, Finished, GraphBuilder, Part, TaskIdx, pressure};
use serde_json::{Value, json};

#[path = "../tests/named/mod.rs"]
mod named;

type AnyError = Box<dyn std::error::Error>;

const ORDER_ONLY: FinishOptions = FinishOptions { cull: false, fuse: false, order: true };

fn main() -> Result<(), AnyError> {
    match std::env::args().nth(1).as_deref() {
        None => {
            for named in named::all() {
                report(&named.name, named.graph)?;
            }
            Ok(())
        }
        Some("--stdin") => io::stdin().lock().lines().try_for_each(|line| {
            let line: Value = serde_json::from_str(&line?)?;
            report(line["name"].as_str().ok_or("no name")?, graph_of(&line).ok_or("no inputs")?)
        }),
        Some("--time") => times(),
        Some(other) => Err(format!("unknown option {other}").into()),
    }
}

fn graph_of(line: &Value) -> Option<GraphBuilder> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("task"), graph.body(Body::single("core.noop", 1, "{}")));
    for (member, inputs) in line["inputs"].as_array()?.iter().enumerate() {
        let numbers = inputs.as_array()?.iter().map(|input| Some(TaskIdx(u32::try_from(input.as_u64()?).ok()?)));
        let inputs: Option<Vec<TaskIdx>> = numbers.collect();
        graph.task_with(KeyRef { family, member: u32::try_from(member).ok() }, body).inputs(inputs?).add();
    }
    Some(graph)
}

/// One line: the graph in the order of adding, so that others can order it, and what our order makes of it.
fn report(name: &str, graph: GraphBuilder) -> Result<(), AnyError> {
    let keys: Vec<String> =
        (0..graph.n_tasks()).map(|task| Ok(graph.key_name(TaskIdx(u32::try_from(task)?)))).collect::<Result<_, AnyError>>()?;
    let begin = Instant::now();
    let Finished { graph, renumbering } = graph.finish(&ORDER_ONLY)?;
    let seconds = begin.elapsed().as_secs_f64();
    let ranks: Vec<TaskIdx> = renumbering.into_iter().collect::<Option<_>>().ok_or("a task was dropped")?;
    let mut old = vec![0; ranks.len()];
    for (task, rank) in ranks.iter().enumerate() {
        old[rank.index()] = task;
    }
    let inputs: Vec<Vec<usize>> = ranks
        .iter()
        .map(|&rank| {
            let sources = graph.inputs_of(rank).iter().map(|input| input.source());
            sources.filter_map(|source| if let rask_graphs::Source::Task(task) = source { Some(old[task.index()]) } else { None })
        })
        .map(Iterator::collect)
        .collect();
    let found = pressure(&graph);
    let line = json!({
        "name": name, "keys": keys, "inputs": inputs, "max": found.max, "mean": found.mean, "seconds": seconds,
    });
    writeln!(io::stdout().lock(), "{line}")?;
    Ok(())
}

/// A graph of about so many tasks.
type Draw = fn(u32) -> GraphBuilder;

/// Building, finishing and checking a million tasks.
fn times() -> Result<(), AnyError> {
    const N: u32 = 1_000_000;
    let shapes: [(&str, Draw); 5] = [
        ("independent", |n| filled(n, |_| Vec::new())),
        ("chain", |n| filled(n, |at| at.checked_sub(1).into_iter().collect())),
        ("tree", |n| {
            let leaves = n.div_ceil(2);
            filled(n - 1, move |at| at.checked_sub(leaves).map_or(Vec::new(), |node| vec![2 * node, 2 * node + 1]))
        }),
        ("stencil", |n| {
            filled(n, |at| {
                let (row, column) = (at / 1000, at % 1000);
                let above = |column: u32| (row - 1) * 1000 + column;
                if row == 0 { Vec::new() } else { (column.max(1) - 1..(column + 2).min(1000)).map(above).collect() }
            })
        }),
        ("shuffle", shuffle),
    ];
    for (name, draw) in shapes {
        for options in [ORDER_ONLY, FinishOptions::default()] {
            let begin = Instant::now();
            let graph = draw(N);
            let (n_tasks, build) = (graph.n_tasks(), begin.elapsed());
            let begin = Instant::now();
            let finished = graph.finish(&options)?;
            let finish = begin.elapsed();
            let begin = Instant::now();
            finished.graph.check()?;
            let check = begin.elapsed();
            let line = json!({
                "name": name, "n_tasks": n_tasks, "fuse": options.fuse, "build_ms": build.as_millis(),
                "finish_ms": finish.as_millis(), "check_ms": check.as_millis(),
            });
            writeln!(io::stdout().lock(), "{line}")?;
        }
    }
    Ok(())
}

fn filled(n: u32, inputs: impl Fn(u32) -> Vec<u32>) -> GraphBuilder {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("task"), graph.body(Body::single("core.noop", 1, "{}")));
    for member in 0..n {
        let inputs = inputs(member).into_iter().map(TaskIdx);
        graph.task_with(KeyRef { family, member: Some(member) }, body).inputs(inputs).add();
    }
    graph
}

/// Half a million tasks to half a million, through one group.
fn shuffle(n: u32) -> GraphBuilder {
    let mut graph = filled(n / 2, |_| Vec::new());
    let (family, body) = (graph.family("join"), graph.body(Body::single("core.noop", 1, "{}")));
    let group = graph.group((0..n / 2).map(TaskIdx).collect());
    for member in 0..n / 2 {
        graph.task_with(KeyRef { family, member: Some(member) }, body).input_group(group, Part(member)).add();
    }
    graph
}
