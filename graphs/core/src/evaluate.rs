//! Running bodies, and whole graphs one task after another.
//!
//! [`PreparedBody`] is what a worker keeps of a body: kernels found and arguments parsed, so that a run costs no lookup.
//! [`evaluate`] is the plain sequential evaluator that tests compare everything else with: no cluster, no concurrency, nothing
//! clever. Neither knows where inputs come from or where results go.

use std::sync::Arc;

use crate::graph::{Body, Graph, Input, Part, Source, Wire, Wires};
use crate::ids::TaskIdx;
use crate::links::{Links, as_node};
use crate::operator::{Arity, Kernel, KernelError, PrepareError, Registry, TaskContext};
use crate::value::Value;

/// A body made ready to run. Shared by all tasks with that body, on any thread.
pub struct PreparedBody {
    steps: Vec<PreparedStep>,
}

struct PreparedStep {
    operator: Arc<str>,
    kernel: Arc<dyn Kernel>,
    arity: Arity,
    wires: Wires,
    /// Earlier steps whose results no step after this one uses.
    releases: Vec<usize>,
}

/// Find the operators of `body` and parse their arguments.
///
/// # Errors
/// When an operator is unknown, has another version or refuses its arguments, or a step is wired to itself or a later one.
pub fn prepare(body: &Body, registry: &Registry) -> Result<PreparedBody, PrepareError> {
    let mut steps = Vec::with_capacity(body.steps.len());
    for (idx, step) in body.steps.iter().enumerate() {
        let refuse = |reason: &str| PrepareError::Arguments { operator: step.operator.to_string(), reason: reason.to_owned() };
        if let Wires::These(wires) = &step.wires
            && wires.iter().any(|wire| matches!(wire, Wire::Step(earlier, _) if *earlier as usize >= idx))
        {
            return Err(refuse("the step uses itself or a later one"));
        }
        let kernel = registry.prepare(&step.operator, step.version, &step.args)?;
        let spec = registry.spec(&step.operator).ok_or_else(|| PrepareError::UnknownOperator(step.operator.to_string()))?;
        let operator = Arc::clone(&step.operator);
        steps.push(PreparedStep { operator, kernel, arity: spec.inputs, wires: step.wires.clone(), releases: Vec::new() });
    }
    let mut is_used_later = vec![false; steps.len()];
    for idx in (0..steps.len()).rev() {
        let Wires::These(wires) = &steps[idx].wires else { continue };
        let mut releases = Vec::new();
        for wire in wires {
            if let Wire::Step(earlier, _) = wire
                && !std::mem::replace(&mut is_used_later[*earlier as usize], true)
            {
                releases.push(*earlier as usize);
            }
        }
        steps[idx].releases = releases;
    }
    Ok(PreparedBody { steps })
}

impl PreparedBody {
    /// Number of steps.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        self.steps.len()
    }

    /// The name of the operator of step `step`; empty past the end.
    #[must_use]
    pub fn operator(&self, step: usize) -> &str {
        self.steps.get(step).map_or("", |step| &step.operator)
    }

    /// Run the steps one after another and return the last one's result. `inputs` are in kernel order, groups spread out and
    /// parts taken; `spread[i]` tells how many of them the task's i-th input stands for, empty when each stands for one.
    ///
    /// # Errors
    /// The step that failed, counted from 0, and why: its kernel's error, or a number of inputs that it does not take.
    pub fn run(&self, ctx: &TaskContext, inputs: &[Value], spread: &[u32]) -> Result<Value, (usize, KernelError)> {
        if let [only] = self.steps.as_slice()
            && only.wires == Wires::All
        {
            return only.run(ctx, inputs).map_err(|error| (0, error));
        }
        let offsets = offsets_of(spread);
        let mut results: Vec<Option<Value>> = Vec::with_capacity(self.steps.len());
        let mut own_inputs: Vec<Value> = Vec::new();
        for (idx, step) in self.steps.iter().enumerate() {
            let fail = |error| (idx, error);
            ctx.check_cancelled().map_err(fail)?;
            let result = match &step.wires {
                Wires::All => step.run(ctx, inputs),
                Wires::These(wires) => {
                    own_inputs.clear();
                    for wire in wires {
                        gather(*wire, inputs, offsets.as_deref(), &results, &mut own_inputs).map_err(fail)?;
                    }
                    // A chain's intermediate result must not be held by this table while the kernel runs: a kernel that finds
                    // itself the only owner of an input may reuse its memory.
                    for &released in &step.releases {
                        results[released] = None;
                    }
                    step.run(ctx, &own_inputs)
                }
            };
            results.push(Some(result.map_err(fail)?));
        }
        let last = self.steps.len().saturating_sub(1);
        results.pop().flatten().ok_or_else(|| (last, KernelError("the body has no steps".to_owned())))
    }
}

impl PreparedStep {
    fn run(&self, ctx: &TaskContext, inputs: &[Value]) -> Result<Value, KernelError> {
        if !self.arity.accepts(inputs.len()) {
            return Err(KernelError(format!("takes {} inputs, got {}", self.arity, inputs.len())));
        }
        self.kernel.run(ctx, inputs)
    }
}

/// Where each declared input begins among the kernel inputs; `None` when each is exactly one.
fn offsets_of(spread: &[u32]) -> Option<Vec<usize>> {
    if spread.is_empty() {
        return None;
    }
    let mut offsets = Vec::with_capacity(spread.len() + 1);
    let mut end = 0;
    offsets.push(end);
    for &n_kernel_inputs in spread {
        end += n_kernel_inputs as usize;
        offsets.push(end);
    }
    Some(offsets)
}

/// Put what `wire` stands for behind `into`.
fn gather(
    wire: Wire,
    inputs: &[Value],
    offsets: Option<&[usize]>,
    results: &[Option<Value>],
    into: &mut Vec<Value>,
) -> Result<(), KernelError> {
    match wire {
        Wire::Input(input) => {
            let input = input as usize;
            let range = match offsets {
                None => Some(input..input + 1),
                Some(offsets) => offsets.get(input).zip(offsets.get(input + 1)).map(|(&from, &to)| from..to),
            };
            let values = range.and_then(|range| inputs.get(range));
            into.extend_from_slice(values.ok_or_else(|| KernelError(format!("input {input} was not given")))?);
        }
        Wire::Step(step, part) => {
            let result = results.get(step as usize).and_then(Option::as_ref);
            let result = result.ok_or_else(|| KernelError(format!("the result of step {step} is not there")))?;
            into.push(part_of(result, part)?);
        }
    }
    Ok(())
}

fn part_of(result: &Value, part: Part) -> Result<Value, KernelError> {
    if part.is_whole() {
        return Ok(result.clone());
    }
    let missing = || KernelError(format!("there is no part {}: a {} with {} parts", part.0, result.kind(), result.n_parts()));
    result.part(part.0).ok_or_else(missing)
}

/// A graph that [`evaluate`] could not evaluate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// An operator could not be prepared.
    #[error("task \"{key}\": {error}")]
    Prepare {
        /// The task's name.
        key: String,
        /// What the registry says.
        error: PrepareError,
    },
    /// A task needs a result of an earlier graph, which only a cluster has.
    #[error("task \"{key}\" needs a result of an earlier graph")]
    External {
        /// The task's name.
        key: String,
    },
    /// An output was asked for that is no task of the graph.
    #[error("there is no task {0}")]
    NoSuchTask(TaskIdx),
    /// A kernel failed, or an input has not the part that is asked for.
    #[error("task \"{key}\": {operator}: {message}")]
    Failed {
        /// The task's name.
        key: String,
        /// The operator that failed.
        operator: String,
        /// Why.
        message: String,
    },
}

/// Compute `outputs` one task after another, in the graph's order, on this thread. Only what they need is computed, and each
/// result is dropped after its last use. The graph must have passed [`Graph::check`].
///
/// # Errors
/// The first task that fails ends it all.
pub fn evaluate(graph: &Graph, registry: &Registry, outputs: &[TaskIdx]) -> Result<Vec<Value>, EvaluateError> {
    if let Some(&unknown) = outputs.iter().find(|output| output.index() >= graph.n_tasks()) {
        return Err(EvaluateError::NoSuchTask(unknown));
    }
    let links = Links::of_graph(graph);
    let last_use = last_uses(graph, &links, outputs);
    let mut released_by: Vec<Vec<u32>> = vec![Vec::new(); graph.n_tasks()];
    for (task, &last) in last_use.iter().enumerate() {
        if let Some(slot) = released_by.get_mut(last as usize) {
            slot.push(as_node(task));
        }
    }
    let mut bodies: Vec<Option<PreparedBody>> = (0..graph.bodies.len()).map(|_| None).collect();
    let mut results: Vec<Option<Value>> = vec![None; graph.n_tasks()];
    for idx in (0..graph.n_tasks()).filter(|&idx| last_use[idx] != UNNEEDED) {
        let task = TaskIdx(as_node(idx));
        let slot = &mut bodies[graph.body_of[idx] as usize];
        let body = match slot {
            Some(body) => body,
            None => {
                let prepared = prepare(graph.body(task), registry);
                slot.insert(prepared.map_err(|error| EvaluateError::Prepare { key: graph.keys.name(task.0), error })?)
            }
        };
        results[idx] = Some(run_task(graph, task, body, &results)?);
        for &released in &released_by[idx] {
            results[released as usize] = None;
        }
    }
    let missing = |output: &TaskIdx| EvaluateError::NoSuchTask(*output);
    outputs.iter().map(|output| results[output.index()].clone().ok_or_else(|| missing(output))).collect()
}

const UNNEEDED: u32 = u32::MAX;
const FOREVER: u32 = u32::MAX - 1;

/// For each task the task after which its result can go, [`FOREVER`] for outputs, [`UNNEEDED`] for what no output needs.
fn last_uses(graph: &Graph, links: &Links, outputs: &[TaskIdx]) -> Vec<u32> {
    let mut last_use = vec![UNNEEDED; links.n_nodes()];
    for output in outputs {
        last_use[output.index()] = FOREVER;
    }
    // From the back, so that a task's users have been decided on before it, and the first user met is the last to run.
    for task in (0..as_node(graph.n_tasks())).rev() {
        if last_use[task as usize] == UNNEEDED {
            continue;
        }
        for &producer in links.producers_of(task) {
            let is_first_sight = last_use[producer as usize] == UNNEEDED;
            if is_first_sight {
                last_use[producer as usize] = task;
            }
            if is_first_sight && links.is_group(producer) {
                for &member in links.producers_of(producer) {
                    if last_use[member as usize] == UNNEEDED {
                        last_use[member as usize] = task;
                    }
                }
            }
        }
    }
    last_use.truncate(graph.n_tasks());
    last_use
}

fn run_task(graph: &Graph, task: TaskIdx, body: &PreparedBody, results: &[Option<Value>]) -> Result<Value, EvaluateError> {
    let key = graph.keys.name(task.0);
    let failed = |(step, error): (usize, KernelError)| EvaluateError::Failed {
        key: key.clone(),
        operator: body.operator(step).to_owned(),
        message: error.0,
    };
    let mut inputs: Vec<Value> = Vec::with_capacity(graph.n_kernel_inputs(task));
    let mut spread: Vec<u32> = Vec::with_capacity(graph.inputs_of(task).len());
    for input in graph.inputs_of(task) {
        let before = inputs.len();
        collect(graph, *input, results, &mut inputs).map_err(|error| match error {
            Some(error) => failed((0, error)),
            None => EvaluateError::External { key: key.clone() },
        })?;
        spread.push(as_node(inputs.len() - before));
    }
    body.run(&TaskContext::detached(&key), &inputs, &spread).map_err(failed)
}

/// Put the values of `input` behind `into`; fails with `None` when they are not in this graph.
fn collect(graph: &Graph, input: Input, results: &[Option<Value>], into: &mut Vec<Value>) -> Result<(), Option<KernelError>> {
    let mut take = |producer: TaskIdx| {
        let result = results[producer.index()].as_ref();
        let result = result.ok_or_else(|| Some(KernelError("an input was released too early".to_owned())))?;
        into.push(part_of(result, input.part).map_err(Some)?);
        Ok(())
    };
    match input.source() {
        Source::Task(producer) => take(producer),
        Source::Group(group) => graph.members_of(group).iter().try_for_each(|&member| take(member)),
        Source::External(_) => Err(None),
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
