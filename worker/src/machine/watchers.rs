//! Peers that want results as soon as they are made here.
//!
//! A watch says nothing of whether its result will ever be made: the scheduler takes back the runs that wait for one that
//! will not, and then the peer takes back its watch.

use rask_comm::limits::MAX_WATCHES;
use rask_graphs::{Attempt, GraphId, TaskId, WorkerId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::event::FetchItem;

#[derive(Default)]
pub(super) struct Watchers {
    by_task: FxHashMap<TaskId, SmallVec<[(WorkerId, FetchItem); 2]>>,
    /// Watches of each peer.
    n_of: FxHashMap<WorkerId, usize>,
}

impl Watchers {
    /// Have `peer` watch for `item`. False when it watches for as much as anybody may: then it does not.
    pub(super) fn add(&mut self, peer: WorkerId, item: FetchItem) -> bool {
        let n_own = self.n_of.entry(peer).or_default();
        if *n_own >= MAX_WATCHES {
            return false;
        }
        let watches = self.by_task.entry(item.task).or_default();
        if !watches.contains(&(peer, item)) {
            watches.push((peer, item));
            *n_own += 1;
        }
        true
    }

    /// Whether `peer` watches for as much as anybody may.
    pub(super) fn is_full(&self, peer: WorkerId) -> bool {
        self.n_of.get(&peer).is_some_and(|n_own| *n_own >= MAX_WATCHES)
    }

    fn forget(&mut self, peer: WorkerId) {
        if let Some(n_own) = self.n_of.get_mut(&peer) {
            *n_own -= 1;
            if *n_own == 0 {
                self.n_of.remove(&peer);
            }
        }
    }

    pub(super) fn remove(&mut self, peer: WorkerId, item: FetchItem) {
        if let Some(watches) = self.by_task.get_mut(&item.task) {
            let before = watches.len();
            watches.retain(|watch| *watch != (peer, item));
            let is_gone = watches.len() < before;
            if watches.is_empty() {
                self.by_task.remove(&item.task);
            }
            if is_gone {
                self.forget(peer);
            }
        }
    }

    pub(super) fn remove_peer(&mut self, peer: WorkerId) {
        self.by_task.retain(|_, watches| {
            watches.retain(|(other, _)| *other != peer);
            !watches.is_empty()
        });
        self.n_of.remove(&peer);
    }

    /// Nothing of `graph` will be made any more. (A watch that crossed the push of an earlier one is still here then.)
    pub(super) fn remove_graph(&mut self, graph: GraphId) {
        let mut gone = Vec::new();
        self.by_task.retain(|task, watches| {
            let stays = task.graph != graph;
            if !stays {
                gone.extend(watches.iter().map(|(peer, _)| *peer));
            }
            stays
        });
        gone.into_iter().for_each(|peer| self.forget(peer));
    }

    /// Run `attempt` of `task` has made its result: take out who wants it, or a part of it.
    pub(super) fn take(&mut self, task: TaskId, attempt: Attempt) -> SmallVec<[(WorkerId, FetchItem); 2]> {
        if self.by_task.is_empty() {
            return SmallVec::new();
        }
        let Some(watches) = self.by_task.remove(&task) else { return SmallVec::new() };
        let (made, others): (SmallVec<[(WorkerId, FetchItem); 2]>, SmallVec<_>) =
            watches.into_iter().partition(|(_, item)| item.attempt == attempt);
        if !others.is_empty() {
            self.by_task.insert(task, others);
        }
        made.iter().for_each(|(peer, _)| self.forget(*peer));
        made
    }

    /// # Panics
    /// When the counts are not those of what is watched for.
    pub(super) fn validate(&self) {
        let mut counted: FxHashMap<WorkerId, usize> = FxHashMap::default();
        for (peer, _) in self.by_task.values().flatten() {
            *counted.entry(*peer).or_default() += 1;
        }
        assert!(self.n_of.iter().all(|(peer, n)| counted.get(peer).copied().unwrap_or(0) == *n), "watches by peer");
        assert!(counted.keys().all(|peer| self.n_of.contains_key(peer)), "watches of peers that have none");
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.values().map(SmallVec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use rask_graphs::{Part, TaskIdx};

    use super::*;

    fn item(idx: u32) -> FetchItem {
        FetchItem { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), part: Part::WHOLE }
    }

    #[test]
    fn a_peer_that_watches_for_everything_is_stopped_and_others_are_not() {
        let (mut watchers, greedy, modest) = (Watchers::default(), WorkerId(1), WorkerId(2));
        let n_taken = (0..2 * MAX_WATCHES as u32).filter(|idx| watchers.add(greedy, item(*idx))).count();
        assert_eq!((n_taken, watchers.len()), (MAX_WATCHES, MAX_WATCHES));
        assert!(watchers.is_full(greedy) && !watchers.is_full(modest));
        assert!(watchers.add(modest, item(0)));
        assert_eq!(watchers.take(item(0).task, Attempt(1)).len(), 2);
        assert!(!watchers.is_full(greedy) && watchers.add(greedy, item(u32::MAX)));
        watchers.validate();
        watchers.remove_peer(greedy);
        watchers.validate();
        assert_eq!(watchers.len(), 0);
    }
}
