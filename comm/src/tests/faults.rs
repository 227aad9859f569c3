//! Results over networks and from peers that do their worst: what arrives is right, and what does not arrive is told of.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, Data, EncodeError, Encoded, GraphId, Part, Registry, TaskId, TaskIdx, Value};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Pair, SlowDisk, data_pair, identity, loopback};
use crate::codec::{self, FRAME_LIMIT};
use crate::data::{NO_PROGRESS_LIMIT, Request};
use crate::{Authority, Endpoint, ExpectedPeer, FetchError, Fetched, PartRequest, PartSource, Plane, Role, fetch, serve_data};

/// Long enough for its checksum to come after it.
const LONG_NBYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn item(idx: u32) -> PartRequest {
    PartRequest { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), part: Part::WHOLE }
}

fn content(idx: u32) -> Bytes {
    Bytes::from((0..LONG_NBYTES).map(|at| (at / 5) as u8 ^ idx as u8).collect::<Vec<u8>>())
}

struct Store(HashMap<PartRequest, Value>);

impl PartSource for Store {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        super::grant_key().opens(graph, grant)
    }

    fn get(&self, item: &PartRequest) -> Option<Value> {
        self.0.get(item).cloned()
    }
}

fn store(n_results: u32) -> Arc<Store> {
    Arc::new(Store((0..n_results).map(|idx| (item(idx), Value::new(Opaque(content(idx))))).collect()))
}

type Outcome = Result<Fetched, FetchError>;

async fn fetch_from(connection: &crate::Connection, items: &[PartRequest]) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = items.iter().map(|_| None).collect();
    let registry = Registry::new();
    let grants = super::grant_key().grants_of(items);
    let fetching = fetch(connection, &grants, items, &registry, |idx, outcome| {
        assert!(outcomes[idx].replace(outcome).is_none(), "item {idx} is reported twice");
    });
    timeout(PATIENCE, fetching).await.expect("every fetch ends");
    outcomes.into_iter().map(|outcome| outcome.expect("every item is reported")).collect()
}

fn bytes_of(outcome: &Outcome) -> Bytes {
    outcome.as_ref().unwrap().value.downcast::<Opaque>().unwrap().0.clone()
}

/// What an honest server answers to a request for one long result.
async fn honest_answer() -> Vec<u8> {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), store(1)));
    let (mut send, mut receive) = pair.client.inner.open_bi().await.unwrap();
    let mut request = Vec::new();
    codec::encode_frame(
        &[Request::Parts { grants: Cow::Owned(super::grant_key().grants_of(&[item(0)])), items: Cow::Owned(vec![item(0)]) }],
        FRAME_LIMIT,
        &mut request,
    )
    .unwrap();
    send.write_all(&request).await.unwrap();
    send.finish().unwrap();
    let answer = receive.read_to_end(2 * LONG_NBYTES).await.unwrap();
    assert!(answer.len() > LONG_NBYTES);
    answer
}

/// Take one request in and give the stream for its answer.
async fn accept_request(pair: &Pair) -> quinn::SendStream {
    let (send, mut receive) = pair.server.inner.accept_bi().await.unwrap();
    receive.read_to_end(1 << 20).await.unwrap();
    send
}

#[tokio::test]
async fn a_link_that_is_cut_at_any_tenth_of_a_result_gives_no_result() {
    let answer = honest_answer().await;
    for tenth in 0..10 {
        let pair = data_pair().await;
        let cutting = async {
            let mut send = accept_request(&pair).await;
            send.write_all(&answer[..answer.len() * tenth / 10]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            pair.server.close("cut");
        };
        let items = [item(0)];
        let (outcomes, ()) = tokio::join!(fetch_from(&pair.client, &items), cutting);
        assert!(matches!(&outcomes[0], Err(FetchError::Unreachable(reason)) if reason.contains("cut")), "{tenth}: {outcomes:?}");
    }
}

#[tokio::test]
async fn a_wrong_bit_in_a_long_result_is_noticed() {
    let answer = honest_answer().await;
    let pair = data_pair().await;
    let last = answer.len() - 1;
    // In the buffer, at its very end, and in the checksum after it.
    for at in [answer.len() / 3, answer.len() / 2, last - 8, last - 7, last] {
        let mut wrong = answer.clone();
        wrong[at] ^= 0x10;
        let answering = async {
            let mut send = accept_request(&pair).await;
            send.write_all(&wrong).await.unwrap();
            send.finish().unwrap();
        };
        let items = [item(0)];
        let (outcomes, ()) = tokio::join!(fetch_from(&pair.client, &items), answering);
        assert!(matches!(&outcomes[0], Err(FetchError::Damaged(_))), "byte {at}: {outcomes:?}");
    }
    let answering = async {
        let mut send = accept_request(&pair).await;
        send.write_all(&answer).await.unwrap();
        send.finish().unwrap();
    };
    let items = [item(0)];
    let (outcomes, ()) = tokio::join!(fetch_from(&pair.client, &items), answering);
    assert_eq!(bytes_of(&outcomes[0]), content(0));
}

#[tokio::test]
async fn another_tasks_bytes_are_not_taken() {
    let answer = honest_answer().await;
    let pair = data_pair().await;
    let answering = async {
        let mut send = accept_request(&pair).await;
        send.write_all(&answer).await.unwrap();
        send.finish().unwrap();
    };
    let items = [item(5)];
    let (outcomes, ()) = tokio::join!(fetch_from(&pair.client, &items), answering);
    assert!(matches!(&outcomes[0], Err(FetchError::Damaged(reason)) if reason.contains("another result")), "{outcomes:?}");
}

#[tokio::test]
async fn a_peer_that_trickles_is_given_up_in_time() {
    let answer = honest_answer().await;
    let pair = data_pair().await;
    let trickling = async {
        let mut send = accept_request(&pair).await;
        for byte in answer.chunks(1) {
            if send.write_all(byte).await.is_err() {
                // The other side has stopped listening.
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let begun = Instant::now();
    let items = [item(0), item(1)];
    let (outcomes, ()) = tokio::join!(fetch_from(&pair.client, &items), trickling);
    for outcome in &outcomes {
        assert!(matches!(outcome, Err(FetchError::Unreachable(reason)) if reason.contains("next to nothing")), "{outcome:?}");
    }
    assert!(begun.elapsed() >= NO_PROGRESS_LIMIT && begun.elapsed() < 2 * NO_PROGRESS_LIMIT);
    assert!(!pair.client.is_closed(), "other requests may fare better");
}

#[tokio::test]
async fn a_result_that_is_long_in_being_read_is_waited_for() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(SlowDisk(store(1)))));
    let outcomes = fetch_from(&pair.client, &[item(0), item(1)]).await;
    assert_eq!(bytes_of(&outcomes[0]), content(0));
    assert!(matches!(outcomes[1], Err(FetchError::NotThere)), "{outcomes:?}");
}

/// A result with more to say of itself than a frame has room for.
struct Wordy {
    nbytes_header: usize,
    n_buffers: usize,
}

impl Data for Wordy {
    fn kind(&self) -> &'static str {
        "wordy"
    }

    fn nbytes(&self) -> u64 {
        1
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        let buffers = vec![Bytes::from_static(b"x"); self.n_buffers];
        Ok(Encoded { kind: "wordy", header: vec![0; self.nbytes_header].into(), buffers })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_described_costs_nobody_the_connection() {
    let pair = data_pair().await;
    let long = Wordy { nbytes_header: FRAME_LIMIT + 1, n_buffers: 0 };
    let many = Wordy { nbytes_header: 0, n_buffers: FRAME_LIMIT / 10 + 1 };
    let results = [(item(0), Value::new(long)), (item(1), Value::new(Opaque(content(1)))), (item(2), Value::new(many))];
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(Store(results.into_iter().collect()))));
    let outcomes = fetch_from(&pair.client, &[item(0), item(1), item(2)]).await;
    for (at, n_pieces) in [(0, "0 pieces"), (2, "1677722 pieces")] {
        let Err(FetchError::NotSendable(reason)) = &outcomes[at] else { panic!("{outcomes:?}") };
        assert!(reason.contains(n_pieces) && reason.contains("16.0 MiB is possible"), "{reason}");
    }
    assert_eq!(bytes_of(&outcomes[1]), content(1));
}

/// Carries datagrams between one client and `server`; a fifth of them is lost, a fifth comes twice, a fifth comes late.
async fn bad_network(server: SocketAddr) -> SocketAddr {
    let (front, back) = (UdpSocket::bind(loopback()).await.unwrap(), UdpSocket::bind(loopback()).await.unwrap());
    back.connect(server).await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut client = None;
        let (mut out, mut home) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        // A datagram of each direction that is overtaken by the next.
        let (mut late_out, mut late_home) = (None, None);
        let mut state = 0x1234_5678_9abc_def1_u64;
        loop {
            let (is_out, nbytes) = tokio::select! {
                received = front.recv_from(&mut out) => {
                    let (nbytes, from) = received.unwrap();
                    client = Some(from);
                    (true, nbytes)
                }
                received = back.recv(&mut home) => (false, received.unwrap()),
            };
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let (datagram, late) = if is_out { (&out[..nbytes], &mut late_out) } else { (&home[..nbytes], &mut late_home) };
            let copies: Vec<Vec<u8>> = match state % 5 {
                0 => Vec::new(),
                1 => vec![datagram.to_vec(), datagram.to_vec()],
                2 if late.is_none() => {
                    *late = Some(datagram.to_vec());
                    Vec::new()
                }
                _ => std::iter::once(datagram.to_vec()).chain(late.take()).collect(),
            };
            for copy in copies {
                // A full buffer loses some more.
                let _ = if is_out { back.send(&copy).await } else { front.send_to(&copy, client.unwrap()).await };
            }
        }
    });
    address
}

#[tokio::test]
async fn results_come_right_over_a_network_that_loses_doubles_and_reorders() {
    let authority = Authority::throw_away().unwrap();
    let server = Endpoint::bind(loopback(), &identity(&authority, Role::Worker, "server"), &[Plane::Data]).unwrap();
    let client = Endpoint::bind(loopback(), &identity(&authority, Role::Worker, "client"), &[]).unwrap();
    let address = bad_network(server.local_addr().unwrap()).await;
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Some(crate::Incoming::Peer { connection, .. }) = accepting.accept().await {
            tokio::spawn(serve_data(connection, store(4)));
        }
    });
    let connection = client.connect(address, Plane::Data, ExpectedPeer::named(Role::Worker, "server")).await.unwrap();
    let items: Vec<PartRequest> = (0..5).map(item).collect();
    let outcomes = fetch_from(&connection, &items).await;
    for (idx, outcome) in (0..4).zip(&outcomes) {
        assert_eq!(bytes_of(outcome), content(idx));
    }
    assert_eq!(outcomes[4].as_ref().unwrap_err(), &FetchError::NotThere);
}
