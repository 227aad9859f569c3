//! The last few thousand transitions, for answering "why did this task do that?".

use std::collections::VecDeque;

use rask_comm::time::Time;
use rask_graphs::{Attempt, TaskId, WorkerId};

use super::graph_run::TaskState;

/// One change of a task's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// Which task.
    pub task: TaskId,
    /// Before.
    pub from: TaskState,
    /// After.
    pub to: TaskState,
    /// The run it concerns.
    pub attempt: Attempt,
    /// The worker it concerns, if any.
    pub worker: Option<WorkerId>,
}

/// A ring of transitions.
#[derive(Default)]
pub(super) struct Story {
    ring: VecDeque<Transition>,
}

const CAPACITY: usize = 4096;

impl Story {
    pub(super) fn add(&mut self, transition: Transition) {
        if self.ring.len() == CAPACITY {
            self.ring.pop_front();
        }
        self.ring.push_back(transition);
    }

    pub(super) fn of(&self, task: TaskId) -> impl Iterator<Item = &Transition> {
        self.ring.iter().filter(move |transition| transition.task == task)
    }
}
