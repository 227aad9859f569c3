//! One client's conversation with a scheduler, whatever carries it: questions out, answers and news in.
//!
//! The carrier ([`Link`]) is a function call in process and a QUIC stream otherwise. Nothing here knows which, or any
//! runtime: waiting is done on channels that work under every executor.

use std::sync::Arc;

use parking_lot::Mutex;
use rask_comm::message::{FromClient, Holder, Spread, StatusReport, SubmitOptions, TaskFailure, ToClient};
use rask_comm::{Grant, OfferedItem, Ticket};
use rask_graphs::{Attempt, GraphId, TaskId, TaskIdx, Value};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::job::JobState;
use crate::transfer::TransferMeter;

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

/// Brings values to workers.
pub(crate) trait Uploader: Send + Sync {
    /// The bytes that a value takes on its way, or why it cannot leave.
    fn measure(&self, value: &Value) -> Result<u64, String>;

    /// Upload these, in this order. What fails is told with [`Session::not_uploaded`]; must not block.
    fn upload(&self, orders: Vec<UploadOrder>);
}

/// A value that the scheduler has asked for.
pub(crate) struct UploadOrder {
    pub(crate) item: OfferedItem,
    pub(crate) ticket: Ticket,
    pub(crate) to: Holder,
    pub(crate) value: Value,
    pub(crate) meter: TransferMeter,
}

/// Values that go to the scheduler's workers as one graph.
pub(crate) struct Batch {
    /// `None` for what has been let go of.
    values: Vec<Option<Value>>,
    nbytes: Vec<u64>,
    ticket: Ticket,
    keeps_values: bool,
    meter: TransferMeter,
}

impl Batch {
    pub(crate) fn new(keeps_values: bool, meter: TransferMeter) -> std::io::Result<Self> {
        Ok(Self { values: Vec::new(), nbytes: Vec::new(), ticket: Ticket::random()?, keeps_values, meter })
    }

    pub(crate) fn add(&mut self, value: Value, nbytes: u64) {
        self.values.push(Some(value));
        self.nbytes.push(nbytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn nbytes(&self) -> u64 {
        self.nbytes.iter().sum()
    }

    fn order(&self, task: TaskId, attempt: Attempt, to: Holder) -> Option<UploadOrder> {
        let value = self.values.get(task.idx.index())?.clone()?;
        let item = OfferedItem { task, attempt, nbytes: self.nbytes[task.idx.index()] };
        Some(UploadOrder { item, ticket: self.ticket, to, value, meter: self.meter.clone() })
    }

    /// It has arrived, or never will.
    fn settle(&mut self, idx: TaskIdx) {
        self.meter.update(|progress| progress.n_done += 1);
        if let Some(value) = self.values.get_mut(idx.index()).filter(|_| !self.keeps_values) {
            *value = None;
        }
    }

    /// Nothing is kept beyond what has to be uploaded for the first time.
    fn let_go(&mut self, is_done: impl Fn(TaskIdx) -> bool) {
        self.keeps_values = false;
        for (value, idx) in self.values.iter_mut().zip(0..) {
            if is_done(TaskIdx(idx)) {
                *value = None;
            }
        }
    }
}

/// Where a result is.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) attempt: Attempt,
    pub(crate) nbytes: u64,
    pub(crate) n_parts: u32,
    pub(crate) holders: Vec<Holder>,
    /// With this the holders give it.
    pub(crate) grant: Grant,
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
    /// Batches that the scheduler has not accepted yet, and those that it has, to be uploaded when asked for.
    scattering: FxHashMap<u32, Batch>,
    scattered: FxHashMap<GraphId, Batch>,
    closed: Option<Disconnected>,
}

/// The state of the conversation.
pub(crate) struct Session {
    link: Arc<dyn Link>,
    uploader: Box<dyn Uploader>,
    state: Mutex<State>,
}

pub(crate) type Waiter<T> = oneshot::Receiver<T>;

impl Session {
    pub(crate) fn new(link: Arc<dyn Link>, uploader: Box<dyn Uploader>) -> Self {
        Self { link, uploader, state: Mutex::new(State::default()) }
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
        self.ask_with(message, |_, _| (), table)
    }

    /// As [`Session::ask`]; `keep` puts away what belongs to the request, before anybody can answer it.
    fn ask_with<T>(
        &self,
        message: impl FnOnce(u32) -> FromClient,
        keep: impl FnOnce(&mut State, u32),
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
            keep(&mut state, request);
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

    /// Where each of `tasks` is, once it is in memory. Answers that never come mean that the conversation has ended.
    pub(crate) fn locate(&self, tasks: &[TaskId]) -> Result<Vec<Waiter<Located>>, Disconnected> {
        let mut waiting = Vec::with_capacity(tasks.len());
        {
            let mut state = self.state.lock();
            if let Some(closed) = &state.closed {
                return Err(closed.clone());
            }
            for task in tasks {
                let (sender, receiver) = oneshot::channel();
                state.locates.entry(*task).or_default().push(sender);
                waiting.push(receiver);
            }
        }
        self.send(FromClient::Locate { tasks: tasks.to_vec() });
        Ok(waiting)
    }

    /// The bytes that a value takes on its way to a worker.
    pub(crate) fn measure(&self, value: &Value) -> Result<u64, String> {
        self.uploader.measure(value)
    }

    /// Have the scheduler take in the values of a batch; they are uploaded when it asks for them.
    pub(crate) async fn scatter(
        &self,
        batch: Batch,
        spread: Spread,
        options: SubmitOptions,
    ) -> Result<Result<Arc<JobState>, String>, Disconnected> {
        let (nbytes, ticket) = (batch.nbytes.clone(), batch.ticket);
        let question = |request| FromClient::Scatter { request, nbytes, ticket, spread, options };
        let keep = |state: &mut State, request| drop(state.scattering.insert(request, batch));
        let answer = self.ask_with(question, keep, |state| &mut state.submits)?;
        answer.await.map_err(|_| self.disconnected())
    }

    /// An upload that the scheduler asked for has come to nothing.
    pub(crate) fn not_uploaded(&self, item: &OfferedItem, is_final: bool, reason: String) {
        let (task, attempt) = (item.task, item.attempt);
        self.send(FromClient::NotUploaded { task, attempt, is_final, reason });
    }

    /// The values of a scatter are not kept any longer than it takes to upload them once.
    pub(crate) fn let_go_of(&self, graph: GraphId) {
        let mut state = self.state.lock();
        let job = state.jobs.get(&graph).cloned();
        if let Some(batch) = state.scattered.get_mut(&graph) {
            batch.let_go(|idx| job.as_ref().is_some_and(|job| job.is_done(idx)));
        }
    }

    /// The job is not followed any more.
    pub(crate) fn forget_job(&self, graph: GraphId) {
        let mut state = self.state.lock();
        state.jobs.remove(&graph);
        let batch = state.scattered.remove(&graph);
        drop(state);
        // Its values may take long to be freed.
        drop(batch);
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
        let (mut orders, mut answers) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                ToClient::Welcome { .. } => {}
                ToClient::Accepted { request, graph } => {
                    let job = Arc::new(JobState::new(graph));
                    state.jobs.insert(graph, Arc::clone(&job));
                    let batch = state.scattering.remove(&request);
                    let was_scatter = batch.is_some();
                    state.scattered.extend(batch.map(|batch| (graph, batch)));
                    let is_heard = state.submits.remove(&request).is_some_and(|waiting| waiting.send(Ok(job)).is_ok());
                    if was_scatter && !is_heard {
                        // Nobody could ever let go of these values.
                        state.scattered.remove(&graph);
                        state.jobs.remove(&graph);
                        answers.push(FromClient::Cancel { request: 0, graph });
                    }
                }
                ToClient::Rejected { request, reason } => {
                    state.scattering.remove(&request);
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
                ToClient::Located { task, attempt, nbytes, n_parts, holders, grant } => {
                    for waiting in state.locates.remove(&task).unwrap_or_default() {
                        let _ = waiting.send(Ok(Location { attempt, nbytes, n_parts, holders: holders.clone(), grant }));
                    }
                }
                ToClient::Upload { task, attempt, to } => {
                    match state.scattered.get(&task.graph).and_then(|batch| batch.order(task, attempt, to)) {
                        Some(order) => orders.push(order),
                        None => {
                            let reason = "all workers that had it are lost, and its client has let go of it".to_owned();
                            answers.push(FromClient::NotUploaded { task, attempt, is_final: true, reason });
                        }
                    }
                }
                ToClient::Waits { graph, reason } => with_job(&state, &mut touched, graph, |job| job.waits(reason)),
                ToClient::Progress { graph, counts } => with_job(&state, &mut touched, graph, |job| job.progressed(counts)),
                ToClient::TaskDone { task, nbytes } => {
                    if let Some(batch) = state.scattered.get_mut(&task.graph) {
                        batch.settle(task.idx);
                    }
                    with_job(&state, &mut touched, task.graph, |job| job.task_done(task.idx, nbytes));
                }
                ToClient::TaskFailed { task, failure } => {
                    if let Some(batch) = state.scattered.get_mut(&task.graph) {
                        batch.settle(task.idx);
                    }
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
        if !answers.is_empty() {
            self.link.send(answers);
        }
        if !orders.is_empty() {
            self.uploader.upload(orders);
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
