//! One connected worker or client: its hello, its messages in, its outbox out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rask_comm::Origin;
use rask_comm::connection::Connection;
use rask_comm::control::{ControlReceiver, ReceiveError};
use rask_comm::message::{ClientHello, FromClient, FromWorker, PROTOCOL_VERSION, ToClient, ToWorker, WorkerHello};
use rask_comm::outbox::Outbox;
use rask_graphs::{ClientId, WorkerId};
use tokio::sync::mpsc;

use super::hub::News;
use crate::machine::Event;

/// Most slots a worker may claim: more than the largest hosts have processors. The work of a cluster goes where slots are.
const MAX_SLOTS: u32 = 1_024;

/// Most memory, in bytes: what sums over all workers have room for.
const MAX_MEMORY: u64 = 1 << 50;

/// Most abstract resources, and bytes of one's name and of what a host is known by.
const MAX_RESOURCES: usize = 64;
const MAX_WORD: usize = 128;

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

/// Serve a worker until its connection ends.
pub(super) async fn serve_worker(worker: WorkerId, connection: Connection, terms: Terms, news: mpsc::Sender<News>) {
    let Ok((sender, mut receiver)) = connection.accept_control::<ToWorker, FromWorker>().await else { return };
    let hello = match receiver
        .recv_hello::<WorkerHello>()
        .await
        .map_err(|error| error.to_string())
        .and_then(|hello| check(hello, &connection, terms.believes_addresses))
    {
        Ok(hello) => hello,
        Err(reason) => {
            tracing::warn!(peer = %connection.peer(), reason, "refused a worker");
            connection.close_misbehaved(&reason);
            return;
        }
    };
    let outbox = Outbox::default();
    let joined = News::WorkerJoined { worker, hello, outbox: outbox.clone(), connection: connection.clone() };
    if news.send(joined).await.is_err() {
        return;
    }
    let (begun, last_status_ms) = (Instant::now(), AtomicU64::new(0));
    let reader = read(&mut receiver, &news, |message| {
        if matches!(message, FromWorker::Status(_)) {
            last_status_ms.store(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        Event::WorkerSaid { worker, message }
    });
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
    let reason = finish(&connection, reason, &format!("worker {worker}")).await;
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
    let is_bad_name = |name: &str| name.is_empty() || name.len() > MAX_WORD || name.chars().any(char::is_control);
    if hello.resources.len() > MAX_RESOURCES || hello.resources.iter().any(|(name, _)| is_bad_name(name)) {
        return Err(format!("more than {MAX_RESOURCES} resources, or one whose name has not 1 to {MAX_WORD} plain bytes"));
    }
    if hello.host.len() > MAX_WORD {
        return Err(format!("its host is known by more than {MAX_WORD} bytes"));
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

/// Serve a client until its connection ends.
pub(super) async fn serve_client(client: ClientId, connection: Connection, news: mpsc::Sender<News>) {
    let Ok((sender, mut receiver)) = connection.accept_control::<ToClient, FromClient>().await else { return };
    let said = receiver.recv_hello::<ClientHello>().await.map_err(|error| error.to_string());
    let hello = match said.and_then(|hello| check_version(hello.version).map(|()| hello)) {
        Ok(hello) => hello,
        Err(reason) => {
            tracing::warn!(peer = %connection.peer(), reason, "refused a client");
            connection.close_misbehaved(&reason);
            return;
        }
    };
    tracing::info!(%client, peer = %connection.peer(), from = %connection.peer().origin, host = %hello.name.escape_debug(), "client connected");
    let outbox = Outbox::default();
    let joined = News::ClientJoined { client, hello, outbox: outbox.clone(), connection: connection.clone() };
    if news.send(joined).await.is_err() {
        return;
    }
    let reader = read(&mut receiver, &news, |message| Event::ClientSaid { client, message });
    let reason = tokio::select! {
        reason = reader => reason,
        written = outbox.run(sender) => written.err().map(|error| error.to_string()),
    };
    finish(&connection, reason, &format!("client {client}")).await;
    let _ = news.send(News::ClientGone { client }).await;
}

/// Pass on what comes in until the stream ends; what was wrong with it, if anything was.
async fn read<In>(
    receiver: &mut ControlReceiver<In>,
    news: &mpsc::Sender<News>,
    mut event: impl FnMut(In) -> Event,
) -> Option<String>
where
    In: serde::de::DeserializeOwned,
{
    loop {
        match receiver.recv().await {
            Ok(Some(messages)) => {
                let events: Vec<Event> = messages.into_iter().map(&mut event).collect();
                if news.send(News::Events(events)).await.is_err() {
                    return None;
                }
            }
            Ok(None) => return None,
            Err(ReceiveError::Garbage(error)) => return Some(format!("it sent garbage: {error}")),
            Err(error @ ReceiveError::Stream(_)) => return Some(error.to_string()),
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
    tracing::info!(who, %end, reason = reason.as_deref().unwrap_or_default(), "disconnected");
    reason.unwrap_or_else(|| end.to_string())
}
