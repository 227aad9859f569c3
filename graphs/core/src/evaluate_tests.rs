//! Running bodies: wires, parts, spreads, wrong numbers of inputs, and which step is blamed.

use super::*;
use crate::builder::GraphBuilder;
use crate::finish::FinishOptions;
use crate::graph::Step;
use crate::ids::{GraphId, TaskId};
use crate::testing::{History, mix, noop, registry};

fn step(operator: &str, args: &str, wires: Wires) -> Step {
    Step { operator: operator.into(), version: 1, args: args.into(), wires }
}

fn history(value: &Value) -> u64 {
    value.downcast::<History>().expect("a history").0
}

fn values(numbers: &[u64]) -> Vec<Value> {
    numbers.iter().map(|&number| Value::new(History(number))).collect()
}

fn run(steps: Vec<Step>, inputs: &[Value], spread: &[u32]) -> Result<Value, (usize, KernelError)> {
    prepare(&Body { steps }, &registry()).expect("prepares").run(&TaskContext::detached("it"), inputs, spread)
}

#[test]
fn a_fused_body_equals_its_steps_by_hand() {
    let inputs = values(&[10, 20, 30]);
    let one = |inputs: &[Value], seed: u64| run(mix(seed).steps, inputs, &[]).expect("runs");
    let first = one(&[inputs[1].clone(), inputs[2].clone(), inputs[0].clone()], 1);
    let second = one(&[first.part(2).expect("a part"), first.clone()], 2);
    // Declared inputs: a group of two after a single one.
    let steps = vec![
        step("test.mix", "{\"seed\":1}", Wires::These(vec![Wire::Input(1), Wire::Input(0)])),
        step("test.mix", "{\"seed\":2}", Wires::These(vec![Wire::Step(0, Part(2)), Wire::Step(0, Part::WHOLE)])),
    ];
    assert_eq!(history(&run(steps, &inputs, &[1, 2]).expect("runs")), history(&second));
}

#[test]
fn wrong_numbers_of_inputs_are_refused() {
    let pair = || vec![step("test.pair", "{}", Wires::All)];
    assert!(run(pair(), &values(&[1, 2]), &[]).is_ok());
    let (step_idx, error) = run(pair(), &values(&[1]), &[]).expect_err("refused");
    assert_eq!((step_idx, error.0.as_str()), (0, "takes 2 inputs, got 1"));
    let wired = vec![step("test.pair", "{}", Wires::These(vec![Wire::Input(0), Wire::Input(4)]))];
    assert_eq!(run(wired, &values(&[1, 2]), &[]).expect_err("refused").1.0, "input 4 was not given");
    let spread = vec![step("test.pair", "{}", Wires::These(vec![Wire::Input(0)]))];
    assert!(run(spread.clone(), &values(&[1, 2]), &[2]).is_ok());
    assert_eq!(run(spread, &values(&[1, 2]), &[3]).expect_err("refused").1.0, "input 0 was not given");
}

#[test]
fn the_failing_step_is_named() {
    let steps = vec![
        step("core.noop", "{}", Wires::These(Vec::new())),
        step("core.fail", "{\"message\":\"no luck\"}", Wires::These(vec![Wire::Step(0, Part::WHOLE)])),
    ];
    assert_eq!(run(steps, &[], &[]).expect_err("fails"), (1, KernelError("no luck".to_owned())));
    let no_part = vec![
        step("core.noop", "{}", Wires::These(Vec::new())),
        step("core.noop", "{}", Wires::These(vec![Wire::Step(0, Part(1))])),
    ];
    let said = run(no_part, &[], &[]).expect_err("fails");
    assert_eq!(said, (1, KernelError("there is no part 1: a bytes with 0 parts".to_owned())));
}

#[test]
fn bodies_that_cannot_be_prepared() {
    let refuse = |steps: Vec<Step>| prepare(&Body { steps }, &registry()).err().map(|error| error.to_string());
    assert_eq!(refuse(vec![step("no.such", "{}", Wires::All)]).as_deref(), Some("unknown operator \"no.such\""));
    let own = vec![step("core.noop", "{}", Wires::These(vec![Wire::Step(0, Part::WHOLE)]))];
    assert_eq!(refuse(own).as_deref(), Some("operator \"core.noop\": the step uses itself or a later one"));
    assert!(run(Vec::new(), &[], &[]).is_err(), "a body without steps has no result");
}

#[test]
fn a_cancelled_body_stops_between_steps() {
    let steps = vec![step("core.noop", "{}", Wires::These(Vec::new())), step("core.noop", "{}", Wires::These(Vec::new()))];
    let body = prepare(&Body { steps }, &registry()).expect("prepares");
    let ctx = TaskContext::detached("it");
    ctx.cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(body.run(&ctx, &[], &[]).expect_err("stops"), (0, KernelError("cancelled".to_owned())));
}

#[test]
fn graphs_evaluate_and_fail_by_name() {
    let mut graph = GraphBuilder::new();
    let a = noop(&mut graph, "a", &[]);
    let b = noop(&mut graph, "b", &[a]);
    let fail = graph.task("bad", "core.fail", 1, "{\"message\":\"no luck\"}").input(a).add();
    let external = graph.external(TaskId::new(GraphId(0), TaskIdx(0)));
    let far = graph.task("far", "core.noop", 1, "{}").input_from(Source::External(external), Part::WHOLE).add();
    let part = graph.task("part", "core.noop", 1, "{}").input_part(a, 4).add();
    let unknown = graph.task("unknown", "no.such", 1, "{}").add();
    let options = FinishOptions { cull: false, fuse: false, order: true };
    let finished = graph.finish(&options).expect("fine");
    let evaluated = |task: TaskIdx| {
        let task = finished.renumbering[task.index()].expect("kept");
        evaluate(&finished.graph, &registry(), &[task]).map(|values| values.len()).map_err(|error| error.to_string())
    };
    assert_eq!(evaluated(b), Ok(1), "what is not asked for is not computed");
    assert_eq!(evaluated(fail), Err("task \"bad\": core.fail: no luck".to_owned()));
    assert_eq!(evaluated(far), Err("task \"far\" needs a result of an earlier graph".to_owned()));
    assert_eq!(evaluated(part), Err("task \"part\": core.noop: there is no part 4: a bytes with 0 parts".to_owned()));
    assert_eq!(evaluated(unknown), Err("task \"unknown\": unknown operator \"no.such\"".to_owned()));
    assert_eq!(evaluate(&finished.graph, &registry(), &[TaskIdx(99)]).err(), Some(EvaluateError::NoSuchTask(TaskIdx(99))));
}
