//! Retries that wait a growing while: what has just failed is likely to fail again at once, and costs everybody room.
//!
//! A task that waits here is queued, and in no queue. Its first retry after an error waits too; that an input could not be had happens once
//! whenever a worker dies, so only the second time in a row counts.

use std::collections::BTreeSet;

use rask_comm::time::Time;
use rask_graphs::{GraphId, TaskId};
use rustc_hash::FxHashMap;

use super::core::Core;
use super::event::Actions;
use super::graph_run::{DELAYED, NOBODY, NOT_EARLY};
use super::placement;

/// Pauses double up to so many times.
const MAX_DOUBLINGS: u32 = 6;

/// Tasks that wait, by when their time has come, and how often in a row an input of theirs could not be had.
#[derive(Default)]
pub(super) struct Delays {
    due: BTreeSet<(Time, TaskId)>,
    n_inputs_lost: FxHashMap<TaskId, u32>,
}

impl Delays {
    /// When the first of them has waited long enough.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// It is done.
    pub(super) fn forget(&mut self, task: TaskId) {
        if !self.n_inputs_lost.is_empty() {
            self.n_inputs_lost.remove(&task);
        }
    }

    pub(super) fn forget_graph(&mut self, graph: GraphId) {
        self.due.retain(|(_, task)| task.graph != graph);
        self.n_inputs_lost.retain(|task, _| task.graph != graph);
    }
}

/// A run of `task` has failed for the n-th time: the next one waits, once the task is ready.
pub(super) fn failed(core: &mut Core, task: TaskId, n_failures: u32) {
    delay(core, task, n_failures);
}

/// An input of `task` could not be had.
pub(super) fn input_lost(core: &mut Core, task: TaskId) {
    let n_lost = core.delays.n_inputs_lost.entry(task).or_default();
    *n_lost += 1;
    let n_lost = *n_lost;
    if n_lost > 1 {
        delay(core, task, n_lost - 1);
    }
}

fn delay(core: &mut Core, task: TaskId, n_before: u32) {
    let pause = core.config.retry_pause * (1 << n_before.saturating_sub(1).min(MAX_DOUBLINGS));
    if pause.is_zero() {
        return;
    }
    core.delays.due.insert((core.now.after(pause), task));
    core.entry_mut(task).set(DELAYED | NOT_EARLY);
}

/// Let those go on whose time has come.
pub(super) fn advance(core: &mut Core, out: &mut Actions) {
    while let Some((due, task)) = core.delays.due.first().copied().filter(|(due, _)| *due <= core.now) {
        core.delays.due.remove(&(due, task));
        if core.task(task).is_none() {
            continue;
        }
        core.entry_mut(task).clear(DELAYED);
        if core.is_queued_at(task, NOBODY, false) {
            placement::waiting_to_queued(core, task, out);
        }
    }
}
