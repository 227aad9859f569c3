//! Peers that want results as soon as they are made here.
//!
//! A watch says nothing of whether its result will ever be made: the scheduler takes back the runs that wait for one that
//! will not, and then the peer takes back its watch.

use rask_graphs::{Attempt, GraphId, TaskId, WorkerId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::event::FetchItem;

#[derive(Default)]
pub(super) struct Watchers {
    by_task: FxHashMap<TaskId, SmallVec<[(WorkerId, FetchItem); 2]>>,
}

impl Watchers {
    pub(super) fn add(&mut self, peer: WorkerId, item: FetchItem) {
        let watches = self.by_task.entry(item.task).or_default();
        if !watches.contains(&(peer, item)) {
            watches.push((peer, item));
        }
    }

    pub(super) fn remove(&mut self, peer: WorkerId, item: FetchItem) {
        if let Some(watches) = self.by_task.get_mut(&item.task) {
            watches.retain(|watch| *watch != (peer, item));
            if watches.is_empty() {
                self.by_task.remove(&item.task);
            }
        }
    }

    pub(super) fn remove_peer(&mut self, peer: WorkerId) {
        self.by_task.retain(|_, watches| {
            watches.retain(|(other, _)| *other != peer);
            !watches.is_empty()
        });
    }

    /// Nothing of `graph` will be made any more. (A watch that crossed the push of an earlier one is still here then.)
    pub(super) fn remove_graph(&mut self, graph: GraphId) {
        self.by_task.retain(|task, _| task.graph != graph);
    }

    /// Run `attempt` of `task` has made its result: take out who wants it, or a part of it.
    pub(super) fn take(&mut self, task: TaskId, attempt: Attempt) -> SmallVec<[(WorkerId, FetchItem); 2]> {
        if self.by_task.is_empty() {
            return SmallVec::new();
        }
        let Some(watches) = self.by_task.remove(&task) else { return SmallVec::new() };
        let (made, others): (SmallVec<_>, SmallVec<_>) = watches.into_iter().partition(|(_, item)| item.attempt == attempt);
        if !others.is_empty() {
            self.by_task.insert(task, others);
        }
        made
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.values().map(SmallVec::len).sum()
    }
}
