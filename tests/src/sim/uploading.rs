//! Uploads: what a client does when it is asked for a value, and what the worker's shell does with what is offered.
//!
//! A client may be slow, break off, or be gone; a value that was lost it has or has not. Whoever offers shows a ticket, and what
//! is let in is checked for room as every fetch is.

use std::time::Duration;

use rask_comm::message::{FromClient, Holder};
use rask_comm::{Offer, OfferedItem, Ticket};
use rask_graphs::{Attempt, Part, TaskId};
use rask_worker::machine::{Event, OfferId};

use super::session::OutputState;
use super::world::{Delivery, Stored, World};

/// How long the scheduler's word of what to expect may take longer than the client, in microseconds.
const WORD_LIMIT_US: u64 = 3_000_000;

/// The secret of a client.
pub(super) fn ticket_of(session: usize) -> Ticket {
    Ticket([session as u8 + 1; 16])
}

impl World {
    /// The scheduler asks a client for a value.
    pub(super) fn offer(&mut self, session: usize, task: TaskId, attempt: Attempt, to: &Holder) {
        let Some(link) = self.sessions[session].link else { return };
        let info = &self.graphs[&task.graph];
        let nbytes = info.plan.tasks[task.idx.index()].nbytes;
        let job = &self.sessions[session].jobs[info.job];
        let was_there = matches!(
            job.outputs.get(&task.idx),
            Some(OutputState::Locating | OutputState::Fetching | OutputState::Fetched | OutputState::Failed)
        );
        let has_it = job.has_values && (job.keeps_values || !was_there);
        if !has_it {
            let reason = "its client has let go of it".to_owned();
            self.say(session, FromClient::NotUploaded { task, attempt, is_final: true, reason });
            return;
        }
        let process = usize::from(to.address.port() - 9_000);
        let life = self.processes[process].life;
        // Now and then a client takes its time.
        let pause = if self.dice.chance(10) { self.dice.magnitude(1_000, 2_000_000) } else { 0 };
        let latency = self.draw_latency();
        let item = OfferedItem { task, attempt, nbytes };
        self.push_in(latency + pause, Delivery::Offered { link, process, life, item, ticket: ticket_of(session) });
    }

    /// An offer reaches a worker process.
    pub(super) fn take_offer(&mut self, link: usize, (at, life): (usize, u32), item: OfferedItem, ticket: Ticket) {
        let is_broken = self.dice.below(1_000) < self.profile.fetch_breaks_per_mille;
        let process = &mut self.processes[at];
        let conn = process.conn.filter(|_| process.is_up && process.life == life && !is_broken);
        let Some(conn) = conn else { return self.refuse(link, item) };
        if self.links[link].is_cut {
            return;
        }
        process.n_offers += 1;
        let id = OfferId(process.n_offers);
        process.offers.insert(id, (link, item));
        self.push_in(WORD_LIMIT_US, Delivery::OfferOverdue { conn, id });
        self.tell_worker(conn, Event::UploadsOffered { id, offer: Offer { ticket, items: vec![item] } });
    }

    /// A client hears, a little later, that an upload has come to nothing.
    fn refuse(&mut self, link: usize, item: OfferedItem) {
        let latency = self.draw_latency();
        self.push_in(latency, Delivery::UploadRefused { link, item });
    }

    pub(super) fn hear_refused(&mut self, link: usize, item: OfferedItem) {
        let session = self.links[link].session;
        if self.links[link].is_cut || self.sessions[session].link != Some(link) {
            return;
        }
        let (task, attempt, reason) = (item.task, item.attempt, "the upload came to nothing".to_owned());
        self.say(session, FromClient::NotUploaded { task, attempt, is_final: false, reason });
    }

    /// The machine has decided about an offer.
    pub(super) fn admit(&mut self, conn: usize, id: OfferId, verdict: &[bool]) {
        let at = self.conns[conn].process;
        let Some((link, item)) = self.processes[at].offers.remove(&id) else { panic!("worker {at} decides about no offer") };
        if verdict != [true] {
            return self.refuse(link, item);
        }
        self.check_room(at, "an upload begins");
        self.processes[at].n_fetching += 1;
        let is_broken = self.dice.below(1_000) < self.profile.fetch_breaks_per_mille;
        let slow = if self.dice.chance(10) { self.dice.magnitude(1_000, 1_000_000) } else { 0 };
        let takes = self.draw_latency() + item.nbytes / 200 + slow;
        self.push(self.now.after(Duration::from_micros(takes)), Delivery::UploadEnded { conn, link, item, is_broken });
    }

    pub(super) fn end_upload(&mut self, conn: usize, link: usize, item: OfferedItem, is_broken: bool) {
        let at = self.conns[conn].process;
        if self.processes[at].conn != Some(conn) {
            // The client notices that the worker is gone.
            return self.refuse(link, item);
        }
        self.processes[at].n_fetching -= 1;
        let OfferedItem { task, attempt, nbytes } = item;
        if is_broken || self.links[link].is_cut {
            self.refuse(link, item);
            self.tell_worker(conn, Event::UploadFailed { task, attempt });
            return;
        }
        let plan = &self.graphs[&task.graph].plan;
        let n_parts = plan.tasks[task.idx.index()].n_parts;
        let stored = Stored { attempt, value: plan.truth[task.idx.index()], nbytes, n_parts };
        self.trace.counts.n_uploads += 1;
        self.processes[at].put(task, Part::WHOLE, stored);
        self.processes[at].damaged.remove(&task);
        self.tell_worker(conn, Event::UploadArrived { task, attempt, nbytes, n_parts, duration_us: 1 });
    }

    /// A client is gone: workers notice that its offers will come to nothing.
    pub(super) fn leave_offers(&mut self, link: usize, notice_us: u64) {
        let mut left = Vec::new();
        for process in &self.processes {
            let Some(conn) = process.conn else { continue };
            left.extend(process.offers.iter().filter(|(_, (of, _))| *of == link).map(|(id, _)| (conn, *id)));
        }
        for (conn, id) in left {
            self.push_in(notice_us, Delivery::OfferWithdrawn { conn, id });
        }
    }

    pub(super) fn withdraw_offer(&mut self, conn: usize, id: OfferId) {
        let at = self.conns[conn].process;
        if self.processes[at].conn == Some(conn) && self.processes[at].offers.remove(&id).is_some() {
            self.tell_worker(conn, Event::OfferWithdrawn { id });
        }
    }
}
