//! Short runs on the thread that brought their last input.
//!
//! To wake a slot costs both threads 10 to 30 us, which is more than many a run takes, and another switch brings its result
//! back. So a thread that drives the network may lend itself: when its turn of the machine starts a run that is known to be
//! short, it keeps that run, finishes what the network has for it, and executes the run where a slot would have. It lends
//! itself for one run at a time and goes back to the network in between.
//!
//! What else the thread does, and who does it meanwhile, is not known here.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use super::slot::{self, Job};
use super::{Errand, WorkerCore};
use crate::machine::Event;

/// Runs of a body that lately took no longer than this, in microseconds, are short.
pub(super) const SHORT_US: u32 = 800;

#[derive(Default)]
struct Lending {
    /// Whom to wake with a run; there while the thread lends itself and has none.
    waker: Option<Waker>,
    run: Option<LentRun>,
}

thread_local! {
    static LENDING: RefCell<Lending> = RefCell::default();
}

/// A run for the thread that has lent itself.
pub(crate) struct LentRun {
    core: WorkerCore,
    job: Job,
}

/// What became of it.
pub(crate) struct LentRunEnded {
    core: WorkerCore,
    news: Event,
}

/// Lend this thread for one run: ready once a turn of a core on this thread has started one. From then on the thread is not
/// lent until this is called again.
pub(crate) fn poll_run(cx: &Context<'_>) -> Poll<LentRun> {
    LENDING.with_borrow_mut(|lending| match lending.run.take() {
        Some(run) => Poll::Ready(run),
        None => {
            lending.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    })
}

/// Whether this thread has lent itself and has no run.
pub(super) fn is_lent() -> bool {
    LENDING.with_borrow(|lending| lending.waker.is_some())
}

/// Give this thread, which [`is_lent`], a run.
pub(super) fn give(core: &WorkerCore, job: Job) {
    let waker = LENDING.with_borrow_mut(|lending| {
        lending.run = Some(LentRun { core: core.clone(), job });
        lending.waker.take()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl LentRun {
    /// Execute it. Takes as long as the kernel does.
    pub(crate) fn execute(self) -> LentRunEnded {
        let Self { core, job } = self;
        let news = slot::execute(&core, &job, &mut Vec::new());
        LentRunEnded { core, news }
    }
}

impl LentRunEnded {
    /// Tell the machine. When this thread is lent, it gets a run that this starts only if there is a result to be sent to a
    /// peer, which is likely to answer with the next: a chain of runs that concerns nobody else is for a slot.
    ///
    /// Tells whether the worker has nothing to run now and waits for what others make: after short runs that is likely to come
    /// soon.
    pub(crate) fn tell(self) -> bool {
        let Self { core, news } = self;
        let mut state = core.shared.state.lock();
        core.take_end(&mut state, news);
        let has_result_for_peer = state.errands.iter().any(|errand| matches!(errand, Errand::Push { .. }));
        let withdrawn = LENDING.with_borrow_mut(|lending| lending.waker.take_if(|_| !has_result_for_peer));
        core.drain(&mut state);
        let waits_for_peers = state.machine.n_executing() == 0 && state.machine.n_waiting() > 0;
        drop(state);
        if withdrawn.is_some() {
            LENDING.with_borrow_mut(|lending| lending.waker = withdrawn);
        }
        waits_for_peers
    }
}
