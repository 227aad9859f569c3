//! What a run leaves behind: counts, a hash of everything said, and, when asked, the last events in words.
//!
//! Writing every event out is slow, so words are kept only in a replay; the hash is what proves that a replay is one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug, Write};

use rask_comm::time::Time;

/// Counts of one simulated run, or of many added up.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Events handled by any node.
    pub n_events: u64,
    /// Virtual time that passed, in seconds.
    pub virtual_seconds: f64,
    /// Tasks in all graphs that were accepted.
    pub n_tasks: u64,
    /// Runs that began on a slot.
    pub n_executions: u64,
    /// Results that were pushed to a worker that watched for them.
    pub n_pushes: u64,
    /// Results that were written to files.
    pub n_spills: u64,
    /// Values of clients that reached a worker.
    pub n_uploads: u64,
    /// Second runs of stragglers.
    pub n_backups: u64,
    /// Second runs whose result was taken.
    pub n_backups_won: u64,
    /// Messages between scheduler, workers and clients.
    pub n_messages: u64,
    /// Injected faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Add the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.n_events += other.n_events;
        self.virtual_seconds += other.virtual_seconds;
        self.n_tasks += other.n_tasks;
        self.n_executions += other.n_executions;
        self.n_pushes += other.n_pushes;
        self.n_spills += other.n_spills;
        self.n_uploads += other.n_uploads;
        self.n_messages += other.n_messages;
        self.n_backups += other.n_backups;
        self.n_backups_won += other.n_backups_won;
        for (kind, n) in &other.faults {
            *self.faults.entry(kind).or_default() += n;
        }
    }
}

/// How much to write down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    /// Only counts.
    Counts,
    /// Counts and the hash.
    Hash,
    /// Counts, the hash and the last events in words.
    Words,
}

/// The record of one run.
pub struct Trace {
    recording: Recording,
    hash: u64,
    lines: VecDeque<String>,
    max_lines: usize,
    /// The counts.
    pub counts: Counts,
}

struct Hasher(u64);

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// An empty record that keeps the last `max_lines` events in words, if words are wanted.
    #[must_use]
    pub fn new(recording: Recording, max_lines: usize) -> Self {
        Self { recording, hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), max_lines, counts: Counts::default() }
    }

    /// `who` met with `what`.
    pub fn note(&mut self, now: Time, who: &str, what: &dyn Debug) {
        match self.recording {
            Recording::Counts => {}
            Recording::Hash => self.hash_in(now, who, what),
            Recording::Words => {
                self.hash_in(now, who, what);
                if self.lines.len() == self.max_lines {
                    self.lines.pop_front();
                }
                self.lines.push_back(format!("{now} {who}: {what:?}"));
            }
        }
    }

    fn hash_in(&mut self, now: Time, who: &str, what: &dyn Debug) {
        let mut hasher = Hasher(self.hash);
        // Writing into a hasher cannot fail.
        let _ = writeln!(hasher, "{now} {who}: {what:?}");
        self.hash = hasher.0;
    }

    /// The hash of everything noted so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last events in words, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
