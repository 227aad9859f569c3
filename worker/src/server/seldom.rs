//! What happens to many results at once is said once a second, with a count: a peer that dies takes thousands with it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one of many occasions through.
#[derive(Default)]
pub(super) struct Seldom(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    n_silent: u64,
}

impl Seldom {
    /// Whether to speak now, and of how many others nothing has been said since the last time.
    pub(super) fn now(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.n_silent += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.n_silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_second_with_its_size() {
        let (seldom, begun) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.now(begun), Some(0));
        assert!((0..5).all(|_| seldom.now(begun + INTERVAL / 2).is_none()));
        assert_eq!(seldom.now(begun + INTERVAL), Some(5));
        assert_eq!(seldom.now(begun + INTERVAL * 9), Some(0));
    }
}
