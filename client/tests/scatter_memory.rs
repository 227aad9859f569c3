//! Scatter to a worker that is short of memory. In a process of its own, because the worker measures the whole process.

#[path = "scatter/cluster.rs"]
mod cluster;

use bytes::Bytes;
use cluster::{Cluster, wait_until};
use futures::executor::block_on;
use futures::stream;
use rask::graphs::Value;
use rask::graphs::builtin::Opaque;
use rask::{FailureKind, GatherOptions, JobError, ScatterOptions, TransferMeter};

const LIMIT: u64 = 512 << 20;
const NBYTES: usize = 4 << 20;

fn value(seed: usize, nbytes: usize) -> Value {
    let mut bytes = vec![seed as u8; nbytes];
    bytes.iter_mut().step_by(1_000).zip(0_u32..).for_each(|(byte, at)| *byte = (at.wrapping_mul(2_654_435_761) >> 20) as u8);
    Value::new(Opaque(Bytes::from(bytes)))
}

fn is_value(value: &Value, seed: usize) -> bool {
    value.downcast::<Opaque>().zip(self::value(seed, NBYTES).downcast::<Opaque>()).is_some_and(|(a, b)| a.0 == b.0)
}

#[test]
fn a_worker_takes_in_twice_its_memory_and_gives_it_back() {
    let cluster = Cluster::start(1, LIMIT);
    let client = cluster.client();
    let too_large = Value::new(Opaque(Bytes::from(vec![0; LIMIT as usize + 1])));
    let refused = block_on(client.scatter([too_large], ScatterOptions::default())).expect("accepted");
    let Err(JobError::Failed(failure)) = block_on(refused.wait()) else { panic!("there is no room for it") };
    assert_eq!(failure.kind, FailureKind::TooLarge);
    drop(refused);
    let n_values = 2 * LIMIT as usize / NBYTES;
    let meter = TransferMeter::new();
    let in_flight = 2 * NBYTES as u64;
    let options = ScatterOptions { nbytes_in_flight: in_flight, meter: meter.clone(), ..ScatterOptions::default() };
    let values = stream::iter((0..n_values).map(|seed| value(seed, NBYTES)));
    let scattered = block_on(client.scatter_stream(values, options)).expect("all arrive");
    let progress = meter.get();
    assert_eq!((progress.n_done, progress.nbytes_moved), (n_values as u64, (n_values * NBYTES) as u64));
    wait_until(|| block_on(client.status()).expect("a scheduler").workers[0].status.nbytes_spilled > LIMIT / 2);
    let mut gathering = scattered.gather_all(GatherOptions { nbytes_in_flight: in_flight, ..GatherOptions::default() });
    for seed in 0..n_values {
        let (_, outcome) = block_on(gathering.next()).expect("one a value");
        assert!(is_value(&outcome.expect("it is there"), seed), "value {seed}");
    }
    drop((gathering, scattered));
    wait_until(|| block_on(client.status()).expect("a scheduler").workers[0].status.nbytes_spilled == 0);
}
