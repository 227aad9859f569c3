//! Directories and files that are trusted because only their owner can have written them.
//!
//! Each is opened from the directory above it, links are not followed, and owner and mode are asked of what was opened, every
//! time: what somebody else made, or may change or read, is refused in words, whoever made it and whenever.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::authority::AuthorityError;

/// Longer files are not ours.
const MAX_NBYTES: u64 = 64 << 10;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory of this process's user that nobody else may read or change.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// What may be done about a directory whose mode lets others in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exposure {
    Refused,
    /// As long as nothing is in it, nothing can have been read or changed.
    EndedWhenEmpty,
}

impl PrivateDir {
    /// The directory `path`, which may be a link; `None` when there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, AuthorityError> {
        match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
            Ok(descriptor) => Self::trust(descriptor, path.to_owned(), Exposure::EndedWhenEmpty).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(path, error)),
        }
    }

    /// The directory `path`, made with what is missing above it if there is none.
    pub(crate) fn open_or_make(path: &Path) -> Result<Self, AuthorityError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| AuthorityError::File { path: path.to_owned(), source })?;
        Self::open(path)?.ok_or_else(|| failed(path, Errno::NOENT))
    }

    /// The directory `name` in it; `None` when there is none.
    pub(crate) fn sub(&self, name: &str) -> Result<Option<Self>, AuthorityError> {
        let path = self.path.join(name);
        match openat(&self.descriptor, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(descriptor) => Self::trust(descriptor, path, Exposure::Refused).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(AuthorityError::Unexpected { path }),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// The directory `name` in it, made if there is none.
    pub(crate) fn make_sub(&self, name: &str) -> Result<Self, AuthorityError> {
        match mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(&self.path.join(name), error)),
        }
        self.sub(name)?.ok_or_else(|| failed(&self.path.join(name), Errno::NOENT))
    }

    fn trust(descriptor: OwnedFd, path: PathBuf, exposure: Exposure) -> Result<Self, AuthorityError> {
        let this = Self { descriptor, path };
        match check(&this.descriptor, &this.path, FileType::Directory) {
            Err(AuthorityError::Exposed { .. }) if exposure == Exposure::EndedWhenEmpty && this.names()?.is_empty() => {
                fchmod(&this.descriptor, Mode::from_raw_mode(0o700)).map_err(|error| failed(&this.path, error))?;
                // Somebody may just have put something there.
                if this.names()?.is_empty() { Ok(this) } else { Err(AuthorityError::Exposed { path: this.path, mode: 0o777 }) }
            }
            Err(error) => Err(error),
            Ok(()) => Ok(this),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The text of the file `name` in it; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, AuthorityError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(AuthorityError::Unexpected { path }),
            Err(error) => return Err(failed(&path, error)),
        };
        check(&file, &path, FileType::RegularFile)?;
        let mut text = Zeroizing::new(String::new());
        let read = File::from(file).take(MAX_NBYTES).read_to_string(&mut text);
        read.map_err(|source| AuthorityError::File { path, source })?;
        Ok(Some(text))
    }

    /// Write a new file and have it on the disk before returning.
    pub(crate) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), AuthorityError> {
        let path = self.path.join(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.descriptor, name, flags, Mode::from_raw_mode(0o600)).map_err(|error| failed(&path, error))?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|source| AuthorityError::File { path, source })
    }

    /// Put a file in the place of another: after a crash there is the one or the other.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), AuthorityError> {
        let beside = format!("{name}.new-{}", std::process::id());
        self.remove(&beside)?;
        self.write_new(&beside, bytes)?;
        self.rename(&beside, name)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), AuthorityError> {
        let renamed = renameat(&self.descriptor, from, &self.descriptor, to);
        renamed.map_err(|error| failed(&self.path.join(to), error))
    }

    /// Remove a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), AuthorityError> {
        match unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(&self.path.join(name), error)),
        }
    }

    /// The names of what is in it.
    pub(crate) fn names(&self) -> Result<Vec<String>, AuthorityError> {
        let entries = rustix::fs::Dir::read_from(&self.descriptor).map_err(|error| failed(&self.path, error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.path, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The directory's lock, unless somebody else has it.
    pub(crate) fn try_lock(&self) -> Option<OwnedFd> {
        let lock = openat(&self.descriptor, ".", DIRECTORY, Mode::empty()).ok()?;
        let locked = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        locked.is_ok().then_some(lock)
    }

    /// Wait until nobody else has the directory's lock, and have it until what is returned is dropped.
    pub(crate) fn lock(&self) -> Result<OwnedFd, AuthorityError> {
        // A description of its own: a lock belongs to that, and so do two locks of one process.
        let lock = openat(&self.descriptor, ".", DIRECTORY, Mode::empty()).map_err(|error| failed(&self.path, error))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| failed(&self.path, error))?;
        Ok(lock)
    }
}

fn failed(path: &Path, error: Errno) -> AuthorityError {
    AuthorityError::File { path: path.to_owned(), source: error.into() }
}

/// Refuse what belongs to somebody else, what others may read or change, and what is something else than expected.
fn check(file: impl AsFd, path: &Path, kind: FileType) -> Result<(), AuthorityError> {
    let stat = fstat(file).map_err(|error| failed(path, error))?;
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Err(AuthorityError::Unexpected { path: path.to_owned() });
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(AuthorityError::Foreign { path: path.to_owned(), owner: stat.st_uid, user });
    }
    let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(AuthorityError::Exposed { path: path.to_owned(), mode }) }
}

/// Whether others than its owner may read a file that holds a secret: its mode then.
///
/// # Errors
/// When the file cannot be looked at.
pub fn exposed_mode(file: &File) -> std::io::Result<Option<u32>> {
    let mode = file.metadata()?.mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}
