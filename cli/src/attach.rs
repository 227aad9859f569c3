//! `rask wait` and `rask fetch`: what became of a graph that was left running.

use rask::{Client, Job, JobError, SubmitError};
use rask_graphs::GraphId;
use serde_json::json;

use crate::arguments::WaitArguments;
use crate::blocking::block_on;
use crate::connect::connect;
use crate::exit::{Exit, Failure};
use crate::report::{stats_json, stats_text};
use crate::settings::Settings;
use crate::terminal::{print_note, print_to_stdout};

/// `rask wait`
pub(crate) fn wait(arguments: &WaitArguments, settings: &Settings) -> anyhow::Result<Exit> {
    block_on(async {
        let client = connect(&arguments.connect, settings).await?;
        let job = attach(&client, arguments.graph).await?;
        let (ended, ()) = futures::join!(job.wait(), tell_waits(&job));
        let failed = match ended {
            Ok(_) => None,
            Err(JobError::Failed(failure)) => Some(JobError::Failed(failure).to_string()),
            Err(JobError::Disconnected(gone)) => return Err(Failure::unreachable(gone.to_string()).into()),
        };
        let stats = job.stats().await.map_err(|gone| Failure::unreachable(gone.to_string()))?;
        let id = job.id().to_string();
        if arguments.json {
            let state = if failed.is_some() { "failed" } else { "done" };
            print_to_stdout(&json!({ "graph": id, "state": state, "failure": failed, "stats": stats_json(&stats) }).to_string())?;
        } else if failed.is_none() {
            print_to_stdout(&format!("{id} is done: {}", stats_text(&stats)))?;
        }
        match failed {
            Some(reason) => Err(Failure::failed(format!("graph {id} has failed: {reason}")).into()),
            None => Ok(Exit::Done),
        }
    })
}

/// Follow a graph that was left running.
pub(crate) async fn attach(client: &Client, graph: u32) -> Result<Job, Failure> {
    client.attach(GraphId(graph)).await.map_err(|error| match error {
        SubmitError::Rejected(reason) => Failure::failed(reason).with_hint("rask status lists the graphs"),
        SubmitError::Disconnected(gone) => Failure::unreachable(gone.to_string()),
    })
}

/// Say why a graph does not get on, whenever that is another reason, until it has ended.
pub(crate) async fn tell_waits(job: &Job) {
    let mut known = String::new();
    while let Some(reason) = job.waits_for(&known).await {
        if !reason.is_empty() {
            print_note(&format!("waiting: {reason}"));
        }
        known = reason;
    }
}
