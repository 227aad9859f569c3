//! How much memory the process uses, by the kernel's books: the sum of results leaves out what kernels and the allocator hold.

use std::fs;
use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Have `give_back` called, on a thread of a worker's own, while the process takes much of its memory: a program that knows its
/// allocator can have it return what it keeps for later. Without it an idle process may go on taking what it has long freed.
/// Only the first call counts.
pub fn when_short(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

/// Have the allocator return what it keeps.
pub(crate) fn give_back() {
    if let Some(give_back) = GIVE_BACK.get() {
        give_back();
    }
}

/// Counts what a thread allocates: a program that knows its allocator can tell how much memory each run takes, besides what is
/// known of its inputs and its result.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// The calling thread's count begins.
    pub begin: fn(),
    /// The most that the calling thread had allocated at once since it began, in bytes, less what it has freed.
    pub peak: fn() -> u64,
}

static METER: OnceLock<Meter> = OnceLock::new();

/// Have the memory of runs counted. Only the first call counts.
pub fn meter_with(meter: Meter) {
    let _ = METER.set(meter);
}

/// What `run` returns, and the most memory that this thread allocated meanwhile; 0 when nobody counts it.
pub(crate) fn metered<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let Some(meter) = METER.get() else { return (run(), 0) };
    (meter.begin)();
    let ran = run();
    (ran, (meter.peak)())
}

/// Resident memory of this process in bytes; `None` where the kernel does not say.
#[must_use]
pub fn resident_nbytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    read_nbytes(&status, "VmRSS")
}

/// The bytes that a line `name:   n kB` of the kernel's tells, as in `/proc/meminfo` and `/proc/<process>/status`; `None` when
/// there is no such line.
#[must_use]
pub fn read_nbytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_as_kibibytes() {
        assert_eq!(read_nbytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads: 1", "VmRSS"), Some(2 << 20));
        assert_eq!(read_nbytes("Name:\tx", "VmRSS"), None);
        assert!(resident_nbytes().is_some_and(|nbytes| nbytes > 100_000), "this process uses memory");
    }
}
