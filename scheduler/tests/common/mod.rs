//! A cluster of names around the scheduler machine, for tests: graphs in a line of text, workers that obey, a log in words.
//!
//! It decides nothing: every finish, failure and death is the test's. After every event the machine validates itself.

#![allow(dead_code, reason = "each test file uses what it needs")]

pub(crate) mod farm;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rask_comm::message::{
    ClientHello, FailureKind, FromClient, FromWorker, GraphStats, GroupMember, RunFailure, SubmitOptions, ToClient, ToWorker,
    WorkerHello, WorkerStatus,
};
use rask_comm::time::Time;
use rask_graphs::graph::Input;
use rask_graphs::keys::{KeyRef, KeysBuilder};
use rask_graphs::{Attempt, Body, ClientId, Graph, GraphId, Part, Source, TaskId, TaskIdx, TaskOptions, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, Machine};

/// A machine and what the test has named.
pub(crate) struct Cluster {
    pub(crate) machine: Machine,
    pub(crate) now: Time,
    pub(crate) workers: BTreeMap<String, WorkerId>,
    pub(crate) tasks: BTreeMap<String, TaskId>,
    pub(crate) graphs: BTreeMap<String, GraphId>,
    pub(crate) clients: BTreeMap<String, ClientId>,
    /// Runs that have been given and not taken back, by task.
    pub(crate) given: BTreeMap<TaskId, (WorkerId, Attempt)>,
    /// Members of gather groups, as each worker was told last.
    pub(crate) groups_told: BTreeMap<(WorkerId, GraphId, u32), Vec<GroupMember>>,
    /// Of tasks that have been given to a second worker: the first run.
    pub(crate) first: BTreeMap<TaskId, (WorkerId, Attempt)>,
    /// Actions in words since the log was last taken.
    pub(crate) log: Vec<String>,
    pub(crate) n_messages: usize,
    /// Of graphs that have ended.
    pub(crate) stats: BTreeMap<GraphId, GraphStats>,
    n_workers: u32,
    /// Of workers that join.
    pub(crate) memory_limit: Option<u64>,
}

impl Cluster {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            machine: Machine::new(config),
            now: Time::default(),
            workers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            graphs: BTreeMap::new(),
            clients: BTreeMap::new(),
            given: BTreeMap::new(),
            groups_told: BTreeMap::new(),
            first: BTreeMap::new(),
            log: Vec::new(),
            stats: BTreeMap::new(),
            n_messages: 0,
            n_workers: 0,
            memory_limit: None,
        }
    }

    pub(crate) fn with_workers(config: Config, slots: &[u32]) -> Self {
        let mut cluster = Self::new(config);
        for (at, n_slots) in slots.iter().enumerate() {
            cluster.join(&format!("w{at}"), *n_slots, &[]);
        }
        cluster
    }

    pub(crate) fn event(&mut self, event: Event) {
        let mut actions = Actions::default();
        self.machine.handle(self.now, event, &mut actions);
        self.machine.validate();
        self.absorb(actions);
    }

    /// Let time pass and timers fire.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now.after(time);
        while let Some((at, _)) = self.machine.poll_timeout().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            let mut actions = Actions::default();
            self.machine.handle_timeout(self.now, &mut actions);
            self.machine.validate();
            self.absorb(actions);
        }
        self.now = until;
    }

    pub(crate) fn join(&mut self, name: &str, n_slots: u32, resources: &[(&str, f64)]) -> WorkerId {
        let worker = WorkerId(self.n_workers);
        self.n_workers += 1;
        self.workers.insert(name.to_owned(), worker);
        let mut hello = hello(worker, name, n_slots, resources);
        hello.memory_limit = self.memory_limit.unwrap_or(hello.memory_limit);
        self.event(Event::WorkerJoined { worker, hello, key: rask_comm::KeyId::default() });
        worker
    }

    pub(crate) fn lose(&mut self, name: &str, was_graceful: bool) {
        let worker = self.workers.remove(name).expect("a worker of that name");
        self.given.retain(|_, (at, _)| *at != worker);
        self.first.retain(|_, (at, _)| *at != worker);
        for (task, run) in std::mem::take(&mut self.first) {
            match self.given.entry(task) {
                Entry::Occupied(_) => {
                    self.first.insert(task, run);
                }
                Entry::Vacant(place) => {
                    place.insert(run);
                }
            }
        }
        self.event(Event::WorkerLost { worker, was_graceful, reason: "it was lost".to_owned() });
    }

    pub(crate) fn client(&mut self, name: &str) -> ClientId {
        self.client_of_weight(name, 1.0)
    }

    /// The client of that name; a new one has this weight.
    pub(crate) fn client_of_weight(&mut self, name: &str, weight: f64) -> ClientId {
        if let Some(client) = self.clients.get(name) {
            return *client;
        }
        let client = ClientId(self.clients.len() as u32);
        self.clients.insert(name.to_owned(), client);
        self.event(Event::ClientJoined {
            client,
            hello: ClientHello { version: 1, name: name.to_owned(), weight },
            peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, name),
        });
        client
    }

    pub(crate) fn submit(&mut self, client: &str, name: &str, graph: Graph, priority: i32) -> GraphId {
        let options = SubmitOptions { name: name.to_owned(), priority, detached: false };
        self.submit_as(client, graph, options)
    }

    pub(crate) fn submit_as(&mut self, client: &str, graph: Graph, options: SubmitOptions) -> GraphId {
        let client = self.client(client);
        let id = GraphId(self.graphs.len() as u32);
        self.graphs.insert(options.name.clone(), id);
        for idx in 0..graph.n_tasks() as u32 {
            self.tasks.insert(graph.keys.name(idx), TaskId::new(id, TaskIdx(idx)));
        }
        let message = FromClient::Submit { request: id.0, graph: Box::new(graph), options };
        self.event(Event::ClientSaid { client, message });
        id
    }

    pub(crate) fn task(&self, name: &str) -> TaskId {
        *self.tasks.get(name).unwrap_or_else(|| panic!("no task \"{name}\""))
    }

    pub(crate) fn worker(&self, name: &str) -> WorkerId {
        *self.workers.get(name).unwrap_or_else(|| panic!("no worker \"{name}\""))
    }

    pub(crate) fn say(&mut self, worker: WorkerId, message: FromWorker) {
        self.event(Event::WorkerSaid { worker, message });
    }

    /// The run of `task` that is spoken of is over; if another worker has the task too, that one's is spoken of.
    pub(crate) fn take_run(&mut self, task: TaskId) -> (WorkerId, Attempt) {
        let run = self.given.remove(&task).unwrap_or_else(|| panic!("{task} has not been given to anybody"));
        if let Some(other) = self.first.remove(&task) {
            self.given.insert(task, other);
        }
        run
    }

    /// The worker that has `task` finishes it.
    pub(crate) fn finish(&mut self, task: TaskId, nbytes: u64, duration_us: u64) {
        let (worker, attempt) = self.take_run(task);
        self.say(worker, FromWorker::Finished { task, attempt, nbytes, n_parts: 0, duration_us });
    }

    pub(crate) fn fail(&mut self, task: TaskId, message: &str) {
        self.fail_as(task, FailureKind::Operator, message);
    }

    pub(crate) fn fail_as(&mut self, task: TaskId, kind: FailureKind, message: &str) {
        let (worker, attempt) = self.take_run(task);
        let failure = RunFailure { kind, operator: "op".to_owned(), message: message.to_owned() };
        self.say(worker, FromWorker::Failed { task, attempt, failure });
    }

    pub(crate) fn executing(&mut self, task: TaskId) {
        let (worker, attempt) = self.given[&task];
        self.say(worker, FromWorker::Executing { task, attempt });
    }

    /// Speak of the other run of a task that two workers have.
    pub(crate) fn swap(&mut self, task: TaskId) {
        let other = self.first.remove(&task).unwrap_or_else(|| panic!("{task} has not been given to two"));
        if let Some(run) = self.given.insert(task, other) {
            self.first.insert(task, run);
        }
    }

    pub(crate) fn set_paused(&mut self, worker: WorkerId, is_paused: bool) {
        self.say(worker, FromWorker::Status(Box::new(WorkerStatus { is_paused, ..WorkerStatus::default() })));
    }

    /// Workers finish whatever they have, first given first, until nothing is given any more.
    pub(crate) fn run_to_end(&mut self) {
        while let Some(task) = self.given.keys().next().copied() {
            self.finish(task, 100, 1_000);
        }
    }

    /// Number of runs given to a worker.
    pub(crate) fn n_given(&self, worker: WorkerId) -> usize {
        self.given.values().filter(|(at, _)| *at == worker).count()
    }

    /// The log since it was last taken.
    pub(crate) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    pub(crate) fn name_of(&self, task: TaskId) -> String {
        self.tasks.iter().find(|(_, id)| **id == task).map_or_else(|| task.to_string(), |(name, _)| name.clone())
    }

    pub(crate) fn worker_name(&self, worker: WorkerId) -> String {
        self.workers.iter().find(|(_, id)| **id == worker).map_or_else(|| worker.to_string(), |(name, _)| name.clone())
    }

    fn absorb(&mut self, actions: Actions) {
        assert!(actions.close_workers.is_empty() && actions.close_clients.is_empty(), "nobody has misbehaved");
        for (worker, messages) in actions.to_workers {
            let name = self.worker_name(worker);
            self.n_messages += messages.len();
            for message in messages {
                self.worker_told(worker, &name, message);
            }
        }
        for (client, messages) in actions.to_clients {
            let name = self.clients.iter().find(|(_, id)| **id == client).map_or_else(String::new, |(name, _)| name.clone());
            self.n_messages += messages.len();
            for message in messages {
                self.client_told(&name, message);
            }
        }
    }

    fn worker_told(&mut self, worker: WorkerId, name: &str, message: ToWorker) {
        match message {
            ToWorker::Run(run) => {
                assert!(self.workers.values().any(|there| *there == worker), "a run for {worker}, which is gone");
                let members = run.groups.iter().flat_map(|group| &self.groups_told[&(worker, run.task.graph, group.group)]);
                let members = members.flat_map(|member| member.holders.iter().copied());
                let holders: BTreeSet<WorkerId> =
                    run.inputs.iter().flat_map(|input| input.holders.iter().copied()).chain(members).collect();
                for holder in &holders {
                    assert!(self.workers.values().any(|there| there == holder), "{holder} is named as a holder, but is gone");
                }
                let before = self.given.insert(run.task, (worker, run.attempt));
                assert!(before.is_none_or(|(_, attempt)| attempt < run.attempt), "attempts of {} do not rise", run.task);
                if let Some(first) = before {
                    self.first.insert(run.task, first);
                }
                // An exclamation mark: still being made there.
                let is_made = |holder: &WorkerId| run.inputs.iter().all(|input| input.is_made || !input.holders.contains(holder));
                let mark = |holder| if is_made(holder) { "" } else { "!" };
                let from: Vec<String> =
                    holders.iter().map(|holder| format!("{}{}", self.worker_name(*holder), mark(holder))).collect();
                let from = if from.is_empty() { String::new() } else { format!(" from {}", from.join(",")) };
                let attempt = if run.attempt.0 > 1 { format!(" {}", run.attempt) } else { String::new() };
                self.log.push(format!("{name}: run {}{attempt}{from}", self.name_of(run.task)));
            }
            ToWorker::Cancel { task, attempt } => {
                if self.given.get(&task) == Some(&(worker, attempt)) {
                    self.given.remove(&task);
                }
                if self.first.get(&task) == Some(&(worker, attempt)) {
                    self.first.remove(&task);
                }
                self.log.push(format!("{name}: cancel {} {attempt}", self.name_of(task)));
            }
            ToWorker::Group { graph, group, members } => {
                self.groups_told.insert((worker, graph, group), members);
            }
            ToWorker::Revoke { task, .. } => self.log.push(format!("{name}: revoke {}", self.name_of(task))),
            ToWorker::Free { tasks } => {
                let mut names: Vec<String> = tasks.iter().map(|task| self.name_of(*task)).collect();
                names.sort();
                self.log.push(format!("{name}: free {}", names.join(" ")));
            }
            ToWorker::Expect { task, attempt, .. } => {
                let before = self.given.insert(task, (worker, attempt));
                assert!(before.is_none_or(|(_, before)| before < attempt), "attempts of {task} do not rise");
                self.log.push(format!("{name}: expect {}", self.name_of(task)));
            }
            ToWorker::Replicate { input } => self.log.push(format!("{name}: replicate {}", self.name_of(input.task))),
            ToWorker::Keep { task, .. } => self.log.push(format!("{name}: keep {}", self.name_of(task))),
            ToWorker::Leave { lost } if lost.n_results > 0 => {
                self.log.push(format!("{name}: leave, losing {} of {} bytes", lost.names.join(" and "), lost.nbytes));
            }
            ToWorker::Leave { .. } => self.log.push(format!("{name}: leave")),
            ToWorker::Close { reason } => self.log.push(format!("{name}: close {reason}")),
            ToWorker::Welcome { .. } | ToWorker::Body { .. } | ToWorker::Peer { .. } | ToWorker::ForgetGraph { .. } => {}
        }
    }

    fn client_told(&mut self, name: &str, message: ToClient) {
        match message {
            ToClient::TaskDone { task, .. } => self.log.push(format!("{name}: done {}", self.name_of(task))),
            ToClient::TaskFailed { task, failure } => self.log.push(format!(
                "{name}: failed {}: {:?} of {}{}: {}",
                self.name_of(task),
                failure.kind,
                failure.key,
                if failure.worker.is_empty() { String::new() } else { format!(" on {}", failure.worker) },
                failure.message
            )),
            ToClient::GraphEnded { graph, stats } => {
                self.stats.insert(graph, stats);
                let of = self.graphs.iter().find(|(_, id)| **id == graph).map_or_else(String::new, |(name, _)| name.clone());
                self.log.push(format!("{name}: ended {of}"));
            }
            ToClient::Waits { reason, .. } if reason.is_empty() => self.log.push(format!("{name}: gets on")),
            ToClient::Waits { reason, .. } => self.log.push(format!("{name}: waits: {reason}")),
            ToClient::Rejected { reason, .. } => self.log.push(format!("{name}: rejected: {reason}")),
            ToClient::Cancelled { was_known, .. } => self.log.push(format!("{name}: cancelled {was_known}")),
            ToClient::Located { task, holders, .. } => {
                let names: Vec<String> = holders.into_iter().map(|holder| holder.name).collect();
                self.log.push(format!("{name}: located {} at {}", self.name_of(task), names.join(",")));
            }
            ToClient::Upload { task, to, .. } => self.log.push(format!("{name}: upload {} to {}", self.name_of(task), to.name)),
            ToClient::Welcome { .. }
            | ToClient::Accepted { .. }
            | ToClient::Progress { .. }
            | ToClient::Status { .. }
            | ToClient::Close { .. } => {}
        }
    }
}

pub(crate) fn hello(worker: WorkerId, name: &str, n_slots: u32, resources: &[(&str, f64)]) -> WorkerHello {
    WorkerHello {
        version: rask_comm::message::PROTOCOL_VERSION,
        name: name.to_owned(),
        n_slots,
        memory_limit: 1 << 30,
        resources: resources.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect(),
        data_address: SocketAddr::from(([127, 0, 0, 1], 9_000 + worker.0 as u16)),
        host: String::new(),
        registry_fingerprint: 0,
    }
}

/// A graph in a line: `a; b; c* <- a b retries=2 gpu=1 on=w1`. A star marks an output; `r[3]` is r-0, r-1 and r-2, and as
/// an input all of them; `r-3` alone is one of that family. Each family of names is an operator of its own.
pub(crate) fn graph(text: &str) -> Graph {
    graph_on(text, &[])
}

/// As [`graph`]; tasks may take results of earlier graphs too, by these names.
pub(crate) fn graph_on(text: &str, externals: &[(&str, TaskId)]) -> Graph {
    let (mut bodies, mut body_of, mut keys) = (Vec::new(), Vec::new(), KeysBuilder::default());
    let (mut inputs, mut input_offsets, mut outputs, mut options) = (Vec::new(), vec![0], Vec::new(), Vec::new());
    let mut ids: BTreeMap<String, Vec<TaskIdx>> = BTreeMap::new();
    for task in text.split(';').map(str::trim).filter(|task| !task.is_empty()) {
        let (head, tail) = task.split_once("<-").unwrap_or((task, ""));
        let words: Vec<&str> = head.split_whitespace().chain(tail.split_whitespace()).collect();
        let (is_output, name) = (words[0].ends_with('*'), words[0].trim_end_matches('*'));
        let (family, n_members) = match name.split_once('[') {
            Some((family, n)) => (family, n.trim_end_matches(']').parse::<u32>().ok()),
            None => (name, None),
        };
        let (family, only) = match family.rsplit_once('-').and_then(|(stem, digits)| Some((stem, digits.parse::<u32>().ok()?))) {
            Some((stem, member)) => (stem, Some(member)),
            None => (family, None),
        };
        let family_id = keys.family(family);
        bodies.push(Body::single(family, 1, "{}"));
        for at in 0..n_members.unwrap_or(1) {
            let member = only.or(n_members.map(|_| at));
            let idx = TaskIdx(body_of.len() as u32);
            body_of.push(bodies.len() as u32 - 1);
            keys.push(KeyRef { family: family_id, member });
            let mut own = TaskOptions::default();
            for word in &words[1..] {
                match word.split_once('=') {
                    Some(("retries", n)) => own.retries = n.parse().expect("a number"),
                    Some(("on", name)) => own.workers.push(name.to_owned()),
                    Some((name, amount)) => own.resources.push((name.to_owned(), amount.parse().expect("a number"))),
                    None => {
                        if let Some(at) = externals.iter().position(|(name, _)| name == word) {
                            inputs.push(Input::new(Source::External(at as u32), Part::WHOLE));
                            continue;
                        }
                        let of: &[TaskIdx] = &ids[*word];
                        inputs.extend(of.iter().map(|source| Input::new(Source::Task(*source), Part::WHOLE)));
                    }
                }
            }
            input_offsets.push(inputs.len() as u32);
            if own != TaskOptions::default() {
                options.push((idx, own));
            }
            if is_output {
                outputs.push(idx);
            }
            ids.entry(family.to_owned()).or_default().push(idx);
            if let Some(member) = member {
                ids.insert(format!("{family}-{member}"), vec![idx]);
            }
        }
    }
    let graph = Graph {
        bodies,
        body_of,
        input_offsets,
        inputs,
        group_offsets: vec![0],
        group_members: Vec::new(),
        externals: externals.iter().map(|(_, task)| *task).collect(),
        keys: keys.finish(),
        options,
        outputs,
    };
    graph.check().expect("a well formed graph");
    graph
}
