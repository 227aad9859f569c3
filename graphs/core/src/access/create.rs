//! Files that graphs write: under a temporary name in the directory where they are to be, and under their own once they are
//! complete. The directory stays open all the while, so the file ends up where it was allowed to.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, openat};
use rustix::io::Errno;

use super::resolve::{Found, Walk, is_system};
use super::{AccessError, Denial, open_regular};

/// Which directories may be made for a new file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directories {
    /// None: its directory must be there.
    There,
    /// Its directory, in one that is there.
    Last,
    /// All that are missing.
    All,
}

/// Where a file goes.
#[derive(Debug)]
pub struct Target {
    directory: OwnedFd,
    name: OsString,
    /// As it was given, for messages.
    path: PathBuf,
}

impl Target {
    /// Wherever `path` leads.
    pub(super) fn anywhere(path: &Path, directories: Directories) -> Result<Self, Denial> {
        let name = path.file_name().ok_or(Denial::NotAFile)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match directories {
            Directories::Last if !parent.is_dir() => std::fs::create_dir(parent).or_else(|error| match parent.is_dir() {
                true => Ok(()),
                false => Err(error),
            })?,
            Directories::All => std::fs::create_dir_all(parent)?,
            Directories::There | Directories::Last => {}
        }
        let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { directory, name: name.to_owned(), path: path.to_owned() })
    }

    /// Where `walk`, of which everything so far is allowed, has come to.
    pub(super) fn of_walk(mut walk: Walk, path: &Path, directories: Directories) -> Result<Self, Denial> {
        let mut missing = match walk.found() {
            Found::File { name, .. } => VecDeque::from([name.to_owned()]),
            Found::Directory => return Err(Denial::NotAFile),
            Found::Nothing { missing } => missing.clone(),
        };
        let n_may_be_made = match directories {
            Directories::There => 0,
            Directories::Last => 1,
            Directories::All => usize::MAX - 1,
        };
        // What is not there has no parent.
        if missing.len() > n_may_be_made + 1 || missing.iter().any(|name| name == "..") {
            return Err(Errno::NOENT.into());
        }
        let name = missing.pop_back().ok_or(Denial::NotAFile)?;
        for directory in &missing {
            walk.make(directory)?;
        }
        // Somebody else may have made them.
        if walk.is_private() {
            return Err(Denial::Secret);
        }
        let directory = walk.into_here()?;
        if is_system(&directory) {
            return Err(Denial::Secret);
        }
        Ok(Self { directory, name, path: path.to_owned() })
    }

    /// What has its name at present, opened for reading: `None` when nothing has, `Some(None)` when it is no regular file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn existing(&self) -> Result<Option<Option<File>>, AccessError> {
        match open_regular(&self.directory, &self.name) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Ok(Some(None)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Begin to write it, under another name for the time being.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn begin(self) -> Result<NewFile, AccessError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let temporary: OsString = format!(".rask-{}-{number}.tmp", std::process::id()).into();
            match openat(&self.directory, &temporary, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => return Ok(NewFile { target: self, temporary, file: File::from(file), is_renamed: false }),
                // Of a process with the same number: on another host, or killed.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, error: Errno) -> AccessError {
        AccessError { path: self.path.clone(), why: error.into() }
    }
}

/// A file that is being written. Dropped before it has its name, it is removed.
#[derive(Debug)]
pub struct NewFile {
    target: Target,
    temporary: OsString,
    file: File,
    is_renamed: bool,
}

impl NewFile {
    /// The file, to write to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it goes.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Onto the disk, and under its name; returns its length in bytes. With `overwrite` it replaces what has the name.
    ///
    /// # Errors
    /// When it cannot be written or renamed; of kind `AlreadyExists` when there is one and it may not be replaced.
    pub fn finish(&mut self, overwrite: bool) -> io::Result<u64> {
        self.file.sync_all()?;
        let nbytes = self.file.metadata()?.len();
        let (directory, name): (_, &OsStr) = (&self.target.directory, &self.target.name);
        if overwrite {
            rustix::fs::renameat(directory, &self.temporary, directory, name)?;
            self.is_renamed = true;
        } else {
            // Unlike renaming, this fails where there is a file; the temporary name goes when this is dropped.
            rustix::fs::linkat(directory, &self.temporary, directory, name, AtFlags::empty())?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::fsync(openat(directory, ".", flags, Mode::empty())?)?;
        Ok(nbytes)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_renamed {
            // Where even this fails, a hidden file stays.
            let _ = rustix::fs::unlinkat(&self.target.directory, &self.temporary, AtFlags::empty());
        }
    }
}
