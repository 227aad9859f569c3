//! Runs that have not started: what each one still misses, and the order in which those that miss nothing start.
//!
//! One run a task at most; a run that starts leaves this table for [`super::executing`]. Nothing here knows where inputs
//! come from.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rask_graphs::{Attempt, BodyId, TaskId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::event::FetchItem;
use super::slab::{Key, Slab};

/// Which of two runs goes first: the greater one. The earlier round of clients, in it higher priority, then the earlier graph,
/// then the lower index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    pub(super) round: Reverse<u32>,
    pub(super) priority: i32,
    pub(super) task: Reverse<TaskId>,
}

/// The wanted items a run counts on; it has to let go of each one exactly once.
pub(super) type Needs = SmallVec<[Key; 2]>;

/// A run that has not started.
pub(super) struct RunEntry {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    pub(super) round: u32,
    pub(super) priority: i32,
    pub(super) body: BodyId,
    /// Entries of `inputs` that have not arrived.
    pub(super) n_missing: u32,
    pub(super) needs: Needs,
    pub(super) inputs: Vec<FetchItem>,
    pub(super) spread: Vec<u32>,
}

const _: () = assert!(size_of::<RunEntry>() <= 128);

impl RunEntry {
    pub(super) fn rank(&self) -> Rank {
        Rank { round: Reverse(self.round), priority: self.priority, task: Reverse(self.task) }
    }

    /// Values that are spread out for it; only groups are.
    fn n_spread(&self) -> u64 {
        if self.spread.is_empty() { 0 } else { self.inputs.len() as u64 }
    }
}

pub(super) struct Runs {
    table: Slab<RunEntry>,
    by_task: FxHashMap<TaskId, Key>,
    /// Ready runs. A run that is removed otherwise leaves its entry behind; its key then finds nothing.
    ready: BinaryHeap<(Rank, Key)>,
    n_ready: usize,
    /// Values of groups that are spread out.
    n_spread: u64,
}

/// Left-over entries that are tolerated in the ready queue beyond the number of ready runs.
const MAX_LEFT_OVER: usize = 1_024;

impl Runs {
    pub(super) fn new() -> Self {
        Self { table: Slab::new(), by_task: FxHashMap::default(), ready: BinaryHeap::new(), n_ready: 0, n_spread: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn n_ready(&self) -> usize {
        self.n_ready
    }

    /// The run of `task` that has not started, if any.
    pub(super) fn find(&self, task: TaskId) -> Option<(Key, &RunEntry)> {
        let key = *self.by_task.get(&task)?;
        Some((key, self.table.get(key)?))
    }

    /// The runs, in a fixed order, that take run `attempt` of `input`, or a part of it, as an input.
    pub(super) fn users_of(&self, input: TaskId, attempt: Attempt) -> Vec<Key> {
        let uses_it = |run: &RunEntry| run.inputs.iter().any(|item| item.task == input && item.attempt == attempt);
        self.table.iter().filter(|(_, run)| uses_it(run)).map(|(key, _)| key).collect()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut RunEntry> {
        self.table.get_mut(key)
    }

    /// Values of groups that are spread out for runs that have not started.
    pub(super) fn n_spread(&self) -> u64 {
        self.n_spread
    }

    /// What a run that has just been inserted takes, what it counts on, and how many of these it misses, if that is known.
    pub(super) fn fill(&mut self, key: Key, inputs: Vec<FetchItem>, needs: Needs, n_missing: Option<u32>) {
        let Some(run) = self.table.get_mut(key) else { return };
        (run.inputs, run.needs) = (inputs, needs);
        run.n_missing = n_missing.unwrap_or(run.n_missing);
        self.n_spread += run.n_spread();
    }

    /// The caller has removed any other run of the same task.
    pub(super) fn insert(&mut self, run: RunEntry) -> Key {
        let task = run.task;
        let key = self.table.insert(run);
        self.by_task.insert(task, key);
        key
    }

    /// The run misses nothing any more: let it queue for a slot.
    pub(super) fn enqueue(&mut self, key: Key) {
        if let Some(run) = self.table.get(key) {
            self.ready.push((run.rank(), key));
            self.n_ready += 1;
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<RunEntry> {
        let run = self.table.remove(key)?;
        self.by_task.remove(&run.task);
        self.n_spread -= run.n_spread();
        if run.n_missing == 0 {
            self.n_ready -= 1;
            self.sweep();
        }
        Some(run)
    }

    /// The run that is to start next.
    pub(super) fn peek_ready(&mut self) -> Option<&RunEntry> {
        while let Some((_, key)) = self.ready.peek() {
            if self.table.get(*key).is_some() {
                break;
            }
            self.ready.pop();
        }
        let (_, key) = self.ready.peek()?;
        self.table.get(*key)
    }

    /// Take the run that is to start next.
    pub(super) fn pop_ready(&mut self) -> Option<RunEntry> {
        while let Some((_, key)) = self.ready.pop() {
            if let Some(run) = self.table.remove(key) {
                self.by_task.remove(&run.task);
                self.n_ready -= 1;
                self.n_spread -= run.n_spread();
                return Some(run);
            }
        }
        None
    }

    /// Keep the queue within a constant factor of what is in it, however many runs are cancelled.
    fn sweep(&mut self) {
        if self.ready.len() > 2 * self.n_ready + MAX_LEFT_OVER {
            let table = &self.table;
            self.ready.retain(|(_, key)| table.get(*key).is_some());
        }
    }

    /// # Panics
    /// When a table contradicts another.
    pub(super) fn validate(&self) {
        assert_eq!(self.table.len(), self.by_task.len(), "runs and their index differ in number");
        let mut n_ready = 0;
        for (key, run) in self.table.iter() {
            assert_eq!(self.by_task.get(&run.task), Some(&key), "run {} is not where the index says", run.task);
            n_ready += usize::from(run.n_missing == 0);
        }
        assert_eq!(n_ready, self.n_ready, "number of ready runs");
        assert_eq!(self.table.iter().map(|(_, run)| run.n_spread()).sum::<u64>(), self.n_spread, "values spread out");
        let n_queued = self.ready.iter().filter(|(_, key)| self.table.get(*key).is_some()).count();
        assert_eq!(n_queued, self.n_ready, "ready runs in the queue");
    }
}

#[cfg(test)]
mod tests {
    use rask_graphs::{GraphId, TaskIdx};

    use super::*;

    fn run(round: u32, priority: i32, graph: u32, idx: u32) -> RunEntry {
        RunEntry {
            task: TaskId::new(GraphId(graph), TaskIdx(idx)),
            attempt: Attempt(1),
            round,
            priority,
            body: BodyId { graph: GraphId(graph), idx: 0 },
            n_missing: 0,
            needs: Needs::new(),
            inputs: Vec::new(),
            spread: Vec::new(),
        }
    }

    #[test]
    fn earlier_round_then_higher_priority_then_earlier_graph_then_lower_index_goes_first() {
        let mut runs = Runs::new();
        let given = [(0, 0, 2, 1), (0, 0, 1, 9), (1, 9, 0, 1), (0, 0, 1, 3), (0, 5, 7, 7), (0, -1, 0, 0)];
        for (round, priority, graph, idx) in given {
            let key = runs.insert(run(round, priority, graph, idx));
            runs.enqueue(key);
        }
        runs.validate();
        let order: Vec<String> = std::iter::from_fn(|| runs.pop_ready()).map(|run| run.task.to_string()).collect();
        assert_eq!(order, ["g7.t7", "g1.t3", "g1.t9", "g2.t1", "g0.t0", "g0.t1"]);
    }

    #[test]
    fn cancelled_runs_do_not_pile_up_in_the_queue() {
        let mut runs = Runs::new();
        for idx in 0..10_000 {
            let key = runs.insert(run(0, 0, 1, idx));
            runs.enqueue(key);
            runs.remove(key);
        }
        runs.validate();
        assert!(runs.ready.len() <= MAX_LEFT_OVER + 1, "{} entries left over", runs.ready.len());
        assert!(runs.pop_ready().is_none());
    }
}
