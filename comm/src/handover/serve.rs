//! The giving end of a link: requests in, results out, in the order asked for.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use rask_graphs::Encoded;
use serde::Serialize;
use tokio::net::UnixStream;

use super::memory::{KeptFiles, lay_out, seal_copy};
use super::socket::{self, Reader, Writer};
use super::{Handed, MEMORY_FROM_NBYTES, Place};
use crate::codec::{self, FRAME_LIMIT};
use crate::data::{PartRequest, PartSource};

/// Answer requests until the peer ends it.
pub(super) async fn serve(stream: UnixStream, source: &dyn PartSource, kept: &Arc<KeptFiles>) -> io::Result<()> {
    let (mut reader, mut writer) = socket::split(stream);
    while let Some(items) = read_request(&mut reader).await? {
        for item in items {
            answer(&item, source, kept, &mut writer).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

async fn read_request(reader: &mut Reader) -> io::Result<Option<Vec<PartRequest>>> {
    let Some(frame) = reader.frame().await? else { return Ok(None) };
    codec::decode_frame(&frame).map(Some).map_err(socket::garbage)
}

async fn answer(item: &PartRequest, source: &dyn PartSource, kept: &KeptFiles, writer: &mut Writer) -> io::Result<()> {
    let Some(value) = source.get(item) else { return writer.add(frame(&Handed::NotThere)?).await };
    let encoded = match value.encode() {
        Ok(encoded) => encoded,
        Err(error) => return writer.add(frame(&Handed::NotSendable(error.to_string()))?).await,
    };
    drop(value);
    let lengths = || encoded.buffers.iter().map(|buffer| buffer.len() as u64);
    if lengths().sum::<u64>() >= MEMORY_FROM_NBYTES {
        return hand_memory(item, &encoded, kept, writer).await;
    }
    let place = Place::Here(lengths().collect());
    writer.add(frame(&found(item, &encoded, place))?).await?;
    for buffer in encoded.buffers {
        writer.add(buffer).await?;
    }
    Ok(())
}

/// Give out a file with the buffers in it: the one they came in, or a new one.
async fn hand_memory(item: &PartRequest, encoded: &Encoded, kept: &KeptFiles, writer: &mut Writer) -> io::Result<()> {
    let (file, nbytes, buffers) = match kept.find(&encoded.buffers) {
        Some(found) => found,
        None => {
            let (ranges, nbytes) = lay_out(encoded.buffers.iter().map(|buffer| buffer.len() as u64));
            match seal_copy(&encoded.buffers, &ranges, nbytes) {
                Ok(file) => (Arc::new(file), nbytes, ranges),
                // No descriptors or no memory left, both of which QUIC can do without.
                Err(error) => {
                    tracing::debug!(%error, task = %item.task, "a result cannot be handed over");
                    return writer.add(frame(&Handed::NotThisWay)?).await;
                }
            }
        }
    };
    let message = frame(&found(item, encoded, Place::Memory { nbytes, buffers }))?;
    match writer.write_with_file(message, file.as_fd()).await {
        // Too many descriptors are on their way already; nothing of the frame has been written.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) => {
            writer.add(frame(&Handed::NotThisWay)?).await
        }
        written => written,
    }
}

fn found<'a>(item: &PartRequest, encoded: &'a Encoded, place: Place) -> Handed<'a> {
    Handed::Found { item: *item, kind: encoded.kind.into(), header: encoded.header.clone(), place }
}

fn frame(message: &impl Serialize) -> io::Result<Bytes> {
    let mut frame = Vec::new();
    codec::encode_frame(std::slice::from_ref(message), FRAME_LIMIT, &mut frame).map_err(io::Error::other)?;
    Ok(Bytes::from(frame))
}
