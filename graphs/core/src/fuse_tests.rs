//! What becomes one task and what must not, and that equal fused bodies are shared.

use crate::builder::GraphBuilder;
use crate::finish::{FinishOptions, Finished};
use crate::graph::{Part, TaskOptions, Wire, Wires};
use crate::ids::TaskIdx;
use crate::keys::KeyRef;
use crate::testing::{mix, noop};

fn fused(graph: GraphBuilder) -> Finished {
    graph.finish(&FinishOptions { fuse: true, cull: true, order: true }).expect("fine")
}

fn names(finished: &Finished) -> Vec<String> {
    (0..finished.graph.n_tasks()).map(|task| finished.graph.keys.name(u32::try_from(task).unwrap())).collect()
}

#[test]
fn a_chain_becomes_its_last_task() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "a", &[]);
    let b = graph.task("b", "core.sleep", 1, "{\"seconds\":0}").input_part(a, 2).add();
    let c = graph.task("c", "core.part_list", 1, "{}").input(b).input_part(b, 0).add();
    let finished = fused(graph);
    assert_eq!(names(&finished), ["c"]);
    assert_eq!(finished.renumbering, [None, None, Some(TaskIdx(0))]);
    assert_eq!(finished.renumbering[c.index()], Some(TaskIdx(0)));
    let body = finished.graph.body(TaskIdx(0));
    assert_eq!(body.name(), "core.noop + core.sleep + core.part_list");
    let wires: Vec<&Wires> = body.steps.iter().map(|step| &step.wires).collect();
    let these = |wires: &[Wire]| Wires::These(wires.to_vec());
    assert_eq!(
        wires,
        [&these(&[]), &these(&[Wire::Step(0, Part(2))]), &these(&[Wire::Step(1, Part::WHOLE), Wire::Step(1, Part(0))])]
    );
}

#[test]
fn what_must_stay_apart() {
    let options = || TaskOptions { retries: 3, ..TaskOptions::default() };
    type Case = (&'static str, fn(&mut GraphBuilder, TaskOptions), usize);
    let table: [Case; 6] = [
        (
            "two users",
            |graph, _| {
                let a = noop(graph, "a", &[]);
                noop(graph, "b", &[a]);
                noop(graph, "c", &[a]);
            },
            3,
        ),
        (
            "an output",
            |graph, _| {
                let a = noop(graph, "a", &[]);
                let b = noop(graph, "b", &[a]);
                graph.output(a);
                graph.output(b);
            },
            2,
        ),
        (
            "other options",
            |graph, options| {
                let a = graph.task("a", "core.noop", 1, "{}").options(options).add();
                noop(graph, "b", &[a]);
            },
            2,
        ),
        (
            "two long producers",
            |graph, _| {
                let shared = noop(graph, "shared", &[]);
                let a = noop(graph, "a", &[shared]);
                let b = noop(graph, "b", &[shared]);
                noop(graph, "c", &[a, b]);
            },
            4,
        ),
        (
            "a group",
            |graph, _| {
                let a = noop(graph, "a", &[]);
                let group = graph.group(vec![a]);
                graph.task("b", "core.noop", 1, "{}").input_group(group, Part::WHOLE).add();
            },
            2,
        ),
        (
            "a user of a group",
            |graph, _| {
                let a = noop(graph, "a", &[]);
                let b = noop(graph, "b", &[]);
                let group = graph.group(vec![a]);
                graph.task("c", "core.noop", 1, "{}").input_group(group, Part::WHOLE).input(b).add();
            },
            3,
        ),
    ];
    for (name, build, n_tasks) in table {
        let mut graph = GraphBuilder::new();
        build(&mut graph, options());
        assert_eq!(fused(graph).graph.n_tasks(), n_tasks, "{name}");
    }
}

#[test]
fn equal_options_fuse_and_stay() {
    let options = TaskOptions { retries: 3, ..TaskOptions::default() };
    let mut graph = GraphBuilder::new();
    let a = graph.task("a", "core.noop", 1, "{}").options(options.clone()).add();
    graph.task("b", "core.noop", 1, "{}").input(a).options(options.clone()).add();
    let graph = fused(graph).graph;
    assert_eq!(graph.options, [(TaskIdx(0), options)]);
}

/// `n` sums of two creations each.
fn sums(n: u32) -> GraphBuilder {
    let mut graph = GraphBuilder::new();
    let (x, y, sum) = (graph.family("x"), graph.family("y"), graph.family("sum"));
    let (create, add) = (graph.body(mix(1)), graph.body(mix(2)));
    for member in (0..n).map(Some) {
        let left = graph.task_with(KeyRef { family: x, member }, create).add();
        let right = graph.task_with(KeyRef { family: y, member }, create).add();
        graph.task_with(KeyRef { family: sum, member }, add).input(left).input(right).add();
    }
    graph
}

#[test]
fn sources_join_their_user_only_where_there_is_plenty_to_run() {
    let many = fused(sums(100)).graph;
    assert_eq!((many.n_tasks(), many.bodies.len()), (100, 1), "one shared body for all");
    assert_eq!(many.keys.name(99), "sum-99");
    assert_eq!(fused(sums(3)).graph.n_tasks(), 9, "two sources of one task can run at the same time");
}

#[test]
fn a_reduction_of_many_sources_stays_parallel() {
    let mut graph = GraphBuilder::new();
    let (x, create) = (graph.family("x"), graph.body(mix(1)));
    let sources: Vec<TaskIdx> =
        (0..100).map(|member| graph.task_with(KeyRef { family: x, member: Some(member) }, create).add()).collect();
    noop(&mut graph, "total", &sources);
    assert_eq!(fused(graph).graph.n_tasks(), 101);
}
