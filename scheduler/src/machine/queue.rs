//! Ready tasks that no worker has room for: by client as [`super::fairness`] says, then by priority, by graph in order of
//! submission, by index within a graph.
//!
//! Entries are not removed when a task moves on; whoever pops checks that the task is still queued. Each task is in here
//! at most as often as it became ready, so the queue is bounded by the number of runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rask_graphs::{GraphId, TaskId, TaskIdx};

use super::fairness::{FlowId, Flows, StartTag};
use super::lines::{Line, Lines};
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

/// The ready tasks of one client; no graph in it is empty.
type GraphQueues = BTreeMap<(Reverse<i32>, GraphId), GraphQueue>;

impl Line for GraphQueues {
    type First = Rank;

    fn first(&self) -> Option<Rank> {
        let (&(priority, graph), queue) = self.first_key_value()?;
        Some((priority, TaskId::new(graph, queue.peek()?)))
    }
}

/// All ready tasks that wait for room anywhere.
#[derive(Default)]
pub(super) struct Queue {
    clients: Lines<GraphQueues>,
}

impl Queue {
    /// Add the tasks of a new graph that are ready from the start, ascending.
    pub(super) fn add_graph(&mut self, flow: FlowId, priority: i32, graph: GraphId, ready: Vec<TaskIdx>) {
        if !ready.is_empty() {
            self.clients.line(flow).entry((Reverse(priority), graph)).or_default().first = ready;
        }
    }

    pub(super) fn push(&mut self, flow: FlowId, (priority, task): Rank) {
        self.clients.line(flow).entry((priority, task.graph)).or_default().later.push(Reverse(task.idx));
    }

    /// The first task, perhaps one that has moved on, and whose turn it is.
    pub(super) fn first(&self, flows: &Flows) -> Option<(StartTag, Rank)> {
        self.clients.first(flows)
    }

    /// Take out the first task of `flow`.
    pub(super) fn pop(&mut self, flow: FlowId) {
        if let Some(mut entry) = self.clients.line(flow).first_entry() {
            entry.get_mut().pop();
            if entry.get().peek().is_none() {
                entry.remove();
            }
        }
    }

    pub(super) fn remove_graph(&mut self, flow: FlowId, priority: i32, graph: GraphId) {
        self.clients.line(flow).remove(&(Reverse(priority), graph));
    }
}
