//! Ready tasks that no worker has room for: by graph in order of submission, by index within a graph.
//!
//! Entries are not removed when a task moves on; whoever pops checks that the task is still queued. Each task is in here
//! at most as often as it became ready, so the queue is bounded by the number of runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rask_graphs::{GraphId, TaskId, TaskIdx};

use super::workers::Rank;

/// The ready tasks of one graph: those that were ready from the start, in order, and a heap of later ones.
#[derive(Default)]
struct GraphQueue {
    first: Vec<TaskIdx>,
    cursor: usize,
    later: BinaryHeap<Reverse<TaskIdx>>,
}

impl GraphQueue {
    fn peek(&self) -> Option<TaskIdx> {
        let first = self.first.get(self.cursor).copied();
        let later = self.later.peek().map(|Reverse(idx)| *idx);
        match (first, later) {
            (Some(first), Some(later)) => Some(first.min(later)),
            (first, later) => first.or(later),
        }
    }

    fn pop(&mut self) -> Option<TaskIdx> {
        let idx = self.peek()?;
        if self.first.get(self.cursor) == Some(&idx) {
            self.cursor += 1;
        } else {
            self.later.pop();
        }
        Some(idx)
    }
}

/// All ready tasks that wait for room anywhere.
#[derive(Default)]
pub(super) struct Queue {
    graphs: BTreeMap<(Reverse<i32>, GraphId), GraphQueue>,
}

impl Queue {
    /// Add the tasks of a new graph that are ready from the start, ascending.
    pub(super) fn add_graph(&mut self, priority: i32, graph: GraphId, ready: Vec<TaskIdx>) {
        if !ready.is_empty() {
            self.graphs.entry((Reverse(priority), graph)).or_default().first = ready;
        }
    }

    pub(super) fn push(&mut self, priority: i32, task: TaskId) {
        self.graphs.entry((Reverse(priority), task.graph)).or_default().later.push(Reverse(task.idx));
    }

    /// The first task, perhaps one that has moved on.
    pub(super) fn peek(&mut self) -> Option<Rank> {
        while let Some(mut entry) = self.graphs.first_entry() {
            let (priority, graph) = *entry.key();
            if let Some(idx) = entry.get_mut().peek() {
                return Some((priority, TaskId::new(graph, idx)));
            }
            entry.remove();
        }
        None
    }

    pub(super) fn pop(&mut self) {
        if let Some(mut entry) = self.graphs.first_entry() {
            entry.get_mut().pop();
        }
    }

    pub(super) fn remove_graph(&mut self, priority: i32, graph: GraphId) {
        self.graphs.remove(&(Reverse(priority), graph));
    }
}
