//! Rask: a dynamic scheduler for graphs of chunked array and dataframe tasks, and of your own functions.
//!
//! On a laptop it is one process and needs no set-up; on many machines the same graph runs unchanged:
//!
//! ```
//! use rask::{Client, LocalOptions, SubmitOptions, graphs::GraphBuilder, graphs::FinishOptions};
//!
//! # futures::executor::block_on(async {
//! let client = Client::local(LocalOptions::new(rask::registry()))?;
//! let mut graph = GraphBuilder::new();
//! let a = graph.task("a", "core.noop", 1, "{}").add();
//! let b = graph.task("b", "core.noop", 1, "{}").input(a).add();
//! graph.output(b);
//! let finished = graph.finish(&FinishOptions::default())?;
//! let output = finished.graph.outputs[0];
//! let job = client.submit(finished.graph, SubmitOptions::default()).await?;
//! let value = job.gather(output).await?;
//! assert_eq!(value.kind(), "bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! [`Client::connect`] does the same with a scheduler elsewhere. All futures work under any executor; the network has a
//! thread of its own.

/// The examples of `docs/client.md`, which are tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
mod guide {}

#[cfg(feature = "collections")]
mod bridge;
mod client;
mod cluster;
mod gather;
#[cfg(feature = "collections")]
pub mod graph_file;
mod job;
mod local;
mod remote;
mod scatter;
mod session;
mod transfer;
mod upload;
mod write;

use std::sync::Arc;

pub use client::{Client, SubmitError};
pub use cluster::{ClusterError, ClusterOptions, LocalCluster};
pub use gather::{GatherError, GatherOptions, Gathering};
pub use job::{Job, JobError, Progress, describe_failure};
pub use local::{LocalError, LocalOptions, default_spill_dir};
pub use rask_comm::message::{
    FailureKind, GraphReport, GraphStats, Spread, StatusReport, SubmitOptions, TaskCounts, TaskFailure, WorkerReport,
};
pub use rask_comm::{StateDir, Token};
pub use rask_graphs as graphs;
pub use remote::{ConnectError, ConnectOptions};
pub use scatter::{ScatterError, ScatterOptions, Scattered};
pub use session::Disconnected;
pub use transfer::{TransferMeter, TransferProgress};
pub use write::{WriteError, WriteOptions};

/// A registry with every operator that comes with Rask: `core.*`, `array.*`, `frame.*`.
///
/// To add your own functions, start from [`registry_builder`].
#[must_use]
pub fn registry() -> Arc<graphs::Registry> {
    Arc::new(registry_builder())
}

/// As [`registry`], still open for registering your own operators.
#[must_use]
pub fn registry_builder() -> graphs::Registry {
    #[cfg_attr(not(feature = "collections"), allow(unused_mut, reason = "only collections register more"))]
    let mut registry = graphs::Registry::new();
    #[cfg(feature = "collections")]
    {
        rask_arrays::register(&mut registry);
        rask_frames::register(&mut registry);
        bridge::register(&mut registry);
    }
    registry
}
