//! State directories of clusters that go with the process that started them.
//!
//! Beneath the user's own state directory, never where others may write: `clusters/<process>-<n>`, locked (`flock`) as long as the
//! process lives, however it ends. So the next one that makes such a directory removes those that a killed one has left, the
//! authority's key in it included.

use std::path::PathBuf;

use rustix::fd::OwnedFd;

use crate::authority::AuthorityError;
use crate::private::PrivateDir;
use crate::state::StateDir;

const DIRECTORY: &str = "clusters";

/// A state directory that is removed when this is dropped, or by the next one.
#[derive(Debug)]
pub struct ThrowAwayState {
    state: StateDir,
    path: PathBuf,
    _lock: OwnedFd,
}

impl ThrowAwayState {
    /// Make one beneath `base`, and remove those of processes that are no more.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn make(base: &StateDir) -> Result<Self, AuthorityError> {
        let all = base.open_or_make()?.make_sub(DIRECTORY)?;
        // Nobody else makes or removes any meanwhile.
        let _lock = all.lock()?;
        sweep(&all)?;
        for n in 0..u32::MAX {
            let name = format!("{}-{n}", std::process::id());
            if all.sub(&name)?.is_some() {
                continue;
            }
            let made = all.make_sub(&name)?;
            let lock = made.lock()?;
            return Ok(Self { state: StateDir::at(made.path()), path: made.path().to_owned(), _lock: lock });
        }
        Err(AuthorityError::Making("there are too many clusters".to_owned()))
    }

    /// The directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }
}

impl Drop for ThrowAwayState {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the state of a cluster stays behind");
        }
    }
}

fn sweep(all: &PrivateDir) -> Result<(), AuthorityError> {
    for name in all.names()? {
        // What cannot be looked at or removed is left alone.
        if let Ok(Some(old)) = all.sub(&name)
            && let Some(_lock) = old.try_lock()
            && let Err(error) = std::fs::remove_dir_all(old.path())
        {
            tracing::warn!(path = %old.path().display(), %error, "cannot remove the state of a cluster that is no more");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;

    #[test]
    fn it_goes_with_its_process_or_with_the_next_one() {
        let place = tempfile::tempdir().unwrap();
        let base = StateDir::at(place.path().join("state"));
        let clusters = place.path().join("state/clusters");
        let names = || {
            let entries = std::fs::read_dir(&clusters).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let one = ThrowAwayState::make(&base).unwrap();
        Authority::open_or_create(one.state()).unwrap();
        let other = ThrowAwayState::make(&base).unwrap();
        assert_ne!(one.state(), other.state());
        assert_eq!(names().len(), 2, "one that lives is left alone");
        drop(other);
        assert_eq!(names().len(), 1);
        // As a process leaves it that was killed: all there, and not locked.
        let killed = base.open().unwrap().sub("clusters").unwrap().unwrap().make_sub("1-0").unwrap();
        Authority::open_or_create(&StateDir::at(killed.path())).unwrap();
        drop(killed);
        let next = ThrowAwayState::make(&base).unwrap();
        assert!(!names().contains(&"1-0".to_owned()), "{:?}", names());
        assert!(Authority::open(one.state()).is_ok());
        drop((one, next));
        assert_eq!(names(), Vec::<String>::new());
    }
}
