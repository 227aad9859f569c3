//! Results as people and programs read them.
//!
//! What a result is shows in the result itself, not in the plan: explicit tasks make whatever their operator makes.

use rask_arrays::Chunk;
use rask_frames::{Partition, rows_as_json, to_table_string};
use rask_graphs::builtin::FileWritten;
use rask_graphs::{KernelError, Value};
use serde_json::{Value as Json, json};

/// Rows of a table that are shown.
const N_ROWS_SHOWN: usize = 20;

/// The results of one output, gathered.
#[derive(Clone, Debug)]
pub struct Presented {
    /// In the order of [`super::PlannedOutput::tasks`].
    values: Vec<Value>,
}

enum Sort<'a> {
    Frame(Vec<&'a Partition>),
    Array(&'a Chunk),
    File(&'a FileWritten),
    /// Something only the program that made it can read.
    Other,
}

impl Presented {
    /// Present `values`, the results of an output's tasks in order.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Self { values }
    }

    fn sort(&self) -> Sort<'_> {
        let partitions: Option<Vec<&Partition>> = self.values.iter().map(Value::downcast::<Partition>).collect();
        match (partitions, self.values.as_slice()) {
            (_, [one]) if one.downcast::<Chunk>().is_some() => one.downcast().map_or(Sort::Other, Sort::Array),
            (_, [one]) if one.downcast::<FileWritten>().is_some() => one.downcast().map_or(Sort::Other, Sort::File),
            (Some(partitions), [_, ..]) => Sort::Frame(partitions),
            (Some(_) | None, _) => Sort::Other,
        }
    }

    /// The file, if that is what the output is.
    #[must_use]
    pub fn file(&self) -> Option<&FileWritten> {
        match self.sort() {
            Sort::File(file) => Some(file),
            Sort::Frame(_) | Sort::Array(_) | Sort::Other => None,
        }
    }

    /// Text for a person: a table of 20 rows and their total number, an array as NumPy prints it.
    ///
    /// # Errors
    /// When a value cannot be written as text.
    pub fn to_text(&self) -> Result<String, KernelError> {
        match self.sort() {
            Sort::Frame(partitions) => to_table_string(&partitions, N_ROWS_SHOWN),
            Sort::Array(chunk) => Ok(chunk.to_string()),
            Sort::File(file) => Ok(format!("{}, {} bytes", file.path, file.nbytes)),
            Sort::Other => {
                let nbytes: u64 = self.values.iter().map(Value::nbytes).sum();
                let kind = self.values.first().map_or("nothing", Value::kind);
                Ok(format!("a result of kind \"{kind}\", {nbytes} bytes"))
            }
        }
    }

    /// JSON for a program: `{"kind": "frame", "columns", "types", "rows"}`, `{"kind": "array", "dtype", "shape", "data"}`,
    /// `{"kind": "file", "path", "nbytes"}`; anything else has its kind and `nbytes`.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn to_json(&self) -> Result<Json, KernelError> {
        match self.sort() {
            Sort::Frame(partitions) => frame_to_json(&partitions),
            Sort::Array(chunk) => Ok(json!({
                "kind": "array", "dtype": chunk.dtype().to_string(), "shape": chunk.shape(),
                "data": rask_arrays::print::to_json(chunk),
            })),
            Sort::File(file) => Ok(json!({ "kind": "file", "path": file.path, "nbytes": file.nbytes })),
            Sort::Other => {
                let nbytes: u64 = self.values.iter().map(Value::nbytes).sum();
                Ok(json!({ "kind": self.values.first().map_or("nothing", Value::kind), "nbytes": nbytes }))
            }
        }
    }
}

fn frame_to_json(partitions: &[&Partition]) -> Result<Json, KernelError> {
    let (mut columns, mut types, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for partition in partitions {
        let part = rows_as_json(partition)?;
        (columns, types) = (part.columns, part.types);
        rows.extend(part.rows);
    }
    Ok(json!({ "kind": "frame", "columns": columns, "types": types, "rows": rows }))
}
