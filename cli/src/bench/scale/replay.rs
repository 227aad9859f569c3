//! What the scheduler machine costs by itself: everything it was told in a simulation is told to a fresh one.
//!
//! The machine is deterministic, so it decides the same again; nothing but it and the dropping of what it wants done is on
//! the clock. The clock is the thread's CPU time, which other programs on the machine do not advance.

use rask_scheduler::machine::{Actions, Counters, Machine};
use rustix::time::{ClockId, clock_gettime};

use super::super::machine::resident_nbytes;
use super::workloads::Workload;
use super::world::{Heard, config, submission, time};

/// What the machine took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// CPU seconds from submission until everything has been forgotten.
    pub(super) seconds: f64,
    /// CPU seconds that the joining of all workers took.
    pub(super) join_seconds: f64,
    /// Growth of resident memory from before the submission to its highest. What was free in the allocator before does not
    /// show, so it is a lower bound.
    pub(super) grown_nbytes: u64,
    /// What the machine says it did.
    pub(super) counters: Counters,
}

/// How many events pass between two looks at the resident memory.
const EVENTS_PER_LOOK: usize = 1 << 16;

/// Tell a machine all of `log`.
pub(super) fn replay(workload: &Workload, log: Vec<(u64, Heard)>) -> Cost {
    let mut machine = Machine::new(config());
    let mut out = Actions::default();
    let mut begun = cpu_seconds();
    let (mut join_seconds, mut before, mut highest) = (0.0, 0, 0);
    for (at, (now, heard)) in log.into_iter().enumerate() {
        let now = time(now);
        match heard {
            Heard::Submit => {
                join_seconds = cpu_seconds() - begun;
                before = resident_nbytes();
                let submission = submission(workload);
                begun = cpu_seconds();
                machine.handle(now, submission, &mut out);
                highest = resident_nbytes();
            }
            Heard::Event(event) => machine.handle(now, event, &mut out),
            Heard::Timeout => machine.handle_timeout(now, &mut out),
            Heard::TurnEnd => out = Actions::default(),
        }
        if at % EVENTS_PER_LOOK == 0 {
            highest = highest.max(resident_nbytes());
        }
    }
    let seconds = cpu_seconds() - begun;
    Cost { seconds, join_seconds, grown_nbytes: highest.saturating_sub(before), counters: machine.counters() }
}

/// CPU time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
