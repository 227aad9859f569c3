//! Runs on slots: how many, since when, and whether anybody still wants them.
//!
//! As many entries as slots at most, so everything here is a scan over a short vector.

use std::time::Duration;

use rask_comm::time::Time;
use rask_graphs::{Attempt, BodyId, TaskId};
use smallvec::SmallVec;

use super::runs::Needs;

/// A run on a slot.
pub(super) struct ExecutingRun {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    pub(super) started: Time,
    /// Whether the scheduler has been told that it is executing.
    pub(super) is_told: bool,
    /// Whether it was cancelled; what comes out of it is dropped.
    pub(super) is_interrupted: bool,
    pub(super) needs: Needs,
    pub(super) body: BodyId,
    /// Whose results its inputs are: these are in memory until it ends.
    pub(super) inputs: SmallVec<[TaskId; 2]>,
    /// What the ledger has set aside for it.
    pub(super) reserved: u64,
    /// Its inputs, when they are groups spread out.
    pub(super) n_spread: u64,
}

pub(super) struct Executing {
    slots: Vec<ExecutingRun>,
    /// Sum of that of all slots.
    n_spread: u64,
    n_slots: usize,
}

impl Executing {
    pub(super) fn new(n_slots: usize) -> Self {
        Self { slots: Vec::with_capacity(n_slots), n_spread: 0, n_slots }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= self.n_slots
    }

    /// Whether a run on a slot has the result of `task`, or a part of it, as an input.
    pub(super) fn uses(&self, task: TaskId) -> bool {
        self.slots.iter().any(|run| run.inputs.contains(&task))
    }

    /// Runs that nobody has interrupted.
    pub(super) fn wanted(&mut self) -> impl Iterator<Item = &mut ExecutingRun> {
        self.slots.iter_mut().filter(|run| !run.is_interrupted)
    }

    pub(super) fn nbytes_reserved(&self) -> u64 {
        self.slots.iter().map(|run| run.reserved).sum()
    }

    /// Values of groups that are spread out for runs on slots.
    pub(super) fn n_spread(&self) -> u64 {
        self.n_spread
    }

    pub(super) fn start(&mut self, run: ExecutingRun) {
        self.n_spread += run.n_spread;
        self.slots.push(run);
    }

    /// The slot given to run `attempt` of `task` becomes free.
    pub(super) fn finish(&mut self, task: TaskId, attempt: Attempt) -> Option<ExecutingRun> {
        let idx = self.slots.iter().position(|run| run.task == task && run.attempt == attempt)?;
        let run = self.slots.swap_remove(idx);
        self.n_spread -= run.n_spread;
        Some(run)
    }

    /// Runs of `task` on slots; several attempts at once only when the older ones have been interrupted.
    pub(super) fn of(&mut self, task: TaskId) -> impl Iterator<Item = &mut ExecutingRun> {
        self.slots.iter_mut().filter(move |run| run.task == task)
    }

    /// When the first run has been executing for `patience` without the scheduler having been told.
    pub(super) fn due(&self, patience: Duration) -> Option<Time> {
        self.slots.iter().filter(|run| !run.is_told && !run.is_interrupted).map(|run| run.started.after(patience)).min()
    }

    /// Runs that have been executing for `patience` by `now` without the scheduler having been told; they count as told.
    pub(super) fn take_due(&mut self, now: Time, patience: Duration) -> impl Iterator<Item = &ExecutingRun> {
        self.slots.iter_mut().filter_map(move |run| {
            let is_due = !run.is_told && !run.is_interrupted && run.started.after(patience) <= now;
            is_due.then(|| {
                run.is_told = true;
                &*run
            })
        })
    }

    /// # Panics
    /// When more runs execute than there are slots, or one twice.
    pub(super) fn validate(&self) {
        assert_eq!(self.slots.iter().map(|run| run.n_spread).sum::<u64>(), self.n_spread, "values spread out");
        assert!(self.slots.len() <= self.n_slots, "{} runs on {} slots", self.slots.len(), self.n_slots);
        for (idx, run) in self.slots.iter().enumerate() {
            let is_twice = self.slots[idx + 1..].iter().any(|other| other.task == run.task && other.attempt == run.attempt);
            assert!(!is_twice, "run {} of {} is on two slots", run.attempt, run.task);
            let is_double =
                self.slots[idx + 1..].iter().any(|other| other.task == run.task && !other.is_interrupted && !run.is_interrupted);
            assert!(!is_double, "two wanted runs of {} are on slots", run.task);
        }
    }
}
