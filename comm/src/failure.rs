//! How failures are told: by a worker of a run, by the scheduler of a task.

use rask_graphs::{Attempt, TaskId};
use serde::{Deserialize, Serialize};

/// What kind of thing went wrong. Kinds travel as enums, never as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FailureKind {
    /// The operator returned an error.
    Operator,
    /// The operator panicked.
    Panicked,
    /// The operator is unknown on the worker, or refused its arguments or number of inputs.
    Unprepared,
    /// Workers died while they worked on it, more often than allowed.
    KilledWorkers,
    /// No worker has been there for longer than the grace period.
    NoWorkers,
    /// No worker offers the resources or has the name it asks for.
    Unsatisfiable,
    /// The graph was cancelled.
    Cancelled,
    /// It needs a result that its client has released, or that never was.
    NoSuchResult,
    /// It needs more memory than any worker has.
    TooLarge,
    /// Its client was to upload it, and cannot.
    NotUploaded,
}

/// Why a run failed, as the worker saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunFailure {
    /// What kind of thing.
    pub kind: FailureKind,
    /// The operator that failed.
    pub operator: String,
    /// The cause, in words.
    pub message: String,
}

/// Longest message of a failure, in characters: it has to fit a frame, and is to be read by a person.
const MESSAGE_LIMIT: usize = 16_384;
const OPERATOR_LIMIT: usize = 1_024;

impl RunFailure {
    /// The same in fewer words, if there were very many.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        for (text, limit) in [(&mut self.message, MESSAGE_LIMIT), (&mut self.operator, OPERATOR_LIMIT)] {
            if let Some((at, _)) = text.char_indices().nth(limit) {
                text.truncate(at);
                text.push_str(" ..");
            }
        }
        self
    }
}

/// Why a task failed for good, as the client is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskFailure {
    /// The task that failed; the task asked for may only depend on it.
    pub task: TaskId,
    /// Its human name.
    pub key: String,
    /// What kind of thing.
    pub kind: FailureKind,
    /// The operator that failed.
    pub operator: String,
    /// The worker it failed on, by name; empty when on none.
    pub worker: String,
    /// Which run.
    pub attempt: Attempt,
    /// The cause, in words.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_words_become_fewer() {
        let failure = |message: String| RunFailure { kind: FailureKind::Operator, operator: "x".to_owned(), message };
        assert_eq!(failure("short".to_owned()).shortened(), failure("short".to_owned()));
        let long = failure("ä".repeat(20 << 20)).shortened();
        assert!(long.message.len() < 64 << 10 && long.message.ends_with("ä .."), "{} bytes", long.message.len());
    }
}
