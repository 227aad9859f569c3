//! Where all conversations meet the machine: events in turns, answers into outboxes, timeouts on time.

use std::collections::BTreeMap;
use std::time::Instant;

use rask_comm::connection::Connection;
use rask_comm::message::{ClientHello, ToClient, ToWorker, WorkerHello};
use rask_comm::outbox::Outbox;
use rask_comm::time::Time;
use rask_graphs::{ClientId, WorkerId};
use tokio::sync::mpsc;

use crate::machine::{Actions, Config, Event, Machine};

/// Frames handled as one turn at most, so that answers to the first do not wait for the last of a flood.
const TURN_LIMIT: usize = 64;

/// Debug builds check every invariant after every frame while there are no more tasks than this; the check is linear.
const VALIDATE_LIMIT: usize = 2_000;

/// What the readers tell the hub.
pub(super) enum News {
    WorkerJoined { worker: WorkerId, hello: WorkerHello, outbox: Outbox<ToWorker>, connection: Connection },
    WorkerGone { worker: WorkerId, reason: String },
    ClientJoined { client: ClientId, hello: ClientHello, outbox: Outbox<ToClient>, connection: Connection },
    ClientGone { client: ClientId },
    Events(Vec<Event>),
}

struct Peer<Out> {
    outbox: Outbox<Out>,
    connection: Connection,
}

/// The machine and the way to everyone it may have to speak to.
pub(super) struct Hub {
    machine: Machine,
    inbox: mpsc::Receiver<News>,
    workers: BTreeMap<WorkerId, Peer<ToWorker>>,
    clients: BTreeMap<ClientId, Peer<ToClient>>,
    begun: Instant,
    out: Actions,
    /// The operators of the first worker that is there; others are expected to have the same.
    fingerprint: Option<u64>,
    /// Workers that were told to leave: their end is no crash.
    leaving: std::collections::BTreeSet<WorkerId>,
}

impl Hub {
    pub(super) fn new(config: Config, inbox: mpsc::Receiver<News>) -> Self {
        Self {
            machine: Machine::new(config),
            inbox,
            workers: BTreeMap::new(),
            clients: BTreeMap::new(),
            begun: Instant::now(),
            out: Actions::default(),
            fingerprint: None,
            leaving: std::collections::BTreeSet::new(),
        }
    }

    fn now(&self) -> Time {
        Time(self.begun.elapsed())
    }

    /// Take turns until every reader is gone.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let due = self.machine.poll_timeout().map(|(due, _)| self.begun + due.0);
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                n_received = self.inbox.recv_many(&mut batch, TURN_LIMIT) => {
                    if n_received == 0 {
                        return;
                    }
                    for news in batch.drain(..) {
                        self.take_in(news);
                    }
                }
                () = timeout => {}
            }
            if self.machine.poll_timeout().is_some_and(|(due, _)| due <= self.now()) {
                self.machine.handle_timeout(self.now(), &mut self.out);
            }
            self.send();
        }
    }

    fn take_in(&mut self, news: News) {
        let now = self.now();
        match news {
            News::WorkerJoined { worker, hello, outbox, connection } => {
                if self.workers.is_empty() {
                    self.fingerprint = Some(hello.registry_fingerprint);
                } else if self.fingerprint != Some(hello.registry_fingerprint) {
                    tracing::warn!(%worker, name = hello.name, "a worker has other operators, or versions of them, than the others");
                }
                self.workers.insert(worker, Peer { outbox, connection });
                self.machine.handle(now, Event::WorkerJoined { worker, hello }, &mut self.out);
            }
            News::WorkerGone { worker, reason } => {
                self.workers.remove(&worker);
                let was_graceful = self.leaving.remove(&worker);
                self.machine.handle(now, Event::WorkerLost { worker, was_graceful, reason }, &mut self.out);
            }
            News::ClientJoined { client, hello, outbox, connection } => {
                self.clients.insert(client, Peer { outbox, connection });
                self.machine.handle(now, Event::ClientJoined { client, hello }, &mut self.out);
            }
            News::ClientGone { client } => {
                self.clients.remove(&client);
                self.machine.handle(now, Event::ClientLost { client }, &mut self.out);
            }
            News::Events(events) => {
                for event in events {
                    self.machine.handle(now, event, &mut self.out);
                }
            }
        }
        if cfg!(debug_assertions) && self.machine.n_tasks() <= VALIDATE_LIMIT {
            self.machine.validate();
        }
    }

    /// The turn's answers go into the outboxes. One that does not take them closes its connection, which ends in `Gone`.
    fn send(&mut self) {
        let out = &mut self.out;
        for (worker, messages) in std::mem::take(&mut out.to_workers) {
            if messages.iter().any(|message| matches!(message, ToWorker::Leave { .. })) {
                self.leaving.insert(worker);
            }
            if let Some(peer) = self.workers.get(&worker)
                && let Err(error) = peer.outbox.push(messages)
            {
                tracing::warn!(%worker, %error, "cannot reach a worker");
            }
        }
        for (client, messages) in std::mem::take(&mut out.to_clients) {
            if let Some(peer) = self.clients.get(&client)
                && let Err(error) = peer.outbox.push(messages)
            {
                tracing::warn!(%client, %error, "cannot reach a client");
            }
        }
        for note in out.notes.drain(..) {
            if note.is_warning() { tracing::warn!("{note}") } else { tracing::info!("{note}") }
        }
        for worker in out.close_workers.drain(..) {
            if let Some(peer) = self.workers.get(&worker) {
                peer.connection.close_misbehaved("the scheduler ended the conversation");
            }
        }
        for client in out.close_clients.drain(..) {
            if let Some(peer) = self.clients.get(&client) {
                peer.connection.close_misbehaved("the scheduler ended the conversation");
            }
        }
    }
}
