//! What is true: the value of every task, computed one after another, and what each task will do when it runs.
//!
//! A value is a hash of operator, arguments and input values, so a wrong, missing, swapped or outdated input anywhere
//! upstream shows in the answer. A part is a hash of the value and its number.

use rask_comm::message::Spread;
use rask_graphs::{Body, Graph, Part, Source, TaskId, TaskIdx};

use super::entropy::mix;

/// How a task behaves when it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Gives its value.
    Sound,
    /// Fails this many times, then gives its value.
    FailsFirst(u32),
    /// Fails whenever it runs.
    FailsAlways,
    /// Panics whenever it runs.
    Panics,
    /// Kills its worker whenever it runs, before it ends.
    KillsWorker,
    /// Kills its worker as soon as that has to fetch an input for it, or to wait for one; and otherwise before it ends.
    KillsFetching,
}

/// What is drawn for a task besides its place in the graph.
#[derive(Clone, Copy, Debug)]
pub struct TaskPlan {
    /// How long it takes, in microseconds.
    pub duration_us: u64,
    /// Size of its result in bytes.
    pub nbytes: u64,
    /// Addressable parts of its result.
    pub n_parts: u32,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// A result of an earlier job of the same client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ExternalResult {
    /// The job.
    pub job: usize,
    /// The task in that job's graph.
    pub idx: TaskIdx,
}

/// A graph with everything known about it beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph; its externals are filled in when it is submitted.
    pub graph: Graph,
    /// What each task does.
    pub tasks: Vec<TaskPlan>,
    /// The value of each task.
    pub truth: Vec<u64>,
    /// Whether each task is needed for an output.
    pub is_needed: Vec<bool>,
    /// Whether each task fails, or depends on one that does, in whatever order things happen.
    pub is_doomed: Vec<bool>,
    /// Where the graph's externals come from.
    pub externals: Vec<ExternalResult>,
    /// For values that the client uploads: where they go.
    pub spread: Option<Spread>,
}

/// The value of a task with this body and these input values.
#[must_use]
pub fn value_of(body: &Body, inputs: &[u64]) -> u64 {
    let mut hash = 0x5261_736b;
    for step in &body.steps {
        for byte in step.operator.bytes().chain(step.args.bytes()) {
            hash = mix(hash ^ u64::from(byte)).wrapping_add(1);
        }
    }
    inputs.iter().fold(hash, |hash, input| mix(hash.wrapping_mul(3) ^ input))
}

/// Part `part` of a result whose value is `value`.
#[must_use]
pub fn part_of(value: u64, part: Part) -> u64 {
    if part.is_whole() { value } else { mix(value ^ mix(u64::from(part.0) + 1)) }
}

/// One kernel input of a task: which result, and which part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelInput {
    /// Of the same graph.
    Own(TaskIdx, Part),
    /// The n-th external.
    External(u32, Part),
}

/// The kernel inputs of `idx`, groups spread out, in order.
#[must_use]
pub fn kernel_inputs(graph: &Graph, idx: TaskIdx) -> Vec<KernelInput> {
    let mut kernel_inputs = Vec::new();
    for input in graph.inputs_of(idx) {
        match input.source() {
            Source::Task(source) => kernel_inputs.push(KernelInput::Own(source, input.part)),
            Source::Group(group) => {
                kernel_inputs.extend(graph.members_of(group).iter().map(|member| KernelInput::Own(*member, input.part)));
            }
            Source::External(external) => kernel_inputs.push(KernelInput::External(external, input.part)),
        }
    }
    kernel_inputs
}

impl Plan {
    /// Work out what is true of `graph`. `earlier` are the client's jobs before this one.
    #[must_use]
    pub fn new(
        graph: Graph,
        tasks: Vec<TaskPlan>,
        externals: Vec<ExternalResult>,
        allowed_retries: &[u32],
        earlier: &[&Plan],
    ) -> Self {
        let n_tasks = graph.n_tasks();
        let (mut truth, mut is_doomed) = (Vec::with_capacity(n_tasks), Vec::with_capacity(n_tasks));
        for idx in (0..n_tasks as u32).map(TaskIdx) {
            let mut values = Vec::new();
            let mut doomed = match tasks[idx.index()].behaviour {
                Behaviour::Sound | Behaviour::KillsWorker | Behaviour::KillsFetching => false,
                Behaviour::FailsFirst(n_failures) => n_failures > allowed_retries[idx.index()],
                Behaviour::FailsAlways | Behaviour::Panics => true,
            };
            for input in kernel_inputs(&graph, idx) {
                let (value, part, is_source_doomed) = match input {
                    KernelInput::Own(source, part) => (truth[source.index()], part, is_doomed[source.index()]),
                    KernelInput::External(external, part) => {
                        let source = externals[external as usize];
                        let plan = earlier[source.job];
                        (plan.truth[source.idx.index()], part, plan.is_doomed[source.idx.index()])
                    }
                };
                values.push(part_of(value, part));
                doomed |= is_source_doomed;
            }
            truth.push(value_of(graph.body(idx), &values));
            is_doomed.push(doomed);
        }
        let mut is_needed = vec![false; n_tasks];
        graph.outputs.iter().for_each(|output| is_needed[output.index()] = true);
        for idx in (0..n_tasks as u32).rev().map(TaskIdx) {
            if !is_needed[idx.index()] {
                continue;
            }
            for input in kernel_inputs(&graph, idx) {
                if let KernelInput::Own(source, _) = input {
                    is_needed[source.index()] = true;
                }
            }
        }
        Self { graph, tasks, truth, is_needed, is_doomed, externals, spread: None }
    }

    /// How often task `idx` may fail before it has failed for good.
    #[must_use]
    pub fn retries(&self, idx: TaskIdx) -> u32 {
        self.graph.options_of(idx).map_or(0, |options| options.retries)
    }
}

/// A result's name in the messages of the log: `g1.t2 a3`.
#[must_use]
pub fn name_of(task: TaskId, attempt: rask_graphs::Attempt) -> String {
    format!("{task} {attempt}")
}
