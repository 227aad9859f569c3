//! Tables of wrong graphs and what is said about them.

use super::*;
use crate::finish::FinishOptions;
use crate::graph::{Body, Part, Step, TaskOptions};
use crate::ids::{GraphId, TaskId};
use crate::testing::{noop, registry};

fn message(graph: GraphBuilder) -> String {
    match graph.finish(&FinishOptions::default()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn with(build: impl FnOnce(&mut GraphBuilder)) -> String {
    let mut graph = GraphBuilder::new();
    build(&mut graph);
    message(graph)
}

fn whole(task: TaskIdx) -> Input {
    Input::new(Source::Task(task), Part::WHOLE)
}

fn step(wires: Wires) -> Step {
    Step { operator: "core.noop".into(), version: 1, args: "{}".into(), wires }
}

#[test]
fn inputs_that_are_not_there() {
    let unknown_input = with(|graph| {
        graph.task("total", "core.noop", 1, "{}").input(TaskIdx(0)).input(TaskIdx(7)).add();
    });
    assert_eq!(unknown_input, "task \"total\": input 1 is task number 7, which does not exist");
    let unknown_group = with(|graph| {
        graph.task("total", "core.noop", 1, "{}").input_group(3, Part::WHOLE).add();
    });
    assert_eq!(unknown_group, "task \"total\": input 0 is gather group number 3, which does not exist");
    let unknown_external = with(|graph| {
        graph.external(TaskId::new(GraphId(0), TaskIdx(0)));
        graph.task("total", "core.noop", 1, "{}").input_from(Source::External(1), Part::WHOLE).add();
    });
    assert_eq!(unknown_external, "task \"total\": input 0 is external result number 1, which does not exist");
    let unknown_member = with(|graph| {
        let a = noop(graph, "a", &[]);
        graph.group(vec![a, TaskIdx(9)]);
    });
    assert_eq!(unknown_member, "gather group 0: member 1 is task number 9, which does not exist");
    let unknown_output = with(|graph| {
        noop(graph, "a", &[]);
        graph.output(TaskIdx(0));
        graph.output(TaskIdx(1));
    });
    assert_eq!(unknown_output, "output 1 is task number 1, which does not exist");
}

#[test]
fn bodies_and_options_that_do_not_fit() {
    let unknown_body = with(|graph| {
        let family = graph.family("x");
        graph.task_with(KeyRef { family, member: Some(4) }, 2).add();
    });
    assert_eq!(unknown_body, "task \"x-4\" has no body: body 2 does not exist");
    let unknown_family = with(|graph| {
        let body = graph.body(Body::single("core.noop", 1, "{}"));
        graph.task_with(KeyRef { family: 5, member: None }, body).add();
    });
    assert_eq!(unknown_family, "task number 0 has no name: family 5 does not exist");
    let table = [
        (Vec::new(), "task \"x\": its body has no steps"),
        (vec![step(Wires::These(vec![Wire::Input(0)]))], "task \"x\": its body is wired to 1 inputs, it has 0"),
        (
            vec![step(Wires::These(vec![Wire::Step(0, Part::WHOLE)]))],
            "task \"x\": step 0 of its body uses itself or a later step",
        ),
    ];
    for (steps, expected) in table {
        let said = with(|graph| {
            let (family, body) = (graph.family("x"), graph.body(Body { steps }));
            graph.task_with(KeyRef { family, member: None }, body).add();
        });
        assert_eq!(said, expected);
    }
    for amount in [-1.0, f64::NAN, f64::INFINITY] {
        let said = with(|graph| {
            let options = TaskOptions { resources: vec![("gpu".to_owned(), amount)], ..TaskOptions::default() };
            graph.task("x", "core.noop", 1, "{}").options(options).add();
        });
        assert_eq!(said, "task \"x\": the amount of resource \"gpu\" is negative or not a number");
    }
}

#[test]
fn names_taken_twice() {
    /// Families and members, and the name that is there twice.
    type Case<'a> = (&'a [(&'a str, Option<u32>)], Option<&'a str>);
    let table: [Case<'_>; 8] = [
        (&[("a", None), ("a", None)], Some("a")),
        (&[("x", Some(3)), ("x", Some(4)), ("x", Some(3))], Some("x-3")),
        (&[("x", Some(3)), ("x", Some(2)), ("x", None)], None),
        (&[("x", Some(3)), ("x-3", None)], Some("x-3")),
        (&[("x-3", None), ("x", Some(3))], Some("x-3")),
        (&[("x-3", None), ("x", Some(2)), ("x", Some(4))], None),
        (&[("x-03", None), ("x", Some(3))], None),
        (&[("x-1", Some(2)), ("x-1-2", None)], Some("x-1-2")),
    ];
    for (names, expected) in table {
        let said = with(|graph| {
            let body = graph.body(Body::single("core.noop", 1, "{}"));
            for &(name, member) in names {
                let family = graph.family(name);
                graph.task_with(KeyRef { family, member }, body).add();
            }
        });
        let expected = expected.map_or("accepted".to_owned(), |key| format!("two tasks are called \"{key}\""));
        assert_eq!(said, expected, "{names:?}");
    }
}

#[test]
fn names_taken_twice_are_told_apart_when_that_is_asked() {
    type Names<'a> = &'a [(&'a str, Option<u32>)];
    let table: [(Names<'_>, &[&str]); 5] = [
        (&[("a", None), ("b", None)], &["a", "b"]),
        (&[("a", None), ("a", None), ("a", None)], &["a", "a#2", "a#3"]),
        (&[("x", Some(0)), ("x", Some(1)), ("x", Some(0)), ("x", Some(1))], &["x-0", "x-1", "x#2-0", "x#2-1"]),
        (&[("x", Some(3)), ("x-3", None)], &["x-3", "x-3#2"]),
        (&[("a#2", None), ("a", None), ("a", None)], &["a#2", "a", "a#2#2"]),
    ];
    for (names, expected) in table {
        let mut graph = GraphBuilder::new();
        let body = graph.body(Body::single("core.noop", 1, "{}"));
        for &(name, member) in names {
            let family = graph.family(name);
            graph.task_with(KeyRef { family, member }, body).add();
        }
        graph.distinguish_names();
        let got: Vec<String> = (0u32..).zip(names).map(|(idx, _)| graph.key_name(TaskIdx(idx))).collect();
        assert_eq!(got, expected, "{names:?}");
        assert_eq!(message(graph), "accepted");
    }
}

#[test]
fn cycles_are_shown_in_order_and_as_short_as_possible() {
    let own = with(|graph| {
        let a = noop(graph, "a", &[]);
        graph.set_inputs(a, [whole(a)]);
    });
    assert_eq!(own, "tasks wait for each other: a -> a");
    let mut graph = GraphBuilder::new();
    let before = noop(&mut graph, "before", &[]);
    let a = noop(&mut graph, "a", &[before]);
    let b = noop(&mut graph, "b", &[a]);
    let c = noop(&mut graph, "c", &[b]);
    noop(&mut graph, "after", &[c]);
    graph.set_inputs(a, [whole(before), whole(c)]);
    let Err(BuildError::Cycle { members }) = graph.finish(&FinishOptions::default()) else { panic!("a cycle") };
    let start = members.iter().position(|member| member == "a").expect("a is on it");
    let turned: Vec<&str> = (0..3).map(|at| members[(start + at) % 3].as_str()).collect();
    assert_eq!((members.len(), turned), (3, vec!["a", "b", "c"]));
    let through_group = with(|graph| {
        let a = noop(graph, "a", &[]);
        let b = noop(graph, "b", &[a]);
        let group = graph.group(vec![b]);
        graph.set_inputs(a, [Input::new(Source::Group(group), Part(0))]);
    });
    assert!(
        ["tasks wait for each other: a -> b -> a", "tasks wait for each other: b -> a -> b"].contains(&through_group.as_str())
    );
}

#[test]
fn a_long_cycle_is_cut_short_in_the_message() {
    let said = with(|graph| {
        let tasks: Vec<TaskIdx> = (0..1000).map(|member| noop(graph, &format!("t{member}"), &[])).collect();
        for (at, &task) in tasks.iter().enumerate() {
            graph.set_inputs(task, [whole(tasks[(at + 999) % 1000])]);
        }
    });
    assert!(said.len() < 200 && said.contains("... 988 more ..."), "{said}");
}

#[test]
fn groups_that_refer_to_each_other_are_a_cycle() {
    // Each of two tasks waits for a group that the other one is in.
    let said = with(|graph| {
        let (a, b) = (noop(graph, "a", &[]), noop(graph, "b", &[]));
        let (first, second) = (graph.group(vec![b]), graph.group(vec![a]));
        graph.set_inputs(a, [Input::new(Source::Group(first), Part::WHOLE)]);
        graph.set_inputs(b, [Input::new(Source::Group(second), Part::WHOLE)]);
    });
    let either = ["tasks wait for each other: a -> b -> a", "tasks wait for each other: b -> a -> b"];
    assert!(either.contains(&said.as_str()), "{said}");
    let own = with(|graph| {
        let a = noop(graph, "a", &[]);
        let group = graph.group(vec![a, a]);
        graph.set_inputs(a, [Input::new(Source::Group(group), Part(7))]);
    });
    assert_eq!(own, "tasks wait for each other: a -> a");
}

/// A million tasks, each an input of the one added before it.
fn million_backwards(graph: &mut GraphBuilder) -> (TaskIdx, TaskIdx) {
    const N: u32 = 1_000_000;
    let (family, body) = (graph.family("t"), graph.body(Body::single("core.noop", 1, "{}")));
    for member in 0..N {
        let task = graph.task_with(KeyRef { family, member: Some(member) }, body).add();
        if member > 0 {
            graph.set_inputs(TaskIdx(member - 1), [whole(task)]);
        }
    }
    (TaskIdx(0), TaskIdx(N - 1))
}

#[test]
fn a_million_tasks_deep_is_no_trouble() {
    for fuse in [false, true] {
        let mut graph = GraphBuilder::new();
        let (last, first) = million_backwards(&mut graph);
        let finished = graph.finish(&FinishOptions { fuse, ..FinishOptions::default() }).expect("sound");
        assert_eq!(finished.graph.check(), Ok(()));
        let n_steps: usize =
            (0..finished.graph.n_tasks()).map(|task| finished.graph.body(TaskIdx(as_node(task))).steps.len()).sum();
        assert_eq!(n_steps, 1_000_000);
        assert_eq!(finished.renumbering[last.index()], Some(TaskIdx(as_node(finished.graph.n_tasks() - 1))));
        assert_eq!(finished.renumbering[first.index()].is_none(), fuse);
    }
}

#[test]
fn a_million_tasks_round_is_a_short_message() {
    let mut graph = GraphBuilder::new();
    let (last, first) = million_backwards(&mut graph);
    graph.set_inputs(first, [whole(last)]);
    let said = message(graph);
    assert!(said.len() < 300 && said.contains("... 999988 more ..."), "{said}");
}

#[test]
fn forward_references_are_no_cycle() {
    let said = with(|graph| {
        let a = noop(graph, "a", &[]);
        let b = noop(graph, "b", &[]);
        graph.set_inputs(a, [whole(b)]);
    });
    assert_eq!(said, "accepted");
}

#[test]
fn tables_have_limits() {
    let error = check_sizes(MAX_TASKS + 1, 0, 0).expect_err("too many");
    assert_eq!(error.to_string(), "too many tasks: 1073741825, at most 1073741824");
    assert!(check_sizes(MAX_TASKS, u32::MAX as usize, 0).is_ok());
    assert!(check_sizes(1, u32::MAX as usize + 1, 0).is_err());
    assert!(check_sizes(1, 0, u32::MAX as usize + 1).is_err());
}

#[test]
fn operators_are_checked_against_a_registry() {
    let refusal = |operator: &str, version: u32, args: &str, n_inputs: usize| {
        let mut graph = GraphBuilder::new();
        let a = noop(&mut graph, "a", &[]);
        graph.task("it", operator, version, args).inputs((0..n_inputs).map(|_| a)).add();
        graph.check_operators(&registry()).err().map(|error| error.to_string())
    };
    assert_eq!(refusal("test.pair", 1, "{}", 2), None);
    assert_eq!(refusal("test.unknown", 1, "{}", 0).as_deref(), Some("task \"it\": unknown operator \"test.unknown\""));
    let version = "task \"it\": operator \"test.pair\" is version 1 here, version 2 was asked for";
    assert_eq!(refusal("test.pair", 2, "{}", 2).as_deref(), Some(version));
    let inputs = "task \"it\": operator \"test.pair\" takes 2 inputs, got 3";
    assert_eq!(refusal("test.pair", 1, "{}", 3).as_deref(), Some(inputs));
    let arguments = refusal("test.mix", 1, "{\"sed\":1}", 0).expect("refused");
    assert!(arguments.starts_with("task \"it\": operator \"test.mix\": unknown field `sed`"), "{arguments}");
}

#[test]
fn a_group_counts_as_all_its_members() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "a", &[]);
    let group = graph.group(vec![a, a]);
    graph.task("pair", "test.pair", 1, "{}").input_group(group, Part::WHOLE).add();
    assert_eq!(graph.check_operators(&registry()), Ok(()));
    graph.task("too many", "test.pair", 1, "{}").input_group(group, Part::WHOLE).input(a).add();
    assert!(graph.check_operators(&registry()).is_err());
}
