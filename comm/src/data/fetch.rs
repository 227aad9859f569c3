//! The taking end: what was asked for, checked and decoded, or why it did not come.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rask_graphs::Registry;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    FetchError, Fetched, FoundHeader, ItemHeader, PartRequest, REQUEST_LIMIT, ReadFrameError, ReplyStream, Request, StreamReader,
    streams::N_PIECES_A_TURN,
};
use crate::codec::{self, CodecError, FRAME_LIMIT};
use crate::connection::Connection;
use crate::control::StreamError;
use crate::grant::Grants;

/// Longest buffer that is accepted, in bytes; a stream carries fewer than 2^62.
const BUFFER_LIMIT: u64 = 1 << 40;

/// A peer that is asked and sends less than [`LEAST_PROGRESS_NBYTES`] in this time is given up.
pub(crate) const NO_PROGRESS_LIMIT: Duration = Duration::from_secs(5);

/// Any link of a cluster brings this much in a moment. It is counted for all of a connection, since requests are answered one
/// after another, and it is more than signs of life and acknowledgements come to.
pub(crate) const LEAST_PROGRESS_NBYTES: u64 = 16 << 10;

/// Fetch `items`, of graphs that `grants` open, from the worker at the other end, in this order. `on_item` is called exactly once for each, with its index in
/// `items`, as soon as it is whole and decoded, or when it is known that it will not come. Dropping the future stops the
/// transfer; items that were not reported then never will be.
pub async fn fetch(
    connection: &Connection,
    grants: &Grants,
    items: &[PartRequest],
    registry: &Registry,
    mut on_item: impl FnMut(usize, Result<Fetched, FetchError>),
) {
    for (batch_idx, batch) in items.chunks(REQUEST_LIMIT).enumerate() {
        let first = batch_idx * REQUEST_LIMIT;
        let mut n_reported = 0;
        // A request has no more grants than items.
        let needed = (grants.len() > batch.len()).then(|| grants.needed_by(batch));
        let fetched = fetch_batch(connection, needed.as_ref().unwrap_or(grants), batch, registry, |idx, outcome| {
            n_reported += 1;
            on_item(first + idx, outcome);
        });
        if let Err(error) = fetched.await {
            // The rest of the stream cannot be told apart any more. One item may be damaged, the others merely did not come.
            for idx in n_reported..batch.len() {
                let outcome = match &error {
                    FetchError::Damaged(reason) if idx > n_reported => FetchError::Unreachable(reason.clone()),
                    FetchError::Damaged(_) | FetchError::Unreachable(_) | FetchError::NotThere | FetchError::NotSendable(_) => {
                        error.clone()
                    }
                };
                on_item(first + idx, Err(outcome));
            }
        }
    }
}

async fn fetch_batch(
    connection: &Connection,
    grants: &Grants,
    items: &[PartRequest],
    registry: &Registry,
    on_item: impl FnMut(usize, Result<Fetched, FetchError>),
) -> Result<(), FetchError> {
    let mut request = Vec::new();
    let wanted = [Request::Parts { grants: Cow::Borrowed(grants), items: Cow::Borrowed(items) }];
    codec::encode_frame(&wanted, FRAME_LIMIT, &mut request).map_err(|error| FetchError::NotSendable(error.to_string()))?;
    let n_signs = AtomicU32::new(0);
    let conversation = async {
        let (send, receive) = connection.inner.open_bi().await.map_err(|error| lost(error.into()))?;
        let mut send = ReplyStream::new(send);
        send.add(Bytes::from(request)).await.map_err(lost)?;
        send.finish().await.map_err(lost)?;
        receive_batch(StreamReader::new(receive), items, registry, &n_signs, on_item).await
    };
    tokio::select! {
        biased;
        received = conversation => received,
        () = no_progress(connection, &n_signs) => {
            Err(FetchError::Unreachable(format!("the peer has sent next to nothing for {NO_PROGRESS_LIMIT:?}")))
        }
    }
}

/// Ready when the peer has stopped sending, or as good as that, and has given no sign of life (those are counted in `n_signs`).
pub(crate) async fn no_progress(connection: &Connection, n_signs: &AtomicU32) {
    let seen = || (connection.inner.stats().udp_rx.bytes, n_signs.load(Ordering::Relaxed));
    let mut before = seen();
    loop {
        tokio::time::sleep(NO_PROGRESS_LIMIT).await;
        let now = seen();
        if now.0 - before.0 < LEAST_PROGRESS_NBYTES && now.1 == before.1 {
            return;
        }
        before = now;
    }
}

async fn receive_batch(
    mut reader: StreamReader,
    items: &[PartRequest],
    registry: &Registry,
    n_signs: &AtomicU32,
    mut on_item: impl FnMut(usize, Result<Fetched, FetchError>),
) -> Result<(), FetchError> {
    let mut idx = 0;
    while let Some(item) = items.get(idx) {
        let frame = reader.frame().await.map_err(useless)?;
        let Some(frame) = frame else { return Err(FetchError::Damaged("the answer ended early".to_owned())) };
        let mut headers = codec::decode_frame::<ItemHeader>(&frame).map_err(|error| FetchError::Damaged(error.to_string()))?;
        let header = headers.pop().filter(|_| headers.is_empty());
        match header.ok_or_else(|| FetchError::Damaged("one item a frame expected".to_owned()))? {
            ItemHeader::Reading => {
                n_signs.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            ItemHeader::NotThere => on_item(idx, Err(FetchError::NotThere)),
            ItemHeader::NotSendable(reason) => {
                on_item(idx, Err(FetchError::NotSendable(crate::connection::escaped(reason.as_bytes()))))
            }
            ItemHeader::Found(header) => on_item(idx, receive_item(&mut reader, item, header, registry).await.map_err(useless)?),
        }
        idx += 1;
    }
    Ok(())
}

pub(crate) fn lost(error: StreamError) -> FetchError {
    match error {
        StreamError::EndedEarly => FetchError::Damaged("the answer ended early".to_owned()),
        StreamError::Lost(_) | StreamError::GivenUp(_) | StreamError::Closed => FetchError::Unreachable(error.to_string()),
    }
}

pub(crate) fn useless(error: ReadFrameError) -> FetchError {
    match error {
        ReadFrameError::Stream(error) => lost(error),
        ReadFrameError::Codec(error) => FetchError::Damaged(error.to_string()),
    }
}

/// Receive the buffers of one item. The outer error means that the stream is of no use any more, the inner one that only this
/// item is wrong: then its bytes have been read to their end.
pub(crate) async fn receive_item(
    reader: &mut StreamReader,
    item: &PartRequest,
    header: FoundHeader,
    registry: &Registry,
) -> Result<Result<Fetched, FetchError>, ReadFrameError> {
    let mut nbytes = header.value_header.len() as u64;
    let mut buffers = Vec::with_capacity(header.buffers.len());
    let mut damage = None;
    if header.item != *item || header.item_checksum != item.checksum() {
        damage = Some("it is another result than was asked for".to_owned());
    }
    if xxh3_64(&header.value_header) != header.value_header_checksum {
        damage = Some("the checksum of its header is wrong".to_owned());
    }
    for (idx, announced) in header.buffers.iter().enumerate() {
        if idx % N_PIECES_A_TURN == N_PIECES_A_TURN - 1 {
            tokio::task::yield_now().await;
        }
        if announced.nbytes > BUFFER_LIMIT {
            let too_long = CodecError::TooLong { nbytes: announced.nbytes, limit: BUFFER_LIMIT };
            return Err(ReadFrameError::Codec(too_long));
        }
        let (buffer, found) = reader.buffer(announced.nbytes).await?;
        let checksum = match announced.checksum {
            Some(checksum) => checksum,
            None => reader.checksum().await?,
        };
        if found != checksum {
            damage = Some(format!("the checksum of buffer {idx} is wrong"));
        }
        nbytes += announced.nbytes;
        buffers.push(buffer);
    }
    if let Some(reason) = damage {
        return Ok(Err(FetchError::Damaged(reason)));
    }
    Ok(match registry.decode(&header.kind, &header.value_header, buffers) {
        Ok(value) => Ok(Fetched { value, nbytes }),
        Err(error) => Err(FetchError::Damaged(crate::connection::escaped(error.to_string().as_bytes()))),
    })
}
