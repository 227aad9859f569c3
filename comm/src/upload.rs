//! Values from a client to the worker that the scheduler has chosen for them, on the data plane.
//!
//! The client *offers* values: what they are, how long at most, and the [`Ticket`] that proves it was asked. Once the worker
//! has room, it says which of them it takes, and only then do bytes move: so a value that has to wait is in nobody's buffers.
//! What is sent looks as what is fetched does, with the same checksums. The worker's last word says which have arrived.
//!
//! ```text
//! client   Offer                          item, item, ...
//! worker            Verdict (which)                         Outcome (which arrived)
//! ```

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use rask_graphs::{Attempt, Encoded, Part, Registry, TaskId, Value};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, FRAME_LIMIT};
use crate::connection::{Connection, escaped};
use crate::control::StreamError;
use crate::data::{
    FetchError, FoundHeader, ItemHeader, NO_PROGRESS_LIMIT, PartRequest, PartSource, REQUEST_LIMIT, ReadFrameError, ReplyStream,
    Request, ServeError, StreamReader, lost, no_progress, receive_item, useless,
};
use crate::ticket::Ticket;

/// Uploads know no signs of life but bytes.
static NO_SIGNS: AtomicU32 = AtomicU32::new(0);

/// Values that a client has been asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The proof.
    pub ticket: Ticket,
    /// What is offered; at most [`REQUEST_LIMIT`].
    pub items: Vec<OfferedItem>,
}

/// One value of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OfferedItem {
    /// The task whose result it is to be.
    pub task: TaskId,
    /// Which upload of it.
    pub attempt: Attempt,
    /// Its length in bytes, at most.
    pub nbytes: u64,
}

impl OfferedItem {
    fn request(&self) -> PartRequest {
        PartRequest { task: self.task, attempt: self.attempt, part: Part::WHOLE }
    }
}

/// What a worker has decided about an offer, and where what it takes goes. Dropped, it gives up what has not arrived.
pub trait Admitted: Send {
    /// For each item whether it is taken.
    fn verdict(&self) -> &[bool];

    /// What values are decoded with.
    fn registry(&self) -> &Registry;

    /// The item at `idx`, which is one of those taken, has arrived.
    fn arrived(&mut self, idx: usize, value: Value, duration: Duration);
}

/// Nobody takes anything.
struct Refusal {
    verdict: Vec<bool>,
    registry: Registry,
}

impl Admitted for Refusal {
    fn verdict(&self) -> &[bool] {
        &self.verdict
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn arrived(&mut self, _idx: usize, _value: Value, _duration: Duration) {}
}

/// The answer of who takes none of what is offered.
#[must_use]
pub fn refuse_all(offer: &Offer) -> Box<dyn Admitted> {
    Box::new(Refusal { verdict: vec![false; offer.items.len()], registry: Registry::new() })
}

/// Which items are taken.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict(Vec<bool>);

/// For each item that was taken why it did not arrive, if so.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome(Vec<Option<String>>);

/// Take in what a client offers on this stream.
pub(crate) async fn serve(
    mut reply: ReplyStream,
    mut reader: StreamReader,
    offer: Offer,
    connection: &Connection,
    source: &dyn PartSource,
) -> Result<(), ServeError> {
    let garbage = |reason: &str| Err(ServeError::Garbage(CodecError::Malformed(reason.to_owned())));
    if offer.items.is_empty() || offer.items.len() > REQUEST_LIMIT {
        return garbage("an offer of nothing, or of too much");
    }
    let items = offer.items.clone();
    let mut admitted = tokio::select! {
        admitted = source.offered(offer) => admitted,
        early = reader.some(1) => return match early {
            Ok(None) => Err(StreamError::EndedEarly.into()),
            Ok(Some(_)) => garbage("a value came before it was taken"),
            Err(error) => Err(error.into()),
        },
    };
    let verdict = admitted.verdict().to_vec();
    reply.add_frame(&Verdict(verdict.clone())).await?;
    reply.flush().await?;
    let mut outcome = Outcome(Vec::new());
    for (idx, item) in items.iter().enumerate().filter(|(idx, _)| verdict.get(*idx) == Some(&true)) {
        let begun = Instant::now();
        let received = tokio::select! {
            biased;
            received = receive(&mut reader, item, admitted.registry()) => received,
            () = no_progress(connection, &NO_SIGNS) => return Err(StreamError::EndedEarly.into()),
        };
        match received {
            Ok(Ok(value)) => {
                admitted.arrived(idx, value, begun.elapsed());
                outcome.0.push(None);
            }
            Ok(Err(error)) => outcome.0.push(Some(error.to_string())),
            Err(ReadFrameError::Stream(error)) => return Err(error.into()),
            Err(ReadFrameError::Codec(error)) => return Err(ServeError::Garbage(error)),
        }
    }
    // What did not arrive is given up before the client hears of it: it may offer it again at once.
    drop(admitted);
    reply.add_frame(&outcome).await?;
    Ok(reply.finish().await?)
}

/// Receive one value. The inner error means that it alone is wrong, and has been read to its end.
async fn receive(
    reader: &mut StreamReader,
    item: &OfferedItem,
    registry: &Registry,
) -> Result<Result<Value, FetchError>, ReadFrameError> {
    let malformed = |reason: &str| ReadFrameError::Codec(CodecError::Malformed(reason.to_owned()));
    let Some(frame) = reader.frame().await? else { return Err(StreamError::EndedEarly.into()) };
    let mut headers = codec::decode_frame::<ItemHeader>(&frame).map_err(ReadFrameError::Codec)?;
    match headers.pop().filter(|_| headers.is_empty()) {
        Some(ItemHeader::Found(header)) if header.nbytes() <= item.nbytes => {
            let received = receive_item(reader, &item.request(), header, registry).await?;
            Ok(received.map(|fetched| fetched.value))
        }
        Some(ItemHeader::Found(_)) => Err(malformed("a value is longer than it was said to be")),
        Some(ItemHeader::Reading | ItemHeader::NotThere | ItemHeader::NotSendable(_)) | None => {
            Err(malformed("one value expected"))
        }
    }
}

/// Why a value was not uploaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The worker does not take it: it was not told to, or has been told otherwise since.
    #[error("the worker does not take it")]
    Refused,
    /// The worker could not make sense of what came.
    #[error("the worker could not take it: {0}")]
    Damaged(String),
    /// The connection or the stream broke before the worker confirmed it.
    #[error("{0}")]
    Unreachable(String),
}

/// Upload `values` to the worker at the other end, which the scheduler has told to expect them. `on_sent` is told how many
/// bytes have been handed to the network, piece by piece. Gives the outcome for each, in order. Dropping the future stops it.
pub async fn upload(
    connection: &Connection,
    ticket: Ticket,
    values: &[(OfferedItem, Encoded)],
    mut on_sent: impl FnMut(u64),
) -> Vec<Result<(), UploadError>> {
    let mut outcomes = vec![None; values.len()];
    if let Err(error) = try_upload(connection, ticket, values, &mut on_sent, &mut outcomes).await {
        outcomes.iter_mut().filter(|outcome| outcome.is_none()).for_each(|outcome| *outcome = Some(Err(error.clone())));
    }
    outcomes.into_iter().flatten().collect()
}

async fn try_upload(
    connection: &Connection,
    ticket: Ticket,
    values: &[(OfferedItem, Encoded)],
    on_sent: &mut impl FnMut(u64),
    outcomes: &mut [Option<Result<(), UploadError>>],
) -> Result<(), UploadError> {
    let (send, receive) = connection.inner.open_bi().await.map_err(|error| broken(error.into()))?;
    let (mut send, mut reader) = (ReplyStream::new(send), StreamReader::new(receive));
    let items = values.iter().map(|(item, _)| *item).collect();
    send.add_frame(&Request::Upload(Offer { ticket, items })).await.map_err(unsent)?;
    send.flush().await.map_err(broken)?;
    let Verdict(verdict) = answer(&mut reader).await?;
    if verdict.len() != values.len() {
        return Err(UploadError::Unreachable("the worker answered about other values".to_owned()));
    }
    let mut taken = Vec::new();
    for (idx, is_taken) in verdict.into_iter().enumerate() {
        if is_taken { taken.push(idx) } else { outcomes[idx] = Some(Err(UploadError::Refused)) }
    }
    for idx in &taken {
        let (item, encoded) = &values[*idx];
        send.add_frame(&ItemHeader::Found(FoundHeader::new(&item.request(), encoded))).await.map_err(unsent)?;
        for buffer in &encoded.buffers {
            send.add_buffer(buffer.clone(), on_sent).await.map_err(broken)?;
        }
    }
    send.finish().await.map_err(broken)?;
    let confirmed = tokio::select! {
        biased;
        confirmed = answer::<Outcome>(&mut reader) => confirmed?,
        () = no_progress(connection, &NO_SIGNS), if !taken.is_empty() => {
            return Err(UploadError::Unreachable(format!("the worker has said next to nothing for {NO_PROGRESS_LIMIT:?}")));
        }
    };
    if confirmed.0.len() != taken.len() {
        return Err(UploadError::Unreachable("the worker confirmed other values".to_owned()));
    }
    for (idx, reason) in taken.into_iter().zip(confirmed.0) {
        outcomes[idx] = Some(reason.map_or(Ok(()), |reason| Err(UploadError::Damaged(escaped(reason.as_bytes())))));
    }
    Ok(())
}

/// The worker's next word.
async fn answer<T: serde::de::DeserializeOwned>(reader: &mut StreamReader) -> Result<T, UploadError> {
    let unreachable = |error: FetchError| UploadError::Unreachable(error.to_string());
    let frame = reader.frame().await.map_err(|error| unreachable(useless(error)))?;
    let Some(frame) = frame else { return Err(UploadError::Unreachable("the worker ended the upload".to_owned())) };
    let mut words = codec::decode_frame::<T>(&frame).map_err(|error| UploadError::Unreachable(error.to_string()))?;
    words.pop().filter(|_| words.is_empty()).ok_or_else(|| UploadError::Unreachable("one answer expected".to_owned()))
}

fn broken(error: StreamError) -> UploadError {
    UploadError::Unreachable(lost(error).to_string())
}

fn unsent(error: ServeError) -> UploadError {
    match error {
        ServeError::Stream(error) => broken(error),
        ServeError::Garbage(error) => UploadError::Unreachable(error.to_string()),
    }
}

/// The length of a value on the wire, in bytes: what it is offered with.
#[must_use]
pub fn nbytes_of(encoded: &Encoded) -> u64 {
    encoded.buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>() + encoded.header.len() as u64
}

const _: () = assert!(REQUEST_LIMIT * 32 < FRAME_LIMIT, "the longest offer fits a frame");
