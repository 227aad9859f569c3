//! The state directory: where a user's cluster keeps its authority, its tokens and the number of its last start.

use std::path::{Path, PathBuf};

use crate::authority::AuthorityError;
use crate::private::PrivateDir;

/// Where a user's cluster keeps its authority and tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// `None` when nobody has said where, and the user has no home.
    path: Option<PathBuf>,
}

impl StateDir {
    /// The directory `path`, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()) }
    }

    /// Its path.
    ///
    /// # Errors
    /// [`AuthorityError::Nowhere`] when there is none.
    pub fn path(&self) -> Result<&Path, AuthorityError> {
        self.path.as_deref().ok_or(AuthorityError::Nowhere)
    }

    /// The directory, found to be trustworthy.
    pub(crate) fn open(&self) -> Result<PrivateDir, AuthorityError> {
        let path = self.path()?;
        PrivateDir::open(path)?.ok_or_else(|| AuthorityError::Missing(path.to_owned()))
    }

    pub(crate) fn open_or_make(&self) -> Result<PrivateDir, AuthorityError> {
        PrivateDir::open_or_make(self.path()?)
    }

    /// The number of this start: one more than the last, which is kept here.
    ///
    /// # Errors
    /// When the directory cannot be used, or what is kept there is no number.
    pub fn next_epoch(&self) -> Result<u32, AuthorityError> {
        const FILE: &str = "epoch";
        let state = self.open_or_make()?;
        let last = match state.read(FILE)? {
            None => 0,
            Some(text) => text.trim().parse::<u32>().map_err(|_| AuthorityError::Unreadable {
                path: state.path().join(FILE),
                reason: "not the number of the scheduler's last start; results of then may still be on their way, so write a \
                         number there that is larger than any before"
                    .to_owned(),
            })?,
        };
        let epoch = last.wrapping_add(1);
        state.replace(FILE, format!("{epoch}\n").as_bytes())?;
        Ok(epoch)
    }
}

impl Default for StateDir {
    /// `RASK_STATE_DIR`, else `$XDG_STATE_HOME/rask`, else `~/.local/state/rask`, else systemd's `$STATE_DIRECTORY`, else what
    /// `~` is by the system's list of users. Never a directory that others may write to: who makes it first would own the cluster.
    fn default() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let of_home = |home: PathBuf| home.join(".local/state/rask");
        let path = variable("RASK_STATE_DIR")
            .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("rask")))
            .or_else(|| variable("HOME").map(of_home))
            .or_else(|| std::env::var("STATE_DIRECTORY").ok()?.split(':').find(|path| !path.is_empty()).map(PathBuf::from))
            .or_else(|| {
                let users = std::fs::read_to_string("/etc/passwd").ok()?;
                home_of(&users, rustix::process::geteuid().as_raw()).filter(|home| home.is_dir()).map(of_home)
            });
        Self { path }
    }
}

/// The home of a user in the text of a list of users.
fn home_of(users: &str, user: u32) -> Option<PathBuf> {
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.len() >= 6 && fields[2].parse() == Ok(user))?;
    Some(PathBuf::from(fields[5])).filter(|home| home.is_absolute() && home != Path::new("/"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn starts_are_counted_and_what_is_no_number_is_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        assert_eq!((state.next_epoch().unwrap(), state.next_epoch().unwrap()), (1, 2));
        let file = dir.path().join("state/epoch");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for damaged in ["", "two", "-1", "99999999999"] {
            fs::write(&file, damaged).unwrap();
            assert!(matches!(state.next_epoch(), Err(AuthorityError::Unreadable { .. })), "{damaged}");
        }
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert!(matches!(state.next_epoch(), Err(AuthorityError::Unexpected { .. })));
    }

    #[test]
    fn the_list_of_users_knows_homes() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbad:x\nnobody:x:65534:65534::relative:/bin/false\na:x:7:7:::/bin/sh\n";
        assert_eq!(home_of(users, 0), Some("/root".into()));
        assert_eq!((home_of(users, 65_534), home_of(users, 7), home_of(users, 1)), (None, None, None));
    }

    #[test]
    fn without_a_home_there_is_no_directory() {
        let nowhere = StateDir { path: None };
        let error = nowhere.open().unwrap_err().to_string();
        assert!(error.contains("RASK_STATE_DIR"), "{error}");
    }
}
