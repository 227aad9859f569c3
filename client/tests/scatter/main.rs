//! Scatter and gather, in process and over loopback: right content, bounded memory, lost workers, lost clients.

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, registry, wait_until};
use futures::executor::block_on;
use futures::stream;
use rask::graphs::builtin::{Opaque, Parts};
use rask::graphs::{FinishOptions, GraphBuilder, Part, Source, TaskId, Value};
use rask::{
    Client, FailureKind, GatherError, GatherOptions, JobError, LocalOptions, ScatterError, ScatterOptions, Spread, SubmitOptions,
    TransferMeter,
};

fn pattern(seed: usize, nbytes: usize) -> Bytes {
    (0..nbytes).map(|at| (at / 3 + seed * 31 + (at >> 9)) as u8).collect()
}

fn value(seed: usize, nbytes: usize) -> Value {
    Value::new(Opaque(pattern(seed, nbytes)))
}

fn bytes(value: &Value) -> Bytes {
    value.downcast::<Opaque>().expect("bytes").0.clone()
}

/// The sum of the lengths of scattered values, by a graph.
fn total_length(client: &Client, ids: &[TaskId]) -> Result<u64, GatherError> {
    let mut graph = GraphBuilder::new();
    let externals: Vec<u32> = ids.iter().map(|id| graph.external(*id)).collect();
    let mut task = graph.task("sum", "test.length", 1, "{}");
    for external in externals {
        task = task.input_from(Source::External(external), Part::WHOLE);
    }
    let task = task.add();
    graph.output(task);
    let graph = graph.finish(&FinishOptions::default()).expect("a graph").graph;
    let output = graph.outputs[0];
    let job = block_on(client.submit(graph, SubmitOptions::default())).expect("accepted");
    Ok(block_on(job.gather(output))?.to_serde::<u64>().expect("a number"))
}

/// Values of all sizes there and back, with a graph in between.
fn round_trip(client: &Client) {
    let sizes = [0, 1, 63, 64, 4_097, 131_071, 131_072, 700_000, 3 << 20];
    let values: Vec<Value> = sizes.iter().enumerate().map(|(seed, nbytes)| value(seed, *nbytes)).collect();
    let scattered = block_on(client.scatter(values, ScatterOptions::default())).expect("accepted");
    block_on(scattered.wait()).expect("they arrive");
    let total: usize = sizes.iter().sum();
    assert_eq!(total_length(client, scattered.ids()).expect("a sum"), total as u64);
    let mut gathering = scattered.gather_all(GatherOptions::default());
    for (seed, nbytes) in sizes.iter().enumerate() {
        let (id, outcome) = block_on(gathering.next()).expect("one a value");
        assert_eq!(id, scattered.ids()[seed]);
        assert_eq!(bytes(&outcome.expect("it is there")), pattern(seed, *nbytes));
    }
    assert!(block_on(gathering.next()).is_none());
    drop((gathering, scattered));
    wait_until(|| block_on(client.status()).expect("a scheduler").workers.iter().all(|worker| worker.n_results == 0));
}

fn local(n_workers: u32) -> Client {
    Client::local(LocalOptions { n_workers, ..LocalOptions::new(registry()) }).expect("threads")
}

#[test]
fn values_go_there_and_back_in_process() {
    round_trip(&local(1));
    round_trip(&local(3));
}

#[test]
fn in_process_nothing_is_copied() {
    let client = local(2);
    let given = value(1, 100_000);
    let scattered = block_on(client.scatter([given.clone()], ScatterOptions::default())).expect("accepted");
    let back = block_on(scattered.gather(0)).expect("it is there");
    assert_eq!(bytes(&back).as_ptr(), bytes(&given).as_ptr());
}

#[test]
fn values_go_there_and_back_over_the_network() {
    let cluster = Cluster::start(2, 0);
    round_trip(&cluster.client());
}

#[test]
fn parts_of_results_are_gathered_and_parts_that_are_not_are_named() {
    let cluster = Cluster::start(1, 0);
    for client in [local(1), cluster.client()] {
        let parts = |seed| Value::new(Parts(vec![value(seed, 5_000), value(seed + 1, 300_000)]));
        let scattered = block_on(client.scatter([parts(0), parts(7)], ScatterOptions::default())).expect("accepted");
        let options = GatherOptions { part: Part(1), ..GatherOptions::default() };
        let mut gathering = scattered.gather_all(options);
        for seed in [1, 8] {
            let (_, part) = block_on(gathering.next()).expect("one a value");
            assert_eq!(bytes(&part.expect("a part")), pattern(seed, 300_000));
        }
        let options = GatherOptions { part: Part(2), ..GatherOptions::default() };
        let (_, missing) = block_on(scattered.gather_all(options).next()).expect("an answer");
        assert!(matches!(missing, Err(GatherError::NoSuchPart { n_parts: 2, part: 2, .. })), "{missing:?}");
        assert_eq!(block_on(scattered.gather(0)).expect("the holder is still believed").n_parts(), 2);
    }
}

#[test]
fn a_broadcast_reaches_every_worker_and_a_name_one() {
    let cluster = Cluster::start(3, 0);
    let client = cluster.client();
    let spread = Spread { n_copies: u32::MAX, ..Spread::default() };
    let everywhere = block_on(client.scatter([value(1, 400_000)], ScatterOptions { spread, ..ScatterOptions::default() }));
    let everywhere = everywhere.expect("accepted");
    let n_results = |client: &Client| -> Vec<u32> {
        let report = block_on(client.status()).expect("a scheduler");
        let mut workers: Vec<_> = report.workers.iter().map(|worker| (worker.name.clone(), worker.n_results)).collect();
        workers.sort();
        workers.into_iter().map(|(_, n_results)| n_results).collect()
    };
    wait_until(|| n_results(&client) == [1, 1, 1]);
    drop(everywhere);
    wait_until(|| n_results(&client) == [0, 0, 0]);
    let spread = Spread { workers: vec!["worker-1".to_owned()], n_copies: 1 };
    let options = ScatterOptions { spread, ..ScatterOptions::default() };
    let pinned = block_on(client.scatter((0..5).map(|seed| value(seed, 1_000)), options)).expect("accepted");
    block_on(pinned.wait()).expect("they arrive");
    assert_eq!(n_results(&client), [0, 5, 0]);
}

#[test]
fn a_value_for_nobody_fails_with_the_name() {
    let cluster = Cluster::start(1, 0);
    let client = cluster.client();
    let spread = Spread { workers: vec!["nobody".to_owned()], n_copies: 1 };
    let options = ScatterOptions { name: "mine".to_owned(), spread, ..ScatterOptions::default() };
    let scattered = block_on(client.scatter([value(1, 10)], options)).expect("accepted");
    let Err(JobError::Failed(failure)) = block_on(scattered.wait()) else { panic!("nobody is there to take it") };
    assert_eq!((failure.kind, failure.key.as_str()), (FailureKind::Unsatisfiable, "mine-0"));
    assert!(failure.message.contains("nobody"), "{}", failure.message);
}

#[test]
fn what_a_killed_worker_had_is_uploaded_again() {
    let mut cluster = Cluster::start(2, 0);
    let client = cluster.client();
    let values: Vec<Value> = (0..20).map(|seed| value(seed, 50_000)).collect();
    let scattered = block_on(client.scatter(values, ScatterOptions::default())).expect("accepted");
    block_on(scattered.wait()).expect("they arrive");
    cluster.kill("worker-0");
    assert_eq!(total_length(&client, scattered.ids()).expect("a sum"), 20 * 50_000);
    let mut gathering = scattered.gather_all(GatherOptions::default());
    for seed in 0..20 {
        let (_, outcome) = block_on(gathering.next()).expect("one a value");
        assert_eq!(bytes(&outcome.expect("it is there again")), pattern(seed, 50_000));
    }
}

#[test]
fn a_client_that_goes_takes_its_values_with_it() {
    let cluster = Cluster::start(1, 0);
    let watching = cluster.client();
    let client = cluster.client();
    let scattered = block_on(client.scatter((0..40).map(|seed| value(seed, 1 << 20)), ScatterOptions::default()));
    drop((scattered.expect("accepted"), client));
    let is_empty = || {
        let report = block_on(watching.status()).expect("a scheduler");
        report.graphs.is_empty() && report.workers.iter().all(|worker| worker.n_results == 0)
    };
    wait_until(is_empty);
    round_trip(&watching);
}

#[test]
fn what_was_let_go_of_is_lost_with_its_worker_and_named() {
    let mut cluster = Cluster::start(1, 0);
    let client = cluster.client();
    let options = ScatterOptions { name: "weather".to_owned(), ..ScatterOptions::default() };
    let scattered = block_on(client.scatter([value(1, 50_000)], options)).expect("accepted");
    block_on(scattered.wait()).expect("it arrives");
    scattered.let_go();
    assert_eq!(total_length(&client, scattered.ids()).expect("a sum"), 50_000);
    cluster.kill("worker-0");
    cluster.add_worker("worker-1", 0);
    let Err(GatherError::Failed(failure)) = total_length(&client, scattered.ids()) else { panic!("it is lost") };
    assert_eq!((failure.kind, failure.key.as_str()), (FailureKind::NotUploaded, "weather-0"));
    assert!(failure.message.contains("let go"), "{}", failure.message);
    assert!(matches!(block_on(scattered.gather(0)), Err(GatherError::Failed(_))));
}

/// Counts how many bytes of its kind are alive in this process.
struct Counted {
    nbytes: usize,
    alive: Arc<AtomicU64>,
    bytes: Bytes,
}

impl Counted {
    fn value(seed: usize, nbytes: usize, alive: &Arc<AtomicU64>) -> Value {
        alive.fetch_add(nbytes as u64, Ordering::SeqCst);
        Value::new(Self { nbytes, alive: Arc::clone(alive), bytes: pattern(seed, nbytes) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.nbytes as u64, Ordering::SeqCst);
    }
}

impl rask::graphs::Data for Counted {
    fn kind(&self) -> &'static str {
        "bytes"
    }

    fn nbytes(&self) -> u64 {
        self.nbytes as u64
    }

    fn encode(&self) -> Result<rask::graphs::Encoded, rask::graphs::EncodeError> {
        Ok(rask::graphs::Encoded { kind: "bytes", header: Bytes::new(), buffers: vec![self.bytes.clone()] })
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[test]
fn a_stream_is_held_in_as_much_memory_as_is_allowed() {
    let cluster = Cluster::start(2, 0);
    let client = cluster.client();
    let (alive, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (n_values, nbytes, limit) = (400, 100_000, 2 << 20);
    let values = (0..n_values).map(|seed| {
        let value = Counted::value(seed, nbytes, &alive);
        most.fetch_max(alive.load(Ordering::SeqCst), Ordering::SeqCst);
        value
    });
    let options = ScatterOptions { nbytes_in_flight: limit, ..ScatterOptions::default() };
    let scattered = block_on(client.scatter_stream(stream::iter(values), options)).expect("all arrive");
    let most = most.load(Ordering::SeqCst);
    assert!(most > limit / 2 && most <= limit + nbytes as u64, "{most} bytes were alive, {limit} are allowed");
    wait_until(|| alive.load(Ordering::SeqCst) == 0);
    // The other way: what is not taken is not fetched either.
    let meter = TransferMeter::new();
    let options = GatherOptions { nbytes_in_flight: limit, meter: meter.clone(), ..GatherOptions::default() };
    let mut gathering = scattered.gather_all(options);
    for seed in 0..n_values {
        let (_, outcome) = block_on(gathering.next()).expect("one a value");
        assert_eq!(bytes(&outcome.expect("it is there")), pattern(seed, nbytes));
        let ahead = meter.get().nbytes_moved - (seed * nbytes) as u64;
        assert!(ahead <= limit + nbytes as u64, "{ahead} bytes have come and are not taken");
    }
}

#[test]
fn as_they_come_all_come_once() {
    let cluster = Cluster::start(3, 0);
    let client = cluster.client();
    let scattered = block_on(client.scatter((0..3_000).map(|seed| value(seed, 100)), ScatterOptions::default()));
    let scattered = scattered.expect("accepted");
    let options = GatherOptions { is_in_order: false, ..GatherOptions::default() };
    let mut gathering = scattered.gather_all(options);
    let mut seen = std::collections::BTreeSet::new();
    while let Some((id, outcome)) = block_on(gathering.next()) {
        let seed = scattered.ids().iter().position(|other| *other == id).expect("one of them");
        assert_eq!(bytes(&outcome.expect("it is there")), pattern(seed, 100));
        assert!(seen.insert(id), "{id} comes twice");
    }
    assert_eq!(seen.len(), 3_000);
}

#[test]
fn a_stream_that_pauses_does_not_hold_up_what_it_has_given() {
    let client = local(1);
    let meter = TransferMeter::new();
    let (give, given) = futures::channel::mpsc::unbounded();
    let options = ScatterOptions { meter: meter.clone(), ..ScatterOptions::default() };
    let scattering = std::thread::spawn(move || block_on(client.scatter_stream(given, options)).map(|all| all.len()));
    give.unbounded_send(value(0, 10)).expect("it listens");
    wait_until(|| meter.get().n_done == 1);
    std::thread::sleep(Duration::from_millis(20));
    give.unbounded_send(value(1, 10)).expect("it listens");
    drop(give);
    assert_eq!(scattering.join().expect("no panic").expect("all arrive"), 2);
}

#[test]
fn what_cannot_leave_is_named() {
    struct Local;
    impl rask::graphs::Data for Local {
        fn kind(&self) -> &'static str {
            "local"
        }
        fn nbytes(&self) -> u64 {
            1
        }
        fn encode(&self) -> Result<rask::graphs::Encoded, rask::graphs::EncodeError> {
            Err(rask::graphs::EncodeError("a socket is a thing of this process".to_owned()))
        }
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }
    let cluster = Cluster::start(1, 0);
    let client = cluster.client();
    let outcome = block_on(client.scatter([value(0, 10), Value::new(Local)], ScatterOptions::default()));
    assert!(matches!(&outcome, Err(ScatterError::NotSendable { at: 1, reason }) if reason.contains("socket")));
    assert!(block_on(client.scatter([], ScatterOptions::default())).expect("nothing to do").is_empty());
}
