//! What may begin at the end of a turn: runs on slots, fetches and uploads, as far as memory allows.

use rask_comm::time::Time;

use super::executing::ExecutingRun;
use super::fetching::Room;
use super::runs::RunEntry;
use super::{Action, Machine, Stage};

impl Machine {
    /// Start what is ready and fetch what is missing, as slots, limits and memory allow, and have results spilled when there is
    /// too little of the latter.
    ///
    /// A worker that is short of memory still runs one task, or failing that makes one request, at a time: with nothing in
    /// motion nothing could ever free memory again.
    pub(super) fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        loop {
            self.spread_waiting(now, out);
            let mut wanted = self.start_ready(now, out);
            self.fetching.take_watches(out);
            if !self.pressure.is_paused() {
                let room = Room { nbytes_in_flight: self.room_in_flight(), is_last_resort: false };
                wanted = wanted.or(self.fetching.pump(usize::MAX, room, out));
                // What runs wait for comes first.
                if wanted.is_none() && self.uploads.has_offers() {
                    wanted = self.admit_offers(false, out);
                }
            }
            if self.config.memory.limit == 0 {
                return;
            }
            let is_freed = self.relieve(wanted.unwrap_or(0), out);
            if !is_freed && !self.start_one_thing(now, out) {
                return;
            }
        }
    }

    /// With nothing in motion, start the most urgent run or failing that one request, whatever it takes, unless that might end
    /// the process. Tells whether it did.
    fn start_one_thing(&mut self, now: Time, out: &mut Vec<Action>) -> bool {
        if !self.is_still() || !self.may_start_anyway() {
            return false;
        }
        if !self.start_next(now, out) {
            let room = self.room_as_last_resort();
            self.fetching.pump(1, room, out);
            if self.is_still() {
                self.admit_offers(true, out);
            }
        }
        !self.is_still()
    }

    /// Put runs on slots. When it is memory that one waits for, how much of it.
    fn start_ready(&mut self, now: Time, out: &mut Vec<Action>) -> Option<u64> {
        while !self.executing.is_full() {
            let next = self.runs.peek_ready()?;
            let estimate = self.ledger.estimate(next.body, &next.inputs);
            if !self.may_start(estimate) {
                return Some(estimate);
            }
            self.start_next(now, out);
        }
        None
    }

    /// Put the next run on a slot, which is free. False when there is none.
    fn start_next(&mut self, now: Time, out: &mut Vec<Action>) -> bool {
        let Some(run) = self.runs.pop_ready() else { return false };
        let RunEntry { task, attempt, body, needs, inputs, spread, .. } = run;
        self.story.push(now, task, attempt, Stage::Executing);
        self.executing.start(ExecutingRun {
            task,
            attempt,
            started: now,
            is_told: false,
            is_interrupted: false,
            needs,
            body,
            inputs: inputs.iter().map(|input| input.task).collect(),
            reserved: self.ledger.start(body, &inputs),
            n_spread: if spread.is_empty() { 0 } else { inputs.len() as u64 },
        });
        out.push(Action::Execute { task, attempt, body, inputs, spread });
        true
    }
}
