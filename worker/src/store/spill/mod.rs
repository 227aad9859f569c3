//! Results in files: where they are written, read back, and deleted.
//!
//! Reading and writing take as long as the disk takes, so both happen on slots and on the spill thread, never on the network's
//! thread and never under a lock. A [`SpillFile`] is deleted some time after its last handle is dropped, by whoever calls
//! [`SpillArea::delete_dropped`]: to delete a big file takes long too.

mod compression;
mod directory;
mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rask_graphs::{Attempt, Part, Registry, TaskId, Value};

use directory::SpillDirectory;
pub use directory::sweep;
use file::{Owner, WriteError};

/// Where a worker spills, and how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpillConfig {
    /// Directory in which the worker makes its own; shared by any number of workers, of any users.
    pub directory: PathBuf,
    /// Bytes of its files at most; 0 for as many as the disk takes.
    pub limit: u64,
}

impl SpillConfig {
    /// Spill to `directory` as long as the disk takes it.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), limit: 0 }
    }
}

/// Why a result was not written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpillError {
    /// There is no space, on the disk or within the limit.
    #[error("no space is left for spill files")]
    Full,
    /// The disk cannot be written to for another reason.
    #[error("cannot write a spill file: {0}")]
    Failed(String),
    /// The result cannot leave the process.
    #[error("{0}")]
    CannotEncode(String),
}

/// A result could not be read back: this copy of it is lost.
#[derive(Debug, thiserror::Error)]
#[error("a spilled result is lost: {0}")]
pub struct ReadBackError(String);

/// One worker's spill files.
pub struct SpillArea {
    directory: SpillDirectory,
    limit: u64,
    registry: Arc<Registry>,
    n_files: AtomicU64,
    nbytes: AtomicU64,
    /// Files that nobody refers to any more, by number and length.
    dropped: Mutex<Vec<(u64, u64)>>,
}

/// A spilled result; see the module's documentation.
pub struct SpillFile {
    area: Arc<SpillArea>,
    number: u64,
    nbytes: u64,
    owner: Owner,
}

impl SpillArea {
    /// Make the directory, and remove those of workers that are no more.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn create(config: &SpillConfig, registry: Arc<Registry>) -> io::Result<Arc<Self>> {
        let directory = SpillDirectory::create(&config.directory)?;
        if is_in_memory(directory.path()) {
            tracing::warn!(path = %directory.path().display(), "the spill directory is itself in memory: spilling frees none");
        }
        Ok(Arc::new(Self {
            directory,
            limit: config.limit,
            registry,
            n_files: AtomicU64::new(0),
            nbytes: AtomicU64::new(0),
            dropped: Mutex::default(),
        }))
    }

    /// Where the files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Delete everything: the process is about to end, and may not wait for those that still refer to files.
    pub fn close(&self) {
        self.directory.remove();
    }

    /// Bytes of all files.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.nbytes.load(Ordering::Relaxed)
    }

    /// Write the result of run `attempt` of `task`. Blocks as long as the disk takes.
    ///
    /// # Errors
    /// When there is no space, the disk fails, or the result cannot be encoded; then nothing of it stays on the disk.
    pub fn write(self: &Arc<Self>, task: TaskId, attempt: Attempt, value: &Value) -> Result<SpillFile, SpillError> {
        if self.limit > 0 && self.nbytes().saturating_add(value.nbytes()) > self.limit {
            return Err(SpillError::Full);
        }
        let number = self.n_files.fetch_add(1, Ordering::Relaxed);
        let owner = Owner { task, attempt };
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path_of(number));
        let written = opened.map_err(WriteError::Io).and_then(|file| file::write(&file, owner, value));
        match written {
            Ok(nbytes) => {
                self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
                Ok(SpillFile { area: Arc::clone(self), number, nbytes, owner })
            }
            Err(error) => {
                let _ = fs::remove_file(self.path_of(number));
                Err(match error {
                    WriteError::CannotEncode(error) => SpillError::CannotEncode(error.to_string()),
                    WriteError::Io(error) if is_full(&error) => SpillError::Full,
                    WriteError::Io(error) => SpillError::Failed(error.to_string()),
                })
            }
        }
    }

    /// Delete the files that nobody refers to any more.
    pub fn delete_dropped(&self) {
        let dropped = std::mem::take(&mut *self.dropped.lock());
        for (number, nbytes) in dropped {
            // A file that somebody else has deleted frees its share of the limit too.
            let _ = fs::remove_file(self.path_of(number));
            self.nbytes.fetch_sub(nbytes, Ordering::Relaxed);
        }
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.directory.path().join(number.to_string())
    }
}

impl fmt::Debug for SpillArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillArea").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl SpillFile {
    /// Read the result, or a part of it, back. Blocks as long as the disk takes.
    ///
    /// # Errors
    /// When the file is damaged, gone, or another result's.
    pub fn read(&self, part: Part) -> Result<Value, ReadBackError> {
        let path = self.area.path_of(self.number);
        let read = File::open(path).map_err(file::ReadError::Io);
        let read = read.and_then(|mut file| file::read(&mut file, self.owner, part, &self.area.registry));
        read.map_err(|error| ReadBackError(error.to_string()))
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.area.dropped.lock().push((self.number, self.nbytes));
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether files at `path` are kept in memory.
fn is_in_memory(path: &Path) -> bool {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC` of the kernel.
    const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(path).is_ok_and(|stat| IN_MEMORY.contains(&stat.f_type))
}
