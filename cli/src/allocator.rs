//! The allocator, and how it gives memory back.
//!
//! Kernels allocate and free large buffers from many threads at once, which the system's allocator answers with memory it does
//! not give back. mimalloc gives it back after a while, but only when the process goes on allocating: a worker that waits for
//! memory would wait for ever.
//!
//! It also counts what each thread allocates in big pieces, so that a worker can tell how much memory a run takes.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Metered = Metered;

/// Smaller pieces are not counted: they are many, and add up to little.
const MIN_COUNTED: usize = 16 << 10;

thread_local! {
    /// Bytes that this thread has allocated and not freed since it began to count, and the most that they were.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// mimalloc, and a count of what each thread has of it.
struct Metered;

#[inline]
fn count(nbytes: i64) {
    // A thread that is ending counts nothing any more.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + nbytes;
        live.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

#[inline]
fn counted(nbytes: usize) -> i64 {
    if nbytes >= MIN_COUNTED { nbytes as i64 } else { 0 }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]
mod metered {
    use super::{GlobalAlloc, Layout, MIN_COUNTED, Metered, MiMalloc, count, counted};

    // SAFETY: every method hands its arguments on to mimalloc, whose contract is the same, and returns what that returns.
    // Counting touches thread-local integers without destructors only: it neither allocates nor panics.
    unsafe impl GlobalAlloc for Metered {
        #[inline]
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.size() >= MIN_COUNTED {
                count(counted(layout.size()));
            }
            // SAFETY: the caller keeps `GlobalAlloc`'s contract.
            unsafe { MiMalloc.alloc(layout) }
        }

        #[inline]
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            if layout.size() >= MIN_COUNTED {
                count(counted(layout.size()));
            }
            // SAFETY: the caller keeps `GlobalAlloc`'s contract.
            unsafe { MiMalloc.alloc_zeroed(layout) }
        }

        #[inline]
        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            if layout.size() >= MIN_COUNTED {
                count(-counted(layout.size()));
            }
            // SAFETY: the caller keeps `GlobalAlloc`'s contract.
            unsafe { MiMalloc.dealloc(at, layout) }
        }

        #[inline]
        unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            if layout.size().max(new_size) >= MIN_COUNTED {
                // Both are there while one is copied to the other.
                count(counted(new_size));
                count(-counted(layout.size()));
            }
            // SAFETY: the caller keeps `GlobalAlloc`'s contract.
            unsafe { MiMalloc.realloc(at, layout, new_size) }
        }
    }
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
        let mut growing = Vec::with_capacity(8);
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
