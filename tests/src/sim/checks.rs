//! What must hold: while messages are sent and runs begin, when everything is quiet, and when everything is released.
//!
//! Whatever the machines count, this file counts anew from what it saw. A broken rule panics; the caller has the trace.

use std::collections::BTreeSet;

use rask_comm::message::{FailureKind, FromClient, TaskFailure, ToClient, ToWorker};
use rask_graphs::{Attempt, GraphId, Part, Source, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::TaskState;

use super::oracle::{Behaviour, KernelInput, TaskPlan, kernel_inputs};
use super::process::failure_message;
use super::session::{JobState, OutputState};
use super::shell::may_end;
use super::world::{GraphInfo, World};
use rask_worker::machine::{Machine, TERMINATE};

impl World {
    /// What the scheduler sends to a worker is allowed.
    pub(super) fn check_sent(&mut self, worker: WorkerId, messages: &[ToWorker]) {
        for (at, message) in messages.iter().enumerate() {
            if let ToWorker::Run(run) = message {
                let is_early = run.inputs.iter().any(|input| !input.is_made);
                assert!(!is_early || !self.is_doubtful.contains(&run.task), "{} has killed, and is bound early again", run.task);
            }
            if let ToWorker::Group { members, .. } = message {
                for holder in members.iter().flat_map(|member| &member.holders) {
                    let is_there = self.conn_of.get(holder).is_some_and(|conn| !self.conns[*conn].is_lost);
                    assert!(is_there || self.profile.turn_us > 0, "{worker} is told of a member at {holder}, which is gone");
                }
            }
            if let ToWorker::Expect { task, attempt, .. } = message {
                let is_taken_back = messages[at..].contains(&ToWorker::Cancel { task: *task, attempt: *attempt });
                let before = self.last_run.get(task).copied().unwrap_or(Attempt(0));
                assert!(is_taken_back || before < *attempt, "attempts of {task} do not rise: {before}, {attempt}");
                self.last_run.insert(*task, before.max(*attempt));
            }
            let ToWorker::Run(run) = message else { continue };
            let info = &self.graphs[&run.task.graph];
            assert!(info.plan.is_needed[run.task.idx.index()], "{} is run, but no output needs it", run.task);
            // With turns, a run may be sent and taken back in one frame. Then another may have overtaken it on its way to another
            // worker, or it was a backup and the first run has failed meanwhile.
            let cancel = ToWorker::Cancel { task: run.task, attempt: run.attempt };
            let is_taken_back = messages[at..].contains(&cancel);
            assert!(self.sent.insert((run.task, run.attempt)), "{} {} is sent twice", run.task, run.attempt);
            let before = self.last_run.get(&run.task).copied().unwrap_or(Attempt(0));
            assert!(is_taken_back || before < run.attempt, "attempts of {} do not rise: {before}, {}", run.task, run.attempt);
            self.last_run.insert(run.task, before.max(run.attempt));
            let n_failures = self.n_heard_failures.get(&run.task).copied().unwrap_or(0);
            assert!(
                is_taken_back || n_failures <= info.plan.retries(run.task.idx),
                "{} is run again after {n_failures} failures",
                run.task
            );
            let n_deaths = self.n_suspect_deaths.get(&run.task).copied().unwrap_or(0);
            assert!(
                is_taken_back || n_deaths <= self.config.allowed_failures,
                "{} is run again after {n_deaths} deaths",
                run.task
            );
            let is_backup = self.scheduler.backup(run.task) == Some((worker, run.attempt));
            let is_current = is_backup || self.scheduler.attempt(run.task) == run.attempt;
            // One that is sent when it is no more current has been overtaken; that may have been by the first run.
            if is_backup || !is_current {
                self.had_backup.insert(run.task);
            }
            for holder in run.inputs.iter().flat_map(|input| &input.holders) {
                let conn = self.conn_of.get(holder).map(|conn| &self.conns[*conn]);
                // With turns, a holder may have been lost after the message was made.
                let is_there = conn.is_some_and(|conn| !conn.is_lost) || self.profile.turn_us > 0 || !is_current;
                assert!(is_there, "{worker} is told to fetch from {holder}, which the scheduler knows to be gone");
            }
        }
    }

    /// A run begins on a slot: it is wanted, it is the first of its attempt, and resources suffice.
    pub(super) fn check_may_begin(&mut self, conn: usize, task: TaskId, attempt: Attempt) {
        assert!(self.begun.insert((task, attempt)), "{task} {attempt} begins twice");
        let Some(worker) = self.conns[conn].worker else { return };
        let state = &self.conns[conn];
        let is_news_on_its_way = state.n_down_in_air > 0 || state.is_cut || self.actions.to_workers.contains_key(&worker);
        if is_news_on_its_way {
            return;
        }
        assert!(self.is_current(worker, task, attempt), "{task} {attempt} begins on {worker}, but nobody wants it");
        let process = &self.processes[state.process];
        for (name, total) in &process.resources {
            let runs = process.running.iter().filter(|run| self.is_current(worker, run.task, run.attempt));
            let held = runs.map(|run| run.task).chain([task]).map(|task| self.amount_of(task, name)).sum::<f64>();
            assert!(held <= total + 1e-9, "{held} of {total} {name} used on {worker}");
        }
    }

    /// A run that nobody has interrupted ends: its result is wanted, unless word that it is not is on its way.
    pub(super) fn check_may_end(&self, conn: usize, task: TaskId, attempt: Attempt) {
        let Some(worker) = self.conns[conn].worker else { return };
        let state = &self.conns[conn];
        if state.n_down_in_air == 0 && !state.is_cut && !self.actions.to_workers.contains_key(&worker) {
            assert!(self.is_current(worker, task, attempt), "{task} {attempt} ends on {worker}, but nobody wants it");
        }
    }

    /// Whether a run is the one that the scheduler waits for, or one of two.
    pub(super) fn is_current(&self, worker: WorkerId, task: TaskId, attempt: Attempt) -> bool {
        let is_first = self.scheduler.processing_on(task) == Some(worker) && self.scheduler.attempt(task) == attempt;
        is_first || self.scheduler.backup(task) == Some((worker, attempt))
    }

    fn amount_of(&self, task: TaskId, resource: &str) -> f64 {
        let options = self.graphs[&task.graph].plan.graph.options_of(task.idx);
        let amounts = options.into_iter().flat_map(|options| &options.resources);
        amounts.filter(|(name, _)| name == resource).map(|(_, amount)| amount).sum()
    }

    /// What the scheduler tells a client is true.
    pub(super) fn check_told_client(&mut self, link: usize, messages: &[ToClient]) {
        let session = self.links[link].session;
        for message in messages {
            match message {
                ToClient::TaskDone { task, nbytes } => {
                    self.check_owner(session, task.graph);
                    let plan = &self.graphs[&task.graph].plan;
                    assert!(!plan.is_doomed[task.idx.index()], "{task} must fail, but is said to be done");
                    assert_eq!(*nbytes, plan.tasks[task.idx.index()].nbytes, "size of {task}");
                }
                ToClient::TaskFailed { task, failure } => {
                    self.check_owner(session, task.graph);
                    self.check_failure(*task, failure);
                }
                ToClient::GraphEnded { graph, stats } => {
                    self.check_owner(session, *graph);
                    if let Some(info) = self.graphs.get_mut(graph) {
                        info.n_ended += 1;
                        assert_eq!(stats.n_tasks as usize, info.plan.graph.n_tasks());
                    }
                }
                ToClient::Located { task, holders, .. } => {
                    self.check_owner(session, task.graph);
                    assert!(!holders.is_empty(), "{task} is located nowhere");
                }
                ToClient::Progress { graph, counts } => {
                    self.check_owner(session, *graph);
                    let n_placed = counts.n_waiting + counts.n_queued + counts.n_processing + counts.n_erred;
                    assert!(n_placed <= counts.n_tasks && counts.n_finished <= counts.n_tasks, "{graph}: {counts:?}");
                }
                ToClient::Upload { task, .. } => {
                    self.check_owner(session, task.graph);
                    assert!(self.graphs[&task.graph].plan.spread.is_some(), "{task} is no value of a client");
                }
                ToClient::Waits { graph, .. } => self.check_owner(session, *graph),
                ToClient::Welcome { .. }
                | ToClient::Accepted { .. }
                | ToClient::Rejected { .. }
                | ToClient::Cancelled { .. }
                | ToClient::Status { .. }
                | ToClient::Close { .. } => {}
            }
        }
    }

    fn check_owner(&self, session: usize, graph: GraphId) {
        let owner = self.graphs.get(&graph).map(|info| info.session);
        assert!(owner.is_none_or(|owner| owner == session), "client {session} hears of {graph}, which is not its own");
    }

    /// A failure has its reason in the plan or in what has happened.
    fn check_failure(&self, output: TaskId, failure: &TaskFailure) {
        let task = failure.task;
        let Some(info) = self.graphs.get(&task.graph) else { return };
        let behaviour = info.plan.tasks[task.idx.index()].behaviour;
        let count = |table: &std::collections::BTreeMap<TaskId, u32>| table.get(&task).copied().unwrap_or(0);
        let is_reasonable = match failure.kind {
            FailureKind::Operator | FailureKind::Panicked => {
                assert_eq!(failure.message, failure_message(task), "the original message");
                assert_eq!(failure.key, info.plan.graph.keys.name(task.idx.0), "the name of {task}");
                assert!(count(&self.n_heard_failures) > info.plan.retries(task.idx), "{task} failed before its last retry");
                (behaviour == Behaviour::Panics) == (failure.kind == FailureKind::Panicked)
            }
            FailureKind::KilledWorkers if failure.message.starts_with("its graph is stopped") => {
                let kills = |task: &TaskPlan| matches!(task.behaviour, Behaviour::KillsWorker | Behaviour::KillsFetching);
                info.plan.tasks.iter().any(kills)
            }
            FailureKind::KilledWorkers => {
                assert!(!failure.worker.is_empty() && failure.message.contains(&failure.worker), "no worker is named");
                let (n_deaths, n_allowed) = (count(&self.n_suspect_deaths), self.config.allowed_failures);
                assert!(n_deaths > n_allowed, "{task} is blamed for {n_deaths} deaths, {n_allowed} are allowed: {failure:?}");
                true
            }
            // It may be told long after it happened, to a client that asks later.
            FailureKind::NoWorkers => info.was_deserted || self.is_deserted(info),
            FailureKind::Unsatisfiable => {
                let wants_memory = failure.message.contains("of memory") && self.is_too_large_somewhere(task);
                wants_memory || !self.could_run_somewhere(task) || self.failed_earlier(task)
            }
            FailureKind::Cancelled | FailureKind::NoSuchResult => {
                let owner = &self.sessions[info.session].jobs[info.job];
                let is_let_go = owner.outputs.get(&task.idx).is_some_and(|state| *state == OutputState::Released);
                info.is_cancel_sent || is_let_go || owner.state == JobState::Over
            }
            FailureKind::TooLarge => self.is_too_large_somewhere(task),
            FailureKind::NotUploaded => {
                let owner = &self.sessions[info.session].jobs[info.job];
                let is_gone = !owner.keeps_values || !owner.has_values || owner.state == JobState::Over;
                info.plan.spread.is_some() && (is_gone || count(&self.n_not_uploaded) > 3)
            }
            FailureKind::Unprepared => false,
        };
        assert!(is_reasonable, "{output} is said to have failed without reason: {failure:?}");
        let is_of_graph = failure.message.starts_with("its graph is stopped");
        let depends = failure.kind == FailureKind::NoSuchResult || is_of_graph || self.depends_on(output, task);
        assert!(depends, "{output} is said to have failed for {task}, on which it does not depend");
    }

    /// Whether `task` failed before this turn, so that what was true then need not be true any longer.
    fn failed_earlier(&self, task: TaskId) -> bool {
        let mut failures = self.scheduler.story(task).filter(|transition| transition.to == TaskState::Erred);
        failures.any(|transition| transition.at < self.now)
    }

    /// Whether no worker has been known to the scheduler for the whole grace period while the graph was there.
    fn is_deserted(&self, info: &GraphInfo) -> bool {
        self.no_workers_since.is_some_and(|since| self.now.since(since.max(info.accepted_at)) >= self.config.no_worker_grace)
    }

    /// The time without workers ends: whom it has been too long for.
    pub(super) fn note_deserted(&mut self) {
        let deserted = self.graphs.iter().filter(|(_, info)| self.is_deserted(info));
        for graph in deserted.map(|(graph, _)| *graph).collect::<Vec<_>>() {
            self.graphs.entry(graph).and_modify(|info| info.was_deserted = true);
        }
    }

    /// Whether the inputs of `task` are more than some worker's memory.
    fn is_too_large_somewhere(&self, task: TaskId) -> bool {
        let info = &self.graphs[&task.graph];
        let nbytes_of = |input| {
            let input = match input {
                KernelInput::Own(idx, _) => TaskId::new(task.graph, idx),
                KernelInput::External(external, _) => info.externals[external as usize],
            };
            self.graphs.get(&input.graph).map_or(0, |info| info.plan.tasks[input.idx.index()].nbytes)
        };
        let nbytes: u64 = kernel_inputs(&info.plan.graph, task.idx).into_iter().map(nbytes_of).sum();
        if info.plan.spread.is_some() {
            let nbytes = info.plan.tasks[task.idx.index()].nbytes;
            return self.processes.iter().any(|process| process.config.memory.share(TERMINATE.begins) < nbytes);
        }
        self.processes.iter().any(|process| process.config.memory.limit < nbytes)
    }

    /// Whether some connected worker could run `task` one day.
    fn could_run_somewhere(&self, task: TaskId) -> bool {
        let plan = &self.graphs[&task.graph].plan;
        if let Some(spread) = &plan.spread {
            let is_named = |name: &String| spread.workers.is_empty() || spread.workers.contains(name);
            return self.scheduler.status().workers.iter().any(|worker| !worker.is_retiring && is_named(&worker.name));
        }
        let Some(options) = plan.graph.options_of(task.idx) else { return true };
        let report = self.scheduler.status();
        let there = report.workers.iter().filter(|worker| !worker.is_retiring);
        let there: Vec<_> = there.map(|worker| &self.processes[self.conns[self.conn_of[&worker.worker]].process]).collect();
        let is_named_there = report.workers.iter().any(|worker| options.workers.contains(&worker.name));
        there.into_iter().any(|process| {
            let name_fits = options.workers.is_empty()
                || options.workers.contains(&process.name)
                || (options.allow_other_workers && !is_named_there);
            let amount = |name: &str| process.resources.iter().find(|(own, _)| own == name).map_or(0.0, |(_, amount)| *amount);
            name_fits && options.resources.iter().all(|(name, wanted)| amount(name) >= *wanted)
        })
    }

    /// Whether `from` is `on` or needs it, through other graphs too.
    fn depends_on(&self, from: TaskId, on: TaskId) -> bool {
        let (mut stack, mut seen) = (vec![from], BTreeSet::new());
        while let Some(task) = stack.pop() {
            if task == on {
                return true;
            }
            if !seen.insert(task) {
                continue;
            }
            let info = &self.graphs[&task.graph];
            for input in info.plan.graph.inputs_of(task.idx) {
                match input.source() {
                    Source::Task(idx) => stack.push(TaskId::new(task.graph, idx)),
                    Source::Group(group) => {
                        stack.extend(info.plan.graph.members_of(group).iter().map(|idx| TaskId::new(task.graph, *idx)));
                    }
                    Source::External(external) => stack.push(info.externals[external as usize]),
                }
            }
        }
        false
    }

    /// Whether nothing is on its way and nothing runs.
    pub(super) fn is_quiet(&self) -> bool {
        self.n_pending == 0 && self.processes.iter().all(|process| process.running.is_empty())
    }

    /// Quiet: the scheduler and the workers agree on who holds what, and nobody holds anything else.
    pub(super) fn check_honest(&self) {
        let mut n_held = 0;
        for process in self.processes.iter().filter(|process| process.is_up) {
            let (Some(conn), Some(machine)) = (process.conn, &process.machine) else { continue };
            let Some(worker) = self.conns[conn].worker else { continue };
            assert_eq!(machine.n_waiting() + machine.n_executing(), 0, "{worker} has runs left over");
            assert_eq!(machine.n_expected(), 0, "{worker} expects what nobody uploads");
            assert_eq!(machine.n_held(), process.store.len(), "{worker}: machine and store differ: {:?}", process.store);
            process.check_disk(machine);
            for ((task, part), stored) in &process.store {
                assert_eq!(*part, Part::WHOLE, "{worker} keeps part {part:?} of {task}");
                assert_eq!(machine.held(*task), Some(stored.attempt), "{worker}: {task} in machine and store");
                let attempt = self.scheduler.attempt(*task);
                let is_known = self.scheduler.who_has(*task).contains(&worker) && attempt == stored.attempt;
                assert!(is_known, "{worker} holds {task} {}, which the scheduler does not know of ({attempt})", stored.attempt);
                n_held += 1;
            }
        }
        let mut n_known = 0;
        for (graph, info) in &self.graphs {
            for idx in (0..info.plan.graph.n_tasks() as u32).map(TaskIdx) {
                let task = TaskId::new(*graph, idx);
                n_known += self.scheduler.who_has(task).len();
                let state = self.scheduler.task_state(task);
                let is_active = matches!(state, Some(TaskState::Waiting | TaskState::Queued | TaskState::Processing));
                assert!(!is_active, "{task} is {state:?} although everything is over");
            }
        }
        assert_eq!(n_held, n_known, "results held, and results the scheduler believes to be held");
    }

    /// No faults, or only harmless ones: every task was done exactly as often as needed.
    pub(super) fn check_no_work_repeated(&self) {
        if self.may_repeat_work {
            return;
        }
        for (task, n) in &self.n_successes {
            // A run may have ended when its task is given a backup, and so may have those bound to it: word of it is on its way.
            let n_at_most = |task| 1 + self.had_backup.iter().filter(|source| self.depends_on(task, **source)).count() as u32;
            assert!(*n <= 1 || *n <= n_at_most(*task), "{task} was done {n} times although nothing was lost");
        }
        for (task, n) in &self.n_taken {
            assert!(*n <= 1, "{n} results of {task} were taken although nothing was lost");
        }
    }

    /// Every session has what it wanted; say which has not.
    pub(super) fn check_sessions_done(&self) {
        for (at, session) in self.sessions.iter().enumerate() {
            for (number, job) in session.jobs.iter().enumerate() {
                let is_done = matches!(job.state, JobState::Held(_) | JobState::Over);
                assert!(is_done, "client {at} waits for job {number}: {:?} {:?}", job.state, job.outputs);
            }
        }
    }

    /// Have everything released that anybody still holds: the clients' own, and graphs nobody follows.
    pub(super) fn release_everything(&mut self) {
        for session in 0..self.sessions.len() {
            for job in 0..self.sessions[session].jobs.len() {
                self.release_job(session, job);
            }
        }
    }

    /// Cancel the graphs that outlived their clients.
    pub(super) fn cancel_orphans(&mut self) {
        for report in self.scheduler.status().graphs {
            let owner = self.graphs.get(&report.graph).map_or(0, |info| info.session);
            let may = |session: &usize| self.sessions[*session].link.is_some() && may_end(*session, owner);
            let Some(session) = (0..self.sessions.len()).find(may) else { continue };
            self.say(session, FromClient::Cancel { request: 3_000, graph: report.graph });
        }
    }

    /// Quiet and everything released: nothing is left anywhere.
    pub(super) fn check_empty(&self) {
        let report = self.scheduler.status();
        assert_eq!(self.scheduler.n_graphs(), 0, "graphs left over: {:#?}", report.graphs);
        for worker in &report.workers {
            assert_eq!((worker.n_processing, worker.n_results), (0, 0), "left over at {}", worker.name);
        }
        for process in self.processes.iter().filter(|process| process.is_up && process.machine.is_some()) {
            let n_watched = process.machine.as_ref().map_or(0, Machine::n_watched);
            assert_eq!(n_watched, 0, "{}: peers still watch for results", process.name);
            assert!(process.store.is_empty(), "{} still stores {:?}", process.name, process.store);
            assert!(process.disk.files.is_empty(), "{} still has files of {:?}", process.name, process.disk.files);
            assert!(process.bodies.is_empty(), "{} still knows bodies {:?}", process.name, process.bodies.keys());
        }
    }
}
