//! One user's large thing hurts nobody.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rask::graphs::builtin::Opaque;
use rask::graphs::{FinishOptions, GraphBuilder, Value};
use rask::{ScatterOptions, SubmitError, SubmitOptions};
use rask_comm::message::Spread;

use crate::support::{Cluster, single, submit};

#[test]
fn a_task_with_too_many_inputs_is_refused_in_words() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let before = cluster.status()["workers"][0]["id"].clone();
    let mut graph = GraphBuilder::new();
    let inputs: Vec<_> = (0..500_000).map(|at| graph.task(&format!("part-{at}"), "core.noop", 1, "{}").add()).collect();
    let mut all = graph.task("everything", "core.noop", 1, "{}");
    for input in inputs {
        all = all.input(input);
    }
    let all = all.add();
    graph.output(all);
    let graph = graph.finish(&FinishOptions::default()).unwrap().graph;
    let Err(SubmitError::Rejected(reason)) = block_on(client.submit(graph, SubmitOptions::default())) else {
        panic!("it was accepted")
    };
    assert!(reason.contains("task \"everything\" has 500000 inputs"), "{reason}");
    block_on(submit(&client, "small", single("one", "core.noop", "{}"), false).wait()).unwrap();
    assert_eq!(cluster.status()["workers"][0]["id"], before, "the worker has not been lost");
}

#[test]
fn a_gather_goes_to_another_holder_when_one_stands_still() {
    let cluster = Cluster::start(2);
    let client = cluster.client();
    let spread = Spread { workers: Vec::new(), n_copies: u32::MAX };
    let values: Vec<Value> = (0..64_u8).map(|at| Value::new(Opaque(vec![at; 1 << 16].into()))).collect();
    let scattered = block_on(client.scatter(values, ScatterOptions { spread, ..ScatterOptions::default() })).unwrap();
    block_on(scattered.wait()).unwrap();
    // Both have all of it once they say so.
    let begun = Instant::now();
    while cluster.status()["workers"].as_array().unwrap().iter().any(|worker| worker["n_results"] != 64) {
        assert!(begun.elapsed() < crate::support::PATIENCE, "{}", cluster.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Connected to both, so that one is lost in the middle of a conversation.
    for id in scattered.ids() {
        block_on(client.gather(*id)).unwrap();
    }
    cluster.workers[0].signal("STOP");
    let begun = Instant::now();
    for id in scattered.ids() {
        block_on(client.gather(*id)).unwrap();
    }
    let took = begun.elapsed();
    cluster.workers[0].signal("CONT");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
