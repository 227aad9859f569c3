//! Everything scheduler, workers and clients say to each other on the control plane.
//!
//! Closed enums, flat, decoded with limits. A control frame carries a list of messages: one frame a peer and turn. Every
//! message about a run carries the attempt; the epoch is agreed on when a connection begins.

use std::net::SocketAddr;

use rask_graphs::{Attempt, Body, BodyId, ClientId, Epoch, Graph, GraphId, Part, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

pub use crate::failure::{FailureKind, RunFailure, TaskFailure};
pub use crate::grant::{Grant, WorkerKeys};
pub use crate::report::{
    GraphReport, GraphStats, HotLink, N_BUSIEST, PeerTraffic, StatusReport, TaskCounts, Traffic, UnmetReport, WorkerReport,
};
pub use crate::ticket::Ticket;

/// Raised whenever any message changes; peers with another version are refused with both versions named.
pub const PROTOCOL_VERSION: u32 = 7;

/// First message of a worker on a fresh control connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerHello {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub version: u32,
    /// Name for people; restrictions name it.
    pub name: String,
    /// Tasks it runs at once.
    pub n_slots: u32,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// Abstract resources it offers.
    pub resources: Vec<(String, f64)>,
    /// Where its data plane listens.
    pub data_address: SocketAddr,
    /// What identifies its host (machine id and user); equal hosts have cheaper transfers.
    pub host: String,
    /// [`rask_graphs::Registry::fingerprint`] of its operators.
    pub registry_fingerprint: u64,
}

/// First message of a client on a fresh control connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// [`PROTOCOL_VERSION`] of the client.
    pub version: u32,
    /// Name for people.
    pub name: String,
    /// Its share of the workers beside other clients that have work, relative to theirs; 1 is usual. Taken for the nearest of
    /// 0.01 and 100 when outside of them.
    pub weight: f64,
}

/// Scheduler to worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message: the worker's id and the scheduler's epoch.
    Welcome {
        /// The id of this registration.
        worker: WorkerId,
        /// The scheduler's epoch.
        epoch: Epoch,
        /// What it needs to know who may have results, and who may watch here.
        keys: WorkerKeys,
    },
    /// A body that later runs name; sent once a worker and body.
    Body {
        /// Its id.
        id: BodyId,
        /// Operators and arguments.
        body: Body,
        /// Family name of the first task that runs it, for logs.
        label: String,
        /// Whether the graph is the cluster's own user's; others' graphs may touch fewer files.
        is_of_user: bool,
    },
    /// Where the members of a gather group are; sent before the first run here that takes it, and again when they have moved.
    /// So a shuffle of M members by N consumers costs each worker one list of M, not one a consumer.
    Group {
        /// The graph.
        graph: GraphId,
        /// The group's number in it.
        group: u32,
        /// All its members, in order.
        members: Vec<GroupMember>,
    },
    /// Where a peer's data plane is; sent before the first run that names it as a holder.
    Peer {
        /// The peer.
        worker: WorkerId,
        /// Its data plane.
        address: SocketAddr,
        /// Its certificate name, checked when connecting.
        name: String,
        /// With this the receiver may watch there.
        pass: Grant,
    },
    /// Run a task as soon as its inputs are here and a slot is free.
    Run(Run),
    /// A client will offer the result of this task ([`FromClient::Scatter`]): take it in when there is room for it. Answered as a
    /// run is; [`ToWorker::Cancel`] takes it back.
    Expect {
        /// The task.
        task: TaskId,
        /// Which upload of it this is.
        attempt: Attempt,
        /// Its size in bytes at most.
        nbytes: u64,
        /// What the client shows to prove that it was asked.
        ticket: Ticket,
    },
    /// A run is not wanted any more; stop it if it has not started, ask it to stop if it has. No answer is owed, and what
    /// it still produces is stale: drop it.
    Cancel {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
    },
    /// Give a run back if it has not started. Answered by [`FromWorker::Revoked`].
    Revoke {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
    },
    /// Drop these results (held whole or in parts); runs here that need them have been cancelled before.
    Free {
        /// The results.
        tasks: Vec<TaskId>,
    },
    /// A replica that [`FromWorker::Burdened`] asked about has to stay.
    Keep {
        /// The result.
        task: TaskId,
        /// The run that made it, as asked.
        attempt: Attempt,
    },
    /// Forget the bodies of a graph.
    ForgetGraph {
        /// The graph.
        graph: GraphId,
    },
    /// Fetch a whole result from a peer and keep it: another replica, made before its last holder retires.
    Replicate {
        /// The result and where it is.
        input: RunInput,
    },
    /// Everything of this worker has been moved or is not needed, or there is nobody to move it to: exit.
    Leave {
        /// What goes with it.
        lost: LostResults,
    },
    /// The scheduler ends the connection, and why.
    Close {
        /// For the log and the person who started the worker.
        reason: String,
    },
}

/// Results that are lost with a worker, for the person who ends it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LostResults {
    /// How many.
    pub n_results: u32,
    /// Their bytes.
    pub nbytes: u64,
    /// Names of the first few, with their graphs'.
    pub names: Vec<String>,
}

/// One run of a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The task.
    pub task: TaskId,
    /// Which run of it this is.
    pub attempt: Attempt,
    /// Its body, in the same graph.
    pub body: u32,
    /// Lower rounds first: runs of a round are one client's, and rise when the scheduler turns to another.
    pub round: u32,
    /// In a round higher runs first; then the earlier graph; then the lower index.
    pub priority: i32,
    /// Inputs that are single results, in kernel order.
    pub inputs: Vec<RunInput>,
    /// Inputs that are gather groups, in kernel order.
    pub groups: Vec<RunGroup>,
}

/// An input of a run that is a part of each member of a gather group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunGroup {
    /// Its position among all declared inputs of the task.
    pub at: u32,
    /// The group, in the same graph; told of by [`ToWorker::Group`] before.
    pub group: u32,
    /// The part wanted of each member.
    pub part: Part,
}

/// A member of a gather group, and where it can be had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupMember {
    /// The task whose result it is.
    pub task: TaskId,
    /// The run that made it.
    pub attempt: Attempt,
    /// Size of the whole in bytes.
    pub nbytes: u64,
    /// Its addressable parts, 0 when only whole.
    pub n_parts: u32,
    /// Workers that hold it, the receiver possibly among them.
    pub holders: Vec<WorkerId>,
}

/// The size in bytes of `part` of a result of `nbytes` bytes in `n_parts` parts: a part is taken to be an even share.
#[must_use]
pub fn part_nbytes(nbytes: u64, n_parts: u32, part: Part) -> u64 {
    if part.is_whole() || n_parts == 0 { nbytes } else { nbytes / u64::from(n_parts) }
}

/// An input of a run, and where it can be had.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunInput {
    /// The task whose result it is.
    pub task: TaskId,
    /// The run that made it.
    pub attempt: Attempt,
    /// The part wanted.
    pub part: Part,
    /// Size in bytes, estimated for parts.
    pub nbytes: u64,
    /// Workers that hold it, the receiver possibly among them; when it is not made yet, the worker that has been given the
    /// run that makes it.
    pub holders: Vec<WorkerId>,
    /// Whether it exists. Otherwise the receiver watches for it, at the holder or here.
    pub is_made: bool,
}

/// Worker to scheduler.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// A run produced its result, which this worker holds.
    Finished {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// Size of the result in bytes.
        nbytes: u64,
        /// Its addressable parts, 0 when only whole.
        n_parts: u32,
        /// Time on a slot, in microseconds.
        duration_us: u64,
    },
    /// A run ended with an error.
    Failed {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// Why.
        failure: RunFailure,
    },
    /// A run could not start because an input could be had from none of the holders named; the run is given back.
    InputLost {
        /// The task that was to run.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// The input that could not be had.
        input: TaskId,
        /// The holders that failed.
        holders: Vec<WorkerId>,
    },
    /// A whole result was fetched from a peer: this worker is a holder of it.
    Fetched {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
        /// Bytes moved.
        nbytes: u64,
        /// The peer it came from.
        from: WorkerId,
        /// How long it took, in microseconds.
        duration_us: u64,
    },
    /// Parts of results were fetched from peers. They are kept while runs here need them, so nobody has to know which; told
    /// when a run ends, of all since the last time.
    FetchedParts {
        /// Whose results.
        graph: GraphId,
        /// Bytes moved.
        nbytes: u64,
    },
    /// A replica that was fetched for runs here takes memory that is short: may it go? The answer is a [`ToWorker::Free`] of it,
    /// or [`ToWorker::Keep`].
    Burdened {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
    },
    /// A result was written to a spill file.
    Spilled {
        /// Whose result.
        graph: GraphId,
        /// Its size in memory.
        nbytes: u64,
    },
    /// The answer to [`ToWorker::Revoke`].
    Revoked {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// Whether the run was given up; otherwise it has started, or is long over.
        given_up: bool,
    },
    /// A result held here is gone (a damaged spill file, for example).
    Lost {
        /// The result.
        task: TaskId,
    },
    /// The answer to [`ToWorker::Replicate`] when the result could be had from nobody.
    NotReplicated {
        /// The result.
        task: TaskId,
    },
    /// What starts and stops executing right now: only what is executing when a worker dies can be blamed for it.
    Executing {
        /// The task that started.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
    },
    /// The state of the worker; sent every second or so.
    Status(Box<WorkerStatus>),
    /// The worker was asked to stop (SIGTERM): no new work, please, and move what only it holds.
    Retiring,
}

/// The state of a worker, as it sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Bytes of results held in memory, parts fetched for runs included.
    pub nbytes_results: u64,
    /// Bytes reserved for fetches in flight.
    pub nbytes_in_flight: u64,
    /// Bytes that tasks on slots are expected to need beside their inputs and for what is read back for them, and bytes that were
    /// read back for others and are being sent.
    pub nbytes_reserved: u64,
    /// Bytes of results that are in spill files only.
    pub nbytes_spilled: u64,
    /// Bytes of all results that were ever written to spill files.
    pub nbytes_written: u64,
    /// Resident memory of the process, in bytes.
    pub rss_nbytes: u64,
    /// Tasks on slots.
    pub n_executing: u32,
    /// Runs given to it that have not started.
    pub n_waiting: u32,
    /// Whether it takes no new runs because memory is short.
    pub is_paused: bool,
    /// Whether the last result that was to be spilled found no space on the disk.
    pub is_spill_full: bool,
    /// What moves.
    pub traffic: Traffic,
}

/// Options of a submission.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SubmitOptions {
    /// Name for people: the graph file's, usually.
    pub name: String,
    /// Higher runs earlier among one client's graphs.
    pub priority: i32,
    /// Whether the graph outlives the client's connection.
    pub detached: bool,
}

/// Options of a scatter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// Names of the workers that may hold the values; empty means any.
    pub workers: Vec<String>,
    /// How many workers are to hold each value; [`u32::MAX`] for all that are there when it has arrived (a broadcast).
    pub n_copies: u32,
}

impl Default for Spread {
    /// One copy, anywhere.
    fn default() -> Self {
        Self { workers: Vec::new(), n_copies: 1 }
    }
}

/// Most values in one [`FromClient::Scatter`].
pub const SCATTER_LIMIT: usize = 65_536;

/// Client to scheduler.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum FromClient {
    /// Run a graph. Answered by [`ToClient::Accepted`] or [`ToClient::Rejected`].
    Submit {
        /// Chosen by the client to tell answers apart.
        request: u32,
        /// The graph; its outputs are wanted until released.
        graph: Box<Graph>,
        /// Options.
        options: SubmitOptions,
    },
    /// Take in values of this client: a graph of tasks without inputs whose results the client uploads when it is asked
    /// ([`ToClient::Upload`]). Answered as a submission is.
    Scatter {
        /// Chosen by the client to tell answers apart.
        request: u32,
        /// Size of each value in bytes, at most; no more than [`SCATTER_LIMIT`] values.
        nbytes: Vec<u64>,
        /// Chosen by the client, unguessable; workers are told, and let in who shows it.
        ticket: Ticket,
        /// Where the values go.
        spread: Spread,
        /// As of a submission.
        options: SubmitOptions,
    },
    /// The answer to [`ToClient::Upload`] when it comes to nothing.
    NotUploaded {
        /// The task.
        task: TaskId,
        /// Which upload of it.
        attempt: Attempt,
        /// Whether trying another worker is of no use: the client does not have the value any more.
        is_final: bool,
        /// Why, in words.
        reason: String,
    },
    /// Stop a graph and release all its results: one of the client's owner, or any when the client may end what others began.
    /// Answered by [`ToClient::Cancelled`].
    Cancel {
        /// Chosen by the client to tell answers apart.
        request: u32,
        /// The graph.
        graph: GraphId,
    },
    /// These outputs are not wanted any more.
    Release {
        /// The results.
        tasks: Vec<TaskId>,
    },
    /// Tell where wanted outputs are, once they are in memory. Answered for each by [`ToClient::Located`] or
    /// [`ToClient::TaskFailed`].
    Locate {
        /// The results.
        tasks: Vec<TaskId>,
    },
    /// A holder named by [`ToClient::Located`] could not serve it.
    FetchFailed {
        /// The result.
        task: TaskId,
        /// The holder.
        worker: WorkerId,
    },
    /// Tell how the cluster is. Answered by [`ToClient::Status`].
    Status {
        /// Chosen by the client to tell answers apart.
        request: u32,
    },
    /// Follow a graph of the same owner that nobody follows, as if this client had submitted it. Answered by [`ToClient::Accepted`] or [`ToClient::Rejected`].
    Attach {
        /// Chosen by the client to tell answers apart.
        request: u32,
        /// The graph.
        graph: GraphId,
    },
}

/// Scheduler to client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ToClient {
    /// First message.
    Welcome {
        /// The id of this connection.
        client: ClientId,
        /// The scheduler's epoch.
        epoch: Epoch,
    },
    /// A submission (or attachment) was accepted.
    Accepted {
        /// Which.
        request: u32,
        /// The graph's id.
        graph: GraphId,
    },
    /// A submission was refused.
    Rejected {
        /// Which.
        request: u32,
        /// Why.
        reason: String,
    },
    /// The answer to [`FromClient::Cancel`].
    Cancelled {
        /// Which.
        request: u32,
        /// Whether there was such a graph that this client may stop.
        was_known: bool,
    },
    /// How far a graph is; sent a few times a second while it changes.
    Progress {
        /// The graph.
        graph: GraphId,
        /// The counts.
        counts: TaskCounts,
    },
    /// Why a graph does not get on; told when that changes.
    Waits {
        /// The graph.
        graph: GraphId,
        /// In words; empty when it gets on.
        reason: String,
    },
    /// A wanted output is in memory.
    TaskDone {
        /// The result.
        task: TaskId,
        /// Its size in bytes.
        nbytes: u64,
    },
    /// A wanted output cannot be had.
    TaskFailed {
        /// The output.
        task: TaskId,
        /// Why.
        failure: Box<TaskFailure>,
    },
    /// Upload the value of a task ([`FromClient::Scatter`]) to a worker, which expects it. Answered only when that fails.
    Upload {
        /// The task.
        task: TaskId,
        /// Which upload of it this is; an older one is of no use any more.
        attempt: Attempt,
        /// The worker.
        to: Holder,
    },
    /// Every wanted output of a graph is done or has failed.
    GraphEnded {
        /// The graph.
        graph: GraphId,
        /// What it took.
        stats: GraphStats,
    },
    /// The answer to [`FromClient::Locate`].
    Located {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
        /// Its size in bytes.
        nbytes: u64,
        /// Its addressable parts, 0 when only whole.
        n_parts: u32,
        /// Who has it.
        holders: Vec<Holder>,
        /// With this the holders give it.
        grant: Grant,
    },
    /// The answer to [`FromClient::Status`].
    Status {
        /// Which.
        request: u32,
        /// The report.
        report: Box<StatusReport>,
    },
    /// The scheduler ends the connection, and why.
    Close {
        /// For the person at the client.
        reason: String,
    },
}

/// A worker that holds a result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// Its data plane.
    pub address: SocketAddr,
    /// Its certificate name.
    pub name: String,
}
