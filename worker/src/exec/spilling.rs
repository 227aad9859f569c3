//! The spill thread: writes results to files, reads them back for peers, deletes files, and looks at the process's memory.
//!
//! What takes as long as a disk takes happens here, or on a slot that needs a spilled input, and never under the core's lock.
//! Reads go before writes: somebody waits for them. Memory is looked at a few times a second, because it can fill faster than
//! the scheduler is told of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rask_comm::message::{Traffic, WorkerStatus};
use rask_graphs::{Attempt, TaskId, Value};

use super::{CoreConfig, WorkerCore};
use crate::machine::{Event, FetchItem, PAUSE, SPILL, SpillFailure};
use crate::store::memory::{give_back, resident_nbytes};
use crate::store::spill::{SpillArea, SpillError};

/// How often memory is looked at, and how often while there is little of it.
const TICK: Duration = Duration::from_millis(100);
const TENSE_TICK: Duration = Duration::from_millis(20);

/// An idle worker returns what its allocator keeps, after so many ticks, for so many more, when that is more than this share of
/// the limit: others on this machine have better use for it. (What is left after that is not the allocator's.)
const IDLE_TICKS: std::ops::Range<u32> = 5..25;
const IDLE_SHARE: u64 = 16;

/// Whom to give a result, or word that it is not here.
type Then = Box<dyn FnOnce(Option<Value>) + Send>;

/// What the spill thread has to do. Writes are as many as the machine allows at once, reads as many as peers ask for.
#[derive(Default)]
struct Queue {
    writes: VecDeque<(TaskId, Attempt)>,
    reads: VecDeque<(FetchItem, Then)>,
    is_over: bool,
}

/// The spill thread's desk.
pub(super) struct Spilling {
    pub(super) area: Option<Arc<SpillArea>>,
    memory_limit: u64,
    n_in_process: u64,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Whether there is little memory left. An allocator keeps what a thread has freed for that thread, and takes back what others
    /// have freed of it only there: so each thread that makes results has to return what it can by itself.
    is_tense: AtomicBool,
    /// Whether there is so little that threads that are busy should do so too.
    is_short: AtomicBool,
}

enum Errand {
    Read(FetchItem, Then),
    Write(TaskId, Attempt),
    /// Nothing came for a tick.
    Rest,
}

impl Spilling {
    pub(super) fn new(config: &CoreConfig) -> Self {
        Self {
            area: config.spill.clone(),
            memory_limit: config.memory_limit,
            n_in_process: u64::from(config.n_in_process.max(1)),
            queue: Mutex::default(),
            wake: Condvar::new(),
            is_tense: AtomicBool::new(false),
            is_short: AtomicBool::new(false),
        }
    }

    /// Whether threads that have nothing else to do should return memory.
    pub(super) fn is_tense(&self) -> bool {
        self.is_tense.load(Ordering::Relaxed)
    }

    /// Whether threads that have just let go of much should return memory before they go on.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// This worker's share of what the process takes.
    pub(super) fn resident_nbytes(&self) -> Option<u64> {
        Some(resident_nbytes()? / self.n_in_process)
    }

    /// Whether a thread is needed at all.
    pub(super) fn is_needed(&self) -> bool {
        self.area.is_some() || self.memory_limit > 0
    }

    /// Whether any result is in a file.
    pub(super) fn has_files(&self) -> bool {
        self.area.as_ref().is_some_and(|area| area.nbytes() > 0)
    }

    pub(super) fn write(&self, task: TaskId, attempt: Attempt) {
        self.queue.lock().writes.push_back((task, attempt));
        self.wake.notify_one();
    }

    /// Let the thread end; who waits for a read is told that there is nothing.
    pub(super) fn shutdown(&self) {
        let reads = {
            let mut queue = self.queue.lock();
            queue.is_over = true;
            queue.writes.clear();
            std::mem::take(&mut queue.reads)
        };
        self.wake.notify_all();
        reads.into_iter().for_each(|(_, then)| then(None));
    }

    fn next(&self, tick: Duration) -> Option<Errand> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_over {
                return None;
            }
            if let Some((item, then)) = queue.reads.pop_front() {
                return Some(Errand::Read(item, then));
            }
            if let Some((task, attempt)) = queue.writes.pop_front() {
                return Some(Errand::Write(task, attempt));
            }
            if self.wake.wait_for(&mut queue, tick).timed_out() {
                return Some(Errand::Rest);
            }
        }
    }

    /// Whether so much is `percent` of the limit at least.
    fn is_above(&self, percent: u64, rss_nbytes: u64) -> bool {
        self.memory_limit > 0 && rss_nbytes >= self.memory_limit / 100 * percent
    }
}

impl WorkerCore {
    /// Measure memory and tell the scheduler the state of this worker, `traffic` included. To be called on a thread that brings
    /// results here, if there is one: while memory is short it returns what that thread keeps.
    pub fn measure(&self, traffic: Traffic) {
        if self.shared.spilling.is_tense() {
            give_back();
        }
        let rss_nbytes = self.shared.spilling.resident_nbytes().unwrap_or(0);
        self.turn(Event::Measured(Box::new(WorkerStatus { rss_nbytes, traffic, ..WorkerStatus::default() })));
    }

    /// Give `then` the result or part, on this thread when it is in memory or not here at all, otherwise once it has been read
    /// back, on the spill thread. One that turns out to be unreadable is lost, and the scheduler is told.
    pub fn read_later(&self, item: FetchItem, then: impl FnOnce(Option<Value>) + Send + 'static) {
        let store = &self.shared.store;
        let found = store.get(&item);
        if found.is_some() || store.spilled_nbytes(&item).is_none() {
            then(found);
            return;
        }
        let mut queue = self.shared.spilling.queue.lock();
        if queue.is_over {
            drop(queue);
            then(None);
            return;
        }
        queue.reads.push_back((item, Box::new(then)));
        self.shared.spilling.wake.notify_one();
    }

    /// An input of a run, read back if need be and kept in memory then: waits for the disk.
    pub(super) fn read_input(&self, item: &FetchItem) -> Option<Value> {
        self.shared.store.read(item, true).unwrap_or_else(|error| {
            tracing::warn!(task = %item.task, %error, "an input is lost");
            None
        })
    }

    /// The life of the spill thread.
    pub(super) fn tend_files(&self) {
        let spilling = &self.shared.spilling;
        let (mut last_measured, mut is_tense, mut was_near) = (Instant::now(), false, false);
        let mut n_idle_ticks = 0;
        let mut trouble = Trouble::default();
        loop {
            let tick = if was_near { TENSE_TICK } else { TICK };
            match spilling.next(tick) {
                None => return,
                Some(Errand::Read(item, then)) => then(self.read_for_peer(&item)),
                Some(Errand::Write(task, attempt)) => self.write(task, attempt, &mut trouble),
                Some(Errand::Rest) => {}
            }
            if let Some(area) = &spilling.area {
                area.delete_dropped();
            }
            if last_measured.elapsed() >= tick {
                if is_tense {
                    give_back();
                    // Idle slots do the same when they are woken.
                    self.shared.work.notify_all();
                }
                last_measured = Instant::now();
                let Some(rss_nbytes) = spilling.resident_nbytes() else { continue };
                let is_near = spilling.is_above(SPILL.ends, rss_nbytes);
                spilling.is_short.store(spilling.is_above(PAUSE.ends, rss_nbytes), Ordering::Relaxed);
                n_idle_ticks = if self.is_idle() { n_idle_ticks + 1 } else { 0 };
                let unmanaged = rss_nbytes.saturating_sub(self.shared.store.nbytes());
                let keeps_much = spilling.memory_limit > 0 && unmanaged > spilling.memory_limit / IDLE_SHARE;
                is_tense = is_near || (keeps_much && IDLE_TICKS.contains(&n_idle_ticks));
                spilling.is_tense.store(is_tense, Ordering::Relaxed);
                if spilling.memory_limit > 0 {
                    self.turn(Event::MemoryMeasured { rss_nbytes });
                }
                was_near = is_near;
            }
        }
    }

    /// Whether there is nothing to run.
    fn is_idle(&self) -> bool {
        self.inspect(|machine| machine.n_executing() == 0 && machine.n_waiting() == 0)
    }

    fn read_for_peer(&self, item: &FetchItem) -> Option<Value> {
        self.shared.store.read(item, false).unwrap_or_else(|error| {
            tracing::warn!(task = %item.task, %error, "a result is lost");
            self.turn(Event::ResultLost { task: item.task, attempt: item.attempt });
            None
        })
    }

    fn write(&self, task: TaskId, attempt: Attempt, trouble: &mut Trouble) {
        let Some(area) = &self.shared.spilling.area else { return };
        let event = match self.shared.store.spill(area, task, attempt) {
            Ok(_) => {
                trouble.end();
                Event::Spilled { task, attempt }
            }
            Err(SpillError::CannotEncode(reason)) => {
                tracing::debug!(%task, reason, "a result stays in memory");
                Event::NotSpilled { task, attempt, reason: SpillFailure::CannotEncode }
            }
            Err(error @ (SpillError::Full | SpillError::Failed(_))) => {
                trouble.begin(&error, area);
                Event::NotSpilled { task, attempt, reason: SpillFailure::NoSpace }
            }
        };
        self.turn(event);
    }
}

/// Says once that the disk takes no more, and once that it does again.
#[derive(Default)]
struct Trouble {
    is_there: bool,
}

impl Trouble {
    fn begin(&mut self, error: &SpillError, area: &SpillArea) {
        if !std::mem::replace(&mut self.is_there, true) {
            tracing::error!(path = %area.path().display(), %error, "results stay in memory; nothing new begins when it is full");
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_there) {
            tracing::info!("results can be spilled again");
        }
    }
}
