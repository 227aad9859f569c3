//! What this machine has: processors and memory, as far as this process may use them.

use std::thread::available_parallelism;

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
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min().unwrap_or(FALLBACK)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total() {
        assert_eq!(parse_meminfo("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(parse_meminfo("MemFree: 1 kB\n"), None);
        assert!(default_memory() > 64 << 20);
    }
}
