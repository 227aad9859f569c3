//! Uploads on the network's thread: a few streams a worker, small values together.
//!
//! What waits for a stream is not encoded yet, and what waits for room at a worker has not left: so this takes no memory of
//! its own beyond what the network has in its windows.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rask_comm::{OfferedItem, Peers};

use crate::session::{Session, UploadOrder};

/// Streams to one worker at once.
const N_STREAMS: usize = 4;
/// Values from this length on go alone; others together, up to as many bytes and items.
const ALONE_NBYTES: u64 = 256 << 10;
const BATCH_NBYTES: u64 = 1 << 20;
const BATCH_LEN: usize = 512;
/// How long a connection to a worker may take before the scheduler is asked for another.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

type Key = (SocketAddr, String);

/// What goes to one worker.
#[derive(Default)]
struct Lane {
    queue: VecDeque<UploadOrder>,
    n_streams: usize,
}

/// All uploads of a client.
#[derive(Clone)]
pub(crate) struct Lanes {
    peers: Peers,
    session: Weak<Session>,
    lanes: Arc<Mutex<HashMap<Key, Lane>>>,
}

impl Lanes {
    pub(crate) fn new(peers: Peers, session: Weak<Session>) -> Self {
        Self { peers, session, lanes: Arc::default() }
    }

    /// Begin to upload these. To be called on the network's runtime.
    pub(crate) fn add(&self, orders: Vec<UploadOrder>) {
        let mut starts = Vec::new();
        {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            for order in orders {
                let key = (order.to.address, order.to.name.clone());
                let lane = lanes.entry(key.clone()).or_default();
                lane.queue.push_back(order);
                if lane.n_streams < N_STREAMS {
                    lane.n_streams += 1;
                    starts.push(key);
                }
            }
        }
        for key in starts {
            tokio::spawn(self.clone().run(key));
        }
    }

    /// Work off one worker's queue, one batch after another.
    async fn run(self, key: Key) {
        while let Some(orders) = self.next(&key) {
            self.upload(&key, orders).await;
        }
    }

    /// The next values for one stream; the stream ends when there are none.
    fn next(&self, key: &Key) -> Option<Vec<UploadOrder>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.get_mut(key)?;
        let Some(first) = lane.queue.pop_front() else {
            lane.n_streams -= 1;
            if lane.n_streams == 0 {
                lanes.remove(key);
            }
            return None;
        };
        let mut nbytes = first.item.nbytes;
        let ticket = first.ticket;
        let mut batch = vec![first];
        let is_small = nbytes < ALONE_NBYTES;
        while is_small
            && batch.len() < BATCH_LEN
            && let Some(next) = lane.queue.pop_front_if(|next| next.ticket == ticket && nbytes + next.item.nbytes <= BATCH_NBYTES)
        {
            nbytes += next.item.nbytes;
            batch.push(next);
        }
        Some(batch)
    }

    async fn upload(&self, key: &Key, orders: Vec<UploadOrder>) {
        let (mut sound, mut encoded) = (Vec::with_capacity(orders.len()), Vec::with_capacity(orders.len()));
        for order in orders {
            match order.value.encode() {
                Ok(value) => {
                    encoded.push((order.item, value));
                    sound.push(order);
                }
                Err(error) => self.fail(&order.item, true, error.to_string()),
            }
        }
        let Some(first) = sound.first() else { return };
        let connecting = tokio::time::timeout(CONNECT_LIMIT, self.peers.get(key.0, &key.1));
        let connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.fail_all(&sound, &key.1, &error.to_string()),
            Err(_elapsed) => return self.fail_all(&sound, &key.1, "no answer"),
        };
        let (ticket, meter) = (first.ticket, first.meter.clone());
        let on_sent = |nbytes| meter.update(|progress| progress.nbytes_moved += nbytes);
        let outcomes = rask_comm::upload(&connection, ticket, &encoded, on_sent).await;
        for (order, outcome) in sound.iter().zip(outcomes) {
            if let Err(error) = outcome {
                self.fail(&order.item, false, format!("worker \"{}\": {error}", key.1));
            }
        }
    }

    fn fail_all(&self, orders: &[UploadOrder], worker: &str, reason: &str) {
        for order in orders {
            self.fail(&order.item, false, format!("worker \"{worker}\": {reason}"));
        }
    }

    fn fail(&self, item: &OfferedItem, is_final: bool, reason: String) {
        if let Some(session) = self.session.upgrade() {
            session.not_uploaded(item, is_final, reason);
        }
    }
}
