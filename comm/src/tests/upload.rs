//! Values on their way from a client: let in or not, whole, damaged, cut short, longer than was said.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, GraphId, Registry, TaskId, TaskIdx, Value};

use super::{Pair, pair};
use crate::codec::{self, FRAME_LIMIT};
use crate::data::{FoundHeader, ItemHeader, Request, StreamReader};
use crate::upload::{UploadError, upload};
use crate::{Admitted, Offer, OfferedItem, PartRequest, PartSource, Plane, Role, Ticket, Tuning, serve_data};

const TICKET: Ticket = Ticket([9; 16]);

/// What has happened at the worker: what arrived, and what was given up.
#[derive(Default)]
struct Events {
    arrived: Vec<(TaskId, Bytes)>,
    given_up: Vec<TaskId>,
}

/// A worker that takes tasks with an even number from whoever shows the ticket.
#[derive(Default)]
struct Door {
    events: Arc<Mutex<Events>>,
}

struct Room {
    offer: Offer,
    verdict: Vec<bool>,
    is_open: Vec<bool>,
    events: Arc<Mutex<Events>>,
    registry: Registry,
}

impl Admitted for Room {
    fn verdict(&self) -> &[bool] {
        &self.verdict
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn arrived(&mut self, idx: usize, value: Value, _duration: Duration) {
        self.is_open[idx] = false;
        let bytes = value.downcast::<Opaque>().unwrap().0.clone();
        self.events.lock().unwrap().arrived.push((self.offer.items[idx].task, bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let open = self.offer.items.iter().zip(&self.is_open).filter(|(_, is_open)| **is_open);
        self.events.lock().unwrap().given_up.extend(open.map(|(item, _)| item.task));
    }
}

impl PartSource for Door {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        super::grant_key().opens(graph, grant)
    }

    fn get(&self, _item: &PartRequest) -> Option<Value> {
        None
    }

    fn offered(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Admitted>> {
        let is_taken = |item: &OfferedItem| offer.ticket == TICKET && item.task.idx.0.is_multiple_of(2);
        let verdict: Vec<bool> = offer.items.iter().map(is_taken).collect();
        let (is_open, events) = (verdict.clone(), Arc::clone(&self.events));
        let room: Box<dyn Admitted> = Box::new(Room { offer, verdict, is_open, events, registry: Registry::new() });
        Box::pin(std::future::ready(room))
    }
}

fn item(idx: u32, nbytes: usize) -> OfferedItem {
    OfferedItem { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), nbytes: nbytes as u64 }
}

fn value(idx: u32, nbytes: usize) -> Value {
    Value::new(Opaque((0..nbytes).map(|at| (at / 5) as u8 ^ idx as u8).collect()))
}

async fn door() -> (Pair, Arc<Mutex<Events>>) {
    let pair = pair(Plane::Data, Role::Worker, Role::Client, Tuning::default()).await;
    let door = Door::default();
    let events = Arc::clone(&door.events);
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(door)));
    (pair, events)
}

#[tokio::test]
async fn what_is_taken_arrives_and_the_rest_does_not_move() {
    let (pair, events) = door().await;
    let sizes = [0, 70_000, 3 << 20, 1, 131_072];
    let values: Vec<_> =
        (0..).zip(sizes).map(|(idx, nbytes)| (item(idx, nbytes), value(idx, nbytes).encode().unwrap())).collect();
    let mut n_sent = 0;
    let outcomes = upload(&pair.client, TICKET, &values, |nbytes| n_sent += nbytes).await;
    let refused = Err(UploadError::Refused);
    assert_eq!(outcomes, [Ok(()), refused.clone(), Ok(()), refused.clone(), Ok(())]);
    assert_eq!(n_sent, (3 << 20) + 131_072);
    let events = events.lock().unwrap();
    assert!(events.given_up.is_empty());
    for ((task, bytes), idx) in events.arrived.iter().zip([0, 2, 4]) {
        assert_eq!(*task, item(idx, 0).task);
        assert_eq!(*bytes, value(idx, sizes[idx as usize]).downcast::<Opaque>().unwrap().0);
        assert!(bytes.is_empty() || bytes.as_ptr().addr().is_multiple_of(64));
    }
}

#[tokio::test]
async fn without_the_ticket_nothing_is_taken() {
    let (pair, events) = door().await;
    let values = [(item(0, 10), value(0, 10).encode().unwrap())];
    let outcomes = upload(&pair.client, Ticket([8; 16]), &values, |_| {}).await;
    assert_eq!(outcomes, [Err(UploadError::Refused)]);
    assert!(events.lock().unwrap().arrived.is_empty());
}

/// Offer task 0 with `announced` bytes, and send `bytes` for it by hand.
async fn send_by_hand(pair: &Pair, announced: usize, bytes: &[u8], finishes: bool) {
    let (mut send, receive) = pair.client.inner.open_bi().await.unwrap();
    let mut reader = StreamReader::new(receive);
    let mut frame = Vec::new();
    let offer = Offer { ticket: TICKET, items: vec![item(0, announced)] };
    codec::encode_frame(&[Request::Upload(offer)], FRAME_LIMIT, &mut frame).unwrap();
    send.write_all(&frame).await.unwrap();
    assert!(reader.frame().await.is_ok_and(|verdict| verdict.is_some()));
    // Whoever is closed in the middle of it need not be told more.
    let _ = send.write_all(bytes).await;
    if finishes {
        let _ = send.finish();
    } else {
        let _ = send.reset(quinn::VarInt::from_u32(1));
    }
    let _ = reader.frame().await;
}

fn honest(nbytes: usize) -> Vec<u8> {
    let request = PartRequest { task: item(0, 0).task, attempt: Attempt(1), part: rask_graphs::Part::WHOLE };
    let encoded = value(0, nbytes).encode().unwrap();
    let mut bytes = Vec::new();
    codec::encode_frame(&[ItemHeader::Found(FoundHeader::new(&request, &encoded))], FRAME_LIMIT, &mut bytes).unwrap();
    bytes.extend_from_slice(&encoded.buffers[0]);
    bytes
}

#[tokio::test]
async fn damage_and_cuts_anywhere_are_given_up_and_never_arrive() {
    let honest = honest(1_000);
    for at in (0..honest.len()).step_by(29) {
        let (pair, events) = door().await;
        let mut flipped = honest.clone();
        flipped[at] ^= 4;
        send_by_hand(&pair, 1_000, &flipped, true).await;
        let (other, cut_short) = door().await;
        send_by_hand(&other, 1_000, &honest[..at], at % 2 == 0).await;
        for events in [events, cut_short] {
            for _ in 0..200 {
                if !events.lock().unwrap().given_up.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let events = events.lock().unwrap();
            assert_eq!((events.arrived.len(), events.given_up.len()), (0, 1), "at {at}");
        }
    }
    let (pair, events) = door().await;
    send_by_hand(&pair, 1_000, &honest, true).await;
    assert_eq!(events.lock().unwrap().arrived.len(), 1);
}

#[tokio::test]
async fn who_sends_more_than_was_said_is_closed() {
    let (pair, events) = door().await;
    send_by_hand(&pair, 999, &honest(1_000), true).await;
    tokio::time::timeout(Duration::from_secs(5), pair.client.closed()).await.expect("it is closed");
    let events = events.lock().unwrap();
    assert_eq!((events.arrived.len(), events.given_up.len()), (0, 1));
}
