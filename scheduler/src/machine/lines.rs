//! Tasks of several clients that wait for the same room: one line of them a client, and the first of all by whose turn it is.
//!
//! Finding it looks at the lines that are here, one comparison a client; with one client that is none.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smallvec::SmallVec;

use super::fairness::{FlowId, Flows, StartTag};

/// The waiting tasks of one client, in their own order.
pub(super) trait Line: Default {
    /// What is known of the first of them.
    type First: Copy + Ord;

    fn first(&self) -> Option<Self::First>;
}

impl<T: Copy + Ord> Line for BinaryHeap<Reverse<T>> {
    type First = T;

    fn first(&self) -> Option<T> {
        self.peek().map(|Reverse(first)| *first)
    }
}

/// One line a client.
pub(super) struct Lines<L> {
    /// Flows differ. A line that has become empty is kept for the next client that needs one.
    lines: SmallVec<[(FlowId, L); 1]>,
}

impl<L> Default for Lines<L> {
    fn default() -> Self {
        Self { lines: SmallVec::new() }
    }
}

impl<L: Line> Lines<L> {
    /// The first of all, and whose it is.
    pub(super) fn first(&self, flows: &Flows) -> Option<(StartTag, L::First)> {
        if let [(flow, line)] = &self.lines[..] {
            return Some((flows.start_tag(*flow), line.first()?));
        }
        let firsts = self.lines.iter().filter_map(|(flow, line)| Some((flows.start_tag(*flow), line.first()?)));
        firsts.min()
    }

    /// The line of `flow`, to add to it.
    pub(super) fn line(&mut self, flow: FlowId) -> &mut L {
        let is_own = |(of, _): &(FlowId, L)| *of == flow;
        let is_empty = |(_, line): &(FlowId, L)| line.first().is_none();
        let at = self.lines.iter().position(is_own).or_else(|| self.lines.iter().position(is_empty));
        let at = at.unwrap_or_else(|| {
            self.lines.push((flow, L::default()));
            self.lines.len() - 1
        });
        self.lines[at].0 = flow;
        &mut self.lines[at].1
    }

    /// All lines, by flow.
    pub(super) fn iter(&self) -> impl Iterator<Item = (FlowId, &L)> {
        self.lines.iter().map(|(flow, line)| (*flow, line))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.lines.iter_mut().map(|(_, line)| line)
    }
}
