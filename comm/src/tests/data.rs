//! Results on their way: whole, absent, damaged, cut short, large.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rask_graphs::builtin::{Opaque, Parts};
use rask_graphs::{Attempt, GraphId, Part, Registry, TaskId, TaskIdx, Value};

use super::{Pair, data_pair};
use crate::codec::{self, FRAME_LIMIT};
use crate::data::Request;
use crate::{FetchError, Fetched, PartRequest, PartSource, Peers, fetch, serve_data};

fn item(idx: u32) -> PartRequest {
    PartRequest { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), part: Part::WHOLE }
}

fn pattern(nbytes: usize, seed: u8) -> Bytes {
    Bytes::from((0..nbytes).map(|idx| (idx / 7) as u8 ^ seed).collect::<Vec<u8>>())
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

fn store(results: impl IntoIterator<Item = (u32, Bytes)>) -> Arc<Store> {
    Arc::new(Store(results.into_iter().map(|(idx, bytes)| (item(idx), Value::new(Opaque(bytes)))).collect()))
}

async fn fetch_all(pair: &Pair, items: &[PartRequest]) -> Vec<Result<Fetched, FetchError>> {
    let mut outcomes: Vec<Option<Result<Fetched, FetchError>>> = items.iter().map(|_| None).collect();
    fetch(&pair.client, &super::grant_key().grants_of(items), items, &Registry::new(), |idx, outcome| {
        assert!(outcomes[idx].replace(outcome).is_none(), "item {idx} is reported twice");
    })
    .await;
    outcomes.into_iter().map(|outcome| outcome.expect("every item is reported")).collect()
}

fn bytes_of(outcome: &Result<Fetched, FetchError>) -> Bytes {
    outcome.as_ref().unwrap().value.downcast::<Opaque>().unwrap().0.clone()
}

#[tokio::test]
async fn results_arrive_whole_aligned_and_in_order() {
    let pair = data_pair().await;
    let sizes = [0_usize, 1, 63, 64, 65, 6499, 100_000, 3 << 20];
    let results = store(sizes.iter().zip(0..).map(|(nbytes, idx)| (idx, pattern(*nbytes, idx as u8))));
    tokio::spawn(serve_data(pair.server.clone(), results));
    let items: Vec<PartRequest> = (0..sizes.len() as u32).map(item).collect();
    for (idx, outcome) in fetch_all(&pair, &items).await.iter().enumerate() {
        let bytes = bytes_of(outcome);
        assert_eq!(bytes, pattern(sizes[idx], idx as u8));
        assert!(bytes.as_ptr().addr().is_multiple_of(64));
        assert_eq!(outcome.as_ref().unwrap().nbytes, sizes[idx] as u64);
    }
}

#[tokio::test]
async fn not_there_is_an_answer() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), store([(1, pattern(10, 0)), (3, pattern(10, 1))])));
    let outcomes = fetch_all(&pair, &[item(1), item(2), item(3)]).await;
    assert_eq!(outcomes[1].as_ref().unwrap_err(), &FetchError::NotThere);
    assert_eq!((bytes_of(&outcomes[0]), bytes_of(&outcomes[2])), (pattern(10, 0), pattern(10, 1)));
    assert!(fetch_all(&pair, &[]).await.is_empty());
}

#[tokio::test]
async fn parts_travel_with_several_buffers() {
    let pair = data_pair().await;
    let parts = Value::new(Parts(vec![Value::new(Opaque(pattern(5000, 1))), Value::new(Opaque(pattern(0, 2)))]));
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(Store(HashMap::from([(item(1), parts)])))));
    let outcomes = fetch_all(&pair, &[item(1)]).await;
    let value = outcomes[0].as_ref().unwrap().value.clone();
    let parts: &Parts = value.downcast().unwrap();
    assert_eq!(parts.0[0].downcast::<Opaque>().unwrap().0, pattern(5000, 1));
    assert_eq!(parts.0[1].downcast::<Opaque>().unwrap().0.len(), 0);
}

#[tokio::test]
async fn a_large_chunk_goes_through_beside_small_ones() {
    let pair = data_pair().await;
    let large = pattern(64 << 20, 9);
    tokio::spawn(serve_data(pair.server.clone(), store([(0, large.clone()), (1, pattern(100, 1))])));
    let (first, second) = ([item(0)], [item(1), item(1)]);
    let (large_outcome, small_outcomes) = tokio::join!(fetch_all(&pair, &first), fetch_all(&pair, &second));
    assert!(bytes_of(&large_outcome[0]) == large);
    assert_eq!(bytes_of(&small_outcomes[1]), pattern(100, 1));
}

/// Answer one request with these bytes, and finish the stream as if that were all.
async fn answer_with(pair: &Pair, bytes: Vec<u8>) {
    let (mut send, mut receive) = pair.server.inner.accept_bi().await.unwrap();
    receive.read_to_end(1 << 20).await.unwrap();
    send.write_all(&bytes).await.unwrap();
    send.finish().unwrap();
    let _ = send.stopped().await;
}

/// The honest answer to a request for two items, as bytes.
async fn honest_answer() -> Vec<u8> {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), store([(1, pattern(1000, 1)), (2, pattern(1000, 2))])));
    let (mut send, mut receive) = pair.client.inner.open_bi().await.unwrap();
    let mut request = Vec::new();
    codec::encode_frame(
        &[Request::Parts {
            grants: Cow::Owned(super::grant_key().grants_of(&[item(1), item(2)])),
            items: Cow::Owned(vec![item(1), item(2)]),
        }],
        FRAME_LIMIT,
        &mut request,
    )
    .unwrap();
    send.write_all(&request).await.unwrap();
    send.finish().unwrap();
    receive.read_to_end(1 << 20).await.unwrap()
}

#[tokio::test]
async fn an_answer_cut_anywhere_is_damaged_and_never_short() {
    let answer = honest_answer().await;
    let pair = data_pair().await;
    let items = [item(1), item(2)];
    for cut in (0..answer.len()).step_by(41) {
        let (outcomes, ()) = tokio::join!(fetch_all(&pair, &items), answer_with(&pair, answer[..cut].to_vec()));
        assert!(outcomes[1].is_err(), "cut at {cut}");
        if cut < answer.len() / 2 {
            assert!(matches!(outcomes[0], Err(FetchError::Damaged(_))), "cut at {cut}: {:?}", outcomes[0]);
        }
        if let Ok(fetched) = &outcomes[0] {
            assert_eq!(fetched.nbytes, 1000);
        }
    }
    let (outcomes, ()) = tokio::join!(fetch_all(&pair, &items), answer_with(&pair, answer.clone()));
    assert!(outcomes.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_noticed() {
    let answer = honest_answer().await;
    let pair = data_pair().await;
    let items = [item(1), item(2)];
    for at in (0..answer.len()).step_by(23) {
        let mut flipped = answer.clone();
        flipped[at] ^= 1 << (at % 8);
        let (outcomes, ()) = tokio::join!(fetch_all(&pair, &items), answer_with(&pair, flipped));
        for (idx, outcome) in outcomes.iter().enumerate() {
            if outcome.is_ok() {
                assert_eq!(bytes_of(outcome), pattern(1000, idx as u8 + 1), "flipped at {at}");
            }
        }
        assert!(outcomes.iter().any(Result::is_err), "flipped at {at}");
    }
}

#[tokio::test]
async fn a_sound_answer_to_another_question_is_damaged() {
    let answer = honest_answer().await;
    let pair = data_pair().await;
    let mut later = item(1);
    later.attempt = Attempt(2);
    let items = [later, item(2)];
    let (outcomes, ()) = tokio::join!(fetch_all(&pair, &items), answer_with(&pair, answer));
    assert!(matches!(&outcomes[0], Err(FetchError::Damaged(reason)) if reason.contains("another result")), "{outcomes:?}");
    assert!(outcomes[1].is_ok(), "the rest of the stream is still good");
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_is_unreachable() {
    let pair = data_pair().await;
    let answer = honest_answer().await;
    let dying = async {
        let (mut send, mut receive) = pair.server.inner.accept_bi().await.unwrap();
        receive.read_to_end(1 << 20).await.unwrap();
        send.write_all(&answer[..answer.len() - 10]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        pair.server.close("killed");
    };
    let items = [item(1), item(2)];
    let (outcomes, ()) = tokio::join!(fetch_all(&pair, &items), dying);
    assert_eq!(bytes_of(&outcomes[0]), pattern(1000, 1));
    assert!(matches!(&outcomes[1], Err(FetchError::Unreachable(reason)) if reason.contains("killed")), "{outcomes:?}");
}

#[tokio::test]
async fn a_cancelled_fetch_stops_the_transfer() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), store([(0, pattern(32 << 20, 1)), (1, pattern(10, 1))])));
    let items = [item(0)];
    let cancelled = tokio::time::timeout(Duration::from_millis(5), fetch_all(&pair, &items)).await;
    assert!(cancelled.is_err(), "five milliseconds are too short for 32 MiB");
    let after = fetch_all(&pair, &[item(1)]).await;
    assert_eq!(bytes_of(&after[0]), pattern(10, 1));
    let sent = pair.server.inner.stats().udp_tx.bytes;
    assert!(sent < 32 << 20, "{sent} bytes were sent all the same");
}

#[tokio::test]
async fn a_senseless_request_closes_the_connection() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), store([])));
    let (mut send, _receive) = pair.client.inner.open_bi().await.unwrap();
    send.write_all(b"\x04\0\0\0\x01\xff\xff\xff").await.unwrap();
    send.finish().unwrap();
    let reason = pair.client.closed().await;
    assert!(reason.text.contains("malformed"), "{reason}");
}

#[tokio::test]
async fn callers_share_a_connection_and_dead_ones_are_replaced() {
    let pair = data_pair().await;
    let address = pair.server_endpoint.local_addr().unwrap();
    let peers = Peers::new(pair.client_endpoint.clone());
    let n_before = pair.server_endpoint.stats().n_accepted;
    let (first, second, third) =
        tokio::join!(peers.get(address, "server"), peers.get(address, "server"), peers.get(address, "server"));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.inner.stable_id(), second.inner.stable_id());
    assert_eq!(third.unwrap().inner.stable_id(), first.inner.stable_id());
    assert_eq!(peers.len(), 1);
    assert!(pair.server_endpoint.accept().await.is_some());
    assert_eq!(pair.server_endpoint.stats().n_accepted, n_before + 1, "one connection for three callers");
    first.close("over");
    let again = peers.get(address, "server").await.unwrap();
    assert!(again.inner.stable_id() != first.inner.stable_id() && !again.is_closed());
    let wrong = peers.get(address, "somebody else").await;
    assert!(matches!(wrong, Err(crate::ConnectError::WrongPeer { .. })), "{wrong:?}");
    peers.forget(address, "server");
    assert_eq!(peers.len(), 1, "a failed attempt is kept until the next one");
}

#[tokio::test]
async fn an_attempt_that_was_given_up_is_not_met_again() {
    let pair = data_pair().await;
    // Takes datagrams and answers none.
    let mute = std::net::UdpSocket::bind(crate::tests::loopback()).unwrap();
    let address = mute.local_addr().unwrap();
    let peers = Peers::new(pair.client_endpoint.clone());
    let impatient = tokio::time::timeout(Duration::from_millis(50), peers.get(address, "server")).await;
    assert!(impatient.is_err(), "nobody answers");
    // The attempt ends by itself, and the next one is a new one.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let begun = std::time::Instant::now();
    assert!(peers.get(address, "server").await.is_err());
    assert!(begun.elapsed() > Duration::from_millis(500), "the end of the old attempt was met");
}

#[tokio::test]
async fn a_number_is_no_right_to_a_result() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), store([(1, pattern(1_000, 1)), (2, pattern(1_000, 2))])));
    let other = PartRequest { task: TaskId::new(GraphId(2), TaskIdx(0)), ..item(0) };
    let key = super::grant_key();
    let cases = [
        crate::Grants::default(),
        crate::SecretKey::random().unwrap().grants_of(&[item(1)]),
        // The right one, of another graph.
        key.grants_of(&[other]),
        crate::Grants::given([(item(1).task.graph, key.grant(other.task.graph))]),
    ];
    for grants in cases {
        let mut outcomes = Vec::new();
        fetch(&pair.client, &grants, &[item(1), item(7)], &Registry::new(), |_, outcome| outcomes.push(outcome.unwrap_err()))
            .await;
        assert_eq!(outcomes, [FetchError::NotThere, FetchError::NotThere], "what is there is as what is not");
    }
    // One graph's grant opens that graph's results and no others beside them.
    let mut outcomes = Vec::new();
    let items = [other, item(1)];
    fetch(&pair.client, &key.grants_of(&[item(1)]), &items, &Registry::new(), |_, outcome| outcomes.push(outcome.is_ok())).await;
    assert_eq!(outcomes, [false, true]);
}

/// A value of many short buffers is sent as fast as one of few, and never holds up the signs of life of its connection.
#[tokio::test]
async fn a_value_of_very_many_short_pieces_costs_nobody_a_connection() {
    const N_PIECES: u32 = 50_000;
    let pair = data_pair().await;
    let pieces = (0..N_PIECES).map(|at| Value::new(Opaque(Bytes::copy_from_slice(&at.to_le_bytes())))).collect();
    let results = Store([(item(0), Value::new(Parts(pieces)))].into());
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(results)));
    let begun = std::time::Instant::now();
    let outcomes = fetch_all(&pair, &[item(0)]).await;
    let value = &outcomes[0].as_ref().unwrap().value;
    assert_eq!(value.n_parts(), N_PIECES);
    let last = value.part(N_PIECES - 1).unwrap().downcast::<Opaque>().unwrap().0.clone();
    assert_eq!(last[..], (N_PIECES - 1).to_le_bytes());
    assert!(pair.client.close_reason().is_none() && pair.server.close_reason().is_none());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let n_packets = pair.server.inner.stats().udp_tx.datagrams;
    assert!(n_packets < u64::from(N_PIECES) / 20, "{n_packets} packets");
}
