//! What past runs teach: how long tasks of an operator take. An exponential moving average, as in Dask's task prefixes.

use std::time::Duration;

use rustc_hash::FxHashMap;

/// Durations by operator name.
pub(super) struct Learning {
    ids: FxHashMap<String, u32>,
    averages: Vec<Option<u64>>,
    unknown_ns: u64,
}

/// Weight of the newest observation.
const NEWEST: f64 = 0.5;
/// No task costs less than this to pass around, in nanoseconds.
const FLOOR_NS: u64 = 3_000;

impl Learning {
    pub(super) fn new(unknown: Duration) -> Self {
        Self { ids: FxHashMap::default(), averages: Vec::new(), unknown_ns: unknown.as_nanos() as u64 }
    }

    /// The dense id of `operator`.
    pub(super) fn operator(&mut self, operator: &str) -> u32 {
        if let Some(&id) = self.ids.get(operator) {
            return id;
        }
        let id = self.averages.len() as u32;
        self.ids.insert(operator.to_owned(), id);
        self.averages.push(None);
        id
    }

    /// Estimated nanoseconds of a task of `operator`.
    pub(super) fn estimate_ns(&self, operator: u32) -> u32 {
        let average = self.averages.get(operator as usize).copied().flatten().unwrap_or(self.unknown_ns);
        average.max(FLOOR_NS).min(u64::from(u32::MAX)) as u32
    }

    /// A task of `operator` took `duration_us`.
    pub(super) fn observe(&mut self, operator: u32, duration_us: u64) {
        let observed = duration_us.saturating_mul(1000);
        if let Some(average) = self.averages.get_mut(operator as usize) {
            *average = Some(match *average {
                None => observed,
                Some(old) => (old as f64 + NEWEST * (observed as f64 - old as f64)) as u64,
            });
        }
    }
}
