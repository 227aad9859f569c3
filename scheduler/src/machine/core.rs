//! The tables of the machine and the few accessors that every transition uses.

use std::collections::{BTreeMap, VecDeque};

use rask_comm::time::Time;
use rask_graphs::{GraphId, TaskId, WorkerId};
use rustc_hash::FxHashMap;

use super::clients::Clients;
use super::config::Config;
use super::constraints::Constraints;
use super::delays::Delays;
use super::event::Actions;
use super::fairness::Flows;
use super::graph_run::{GraphRun, TaskEntry, TaskState};
use super::learning::Learning;
use super::quarantine::Quarantine;
use super::queue::Queue;
use super::quotas::Held;
use super::replicas::Hot;
use super::speculation::Speculation;
use super::story::{Story, Transition};
use super::uploads::Uploads;
use super::workers::Workers;

/// Counts of what happened; cheap to keep, asserted in tests, shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Runs sent to workers.
    pub n_runs: u64,
    /// Messages about runs that were no longer the present one.
    pub n_stale: u64,
    /// Results lost with their last holder and needed again.
    pub n_lost_results: u64,
    /// Task state changes.
    pub n_transitions: u64,
    /// Ready tasks taken from one worker's backlog for another.
    pub n_moved: u64,
    /// Runs that workers were asked to give up for idle ones, and those that they did.
    pub n_steal_requests: u64,
    /// Runs that moved to an idle worker after having been given to another.
    pub n_stolen: u64,
    /// Workers whose connection was closed because they said what cannot be.
    pub n_expelled: u64,
    /// Replicas that were let go while their result was still needed elsewhere.
    pub n_replicas_dropped: u64,
    /// Second runs sent for stragglers.
    pub n_backups: u64,
    /// Of these, those whose result was taken.
    pub n_backups_won: u64,
    /// Uploads that clients were asked for.
    pub n_uploads: u64,
    /// Bytes that workers fetched from each other.
    pub nbytes_transferred: u64,
}

/// Everything the machine remembers.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) clients: Clients,
    pub(super) flows: Flows,
    pub(super) held: Held,
    pub(super) workers: Workers,
    pub(super) graphs: BTreeMap<GraphId, Box<GraphRun>>,
    pub(super) next_graph: u32,
    pub(super) queue: Queue,
    pub(super) constraints: Constraints,
    pub(super) quarantine: Quarantine,
    pub(super) delays: Delays,
    pub(super) speculation: Speculation,
    pub(super) uploads: Uploads,
    pub(super) learning: Learning,
    pub(super) story: Story,
    pub(super) counters: Counters,
    /// Since when no worker has been there, while some graph waits.
    pub(super) no_workers_since: Option<Time>,
    /// When the first of the graphs that wait has waited for a worker for as long as it may.
    pub(super) deserted_until: Option<Time>,
    /// The worker that was lost last, by name, and how it ended; empty when none was.
    pub(super) last_loss: String,
    /// When clients are told of progress next.
    pub(super) next_progress: Option<Time>,
    /// Room or work has appeared elsewhere than at the worker that spoke: every worker is looked at when the turn ends.
    pub(super) needs_filling: bool,
    /// Workers for which work has appeared, or that have been kept free for somebody whose turn it is; filled when the turn ends.
    pub(super) to_fill: Vec<WorkerId>,
    /// Waiting tasks all of whose inputs may be placed; looked at when the turn ends.
    pub(super) bindable: VecDeque<TaskId>,
    /// Big results that are being fetched.
    pub(super) hot: BTreeMap<TaskId, Hot>,
    /// Runs that are being moved, and for whom.
    pub(super) moves: FxHashMap<TaskId, WorkerId>,
    /// Workers that fetched a result before its maker's report of it came.
    pub(super) early_holders: BTreeMap<TaskId, Vec<WorkerId>>,
    /// Graphs that may have nothing left to do or hold; looked at when a turn ends.
    pub(super) maybe_over: Vec<GraphId>,
}

impl Core {
    pub(super) fn new(config: Config) -> Self {
        Self {
            learning: Learning::new(config.unknown_duration),
            config,
            now: Time::default(),
            clients: Clients::default(),
            flows: Flows::default(),
            held: Held::default(),
            workers: Workers::default(),
            graphs: BTreeMap::new(),
            next_graph: 0,
            queue: Queue::default(),
            constraints: Constraints::default(),
            quarantine: Quarantine::default(),
            delays: Delays::default(),
            speculation: Speculation::default(),
            uploads: Uploads::default(),
            story: Story::default(),
            counters: Counters::default(),
            no_workers_since: None,
            deserted_until: None,
            last_loss: String::new(),
            next_progress: None,
            needs_filling: false,
            to_fill: Vec::new(),
            bindable: VecDeque::new(),
            hot: BTreeMap::new(),
            moves: FxHashMap::default(),
            early_holders: BTreeMap::new(),
            maybe_over: Vec::new(),
        }
    }

    /// The entry of a task, if its graph is known and has it.
    pub(super) fn task(&self, task: TaskId) -> Option<&TaskEntry> {
        self.graphs.get(&task.graph)?.tasks.get(task.idx.index())
    }

    /// Whether `task` is queued at `worker` ([`super::graph_run::NOBODY`]: for any or any fitting one), and early as `is_early`
    /// says. Queues name tasks that have moved on: this tells them apart.
    pub(super) fn is_queued_at(&self, task: TaskId, worker: WorkerId, is_early: bool) -> bool {
        self.task(task)
            .is_some_and(|entry| entry.state == TaskState::Queued && entry.is_early() == is_early && entry.worker == worker)
    }

    /// The graph of a task that is known to exist.
    ///
    /// # Panics
    /// When it does not: a broken invariant of our own.
    pub(super) fn run(&self, graph: GraphId) -> &GraphRun {
        self.graphs.get(&graph).expect("an id held inside the machine names a graph that is there")
    }

    /// As [`Core::run`], to change it.
    pub(super) fn run_mut(&mut self, graph: GraphId) -> &mut GraphRun {
        self.graphs.get_mut(&graph).expect("an id held inside the machine names a graph that is there")
    }

    /// The time, in nanoseconds.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.now.0.as_nanos()).unwrap_or(u64::MAX / 4)
    }

    /// As [`Core::task`], to change a task that is known to exist.
    pub(super) fn entry_mut(&mut self, task: TaskId) -> &mut TaskEntry {
        self.run_mut(task.graph).entry_mut(task.idx)
    }

    /// As [`Core::task`], for a task that is known to exist.
    pub(super) fn entry(&self, task: TaskId) -> &TaskEntry {
        self.run(task.graph).entry(task.idx)
    }

    /// Change a task's state and everything that is counted by state.
    pub(super) fn set_state(&mut self, task: TaskId, to: TaskState, worker: Option<WorkerId>) {
        let now = self.now;
        let run = self.graphs.get_mut(&task.graph).expect("a task in transition has a graph");
        let entry = &mut run.tasks[task.idx.index()];
        let (from, was_active) = (entry.state, entry.is_active());
        entry.state = to;
        let (is_active, attempt) = (entry.is_active(), entry.attempt);
        run.n_active = run.n_active + u32::from(is_active) - u32::from(was_active);
        run.n_memory = run.n_memory + u32::from(to == TaskState::Memory) - u32::from(from == TaskState::Memory);
        if let Some(count) = run.counter(from) {
            *count -= 1;
        }
        if let Some(count) = run.counter(to) {
            *count += 1;
        }
        if from == TaskState::Queued {
            self.flows.remove_queued(run.flow);
        }
        if to == TaskState::Queued {
            self.flows.add_queued(run.flow, 1);
        }
        run.has_news = true;
        if run.n_active == 0 || run.n_memory == 0 {
            note_maybe_over(run, &mut self.maybe_over);
        }
        self.counters.n_transitions += 1;
        self.story.add(Transition { at: now, task, from, to, attempt, worker });
    }

    /// Workers have fetched `nbytes` of results of `graph` from each other.
    pub(super) fn count_transferred(&mut self, graph: GraphId, nbytes: u64) {
        self.counters.nbytes_transferred += nbytes;
        if let Some(run) = self.graphs.get_mut(&graph) {
            run.nbytes_transferred += nbytes;
        }
    }

    /// A result of `graph` was written to a spill file.
    pub(super) fn count_spilled(&mut self, graph: GraphId, nbytes: u64) {
        if let Some(run) = self.graphs.get_mut(&graph) {
            run.nbytes_spilled += nbytes;
        }
    }

    /// Have `graph` looked at when the turn ends.
    pub(super) fn note_maybe_over(&mut self, graph: GraphId) {
        if let Some(run) = self.graphs.get(&graph) {
            note_maybe_over(run, &mut self.maybe_over);
        }
    }

    /// The turn's last act: forget graphs that have nothing left to do or hold.
    pub(super) fn forget_finished_graphs(&mut self, out: &mut Actions) {
        while let Some(graph) = self.maybe_over.pop() {
            if self.graphs.get(&graph).is_some_and(|run| run.is_over() && run.external_users.is_empty()) {
                super::clients::forget_graph(self, graph, out);
            }
        }
    }
}

fn note_maybe_over(run: &GraphRun, maybe_over: &mut Vec<GraphId>) {
    if run.is_over() && maybe_over.last() != Some(&run.id) {
        maybe_over.push(run.id);
    }
}
