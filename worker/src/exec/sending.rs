//! How much of what is held here is being sent at once.
//!
//! A result that is read back for somebody is in memory until it is sent, so is one that is evicted or freed meanwhile, and so
//! are the bytes that it is encoded to. Whoever asks for everything at once (a client that gathers, peers that regroup a whole
//! array) would have it all in memory. So big ones are sent a few at a time; each takes room once, however many are being sent it, and
//! what is read back for it is in the machine's ledger meanwhile. Nobody goes on without room: guests who do not read lose
//! their connection after a few seconds, and no guest has more than a share of it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rask_comm::data::{Room, Sent};
use rask_comm::limits::{GUEST_SHARE, MIN_SENT_NBYTES, SENDING_SHARE};
use rustc_hash::FxHashMap;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::WorkerCore;
use crate::machine::{Event, FetchItem};

/// Room is counted in these, since permits are counted in 32 bits.
const UNIT: u64 = 4 << 10;
/// Entries of what is over are tolerated up to this number, or as many as there are others.
const MIN_SWEPT: usize = 64;

/// Permits for a number of [`UNIT`]s.
struct Share {
    permits: Arc<Semaphore>,
    n_permits: u32,
}

impl Share {
    fn of(nbytes: u64) -> Self {
        let n_permits = u32::try_from(nbytes / UNIT).unwrap_or(u32::MAX).max(1);
        // Fewer than a semaphore may have, on any machine.
        let n_permits = n_permits.min(u32::MAX >> 4);
        Self { permits: Arc::new(Semaphore::new(n_permits as usize)), n_permits }
    }

    /// Room for `nbytes` bytes, or all of it for what is longer.
    async fn take(&self, nbytes: u64) -> Option<OwnedSemaphorePermit> {
        let n_permits = u32::try_from(nbytes / UNIT).unwrap_or(u32::MAX).clamp(1, self.n_permits);
        Arc::clone(&self.permits).acquire_many_owned(n_permits).await.ok()
    }
}

/// The room of a worker, and who has it.
pub(super) struct Sending {
    /// `None` without a memory limit.
    all: Option<Share>,
    guest_nbytes: u64,
    guests: Mutex<FxHashMap<String, Weak<Share>>>,
    results: Mutex<FxHashMap<FetchItem, Weak<Result>>>,
}

/// A result that is being sent.
#[derive(Default)]
struct Result {
    taken: OnceCell<Taken>,
    sent: Arc<Sent>,
}

/// What keeps the room of a result.
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

impl Sending {
    pub(super) fn new(memory_limit: u64) -> Self {
        let nbytes = memory_limit / SENDING_SHARE;
        Self {
            all: (memory_limit > 0).then(|| Share::of(nbytes)),
            guest_nbytes: nbytes / GUEST_SHARE,
            guests: Mutex::default(),
            results: Mutex::default(),
        }
    }

    fn share_of(&self, guest: &str) -> Arc<Share> {
        let mut guests = self.guests.lock();
        if let Some(share) = guests.get(guest).and_then(Weak::upgrade) {
            return share;
        }
        sweep(&mut guests);
        let share = Arc::new(Share::of(self.guest_nbytes));
        guests.insert(guest.to_owned(), Arc::downgrade(&share));
        share
    }

    fn result(&self, item: &FetchItem) -> Arc<Result> {
        let mut results = self.results.lock();
        if let Some(result) = results.get(item).and_then(Weak::upgrade) {
            return result;
        }
        sweep(&mut results);
        let result = Arc::new(Result::default());
        results.insert(*item, Arc::downgrade(&result));
        result
    }
}

/// Drop the entries of what is over, once there may be many.
fn sweep<K, V>(entries: &mut FxHashMap<K, Weak<V>>) {
    if entries.len() >= MIN_SWEPT && entries.len() == entries.capacity() {
        entries.retain(|_, entry| entry.strong_count() > 0);
    }
}

impl WorkerCore {
    /// Whether the result or part is so big that room has to be waited for before it is sent.
    pub(crate) fn needs_room_to_send(&self, item: &FetchItem) -> bool {
        self.shared.store.nbytes_of(item).is_some_and(|nbytes| nbytes >= MIN_SENT_NBYTES)
    }

    /// Room for sending the result or part to `guest`, once there is some.
    pub(crate) async fn room_to_send(&self, guest: &str, item: FetchItem) -> Room {
        let sending = &self.shared.sending;
        let nbytes = self.shared.store.nbytes_of(&item).unwrap_or(0);
        let own = match &sending.all {
            None => None,
            Some(_) => {
                let share = sending.share_of(guest);
                let permit = share.take(nbytes).await;
                Some((share, permit))
            }
        };
        let result = sending.result(&item);
        result.taken.get_or_init(|| self.take_room(item, nbytes)).await;
        let sent = Arc::clone(&result.sent);
        Room::new((result, own), sent)
    }

    async fn take_room(&self, item: FetchItem, nbytes: u64) -> Taken {
        let permit = match &self.shared.sending.all {
            Some(all) => all.take(nbytes).await,
            None => None,
        };
        let is_in_file = self.shared.store.spilled_nbytes(&item).is_some();
        let nbytes_read = if is_in_file { nbytes } else { 0 };
        if nbytes_read > 0 {
            self.turn(Event::ReadForOthers { nbytes });
        }
        Taken { core: self.clone(), nbytes_read, _permit: permit }
    }
}
