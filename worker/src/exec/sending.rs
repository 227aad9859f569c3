//! How much of what is held here is being sent at once.
//!
//! A result that is read back for somebody is in memory until it is sent, and so is one that is evicted or freed meanwhile. Whoever
//! asks for everything at once (a client that gathers, peers that regroup a whole array) would have it all in memory. So
//! big ones are sent a few at a time; what is read back for it is in the machine's ledger meanwhile.

use std::sync::Arc;
use std::time::Duration;

use rask_comm::data::Room;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::WorkerCore;
use crate::machine::{Event, FetchItem};

/// The share of the memory limit that may be on its way out: one in so many.
const SHARE: u64 = 8;
/// Smaller ones need not wait.
const MIN_NBYTES: u64 = 128 << 10;
/// Room is counted in these, since permits are counted in 32 bits.
const UNIT: u64 = 4 << 10;
/// Somebody who takes nothing in must not keep others from theirs for longer than this; they give up on this worker later.
const PATIENCE: Duration = Duration::from_secs(2);

/// The room of a worker with a memory limit.
pub(super) struct Sending {
    permits: Option<Arc<Semaphore>>,
    n_permits: u32,
}

impl Sending {
    pub(super) fn new(memory_limit: u64) -> Self {
        let n_permits = u32::try_from(memory_limit / SHARE / UNIT).unwrap_or(u32::MAX).max(1);
        // Fewer than a semaphore may have, on any machine.
        let n_permits = n_permits.min(u32::MAX >> 4);
        Self { permits: (memory_limit > 0).then(|| Arc::new(Semaphore::new(n_permits as usize))), n_permits }
    }
}

/// What keeps the room.
struct Taken {
    core: WorkerCore,
    /// Bytes that were read back for it.
    nbytes_read: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.nbytes_read > 0 {
            self.core.turn(Event::SentOff { nbytes: self.nbytes_read });
        }
    }
}

impl WorkerCore {
    /// Whether the result or part is so big that room has to be waited for before it is sent.
    pub(crate) fn needs_room_to_send(&self, item: &FetchItem) -> bool {
        self.shared.sending.permits.is_some() && self.shared.store.nbytes_of(item).is_some_and(|nbytes| nbytes >= MIN_NBYTES)
    }

    /// Room for sending the result or part, once there is some.
    pub(crate) async fn room_to_send(&self, item: FetchItem) -> Room {
        let sending = &self.shared.sending;
        let nbytes = self.shared.store.nbytes_of(&item).unwrap_or(0);
        let n_permits = u32::try_from(nbytes / UNIT).unwrap_or(u32::MAX).clamp(1, sending.n_permits);
        let permit = match sending.permits.clone() {
            Some(permits) => timeout(PATIENCE, permits.acquire_many_owned(n_permits)).await.ok().and_then(Result::ok),
            None => None,
        };
        let is_in_file = self.shared.store.spilled_nbytes(&item).is_some();
        let nbytes_read = if is_in_file { nbytes } else { 0 };
        if nbytes_read > 0 {
            self.turn(Event::ReadForOthers { nbytes });
        }
        Box::new(Taken { core: self.clone(), nbytes_read, _permit: permit })
    }
}
