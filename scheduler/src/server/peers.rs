//! One connected worker or client: its hello, its messages in, its outbox out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rask_comm::Origin;
use rask_comm::connection::Connection;
use rask_comm::control::{ControlReceiver, ControlSender, ReceiveError};
use rask_comm::limits::{HELLO_NBYTES, HELLO_TIMEOUT, MAX_REPLIES_NBYTES, MAX_WORKER_RESOURCES, name_fault};
use rask_comm::message::{ClientHello, FromClient, FromWorker, PROTOCOL_VERSION, ToClient, ToWorker, WorkerHello};
use rask_comm::outbox::Outbox;
use rask_graphs::{ClientId, WorkerId};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::hub::News;
use super::parts::{Intake, Parts, Speaker};
use crate::machine::Event;

/// How often is looked whether a client has read its answers.
const DRAINING: Duration = Duration::from_millis(2);

/// Most slots a worker may claim: more than the largest hosts have processors. The work of a cluster goes where slots are.
const MAX_SLOTS: u32 = 1_024;

/// Most memory, in bytes: what sums over all workers have room for.
const MAX_MEMORY: u64 = 1 << 50;

/// On which terms workers are here.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) believes_addresses: bool,
    pub(super) silence_limit: Duration,
}

/// Gives ids to peers, rising, never twice.
#[derive(Default)]
pub(super) struct Ids {
    n_workers: u32,
    n_clients: u32,
}

impl Ids {
    pub(super) fn worker(&mut self) -> WorkerId {
        self.n_workers += 1;
        WorkerId(self.n_workers - 1)
    }

    pub(super) fn client(&mut self) -> ClientId {
        self.n_clients += 1;
        ClientId(self.n_clients - 1)
    }
}

/// What whoever connected says of itself first. It has little time and few bytes for it: until it is known who it is, it
/// must not cost anything.
async fn hello<Hello: DeserializeOwned, In>(receiver: &mut ControlReceiver<In>) -> Result<Hello, String> {
    match timeout(HELLO_TIMEOUT, receiver.recv_hello_within(HELLO_NBYTES)).await {
        Ok(said) => said.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("it has said nothing for {HELLO_TIMEOUT:?}")),
    }
}

/// The peer's control stream, once it is there; as with its hello, soon.
async fn control<Out, In>(connection: &Connection) -> Option<(ControlSender<Out>, ControlReceiver<In>)> {
    match timeout(HELLO_TIMEOUT, connection.accept_control()).await {
        Ok(accepted) => accepted.ok(),
        Err(_elapsed) => {
            connection.close_misbehaved(&format!("no hello within {HELLO_TIMEOUT:?}"));
            None
        }
    }
}

/// Serve a worker until its connection ends.
pub(super) async fn serve_worker(
    worker: WorkerId,
    connection: Connection,
    terms: Terms,
    news: mpsc::Sender<News>,
    intake: Intake,
) {
    let Some((sender, mut receiver)) = control::<ToWorker, FromWorker>(&connection).await else { return };
    let said = hello::<WorkerHello, _>(&mut receiver).await;
    let hello = match said.and_then(|hello| check(hello, &connection, terms.believes_addresses)) {
        Ok(hello) => hello,
        Err(reason) => {
            if let Some(n_left_out) = intake.quiet.may_say("refused", connection.remote_address().ip()) {
                tracing::warn!(peer = %connection.peer(), reason, n_left_out, "refused a worker");
            }
            connection.close_misbehaved(&reason);
            return;
        }
    };
    let name = hello.name.clone();
    let outbox = Outbox::default();
    let joined = News::WorkerJoined { worker, hello, outbox: outbox.clone(), connection: connection.clone() };
    if news.send(joined).await.is_err() {
        return;
    }
    let (begun, last_status_ms) = (Instant::now(), AtomicU64::new(0));
    let note_status = |events: Vec<Event>| {
        if events.iter().any(|event| matches!(event, Event::WorkerSaid { message: FromWorker::Status(_), .. })) {
            last_status_ms.store(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        std::future::ready(events)
    };
    let reader = read(&mut receiver, &news, Parts::new(worker, &intake), note_status);
    let silence = async {
        let due = || terms.silence_limit + Duration::from_millis(last_status_ms.load(Ordering::Relaxed));
        while let Some(rest) = due().checked_sub(begun.elapsed()) {
            tokio::time::sleep(rest).await;
        }
        Some(format!("it has not told its state for {} s", terms.silence_limit.as_secs()))
    };
    let reason = tokio::select! {
        reason = reader => reason,
        reason = silence => reason,
        written = outbox.run(sender) => written.err().map(|error| error.to_string()),
    };
    let reason = finish(&connection, reason, &format!("worker \"{}\"", name.escape_debug())).await;
    let _ = news.send(News::WorkerGone { worker, reason }).await;
}

/// Another version means other messages, so nothing after the hello could be understood.
fn check_version(version: u32) -> Result<(), String> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(format!("it speaks version {version} of the protocol, the scheduler speaks version {PROTOCOL_VERSION}"))
}

/// The worker's claims must fit its certificate, and its address must be one that others can use.
fn check(mut hello: WorkerHello, connection: &Connection, believes_addresses: bool) -> Result<WorkerHello, String> {
    check_version(hello.version)?;
    if hello.name != connection.peer().name {
        return Err(format!("it calls itself \"{}\", its certificate \"{}\"", hello.name.escape_debug(), connection.peer().name));
    }
    if hello.n_slots == 0 || hello.n_slots > MAX_SLOTS {
        return Err(format!("{} slots; 1 to {MAX_SLOTS} are possible", hello.n_slots));
    }
    if hello.memory_limit > MAX_MEMORY {
        return Err(format!("a memory limit of {} bytes; {MAX_MEMORY} are the most", hello.memory_limit));
    }
    if hello.resources.len() > MAX_WORKER_RESOURCES {
        return Err(format!("{} resources; at most {MAX_WORKER_RESOURCES} are possible", hello.resources.len()));
    }
    if let Some(fault) = hello.resources.iter().find_map(|(name, _)| name_fault(name)) {
        return Err(format!("the name of a resource {fault}"));
    }
    if let Some(fault) = name_fault(&hello.host) {
        return Err(format!("the name of its host {fault}"));
    }
    if hello.resources.iter().any(|(_, amount)| !amount.is_finite() || *amount < 0.0) {
        return Err("a resource amount is negative or not a number".to_owned());
    }
    if hello.data_address.ip().is_unspecified() {
        hello.data_address.set_ip(connection.remote_address().ip());
    }
    let (said, seen) = (hello.data_address.ip().to_canonical(), connection.remote_address().ip().to_canonical());
    // The cluster's own user may send others anywhere: with the authority's key it needs no worker for that.
    let is_believed = believes_addresses || connection.peer().origin == Origin::Local;
    if said != seen && !is_believed {
        return Err(format!(
            "it says that its data plane is at {said} and comes from {seen}; the scheduler takes its word for it with \
             --believe-addresses"
        ));
    }
    if hello.data_address.port() == 0 {
        return Err("its data plane is at port 0".to_owned());
    }
    Ok(hello)
}

/// As [`check`], of a client.
fn check_client(hello: ClientHello) -> Result<ClientHello, String> {
    check_version(hello.version)?;
    match name_fault(&hello.name) {
        Some(fault) => Err(format!("its name {fault}")),
        None => Ok(hello),
    }
}

/// Serve a client until its connection ends.
pub(super) async fn serve_client(client: ClientId, connection: Connection, news: mpsc::Sender<News>, intake: Intake) {
    let Some((sender, mut receiver)) = control::<ToClient, FromClient>(&connection).await else { return };
    let hello = match hello::<ClientHello, _>(&mut receiver).await.and_then(check_client) {
        Ok(hello) => hello,
        Err(reason) => {
            if let Some(n_left_out) = intake.quiet.may_say("refused", connection.remote_address().ip()) {
                tracing::warn!(peer = %connection.peer(), reason, n_left_out, "refused a client");
            }
            connection.close_misbehaved(&reason);
            return;
        }
    };
    receiver.set_gate(intake.gates.of(connection.peer().key));
    receiver.set_limit(connection.plane().frame_limit_of(connection.peer().role));
    tracing::info!(%client, peer = %connection.peer(), from = %connection.peer().origin, host = %hello.name.escape_debug(), "client connected");
    let outbox = Outbox::default();
    let joined = News::ClientJoined { client, hello, outbox: outbox.clone(), connection: connection.clone() };
    if news.send(joined).await.is_err() {
        return;
    }
    // What a client asks for may be a thousand times as long as the question: who does not read the answers asks no more.
    let listens = |events: Vec<Event>| {
        let outbox = &outbox;
        async move {
            while outbox.nbytes() > MAX_REPLIES_NBYTES {
                sleep(DRAINING).await;
            }
            events
        }
    };
    let reader = read(&mut receiver, &news, Parts::new(client, &intake), listens);
    let reason = tokio::select! {
        reason = reader => reason,
        written = outbox.run(sender) => written.err().map(|error| error.to_string()),
    };
    finish(&connection, reason, &format!("client {client}")).await;
    let _ = news.send(News::ClientGone { client }).await;
}

/// Pass on what comes in until the stream ends; what was wrong with it, if anything was. `admit` may hold events back.
async fn read<S: Speaker, Admitting: Future<Output = Vec<Event>>>(
    receiver: &mut ControlReceiver<S::Message>,
    news: &mpsc::Sender<News>,
    mut parts: Parts<S>,
    mut admit: impl FnMut(Vec<Event>) -> Admitting,
) -> Option<String> {
    let garbage = |error| Some(format!("it sent garbage: {error}"));
    loop {
        match receiver.recv_frame().await {
            Ok(Some(frame)) => parts.begin(frame),
            Ok(None) => return None,
            Err(ReceiveError::Garbage(error)) => return garbage(error),
            Err(error @ ReceiveError::Stream(_)) => return Some(error.to_string()),
        }
        loop {
            let (events, place) = match parts.next().await {
                Ok(Some(part)) => part,
                Ok(None) => break,
                Err(error) => return garbage(error),
            };
            let events = admit(events).await;
            if news.send(News::Events(events, place)).await.is_err() {
                return None;
            }
        }
    }
}

/// End the connection if it has not ended; why it did.
async fn finish(connection: &Connection, reason: Option<String>, who: &str) -> String {
    if let (Some(reason), false) = (&reason, connection.is_closed()) {
        connection.close_misbehaved(reason);
    } else {
        connection.close("done");
    }
    let end = connection.closed().await;
    tracing::debug!(who, %end, reason = reason.as_deref().unwrap_or_default(), "disconnected");
    reason.unwrap_or_else(|| end.to_string())
}
