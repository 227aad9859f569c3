//! Who may do what, on a cluster of daemons: two people with tokens, a viewer, an admin, and workers that are not what they say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rask::{Client, ConnectOptions, JobError, SubmitError};
use rask_comm::message::{FromWorker, PROTOCOL_VERSION, StatusReport, SubmitOptions, ToWorker, WorkerHello};
use rask_comm::{
    Connection, Endpoint, ExpectedPeer, FetchError, Grant, Grants, Identity, PartRequest, Plane, Role, SecretKey, StateDir,
    Token, Watch, WatchHello, join_cluster,
};
use rask_graphs::{Attempt, Epoch, FinishOptions, Graph, GraphBuilder, GraphId, Part, Registry, TaskId, TaskIdx, Value};
use tokio::time::timeout;

use crate::support::{Cluster, Ended, PATIENCE, Place, Running};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn token(place: &Place, role: &str, name: &str) -> String {
    let made = place.run(["token", "create", "--role", role, "--name", name]);
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout.trim().to_owned()
}

/// A person with nothing but a token.
async fn person(place: &Place, cluster: &Cluster, token: &str) -> Client {
    let options = ConnectOptions {
        scheduler: cluster.address.clone(),
        state_dir: StateDir::at(place.path("nothing here")),
        token: Some(token.to_owned()),
        registry: Arc::new(Registry::new()),
        weight: 1.0,
    };
    Client::connect(options).await.unwrap()
}

/// The program, as such a person runs it.
fn run_as(place: &Place, cluster: &Cluster, token: &str, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command.args(["--scheduler", &cluster.address]).env("RASK_STATE_DIR", place.path("nothing here")).env("RASK_TOKEN", token);
    Running::start(command).end()
}

fn graph(operator: &str, args: &str) -> Graph {
    let mut graph = GraphBuilder::new();
    let task = graph.task("x", operator, 1, args).add();
    graph.output(task);
    graph.finish(&FinishOptions::default()).unwrap().graph
}

fn detached() -> SubmitOptions {
    SubmitOptions { name: "secret".to_owned(), detached: true, ..SubmitOptions::default() }
}

async fn status_when(client: &Client, is_so: impl Fn(&StatusReport) -> bool) -> StatusReport {
    let begun = Instant::now();
    loop {
        let report = client.status().await.unwrap();
        if is_so(&report) {
            return report;
        }
        assert!(begun.elapsed() < PATIENCE, "still {report:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn member(cluster: &Cluster, token: &str, role: Role, name: &str) -> Identity {
    let token: Token = token.parse().unwrap();
    join_cluster(cluster.address.parse().unwrap(), &token, role, name).await.unwrap()
}

async fn data_plane(identity: &Identity, address: SocketAddr) -> Result<(Endpoint, Connection), String> {
    let endpoint = Endpoint::for_connecting_to(address, identity).unwrap();
    let connected = endpoint.connect(address, Plane::Data, ExpectedPeer::any(Role::Worker)).await;
    connected.map(|connection| (endpoint, connection)).map_err(|error| error.to_string())
}

async fn guess(connection: &Connection, grants: &Grants, graph: GraphId) -> Vec<FetchError> {
    let items: Vec<PartRequest> = (0..8)
        .flat_map(|idx| (1..3).map(move |attempt| (idx, attempt)))
        .map(|(idx, attempt)| PartRequest {
            task: TaskId::new(graph, TaskIdx(idx)),
            attempt: Attempt(attempt),
            part: Part::WHOLE,
        })
        .collect();
    let mut told = Vec::new();
    rask_comm::fetch(connection, grants, &items, &Registry::new(), |_, outcome| told.push(outcome.unwrap_err())).await;
    assert_eq!(told.len(), items.len());
    told
}

#[test]
fn one_persons_graph_is_nobody_elses() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1);
    let (alice, mallory) = (token(&place, "client", "alice"), token(&place, "client", "mallory"));
    block_on(async {
        let first = person(&place, &cluster, &alice).await;
        let job = first.submit(graph("core.noop", "{}"), detached()).await.unwrap();
        job.wait().await.unwrap();
        let id = job.id();
        drop((job, first));

        let thief = person(&place, &cluster, &mallory).await;
        let report = status_when(&thief, |report| report.n_clients == 1).await;
        assert!(report.graphs.is_empty() && report.n_other_graphs == 1, "{report:?}");
        assert!(!thief.cancel(id).await.unwrap());
        for graph in [id, GraphId(4711)] {
            let Err(SubmitError::Rejected(reason)) = thief.attach(graph).await else { panic!("attached to {graph}") };
            assert!(reason.starts_with(&format!("there is no graph {graph}, or no more")), "{reason}");
        }
        assert!(thief.gather(TaskId::new(id, TaskIdx(0))).await.is_err());

        // At the worker itself: with numbers, and with a grant for a graph of the thief's own.
        let own = thief.submit(graph("core.noop", "{}"), SubmitOptions::default()).await.unwrap();
        own.wait().await.unwrap();
        let identity = member(&cluster, &mallory, Role::Client, "whatever").await;
        assert_eq!(identity.name(), "mallory");
        let (_endpoint, connection) = data_plane(&identity, report.workers[0].address).await.unwrap();
        for grants in [Grants::default(), Grants::given([(id, Grant::default())]), SecretKey::default().grants_of(&[request(id)])]
        {
            assert!(guess(&connection, &grants, id).await.iter().all(|error| *error == FetchError::NotThere));
        }

        // She comes back and finds what is hers.
        let again = person(&place, &cluster, &alice).await;
        let job = again.attach(id).await.unwrap();
        job.wait().await.unwrap();
        let value: Value = again.gather(TaskId::new(id, TaskIdx(0))).await.unwrap();
        assert_eq!(value.kind(), "bytes");
        assert!(again.cancel(id).await.unwrap());
    });
}

fn request(graph: GraphId) -> PartRequest {
    PartRequest { task: TaskId::new(graph, TaskIdx(0)), attempt: Attempt(1), part: Part::WHOLE }
}

#[test]
fn viewers_look_and_admins_end() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1);
    let (alice, bob) = (token(&place, "client", "alice"), token(&place, "client", "bob"));
    let (wall, ops) = (token(&place, "viewer", "wall"), token(&place, "admin", "ops"));
    let (job, _client) = block_on(async {
        let client = person(&place, &cluster, &alice).await;
        let options = SubmitOptions { detached: false, ..detached() };
        (client.submit(graph("core.sleep", r#"{"seconds": 600.0}"#), options).await.unwrap(), client)
    });
    let id = job.id().to_string();

    let seen = run_as(&place, &cluster, &wall, &["status"]);
    assert!(seen.code == Some(0) && seen.stdout.contains("alice") && seen.stdout.contains(&id), "{seen:?}");
    let hers = run_as(&place, &cluster, &alice, &["status", "--json"]).json();
    assert_eq!((&hers["graphs"][0]["id"], &hers["n_other_graphs"]), (&id.as_str().into(), &0.into()));
    let his = run_as(&place, &cluster, &bob, &["status"]);
    assert!(!his.stdout.contains("secret") && his.stdout.contains("1 graph of others"), "{his:?}");

    for (token, code, words) in [(&bob, 1, "there is no graph"), (&wall, 3, "a viewer may only look at the status")] {
        let refused = run_as(&place, &cluster, token, &["cancel", &id]);
        assert!(refused.code == Some(code) && refused.stderr.contains(words), "{refused:?}");
    }
    let worker = token(&place, "worker", "w");
    let refused = run_as(&place, &cluster, &worker, &["status"]);
    assert!(refused.code == Some(3) && refused.stderr.contains("the token is for a worker"), "{refused:?}");
    block_on(async {
        // Viewers have nothing to fetch, so nobody talks to them about results.
        let address = cluster.status(&place)["workers"][0]["address"].as_str().unwrap().parse().unwrap();
        let viewer = member(&cluster, &wall, Role::Viewer, "v").await;
        let reason = data_plane(&viewer, address).await.err().unwrap();
        assert!(reason.contains("viewer"), "{reason}");
    });

    let ended = run_as(&place, &cluster, &ops, &["cancel", &id]);
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), format!("cancelled {id}").as_str()), "{ended:?}");
    let Err(JobError::Failed(failure)) = block_on(job.wait()) else { panic!("it was cancelled") };
    assert_eq!(failure.message, "the graph was cancelled by admin \"ops\"");
}

/// A worker of `name`, until it ends.
fn worker(place: &Place, cluster: &Cluster, name: &str) -> Running {
    Running::start(place.command(["--log", "warn", "worker", "--scheduler", &cluster.address, "--threads", "1", "--name", name]))
}

#[test]
fn a_name_is_one_worker() {
    let place = Place::new();
    let mut cluster = Cluster::start(&place, 1);
    let second = worker(&place, &cluster, "w0");
    // It is not let in while the first one lives, and is once that has been killed.
    std::thread::sleep(Duration::from_secs(2));
    let status = cluster.status(&place);
    assert_eq!(status["workers"].as_array().unwrap().len(), 1, "{status}");
    let first = status["workers"][0]["id"].clone();
    drop(cluster.workers.remove(0));
    cluster.wait_until(&place, |status| {
        status["workers"].as_array().is_some_and(|workers| workers.len() == 1 && workers[0]["id"] != first)
    });
    second.signal("KILL");
    let log = second.end().stderr;
    assert!(
        log.contains("a worker named \\\"w0\\\" is there already") || log.contains("a worker named \"w0\" is there already"),
        "{log}"
    );
}

fn hello(name: &str) -> WorkerHello {
    WorkerHello {
        version: PROTOCOL_VERSION,
        name: name.to_owned(),
        n_slots: 1,
        memory_limit: 1 << 30,
        resources: Vec::new(),
        data_address: "127.0.0.1:1".parse().unwrap(),
        host: "nowhere".to_owned(),
        registry_fingerprint: 0,
    }
}

/// What the scheduler says to a worker with this token that says this of itself.
async fn introduce(
    cluster: &Cluster,
    identity: &Identity,
    change: impl FnOnce(&mut WorkerHello),
) -> (Result<ToWorker, String>, impl Sized) {
    let address: SocketAddr = cluster.address.parse().unwrap();
    let endpoint = Endpoint::for_connecting_to(address, identity).unwrap();
    let connection = endpoint.connect(address, Plane::Worker, ExpectedPeer::any(Role::Scheduler)).await.unwrap();
    let (mut sender, mut receiver) = connection.open_control::<FromWorker, ToWorker>().await.unwrap();
    let mut hello = hello(identity.name());
    change(&mut hello);
    sender.send_hello(&hello).await.unwrap();
    let answer = match timeout(PATIENCE, receiver.recv()).await.expect("an answer") {
        Ok(Some(messages)) => Ok(messages[0].clone()),
        Ok(None) | Err(_) => Err(connection.closed().await.to_string()),
    };
    // Whoever lets go of its streams leaves.
    (answer, (connection, endpoint, sender, receiver))
}

#[test]
fn a_workers_claims_are_bounded() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    let token = token(&place, "worker", "rack");
    type Change = fn(&mut WorkerHello);
    let cases: [(Change, &str); 7] = [
        (|hello| hello.n_slots = 65_536, "1 to 1024"),
        (|hello| hello.memory_limit = u64::MAX, "memory limit"),
        (|hello| hello.resources = vec![("gpu".to_owned(), 1.0); 65], "at most 64"),
        (|hello| hello.resources = vec![("g".repeat(1_000), 1.0)], "name of a resource"),
        (|hello| hello.host = "h".repeat(1_000), "host"),
        (|hello| hello.data_address = "192.0.2.1:53".parse().unwrap(), "--believe-addresses"),
        (|hello| hello.name = "another".to_owned(), "calls itself"),
    ];
    block_on(async {
        let identity = member(&cluster, &token, Role::Worker, "claimer").await;
        for (change, words) in cases {
            let (answer, ..) = introduce(&cluster, &identity, change).await;
            let reason = answer.unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
        let (first, _stays) = introduce(&cluster, &identity, |_| ()).await;
        assert!(matches!(first, Ok(ToWorker::Welcome { .. })), "{first:?}");
        // Others are to have the same operators.
        let other = member(&cluster, &token, Role::Worker, "other").await;
        let (answer, ..) = introduce(&cluster, &other, |hello| hello.registry_fingerprint = 1).await;
        let reason = answer.unwrap_err();
        assert!(reason.contains("operators"), "{reason}");
        // Another certificate of the name is another worker; the same one, come again, takes its own place.
        let namesake = member(&cluster, &token, Role::Worker, "claimer").await;
        let (answer, ..) = introduce(&cluster, &namesake, |_| ()).await;
        assert!(answer.unwrap_err().contains("is there already"));
        let (again, _stays_too) = introduce(&cluster, &identity, |_| ()).await;
        assert!(matches!(again, Ok(ToWorker::Welcome { .. })), "{again:?}");
        cluster.wait_until(&place, |status| status["workers"].as_array().is_some_and(|workers| workers.len() == 1));
    });
}

#[test]
fn a_workers_certificate_alone_gets_nothing_and_speaks_for_nobody() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2);
    let token = token(&place, "worker", "rack");
    let alice = self::token(&place, "client", "alice");
    block_on(async {
        let client = person(&place, &cluster, &alice).await;
        let job = client.submit(graph("core.noop", "{}"), detached()).await.unwrap();
        job.wait().await.unwrap();
        let report = client.status().await.unwrap();
        // With the very name of a worker that is there.
        let impostor = member(&cluster, &token, Role::Worker, "w0").await;
        for victim in &report.workers {
            let (_endpoint, connection) = data_plane(&impostor, victim.address).await.unwrap();
            for grants in [Grants::default(), SecretKey::default().grants_of(&[request(job.id())])] {
                let told = guess(&connection, &grants, job.id()).await;
                assert!(told.iter().all(|error| *error == FetchError::NotThere), "{told:?}");
            }
            for watcher in &report.workers {
                let (_endpoint, connection) = data_plane(&impostor, victim.address).await.unwrap();
                let watch = Watch::default();
                watch.watch(&[request(GraphId(9))]).unwrap();
                let epoch = Epoch(1);
                let hello = WatchHello { epoch, watcher: watcher.worker, maker: victim.worker, pass: Grant::default() };
                let ended = timeout(PATIENCE, watch.run(&connection, hello, &Registry::new(), |_, _| ())).await;
                let _ = ended.expect("it is refused");
                let reason = timeout(PATIENCE, connection.closed()).await.expect("its connection is closed").to_string();
                assert!(reason.contains("not the scheduler's wish"), "{reason}");
            }
        }
    });
}

#[test]
fn a_worker_that_tells_nothing_is_dropped() {
    let place = Place::new();
    block_on(async {
        let state = StateDir::at(place.path("state"));
        let mut config = rask_scheduler::server::SchedulerConfig::new("127.0.0.1:0".parse().unwrap(), state.clone());
        config.silence_limit = Duration::from_secs(2);
        let (ready_in, ready) = tokio::sync::oneshot::channel();
        let on_ready = |address| ready_in.send(address).unwrap();
        tokio::spawn(rask_scheduler::server::run(config, on_ready, std::future::pending()));
        let address = timeout(PATIENCE, ready).await.unwrap().unwrap();
        let authority = rask_comm::Authority::open(&state).unwrap();
        // The network is alive in both; one of them tells its state.
        for (tells, is_dropped) in [(false, true), (true, false)] {
            let identity = Identity::issue(&authority, Role::Worker, "w").unwrap();
            let endpoint = Endpoint::for_connecting_to(address, &identity).unwrap();
            let connection = endpoint.connect(address, Plane::Worker, ExpectedPeer::any(Role::Scheduler)).await.unwrap();
            let (mut sender, _receiver) = connection.open_control::<FromWorker, ToWorker>().await.unwrap();
            sender.send_hello(&hello("w")).await.unwrap();
            let talk = async {
                loop {
                    if tells && sender.send(&[FromWorker::Status(Box::default())]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            let ended = tokio::select! {
                reason = connection.closed() => Some(reason.to_string()),
                () = talk => None,
                () = tokio::time::sleep(Duration::from_secs(5)) => None,
            };
            assert_eq!(ended.is_some(), is_dropped, "{ended:?}");
            if let Some(reason) = ended {
                assert!(reason.contains("has not told its state for 2 s"), "{reason}");
            }
        }
    });
}
