//! What happened to each task lately: a ring of transitions, for people who ask why a task is where it is.
//!
//! Bounded, and never read by the machine itself.

use std::collections::VecDeque;

use rask_comm::time::Time;
use rask_graphs::{Attempt, TaskId};

/// What a run, or a result, went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The scheduler gave the run to this worker; inputs are missing.
    Waiting,
    /// All inputs are here; a slot is not.
    Ready,
    /// On a slot.
    Executing,
    /// The result is held here.
    InMemory,
    /// The operator failed.
    Failed,
    /// Cancelled by the scheduler, or overtaken by a newer attempt.
    Cancelled,
    /// Given back to the scheduler on its request.
    Revoked,
    /// Given back to the scheduler because an input could not be had.
    InputLost,
    /// The whole result was fetched from a peer and is held here.
    Fetched,
    /// The result was dropped.
    Freed,
}

/// One entry of the story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// The task.
    pub task: TaskId,
    /// Which run of it.
    pub attempt: Attempt,
    /// What it went into.
    pub stage: Stage,
}

pub(super) struct Story {
    ring: VecDeque<Transition>,
    capacity: usize,
}

impl Story {
    pub(super) fn new(capacity: usize) -> Self {
        Self { ring: VecDeque::with_capacity(capacity.min(1 << 16)), capacity }
    }

    pub(super) fn push(&mut self, at: Time, task: TaskId, attempt: Attempt, stage: Stage) {
        if self.capacity == 0 {
            return;
        }
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back(Transition { at, task, attempt, stage });
    }

    pub(super) fn of(&self, task: TaskId) -> impl Iterator<Item = &Transition> {
        self.ring.iter().filter(move |transition| transition.task == task)
    }

    pub(super) fn validate(&self) {
        assert!(self.ring.len() <= self.capacity, "the story outgrew its ring");
    }
}
