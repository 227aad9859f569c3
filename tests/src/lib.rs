//! Tests of the whole: the real machines of scheduler and workers, simulated under virtual time.
//!
//! [`sim`] is a library so that the `sim` binary (many seeds, replay) and `cargo test` (a few seeds, every deliberate
//! fault) run the very same thing. What needs processes, sockets or kernels is tested elsewhere: this package stays light.

pub mod sim;
