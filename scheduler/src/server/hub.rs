//! Where all conversations meet the machine: events in turns, answers into outboxes, timeouts on time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use rask_comm::connection::Connection;
use rask_comm::limits::{MAX_STATUS_REQUESTS, STATUS_INTERVAL};
use rask_comm::message::{ClientHello, FromClient, ToClient, ToWorker, WorkerHello};
use rask_comm::outbox::Outbox;
use rask_comm::time::Time;
use rask_comm::{Origin, TokenId};
use rask_graphs::{ClientId, WorkerId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::admission::REVOKED;
use crate::machine::{Actions, Config, Event, Machine};

/// Parts of frames handled as one turn at most, so that answers to the first do not wait for the last of a flood.
const TURN_LIMIT: usize = 64;

/// Questions for the status that are answered in one turn.
const ANSWERS_A_TURN: usize = 4;

/// Debug builds check every invariant after every frame while there are no more tasks than this; the check is linear.
const VALIDATE_LIMIT: usize = 2_000;

/// What the readers tell the hub.
pub(super) enum News {
    WorkerJoined {
        worker: WorkerId,
        hello: WorkerHello,
        outbox: Outbox<ToWorker>,
        connection: Connection,
    },
    WorkerGone {
        worker: WorkerId,
        reason: String,
    },
    ClientJoined {
        client: ClientId,
        hello: ClientHello,
        outbox: Outbox<ToClient>,
        connection: Connection,
    },
    ClientGone {
        client: ClientId,
    },
    /// A part of a frame, and the reader's right to have it wait here: no peer has more than a few parts in line, so all get
    /// their turn however long their frames are.
    Events(Vec<Event>, OwnedSemaphorePermit),
    /// Nodes that joined by one of these tokens have to go.
    Revoked(BTreeSet<TokenId>),
}

struct Peer<Out> {
    outbox: Outbox<Out>,
    connection: Connection,
    questions: Questions,
}

impl<Out> Peer<Out> {
    fn new(outbox: Outbox<Out>, connection: Connection) -> Self {
        Self { outbox, connection, questions: Questions::default() }
    }
}

/// A client's questions for the status, which are answered one a turn and not too often.
#[derive(Default)]
struct Questions {
    open: VecDeque<u32>,
    answered_at: Option<Instant>,
}

impl Questions {
    /// When the next one may be answered; `None` while there is none.
    fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.answered_at.map_or(now, |at| at + STATUS_INTERVAL);
        (!self.open.is_empty()).then_some(due)
    }

    /// The one to be answered now, if any is.
    fn take_due(&mut self, now: Instant) -> Option<u32> {
        if self.due(now)? > now {
            return None;
        }
        self.answered_at = Some(now);
        self.open.pop_front()
    }
}

/// The machine and the way to everyone it may have to speak to.
pub(super) struct Hub {
    machine: Machine,
    inbox: mpsc::Receiver<News>,
    workers: BTreeMap<WorkerId, Peer<ToWorker>>,
    clients: BTreeMap<ClientId, Peer<ToClient>>,
    begun: Instant,
    out: Actions,
    /// The operators of the workers that are there: all the same.
    fingerprint: u64,
    /// Workers that were told to leave: their end is no crash.
    leaving: BTreeSet<WorkerId>,
    /// Clients with open questions for the status.
    n_asking: usize,
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
            fingerprint: 0,
            leaving: BTreeSet::new(),
            n_asking: 0,
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
            let due = due.into_iter().chain(self.next_answer()).min();
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
            self.answer_questions();
            self.send();
        }
    }

    fn next_answer(&self) -> Option<Instant> {
        if self.n_asking == 0 {
            return None;
        }
        let now = Instant::now();
        self.clients.values().filter_map(|peer| peer.questions.due(now)).min()
    }

    /// Tell clients that have asked how the cluster is: a few a turn, and one answer each.
    fn answer_questions(&mut self) {
        if self.n_asking == 0 {
            return;
        }
        let now = Instant::now();
        // Those who have waited longest first, so that all get theirs.
        let asking = self.clients.iter().filter_map(|(client, peer)| Some((peer.questions.due(now)?, *client)));
        let mut due: Vec<(Instant, ClientId)> = asking.filter(|(due, _)| *due <= now).collect();
        due.sort_unstable();
        for (_, client) in due.into_iter().take(ANSWERS_A_TURN) {
            let Some(peer) = self.clients.get_mut(&client) else { continue };
            let Some(request) = peer.questions.take_due(now) else { continue };
            self.n_asking -= usize::from(peer.questions.open.is_empty());
            if let Some(report) = self.machine.status_for(client) {
                self.out.tell_client(client, ToClient::Status { request, report: Box::new(report) });
            }
        }
    }

    /// Keep a question for the status for later.
    fn set_aside(&mut self, client: ClientId, request: u32) {
        let Some(peer) = self.clients.get_mut(&client) else { return };
        if peer.questions.open.len() >= MAX_STATUS_REQUESTS {
            let reason = format!("more than {MAX_STATUS_REQUESTS} questions for the status at once; wait for the answers");
            peer.connection.close_misbehaved(&reason);
            return;
        }
        self.n_asking += usize::from(peer.questions.open.is_empty());
        peer.questions.open.push_back(request);
    }

    fn take_in(&mut self, news: News) {
        let now = self.now();
        match news {
            News::WorkerJoined { worker, hello, outbox, connection } => {
                let Ok(()) = self.admit(&hello, &connection) else { return };
                tracing::info!(
                    %worker,
                    peer = %connection.peer(),
                    from = %connection.peer().origin,
                    slots = hello.n_slots,
                    address = %hello.data_address,
                    "worker joined"
                );
                let key = connection.peer().key;
                self.workers.insert(worker, Peer::new(outbox, connection));
                self.machine.handle(now, Event::WorkerJoined { worker, hello, key }, &mut self.out);
            }
            News::WorkerGone { worker, reason } => {
                // One that was not let in, or whose end is known, has nothing to lose.
                if self.workers.remove(&worker).is_none() {
                    return;
                }
                let was_graceful = self.leaving.remove(&worker);
                self.machine.handle(now, Event::WorkerLost { worker, was_graceful, reason }, &mut self.out);
            }
            News::ClientJoined { client, hello, outbox, connection } => {
                let peer = connection.peer().clone();
                self.clients.insert(client, Peer::new(outbox, connection));
                self.machine.handle(now, Event::ClientJoined { client, hello, peer }, &mut self.out);
            }
            News::ClientGone { client } => {
                let gone = self.clients.remove(&client);
                self.n_asking -= usize::from(gone.is_some_and(|peer| !peer.questions.open.is_empty()));
                self.machine.handle(now, Event::ClientLost { client }, &mut self.out);
            }
            News::Revoked(tokens) => {
                let workers = self.workers.values().map(|peer| &peer.connection);
                for connection in workers.chain(self.clients.values().map(|peer| &peer.connection)) {
                    if let Origin::Token(token) = connection.peer().origin
                        && tokens.contains(&token)
                    {
                        tracing::warn!(peer = %connection.peer(), %token, "closed a connection: {REVOKED}");
                        connection.close_misbehaved(REVOKED);
                    }
                }
            }
            News::Events(events, _place) => {
                for event in events {
                    if let Event::ClientSaid { client, message: FromClient::Status { request } } = &event {
                        self.set_aside(*client, *request);
                    } else {
                        self.machine.handle(now, event, &mut self.out);
                    }
                }
            }
        }
        if cfg!(debug_assertions) && self.machine.n_tasks() <= VALIDATE_LIMIT {
            self.machine.validate();
        }
    }

    /// Whether a worker may come in: with a name that nobody has, and the operators that all others have. One that is not let in is
    /// told why.
    fn admit(&mut self, hello: &WorkerHello, connection: &Connection) -> Result<(), ()> {
        let me = connection.peer();
        let namesake = self.workers.iter().find(|(_, peer)| peer.connection.peer().name == me.name);
        if let Some((&worker, peer)) = namesake {
            // The same process comes again before it is known that its last connection has broken, or somebody has its name.
            if peer.connection.peer().key != me.key && !peer.connection.is_closed() {
                tracing::warn!(peer = %me, address = %connection.remote_address(), "refused a second worker of that name");
                connection.close_busy(&format!("a worker named \"{}\" is there already", me.name.escape_debug()));
                return Err(());
            }
            peer.connection.close("the worker has come again");
            self.take_in(News::WorkerGone { worker, reason: "it has come again on another connection".to_owned() });
        }
        if self.workers.is_empty() {
            self.fingerprint = hello.registry_fingerprint;
        } else if self.fingerprint != hello.registry_fingerprint {
            tracing::warn!(peer = %me, "refused a worker with other operators");
            connection.close(
                "its operators, or their versions, are not those of the workers that are there; a task must mean the same everywhere",
            );
            return Err(());
        }
        Ok(())
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
        for (client, reason) in out.close_clients.drain(..) {
            if let Some(peer) = self.clients.get(&client) {
                peer.connection.close_misbehaved(&reason);
            }
        }
    }
}
