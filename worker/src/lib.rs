//! A worker: keeps slots busy, holds results, and moves chunks between peers.
//!
//! `machine` decides and is pure; `store` holds results; `exec` runs kernels on a thread pool; `server` is the tokio shell.

pub mod machine;
