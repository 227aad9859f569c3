//! What ran when and where, and what moved: for looking at a small schedule with one's own eyes.

use std::io::{self, Write};

use rask_graphs::WorkerId;

/// Everything that happened on slots and links, in the order in which it ended.
#[derive(Default)]
pub(super) struct Schedule {
    lines: Vec<String>,
}

impl Schedule {
    /// A run of the task called `key`, times in nanoseconds.
    pub(super) fn add_run(&mut self, begun: u64, ended: u64, worker: WorkerId, key: String) {
        self.lines.push(format!("{}\t{}\trun\t{worker}\t{key}", micros(begun), micros(ended)));
    }

    /// The result of the task called `key` has moved; 0 bytes for word that it is made.
    pub(super) fn add_transfer(&mut self, ended: u64, from: WorkerId, to: WorkerId, key: String, nbytes: u64) {
        self.lines.push(format!("\t{}\tmove\t{to}\t{key}\t{from}\t{nbytes}", micros(ended)));
    }

    /// Write it as tab-separated lines.
    ///
    /// # Errors
    /// Those of `to`.
    pub(super) fn write(&self, mut to: impl Write) -> io::Result<()> {
        writeln!(to, "begin_us\tend_us\twhat\tworker\tkey\tfrom\tnbytes")?;
        self.lines.iter().try_for_each(|line| writeln!(to, "{line}"))
    }
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}
