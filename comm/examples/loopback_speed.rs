//! Bytes a second and round trips on loopback, for several packet sizes and windows; both ends share one thread.
//!
//! Besides the clock it reads the thread's own processor time, which tells the same on a busy machine: two processes, each
//! with a core to itself, reach about twice the figure that this gives for both ends together.
//!
//! `cargo run --release -p rask-comm --example loopback_speed`

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rask_comm::tuning::{PacketProfile, Tuning};
use rask_comm::{
    Authority, ControlReceiver, ControlSender, Endpoint, ExpectedPeer, Grant, Identity, Incoming, PartRequest, PartSource, Plane,
    Role, SecretKey, fetch, serve_data,
};
use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, GraphId, Part, Registry, TaskId, TaskIdx, Value};

const CHUNK_NBYTES: usize = 64 << 20;
const N_CHUNKS: usize = 16;
const N_ROUND_TRIPS: u32 = 5000;

struct OneChunk(Value);

impl PartSource for OneChunk {
    fn opens(&self, _graph: GraphId, _grant: &Grant) -> bool {
        true
    }

    fn get(&self, _item: &PartRequest) -> Option<Value> {
        Some(self.0.clone())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // (Payload of a packet, whether the kernel cuts batches, bytes that may be on the way on a stream.)
    let settings = [
        (1452, true, 32),
        (4000, true, 32),
        (6500, true, 32),
        (9000, false, 32),
        (16_000, false, 32),
        (6500, true, 1),
        (6500, true, 4),
        (6500, true, 8),
        (6500, true, 16),
        (6500, true, 64),
    ];
    for (payload, is_segmented, window_mib) in settings {
        let loopback = PacketProfile { payload, is_segmented };
        let tuning = Tuning { loopback, loopback_stream_window: window_mib << 20, ..Tuning::default() };
        let on_one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (rate, cpu_rate, round_trip) = on_one.block_on(measure(tuning.clone()))?;
        let segmented = if is_segmented { "segmented" } else { "one by one" };
        println!(
            "{payload} bytes, {segmented}, window {window_mib} MiB: {rate:.2} GB/s in 64 MiB chunks, {cpu_rate:.2} GB a second of processor time, {round_trip:.1?} a round trip"
        );
    }
    Ok(())
}

async fn measure(tuning: Tuning) -> Result<(f64, f64, Duration), Box<dyn Error>> {
    let authority = Authority::throw_away()?;
    let worker = Identity::issue(&authority, Role::Worker, "bench")?;
    let address = "127.0.0.1:0".parse()?;
    let server = Endpoint::bind_with(address, &worker, &[Plane::Data], tuning.clone())?;
    let client = Endpoint::bind_with(address, &worker, &[], tuning)?;
    let (connected, accepted) =
        tokio::join!(client.connect(server.local_addr()?, Plane::Data, ExpectedPeer::any(Role::Worker)), server.accept());
    let connection = connected?;
    let Some(Incoming::Peer { connection: other, .. }) = accepted else { return Err("nobody connected".into()) };

    let echo = other.clone();
    let (mut sender, mut receiver): (ControlSender<u64>, ControlReceiver<u64>) = connection.open_control().await?;
    let answering = tokio::spawn(async move {
        let (mut sender, mut receiver): (ControlSender<u64>, ControlReceiver<u64>) = echo.accept_control().await?;
        while let Some(messages) = receiver.recv().await? {
            sender.send(&messages).await?;
        }
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    });
    let began = Instant::now();
    for idx in 0..u64::from(N_ROUND_TRIPS) {
        sender.send(&[idx]).await?;
        assert_eq!(receiver.recv().await?, Some(vec![idx]));
    }
    let round_trip = began.elapsed() / N_ROUND_TRIPS;
    sender.finish().await?;
    let _ = answering.await?;

    let chunk = Value::new(Opaque(Bytes::from(vec![7; CHUNK_NBYTES])));
    tokio::spawn(serve_data(other, Arc::new(OneChunk(chunk))));
    let registry = Registry::new();
    let item = PartRequest { task: TaskId::new(GraphId(0), TaskIdx(0)), attempt: Attempt(1), part: Part::WHOLE };
    let (began, cpu_began) = (Instant::now(), cpu_seconds()?);
    let mut n_arrived = 0;
    for _ in 0..N_CHUNKS {
        fetch(&connection, &SecretKey::default().grants_of(&[item]), &[item], &registry, |_idx, outcome| {
            n_arrived += usize::from(outcome.is_ok())
        })
        .await;
    }
    if n_arrived != N_CHUNKS {
        return Err(format!("{n_arrived} of {N_CHUNKS} chunks arrived").into());
    }
    let gigabytes = (CHUNK_NBYTES * N_CHUNKS) as f64 / 1e9;
    Ok((gigabytes / began.elapsed().as_secs_f64(), gigabytes / (cpu_seconds()? - cpu_began), round_trip))
}

/// Processor time of this thread so far: the first field of its scheduling statistics, in nanoseconds.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no scheduling statistics")?.parse()?;
    Ok(nanoseconds / 1e9)
}
