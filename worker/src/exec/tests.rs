//! Slots with real threads and a scripted scheduler: what is told, in which order, and what is left in the store.

use std::sync::Weak;
use std::sync::atomic::AtomicUsize;

use rask_comm::message::{FailureKind, LostResults, Run, RunFailure, RunInput, Traffic};
use rask_graphs::builtin::{Opaque, Parts};
use rask_graphs::{Arity, Body, BodyId, Epoch, GraphId, OperatorSpec, Part, TaskIdx};

use super::*;

/// Keeps what it is told, and wakes whoever waits for it.
#[derive(Default)]
pub(super) struct Ear {
    heard: Mutex<(Vec<FromWorker>, Option<Ending>)>,
    changed: Condvar,
}

impl Uplink for Ear {
    fn tell(&self, messages: &mut Vec<FromWorker>, _n_patient: usize) {
        self.heard.lock().0.append(messages);
        self.changed.notify_all();
    }

    fn end(&self, ending: Ending) {
        self.heard.lock().1 = Some(ending);
        self.changed.notify_all();
    }
}

impl Ear {
    /// Wait until the end has been told, 10 s at most: another thread may be telling.
    fn ending(&self) -> Ending {
        let mut heard = self.heard.lock();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(ending) = &heard.1 {
                return ending.clone();
            }
            assert!(!self.changed.wait_until(&mut heard, until).timed_out(), "no end is told");
        }
    }

    /// Wait until `n` messages have come, 10 s at most, and take them all.
    pub(super) fn take(&self, n: usize) -> Vec<FromWorker> {
        self.take_of(n, |_| true)
    }

    /// The same of what comes of runs: that one lasts is told on a busy machine only.
    fn take_ends(&self, n: usize) -> Vec<FromWorker> {
        self.take_of(n, |message| !matches!(message, FromWorker::Executing { .. }))
    }

    fn take_of(&self, n: usize, is_wanted: impl Fn(&FromWorker) -> bool) -> Vec<FromWorker> {
        let mut heard = self.heard.lock();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            heard.0.retain(&is_wanted);
            if heard.0.len() >= n {
                break;
            }
            let is_late = self.changed.wait_until(&mut heard, until).timed_out();
            assert!(!is_late, "{n} messages expected, came: {:?}", heard.0);
        }
        std::mem::take(&mut heard.0)
    }
}

/// Answers every item at once from the store of a neighbour, within the call.
#[derive(Default)]
pub(super) struct Neighbour {
    store: Store,
    n_orders: AtomicUsize,
}

impl Fetcher for Neighbour {
    fn fetch(&self, core: &WorkerCore, order: FetchOrder) {
        self.n_orders.fetch_add(1, Ordering::Relaxed);
        for item in order.items {
            match self.store.get(&item) {
                Some(value) => drop(core.fetch_arrived(order.fetch, item, value, Instant::now())),
                None => core.fetch_failed(order.fetch, item, FetchFailure::NotThere),
            }
        }
    }

    fn watch(&self, core: &WorkerCore, order: WatchOrder) {
        core.watch_lost(order.from);
    }

    fn push(&self, core: &WorkerCore, to: WorkerId, _: FetchItem, _: Value) {
        core.peer_gone(to);
    }

    fn announce(&self, core: &WorkerCore, to: WorkerId, _: FetchItem, _: u64) {
        core.peer_gone(to);
    }
}

const GRAPH: GraphId = GraphId(1);

pub(super) fn id(idx: u32) -> TaskId {
    TaskId::new(GRAPH, TaskIdx(idx))
}

pub(super) fn run(idx: u32, body: u32, inputs: Vec<RunInput>) -> ToWorker {
    ToWorker::Run(Run { task: id(idx), attempt: Attempt(1), body, round: 0, priority: 0, inputs, groups: Vec::new() })
}

pub(super) fn input(idx: u32, holders: &[u32]) -> RunInput {
    let holders = holders.iter().map(|&holder| WorkerId(holder)).collect();
    RunInput { task: id(idx), attempt: Attempt(1), part: Part::WHOLE, nbytes: 8, holders, is_made: true }
}

pub(super) fn registry() -> Registry {
    let mut registry = Registry::new();
    let spec = |name, doc| OperatorSpec::new::<serde_json::Value>(name, 1, Arity::any(), "bytes", doc);
    registry.register(spec("test.panic", "Panic."), |_, _: &serde_json::Value, _| panic!("the sky fell"));
    // Numbers without a pattern, so that what is damaged is noticed and nothing is compressed away.
    let noise =
        |seed: u32| -> Vec<u8> { (0..50_000_u32).flat_map(|n| (n ^ seed).wrapping_mul(0x9e37_79b1).to_le_bytes()).collect() };
    registry
        .register(spec("test.big", "200,000 bytes."), move |_, _: &serde_json::Value, _| Ok(Value::new(Opaque(noise(0).into()))));
    registry.register(spec("test.many", "Three parts of 200,000 bytes."), move |_, _: &serde_json::Value, _| {
        Ok(Value::new(Parts((1..4).map(|seed| Value::new(Opaque(noise(seed).into()))).collect())))
    });
    registry.register(spec("test.huge", "A gigabyte of nothing."), |ctx, _: &serde_json::Value, _| {
        ctx.check_memory(1 << 30)?;
        Ok(Value::new(Opaque(Vec::new().into())))
    });
    registry.register(spec("test.join", "Concatenate."), |_, _: &serde_json::Value, inputs| {
        let mut all = Vec::new();
        for value in inputs {
            all.extend_from_slice(&value.expect::<Opaque>("bytes")?.0);
        }
        Ok(Value::new(Opaque(all.into())))
    });
    registry
}

fn bodies() -> Vec<ToWorker> {
    let bodies = [
        ("core.noop", "{}"),
        ("core.sleep", r#"{"seconds": 60.0}"#),
        ("core.fail", r#"{"message": "no luck"}"#),
        ("test.panic", "{}"),
        ("test.join", "{}"),
        ("no.such", "{}"),
        ("core.sleep", r#"{"seconds": 0.15}"#),
        ("test.big", "{}"),
        ("test.many", "{}"),
        ("test.huge", "{}"),
    ];
    let mut messages = vec![ToWorker::Welcome { worker: WorkerId(0), epoch: Epoch(1), keys: rask_comm::WorkerKeys::default() }];
    messages.push(ToWorker::Peer {
        worker: WorkerId(9),
        address: ([127, 0, 0, 1], 9).into(),
        name: "w9".to_owned(),
        pass: rask_comm::Grant::default(),
    });
    messages.extend(bodies.iter().zip(0u32..).map(|((operator, args), idx)| ToWorker::Body {
        id: BodyId { graph: GRAPH, idx },
        body: Body::single(operator, 1, args),
        label: "family".to_owned(),
        is_of_user: true,
    }));
    messages
}

const NOOP: u32 = 0;
const SLEEP: u32 = 1;
const FAIL: u32 = 2;
const PANIC: u32 = 3;
pub(super) const JOIN: u32 = 4;
const UNKNOWN: u32 = 5;
const NAP: u32 = 6;
pub(super) const BIG: u32 = 7;
pub(super) const MANY: u32 = 8;
pub(super) const HUGE: u32 = 9;

pub(super) struct Bench {
    pub(super) core: WorkerCore,
    pub(super) ear: Arc<Ear>,
    neighbour: Arc<Neighbour>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.core.shutdown();
    }
}

fn bench(n_slots: u32) -> Bench {
    bench_with(&CoreConfig::new("test", n_slots))
}

pub(super) fn bench_with(config: &CoreConfig) -> Bench {
    let (ear, neighbour) = (Arc::new(Ear::default()), Arc::new(Neighbour::default()));
    let core = WorkerCore::start(
        config,
        Arc::new(registry()),
        Arc::clone(&ear) as Arc<dyn Uplink>,
        Arc::clone(&neighbour) as Arc<dyn Fetcher>,
    )
    .unwrap();
    core.deliver(bodies());
    Bench { core, ear, neighbour }
}

fn failure_of(message: &FromWorker) -> &RunFailure {
    let FromWorker::Failed { failure, .. } = message else { panic!("a failure expected: {message:?}") };
    failure
}

#[test]
fn results_are_held_and_told_in_the_order_of_the_machine() {
    let bench = bench(1);
    bench.core.deliver((0..100).map(|idx| run(idx, NOOP, Vec::new())));
    let finished = |message: &FromWorker| {
        let FromWorker::Finished { task, n_parts: 0, .. } = message else { panic!("unexpected: {message:?}") };
        *task
    };
    let told: Vec<TaskId> = bench.ear.take(100).iter().map(finished).collect();
    assert_eq!(told, (0..100).map(id).collect::<Vec<_>>(), "one slot runs in order of index");
    assert_eq!(bench.core.store().len(), 100);
    bench.core.deliver([ToWorker::Free { tasks: (0..100).map(id).collect() }]);
    assert!(bench.core.store().is_empty());
}

#[test]
fn failures_panics_and_unknown_operators_are_reported_with_their_operator() {
    let bench = bench(2);
    let table = [
        (FAIL, FailureKind::Operator, "core.fail", "no luck"),
        (PANIC, FailureKind::Panicked, "test.panic", "the sky fell (at worker/src/exec/tests.rs:"),
        (UNKNOWN, FailureKind::Unprepared, "no.such", "unknown operator \"no.such\""),
        (99, FailureKind::Unprepared, "", "has not sent the body"),
    ];
    for (idx, (body, kind, operator, words)) in (0..).zip(table) {
        bench.core.deliver([run(idx, body, Vec::new())]);
        let told = bench.ear.take(1);
        let failure = failure_of(&told[0]);
        assert_eq!((failure.kind, failure.operator.as_str()), (kind, operator));
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    bench.core.deliver([run(50, NOOP, Vec::new())]);
    assert!(matches!(bench.ear.take(1)[..], [FromWorker::Finished { .. }]), "slots live on after a panic");
}

#[test]
fn inputs_come_from_the_store_and_from_peers_in_kernel_order() {
    let bench = bench(1);
    let text = |bytes: &'static [u8]| Value::new(Opaque(bytes.into()));
    bench.neighbour.store.put(FetchItem::whole(id(0), Attempt(1)), text(b"ab"));
    bench.neighbour.store.put(FetchItem::whole(id(1), Attempt(1)), text(b"cd"));
    bench.core.deliver([run(5, JOIN, vec![input(1, &[9]), input(0, &[9]), input(1, &[9])])]);
    let told = bench.ear.take(3);
    assert!(matches!(told[0], FromWorker::Fetched { from: WorkerId(9), nbytes: 2, .. }), "{told:?}");
    assert!(matches!(told[2], FromWorker::Finished { nbytes: 6, .. }), "{told:?}");
    let result = bench.core.store().get(&FetchItem::whole(id(5), Attempt(1))).unwrap();
    assert_eq!(&result.downcast::<Opaque>().unwrap().0[..], b"cdabcd");
    assert_eq!(bench.neighbour.n_orders.load(Ordering::Relaxed), 1, "both in one request");
    bench.core.deliver([run(6, JOIN, vec![input(0, &[9]), input(5, &[0])])]);
    assert!(matches!(bench.ear.take(1)[..], [FromWorker::Finished { nbytes: 8, .. }]), "replicas are not fetched twice");
}

#[test]
fn an_input_that_nobody_has_gives_the_run_back() {
    let bench = bench(1);
    bench.core.deliver([run(5, JOIN, vec![input(0, &[9])])]);
    let expected = FromWorker::InputLost { task: id(5), attempt: Attempt(1), input: id(0), holders: vec![WorkerId(9)] };
    assert_eq!(bench.ear.take(1), [expected]);
}

#[test]
fn a_result_that_vanished_from_the_store_is_told_and_gives_the_run_back() {
    let bench = bench(1);
    bench.core.deliver([run(0, NOOP, Vec::new())]);
    bench.ear.take(1);
    drop(bench.core.store().remove(&FetchItem::whole(id(0), Attempt(1))));
    bench.core.deliver([run(1, JOIN, vec![input(0, &[0])])]);
    let lost = FromWorker::InputLost { task: id(1), attempt: Attempt(1), input: id(0), holders: vec![WorkerId(0)] };
    assert_eq!(bench.ear.take(2), [FromWorker::Lost { task: id(0) }, lost]);
}

#[test]
fn a_cancelled_run_is_interrupted_and_leaves_nothing() {
    let bench = bench(1);
    bench.core.deliver([run(0, SLEEP, Vec::new()), run(1, NOOP, Vec::new())]);
    assert!(matches!(bench.ear.take(1)[..], [FromWorker::Executing { .. }]), "told once it has lasted");
    bench.core.deliver([ToWorker::Cancel { task: id(0), attempt: Attempt(1) }]);
    let told = bench.ear.take(1);
    assert!(matches!(told[..], [FromWorker::Finished { task, .. }] if task == id(1)), "{told:?}");
    assert_eq!(bench.core.store().len(), 1);
}

#[test]
fn short_runs_are_not_told_as_executing_and_long_ones_once() {
    let bench = bench(2);
    bench.core.deliver((0..50).map(|idx| run(idx, NOOP, Vec::new())));
    assert!(bench.ear.take(50).iter().all(|message| matches!(message, FromWorker::Finished { .. })));
    bench.core.deliver([run(60, NAP, Vec::new())]);
    let told = bench.ear.take(2);
    assert!(matches!(told[..], [FromWorker::Executing { .. }, FromWorker::Finished { .. }]), "{told:?}");
}

#[test]
fn status_retirement_and_leaving_are_told_once() {
    let bench = bench(1);
    bench.core.deliver([run(0, NOOP, Vec::new())]);
    bench.ear.take(1);
    bench.core.measure(Traffic::default());
    let told = bench.ear.take(1);
    assert!(matches!(&told[..], [FromWorker::Status(status)] if status.rss_nbytes > 0 && !status.is_paused), "{told:?}");
    bench.core.retire();
    bench.core.retire();
    assert_eq!(bench.ear.take(1), [FromWorker::Retiring]);
    let leave = ToWorker::Leave { lost: LostResults::default() };
    bench.core.deliver([leave.clone(), leave]);
    assert_eq!(bench.ear.ending(), Ending::Left { lost: LostResults::default() });
}

/// A scheduler in this process that answers each finished run with the next one, within the call.
struct Chain {
    core: Mutex<Option<WorkerCore>>,
    left: AtomicUsize,
    done: Condvar,
    is_done: Mutex<bool>,
}

impl Uplink for Chain {
    fn tell(&self, messages: &mut Vec<FromWorker>, _n_patient: usize) {
        for message in messages.drain(..) {
            let FromWorker::Finished { task, .. } = message else { continue };
            if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                *self.is_done.lock() = true;
                self.done.notify_all();
                return;
            }
            let core = self.core.lock().clone().unwrap();
            core.deliver([run(task.idx.0 + 1, NOOP, vec![input(task.idx.0, &[0])])]);
        }
    }

    fn end(&self, _: Ending) {}
}

fn time_chain(n_links: usize, n_slots: u32) -> Duration {
    let chain = Arc::new(Chain {
        core: Mutex::new(None),
        left: AtomicUsize::new(n_links),
        done: Condvar::new(),
        is_done: Mutex::new(false),
    });
    let config = CoreConfig::new("chain", n_slots);
    let neighbour = Arc::new(Neighbour::default());
    let core = WorkerCore::start(&config, Arc::new(registry()), Arc::clone(&chain) as Arc<dyn Uplink>, neighbour).unwrap();
    *chain.core.lock() = Some(core.clone());
    core.deliver(bodies());
    let begun = Instant::now();
    core.deliver([run(0, NOOP, Vec::new())]);
    let mut is_done = chain.is_done.lock();
    let until = Instant::now() + Duration::from_secs(20);
    while !*is_done {
        assert!(!chain.done.wait_until(&mut is_done, until).timed_out(), "the chain stopped");
    }
    drop(is_done);
    let elapsed = begun.elapsed();
    core.shutdown();
    *chain.core.lock() = None;
    elapsed
}

#[test]
fn an_uplink_may_call_back_into_the_core() {
    time_chain(2_000, 2);
}

#[test]
fn threads_end_on_shutdown_and_let_go_of_the_core() {
    let bench = bench(3);
    bench.core.deliver([run(0, SLEEP, Vec::new())]);
    let weak: Weak<Shared> = Arc::downgrade(&bench.core.shared);
    drop(bench);
    let until = Instant::now() + Duration::from_secs(10);
    while weak.strong_count() > 0 {
        assert!(Instant::now() < until, "{} handles are left", weak.strong_count());
        thread::sleep(Duration::from_millis(2));
    }
}

/// `cargo test --release -p rask-worker -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement, to be looked at"]
fn speed_of_a_chain_and_of_independent_runs() {
    for n_slots in [1, 2] {
        let n_links = 200_000;
        let elapsed = time_chain(n_links, n_slots);
        println!("chain, {n_slots} slots: {:.2} us a link", elapsed.as_secs_f64() * 1e6 / n_links as f64);
        let bench = bench(n_slots);
        let n_runs = 500_000;
        let begun = Instant::now();
        for first in (0..n_runs).step_by(1_000) {
            bench.core.deliver((first..first + 1_000).map(|idx| run(idx, NOOP, Vec::new())));
        }
        bench.ear.take(n_runs as usize);
        let us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(n_runs);
        println!("independent, {n_slots} slots: {us:.2} us a run, {:.0} a second", 1e6 / us);
    }
}

#[test]
fn a_part_that_is_not_there_is_an_error_and_no_loss() {
    let bench = bench(1);
    bench.core.deliver([run(0, MANY, Vec::new())]);
    assert!(matches!(bench.ear.take_ends(1)[..], [FromWorker::Finished { .. }]));
    bench.core.deliver([run(1, JOIN, vec![RunInput { part: Part(3), ..input(0, &[0]) }])]);
    let told = bench.ear.take_ends(1);
    let [FromWorker::Failed { failure, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(failure.message.contains("takes part 3"), "{}", failure.message);
    assert!(bench.core.store().get(&FetchItem::whole(id(0), Attempt(1))).is_some());
}

#[test]
fn what_is_pushed_unasked_takes_no_held_results_place() {
    let bench = bench(1);
    bench.core.deliver([run(0, BIG, Vec::new())]);
    assert!(matches!(bench.ear.take_ends(1)[..], [FromWorker::Finished { .. }]));
    let forged = || Value::new(Opaque(vec![9; 3].into()));
    for attempt in [1, 7] {
        bench.core.pushed(WorkerId(9), FetchItem::whole(id(0), Attempt(attempt)), forged());
    }
    let store = bench.core.store();
    assert_eq!(store.get(&FetchItem::whole(id(0), Attempt(1))).map(|value| value.nbytes()), Some(200_000));
    assert_eq!((store.len(), store.nbytes()), (1, 200_000));
}
