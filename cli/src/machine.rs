//! What this machine has: processors and memory, as far as this process may use them.

use std::thread::available_parallelism;

use rask_worker::store::memory::read_nbytes;

/// Processors that this process may use.
pub(crate) fn n_processors() -> u32 {
    available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Memory for results unless told otherwise: three quarters of what the machine, or this process's group, may use.
pub(crate) fn default_memory() -> u64 {
    let total = memory_nbytes();
    total / 4 * 3
}

fn memory_nbytes() -> u64 {
    const FALLBACK: u64 = 4 << 30;
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| read_nbytes(&text, "MemTotal"));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min().unwrap_or(FALLBACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total() {
        assert_eq!(read_nbytes("MemTotal:       16384 kB\nMemFree: 1 kB\n", "MemTotal"), Some(16 << 20));
        assert_eq!(read_nbytes("MemFree: 1 kB\n", "MemTotal"), None);
        assert!(default_memory() > 64 << 20);
    }
}
