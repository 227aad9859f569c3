//! Which files a graph may touch, and the only way to them: kernels name a path and get an open file.
//!
//! Whoever started the worker decides for it: everything, as in the user's own process; what the user may, except secrets; or
//! what lies beneath data roots. A path is resolved directory by directory, each opened from the one before (`resolve`), so what
//! is checked is what is opened: links, `..` and whoever exchanges a directory meanwhile change where the walk goes, never what is
//! allowed there. Of what lies outside, nobody is told whether it exists.
//!
//! Secrets are kept from graphs beneath a data root too: every state directory and all spill files, what the process names as
//! secret, what the system shows of processes and devices, and hidden files of the user's home where a root holds all of that.

mod create;
mod resolve;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;

pub use create::{Directories, NewFile, Target};
use resolve::{FileId, Found, Walk};

/// What the system shows of processes, devices and itself: environments, memory, keys.
const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// How often a walk is begun again when what it found was exchanged before it could be opened.
const MAX_TRIES: usize = 8;

/// The files that a graph may touch. Cloning gives another handle to the same rights.
#[derive(Clone, Debug)]
pub struct FileAccess {
    /// `None` for everything.
    limits: Option<Arc<Limits>>,
}

#[derive(Debug)]
struct Limits {
    /// `None` for whatever the user may touch.
    roots: Option<Vec<Root>>,
    /// Files and directories that stay out of reach. They may come to be later, so they are looked up whenever one is opened.
    secrets: Vec<PathBuf>,
    /// The user's home. Where a root holds all of it, what is hidden there is secret: keys, and what shells and programs obey.
    home: Option<PathBuf>,
}

#[derive(Debug)]
struct Root {
    id: FileId,
    /// Open, so that no other directory gets its number.
    _directory: OwnedFd,
}

/// Why a file is not given.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct AccessError {
    /// The path as it was given.
    pub path: PathBuf,
    /// Why.
    pub why: Denial,
}

/// The reason of an [`AccessError`].
#[derive(Debug, thiserror::Error)]
pub enum Denial {
    /// It is beneath no data root, whether it exists or not.
    #[error("outside this worker's data roots")]
    Outside,
    /// There are no data roots.
    #[error("this worker lets graphs touch no files; start it with --data-root DIR to allow what is beneath DIR")]
    NoRoots,
    /// It is one of the secrets, or among them.
    #[error("kept from graphs, as all is that shows secrets of a cluster, processes or devices")]
    Secret,
    /// A directory, pipe, socket or device.
    #[error("not a regular file")]
    NotAFile,
    /// The system does not give it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for Denial {
    fn from(error: Errno) -> Self {
        Denial::Io(error.into())
    }
}

impl FileAccess {
    /// Whatever the process's user may touch: for graphs that are computed in the process of whoever made them.
    #[must_use]
    pub fn everything() -> Self {
        Self { limits: None }
    }

    /// Whatever the process's user may touch, except `secrets` and what the system shows of processes and devices.
    #[must_use]
    pub fn of_user(secrets: &[PathBuf]) -> Self {
        Self::limited(None, secrets, None)
    }

    /// What lies beneath `roots`, which must exist, except `secrets`; nothing when there are no roots.
    ///
    /// # Errors
    /// When a root cannot be opened, is no directory, or is where everything is.
    pub fn beneath(roots: &[PathBuf], secrets: &[PathBuf]) -> io::Result<Self> {
        Self::beneath_of(roots, secrets, std::env::home_dir())
    }

    fn beneath_of(roots: &[PathBuf], secrets: &[PathBuf], home: Option<PathBuf>) -> io::Result<Self> {
        let open = |root: &PathBuf| {
            let directory = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let id = FileId::of(&rustix::fs::fstat(&directory)?);
            if id == FileId::of(&rustix::fs::stat("/")?) {
                let reason = "it holds everything, the keys of this machine too; name a directory for data";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            Ok(Root { id, _directory: directory })
        };
        Ok(Self::limited(Some(roots.iter().map(open).collect::<io::Result<Vec<_>>>()?), secrets, home))
    }

    /// No file at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::limited(Some(Vec::new()), &[], None)
    }

    fn limited(roots: Option<Vec<Root>>, secrets: &[PathBuf], home: Option<PathBuf>) -> Self {
        let secrets = SYSTEM.iter().map(PathBuf::from).chain(secrets.iter().cloned()).collect();
        Self { limits: Some(Arc::new(Limits { roots, secrets, home })) }
    }

    /// Open a file for reading.
    ///
    /// # Errors
    /// When there is none, it is no regular file, or it may not be touched.
    pub fn open(&self, path: &Path) -> Result<File, AccessError> {
        let opened = match &self.limits {
            None => File::open(path).map_err(Denial::from),
            Some(limits) => limits.open(path),
        };
        opened.map_err(|why| AccessError { path: path.to_owned(), why })
    }

    /// A file to be: where it goes, its directory made as `directories` says.
    ///
    /// # Errors
    /// When it may not be touched, or there is no directory for it.
    pub fn target(&self, path: &Path, directories: Directories) -> Result<Target, AccessError> {
        let found = match &self.limits {
            None => Target::anywhere(path, directories),
            Some(limits) => limits.walk(path).and_then(|walk| Target::of_walk(walk, path, directories)),
        };
        found.map_err(|why| AccessError { path: path.to_owned(), why })
    }
}

/// Open `name` in `directory` for reading; `None` when it is no regular file. Nothing is waited for: a pipe would wait for its
/// other end.
fn open_regular(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A socket, or a device that is not there.
        Err(Errno::NXIO | Errno::NODEV) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = rustix::fs::fstat(&file)?.st_mode;
    Ok((FileType::from_raw_mode(mode) == FileType::RegularFile).then_some(file))
}

impl Limits {
    fn open(&self, path: &Path) -> Result<File, Denial> {
        for _ in 0..MAX_TRIES {
            let walk = self.walk(path)?;
            let opened = match walk.found() {
                Found::File { directory, name } => open_regular(directory, name),
                Found::Directory => return Err(Denial::NotAFile),
                Found::Nothing { .. } => return Err(Errno::NOENT.into()),
            };
            match opened {
                Ok(Some(file)) => {
                    self.check_file(&file)?;
                    return Ok(file);
                }
                Ok(None) => return Err(Denial::NotAFile),
                // It has become a link, or has gone: where does the path lead now?
                Err(Errno::LOOP | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Resolve `path` as far as it goes. What comes back may be touched, as far as its directories tell.
    fn walk(&self, path: &Path) -> Result<Walk, Denial> {
        if self.roots.as_ref().is_some_and(Vec::is_empty) {
            return Err(Denial::NoRoots);
        }
        let absolute = std::path::absolute(path)?;
        let mut walk = Walk::begin()?;
        let ended = walk.run(&absolute);
        let is_inside = |roots: &Vec<Root>| walk.ids().any(|id| roots.iter().any(|root| root.id == id));
        if !self.roots.as_ref().is_none_or(is_inside) {
            return Err(Denial::Outside);
        }
        if walk.is_private() || self.is_hidden(&walk) || self.secrets.iter().any(|secret| is_within(&walk, secret)) {
            return Err(Denial::Secret);
        }
        ended?;
        Ok(walk)
    }

    /// Whether `walk` has come to something hidden in the user's home through a root that holds all of the home.
    fn is_hidden(&self, walk: &Walk) -> bool {
        let home = self.home.as_ref().and_then(|home| rustix::fs::stat(home).ok()).map(|stat| FileId::of(&stat));
        let Some(at) = home.and_then(|home| walk.ids().position(|id| id == home)) else { return false };
        let is_root = |id: FileId| self.roots.iter().flatten().any(|root| root.id == id);
        walk.ids().take(at + 1).any(is_root) && walk.name_below(at).is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    }

    /// The file itself may be a secret, under whatever name.
    fn check_file(&self, file: &File) -> Result<(), Denial> {
        let id = FileId::of(&rustix::fs::fstat(file)?);
        let is_secret = |secret: &PathBuf| rustix::fs::stat(secret).is_ok_and(|stat| FileId::of(&stat) == id);
        if resolve::is_system(file) || self.secrets.iter().any(is_secret) { Err(Denial::Secret) } else { Ok(()) }
    }
}

/// Whether `walk` has come to `secret`, or would where names that do not exist yet are made.
fn is_within(walk: &Walk, secret: &Path) -> bool {
    let Some((there, stat)) = secret.ancestors().find_map(|path| Some((path, rustix::fs::stat(path).ok()?))) else {
        return false;
    };
    let id = FileId::of(&stat);
    let Ok(missing) = secret.strip_prefix(there) else { return false };
    let mut missing = missing.components().map(Component::as_os_str).peekable();
    if missing.peek().is_none() {
        return walk.ids().any(|passed| passed == id);
    }
    match walk.found() {
        Found::Nothing { missing: made } if walk.ids().last() == Some(id) => {
            let mut made = made.iter().map(OsString::as_os_str);
            missing.all(|name| made.next() == Some(name))
        }
        Found::Nothing { .. } | Found::File { .. } | Found::Directory => false,
    }
}

#[cfg(test)]
mod tests;
