//! What processes and the spill directory take, as the kernel sees them.

use std::fs;
use std::path::Path;

use rask_worker::store::memory::read_nbytes;
use serde_json::{Value as Json, json};

/// What a process takes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Process {
    pub(super) rss_nbytes: u64,
    /// The most it ever took.
    pub(super) peak_nbytes: u64,
    pub(super) n_descriptors: u64,
    /// Memory that was handed over within the host, as open descriptors and as mappings.
    pub(super) n_memory_files: u64,
    pub(super) n_threads: u64,
}

impl Process {
    /// `None` when there is no such process.
    pub(super) fn read(id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let links = fs::read_dir(format!("/proc/{id}/fd")).ok()?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let is_memory = |text: &str| text.contains("/memfd:");
        let (mut n_descriptors, mut n_memory_files) = (0, 0);
        for link in links {
            n_descriptors += 1;
            n_memory_files += u64::from(link.to_str().is_some_and(is_memory));
        }
        let maps = fs::read_to_string(format!("/proc/{id}/maps")).ok()?;
        n_memory_files += maps.lines().filter(|line| is_memory(line)).count() as u64;
        let n_threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok())?;
        Some(Self {
            rss_nbytes: read_nbytes(&status, "VmRSS")?,
            peak_nbytes: read_nbytes(&status, "VmHWM")?,
            n_descriptors,
            n_memory_files,
            n_threads,
        })
    }

    pub(super) fn to_json(self) -> Json {
        json!({
            "rss_nbytes": self.rss_nbytes,
            "peak_nbytes": self.peak_nbytes,
            "n_descriptors": self.n_descriptors,
            "n_memory_files": self.n_memory_files,
            "n_threads": self.n_threads,
        })
    }
}

/// Files in workers' spill directories.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Files {
    pub(super) n_files: u64,
    pub(super) nbytes: u64,
}

impl Files {
    /// Of all workers with directories in `base`, but for the files that only say whose each is.
    pub(super) fn read(base: &Path) -> Self {
        let mut files = Self::default();
        for worker in fs::read_dir(base).into_iter().flatten().flatten() {
            for file in fs::read_dir(worker.path()).into_iter().flatten().flatten() {
                if file.file_name() != "lock" {
                    files.n_files += 1;
                    files.nbytes += file.metadata().map_or(0, |metadata| metadata.len());
                }
            }
        }
        files
    }
}

/// Entries of the directory for shared memory that are of this program.
pub(super) fn n_shared_memory() -> u64 {
    let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.contains("rask"))).count() as u64
}

/// The middle one, of an even number the upper of the two.
pub(super) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let before = Process::read(std::process::id()).unwrap();
        assert!(before.rss_nbytes > 1 << 20 && before.peak_nbytes >= before.rss_nbytes && before.n_threads > 0);
        let _file = fs::File::open("/proc/self/status").unwrap();
        assert!(Process::read(std::process::id()).unwrap().n_descriptors > 0);
        assert_eq!(Process::read(u32::MAX), None);
    }

    #[test]
    fn files_of_all_workers_are_counted_and_locks_are_not() {
        let base = std::env::temp_dir().join(format!("rask-soak-test-{}", std::process::id()));
        for worker in ["a", "b"] {
            fs::create_dir_all(base.join(worker)).unwrap();
            fs::write(base.join(worker).join("lock"), "me").unwrap();
            fs::write(base.join(worker).join("1"), [0; 10]).unwrap();
        }
        let found = Files::read(&base);
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(found, Files { n_files: 2, nbytes: 20 });
        assert_eq!(Files::read(&base), Files::default());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(vec![3, 1, 2]), median(vec![4, 1]), median(Vec::new())), (2, 4, 0));
    }
}
