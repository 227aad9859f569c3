//! The order on graphs of known shape: pressures are bounds that a worse order breaks, not the figures it happened to give.

use crate::builder::GraphBuilder;
use crate::finish::FinishOptions;
use crate::graph::{Body, Part, TaskOptions};
use crate::ids::TaskIdx;
use crate::keys::KeyRef;
use crate::pressure::{Pressure, pressure};
use crate::testing::{Draw, noop, random_graph};

const ORDER_ONLY: FinishOptions = FinishOptions { cull: true, fuse: false, order: true };
const UNORDERED: FinishOptions = FinishOptions { cull: true, fuse: false, order: false };

fn grid(graph: &mut GraphBuilder, family: &str, n: u32, mut inputs: impl FnMut(u32) -> Vec<TaskIdx>) -> Vec<TaskIdx> {
    let (family, body) = (graph.family(family), graph.body(Body::single("core.noop", 1, "{}")));
    (0..n).map(|member| graph.task_with(KeyRef { family, member: Some(member) }, body).inputs(inputs(member)).add()).collect()
}

/// Reduce `from` by fours to one task.
fn tree(graph: &mut GraphBuilder, name: &str, from: &[TaskIdx]) -> TaskIdx {
    let mut layer = from.to_vec();
    let mut depth = 0;
    while layer.len() > 1 {
        let chunks: Vec<Vec<TaskIdx>> = layer.chunks(4).map(<[TaskIdx]>::to_vec).collect();
        let n_chunks = u32::try_from(chunks.len()).unwrap();
        layer = grid(graph, &format!("{name}{depth}"), n_chunks, |member| chunks[member as usize].clone());
        depth += 1;
    }
    layer[0]
}

fn bound(name: &str, graph: GraphBuilder, max: usize) {
    let found = pressure(&graph.finish(&ORDER_ONLY).expect("fine").graph);
    println!("{name}: max {} mean {:.1}, bound {max}", found.max, found.mean);
    assert!(found.max <= max, "{name}: {found:?}, bound {max}");
}

#[test]
fn a_wide_tree_needs_little_room() {
    let mut graph = GraphBuilder::new();
    let x = grid(&mut graph, "x", 1024, |_| Vec::new());
    tree(&mut graph, "sum", &x);
    // Three left-overs in each of five layers and what is being added.
    bound("tree", graph, 16);
}

#[test]
fn two_reductions_of_the_same_chunks_go_together() {
    let mut graph = GraphBuilder::new();
    let x = grid(&mut graph, "x", 256, |_| Vec::new());
    for name in ["mean", "max"] {
        let chunk = grid(&mut graph, name, 256, |member| vec![x[member as usize]]);
        tree(&mut graph, &format!("{name}-tree"), &chunk);
    }
    bound("two reductions", graph, 32);
}

#[test]
fn neighbours_slide_along() {
    let mut graph = GraphBuilder::new();
    let x = grid(&mut graph, "x", 1000, |_| Vec::new());
    let smooth = grid(&mut graph, "smooth", 998, |member| x[member as usize..member as usize + 3].to_vec());
    tree(&mut graph, "sum", &smooth);
    bound("stencil", graph, 24);
}

#[test]
fn differences_of_differences_need_a_row_or_two() {
    // A 5 x 5 grid, differenced twice along both axes: the 9 outputs stay, and about a row of each of the other two grids.
    let mut graph = GraphBuilder::new();
    let a = grid(&mut graph, "a", 25, |_| Vec::new());
    let b = grid(&mut graph, "b", 16, |i| {
        let at = (i / 4 * 5 + i % 4) as usize;
        vec![a[at], a[at + 1], a[at + 5], a[at + 6]]
    });
    let _ = grid(&mut graph, "c", 9, |i| {
        let at = (i / 3 * 4 + i % 3) as usize;
        vec![b[at], b[at + 1], b[at + 4], b[at + 5]]
    });
    bound("double difference", graph, 18);
}

#[test]
fn a_blocked_product_keeps_no_more_than_its_operands() {
    const N: u32 = 8;
    let mut graph = GraphBuilder::new();
    let a = grid(&mut graph, "a", N * N, |_| Vec::new());
    let b = grid(&mut graph, "b", N * N, |_| Vec::new());
    let products = grid(&mut graph, "product", N * N * N, |at| {
        let (i, j, k) = (at / N / N, at / N % N, at % N);
        vec![a[(i * N + k) as usize], b[(k * N + j) as usize]]
    });
    let _ = grid(&mut graph, "c", N * N, |at| products[(at * N) as usize..((at + 1) * N) as usize].to_vec());
    // A row of one operand, the whole other one, the products of one block, and the 64 blocks that are outputs.
    bound("blocked product", graph, (N * N * 2 + N * 3) as usize);
}

#[test]
fn a_deviation_from_the_mean_holds_each_chunk_once() {
    let mut graph = GraphBuilder::new();
    let x = grid(&mut graph, "x", 200, |_| Vec::new());
    let part = grid(&mut graph, "part", 200, |member| vec![x[member as usize]]);
    let mean = tree(&mut graph, "mean", &part);
    let deviation = grid(&mut graph, "deviation", 200, |member| vec![x[member as usize], mean]);
    let square = grid(&mut graph, "square", 200, |member| vec![deviation[member as usize]]);
    tree(&mut graph, "sum", &square);
    bound("deviation", graph, 216);
}

#[test]
fn a_shuffle_holds_its_members_once() {
    let mut graph = GraphBuilder::new();
    let (split, body) = (graph.family("split"), graph.body(Body::single("core.noop", 1, "{}")));
    let read = grid(&mut graph, "read", 100, |_| Vec::new());
    let splits =
        (0..100u32).map(|i| graph.task_with(KeyRef { family: split, member: Some(i) }, body).input(read[i as usize]).add());
    let splits: Vec<TaskIdx> = splits.collect();
    let group = graph.group(splits);
    let join = graph.family("join");
    let joined: Vec<TaskIdx> = (0..100)
        .map(|i| graph.task_with(KeyRef { family: join, member: Some(i) }, body).input_group(group, Part(i)).add())
        .collect();
    let written = grid(&mut graph, "count", 100, |member| vec![joined[member as usize]]);
    tree(&mut graph, "total", &written);
    bound("shuffle", graph, 112);
}

#[test]
fn the_order_follows_the_structure_not_the_order_of_adding() {
    // 50 chains of four, added layer by layer in shuffled order.
    let mut graph = GraphBuilder::new();
    let mut draw = Draw(7);
    let mut layer = grid(&mut graph, "a", 50, |_| Vec::new());
    for name in ["b", "c", "d"] {
        for at in (1..50).rev() {
            layer.swap(at, draw.below(at + 1));
        }
        layer = grid(&mut graph, name, 50, |member| vec![layer[member as usize]]);
    }
    tree(&mut graph, "sum", &layer);
    bound("chains", graph, 12);
}

#[test]
fn urgent_tasks_and_what_they_need_come_first() {
    let mut graph = GraphBuilder::new();
    let shared = noop(&mut graph, "shared", &[]);
    noop(&mut graph, "plain", &[shared]);
    let source = noop(&mut graph, "source", &[]);
    let urgent = TaskOptions { priority: 5, ..TaskOptions::default() };
    graph.task("urgent", "core.noop", 1, "{}").input(source).options(urgent).add();
    let lazy = TaskOptions { priority: -1, ..TaskOptions::default() };
    graph.task("lazy", "core.noop", 1, "{}").input(shared).options(lazy).add();
    noop(&mut graph, "other", &[]);
    let graph = graph.finish(&ORDER_ONLY).expect("fine").graph;
    let names: Vec<String> = (0..6).map(|task| graph.keys.name(task)).collect();
    assert_eq!(names, ["source", "urgent", "shared", "plain", "other", "lazy"]);
}

#[test]
fn ordering_helps_on_the_whole_on_random_graphs() {
    let (mut ordered, mut unordered) = (0.0, 0.0);
    for seed in 0..500 {
        ordered += pressure(&random_graph(seed).finish(&ORDER_ONLY).expect("fine").graph).mean;
        unordered += pressure(&random_graph(seed).finish(&UNORDERED).expect("fine").graph).mean;
    }
    println!("mean pressure {ordered:.0} against {unordered:.0}");
    assert!(ordered < unordered * 0.95, "{ordered} against {unordered}");
}

#[test]
fn pressure_counts_what_is_alive_after_each_task() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "a", &[]);
    let b = noop(&mut graph, "b", &[a]);
    let c = noop(&mut graph, "c", &[b]);
    graph.output(c);
    let found = pressure(&graph.finish(&ORDER_ONLY).expect("fine").graph);
    assert_eq!(found, Pressure { max: 1, mean: 1.0 });
}
