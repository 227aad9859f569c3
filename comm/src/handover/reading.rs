//! Copying results out of a peer's memory: one copy, made by whoever wants it, while the peer holds still.
//!
//! Systems let a process read another one of the same user that is no better than it, unless they have been told to be strict. A
//! peer says where it keeps a few random bytes, its *specimen*: who can read them there may read. A peer could name any process, so
//! only the one that the system says is at the other end of the stream is read.
//! The specimen is looked at again after every result: a number of a process is not given out again while that lives, so all
//! that was read in between was the peer's.
//!
//! With `memory.rs` the only file of this crate with unsafe code.

#![expect(unsafe_code, reason = "the system's call fills memory by its address")]

use std::io;
use std::mem::MaybeUninit;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::memory::Range;
use super::{Secret, random};
use crate::aligned;

/// Bytes that are copied in one call, which nothing interrupts: a millisecond.
const PIECE_NBYTES: usize = 4 << 20;

/// Something to recognise a process by. What is sent names an address of the process that sends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Specimen {
    process: i32,
    address: u64,
    content: Secret,
}

#[cfg(test)]
impl Specimen {
    /// What `process` has at `address`, if it may be read.
    pub(super) fn read_for_test(process: i32, address: u64) -> Option<Self> {
        let mut content = [MaybeUninit::new(0); size_of::<Secret>()];
        let unread = Readable(Self { process, address, content: Secret::default() });
        unread.fill(&mut content, address).ok()?;
        // SAFETY: every byte was initialised above.
        let content = content.map(|byte| unsafe { byte.assume_init() });
        Some(Self { process, address, content })
    }
}

/// The place of this process's specimen. It stays where it is while this lives.
pub(super) struct SpecimenPlace(Box<Secret>);

impl SpecimenPlace {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Box::new(random()?)))
    }

    pub(super) fn specimen(&self) -> Specimen {
        let process = rustix::process::getpid().as_raw_nonzero().get();
        Specimen { process, address: self.0.as_ptr().addr() as u64, content: *self.0 }
    }
}

/// Where buffers are in this process. They stay there while somebody holds them.
pub(super) fn places(buffers: &[Bytes]) -> Vec<Range> {
    buffers.iter().map(|buffer| Range { offset: buffer.as_ptr().addr() as u64, nbytes: buffer.len() as u64 }).collect()
}

/// A process whose memory this one may read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readable(Specimen);

impl Readable {
    /// The process with this specimen, if it is `process`, which the system says is at the other end of a stream, and may be read.
    /// Not this process, unless it `reads_itself`.
    pub(super) fn find(specimen: Specimen, process: i32, reads_itself: bool) -> Option<Self> {
        let is_this_one = process == rustix::process::getpid().as_raw_nonzero().get();
        let readable = Self(specimen);
        (specimen.process == process && (reads_itself || !is_this_one) && readable.is_alive()).then_some(readable)
    }

    /// Whether the process is the one that was found.
    fn is_alive(&self) -> bool {
        let mut content = [MaybeUninit::new(0); size_of::<Secret>()];
        let read = self.fill(&mut content, self.0.address);
        // SAFETY: every byte was initialised above.
        read.is_ok() && content.map(|byte| unsafe { byte.assume_init() }) == self.0.content
    }

    /// Copies of what the process has at `places`, aligned.
    ///
    /// # Errors
    /// When some of it is not there, when there is no memory for it, or when the process is not what it was.
    pub(super) fn read(&self, places: &[Range]) -> io::Result<Vec<Bytes>> {
        let copies = places.iter().map(|place| self.copy(*place)).collect::<io::Result<Vec<Bytes>>>()?;
        if self.is_alive() { Ok(copies) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn copy(&self, place: Range) -> io::Result<Bytes> {
        if place.nbytes == 0 {
            return Ok(Bytes::new());
        }
        // A length is believed when its last byte is there.
        let end = place.offset.checked_add(place.nbytes - 1).ok_or(io::ErrorKind::InvalidData)?;
        self.fill(&mut [MaybeUninit::uninit()], end)?;
        let nbytes = usize::try_from(place.nbytes).map_err(io::Error::other)?;
        let (mut bytes, start) = aligned::try_reserve(nbytes).map_err(io::Error::other)?;
        self.fill(&mut bytes.spare_capacity_mut()[..nbytes], place.offset)?;
        // SAFETY: the `nbytes` bytes after `start`, which is the vector's length, are within its capacity and have been filled.
        unsafe { bytes.set_len(start + nbytes) };
        Ok(Bytes::from(bytes).slice(start..))
    }

    /// Fill all of `room` with what the process has at `address`.
    fn fill(&self, room: &mut [MaybeUninit<u8>], address: u64) -> io::Result<()> {
        let mut done = 0;
        while done < room.len() {
            let piece = &mut room[done..];
            let nbytes = piece.len().min(PIECE_NBYTES);
            let there =
                usize::try_from(address).ok().and_then(|address| address.checked_add(done)).ok_or(io::ErrorKind::InvalidData)?;
            let local = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: nbytes };
            let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(there), iov_len: nbytes };
            // SAFETY: `local` is memory that is borrowed for writing, and the kernel writes no further than its length. `remote` is
            // an address of another process, which the kernel checks.
            let copied = unsafe { libc::process_vm_readv(self.0.process, &raw const local, 1, &raw const remote, 1, 0) };
            match usize::try_from(copied) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(copied) => done += copied,
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(specimen: Specimen) -> Option<Readable> {
        Readable::find(specimen, specimen.process, true)
    }

    #[test]
    fn what_is_there_is_copied_and_aligned() {
        let place = SpecimenPlace::new().unwrap();
        let readable = own(place.specimen()).expect("a process may read itself");
        let buffers: Vec<Bytes> =
            [1, 0, 4_097, 9 << 20].iter().zip(1_u8..).map(|(nbytes, byte)| Bytes::from(vec![byte; *nbytes])).collect();
        let copies = readable.read(&places(&buffers)).unwrap();
        assert_eq!(copies, buffers);
        assert!(
            copies.iter().filter(|copy| !copy.is_empty()).all(|copy| copy.as_ptr().addr().is_multiple_of(aligned::ALIGNMENT))
        );
        assert!(copies.iter().zip(&buffers).all(|(copy, buffer)| copy.is_empty() || copy.as_ptr() != buffer.as_ptr()));
    }

    #[test]
    fn strangers_and_holes_are_errors() {
        let place = SpecimenPlace::new().unwrap();
        let specimen = place.specimen();
        let readable = own(specimen).unwrap();
        let there = Bytes::from(vec![1; 100]);
        let address = there.as_ptr().addr() as u64;
        let hole = |offset, nbytes| readable.read(&[Range { offset, nbytes }]).is_err();
        assert!(hole(0, 8) && hole(u64::MAX - 3, 100) && hole(address, 1 << 60), "not there");
        assert!(own(Specimen { content: [7; 32], ..specimen }).is_none(), "somebody else");
        assert!(own(Specimen { process: i32::MAX, ..specimen }).is_none(), "nobody");
        // What a number of a process that was given out again looks like.
        let moved = Readable(Specimen { address, ..specimen });
        assert!(moved.read(&places(&[there])).is_err(), "another process in the meantime");
    }

    #[test]
    fn only_the_process_at_the_other_end_is_read() {
        let place = SpecimenPlace::new().unwrap();
        let specimen = place.specimen();
        assert!(Readable::find(specimen, specimen.process, true).is_some());
        assert!(Readable::find(specimen, specimen.process + 1, true).is_none(), "a third process");
        assert!(Readable::find(specimen, specimen.process, false).is_none(), "itself");
    }
}
