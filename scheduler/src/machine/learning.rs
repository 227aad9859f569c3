//! What past runs and transfers teach: how long tasks of an operator take and how big their results are, how fast links are.
//! Exponential moving averages, as in Dask's task prefixes.

use std::time::Duration;

use rask_graphs::WorkerId;
use rustc_hash::FxHashMap;

/// Averages by operator name and by link.
pub(super) struct Learning {
    ids: FxHashMap<String, u32>,
    operators: Vec<Option<Averages>>,
    unknown_ns: u64,
    /// Nanoseconds a byte, from the first worker to the second.
    links: FxHashMap<(WorkerId, WorkerId), f64>,
    /// Over all links.
    ns_per_byte: f64,
}

#[derive(Clone, Copy)]
struct Averages {
    duration_ns: u64,
    nbytes: u64,
}

/// Weight of the newest observation.
const NEWEST: f64 = 0.5;
/// No task costs less than this to pass around, in nanoseconds.
pub(super) const FLOOR_NS: u64 = 3_000;
/// Before the first transfer a link is taken for 1 GB/s.
const UNKNOWN_NS_PER_BYTE: f64 = 1.0;
/// Weight of the newest transfer; and transfers smaller than this tell about latency, not about bandwidth.
const NEWEST_TRANSFER: f64 = 0.2;
const MIN_TRANSFER_NBYTES: u64 = 256 << 10;
/// No single transfer teaches a link slower than this, in nanoseconds a byte (1 MB/s): it waited for something else.
const MAX_NS_PER_BYTE: f64 = 1_000.0;
const MAX_LINKS: usize = 1 << 16;
/// Operators that are told apart, and the longest name of one, in bytes.
const MAX_OPERATORS: usize = 1 << 14;
const MAX_NAME: usize = 256;

impl Learning {
    pub(super) fn new(unknown: Duration) -> Self {
        Self {
            ids: FxHashMap::default(),
            operators: Vec::new(),
            unknown_ns: unknown.as_nanos() as u64,
            links: FxHashMap::default(),
            ns_per_byte: UNKNOWN_NS_PER_BYTE,
        }
    }

    /// The dense id of `operator`.
    pub(super) fn operator(&mut self, operator: &str) -> u32 {
        // Strangers may name what they like: beyond a number, and a length, all are taken for one.
        if let Some(&id) = self.ids.get(operator) {
            return id;
        }
        let is_told_apart = operator.len() <= MAX_NAME && self.ids.len() < MAX_OPERATORS;
        let operator = if is_told_apart { operator } else { "" };
        if let Some(&id) = self.ids.get(operator) {
            return id;
        }
        let id = self.operators.len() as u32;
        self.ids.insert(operator.to_owned(), id);
        self.operators.push(None);
        id
    }

    fn averages(&self, operator: u32) -> Option<Averages> {
        self.operators.get(operator as usize).copied().flatten()
    }

    /// Estimated nanoseconds of a task of `operator`.
    pub(super) fn estimate_ns(&self, operator: u32) -> u32 {
        let average = self.averages(operator).map_or(self.unknown_ns, |known| known.duration_ns);
        average.max(FLOOR_NS).min(u64::from(u32::MAX)) as u32
    }

    /// Estimated size of a result of `operator`, in bytes; `None` before the first.
    pub(super) fn estimate_nbytes(&self, operator: u32) -> Option<u64> {
        self.averages(operator).map(|known| known.nbytes)
    }

    /// A task of `operator` took `duration_us` and made `nbytes`.
    pub(super) fn observe(&mut self, operator: u32, duration_us: u64, nbytes: u64) {
        let observed = Averages { duration_ns: duration_us.saturating_mul(1000), nbytes };
        if let Some(averages) = self.operators.get_mut(operator as usize) {
            *averages = Some(averages.map_or(observed, |old| Averages {
                duration_ns: mix(old.duration_ns, observed.duration_ns),
                nbytes: mix(old.nbytes, observed.nbytes),
            }));
        }
    }

    /// A task of `operator` has been executing for `duration_ns` and goes on.
    pub(super) fn observe_at_least(&mut self, operator: u32, duration_ns: u64) {
        if let Some(Some(averages)) = self.operators.get_mut(operator as usize)
            && averages.duration_ns < duration_ns
        {
            averages.duration_ns = mix(averages.duration_ns, duration_ns);
        }
    }

    /// Estimated nanoseconds that `nbytes` take from `from` to `to`, latency apart.
    pub(super) fn transfer_ns(&self, from: WorkerId, to: WorkerId, nbytes: u64) -> u64 {
        let ns_per_byte = self.links.get(&(from, to)).copied().unwrap_or(self.ns_per_byte);
        (nbytes as f64 * ns_per_byte) as u64
    }

    /// `nbytes` took `duration_us` from `from` to `to`.
    pub(super) fn observe_transfer(&mut self, from: WorkerId, to: WorkerId, nbytes: u64, duration_us: u64) {
        if nbytes < MIN_TRANSFER_NBYTES {
            return;
        }
        let observed = (duration_us as f64 * 1_000.0 / nbytes as f64).min(MAX_NS_PER_BYTE);
        self.ns_per_byte += NEWEST_TRANSFER * (observed - self.ns_per_byte);
        // Beyond the bound a link is taken for an average one: what is known must not grow with the square of the workers.
        if self.links.len() < MAX_LINKS || self.links.contains_key(&(from, to)) {
            let link = self.links.entry((from, to)).or_insert(self.ns_per_byte);
            *link += NEWEST_TRANSFER * (observed - *link);
        }
    }

    /// A worker is gone, and what was known of its links with it.
    pub(super) fn forget_worker(&mut self, worker: WorkerId) {
        self.links.retain(|(from, to), _| *from != worker && *to != worker);
    }
}

fn mix(old: u64, new: u64) -> u64 {
    (old as f64 + NEWEST * (new as f64 - old as f64)) as u64
}
