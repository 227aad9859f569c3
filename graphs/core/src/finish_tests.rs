//! Finishing as a whole: what comes out computes what went in, in any combination of passes, at any depth and width.

use super::*;
use crate::graph::{Body, Part};
use crate::keys::KeyRef;
use crate::testing::{mix, noop, output_histories, random_graph};

const PLAIN: FinishOptions = FinishOptions { cull: false, fuse: false, order: false };

fn all_combinations() -> impl Iterator<Item = FinishOptions> {
    (0..8).map(|bits| FinishOptions { cull: bits & 1 != 0, fuse: bits & 2 != 0, order: bits & 4 != 0 })
}

#[test]
fn passes_keep_meaning_on_random_graphs() {
    let mut n_fused = 0;
    for seed in 0..1500 {
        let expected = output_histories(&random_graph(seed).finish(&PLAIN).expect("no cycle").graph);
        for options in all_combinations() {
            let finished = random_graph(seed).finish(&options).expect("no cycle");
            let graph = &finished.graph;
            graph.check().unwrap_or_else(|error| panic!("seed {seed}, {options:?}: {error}"));
            assert_eq!(output_histories(graph), expected, "seed {seed}, {options:?}");
            let before = random_graph(seed);
            for (old, new) in finished.renumbering.iter().enumerate() {
                if let Some(new) = new {
                    assert_eq!(before.key_name(TaskIdx(as_node(old))), graph.keys.name(new.0), "seed {seed}");
                }
            }
            let n_kept = finished.renumbering.iter().flatten().count();
            assert_eq!(n_kept, graph.n_tasks());
            n_fused += graph.bodies.iter().filter(|body| body.steps.len() > 1).count();
        }
    }
    assert!(n_fused > 1000, "the random graphs hardly fuse: {n_fused}");
}

#[test]
fn culling_keeps_what_outputs_need_and_no_more() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "a", &[]);
    let b = noop(&mut graph, "b", &[]);
    let group = graph.group(vec![a, b]);
    let wanted = graph.task("wanted", "core.noop", 1, "{}").input_group(group, Part::WHOLE).add();
    let c = noop(&mut graph, "c", &[a]);
    let unused_group = graph.group(vec![c]);
    noop(&mut graph, "unwanted", &[c]);
    graph.output(wanted);
    let external = graph.external(crate::TaskId::new(crate::GraphId(1), TaskIdx(2)));
    graph.task("late", "core.noop", 1, "{}").input_from(Source::External(external), Part::WHOLE).add();
    let finished = graph.finish(&FinishOptions::default()).expect("fine");
    let names: Vec<String> = (0..3).map(|task| finished.graph.keys.name(task)).collect();
    assert_eq!(names, ["a", "b", "wanted"]);
    assert_eq!(finished.graph.n_groups(), 1);
    assert!(finished.graph.externals.is_empty(), "an external that only a dropped task used");
    assert_eq!(unused_group, 1);
    assert_eq!(finished.renumbering[c.index()], None);
}

#[test]
fn without_declared_outputs_the_unused_tasks_are_outputs() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "a", &[]);
    let b = noop(&mut graph, "b", &[a]);
    let c = noop(&mut graph, "c", &[a]);
    let finished = graph.finish(&FinishOptions::default()).expect("fine");
    let outputs: Vec<String> = finished.graph.outputs.iter().map(|output| finished.graph.keys.name(output.0)).collect();
    assert_eq!(outputs, ["b", "c"]);
    assert_ne!(finished.renumbering[b.index()], finished.renumbering[c.index()]);
}

#[test]
fn an_empty_graph_finishes() {
    let finished = GraphBuilder::new().finish(&FinishOptions::default()).expect("fine");
    assert_eq!(finished.graph.n_tasks(), 0);
    assert_eq!(finished.graph.check(), Ok(()));
}

fn family_of(n_tasks: u32, mut inputs: impl FnMut(u32) -> Option<TaskIdx>) -> GraphBuilder {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("x"), graph.body(Body::single("core.noop", 1, "{}")));
    for member in 0..n_tasks {
        let task = graph.task_with(KeyRef { family, member: Some(member) }, body);
        match inputs(member) {
            Some(producer) => task.input(producer).add(),
            None => task.add(),
        };
    }
    graph
}

#[test]
fn deep_and_wide_graphs_finish_without_recursion() {
    const N_TASKS: u32 = 200_000;
    for options in all_combinations() {
        let wide = family_of(N_TASKS, |_| None).finish(&options).expect("fine").graph;
        assert_eq!(wide.n_tasks(), N_TASKS as usize);
        assert!(wide.keys.nbytes() < 1000, "names in order of adding share a run");
        let chain = family_of(N_TASKS, |member| member.checked_sub(1).map(TaskIdx)).finish(&options).expect("fine").graph;
        let expected = if options.fuse { N_TASKS.div_ceil(as_node(crate::MAX_STEPS)) } else { N_TASKS };
        assert_eq!(chain.n_tasks(), expected as usize);
        assert!(chain.bodies.len() <= 4, "equal chains share a body, got {}", chain.bodies.len());
        let backwards = family_of(N_TASKS, |member| (member + 1 < N_TASKS).then_some(TaskIdx(member + 1)));
        assert_eq!(backwards.finish(&options).expect("fine").graph.n_tasks(), expected as usize);
    }
}

#[test]
fn a_shuffle_through_a_group_stays_small() {
    let mut graph = GraphBuilder::new();
    let body = graph.body(mix(1));
    let (split, join) = (graph.family("split"), graph.family("join"));
    let splits = (0..1000).map(|member| graph.task_with(KeyRef { family: split, member: Some(member) }, body).add()).collect();
    let group = graph.group(splits);
    for member in 0..1000 {
        graph.task_with(KeyRef { family: join, member: Some(member) }, body).input_group(group, Part(member)).add();
    }
    let graph = graph.finish(&FinishOptions::default()).expect("fine").graph;
    assert_eq!((graph.n_tasks(), graph.inputs.len(), graph.group_members.len()), (2000, 1000, 1000));
    assert!((0..1000).all(|task| graph.keys.family_name(task) == "split"));
}

#[test]
#[ignore = "a measurement: run with --ignored --nocapture"]
fn measure_a_million_tasks() {
    const N_TASKS: u32 = 1_000_000;
    let report = |name: &str, graph: GraphBuilder, options: FinishOptions| {
        let start = std::time::Instant::now();
        let n_tasks = graph.finish(&options).expect("fine").graph.n_tasks();
        println!("{name}: {n_tasks} tasks after {:?} ({options:?})", start.elapsed());
    };
    let unfused = FinishOptions { fuse: false, ..FinishOptions::default() };
    for options in [PLAIN, unfused, FinishOptions::default()] {
        report("independent", family_of(N_TASKS, |_| None), options);
        report("chain", family_of(N_TASKS, |member| member.checked_sub(1).map(TaskIdx)), options);
        report("backward chain", family_of(N_TASKS, |member| (member + 1 < N_TASKS).then_some(TaskIdx(member + 1))), options);
        report("fan", family_of(N_TASKS, |member| (member > 0).then_some(TaskIdx(0))), options);
        report("tree", family_of(N_TASKS, |member| (member > 0).then(|| TaskIdx((member - 1) / 2))), options);
    }
}
