//! A submitted graph, as its client sees it: progress, outcomes, results.

use std::sync::Arc;

use parking_lot::Mutex;
use rask_comm::message::{FromClient, GraphStats, TaskCounts, TaskFailure};
use rask_graphs::{GraphId, TaskId, TaskIdx, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;

use crate::client::Client;
use crate::gather::{GatherError, GatherOptions, Gathering};
use crate::session::Disconnected;

/// Why a job, or one output of it, has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JobError {
    /// A task failed; the failure names task, operator, worker and attempt.
    #[error("{}", describe_failure(.0))]
    Failed(Box<TaskFailure>),
    /// The scheduler has gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

/// A failure in one sentence, for people.
#[must_use]
pub fn describe_failure(failure: &TaskFailure) -> String {
    let mut text = if failure.key.is_empty() { format!("task {}", failure.task) } else { format!("task \"{}\"", failure.key) };
    if !failure.operator.is_empty() {
        text.push_str(&format!(" ({})", failure.operator));
    }
    text.push_str(" failed");
    if !failure.worker.is_empty() {
        text.push_str(&format!(" on worker \"{}\", attempt {}", failure.worker, failure.attempt.0));
    }
    text.push_str(": ");
    text.push_str(&failure.message);
    text
}

#[derive(Default)]
struct Outcomes {
    done: FxHashMap<TaskIdx, u64>,
    failed: FxHashMap<TaskIdx, Box<TaskFailure>>,
    first_failure: Option<Box<TaskFailure>>,
    counts: Option<TaskCounts>,
    stats: Option<GraphStats>,
    disconnected: Option<Disconnected>,
    released: FxHashSet<TaskIdx>,
    waits: String,
}

/// What a session knows of a job; shared with the handles.
pub(crate) struct JobState {
    id: GraphId,
    outcomes: Mutex<Outcomes>,
    /// Bumped whenever `outcomes` changed.
    version: watch::Sender<u64>,
    /// Bumped when the graph has ended or the scheduler has gone; who waits for that is not woken for every task.
    is_over: watch::Sender<u64>,
}

impl JobState {
    pub(crate) fn new(id: GraphId) -> Self {
        Self { id, outcomes: Mutex::default(), version: watch::channel(0).0, is_over: watch::channel(0).0 }
    }

    pub(crate) fn id(&self) -> GraphId {
        self.id
    }

    pub(crate) fn progressed(&self, counts: TaskCounts) {
        self.outcomes.lock().counts = Some(counts);
    }

    pub(crate) fn waits(&self, reason: String) {
        self.outcomes.lock().waits = reason;
    }

    pub(crate) fn task_done(&self, idx: TaskIdx, nbytes: u64) {
        self.outcomes.lock().done.insert(idx, nbytes);
    }

    pub(crate) fn task_failed(&self, idx: TaskIdx, failure: TaskFailure) {
        let mut outcomes = self.outcomes.lock();
        let failure = Box::new(failure);
        outcomes.first_failure.get_or_insert_with(|| failure.clone());
        outcomes.failed.insert(idx, failure);
    }

    pub(crate) fn ended(&self, stats: GraphStats) {
        self.outcomes.lock().stats = Some(stats);
        self.is_over.send_modify(|version| *version += 1);
    }

    pub(crate) fn disconnect(&self, reason: &Disconnected) {
        self.outcomes.lock().disconnected = Some(reason.clone());
        self.is_over.send_modify(|version| *version += 1);
        self.announce();
    }

    /// The outputs that are done, in order.
    fn done(&self) -> Vec<TaskIdx> {
        let mut done: Vec<TaskIdx> = self.outcomes.lock().done.keys().copied().collect();
        done.sort_unstable();
        done
    }

    fn is_settled(&self, idx: TaskIdx) -> bool {
        let outcomes = self.outcomes.lock();
        outcomes.done.contains_key(&idx) || outcomes.failed.contains_key(&idx)
    }

    /// Whether the output `idx` has been made.
    pub(crate) fn is_done(&self, idx: TaskIdx) -> bool {
        self.outcomes.lock().done.contains_key(&idx)
    }

    /// Wake everyone who waits for this job.
    pub(crate) fn announce(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// See [`Job::wait`].
    pub(crate) async fn wait(&self) -> Result<GraphStats, JobError> {
        self.wait_for(&self.is_over, |outcomes| match (&outcomes.stats, &outcomes.disconnected) {
            (Some(stats), _) => Some(match &outcomes.first_failure {
                None => Ok(*stats),
                Some(failure) => Err(JobError::Failed(failure.clone())),
            }),
            (None, Some(disconnected)) => Some(Err(disconnected.clone().into())),
            (None, None) => None,
        })
        .await
    }

    /// Wait until `look` finds what it looks for, looking again at every change of `signal`.
    async fn wait_for<T>(&self, signal: &watch::Sender<u64>, mut look: impl FnMut(&Outcomes) -> Option<T>) -> T {
        let mut changes = signal.subscribe();
        loop {
            if let Some(found) = look(&self.outcomes.lock()) {
                return found;
            }
            // The sender lives as long as `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }
}

/// A submitted graph. Its outputs are held on the cluster until they are released or the job is dropped.
pub struct Job {
    state: Arc<JobState>,
    client: Client,
    /// Outputs still wanted; released when the job is dropped.
    outputs: Vec<TaskIdx>,
    is_detached: bool,
}

impl Job {
    pub(crate) fn new(state: Arc<JobState>, client: Client, outputs: Vec<TaskIdx>, is_detached: bool) -> Self {
        Self { state, client, outputs, is_detached }
    }

    /// The graph's id on the scheduler.
    #[must_use]
    pub fn id(&self) -> GraphId {
        self.state.id
    }

    /// How far the graph is, as a stream that ends with the graph.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { state: Arc::clone(&self.state), last: None, is_over: false }
    }

    /// Wait until what keeps the graph from getting on is something else than `known`, and say what it is, in words: that no worker
    /// fits, for example. Empty when it gets on; `None` once it has ended or the scheduler has gone.
    pub async fn waits_for(&self, known: &str) -> Option<String> {
        self.state
            .wait_for(&self.state.version, |outcomes| {
                let is_over = outcomes.stats.is_some() || outcomes.disconnected.is_some();
                if is_over { Some(None) } else { (outcomes.waits != known).then(|| Some(outcomes.waits.clone())) }
            })
            .await
    }

    /// Wait until every output is done.
    ///
    /// # Errors
    /// The first failure of any output, once all have been settled; or the loss of the scheduler.
    pub async fn wait(&self) -> Result<GraphStats, JobError> {
        self.state.wait().await
    }

    /// What the graph took, once it has ended, whether its outputs are done or failed.
    ///
    /// # Errors
    /// When the scheduler has gone.
    pub async fn stats(&self) -> Result<GraphStats, Disconnected> {
        self.state
            .wait_for(&self.state.is_over, |outcomes| match (&outcomes.stats, &outcomes.disconnected) {
                (Some(stats), _) => Some(Ok(*stats)),
                (None, Some(disconnected)) => Some(Err(disconnected.clone())),
                (None, None) => None,
            })
            .await
    }

    /// Wait until the output `task` is done; its size in bytes. No bytes are moved.
    ///
    /// # Errors
    /// When it failed, or the scheduler has gone.
    pub async fn outcome(&self, task: TaskIdx) -> Result<u64, JobError> {
        self.state
            .wait_for(&self.state.version, |outcomes| {
                if let Some(nbytes) = outcomes.done.get(&task) {
                    return Some(Ok(*nbytes));
                }
                if let Some(failure) = outcomes.failed.get(&task) {
                    return Some(Err(JobError::Failed(failure.clone())));
                }
                outcomes.disconnected.clone().map(|disconnected| Err(disconnected.into()))
            })
            .await
    }

    /// Fetch the result of the output `task` from a worker that holds it, waiting until it is there.
    ///
    /// # Errors
    /// When it failed, when no holder could serve it, or when the scheduler has gone.
    pub async fn gather(&self, task: TaskIdx) -> Result<Value, GatherError> {
        self.client.gather(TaskId::new(self.state.id, task)).await
    }

    /// Fetch the results of all outputs, one by one, each as soon as it is there: for results that are together larger than
    /// this client's memory.
    #[must_use]
    pub fn gather_all(&self, options: GatherOptions) -> Gathering {
        self.client.gather_many(self.output_ids(), options)
    }

    /// Whether the output `task` is done, or has failed.
    #[must_use]
    pub fn is_settled(&self, task: TaskIdx) -> bool {
        self.state.is_settled(task)
    }

    /// The outputs that have been made so far, in order: of a job that was attached to, all once it has ended without failures.
    #[must_use]
    pub fn done(&self) -> Vec<TaskIdx> {
        self.state.done()
    }

    pub(crate) fn output_ids(&self) -> Vec<TaskId> {
        self.outputs.iter().map(|task| self.result_id(*task)).collect()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Stop the graph and release its outputs. Outputs that were not done fail as cancelled.
    ///
    /// # Errors
    /// When the scheduler has gone.
    pub async fn cancel(&self) -> Result<(), Disconnected> {
        self.client.session().cancel(self.state.id).await?;
        Ok(())
    }

    /// The output `task` is not wanted any more: workers may drop it.
    pub fn release(&self, task: TaskIdx) {
        if self.state.outcomes.lock().released.insert(task) {
            self.client.session().send(FromClient::Release { tasks: vec![TaskId::new(self.state.id, task)] });
        }
    }

    /// The id of an output, to be used as an external input of a later graph while this job is alive.
    #[must_use]
    pub fn result_id(&self, task: TaskIdx) -> TaskId {
        TaskId::new(self.state.id, task)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.client.session().forget_job(self.state.id);
        if self.is_detached {
            return;
        }
        let released = std::mem::take(&mut self.state.outcomes.lock().released);
        let left = self.outputs.iter().filter(|task| !released.contains(task));
        let tasks: Vec<TaskId> = left.map(|task| TaskId::new(self.state.id, *task)).collect();
        if !tasks.is_empty() {
            self.client.session().send(FromClient::Release { tasks });
        }
    }
}

/// The counts of a job as they change; made by [`Job::progress`].
pub struct Progress {
    state: Arc<JobState>,
    last: Option<TaskCounts>,
    is_over: bool,
}

impl Progress {
    /// The next counts, or `None` once the graph has ended (its last counts have been given then) or the scheduler has gone.
    pub async fn next(&mut self) -> Option<TaskCounts> {
        if self.is_over {
            return None;
        }
        let last = self.last;
        let (counts, is_over) = self
            .state
            .wait_for(&self.state.version, |outcomes| {
                let is_over = outcomes.stats.is_some() || outcomes.disconnected.is_some();
                (is_over || outcomes.counts != last).then_some((outcomes.counts, is_over))
            })
            .await;
        self.is_over = is_over;
        let is_news = counts != last;
        self.last = counts;
        if is_news { counts } else { None }
    }

    /// The same as a [`futures::Stream`].
    pub fn into_stream(self) -> impl futures::Stream<Item = TaskCounts> {
        futures::stream::unfold(self, |mut progress| async move { Some((progress.next().await?, progress)) })
    }
}
