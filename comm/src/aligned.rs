//! Receive buffers that begin at a multiple of 64 bytes, so that kernels and Arrow can use what arrived as it is.
//!
//! Plain vectors with a little room in front: no unsafe code, and `Bytes` owns the result without another copy.

use std::collections::TryReserveError;

use bytes::Bytes;

/// The alignment, in bytes: a cache line, and what Arrow recommends.
pub(crate) const ALIGNMENT: usize = 64;

/// Room for alignment, and one byte more than can be used, so that capacity and length differ and the vector is never shrunk
/// (moved) later.
const BESIDES: usize = ALIGNMENT + 1;

/// Announced lengths up to this are believed at once (address space, not memory, until bytes arrive); longer buffers double.
const BELIEVED_NBYTES: u64 = 256 << 20;

/// A buffer that grows to an announced length.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    /// Where the content begins.
    start: usize,
    announced: u64,
}

impl AlignedBuffer {
    pub(crate) fn new(announced: u64) -> Self {
        let (bytes, start) = reserve(announced.min(BELIEVED_NBYTES));
        Self { bytes, start, announced }
    }

    pub(crate) fn extend(&mut self, more: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < more.len() {
            // Growing moves the content, and the new place has another alignment: so it is copied by hand.
            let content = &self.bytes[self.start..];
            let needed = (content.len() + more.len()) as u64;
            let (mut bytes, start) = reserve((needed * 2).min(self.announced).max(needed));
            bytes.extend_from_slice(content);
            (self.bytes, self.start) = (bytes, start);
        }
        self.bytes.extend_from_slice(more);
    }

    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.start..)
    }
}

/// A vector with room for `nbytes` after its aligned start, which it is filled up to.
fn reserve(nbytes: u64) -> (Vec<u8>, usize) {
    let nbytes = usize::try_from(nbytes).unwrap_or(usize::MAX / 2);
    begin(Vec::with_capacity(nbytes + BESIDES))
}

/// The same, or an error when there is no such room.
pub(crate) fn try_reserve(nbytes: usize) -> Result<(Vec<u8>, usize), TryReserveError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(nbytes.saturating_add(BESIDES))?;
    Ok(begin(bytes))
}

fn begin(mut bytes: Vec<u8>) -> (Vec<u8>, usize) {
    let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    bytes.resize(start, 0);
    (bytes, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(bytes: &Bytes) -> bool {
        bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
    }

    #[test]
    fn every_length_is_aligned_and_whole() {
        for nbytes in (0..300).chain([4095, 4096, 4097, 1 << 20]) {
            let content: Vec<u8> = (0..nbytes).map(|idx| (idx % 251) as u8).collect();
            let mut buffer = AlignedBuffer::new(nbytes as u64);
            for piece in content.chunks(1000) {
                buffer.extend(piece);
            }
            let bytes = buffer.freeze();
            assert!(is_aligned(&bytes), "{nbytes} bytes");
            assert_eq!(bytes, content);
        }
    }

    #[test]
    fn a_buffer_that_outgrows_its_room_stays_aligned() {
        let mut buffer = AlignedBuffer::new(10);
        buffer.announced = 10_000;
        let content: Vec<u8> = (0..10_000).map(|idx| (idx % 241) as u8).collect();
        for piece in content.chunks(77) {
            buffer.extend(piece);
        }
        let bytes = buffer.freeze();
        assert!(is_aligned(&bytes));
        assert_eq!(bytes, content);
    }

    #[test]
    fn an_announced_length_is_not_believed_without_bound() {
        let buffer = AlignedBuffer::new(1 << 40);
        assert!(buffer.bytes.capacity() as u64 <= BELIEVED_NBYTES + 2 * ALIGNMENT as u64);
    }
}
