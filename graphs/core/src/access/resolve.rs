//! Following a path by hand: every directory is opened from the one before it, so nothing that is done to the tree meanwhile leads
//! elsewhere than where the walk knows itself to be.
//!
//! The system can do this itself (`openat2` with `RESOLVE_BENEATH`), though not everywhere, not through links that are absolute
//! and lead back inside, and without telling which directories it came through; that is what is asked here.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

/// As many links as the system follows.
const MAX_LINKS: usize = 40;
/// Directories above a file; each is held open while its path is followed.
const MAX_DEPTH: usize = 128;
/// File systems that show the system itself (magic numbers of `statfs`): proc, sysfs, debugfs, tracefs, securityfs, configfs, bpf,
/// control groups, terminals.
const SYSTEM: [u64; 11] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0xf97c_ff8c,
];

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[expect(clippy::useless_conversion, reason = "the fields' types differ between systems")]
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: u64::from(stat.st_dev), inode: u64::from(stat.st_ino) }
    }
}

/// Whether it is of a file system that shows processes, devices, or the system's own state.
pub(super) fn is_system(file: impl AsFd) -> bool {
    #[expect(clippy::cast_sign_loss, reason = "magic numbers are 32 bits, whatever the field's type")]
    rustix::fs::fstatfs(file).is_ok_and(|stat| SYSTEM.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

struct Directory {
    descriptor: OwnedFd,
    id: FileId,
    name: OsString,
    is_private: bool,
}

/// Where a walk has come to.
pub(super) enum Found<'a> {
    /// Something that is neither a directory nor a link.
    File {
        directory: &'a OwnedFd,
        name: &'a OsStr,
    },
    Directory,
    /// The names that follow do not exist, from the directory where the walk has come to.
    Nothing {
        missing: &'a VecDeque<OsString>,
    },
}

/// A walk from the top of the tree.
pub(super) struct Walk {
    /// From the top down to where it is.
    directories: Vec<Directory>,
    /// What has still to be followed.
    pending: VecDeque<OsString>,
    /// The last name, of what is no directory.
    file: Option<OsString>,
}

impl Walk {
    pub(super) fn begin() -> io::Result<Self> {
        let descriptor = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let id = FileId::of(&fstat(&descriptor)?);
        let top = Directory { descriptor, id, name: OsString::new(), is_private: false };
        Ok(Self { directories: vec![top], pending: VecDeque::new(), file: None })
    }

    /// Follow `path`, which is absolute. On an error the walk is where it happened.
    pub(super) fn run(&mut self, path: &Path) -> rustix::io::Result<()> {
        self.expect(path);
        let mut n_links = 0;
        while let Some(name) = self.pending.pop_front() {
            if name == ".." {
                if self.directories.len() > 1 {
                    self.directories.pop();
                }
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match openat(self.here(), &name, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    self.pending.push_front(name);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let stat = fstat(&next)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.enter(next, &stat, &name)?,
                FileType::Symlink => {
                    n_links += 1;
                    if n_links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(&next, "", Vec::new())?;
                    self.expect(Path::new(&OsString::from_vec(target.into_bytes())));
                }
                FileType::RegularFile
                | FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {
                    if !self.pending.is_empty() {
                        return Err(Errno::NOTDIR);
                    }
                    self.file = Some(name);
                }
            }
        }
        Ok(())
    }

    /// `path` is followed next, before what was to be followed so far.
    fn expect(&mut self, path: &Path) {
        if path.is_absolute() {
            self.directories.truncate(1);
        }
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.pending.push_front(name.to_owned()),
                Component::ParentDir => self.pending.push_front("..".into()),
                Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            }
        }
    }

    fn enter(&mut self, descriptor: OwnedFd, stat: &Stat, name: &OsStr) -> rustix::io::Result<()> {
        if self.directories.len() >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let is_private = is_spill_directory(name) || is_state_directory(&descriptor);
        self.directories.push(Directory { descriptor, id: FileId::of(stat), name: name.to_owned(), is_private });
        Ok(())
    }

    /// Make the directory `name` where the walk is, if it is not there, and go into it.
    pub(super) fn make(&mut self, name: &OsStr) -> rustix::io::Result<()> {
        match rustix::fs::mkdirat(self.here(), name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let made = openat(self.here(), name, flags, Mode::empty())?;
        let stat = fstat(&made)?;
        self.enter(made, &stat, name)
    }

    fn here(&self) -> &OwnedFd {
        let [.., last] = &self.directories[..] else { unreachable!("the top is never left") };
        &last.descriptor
    }

    /// The directory where it has come to.
    pub(super) fn into_here(mut self) -> io::Result<OwnedFd> {
        self.directories.pop().map(|last| last.descriptor).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn found(&self) -> Found<'_> {
        match (&self.file, self.pending.is_empty()) {
            (Some(name), _) => Found::File { directory: self.here(), name },
            (None, true) => Found::Directory,
            (None, false) => Found::Nothing { missing: &self.pending },
        }
    }

    /// The directories from the top to where it is.
    pub(super) fn ids(&self) -> impl Iterator<Item = FileId> {
        self.directories.iter().map(|directory| directory.id)
    }

    /// The name that follows the directory `at` on the way.
    pub(super) fn name_below(&self, at: usize) -> Option<&OsStr> {
        let last = self.file.as_ref().or(self.pending.front());
        self.directories.get(at + 1).map(|next| &next.name).or(last).map(OsString::as_os_str)
    }

    /// Whether it has come through a state directory of any cluster, or into spill files.
    pub(super) fn is_private(&self) -> bool {
        self.directories.iter().any(|directory| directory.is_private)
    }
}

/// Workers' directories for spill files are called so: `rask-worker-<process>-<n>`.
fn is_spill_directory(name: &OsStr) -> bool {
    let numbers = name.to_str().and_then(|name| name.strip_prefix("rask-worker-")).and_then(|rest| rest.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(process, n)| is_number(process) && is_number(n))
}

/// Whether an authority is in it.
fn is_state_directory(directory: &OwnedFd) -> bool {
    statat(directory, "authority/ca.key", AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
