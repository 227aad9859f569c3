//! What the scheduler machine is told and what it asks for.

use std::collections::BTreeMap;

use rask_comm::message::{ClientHello, FromClient, FromWorker, SubmitOptions, ToClient, ToWorker, WorkerHello};
use rask_comm::{KeyId, PeerIdentity};
use rask_graphs::{ClientId, WorkerId};

use super::graph_run::PreparedGraph;

pub use super::note::{GraphEnd, Note};

/// What happened. Ids of workers and clients are given by the shell, rising, never used twice in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker passed the handshake.
    WorkerJoined {
        /// Its new id.
        worker: WorkerId,
        /// What it offers.
        hello: WorkerHello,
        /// The key of its certificate, by which other workers will know it.
        key: KeyId,
    },
    /// A worker's connection ended. There is exactly one such event a joined worker.
    WorkerLost {
        /// Which.
        worker: WorkerId,
        /// Whether it left in agreement (then it cannot be blamed for anything).
        was_graceful: bool,
        /// How it ended, in its words or the transport's, for the people whose tasks it costs.
        reason: String,
    },
    /// A message of a worker.
    WorkerSaid {
        /// Which.
        worker: WorkerId,
        /// What.
        message: FromWorker,
    },
    /// A client passed the handshake.
    ClientJoined {
        /// Its new id.
        client: ClientId,
        /// What it says of itself.
        hello: ClientHello,
        /// Who it is, as its certificate says.
        peer: PeerIdentity,
    },
    /// A client's connection ended.
    ClientLost {
        /// Which.
        client: ClientId,
    },
    /// A client submits a graph that has been checked elsewhere: checking it takes time.
    ClientSubmitted {
        /// Which.
        client: ClientId,
        /// As of [`FromClient::Submit`].
        request: u32,
        /// The graph.
        graph: Box<PreparedGraph>,
        /// Options.
        options: SubmitOptions,
    },
    /// A client submitted what is no graph.
    ClientMisspoke {
        /// Which.
        client: ClientId,
        /// As of [`FromClient::Submit`].
        request: u32,
        /// What is wrong with it, for the person at the client.
        reason: String,
    },
    /// A message of a client.
    ClientSaid {
        /// Which.
        client: ClientId,
        /// What.
        message: FromClient,
    },
}

/// What to do, gathered over one turn and grouped by destination: the shell writes one frame a peer and turn.
#[derive(Debug, Default)]
pub struct Actions {
    /// Messages by worker, in order.
    pub to_workers: BTreeMap<WorkerId, Vec<ToWorker>>,
    /// Messages by client, in order.
    pub to_clients: BTreeMap<ClientId, Vec<ToClient>>,
    /// Workers whose connection is to be closed after their messages; [`Event::WorkerLost`] follows.
    pub close_workers: Vec<WorkerId>,
    /// Clients whose connection is to be closed after their messages, and why; [`Event::ClientLost`] follows.
    pub close_clients: Vec<(ClientId, String)>,
    /// For the log.
    pub notes: Vec<Note>,
}

impl Actions {
    /// Say `message` to `worker`.
    pub fn tell_worker(&mut self, worker: WorkerId, message: ToWorker) {
        self.to_workers.entry(worker).or_default().push(message);
    }

    /// Say `message` to `client`.
    pub fn tell_client(&mut self, client: ClientId, message: ToClient) {
        self.to_clients.entry(client).or_default().push(message);
    }

    /// Something for the log.
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to_workers.is_empty()
            && self.to_clients.is_empty()
            && self.close_workers.is_empty()
            && self.close_clients.is_empty()
            && self.notes.is_empty()
    }
}
