//! A worker process: the shell around the real worker machine, with a simulated store, slots and data plane.
//!
//! It does what the real shell does and no more: it carries out actions in order and reports what came of them. All
//! judging of whether the machine asked for the right thing happens on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rask_comm::OfferedItem;
use rask_comm::message::{FailureKind, RunFailure, RunInput, ToWorker, WorkerStatus};
use rask_comm::time::Time;
use rask_graphs::{Attempt, Body, BodyId, Part, TaskId};
use rask_worker::machine::{Action, Event, FetchFailure, FetchId, FetchItem, Machine, MachineConfig, OfferId, PAUSE};

use super::oracle::{Behaviour, KernelInput, kernel_inputs, part_of, value_of};
use super::spilling::Disk;
use super::world::{Conn, Delivery, Stored, World};

/// A run on a slot.
pub(super) struct Running {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    is_interrupted: bool,
    began: Time,
    value: u64,
}

/// A worker process; it may die and start anew.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) n_slots: u32,
    pub(super) resources: Vec<(String, f64)>,
    pub(super) config: MachineConfig,
    /// Counts its starts.
    pub(super) life: u32,
    pub(super) is_up: bool,
    /// While draining a lost connection ends the process instead of being made anew.
    pub(super) is_draining: bool,
    pub(super) is_memory_short: bool,
    pub(super) paused_until: Time,
    pub(super) conn: Option<usize>,
    pub(super) machine: Option<Machine>,
    pub(super) store: BTreeMap<(TaskId, Part), Stored>,
    pub(super) bodies: BTreeMap<BodyId, Body>,
    pub(super) running: Vec<Running>,
    /// Results that a fault took from the store.
    pub(super) damaged: BTreeSet<TaskId>,
    /// Results that a newer run's has taken the place of, and that run, which may be gone by now as well.
    pub(super) replaced: BTreeMap<TaskId, Attempt>,
    pub(super) timer_at: Option<Time>,
    pub(super) disk: Disk,
    pub(super) is_disk_full: bool,
    /// Bytes of its spill files at most.
    pub(super) disk_limit: u64,
    /// Items asked for and not answered.
    pub(super) n_fetching: usize,
    /// Whether the machine has been told that memory is short.
    pub(super) is_told_short: bool,
    /// Offers of clients that wait: whose, and of what.
    pub(super) offers: BTreeMap<OfferId, (usize, OfferedItem)>,
    pub(super) n_offers: u64,
}

impl Process {
    pub(super) fn new(name: String, n_slots: u32, resources: Vec<(String, f64)>, config: MachineConfig) -> Self {
        Self {
            name,
            n_slots,
            resources,
            config,
            life: 0,
            is_up: false,
            is_draining: false,
            is_memory_short: false,
            paused_until: Time::default(),
            conn: None,
            machine: None,
            store: BTreeMap::new(),
            bodies: BTreeMap::new(),
            running: Vec::new(),
            damaged: BTreeSet::new(),
            replaced: BTreeMap::new(),
            timer_at: None,
            disk: Disk::default(),
            is_disk_full: false,
            disk_limit: u64::MAX,
            n_fetching: 0,
            is_told_short: false,
            offers: BTreeMap::new(),
            n_offers: 0,
        }
    }

    fn clear(&mut self) {
        self.conn = None;
        self.machine = None;
        self.store.clear();
        self.bodies.clear();
        self.running.clear();
        self.damaged.clear();
        self.replaced.clear();
        self.timer_at = None;
        self.disk = Disk::default();
        self.n_fetching = 0;
        self.is_told_short = false;
        self.offers.clear();
    }

    /// As the real store: exactly this run's result, or a part of the whole.
    pub(super) fn stored(&self, item: FetchItem) -> Option<Stored> {
        if let Some(stored) = self.store.get(&(item.task, item.part)).filter(|stored| stored.attempt == item.attempt) {
            return Some(*stored);
        }
        if item.part.is_whole() {
            return None;
        }
        let whole = self.store.get(&(item.task, Part::WHOLE)).filter(|stored| stored.attempt == item.attempt)?;
        assert!(item.part.0 < whole.n_parts, "{item:?} is asked for, which has {} parts", whole.n_parts);
        let value = part_of(whole.value, item.part);
        Some(Stored { value, nbytes: whole.nbytes / u64::from(whole.n_parts), n_parts: 0, attempt: whole.attempt })
    }

    /// As the real store: an older run's result does not replace a newer one.
    pub(super) fn put(&mut self, task: TaskId, part: Part, stored: Stored) {
        let place = self.store.entry((task, part)).or_insert(stored);
        if place.attempt < stored.attempt {
            self.replaced.insert(task, stored.attempt);
        }
        let is_in_file = place.attempt == stored.attempt && part.is_whole() && self.disk.files.contains(&task);
        if place.attempt <= stored.attempt && !is_in_file {
            *place = stored;
            if part.is_whole() {
                self.disk.forget(task);
            }
        }
    }
}

impl World {
    /// Start the process if it is down, and register.
    pub(super) fn connect(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if process.conn.is_some() || (self.is_healed && self.profile.is_abandoned) {
            return;
        }
        if !process.is_up {
            process.is_up = true;
            process.is_draining = false;
            process.life += 1;
        }
        process.clear();
        process.machine = Some(Machine::new(process.config));
        process.conn = Some(self.conns.len());
        let conn = self.conns.len();
        self.conns.push(Conn {
            process: at,
            worker: None,
            is_cut: false,
            is_graceful: false,
            is_lost: false,
            last_up: self.now,
            last_down: self.now,
            n_down_in_air: 0,
            n_up_in_air: 0,
            slow_up: (Time::default(), Duration::ZERO),
            slow_down: (Time::default(), Duration::ZERO),
        });
        let latency = self.draw_latency();
        let arrival = self.now.after(Duration::from_micros(latency));
        self.conns[conn].last_up = arrival;
        self.push(arrival, Delivery::WorkerHello { conn });
        let first_status = self.dice.between(1_000, 1_000_000);
        self.push_in(first_status, Delivery::Status { conn });
    }

    /// The process dies as by kill -9.
    pub(super) fn crash(&mut self, at: usize, restart_us: Option<u64>) {
        if !self.processes[at].is_up {
            return;
        }
        self.may_repeat_work = true;
        let conn = self.processes[at].conn;
        self.processes[at].clear();
        self.processes[at].is_up = false;
        self.processes[at].paused_until = self.now;
        if let Some(conn) = conn {
            self.break_watches(conn);
            self.cut(conn);
        }
        if let Some(restart_us) = restart_us {
            self.push_in(restart_us, Delivery::Connect { process: at });
        }
    }

    pub(super) fn worker_hears(&mut self, conn: usize, messages: Vec<ToWorker>) {
        for message in messages {
            if self.conns[conn].is_cut {
                break;
            }
            if self.kills_by_fetching(conn, &message) {
                self.note_fault("killer fetch");
                let restart = self.dice.between(10_000, 1_000_000);
                self.crash(self.conns[conn].process, Some(restart));
                break;
            }
            self.tell_worker(conn, Event::SchedulerSaid(message));
        }
        self.conns[conn].n_down_in_air -= 1;
    }

    /// Whether a worker that is given this run will die of what it has to fetch.
    fn kills_by_fetching(&mut self, conn: usize, message: &ToWorker) -> bool {
        let ToWorker::Run(run) = message else { return false };
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return false;
        }
        let plan = &self.graphs[&run.task.graph].plan;
        // The whole has its parts.
        let store = &self.processes[at].store;
        let has = |input: &RunInput| [input.part, Part::WHOLE].iter().any(|part| store.contains_key(&(input.task, *part)));
        let fetches = run.inputs.iter().any(|input| !has(input));
        let kills = fetches && plan.tasks[run.task.idx.index()].behaviour == Behaviour::KillsFetching;
        if kills {
            self.killed_by.entry(conn).or_default().push(run.task);
        }
        kills
    }

    pub(super) fn worker_loses_scheduler(&mut self, conn: usize) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        self.break_watches(conn);
        self.processes[at].clear();
        if self.processes[at].is_draining {
            self.processes[at].is_up = false;
            self.processes[at].life += 1;
        }
        let pause = self.dice.between(1_000, 500_000);
        self.push_in(pause, Delivery::Connect { process: at });
    }

    pub(super) fn worker_timer(&mut self, conn: usize) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        self.processes[at].timer_at = None;
        let Some(machine) = &mut self.processes[at].machine else { return };
        let mut out = Vec::new();
        machine.handle_timeout(self.now, &mut out);
        machine.validate();
        self.carry_out(conn, out);
    }

    pub(super) fn worker_status(&mut self, conn: usize) {
        if self.processes[self.conns[conn].process].conn != Some(conn) {
            return;
        }
        self.measure(conn);
        self.push_in(1_000_000, Delivery::Status { conn });
    }

    /// The shell measures the process and tells the machine.
    pub(super) fn measure(&mut self, conn: usize) {
        let process = &self.processes[self.conns[conn].process];
        let is_short = process.is_memory_short;
        // As much as pauses a worker, and has it spill, but does not end it.
        let rss_nbytes = if is_short { process.config.memory.limit / 100 * PAUSE.begins + 100 } else { 0 };
        if process.machine.as_ref().is_some_and(|machine| machine.worker().is_some()) {
            let at = self.conns[conn].process;
            self.processes[at].is_told_short = is_short;
            self.tell_worker(conn, Event::Measured(Box::new(WorkerStatus { rss_nbytes, ..WorkerStatus::default() })));
        }
    }

    /// Hand an event to the machine of a registration, if it is the present one, and carry out what it asks for.
    pub(super) fn tell_worker(&mut self, conn: usize, event: Event) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        let Some(machine) = &mut self.processes[at].machine else { return };
        let mut out = Vec::new();
        machine.handle(self.now, event, &mut out);
        machine.validate();
        self.carry_out(conn, out);
    }

    fn carry_out(&mut self, conn: usize, actions: Vec<Action>) {
        let at = self.conns[conn].process;
        let (mut messages, mut exits) = (Vec::new(), false);
        for action in actions {
            self.trace.note(self.now, "  worker", &(at, &action));
            match action {
                Action::Tell(message) => messages.push(message),
                Action::AddBody { id, body, label: _, is_of_user: _ } => {
                    self.processes[at].bodies.insert(id, body);
                }
                Action::ForgetBodies { graph } => self.processes[at].bodies.retain(|id, _| id.graph != graph),
                Action::Execute { task, attempt, body, inputs, spread } => {
                    self.begin_execution(conn, (task, attempt), body, &inputs, &spread);
                }
                Action::Interrupt { task, attempt } => {
                    let run = self.processes[at].running.iter_mut().find(|run| run.task == task && run.attempt == attempt);
                    let run = run.unwrap_or_else(|| panic!("{task} {attempt} is interrupted, but is on no slot"));
                    run.is_interrupted = true;
                    if self.dice.chance(50) {
                        self.push_in(100, Delivery::Executed { conn, task, attempt });
                    }
                }
                Action::Fetch { fetch, from, address, name: _, items } => {
                    let peer = usize::from(address.port() - 9_000);
                    assert_ne!(peer, usize::MAX, "{from}");
                    assert!(!items.is_empty(), "a fetch of nothing");
                    self.check_room(at, "a fetch begins");
                    self.processes[at].n_fetching += items.len();
                    let latency = self.draw_latency();
                    let asked_at = self.now;
                    self.push_in(latency, Delivery::FetchAsked { conn, fetch, peer, items, asked_at });
                }
                Action::Watch { from, items, .. } => self.watch(conn, from, items),
                Action::Unwatch { from, items } => self.unwatch(conn, from, items),
                Action::Push { to, item } => self.begin_push(conn, to, item),
                Action::Drop(item) => {
                    let place = (item.task, item.part);
                    let store = &mut self.processes[at].store;
                    if store.get(&place).is_some_and(|stored| stored.attempt == item.attempt) {
                        store.remove(&place);
                        if item.part.is_whole() {
                            self.processes[at].disk.forget(item.task);
                        }
                    }
                }
                Action::Admit { offer, verdict } => self.admit(conn, offer, &verdict),
                Action::Spill { task, attempt } => self.begin_spill(conn, task, attempt),
                Action::Evict { task, attempt } => self.evict(at, task, attempt),
                Action::Abort { reason } => panic!("worker {at} gives up: {reason}"),
                Action::Exit { .. } => exits = true,
                Action::Close { reason } => panic!("worker {at} ends the connection: {reason}"),
            }
        }
        if !messages.is_empty() {
            self.send_up(conn, messages);
        }
        if exits {
            self.exit(conn);
            return;
        }
        self.arm_timer(conn);
    }

    fn arm_timer(&mut self, conn: usize) {
        let process = &mut self.processes[self.conns[conn].process];
        let Some((due, _)) = process.machine.as_ref().and_then(Machine::poll_timeout) else { return };
        if process.timer_at.is_none_or(|timer| due < timer) {
            process.timer_at = Some(due);
            self.push(due, Delivery::WorkerTimer { conn });
        }
    }

    /// The process leaves in agreement: what it has said still arrives, then its connection ends.
    fn exit(&mut self, conn: usize) {
        let at = self.conns[conn].process;
        self.break_watches(conn);
        self.processes[at].clear();
        self.processes[at].is_up = false;
        self.conns[conn].is_cut = true;
        self.conns[conn].is_graceful = true;
        let last_up = self.conns[conn].last_up;
        self.push(last_up, Delivery::WorkerGone { conn });
        if self.is_healed || self.dice.chance(50) {
            let restart = self.dice.between(10_000, 2_000_000);
            self.push_in(restart, Delivery::Connect { process: at });
        }
    }

    fn begin_execution(
        &mut self,
        conn: usize,
        (task, attempt): (TaskId, Attempt),
        body: BodyId,
        inputs: &[FetchItem],
        spread: &[u32],
    ) {
        let at = self.conns[conn].process;
        self.check_room(at, "a run starts");
        self.read_back(at, inputs);
        if let Some(input) = self.find_absent(at, inputs) {
            self.push(self.now, Delivery::InputGone { conn, task, attempt, input });
            // It holds its slot until the shell has said so.
            self.processes[at].running.push(Running { task, attempt, is_interrupted: false, began: self.now, value: 0 });
            return;
        }
        self.check_inputs(at, task, inputs, spread);
        self.check_may_begin(conn, task, attempt);
        let process = &self.processes[at];
        let known = process.bodies.get(&body);
        let values: Vec<u64> = inputs.iter().filter_map(|item| process.stored(*item)).map(|stored| stored.value).collect();
        let body = known.unwrap_or_else(|| panic!("{task} runs with body {body:?}, which the worker was not told"));
        let value = value_of(body, &values);
        self.trace.counts.n_executions += 1;
        self.processes[at].running.push(Running { task, attempt, is_interrupted: false, began: self.now, value });
        let n_running = self.processes[at].running.len();
        assert!(n_running <= self.processes[at].n_slots as usize, "{n_running} runs on {} slots", self.processes[at].n_slots);
        let plan = self.graphs[&task.graph].plan.tasks[task.idx.index()];
        let is_straggler = self.dice.chance(self.profile.straggling) && !self.is_healed;
        if is_straggler {
            self.note_fault("straggler");
        }
        let factor = if self.now < self.slow_until || is_straggler { 20 } else { 1 };
        self.push_in(plan.duration_us * factor, Delivery::Executed { conn, task, attempt });
    }

    /// The first input that is not in the store. A machine may only be wrong about what a fault or a newer run took away.
    fn find_absent(&self, at: usize, inputs: &[FetchItem]) -> Option<FetchItem> {
        let process = &self.processes[at];
        let absent = *inputs.iter().find(|item| process.stored(**item).is_none())?;
        let is_replaced = process.store.iter().any(|((task, _), stored)| *task == absent.task && stored.attempt > absent.attempt)
            || process.replaced.get(&absent.task).is_some_and(|newer| *newer > absent.attempt);
        let is_excused = is_replaced || process.damaged.contains(&absent.task);
        assert!(is_excused, "a task starts on worker {at} without its input {absent:?}");
        Some(absent)
    }

    /// The inputs are those of the graph, in order, and their values are right.
    fn check_inputs(&self, at: usize, task: TaskId, inputs: &[FetchItem], spread: &[u32]) {
        let info = &self.graphs[&task.graph];
        let graph = &info.plan.graph;
        let expected: Vec<(TaskId, Part)> = kernel_inputs(graph, task.idx)
            .into_iter()
            .map(|input| match input {
                KernelInput::Own(idx, part) => (TaskId::new(task.graph, idx), part),
                KernelInput::External(external, part) => (info.externals[external as usize], part),
            })
            .collect();
        let given: Vec<(TaskId, Part)> = inputs.iter().map(|item| (item.task, item.part)).collect();
        assert_eq!(given, expected, "inputs of {task}");
        for item in inputs {
            let truth = part_of(self.truth(item.task), item.part);
            let there = self.processes[at].stored(*item).map(|stored| stored.value);
            assert_eq!(there, Some(truth), "{task} starts with a wrong value of {item:?}");
        }
        if spread.is_empty() {
            assert_eq!(inputs.len(), graph.inputs_of(task.idx).len(), "{task} has groups and no spread");
        } else {
            assert_eq!(spread.len(), graph.inputs_of(task.idx).len(), "{task}: spread {spread:?}");
            assert_eq!(spread.iter().sum::<u32>() as usize, inputs.len(), "{task}: spread {spread:?}");
        }
    }

    /// The value that `task` has by the oracle.
    pub(super) fn truth(&self, task: TaskId) -> u64 {
        self.graphs[&task.graph].plan.truth[task.idx.index()]
    }

    /// A run's time on its slot is over.
    pub(super) fn end_execution(&mut self, conn: usize, task: TaskId, attempt: Attempt) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        let found = self.processes[at].running.iter().position(|run| run.task == task && run.attempt == attempt);
        // An interrupted run may have ended before its time.
        let Some(idx) = found else { return };
        let plan = self.graphs[&task.graph].plan.tasks[task.idx.index()];
        if matches!(plan.behaviour, Behaviour::KillsWorker | Behaviour::KillsFetching) {
            self.note_fault("killer task");
            let restart = self.dice.between(10_000, 1_000_000);
            self.crash(at, Some(restart));
            return;
        }
        let run = self.processes[at].running.swap_remove(idx);
        if !run.is_interrupted {
            self.check_may_end(conn, task, attempt);
        }
        let n_failed = self.n_failed_runs.get(&task).copied().unwrap_or(0);
        let failure = match plan.behaviour {
            Behaviour::Sound | Behaviour::KillsWorker | Behaviour::KillsFetching => None,
            Behaviour::FailsFirst(n_failures) => (n_failed < n_failures).then_some(FailureKind::Operator),
            Behaviour::FailsAlways => Some(FailureKind::Operator),
            Behaviour::Panics => Some(FailureKind::Panicked),
        };
        if let Some(kind) = failure {
            *self.n_failed_runs.entry(task).or_default() += 1;
            let operator = self.graphs[&task.graph].plan.graph.body(task.idx).name();
            let failure = RunFailure { kind, operator, message: failure_message(task) };
            self.tell_worker(conn, Event::ExecutionFailed { task, attempt, failure });
            return;
        }
        *self.n_successes.entry(task).or_default() += 1;
        if run.is_interrupted {
            // As the real slot: nobody wants the result.
            let event = Event::ExecutionFinished {
                task,
                attempt,
                nbytes: plan.nbytes,
                n_parts: plan.n_parts,
                duration_us: 0,
                nbytes_peak: 0,
            };
            self.tell_worker(conn, event);
            return;
        }
        let stored = Stored { attempt, value: run.value, nbytes: plan.nbytes, n_parts: plan.n_parts };
        self.processes[at].put(task, Part::WHOLE, stored);
        self.processes[at].damaged.remove(&task);
        let duration_us = self.now.since(run.began).as_micros() as u64;
        let event =
            Event::ExecutionFinished { task, attempt, nbytes: plan.nbytes, n_parts: plan.n_parts, duration_us, nbytes_peak: 0 };
        self.tell_worker(conn, event);
    }

    pub(super) fn input_gone(&mut self, conn: usize, task: TaskId, attempt: Attempt, input: FetchItem) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        self.processes[at].running.retain(|run| run.task != task || run.attempt != attempt);
        self.tell_worker(conn, Event::InputGone { task, attempt, input });
    }

    // The data plane.

    /// A peer answers a fetch, item by item.
    pub(super) fn serve_fetch(&mut self, conn: usize, fetch: FetchId, peer: usize, items: Vec<FetchItem>, asked_at: Time) {
        let requester = self.conns[conn].process;
        let is_reachable = self.processes[peer].is_up && !self.cut_peers.contains(&(requester.min(peer), requester.max(peer)));
        let source = (peer, if is_reachable { self.processes[peer].life } else { u32::MAX });
        let mut at = self.now;
        let mut is_broken = !is_reachable;
        for item in items {
            let latency = self.draw_latency();
            is_broken |= self.dice.below(1_000) < self.profile.fetch_breaks_per_mille;
            if !is_broken {
                self.read_for_peer(peer, item);
            }
            let stored = if is_broken { None } else { self.processes[peer].stored(item) };
            let wire_us = stored.map_or(0, |stored| stored.nbytes / 200);
            at = at.after(Duration::from_micros(latency + wire_us));
            let source = if is_broken { (peer, u32::MAX) } else { source };
            self.push(at, Delivery::FetchEnded { conn, fetch, item, stored, source, asked_at });
        }
    }

    pub(super) fn end_fetch(
        &mut self,
        conn: usize,
        fetch: FetchId,
        item: FetchItem,
        stored: Option<Stored>,
        (peer, life): (usize, u32),
        asked_at: Time,
    ) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        self.processes[at].n_fetching -= 1;
        let is_peer_there = self.processes[peer].is_up && self.processes[peer].life == life;
        let event = match stored {
            Some(stored) if is_peer_there => {
                assert_eq!(stored.value, part_of(self.truth(item.task), item.part), "{item:?} has a wrong value");
                self.processes[at].put(item.task, item.part, stored);
                let duration_us = self.now.since(asked_at).as_micros() as u64;
                Event::FetchArrived { fetch, item, nbytes: stored.nbytes, duration_us }
            }
            None if is_peer_there => Event::FetchFailed { fetch, item, reason: FetchFailure::NotThere },
            Some(_) | None => Event::FetchFailed { fetch, item, reason: FetchFailure::Unreachable },
        };
        self.tell_worker(conn, event);
    }
}

/// The message of every failure of `task`.
pub(super) fn failure_message(task: TaskId) -> String {
    format!("{task} fails, as planned")
}
