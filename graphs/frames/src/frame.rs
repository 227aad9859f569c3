//! Lazy frames: where rows come from, without any of them. Turning one into tasks is [`crate::FrameLowering`]'s work.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use rask_graphs::TaskIdx;

use crate::error::{FrameError, SqlError};
use crate::plan;
use crate::source::{FileSource, Format, ReadOptions};

/// A lazy table. Clones are the same frame; what is computed once for one is computed for all.
#[derive(Clone)]
pub struct Frame(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) schema: SchemaRef,
    pub(crate) node: Node,
    /// How many queries lie on top of each other, this one included.
    height: usize,
}

/// Most queries on top of each other: dropping the last drops all, each within the one above.
const MAX_HEIGHT: usize = 100;

pub(crate) enum Node {
    /// Rows in files.
    Files(FileSource),
    /// A query over other frames: not optimised, every table a [`plan::tables::FrameTable`].
    Query(LogicalPlan),
    /// Rows that tasks of a graph make.
    Tasks(Vec<TaskIdx>),
}

impl Frame {
    /// Files as a frame; `format` goes by the names' extensions when left out. Paths may be globs or directories.
    ///
    /// # Errors
    /// [`FrameError::Io`] when a pattern matches nothing or a file cannot be read, [`FrameError::Data`] when files are not
    /// of the format or disagree on their columns, [`FrameError::Plan`] when the options make no sense.
    pub fn read(format: Option<Format>, paths: &[impl Into<PathBuf> + Clone], options: ReadOptions) -> Result<Self, FrameError> {
        let paths: Vec<PathBuf> = paths.iter().cloned().map(Into::into).collect();
        let source = FileSource::open(format, &paths, options)?;
        Ok(Self::new(Arc::clone(&source.schema), Node::Files(source)))
    }

    /// CSV files as a frame. See [`Frame::read`].
    ///
    /// # Errors
    /// As [`Frame::read`].
    pub fn read_csv(paths: &[impl Into<PathBuf> + Clone], options: ReadOptions) -> Result<Self, FrameError> {
        Self::read(Some(Format::Csv), paths, options)
    }

    /// Parquet files as a frame, cut by row groups. See [`Frame::read`].
    ///
    /// # Errors
    /// As [`Frame::read`].
    pub fn read_parquet(paths: &[impl Into<PathBuf> + Clone], options: ReadOptions) -> Result<Self, FrameError> {
        Self::read(Some(Format::Parquet), paths, options)
    }

    /// JSON files (an object a line, or one array) as a frame. See [`Frame::read`].
    ///
    /// # Errors
    /// As [`Frame::read`].
    pub fn read_json(paths: &[impl Into<PathBuf> + Clone], options: ReadOptions) -> Result<Self, FrameError> {
        Self::read(Some(Format::Json), paths, options)
    }

    /// Arrow IPC files as a frame. See [`Frame::read`].
    ///
    /// # Errors
    /// As [`Frame::read`].
    pub fn read_arrow(paths: &[impl Into<PathBuf> + Clone], options: ReadOptions) -> Result<Self, FrameError> {
        Self::read(Some(Format::Arrow), paths, options)
    }

    /// A query over frames by name. Checked and typed here, optimised when it is turned into tasks.
    ///
    /// Names in SQL are lower case unless quoted; a frame called `Flights` is also found as `flights`.
    ///
    /// # Errors
    /// [`FrameError::Sql`] when the text is not a query, or does not fit the tables' columns.
    pub fn sql(text: &str, tables: &[(String, Frame)]) -> Result<Self, FrameError> {
        let height = 1 + tables.iter().map(|(_, frame)| frame.0.height).max().unwrap_or(0);
        if height > MAX_HEIGHT {
            let message = format!("more than {MAX_HEIGHT} queries on top of each other");
            return Err(FrameError::Sql(SqlError { message, line: None, column: None }));
        }
        let plan = plan::sql::plan_query(text, tables).map_err(FrameError::Sql)?;
        let schema = Arc::new(strip_metadata(plan.schema().as_arrow()));
        Ok(Self(Arc::new(Inner { schema, node: Node::Query(plan), height })))
    }

    /// The results of tasks, each a partition with columns `schema`, as a frame. The tasks are those of the builder that
    /// the frame (or a query over it) will be lowered into; nothing can check that.
    #[must_use]
    pub fn from_tasks(schema: SchemaRef, tasks: Vec<TaskIdx>) -> Self {
        Self::new(schema, Node::Tasks(tasks))
    }

    fn new(schema: SchemaRef, node: Node) -> Self {
        Self(Arc::new(Inner { schema, node, height: 0 }))
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// Whether this and `other` are the same frame.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn strip_metadata(schema: &Schema) -> Schema {
    Schema::new(schema.fields().clone())
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.0.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "Frame({})", columns.join(", "))
    }
}

/// The tables that a query names, in order of appearance and each once, with the place where it first does; names that
/// the query itself defines (`WITH`) are not among them.
///
/// # Errors
/// When the text is not a single query.
#[expect(clippy::type_complexity, reason = "a pair of a name and a line and column reads better than a type for it")]
pub fn sql_tables(sql: &str) -> Result<Vec<(String, Option<(u32, u32)>)>, SqlError> {
    plan::sql::tables(sql)
}
