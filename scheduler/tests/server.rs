//! The scheduler as a daemon on loopback, and clients that ask for too much.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail, helpers included")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rask_comm::authority::{Authority, StateDir};
use rask_comm::limits::{HELLO_TIMEOUT, MAX_STATUS_REQUESTS, NAME_NBYTES, VIEWER_FRAME_NBYTES};
use rask_comm::message::{ClientHello, FromClient, PROTOCOL_VERSION, SubmitOptions, ToClient};
use rask_comm::{Connection, ControlReceiver, ControlSender, Endpoint, ExpectedPeer, Identity, Plane, Role};
use rask_graphs::{FinishOptions, GraphBuilder};
use rask_scheduler::server::{SchedulerConfig, run};
use tokio::sync::oneshot;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

/// A scheduler, until it is dropped.
struct Daemon {
    _directory: tempfile::TempDir,
    authority: Authority,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

/// A client of it, and the endpoint that it connected from.
struct Guest {
    _endpoint: Endpoint,
    connection: Connection,
    sender: ControlSender<FromClient>,
    receiver: ControlReceiver<ToClient>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path().join("state"));
        let authority = Authority::open_or_create(&state).unwrap();
        let (ready, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let config = SchedulerConfig::new(([127, 0, 0, 1], 0).into(), state);
            let stopped = async { drop(stopped.await) };
            runtime.block_on(run(config, move |address| ready.send(address).unwrap(), stopped)).unwrap();
        });
        Self { _directory: directory, authority, address: address.recv().unwrap(), stop: Some(stop) }
    }

    async fn connect(&self, role: Role, name: &str) -> (Endpoint, Connection) {
        let identity = Identity::issue(&self.authority, role, name).unwrap();
        let endpoint = Endpoint::for_connecting_to(self.address, &identity).unwrap();
        let expected = ExpectedPeer::any(Role::Scheduler);
        let connection = endpoint.connect(self.address, Plane::Client, expected).await.unwrap();
        (endpoint, connection)
    }

    async fn guest(&self, role: Role, name: &str) -> Guest {
        let (endpoint, connection) = self.connect(role, name).await;
        let (mut sender, mut receiver) = connection.open_control::<FromClient, ToClient>().await.unwrap();
        sender.send_hello(&hello(name)).await.unwrap();
        let welcome = timeout(LONG, receiver.recv()).await.unwrap().unwrap().unwrap();
        assert!(matches!(welcome[..], [ToClient::Welcome { .. }]));
        Guest { _endpoint: endpoint, connection, sender, receiver }
    }
}

impl Guest {
    /// The next answer that is one to a question.
    async fn answer(&mut self) -> ToClient {
        loop {
            for message in timeout(LONG, self.receiver.recv()).await.unwrap().unwrap().unwrap() {
                if !matches!(message, ToClient::Progress { .. }) {
                    return message;
                }
            }
        }
    }

    async fn end(&self) -> String {
        timeout(LONG, self.connection.closed()).await.expect("the conversation ends").text
    }
}

fn hello(name: &str) -> ClientHello {
    ClientHello { version: PROTOCOL_VERSION, name: name.to_owned(), weight: 1.0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_ends_its_own_conversation_and_delays_nobody() {
    let daemon = Daemon::start();
    let mut victim = daemon.guest(Role::Client, "victim").await;
    for role in [Role::Viewer, Role::Client] {
        let mut flood = daemon.guest(role, "flood").await;
        let sending = tokio::spawn(async move {
            // What a viewer may say in one frame is less than this.
            let _ = flood.sender.send(&vec![FromClient::Status { request: 1 }; 1_000_000]).await;
            flood.end().await
        });
        for request in 0..20 {
            let begun = Instant::now();
            victim.sender.send(&[FromClient::Status { request }]).await.unwrap();
            let ToClient::Status { request: answered, .. } = victim.answer().await else { panic!("a status") };
            assert_eq!(answered, request);
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?} for one answer", begun.elapsed());
        }
        let reason = sending.await.unwrap();
        let expected = if role == Role::Viewer { VIEWER_FRAME_NBYTES } else { MAX_STATUS_REQUESTS };
        assert!(reason.contains(&expected.to_string()), "{reason}");
    }
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_is_let_go_of() {
    let daemon = Daemon::start();
    let (_endpoint, connection) = daemon.connect(Role::Client, "silent").await;
    let begun = Instant::now();
    timeout(LONG, connection.closed()).await.expect("it ends");
    assert!(begun.elapsed() < HELLO_TIMEOUT + Duration::from_secs(3));
}

#[tokio::test]
async fn names_are_short_and_hellos_too() {
    let daemon = Daemon::start();
    for (name, expected) in
        [("n".repeat(NAME_NBYTES + 1), "at most 128"), ("x".repeat(50_000), "limit"), ("a\nb".to_owned(), "cannot have")]
    {
        let (_endpoint, connection) = daemon.connect(Role::Client, "strange").await;
        let (mut sender, _receiver) = connection.open_control::<FromClient, ToClient>().await.unwrap();
        sender.send_hello(&hello(&name)).await.unwrap();
        let end = timeout(LONG, connection.closed()).await.expect("it ends");
        assert!(end.text.contains(expected), "{end}");
    }
    let mut guest = daemon.guest(Role::Client, "client").await;
    let mut graph = GraphBuilder::new();
    let task = graph.task("x", "core.noop", 1, "{}").add();
    graph.output(task);
    let graph = Box::new(graph.finish(&FinishOptions::default()).unwrap().graph);
    for name in ["g".repeat(1_000_000), "two\nlines".to_owned()] {
        let options = SubmitOptions { name, ..SubmitOptions::default() };
        guest.sender.send(&[FromClient::Submit { request: 5, graph: graph.clone(), options }]).await.unwrap();
        let ToClient::Rejected { request: 5, reason } = guest.answer().await else { panic!("a refusal") };
        assert!(reason.contains("the graph's name"), "{reason}");
    }
}
