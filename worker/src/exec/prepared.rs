//! A body ready to run: every step's operator found and its arguments parsed, and the wiring between steps.

use std::ops::Range;
use std::sync::Arc;

use rask_graphs::graph::Wires;
use rask_graphs::operator::PrepareError;
use rask_graphs::{Body, Kernel, Registry, TaskContext, Value, Wire};

struct PreparedStep {
    kernel: Arc<dyn Kernel>,
    operator: Arc<str>,
    wires: Wires,
}

/// See the module's documentation.
pub(super) struct PreparedBody {
    steps: Vec<PreparedStep>,
}

/// An operator of a body that failed.
pub(super) struct StepFailure {
    pub(super) operator: String,
    pub(super) message: String,
}

impl PreparedBody {
    pub(super) fn prepare(body: &Body, registry: &Registry) -> Result<Self, PrepareError> {
        let prepare = |step: &rask_graphs::Step| {
            let kernel = registry.prepare(&step.operator, step.version, &step.args)?;
            Ok(PreparedStep { kernel, operator: Arc::clone(&step.operator), wires: step.wires.clone() })
        };
        Ok(Self { steps: body.steps.iter().map(prepare).collect::<Result<_, _>>()? })
    }

    /// `spread` says how many of `inputs` each declared input of the task stands for; empty when all are 1.
    pub(super) fn run(&self, ctx: &TaskContext, inputs: &[Value], spread: &[u32]) -> Result<Value, StepFailure> {
        let mut results: Vec<Value> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let fail = |message: String| StepFailure { operator: step.operator.to_string(), message };
            let result = match &step.wires {
                Wires::All => step.kernel.run(ctx, inputs),
                Wires::These(wires) => {
                    let mut values = Vec::new();
                    for wire in wires {
                        gather(*wire, inputs, spread, &results, &mut values).map_err(fail)?;
                    }
                    step.kernel.run(ctx, &values)
                }
            };
            results.push(result.map_err(|error| fail(error.0))?);
        }
        results.pop().ok_or_else(|| StepFailure { operator: String::new(), message: "a body without steps".to_owned() })
    }
}

/// Append what `wire` stands for to `out`.
fn gather(wire: Wire, inputs: &[Value], spread: &[u32], results: &[Value], out: &mut Vec<Value>) -> Result<(), String> {
    match wire {
        Wire::Input(idx) => {
            let range = range_of(idx as usize, spread);
            out.extend_from_slice(inputs.get(range).ok_or("a fused step names an input that is not there")?);
        }
        Wire::Step(idx, part) => {
            let value = results.get(idx as usize).ok_or("a fused step names a step that is not before it")?;
            let piece = if part.is_whole() { Some(value.clone()) } else { value.part(part.0) };
            out.push(piece.ok_or_else(|| format!("the result of a fused step has no part {}", part.0))?);
        }
    }
    Ok(())
}

fn range_of(idx: usize, spread: &[u32]) -> Range<usize> {
    if spread.is_empty() {
        return idx..idx + 1;
    }
    let begin: usize = spread.iter().take(idx).map(|&n| n as usize).sum();
    begin..begin + spread.get(idx).map_or(1, |&n| n as usize)
}
