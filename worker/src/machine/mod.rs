//! The worker's decisions as a pure state machine: events in, actions out, time as an argument.
//!
//! It knows runs, which inputs are missing, which fetches are in the air and which slots are busy. It never sees a result's
//! bytes (the shell puts them into the store) and it never blocks. One machine serves one registration: a worker that
//! registers again begins with a fresh one.
//!
//! **Blame.** When a worker dies, only what it was executing can have killed it. To say so of every run would double the
//! messages of a worker that runs a hundred thousand short tasks a second, so [`FromWorker::Executing`] is told once a run
//! has been on its slot for [`MachineConfig::blame_after`]. Of a worker that dies earlier than that, the scheduler has to
//! suspect the first `n_slots` of the runs it gave it, in the order in which workers start them.

#[cfg(test)]
mod conversations;
#[cfg(test)]
mod early_tests;
mod event;
mod executing;
mod fault;
mod fetching;
mod inspection;
mod ledger;
mod results;
mod runs;
#[cfg(test)]
mod script;
mod slab;
mod spilling;
#[cfg(test)]
mod spilling_tests;
mod spreading;
mod starting;
mod story;
#[cfg(test)]
mod tests;
mod uploads;
#[cfg(test)]
mod uploads_tests;
mod watchers;

use std::cmp::Reverse;
use std::time::Duration;

use rask_comm::message::{FromWorker, GroupMember, Run, RunFailure, RunGroup, RunInput, ToWorker, part_nbytes};
use rask_comm::time::Time;
use rask_graphs::{Attempt, BodyId, Epoch, GraphId, TaskId, WorkerId};
use rustc_hash::FxHashMap;

use executing::Executing;
use fetching::{Fetching, Waiters, Want};
use ledger::Ledger;
use runs::{Needs, Rank, RunEntry, Runs};
use slab::Key;
use spilling::Pressure;
use spreading::Spreading;
use story::Story;
use uploads::Uploads;
use watchers::Watchers;

pub use event::{Action, Event, FetchFailure, FetchId, FetchItem, OfferId, SpillFailure};
pub use fault::Fault;
pub use fetching::FetchLimits;
pub use ledger::{MemoryConfig, PAUSE, SPILL, TARGET, TERMINATE, Threshold};
pub use story::{Stage, Transition};

/// What a machine is given for life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Runs it executes at once; at least 1.
    pub n_slots: u32,
    /// How much it may have in the air.
    pub limits: FetchLimits,
    /// What it may do with memory.
    pub memory: MemoryConfig,
    /// How long a run is on its slot before the scheduler is told; see the module's documentation.
    pub blame_after: Duration,
    /// Transitions kept for [`Machine::story`].
    pub story_len: usize,
    /// A deliberate fault; does nothing unless compiled with `deliberate-faults`.
    pub fault: Option<Fault>,
}

impl MachineConfig {
    /// `n_slots` slots, and limits that fit a memory limit of `memory_limit` bytes (0 for none): an eighth of it in the air.
    #[must_use]
    pub fn new(n_slots: u32, memory_limit: u64) -> Self {
        let mut limits = FetchLimits::default();
        if memory_limit > 0 {
            limits.max_nbytes_in_flight = limits.max_nbytes_in_flight.min(memory_limit / 8);
            limits.max_request_nbytes = limits.max_request_nbytes.min(memory_limit / 16);
        }
        let memory = MemoryConfig::new(memory_limit);
        Self { n_slots: n_slots.max(1), limits, memory, blame_after: Duration::from_millis(20), story_len: 4_096, fault: None }
    }
}

/// Why [`Machine::handle_timeout`] wants to be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A run has been executing long enough for the scheduler to be told.
    Blame,
}

/// The machine; see the module's documentation.
pub struct Machine {
    config: MachineConfig,
    me: Option<WorkerId>,
    epoch: Epoch,
    runs: Runs,
    executing: Executing,
    fetching: Fetching,
    /// Whole results held here, made or fetched, and what memory they and everything else take.
    ledger: Ledger,
    pressure: Pressure,
    watchers: Watchers,
    uploads: Uploads,
    spreading: Spreading,
    /// Bytes of parts fetched since a run last ended, by graph.
    parts_fetched: Vec<(GraphId, u64)>,
    /// Where the members of gather groups are.
    groups: FxHashMap<(GraphId, u32), Vec<GroupMember>>,
    is_retiring: bool,
    n_stale: u64,
    story: Story,
}

/// Tables this small are checked after every event in debug builds; bigger ones by whoever drives the machine.
const MAX_CHECKED: usize = 64;

impl Machine {
    /// A machine that waits for its [`ToWorker::Welcome`].
    #[must_use]
    pub fn new(config: MachineConfig) -> Self {
        Self {
            config,
            me: None,
            epoch: Epoch(0),
            runs: Runs::new(),
            executing: Executing::new(config.n_slots.max(1) as usize),
            fetching: Fetching::new(config.limits),
            ledger: Ledger::new(config.memory),
            pressure: Pressure::new(config.memory),
            watchers: Watchers::default(),
            uploads: Uploads::default(),
            spreading: Spreading::new(config.memory.limit),
            parts_fetched: Vec::new(),
            groups: FxHashMap::default(),
            is_retiring: false,
            n_stale: 0,
            story: Story::new(config.story_len),
        }
    }

    /// One turn: take in what happened and append to `out` what is to be done, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::SchedulerSaid(message) => self.hear(now, message, out),
            Event::ExecutionFinished { task, attempt, nbytes, n_parts, duration_us, nbytes_peak } => {
                self.learn(task, attempt, nbytes.max(nbytes_peak));
                self.finish(now, FromWorker::Finished { task, attempt, nbytes, n_parts, duration_us }, task, attempt, out);
            }
            Event::ExecutionFailed { task, attempt, failure } => self.fail(now, task, attempt, failure, out),
            Event::InputGone { task, attempt, input } => self.miss_input(now, task, attempt, input, out),
            Event::FetchArrived { fetch, item, nbytes, duration_us } => self.arrive(now, fetch, item, nbytes, duration_us, out),
            Event::FetchFailed { fetch, item, reason } => {
                let failure = self.fetching.failed(fetch, item);
                self.fetch_failed(now, item, failure, &reason, out);
            }
            Event::Pushed { from, item, nbytes } => self.take_pushed(now, from, item, nbytes, out),
            Event::Made { from, item, nbytes } => self.fetching.made(from, item, nbytes),
            Event::WatchLost { from } => {
                for (item, failure) in self.fetching.watch_lost(from) {
                    self.fetch_failed(now, item, failure, &FetchFailure::NotThere, out);
                }
            }
            Event::PeerWatches { peer, items } => self.begin_watches(peer, &items, out),
            Event::PeerUnwatches { peer, items } => items.iter().for_each(|item| self.watchers.remove(peer, *item)),
            Event::PeerGone { peer } => self.watchers.remove_peer(peer),
            Event::UploadsOffered { id, offer } => self.take_offer(id, offer, out),
            Event::OfferOverdue { id } => self.offer_overdue(id),
            Event::OfferWithdrawn { id } => self.offer_withdrawn(id),
            Event::UploadArrived { task, attempt, nbytes, n_parts, duration_us } => {
                self.upload_arrived(now, (task, attempt), nbytes, n_parts, duration_us, out);
            }
            Event::UploadFailed { task, attempt } => self.upload_failed(task, attempt),
            Event::ResultLost { task, attempt } => self.lose_result(now, task, attempt, out),
            Event::ReadForOthers { nbytes } => self.ledger.lend(nbytes),
            Event::SentOff { nbytes } => self.ledger.sent_off(nbytes),
            Event::Spilled { task, attempt } => self.spilled(task, attempt, out),
            Event::NotSpilled { task, attempt, reason } => self.not_spilled(task, attempt, reason),
            Event::Measured(status) => self.measured(now, &status, out),
            Event::MemoryMeasured { rss_nbytes } => self.memory_measured(now, rss_nbytes, out),
            Event::RetireRequested => {
                if !self.is_retiring {
                    self.is_retiring = true;
                    out.push(Action::Tell(FromWorker::Retiring));
                }
            }
        }
        self.settle(now, out);
        self.tell_of_pause(out);
        if cfg!(debug_assertions) && self.runs.len() + self.fetching.n_items() <= MAX_CHECKED {
            self.validate();
        }
    }

    /// The time of [`Machine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Action>) {
        for run in self.executing.take_due(now, self.config.blame_after) {
            out.push(Action::Tell(FromWorker::Executing { task: run.task, attempt: run.attempt }));
        }
    }

    /// When [`Machine::handle_timeout`] wants to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Time, Timer)> {
        self.executing.due(self.config.blame_after).map(|time| (time, Timer::Blame))
    }

    fn hear(&mut self, now: Time, message: ToWorker, out: &mut Vec<Action>) {
        let is_welcome = matches!(message, ToWorker::Welcome { .. });
        let is_farewell = matches!(message, ToWorker::Close { .. });
        if is_welcome == self.me.is_some() && !is_farewell {
            let reason =
                if is_welcome { "the scheduler welcomed this worker twice" } else { "the scheduler spoke before its welcome" };
            out.push(Action::Close { reason: reason.to_owned() });
            return;
        }
        match message {
            ToWorker::Welcome { worker, epoch, keys: _ } => {
                self.me = Some(worker);
                self.epoch = epoch;
                self.fetching.set_me(worker);
            }
            ToWorker::Body { id, body, label, is_of_user } => {
                self.ledger.add_body(id, body.name());
                out.push(Action::AddBody { id, body, label, is_of_user });
            }
            ToWorker::Group { graph, group, members } => {
                self.groups.insert((graph, group), members);
            }
            ToWorker::Peer { worker, address, name, pass } => self.fetching.add_peer(worker, address, name, pass),
            ToWorker::Run(run) => self.take_run(now, run, out),
            ToWorker::Expect { task, attempt, nbytes, ticket } => self.expect(now, (task, attempt), nbytes, ticket, out),
            ToWorker::Cancel { task, attempt } => self.cancel(now, task, attempt, out),
            ToWorker::Revoke { task, attempt } => self.revoke(now, task, attempt, out),
            ToWorker::Free { tasks } => {
                for task in tasks {
                    self.free(now, task, out);
                }
            }
            ToWorker::ForgetGraph { graph } => {
                self.watchers.remove_graph(graph);
                self.groups.retain(|(of, _), _| *of != graph);
                self.ledger.forget_graph(graph);
                out.push(Action::ForgetBodies { graph });
            }
            ToWorker::Keep { task, attempt } => self.ledger.keep_offered(task, attempt),
            ToWorker::Replicate { input } => self.replicate(&input, out),
            ToWorker::Leave { lost } => out.push(Action::Exit { lost }),
            ToWorker::Close { reason } => out.push(Action::Close { reason }),
        }
    }

    fn take_run(&mut self, now: Time, run: Run, out: &mut Vec<Action>) {
        if !self.make_way(now, run.task, run.attempt, out) {
            self.n_stale += 1;
        } else if let Some(run) = self.wait_to_spread(run) {
            self.enter_run(now, run, out);
        }
    }

    fn enter_run(&mut self, now: Time, run: Run, out: &mut Vec<Action>) {
        let Run { task, attempt, body, round, priority, inputs: sources, groups } = run;
        // Until its inputs have been looked at it counts as missing them all, so that it cannot become ready half-way.
        let n_missing = u32::MAX;
        let body = BodyId { graph: task.graph, idx: body };
        let (sources, spread) = self.spread_out(task.graph, sources, &groups);
        if let Some(failure) = self.refuse(&sources) {
            self.story.push(now, task, attempt, Stage::Failed);
            out.push(Action::Tell(FromWorker::Failed { task, attempt, failure }));
            return;
        }
        let key = self.runs.insert(RunEntry {
            task,
            attempt,
            round,
            priority,
            body,
            n_missing,
            needs: Needs::new(),
            inputs: Vec::new(),
            spread,
        });
        let rank = Rank { round: Reverse(round), priority, task: Reverse(task) };
        let mut inputs = Vec::with_capacity(sources.len());
        let mut needs = Needs::new();
        let mut n_missing = 0;
        let mut lost = None;
        for source in &sources {
            inputs.push(FetchItem { task: source.task, attempt: source.attempt, part: source.part });
            if self.ledger.touch(source.task, source.attempt) {
                continue;
            }
            match self.fetching.want(source, rank, Some(key)) {
                Want::Here(item) => needs.push(item),
                Want::Awaited(item) => {
                    needs.push(item);
                    n_missing += 1;
                }
                Want::Nowhere(holders) => {
                    lost = Some((source.task, holders));
                    break;
                }
            }
        }
        self.runs.fill(key, inputs, needs, lost.is_none().then_some(n_missing));
        if let Some((input, holders)) = lost {
            self.give_back(now, key, input, &holders, out);
        } else if n_missing == 0 {
            self.story.push(now, task, attempt, Stage::Ready);
            self.runs.enqueue(key);
        } else {
            self.story.push(now, task, attempt, Stage::Waiting);
        }
    }

    /// All inputs of a run in kernel order, groups spread out, and for each declared input how many it spreads out to; the
    /// latter empty when each is one.
    fn spread_out(&self, graph: GraphId, results: Vec<RunInput>, groups: &[RunGroup]) -> (Vec<RunInput>, Vec<u32>) {
        if groups.is_empty() {
            return (results, Vec::new());
        }
        let n_declared = results.len() + groups.len();
        let (mut results, mut groups) = (results.into_iter(), groups.iter().peekable());
        let (mut inputs, mut spread) = (Vec::new(), Vec::with_capacity(n_declared));
        for at in 0..n_declared {
            let before = inputs.len();
            if let Some(group) = groups.next_if(|group| group.at as usize == at) {
                let members = self.groups.get(&(graph, group.group)).map(Vec::as_slice).unwrap_or_default();
                inputs.extend(members.iter().map(|member| RunInput {
                    task: member.task,
                    attempt: member.attempt,
                    part: group.part,
                    nbytes: part_nbytes(member.nbytes, member.n_parts, group.part),
                    holders: member.holders.clone(),
                    is_made: true,
                }));
            } else {
                inputs.extend(results.next());
            }
            spread.push(u32::try_from(inputs.len() - before).unwrap_or(u32::MAX));
        }
        (inputs, spread)
    }

    /// Drop or interrupt older runs of `task`. False when `attempt` itself is old news.
    fn make_way(&mut self, now: Time, task: TaskId, attempt: Attempt, out: &mut Vec<Action>) -> bool {
        if self.held(task).is_some_and(|held| held >= attempt) || self.executing.of(task).any(|run| run.attempt >= attempt) {
            return false;
        }
        if let Some((key, waiting)) = self.runs.find(task) {
            if waiting.attempt >= attempt {
                return false;
            }
            self.abandon(now, key, Stage::Cancelled, out);
        }
        for run in self.executing.of(task).filter(|run| !run.is_interrupted) {
            run.is_interrupted = true;
            out.push(Action::Interrupt { task, attempt: run.attempt });
        }
        true
    }

    fn finish(&mut self, now: Time, news: FromWorker, task: TaskId, attempt: Attempt, out: &mut Vec<Action>) {
        for (graph, nbytes) in self.parts_fetched.drain(..) {
            out.push(Action::Tell(FromWorker::FetchedParts { graph, nbytes }));
        }
        let whole = FetchItem::whole(task, attempt);
        let Some(run) = self.executing.finish(task, attempt) else {
            self.n_stale += 1;
            self.drop_unless_needed(whole, out);
            return;
        };
        self.ledger.end(run.reserved);
        self.let_go(&run.needs, None, out);
        if run.is_interrupted || self.held(task).is_some_and(|held| held > attempt) {
            self.drop_unless_needed(whole, out);
            return;
        }
        if let FromWorker::Finished { nbytes, n_parts, .. } = &news {
            self.ledger.insert(task, attempt, *nbytes, *n_parts);
        }
        self.made(now, whole, news, out);
    }

    /// A whole result has come to be here, other than from a peer: tell the scheduler, and whoever waits for it.
    fn made(&mut self, now: Time, whole: FetchItem, news: FromWorker, out: &mut Vec<Action>) {
        let FetchItem { task, attempt, .. } = whole;
        self.story.push(now, task, attempt, Stage::InMemory);
        out.push(Action::Tell(news));
        if self.fetching.n_items() > 0 && !self.config.has_fault(Fault::ForgetLocalWaiters) {
            let waiters = self.fetching.satisfy(whole);
            self.inputs_came(now, waiters);
        }
        if !self.config.has_fault(Fault::ForgetWatchers) {
            let watches = self.watchers.take(task, attempt);
            out.extend(watches.into_iter().map(|(to, item)| Action::Push { to, item }));
        }
    }

    /// Run `attempt` of `task` needed so much memory beside its inputs.
    fn learn(&mut self, task: TaskId, attempt: Attempt, nbytes: u64) {
        if let Some(body) = self.executing.of(task).find(|run| run.attempt == attempt).map(|run| run.body) {
            self.ledger.learn(body, nbytes);
        }
    }

    fn fail(&mut self, now: Time, task: TaskId, attempt: Attempt, failure: RunFailure, out: &mut Vec<Action>) {
        let Some(run) = self.executing.finish(task, attempt) else {
            self.n_stale += 1;
            return;
        };
        self.ledger.end(run.reserved);
        self.let_go(&run.needs, None, out);
        if !run.is_interrupted {
            self.story.push(now, task, attempt, Stage::Failed);
            out.push(Action::Tell(FromWorker::Failed { task, attempt, failure }));
        }
    }

    fn miss_input(&mut self, now: Time, task: TaskId, attempt: Attempt, input: FetchItem, out: &mut Vec<Action>) {
        let Some(run) = self.executing.finish(task, attempt) else {
            self.n_stale += 1;
            return;
        };
        self.ledger.end(run.reserved);
        self.let_go(&run.needs, None, out);
        self.lose_result(now, input.task, input.attempt, out);
        if !run.is_interrupted {
            self.story.push(now, task, attempt, Stage::InputLost);
            let holders = self.me.into_iter().collect();
            out.push(Action::Tell(FromWorker::InputLost { task, attempt, input: input.task, holders }));
        }
    }

    fn inputs_came(&mut self, now: Time, waiters: Waiters) {
        for key in waiters {
            let Some(run) = self.runs.get_mut(key) else { continue };
            run.n_missing -= 1;
            if run.n_missing == 0 {
                self.story.push(now, run.task, run.attempt, Stage::Ready);
                self.runs.enqueue(key);
            }
        }
    }

    /// An input can be had from nobody: give back every run that waits for it.
    fn lose_input(&mut self, now: Time, input: TaskId, waiters: Waiters, holders: &[WorkerId], out: &mut Vec<Action>) {
        for key in waiters {
            self.give_back(now, key, input, holders, out);
        }
    }

    fn give_back(&mut self, now: Time, key: Key, input: TaskId, holders: &[WorkerId], out: &mut Vec<Action>) {
        // A run that names the input twice waits for it twice; it is given back once.
        if let Some((task, attempt)) = self.abandon(now, key, Stage::InputLost, out) {
            out.push(Action::Tell(FromWorker::InputLost { task, attempt, input, holders: holders.to_vec() }));
        }
    }

    fn cancel(&mut self, now: Time, task: TaskId, attempt: Attempt, out: &mut Vec<Action>) {
        if let Some((key, run)) = self.runs.find(task)
            && (run.attempt == attempt || self.config.has_fault(Fault::SkipAttemptCheckOnCancel))
        {
            self.abandon(now, key, Stage::Cancelled, out);
            return;
        }
        if self.cancel_upload(now, task, attempt) {
            return;
        }
        if let Some(run) = self.executing.of(task).find(|run| run.attempt == attempt) {
            if !run.is_interrupted {
                run.is_interrupted = true;
                self.story.push(now, task, attempt, Stage::Cancelled);
                out.push(Action::Interrupt { task, attempt });
            }
            return;
        }
        // It has finished, and the news has crossed the cancellation: what it produced is stale.
        self.n_stale += 1;
        if self.held(task) == Some(attempt) {
            self.ledger.remove(task);
            self.story.push(now, task, attempt, Stage::Freed);
            out.push(Action::Drop(FetchItem::whole(task, attempt)));
            self.give_back_users(now, task, attempt, out);
        }
    }

    fn revoke(&mut self, now: Time, task: TaskId, attempt: Attempt, out: &mut Vec<Action>) {
        let waiting = self.runs.find(task).filter(|(_, run)| run.attempt == attempt).map(|(key, _)| key);
        let given_up = waiting.is_some();
        if let Some(key) = waiting.filter(|_| !self.config.has_fault(Fault::RunRevoked)) {
            self.abandon(now, key, Stage::Revoked, out);
        }
        out.push(Action::Tell(FromWorker::Revoked { task, attempt, given_up }));
    }

    /// Remove a run that has not started, and let go of what it counted on.
    fn abandon(&mut self, now: Time, key: Key, stage: Stage, out: &mut Vec<Action>) -> Option<(TaskId, Attempt)> {
        let run = self.runs.remove(key)?;
        self.let_go(&run.needs, Some(key), out);
        self.story.push(now, run.task, run.attempt, stage);
        Some((run.task, run.attempt))
    }

    fn let_go(&mut self, needs: &Needs, run: Option<Key>, out: &mut Vec<Action>) {
        let drops = needs.iter().filter_map(|&item| self.fetching.let_go(item, run)).map(Action::Drop);
        if self.config.has_fault(Fault::KeepPushed) {
            drops.for_each(drop);
        } else {
            out.extend(drops);
        }
    }
}
