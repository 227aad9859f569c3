//! What the worker machine is told and what it asks for.
//!
//! Closed enums: events in the past tense, actions imperative. No bytes of a result are in any of them.

use std::net::SocketAddr;

use rask_comm::Grant;
use rask_comm::Offer;
use rask_comm::message::{FromWorker, LostResults, RunFailure, ToWorker, WorkerStatus};
use rask_graphs::{Attempt, BodyId, Part, TaskId, WorkerId};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A message of the scheduler, in the order sent.
    SchedulerSaid(ToWorker),
    /// A run that [`Action::Execute`] started has produced its result, and the shell has put it into the store.
    ExecutionFinished {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// Size of the result in bytes.
        nbytes: u64,
        /// Its addressable parts, 0 when only whole.
        n_parts: u32,
        /// Time on the slot, in microseconds.
        duration_us: u64,
        /// The most memory that the run had beside its inputs, result included, as far as that is known; 0 when it is not.
        nbytes_peak: u64,
    },
    /// A run that [`Action::Execute`] started has failed.
    ExecutionFailed {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// Why.
        failure: RunFailure,
    },
    /// A run that [`Action::Execute`] asked for did not start: one of its inputs is not in the store any more.
    InputGone {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// The input that is gone.
        input: FetchItem,
    },
    /// One item of an [`Action::Fetch`] has arrived, and the shell has put it into the store.
    FetchArrived {
        /// Which fetch.
        fetch: FetchId,
        /// The result.
        item: FetchItem,
        /// Bytes received.
        nbytes: u64,
        /// Time since the fetch began, in microseconds.
        duration_us: u64,
    },
    /// One item of an [`Action::Fetch`] will not come: the peer does not have it, is unreachable, or sent garbage.
    FetchFailed {
        /// Which fetch.
        fetch: FetchId,
        /// The result.
        item: FetchItem,
        /// Why.
        reason: FetchFailure,
    },
    /// A watched item ([`Action::Watch`]) has been made by the peer and sent along; the shell has put it into the store.
    Pushed {
        /// The peer.
        from: WorkerId,
        /// The result.
        item: FetchItem,
        /// Bytes received.
        nbytes: u64,
    },
    /// A watched item has been made by the peer and is too big to be sent unasked: it can be fetched now.
    Made {
        /// The peer.
        from: WorkerId,
        /// The result.
        item: FetchItem,
        /// Its size in bytes.
        nbytes: u64,
    },
    /// The peer cannot be reached, or the connection to it broke: nothing that is watched there will be heard of.
    WatchLost {
        /// The peer.
        from: WorkerId,
    },
    /// A peer wants to have these as soon as they are made here. Some may never be.
    PeerWatches {
        /// The peer.
        peer: WorkerId,
        /// The results.
        items: Vec<FetchItem>,
    },
    /// A peer does not want these any more.
    PeerUnwatches {
        /// The peer.
        peer: WorkerId,
        /// The results.
        items: Vec<FetchItem>,
    },
    /// A peer that watches results here is gone, or its connection is.
    PeerGone {
        /// The peer.
        peer: WorkerId,
    },
    /// A client offers values; it waits for [`Action::Admit`].
    UploadsOffered {
        /// Names the offer. Earlier ones have lower numbers.
        id: OfferId,
        /// What is offered.
        offer: Offer,
    },
    /// An offer has waited for so long that the scheduler must have said what is to be expected of it.
    OfferOverdue {
        /// The offer.
        id: OfferId,
    },
    /// Who made an offer waits no more.
    OfferWithdrawn {
        /// The offer.
        id: OfferId,
    },
    /// A value that [`Action::Admit`] let in has arrived, and the shell has put it into the store.
    UploadArrived {
        /// The task whose result it is.
        task: TaskId,
        /// Which upload of it.
        attempt: Attempt,
        /// Size of the result in bytes.
        nbytes: u64,
        /// Its addressable parts, 0 when only whole.
        n_parts: u32,
        /// How long it took, in microseconds.
        duration_us: u64,
    },
    /// A value that [`Action::Admit`] let in will not come.
    UploadFailed {
        /// The task whose result it was to be.
        task: TaskId,
        /// Which upload of it.
        attempt: Attempt,
    },
    /// A result in the store turned out to be unreadable and was dropped by the shell.
    ResultLost {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
    },
    /// A result in a file is read back for a peer or a client, and is in memory until [`Event::SentOff`].
    ReadForOthers {
        /// Its size.
        nbytes: u64,
    },
    /// What was read back for a peer or a client is sent, or will not be.
    SentOff {
        /// Its size, as it was told of.
        nbytes: u64,
    },
    /// The result of an [`Action::Spill`] is in a file, and in memory still; or it was dropped meanwhile.
    Spilled {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
    },
    /// The result of an [`Action::Spill`] is in memory only.
    NotSpilled {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
        /// Why.
        reason: SpillFailure,
    },
    /// The shell measured the process, and it is time to tell the scheduler. What the machine knows better is ignored.
    Measured(Box<WorkerStatus>),
    /// The shell measured the process because its memory changes fast.
    MemoryMeasured {
        /// Resident memory, in bytes.
        rss_nbytes: u64,
    },
    /// The process was asked to stop gracefully.
    RetireRequested,
}

/// One [`Action::Fetch`], numbered by the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u64);

/// One offer of a client, numbered by the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OfferId(pub u64);

/// A result, or a part of one, that is fetched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchItem {
    /// The task whose result it is.
    pub task: TaskId,
    /// The run that made it.
    pub attempt: Attempt,
    /// The part.
    pub part: Part,
}

impl FetchItem {
    /// The whole result of run `attempt` of `task`.
    #[must_use]
    pub fn whole(task: TaskId, attempt: Attempt) -> Self {
        Self { task, attempt, part: Part::WHOLE }
    }
}

const _: () = assert!(size_of::<FetchItem>() == 16);

/// Why an item did not come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchFailure {
    /// The peer answered that it does not have it.
    NotThere,
    /// The peer could not be reached, or the connection broke.
    Unreachable,
    /// What came was not what it should be: wrong length, checksum, task or kind.
    Damaged,
    /// The peer has it and cannot send it, in its words: making it again would not help.
    NotSendable(String),
}

/// Why a result was not spilled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpillFailure {
    /// It cannot be encoded. That will not change.
    CannotEncode,
    /// The disk is full, or does not work.
    NoSpace,
}

/// What to do, imperative. The shell carries actions out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Queue a message to the scheduler; all of a turn go in one frame.
    Tell(FromWorker),
    /// Prepare a body (find operators, parse arguments) for later runs.
    AddBody {
        /// Its id.
        id: BodyId,
        /// Operators and arguments.
        body: rask_graphs::Body,
        /// What to call tasks with it in logs.
        label: String,
        /// Whether the graph is the cluster's own user's.
        is_of_user: bool,
    },
    /// Forget all bodies of a graph.
    ForgetBodies {
        /// The graph.
        graph: rask_graphs::GraphId,
    },
    /// Run a task on a slot now; a slot is free. All inputs are in the store.
    Execute {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
        /// Its body.
        body: BodyId,
        /// Where its inputs are in the store, in kernel order.
        inputs: Vec<FetchItem>,
        /// For each declared input the number of entries in `inputs` it spreads out to (a gather group: one a member); empty
        /// when all are 1.
        spread: Vec<u32>,
    },
    /// Ask an executing run to stop at its next check.
    Interrupt {
        /// The task.
        task: TaskId,
        /// Which run.
        attempt: Attempt,
    },
    /// Fetch from one peer, in this order.
    Fetch {
        /// Names it in the answers.
        fetch: FetchId,
        /// The peer.
        from: WorkerId,
        /// Its data plane.
        address: SocketAddr,
        /// Its certificate name.
        name: String,
        /// What to fetch.
        items: Vec<FetchItem>,
    },
    /// Ask a peer to send these as soon as it has made them (or to say so, when they are big): nobody has them yet, and the
    /// scheduler has given the runs that make them to this peer. Comes before any [`Action::Unwatch`] of the same items.
    Watch {
        /// The peer.
        from: WorkerId,
        /// Its data plane.
        address: SocketAddr,
        /// Its certificate name.
        name: String,
        /// With this it lets this worker watch.
        pass: Grant,
        /// The results.
        items: Vec<FetchItem>,
    },
    /// Tell a peer that these are not wanted any more. Some may be on their way.
    Unwatch {
        /// The peer.
        from: WorkerId,
        /// The results.
        items: Vec<FetchItem>,
    },
    /// Send a result that is in the store to a peer that watches it: itself when small, otherwise word that it is here.
    Push {
        /// The peer.
        to: WorkerId,
        /// The result.
        item: FetchItem,
    },
    /// Let a client send those of the values it has offered that the verdict is true for; there is room for them.
    Admit {
        /// The offer.
        offer: OfferId,
        /// For each value of it whether it is taken.
        verdict: Vec<bool>,
    },
    /// Drop a result, or the part of one, from the store, with its file if it has one.
    Drop(FetchItem),
    /// Write a whole result to a file and keep it in memory. Answered by [`Event::Spilled`] or [`Event::NotSpilled`], also when
    /// the result is dropped before.
    Spill {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
    },
    /// Let go of the memory of a result that is in a file. When a run needs it, or a peer, it is read back; what a run has read
    /// as a whole is in memory again.
    Evict {
        /// The result.
        task: TaskId,
        /// The run that made it.
        attempt: Attempt,
    },
    /// End the process: its memory is as good as used up, and the system would kill it.
    Abort {
        /// What to tell people.
        reason: String,
    },
    /// Exit: the scheduler agreed to a retirement.
    Exit {
        /// What nobody else was there to take.
        lost: LostResults,
    },
    /// The scheduler broke the contract or closed: end the connection.
    Close {
        /// Why.
        reason: String,
    },
}
