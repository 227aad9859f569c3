//! Outputs: what is printed is brought into few results, what is written becomes a task that writes.

use std::path::PathBuf;

use rask_frames::type_name;
use rask_graphs::file::{GraphFile, OutputDeclaration, OutputOf, Span, Write, WriteFormat};
use rask_graphs::{Part, Source, TaskIdx};
use serde_json::json;

use super::lower::{DraftOutput, Lowerer, Made};
use super::{OutputKind, PlannedOutput};
use crate::bridge;

/// A path of the file as any process of this host can open it.
pub(super) fn absolute(file: &GraphFile, raw: &str) -> PathBuf {
    let path = file.path(raw);
    // Only an empty path has no absolute form; opening it then says so.
    std::path::absolute(&path).unwrap_or(path)
}

impl Lowerer<'_> {
    /// The tasks of an output; `None` when there is a mistake in it or in what it needs.
    pub(super) fn output(&mut self, output: &OutputDeclaration) -> Option<DraftOutput> {
        let span = output.span;
        let (made, name) = match &output.of {
            OutputOf::Name(id, part) if part.is_whole() => {
                (self.made[id.index()].clone(), self.file.declaration(*id).name.clone())
            }
            OutputOf::Name(id, part) => (self.part(id.index(), *part, &output.name), output.name.clone()),
            OutputOf::Expression(formula) => (self.formula(formula), output.name.clone()),
        };
        let drafted = match (made, &output.write) {
            (Made::Broken(reason), write) => return Some(self.broken(output, write.as_ref(), reason)),
            (Made::Mistaken | Made::Unneeded, _) => return None,
            (made, None) => self.printed(made, &name, span),
            (made, Some(write)) => self.written(made, &name, write, span),
        };
        match drafted {
            Ok((kind, tasks)) => {
                let planned = PlannedOutput { name: output.name.clone(), kind, tasks: Vec::new(), failure: None };
                Some(DraftOutput { planned, tasks })
            }
            Err(Made::Broken(reason)) => Some(self.broken(output, output.write.as_ref(), reason)),
            Err(Made::Mistaken | Made::Unneeded | Made::Frame(_) | Made::Array(_) | Made::Task(_)) => None,
        }
    }

    fn broken(&self, output: &OutputDeclaration, write: Option<&Write>, reason: String) -> DraftOutput {
        let kind = match write {
            Some(write) => OutputKind::File { path: absolute(self.file, &write.path.value) },
            None => OutputKind::Value,
        };
        let planned = PlannedOutput { name: output.name.clone(), kind, tasks: Vec::new(), failure: Some(reason) };
        DraftOutput { planned, tasks: Vec::new() }
    }

    /// One part of a task's result as a result of its own.
    fn part(&mut self, at: usize, part: Part, output: &str) -> Made {
        match self.made[at].clone() {
            Made::Task(idx) => {
                let key = format!("{output}-part");
                Made::Task(self.graph().task(&key, "core.same", 1, "{}").input_from(Source::Task(idx), part).add())
            }
            other @ (Made::Unneeded | Made::Frame(_) | Made::Array(_) | Made::Broken(_) | Made::Mistaken) => other,
        }
    }

    fn printed(&mut self, made: Made, name: &str, span: Span) -> Result<(OutputKind, Vec<TaskIdx>), Made> {
        match made {
            Made::Frame(frame) => {
                let fields = frame.schema().fields();
                let columns = fields.iter().map(|field| (field.name().clone(), type_name(field.data_type()))).collect();
                Ok((OutputKind::Frame { columns }, self.partitions(&frame, name, span)?))
            }
            Made::Array(array) => self.printed_array(&array, name, span),
            Made::Task(task) => Ok((OutputKind::Value, vec![task])),
            other @ (Made::Broken(_) | Made::Mistaken | Made::Unneeded) => Err(other),
        }
    }

    fn written(&mut self, made: Made, name: &str, write: &Write, span: Span) -> Result<(OutputKind, Vec<TaskIdx>), Made> {
        let path = absolute(self.file, &write.path.value);
        let Some(text) = path.to_str() else {
            return Err(self.mistake(write.path.span, "the path is not UTF-8 text", None));
        };
        let key = format!("{name}-write");
        let task = match (made, write.format) {
            (Made::Frame(frame), _) => {
                let partitions = self.partitions(&frame, name, span)?;
                self.write_frame(&key, text, &partitions)
            }
            (Made::Array(array), WriteFormat::Npy) => self.write_npy(&array, name, text, span)?,
            (Made::Array(array), WriteFormat::Csv | WriteFormat::Json) => {
                let rows = self.row_blocks(&array, name, span)?;
                let n_columns = array.shape().get(1).copied().unwrap_or(1);
                let columns: Vec<String> = (0..n_columns).map(|column| format!("c{column}")).collect();
                let partitions = bridge::arrays_to_frames(self.arrays.graph(), &format!("{name}-rows"), &rows, &columns);
                self.write_frame(&key, text, &partitions)
            }
            (Made::Array(_) | Made::Task(_), WriteFormat::Zarr) => {
                let hint = Some("write it as .npy".to_owned());
                return Err(self.mistake(write.path.span, "writing .zarr is not supported yet", hint));
            }
            (Made::Array(_), WriteFormat::Parquet) => {
                let hint = Some("an array is written as .npy, .csv or .json".to_owned());
                return Err(self.mistake(write.path.span, "an array is not written as .parquet", hint));
            }
            (Made::Task(task), WriteFormat::Npy) => {
                self.graph().task(&key, "array.write", 1, &json!({ "path": text }).to_string()).input(task).add()
            }
            (Made::Task(task), WriteFormat::Parquet | WriteFormat::Csv | WriteFormat::Json) => {
                self.write_frame(&key, text, &[task])
            }
            (other @ (Made::Broken(_) | Made::Mistaken | Made::Unneeded), _) => return Err(other),
        };
        Ok((OutputKind::File { path }, vec![task]))
    }

    fn write_frame(&mut self, key: &str, path: &str, partitions: &[TaskIdx]) -> TaskIdx {
        let args = json!({ "path": path }).to_string();
        self.graph().task(key, "frame.write", 1, &args).inputs(partitions.iter().copied()).add()
    }
}
