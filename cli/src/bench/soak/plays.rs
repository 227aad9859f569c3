//! What is done with the graphs of a soak, and whether it came out right.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::executor::block_on;
use futures::stream::{self, StreamExt, TryStreamExt};
use rask::graphs::{Source, TaskIdx, Value};
use rask::{Client, FailureKind, GatherError, Job, JobError, SubmitOptions, TaskFailure};

use super::super::cluster::finish;
use super::super::kernels::{is_chunk, total_of};
use super::super::memory::add_up;
use super::graphs::{self, Dice, Drawing, Expected, Scale};

/// What has been done and found so far; shared by all threads.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    wrong: Vec<String>,
    n_done: BTreeMap<&'static str, u64>,
    /// What each thread is at, and since when.
    under_way: HashMap<String, (String, Instant)>,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is not as it must be.
    pub(super) fn complain(&self, what: String) {
        eprintln!("{what}");
        self.books().wrong.push(what);
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        self.books().wrong.clone()
    }

    pub(super) fn n_wrong(&self) -> usize {
        self.books().wrong.len()
    }

    pub(super) fn n_done(&self) -> u64 {
        self.books().n_done.values().sum()
    }

    pub(super) fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        self.books().n_done.clone()
    }

    /// A graph that takes longer than `limit`, if any does.
    pub(super) fn stuck(&self, limit: Duration) -> Option<String> {
        let books = self.books();
        let stuck = books.under_way.values().find(|(_, since)| since.elapsed() > limit);
        stuck.map(|(what, _)| what.clone())
    }
}

/// What is done with a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Play {
    /// Chunks that stay, and then their sum by another graph.
    Persist,
    Stream,
    Rechunk,
    Tiny,
    Dag,
    /// Some tasks fail.
    Fail,
    /// Cancelled half-way.
    Cancel,
    /// Let go of half-way, without a word.
    Abandon,
    /// Big results go to the client, twice, the second time after other graphs have run.
    Gather,
}

impl Play {
    /// Drawn as often as they stand here.
    const ALL: [Self; 11] = [
        Self::Persist,
        Self::Stream,
        Self::Rechunk,
        Self::Rechunk,
        Self::Tiny,
        Self::Dag,
        Self::Dag,
        Self::Fail,
        Self::Cancel,
        Self::Abandon,
        Self::Gather,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Persist => "persist",
            Self::Stream => "stream",
            Self::Rechunk => "rechunk",
            Self::Tiny => "tiny",
            Self::Dag => "dag",
            Self::Fail => "fail",
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
            Self::Gather => "gather",
        }
    }
}

/// Results that the client gathers at once.
const N_AT_ONCE: usize = 16;
/// Results that are released late: not before so many more graphs have run.
const N_KEPT: usize = 2;

/// Run `n_graphs` graphs, one after the other. What is wrong goes to `ledger`.
pub(super) fn play(client: &Client, ledger: &Ledger, scale: Scale, dice: &mut Dice, n_graphs: u32, place: &str) {
    let mut kept = VecDeque::new();
    for number in 0..n_graphs {
        let which = dice.pick(&Play::ALL);
        let what = format!("{place}, graph {number} ({})", which.name());
        ledger.books().under_way.insert(place.to_owned(), (what.clone(), Instant::now()));
        match play_one(client, scale, dice, which) {
            Ok(running) => kept.extend(running),
            Err(error) => ledger.complain(format!("{what}: {error:#}")),
        }
        *ledger.books().n_done.entry(which.name()).or_default() += 1;
        if kept.len() > N_KEPT || number + 1 == n_graphs {
            let n_over = if number + 1 == n_graphs { kept.len() } else { kept.len() - N_KEPT };
            for running in kept.drain(..n_over) {
                let checked: Result<()> = Running::check(&running);
                if let Err(error) = checked {
                    ledger.complain(format!("{what}, results kept until then: {error:#}"));
                }
            }
        }
    }
    ledger.books().under_way.remove(place);
}

/// Draw a graph and do with it what is to be done; what is left to be looked at again later.
fn play_one(client: &Client, scale: Scale, dice: &mut Dice, which: Play) -> Result<Option<Running>> {
    match which {
        Play::Persist => {
            let (drawing, sum) = graphs::persisted(dice, scale);
            let persisted = Running::start(client, drawing)?;
            block_on(persisted.job.wait())?;
            persisted.add_up(client, sum)?;
            return Ok((dice.between(0, 1) == 0).then_some(persisted));
        }
        Play::Stream => Running::start(client, graphs::streaming(dice, scale))?.check()?,
        Play::Rechunk => Running::start(client, graphs::rechunk(dice, scale))?.check()?,
        Play::Tiny => Running::start(client, graphs::tiny(dice))?.check()?,
        Play::Dag => {
            let running = Running::start(client, graphs::dag(dice, scale, 0))?;
            running.check()?;
            return Ok((dice.between(0, 2) == 0).then_some(running));
        }
        Play::Fail => {
            let n_failing = dice.between(1, 3);
            Running::start(client, graphs::dag(dice, scale, n_failing))?.check()?;
        }
        Play::Cancel | Play::Abandon => {
            let drawing = match dice.between(0, 3) {
                0 => graphs::persisted(dice, scale).0,
                1 => graphs::rechunk(dice, scale),
                2 => graphs::streaming(dice, scale),
                _ => graphs::dag(dice, scale, 0),
            };
            let share = dice.between(1, 80);
            let running = Running::start(client, drawing)?;
            running.wait_for_share(share);
            if which == Play::Cancel {
                running.cancel()?;
            }
        }
        Play::Gather => {
            let running = Running::start(client, graphs::big_results(dice, scale))?;
            running.check()?;
            return Ok(Some(running));
        }
    }
    Ok(None)
}

/// A graph that was submitted, and what must come of it.
struct Running {
    job: Job,
    n_tasks: u32,
    outputs: Vec<(TaskIdx, Expected)>,
}

impl Running {
    fn start(client: &Client, drawing: Drawing) -> Result<Self> {
        let finished = finish(drawing.graph)?;
        let new_idx = |task: TaskIdx| finished.renumbering[task.index()].context("an output is not in its graph");
        let outputs = drawing.outputs.into_iter().map(|(task, expected)| anyhow::Ok((new_idx(task)?, expected)));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let n_tasks = u32::try_from(finished.graph.n_tasks()).unwrap_or(u32::MAX);
        let job = block_on(client.submit(finished.graph, SubmitOptions::default()))?;
        Ok(Self { job, n_tasks, outputs })
    }

    /// Wait until `percent` of the tasks have run, or the graph is over.
    fn wait_for_share(&self, percent: u64) {
        let mut progress = self.job.progress();
        while let Some(counts) = block_on(progress.next()) {
            if u64::from(counts.n_finished) * 100 >= u64::from(self.n_tasks) * percent {
                return;
            }
        }
    }

    /// Gather all outputs, many at once, and compare them.
    fn check(&self) -> Result<()> {
        let gathering = self.outputs.iter().map(|(task, expected)| async move {
            compare(expected, self.job.gather(*task).await).with_context(|| format!("output {task}"))
        });
        block_on(stream::iter(gathering).buffered(N_AT_ONCE).try_collect::<()>())?;
        match block_on(self.job.wait()) {
            Ok(_) => Ok(()),
            Err(JobError::Failed(failure)) if self.outputs.iter().any(|(_, expected)| is_failure_of(expected, &failure)) => {
                Ok(())
            }
            Err(error) => Err(error).context("the graph as a whole"),
        }
    }

    /// The sum of all outputs by another graph, compared.
    fn add_up(&self, client: &Client, sum: u64) -> Result<()> {
        let mut drawing = Drawing::new();
        let sources = self.outputs.iter().map(|(task, _)| Source::External(drawing.graph.external(self.job.result_id(*task))));
        let sources = sources.collect();
        let root = add_up(&mut drawing.graph, sources);
        drawing.output(root, Expected::Sum(sum));
        Self::start(client, drawing)?.check()
    }

    /// Cancel, and see that every output is then done or cancelled.
    fn cancel(&self) -> Result<()> {
        block_on(self.job.cancel())?;
        for (task, _) in &self.outputs {
            match block_on(self.job.outcome(*task)) {
                Ok(_) => {}
                Err(JobError::Failed(failure)) if failure.kind == FailureKind::Cancelled => {}
                Err(error) => return Err(error).with_context(|| format!("output {task} of a cancelled graph")),
            }
        }
        Ok(())
    }
}

fn is_failure_of(expected: &Expected, failure: &TaskFailure) -> bool {
    match expected {
        Expected::Failure(messages) => failure.kind == FailureKind::Operator && messages.contains(&failure.message),
        Expected::Chunk { .. } | Expected::Sum(_) => false,
    }
}

fn compare(expected: &Expected, found: Result<Value, GatherError>) -> Result<()> {
    let value = match found {
        Ok(value) => value,
        Err(GatherError::Failed(failure)) if is_failure_of(expected, &failure) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("must be {expected:?}")),
    };
    match expected {
        Expected::Chunk { seed, nbytes } if is_chunk(&value, *seed, *nbytes) => Ok(()),
        Expected::Chunk { .. } => bail!("{} bytes are not {expected:?}", value.nbytes()),
        Expected::Sum(sum) => {
            let found = total_of(&value).map_err(|error| anyhow!("{error}"))?;
            anyhow::ensure!(found == *sum, "the sum is {found} and must be {sum}");
            Ok(())
        }
        Expected::Failure(messages) => bail!("there is a result, and it must have failed with one of {messages:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rask::LocalOptions;

    use super::super::super::cluster::registry;
    use super::*;

    const SCALE: Scale = Scale { memory: 32 << 20, worker_memory: 16 << 20, chunk: 1 << 20 };

    fn local() -> Client {
        let options = LocalOptions { n_workers: 2, n_slots: 1, memory_limit: 0, ..LocalOptions::new(registry()) };
        Client::local(options).unwrap()
    }

    #[test]
    fn every_play_comes_out_right() {
        let client = local();
        for (which, place) in Play::ALL.into_iter().zip(0..) {
            for seed in 0..3 {
                let left = play_one(&client, SCALE, &mut Dice::at(seed, [0, place]), which);
                let left = left.unwrap_or_else(|error| panic!("{which:?} of seed {seed}: {error:#}"));
                left.iter().for_each(|running| running.check().unwrap());
            }
        }
    }

    #[test]
    fn a_wrong_answer_is_found() {
        let client = local();
        let spoil = |expected: &Expected| match expected {
            Expected::Chunk { seed, nbytes } => Expected::Chunk { seed: seed + 1, nbytes: *nbytes },
            Expected::Sum(sum) => Expected::Sum(sum + 1),
            Expected::Failure(_) => Expected::Failure(BTreeSet::from(["another".to_owned()])),
        };
        let draw = |drawing: Drawing| Running::start(&client, drawing).unwrap();
        let drawn = [
            draw(graphs::dag(&mut Dice::at(1, [0, 0]), SCALE, 0)),
            draw(graphs::streaming(&mut Dice::at(1, [0, 0]), SCALE)),
            draw(graphs::dag(&mut Dice::at(1, [0, 0]), SCALE, 3)),
        ];
        for mut running in drawn {
            running.check().unwrap();
            for at in 0..running.outputs.len() {
                let right = running.outputs[at].1.clone();
                running.outputs[at].1 = spoil(&right);
                assert!(running.check().is_err(), "{right:?}");
                running.outputs[at].1 = right;
            }
        }
    }
}
