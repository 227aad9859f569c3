//! One connected worker or client: its hello, its messages in, its outbox out.

use rask_comm::connection::Connection;
use rask_comm::control::{ControlReceiver, ReceiveError};
use rask_comm::identity::Role;
use rask_comm::message::{ClientHello, FromClient, FromWorker, PROTOCOL_VERSION, ToClient, ToWorker, WorkerHello};
use rask_comm::outbox::Outbox;
use rask_graphs::{ClientId, WorkerId};
use tokio::sync::mpsc;

use super::hub::News;
use crate::machine::Event;

/// Most slots a worker may claim.
const MAX_SLOTS: u32 = 65_536;

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
pub(super) async fn serve_worker(worker: WorkerId, connection: Connection, news: mpsc::Sender<News>) {
    let Ok((sender, mut receiver)) = connection.accept_control::<ToWorker, FromWorker>().await else { return };
    let hello = match receiver
        .recv_hello::<WorkerHello>()
        .await
        .map_err(|error| error.to_string())
        .and_then(|hello| check(hello, &connection))
    {
        Ok(hello) => hello,
        Err(reason) => {
            tracing::warn!(peer = %connection.peer(), reason, "refused a worker");
            connection.close_misbehaved(&reason);
            return;
        }
    };
    tracing::info!(%worker, name = hello.name, slots = hello.n_slots, address = %hello.data_address, "worker joined");
    let name = hello.name.clone();
    let outbox = Outbox::default();
    let joined = News::WorkerJoined { worker, hello, outbox: outbox.clone(), connection: connection.clone() };
    if news.send(joined).await.is_err() {
        return;
    }
    let reader = read(&mut receiver, &news, |message| Event::WorkerSaid { worker, message });
    let reason = tokio::select! {
        reason = reader => reason,
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
fn check(mut hello: WorkerHello, connection: &Connection) -> Result<WorkerHello, String> {
    check_version(hello.version)?;
    if hello.name != connection.peer().name {
        return Err(format!("it calls itself \"{}\", its certificate \"{}\"", hello.name.escape_debug(), connection.peer().name));
    }
    if hello.n_slots == 0 || hello.n_slots > MAX_SLOTS {
        return Err(format!("{} slots; 1 to {MAX_SLOTS} are possible", hello.n_slots));
    }
    if hello.resources.iter().any(|(_, amount)| !amount.is_finite() || *amount < 0.0) {
        return Err("a resource amount is negative or not a number".to_owned());
    }
    if hello.data_address.ip().is_unspecified() {
        hello.data_address.set_ip(connection.remote_address().ip());
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
    tracing::debug!(%client, name = hello.name.escape_debug().to_string(), "client connected");
    let outbox = Outbox::default();
    let joined = News::ClientJoined { client, hello, outbox: outbox.clone(), connection: connection.clone() };
    if news.send(joined).await.is_err() {
        return;
    }
    let may_only_look = connection.peer().role == Role::Viewer;
    let mut has_overstepped = false;
    let reader = read(&mut receiver, &news, |message| {
        let is_look = matches!(message, FromClient::Status { .. });
        has_overstepped |= may_only_look && !is_look;
        if has_overstepped { Event::ClientLost { client } } else { Event::ClientSaid { client, message } }
    });
    let reason = tokio::select! {
        reason = reader => reason,
        written = outbox.run(sender) => written.err().map(|error| error.to_string()),
    };
    if has_overstepped {
        connection.close_misbehaved("a viewer may only ask for the status");
    }
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
                let oversteps = events.iter().any(|event| matches!(event, Event::ClientLost { .. }));
                if news.send(News::Events(events)).await.is_err() || oversteps {
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
    tracing::debug!(who, %end, reason = reason.as_deref().unwrap_or_default(), "disconnected");
    reason.unwrap_or_else(|| end.to_string())
}
