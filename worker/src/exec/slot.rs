//! One slot: finds the inputs of a run, runs its kernel, keeps the result, takes the next run.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rask_comm::message::{FailureKind, RunFailure};
use rask_graphs::{Attempt, TaskContext, TaskId, Value};

use super::bodies::BodyCell;
use super::lending::SHORT_US;
use super::{State, WorkerCore, micros, panics};
use crate::machine::{Event, FetchItem};
use crate::store::memory::{give_back, metered};

/// How long a slot looks for work before it sleeps: what a wake-up costs both threads, twice.
const LOOKING: Duration = Duration::from_micros(100);

/// A slot that lets go of so much of inputs returns memory before it goes on when there is little.
const MUCH: u64 = 1 << 20;

/// How often it looks before it lets others go first.
const N_GLANCES: u32 = 50;

thread_local! {
    /// Whether this thread is a slot that has nothing to run and will look for a run as soon as its turn is over. Set for
    /// slots of any core: at worst a slot of a neighbour in this process is woken one turn later.
    pub(super) static IS_BETWEEN_RUNS: Cell<bool> = const { Cell::new(false) };
}

/// A run that the machine has started, for a slot to take.
pub(super) struct Job {
    pub(super) task: TaskId,
    pub(super) attempt: Attempt,
    /// `None` when the scheduler has never sent the body.
    pub(super) body: Option<Arc<BodyCell>>,
    pub(super) inputs: Vec<FetchItem>,
    pub(super) spread: Vec<u32>,
    /// Whether some input has to be read back from a file.
    pub(super) reads_files: bool,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Job {
    /// Whether it is likely to take [`SHORT_US`] at most.
    pub(super) fn is_short(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.expected_us() <= SHORT_US)
    }
}

/// The life of a slot: until the core is shut down.
pub(super) fn run(core: &WorkerCore) {
    let mut values = Vec::new();
    let mut news = None;
    while let Some(job) = next_job(core, news.take()) {
        IS_BETWEEN_RUNS.set(false);
        news = Some(execute(core, &job, &mut values));
        // Inputs may be the last use of a big result: they are freed here, not under the lock.
        let nbytes: u64 = values.iter().map(Value::nbytes).sum();
        values.clear();
        if nbytes >= MUCH && core.shared.spilling.is_short() {
            give_back();
        }
    }
}

/// Tell the machine how the last run went, then take the next one, waiting for it if need be. `None` on shutdown.
fn next_job(core: &WorkerCore, news: Option<Event>) -> Option<Job> {
    IS_BETWEEN_RUNS.set(true);
    let mut state = core.shared.state.lock();
    if let Some(event) = news {
        core.take_end(&mut state, event);
        core.drain(&mut state);
    }
    let mut has_looked = false;
    loop {
        if state.is_shut_down {
            return None;
        }
        if let Some(job) = state.jobs.pop_front() {
            core.shared.has_jobs.store(!state.jobs.is_empty(), Ordering::Relaxed);
            return Some(job);
        }
        if !std::mem::replace(&mut has_looked, true) && is_work_near(&state) {
            state.n_looking += 1;
            MutexGuard::unlocked(&mut state, || look_for_work(core));
            state.n_looking -= 1;
            continue;
        }
        state.n_idle += 1;
        core.shared.work.wait(&mut state);
        state.n_idle -= 1;
        state.n_woken = state.n_woken.saturating_sub(1);
        if state.jobs.is_empty() && core.shared.spilling.is_tense() {
            MutexGuard::unlocked(&mut state, give_back);
        }
    }
}

/// Whether another slot executes something that runs which wait here may be waiting for.
fn is_work_near(state: &State) -> bool {
    state.machine.n_executing() > 0 && state.machine.n_waiting() > 0
}

/// To wake a sleeping thread takes longer than many a run: so look for work for a while, letting every other thread that wants
/// the processor go first, before sleeping.
fn look_for_work(core: &WorkerCore) {
    let begun = Instant::now();
    while begun.elapsed() < LOOKING {
        for _ in 0..N_GLANCES {
            if core.shared.has_jobs.load(Ordering::Relaxed) {
                return;
            }
            spin_loop();
        }
        yield_now();
    }
}

/// Run the kernel and keep its result; what the machine is to be told of that. `values` is working space.
pub(super) fn execute(core: &WorkerCore, job: &Job, values: &mut Vec<Value>) -> Event {
    let (task, attempt) = (job.task, job.attempt);
    for &input in &job.inputs {
        match core.read_input(&input) {
            Some(value) => values.push(value),
            None if core.shared.store.lacks(&input) => {
                let message =
                    format!("it takes part {} of the result of task {}, which has no such part", input.part.0, input.task);
                let failure = RunFailure { kind: FailureKind::Operator, operator: String::new(), message };
                return Event::ExecutionFailed { task, attempt, failure };
            }
            None => return Event::InputGone { task, attempt, input },
        }
    }
    let begun = Instant::now();
    let (result, nbytes_peak) = metered(|| compute(core, job, values));
    let duration_us = micros(begun.elapsed());
    if let Some(body) = &job.body {
        body.learn(duration_us);
    }
    match result {
        Ok(value) => {
            let (nbytes, n_parts) = (value.nbytes(), value.n_parts());
            // Nobody wants the result of a cancelled run, and it must not take the place of an older run's that is wanted. One that is
            // cancelled in between is dropped by the machine; should it have replaced another just then, whoever misses that says so.
            if !job.cancelled.load(Ordering::Relaxed) {
                drop(core.shared.store.put(FetchItem::whole(task, attempt), value));
            }
            Event::ExecutionFinished { task, attempt, nbytes, n_parts, duration_us, nbytes_peak }
        }
        Err(failure) => Event::ExecutionFailed { task, attempt, failure: failure.shortened() },
    }
}

fn compute(core: &WorkerCore, job: &Job, values: &[Value]) -> Result<Value, RunFailure> {
    let fail = |kind, operator: &str, message: String| Err(RunFailure { kind, operator: operator.to_owned(), message });
    let Some(body) = &job.body else {
        return fail(FailureKind::Unprepared, "", "the scheduler has not sent the body of this task".to_owned());
    };
    if job.cancelled.load(Ordering::Relaxed) {
        return fail(FailureKind::Cancelled, &body.operators, "cancelled before it began".to_owned());
    }
    let prepared = match body.prepare(&core.shared.registry) {
        Ok(prepared) => prepared,
        Err(message) => return fail(FailureKind::Unprepared, &body.operators, message.clone()),
    };
    let ctx = TaskContext {
        key: Arc::clone(&body.label),
        attempt: job.attempt.0,
        cancelled: Arc::clone(&job.cancelled),
        files: body.files.clone(),
        memory_limit: core.shared.memory_limit,
    };
    match panics::catch(|| prepared.run(&ctx, values, &job.spread)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err((step, error))) => fail(FailureKind::Operator, prepared.operator(step), error.0),
        Err(message) => fail(FailureKind::Panicked, &body.operators, message),
    }
}
