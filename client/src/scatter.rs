//! Values of this client become results on workers: scatter, all at once or as a stream of any length.
//!
//! The scheduler is told how many there are and how long, chooses a worker for each that has room, and asks this client to
//! upload it there ([`crate::session`]); the values themselves go straight to the workers. A stream is pulled only as far as the
//! bytes in flight allow, so what it goes through never has to fit this client's memory.

use std::pin::pin;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use rask_comm::message::{SCATTER_LIMIT, Spread, SubmitOptions};
use rask_graphs::{TaskId, TaskIdx, Value};

use crate::client::{Client, SubmitError};
use crate::gather::{GatherError, GatherOptions, Gathering};
use crate::job::{Job, JobError};
use crate::session::Batch;
use crate::transfer::TransferMeter;

/// How values are scattered.
#[derive(Clone, Debug)]
pub struct ScatterOptions {
    /// Name for people, and in messages about a value that is lost.
    pub name: String,
    /// On which workers, and on how many of them each.
    pub spread: Spread,
    /// Whether this client keeps the values (clones, which share the memory) to upload them again if their workers are lost. A
    /// value that was not kept is lost with the last worker that has it, and what needs it fails. Unless said, values are
    /// kept, but for those of a stream.
    pub keeps_values: Option<bool>,
    /// For a stream: bytes of values that have been taken from it and not arrived, at most. One value may be longer.
    pub nbytes_in_flight: u64,
    /// What shows how far it is.
    pub meter: TransferMeter,
}

impl Default for ScatterOptions {
    /// One copy anywhere, 256 MiB in flight.
    fn default() -> Self {
        let (spread, meter) = (Spread::default(), TransferMeter::default());
        Self { name: String::new(), spread, keeps_values: None, nbytes_in_flight: 256 << 20, meter }
    }
}

/// Why values were not scattered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScatterError {
    /// A value cannot leave this process.
    #[error("value {at} cannot be sent: {reason}")]
    NotSendable {
        /// Which, from 0.
        at: usize,
        /// Why.
        reason: String,
    },
    /// The scheduler refused them, or has gone.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A value could not be brought to a worker, or the scheduler has gone.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The system has no random numbers to make a ticket of.
    #[error("cannot make a ticket: {0}")]
    Ticket(String),
}

/// Small values of a stream go together, up to so many bytes and so many of them.
const BATCH_NBYTES: u64 = 1 << 20;
const BATCH_LEN: usize = 512;

/// Values that are, or will be, held by workers, until they are released or this is dropped.
pub struct Scattered {
    client: Client,
    /// One a message; all but the last as long as the first is not assumed.
    jobs: Vec<Job>,
    ids: Vec<TaskId>,
}

impl Scattered {
    fn new(client: Client) -> Self {
        Self { client, jobs: Vec::new(), ids: Vec::new() }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The values' ids, in order: external inputs of later graphs ([`rask_graphs::GraphBuilder::external`]) while this lives.
    #[must_use]
    pub fn ids(&self) -> &[TaskId] {
        &self.ids
    }

    /// Wait until every value is held by a worker.
    ///
    /// # Errors
    /// The first failure, or the loss of the scheduler.
    pub async fn wait(&self) -> Result<(), JobError> {
        for job in &self.jobs {
            job.wait().await?;
        }
        Ok(())
    }

    /// Fetch value `at` back from a worker that holds it.
    ///
    /// # Errors
    /// When it was lost or released, when nobody could serve it, or when the scheduler has gone.
    ///
    /// # Panics
    /// Past the last value.
    pub async fn gather(&self, at: usize) -> Result<Value, GatherError> {
        self.client.gather(self.ids[at]).await
    }

    /// Fetch all values back, one by one.
    #[must_use]
    pub fn gather_all(&self, options: GatherOptions) -> Gathering {
        self.client.gather_many(self.ids.clone(), options)
    }

    /// This client keeps the values no longer: from now on those on the workers are the only ones. What is being uploaded still
    /// is.
    pub fn let_go(&self) {
        for job in &self.jobs {
            self.client.session().let_go_of(job.id());
        }
    }

    /// Value `at` is not wanted any more: workers may drop it.
    ///
    /// # Panics
    /// Past the last value.
    pub fn release(&self, at: usize) {
        let id = self.ids[at];
        if let Some(job) = self.jobs.iter().find(|job| job.id() == id.graph) {
            job.release(id.idx);
        }
    }
}

impl Client {
    /// Have workers hold `values`. Returns once the scheduler has accepted them; [`Scattered::wait`] waits for their arrival, and
    /// graphs that use them may be submitted before.
    ///
    /// # Errors
    /// When a value cannot be sent, or the scheduler refuses them or has gone.
    pub async fn scatter(
        &self,
        values: impl IntoIterator<Item = Value>,
        options: ScatterOptions,
    ) -> Result<Scattered, ScatterError> {
        let mut scattered = Scattered::new(self.clone());
        let mut values = values.into_iter().peekable();
        let mut at = 0;
        while values.peek().is_some() {
            let mut batch = self.batch(&options, true)?;
            while batch.len() < SCATTER_LIMIT
                && let Some(value) = values.next()
            {
                self.add(&mut batch, value, at)?;
                at += 1;
            }
            let _arrival = self.send(&mut scattered, batch, &options).await?;
        }
        let n_total = scattered.len() as u64;
        options.meter.update(|progress| progress.n_total = Some(n_total));
        Ok(scattered)
    }

    /// Have workers hold the values of a stream, which may be longer than this client's memory: no more than
    /// [`ScatterOptions::nbytes_in_flight`] of it are held here (unless they are kept). Returns once all have arrived.
    ///
    /// # Errors
    /// As [`Client::scatter`], and when a value does not arrive; what has arrived is released then.
    pub async fn scatter_stream(
        &self,
        values: impl Stream<Item = Value>,
        options: ScatterOptions,
    ) -> Result<Scattered, ScatterError> {
        let mut values = pin!(values);
        let mut scattered = Scattered::new(self.clone());
        let mut in_flight = FuturesUnordered::new();
        let (mut nbytes, mut at, mut is_over) = (0_u64, 0, false);
        let mut batch = self.batch(&options, false)?;
        while !is_over {
            // A stream that has nothing to give just now does not hold up what it has given.
            let ready = if batch.is_empty() { Some(values.next().await) } else { values.next().now_or_never() };
            is_over = matches!(ready, Some(None));
            let must_send = ready.as_ref().is_none_or(Option::is_none);
            if let Some(Some(value)) = ready {
                nbytes += self.add(&mut batch, value, at)?;
                at += 1;
            }
            let is_full = batch.nbytes() >= BATCH_NBYTES || batch.len() >= BATCH_LEN || nbytes >= options.nbytes_in_flight;
            if !batch.is_empty() && (must_send || is_full) {
                let batch = std::mem::replace(&mut batch, self.batch(&options, false)?);
                let batch_nbytes = batch.nbytes();
                let arrival = self.send(&mut scattered, batch, &options).await?;
                in_flight.push(async move { arrival.await.map(|()| batch_nbytes) });
            }
            while nbytes >= options.nbytes_in_flight
                && let Some(arrived) = in_flight.next().await
            {
                nbytes -= arrived?;
            }
        }
        while let Some(arrived) = in_flight.next().await {
            arrived?;
        }
        drop(in_flight);
        Ok(scattered)
    }

    fn batch(&self, options: &ScatterOptions, keeps_values: bool) -> Result<Batch, ScatterError> {
        Batch::new(options.keeps_values.unwrap_or(keeps_values), options.meter.clone())
            .map_err(|error| ScatterError::Ticket(error.to_string()))
    }

    /// Its bytes.
    fn add(&self, batch: &mut Batch, value: Value, at: usize) -> Result<u64, ScatterError> {
        let measured = self.session().measure(&value);
        let nbytes = measured.map_err(|reason| ScatterError::NotSendable { at, reason })?;
        batch.add(value, nbytes);
        Ok(nbytes)
    }

    /// Submit a batch; ready once it has been accepted. What it gives is ready once all its values have arrived.
    async fn send(
        &self,
        scattered: &mut Scattered,
        batch: Batch,
        options: &ScatterOptions,
    ) -> Result<impl Future<Output = Result<(), JobError>> + use<>, ScatterError> {
        let submit = SubmitOptions { name: options.name.clone(), ..SubmitOptions::default() };
        let n_values = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let nbytes = batch.nbytes();
        options.meter.update(|progress| *progress.nbytes_total.get_or_insert(0) += nbytes);
        let state = self.session().scatter(batch, options.spread.clone(), submit).await;
        let state = state.map_err(SubmitError::from)?.map_err(SubmitError::Rejected)?;
        let outputs: Vec<TaskIdx> = (0..n_values).map(TaskIdx).collect();
        scattered.ids.extend(outputs.iter().map(|idx| TaskId::new(state.id(), *idx)));
        let arrival = state.clone();
        scattered.jobs.push(self.job(state, outputs, false));
        Ok(async move { arrival.wait().await.map(drop) })
    }
}
