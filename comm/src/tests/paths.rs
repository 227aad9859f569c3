//! Paths between hosts, in a network namespace of their own: what they carry is found out, and found out again when it falls.
//!
//! Needs root and `ip`; elsewhere the test says that it was skipped.

#![expect(unsafe_code, reason = "a thread enters a namespace by a system call")]

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, GraphId, Part, Registry, TaskId, TaskIdx, Value};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::identity;
use crate::{Authority, Connection, Endpoint, ExpectedPeer, Incoming, PartRequest, PartSource, Plane, Role, fetch, serve_data};

const NBYTES: usize = 64 << 20;

struct Pattern(Bytes);

impl PartSource for Pattern {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        super::grant_key().opens(graph, grant)
    }

    fn get(&self, _item: &PartRequest) -> Option<Value> {
        Some(Value::new(Opaque(self.0.clone())))
    }
}

/// A namespace that is connected with this one by a pair of devices. It goes with this value.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(mtu: u32) -> Result<Self, String> {
        let name = format!("rask{}-{mtu}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let namespace = Self { name };
        let (near, far) = namespace.devices();
        ip(&format!("link add {near} mtu {mtu} type veth peer name {far} mtu {mtu} netns {}", namespace.name))?;
        ip(&format!("addr add 10.213.{}.1/24 dev {near}", mtu / 100))?;
        ip(&format!("link set {near} up"))?;
        ip(&format!("-n {} addr add 10.213.{}.2/24 dev {far}", namespace.name, mtu / 100))?;
        ip(&format!("-n {} link set {far} up", namespace.name))?;
        Ok(namespace)
    }

    fn devices(&self) -> (String, String) {
        let idx = self.name.trim_start_matches("rask");
        (format!("rn{idx}"), format!("rf{idx}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.devices().0));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// Move the calling thread into a namespace.
fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    // SAFETY: a call with two numbers; it changes which network new sockets of this thread belong to.
    assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {said}")) }
}

/// Serve from the namespace, and give out the connections that were accepted: the other side may have given up a first one.
async fn serve(address: SocketAddr, authority: Arc<Authority>, content: Bytes, accepted: mpsc::UnboundedSender<Connection>) {
    let endpoint = Endpoint::bind(address, &identity(&authority, Role::Worker, "far"), &[Plane::Data]).unwrap();
    while let Some(Incoming::Peer { connection, .. }) = endpoint.accept().await {
        let _ = accepted.send(connection.clone());
        tokio::spawn(serve_data(connection, Arc::new(Pattern(content.clone()))));
    }
}

async fn fetch_and_compare(connection: &Connection, content: &Bytes) -> f64 {
    let item = PartRequest { task: TaskId::new(GraphId(0), TaskIdx(0)), attempt: Attempt(1), part: Part::WHOLE };
    let begun = Instant::now();
    let mut came = None;
    fetch(connection, &super::grant_key().grants_of(&[item]), &[item], &Registry::new(), |_, outcome| came = Some(outcome)).await;
    let fetched = came.expect("every item is reported").unwrap();
    assert!(fetched.value.downcast::<Opaque>().unwrap().0 == content, "what came is not what was sent");
    NBYTES as f64 / 1e9 / begun.elapsed().as_secs_f64()
}

#[test]
fn what_a_path_carries_is_found_out() {
    // (Frames that the path carries, what is then sent at most and at least, whether the limit falls later.)
    for (mtu, at_most, at_least, falls) in [(1_500, 1_472, 1_440, false), (9_000, 6_500, 6_450, true)] {
        let namespace = match Namespace::new(mtu) {
            Ok(namespace) => namespace,
            Err(reason) => {
                println!("skipped, no network of its own: {reason}");
                return;
            }
        };
        let address: SocketAddr = format!("10.213.{}.2:7000", mtu / 100).parse().unwrap();
        let authority = Arc::new(Authority::throw_away().unwrap());
        let content = Bytes::from((0..NBYTES).map(|idx| (idx / 11) as u8).collect::<Vec<u8>>());
        let (accepted_in, mut accepted) = mpsc::unbounded_channel();
        let far = (namespace.name.clone(), Arc::clone(&authority), content.clone());
        std::thread::spawn(move || {
            enter(&far.0);
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(address, far.1, far.2, accepted_in));
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let near: SocketAddr = format!("10.213.{}.1:0", mtu / 100).parse().unwrap();
            let endpoint = Endpoint::bind(near, &identity(&authority, Role::Worker, "near"), &[]).unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            let connection = loop {
                match endpoint.connect(address, Plane::Data, ExpectedPeer::named(Role::Worker, "far")).await {
                    Ok(connection) => break connection,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let mut sending = accepted.recv().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            while let Ok(later) = accepted.try_recv() {
                sending = later;
            }
            let found = || sending.inner.stats().path.current_mtu;
            let first = fetch_and_compare(&connection, &content).await;
            while found() < at_least {
                assert!(Instant::now() < deadline, "{} bytes a packet found where {at_least} go", found());
                fetch_and_compare(&connection, &content).await;
            }
            assert!(found() <= at_most, "{} bytes a packet where {at_most} go", found());
            let then = fetch_and_compare(&connection, &content).await;
            println!("frames of {mtu} bytes: {} bytes a packet, {first:.2} GB/s at first, {then:.2} then", found());
            if falls {
                // What is too large is lost without a word. A device that took batches would let them pass whatever is in them.
                let (near, far) = namespace.devices();
                ip(&format!("-n {} link set {far} gso_max_segs 1", namespace.name)).unwrap();
                ip(&format!("link set {near} mtu 1500")).unwrap();
                let after = fetch_and_compare(&connection, &content).await;
                assert!(found() < 1_500 && sending.inner.stats().path.black_holes_detected > 0, "{} bytes a packet", found());
                println!("frames of {mtu} bytes, then of 1,500: {} bytes a packet, {after:.2} GB/s", found());
            }
            connection.close("over");
        });
    }
}
