//! Items that are not made yet: what peers that were asked to push them say, and what they are told.

use rask_comm::message::RunInput;
use rask_graphs::WorkerId;
use smallvec::SmallVec;

use super::super::event::{Action, FetchItem};
use super::super::slab::Key;
use super::{Arrival, Failure, Fetching, ItemEntry, Want, Whereabouts};

impl Fetching {
    /// A watched item has been pushed here and is in the store.
    pub(in crate::machine) fn pushed(&mut self, from: WorkerId, item: FetchItem, nbytes: u64) -> Arrival {
        let Some(key) = self.find(item) else { return Arrival::Unwanted };
        let Some(entry) = self.items.get_mut(key) else { return Arrival::Unwanted };
        if entry.whereabouts != Whereabouts::Watched(from) {
            return Arrival::Stale;
        }
        let waiters = std::mem::take(&mut entry.waiters);
        let is_replica = entry.is_kept && item.part.is_whole();
        entry.whereabouts = Whereabouts::Here(u32::try_from(waiters.len()).unwrap_or(u32::MAX));
        entry.nbytes = nbytes;
        self.nbytes_here += nbytes;
        if is_replica {
            self.forget(key);
            return Arrival::Wanted { waiters, from };
        }
        Arrival::Pushed { waiters }
    }

    pub(in crate::machine) fn awaits(&self, from: WorkerId, item: FetchItem) -> bool {
        let entry = self.find(item).and_then(|key| self.items.get(key));
        entry.is_some_and(|entry| entry.whereabouts == Whereabouts::Watched(from))
    }

    /// A watched item has been made and is to be fetched.
    pub(in crate::machine) fn made(&mut self, from: WorkerId, item: FetchItem, nbytes: u64) {
        let Some(key) = self.find(item) else { return };
        let Some(entry) = self.items.get_mut(key) else { return };
        if entry.whereabouts == Whereabouts::Watched(from) {
            entry.nbytes = nbytes;
            self.assign(key);
        }
    }

    /// An item that is awaited is said to have been made: word of it may have come and gone, or never come. Fetch it.
    pub(super) fn stop_awaiting(&mut self, key: Key, input: &RunInput, waiter: Option<Key>) -> Want {
        let (mut holders, mut failed) = (SmallVec::new(), SmallVec::new());
        self.sort_holders(input, &mut holders, &mut failed);
        if holders.is_empty() {
            return Want::Nowhere(failed.into_vec());
        }
        let Some(entry) = self.items.get_mut(key) else { return Want::Nowhere(failed.into_vec()) };
        if let Whereabouts::Watched(peer) = entry.whereabouts {
            self.watches.push((peer, entry.item, false));
        }
        entry.waiters.extend(waiter);
        (entry.holders, entry.failed) = (holders, failed);
        self.assign(key);
        Want::Awaited(key)
    }

    /// Nothing that is watched at `from` will be heard of: ask others, if there are any. Gives what can be had from nobody.
    pub(in crate::machine) fn watch_lost(&mut self, from: WorkerId) -> Vec<(FetchItem, Failure)> {
        let is_there = |entry: &ItemEntry| entry.whereabouts == Whereabouts::Watched(from);
        let keys: Vec<Key> = self.items.iter().filter(|(_, entry)| is_there(entry)).map(|(key, _)| key).collect();
        let mut lost = Vec::new();
        for key in keys {
            let Some(entry) = self.items.get_mut(key) else { continue };
            let item = entry.item;
            // There is nothing to take back: the peer, or its connection, is gone.
            entry.whereabouts = Whereabouts::Local;
            lost.push((item, self.failed_at(key, from)));
        }
        lost
    }

    /// A whole item that was pushed here is to be kept as a replica. Its size, if it is here.
    pub(in crate::machine) fn keep_pushed(&mut self, item: FetchItem) -> Option<u64> {
        let key = self.find(item)?;
        let nbytes = self.items.get(key).filter(|entry| matches!(entry.whereabouts, Whereabouts::Here(_)))?.nbytes;
        self.forget(key);
        Some(nbytes)
    }

    /// Watches begun and ended since the last call, one action a peer and change of mind.
    pub(in crate::machine) fn take_watches(&mut self, out: &mut Vec<Action>) {
        if self.watches.is_empty() {
            return;
        }
        let mut watches = std::mem::take(&mut self.watches);
        watches.sort_by_key(|(peer, ..)| *peer);
        for run in watches.chunk_by(|a, b| (a.0, a.2) == (b.0, b.2)) {
            let (from, _, begins) = run[0];
            let items = run.iter().map(|(_, item, _)| *item).collect();
            match self.peers.get(&from) {
                Some(peer) if begins => {
                    out.push(Action::Watch { from, address: peer.address, name: peer.name.clone(), pass: peer.pass, items });
                }
                Some(_) | None => out.push(Action::Unwatch { from, items }),
            }
        }
        watches.clear();
        self.watches = watches;
    }
}
