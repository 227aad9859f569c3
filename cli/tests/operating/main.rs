//! Daemons of the `rask` binary, as they are without arrays, frames and graph files: real processes on loopback, and a client of
//! this process where graphs have to be submitted.
//!
//! One binary for all of it, since linking costs more than running. Everything happens in temporary directories with a state
//! directory of its own.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail, helpers included")]

mod detached;
mod draining;
mod large;
mod logs;
mod names;
mod support;
