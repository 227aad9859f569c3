//! Values that clients upload: which are expected, which are offered, and when each may come.
//!
//! The scheduler says what to expect, the client offers it; which of the two is heard first is chance. An offer is decided once
//! each of its values is either expected or known not to be, and it is let in when there is room in memory, in the order of
//! offers: until then nothing of it has left the client. What has been let in counts as in the air, like a fetch.

use std::collections::{BTreeMap, BTreeSet};

use rask_comm::message::{FailureKind, FromWorker, RunFailure};
use rask_comm::time::Time;
use rask_comm::words::size_text;
use rask_comm::{Offer, Ticket};
use rask_graphs::{Attempt, TaskId};
use rustc_hash::FxHashMap;

use super::ledger::{PAUSE, TERMINATE};
use super::{Action, FetchItem, Machine, OfferId, Stage};

/// Offers that may wait; more are refused at once. The scheduler asks for fewer values than this at a time.
const MAX_OFFERS: usize = 1_024;

struct Expected {
    attempt: Attempt,
    ticket: Ticket,
    nbytes: u64,
}

struct Arriving {
    nbytes: u64,
    /// What to expect again should it not arrive; nothing once the scheduler has taken it back.
    expected: Option<Expected>,
}

struct Waiting {
    offer: Offer,
    /// Whether what is not expected will never be: the scheduler has had the time to say so, or has said it of all.
    is_decided: bool,
}

#[derive(Default)]
pub(super) struct Uploads {
    expected: FxHashMap<TaskId, Expected>,
    offers: BTreeMap<OfferId, Waiting>,
    /// Those of them that are decided and wait for room.
    decided: BTreeSet<OfferId>,
    /// Whether something has been heard since the others were looked at.
    has_news: bool,
    arriving: FxHashMap<(TaskId, Attempt), Arriving>,
    nbytes_arriving: u64,
}

impl Uploads {
    /// Values that are expected, or arriving and wanted.
    pub(super) fn n_expected(&self) -> usize {
        self.expected.len() + self.arriving.values().filter(|arriving| arriving.expected.is_some()).count()
    }

    pub(super) fn nbytes_arriving(&self) -> u64 {
        self.nbytes_arriving
    }

    pub(super) fn has_offers(&self) -> bool {
        !self.offers.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.arriving.is_empty()
    }

    /// Which values of an offer are taken, and their bytes; nothing while the scheduler may be about to say more.
    fn decide(&self, waiting: &Waiting) -> Option<(Vec<bool>, u64)> {
        let (mut verdict, mut nbytes) = (Vec::with_capacity(waiting.offer.items.len()), 0_u64);
        for item in &waiting.offer.items {
            let expected = self.expected.get(&item.task);
            let is_taken = expected.is_some_and(|expected| {
                expected.attempt == item.attempt && expected.ticket == waiting.offer.ticket && item.nbytes <= expected.nbytes
            });
            // One that is older than what is expected will never be expected again.
            let is_known = expected.is_some_and(|expected| expected.attempt >= item.attempt)
                || self.arriving.contains_key(&(item.task, item.attempt));
            if !is_taken && !is_known && !waiting.is_decided {
                return None;
            }
            verdict.push(is_taken);
            nbytes = nbytes.saturating_add(if is_taken { item.nbytes } else { 0 });
        }
        Some((verdict, nbytes))
    }

    /// Look at the offers that could not be decided before.
    fn decide_all(&mut self) {
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        let undecided = self.offers.iter().filter(|(id, _)| !self.decided.contains(id));
        let decided: Vec<OfferId> = undecided.filter(|(_, waiting)| self.decide(waiting).is_some()).map(|(id, _)| *id).collect();
        for id in decided {
            self.decided.insert(id);
            if let Some(waiting) = self.offers.get_mut(&id) {
                waiting.is_decided = true;
            }
        }
    }

    fn forget_offer(&mut self, id: OfferId) -> Option<Waiting> {
        self.decided.remove(&id);
        self.offers.remove(&id)
    }

    fn admit(&mut self, id: OfferId, mut verdict: Vec<bool>, out: &mut Vec<Action>) {
        let Some(waiting) = self.forget_offer(id) else { return };
        for (item, is_taken) in waiting.offer.items.iter().zip(&mut verdict) {
            // One that is named twice is taken once.
            let expected = if *is_taken { self.expected.remove(&item.task) } else { None };
            *is_taken = expected.is_some();
            if expected.is_some() {
                self.nbytes_arriving += item.nbytes;
                self.arriving.insert((item.task, item.attempt), Arriving { nbytes: item.nbytes, expected });
            }
        }
        out.push(Action::Admit { offer: id, verdict });
    }

    fn land(&mut self, task: TaskId, attempt: Attempt) -> Option<Arriving> {
        let arriving = self.arriving.remove(&(task, attempt))?;
        self.nbytes_arriving -= arriving.nbytes;
        Some(arriving)
    }

    /// # Panics
    /// When the sum is not that of what is arriving.
    pub(super) fn validate(&self) {
        assert!(self.decided.iter().all(|id| self.offers.contains_key(id)), "offers that are decided and gone");
        let nbytes: u64 = self.arriving.values().map(|arriving| arriving.nbytes).sum();
        assert_eq!(nbytes, self.nbytes_arriving, "bytes of uploads in the air");
        for (task, expected) in &self.expected {
            assert!(!self.arriving.contains_key(&(*task, expected.attempt)), "{task}: expected, and arriving");
        }
    }
}

impl Machine {
    pub(super) fn expect(
        &mut self,
        now: Time,
        (task, attempt): (TaskId, Attempt),
        nbytes: u64,
        ticket: Ticket,
        out: &mut Vec<Action>,
    ) {
        let is_stale = self.held(task).is_some_and(|held| held >= attempt)
            || self.uploads.expected.get(&task).is_some_and(|expected| expected.attempt >= attempt);
        if is_stale {
            self.n_stale += 1;
            return;
        }
        let limit = self.config.memory.limit;
        if limit > 0 && nbytes > self.config.memory.share(TERMINATE.begins) {
            let message = format!("it takes {} of memory, and the worker has {}", size_text(nbytes), size_text(limit));
            let failure = RunFailure { kind: FailureKind::TooLarge, operator: String::new(), message };
            out.push(Action::Tell(FromWorker::Failed { task, attempt, failure }));
            return;
        }
        self.story.push(now, task, attempt, Stage::Waiting);
        self.uploads.expected.insert(task, Expected { attempt, ticket, nbytes });
        self.uploads.has_news = true;
    }

    pub(super) fn take_offer(&mut self, id: OfferId, offer: Offer, out: &mut Vec<Action>) {
        if self.uploads.offers.len() >= MAX_OFFERS || self.me.is_none() {
            out.push(Action::Admit { offer: id, verdict: vec![false; offer.items.len()] });
            return;
        }
        self.uploads.offers.insert(id, Waiting { offer, is_decided: false });
        self.uploads.has_news = true;
    }

    pub(super) fn offer_overdue(&mut self, id: OfferId) {
        if let Some(waiting) = self.uploads.offers.get_mut(&id) {
            waiting.is_decided = true;
            self.uploads.has_news = true;
        }
    }

    pub(super) fn offer_withdrawn(&mut self, id: OfferId) {
        self.uploads.forget_offer(id);
    }

    pub(super) fn upload_arrived(
        &mut self,
        now: Time,
        (task, attempt): (TaskId, Attempt),
        nbytes: u64,
        n_parts: u32,
        duration_us: u64,
        out: &mut Vec<Action>,
    ) {
        let whole = FetchItem::whole(task, attempt);
        let is_wanted = self.uploads.land(task, attempt).is_some_and(|arriving| arriving.expected.is_some());
        if !is_wanted || self.held(task).is_some_and(|held| held > attempt) {
            self.n_stale += 1;
            self.drop_unless_needed(whole, out);
            return;
        }
        self.ledger.insert(task, attempt, nbytes, n_parts);
        self.made(now, whole, FromWorker::Finished { task, attempt, nbytes, n_parts, duration_us }, out);
    }

    /// What was let in did not arrive. The client may offer it again, unless the scheduler has taken it back.
    pub(super) fn upload_failed(&mut self, task: TaskId, attempt: Attempt) {
        let Some(expected) = self.uploads.land(task, attempt).and_then(|arriving| arriving.expected) else { return };
        if self.uploads.expected.get(&task).is_none_or(|newer| newer.attempt < attempt) {
            self.uploads.expected.insert(task, expected);
        }
    }

    /// The scheduler takes an upload back. Tells whether there was one.
    pub(super) fn cancel_upload(&mut self, now: Time, task: TaskId, attempt: Attempt) -> bool {
        let is_expected = self.uploads.expected.get(&task).is_some_and(|expected| expected.attempt == attempt);
        if is_expected {
            self.uploads.expected.remove(&task);
        }
        let arriving = self.uploads.arriving.get_mut(&(task, attempt)).and_then(|arriving| arriving.expected.take());
        let was_there = is_expected || arriving.is_some();
        if was_there {
            self.story.push(now, task, attempt, Stage::Cancelled);
        }
        was_there
    }

    /// Let offers in as memory allows, first come first served; with `is_last_resort` the first one whatever it takes. When it is memory that one waits for, how much of it.
    pub(super) fn admit_offers(&mut self, is_last_resort: bool, out: &mut Vec<Action>) -> Option<u64> {
        let limit = self.config.memory.limit;
        self.uploads.decide_all();
        while let Some(id) = self.uploads.decided.first().copied() {
            let decision = self.uploads.offers.get(&id).and_then(|waiting| self.uploads.decide(waiting));
            let Some((verdict, nbytes)) = decision else {
                self.uploads.decided.remove(&id);
                continue;
            };
            let fits = || self.nbytes_used().saturating_add(nbytes) <= self.config.memory.share(PAUSE.begins);
            let fits_memory = limit == 0 || is_last_resort || fits();
            let in_air = self.uploads.nbytes_arriving.saturating_add(nbytes);
            let fits_limit = self.uploads.is_idle() || in_air <= self.config.limits.max_nbytes_in_flight;
            if nbytes > 0 && !(fits_memory && fits_limit) {
                return (!fits_memory).then_some(nbytes);
            }
            self.uploads.admit(id, verdict, out);
            if is_last_resort {
                return None;
            }
        }
        None
    }
}
