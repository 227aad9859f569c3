//! Lines in the log that strangers can cause: one a kind, an address and a while, and then how many were left out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use crate::admission::Prefix;
use crate::limits::LOG_INTERVAL;

/// Kinds and addresses that are remembered.
const MAX_REMEMBERED: usize = 1_024;

struct Last {
    at: Instant,
    n_left_out: u64,
}

/// What has been logged lately.
#[derive(Default)]
pub struct Quiet {
    last: Mutex<HashMap<(&'static str, Prefix), Last>>,
}

/// As [`Quiet::may_say`], for what has no log of its own: one for the process.
pub(crate) fn may_say(kind: &'static str, address: IpAddr) -> Option<u64> {
    static OF_PROCESS: LazyLock<Quiet> = LazyLock::new(Quiet::default);
    OF_PROCESS.may_say(kind, address)
}

impl Quiet {
    /// Whether a line of this kind about `address` may be written now; if so, how many have been left out since the last.
    pub fn may_say(&self, kind: &'static str, address: IpAddr) -> Option<u64> {
        self.may_say_at(kind, address, Instant::now())
    }

    fn may_say_at(&self, kind: &'static str, address: IpAddr, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, Prefix::of(address));
        if let Some(before) = last.get_mut(&key) {
            if now.saturating_duration_since(before.at) < LOG_INTERVAL {
                before.n_left_out += 1;
                return None;
            }
            before.at = now;
            return Some(std::mem::take(&mut before.n_left_out));
        }
        if last.len() >= MAX_REMEMBERED {
            last.retain(|_, before| now.saturating_duration_since(before.at) < LOG_INTERVAL);
        }
        if last.len() >= MAX_REMEMBERED {
            // More addresses than that at once are a flood, of which enough has been written.
            return None;
        }
        last.insert(key, Last { at: now, n_left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_one_kind_writes_one_line_a_while() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let say = |kind, address: IpAddr, seconds| quiet.may_say_at(kind, address, start + Duration::from_secs(seconds));
        assert_eq!(say("refused", address, 0), Some(0));
        assert!((0..1_000).all(|_| say("refused", address, 1).is_none()));
        assert_eq!(say("another", address, 1), Some(0));
        assert_eq!(say("refused", "10.0.0.2".parse().unwrap(), 1), Some(0));
        assert_eq!(say("refused", address, LOG_INTERVAL.as_secs()), Some(1_000));
        let many = (0..100_000_u32).filter(|idx| say("refused", IpAddr::V4((*idx).into()), 20).is_some()).count();
        assert!(many <= MAX_REMEMBERED);
    }
}
