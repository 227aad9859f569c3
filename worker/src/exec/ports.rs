//! What a core needs of its surroundings: a way to the scheduler, a way to peers, and what is asked of either.

use std::net::SocketAddr;

use rask_comm::Grant;
use rask_comm::message::{FromWorker, LostResults};
use rask_graphs::{Value, WorkerId};

use super::WorkerCore;
use crate::machine::{FetchId, FetchItem};

/// Where messages to the scheduler go.
pub trait Uplink: Send + Sync {
    /// Take all of `messages`, in order. Must not block: a queue, or a direct call into a scheduler in this process.
    ///
    /// A queue may hold messages back for company, for about a millisecond, until `n_patient` of them wait: the worker has
    /// enough to do until then. 0 when an answer is needed now.
    fn tell(&self, messages: &mut Vec<FromWorker>, n_patient: usize);

    /// The machine wants this registration to end. Told once, after the last message; the core goes on until
    /// [`WorkerCore::shutdown`].
    fn end(&self, ending: Ending);
}

/// Who brings results of peers here, and results from here to peers that watch for them.
pub trait Fetcher: Send + Sync {
    /// Begin to fetch, and answer each item of `order` once, on any thread, also within this call. Must not block.
    fn fetch(&self, core: &WorkerCore, order: FetchOrder);

    /// Begin to watch for items at a peer, or stop watching. Orders for one peer must take effect in the order given. Must not
    /// block. Each item that comes is answered with [`WorkerCore::pushed`] or [`WorkerCore::made`], on any thread; when the
    /// peer cannot be reached or its connection breaks, [`WorkerCore::watch_lost`] answers for all of its items.
    fn watch(&self, core: &WorkerCore, order: WatchOrder);

    /// Send a result to the peer `to`, which watches for it: the result itself when small, word that it is made otherwise.
    /// Must not block. A peer that is gone is told of with [`WorkerCore::peer_gone`].
    fn push(&self, core: &WorkerCore, to: WorkerId, item: FetchItem, value: Value);

    /// Send word that a result is made to the peer `to`, which watches for it and can fetch it: it is in a file, and about
    /// `nbytes` long. As [`Fetcher::push`] otherwise.
    fn announce(&self, core: &WorkerCore, to: WorkerId, item: FetchItem, nbytes: u64);
}

/// What to watch for at one peer, or not any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchOrder {
    /// The peer.
    pub from: WorkerId,
    /// Its data plane, its certificate name, and with what it lets this worker watch; `None` when this ends a watch.
    pub begin: Option<(SocketAddr, String, Grant)>,
    /// The results.
    pub items: Vec<FetchItem>,
}

/// One request to one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchOrder {
    /// Names the request in the answers.
    pub fetch: FetchId,
    /// The peer.
    pub from: WorkerId,
    /// Its data plane.
    pub address: SocketAddr,
    /// Its certificate name.
    pub name: String,
    /// What to fetch, the most urgent first.
    pub items: Vec<FetchItem>,
}

/// How a registration ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The scheduler let this worker go; nothing here is needed any more, or nobody is there to take it.
    Left {
        /// What is needed.
        lost: LostResults,
    },
    /// The scheduler closed, or broke the contract.
    Closed {
        /// Why.
        reason: String,
    },
    /// The process had better end than go on: its memory is as good as used up.
    Exhausted {
        /// How much it takes.
        reason: String,
    },
}
