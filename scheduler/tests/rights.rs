//! Who may do what, tried by clients that would do more: every attempt is answered as if there were nothing there.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that meets the unexpected shall fail")]

use rask_comm::message::{
    ClientHello, FailureKind, FromClient, FromWorker, PROTOCOL_VERSION, Spread, StatusReport, SubmitOptions, ToClient, ToWorker,
};
use rask_comm::time::Time;
use rask_comm::{KeyId, Origin, PeerIdentity, Role, SecretKey, Ticket, TokenId};
use rask_graphs::{
    Attempt, ClientId, FinishOptions, Graph, GraphBuilder, GraphId, Part, Source, TaskId, TaskIdx, TaskOptions, WorkerId,
};
use rask_scheduler::machine::{Actions, Config, Event, GraphEnd, Machine, Note};

mod common;

const WORKER: WorkerId = WorkerId(0);

fn holder_of(role: Role, name: &str) -> PeerIdentity {
    PeerIdentity { role, name: name.to_owned(), origin: Origin::Token(TokenId([3; 10])), key: KeyId::default() }
}

/// A scheduler, one worker that finishes whatever it is given, and clients.
struct Stage {
    machine: Machine,
    n_clients: u32,
    closed: Vec<(ClientId, String)>,
    notes: Vec<Note>,
    /// Runs are kept and not finished.
    holds_runs: bool,
    to_worker: Vec<ToWorker>,
}

impl Stage {
    fn new() -> Self {
        let config = Config { secret: SecretKey::random().unwrap(), ..Config::default() };
        let machine = Machine::new(config);
        let (closed, notes, to_worker) = (Vec::new(), Vec::new(), Vec::new());
        let mut stage = Self { machine, n_clients: 0, closed, notes, holds_runs: false, to_worker };
        let hello = common::hello(WORKER, "w", 4, &[]);
        stage.event(Event::WorkerJoined { worker: WORKER, hello, key: KeyId([1; 16]) });
        stage
    }

    fn event(&mut self, event: Event) -> Vec<(ClientId, ToClient)> {
        let (mut told, mut events) = (Vec::new(), vec![event]);
        while let Some(event) = events.pop() {
            let mut out = Actions::default();
            self.machine.handle(Time::default(), event, &mut out);
            self.machine.validate();
            told.extend(out.to_clients.into_iter().flat_map(|(to, said)| said.into_iter().map(move |message| (to, message))));
            self.closed.extend(out.close_clients);
            self.notes.extend(out.notes);
            for message in out.to_workers.into_values().flatten() {
                if let (ToWorker::Run(run), false) = (&message, self.holds_runs) {
                    let (task, attempt) = (run.task, run.attempt);
                    let message = FromWorker::Finished { task, attempt, nbytes: 8, n_parts: 0, duration_us: 1 };
                    events.push(Event::WorkerSaid { worker: WORKER, message });
                }
                self.to_worker.push(message);
            }
        }
        told
    }

    fn client(&mut self, peer: PeerIdentity) -> ClientId {
        let client = ClientId(self.n_clients);
        self.n_clients += 1;
        let hello = ClientHello { version: PROTOCOL_VERSION, name: "host".to_owned(), weight: 1.0 };
        self.event(Event::ClientJoined { client, hello, peer });
        client
    }

    fn say(&mut self, client: ClientId, message: FromClient) -> Vec<(ClientId, ToClient)> {
        self.event(Event::ClientSaid { client, message })
    }

    fn submit(&mut self, client: ClientId, detached: bool) -> GraphId {
        let options = SubmitOptions { name: "secret plan".to_owned(), priority: 0, detached };
        let told = self.say(client, FromClient::Submit { request: 1, graph: Box::new(graph(None)), options });
        let accepted = told.into_iter().find_map(|(_, message)| match message {
            ToClient::Accepted { graph, .. } => Some(graph),
            _ => None,
        });
        accepted.expect("the graph is accepted")
    }

    fn status(&mut self, client: ClientId) -> StatusReport {
        let told = self.say(client, FromClient::Status { request: 1 });
        let report = told.into_iter().find_map(|(_, message)| match message {
            ToClient::Status { report, .. } => Some(*report),
            _ => None,
        });
        report.expect("an answer")
    }

    fn sees(&mut self, client: ClientId) -> Vec<GraphId> {
        self.status(client).graphs.iter().map(|report| report.graph).collect()
    }

    fn cancels(&mut self, client: ClientId, graph: GraphId) -> bool {
        let told = self.say(client, FromClient::Cancel { request: 9, graph });
        told.iter().any(|(to, message)| *to == client && *message == ToClient::Cancelled { request: 9, was_known: true })
    }
}

fn graph(external: Option<TaskId>) -> Graph {
    let mut graph = GraphBuilder::new();
    let task = match external {
        Some(external) => {
            let external = graph.external(external);
            graph.task("x", "core.noop", 1, "{}").input_from(Source::External(external), Part::WHOLE).add()
        }
        None => graph.task("x", "core.noop", 1, "{}").add(),
    };
    graph.output(task);
    graph.finish(&FinishOptions::default()).unwrap().graph
}

fn output(graph: GraphId) -> TaskId {
    TaskId::new(graph, TaskIdx(0))
}

/// Everything that a client can say with a graph in it.
fn attempts(graph: GraphId) -> Vec<FromClient> {
    let task = output(graph);
    let options = SubmitOptions::default();
    vec![
        FromClient::Attach { request: 9, graph },
        FromClient::Cancel { request: 9, graph },
        FromClient::Release { tasks: vec![task] },
        FromClient::Locate { tasks: vec![task] },
        FromClient::FetchFailed { task, worker: WORKER },
        FromClient::NotUploaded { task, attempt: Attempt(1), is_final: true, reason: "no".to_owned() },
        FromClient::Submit { request: 9, graph: Box::new(self::graph(Some(task))), options },
    ]
}

/// An answer without the number of the graph that was asked for.
fn anonymous(told: &[(ClientId, ToClient)], graph: GraphId) -> String {
    format!("{told:?}").replace(&format!("{graph:?}"), "?").replace(&graph.to_string(), "?")
}

#[test]
fn what_is_somebody_elses_is_as_what_does_not_exist() {
    for detached in [false, true] {
        for said in 0..attempts(GraphId(0)).len() {
            let mut stage = Stage::new();
            let (alice, mallory) =
                (stage.client(holder_of(Role::Client, "alice")), stage.client(holder_of(Role::Client, "mallory")));
            let graph = stage.submit(alice, detached);
            if detached {
                stage.event(Event::ClientLost { client: alice });
            }
            let before = stage.machine.task_state(output(graph));
            let nothing = GraphId(77);
            let to_nothing = stage.say(mallory, attempts(nothing).remove(said));
            let to_hers = stage.say(mallory, attempts(graph).remove(said));
            assert!(to_hers.iter().all(|(to, _)| *to == mallory), "{to_hers:?}");
            assert_eq!(anonymous(&to_hers, graph), anonymous(&to_nothing, nothing), "{:?}", attempts(graph)[said]);
            assert_eq!(stage.machine.task_state(output(graph)), before, "{:?}", attempts(graph)[said]);
            assert_eq!(stage.machine.who_has(output(graph)), [WORKER]);
            assert!(stage.sees(mallory).is_empty());
        }
    }
}

#[test]
fn a_client_sees_its_own_and_how_many_others_there_are() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.client(holder_of(Role::Client, "alice")), stage.client(holder_of(Role::Client, "bob")));
    let (hers, his) = (stage.submit(alice, false), stage.submit(bob, false));
    let report = stage.status(alice);
    assert_eq!(report.graphs.iter().map(|report| report.graph).collect::<Vec<_>>(), [hers]);
    assert_eq!((report.n_other_graphs, report.workers.len(), report.n_clients), (1, 1, 2));
    assert_eq!(report.graphs[0].owner.as_deref(), Some("alice"));
    for (role, name) in [(Role::Viewer, "wall"), (Role::Admin, "ops")] {
        let who = stage.client(holder_of(role, name));
        assert_eq!(stage.sees(who), [hers, his]);
        assert_eq!(stage.status(who).n_other_graphs, 0);
    }
    let local = stage.client(PeerIdentity::local(Role::Client, "root"));
    assert_eq!(stage.sees(local), [hers, his]);
}

#[test]
fn what_others_tasks_wait_for_is_not_told() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.client(holder_of(Role::Client, "alice")), stage.client(holder_of(Role::Client, "bob")));
    let mut graph = GraphBuilder::new();
    let task = graph
        .task("x", "core.noop", 1, "{}")
        .options(TaskOptions { resources: vec![("the codename".to_owned(), 1.0)], ..TaskOptions::default() })
        .add();
    graph.output(task);
    let graph = Box::new(graph.finish(&FinishOptions::default()).unwrap().graph);
    stage.say(alice, FromClient::Submit { request: 1, graph, options: SubmitOptions::default() });
    assert_eq!(stage.status(alice).unmet.len(), 1);
    assert!(stage.status(bob).unmet.is_empty());
}

#[test]
fn own_outlives_connections_and_tokens() {
    let mut stage = Stage::new();
    let first = stage.client(holder_of(Role::Client, "alice"));
    let graph = stage.submit(first, true);
    stage.event(Event::ClientLost { client: first });
    // Another token of the name.
    let again = PeerIdentity { origin: Origin::Token(TokenId([8; 10])), ..holder_of(Role::Client, "alice") };
    let again = stage.client(again);
    assert_eq!(stage.sees(again), [graph]);
    let told = stage.say(again, FromClient::Attach { request: 2, graph });
    assert!(told.contains(&(again, ToClient::Accepted { request: 2, graph })), "{told:?}");
    // A second connection of hers is told the truth, and may end it.
    let other = stage.client(holder_of(Role::Client, "alice"));
    let told = stage.say(other, FromClient::Attach { request: 3, graph });
    assert!(matches!(&told[..], [(_, ToClient::Rejected { reason, .. })] if reason.contains("is followed by")), "{told:?}");
    assert!(stage.cancels(other, graph));
    // The cluster's own user is one owner, and none of the names.
    let local = stage.client(PeerIdentity::local(Role::Client, "alice"));
    let graph = stage.submit(local, true);
    stage.event(Event::ClientLost { client: local });
    let told = stage.say(again, FromClient::Attach { request: 4, graph });
    assert!(matches!(&told[..], [(_, ToClient::Rejected { .. })]), "{told:?}");
    let local = stage.client(PeerIdentity::local(Role::Client, "another process"));
    let told = stage.say(local, FromClient::Attach { request: 5, graph });
    assert!(told.contains(&(local, ToClient::Accepted { request: 5, graph })), "{told:?}");
}

#[test]
fn a_viewer_that_does_more_than_look_is_shown_out() {
    let ticket = Ticket([1; 16]);
    let scatter =
        FromClient::Scatter { request: 9, nbytes: vec![1], ticket, spread: Spread::default(), options: SubmitOptions::default() };
    for message in attempts(GraphId(0)).into_iter().chain([scatter]) {
        let mut stage = Stage::new();
        let alice = stage.client(holder_of(Role::Client, "alice"));
        let graph = stage.submit(alice, true);
        let viewer = stage.client(holder_of(Role::Viewer, "wall"));
        assert_eq!(stage.sees(viewer), [graph]);
        let told = stage.say(viewer, message.clone());
        assert!(told.is_empty(), "{message:?}: {told:?}");
        let [(closed, reason)] = &stage.closed[..] else { panic!("{message:?}: {:?}", stage.closed) };
        assert_eq!((*closed, reason.as_str()), (viewer, "a viewer may only look at the status"));
        assert!(stage.notes.contains(&Note::Overstepped { by: holder_of(Role::Viewer, "wall") }));
        // What else was in the frame is not heard.
        assert!(stage.say(viewer, FromClient::Status { request: 1 }).is_empty());
        stage.event(Event::ClientLost { client: viewer });
        assert_eq!(stage.sees(alice), [graph]);
    }
}

#[test]
fn who_cancelled_is_told_and_noted() {
    let by_admin = (holder_of(Role::Admin, "ops"), "the graph was cancelled by admin \"ops\"");
    let by_local = (PeerIdentity::local(Role::Client, "root"), "the graph was cancelled by client \"root\"");
    let by_herself = (holder_of(Role::Client, "alice"), "the graph was cancelled by client \"alice\"");
    for (by, words) in [by_admin, by_local, by_herself] {
        let mut stage = Stage::new();
        stage.holds_runs = true;
        let alice = stage.client(holder_of(Role::Client, "alice"));
        let graph = stage.submit(alice, false);
        let other = stage.client(by.clone());
        let told = stage.say(other, FromClient::Cancel { request: 9, graph });
        let failure = told.iter().find_map(|(to, message)| match message {
            ToClient::TaskFailed { failure, .. } if *to == alice => Some(failure),
            _ => None,
        });
        let failure = failure.expect("its owner hears of it");
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Cancelled, words));
        assert!(told.contains(&(other, ToClient::Cancelled { request: 9, was_known: true })), "{told:?}");
        let name = "secret plan".to_owned();
        let is_told = |note: &Note| matches!(note, Note::GraphEnded { graph: id, end: GraphEnd::Cancelled { by: who }, .. } if *id == graph && *who == by.to_string());
        assert!(stage.notes.iter().any(is_told), "{:?}", stage.notes);
        let client = holder_of(Role::Client, "alice").to_string();
        let n_tasks = 1;
        assert_eq!(stage.notes[0], Note::GraphAccepted { graph, name, client, n_tasks });
    }
}

#[test]
fn an_admin_ends_graphs_and_does_not_take_them_over() {
    let mut stage = Stage::new();
    let alice = stage.client(holder_of(Role::Client, "alice"));
    let graph = stage.submit(alice, true);
    stage.event(Event::ClientLost { client: alice });
    let admin = stage.client(holder_of(Role::Admin, "ops"));
    let told = stage.say(admin, FromClient::Attach { request: 2, graph });
    assert!(matches!(&told[..], [(_, ToClient::Rejected { .. })]), "{told:?}");
    let told = stage.say(admin, FromClient::Locate { tasks: vec![output(graph)] });
    assert!(matches!(&told[..], [(_, ToClient::TaskFailed { .. })]), "{told:?}");
    assert!(stage.cancels(admin, graph));
    assert_eq!(stage.machine.n_graphs(), 0);
}

#[test]
fn a_grant_is_given_with_what_it_opens() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.client(holder_of(Role::Client, "alice")), stage.client(holder_of(Role::Client, "bob")));
    let mut grants = Vec::new();
    for client in [alice, bob] {
        let graph = stage.submit(client, false);
        let told = stage.say(client, FromClient::Locate { tasks: vec![output(graph)] });
        let [(_, ToClient::Located { grant, .. })] = &told[..] else { panic!("{told:?}") };
        grants.push((graph, *grant));
    }
    let keys = stage.to_worker.iter().find_map(|message| match message {
        ToWorker::Welcome { keys, .. } => Some(keys.grants),
        _ => None,
    });
    let key = keys.expect("the worker was welcomed");
    for (graph, grant) in &grants {
        assert!(key.opens(*graph, grant));
    }
    assert!(!key.opens(grants[0].0, &grants[1].1) && !key.opens(grants[1].0, &grants[0].1));
}
