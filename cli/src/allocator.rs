//! The allocator, and how it gives memory back.
//!
//! Kernels allocate and free large buffers from many threads at once, which the system's allocator answers with memory it does
//! not give back. mimalloc gives it back after a while, but only when the process goes on allocating: a worker that waits for
//! memory would wait for ever.
//!
//! Large allocations are chunks and partitions, which are written as a whole. The kernel is asked to back them with huge pages:
//! a page of 4 KiB costs more to be found, cleared and mapped than to be filled.

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;
use rustix::mm::{Advice, madvise};

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

/// A huge page, on the machines where this matters.
const HUGE_PAGE_NBYTES: usize = 2 << 20;

/// Allocations from this size on get huge pages: at least one lies within, and at most half is in pages that are shared or small.
const LARGE_NBYTES: usize = 4 << 20;

/// mimalloc, with huge pages for large allocations.
struct HugePages;

#[expect(unsafe_code, reason = "an allocator is unsafe to be and to call")]
// SAFETY: every call goes to mimalloc, which keeps the contract. Advice changes how memory is backed and nothing about what is in it.
unsafe impl GlobalAlloc for HugePages {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that mimalloc asks for; here and below.
        advised(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above; what was given out came from there.
        unsafe { MiMalloc.dealloc(start, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_nbytes: usize) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { MiMalloc.realloc(start, layout, new_nbytes) }, new_nbytes)
    }
}

/// `start` itself, after asking for huge pages if that is the start of something large. Refusal is no failure: pages are small then.
#[inline]
fn advised(start: *mut u8, nbytes: usize) -> *mut u8 {
    if nbytes >= LARGE_NBYTES && !start.is_null() {
        advise(start, nbytes);
    }
    start
}

#[cold]
fn advise(start: *mut u8, nbytes: usize) {
    let to_first = start.addr().next_multiple_of(HUGE_PAGE_NBYTES) - start.addr();
    let nbytes = (nbytes - to_first) / HUGE_PAGE_NBYTES * HUGE_PAGE_NBYTES;
    #[expect(unsafe_code, reason = "some advice frees memory; this does not")]
    // SAFETY: the pages are within what was just allocated, and this advice changes no content.
    let _ = unsafe { madvise(start.wrapping_add(to_first).cast(), nbytes, Advice::LinuxHugepage) };
}

#[expect(unsafe_code, reason = "the binding has this function only together with many that need another crate")]
mod binding {
    // SAFETY: as mimalloc.h declares it: `void mi_collect(bool force)`. It may be called at any time on any thread.
    unsafe extern "C" {
        pub(super) safe fn mi_collect(force: bool);
    }
}

/// Return to the system what is free.
pub(crate) fn give_back() {
    binding::mi_collect(true);
}

#[cfg(test)]
mod tests {
    use rask_worker::store::memory::resident_nbytes;

    use super::*;

    #[test]
    fn what_is_free_is_returned() {
        const NBYTES: u64 = 256 << 20;
        let before = resident_nbytes().unwrap();
        let big: Vec<Vec<u8>> = (0..8).map(|n| vec![n + 1; NBYTES as usize / 8]).collect();
        assert!(resident_nbytes().unwrap() > before + NBYTES / 2);
        // Freed by another thread than made them, as results are.
        std::thread::spawn(move || drop(big)).join().unwrap();
        give_back();
        assert!(resident_nbytes().unwrap() < before + NBYTES / 2);
    }
}
