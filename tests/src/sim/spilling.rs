//! Simulated spill files, and whether the machine keeps to its memory.
//!
//! A file holds what the store holds; a bad one is noticed when it is read, as in the real shell. What a worker keeps in memory
//! is counted anew from its store, independently of the machine's ledger.

use std::collections::BTreeSet;
use std::time::Duration;

use rask_graphs::Part;
use rask_graphs::{Attempt, TaskId};
use rask_worker::machine::{Event, FetchItem, Machine, PAUSE, SpillFailure};

use super::process::Process;
use super::world::{Delivery, World};

/// The spill files of one worker.
#[derive(Default)]
pub(super) struct Disk {
    /// Whole results that are in files.
    pub(super) files: BTreeSet<TaskId>,
    /// Those that are not in memory.
    pub(super) evicted: BTreeSet<TaskId>,
    /// Files that cannot be read.
    bad: BTreeSet<TaskId>,
    /// Writes under way.
    n_writes: usize,
}

impl Disk {
    /// The result is not held any more, or another run's is.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.files.remove(&task);
        self.evicted.remove(&task);
        self.bad.remove(&task);
    }
}

impl Process {
    /// Bytes of results and parts in memory.
    fn nbytes_in_memory(&self) -> u64 {
        let is_there = |task: TaskId, part: Part| !part.is_whole() || !self.disk.evicted.contains(&task);
        self.store.iter().filter(|((task, part), _)| is_there(*task, *part)).map(|(_, stored)| stored.nbytes).sum()
    }

    /// Bytes of results in files, in memory too or not.
    fn nbytes_on_disk(&self) -> u64 {
        self.disk.files.iter().filter_map(|task| self.store.get(&(*task, Part::WHOLE))).map(|stored| stored.nbytes).sum()
    }

    /// Quiet: the machine's ledger says what is in the store.
    pub(super) fn check_disk(&self, machine: &Machine) {
        let in_files = self.disk.evicted.iter().map(|task| self.store[&(*task, Part::WHOLE)].nbytes).sum::<u64>();
        assert_eq!(machine.nbytes_in_files(), in_files, "{}: bytes in files only", self.name);
        assert_eq!(machine.nbytes_in_memory(), self.nbytes_in_memory(), "{}: bytes in memory", self.name);
        assert_eq!(self.disk.n_writes, 0, "{}: writes under way", self.name);
    }
}

impl World {
    /// Something that takes memory begins: there is room, or nothing else is in motion.
    pub(super) fn check_room(&self, at: usize, what: &str) {
        let process = &self.processes[at];
        if process.running.is_empty() && process.n_fetching == 0 && process.disk.n_writes == 0 {
            return;
        }
        let (used, limit) = (process.nbytes_in_memory(), process.config.memory.share(PAUSE.begins));
        assert!(used <= limit, "{what} on worker {at}, where {used} bytes are in memory and {limit} are allowed");
        assert!(!process.is_told_short, "{what} on worker {at}, which is short of memory and not idle");
    }

    pub(super) fn begin_spill(&mut self, conn: usize, task: TaskId, attempt: Attempt) {
        let at = self.conns[conn].process;
        let whole = FetchItem::whole(task, attempt);
        let is_lost = self.processes[at].damaged.contains(&task);
        let stored = self.processes[at].stored(whole);
        assert!(stored.is_some() || is_lost, "worker {at} spills {task} {attempt}, which it does not hold");
        assert!(!self.processes[at].disk.evicted.contains(&task), "worker {at} spills {task}, which is not in memory");
        self.processes[at].disk.n_writes += 1;
        let takes = self.dice.between(10, 2_000) + stored.map_or(0, |stored| stored.nbytes / 500);
        self.push(self.now.after(Duration::from_micros(takes)), Delivery::SpillEnded { conn, task, attempt });
    }

    pub(super) fn end_spill(&mut self, conn: usize, task: TaskId, attempt: Attempt) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            return;
        }
        let process = &mut self.processes[at];
        process.disk.n_writes -= 1;
        let stored = process.stored(FetchItem::whole(task, attempt));
        let (is_there, nbytes) = (stored.is_some(), stored.map_or(0, |stored| stored.nbytes));
        let is_full = process.is_disk_full || process.nbytes_on_disk().saturating_add(nbytes) > process.disk_limit;
        if is_there && is_full {
            self.tell_worker(conn, Event::NotSpilled { task, attempt, reason: SpillFailure::NoSpace });
            return;
        }
        if is_there {
            process.disk.files.insert(task);
            self.trace.counts.n_spills += 1;
        }
        self.tell_worker(conn, Event::Spilled { task, attempt });
    }

    pub(super) fn evict(&mut self, at: usize, task: TaskId, attempt: Attempt) {
        let process = &mut self.processes[at];
        let is_there = process.stored(FetchItem::whole(task, attempt)).is_some();
        assert!(is_there || process.damaged.contains(&task), "worker {at} evicts {task} {attempt}, which it does not hold");
        if is_there {
            assert!(process.disk.files.contains(&task), "worker {at} evicts {task}, which is in no file");
            process.disk.evicted.insert(task);
        }
    }

    /// A run's inputs are read from their files. What is read as a whole is in memory from here on.
    pub(super) fn read_back(&mut self, at: usize, inputs: &[FetchItem]) {
        for input in inputs {
            let process = &mut self.processes[at];
            let is_held = process.stored(FetchItem::whole(input.task, input.attempt)).is_some();
            if !is_held || !process.disk.evicted.contains(&input.task) {
                continue;
            }
            if process.disk.bad.contains(&input.task) {
                process.store.remove(&(input.task, Part::WHOLE));
                process.disk.forget(input.task);
                process.damaged.insert(input.task);
            } else if input.part.is_whole() {
                process.disk.evicted.remove(&input.task);
            }
        }
    }

    /// A result is read for a peer or a client. One that cannot be read is lost, and the machine is told.
    pub(super) fn read_for_peer(&mut self, at: usize, item: FetchItem) {
        let process = &self.processes[at];
        let is_held = process.stored(FetchItem::whole(item.task, item.attempt)).is_some();
        if !is_held || !process.disk.evicted.contains(&item.task) || !process.disk.bad.contains(&item.task) {
            return;
        }
        if let Some(conn) = process.conn {
            self.lose_stored(conn, item.task);
        }
    }

    /// A result is gone from the store, and the machine is told.
    pub(super) fn lose_stored(&mut self, conn: usize, task: TaskId) {
        self.may_repeat_work = true;
        let process = &mut self.processes[self.conns[conn].process];
        let Some(stored) = process.store.remove(&(task, Part::WHOLE)) else { return };
        process.disk.forget(task);
        process.damaged.insert(task);
        self.tell_worker(conn, Event::ResultLost { task, attempt: stored.attempt });
    }

    /// A file goes bad; that shows when it is read.
    pub(super) fn damage_file(&mut self, at: usize) {
        let evicted: Vec<TaskId> = self.processes[at].disk.evicted.iter().copied().collect();
        if let Some(task) = self.dice.pick(&evicted) {
            self.may_repeat_work = true;
            self.processes[at].disk.bad.insert(task);
        }
    }
}
