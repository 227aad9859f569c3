//! Offers of clients on their way to the machine, and its verdicts on their way back.

use std::time::Duration;

use rask_comm::Offer;
use rask_graphs::{Attempt, TaskId, Value};

use super::{WorkerCore, micros};
use crate::machine::{Event, FetchItem, OfferId};

/// Called once with the verdict on an offer, on any thread and under no lock; dropped when there will be none.
pub(super) type OnAdmitted = Box<dyn FnOnce(Vec<bool>) + Send>;

impl WorkerCore {
    /// A client offers values. `on_admitted` is called, also within this call, with which of them may come, once there is room
    /// for those; each of them is then to be answered with [`WorkerCore::upload_arrived`] or [`WorkerCore::upload_failed`].
    pub fn offer(&self, offer: Offer, on_admitted: impl FnOnce(Vec<bool>) + Send + 'static) -> OfferId {
        let mut state = self.shared.state.lock();
        state.n_offers += 1;
        let id = OfferId(state.n_offers);
        if state.is_shut_down {
            drop(state);
            on_admitted(vec![false; offer.items.len()]);
            return id;
        }
        state.offers.insert(id, Box::new(on_admitted));
        self.handle(&mut state, Event::UploadsOffered { id, offer });
        self.drain(&mut state);
        id
    }

    /// An offer has waited so long that what the scheduler has not told this worker to expect it never will.
    pub fn offer_overdue(&self, id: OfferId) {
        self.turn(Event::OfferOverdue { id });
    }

    /// Who made an offer waits no more. Tells whether there has been no verdict, nor will be.
    pub fn withdraw_offer(&self, id: OfferId) -> bool {
        let mut state = self.shared.state.lock();
        let waited = state.offers.remove(&id);
        if waited.is_some() {
            self.handle(&mut state, Event::OfferWithdrawn { id });
            self.drain(&mut state);
        }
        waited.is_some()
    }

    /// A value that was let in is here.
    pub fn upload_arrived(&self, task: TaskId, attempt: Attempt, value: Value, duration: Duration) {
        let (nbytes, n_parts) = (value.nbytes(), value.n_parts());
        drop(self.shared.store.put(FetchItem::whole(task, attempt), value));
        self.turn(Event::UploadArrived { task, attempt, nbytes, n_parts, duration_us: micros(duration) });
    }

    /// A value that was let in will not come.
    pub fn upload_failed(&self, task: TaskId, attempt: Attempt) {
        self.turn(Event::UploadFailed { task, attempt });
    }
}
