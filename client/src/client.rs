//! The client: one conversation with a scheduler, in this process or elsewhere.

use std::any::Any;
use std::sync::Arc;

use rask_comm::message::{FromClient, StatusReport, SubmitOptions};
use rask_graphs::{Graph, GraphId, TaskId, Value};

use crate::gather::{GatherError, GatherOptions, Gathering, PartSource};
use crate::job::Job;
use crate::local::{LocalError, LocalOptions, start_local};
use crate::remote::{ConnectError, ConnectOptions, connect};
use crate::session::{Disconnected, Session};

/// Why a graph was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The scheduler refused it.
    #[error("the scheduler refused the graph: {0}")]
    Rejected(String),
    /// The scheduler has gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

struct Inner {
    session: Arc<Session>,
    source: Arc<dyn PartSource>,
    /// What must live as long as the client: an embedded cluster, or the network thread.
    _carrier: Box<dyn Any + Send + Sync>,
}

/// A connection to a scheduler. Clones share it; when the last one and all its jobs are gone, so are its graphs.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    pub(crate) fn new(session: Arc<Session>, source: Arc<dyn PartSource>, carrier: Box<dyn Any + Send + Sync>) -> Self {
        Self { inner: Arc::new(Inner { session, source, _carrier: carrier }) }
    }

    /// A scheduler and workers in this process. No socket, no set-up; up within milliseconds.
    ///
    /// # Errors
    /// When the system refuses threads.
    pub fn local(options: LocalOptions) -> Result<Self, LocalError> {
        start_local(options)
    }

    /// Connect to a scheduler over QUIC.
    ///
    /// # Errors
    /// When nobody is there, it is not of this cluster, or it refuses; in words.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        connect(options).await
    }

    /// Run `graph`. Its outputs are computed and held until they are released or the job is dropped.
    ///
    /// # Errors
    /// When the scheduler refuses the graph or has gone.
    pub async fn submit(&self, graph: Graph, options: SubmitOptions) -> Result<Job, SubmitError> {
        let outputs = graph.outputs.clone();
        let is_detached = options.detached;
        let question = |request| FromClient::Submit { request, graph: Box::new(graph), options };
        let state = self.inner.session.ask_job(question).await?.map_err(SubmitError::Rejected)?;
        Ok(self.job(state, outputs, is_detached))
    }

    /// Follow a detached graph that a client of the same owner submitted before.
    ///
    /// # Errors
    /// When there is none with this id, or the scheduler has gone.
    pub async fn attach(&self, graph: GraphId) -> Result<Job, SubmitError> {
        let question = |request| FromClient::Attach { request, graph };
        let state = self.inner.session.ask_job(question).await?.map_err(SubmitError::Rejected)?;
        Ok(self.job(state, Vec::new(), true))
    }

    /// Fetch one result that this client holds from a worker, waiting until it is there.
    ///
    /// # Errors
    /// When it failed, when no holder could serve it, or when the scheduler has gone.
    pub async fn gather(&self, result: TaskId) -> Result<Value, GatherError> {
        let mut gathering = self.gather_many(vec![result], GatherOptions::default());
        match gathering.next().await {
            Some((_, outcome)) => outcome,
            None => Err(self.inner.session.disconnected().into()),
        }
    }

    /// Fetch many results that this client holds, one by one, from all their workers at once, in bounded memory.
    #[must_use]
    pub fn gather_many(&self, results: Vec<TaskId>, options: GatherOptions) -> Gathering {
        Gathering::new(self.clone(), results, options)
    }

    pub(crate) fn job(&self, state: Arc<crate::job::JobState>, outputs: Vec<rask_graphs::TaskIdx>, is_detached: bool) -> Job {
        Job::new(state, self.clone(), outputs, is_detached)
    }

    /// Stop a graph of the same owner, on whatever connection it was submitted, or with the rights of an admin anybody's; whether
    /// there was one.
    ///
    /// # Errors
    /// When the scheduler has gone.
    pub async fn cancel(&self, graph: GraphId) -> Result<bool, Disconnected> {
        self.inner.session.cancel(graph).await
    }

    /// How the cluster is.
    ///
    /// # Errors
    /// When the scheduler has gone.
    pub async fn status(&self) -> Result<StatusReport, Disconnected> {
        self.inner.session.status().await
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.inner.session
    }

    pub(crate) fn source(&self) -> &dyn PartSource {
        &*self.inner.source
    }
}
