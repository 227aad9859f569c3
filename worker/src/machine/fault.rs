//! Mistakes that a worker of this kind could contain. The simulation switches each on and must notice.

use super::MachineConfig;

/// A deliberate fault, for [`MachineConfig::fault`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// A cancellation of an old attempt is taken for one of the present run.
    SkipAttemptCheckOnCancel,
    /// A freed result stays in the store.
    ForgetToDrop,
    /// A run that the scheduler was told is given up still runs.
    RunRevoked,
    /// An input that nobody has is awaited for ever, without a word.
    SwallowFetchFailure,
    /// A whole result is fetched, but the scheduler is not told.
    HideReplica,
    /// A result that a peer watches for is made, and the peer is not told.
    ForgetWatchers,
    /// A result that was pushed here stays when no run needs it any more.
    KeepPushed,
    /// A result that is made here does not wake the runs that were given early and wait for it here.
    ForgetLocalWaiters,
    /// Runs and fetches begin however little memory there is.
    IgnoreMemory,
    /// A result leaves memory before it is in a file.
    EvictUnwritten,
    /// A write that fails is waited for for ever.
    ForgetFailedWrite,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 11] = [
        Fault::SkipAttemptCheckOnCancel,
        Fault::ForgetToDrop,
        Fault::RunRevoked,
        Fault::SwallowFetchFailure,
        Fault::HideReplica,
        Fault::ForgetWatchers,
        Fault::KeepPushed,
        Fault::ForgetLocalWaiters,
        Fault::IgnoreMemory,
        Fault::EvictUnwritten,
        Fault::ForgetFailedWrite,
    ];
}

impl MachineConfig {
    /// Whether the deliberate fault `fault` is switched on.
    pub(super) fn has_fault(&self, fault: Fault) -> bool {
        cfg!(feature = "deliberate-faults") && self.fault == Some(fault)
    }
}
