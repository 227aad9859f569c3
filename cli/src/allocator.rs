//! The allocator, and how it gives memory back.
//!
//! Kernels allocate and free large buffers from many threads at once, which the system's allocator answers with memory it does
//! not give back. mimalloc gives it back after a while, but only when the process goes on allocating: a worker that waits for
//! memory would wait for ever.
//!
//! Large allocations are chunks and partitions, which are written as a whole. The kernel is asked to back them with huge pages:
//! a page of 4 KiB costs more to be found, cleared and mapped than to be filled.
//!
//! It also counts what each thread allocates in big pieces, so that a worker can tell how much memory a run takes.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;
use rustix::mm::{Advice, madvise};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// A huge page, on the machines where this matters.
const HUGE_PAGE_NBYTES: usize = 2 << 20;

/// Allocations from this size on get huge pages: at least one lies within, and at most half is in pages that are shared or small.
const LARGE_NBYTES: usize = 4 << 20;

/// Smaller pieces are not counted: they are many, and add up to little.
const COUNTED_NBYTES: usize = 16 << 10;

thread_local! {
    /// Bytes that this thread has allocated and not freed since it began to count, and the most that they were.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// mimalloc, with huge pages for large allocations and a count of what each thread has.
struct Allocator;

#[expect(unsafe_code, reason = "an allocator is unsafe to be and to call")]
// SAFETY: every call goes to mimalloc, which keeps the contract. Advice changes how memory is backed and nothing about what is in
// it. Counting touches thread-local integers without destructors only: it neither allocates nor panics.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_new(layout.size());
        // SAFETY: the caller's promise is the one that mimalloc asks for; here and below.
        advised(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_new(layout.size());
        // SAFETY: as above.
        advised(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        count_gone(layout.size());
        // SAFETY: as above; what was given out came from there.
        unsafe { MiMalloc.dealloc(start, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_nbytes: usize) -> *mut u8 {
        // Both are there while one is copied to the other.
        count_new(new_nbytes);
        count_gone(layout.size());
        // SAFETY: as above.
        advised(unsafe { MiMalloc.realloc(start, layout, new_nbytes) }, new_nbytes)
    }
}

#[inline]
fn count_new(nbytes: usize) {
    if nbytes >= COUNTED_NBYTES {
        count(nbytes as i64);
    }
}

#[inline]
fn count_gone(nbytes: usize) {
    if nbytes >= COUNTED_NBYTES {
        count(-(nbytes as i64));
    }
}

fn count(nbytes: i64) {
    // A thread that is ending counts nothing any more.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + nbytes;
        live.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

/// Begin to count what this thread allocates.
pub(crate) fn begin_count() {
    LIVE.set(0);
    PEAK.set(0);
}

/// The most that this thread had allocated at once since it began to count.
pub(crate) fn peak() -> u64 {
    u64::try_from(PEAK.get()).unwrap_or(0)
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
    fn the_most_that_a_thread_had_at_once_is_known() {
        let other = vec![1_u8; 3 << 20];
        begin_count();
        let kept = vec![1_u8; 1 << 20];
        drop(vec![1_u8; 4 << 20]);
        std::thread::spawn(|| drop(vec![1_u8; 64 << 20])).join().unwrap();
        drop(other);
        drop(vec![1_u8; 2 << 20]);
        let mut growing: Vec<u8> = Vec::with_capacity(8);
        growing.extend(kept.iter().take(100));
        assert!((5 << 20..(5 << 20) + (1 << 16)).contains(&peak()), "{}", peak());
        begin_count();
        assert_eq!(peak(), 0);
    }

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
