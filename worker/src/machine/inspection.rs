//! What the machine lets others see of it, and the check of its invariants.

use rask_graphs::{Attempt, Epoch, TaskId, WorkerId};

use super::{FetchItem, Machine, Transition};

impl Machine {
    /// Check every invariant, in time linear in what is waiting and in the air.
    ///
    /// # Panics
    /// When one is broken.
    pub fn validate(&self) {
        self.runs.validate();
        self.executing.validate();
        self.fetching.validate();
        self.story.validate();
        self.ledger.validate();
        self.uploads.validate();
        self.watchers.validate();
        self.spreading.validate(&self.runs, &self.executing);
        assert_eq!(self.executing.nbytes_reserved(), self.ledger.nbytes_reserved(), "bytes set aside for runs");
        let is_limited = self.config.memory.limit > 0;
        // What memory is too short for is looked into by those who can change something.
        let may_start = self.me.is_some() && (!is_limited || (self.is_still() && self.pressure.can_write()));
        assert!(!may_start || self.executing.is_full() || self.runs.n_ready() == 0, "a slot is free and a run is ready");
    }

    /// What happened to `task` lately, oldest first.
    pub fn story(&self, task: TaskId) -> impl Iterator<Item = &Transition> {
        self.story.of(task)
    }

    /// The id of this registration, once welcomed.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        self.me
    }

    /// The scheduler's epoch, once welcomed.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Runs on slots.
    #[must_use]
    pub fn n_executing(&self) -> usize {
        self.executing.len()
    }

    /// Runs that have not started.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        self.runs.len()
    }

    /// Which run's result of `task` is held here whole, if any.
    #[must_use]
    pub fn held(&self, task: TaskId) -> Option<Attempt> {
        self.ledger.attempt(task)
    }

    /// Whole results held here.
    #[must_use]
    pub fn n_held(&self) -> usize {
        self.ledger.len()
    }

    /// Bytes of results in memory, parts that were fetched for runs included.
    #[must_use]
    pub fn nbytes_in_memory(&self) -> u64 {
        self.ledger.nbytes_in_memory() + self.fetching.nbytes_here()
    }

    /// Bytes of results that are in files only.
    #[must_use]
    pub fn nbytes_in_files(&self) -> u64 {
        self.ledger.nbytes_in_files()
    }

    /// Whether `item` is being watched for at `from`.
    #[must_use]
    pub fn awaits(&self, from: WorkerId, item: FetchItem) -> bool {
        self.fetching.awaits(from, item)
    }

    /// Bytes that were read back for peers and clients and have not been sent yet.
    #[must_use]
    pub fn nbytes_lent(&self) -> u64 {
        self.ledger.nbytes_lent()
    }

    /// Values that clients are expected to upload.
    #[must_use]
    pub fn n_expected(&self) -> usize {
        self.uploads.n_expected()
    }

    /// Results that peers watch for.
    #[must_use]
    pub fn n_watched(&self) -> usize {
        self.watchers.len()
    }

    /// Whether `peer` watches for as much as anybody may; its conversation is to be ended then.
    #[must_use]
    pub fn watches_too_much(&self, peer: WorkerId) -> bool {
        self.watchers.is_full(peer)
    }

    /// News that was overtaken and is ignored, counted.
    #[must_use]
    pub fn n_stale(&self) -> u64 {
        self.n_stale
    }
}
