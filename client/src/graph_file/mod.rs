//! Graph files as graphs: a checked file's declarations become tasks of arrays, frames and operators.
//!
//! [`read`] parses and checks a file, [`plan`] lowers what its outputs need to one [`Graph`], and [`Presented`] turns the
//! results into what a person or a program reads. Mistakes that only show here (shapes, columns, SQL) are diagnostics with
//! a place in the file like all others; a data file that is missing is none, but fails the outputs that need it.
//!
//! Deliberately absent: where the graph runs, and the terminal.

mod arrays;
mod frames;
mod lower;
mod outputs;
mod present;
mod summary;
mod tasks;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rask_graphs::file::{Diagnostic, Format, GraphFile, SqlError, SqlNames, SqlTable};
use rask_graphs::{Graph, Registry, TaskIdx};

pub use lower::plan;
pub use present::Presented;
pub use summary::Summary;

/// Most bytes of an array or frame that are brought to the client to be printed.
pub const PRINT_LIMIT: u64 = 64 << 20;

/// What a graph file comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tasks that the outputs need. Without any when every output has failed in planning.
    pub graph: Graph,
    /// The outputs, as declared.
    pub outputs: Vec<PlannedOutput>,
    /// What a person should know: seeds that were drawn.
    pub notes: Vec<String>,
    /// What will be computed, declaration by declaration.
    pub summary: Vec<Summary>,
}

/// An output and the tasks that make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedOutput {
    /// Its name in the file.
    pub name: String,
    /// What it will be.
    pub kind: OutputKind,
    /// The tasks of [`Plan::graph`] whose results it consists of, in order. Empty exactly when it has failed.
    pub tasks: Vec<TaskIdx>,
    /// Why it cannot be computed, though the file is right: a data file that is missing or cannot be read.
    pub failure: Option<String>,
}

/// What an output will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Rows of a table, one partition a task.
    Frame {
        /// Names and types of the columns.
        columns: Vec<(String, String)>,
    },
    /// An array, whole in one task's result.
    Array {
        /// Type of its elements.
        dtype: String,
        /// Length of each axis; `None` where only running the graph will tell.
        shape: Vec<Option<u64>>,
    },
    /// A file, written by a worker.
    File {
        /// Its absolute path.
        path: PathBuf,
    },
    /// The result of an explicit task, whatever that is.
    Value,
}

/// Finds the tables of queries with the frames library's parser.
struct FrameNames;

impl SqlNames for FrameNames {
    fn tables(&self, sql: &str) -> Result<Vec<SqlTable>, SqlError> {
        let place = |line: u32, column: u32| (line as usize, column as usize);
        match rask_frames::sql_tables(sql) {
            Ok(tables) => Ok(tables.into_iter().map(|(name, at)| (name, at.map(|(line, column)| place(line, column)))).collect()),
            Err(error) => {
                let at = error.line.zip(error.column).map(|(line, column)| place(line, column));
                Err((error.message, at))
            }
        }
    }
}

/// Read and check a graph file: `text`, found at `path` (`-` for standard input), with `overrides` of its parameters.
///
/// # Errors
/// All mistakes found, by position; at least one.
pub fn read(path: &Path, text: &str, overrides: &[(String, String)], registry: &Registry) -> Result<GraphFile, Vec<Diagnostic>> {
    let name = path.to_string_lossy();
    let format = Format::of_file(&name);
    let shown = if name == "-" { "<stdin>" } else { &*name };
    let file = GraphFile::parse(shown, text, format, overrides, &FrameNames)?;
    let mistakes = file.check_operators(registry);
    if mistakes.is_empty() { Ok(file) } else { Err(mistakes) }
}
