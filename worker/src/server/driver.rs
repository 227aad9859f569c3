//! The network's thread, which also executes short runs, and the thread that relieves it when one turns out to be long.
//!
//! All of the network's work is on one current-thread runtime. Its thread leaves the runtime to execute a run that it has
//! been lent for ([`crate::exec::lending`]) and comes back. Nobody drives the network meanwhile, which is all right for as long
//! as a wake-up takes and wrong for as long as a kernel may take: peers would wait for results, and after some seconds hold
//! this worker for dead. So a second thread, which otherwise sleeps, drives the runtime whenever the first one has been away
//! for [`AWAY_LIMIT`].
//!
//! A thread that sleeps takes 20 to 50 us to wake, as long as all the rest that a result costs on its way to a peer. So after a short
//! run that leaves the worker waiting for peers the network is not slept on but looked at for [`VIGIL`], letting every other
//! thread that wants the processor go first.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};

use crate::exec::lending::{self, LentRun};

/// How long nobody drives the network at most, but for [`TICK`].
const AWAY_LIMIT: Duration = Duration::from_millis(1);

/// How long the network is looked at without sleeping: several times what a peer takes to answer a result with its own.
const VIGIL: Duration = Duration::from_micros(250);

/// A thread that offers its processor and is without it for longer shares it with somebody.
const SHARED: Duration = Duration::from_micros(15);

/// How often the second thread looks while the first one goes away now and then.
const TICK: Duration = Duration::from_millis(2);

/// After this many looks in vain it sleeps until it is woken.
const MAX_LOOKS: u32 = 50;

/// Drive `work` and everything it spawns to its end on a thread of its own, which has a stack of `stack_nbytes` bytes for
/// kernels. The calling thread is the one that relieves it.
///
/// # Errors
/// When the system refuses a thread or what a runtime needs.
pub(super) fn drive<F>(stack_nbytes: usize, work: F) -> io::Result<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let relief = Arc::new(Relief::new(thread::current()));
    runtime.spawn(Arc::clone(&relief).keep_vigils());
    thread::scope(|scope| {
        let drive = || {
            // However it ends, the other thread is let go.
            let _dismissal = Dismissal(&relief);
            drive_and_lend(&runtime, &relief, work)
        };
        let driver = thread::Builder::new().name("network".to_owned()).stack_size(stack_nbytes).spawn_scoped(scope, drive)?;
        relief.stand_by(&runtime);
        Ok(driver.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

enum Next<T> {
    Ended(T),
    Run(LentRun),
}

fn drive_and_lend<F>(runtime: &Runtime, relief: &Relief, work: F) -> F::Output
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    // As a future of its own it goes on whichever thread drives.
    let mut work = runtime.spawn(work);
    let mut ended = None;
    loop {
        let next = poll_fn(|cx| {
            let next = poll_next(&mut work, cx);
            // Told from inside the runtime, so that what follows from it needs no waking from outside. A run that this starts
            // has to wait until the network has had its turn: this future is woken for it.
            if let Some(ended) = ended.take() {
                relief.keep_vigil(lending::LentRunEnded::tell(ended));
            }
            next
        });
        match runtime.block_on(next) {
            Next::Ended(output) => return output,
            Next::Run(run) => ended = Some(relief.during(|| run.execute())),
        }
    }
}

fn poll_next<T>(work: &mut JoinHandle<T>, cx: &mut Context<'_>) -> Poll<Next<T>> {
    match Pin::new(work).poll(cx) {
        Poll::Ready(Ok(output)) => return Poll::Ready(Next::Ended(output)),
        Poll::Ready(Err(error)) => resume_unwind(error.into_panic()),
        Poll::Pending => {}
    }
    lending::poll_run(cx).map(Next::Run)
}

/// What both threads know of each other.
struct Relief {
    begun: Instant,
    /// Since when the first thread is away, in microseconds after `begun`; 0 while it is not.
    away_since: AtomicU64,
    /// Whether the second thread sleeps until it is woken.
    is_asleep: AtomicBool,
    is_over: AtomicBool,
    second: Thread,
    has_returned: Notify,
    /// Until when the network is looked at without sleeping, in microseconds after `begun`.
    vigil_until: AtomicU64,
    vigil_begins: Notify,
}

struct Dismissal<'a>(&'a Relief);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        self.0.second.unpark();
    }
}

impl Relief {
    fn new(second: Thread) -> Self {
        Self {
            begun: Instant::now(),
            away_since: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            second,
            has_returned: Notify::new(),
            vigil_until: AtomicU64::new(0),
            vigil_begins: Notify::new(),
        }
    }

    /// A run has ended on the first thread. Look at the network for a while without sleeping if that `is_worth_while`.
    fn keep_vigil(&self, is_worth_while: bool) {
        let until = if is_worth_while { self.now_us() + VIGIL.as_micros() as u64 } else { 0 };
        self.vigil_until.store(until, Ordering::Relaxed);
        if is_worth_while {
            self.vigil_begins.notify_one();
        }
    }

    /// A future of the runtime that keeps it from sleeping during vigils.
    async fn keep_vigils(self: Arc<Self>) {
        loop {
            self.vigil_begins.notified().await;
            while self.now_us() < self.vigil_until.load(Ordering::Relaxed) && self.away_since.load(Ordering::Relaxed) == 0 {
                let asked = Instant::now();
                thread::yield_now();
                if asked.elapsed() > SHARED {
                    // Somebody else works on this processor: to wake is then cheaper than to share, as it can be on another.
                    break;
                }
                // The runtime looks at the network before it comes back.
                yield_now().await;
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Do something while away from the network.
    fn during<T>(&self, errand: impl FnOnce() -> T) -> T {
        self.away_since.store(self.now_us(), Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            self.second.unpark();
        }
        let outcome = errand();
        self.away_since.store(0, Ordering::SeqCst);
        // Costs next to nothing while nobody waits for it.
        self.has_returned.notify_waiters();
        outcome
    }

    /// The life of the second thread.
    fn stand_by(&self, runtime: &Runtime) {
        let mut n_looks = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let since = self.away_since.load(Ordering::SeqCst);
            if since == 0 {
                n_looks += 1;
                if n_looks <= MAX_LOOKS {
                    thread::park_timeout(TICK);
                } else {
                    self.sleep();
                    n_looks = 0;
                }
                continue;
            }
            n_looks = 0;
            let away = Duration::from_micros(self.now_us().saturating_sub(since));
            match AWAY_LIMIT.checked_sub(away).filter(|rest| !rest.is_zero()) {
                Some(rest) => thread::park_timeout(rest),
                None => runtime.block_on(self.until_return(since)),
            }
        }
    }

    fn sleep(&self) {
        self.is_asleep.store(true, Ordering::SeqCst);
        // Whoever goes away from here on sees that this thread sleeps.
        if self.away_since.load(Ordering::SeqCst) == 0 && !self.is_over.load(Ordering::SeqCst) {
            thread::park();
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }

    async fn until_return(&self, since: u64) {
        let mut returned = pin!(self.has_returned.notified());
        // Registered before the look, so that a return in between is not missed.
        returned.as_mut().enable();
        if self.away_since.load(Ordering::SeqCst) == since {
            returned.await;
        }
    }
}
