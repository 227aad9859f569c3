//! How much memory the process uses, and whether that is too much to begin anything new.
//!
//! Measured by the kernel's books (resident memory), because the sum of results leaves out what kernels and the allocator
//! hold. Pausing has hysteresis: without it a worker at its limit would flip with every measurement.

use std::fs;

use rask_comm::message::WorkerStatus;

use super::Store;

/// Share of the limit at which a worker pauses, in percent.
pub const PAUSE_PERCENT: u64 = 80;
/// Share of the limit below which a paused worker goes on, in percent.
pub const RESUME_PERCENT: u64 = 75;

/// Measures one worker.
pub struct Gauge {
    limit: u64,
    is_paused: bool,
}

impl Gauge {
    /// Measure against `limit` bytes; 0 for no limit, so that it never pauses.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, is_paused: false }
    }

    /// The state of this process and `store`, for [`crate::machine::Event::Measured`]. What only the machine knows is left 0.
    pub fn measure(&mut self, store: &Store) -> WorkerStatus {
        let rss_nbytes = resident_nbytes().unwrap_or(0);
        self.judge(rss_nbytes);
        WorkerStatus { nbytes_results: store.nbytes(), rss_nbytes, is_paused: self.is_paused, ..WorkerStatus::default() }
    }

    fn judge(&mut self, rss_nbytes: u64) {
        let percent = if self.is_paused { RESUME_PERCENT } else { PAUSE_PERCENT };
        self.is_paused = self.limit > 0 && rss_nbytes >= self.limit / 100 * percent;
    }
}

/// Resident memory of this process in bytes; `None` where the kernel does not say.
#[must_use]
pub fn resident_nbytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    parse_resident(&status)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_as_kibibytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads: 1"), Some(2 << 20));
        assert_eq!(parse_resident("Name:\tx"), None);
        assert!(resident_nbytes().is_some_and(|nbytes| nbytes > 100_000), "this process uses memory");
    }

    #[test]
    fn pausing_begins_at_80_and_ends_below_75_percent() {
        let mut gauge = Gauge::new(1_000);
        let paused = [790, 800, 780, 750, 749, 790].map(|nbytes| {
            gauge.judge(nbytes);
            gauge.is_paused
        });
        assert_eq!(paused, [false, true, true, true, false, false]);
        let mut boundless = Gauge::new(0);
        boundless.judge(u64::MAX);
        assert!(!boundless.is_paused);
    }
}
