//! Who may take part: no token, a wrong one, another cluster, another role, another version. Both sides must say why.

use std::net::SocketAddr;

use rask_comm::message::{FromWorker, PROTOCOL_VERSION, ToWorker, WorkerHello};
use rask_comm::{Authority, Endpoint, ExpectedPeer, Identity, Plane, Role, StateDir};

use crate::support::{Cluster, Ended, Place, Running};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A scheduler that logs, and everything it has logged at the end.
fn scheduler(place: &Place) -> (Running, String) {
    let mut running = Running::start(place.command(["--log", "info", "scheduler", "--listen", "127.0.0.1:0"]));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(running.0.stdout.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    let address = first.strip_prefix("scheduler listens on ").unwrap().to_owned();
    std::thread::spawn(move || lines.for_each(drop));
    (running, address)
}

fn stop(running: Running) -> String {
    running.signal("TERM");
    running.end().stderr
}

/// A worker from another host, as far as files show: a state directory of its own, and this token.
fn stranger(place: &Place, address: &str, token: &str) -> Ended {
    let mut command = place.command(["worker", "--scheduler", address, "--threads", "1", "--name", "stranger"]);
    command.env("RASK_STATE_DIR", place.path("elsewhere")).env("RASK_TOKEN", token);
    Running::start(command).end()
}

#[test]
fn a_token_lets_a_stranger_in() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    let token = place.run(["token", "create", "--role", "worker"]).stdout;
    let mut command = place.command(["worker", "--scheduler", &cluster.address, "--threads", "1", "--name", "stranger"]);
    command.env("RASK_STATE_DIR", place.path("elsewhere")).env("RASK_TOKEN_FILE", place.write("token", &token));
    let _worker = Running::start(command);
    cluster.wait_until(&place, |status| status["workers"][0]["name"] == "stranger");
}

#[test]
fn a_wrong_token_is_refused_on_both_sides() {
    let place = Place::new();
    let (running, address) = scheduler(&place);
    let good = place.run(["token", "create", "--role", "worker"]).stdout;
    let good = good.trim();
    // The last letters are the secret's; one of them is another one here.
    let (head, tail) = good.split_at(good.len() - 8);
    let flipped = if tail.starts_with('a') { 'b' } else { 'a' };
    let wrong = format!("{head}{flipped}{}", &tail[1..]);
    let ended = stranger(&place, &address, &wrong);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("error: cannot join the cluster of "), "{ended:?}");
    let client_token = place.run(["token", "create", "--role", "client"]).stdout;
    let role = stranger(&place, &address, client_token.trim());
    assert_eq!(role.code, Some(3), "{role:?}");
    assert!(role.stderr.contains("client"), "the token's role is named: {role:?}");
    let no_token = stranger(&place, &address, "nonsense");
    assert_eq!(no_token.code, Some(3), "{no_token:?}");
    let log = stop(running);
    assert!(log.matches("a node was not let into the cluster").count() >= 1, "{log}");
}

#[test]
fn a_node_of_another_cluster_is_refused_on_both_sides() {
    let place = Place::new();
    let (running, address) = scheduler(&place);
    let mut command = place.command(["worker", "--scheduler", &address, "--threads", "1"]);
    Authority::open_or_create(&StateDir::at(place.path("elsewhere"))).unwrap();
    command.env("RASK_STATE_DIR", place.path("elsewhere"));
    let ended = Running::start(command).end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("certificate"), "{ended:?}");
    let log = stop(running);
    assert!(log.to_lowercase().contains("certificate") || log.contains("handshake"), "{log}");
}

/// Connect as `role` to the worker plane of a scheduler and give the reason of the refusal.
async fn knock(place: &Place, address: SocketAddr, role: Role, version: u32) -> String {
    let authority = Authority::open(&StateDir::at(place.path("state"))).unwrap();
    let identity = Identity::issue(&authority, role, "knocker").unwrap();
    let endpoint = Endpoint::for_connecting_to(address, &identity).unwrap();
    let connection = match endpoint.connect(address, Plane::Worker, ExpectedPeer::any(Role::Scheduler)).await {
        Ok(connection) => connection,
        Err(error) => return error.to_string(),
    };
    let Ok((mut sender, mut receiver)) = connection.open_control::<FromWorker, ToWorker>().await else {
        return connection.closed().await.to_string();
    };
    let hello = WorkerHello {
        version,
        name: "knocker".to_owned(),
        n_slots: 1,
        memory_limit: 0,
        resources: Vec::new(),
        data_address: "127.0.0.1:1".parse().unwrap(),
        host: "nowhere".to_owned(),
        registry_fingerprint: rask::registry().fingerprint(),
    };
    if sender.send_hello(&hello).await.is_err() {
        return connection.closed().await.to_string();
    }
    match receiver.recv().await {
        Ok(Some(messages)) if matches!(messages[..], [ToWorker::Welcome { .. }]) => "welcome".to_owned(),
        Ok(_) | Err(_) => connection.closed().await.to_string(),
    }
}

#[test]
fn roles_and_versions_are_checked() {
    let place = Place::new();
    let (running, address) = scheduler(&place);
    let address = address.parse().unwrap();
    let (right, role, version) = block_on(async {
        (
            knock(&place, address, Role::Worker, PROTOCOL_VERSION).await,
            knock(&place, address, Role::Client, PROTOCOL_VERSION).await,
            knock(&place, address, Role::Worker, PROTOCOL_VERSION + 1).await,
        )
    });
    assert_eq!(right, "welcome");
    assert!(role.contains("client"), "{role}");
    assert!(
        version.contains(&PROTOCOL_VERSION.to_string()) && version.contains(&(PROTOCOL_VERSION + 1).to_string()),
        "{version}"
    );
    let log = stop(running);
    assert!(log.contains("client") && log.contains("version"), "{log}");
}

#[test]
fn garbage_closes_one_peer_and_nothing_else() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1);
    let address: SocketAddr = cluster.address.parse().unwrap();
    // Datagrams that are no QUIC, and a client that speaks the workers' language on the clients' plane.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [1, 100, 1200] {
        socket.send_to(&vec![0xc3; length], address).unwrap();
    }
    let reason = block_on(async {
        let authority = Authority::open(&StateDir::at(place.path("state"))).unwrap();
        let identity = Identity::issue(&authority, Role::Client, "babbler").unwrap();
        let endpoint = Endpoint::for_connecting_to(address, &identity).unwrap();
        let connection = endpoint.connect(address, Plane::Client, ExpectedPeer::any(Role::Scheduler)).await.unwrap();
        let (mut sender, _receiver) = connection.open_control::<Vec<u64>, ToWorker>().await.unwrap();
        let _ = sender.send(&[vec![u64::MAX; 100]]).await;
        let closed = tokio::time::timeout(crate::support::PATIENCE, connection.closed()).await;
        closed.expect("the peer is closed").to_string()
    });
    assert!(!reason.is_empty());
    place.write("one.toml", "rask = 1\n[task.t]\nop = 'core.noop'\n");
    cluster.submit(&place, "one.toml", &[]);
}
