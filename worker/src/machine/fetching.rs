//! Items on their way here: which peer is asked for which, how much is in the air, and who waits for what.
//!
//! An item that is not made yet is watched for at the peer that makes it, or awaited from this worker's own slots. What a peer
//! pushes is kept, like a part, while a run here needs it.
//!
//! One fetch an item, however many runs need it. An item is assigned to the holder with the fewest bytes assigned to it here;
//! a failed one moves on to the next holder. Requests carry many items, those of the most urgent run first. Parts are kept
//! while a run here needs them; whole results leave this table when they arrive and become replicas.

mod limits;
mod watching;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

use rask_comm::Grant;
use rask_comm::message::RunInput;
use rask_graphs::{TaskId, WorkerId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::event::{Action, FetchId, FetchItem};
use super::runs::Rank;
use super::slab::{Key, Slab};

pub use limits::FetchLimits;
pub(super) use limits::Room;

/// Runs that wait for an item, one entry an input that names it.
pub(super) type Waiters = SmallVec<[Key; 2]>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whereabouts {
    /// In the queue of a peer.
    Queued(WorkerId),
    /// Asked for.
    InFlight(WorkerId, FetchId),
    /// Not made yet; the peer will push it, or say when it can be fetched.
    Watched(WorkerId),
    /// Not made yet, and to be made here.
    Local,
    /// In the store, a part or pushed here, needed by this many inputs of runs.
    Here(u32),
}

struct ItemEntry {
    item: FetchItem,
    nbytes: u64,
    whereabouts: Whereabouts,
    rank: Rank,
    /// Whether it is wanted for its own sake: a replica.
    is_kept: bool,
    /// Empty once it is here; empty in flight when nobody wants it any more.
    waiters: Waiters,
    /// Peers that may have it and have not failed.
    holders: SmallVec<[WorkerId; 4]>,
    /// Peers named as holders from which it could not be had.
    failed: SmallVec<[WorkerId; 2]>,
}

impl ItemEntry {
    fn is_wanted(&self) -> bool {
        self.is_kept || !self.waiters.is_empty()
    }
}

struct Peer {
    address: SocketAddr,
    /// With this it lets this worker watch.
    pass: Grant,
    name: String,
    /// Items assigned to it, the most urgent first and equals in the order they were asked for; entries of items that have
    /// gone or moved on are skipped.
    queue: BinaryHeap<(Rank, Reverse<u64>, Key)>,
    n_requests: usize,
    /// Bytes queued at it and in the air from it.
    nbytes_assigned: u64,
    /// Its entry in [`Fetching::eligible`].
    offered: Option<Rank>,
}

struct Flight {
    from: WorkerId,
    n_open: usize,
}

/// What came of asking for an input.
pub(super) enum Want {
    /// The part is in the store already.
    Here(Key),
    /// It will arrive, or fail.
    Awaited(Key),
    /// There is nobody to ask; these were named.
    Nowhere(Vec<WorkerId>),
}

/// What an arrival means.
pub(super) enum Arrival {
    /// Nobody asked for it, or it is here already.
    Stale,
    /// Nobody wants it any more.
    Unwanted,
    /// It was pushed here, and these waited for it. It is kept while they need it.
    Pushed { waiters: Waiters },
    /// These waited for it, and it stays.
    Wanted { waiters: Waiters, from: WorkerId },
}

/// What a failure means.
pub(super) enum Failure {
    /// Nothing is to be done: stale, unwanted, or another holder will be asked.
    Handled,
    /// No holder is left.
    Lost { waiters: Waiters, holders: Vec<WorkerId>, was_kept: bool },
}

pub(super) struct Fetching {
    limits: FetchLimits,
    me: WorkerId,
    items: Slab<ItemEntry>,
    by_task: FxHashMap<TaskId, SmallVec<[Key; 2]>>,
    peers: BTreeMap<WorkerId, Peer>,
    /// Peers with something in their queue and a request to spare, the most urgent first.
    eligible: BTreeSet<(Reverse<Rank>, WorkerId)>,
    flights: BTreeMap<FetchId, Flight>,
    /// Watches begun (true) and ended in this turn, in order.
    watches: Vec<(WorkerId, FetchItem, bool)>,
    n_fetches: u64,
    n_queued_ever: u64,
    nbytes_in_flight: u64,
    /// Bytes that are in the store because runs need them.
    nbytes_here: u64,
}

impl Fetching {
    pub(super) fn new(limits: FetchLimits) -> Self {
        Self {
            limits,
            me: WorkerId(u32::MAX),
            items: Slab::new(),
            by_task: FxHashMap::default(),
            peers: BTreeMap::new(),
            eligible: BTreeSet::new(),
            flights: BTreeMap::new(),
            watches: Vec::new(),
            n_fetches: 0,
            n_queued_ever: 0,
            nbytes_in_flight: 0,
            nbytes_here: 0,
        }
    }

    pub(super) fn set_me(&mut self, me: WorkerId) {
        self.me = me;
    }

    pub(super) fn nbytes_in_flight(&self) -> u64 {
        self.nbytes_in_flight
    }

    pub(super) fn nbytes_here(&self) -> u64 {
        self.nbytes_here
    }

    /// Bytes queued at a peer and in the air from it.
    pub(super) fn nbytes_assigned(&self, worker: WorkerId) -> u64 {
        self.peers.get(&worker).map_or(0, |peer| peer.nbytes_assigned)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn n_items(&self) -> usize {
        self.items.len()
    }

    pub(super) fn add_peer(&mut self, worker: WorkerId, address: SocketAddr, name: String, pass: Grant) {
        let peer = self.peers.entry(worker).or_insert_with(|| Peer {
            address,
            name: String::new(),
            pass,
            queue: BinaryHeap::new(),
            n_requests: 0,
            nbytes_assigned: 0,
            offered: None,
        });
        peer.address = address;
        peer.name = name;
        peer.pass = pass;
    }

    /// Ask for `input`, for the run `waiter` or (when `None`) to keep it.
    pub(super) fn want(&mut self, input: &RunInput, rank: Rank, waiter: Option<Key>) -> Want {
        let item = FetchItem { task: input.task, attempt: input.attempt, part: input.part };
        if let Some(key) = self.find(item) {
            return self.join(key, input, rank, waiter);
        }
        let is_local = !input.is_made && input.holders.contains(&self.me);
        let mut holders = SmallVec::new();
        let mut failed = SmallVec::new();
        self.sort_holders(input, &mut holders, &mut failed);
        if holders.is_empty() && !is_local {
            return Want::Nowhere(failed.into_vec());
        }
        let maker = holders.first().copied();
        let key = self.items.insert(ItemEntry {
            item,
            nbytes: input.nbytes,
            whereabouts: Whereabouts::Queued(self.me),
            rank,
            is_kept: waiter.is_none(),
            waiters: waiter.into_iter().collect(),
            holders,
            failed,
        });
        self.by_task.entry(item.task).or_default().push(key);
        match maker {
            _ if input.is_made => self.assign(key),
            Some(maker) if !is_local => {
                self.set_whereabouts(key, Whereabouts::Watched(maker));
                self.watches.push((maker, item, true));
            }
            Some(_) | None => self.set_whereabouts(key, Whereabouts::Local),
        }
        Want::Awaited(key)
    }

    fn set_whereabouts(&mut self, key: Key, whereabouts: Whereabouts) {
        if let Some(entry) = self.items.get_mut(key) {
            entry.whereabouts = whereabouts;
        }
    }

    /// Another run wants an item that is known already.
    fn join(&mut self, key: Key, input: &RunInput, rank: Rank, waiter: Option<Key>) -> Want {
        let Some(entry) = self.items.get_mut(key) else { return Want::Nowhere(input.holders.clone()) };
        entry.is_kept |= waiter.is_none();
        if let Whereabouts::Here(n_users) = &mut entry.whereabouts {
            *n_users += u32::from(waiter.is_some());
            return Want::Here(key);
        }
        if input.is_made && matches!(entry.whereabouts, Whereabouts::Watched(_) | Whereabouts::Local) {
            return self.stop_awaiting(key, input, waiter);
        }
        entry.waiters.extend(waiter);
        let (mut holders, mut failed) = (std::mem::take(&mut entry.holders), std::mem::take(&mut entry.failed));
        let is_raised = rank > entry.rank;
        entry.rank = entry.rank.max(rank);
        let queued_at = match entry.whereabouts {
            Whereabouts::Queued(peer) => Some(peer),
            Whereabouts::InFlight(..) | Whereabouts::Watched(_) | Whereabouts::Local | Whereabouts::Here(_) => None,
        };
        self.sort_holders(input, &mut holders, &mut failed);
        if let Some(entry) = self.items.get_mut(key) {
            (entry.holders, entry.failed) = (holders, failed);
        }
        if let (true, Some(worker)) = (is_raised, queued_at) {
            self.n_queued_ever += 1;
            if let Some(peer) = self.peers.get_mut(&worker) {
                peer.queue.push((rank, Reverse(self.n_queued_ever), key));
            }
            self.offer(worker);
        }
        Want::Awaited(key)
    }

    /// Put the holders named by `input` where they belong, each once: those that can be asked, and this worker and strangers.
    fn sort_holders(&self, input: &RunInput, holders: &mut SmallVec<[WorkerId; 4]>, failed: &mut SmallVec<[WorkerId; 2]>) {
        for &holder in &input.holders {
            if holders.contains(&holder) || failed.contains(&holder) {
                continue;
            }
            if holder != self.me && self.peers.contains_key(&holder) {
                holders.push(holder);
            } else {
                failed.push(holder);
            }
        }
    }

    /// Queue an item at the holder that has the fewest bytes assigned to it; of equals at the one that was named first: the
    /// scheduler names them to each worker in an order of its own.
    fn assign(&mut self, key: Key) {
        let Some(entry) = self.items.get_mut(key) else { return };
        let load = |worker: &WorkerId| self.peers.get(worker).map_or(u64::MAX, |peer| peer.nbytes_assigned);
        let Some(worker) = entry.holders.iter().copied().min_by_key(load) else { return };
        entry.whereabouts = Whereabouts::Queued(worker);
        self.n_queued_ever += 1;
        if let Some(peer) = self.peers.get_mut(&worker) {
            peer.queue.push((entry.rank, Reverse(self.n_queued_ever), key));
            peer.nbytes_assigned = peer.nbytes_assigned.saturating_add(entry.nbytes);
        }
        self.offer(worker);
    }

    /// Bring the entry of `worker` among the eligible peers up to date with its queue.
    fn offer(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get_mut(&worker) else { return };
        while let Some(&(_, _, key)) = peer.queue.peek() {
            if is_queued_at(&self.items, key, worker) {
                break;
            }
            peer.queue.pop();
        }
        let has_request = peer.n_requests < self.limits.max_requests_per_peer;
        let offered = peer.queue.peek().map(|&(rank, ..)| rank).filter(|_| has_request);
        if offered != peer.offered {
            if let Some(rank) = peer.offered {
                self.eligible.remove(&(Reverse(rank), worker));
            }
            if let Some(rank) = offered {
                self.eligible.insert((Reverse(rank), worker));
            }
            peer.offered = offered;
        }
    }

    /// Start fetches as the limits and the room in memory allow, `max_batches` at most, the most urgent items first. When it is
    /// memory that stops them, the size of the item that waits for it.
    pub(super) fn pump(&mut self, max_batches: usize, room: Room, out: &mut Vec<Action>) -> Option<u64> {
        let mut n_batches = 0;
        while n_batches < max_batches {
            let &(_, worker) = self.eligible.first()?;
            let fetch = FetchId(self.n_fetches);
            let items = self.take_batch(worker, fetch, room);
            if items.is_empty() {
                // The bytes in the air are at their limit. (An offered peer has an item, or it would not be offered.)
                let peer = self.peers.get(&worker)?;
                let first = self.items.get(peer.queue.peek()?.2)?;
                return (!room.fits(self.nbytes_in_flight, first.nbytes)).then_some(first.nbytes.max(1));
            }
            n_batches += 1;
            self.n_fetches += 1;
            self.flights.insert(fetch, Flight { from: worker, n_open: items.len() });
            if let Some(peer) = self.peers.get_mut(&worker) {
                peer.n_requests += 1;
                out.push(Action::Fetch { fetch, from: worker, address: peer.address, name: peer.name.clone(), items });
            }
            self.offer(worker);
        }
        None
    }

    /// Take the next items of one peer's queue, as many as one request, the bytes in the air and memory allow.
    fn take_batch(&mut self, worker: WorkerId, fetch: FetchId, room: Room) -> Vec<FetchItem> {
        let mut batch = Vec::new();
        let mut nbytes = 0u64;
        let Some(peer) = self.peers.get_mut(&worker) else { return batch };
        while batch.len() < self.limits.max_request_items {
            let Some(&(_, _, key)) = peer.queue.peek() else { break };
            if !is_queued_at(&self.items, key, worker) {
                peer.queue.pop();
                continue;
            }
            let Some(entry) = self.items.get_mut(key) else { break };
            let is_alone = batch.is_empty() && self.flights.is_empty();
            let total = self.nbytes_in_flight.saturating_add(entry.nbytes);
            let of_request = nbytes.saturating_add(entry.nbytes);
            let fits_request = batch.is_empty() || of_request <= self.limits.max_request_nbytes;
            let fits_limit = total <= self.limits.max_nbytes_in_flight || is_alone;
            let fits_room = room.fits(self.nbytes_in_flight, entry.nbytes) || (is_alone && room.is_last_resort);
            if !fits_request || !fits_limit || !fits_room {
                break;
            }
            peer.queue.pop();
            entry.whereabouts = Whereabouts::InFlight(worker, fetch);
            nbytes = of_request;
            self.nbytes_in_flight = total;
            batch.push(entry.item);
        }
        batch
    }

    /// An item of a fetch has arrived and is in the store.
    pub(super) fn arrived(&mut self, fetch: FetchId, item: FetchItem, nbytes: u64) -> Arrival {
        let Some((key, from)) = self.land(fetch, item) else { return Arrival::Stale };
        let Some(entry) = self.items.get_mut(key) else { return Arrival::Stale };
        let is_wanted = entry.is_wanted();
        let waiters = std::mem::take(&mut entry.waiters);
        if is_wanted && !item.part.is_whole() {
            entry.whereabouts = Whereabouts::Here(u32::try_from(waiters.len()).unwrap_or(u32::MAX));
            entry.nbytes = nbytes;
            self.nbytes_here += nbytes;
        } else {
            self.forget(key);
        }
        if is_wanted { Arrival::Wanted { waiters, from } } else { Arrival::Unwanted }
    }

    /// An item of a fetch will not come.
    pub(super) fn failed(&mut self, fetch: FetchId, item: FetchItem) -> Failure {
        let Some((key, from)) = self.land(fetch, item) else { return Failure::Handled };
        self.failed_at(key, from)
    }

    /// An item that is neither queued nor in the air any more cannot be had from `from`.
    fn failed_at(&mut self, key: Key, from: WorkerId) -> Failure {
        let Some(entry) = self.items.get_mut(key) else { return Failure::Handled };
        entry.holders.retain(|holder| *holder != from);
        if !entry.failed.contains(&from) {
            entry.failed.push(from);
        }
        if !entry.is_wanted() {
            self.forget(key);
            return Failure::Handled;
        }
        if !entry.holders.is_empty() {
            self.assign(key);
            return Failure::Handled;
        }
        let lost = Failure::Lost {
            waiters: std::mem::take(&mut entry.waiters),
            holders: std::mem::take(&mut entry.failed).into_vec(),
            was_kept: entry.is_kept,
        };
        self.forget(key);
        lost
    }

    /// Close the books on one item in the air. `None` when it is not, or in another fetch.
    fn land(&mut self, fetch: FetchId, item: FetchItem) -> Option<(Key, WorkerId)> {
        let key = self.find(item)?;
        let entry = self.items.get(key)?;
        let Whereabouts::InFlight(worker, of) = entry.whereabouts else { return None };
        if of != fetch {
            return None;
        }
        self.nbytes_in_flight = self.nbytes_in_flight.saturating_sub(entry.nbytes);
        let peer = self.peers.get_mut(&worker)?;
        peer.nbytes_assigned = peer.nbytes_assigned.saturating_sub(entry.nbytes);
        let flight = self.flights.get_mut(&fetch)?;
        flight.n_open -= 1;
        if flight.n_open == 0 {
            self.flights.remove(&fetch);
            peer.n_requests -= 1;
            self.offer(worker);
        }
        Some((key, worker))
    }

    /// A run lets go of an item it counted on: it is over, or will not be. Tells the part to drop when it was the last.
    pub(super) fn let_go(&mut self, key: Key, run: Option<Key>) -> Option<FetchItem> {
        let entry = self.items.get_mut(key)?;
        match &mut entry.whereabouts {
            Whereabouts::Here(n_users) => {
                *n_users -= 1;
                if *n_users > 0 || entry.is_kept {
                    return None;
                }
                let item = entry.item;
                self.forget(key);
                return Some(item);
            }
            Whereabouts::Queued(_) | Whereabouts::InFlight(..) | Whereabouts::Watched(_) | Whereabouts::Local => {}
        }
        if let Some(idx) = entry.waiters.iter().position(|waiter| Some(*waiter) == run) {
            entry.waiters.swap_remove(idx);
        }
        if !entry.is_wanted() && !matches!(entry.whereabouts, Whereabouts::InFlight(..)) {
            self.forget(key);
        }
        None
    }

    /// The result of `task` is freed everywhere: forget its items. Gives the parts to drop, and the runs that still waited.
    pub(super) fn free(&mut self, task: TaskId) -> (SmallVec<[FetchItem; 2]>, Waiters) {
        let (mut drops, mut waiters) = (SmallVec::new(), Waiters::new());
        for key in self.by_task.get(&task).cloned().unwrap_or_default() {
            let Some(entry) = self.items.get_mut(key) else { continue };
            entry.is_kept = false;
            waiters.extend(std::mem::take(&mut entry.waiters));
            match entry.whereabouts {
                // What is in the air is dropped on arrival, since nobody waits for it.
                Whereabouts::InFlight(..) => continue,
                Whereabouts::Here(_) => drops.push(entry.item),
                Whereabouts::Queued(_) | Whereabouts::Watched(_) | Whereabouts::Local => {}
            }
            self.forget(key);
        }
        (drops, waiters)
    }

    /// The whole result of this run was made here: whoever waits for it, or for parts of it, waits no longer.
    pub(super) fn satisfy(&mut self, whole: FetchItem) -> Waiters {
        let mut waiters = Waiters::new();
        for key in self.by_task.get(&whole.task).cloned().unwrap_or_default() {
            let Some(entry) = self.items.get_mut(key).filter(|entry| entry.item.attempt == whole.attempt) else { continue };
            entry.is_kept = false;
            waiters.extend(std::mem::take(&mut entry.waiters));
            if matches!(entry.whereabouts, Whereabouts::Queued(_) | Whereabouts::Watched(_) | Whereabouts::Local) {
                self.forget(key);
            }
        }
        waiters
    }

    /// Whether this very part is in the store because runs need it.
    pub(super) fn is_here(&self, item: FetchItem) -> bool {
        let entry = self.find(item).and_then(|key| self.items.get(key));
        entry.is_some_and(|entry| matches!(entry.whereabouts, Whereabouts::Here(_)))
    }

    fn find(&self, item: FetchItem) -> Option<Key> {
        if self.by_task.is_empty() {
            return None;
        }
        let is_it = |key: &&Key| self.items.get(**key).is_some_and(|entry| entry.item == item);
        self.by_task.get(&item.task)?.iter().find(is_it).copied()
    }

    fn forget(&mut self, key: Key) {
        let Some(entry) = self.items.remove(key) else { return };
        if let Some(keys) = self.by_task.get_mut(&entry.item.task) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_task.remove(&entry.item.task);
            }
        }
        if let Whereabouts::Here(_) = entry.whereabouts {
            self.nbytes_here -= entry.nbytes;
        }
        if let Whereabouts::Watched(peer) = entry.whereabouts {
            self.watches.push((peer, entry.item, false));
        }
        if let Whereabouts::Queued(worker) = entry.whereabouts {
            if let Some(peer) = self.peers.get_mut(&worker) {
                peer.nbytes_assigned = peer.nbytes_assigned.saturating_sub(entry.nbytes);
            }
            self.offer(worker);
        }
    }

    /// # Panics
    /// When the books contradict each other, or a limit is broken.
    pub(super) fn validate(&self) {
        let mut in_flight: BTreeMap<FetchId, usize> = BTreeMap::new();
        let (mut nbytes_in_flight, mut nbytes_here) = (0u64, 0u64);
        let mut nbytes_assigned: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for (key, entry) in self.items.iter() {
            let is_indexed = self.by_task.get(&entry.item.task).is_some_and(|keys| keys.contains(&key));
            assert!(is_indexed, "item {:?} is not in the index", entry.item);
            match entry.whereabouts {
                Whereabouts::Queued(worker) => {
                    assert!(entry.is_wanted(), "{:?} is queued for nobody", entry.item);
                    assert!(entry.holders.contains(&worker), "{:?} is queued at {worker}, no holder", entry.item);
                    let queue = &self.peers[&worker].queue;
                    assert!(queue.iter().any(|(_, _, other)| *other == key), "{:?} is in no queue", entry.item);
                    *nbytes_assigned.entry(worker).or_default() += entry.nbytes;
                }
                Whereabouts::InFlight(worker, fetch) => {
                    assert_eq!(self.flights[&fetch].from, worker, "{:?} is in the air from elsewhere", entry.item);
                    *in_flight.entry(fetch).or_default() += 1;
                    nbytes_in_flight += entry.nbytes;
                    *nbytes_assigned.entry(worker).or_default() += entry.nbytes;
                }
                Whereabouts::Watched(peer) => {
                    assert!(entry.is_wanted(), "{:?} is watched for nobody", entry.item);
                    assert!(self.peers.contains_key(&peer), "{:?} is watched at {peer}, a stranger", entry.item);
                }
                Whereabouts::Local => assert!(entry.is_wanted(), "{:?} is awaited for nobody", entry.item),
                Whereabouts::Here(n_users) => {
                    assert!(n_users > 0 || entry.is_kept, "part {:?} is kept for nobody", entry.item);
                    assert!(entry.waiters.is_empty(), "{:?} is here and awaited", entry.item);
                    nbytes_here += entry.nbytes;
                }
            }
        }
        assert_eq!(self.by_task.values().map(SmallVec::len).sum::<usize>(), self.items.len(), "the index of items is too long");
        assert_eq!(nbytes_in_flight, self.nbytes_in_flight, "bytes in the air");
        assert_eq!(nbytes_here, self.nbytes_here, "bytes kept for runs");
        let is_single = self.flights.len() == 1 && in_flight.values().sum::<usize>() == 1;
        let limit = self.limits.max_nbytes_in_flight;
        assert!(nbytes_in_flight <= limit || is_single, "{nbytes_in_flight} bytes in the air");
        for (fetch, flight) in &self.flights {
            assert_eq!(in_flight.get(fetch), Some(&flight.n_open), "open items of {fetch:?}");
        }
        for (worker, peer) in &self.peers {
            let n_requests = self.flights.values().filter(|flight| flight.from == *worker).count();
            assert_eq!(n_requests, peer.n_requests, "requests to {worker}");
            assert!(n_requests <= self.limits.max_requests_per_peer, "too many requests to {worker}");
            assert_eq!(nbytes_assigned.get(worker).copied().unwrap_or(0), peer.nbytes_assigned, "bytes assigned to {worker}");
        }
    }
}

fn is_queued_at(items: &Slab<ItemEntry>, key: Key, worker: WorkerId) -> bool {
    items.get(key).is_some_and(|entry| entry.whereabouts == Whereabouts::Queued(worker))
}
