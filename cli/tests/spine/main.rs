//! Clusters of real processes on loopback without arrays, frames and graph files: what all clusters have in common.
//!
//! `cargo test -p rask-cli --no-default-features --test spine` builds in three minutes.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail, helpers included")]

mod files;
mod rights;
mod state;
#[allow(dead_code, reason = "shared with the tests of graph files, which need more of it")]
#[path = "../it/support.rs"]
mod support;
