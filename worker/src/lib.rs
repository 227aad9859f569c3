//! A worker: keeps slots busy, holds results, and moves chunks between peers.
//!
//! `machine` decides and is pure; `store` holds results; `exec` runs kernels on a thread pool and drives the machine;
//! `server` is the tokio shell around it. An in-process cluster uses `exec` without `server`.

pub mod exec;
pub mod machine;
pub mod server;
pub mod store;
