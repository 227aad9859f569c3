//! A worker over real QUIC on loopback, with a scheduler that says what the test says.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rask_comm::message::{FromWorker, LostResults, Run, RunInput, ToWorker, WorkerHello};
use rask_comm::{
    Authority, Connection, ControlReceiver, ControlSender, ExpectedPeer, Grant, Grants, Incoming, PartRequest, Role, SecretKey,
    Watch, WatchHello,
};
use rask_graphs::builtin::Opaque;
use rask_graphs::{Arity, Attempt, Body, BodyId, Epoch, GraphId, OperatorSpec, Part, TaskId, TaskIdx, Value, WorkerId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

const GRAPH: GraphId = GraphId(1);
const LONG: Duration = Duration::from_secs(10);

/// What the scheduler of these tests makes grants and passes from.
fn secret() -> SecretKey {
    SecretKey::default()
}

struct Scheduler {
    authority: Authority,
    endpoint: Endpoint,
}

struct Guest {
    connection: Connection,
    hello: WorkerHello,
    sender: ControlSender<ToWorker>,
    receiver: ControlReceiver<FromWorker>,
    waiting: Vec<FromWorker>,
}

struct Process {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<Exit, WorkerError>>,
}

fn scheduler_endpoint(authority: &Authority, address: SocketAddr) -> Endpoint {
    let identity = Identity::issue(authority, Role::Scheduler, "scheduler").unwrap();
    Endpoint::bind(address, &identity, &[Plane::Worker]).unwrap()
}

impl Scheduler {
    fn new() -> Self {
        let authority = Authority::throw_away().unwrap();
        let endpoint = scheduler_endpoint(&authority, ([127, 0, 0, 1], 0).into());
        Self { authority, endpoint }
    }

    fn start_worker(&self, name: &str) -> Process {
        self.start_worker_with(name, Arc::new(registry()), true)
    }

    fn start_worker_with(&self, name: &str, registry: Arc<Registry>, has_handover: bool) -> Process {
        let mut config = WorkerConfig::new(self.endpoint.local_addr().unwrap(), 1);
        config.patience = LONG;
        config.has_handover = has_handover;
        config.status_interval = Duration::from_secs(60);
        config.drain_limit = Duration::from_millis(300);
        let identity = Identity::issue(&self.authority, Role::Worker, name).unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || end.send(run_blocking(config, identity, registry, shutdown)));
        Process { stop: Some(stop), ended }
    }

    async fn guest(&self) -> Guest {
        let incoming = timeout(LONG, self.endpoint.accept()).await.unwrap().unwrap();
        let Incoming::Peer { connection, plane: Plane::Worker, .. } = incoming else { panic!("no worker: {incoming:?}") };
        let (sender, mut receiver) = connection.accept_control().await.unwrap();
        let hello = receiver.recv_hello().await.unwrap();
        Guest { connection, hello, sender, receiver, waiting: Vec::new() }
    }

    async fn welcome(&self, id: u32) -> Guest {
        let mut guest = self.guest().await;
        let mut messages =
            vec![ToWorker::Welcome { worker: WorkerId(id), epoch: Epoch(1), keys: secret().for_worker(WorkerId(id)) }];
        messages.extend((0..).zip(["core.noop", "core.part_list", "test.nap"]).map(|(idx, operator)| ToWorker::Body {
            id: BodyId { graph: GRAPH, idx },
            body: Body::single(operator, 1, "{}"),
            label: operator.to_owned(),
            is_of_user: true,
        }));
        guest.say(messages).await;
        guest
    }
}

impl Guest {
    async fn say(&mut self, messages: Vec<ToWorker>) {
        self.sender.send(&messages).await.unwrap();
    }

    /// The next message that is not about the worker's state.
    async fn hear(&mut self) -> FromWorker {
        loop {
            if !self.waiting.is_empty() {
                return self.waiting.remove(0);
            }
            let frame = timeout(LONG, self.receiver.recv()).await.unwrap().unwrap().unwrap();
            self.waiting.extend(frame.into_iter().filter(|message| !matches!(message, FromWorker::Status(_))));
        }
    }
}

impl Process {
    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn end(self) -> Result<Exit, WorkerError> {
        timeout(LONG, self.ended).await.unwrap().unwrap()
    }
}

/// How long `test.nap` takes, in milliseconds.
static NAP_MS: AtomicU64 = AtomicU64::new(0);

fn registry() -> Registry {
    let mut registry = Registry::new();
    let spec = OperatorSpec::new::<serde_json::Value>("test.nap", 1, Arity::any(), "bytes", "Take as long as the test says.");
    registry.register(spec, |_, _: &serde_json::Value, _| {
        std::thread::sleep(Duration::from_millis(NAP_MS.load(Ordering::Relaxed)));
        Ok(Value::new(Opaque(Bytes::new())))
    });
    registry
}

fn id(idx: u32) -> TaskId {
    TaskId::new(GRAPH, TaskIdx(idx))
}

/// A no-op without inputs, or the list of its inputs.
fn run_message(idx: u32, inputs: Vec<RunInput>) -> ToWorker {
    let body = u32::from(!inputs.is_empty());
    ToWorker::Run(Run { task: id(idx), attempt: Attempt(1), body, round: 0, priority: 0, inputs, groups: Vec::new() })
}

fn input(idx: u32, part: Part, holder: u32) -> RunInput {
    RunInput { task: id(idx), attempt: Attempt(1), part, nbytes: 8, holders: vec![WorkerId(holder)], is_made: true }
}

#[tokio::test]
async fn two_workers_run_and_fetch_from_each_other() {
    let scheduler = Scheduler::new();
    let (first, second) = (scheduler.start_worker("one"), scheduler.start_worker("two"));
    let (mut one, mut two) = (scheduler.welcome(0).await, scheduler.welcome(1).await);
    if one.hello.name == "two" {
        std::mem::swap(&mut one, &mut two);
    }
    assert_eq!((one.hello.n_slots, one.hello.name.as_str()), (1, "one"));
    one.say(vec![run_message(0, vec![])]).await;
    assert!(matches!(one.hear().await, FromWorker::Finished { task, n_parts: 0, .. } if task == id(0)));
    one.say(vec![run_message(1, vec![input(0, Part::WHOLE, 0)])]).await;
    assert!(matches!(one.hear().await, FromWorker::Finished { task, n_parts: 1, .. } if task == id(1)));
    let address = one.hello.data_address;
    // Which of the two was accepted first is open; "one" is worker 0 or 1 to itself, and worker 5 to the other.
    two.say(vec![
        ToWorker::Peer { worker: WorkerId(5), address, name: "one".to_owned(), pass: Grant::default() },
        run_message(2, vec![input(0, Part::WHOLE, 5), input(1, Part(0), 5)]),
        run_message(3, vec![input(7, Part::WHOLE, 5)]),
    ])
    .await;
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(two.hear().await);
    }
    let n_fetched = told.iter().filter(|message| matches!(message, FromWorker::Fetched { from: WorkerId(5), .. })).count();
    assert_eq!(n_fetched, 1, "{told:?}");
    assert!(told.iter().any(|message| matches!(message, FromWorker::FetchedParts { .. })), "{told:?}");
    assert!(told.iter().any(|message| matches!(message, FromWorker::Finished { task, n_parts: 2, .. } if *task == id(2))));
    assert!(told.iter().any(|message| matches!(message, FromWorker::InputLost { input, .. } if *input == id(7))), "{told:?}");
    drop((first, second));
}

/// The network's thread executes runs that have been short. The one that suddenly is not must not cut the worker off.
#[tokio::test]
async fn a_run_that_turns_out_to_be_long_does_not_keep_the_scheduler_waiting() {
    const NAP: u32 = 2;
    let scheduler = Scheduler::new();
    let process = scheduler.start_worker("one");
    let mut guest = scheduler.welcome(0).await;
    let nap = |idx: u32| {
        let (task, attempt, inputs, groups) = (id(idx), Attempt(1), Vec::new(), Vec::new());
        ToWorker::Run(Run { task, attempt, body: NAP, round: 0, priority: 0, inputs, groups })
    };
    for idx in 0..20 {
        guest.say(vec![nap(idx)]).await;
        assert!(matches!(guest.hear().await, FromWorker::Finished { task, .. } if task == id(idx)));
    }
    NAP_MS.store(1_500, Ordering::Relaxed);
    let begun = Instant::now();
    guest.say(vec![nap(20)]).await;
    // By now it has begun. A word that needs an answer comes while it goes on, and another after a while.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        guest.say(vec![ToWorker::Revoke { task: id(99), attempt: Attempt(1) }]).await;
        loop {
            let message = guest.hear().await;
            if matches!(message, FromWorker::Revoked { task, given_up: false, .. } if task == id(99)) {
                break;
            }
            assert!(matches!(message, FromWorker::Executing { .. }), "{message:?} before the answer");
        }
    }
    assert!(begun.elapsed() < Duration::from_millis(1_200), "answered after {:?}", begun.elapsed());
    NAP_MS.store(0, Ordering::Relaxed);
    while !matches!(guest.hear().await, FromWorker::Finished { task, .. } if task == id(20)) {}
    // And the thread that was away is back: short runs go on.
    guest.say(vec![nap(21)]).await;
    assert!(matches!(guest.hear().await, FromWorker::Finished { task, .. } if task == id(21)));
    drop(process);
}

/// Both ways: handed over within the host, and with one worker that does not want to.
#[tokio::test]
async fn big_results_are_fetched_with_and_without_handover() {
    for has_handover in [true, false] {
        let scheduler = Scheduler::new();
        let mut registry = Registry::new();
        let spec = OperatorSpec {
            name: "test.big",
            version: 1,
            inputs: Arity::any(),
            output: "bytes",
            doc: "Return a mebibyte, or fail when an input is not one.",
            args_schema: serde_json::json!({ "type": "object" }),
        };
        let whole = Bytes::from((0..1 << 20).map(|at| (at / 3) as u8).collect::<Vec<u8>>());
        registry.register(spec, move |_ctx, _args: &serde_json::Value, inputs| {
            for input in inputs {
                let bytes = &input.expect::<Opaque>("bytes")?.0;
                if *bytes != whole {
                    return Err(rask_graphs::KernelError("the input is wrong".to_owned()));
                }
            }
            Ok(Value::new(Opaque(whole.clone())))
        });
        let registry = Arc::new(registry);
        let _one = scheduler.start_worker_with("one", Arc::clone(&registry), true);
        let mut one = scheduler.welcome(0).await;
        let _two = scheduler.start_worker_with("two", registry, has_handover);
        let mut two = scheduler.welcome(1).await;
        let body = |idx| ToWorker::Body {
            id: BodyId { graph: GRAPH, idx },
            body: Body::single("test.big", 1, "{}"),
            label: "big".to_owned(),
            is_of_user: true,
        };
        let run = |idx, inputs| {
            ToWorker::Run(Run { task: id(idx), attempt: Attempt(1), body: 7, round: 0, priority: 0, inputs, groups: Vec::new() })
        };
        one.say(vec![body(7), run(0, vec![])]).await;
        assert!(matches!(one.hear().await, FromWorker::Finished { task, .. } if task == id(0)));
        let address = one.hello.data_address;
        two.say(vec![
            body(7),
            ToWorker::Peer { worker: WorkerId(0), address, name: "one".to_owned(), pass: Grant::default() },
            run(1, vec![input(0, Part::WHOLE, 0)]),
        ])
        .await;
        let told = [two.hear().await, two.hear().await];
        assert!(told.iter().any(|message| matches!(message, FromWorker::Fetched { .. })), "{told:?}");
        assert!(told.iter().any(|message| matches!(message, FromWorker::Finished { .. })), "{told:?}");
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_for_another() {
    let scheduler = Scheduler::new();
    let _one = scheduler.start_worker("one");
    let mut one = scheduler.welcome(0).await;
    let _two = scheduler.start_worker("two");
    let mut two = scheduler.welcome(1).await;
    let identity = Identity::issue(&scheduler.authority, Role::Worker, "silent").unwrap();
    let silent = Endpoint::bind(([127, 0, 0, 1], 0).into(), &identity, &[Plane::Data]).unwrap();
    one.say(vec![run_message(0, vec![]), run_message(1, vec![])]).await;
    for _ in 0..2 {
        assert!(matches!(one.hear().await, FromWorker::Finished { .. }));
    }
    let from_either = |idx| RunInput { holders: vec![WorkerId(0), WorkerId(9)], ..input(idx, Part::WHOLE, 0) };
    two.say(vec![
        ToWorker::Peer { worker: WorkerId(0), address: one.hello.data_address, name: "one".to_owned(), pass: Grant::default() },
        ToWorker::Peer {
            worker: WorkerId(9),
            address: silent.local_addr().unwrap(),
            name: "silent".to_owned(),
            pass: Grant::default(),
        },
        run_message(2, vec![from_either(0), from_either(1)]),
    ])
    .await;
    // The load is spread, so one of the two is asked of the silent one, which takes the request and does nothing.
    let taken = timeout(LONG, silent.accept()).await.unwrap();
    assert!(matches!(taken, Some(Incoming::Peer { plane: Plane::Data, .. })), "{taken:?}");
    loop {
        if let FromWorker::Finished { task, .. } = two.hear().await {
            assert_eq!(task, id(2));
            break;
        }
    }
}

#[tokio::test]
async fn a_worker_asked_to_stop_waits_until_it_is_let_go() {
    let scheduler = Scheduler::new();
    let mut process = scheduler.start_worker("one");
    let mut guest = scheduler.welcome(0).await;
    process.stop();
    assert_eq!(guest.hear().await, FromWorker::Retiring);
    guest.say(vec![ToWorker::Leave { lost: LostResults::default() }]).await;
    assert_eq!(process.end().await.unwrap(), Exit::Left);
    // A report of its state may still be on the way; after that the conversation ends.
    while let Some(frame) = timeout(LONG, guest.receiver.recv()).await.unwrap().unwrap() {
        assert!(frame.iter().all(|message| matches!(message, FromWorker::Status(_))), "only its state: {frame:?}");
    }
}

#[tokio::test]
async fn a_worker_that_is_not_let_go_leaves_in_a_hurry() {
    let scheduler = Scheduler::new();
    let mut process = scheduler.start_worker("one");
    let mut guest = scheduler.welcome(0).await;
    process.stop();
    assert_eq!(guest.hear().await, FromWorker::Retiring);
    assert!(matches!(process.end().await.unwrap(), Exit::Hurried { .. }));
}

#[tokio::test]
async fn refusals_carry_the_schedulers_words() {
    let scheduler = Scheduler::new();
    let process = scheduler.start_worker("one");
    let mut guest = scheduler.guest().await;
    guest.say(vec![ToWorker::Close { reason: "other operators".to_owned() }]).await;
    let error = process.end().await.unwrap_err();
    assert!(error.to_string().contains("refused this worker: other operators"), "{error}");

    let process = scheduler.start_worker("two");
    let guest = scheduler.guest().await;
    guest.connection.close("the name is taken");
    let error = process.end().await.unwrap_err();
    assert!(error.to_string().contains("refused this worker: the name is taken"), "{error}");
}

#[tokio::test]
async fn a_stranger_is_refused_at_once() {
    let scheduler = Scheduler::new();
    let stranger = Authority::throw_away().unwrap();
    let mut config = WorkerConfig::new(scheduler.endpoint.local_addr().unwrap(), 1);
    config.patience = LONG * 6;
    let identity = Identity::issue(&stranger, Role::Worker, "stranger").unwrap();
    let ended = timeout(LONG, run(config, identity, Arc::new(Registry::new()), std::future::pending())).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::Refused { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_lost_scheduler_is_looked_for_and_registered_with_afresh() {
    let mut scheduler = Scheduler::new();
    let address = scheduler.endpoint.local_addr().unwrap();
    let mut process = scheduler.start_worker("one");
    let mut guest = scheduler.welcome(0).await;
    guest.say(vec![run_message(0, vec![])]).await;
    assert!(matches!(guest.hear().await, FromWorker::Finished { .. }));
    let data_address = guest.hello.data_address;
    scheduler.endpoint.shut_down("gone for a while").await;
    drop(guest);
    // The port is free once the last handle of the old endpoint has gone.
    let placeholder = scheduler_endpoint(&scheduler.authority, ([127, 0, 0, 1], 0).into());
    drop(std::mem::replace(&mut scheduler.endpoint, placeholder));
    let until = Instant::now() + LONG;
    scheduler.endpoint = loop {
        let identity = Identity::issue(&scheduler.authority, Role::Scheduler, "scheduler").unwrap();
        match Endpoint::bind(address, &identity, &[Plane::Worker]) {
            Ok(endpoint) => break endpoint,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut guest = scheduler.welcome(8).await;
    assert_eq!(guest.hello.data_address, data_address, "the socket stays");
    guest.say(vec![run_message(1, vec![input(0, Part::WHOLE, 8)])]).await;
    let answer = guest.hear().await;
    assert!(matches!(answer, FromWorker::InputLost { input, .. } if input == id(0)), "the store is empty: {answer:?}");
    process.stop();
    assert_eq!(guest.hear().await, FromWorker::Retiring);
    drop(guest);
    assert!(matches!(process.end().await.unwrap(), Exit::Hurried { .. }));
}

#[tokio::test]
async fn a_scheduler_that_never_comes_is_an_error_in_time() {
    let authority = Authority::throw_away().unwrap();
    let mut config = WorkerConfig::new("127.0.0.1:9", 1);
    config.patience = Duration::ZERO;
    let identity = Identity::issue(&authority, Role::Worker, "early").unwrap();
    let ended = run(config, identity, Arc::new(Registry::new()), std::future::pending());
    let ended = pin!(timeout(LONG, ended)).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::NoScheduler { .. })), "{ended:?}");
}

/// A peer that may watch, one that claims to be another, and one that shows another's pass.
#[tokio::test]
async fn news_of_results_are_for_who_has_the_schedulers_pass() {
    let scheduler = Scheduler::new();
    let process = scheduler.start_worker("one");
    let mut one = scheduler.welcome(0).await;
    let address = one.hello.data_address;
    let peer = |name: &str| Identity::issue(&scheduler.authority, Role::Worker, name).unwrap();
    let (honest, thief) = (peer("five"), peer("five"));
    let pass = secret().for_worker(WorkerId(0)).passes.pass(WorkerId(5), honest.peer().key);
    let hello = WatchHello { epoch: Epoch(1), watcher: WorkerId(5), maker: WorkerId(0), pass };
    let cases = [
        (&thief, hello),
        (&honest, WatchHello { watcher: WorkerId(6), ..hello }),
        (&honest, WatchHello { pass: Grant::default(), ..hello }),
        (&honest, WatchHello { pass: secret().for_worker(WorkerId(1)).passes.pass(WorkerId(5), honest.peer().key), ..hello }),
    ];
    let wanted = PartRequest { task: id(0), attempt: Attempt(1), part: Part::WHOLE };
    let watch_as = async |identity: &Identity, hello: WatchHello| {
        let endpoint = Endpoint::for_connecting_to(address, identity).unwrap();
        let connection = endpoint.connect(address, Plane::Data, ExpectedPeer::named(Role::Worker, "one")).await.unwrap();
        let watch = Watch::default();
        watch.watch(&[wanted]).unwrap();
        let (heard_in, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let registry = Registry::new();
        let ended = watch.run(&connection, hello, &registry, |item, _news| heard_in.send(item).unwrap());
        let first = tokio::select! {
            item = heard.recv() => item,
            _ended = ended => None,
        };
        (first, connection.close_reason().map(|reason| reason.to_string()), endpoint)
    };
    for (identity, hello) in cases {
        let (heard, reason, _endpoint) = timeout(LONG, watch_as(identity, hello)).await.unwrap();
        assert_eq!(heard, None);
        assert!(reason.is_some_and(|reason| reason.contains("not the scheduler's wish")), "{hello:?}");
    }
    one.say(vec![run_message(0, vec![])]).await;
    assert!(matches!(one.hear().await, FromWorker::Finished { .. }));
    let (heard, ..) = timeout(LONG, watch_as(&honest, hello)).await.unwrap();
    assert_eq!(heard, Some(wanted));
    drop(process);
}

/// What a worker holds is not for whoever asks, be it a worker of the cluster.
#[tokio::test]
async fn results_are_for_who_shows_the_graphs_grant() {
    let scheduler = Scheduler::new();
    let process = scheduler.start_worker("one");
    let mut one = scheduler.welcome(0).await;
    one.say(vec![run_message(0, vec![])]).await;
    assert!(matches!(one.hear().await, FromWorker::Finished { .. }));
    let key = secret().for_worker(WorkerId(9)).grants;
    let wanted = PartRequest { task: id(0), attempt: Attempt(1), part: Part::WHOLE };
    for role in [Role::Client, Role::Admin, Role::Worker] {
        let identity = Identity::issue(&scheduler.authority, role, "asker").unwrap();
        let endpoint = Endpoint::for_connecting_to(one.hello.data_address, &identity).unwrap();
        let expected = ExpectedPeer::named(Role::Worker, "one");
        let connection = endpoint.connect(one.hello.data_address, Plane::Data, expected).await.unwrap();
        for (grant, is_right) in [(key.grant(GRAPH), true), (key.grant(GraphId(2)), false), (Grant::default(), false)] {
            let grants = Grants::given([(GRAPH, grant)]);
            let mut came = None;
            rask_comm::fetch(&connection, &grants, &[wanted], &Registry::new(), |_, outcome| came = Some(outcome)).await;
            match came.expect("an answer") {
                Ok(_) => assert!(is_right, "{role}"),
                Err(error) => assert!(!is_right && error == rask_comm::FetchError::NotThere, "{role}: {error}"),
            }
        }
    }
    drop(process);
}
