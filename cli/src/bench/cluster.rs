//! The cluster that a benchmark measures: embedded in this process, or a scheduler and workers as processes of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::executor::block_on;
use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, FinishOptions, Finished, Graph, GraphBuilder, Registry};
use rask::{Client, ClusterOptions, Job, LocalCluster, LocalOptions, SubmitOptions};

use super::{kernels, parcels};

/// All operators that come with Rask, and those of the benchmarks: what a worker of this program knows.
pub(crate) fn registry() -> Arc<Registry> {
    let mut registry = rask::registry_builder();
    kernels::register(&mut registry);
    parcels::register(&mut registry);
    Arc::new(registry)
}

/// A running cluster and its only client.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// `in-process` or `cluster`.
    pub(super) mode: &'static str,
    /// Worker processes, or 1.
    pub(super) n_workers: u32,
    /// The processes, if there are any; they end when this is dropped.
    pub(super) processes: Option<LocalCluster>,
}

impl Cluster {
    /// A scheduler and `n_workers` one-slot workers as processes; or one worker of `n_slots` slots in this process.
    ///
    /// # Errors
    /// When something cannot be started.
    pub(super) fn start(n_workers: Option<u32>, n_slots: u32) -> Result<Self> {
        if let Some(n_workers) = n_workers {
            return Self::start_processes(n_workers, true);
        }
        let client = Client::local(LocalOptions { n_slots, ..LocalOptions::new(registry()) })?;
        Ok(Self { client, mode: "in-process", n_workers: 1, processes: None })
    }

    /// A scheduler and `n_workers` one-slot workers as processes, which hand results over to each other or use QUIC.
    ///
    /// # Errors
    /// When something cannot be started.
    pub(super) fn start_processes(n_workers: u32, has_handover: bool) -> Result<Self> {
        let options = ClusterOptions { has_handover, ..ClusterOptions::new(own_binary()?, n_workers) };
        Self::of_processes(options)
    }

    /// A scheduler and `n_workers` one-slot workers as processes, each with this memory limit (0 for none).
    ///
    /// # Errors
    /// When something cannot be started.
    pub(super) fn start_limited(n_workers: u32, memory_limit: u64, spill_dir: Option<PathBuf>) -> Result<Self> {
        Self::of_processes(ClusterOptions { memory_limit, spill_dir, ..ClusterOptions::new(own_binary()?, n_workers) })
    }

    fn of_processes(options: ClusterOptions) -> Result<Self> {
        let n_workers = options.n_workers;
        let processes = block_on(LocalCluster::processes(options))?;
        let client = block_on(processes.client(registry()))?;
        Ok(Self { client, mode: "cluster", n_workers, processes: Some(processes) })
    }

    /// From submission until every output is known to be done. The job holds the results: let go of it, then
    /// [settle](Self::settle) before something else is timed.
    ///
    /// # Errors
    /// When a task fails or the cluster is lost.
    pub(super) fn time(&self, graph: Graph) -> Result<(Duration, Job)> {
        let begun = Instant::now();
        let job = block_on(self.client.submit(graph, SubmitOptions::default()))?;
        block_on(job.wait())?;
        Ok((begun.elapsed(), job))
    }

    /// Wait until what was let go of has been freed, which is when another graph has made its way through every queue behind
    /// it.
    ///
    /// # Errors
    /// When the cluster is lost.
    pub(super) fn settle(&self) -> Result<()> {
        let (_, job) = self.time(noops(100)?)?;
        drop(job);
        Ok(())
    }
}

fn own_binary() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// Nothing is fused or dropped: the tasks are what is measured.
///
/// # Errors
/// When the graph contradicts itself.
pub(super) fn finish(builder: GraphBuilder) -> Result<Finished> {
    Ok(builder.finish(&FinishOptions { cull: false, fuse: false, order: true })?)
}

fn noops(n_tasks: u32) -> Result<Graph> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("settle"), graph.body(Body::single("core.noop", 1, "{}")));
    for member in 0..n_tasks {
        graph.task_with(KeyRef { family, member: Some(member) }, body).add();
    }
    Ok(finish(graph)?.graph)
}
