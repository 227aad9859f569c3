//! Client sessions: submit, wait, locate, fetch from the workers, compare with the truth, release.
//!
//! A session keeps to the protocol as the real client does. Its jobs may overlap, use each other's outputs, be cancelled,
//! be released early, and survive the connection when they are detached.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rask_comm::message::{FailureKind, FromClient, SubmitOptions, TaskFailure, ToClient};
use rask_comm::time::Time;
use rask_graphs::{GraphId, TaskId, TaskIdx, WorkerId};
use rask_worker::machine::FetchItem;

use super::oracle::Plan;
use super::uploading::ticket_of;
use super::world::{Delivery, Link, World};

/// Where a job stands, as its client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JobState {
    Planned,
    Submitted,
    Running(GraphId),
    /// Detached, and its client has come back: it asks to follow it again.
    Attaching(GraphId),
    /// Every output is fetched, failed or released; what is left is held until the end.
    Held(GraphId),
    /// Released, cancelled, given up with a lost connection, or never submitted because what it needs is gone.
    Over,
}

/// Where an output stands, as its client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OutputState {
    Pending,
    Locating,
    Fetching,
    Fetched,
    Failed,
    Released,
}

/// A graph that a client submits.
pub(super) struct Job {
    pub(super) plan: Rc<Plan>,
    pub(super) submit_at: Time,
    pub(super) is_detached: bool,
    pub(super) priority: i32,
    /// Whether its outputs are held until the end of the simulation.
    pub(super) is_kept: bool,
    pub(super) state: JobState,
    pub(super) outputs: BTreeMap<TaskIdx, OutputState>,
    pub(super) has_ended: bool,
    /// Whether its client has come back to it.
    pub(super) was_attached: bool,
    /// Of values that the client uploads: whether it keeps them, and whether its process still is the one that had them.
    pub(super) keeps_values: bool,
    pub(super) has_values: bool,
}

impl Job {
    pub(super) fn graph(&self) -> Option<GraphId> {
        match self.state {
            JobState::Running(graph) | JobState::Attaching(graph) | JobState::Held(graph) => Some(graph),
            JobState::Planned | JobState::Submitted | JobState::Over => None,
        }
    }

    fn is_settled(&self) -> bool {
        self.outputs.values().all(|state| matches!(state, OutputState::Fetched | OutputState::Failed | OutputState::Released))
    }
}

/// A client.
pub(super) struct Session {
    pub(super) link: Option<usize>,
    pub(super) is_welcome: bool,
    pub(super) jobs: Vec<Job>,
}

impl Session {
    pub(super) fn is_done(&self) -> bool {
        self.jobs.iter().all(|job| matches!(job.state, JobState::Held(_) | JobState::Over))
    }

    /// Whether a later job still needs the outputs of job `of` to be held.
    pub(super) fn has_users_to_come(&self, of: usize) -> bool {
        self.jobs.iter().any(|job| {
            matches!(job.state, JobState::Planned | JobState::Submitted)
                && job.plan.externals.iter().any(|external| external.job == of)
        })
    }
}

const ATTACH: u32 = 1_000;
const CANCEL: u32 = 2_000;
const STRANGER: u32 = 3_000;

impl World {
    /// Connect a client, for the first time or again.
    pub(super) fn connect_client(&mut self, session: usize) {
        let link = self.links.len();
        let latency = self.draw_latency();
        let at = self.now.after(Duration::from_micros(latency));
        self.links.push(Link { session, client: None, is_cut: false, last_up: at, last_down: at });
        self.sessions[session].link = Some(link);
        self.sessions[session].is_welcome = false;
        self.push(at, Delivery::ClientHello { link });
    }

    /// The client's process dies, and perhaps comes back to its detached graphs.
    pub(super) fn kill_client(&mut self, session: usize) {
        let Some(link) = self.sessions[session].link.take() else { return };
        self.links[link].is_cut = true;
        self.sessions[session].is_welcome = false;
        let (low, high) = self.profile.notice_us;
        let notice = self.dice.between(low, high);
        self.push_in(notice, Delivery::ClientGone { link });
        self.leave_offers(link, notice);
        for job in &mut self.sessions[session].jobs {
            job.has_values &= job.state == JobState::Planned;
            job.state = match job.state {
                JobState::Running(graph) | JobState::Attaching(graph) | JobState::Held(graph) if job.is_detached => {
                    JobState::Attaching(graph)
                }
                JobState::Planned => JobState::Planned,
                JobState::Submitted | JobState::Running(_) | JobState::Attaching(_) | JobState::Held(_) | JobState::Over => {
                    JobState::Over
                }
            };
        }
        let back = self.dice.between(1_000, 2_000_000);
        self.push_in(back, Delivery::SessionWakes { session });
    }

    pub(super) fn say(&mut self, session: usize, message: FromClient) {
        let Some(link) = self.sessions[session].link else { return };
        let latency = self.draw_latency();
        let at = self.now.after(Duration::from_micros(latency)).max(self.links[link].last_up);
        self.links[link].last_up = at;
        self.trace.counts.n_messages += 1;
        self.push(at, Delivery::FromClient { link, message });
    }

    /// Do what can be done next: connect, attach, submit.
    pub(super) fn session_wakes(&mut self, session: usize) {
        if self.sessions[session].link.is_none() {
            self.connect_client(session);
            return;
        }
        if !self.sessions[session].is_welcome {
            return;
        }
        for job in 0..self.sessions[session].jobs.len() {
            if let JobState::Attaching(graph) = self.sessions[session].jobs[job].state {
                self.say(session, FromClient::Attach { request: ATTACH + job as u32, graph });
            }
        }
        self.submit_due(session);
    }

    fn try_submit(&mut self, session: usize, job: usize) {
        let jobs = &self.sessions[session].jobs;
        let due = &jobs[job];
        if due.submit_at > self.now {
            return;
        }
        let mut externals = Vec::new();
        for external in &due.plan.externals {
            let source = &jobs[external.job];
            let is_gone = source.state == JobState::Over || source.outputs[&external.idx] == OutputState::Released;
            if is_gone {
                self.sessions[session].jobs[job].state = JobState::Over;
                // What was held for it need not be held any longer.
                self.settle_jobs(session);
                return;
            }
            match source.state {
                JobState::Running(graph) | JobState::Held(graph) => externals.push(TaskId::new(graph, external.idx)),
                JobState::Planned | JobState::Submitted | JobState::Attaching(_) | JobState::Over => return,
            }
        }
        let mut graph = due.plan.graph.clone();
        graph.externals = externals;
        graph.check().expect("drawn graphs are well formed");
        let nbytes = due.plan.tasks.iter().map(|task| task.nbytes).collect();
        let spread = due.plan.spread.clone();
        let options = SubmitOptions { name: format!("job {job}"), priority: due.priority, detached: due.is_detached };
        self.sessions[session].jobs[job].state = JobState::Submitted;
        let request = job as u32;
        match spread {
            Some(spread) => {
                let ticket = ticket_of(session);
                self.say(session, FromClient::Scatter { request, nbytes, ticket, spread, options });
            }
            None => self.say(session, FromClient::Submit { request, graph: Box::new(graph), options }),
        }
    }

    pub(super) fn client_hears(&mut self, link: usize, messages: Vec<ToClient>) {
        let session = self.links[link].session;
        for message in messages {
            if self.links[link].is_cut || self.sessions[session].link != Some(link) {
                return;
            }
            self.client_hears_one(session, message);
        }
        self.settle_jobs(session);
        self.submit_due(session);
    }

    /// Submit what is due; a job that cannot be submitted any more may be what a later one waited for.
    fn submit_due(&mut self, session: usize) {
        for job in 0..self.sessions[session].jobs.len() {
            if self.sessions[session].is_welcome && self.sessions[session].jobs[job].state == JobState::Planned {
                self.try_submit(session, job);
            }
        }
    }

    fn client_hears_one(&mut self, session: usize, message: ToClient) {
        match message {
            ToClient::Welcome { .. } => {
                self.sessions[session].is_welcome = true;
                self.session_wakes(session);
            }
            ToClient::Accepted { request, graph } => self.hear_accepted(session, request, graph),
            ToClient::Rejected { request, reason } => self.hear_rejected(session, request, &reason),
            ToClient::Cancelled { request: STRANGER, was_known: _ } => {}
            ToClient::Cancelled { request, was_known: _ } => {
                let job = &mut self.sessions[session].jobs[(request - CANCEL) as usize];
                job.state = JobState::Over;
                job.outputs.values_mut().for_each(|state| *state = OutputState::Released);
            }
            ToClient::TaskDone { task, nbytes: _ } => {
                if let Some(state) = self.output_mut(session, task)
                    && *state == OutputState::Pending
                {
                    *state = OutputState::Locating;
                    self.say(session, FromClient::Locate { tasks: vec![task] });
                }
            }
            ToClient::TaskFailed { task, failure } => self.hear_failed(session, task, &failure),
            ToClient::GraphEnded { graph, stats: _ } => {
                if let Some(job) = self.sessions[session].jobs.iter_mut().find(|job| job.graph() == Some(graph)) {
                    job.has_ended = true;
                }
            }
            ToClient::Located { task, attempt, nbytes: _, n_parts: _, holders, grant: _ } => {
                if self.output_mut(session, task).is_none_or(|state| *state != OutputState::Locating) {
                    return;
                }
                assert!(!holders.is_empty(), "{task} is located nowhere");
                let holder = &holders[self.dice.index(holders.len())];
                let process = usize::from(holder.address.port() - 9_000);
                let Some(link) = self.sessions[session].link else { return };
                if let Some(state) = self.output_mut(session, task) {
                    *state = OutputState::Fetching;
                }
                let latency = self.draw_latency();
                let item = FetchItem::whole(task, attempt);
                self.push_in(latency, Delivery::ClientAsks { link, item, holder: holder.worker, process });
            }
            ToClient::Upload { task, attempt, to } => self.offer(session, task, attempt, &to),
            ToClient::Progress { .. } | ToClient::Waits { .. } | ToClient::Status { .. } => {}
            ToClient::Close { reason } => panic!("the scheduler closes a client: {reason}"),
        }
    }

    fn hear_accepted(&mut self, session: usize, request: u32, graph: GraphId) {
        let is_attached = request >= ATTACH;
        let job = &mut self.sessions[session].jobs[(request % ATTACH) as usize];
        job.state = JobState::Running(graph);
        if is_attached {
            job.was_attached = true;
            job.has_ended = false;
            // What is in memory is told again, and what is not will be.
            for state in job.outputs.values_mut() {
                if matches!(state, OutputState::Locating | OutputState::Fetching) {
                    *state = OutputState::Pending;
                }
            }
        }
        self.session_wakes(session);
    }

    fn hear_rejected(&mut self, session: usize, request: u32, reason: &str) {
        let job = (request % ATTACH) as usize;
        if request >= ATTACH {
            let graph = self.sessions[session].jobs[job].graph();
            let is_cancelled = graph.and_then(|graph| self.graphs.get(&graph)).is_some_and(|info| info.is_cancel_sent);
            let is_released = self.sessions[session].jobs[job].outputs.values().all(|state| *state == OutputState::Released);
            if is_cancelled || is_released {
                self.sessions[session].jobs[job].state = JobState::Over;
            } else {
                // The scheduler has not noticed yet that the old connection is gone.
                self.push_in(200_000, Delivery::SessionWakes { session });
            }
            return;
        }
        let plan = Rc::clone(&self.sessions[session].jobs[job].plan);
        let is_excused = plan.externals.iter().any(|external| {
            let source = &self.sessions[session].jobs[external.job];
            let is_cancelled =
                self.graphs.values().any(|info| info.session == session && info.job == external.job && info.is_cancel_sent);
            source.state == JobState::Over || source.outputs[&external.idx] == OutputState::Released || is_cancelled
        });
        assert!(is_excused, "a well formed graph is rejected: {reason}");
        self.sessions[session].jobs[job].state = JobState::Over;
    }

    fn hear_failed(&mut self, session: usize, task: TaskId, failure: &TaskFailure) {
        let is_cancelled = self.graphs.get(&task.graph).is_some_and(|info| info.is_cancel_sent);
        let Some(state) = self.output_mut(session, task) else { return };
        match failure.kind {
            FailureKind::Cancelled => *state = OutputState::Released,
            FailureKind::NoSuchResult => {
                if !matches!(state, OutputState::Fetched | OutputState::Released) {
                    assert!(is_cancelled, "{task} is held by its client, but the scheduler denies it");
                    *state = OutputState::Released;
                }
            }
            FailureKind::Operator
            | FailureKind::Panicked
            | FailureKind::Unprepared
            | FailureKind::KilledWorkers
            | FailureKind::NoWorkers
            | FailureKind::Unsatisfiable
            | FailureKind::TooLarge
            | FailureKind::NotUploaded => {
                if !matches!(state, OutputState::Fetched | OutputState::Released) {
                    *state = OutputState::Failed;
                }
            }
        }
    }

    /// A worker process serves a client.
    pub(super) fn serve_client(&mut self, link: usize, item: FetchItem, holder: WorkerId, process: usize) {
        let is_broken = self.dice.below(1_000) < self.profile.fetch_breaks_per_mille;
        if !is_broken {
            self.read_for_peer(process, item);
        }
        let stored = if is_broken { None } else { self.processes[process].stored(item) };
        let value = stored.filter(|_| self.processes[process].is_up).map(|stored| stored.value);
        let latency = self.draw_latency();
        self.push_in(latency, Delivery::ClientGets { link, item, holder, value });
    }

    pub(super) fn client_gets(&mut self, link: usize, item: FetchItem, holder: WorkerId, value: Option<u64>) {
        let session = self.links[link].session;
        let task = item.task;
        if self.links[link].is_cut || self.output_mut(session, task).is_none_or(|state| *state != OutputState::Fetching) {
            return;
        }
        if let Some(value) = value {
            let truth = self.truth(task);
            assert_eq!(value, truth, "the client's result of {task} is wrong");
            assert!(!self.graphs[&task.graph].plan.is_doomed[task.idx.index()], "{task} must fail, but gave a result");
            if let Some(state) = self.output_mut(session, task) {
                *state = OutputState::Fetched;
            }
        } else {
            self.may_repeat_work = true;
            if let Some(state) = self.output_mut(session, task) {
                *state = OutputState::Locating;
            }
            self.say(session, FromClient::FetchFailed { task, worker: holder });
            self.say(session, FromClient::Locate { tasks: vec![task] });
        }
        self.settle_jobs(session);
    }

    fn output_mut(&mut self, session: usize, task: TaskId) -> Option<&mut OutputState> {
        let job = self.sessions[session].jobs.iter_mut().find(|job| job.graph() == Some(task.graph))?;
        job.outputs.get_mut(&task.idx)
    }

    /// Release what is settled and needed by no later job.
    pub(super) fn settle_jobs(&mut self, session: usize) {
        for at in 0..self.sessions[session].jobs.len() {
            let job = &self.sessions[session].jobs[at];
            let JobState::Running(graph) = job.state else { continue };
            if !job.is_settled() || self.sessions[session].has_users_to_come(at) {
                continue;
            }
            let is_cancelled = self.graphs.get(&graph).is_some_and(|info| info.is_cancel_sent);
            // What the client has just released it does not wait for, so it may be ahead of the scheduler.
            let is_ahead = is_cancelled || job.outputs.values().any(|state| *state == OutputState::Released);
            if !job.has_ended && !is_ahead {
                // A client that came back may have an output already that is being made again; the end is told after that.
                assert!(job.was_attached, "all outputs of {graph} are settled, but it has not ended");
                continue;
            }
            if job.is_kept {
                self.sessions[session].jobs[at].state = JobState::Held(graph);
            } else {
                self.release_job(session, at);
            }
        }
    }

    /// Release every output of a job.
    pub(super) fn release_job(&mut self, session: usize, job: usize) {
        let job = &mut self.sessions[session].jobs[job];
        let Some(graph) = job.graph() else { return };
        let tasks = job.outputs.keys().map(|idx| TaskId::new(graph, *idx)).collect();
        job.outputs.values_mut().for_each(|state| *state = OutputState::Released);
        job.state = JobState::Over;
        self.say(session, FromClient::Release { tasks });
    }

    /// Release some outputs of a running job, finished or not.
    pub(super) fn release_early(&mut self, session: usize, job: usize) {
        let Some(graph) = self.sessions[session].jobs[job].graph() else { return };
        let mut tasks = Vec::new();
        let outputs: Vec<TaskIdx> = self.sessions[session].jobs[job].outputs.keys().copied().collect();
        let percent = if self.dice.chance(50) { 50 } else { 10 };
        for idx in outputs {
            if self.dice.chance(percent) {
                tasks.push(TaskId::new(graph, idx));
                self.sessions[session].jobs[job].outputs.insert(idx, OutputState::Released);
            }
        }
        self.say(session, FromClient::Release { tasks });
    }

    /// Cancel a graph, one's own or another client's.
    pub(super) fn cancel(&mut self, session: usize, graph: GraphId) {
        let own = self.sessions[session].jobs.iter().position(|job| job.graph() == Some(graph));
        let request = own.map_or(STRANGER, |job| CANCEL + job as u32);
        self.say(session, FromClient::Cancel { request, graph });
    }
}
