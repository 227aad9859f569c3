//! Which files the graphs that run here may touch: decided once for each body, never for a task.

use std::path::PathBuf;

use rask_graphs::FileAccess;

/// What graphs may touch, by whose they are. Decided by whoever starts the worker.
#[derive(Clone, Debug)]
pub struct FilePolicy {
    of_user: FileAccess,
    of_others: FileAccess,
}

impl FilePolicy {
    /// Everything: for graphs that are computed in the process of whoever made them.
    #[must_use]
    pub fn everything() -> Self {
        Self::same(FileAccess::everything())
    }

    /// No file at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::same(FileAccess::nothing())
    }

    /// What lies beneath `roots` but for `secrets`, for all graphs; nothing without roots.
    ///
    /// # Errors
    /// When a root cannot be opened, or is where everything is.
    pub fn beneath(roots: &[PathBuf], secrets: &[PathBuf]) -> std::io::Result<Self> {
        Ok(Self::same(FileAccess::beneath(roots, secrets)?))
    }

    /// What this process's user may touch but for `secrets`, for graphs of the same user; nothing for others.
    #[must_use]
    pub fn of_user(secrets: &[PathBuf]) -> Self {
        Self { of_user: FileAccess::of_user(secrets), of_others: FileAccess::nothing() }
    }

    fn same(files: FileAccess) -> Self {
        Self { of_user: files.clone(), of_others: files }
    }

    /// What a graph may touch; `is_of_user` when it is the cluster's own user's.
    pub(super) fn of(&self, is_of_user: bool) -> &FileAccess {
        if is_of_user { &self.of_user } else { &self.of_others }
    }
}
