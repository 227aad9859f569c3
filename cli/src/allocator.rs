//! The allocator, and how it gives memory back.
//!
//! Kernels allocate and free large buffers from many threads at once, which the system's allocator answers with memory it does
//! not give back. mimalloc gives it back after a while, but only when the process goes on allocating: a worker that waits for
//! memory would wait for ever.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
