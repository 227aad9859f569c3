//! What the scheduler machine costs by itself: everything it was told in a simulation is told to a fresh one.
//!
//! The machine is deterministic, so it decides the same again; nothing but it and the dropping of what it wants done is on
//! the clock. The clock is the thread's CPU time, which other programs on the machine do not advance.

use rask_scheduler::machine::{Actions, Counters, Machine};
use rustix::time::{ClockId, clock_gettime};

use super::super::machine::resident_nbytes;
use super::workloads::Workload;
use super::world::{Heard, config, submission, time};

/// How many events pass between two looks at the resident memory.
const EVENTS_PER_LOOK: usize = 1 << 16;

/// A machine that is told what another one was.
pub(super) struct Replay<'a> {
    workload: &'a Workload,
    machine: Machine,
    out: Actions,
    /// CPU seconds from the submission on.
    pub(super) seconds: f64,
    /// CPU seconds that the joining of all workers took.
    pub(super) join_seconds: f64,
    /// Resident memory before the submission, and the highest seen since, in bytes.
    resident: (u64, u64),
}

impl<'a> Replay<'a> {
    pub(super) fn new(workload: &'a Workload) -> Self {
        let machine = Machine::new(config());
        Self { workload, machine, out: Actions::default(), seconds: 0.0, join_seconds: 0.0, resident: (0, 0) }
    }

    /// Tell the machine all of `log`.
    pub(super) fn tell(&mut self, log: Vec<(u64, Heard)>) {
        let mut begun = cpu_seconds();
        for (at, (now, heard)) in log.into_iter().enumerate() {
            let now = time(now);
            match heard {
                Heard::Submit => {
                    self.join_seconds += cpu_seconds() - begun;
                    self.resident = (resident_nbytes(), 0);
                    let submission = submission(self.workload);
                    begun = cpu_seconds();
                    self.machine.handle(now, submission, &mut self.out);
                }
                Heard::Event(event) => self.machine.handle(now, event, &mut self.out),
                Heard::Timeout => self.machine.handle_timeout(now, &mut self.out),
                Heard::TurnEnd => self.out = Actions::default(),
            }
            if at % EVENTS_PER_LOOK == 0 {
                self.look();
            }
        }
        self.seconds += cpu_seconds() - begun;
        self.look();
    }

    fn look(&mut self) {
        self.resident.1 = self.resident.1.max(resident_nbytes());
    }

    /// Growth of resident memory from before the submission to its highest: memory that the allocator had at hand before
    /// does not show.
    pub(super) fn grown_nbytes(&self) -> u64 {
        self.resident.1.saturating_sub(self.resident.0)
    }

    /// What the machine says it did.
    pub(super) fn counters(&self) -> Counters {
        self.machine.counters()
    }
}

/// CPU time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
