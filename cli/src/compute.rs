//! A planned graph file on a client: submit, follow, gather, print. What `rask run` and `rask submit` share.
//!
//! Each output stands alone: one that fails is reported, the others are still computed and printed, and the exit code says
//! that something failed. Ctrl-C cancels the graph on the cluster.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use rask::graph_file::{OutputKind, PRINT_LIMIT, Plan, PlannedOutput, Presented};
use rask::{Client, Job, JobError, SubmitError, SubmitOptions};
use rask_comm::message::GraphStats;
use rask_graphs::TaskIdx;
use serde_json::{Map, Value as Json, json};

use crate::attach::tell_waits;
use crate::exit::{Exit, Failure};
use crate::progress::Bars;
use crate::report::{size_text, stats_json, stats_text};
use crate::terminal::{escape, print_error, print_note, print_to_stdout};

/// How long Ctrl-C waits for the scheduler to hear of it.
const CANCEL_LIMIT: Duration = Duration::from_secs(3);

/// What to compute and how to show it.
pub(crate) struct Request<'a> {
    pub(crate) plan: &'a Plan,
    /// The graph's name, for people.
    pub(crate) name: &'a str,
    pub(crate) priority: i32,
    pub(crate) is_json: bool,
    /// Only submit.
    pub(crate) is_detached: bool,
}

/// What became of an output.
type Outcome = Result<Presented, String>;

/// Compute the plan and print its outputs.
///
/// # Errors
/// When the graph cannot be submitted, or the scheduler is lost.
pub(crate) async fn compute(client: &Client, request: &Request<'_>) -> anyhow::Result<Exit> {
    let plan = request.plan;
    for note in &plan.notes {
        print_note(&format!("note: {note}"));
    }
    if plan.graph.n_tasks() == 0 {
        let outcomes = plan.outputs.iter().map(|output| Err(planned_failure(output))).collect();
        return finish(request, outcomes, &GraphStats::default());
    }
    let options = SubmitOptions { name: request.name.to_owned(), priority: request.priority, detached: request.is_detached };
    let job = client.submit(plan.graph.clone(), options).await.map_err(|error| match error {
        SubmitError::Rejected(_) => Failure::failed(error.to_string()),
        SubmitError::Disconnected(_) => Failure::unreachable(error.to_string()),
    })?;
    if request.is_detached {
        return detached(request, &job);
    }
    let interrupted = pin!(tokio::signal::ctrl_c());
    let work = pin!(follow(&job, plan));
    match select(work, interrupted).await {
        Either::Left((ended, _)) => {
            let (outcomes, stats) = ended?;
            finish(request, outcomes, &stats)
        }
        Either::Right(_) => {
            print_note("interrupted, cancelling the graph");
            if tokio::time::timeout(CANCEL_LIMIT, job.cancel()).await.is_err() {
                print_error("the scheduler did not confirm that the graph is cancelled", None);
            }
            Ok(Exit::Interrupted)
        }
    }
}

/// Print the outputs of a graph that was made from this plan and left running, once they are done.
///
/// # Errors
/// When the scheduler is lost, or the graph is another one.
pub(crate) async fn fetch(job: &Job, request: &Request<'_>) -> anyhow::Result<Exit> {
    let (stats, ()) = futures::join!(job.stats(), tell_waits(job));
    let stats = stats.map_err(|error| Failure::unreachable(error.to_string()))?;
    let mut tasks = request.plan.outputs.iter().flat_map(|output| &output.tasks);
    if stats.n_tasks as usize != request.plan.graph.n_tasks() || !tasks.all(|task| job.is_settled(*task)) {
        let failure = Failure::misuse(format!("graph {} was not made from {} as it is here", job.id(), request.name));
        return Err(failure.with_hint("give the file that was submitted, with the same --set").into());
    }
    let (outcomes, stats) = follow(job, request.plan).await?;
    finish(request, outcomes, &stats)
}

fn detached(request: &Request<'_>, job: &Job) -> anyhow::Result<Exit> {
    for output in request.plan.outputs.iter().filter(|output| output.failure.is_some()) {
        print_error(&format!("output \"{}\": {}", output.name, planned_failure(output)), None);
    }
    let id = job.id().to_string();
    let text = if request.is_json { json!({ "graph": id }).to_string() } else { id };
    print_to_stdout(&text)?;
    let has_failed = request.plan.outputs.iter().any(|output| output.failure.is_some());
    Ok(if has_failed { Exit::Failed } else { Exit::Done })
}

fn planned_failure(output: &PlannedOutput) -> String {
    output.failure.clone().unwrap_or_else(|| "there is nothing to compute".to_owned())
}

/// Wait for all outputs, showing progress, and gather them.
async fn follow(job: &Job, plan: &Plan) -> Result<(Vec<Outcome>, GraphStats), Failure> {
    let names = plan.outputs.iter().map(|output| (output.name.as_str(), output.tasks.len()));
    let bars = Bars::new(names, plan.graph.n_tasks());
    let watch = async {
        let mut progress = job.progress();
        while let Some(counts) = progress.next().await {
            bars.update(&counts);
        }
    };
    let waits = async {
        let mut known = String::new();
        while let Some(reason) = job.waits_for(&known).await {
            bars.waits(&reason);
            known = reason;
        }
    };
    let outcomes = join_all(plan.outputs.iter().enumerate().map(|(at, output)| outcome(job, output, at, &bars)));
    let (outcomes, stats, (), ()) = futures::join!(outcomes, job.stats(), watch, waits);
    bars.clear();
    let stats = stats.map_err(|error| Failure::unreachable(error.to_string()))?;
    Ok((outcomes, stats))
}

async fn outcome(job: &Job, output: &PlannedOutput, at: usize, bars: &Bars) -> Outcome {
    if output.tasks.is_empty() {
        return Err(planned_failure(output));
    }
    let settled = output.tasks.iter().map(|task| async move {
        let settled = job.outcome(*task).await;
        bars.result_done(at);
        settled
    });
    let sizes: Result<Vec<u64>, JobError> = join_all(settled).await.into_iter().collect();
    let nbytes: u64 = sizes.map_err(|error| error.to_string())?.iter().sum();
    let is_file = matches!(output.kind, OutputKind::File { .. });
    if nbytes > PRINT_LIMIT && !is_file {
        let (size, limit) = (size_text(nbytes), size_text(PRINT_LIMIT));
        return Err(format!("it is {size}, too large to print (at most {limit}); write it to a file, or ask for less of it"));
    }
    let mut values = Vec::with_capacity(output.tasks.len());
    for task in &output.tasks {
        values.push(gather(job, *task).await?);
    }
    Ok(Presented::new(values))
}

async fn gather(job: &Job, task: TaskIdx) -> Result<rask_graphs::Value, String> {
    job.gather(task).await.map_err(|error| error.to_string())
}

/// Print what came out.
fn finish(request: &Request<'_>, outcomes: Vec<Outcome>, stats: &GraphStats) -> anyhow::Result<Exit> {
    let outputs = request.plan.outputs.iter().zip(outcomes);
    let has_failed = if request.is_json { print_json(outputs, stats)? } else { print_text(outputs, stats)? };
    Ok(if has_failed { Exit::Failed } else { Exit::Done })
}

fn print_text<'a>(outputs: impl Iterator<Item = (&'a PlannedOutput, Outcome)>, stats: &GraphStats) -> Result<bool, Failure> {
    let mut failures = Vec::new();
    for (output, outcome) in outputs {
        let text = outcome.and_then(|presented| match presented.file() {
            Some(file) => Ok(format!("{}: wrote {} ({})", output.name, file.path, size_text(file.nbytes))),
            None => {
                let text = presented.to_text().map_err(|error| error.to_string())?;
                Ok(if text.contains('\n') { format!("{}:\n{text}\n", output.name) } else { format!("{}: {text}", output.name) })
            }
        });
        match text {
            Ok(text) => print_to_stdout(&escape(&text))?,
            Err(reason) => failures.push((output, reason)),
        }
    }
    for (output, reason) in &failures {
        print_error(&format!("output \"{}\": {reason}", output.name), None);
    }
    if stats.n_tasks > 0 {
        print_note(&stats_text(stats));
    }
    Ok(!failures.is_empty())
}

fn print_json<'a>(outputs: impl Iterator<Item = (&'a PlannedOutput, Outcome)>, stats: &GraphStats) -> Result<bool, Failure> {
    let (mut good, mut failed) = (Map::new(), Map::new());
    for (output, outcome) in outputs {
        match outcome.and_then(|presented| presented.to_json().map_err(|error| error.to_string())) {
            Ok(json) => {
                good.insert(output.name.clone(), json);
            }
            Err(reason) => {
                print_error(&format!("output \"{}\": {reason}", output.name), None);
                failed.insert(output.name.clone(), Json::from(reason));
            }
        }
    }
    let has_failed = !failed.is_empty();
    let mut object = Map::new();
    object.insert("outputs".to_owned(), Json::Object(good));
    if has_failed {
        object.insert("failed".to_owned(), Json::Object(failed));
    }
    object.insert("stats".to_owned(), stats_json(stats));
    print_to_stdout(&Json::Object(object).to_string())?;
    Ok(has_failed)
}
