//! Results that come, go, and are watched for by peers.

use std::cmp::Reverse;

use rask_comm::message::{FailureKind, FromWorker, RunFailure, RunInput};
use rask_comm::time::Time;
use rask_graphs::{Attempt, TaskId, WorkerId};

use super::fetching::{Arrival, Failure, Waiters, Want};
use super::runs::Rank;
use super::{Action, Fault, FetchFailure, FetchId, FetchItem, Machine, Stage};

impl Machine {
    pub(super) fn arrive(
        &mut self,
        now: Time,
        fetch: FetchId,
        item: FetchItem,
        nbytes: u64,
        duration_us: u64,
        out: &mut Vec<Action>,
    ) {
        match self.fetching.arrived(fetch, item, nbytes) {
            Arrival::Stale => {
                self.n_stale += 1;
                self.drop_unless_needed(item, out);
            }
            Arrival::Unwanted => self.drop_unless_needed(item, out),
            Arrival::Pushed { waiters } => self.inputs_came(now, waiters),
            Arrival::Wanted { waiters, from } => self.keep(now, item, from, (nbytes, duration_us), waiters, out),
        }
    }

    /// What came is wanted: a whole result makes this worker a holder of it.
    pub(super) fn keep(
        &mut self,
        now: Time,
        item: FetchItem,
        from: WorkerId,
        (nbytes, duration_us): (u64, u64),
        waiters: Waiters,
        out: &mut Vec<Action>,
    ) {
        let FetchItem { task, attempt, part } = item;
        if part.is_whole() {
            if self.held(task).is_none_or(|held| held < attempt) {
                self.ledger.insert(task, attempt, nbytes, 0);
                if !waiters.is_empty() {
                    self.ledger.mark_replica(task);
                }
            }
            self.story.push(now, task, attempt, Stage::Fetched);
            if !self.config.has_fault(Fault::HideReplica) {
                out.push(Action::Tell(FromWorker::Fetched { task, attempt, nbytes, from, duration_us }));
            }
        } else {
            match self.parts_fetched.iter_mut().find(|(graph, _)| *graph == task.graph) {
                Some((_, sum)) => *sum += nbytes,
                None => self.parts_fetched.push((task.graph, nbytes)),
            }
        }
        self.inputs_came(now, waiters);
    }

    pub(super) fn take_pushed(&mut self, now: Time, from: WorkerId, item: FetchItem, nbytes: u64, out: &mut Vec<Action>) {
        match self.fetching.pushed(from, item, nbytes) {
            Arrival::Stale | Arrival::Unwanted => {
                self.n_stale += 1;
                self.drop_unless_needed(item, out);
            }
            Arrival::Pushed { waiters } => self.inputs_came(now, waiters),
            Arrival::Wanted { waiters, from } => self.keep(now, item, from, (nbytes, 0), waiters, out),
        }
    }

    /// An item could not be had from the peer that was asked.
    pub(super) fn fetch_failed(
        &mut self,
        now: Time,
        item: FetchItem,
        failure: Failure,
        reason: &FetchFailure,
        out: &mut Vec<Action>,
    ) {
        let Failure::Lost { waiters, holders, was_kept } = failure else { return };
        if self.config.has_fault(Fault::SwallowFetchFailure) {
            return;
        }
        if let FetchFailure::NotSendable(why) = reason {
            self.fail_waiters(now, waiters, &format!("its input {} cannot leave its worker: {why}", item.task), out);
        } else {
            self.lose_input(now, item.task, waiters, &holders, out);
        }
        if was_kept {
            out.push(Action::Tell(FromWorker::NotReplicated { task: item.task }));
        }
    }

    fn fail_waiters(&mut self, now: Time, waiters: Waiters, message: &str, out: &mut Vec<Action>) {
        for key in waiters {
            if let Some((task, attempt)) = self.abandon(now, key, Stage::Failed, out) {
                let failure = RunFailure { kind: FailureKind::Operator, operator: String::new(), message: message.to_owned() };
                out.push(Action::Tell(FromWorker::Failed { task, attempt, failure }));
            }
        }
    }

    pub(super) fn begin_watches(&mut self, peer: WorkerId, items: &[FetchItem], out: &mut Vec<Action>) {
        for &item in items {
            if self.held(item.task) == Some(item.attempt) {
                out.push(Action::Push { to: peer, item });
            } else if !self.watchers.add(peer, item) {
                // Whoever carries its words ends the conversation: see `watches_too_much`.
                return;
            }
        }
    }

    pub(super) fn lose_result(&mut self, now: Time, task: TaskId, attempt: Attempt, out: &mut Vec<Action>) {
        if self.held(task) == Some(attempt) {
            self.ledger.remove(task);
            self.story.push(now, task, attempt, Stage::Freed);
            out.push(Action::Tell(FromWorker::Lost { task }));
            self.give_back_users(now, task, attempt, out);
        }
    }

    /// A result that was held here is gone although nobody freed it: runs that counted on it cannot start here. It happens
    /// seldom enough for a look at every waiting run.
    pub(super) fn give_back_users(&mut self, now: Time, input: TaskId, attempt: Attempt, out: &mut Vec<Action>) {
        let me: Vec<WorkerId> = self.me.into_iter().collect();
        for key in self.runs.users_of(input, attempt) {
            self.give_back(now, key, input, &me, out);
        }
    }

    pub(super) fn free(&mut self, now: Time, task: TaskId, out: &mut Vec<Action>) {
        if let Some(attempt) = self.ledger.remove(task) {
            self.story.push(now, task, attempt, Stage::Freed);
            if !self.config.has_fault(Fault::ForgetToDrop) {
                out.push(Action::Drop(FetchItem::whole(task, attempt)));
            }
        }
        if self.fetching.n_items() == 0 {
            return;
        }
        let (drops, waiters) = self.fetching.free(task);
        out.extend(drops.into_iter().map(Action::Drop));
        // The scheduler cancels the runs that need a result before it frees it; should it not, they cannot wait for ever.
        self.lose_input(now, task, waiters, &[], out);
    }

    pub(super) fn replicate(&mut self, input: &RunInput, out: &mut Vec<Action>) {
        if self.held(input.task).is_some_and(|held| held >= input.attempt) {
            return;
        }
        let whole = FetchItem::whole(input.task, input.attempt);
        if self.refuse(std::slice::from_ref(input)).is_some() {
            out.push(Action::Tell(FromWorker::NotReplicated { task: input.task }));
            return;
        }
        if let Some(nbytes) = self.fetching.keep_pushed(whole) {
            self.ledger.insert(input.task, input.attempt, nbytes, 0);
            let from = input.holders.first().copied().unwrap_or(WorkerId(u32::MAX));
            let (task, attempt) = (input.task, input.attempt);
            out.push(Action::Tell(FromWorker::Fetched { task, attempt, nbytes: 0, from, duration_us: 0 }));
            return;
        }
        // Replicas are made so that a worker may leave: they go before anything else.
        let rank = Rank { round: Reverse(0), priority: i32::MAX, task: Reverse(input.task) };
        if let Want::Nowhere(_) = self.fetching.want(input, rank, None) {
            out.push(Action::Tell(FromWorker::NotReplicated { task: input.task }));
        }
    }

    /// The shell has put `item` into the store although nobody waits for it: drop it, unless the same is held for good reason.
    pub(super) fn drop_unless_needed(&self, item: FetchItem, out: &mut Vec<Action>) {
        let is_held = item.part.is_whole() && self.held(item.task) == Some(item.attempt);
        if !is_held && !self.fetching.is_here(item) {
            out.push(Action::Drop(item));
        }
    }
}
