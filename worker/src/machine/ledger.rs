//! The memory ledger: which whole results are held here and where, and how much memory everything takes or will take.
//!
//! Results in memory, bytes in the air, parts kept for runs, and what the runs on slots are expected to need. Against this
//! sum, and against what the process really takes as far as that was measured, the machine starts runs and fetches, and has
//! results spilled. What it takes is compared with shares of the limit that differ for going up and coming down, so that
//! nothing flips with every event.

mod victims;

use rask_graphs::{Attempt, BodyId, GraphId, TaskId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::event::FetchItem;
use victims::{MAX_USES, Victims};

/// A share of the limit, in percent, at which something begins, and the one below which it ends again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// From here up it holds.
    pub begins: u64,
    /// Below this it does not.
    pub ends: u64,
}

/// Results are spilled, by the ledger.
pub const TARGET: Threshold = Threshold { begins: 60, ends: 55 };
/// Results are spilled, by the process's resident memory.
pub const SPILL: Threshold = Threshold { begins: 70, ends: 65 };
/// Nothing new is begun, by either.
pub const PAUSE: Threshold = Threshold { begins: 80, ends: 75 };
/// The process had better end than go on when it stays like this, by its resident memory.
pub const TERMINATE: Threshold = Threshold { begins: 95, ends: 90 };
/// It does not have to stay like this for long.
pub(super) const EXCEEDED: Threshold = Threshold { begins: 120, ends: 120 };

/// What a worker may do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryConfig {
    /// Bytes; 0 for no limit, and then nothing here has any effect.
    pub limit: u64,
    /// Whether results can be written to spill files.
    pub can_spill: bool,
    /// Smaller results stay in memory: a file each would cost more than they take.
    pub min_spill_nbytes: u64,
    /// Results that are being written at once.
    pub max_writes: usize,
    /// What to do when memory is as good as used up: fail what is executing (a part of somebody's process), rather than ask
    /// for the end of the process.
    pub fails_tasks: bool,
}

impl MemoryConfig {
    /// Nothing is spilled; and of small results, nothing would be, so that what is pushed to peers is always in memory.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, can_spill: false, min_spill_nbytes: (64 << 10) + 1, max_writes: 2, fails_tasks: false }
    }

    /// `percent` of the limit.
    #[must_use]
    pub fn share(&self, percent: u64) -> u64 {
        // In two halves, so that nothing overflows: this is asked several times a turn, and 128 bits are slow to divide.
        self.limit / 100 * percent + self.limit % 100 * percent / 100
    }
}

/// Where a whole result is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Memory,
    /// In memory, and it stays there: it cannot be encoded.
    Stuck,
    /// In memory, a replica, and the scheduler has been asked whether it may go.
    Offered,
    /// In memory, and being written to a file.
    Writing,
    /// In memory and in a file.
    Both,
    /// In a file.
    File,
}

impl Place {
    fn is_in_memory(self) -> bool {
        match self {
            Self::Memory | Self::Stuck | Self::Offered | Self::Writing | Self::Both => true,
            Self::File => false,
        }
    }
}

/// A whole result that is held here and may leave memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) attempt: Attempt,
    n_parts: u32,
    pub(super) nbytes: u64,
    /// When it was made, fetched, or last named as an input, in turns of the ledger's clock.
    stamp: u64,
    /// [`Ledger::inflation`] at that time.
    age: u32,
    /// How often it was named as an input, as far as that counts.
    n_uses: u8,
    pub(super) place: Place,
    /// Whether it was fetched for runs, and others had it then.
    pub(super) is_replica: bool,
}

const _: () = assert!(size_of::<Held>() <= 32);

/// A whole result that is held here and stays in memory, because it is too small for a file. There may be millions of them: what
/// one costs is the memory of its entry.
#[derive(Clone, Copy, Debug)]
struct Small {
    attempt: Attempt,
    nbytes: u32,
}

const _: () = assert!(size_of::<(TaskId, Small)>() <= 16);

/// A result that is being written.
pub(super) struct Write {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    nbytes: u64,
}

pub(super) struct Ledger {
    config: MemoryConfig,
    small: FxHashMap<TaskId, Small>,
    /// All others.
    held: FxHashMap<TaskId, Held>,
    /// Bytes of results in memory, and of those in files only.
    nbytes_in_memory: u64,
    nbytes_in_files: u64,
    /// Bytes of all results that were ever written to files.
    nbytes_written: u64,
    /// Expected bytes of the runs on slots.
    nbytes_reserved: u64,
    /// Bytes that were read back for others and have not been sent yet.
    nbytes_lent: u64,
    /// Results that the scheduler has been asked about, and their bytes.
    n_offered: usize,
    nbytes_offered: u64,
    n_in_files: usize,
    clock: u64,
    /// What the last result that left memory was worth.
    inflation: u32,
    victims: Victims,
    /// When looking for victims is worth while again.
    next_search: u64,
    writes: SmallVec<[Write; 2]>,
    kinds: Kinds,
}

/// What runs need beside their inputs, their results included, by the operators that they apply: bodies of one graph that differ
/// in their arguments only, a seed or an offset, need much the same.
#[derive(Default)]
struct Kinds {
    of_body: FxHashMap<BodyId, u32>,
    by_name: FxHashMap<(GraphId, String), u32>,
    /// By kind; 0 for what is not worth remembering.
    nbytes: Vec<u64>,
    is_any_known: bool,
}

impl Kinds {
    fn add(&mut self, body: BodyId, operators: String) {
        let next = u32::try_from(self.nbytes.len()).unwrap_or(u32::MAX);
        let kind = *self.by_name.entry((body.graph, operators)).or_insert(next);
        if kind == next {
            self.nbytes.push(0);
        }
        self.of_body.insert(body, kind);
    }

    fn get_mut(&mut self, body: BodyId) -> Option<&mut u64> {
        self.nbytes.get_mut(*self.of_body.get(&body)? as usize)
    }

    fn get(&self, body: BodyId) -> u64 {
        if !self.is_any_known {
            return 0;
        }
        self.of_body.get(&body).and_then(|kind| self.nbytes.get(*kind as usize)).copied().unwrap_or(0)
    }

    fn forget_graph(&mut self, graph: GraphId) {
        self.of_body.retain(|body, _| body.graph != graph);
        self.by_name.retain(|(of, _), _| *of != graph);
        if self.by_name.is_empty() {
            self.nbytes.clear();
            self.is_any_known = false;
        }
    }
}

impl Ledger {
    pub(super) fn new(config: MemoryConfig) -> Self {
        Self {
            config,
            small: FxHashMap::default(),
            held: FxHashMap::default(),
            nbytes_in_memory: 0,
            nbytes_in_files: 0,
            nbytes_written: 0,
            nbytes_reserved: 0,
            nbytes_lent: 0,
            n_offered: 0,
            nbytes_offered: 0,
            n_in_files: 0,
            clock: 0,
            inflation: 0,
            victims: Victims::default(),
            next_search: 0,
            writes: SmallVec::new(),
            kinds: Kinds::default(),
        }
    }

    /// Which run's whole result of `task` is held here.
    pub(super) fn attempt(&self, task: TaskId) -> Option<Attempt> {
        let small = self.small.get(&task).map(|small| small.attempt);
        small.or_else(|| self.get(task).map(|held| held.attempt))
    }

    /// The result of `task`, if it is held here and may leave memory.
    pub(super) fn get(&self, task: TaskId) -> Option<&Held> {
        self.held.get(&task)
    }

    pub(super) fn len(&self) -> usize {
        self.small.len() + self.held.len()
    }

    pub(super) fn nbytes_in_memory(&self) -> u64 {
        self.nbytes_in_memory
    }

    pub(super) fn nbytes_in_files(&self) -> u64 {
        self.nbytes_in_files
    }

    pub(super) fn nbytes_written(&self) -> u64 {
        self.nbytes_written
    }

    pub(super) fn nbytes_reserved(&self) -> u64 {
        self.nbytes_reserved
    }

    /// Bytes that were read back for peers and clients.
    pub(super) fn nbytes_lent(&self) -> u64 {
        self.nbytes_lent
    }

    /// So much is read back for a peer or a client.
    pub(super) fn lend(&mut self, nbytes: u64) {
        self.nbytes_lent = self.nbytes_lent.saturating_add(nbytes);
    }

    pub(super) fn sent_off(&mut self, nbytes: u64) {
        self.nbytes_lent = self.nbytes_lent.saturating_sub(nbytes);
    }

    /// Bytes of results that will not be in memory any more once what is being written is, and the scheduler has answered.
    pub(super) fn nbytes_leaving(&self) -> u64 {
        self.writes.iter().map(|write| write.nbytes).sum::<u64>() + self.nbytes_offered
    }

    /// Replicas that the scheduler has been asked about.
    pub(super) fn n_offered(&self) -> usize {
        self.n_offered
    }

    pub(super) fn n_writes(&self) -> usize {
        self.writes.len()
    }

    /// A whole result is in the store, in memory: made here, or moved here to stay.
    pub(super) fn insert(&mut self, task: TaskId, attempt: Attempt, nbytes: u64, n_parts: u32) {
        self.clock += 1;
        self.nbytes_in_memory += nbytes;
        let is_small = nbytes < self.config.min_spill_nbytes;
        let (small, held) = match u32::try_from(nbytes) {
            Ok(nbytes) if is_small => (self.small.insert(task, Small { attempt, nbytes }), self.held.remove(&task)),
            Ok(_) | Err(_) => {
                let (stamp, age) = (self.clock, self.inflation);
                let held = Held { attempt, n_parts, nbytes, stamp, age, n_uses: 0, place: Place::Memory, is_replica: false };
                (self.small.remove(&task), self.held.insert(task, held))
            }
        };
        self.uncount_both(small, held);
    }

    /// What was just inserted was fetched for runs: others have it too.
    pub(super) fn mark_replica(&mut self, task: TaskId) {
        if let Some(held) = self.held.get_mut(&task) {
            held.is_replica = true;
        }
    }

    /// It is not held any more, wherever it was.
    pub(super) fn remove(&mut self, task: TaskId) -> Option<Attempt> {
        let small = self.small.remove(&task);
        let held = if small.is_none() { self.held.remove(&task) } else { None };
        self.clock += u64::from(small.is_some() || held.is_some());
        self.uncount_both(small, held)
    }

    fn uncount_both(&mut self, small: Option<Small>, held: Option<Held>) -> Option<Attempt> {
        if let Some(small) = small {
            self.nbytes_in_memory -= u64::from(small.nbytes);
        }
        if let Some(held) = &held {
            self.uncount(held);
        }
        small.map(|small| small.attempt).or(held.map(|held| held.attempt))
    }

    fn uncount(&mut self, held: &Held) {
        if held.place == Place::Offered {
            self.n_offered -= 1;
            self.nbytes_offered -= held.nbytes;
        }
        if held.place.is_in_memory() {
            self.nbytes_in_memory -= held.nbytes;
        } else {
            self.nbytes_in_files -= held.nbytes;
            self.n_in_files -= 1;
        }
    }

    /// Whether run `attempt`'s result of `task` is held; if so, it has been used just now.
    pub(super) fn touch(&mut self, task: TaskId, attempt: Attempt) -> bool {
        if let Some(small) = self.small.get(&task) {
            self.clock += u64::from(small.attempt == attempt);
            return small.attempt == attempt;
        }
        let Some(held) = self.held.get_mut(&task).filter(|held| held.attempt == attempt) else { return false };
        self.clock += 1;
        held.stamp = self.clock;
        held.age = self.inflation;
        held.n_uses = (held.n_uses + 1).min(MAX_USES);
        true
    }

    fn place(&mut self, task: TaskId, place: Place) {
        let Some(mut held) = self.held.get(&task).copied() else { return };
        self.uncount(&held);
        held.place = place;
        if place == Place::Offered {
            self.n_offered += 1;
            self.nbytes_offered += held.nbytes;
        }
        if place.is_in_memory() {
            self.nbytes_in_memory += held.nbytes;
        } else {
            self.nbytes_in_files += held.nbytes;
            self.n_in_files += 1;
        }
        self.held.insert(task, held);
    }

    /// Bytes that the result of `body` is expected to take, and what it works with.
    pub(super) fn estimate_result(&self, body: BodyId) -> u64 {
        if self.config.limit == 0 { 0 } else { self.kinds.get(body) }
    }

    /// Bytes that a run of `body` with these inputs is expected to need beyond what is in memory: its result and what it works
    /// with, and what has to be read back for it.
    pub(super) fn estimate(&self, body: BodyId, inputs: &[FetchItem]) -> u64 {
        if self.config.limit == 0 {
            return 0;
        }
        let result = self.kinds.get(body);
        if self.n_in_files == 0 {
            return result;
        }
        let to_read = inputs.iter().map(|input| self.nbytes_to_read(input)).fold(0, u64::saturating_add);
        result.saturating_add(to_read)
    }

    fn nbytes_to_read(&self, input: &FetchItem) -> u64 {
        match self.held.get(&input.task) {
            Some(held) if held.attempt == input.attempt && held.place == Place::File => {
                if input.part.is_whole() {
                    held.nbytes
                } else {
                    held.nbytes / u64::from(held.n_parts.max(1))
                }
            }
            Some(_) | None => 0,
        }
    }

    /// A run starts: what it needs of memory is set aside, and whole results that it reads back are in memory from here on.
    /// Gives what is to be given back to [`Ledger::end`].
    pub(super) fn start(&mut self, body: BodyId, inputs: &[FetchItem]) -> u64 {
        let mut reserved = self.estimate(body, inputs);
        if self.n_in_files > 0 && self.config.limit > 0 {
            for input in inputs.iter().filter(|input| input.part.is_whole()) {
                let nbytes = self.nbytes_to_read(input);
                if self.held.get(&input.task).is_some_and(|held| held.attempt == input.attempt && held.place == Place::File) {
                    // It counts as a result from here on. One that is an input twice is read once.
                    self.place(input.task, Place::Both);
                    reserved = reserved.saturating_sub(nbytes);
                }
            }
        }
        self.nbytes_reserved = self.nbytes_reserved.saturating_add(reserved);
        reserved
    }

    pub(super) fn end(&mut self, reserved: u64) {
        self.nbytes_reserved = self.nbytes_reserved.saturating_sub(reserved);
    }

    /// What `body` does, so that sizes can be learned.
    pub(super) fn add_body(&mut self, body: BodyId, operators: String) {
        if self.config.limit > 0 {
            self.kinds.add(body, operators);
        }
    }

    /// A run of `body` has turned out to need so much, its result included.
    pub(super) fn learn(&mut self, body: BodyId, nbytes: u64) {
        const LEAST: u64 = 64 << 10;
        let is_small = nbytes < LEAST.min(self.config.limit / 1_024);
        if self.config.limit == 0 || (is_small && !self.kinds.is_any_known) {
            return;
        }
        if let Some(expected) = self.kinds.get_mut(body)
            && (!is_small || *expected > 0)
        {
            *expected = nbytes.max(*expected - *expected / 8);
            self.kinds.is_any_known = true;
        }
    }

    pub(super) fn forget_graph(&mut self, graph: GraphId) {
        self.kinds.forget_graph(graph);
    }

    /// The scheduler is asked whether a replica may go.
    pub(super) fn offer(&mut self, task: TaskId) {
        self.place(task, Place::Offered);
    }

    /// The scheduler wants a replica to stay: it counts as any other result from here on.
    pub(super) fn keep_offered(&mut self, task: TaskId, attempt: Attempt) {
        if self.held.get(&task).is_some_and(|held| held.attempt == attempt && held.place == Place::Offered) {
            self.place(task, Place::Memory);
            if let Some(held) = self.held.get_mut(&task) {
                held.is_replica = false;
                // It was the next one to go, and now it has to be written for that.
                let held = *held;
                self.keep_victim(task, &held);
            }
        }
    }

    pub(super) fn begin_write(&mut self, task: TaskId) {
        let Some(held) = self.held.get_mut(&task) else { return };
        held.place = Place::Writing;
        self.writes.push(Write { task, attempt: held.attempt, nbytes: held.nbytes });
    }

    /// The end of a write: `place` is where the result is after it, if it is still held.
    pub(super) fn end_write(&mut self, task: TaskId, attempt: Attempt, place: Place) -> bool {
        let Some(at) = self.writes.iter().position(|write| write.task == task && write.attempt == attempt) else { return false };
        let write = self.writes.swap_remove(at);
        if place == Place::Both {
            self.nbytes_written += write.nbytes;
        }
        match self.held.get_mut(&task) {
            Some(held) if held.attempt == attempt && held.place == Place::Writing => {
                held.place = place;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The result is in its file only.
    pub(super) fn evict(&mut self, task: TaskId) {
        self.place(task, Place::File);
    }

    /// # Panics
    /// When sums are not those of what is held.
    pub(super) fn validate(&self) {
        assert!(self.small.keys().all(|task| !self.held.contains_key(task)), "a result is held twice");
        let nbytes_small: u64 = self.small.values().map(|small| u64::from(small.nbytes)).sum();
        let sum = |is_in_memory: bool| -> u64 {
            self.held.values().filter(|held| held.place.is_in_memory() == is_in_memory).map(|held| held.nbytes).sum()
        };
        assert_eq!(nbytes_small + sum(true), self.nbytes_in_memory, "bytes of results in memory");
        assert_eq!(sum(false), self.nbytes_in_files, "bytes of results in files");
        assert_eq!(self.held.values().filter(|held| held.place == Place::File).count(), self.n_in_files, "results in files");
        let offered = self.held.values().filter(|held| held.place == Place::Offered).map(|held| held.nbytes);
        assert_eq!((offered.clone().count(), offered.sum::<u64>()), (self.n_offered, self.nbytes_offered), "replicas offered");
        let n_writing = self.held.values().filter(|held| held.place == Place::Writing).count();
        assert!(
            n_writing <= self.writes.len(),
            "{n_writing} results are being written, of which {} are known",
            self.writes.len()
        );
        assert!(self.writes.len() <= self.config.max_writes.max(1), "{} writes at once", self.writes.len());
    }
}

#[cfg(test)]
mod tests {
    use rask_graphs::TaskIdx;

    use super::*;

    #[test]
    fn a_result_is_counted_once_whatever_size_an_earlier_run_gave_it() {
        let mut ledger = Ledger::new(MemoryConfig { can_spill: true, ..MemoryConfig::new(1 << 30) });
        let task = TaskId::new(GraphId(1), TaskIdx(0));
        for (attempt, nbytes) in [(1, 10), (2, 1 << 20), (3, 1 << 21), (4, 20), (5, 30)] {
            ledger.insert(task, Attempt(attempt), nbytes, 0);
            ledger.validate();
            assert_eq!((ledger.attempt(task), ledger.len()), (Some(Attempt(attempt)), 1));
            assert_eq!(ledger.nbytes_in_memory(), nbytes);
            assert!(ledger.touch(task, Attempt(attempt)) && !ledger.touch(task, Attempt(attempt - 1)));
        }
        assert_eq!(ledger.remove(task), Some(Attempt(5)));
        assert_eq!((ledger.remove(task), ledger.nbytes_in_memory(), ledger.len()), (None, 0, 0));
    }

    #[test]
    fn shares_are_rounded_down_and_never_overflow() {
        for limit in [0, 1, 99, 101, 12_345, (1 << 40) + 77, u64::MAX] {
            for percent in [0, 1, 55, 95, 100] {
                let exact = u128::from(limit) * u128::from(percent) / 100;
                assert_eq!(u128::from(MemoryConfig::new(limit).share(percent)), exact, "{percent} % of {limit}");
            }
        }
    }
}
