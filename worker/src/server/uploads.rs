//! Offers of clients: from their streams to the core, and what arrives into its store.

use std::sync::Arc;
use std::time::Duration;

use rask_comm::upload::refuse_all;
use rask_comm::{Admitted, Offer, OfferedItem};
use rask_graphs::{Registry, Value};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::exec::WorkerCore;
use crate::machine::OfferId;

/// How long the scheduler's word of what to expect may take longer than the client that it has asked.
const WORD_LIMIT: Duration = Duration::from_secs(3);

/// Put an offer to the core, and wait for its verdict.
pub(super) async fn take_in(core: &WorkerCore, registry: Arc<Registry>, offer: Offer) -> Box<dyn Admitted> {
    let (give, mut given) = oneshot::channel();
    let items = offer.items.clone();
    let refusal = || refuse_all(&Offer { ticket: offer.ticket, items: items.clone() });
    let (giving_core, giving_items, giving_registry) = (core.clone(), items.clone(), registry);
    // Made where the verdict falls: should nobody wait for it any more, it gives up by itself what was let in.
    let on_admitted = move |verdict: Vec<bool>| {
        let is_open = verdict.clone();
        let admission = Admission { core: giving_core, registry: giving_registry, items: giving_items, verdict, is_open };
        drop(give.send(admission));
    };
    let id = core.offer(offer.clone(), on_admitted);
    let _withdrawal = Withdrawal { core: core.clone(), id };
    let admission = match timeout(WORD_LIMIT, &mut given).await {
        Ok(admission) => admission.ok(),
        Err(_elapsed) => {
            core.offer_overdue(id);
            given.await.ok()
        }
    };
    match admission {
        Some(admission) => Box::new(admission),
        None => refusal(),
    }
}

/// Withdraws an offer that waits; one that has been decided there is nothing to withdraw of.
struct Withdrawal {
    core: WorkerCore,
    id: OfferId,
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.core.withdraw_offer(self.id);
    }
}

/// What was let in, as it arrives.
struct Admission {
    core: WorkerCore,
    registry: Arc<Registry>,
    items: Vec<OfferedItem>,
    verdict: Vec<bool>,
    /// What was taken and has not arrived.
    is_open: Vec<bool>,
}

impl Admitted for Admission {
    fn verdict(&self) -> &[bool] {
        &self.verdict
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn arrived(&mut self, idx: usize, value: Value, duration: Duration) {
        if let (Some(item), Some(is_open)) = (self.items.get(idx), self.is_open.get_mut(idx))
            && std::mem::take(is_open)
        {
            self.core.upload_arrived(item.task, item.attempt, value, duration);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for (item, _) in self.items.iter().zip(&self.is_open).filter(|(_, is_open)| **is_open) {
            self.core.upload_failed(item.task, item.attempt);
        }
    }
}
