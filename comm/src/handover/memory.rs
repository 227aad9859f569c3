//! Memory that two processes share: sealed so that neither can change it, and mapped so that the receiver uses it in place.
//!
//! With `reading.rs` the only file of this crate with unsafe code. A mapping is made only after its file was found to be sealed against writing
//! and shrinking: then nobody, whoever made it, can change or take away what the mapping shows.

#![expect(unsafe_code, reason = "a mapping is a pointer until it has been given a length and a lifetime")]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::aligned::ALIGNMENT;

/// What a receiver insists on.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// Where a buffer is in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) nbytes: u64,
}

/// Where buffers of these lengths go in a file, each aligned; and how long the file becomes.
pub(super) fn lay_out(lengths: impl IntoIterator<Item = u64>) -> (Vec<Range>, u64) {
    let mut end = 0;
    let mut place = |nbytes: u64| {
        let range = Range { offset: u64::next_multiple_of(end, ALIGNMENT as u64), nbytes };
        end = range.offset + nbytes;
        range
    };
    let ranges = lengths.into_iter().map(&mut place).collect();
    (ranges, end)
}

/// Copy `buffers` to where `ranges` says in a new file, and seal it.
pub(super) fn seal_copy(buffers: &[Bytes], ranges: &[Range], nbytes: u64) -> io::Result<OwnedFd> {
    let file = memfd_create("rask-result", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, nbytes)?;
    for (buffer, range) in buffers.iter().zip(ranges) {
        let mut done = 0;
        while done < buffer.len() {
            let written = rustix::io::pwrite(&file, &buffer[done..], range.offset + done as u64)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += written;
        }
    }
    fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file)
}

/// A whole sealed file in memory. Read only, and never empty.
struct Mapping {
    start: NonNull<u8>,
    nbytes: usize,
    kept: Weak<KeptFiles>,
}

// SAFETY: the memory is read only for everybody as long as the mapping lives (see `Mapping::new`), and the mapping is not bound
// to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Map `file`, of which the sender says that it has `nbytes` bytes.
    fn new(file: BorrowedFd<'_>, nbytes: u64) -> io::Result<Self> {
        let refuse = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        // Seals are asked for first: a file that cannot have seals is not of memory, and its length means nothing yet.
        let seals = fcntl_get_seals(file).map_err(|error| refuse(format!("a descriptor that cannot be sealed: {error}")))?;
        if !seals.contains(SEALS) {
            return Err(refuse("memory that the sender can still change".to_owned()));
        }
        let stat = fstat(file)?;
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        if found != nbytes || nbytes == 0 {
            return Err(refuse(format!("memory of {found} bytes where {nbytes} were announced")));
        }
        // Mapping it would fill its holes, with memory that nobody has reckoned with. Blocks are of 512 bytes, whatever the system's
        // pages are.
        let n_filled = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if n_filled < nbytes {
            return Err(refuse(format!("memory of {nbytes} bytes of which only {n_filled} are there")));
        }
        let nbytes = usize::try_from(nbytes).map_err(|_| refuse("more memory than there are addresses".to_owned()))?;
        // Private, because kernels before 6.7 refuse shared mappings of files that are sealed against writing; nobody writes, so
        // the pages are the file's own all the same.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that Rust knows of.
        let start = unsafe { mmap(std::ptr::null_mut(), nbytes, ProtFlags::READ, flags, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| refuse("a mapping at address zero".to_owned()))?;
        Ok(Self { start, nbytes, kept: Weak::new() })
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` is the beginning of a mapping of `nbytes` readable bytes that lives as long as `self`. The file behind
        // it is sealed: it cannot shrink, so every page stays backed, and nobody can write to it, so the bytes do not change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.nbytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.upgrade() {
            kept.forget(self.start.as_ptr().addr());
        }
        // SAFETY: the mapping is this value's own, and whoever borrowed from it is gone.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.nbytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Files behind buffers that were received, so that they can be passed on as they are. Bounded: each takes a descriptor.
pub(super) struct KeptFiles {
    by_address: Mutex<BTreeMap<usize, KeptFile>>,
    max_files: usize,
}

struct KeptFile {
    file: Arc<OwnedFd>,
    nbytes: usize,
}

impl KeptFiles {
    pub(super) fn new(max_files: usize) -> Self {
        Self { by_address: Mutex::default(), max_files }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, KeptFile>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, address: usize) {
        let kept = self.lock().remove(&address);
        drop(kept);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    #[cfg(test)]
    pub(super) fn only_file_for_test(&self) -> Arc<OwnedFd> {
        let by_address = self.lock();
        assert_eq!(by_address.len(), 1);
        Arc::clone(&by_address.values().next().unwrap().file)
    }

    /// The buffers at `ranges` of a file of `nbytes` bytes, in place. The file is kept while one of them is, if there is room.
    pub(super) fn map(self: &Arc<Self>, file: OwnedFd, nbytes: u64, ranges: &[Range]) -> io::Result<Vec<Bytes>> {
        let refuse = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
        let is_inside = |range: &Range| range.offset.checked_add(range.nbytes).is_some_and(|end| end <= nbytes);
        if !ranges.iter().all(|range| is_inside(range) && range.offset.is_multiple_of(ALIGNMENT as u64)) {
            return Err(refuse("a buffer that is not in the memory it should be in"));
        }
        let mut mapping = Mapping::new(file.as_fd(), nbytes)?;
        let mut by_address = self.lock();
        if by_address.len() < self.max_files {
            by_address.insert(mapping.start.as_ptr().addr(), KeptFile { file: Arc::new(file), nbytes: mapping.nbytes });
            mapping.kept = Arc::downgrade(self);
        }
        drop(by_address);
        let whole = Bytes::from_owner(mapping);
        // Checked above: offsets and lengths are within a mapping, so they fit the address space.
        let slice = |range: &Range| whole.slice(range.offset as usize..(range.offset + range.nbytes) as usize);
        Ok(ranges.iter().map(slice).collect())
    }

    /// The file that all of `buffers` are in, and where. `None` when there is no such file, or when they are so small a part
    /// of it that whoever gets them would keep much more memory alive than they are worth.
    pub(super) fn find(&self, buffers: &[Bytes]) -> Option<(Arc<OwnedFd>, u64, Vec<Range>)> {
        let first = buffers.iter().find(|buffer| !buffer.is_empty())?.as_ptr().addr();
        let by_address = self.lock();
        let (start, kept) = by_address.range(..=first).next_back()?;
        let mut ranges = Vec::with_capacity(buffers.len());
        let mut nbytes_used = 0;
        for buffer in buffers {
            let offset = if buffer.is_empty() { 0 } else { buffer.as_ptr().addr().checked_sub(*start)? };
            if offset + buffer.len() > kept.nbytes || !offset.is_multiple_of(ALIGNMENT) {
                return None;
            }
            nbytes_used += buffer.len();
            ranges.push(Range { offset: offset as u64, nbytes: buffer.len() as u64 });
        }
        (nbytes_used >= kept.nbytes / 2).then(|| (Arc::clone(&kept.file), kept.nbytes as u64, ranges))
    }
}

impl fmt::Debug for KeptFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptFiles").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers() -> Vec<Bytes> {
        [1_000, 0, 64, 5_000].iter().zip(1_u8..).map(|(nbytes, byte)| Bytes::from(vec![byte; *nbytes])).collect()
    }

    fn lengths(buffers: &[Bytes]) -> impl Iterator<Item = u64> {
        buffers.iter().map(|buffer| buffer.len() as u64)
    }

    #[test]
    fn what_is_sealed_is_mapped_in_place_and_passed_on_as_it_is() {
        let kept = Arc::new(KeptFiles::new(1));
        let sent = buffers();
        let (ranges, nbytes) = lay_out(lengths(&sent));
        let got = kept.map(seal_copy(&sent, &ranges, nbytes).unwrap(), nbytes, &ranges).unwrap();
        assert_eq!(got, sent);
        assert!(got.iter().all(|buffer| buffer.as_ptr().addr().is_multiple_of(ALIGNMENT)));
        let (file, found_nbytes, found) = kept.find(&got).expect("the file is kept");
        assert_eq!(found_nbytes, nbytes);
        // Passed on: a second mapping of the same file, for which there is no room among the kept.
        let passed = kept.map(file.try_clone().unwrap(), nbytes, &found).unwrap();
        assert_eq!(passed, sent);
        assert_eq!(kept.len(), 1);
        assert!(kept.find(&passed).is_none(), "this mapping's file is not kept");
        assert!(kept.find(&got[..1]).is_none(), "a sixth of the file is not worth the rest");
        assert!(kept.find(&sent).is_none(), "these are elsewhere");
        let last = got[3].clone();
        drop(got);
        assert_eq!((kept.len(), &last[..]), (1, &[4; 5_000][..]), "one buffer keeps all of it");
        drop(last);
        assert_eq!(kept.len(), 0);
        assert_eq!(passed, sent);
    }

    #[test]
    fn what_can_change_is_refused() {
        let kept = Arc::new(KeptFiles::new(8));
        let range = [Range { offset: 0, nbytes: 100 }];
        let sent = [Bytes::from(vec![1; 100])];
        let open = |seals: SealFlags| {
            let file = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::io::pwrite(&file, &sent[0], 0).unwrap();
            fcntl_add_seals(&file, seals).unwrap();
            file
        };
        for seals in [SealFlags::empty(), SealFlags::SHRINK | SealFlags::GROW, SealFlags::WRITE | SealFlags::GROW] {
            assert!(kept.map(open(seals), 100, &range).is_err(), "{seals:?}");
        }
        assert!(kept.map(open(SEALS), 100, &range).is_ok());
        assert!(kept.map(open(SEALS), 101, &range).is_err(), "shorter than announced");
        assert!(kept.map(open(SEALS), 99, &range).is_err(), "a buffer past the end");
        assert!(kept.map(open(SEALS), 100, &[Range { offset: u64::MAX, nbytes: 100 }]).is_err(), "past all addresses");
        assert!(kept.map(open(SEALS), 100, &[Range { offset: 8, nbytes: 10 }]).is_err(), "not aligned");
        let sparse = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&sparse, 1 << 40).unwrap();
        rustix::io::pwrite(&sparse, &sent[0], 0).unwrap();
        fcntl_add_seals(&sparse, SEALS).unwrap();
        assert!(kept.map(sparse, 1 << 40, &range).is_err(), "holes that mapping would fill");
        let (pipe, _other) = std::io::pipe().unwrap();
        assert!(kept.map(pipe.into(), 100, &range).is_err(), "no memory at all");
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        assert!(kept.map(null, 100, &range).is_err());
        assert_eq!(kept.len(), 0);
    }
}
