//! What moves between this worker and others, for people: rates of the last seconds, and how long fetches take.
//!
//! Counted where results come in and go out, and summed up whenever the worker reports its state. A result counts when it has
//! come, or when it has been asked for, so a rate may run ahead of what is on the wire by one result.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rask_comm::SocketBuffers;
use rask_comm::message::{N_BUSIEST, PeerTraffic, Traffic};
use rask_graphs::WorkerId;
use rustc_hash::FxHashMap;

use super::seldom::Seldom;

/// How long ago what moved counts for a third of what moves now.
const MEMORY: Duration = Duration::from_secs(3);

/// Fetches whose times are remembered.
const N_REMEMBERED: usize = 1_024;

/// Slower than this is nothing worth remembering, in bytes a second.
const STANDSTILL: f64 = 1.0;

#[derive(Default)]
struct Rate {
    /// Since the last time that rates were worked out.
    nbytes: u64,
    per_second: f64,
}

impl Rate {
    fn work_out(&mut self, since: Duration) {
        let lately = std::mem::take(&mut self.nbytes) as f64 / since.as_secs_f64();
        self.per_second += (lately - self.per_second) * (1.0 - (-since.as_secs_f64() / MEMORY.as_secs_f64()).exp());
    }
}

/// Meters on all that moves. Shared by whoever moves something.
pub(super) struct Meters {
    socket_buffers: SocketBuffers,
    readings: Mutex<Readings>,
    /// What is said of results that do not come.
    pub(super) complaints: Seldom,
}

struct Readings {
    since: Instant,
    out: Rate,
    from: FxHashMap<WorkerId, Rate>,
    /// The last fetches' times in nanoseconds, a ring.
    fetches: Vec<u64>,
    n_fetches: usize,
}

impl Meters {
    pub(super) fn new(socket_buffers: SocketBuffers) -> Self {
        let readings = Readings {
            since: Instant::now(),
            out: Rate::default(),
            from: FxHashMap::default(),
            fetches: Vec::new(),
            n_fetches: 0,
        };
        Self { socket_buffers, readings: Mutex::new(readings), complaints: Seldom::default() }
    }

    /// A result of `nbytes` bytes has come from a peer.
    pub(super) fn came(&self, from: WorkerId, nbytes: u64) {
        self.readings.lock().from.entry(from).or_default().nbytes += nbytes;
    }

    /// A result of `nbytes` bytes goes to a peer or a client.
    pub(super) fn goes(&self, nbytes: u64) {
        self.readings.lock().out.nbytes += nbytes;
    }

    /// The first result of a request was here after this time.
    pub(super) fn fetched(&self, took: Duration) {
        let mut readings = self.readings.lock();
        let (nanoseconds, place) = (u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), readings.n_fetches % N_REMEMBERED);
        readings.n_fetches += 1;
        match readings.fetches.get_mut(place) {
            Some(oldest) => *oldest = nanoseconds,
            None => readings.fetches.push(nanoseconds),
        }
    }

    /// What has moved lately. To be called every second or so.
    pub(super) fn read(&self, now: Instant) -> Traffic {
        let mut readings = self.readings.lock();
        let readings = &mut *readings;
        let since = now.saturating_duration_since(readings.since);
        if !since.is_zero() {
            readings.since = now;
            readings.out.work_out(since);
            readings.from.values_mut().for_each(|rate| rate.work_out(since));
            readings.from.retain(|_, rate| rate.per_second >= STANDSTILL);
        }
        let mut peers: Vec<PeerTraffic> = readings
            .from
            .iter()
            .map(|(from, rate)| PeerTraffic { from: *from, nbytes_per_second: rate.per_second as u64, nbytes_in_flight: 0 })
            .collect();
        peers.sort_unstable_by_key(|peer| (std::cmp::Reverse(peer.nbytes_per_second), peer.from));
        let mut busiest = [None; N_BUSIEST];
        busiest.iter_mut().zip(&peers).for_each(|(place, peer)| *place = Some(*peer));
        let mut times = readings.fetches.clone();
        times.sort_unstable();
        let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0);
        Traffic {
            nbytes_in_per_second: readings.from.values().map(|rate| rate.per_second).sum::<f64>() as u64,
            nbytes_out_per_second: readings.out.per_second as u64,
            busiest,
            fetch_p50_ns: percentile(50),
            fetch_p99_ns: percentile(99),
            socket_buffers: self.socket_buffers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_moves_and_forget_it() {
        let meters = Meters::new(SocketBuffers::default());
        let mut now = Instant::now();
        let mut second = |moves: &dyn Fn()| {
            moves();
            now += Duration::from_secs(1);
            meters.read(now)
        };
        let mut read = Traffic::default();
        for _ in 0..20 {
            read = second(&|| {
                for peer in 0..5 {
                    meters.came(WorkerId(peer), 1_000_000 * (u64::from(peer) + 1));
                }
                meters.goes(500_000);
            });
        }
        let about = |rate: u64, expected: u64| rate.abs_diff(expected) * 50 < expected;
        assert!(about(read.nbytes_in_per_second, 15_000_000) && about(read.nbytes_out_per_second, 500_000), "{read:?}");
        let busiest: Vec<u32> = read.busiest.iter().flatten().map(|peer| peer.from.0).collect();
        assert_eq!(busiest, [4, 3, 2]);
        for _ in 0..100 {
            read = second(&|| {});
        }
        assert_eq!((read.nbytes_in_per_second, read.nbytes_out_per_second, read.busiest), (0, 0, [None; N_BUSIEST]));
        assert!(meters.readings.lock().from.is_empty(), "peers that send nothing are forgotten");
    }

    #[test]
    fn the_last_fetches_count() {
        let meters = Meters::new(SocketBuffers::default());
        assert_eq!(meters.read(Instant::now()).fetch_p50_ns, 0);
        for took in (0..5_000).rev() {
            meters.fetched(Duration::from_nanos(took));
        }
        let read = meters.read(Instant::now());
        assert_eq!((read.fetch_p50_ns, read.fetch_p99_ns), (512, 1_013));
    }
}
