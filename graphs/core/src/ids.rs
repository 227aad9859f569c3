//! Dense identifiers. Every one is a newtype over `u32`, so tables are vectors and never hash maps of strings.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The id as an index into a dense table.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A submitted graph, unique within one epoch of the scheduler.
    GraphId, "g"
);
id!(
    /// A task's position in its graph. In a finished [`crate::Graph`] it is also the task's rank: inputs come first.
    TaskIdx, "t"
);
id!(
    /// A registered worker, unique within one epoch; a worker that comes back gets a new one.
    WorkerId, "w"
);
id!(
    /// A connected client, unique within one epoch.
    ClientId, "c"
);
id!(
    /// The n-th run of a task, counted from 1. News about an older attempt is stale and harmless.
    Attempt, "a"
);
id!(
    /// The n-th start of the scheduler. News from another epoch is stale and harmless.
    Epoch, "e"
);

/// A task of a submitted graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TaskId {
    /// The graph the task belongs to.
    pub graph: GraphId,
    /// The task's position in that graph.
    pub idx: TaskIdx,
}

impl TaskId {
    /// The task at `idx` of `graph`.
    #[must_use]
    pub fn new(graph: GraphId, idx: TaskIdx) -> Self {
        Self { graph, idx }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.graph, self.idx)
    }
}

/// A body (operator and arguments) of a submitted graph, shared by all tasks that run it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BodyId {
    /// The graph the body belongs to.
    pub graph: GraphId,
    /// The body's position in that graph's table.
    pub idx: u32,
}
