//! The scheduler's shell in the simulation: connections become events, actions become deliveries.
//!
//! It gives ids, tells of every lost worker exactly once, and gathers the actions of a turn, as the real shell does. On the
//! way it counts what the scheduler ought to know, independently of what it makes of it.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use rask_comm::message::{ClientHello, FailureKind, FromClient, FromWorker, PROTOCOL_VERSION, ToClient, ToWorker, WorkerHello};
use rask_comm::time::Time;
use rask_comm::{KeyId, Origin, PeerIdentity, Role, TokenId};
use rask_graphs::{Attempt, ClientId, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::{Event, TaskState};

use super::oracle::{KernelInput, kernel_inputs};
use super::world::{Delivery, GraphInfo, World, address_of};

/// Every session is somebody else's, who has tokens of one name. Some may end what others began.
fn owner_of(session: usize) -> PeerIdentity {
    let role = if session.is_multiple_of(2) { Role::Client } else { Role::Admin };
    PeerIdentity { role, name: format!("person {session}"), origin: Origin::Token(TokenId([0; 10])), key: KeyId::default() }
}

/// Whether a session may end a graph of another one's.
pub(super) fn may_end(session: usize, owner: usize) -> bool {
    session == owner || owner_of(session).role == Role::Admin
}

impl World {
    pub(super) fn meet_worker(&mut self, conn: usize) {
        if self.conns[conn].is_cut {
            return;
        }
        let worker = WorkerId(self.conn_of.len() as u32);
        self.conns[conn].worker = Some(worker);
        self.conn_of.insert(worker, conn);
        let process = &self.processes[self.conns[conn].process];
        let hello = WorkerHello {
            version: PROTOCOL_VERSION,
            name: process.name.clone(),
            n_slots: process.n_slots,
            memory_limit: process.config.memory.limit,
            resources: process.resources.clone(),
            data_address: address_of(self.conns[conn].process),
            host: "one".to_owned(),
            registry_fingerprint: 0,
        };
        self.note_deserted();
        self.no_workers_since = None;
        self.tell_scheduler(Event::WorkerJoined { worker, hello, key: rask_comm::KeyId::default() });
    }

    pub(super) fn hear_worker(&mut self, conn: usize, messages: Vec<FromWorker>) {
        self.conns[conn].n_up_in_air -= 1;
        let Some(worker) = self.conns[conn].worker else { return };
        if (self.conns[conn].is_cut && !self.conns[conn].is_graceful) || self.conns[conn].is_lost {
            return;
        }
        for message in messages {
            self.count_news(worker, &message);
            self.tell_scheduler(Event::WorkerSaid { worker, message });
        }
    }

    /// Keep count of the news that the scheduler must act on, independently of what it does with it.
    fn count_news(&mut self, worker: WorkerId, message: &FromWorker) {
        let is_first = |world: &Self, task, attempt| {
            world.scheduler.processing_on(task) == Some(worker) && world.scheduler.attempt(task) == attempt
        };
        let is_present = |world: &Self, task: TaskId, attempt: Attempt| world.is_current(worker, task, attempt);
        // Who will not give a run up has begun it.
        if let FromWorker::Executing { task, attempt } | FromWorker::Revoked { task, attempt, given_up: false } = message
            && is_present(self, *task, *attempt)
        {
            self.told_executing.insert((*task, *attempt));
        }
        if let FromWorker::Finished { task, attempt, .. } = message
            && is_present(self, *task, *attempt)
        {
            self.n_suspect_deaths.remove(task);
            *self.n_taken.entry(*task).or_default() += 1;
        }
        // Only the first of two runs has failed for the scheduler.
        if let FromWorker::Failed { task, attempt, failure } = message
            // Elsewhere there may be memory enough, and this counts against nobody.
            && failure.kind != FailureKind::TooLarge
            && is_first(self, *task, *attempt)
        {
            *self.n_heard_failures.entry(*task).or_default() += 1;
        }
    }

    pub(super) fn lose_worker(&mut self, conn: usize) {
        let Some(worker) = self.conns[conn].worker else { return };
        if std::mem::replace(&mut self.conns[conn].is_lost, true) {
            return;
        }
        self.conns[conn].is_cut = true;
        let was_graceful = self.conns[conn].is_graceful;
        let n_slots = self.processes[self.conns[conn].process].n_slots;
        let suspects = if was_graceful { Vec::new() } else { self.suspects(worker, n_slots) };
        for task in &suspects {
            *self.n_suspect_deaths.entry(*task).or_default() += 1;
        }
        let killers = self.killed_by.remove(&conn).unwrap_or_default();
        self.is_doubtful.extend(killers.into_iter().filter(|task| self.scheduler.processing_on(*task) == Some(worker)));
        self.tell_scheduler(Event::WorkerLost { worker, was_graceful, reason: "cut".to_owned() });
        // What only a task needed that has failed for this death has been let go before it was its turn to be blamed.
        for task in suspects.iter().filter(|task| self.scheduler.task_state(**task) == Some(TaskState::Released)) {
            self.n_suspect_deaths.entry(*task).and_modify(|n_deaths| *n_deaths -= 1);
        }
        if self.conns.iter().all(|conn| conn.worker.is_none() || conn.is_lost) {
            self.no_workers_since = Some(self.now);
        }
    }

    /// Whom the scheduler may blame for a death, found independently: what it knows to be executing, and of the others the
    /// first in line for the remaining slots that had their inputs.
    fn suspects(&self, worker: WorkerId, n_slots: u32) -> Vec<TaskId> {
        let (mut executing, mut others) = (Vec::new(), Vec::new());
        // What is uploaded is not run.
        for (graph, info) in self.graphs.iter().filter(|(_, info)| info.plan.spread.is_none()) {
            for idx in (0..info.plan.graph.n_tasks() as u32).map(TaskIdx) {
                let task = TaskId::new(*graph, idx);
                let first = self.scheduler.processing_on(task).map(|at| (at, self.scheduler.attempt(task)));
                let here = first.into_iter().chain(self.scheduler.backup(task)).find(|(at, _)| *at == worker);
                if let Some((_, attempt)) = here {
                    let is_told = self.told_executing.contains(&(task, attempt));
                    let rank = (self.scheduler.round(task), Reverse(info.priority), task);
                    if is_told {
                        executing.push(rank);
                    } else if !self.lacks_inputs(task) {
                        others.push(rank);
                    }
                }
            }
        }
        others.sort_unstable();
        let n_others = (n_slots as usize).saturating_sub(executing.len());
        executing.into_iter().chain(others.into_iter().take(n_others)).map(|(_, _, task)| task).collect()
    }

    /// Whether some input of `task` is not in memory, as the scheduler knows it.
    fn lacks_inputs(&self, task: TaskId) -> bool {
        let info = &self.graphs[&task.graph];
        kernel_inputs(&info.plan.graph, task.idx).into_iter().any(|input| {
            let input = match input {
                KernelInput::Own(idx, _) => TaskId::new(task.graph, idx),
                KernelInput::External(external, _) => info.externals[external as usize],
            };
            self.scheduler.task_state(input) != Some(TaskState::Memory)
        })
    }

    pub(super) fn meet_client(&mut self, link: usize) {
        if self.links[link].is_cut {
            return;
        }
        let client = ClientId(self.link_of.len() as u32);
        self.links[link].client = Some(client);
        self.link_of.insert(client, link);
        let name = format!("client {}", self.links[link].session);
        let weight = [0.1, 1.0, 1.0, 3.0][self.links[link].session % 4];
        let hello = ClientHello { version: PROTOCOL_VERSION, name, weight };
        let session = self.links[link].session;
        self.tell_scheduler(Event::ClientJoined { client, hello, peer: owner_of(session) });
    }

    pub(super) fn hear_client(&mut self, link: usize, message: FromClient) {
        let Some(client) = self.links[link].client else { return };
        if self.links[link].is_cut {
            return;
        }
        let submitted = match &message {
            FromClient::Submit { request, graph, options } => Some((*request, graph.externals.clone(), options.priority)),
            FromClient::Scatter { request, options, .. } => Some((*request, Vec::new(), options.priority)),
            FromClient::NotUploaded { task, attempt, .. } => {
                if self.scheduler.attempt(*task) == *attempt {
                    *self.n_not_uploaded.entry(*task).or_default() += 1;
                }
                None
            }
            FromClient::Cancel { graph, .. } => {
                // Whoever may not end it must not have ended it either.
                let session = self.links[link].session;
                if let Some(info) = self.graphs.get_mut(graph).filter(|info| may_end(session, info.session)) {
                    info.is_cancel_sent = true;
                }
                None
            }
            FromClient::Release { .. }
            | FromClient::Locate { .. }
            | FromClient::FetchFailed { .. }
            | FromClient::Status { .. }
            | FromClient::Attach { .. } => None,
        };
        self.scheduler.handle(self.now, Event::ClientSaid { client, message }, &mut self.actions);
        // Known before anything of it is written out.
        if let Some((request, externals, priority)) = submitted {
            self.note_accepted(link, request, externals, priority);
        }
        self.scheduler.validate();
        self.after_scheduler();
    }

    /// Note the graph that the scheduler has just accepted, if it has.
    fn note_accepted(&mut self, link: usize, request: u32, externals: Vec<TaskId>, priority: i32) {
        let Some(client) = self.links[link].client else { return };
        let answers = self.actions.to_clients.get(&client);
        let graph = answers.into_iter().flatten().find_map(|answer| match answer {
            ToClient::Accepted { request: of, graph } if *of == request => Some(*graph),
            ToClient::Welcome { .. }
            | ToClient::Accepted { .. }
            | ToClient::Rejected { .. }
            | ToClient::Cancelled { .. }
            | ToClient::Progress { .. }
            | ToClient::Waits { .. }
            | ToClient::TaskDone { .. }
            | ToClient::TaskFailed { .. }
            | ToClient::GraphEnded { .. }
            | ToClient::Located { .. }
            | ToClient::Upload { .. }
            | ToClient::Status { .. }
            | ToClient::Close { .. } => None,
        });
        let Some(graph) = graph else { return };
        let (session, job) = (self.links[link].session, request as usize);
        let plan = Rc::clone(&self.sessions[session].jobs[job].plan);
        self.trace.counts.n_tasks += plan.graph.n_tasks() as u64;
        // When the shell gathers actions this is told later than it happened.
        let accepted_at = Time(self.now.0.saturating_sub(Duration::from_micros(self.profile.turn_us)));
        let info = GraphInfo {
            plan,
            session,
            job,
            priority,
            externals,
            is_cancel_sent: false,
            n_ended: 0,
            accepted_at,
            was_deserted: false,
        };
        self.graphs.insert(graph, info);
    }

    pub(super) fn lose_client(&mut self, link: usize) {
        let Some(client) = self.links[link].client else { return };
        self.tell_scheduler(Event::ClientLost { client });
    }

    fn tell_scheduler(&mut self, event: Event) {
        self.scheduler.handle(self.now, event, &mut self.actions);
        self.scheduler.validate();
        self.after_scheduler();
    }

    pub(super) fn scheduler_timer(&mut self) {
        self.timer_at = None;
        if self.scheduler.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.scheduler.handle_timeout(self.now, &mut self.actions);
            self.scheduler.validate();
            let again = self.scheduler.poll_timeout().is_some_and(|(at, _)| at <= self.now);
            assert!(!again, "the scheduler's timer is due again at once: {:?}", self.scheduler.poll_timeout());
        }
        self.after_scheduler();
    }

    fn after_scheduler(&mut self) {
        if let Some((at, _)) = self.scheduler.poll_timeout() {
            let at = at.max(self.now);
            if self.timer_at.is_none_or(|timer| at < timer) {
                self.timer_at = Some(at);
                self.push(at, Delivery::SchedulerTimer);
            }
        }
        if self.actions.is_empty() || self.is_flush_due {
            return;
        }
        if self.profile.turn_us == 0 {
            self.flush();
        } else {
            self.is_flush_due = true;
            self.push_in(self.profile.turn_us, Delivery::Flush);
        }
    }

    pub(super) fn flush(&mut self) {
        self.is_flush_due = false;
        let actions = std::mem::take(&mut self.actions);
        assert!(actions.close_workers.is_empty(), "the scheduler closes a worker that kept the contract");
        assert!(actions.close_clients.is_empty(), "the scheduler closes a client that kept the contract");
        for (worker, messages) in actions.to_workers {
            let conn = self.conn_of[&worker];
            assert!(!self.conns[conn].is_lost, "the scheduler speaks to {worker}, which it knows to be gone: {messages:?}");
            self.check_sent(worker, &messages);
            self.trace.counts.n_messages += messages.len() as u64;
            if self.profile.splits_frames {
                for message in messages {
                    self.send_down(conn, vec![message]);
                }
            } else {
                self.send_down(conn, messages);
            }
        }
        for (client, messages) in actions.to_clients {
            let link = self.link_of[&client];
            self.check_told_client(link, &messages);
            self.trace.counts.n_messages += messages.len() as u64;
            let latency = self.draw_latency();
            let at = self.now.after(Duration::from_micros(latency)).max(self.links[link].last_down);
            self.links[link].last_down = at;
            self.push(at, Delivery::ToClient { link, messages });
        }
    }

    fn send_down(&mut self, conn: usize, messages: Vec<ToWorker>) {
        let latency = self.draw_latency();
        let state = &mut self.conns[conn];
        let slow = if state.slow_down.0 > self.now { state.slow_down.1 } else { Duration::ZERO };
        let at = self.now.after(Duration::from_micros(latency)).after(slow).max(state.last_down);
        state.last_down = at;
        state.n_down_in_air += 1;
        self.push(at, Delivery::ToWorker { conn, messages });
    }

    pub(super) fn send_up(&mut self, conn: usize, messages: Vec<FromWorker>) {
        let latency = self.draw_latency();
        self.trace.counts.n_messages += messages.len() as u64;
        let batches: Vec<Vec<FromWorker>> =
            if self.profile.splits_frames { messages.into_iter().map(|message| vec![message]).collect() } else { vec![messages] };
        for messages in batches {
            let state = &mut self.conns[conn];
            let slow = if state.slow_up.0 > self.now { state.slow_up.1 } else { Duration::ZERO };
            let at = self.now.after(Duration::from_micros(latency)).after(slow).max(state.last_up);
            state.last_up = at;
            state.n_up_in_air += 1;
            self.push(at, Delivery::FromWorker { conn, messages });
        }
    }

    /// The connection dies: what is in the air is lost, and each side notices at its own time.
    pub(super) fn cut(&mut self, conn: usize) {
        if std::mem::replace(&mut self.conns[conn].is_cut, true) {
            return;
        }
        let (low, high) = self.profile.notice_us;
        let (up, down) = (self.dice.between(low, high), self.dice.between(low, high));
        self.push_in(up, Delivery::WorkerGone { conn });
        self.push_in(down, Delivery::SchedulerGone { conn });
    }
}
