//! The scheduler's decisions as a pure state machine: events in, actions out, time as an argument.
//!
//! [`Machine::handle`] is called once an event; the shell gathers the [`Actions`] of as many events as it likes into one
//! turn and writes one frame a peer. The machine owns small sub-machines: `graph_run` (a graph's tasks), `workers`,
//! `queue`, `backlog` and `constraints` (ready tasks), `fairness` (whose turn it is among clients), `learning` (durations), `clients`, `story`; `transitions` changes task states,
//! `placement` chooses workers, `dispatch` sends runs, `early` those whose inputs are still being made, `lineage` follows workers that come and go, `quarantine` has
//! suspects of a worker's death run alone, `retirement` those that leave in agreement; `stealing` moves runs to idle
//! workers, `rights` says who may do what, `uploads` has clients bring their values, `siblings` keeps roots with a common consumer
//! together, `speculation` gives stragglers to a second worker.
//!
//! Deliberately absent: clocks, threads, sockets, randomness, and any order that depends on a hash.

mod backlog;
mod clients;
mod config;
mod constraints;
mod contract;
mod core;
mod delays;
mod dispatch;
mod early;
pub mod event;
mod fairness;
mod frames;
mod graph_run;
mod holders;
mod killers;
mod learning;
mod lineage;
mod lines;
mod note;
mod placement;
mod quarantine;
mod queue;
mod quotas;
mod replicas;
mod report;
mod retirement;
mod rights;
mod siblings;
mod speculation;
mod stealing;
mod story;
mod transitions;
mod uploads;
mod validate;
mod waiting;
mod workers;

use rask_comm::message::{FailureKind, StatusReport};
use rask_comm::time::Time;
use rask_graphs::{Attempt, ClientId, GraphId, TaskId, TaskIdx, WorkerId};

pub use self::config::{Config, Fault};
use self::core::Core;
pub use self::core::Counters;
pub use self::event::{Actions, Event, GraphEnd, Note};
use self::graph_run::{GraphRun, NOBODY};
pub use self::graph_run::{PreparedGraph, TaskState};
pub use self::quotas::Quotas;
pub use self::story::Transition;

/// Why the machine wants to be called at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// Clients are to hear of progress.
    Progress,
    /// Nobody has been there to work, or nobody fitting, for as long as graphs may wait.
    NoWorkers,
    /// A run may have become a straggler.
    Speculation,
    /// A task that has failed is to be tried again.
    Retry,
}

/// The scheduler.
pub struct Machine {
    core: Core,
}

impl Machine {
    /// A scheduler that knows nobody.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { core: Core::new(config) }
    }

    /// Take in one event. What is to be done about it is added to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Actions) {
        let core = &mut self.core;
        core.now = core.now.max(now);
        match event {
            Event::WorkerJoined { worker, hello, key } => lineage::worker_joined(core, worker, hello, key, out),
            Event::WorkerLost { worker, was_graceful, reason } => lineage::worker_lost(core, worker, was_graceful, &reason, out),
            Event::WorkerSaid { worker, message } => lineage::worker_said(core, worker, message, out),
            Event::ClientJoined { client, hello, peer } => clients::client_joined(core, client, hello.weight, peer, out),
            Event::ClientLost { client } => clients::client_lost(core, client, out),
            Event::ClientSubmitted { client, request, graph, options } => {
                clients::submit(core, client, request, *graph, options, out);
            }
            Event::ClientMisspoke { client, request, reason } => {
                clients::misspoke(core, client, request, reason, out);
            }
            Event::ClientSaid { client, message } => clients::client_said(core, client, message, out),
        }
        settle(core, out);
        core.forget_finished_graphs(out);
        if core.next_progress.is_none() && !core.clients.graphs_of.is_empty() && !core.graphs.is_empty() {
            core.next_progress = Some(core.now.after(core.config.progress_interval));
        }
    }

    /// The time of [`Machine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Actions) {
        let core = &mut self.core;
        core.now = core.now.max(now);
        if core.next_progress.is_some_and(|at| at <= core.now) {
            clients::tell_progress(core, out);
            stealing::look_again(core, out);
            fail_stranded(core, out);
            waiting::tell(core, out);
            uploads::fail_stranded(core, out);
            let goes_on = core.graphs.values().any(|run| run.n_active > 0);
            core.next_progress = goes_on.then(|| core.now.after(core.config.progress_interval));
        }
        if core.deserted_until.is_some_and(|until| until <= core.now) {
            fail_deserted(core, out);
        }
        delays::advance(core, out);
        speculation::look(core, out);
        settle(core, out);
        core.forget_finished_graphs(out);
    }

    /// When to call [`Machine::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Time, Timer)> {
        let progress = self.core.next_progress.map(|at| (at, Timer::Progress));
        let no_workers = self.core.deserted_until.map(|until| (until, Timer::NoWorkers));
        let speculation = self.core.speculation.next_look.map(|at| (at, Timer::Speculation));
        let retry = self.core.delays.next().map(|at| (at, Timer::Retry));
        progress.into_iter().chain(no_workers).chain(speculation).chain(retry).min()
    }

    /// The last transitions of `task`, oldest first.
    pub fn story(&self, task: TaskId) -> impl Iterator<Item = &Transition> {
        self.core.story.of(task)
    }

    /// Counts of what has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    /// How the cluster is.
    #[must_use]
    pub fn status(&self) -> StatusReport {
        report::status(&self.core, |_| true)
    }

    /// The same, as far as `client` may know of it; `None` when it is not here.
    #[must_use]
    pub fn status_for(&self, client: ClientId) -> Option<StatusReport> {
        clients::status(&self.core, client)
    }

    /// Where a task stands; `None` when its graph is not known (any more).
    #[must_use]
    pub fn task_state(&self, task: TaskId) -> Option<TaskState> {
        self.core.task(task).map(|entry| entry.state)
    }

    /// Who holds a result.
    #[must_use]
    pub fn who_has(&self, task: TaskId) -> Vec<WorkerId> {
        self.core.task(task).map(|entry| entry.holders.to_vec()).unwrap_or_default()
    }

    /// The worker that a task has been given to, while it is processing.
    #[must_use]
    pub fn processing_on(&self, task: TaskId) -> Option<WorkerId> {
        self.core.task(task).filter(|entry| entry.state == TaskState::Processing).map(|entry| entry.worker)
    }

    /// Where a second run of a task is under way, and which it is.
    #[must_use]
    pub fn backup(&self, task: TaskId) -> Option<(WorkerId, Attempt)> {
        self.core.speculation.backups.get(&task).map(|backup| (backup.worker, backup.attempt))
    }

    /// The number of the last run of a task; 0 before the first. A backup's number is one higher until its result is taken.
    #[must_use]
    pub fn attempt(&self, task: TaskId) -> Attempt {
        self.core.task(task).map_or(Attempt(0), |entry| entry.attempt)
    }

    /// While a task is processing: which of its worker's rounds of clients its run belongs to.
    #[must_use]
    pub fn round(&self, task: TaskId) -> u32 {
        self.core.task(task).map_or(0, |entry| entry.round)
    }

    /// Bytes of memory held for a graph's tasks, edges and names.
    #[must_use]
    pub fn graph_nbytes(&self, graph: GraphId) -> Option<usize> {
        self.core.graphs.get(&graph).map(|run| run.nbytes())
    }

    /// Number of graphs in the tables.
    #[must_use]
    pub fn n_graphs(&self) -> usize {
        self.core.graphs.len()
    }

    /// Number of tasks in the tables.
    #[must_use]
    pub fn n_tasks(&self) -> usize {
        self.core.graphs.values().map(|run| run.tasks.len()).sum()
    }

    /// Check every invariant; cost is linear in everything held.
    ///
    /// # Panics
    /// When one is broken, naming it.
    pub fn validate(&self) {
        validate::validate(&self.core);
    }
}

/// The turn's end: give out what there is room for.
fn settle(core: &mut Core, out: &mut Actions) {
    dispatch::settle(core, out);
    while core.uploads.is_due() {
        uploads::settle(core, out);
        dispatch::settle(core, out);
    }
}

/// Fail ready tasks that no connected worker could ever run, once their graph has waited long enough for one.
fn fail_stranded(core: &mut Core, out: &mut Actions) {
    let mut constraints = std::mem::take(&mut core.constraints);
    let is_queued = |task| core.is_queued_at(task, NOBODY, false);
    let stranded = constraints.stranded(&core.workers, core.now, core.config.no_worker_grace, is_queued);
    core.constraints = constraints;
    for task in stranded {
        // One that failed before it may have been what needed it.
        if !core.is_queued_at(task, NOBODY, false) {
            continue;
        }
        let run = core.run(task.graph);
        let needs_above = run.needs_above.get(&task.idx).copied().unwrap_or_default();
        let wishes = constraints::wishes(run.graph.options_of(task.idx), needs_above);
        let message = format!("no worker fits: it asks for {wishes}");
        let failure = transitions::failure_of(core, task, FailureKind::Unsatisfiable, "", None, message);
        transitions::to_erred(core, task, failure, out);
    }
}

/// Nobody has come to work: what is ready fails, and everything that waits for it, in the graphs that have waited long enough.
fn fail_deserted(core: &mut Core, out: &mut Actions) {
    let now = core.now;
    let overdue = |run: &GraphRun| lineage::deserted_until(core, run).is_some_and(|until| until <= now);
    let mut queued = Vec::new();
    for run in core.graphs.values().filter(|run| overdue(run)) {
        let ready = run.tasks.iter().enumerate().filter(|(_, entry)| entry.state == TaskState::Queued);
        queued.extend(ready.map(|(idx, _)| run.task_id(TaskIdx(idx as u32))));
    }
    let mut message = format!("no worker was connected for {} s", core.config.no_worker_grace.as_secs_f64());
    if !core.last_loss.is_empty() {
        message.push_str(&format!("; the last one was {}", core.last_loss));
    }
    for task in queued {
        if core.task(task).is_some_and(|entry| entry.state == TaskState::Queued) {
            let failure = transitions::failure_of(core, task, FailureKind::NoWorkers, "", None, message.clone());
            transitions::to_erred(core, task, failure, out);
        }
    }
    // One that waits for another graph's results has the time that that one has.
    let later = core.graphs.values().filter_map(|run| lineage::deserted_until(core, run)).filter(|until| *until > now);
    core.deserted_until = later.min();
}
