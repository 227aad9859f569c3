//! The `rask` binary as people use it: commands, files, exit codes, and clusters of real processes on loopback.
//!
//! One binary for all of it, since linking costs more than running. Everything happens in temporary directories with a
//! state directory of its own, so nothing here sees or disturbs a cluster of the user.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail, helpers included")]

mod clusters;
mod commands;
mod examples;
mod membership;
mod memory;
mod secrets;
mod support;
mod wrong_files;
