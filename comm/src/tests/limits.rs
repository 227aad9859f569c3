//! Peers that take more than their share: strangers with windows, certificates with connections, readers that do not read.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, Data, EncodeError, Encoded, GraphId, Part, Registry, TaskId, TaskIdx, Value};
use tokio::time::{sleep, timeout};

use super::{identity, loopback, pair};
use crate::codec::{self, FRAME_LIMIT};
use crate::connect::ExpectedPeer;
use crate::data::{BoxFuture, NO_PROGRESS_LIMIT, Request, Room, Sent};
use crate::limits::{STRANGER_WINDOW_NBYTES, max_connections_of};
use crate::{
    Authority, ConnectError, Connection, Endpoint, Incoming, PartRequest, PartSource, Plane, Role, Tuning, fetch, serve_data,
};

const PATIENCE: Duration = Duration::from_secs(30);
const LONG_NBYTES: usize = 4 << 20;

fn item(idx: u32) -> PartRequest {
    PartRequest { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), part: Part::WHOLE }
}

#[tokio::test]
async fn a_node_without_a_certificate_may_have_next_to_nothing_on_the_way() {
    let authority = Authority::throw_away().unwrap();
    let server = Endpoint::bind(loopback(), &identity(&authority, Role::Scheduler, "server"), &[Plane::Join]).unwrap();
    let address = server.local_addr().unwrap();
    let stranger = Endpoint::open(loopback(), None, &[], Tuning::default()).unwrap();
    let crypto = crate::tls::joining(authority.hash()).unwrap();
    let (connection, _) =
        stranger.dial(address, Plane::Join, crypto, &ExpectedPeer::any(Role::Scheduler)).await.expect("joining is for all");
    let Some(Incoming::Join(_joining)) = server.accept().await else { panic!("a node that joins") };
    let mut nbytes = 0;
    let mut streams = Vec::new();
    // As many streams as it gets, each as full as it gets.
    while let Ok(Ok((mut send, receive))) = timeout(Duration::from_millis(300), connection.open_bi()).await {
        while let Ok(Ok(n)) = timeout(Duration::from_millis(300), send.write(&[0; 16 << 10])).await {
            nbytes += n;
        }
        streams.push((send, receive));
    }
    assert!(streams.len() <= 2, "{} streams", streams.len());
    assert!(nbytes <= STRANGER_WINDOW_NBYTES as usize, "{nbytes} bytes");
}

#[tokio::test]
async fn a_certificate_has_so_many_connections() {
    let authority = Authority::throw_away().unwrap();
    let server = Endpoint::bind(loopback(), &identity(&authority, Role::Worker, "server"), &[Plane::Data]).unwrap();
    let address = server.local_addr().unwrap();
    let expected = || ExpectedPeer::named(Role::Worker, "server");
    let accepting = tokio::spawn({
        let server = server.clone();
        async move {
            let mut held = Vec::new();
            while let Some(incoming) = server.accept().await {
                held.push(incoming);
            }
        }
    });
    let greedy = Endpoint::bind(loopback(), &identity(&authority, Role::Client, "greedy"), &[]).unwrap();
    let (limit, _) = max_connections_of(Plane::Data);
    let mut own = Vec::new();
    let refused = loop {
        match greedy.connect(address, Plane::Data, expected()).await {
            Ok(connection) => own.push(connection),
            Err(error) => break error,
        }
        assert!(own.len() <= limit, "{} connections of one certificate", own.len());
    };
    assert_eq!(own.len(), limit);
    assert!(matches!(&refused, ConnectError::Ended { reason, .. } if reason.contains("at most 32")), "{refused}");
    let modest = Endpoint::bind(loopback(), &identity(&authority, Role::Client, "modest"), &[]).unwrap();
    modest.connect(address, Plane::Data, expected()).await.expect("others are served");
    accepting.abort();
}

/// Results that count how often they are encoded, each as a copy.
struct Copied(Arc<AtomicUsize>);

impl Data for Copied {
    fn kind(&self) -> &'static str {
        "bytes"
    }

    fn nbytes(&self) -> u64 {
        LONG_NBYTES as u64
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Value::new(Opaque(Bytes::from(vec![7; LONG_NBYTES]))).encode()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A source of long results, each of which takes room once.
struct Source {
    value: Value,
    sent: Arc<Sent>,
}

impl PartSource for Source {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        super::grant_key().opens(graph, grant)
    }

    fn get(&self, _item: &PartRequest) -> Option<Value> {
        Some(self.value.clone())
    }

    fn room_to_send<'a>(&'a self, _guest: &'a str, _item: &'a PartRequest) -> Option<BoxFuture<'a, Room>> {
        Some(Box::pin(async { Room::new((), Arc::clone(&self.sent)) }))
    }
}

/// Ask for one long result on `n` streams, and read none of them.
async fn ask_and_do_not_read(connection: &Connection, n: usize) -> Vec<(quinn::SendStream, quinn::RecvStream)> {
    let mut request = Vec::new();
    let grants = Cow::Owned(super::grant_key().grants_of(&[item(0)]));
    codec::encode_frame(&[Request::Parts { grants, items: Cow::Owned(vec![item(0)]) }], FRAME_LIMIT, &mut request).unwrap();
    let mut streams = Vec::new();
    for _ in 0..n {
        let (mut send, receive) = connection.inner.open_bi().await.unwrap();
        send.write_all(&request).await.unwrap();
        send.finish().unwrap();
        streams.push((send, receive));
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_costs_one_encoding_and_loses_its_connection() {
    let n_encoded = Arc::new(AtomicUsize::new(0));
    let source = Arc::new(Source { value: Value::new(Copied(Arc::clone(&n_encoded))), sent: Arc::default() });
    let stalled = pair(Plane::Data, Role::Worker, Role::Client, Tuning::default()).await;
    tokio::spawn(serve_data(stalled.server.clone(), Arc::clone(&source) as Arc<dyn PartSource>));
    let _streams = ask_and_do_not_read(&stalled.client, 250).await;
    let honest = pair(Plane::Data, Role::Worker, Role::Client, Tuning::default()).await;
    tokio::spawn(serve_data(honest.server.clone(), source as Arc<dyn PartSource>));
    let mut n_whole = 0;
    let registry = Registry::new();
    let items = [item(0), item(1)];
    let grants = super::grant_key().grants_of(&items);
    let fetching = fetch(&honest.client, &grants, &items, &registry, |_, outcome| n_whole += usize::from(outcome.is_ok()));
    timeout(PATIENCE, fetching).await.expect("others are served meanwhile");
    assert_eq!(n_whole, 2);
    assert_eq!(n_encoded.load(Ordering::Relaxed), 1, "encoded once for all who ask");
    let end = timeout(3 * NO_PROGRESS_LIMIT, stalled.client.closed()).await.expect("who does not read is let go of");
    assert!(end.text.contains("read next to nothing"), "{end}");
}

#[tokio::test]
async fn a_reader_that_pauses_for_a_moment_is_not_let_go_of() {
    let source = Arc::new(Source { value: Value::new(Copied(Arc::default())), sent: Arc::default() });
    let pair = pair(Plane::Data, Role::Worker, Role::Client, Tuning::default()).await;
    tokio::spawn(serve_data(pair.server.clone(), source as Arc<dyn PartSource>));
    let streams = ask_and_do_not_read(&pair.client, 20).await;
    sleep(NO_PROGRESS_LIMIT / 2).await;
    for (_, mut receive) in streams {
        assert!(receive.read_to_end(2 * LONG_NBYTES).await.unwrap().len() > LONG_NBYTES);
    }
}
