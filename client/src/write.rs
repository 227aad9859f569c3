//! Results that are too large for this client: the workers write them into files, where they are.

use rask_comm::message::SubmitOptions;
use rask_graphs::builtin::FileWritten;
use rask_graphs::{BuildError, FinishOptions, GraphBuilder, Part, Source, TaskId, TaskIdx};

use crate::client::{Client, SubmitError};
use crate::gather::{GatherError, GatherOptions};
use crate::job::{Job, JobError};
use crate::scatter::Scattered;

/// How results are written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The files are called `name-00000` and so on, in the order of the results.
    pub name: String,
    /// Whether files of these names may be replaced. Unless said, one that is there and is not the same makes it fail.
    pub overwrite: bool,
}

impl Default for WriteOptions {
    /// `result-00000` and so on; nothing is replaced.
    fn default() -> Self {
        Self { name: "result".to_owned(), overwrite: false }
    }
}

/// Why results were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There are too many.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The scheduler refused it, or has gone.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A result was lost, or a worker could not write it. Other files may have been written.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The files are written, and a worker that knows of one has gone since.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// A worker's `core.write` is not ours.
    #[error("a worker's note of a file is of kind \"{0}\"")]
    NotANote(String),
}

impl Client {
    /// Have the workers write `results`, which this client holds, into files in `directory`, as a rule where each is. Returns
    /// once all are complete and on the disk; the files in the order of the results. [`rask_graphs::written::read`] reads one.
    ///
    /// `directory` is a path on the workers, within their data roots; it is made when it is missing.
    ///
    /// # Errors
    /// When a result cannot be written, or the scheduler has gone.
    pub async fn write_many(
        &self,
        results: &[TaskId],
        directory: &str,
        options: WriteOptions,
    ) -> Result<Vec<FileWritten>, WriteError> {
        if results.is_empty() {
            return Ok(Vec::new());
        }
        let mut graph = GraphBuilder::new();
        let mut tasks = Vec::with_capacity(results.len());
        for (at, result) in results.iter().enumerate() {
            let name = format!("{}-{at:05}", options.name);
            let args = serde_json::json!({ "directory": directory, "name": name, "overwrite": options.overwrite });
            let result = Source::External(graph.external(*result));
            let key = format!("write-{name}");
            tasks.push(graph.task(&key, "core.write", 1, &args.to_string()).input_from(result, Part::WHOLE).add());
        }
        tasks.iter().for_each(|task| graph.output(*task));
        let finished = graph.finish(&FinishOptions { cull: false, fuse: false, order: false })?;
        let job = self.submit(finished.graph, SubmitOptions::default()).await?;
        job.wait().await?;
        let place = |task: &TaskIdx| finished.renumbering.get(task.index()).copied().flatten();
        let ids = tasks.iter().filter_map(place).map(|task| job.result_id(task)).collect();
        let mut notes = self.gather_many(ids, GatherOptions::default());
        let mut written = Vec::with_capacity(results.len());
        while let Some((_, note)) = notes.next().await {
            let note = note?;
            let file = note.downcast::<FileWritten>().ok_or_else(|| WriteError::NotANote(note.kind().to_owned()))?;
            written.push(file.clone());
        }
        Ok(written)
    }
}

impl Job {
    /// Have the workers write the results of all outputs: see [`Client::write_many`].
    ///
    /// # Errors
    /// When one failed or cannot be written, or the scheduler has gone.
    pub async fn write_all(&self, directory: &str, options: WriteOptions) -> Result<Vec<FileWritten>, WriteError> {
        self.client().write_many(&self.output_ids(), directory, options).await
    }
}

impl Scattered {
    /// Have the workers write all values: see [`Client::write_many`].
    ///
    /// # Errors
    /// When one was lost or cannot be written, or the scheduler has gone.
    pub async fn write_all(&self, directory: &str, options: WriteOptions) -> Result<Vec<FileWritten>, WriteError> {
        self.client().write_many(self.ids(), directory, options).await
    }
}
