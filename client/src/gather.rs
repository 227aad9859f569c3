//! Results come straight from the workers that hold them: ask the scheduler where, fetch, and ask again when that failed.

use std::pin::Pin;

use rask_comm::message::{FromClient, Holder, TaskFailure};
use rask_graphs::{Attempt, Part, TaskId, Value};

use crate::job::describe_failure;
use crate::session::{Disconnected, Session};

/// A future that fetches one result.
pub(crate) type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>>;

/// Fetches results from holders: out of a store in process, over QUIC otherwise.
pub(crate) trait PartSource: Send + Sync {
    /// Fetch `part` of a result from one holder; an error says why in words.
    fn fetch<'a>(&'a self, holder: &'a Holder, task: TaskId, attempt: Attempt, part: Part) -> Fetching<'a>;
}

/// Why a result could not be gathered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GatherError {
    /// The task failed, or its result was released.
    #[error("{}", describe_failure(.0))]
    Failed(Box<TaskFailure>),
    /// The scheduler named holders, again and again, that could not serve it.
    #[error("result {task} could not be fetched: {reason}")]
    Unreachable {
        /// The result.
        task: TaskId,
        /// What the last holder said.
        reason: String,
    },
    /// The scheduler has gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

/// How often the scheduler is asked before giving up; each time all holders it names are tried.
const N_ROUNDS: usize = 5;

pub(crate) async fn gather(session: &Session, source: &dyn PartSource, task: TaskId) -> Result<Value, GatherError> {
    let mut reason = String::from("no holder is connected");
    for _ in 0..N_ROUNDS {
        let location = session.locate(task).await?.map_err(GatherError::Failed)?;
        for holder in &location.holders {
            match source.fetch(holder, task, location.attempt, Part::WHOLE).await {
                Ok(value) => return Ok(value),
                Err(why) => reason = format!("worker \"{}\": {why}", holder.name),
            }
            session.send(FromClient::FetchFailed { task, worker: holder.worker });
        }
    }
    Err(GatherError::Unreachable { task, reason })
}
