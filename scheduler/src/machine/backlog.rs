//! Ready tasks that are best run at one worker and wait for room there.
//!
//! Entries of tasks that have moved on stay until they are met, or until there may be as many of them as of others: then all are
//! looked through, which costs a constant for each that was added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rask_graphs::TaskId;

use super::fairness::{FlowId, Flows, StartTag};
use super::lines::Lines;
use super::workers::Rank;

/// One worker's backlog, a line a client, with the estimated nanoseconds of each task.
#[derive(Default)]
pub(super) struct Backlog {
    lines: Lines<BinaryHeap<Reverse<(Rank, u32)>>>,
    /// Estimated cost of all entries, in nanoseconds; an upper bound while entries are stale.
    cost_ns: u64,
    n_entries: usize,
    /// With more entries than this it is looked through.
    sweep_above: usize,
}

/// So few entries are not looked through.
const MIN_SWEPT: usize = 64;

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.n_entries == 0
    }

    pub(super) fn cost_ns(&self) -> u64 {
        self.cost_ns
    }

    pub(super) fn push(&mut self, flow: FlowId, rank: Rank, estimate_ns: u32) {
        self.lines.line(flow).push(Reverse((rank, estimate_ns)));
        self.cost_ns += u64::from(estimate_ns);
        self.n_entries += 1;
    }

    /// The first task, perhaps one that has moved on, whose turn it is and its estimated nanoseconds.
    pub(super) fn first(&self, flows: &Flows) -> Option<(StartTag, Rank, u32)> {
        self.lines.first(flows).map(|(tag, (rank, estimate_ns))| (tag, rank, estimate_ns))
    }

    /// Take out the first entry of `flow`.
    pub(super) fn pop(&mut self, flow: FlowId) {
        if let Some(Reverse((_, estimate_ns))) = self.lines.line(flow).pop() {
            self.cost_ns -= u64::from(estimate_ns);
            self.n_entries -= 1;
        }
    }

    /// Whether half of the entries may be of tasks that have moved on.
    pub(super) fn is_due_for_sweep(&self) -> bool {
        self.n_entries > self.sweep_above.max(MIN_SWEPT)
    }

    /// Drop the entries of tasks that are not there any more.
    pub(super) fn sweep(&mut self, is_there: impl Fn(TaskId) -> bool) {
        (self.cost_ns, self.n_entries) = (0, 0);
        for line in self.lines.iter_mut() {
            line.retain(|Reverse(((_, task), _))| is_there(*task));
            line.shrink_to(2 * line.len());
            self.cost_ns += line.iter().map(|Reverse((_, estimate_ns))| u64::from(*estimate_ns)).sum::<u64>();
            self.n_entries += line.len();
        }
        self.sweep_above = 2 * self.n_entries;
    }

    /// Panics when the totals are not those of the entries.
    pub(super) fn validate(&self) {
        let entries = || self.lines.iter().flat_map(|(_, line)| line.iter());
        let cost_ns: u64 = entries().map(|Reverse((_, estimate_ns))| u64::from(*estimate_ns)).sum();
        assert_eq!((self.cost_ns, self.n_entries), (cost_ns, entries().count()), "totals of a backlog");
    }
}
