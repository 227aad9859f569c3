//! What people are told: how far a graph is, what it took, how the cluster is.

use std::net::SocketAddr;

use rask_graphs::{ClientId, GraphId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::message::WorkerStatus;
use crate::tuning::SocketBuffers;

/// Peers that a worker names in [`Traffic`].
pub const N_BUSIEST: usize = 3;

/// What moves between a worker and others. Rates are means of the last seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of results that come from other workers in a second.
    pub nbytes_in_per_second: u64,
    /// Bytes of results that workers and clients get from here in a second.
    pub nbytes_out_per_second: u64,
    /// Where most of it comes from, the busiest first.
    pub busiest: [Option<PeerTraffic>; N_BUSIEST],
    /// Time from asking for results until the first of them was decoded and stored, in nanoseconds: the median of the last thousand
    /// or so requests to other workers; 0 while there was none.
    pub fetch_p50_ns: u64,
    /// The same that one in a hundred exceeds.
    pub fetch_p99_ns: u64,
    /// Of the socket that all of it goes through, but for what workers of one host hand to each other. All 0 when there is none.
    pub socket_buffers: SocketBuffers,
}

/// What comes from one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerTraffic {
    /// The peer.
    pub from: WorkerId,
    /// Bytes of results in a second.
    pub nbytes_per_second: u64,
    /// Bytes that are to come: asked for, or about to be.
    pub nbytes_in_flight: u64,
}

/// Two workers between which much moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HotLink {
    /// The worker that gets it.
    pub to: WorkerId,
    /// The rest.
    pub traffic: PeerTraffic,
}

/// How many tasks of a graph are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TaskCounts {
    /// All tasks.
    pub n_tasks: u32,
    /// Waiting for inputs.
    pub n_waiting: u32,
    /// Ready, held back until a worker has room (or until a fitting worker is there).
    pub n_queued: u32,
    /// Given to a worker.
    pub n_processing: u32,
    /// Finished at least once.
    pub n_finished: u32,
    /// Failed, or depending on a failed one.
    pub n_erred: u32,
}

/// What a graph took.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct GraphStats {
    /// Tasks in the graph.
    pub n_tasks: u32,
    /// Runs that finished or failed, recomputation included.
    pub n_executions: u32,
    /// From acceptance until the last wanted output, in seconds.
    pub seconds: f64,
    /// Bytes that moved between workers.
    pub nbytes_transferred: u64,
    /// Bytes written to spill files.
    pub nbytes_spilled: u64,
    /// Workers connected at the end.
    pub n_workers: u32,
}

/// How the cluster is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// Seconds since the scheduler started.
    pub uptime_seconds: f64,
    /// Connected clients.
    pub n_clients: u32,
    /// Connected workers.
    pub workers: Vec<WorkerReport>,
    /// Graphs that run or whose results are held; for a client that may not see others' its owner's alone. The first
    /// [`crate::limits::MAX_STATUS_GRAPHS`].
    pub graphs: Vec<GraphReport>,
    /// How many more there are of these.
    pub n_more_graphs: u32,
    /// Others' graphs, which are not told of.
    pub n_other_graphs: u32,
    /// What ready tasks wait for that no connected worker offers; the first [`crate::limits::MAX_STATUS_UNMET`].
    pub unmet: Vec<UnmetReport>,
    /// How many more such wishes there are.
    pub n_more_unmet: u32,
    /// Where most moves between workers, the busiest first; a few.
    pub hot_links: Vec<HotLink>,
}

/// Wishes of ready tasks that no connected worker fulfils.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UnmetReport {
    /// The resources they ask for, and how much of each.
    pub resources: Vec<(String, f64)>,
    /// The workers they name; empty when any will do.
    pub workers: Vec<String>,
    /// How many tasks wait.
    pub n_tasks: u32,
}

/// How a worker is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its id.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// Its data plane.
    pub address: SocketAddr,
    /// Tasks it runs at once.
    pub n_slots: u32,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// Runs given to it and not answered.
    pub n_processing: u32,
    /// Results it holds.
    pub n_results: u32,
    /// Whether it is leaving.
    pub is_retiring: bool,
    /// What it last said of itself.
    pub status: WorkerStatus,
}

/// How a graph is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GraphReport {
    /// Its id.
    pub graph: GraphId,
    /// Its name.
    pub name: String,
    /// Whose it is: a token's name, `None` for the user whose cluster it is.
    pub owner: Option<String>,
    /// The client that follows it, `None` once that has gone.
    pub client: Option<ClientId>,
    /// Whether every wanted output is done or has failed.
    pub has_ended: bool,
    /// Whether any wanted output failed.
    pub has_failed: bool,
    /// The first failure, in words; empty while there is none.
    pub failure: String,
    /// Why it does not get on, in words; empty when it does.
    pub waits: String,
    /// Bytes of the results that are kept of it, once it has ended.
    pub nbytes_kept: u64,
    /// Seconds since it was accepted, or that it took.
    pub seconds: f64,
    /// The counts.
    pub counts: TaskCounts,
}
