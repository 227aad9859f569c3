//! How far a scatter or a gather is, for whoever wants to show it.

use std::sync::Arc;

use tokio::sync::watch;

/// How far a transfer between this client and the workers is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransferProgress {
    /// Values that have arrived.
    pub n_done: u64,
    /// Bytes that have been handed to the network, or taken from it.
    pub nbytes_moved: u64,
    /// How many values there are, where that is known.
    pub n_total: Option<u64>,
    /// Their bytes, where that is known. A value that is lost and uploaded again moves more.
    pub nbytes_total: Option<u64>,
}

/// Shows how far a transfer is, while that goes on: give a clone of it with the transfer's options.
#[derive(Clone, Debug, Default)]
pub struct TransferMeter {
    progress: Arc<watch::Sender<TransferProgress>>,
}

impl TransferMeter {
    /// A meter at nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How far it is now.
    #[must_use]
    pub fn get(&self) -> TransferProgress {
        *self.progress.borrow()
    }

    /// Wait until it is further than `last`.
    pub async fn changed(&self, last: TransferProgress) -> TransferProgress {
        let mut changes = self.progress.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        changes.wait_for(|progress| *progress != last).await.map_or(last, |progress| *progress)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut TransferProgress)) {
        self.progress.send_modify(change);
    }
}
