//! When memory is short: what may begin, what is spilled, and what the scheduler is told of it.
//!
//! **No circular wait.** What the ledger does not allow waits until something ends: a run, a fetch, a write. When nothing of
//! that kind is in motion ([`Machine::is_still`]) and nothing can be spilled, one thing is allowed whatever it takes, the most
//! urgent run first. So memory is exceeded by one thing at most, and every graph gets on.
//!
//! **A full disk.** Nothing is lost: what could not be written stays in memory. Once results fill memory up to where nothing
//! new may begin, one thing begins at a time, and only what leaves some memory free; a result that would stay counts twice, so
//! that what only reads goes on when nothing else can. While nothing may begin the worker says that it is paused. After each
//! report to the scheduler one result is tried again.
//!
//! **Replicas** that were fetched for runs are worth nothing that a peer could not give again, and the scheduler knows whether a
//! peer still can and whether a run that was given to this worker counts on them. So it is asked first, and nothing is written.

use std::time::Duration;

use rask_comm::message::{FailureKind, FromWorker, RunFailure, RunInput, WorkerStatus};
use rask_comm::time::Time;
use rask_comm::words::size_text;
use rask_graphs::{Attempt, TaskId};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::fetching::Room;
use super::ledger::{EXCEEDED, MemoryConfig, PAUSE, Place, SPILL, TARGET, TERMINATE, Threshold};
use super::{Action, Fault, Machine, SpillFailure, Stage};

/// How short memory is.
pub(super) struct Pressure {
    config: MemoryConfig,
    /// By the ledger, above the target.
    is_over_target: bool,
    /// By what the process takes, too much to begin anything.
    is_process_full: bool,
    /// By what results take that can go nowhere, too much to begin anything.
    is_ledger_full: bool,
    /// What the process takes beside what the ledger knows of, without what is only about to be returned.
    nbytes_beside: u64,
    /// Bytes that the process should take less than when it was measured last.
    nbytes_to_release: u64,
    /// Measurements in a row in which memory was as good as used up, and when that began.
    n_exhausted: u32,
    exhausted_since: Time,
    is_told_exhausted: bool,
    is_disk_full: bool,
    /// Whether a full disk may be tried again.
    may_retry: bool,
    is_told_paused: bool,
    last_status: WorkerStatus,
}

/// One such measurement may be of memory that is being given back, and so may be many in a short time, unless it grows.
const MANY_EXHAUSTED: u32 = 2;
/// What the process takes besides grows in the books by this share of it a measurement.
const SLOWNESS: u64 = 16;
const LONG_EXHAUSTED: Duration = Duration::from_secs(1);

impl Pressure {
    pub(super) fn new(config: MemoryConfig) -> Self {
        Self {
            config,
            is_over_target: false,
            is_process_full: false,
            is_ledger_full: false,
            nbytes_beside: 0,
            nbytes_to_release: 0,
            n_exhausted: 0,
            exhausted_since: Time::default(),
            is_told_exhausted: false,
            is_disk_full: false,
            may_retry: false,
            is_told_paused: false,
            last_status: WorkerStatus::default(),
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_process_full || self.is_ledger_full
    }

    pub(super) fn can_write(&self) -> bool {
        self.config.can_spill && !self.is_disk_full
    }

    /// Whether to have `more` in memory beside the `taken` bytes might be the end: no result can leave it. What would not fit into an empty memory
    /// either is no reason to wait.
    fn is_dire(&self, taken: u64, more: u64) -> bool {
        let more = if self.is_beyond(TERMINATE, true, more) { 0 } else { more };
        !self.can_write() && self.is_beyond(TERMINATE, true, taken.saturating_add(more))
    }

    fn is_beyond(&self, threshold: Threshold, was_beyond: bool, nbytes: u64) -> bool {
        let percent = if was_beyond { threshold.ends } else { threshold.begins };
        self.config.limit > 0 && nbytes >= self.config.share(percent)
    }

    /// The process takes `rss_nbytes` when the ledger says `used`.
    fn measure(&mut self, now: Time, rss_nbytes: u64, used: u64) {
        let beside = rss_nbytes.saturating_sub(used);
        // Less is believed at once: more may be memory that was freed just now.
        self.nbytes_beside = beside.min(self.nbytes_beside.saturating_add(beside / SLOWNESS));
        self.last_status.rss_nbytes = rss_nbytes;
        self.is_process_full = self.is_beyond(PAUSE, self.is_process_full, rss_nbytes);
        if self.is_beyond(SPILL, false, rss_nbytes) {
            self.nbytes_to_release = rss_nbytes - self.config.share(SPILL.ends);
        } else if !self.is_beyond(SPILL, true, rss_nbytes) {
            self.nbytes_to_release = 0;
        }
        if self.is_beyond(TERMINATE, false, rss_nbytes) {
            if self.n_exhausted == 0 {
                self.exhausted_since = now;
            }
            self.n_exhausted = self.n_exhausted.saturating_add(1);
        } else if !self.is_beyond(TERMINATE, true, rss_nbytes) {
            self.n_exhausted = 0;
            self.is_told_exhausted = false;
        }
    }

    /// Whether memory has been as good as used up for long while something may still take more of it, or is used up.
    fn is_exhausted(&self, now: Time, rss_nbytes: u64, is_still: bool) -> bool {
        let is_long = self.is_beyond(TERMINATE, false, rss_nbytes) && now.since(self.exhausted_since) >= LONG_EXHAUSTED;
        let is_over = (is_long && !is_still) || self.is_beyond(EXCEEDED, false, rss_nbytes);
        self.n_exhausted >= MANY_EXHAUSTED && is_over
    }
}

impl Machine {
    /// Bytes of memory that the process takes, or will when what was begun is done: as measured, and as the ledger has it, which
    /// knows sooner.
    fn nbytes_taken(&self) -> u64 {
        let by_ledger = self.nbytes_used().saturating_add(self.pressure.nbytes_beside);
        self.pressure.last_status.rss_nbytes.max(by_ledger)
    }

    /// Bytes of memory that everything takes or is expected to take.
    pub(super) fn nbytes_used(&self) -> u64 {
        let runs = self.ledger.nbytes_in_memory().saturating_add(self.ledger.nbytes_reserved());
        runs.saturating_add(self.ledger.nbytes_lent())
            .saturating_add(self.fetching.nbytes_here())
            .saturating_add(self.nbytes_in_flight())
            .saturating_add(self.nbytes_spread())
    }

    /// Bytes that are on their way here, from peers and from clients.
    fn nbytes_in_flight(&self) -> u64 {
        self.fetching.nbytes_in_flight().saturating_add(self.uploads.nbytes_arriving())
    }

    /// Whether nothing is under way that could free memory.
    pub(super) fn is_still(&self) -> bool {
        let is_leaving = self.ledger.n_writes() + self.ledger.n_offered() > 0;
        self.executing.is_empty() && self.fetching.is_idle() && self.uploads.is_idle() && !is_leaving
    }

    /// Whether the next run may start although there is no room for it, as the last resort.
    pub(super) fn may_start_anyway(&mut self) -> bool {
        let Some(next) = self.runs.peek_ready() else { return true };
        let (result, needed) = (self.ledger.estimate_result(next.body), self.ledger.estimate(next.body, &next.inputs));
        !self.pressure.is_dire(self.nbytes_taken(), needed.saturating_add(result))
    }

    /// What one fetch may take as the last resort.
    pub(super) fn room_as_last_resort(&self) -> Room {
        let left = self.config.memory.share(TERMINATE.ends).saturating_sub(self.nbytes_taken());
        let can_write = self.pressure.can_write();
        Room { nbytes_in_flight: if can_write { u64::MAX } else { left }, is_last_resort: can_write }
    }

    /// Whether a run that is expected to take so much more may start.
    pub(super) fn may_start(&self, estimate: u64) -> bool {
        let config = &self.config.memory;
        let used = || self.nbytes_used().saturating_add(self.pressure.nbytes_beside);
        let fits = || used().saturating_add(estimate) <= config.share(PAUSE.begins);
        let is_unlimited = config.limit == 0 || self.config.has_fault(Fault::IgnoreMemory);
        is_unlimited || (!self.pressure.is_paused() && fits())
    }

    /// Bytes that may be in the air in all.
    pub(super) fn room_in_flight(&self) -> u64 {
        if self.config.memory.limit == 0 {
            return u64::MAX;
        }
        let others = self.nbytes_used() - self.fetching.nbytes_in_flight() + self.pressure.nbytes_beside;
        self.config.memory.share(PAUSE.begins).saturating_sub(others)
    }

    /// Have results leave memory until enough of it is free, with `wanted` bytes for what waits for memory. Tells whether some
    /// of it is free at once.
    pub(super) fn relieve(&mut self, wanted: u64, out: &mut Vec<Action>) -> bool {
        // What the next run needs would only have to be read back. A full disk is tried with that too: perhaps there is nothing else,
        // and the run waits for space.
        let can_write = self.pressure.can_write();
        let next: SmallVec<[TaskId; 4]> = match self.runs.peek_ready() {
            Some(run) if wanted > 0 && can_write => run.inputs.iter().map(|input| input.task).collect(),
            Some(_) | None => SmallVec::new(),
        };
        let mut is_freed = false;
        while self.excess(wanted) > 0 {
            let may_write = self.pressure.can_write() || (self.config.memory.can_spill && self.pressure.may_retry);
            let executing = &self.executing;
            let victim = self.ledger.next_victim(may_write, |task| executing.uses(task) || next.contains(&task));
            let Some((task, held)) = victim else {
                // Nothing is left that could be written: whether there is space for it does not matter.
                if may_write && self.is_still() {
                    self.pressure.is_disk_full = false;
                }
                break;
            };
            let attempt = held.attempt;
            if held.place == Place::Both {
                self.evict(task, attempt, held.nbytes, out);
                is_freed = true;
                continue;
            }
            if held.is_replica && !self.config.has_fault(Fault::EvictUnwritten) {
                self.ledger.offer(task);
                out.push(Action::Tell(FromWorker::Burdened { task, attempt }));
                continue;
            }
            if self.ledger.n_writes() >= self.config.memory.max_writes {
                self.ledger.keep_victim(task, &held);
                break;
            }
            self.pressure.may_retry = false;
            self.ledger.begin_write(task);
            out.push(Action::Spill { task, attempt });
            if self.config.has_fault(Fault::EvictUnwritten) {
                out.push(Action::Evict { task, attempt });
            }
        }
        let stays = if self.pressure.can_write() { 0 } else { self.ledger.nbytes_in_memory() };
        self.pressure.is_ledger_full = self.pressure.is_beyond(PAUSE, self.pressure.is_ledger_full, stays);
        is_freed
    }

    /// Bytes that should leave memory beyond those that are on their way out.
    fn excess(&mut self, wanted: u64) -> u64 {
        let config = self.config.memory;
        let leaving = self.ledger.nbytes_leaving();
        let staying = self.nbytes_used().saturating_sub(leaving);
        self.pressure.is_over_target = self.pressure.is_beyond(TARGET, self.pressure.is_over_target, staying);
        let by_target = if self.pressure.is_over_target { staying.saturating_sub(config.share(TARGET.ends)).max(1) } else { 0 };
        let beside = self.pressure.nbytes_beside;
        let by_wish = if wanted > 0 {
            staying.saturating_add(wanted).saturating_add(beside).saturating_sub(config.share(PAUSE.begins))
        } else {
            0
        };
        let by_process = self.pressure.nbytes_to_release.saturating_sub(leaving);
        by_target.max(by_wish).max(by_process)
    }

    fn evict(&mut self, task: TaskId, attempt: Attempt, nbytes: u64, out: &mut Vec<Action>) {
        self.ledger.evict(task);
        self.pressure.nbytes_to_release = self.pressure.nbytes_to_release.saturating_sub(nbytes);
        out.push(Action::Evict { task, attempt });
    }

    /// A result is in a file. Unless a run is using it, its memory is what it was written for.
    pub(super) fn spilled(&mut self, task: TaskId, attempt: Attempt, out: &mut Vec<Action>) {
        self.pressure.is_disk_full = false;
        let is_held = self.ledger.end_write(task, attempt, Place::Both);
        if let Some(nbytes) = self.ledger.get(task).map(|held| held.nbytes).filter(|_| is_held) {
            out.push(Action::Tell(FromWorker::Spilled { graph: task.graph, nbytes }));
        }
        if is_held
            && !self.executing.uses(task)
            && let Some(nbytes) = self.ledger.get(task).map(|held| held.nbytes)
        {
            self.evict(task, attempt, nbytes, out);
        }
    }

    pub(super) fn not_spilled(&mut self, task: TaskId, attempt: Attempt, reason: SpillFailure) {
        let place = match reason {
            SpillFailure::CannotEncode => Place::Stuck,
            SpillFailure::NoSpace => {
                self.pressure.is_disk_full = true;
                Place::Memory
            }
        };
        if self.config.has_fault(Fault::ForgetFailedWrite) {
            return;
        }
        if self.ledger.end_write(task, attempt, place)
            && let (Place::Memory, Some(held)) = (place, self.ledger.get(task).copied())
        {
            self.ledger.postpone_victim(task, &held);
        }
    }

    /// The shell has measured, and wants the scheduler to know.
    pub(super) fn measured(&mut self, now: Time, status: &WorkerStatus, out: &mut Vec<Action>) {
        self.pressure.last_status = *status;
        self.pressure.may_retry = true;
        self.memory_measured(now, status.rss_nbytes, out);
        self.tell_status(out);
    }

    pub(super) fn memory_measured(&mut self, now: Time, rss_nbytes: u64, out: &mut Vec<Action>) {
        self.pressure.measure(now, rss_nbytes, self.nbytes_used());
        if !self.pressure.is_exhausted(now, rss_nbytes, self.is_still())
            || std::mem::replace(&mut self.pressure.is_told_exhausted, true)
        {
            return;
        }
        let limit = self.config.memory.limit;
        let (results, lent) = (self.ledger.nbytes_in_memory() + self.fetching.nbytes_here(), self.ledger.nbytes_lent());
        let (reserved, in_flight) = (self.ledger.nbytes_reserved(), self.fetching.nbytes_in_flight());
        let reason = format!(
            "the process takes {} of memory, and its limit is {}; results take {}, fetches {}, what is sent {}, {} are set aside for \
             tasks, and all else (kernels, connections to peers, the program) takes the rest",
            size_text(rss_nbytes),
            size_text(limit),
            size_text(results),
            size_text(in_flight),
            size_text(lent),
            size_text(reserved),
        );
        if !self.config.memory.fails_tasks {
            out.push(Action::Abort { reason });
            return;
        }
        for run in self.executing.wanted() {
            run.is_interrupted = true;
            let (task, attempt) = (run.task, run.attempt);
            self.story.push(now, task, attempt, Stage::Failed);
            out.push(Action::Interrupt { task, attempt });
            let failure = RunFailure { kind: FailureKind::TooLarge, operator: String::new(), message: reason.clone() };
            out.push(Action::Tell(FromWorker::Failed { task, attempt, failure }));
        }
    }

    /// Whether the scheduler should give this worker nothing. What the process takes may never become less by itself, so a worker
    /// that has nothing to do, and can have more in memory, is given something all the same: it does one thing at a time.
    fn shows_pause(&self) -> bool {
        let is_idle = self.runs.len() == 0 && self.executing.is_empty() && self.fetching.is_idle();
        let has_room = !self.pressure.is_dire(self.nbytes_taken(), 0);
        // What it does not dare to begin may be begun elsewhere.
        let is_stuck = self.config.memory.limit > 0 && self.is_still() && self.runs.n_ready() > 0;
        is_stuck || self.pressure.is_paused() && !(is_idle && has_room)
    }

    /// Tell the scheduler at once when it should give this worker no more, or may again.
    pub(super) fn tell_of_pause(&mut self, out: &mut Vec<Action>) {
        if self.shows_pause() != self.pressure.is_told_paused && self.me.is_some() {
            self.tell_status(out);
        }
    }

    fn tell_status(&mut self, out: &mut Vec<Action>) {
        self.pressure.is_told_paused = self.shows_pause();
        let mut traffic = self.pressure.last_status.traffic;
        for peer in traffic.busiest.iter_mut().flatten() {
            peer.nbytes_in_flight = self.fetching.nbytes_assigned(peer.from);
        }
        out.push(Action::Tell(FromWorker::Status(Box::new(WorkerStatus {
            nbytes_results: self.ledger.nbytes_in_memory() + self.fetching.nbytes_here(),
            nbytes_in_flight: self.nbytes_in_flight(),
            nbytes_reserved: self.ledger.nbytes_reserved().saturating_add(self.ledger.nbytes_lent()),
            nbytes_spilled: self.ledger.nbytes_in_files(),
            nbytes_written: self.ledger.nbytes_written(),
            rss_nbytes: self.pressure.last_status.rss_nbytes,
            n_executing: u32::try_from(self.executing.len()).unwrap_or(u32::MAX),
            n_waiting: u32::try_from(self.runs.len()).unwrap_or(u32::MAX),
            is_paused: self.pressure.is_told_paused,
            is_spill_full: self.pressure.is_disk_full,
            traffic,
        }))));
    }

    /// Why a run with these inputs cannot be done here at all, if so: they have to be in memory all at once. Sizes of inputs that
    /// are not made yet are guesses, on which nobody is refused.
    pub(super) fn refuse(&self, inputs: &[RunInput]) -> Option<RunFailure> {
        let limit = self.config.memory.limit;
        let sum_of =
            |inputs: &mut dyn Iterator<Item = &RunInput>| inputs.fold(0, |sum: u64, input| sum.saturating_add(input.nbytes));
        let made = || inputs.iter().filter(|input| input.is_made);
        let mut nbytes = sum_of(&mut made());
        if limit > 0 && nbytes > limit {
            // What is named twice is in memory once.
            let mut seen = FxHashSet::default();
            nbytes = sum_of(&mut made().filter(|input| seen.insert((input.task, input.part))));
        }
        let message = format!("its inputs take {} of memory, and the worker has {}", size_text(nbytes), size_text(limit));
        (limit > 0 && nbytes > limit).then(|| RunFailure { kind: FailureKind::TooLarge, operator: String::new(), message })
    }
}
