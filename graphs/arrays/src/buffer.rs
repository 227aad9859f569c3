//! Memory for elements: aligned to a cache line, zeroed by the allocator, shared without copying once filled.
//!
//! The one place where raw memory is described to the compiler; everything above uses typed slices.

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;

/// Alignment of every buffer in bytes: a cache line, and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

// SAFETY: `Line` is an array of bytes; all zeros is a value of it.
#[expect(unsafe_code, reason = "bytemuck's derive is not in use for this one type")]
unsafe impl Zeroable for Line {}

// SAFETY: `Line` is `repr(C)`, 64 bytes of plain bytes with an alignment of 64, so it has no padding and every bit pattern
// is a value.
#[expect(unsafe_code, reason = "bytemuck's derive is not in use for this one type")]
unsafe impl Pod for Line {}

/// A growing chunk's memory: writable while one owner has it, then turned into [`Bytes`].
pub(crate) struct Buffer {
    lines: Vec<Line>,
    nbytes: usize,
}

impl Buffer {
    /// `nbytes` zeros. Large ones come straight from the system and cost nothing until touched.
    pub(crate) fn zeroed(nbytes: usize) -> Self {
        Self { lines: bytemuck::zeroed_vec(nbytes.div_ceil(ALIGNMENT)), nbytes }
    }

    /// A copy of `bytes`.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.nbytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.nbytes]
    }

    /// The whole as elements of type `T`. Panics when the length is not a multiple of `T`'s size, a mistake of the caller.
    pub(crate) fn typed_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// Share it.
    pub(crate) fn freeze(self) -> Bytes {
        if self.nbytes == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
