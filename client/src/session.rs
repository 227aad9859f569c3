//! One client's conversation with a scheduler, whatever carries it: questions out, answers and news in.
//!
//! The carrier ([`Link`]) is a function call in process and a QUIC stream otherwise. Nothing here knows which, or any
//! runtime: waiting is done on channels that work under every executor.

use std::sync::Arc;

use parking_lot::Mutex;
use rask_comm::message::{FromClient, Holder, StatusReport, TaskFailure, ToClient};
use rask_graphs::{Attempt, GraphId, TaskId};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::job::JobState;

/// Carries messages to the scheduler.
pub(crate) trait Link: Send + Sync {
    /// Queue messages; never blocks.
    fn send(&self, messages: Vec<FromClient>);
}

/// The scheduler is not there any more, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the scheduler ended: {reason}")]
pub struct Disconnected {
    /// What the scheduler or the transport said.
    pub reason: String,
}

/// Where a result is.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) attempt: Attempt,
    pub(crate) holders: Vec<Holder>,
}

/// The answer to where a result is.
pub(crate) type Located = Result<Location, Box<TaskFailure>>;

#[derive(Default)]
struct State {
    next_request: u32,
    submits: FxHashMap<u32, oneshot::Sender<Result<Arc<JobState>, String>>>,
    cancels: FxHashMap<u32, oneshot::Sender<bool>>,
    statuses: FxHashMap<u32, oneshot::Sender<StatusReport>>,
    locates: FxHashMap<TaskId, Vec<oneshot::Sender<Located>>>,
    jobs: FxHashMap<GraphId, Arc<JobState>>,
    closed: Option<Disconnected>,
}

/// The state of the conversation.
pub(crate) struct Session {
    link: Arc<dyn Link>,
    state: Mutex<State>,
}

type Waiter<T> = oneshot::Receiver<T>;

impl Session {
    pub(crate) fn new(link: Arc<dyn Link>) -> Self {
        Self { link, state: Mutex::new(State::default()) }
    }

    pub(crate) fn send(&self, message: FromClient) {
        self.link.send(vec![message]);
    }

    /// Ask with a numbered request: `message` makes the question from the number, `table` keeps who waits.
    fn ask<T>(
        &self,
        message: impl FnOnce(u32) -> FromClient,
        table: impl FnOnce(&mut State) -> &mut FxHashMap<u32, oneshot::Sender<T>>,
    ) -> Result<Waiter<T>, Disconnected> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut state = self.state.lock();
            if let Some(closed) = &state.closed {
                return Err(closed.clone());
            }
            state.next_request += 1;
            let request = state.next_request;
            table(&mut state).insert(request, sender);
            request
        };
        self.send(message(request));
        Ok(receiver)
    }

    /// Send a question whose answer is a job (a submission, an attachment) and wait for it.
    pub(crate) async fn ask_job(
        &self,
        message: impl FnOnce(u32) -> FromClient,
    ) -> Result<Result<Arc<JobState>, String>, Disconnected> {
        let answer = self.ask(message, |state| &mut state.submits)?;
        answer.await.map_err(|_| self.disconnected())
    }

    pub(crate) async fn cancel(&self, graph: GraphId) -> Result<bool, Disconnected> {
        let answer = self.ask(|request| FromClient::Cancel { request, graph }, |state| &mut state.cancels)?;
        answer.await.map_err(|_| self.disconnected())
    }

    pub(crate) async fn status(&self) -> Result<StatusReport, Disconnected> {
        let answer = self.ask(|request| FromClient::Status { request }, |state| &mut state.statuses)?;
        answer.await.map_err(|_| self.disconnected())
    }

    /// Where `task` is, once it is in memory.
    pub(crate) async fn locate(&self, task: TaskId) -> Result<Located, Disconnected> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if let Some(closed) = &state.closed {
                return Err(closed.clone());
            }
            state.locates.entry(task).or_default().push(sender);
        }
        self.send(FromClient::Locate { task });
        receiver.await.map_err(|_| self.disconnected())
    }

    /// The job is not followed any more.
    pub(crate) fn forget_job(&self, graph: GraphId) {
        self.state.lock().jobs.remove(&graph);
    }

    /// Why the conversation ended; only meaningful once it has.
    pub(crate) fn disconnected(&self) -> Disconnected {
        self.state.lock().closed.clone().unwrap_or_else(|| Disconnected { reason: "closed".to_owned() })
    }

    /// The conversation is over: everyone who waits hears of it.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        let closed = Disconnected { reason: reason.to_owned() };
        let old = std::mem::take(&mut *state);
        state.closed = Some(closed.clone());
        drop(state);
        for job in old.jobs.values() {
            job.disconnect(&closed);
        }
    }

    /// Take in what the scheduler said, in order.
    pub(crate) fn deliver(&self, messages: Vec<ToClient>) {
        let mut state = self.state.lock();
        let mut touched: Option<Arc<JobState>> = None;
        for message in messages {
            match message {
                ToClient::Welcome { .. } => {}
                ToClient::Accepted { request, graph } => {
                    let job = Arc::new(JobState::new(graph));
                    state.jobs.insert(graph, Arc::clone(&job));
                    if let Some(waiting) = state.submits.remove(&request) {
                        let _ = waiting.send(Ok(job));
                    }
                }
                ToClient::Rejected { request, reason } => {
                    if let Some(waiting) = state.submits.remove(&request) {
                        let _ = waiting.send(Err(reason));
                    }
                }
                ToClient::Cancelled { request, was_known } => {
                    if let Some(waiting) = state.cancels.remove(&request) {
                        let _ = waiting.send(was_known);
                    }
                }
                ToClient::Status { request, report } => {
                    if let Some(waiting) = state.statuses.remove(&request) {
                        let _ = waiting.send(*report);
                    }
                }
                ToClient::Located { task, attempt, nbytes: _, n_parts: _, holders } => {
                    for waiting in state.locates.remove(&task).unwrap_or_default() {
                        let _ = waiting.send(Ok(Location { attempt, holders: holders.clone() }));
                    }
                }
                ToClient::Progress { graph, counts } => with_job(&state, &mut touched, graph, |job| job.progressed(counts)),
                ToClient::TaskDone { task, nbytes } => {
                    with_job(&state, &mut touched, task.graph, |job| job.task_done(task.idx, nbytes));
                }
                ToClient::TaskFailed { task, failure } => {
                    for waiting in state.locates.remove(&task).unwrap_or_default() {
                        let _ = waiting.send(Err(failure.clone()));
                    }
                    with_job(&state, &mut touched, task.graph, |job| job.task_failed(task.idx, *failure));
                }
                ToClient::GraphEnded { graph, stats } => with_job(&state, &mut touched, graph, |job| job.ended(stats)),
                ToClient::Close { reason } => {
                    drop(state);
                    self.close(&reason);
                    return;
                }
            }
        }
        drop(state);
        if let Some(job) = touched {
            job.announce();
        }
    }
}

/// Tell the job of `graph`, if it is still followed. Those who wait for it are woken once a batch, or when the batch turns
/// to another job.
fn with_job(state: &State, touched: &mut Option<Arc<JobState>>, graph: GraphId, tell: impl FnOnce(&JobState)) {
    if touched.as_ref().is_none_or(|job| job.id() != graph) {
        if let Some(job) = touched.take() {
            job.announce();
        }
        *touched = state.jobs.get(&graph).cloned();
    }
    if let Some(job) = touched {
        tell(job);
    }
}
