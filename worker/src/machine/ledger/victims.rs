//! Which results leave memory first.

use rask_graphs::TaskId;
use smallvec::SmallVec;

use super::{Held, Ledger, Place};

/// What it takes to have a result again once it has left memory, and to have it leave, for each byte: read from its file;
/// asked for again; written and read.
const COST_IN_FILE: u32 = 16;
const COST_REPLICA: u32 = 24;
const COST_WRITE: u32 = 48;
/// To write and read a file takes as long as so many bytes of it, however short it is.
const FILE_NBYTES: u64 = 1 << 20;
/// How often a result was used counts up to here.
pub(super) const MAX_USES: u8 = 4;

impl Held {
    /// What is least worth keeping leaves memory first: Greedy-Dual-Size-Frequency (Cherkasova 1998), where every result is worth
    /// what it costs for each of its bytes, times its uses, beyond what the last one that left was worth.
    fn worth(&self) -> u32 {
        let cost = match (self.place, self.is_replica) {
            (Place::Both, _) => COST_IN_FILE,
            (_, true) => COST_REPLICA,
            (_, false) => COST_WRITE,
        };
        let of_file = FILE_NBYTES / self.nbytes.max(1);
        let cost = u64::from(cost) * (1 + of_file.min(16)) * u64::from(self.n_uses.max(1));
        self.age.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX))
    }
}

/// What may leave memory, in the order in which it is to: the next one last. An entry that was used since is skipped.
#[derive(Default)]
pub(super) struct Victims {
    /// What is in a file too, or held by others.
    free: Vec<Victim>,
    /// What has to be written first.
    to_write: Vec<Victim>,
}

/// By what it is worth, then the least recently used.
type Victim = (u32, u64, TaskId);

impl Ledger {
    /// The result that should leave memory next, which is not one of those that `is_pinned` names: of what `may_write` allows,
    /// the one that is least worth keeping.
    pub(in crate::machine) fn next_victim(
        &mut self,
        may_write: bool,
        is_pinned: impl Fn(TaskId) -> bool,
    ) -> Option<(TaskId, Held)> {
        if let Some(found) = self.pop_victim(may_write, &is_pinned) {
            return Some(found);
        }
        if self.clock < self.next_search {
            return None;
        }
        self.search();
        self.pop_victim(may_write, &is_pinned)
    }

    fn search(&mut self) {
        let (min_nbytes, can_spill) = (self.config.min_spill_nbytes, self.config.can_spill);
        self.victims = Victims::default();
        for (task, held) in &self.held {
            let of = match held.place {
                Place::Both => &mut self.victims.free,
                Place::Memory if held.nbytes < min_nbytes => continue,
                Place::Memory if held.is_replica => &mut self.victims.free,
                Place::Memory if can_spill => &mut self.victims.to_write,
                Place::Memory | Place::Stuck | Place::Offered | Place::Writing | Place::File => continue,
            };
            of.push((held.worth(), held.stamp, *task));
        }
        // Stamps are all different: the order does not depend on that of the table.
        for victims in [&mut self.victims.free, &mut self.victims.to_write] {
            victims.sort_unstable_by(|a, b| b.cmp(a));
        }
        // A look at what is in memory is paid for by as many events.
        self.next_search = self.clock + (self.held.len() - self.n_in_files) as u64 / 8;
    }

    fn pop_victim(&mut self, may_write: bool, is_pinned: &impl Fn(TaskId) -> bool) -> Option<(TaskId, Held)> {
        // Their turn comes when they are used no more.
        let mut pinned: SmallVec<[(Victim, bool); 4]> = SmallVec::new();
        let found = self.pop_unpinned(may_write, is_pinned, &mut pinned);
        for (victim, is_free) in pinned.into_iter().rev() {
            if is_free { &mut self.victims.free } else { &mut self.victims.to_write }.push(victim);
        }
        found
    }

    fn pop_unpinned(
        &mut self,
        may_write: bool,
        is_pinned: &impl Fn(TaskId) -> bool,
        pinned: &mut SmallVec<[(Victim, bool); 4]>,
    ) -> Option<(TaskId, Held)> {
        loop {
            let Victims { free, to_write } = &mut self.victims;
            let is_free_next = match (free.last(), to_write.last().filter(|_| may_write)) {
                (Some(free), Some(to_write)) => free <= to_write,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return None,
            };
            let (worth, stamp, task) = if is_free_next { free.pop()? } else { to_write.pop()? };
            if let Some(held) = self.held.get(&task)
                && held.stamp == stamp
                && matches!((held.place, is_free_next), (Place::Both, true) | (Place::Memory, _))
                && (held.is_replica || held.place == Place::Both || !is_free_next)
            {
                if is_pinned(task) {
                    pinned.push(((worth, stamp, task), is_free_next));
                    continue;
                }
                self.inflation = self.inflation.max(worth);
                return Some((task, *held));
            }
        }
    }

    /// A result that [`Ledger::next_victim`] gave, and that has to be written, cannot go now: it is the next one another time.
    pub(in crate::machine) fn keep_victim(&mut self, task: TaskId, held: &Held) {
        self.victims.to_write.push((held.worth(), held.stamp, task));
    }
    /// As [`Ledger::keep_victim`], after all others: there was no space for this one, and there may be for a smaller one.
    pub(in crate::machine) fn postpone_victim(&mut self, task: TaskId, held: &Held) {
        self.victims.to_write.insert(0, (held.worth(), held.stamp, task));
    }
}
