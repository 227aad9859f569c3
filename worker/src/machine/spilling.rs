//! When memory is short: what may begin, what is spilled, and what the scheduler is told of it.
//!
//! **No circular wait.** What the ledger does not allow waits until something ends: a run, a fetch, a write. When nothing of
//! that kind is in motion ([`Machine::is_still`]) and nothing can be spilled, one thing is allowed whatever it takes, the most
//! urgent run first. So memory is exceeded by one thing at most, and every graph gets on.
//!
//! **A full disk.** Nothing is lost: what could not be written stays in memory. Once results fill memory up to where nothing
//! new may begin, the worker says that it is paused. After each report to the scheduler one result is tried again.

use rask_comm::message::{FailureKind, FromWorker, RunFailure, RunInput, WorkerStatus};
use rask_comm::time::Time;
use rask_graphs::{Attempt, TaskId};
use smallvec::SmallVec;

use super::ledger::{MemoryConfig, PAUSE, Place, SPILL, TARGET, TERMINATE, Threshold};
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
    /// Bytes that the process should take less than when it was measured last.
    nbytes_to_release: u64,
    /// Measurements in a row in which memory was as good as used up.
    n_exhausted: u32,
    is_disk_full: bool,
    /// Whether a full disk may be tried again.
    may_retry: bool,
    is_told_paused: bool,
    last_status: WorkerStatus,
}

/// One such measurement may be of memory that is being given back.
const MANY_EXHAUSTED: u32 = 2;

impl Pressure {
    pub(super) fn new(config: MemoryConfig) -> Self {
        Self {
            config,
            is_over_target: false,
            is_process_full: false,
            is_ledger_full: false,
            nbytes_to_release: 0,
            n_exhausted: 0,
            is_disk_full: false,
            may_retry: false,
            is_told_paused: false,
            last_status: WorkerStatus::default(),
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_process_full || self.is_ledger_full
    }

    fn can_write(&self) -> bool {
        self.config.can_spill && !self.is_disk_full
    }

    /// Whether one thing more might be the end: memory is nearly used up, and no result can leave it.
    pub(super) fn is_dire(&self) -> bool {
        self.is_beyond(TERMINATE, true, self.last_status.rss_nbytes) && !self.can_write()
    }

    fn is_beyond(&self, threshold: Threshold, was_beyond: bool, nbytes: u64) -> bool {
        let percent = if was_beyond { threshold.ends } else { threshold.begins };
        self.config.limit > 0 && nbytes >= self.config.share(percent)
    }

    fn measure(&mut self, rss_nbytes: u64) {
        self.last_status.rss_nbytes = rss_nbytes;
        self.is_process_full = self.is_beyond(PAUSE, self.is_process_full, rss_nbytes);
        if self.is_beyond(SPILL, false, rss_nbytes) {
            self.nbytes_to_release = rss_nbytes - self.config.share(SPILL.ends);
        } else if !self.is_beyond(SPILL, true, rss_nbytes) {
            self.nbytes_to_release = 0;
        }
        if self.is_beyond(TERMINATE, false, rss_nbytes) {
            self.n_exhausted = self.n_exhausted.saturating_add(1);
        } else if !self.is_beyond(TERMINATE, true, rss_nbytes) {
            self.n_exhausted = 0;
        }
    }
}

impl Machine {
    /// Bytes of memory that everything takes or is expected to take.
    pub(super) fn nbytes_used(&self) -> u64 {
        let runs = self.ledger.nbytes_in_memory().saturating_add(self.ledger.nbytes_reserved());
        runs.saturating_add(self.fetching.nbytes_here()).saturating_add(self.nbytes_in_flight())
    }

    /// Bytes that are on their way here, from peers and from clients.
    fn nbytes_in_flight(&self) -> u64 {
        self.fetching.nbytes_in_flight().saturating_add(self.uploads.nbytes_arriving())
    }

    /// Whether nothing is under way that could free memory.
    pub(super) fn is_still(&self) -> bool {
        self.executing.is_empty() && self.fetching.is_idle() && self.uploads.is_idle() && self.ledger.n_writes() == 0
    }

    /// Whether a run that is expected to take so much more may start.
    pub(super) fn may_start(&self, estimate: u64) -> bool {
        let config = &self.config.memory;
        let fits = || self.nbytes_used().saturating_add(estimate) <= config.share(PAUSE.begins);
        let is_unlimited = config.limit == 0 || self.config.has_fault(Fault::IgnoreMemory);
        is_unlimited || (!self.pressure.is_paused() && fits())
    }

    /// Bytes that may be in the air in all.
    pub(super) fn room_in_flight(&self) -> u64 {
        if self.config.memory.limit == 0 {
            return u64::MAX;
        }
        let others = self.nbytes_used() - self.fetching.nbytes_in_flight();
        self.config.memory.share(PAUSE.begins).saturating_sub(others)
    }

    /// Have results leave memory until enough of it is free, with `wanted` bytes for what waits for memory. Tells whether some
    /// of it is free at once.
    pub(super) fn relieve(&mut self, wanted: u64, out: &mut Vec<Action>) -> bool {
        // What the next run needs would only have to be read back.
        let next: SmallVec<[TaskId; 4]> = match self.runs.peek_ready() {
            Some(run) if wanted > 0 => run.inputs.iter().map(|input| input.task).collect(),
            Some(_) | None => SmallVec::new(),
        };
        let mut is_freed = false;
        while self.excess(wanted) > 0 {
            let executing = &self.executing;
            let victim = self.ledger.next_victim(|task| executing.uses(task) || next.contains(&task));
            let Some((task, held)) = victim else { break };
            let attempt = held.attempt;
            if held.place == Place::Both {
                self.evict(task, attempt, held.nbytes, out);
                is_freed = true;
                continue;
            }
            let may_write = self.pressure.can_write() || (self.config.memory.can_spill && self.pressure.may_retry);
            if !may_write || self.ledger.n_writes() >= self.config.memory.max_writes {
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
        let leaving = self.ledger.nbytes_being_written();
        let staying = self.nbytes_used().saturating_sub(leaving);
        self.pressure.is_over_target = self.pressure.is_beyond(TARGET, self.pressure.is_over_target, staying);
        let by_target = if self.pressure.is_over_target { staying.saturating_sub(config.share(TARGET.ends)).max(1) } else { 0 };
        let by_wish = if wanted > 0 { staying.saturating_add(wanted).saturating_sub(config.share(PAUSE.begins)) } else { 0 };
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
            self.ledger.keep_victim(task, &held);
        }
    }

    /// The shell has measured, and wants the scheduler to know.
    pub(super) fn measured(&mut self, now: Time, status: WorkerStatus, out: &mut Vec<Action>) {
        self.pressure.last_status = status;
        self.pressure.may_retry = true;
        self.memory_measured(now, status.rss_nbytes, out);
        self.tell_status(out);
    }

    pub(super) fn memory_measured(&mut self, now: Time, rss_nbytes: u64, out: &mut Vec<Action>) {
        let was_exhausted = self.pressure.n_exhausted >= MANY_EXHAUSTED;
        self.pressure.measure(rss_nbytes);
        if self.pressure.n_exhausted < MANY_EXHAUSTED || was_exhausted {
            return;
        }
        let limit = self.config.memory.limit;
        let reason = format!("the process takes {rss_nbytes} bytes of memory, and its limit is {limit}");
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
    /// that has nothing to do, and whose results can leave memory, is given something all the same: it does one thing at a time.
    fn shows_pause(&self) -> bool {
        let is_idle = self.runs.len() == 0 && self.is_still() && self.pressure.can_write();
        self.pressure.is_ledger_full || (self.pressure.is_process_full && !is_idle)
    }

    /// Tell the scheduler at once when it should give this worker no more, or may again.
    pub(super) fn tell_of_pause(&mut self, out: &mut Vec<Action>) {
        if self.shows_pause() != self.pressure.is_told_paused && self.me.is_some() {
            self.tell_status(out);
        }
    }

    fn tell_status(&mut self, out: &mut Vec<Action>) {
        self.pressure.is_told_paused = self.shows_pause();
        out.push(Action::Tell(FromWorker::Status(WorkerStatus {
            nbytes_results: self.ledger.nbytes_in_memory() + self.fetching.nbytes_here(),
            nbytes_in_flight: self.nbytes_in_flight(),
            nbytes_reserved: self.ledger.nbytes_reserved(),
            nbytes_spilled: self.ledger.nbytes_in_files(),
            nbytes_written: self.ledger.nbytes_written(),
            rss_nbytes: self.pressure.last_status.rss_nbytes,
            n_executing: u32::try_from(self.executing.len()).unwrap_or(u32::MAX),
            n_waiting: u32::try_from(self.runs.len()).unwrap_or(u32::MAX),
            is_paused: self.pressure.is_told_paused,
            is_spill_full: self.pressure.is_disk_full,
        })));
    }

    /// Why a run with these inputs cannot be done here at all, if so: they have to be in memory all at once. Sizes of inputs that
    /// are not made yet are guesses, on which nobody is refused.
    pub(super) fn refuse(&self, inputs: &[RunInput]) -> Option<RunFailure> {
        let limit = self.config.memory.limit;
        let made = inputs.iter().filter(|input| input.is_made);
        let nbytes = made.fold(0, |sum: u64, input| sum.saturating_add(input.nbytes));
        let message = format!("its inputs take {nbytes} bytes of memory, and the worker has {limit}");
        (limit > 0 && nbytes > limit).then(|| RunFailure { kind: FailureKind::TooLarge, operator: String::new(), message })
    }
}
