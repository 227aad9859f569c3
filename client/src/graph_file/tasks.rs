//! Explicit tasks: one node each, with whatever they name made into one result.

use rask_graphs::file::{Declaration, Span, TaskDeclaration};
use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, Input, Source, TaskIdx};

use super::lower::{Lowerer, Made};

impl Lowerer<'_> {
    /// The node that an explicit task is. Frames and arrays among its inputs come as one result each.
    pub(super) fn task(&mut self, task: &TaskDeclaration, declaration: &Declaration) -> Made {
        let mut inputs = Vec::with_capacity(task.inputs.len());
        for input in &task.inputs {
            match self.single(input.of.index(), task.inputs_span) {
                Ok(idx) => inputs.push(Input::new(Source::Task(idx), input.part)),
                Err(made) => return made,
            }
        }
        let version = self.registry.spec(&task.op).map_or(1, |spec| spec.version);
        let body = self.graph().body(Body::single(&task.op, version, &task.args));
        let (family, member) = declaration.family();
        let family = self.graph().family(family);
        let mut builder = self.graph().task_with(KeyRef { family, member }, body);
        for input in inputs {
            builder = builder.input_from(input.source(), input.part);
        }
        if let Some(options) = &task.options {
            builder = builder.options((**options).clone());
        }
        Made::Task(builder.add())
    }

    /// Declaration number `at` as one task's result.
    pub(super) fn single(&mut self, at: usize, span: Span) -> Result<TaskIdx, Made> {
        let name = self.file.declarations[at].name.as_str();
        match self.made[at].clone() {
            Made::Task(idx) => Ok(idx),
            Made::Array(array) => self.assembled(&array, name, span),
            Made::Frame(frame) => {
                let partitions = self.partitions(&frame, name, span)?;
                match partitions.as_slice() {
                    [only] => Ok(*only),
                    _ => Ok(self.graph().task(&format!("{name}-all"), "frame.concat", 1, "{}").inputs(partitions).add()),
                }
            }
            broken @ (Made::Broken(_) | Made::Mistaken | Made::Unneeded) => Err(broken),
        }
    }
}
