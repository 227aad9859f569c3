//! Pictures: what is in them, that names cannot break out of them, and that they stay small.

use super::*;
use crate::builder::GraphBuilder;
use crate::drawing::{MAX_EDGES, MAX_NODES};
use crate::finish::FinishOptions;
use crate::graph::{Body, Part, Source};
use crate::ids::{GraphId, TaskId, TaskIdx};
use crate::keys::KeyRef;
use crate::testing::noop;

fn picture(graph: GraphBuilder) -> String {
    to_svg(&graph.finish(&FinishOptions { fuse: false, ..FinishOptions::default() }).expect("fine").graph)
}

/// Every tag that opens is closed, in order; enough of XML to catch a name that breaks out.
fn assert_balanced(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "unescaped text: {text}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("a tag has a name"));
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn hostile_names_stay_text() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "</title><script>alert(1)</script>&\u{0}\"'", &[]);
    let b = graph.task("b", "no<pe.x", 1, "{\"a\":\"</g>\"}").input(a).add();
    graph.output(b);
    let svg = picture(graph);
    assert_balanced(&svg);
    assert!(!svg.contains("<script") && !svg.contains('\u{0}'), "{svg}");
    assert!(svg.contains("no&lt;pe.x {&quot;a&quot;:&quot;&lt;/g&gt;&quot;}"), "the tooltip has operator and arguments: {svg}");
}

#[test]
fn groups_parts_externals_and_outputs_are_shown() {
    let mut graph = GraphBuilder::new();
    let external = graph.external(TaskId::new(GraphId(3), TaskIdx(4)));
    let a = graph.task("a", "core.noop", 1, "{}").input_from(Source::External(external), Part::WHOLE).add();
    let b = noop(&mut graph, "b", &[]);
    let group = graph.group(vec![a, b]);
    graph.task("c", "core.noop", 1, "{}").input_group(group, Part(7)).add();
    let svg = picture(graph);
    assert_balanced(&svg);
    for piece in ["gather 2", "result g3.t4", ">[7]<", "(output)", "3 tasks, 1 output: a box for each task"] {
        assert!(svg.contains(piece), "{piece} in {svg}");
    }
}

fn big(n_tasks: u32, family_of: impl Fn(u32) -> (String, Option<u32>)) -> GraphBuilder {
    let mut graph = GraphBuilder::new();
    for task in 0..n_tasks {
        let (family, member) = family_of(task);
        let (family, body) = (graph.family(&family), graph.body(Body::single("core.noop", 1, "{}")));
        let mut builder = graph.task_with(KeyRef { family, member }, body);
        if let Some(before) = task.checked_sub(2) {
            builder = builder.input(TaskIdx(before));
        }
        builder.add();
    }
    graph
}

#[test]
fn big_graphs_are_collapsed_with_counts() {
    let svg = picture(big(10_000, |task| (["even", "odd"][task as usize % 2].to_owned(), Some(task / 2))));
    assert_balanced(&svg);
    for piece in ["even \u{d7} 5000", "odd \u{d7} 5000", "\u{d7} 4999", "a box for each family of tasks"] {
        assert!(svg.contains(piece), "{piece} in {svg}");
    }
    let svg = picture(big(10_000, |task| (format!("own{task}"), None)));
    assert!(svg.contains("core.noop \u{d7} 10000") && svg.contains("a box for each sort of work"), "{svg}");
    assert!(svg.len() < 5000);
}

#[test]
fn pictures_are_bounded() {
    let n_tasks = u32::try_from(MAX_NODES).expect("small");
    let mut graph = big(n_tasks, |task| (format!("own{task}"), None));
    assert_balanced(&picture(big(n_tasks, |task| (format!("own{task}"), None))));
    let all: Vec<TaskIdx> = (0..n_tasks).map(TaskIdx).collect();
    for late in 0..=MAX_EDGES / MAX_NODES {
        noop(&mut graph, &format!("late{late}"), &all);
    }
    assert!(picture(graph).len() < 5000, "too many arrows are collapsed too");
}

#[test]
fn an_empty_graph_has_a_picture() {
    assert_balanced(&picture(GraphBuilder::new()));
}

/// Writes the picture of a typical graph to the file named by `SVG_TO`, to be looked at.
#[test]
#[ignore = "writes a file for people"]
fn write_a_typical_picture() {
    let Ok(path) = std::env::var("SVG_TO") else { return };
    let mut graph = GraphBuilder::new();
    let families: Vec<u32> = ["x", "y", "product", "block"].iter().map(|name| graph.family(name)).collect();
    let add = |graph: &mut GraphBuilder, family: usize, member: u32, operator: &str, inputs: &[TaskIdx]| {
        let body = graph.body(Body::single(operator, 1, "{\"chunk\":[1000,1000]}"));
        graph.task_with(KeyRef { family: families[family], member: Some(member) }, body).inputs(inputs.iter().copied()).add()
    };
    let x: Vec<TaskIdx> = (0..4).map(|i| add(&mut graph, 0, i, "array.random", &[])).collect();
    let y: Vec<TaskIdx> = (0..4).map(|i| add(&mut graph, 1, i, "frame.read_csv", &[])).collect();
    let mut blocks = Vec::new();
    for at in 0..4u32 {
        let (i, j) = (at / 2, at % 2);
        let products: Vec<TaskIdx> = (0..2)
            .map(|k| add(&mut graph, 2, at * 2 + k, "array.matmul", &[x[(i * 2 + k) as usize], y[(k * 2 + j) as usize]]))
            .collect();
        blocks.push(add(&mut graph, 3, at, "array.add", &products));
    }
    let group = graph.group(blocks.clone());
    for part in 0..3 {
        let key = format!("written-to-{part}");
        graph.task(&key, "frame.write_parquet", 1, "{}").input_group(group, Part(part)).input(x[0]).add();
    }
    noop(&mut graph, "norm of <x & y>", &blocks);
    std::fs::write(path, picture(graph)).expect("written");
}
