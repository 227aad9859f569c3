//! Room for long frames that arrive, by certificate: however many conversations somebody has, the frames that come in over all of
//! them are bounded together, and they come at a decent pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::identity::KeyId;
use crate::limits::{ARRIVING_NBYTES, LEAST_FRAME_NBYTES_PER_SECOND, LONG_FRAME_GRACE, LONG_FRAME_NBYTES};

/// The gates of all peers.
#[derive(Default)]
pub struct Gates {
    gates: Mutex<HashMap<KeyId, Weak<Semaphore>>>,
}

impl Gates {
    /// The gate of the peer with this key, for [`ARRIVING_NBYTES`] bytes.
    pub fn of(&self, key: KeyId) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = gates.get(&key).and_then(Weak::upgrade) {
            return Gate { permits, n_permits: N_PERMITS };
        }
        gates.retain(|_, permits| permits.strong_count() > 0);
        let gate = Gate::new(N_PERMITS);
        gates.insert(key, Arc::downgrade(&gate.permits));
        gate
    }
}

const N_PERMITS: u32 = (ARRIVING_NBYTES / LONG_FRAME_NBYTES) as u32;

/// Room for long frames that arrive, shared by the conversations of one peer, in units of [`LONG_FRAME_NBYTES`].
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    n_permits: u32,
}

/// A long frame on its way in.
pub(crate) struct Passage {
    _permit: Option<OwnedSemaphorePermit>,
    /// When it has to be here.
    pub(crate) until: Instant,
}

impl Gate {
    fn new(n_permits: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(n_permits as usize)), n_permits }
    }

    pub(crate) async fn pass(&self, nbytes: usize) -> Passage {
        let wanted = u32::try_from(nbytes / LONG_FRAME_NBYTES).unwrap_or(u32::MAX).clamp(1, self.n_permits);
        let permit = Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok();
        let time = LONG_FRAME_GRACE + Duration::from_secs((nbytes / LEAST_FRAME_NBYTES_PER_SECOND) as u64);
        Passage { _permit: permit, until: Instant::now() + time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_frames_of_one_key_share_its_room() {
        let gates = Gates::default();
        let (own, other) = (KeyId([1; 16]), KeyId([2; 16]));
        let first = gates.of(own).pass(ARRIVING_NBYTES).await;
        let second = gates.of(own);
        let waited = tokio::time::timeout(Duration::from_millis(20), second.pass(2 << 20)).await;
        assert!(waited.is_err(), "the other conversation's frame has all of it");
        gates.of(other).pass(ARRIVING_NBYTES).await;
        drop(first);
        second.pass(2 << 20).await;
    }
}
