//! The directory of one worker's spill files: made for it alone, locked while it lives, and gone with it.
//!
//! `<spill dir>/rask-worker-<process>-<n>/lock` is locked (`flock`) by the worker as long as it lives, however it ends. So a
//! worker that starts can tell what nobody needs any more and removes it, though never what belongs to another user. Files
//! of a process that was killed stay until then.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

const PREFIX: &str = "rask-worker-";
const LOCK: &str = "lock";
/// A directory without a lock file is being made, or was when its maker was killed; after this it is the latter.
const MAKING_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct SpillDirectory {
    path: PathBuf,
    /// Held open for its lock.
    _lock: File,
}

impl SpillDirectory {
    /// Remove what dead workers of this user have left in `base`, and make a directory there.
    ///
    /// # Errors
    /// When `base` cannot be made or written to.
    pub(super) fn create(base: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        sweep(base);
        let process = std::process::id();
        for n in 0..u32::MAX {
            let path = base.join(format!("{PREFIX}{process}-{n}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            if let Some(lock) = lock(&path.join(LOCK))? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remove it with all that is in it. May be called more than once.
    pub(super) fn remove(&self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "spill files stay behind");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Drop for SpillDirectory {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Make and lock the lock file. `None` when another worker that starts has taken the directory for a dead one's.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() || file.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    writeln!(file, "process {} on {}", std::process::id(), rask_comm::host_name())?;
    Ok(Some(file))
}

/// Remove what workers of this user that are no more have left in a directory for spill files. What cannot be looked at or removed is
/// left alone.
pub fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let path = entry.path();
        // Held until all is gone, so that no worker that is just making this directory believes it has it.
        if is_ours && let Ok(Some(_claim)) = claim_abandoned(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed the spill files of a worker that is no more"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove old spill files"),
            }
        }
    }
}

/// The right to remove the directory of a dead worker: its lock, if there is one.
struct Claim {
    _lock: Option<File>,
}

/// Take over `path` when it is a worker's directory, of this user, and its worker is dead.
fn claim_abandoned(path: &Path) -> io::Result<Option<Claim>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    match OpenOptions::new().write(true).custom_flags(nofollow).open(path.join(LOCK)) {
        Ok(file) => {
            let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            Ok(is_free.then_some(Claim { _lock: Some(file) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_old = metadata.modified()?.elapsed().is_ok_and(|age| age > MAKING_LIMIT);
            Ok(is_old.then_some(Claim { _lock: None }))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_private_and_goes_with_its_owner() {
        let base = tempfile::tempdir().unwrap();
        let (one, two) = (SpillDirectory::create(base.path()).unwrap(), SpillDirectory::create(base.path()).unwrap());
        assert_ne!(one.path(), two.path());
        assert_eq!(fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(one.path().join("1"), "x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }

    #[test]
    fn what_the_dead_have_left_is_removed_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let alive = SpillDirectory::create(base.path()).unwrap();
        // A killed worker's: the lock file is there, and nobody holds the lock.
        let dead = base.path().join("rask-worker-1-0");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "process 1").unwrap();
        fs::write(dead.join("7"), "spilled").unwrap();
        // One that is being made, somebody else's, and a link out of here.
        let (young, other) = (base.path().join("rask-worker-2-0"), base.path().join("precious"));
        fs::create_dir(&young).unwrap();
        fs::create_dir(&other).unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join(LOCK), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), base.path().join("rask-worker-3-0")).unwrap();
        let new = SpillDirectory::create(base.path()).unwrap();
        assert!(!dead.exists());
        assert!(alive.path().exists() && new.path().exists() && young.exists() && other.exists());
        assert!(outside.path().join(LOCK).exists());
    }
}
