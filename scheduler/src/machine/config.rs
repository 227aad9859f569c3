//! What a person may set, and the deliberate faults that the simulation must catch.

use std::time::Duration;

use rask_comm::SecretKey;
use rask_graphs::Epoch;

use super::quotas::Quotas;

/// Settings of the scheduler machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The n-th start of this scheduler.
    pub epoch: Epoch,
    /// What grants and passes are made from. All zeros is good for clusters without a network.
    pub secret: SecretKey,
    /// Runs given to a worker at once, as a multiple of its slots, while tasks are long; rounded up.
    pub saturation: f64,
    /// Short tasks are given ahead until a slot has this much work queued.
    pub prefill: Duration,
    /// Never more runs than this at one worker, however short.
    pub max_prefill: u32,
    /// Never more runs than this at one worker whose inputs are still being made; 0 switches early binding off.
    pub max_early: u32,
    /// Results of at least this many bytes spread from worker to worker in waves, instead of from one to all.
    pub hot_nbytes: u64,
    /// Second runs of stragglers at once, as a share of all slots, but at least one; 0 switches them off.
    pub backup_share: f64,
    /// A task whose worker died this often while executing it is tried once more; after that it has failed.
    pub allowed_failures: u32,
    /// How long a task that has failed, and may be tried again, waits before that; twice as long after each further failure.
    pub retry_pause: Duration,
    /// How long graphs wait when no worker is there, or none that fits, before they fail.
    pub no_worker_grace: Duration,
    /// How often a client hears of progress.
    pub progress_interval: Duration,
    /// What a task is taken to cost before one of its operator has run.
    pub unknown_duration: Duration,
    /// What one owner may have here at once.
    pub quotas: Quotas,
    /// A deliberate fault; does nothing unless compiled with `deliberate-faults`.
    pub fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epoch: Epoch(1),
            secret: SecretKey::default(),
            saturation: 1.1,
            prefill: Duration::from_millis(5),
            max_prefill: 1024,
            max_early: 1024,
            hot_nbytes: 1 << 20,
            backup_share: 0.1,
            allowed_failures: 3,
            retry_pause: Duration::from_millis(100),
            no_worker_grace: Duration::from_secs(30),
            progress_interval: Duration::from_millis(100),
            unknown_duration: Duration::from_millis(500),
            quotas: Quotas::default(),
            fault: None,
        }
    }
}

impl Config {
    /// Whether the deliberate fault `fault` is switched on.
    #[must_use]
    pub fn has_fault(&self, fault: Fault) -> bool {
        cfg!(feature = "deliberate-faults") && self.fault == Some(fault)
    }
}

/// Mistakes that a scheduler of this kind could contain. The simulation switches each on and must notice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// News of an old attempt is taken for news of the present one.
    SkipAttemptCheck,
    /// A worker's death counts twice against what it was executing.
    CountCrashTwice,
    /// Results nobody needs stay in the workers.
    ForgetToFree,
    /// Inputs are let go when a run is sent, not when it has finished.
    ReleaseInputsEarly,
    /// A lost result is not recomputed.
    ForgetLineage,
    /// Runs of a dead worker are not given to another.
    ForgetRunsOfDead,
    /// A dead worker goes on being named as a holder.
    KeepDeadHolders,
    /// A finished run's slot is not given back.
    LeakSlot,
    /// Tasks are sent beyond the resources a worker has left.
    IgnoreResources,
    /// A failed run is retried for ever.
    RetryForEver,
    /// The last input's arrival does not make a task ready.
    LoseWakeUp,
    /// A cancelled graph's runs go on.
    ForgetToCancel,
    /// A retiring worker is let go while it is the only holder of results.
    LeaveTooEarly,
    /// A failure is not passed on to dependants.
    SwallowFailure,
    /// Runs that wait for the result of a run which is over without one are not taken back.
    ForgetEarlyRuns,
    /// A worker that has started a run is taken to have given it up.
    TakeRefused,
    /// Consumers that wait for a replica of a big result are not looked at again when there is one.
    ForgetParked,
    /// A result that a worker fetched before its maker reported it is not known to be there.
    ForgetEarlyHolders,
    /// Of two runs of a task the one that is not needed any more goes on.
    KeepLoser,
    /// A backup's result is taken for the first run's.
    MixUpAttempts,
    /// The slot of a backup that is ended is not given back.
    LeakBackupSlot,
    /// What fetches its inputs for a run, or waits for them, is not thought capable of killing its worker.
    TrustFetchers,
    /// A graph that comes while no worker is there has what is left of the time that others wait.
    ShareGrace,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 23] = [
        Fault::SkipAttemptCheck,
        Fault::CountCrashTwice,
        Fault::ForgetToFree,
        Fault::ReleaseInputsEarly,
        Fault::ForgetLineage,
        Fault::ForgetRunsOfDead,
        Fault::KeepDeadHolders,
        Fault::LeakSlot,
        Fault::IgnoreResources,
        Fault::RetryForEver,
        Fault::LoseWakeUp,
        Fault::ForgetToCancel,
        Fault::LeaveTooEarly,
        Fault::SwallowFailure,
        Fault::ForgetEarlyRuns,
        Fault::ForgetEarlyHolders,
        Fault::TakeRefused,
        Fault::ForgetParked,
        Fault::KeepLoser,
        Fault::MixUpAttempts,
        Fault::LeakBackupSlot,
        Fault::ShareGrace,
        Fault::TrustFetchers,
    ];
}
