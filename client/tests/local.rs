//! The embedded cluster through the public API: results, failures, cancellation, release, start-up time.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rask::graphs::FinishOptions;
use rask::graphs::builtin::Opaque;
use rask::graphs::{Arity, GraphBuilder, OperatorSpec, Value};
use rask::{Client, FailureKind, JobError, LocalOptions, SubmitOptions};

/// A client whose cluster knows one more operator: `test.add`, the sum of its inputs plus `args.plus`.
fn client(n_workers: u32) -> Client {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Add {
        plus: i64,
    }
    let mut registry = rask::graphs::Registry::new();
    registry.register(OperatorSpec::new::<Add>("test.add", 1, Arity::any(), "bytes", "Add."), |_ctx, args: &Add, inputs| {
        let mut sum = args.plus;
        for input in inputs {
            sum += input.to_serde::<i64>()?;
        }
        Ok(Value::from_serde(&sum)?)
    });
    let options = LocalOptions { n_workers, n_slots: 2, ..LocalOptions::new(registry.into()) };
    Client::local(options).expect("threads")
}

#[test]
fn a_tree_of_users_functions_has_the_right_sum() {
    for n_workers in [1, 4] {
        let client = client(n_workers);
        let mut graph = GraphBuilder::new();
        let leaves: Vec<_> =
            (0..256).map(|n| graph.task(&format!("leaf-{n}"), "test.add", 1, &format!(r#"{{"plus": {n}}}"#)).add()).collect();
        let mut level = leaves;
        let mut n_levels = 0;
        while level.len() > 1 {
            n_levels += 1;
            let next = level.chunks(2).enumerate().map(|(n, pair)| {
                graph.task(&format!("sum-{n_levels}-{n}"), "test.add", 1, r#"{"plus": 0}"#).inputs(pair.iter().copied()).add()
            });
            level = next.collect();
        }
        graph.output(level[0]);
        let finished = graph.finish(&FinishOptions::default()).expect("a tree");
        let output = finished.graph.outputs[0];
        let job = block_on(client.submit(finished.graph, SubmitOptions::default())).expect("accepted");
        let stats = block_on(job.wait()).expect("no task fails");
        assert_eq!(stats.n_workers, n_workers);
        let value = block_on(job.gather(output)).expect("a result");
        assert_eq!(value.to_serde::<i64>().expect("a number"), 255 * 256 / 2);
        drop(job);
        let report = block_on(client.status()).expect("status");
        assert!(report.graphs.is_empty(), "a dropped job leaves nothing: {report:?}");
        assert_eq!(report.workers.iter().map(|worker| worker.n_results).sum::<u32>(), 0);
    }
}

#[test]
fn a_failure_names_task_operator_worker_attempt_and_cause() {
    let client = client(1);
    let mut graph = GraphBuilder::new();
    let bad = graph.task("bad", "core.fail", 1, r#"{"message": "no milk"}"#).add();
    let after = graph.task("after", "test.add", 1, r#"{"plus": 1}"#).input(bad).add();
    let good = graph.task("good", "test.add", 1, r#"{"plus": 1}"#).add();
    graph.output(after);
    graph.output(good);
    let options = FinishOptions { fuse: false, ..FinishOptions::default() };
    let finished = graph.finish(&options).expect("a graph");
    let of = |task: rask::graphs::TaskIdx| finished.renumbering[task.index()].expect("kept");
    let (after, good) = (of(after), of(good));
    let job = block_on(client.submit(finished.graph, SubmitOptions::default())).expect("accepted");
    let Err(JobError::Failed(failure)) = block_on(job.wait()) else { panic!("the graph should fail") };
    assert_eq!((failure.key.as_str(), failure.operator.as_str()), ("bad", "core.fail"));
    assert_eq!((failure.kind, failure.attempt.0, failure.message.as_str()), (FailureKind::Operator, 1, "no milk"));
    assert_eq!(failure.worker, "local-0");
    assert!(matches!(block_on(job.outcome(after)), Err(JobError::Failed(_))));
    assert_eq!(block_on(job.gather(good)).expect("another output").to_serde::<i64>().expect("a number"), 1);
}

#[test]
fn cancelling_ends_a_long_task_early() {
    let client = client(1);
    let mut graph = GraphBuilder::new();
    let long = graph.task("long", "core.sleep", 1, r#"{"seconds": 60}"#).add();
    graph.output(long);
    let finished = graph.finish(&FinishOptions::default()).expect("a graph");
    let begun = Instant::now();
    let job = block_on(client.submit(finished.graph, SubmitOptions::default())).expect("accepted");
    block_on(job.cancel()).expect("the scheduler is there");
    let Err(JobError::Failed(failure)) = block_on(job.wait()) else { panic!("a cancelled graph has not succeeded") };
    assert_eq!(failure.kind, FailureKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_later_graph_uses_results_of_an_earlier_one() {
    let client = client(2);
    let mut first = GraphBuilder::new();
    let one = first.task("one", "test.add", 1, r#"{"plus": 41}"#).add();
    first.output(one);
    let first = first.finish(&FinishOptions::default()).expect("a graph").graph;
    let output = first.outputs[0];
    let job = block_on(client.submit(first, SubmitOptions::default())).expect("accepted");
    let mut second = GraphBuilder::new();
    let external = second.external(job.result_id(output));
    let source = rask::graphs::Source::External(external);
    let two = second.task("two", "test.add", 1, r#"{"plus": 1}"#).input_from(source, rask::graphs::Part::WHOLE).add();
    second.output(two);
    let second = second.finish(&FinishOptions::default()).expect("a graph").graph;
    let output = second.outputs[0];
    let later = block_on(client.submit(second, SubmitOptions::default())).expect("accepted");
    drop(job);
    assert_eq!(block_on(later.gather(output)).expect("a result").to_serde::<i64>().expect("a number"), 42);
}

#[test]
fn a_local_client_is_up_within_fifty_milliseconds() {
    let registry = std::sync::Arc::new(rask::graphs::Registry::new());
    let times = (0..5).map(|_| {
        let begun = Instant::now();
        let client = Client::local(LocalOptions::new(std::sync::Arc::clone(&registry))).expect("threads");
        let mut graph = GraphBuilder::new();
        let task = graph.task("first", "core.noop", 1, "{}").add();
        graph.output(task);
        let graph = graph.finish(&FinishOptions::default()).expect("a graph").graph;
        let output = graph.outputs[0];
        let job = block_on(client.submit(graph, SubmitOptions::default())).expect("accepted");
        let value = block_on(job.gather(output)).expect("a result");
        assert_eq!(value.downcast::<Opaque>().expect("bytes").0.len(), 0);
        begun.elapsed()
    });
    let best = times.min().expect("five runs");
    assert!(best < Duration::from_millis(50), "from nothing to the first result took {best:?}");
}

#[test]
fn progress_is_a_stream_that_ends_with_the_graph() {
    use futures::StreamExt;

    let client = client(1);
    let mut graph = GraphBuilder::new();
    for n in 0..20 {
        let task = graph.task(&format!("nap-{n}"), "core.sleep", 1, r#"{"seconds": 0.03}"#).add();
        graph.output(task);
    }
    let graph = graph.finish(&FinishOptions::default()).expect("a graph").graph;
    let job = block_on(client.submit(graph, SubmitOptions::default())).expect("accepted");
    let counts: Vec<_> = block_on(job.progress().into_stream().collect());
    assert!(counts.len() >= 2, "300 ms of work are reported more than once: {counts:?}");
    assert!(counts.windows(2).all(|pair| pair[0].n_finished <= pair[1].n_finished));
    assert_eq!(counts.last().map(|last| (last.n_tasks, last.n_finished)), Some((20, 20)));
}
