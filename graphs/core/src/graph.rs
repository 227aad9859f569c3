//! A finished graph: flat tables in execution order, ready for the wire and for the scheduler.
//!
//! Tasks are numbered in the order in which they should run: every input of a task has a smaller number than the task. So
//! a stranger's graph is proven acyclic by one comparison an edge, and a task's number is its priority. Edges are CSR
//! (compressed sparse rows), bodies are shared; nothing nests, so nothing can overflow a stack when decoded.

use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use crate::ids::{TaskId, TaskIdx};
use crate::keys::Keys;
use crate::limits::{
    MAX_BODY_STEPS, MAX_EXTERNALS, MAX_FAMILY_NBYTES, MAX_GRAPH_WISHES, MAX_KERNEL_INPUTS, MAX_WIRES_COUNTED, MAX_WISHES,
    name_fault,
};

/// Which piece of a result an input wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Part(pub u32);

impl Part {
    /// The whole result.
    pub const WHOLE: Part = Part(u32::MAX);

    /// Whether this is the whole result.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }
}

/// Where an input comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// A task of the same graph.
    Task(TaskIdx),
    /// All members of a gather group of the same graph, in order.
    Group(u32),
    /// The n-th entry of [`Graph::externals`]: a result of an earlier graph that the client still holds.
    External(u32),
}

/// One input of a task: a source and a part of it, 8 bytes. Two tag bits in the source leave 2^30 tasks a graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Input {
    tagged: u32,
    /// The part wanted; for a group, of every member.
    pub part: Part,
}

const TAG_SHIFT: u32 = 30;
const IDX_MASK: u32 = (1 << TAG_SHIFT) - 1;

impl Input {
    /// `part` of `source`.
    ///
    /// # Panics
    /// When the index needs more than 30 bits.
    #[must_use]
    pub fn new(source: Source, part: Part) -> Self {
        let (tag, idx) = match source {
            Source::Task(idx) => (0, idx.0),
            Source::Group(idx) => (1, idx),
            Source::External(idx) => (2, idx),
        };
        assert!(idx <= IDX_MASK, "a graph holds at most 2^30 tasks");
        Self { tagged: tag << TAG_SHIFT | idx, part }
    }

    /// Where the input comes from. Tag 3 does not exist; it reads as an external that no table holds, which [`Graph::check`] refuses.
    #[must_use]
    pub fn source(self) -> Source {
        let idx = self.tagged & IDX_MASK;
        match self.tagged >> TAG_SHIFT {
            0 => Source::Task(TaskIdx(idx)),
            1 => Source::Group(idx),
            2 => Source::External(idx),
            _ => Source::External(u32::MAX),
        }
    }
}

/// Where an argument of a fused step comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Wire {
    /// The task's n-th input (an input that is a group stands for all its members).
    Input(u32),
    /// The result of an earlier step, or a part of it.
    Step(u32, Part),
}

/// One operator application in a body.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The operator's name.
    pub operator: Arc<str>,
    /// The operator's version.
    pub version: u32,
    /// Its arguments: JSON text, an object.
    pub args: Arc<str>,
    /// Where its inputs come from.
    pub wires: Wires,
}

/// The inputs of a step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Wires {
    /// All inputs of the task, in order: an unfused task.
    All,
    /// These.
    These(Vec<Wire>),
}

/// What a task does: one operator, or several fused ones run one after another. Shared by all tasks that do the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Body {
    /// At least one; the last one's result is the task's result.
    pub steps: Vec<Step>,
}

impl Body {
    /// A body of one operator applied to all inputs of the task.
    #[must_use]
    pub fn single(operator: &str, version: u32, args: &str) -> Self {
        Self { steps: vec![Step { operator: operator.into(), version, args: args.into(), wires: Wires::All }] }
    }

    /// The operators' names, joined: `array.random + array.sum`.
    #[must_use]
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.steps.iter().map(|step| &*step.operator).collect();
        names.join(" + ")
    }
}

/// What is special about a task; most tasks have none of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TaskOptions {
    /// Higher runs earlier, within one client.
    pub priority: i32,
    /// How often a failed run is tried again.
    pub retries: u32,
    /// Abstract resources held while it runs, `("gpu", 1.0)`.
    pub resources: Vec<(String, f64)>,
    /// Names of the workers it may run on; empty means any.
    pub workers: Vec<String>,
    /// Whether other workers will do when none of `workers` is there.
    pub allow_other_workers: bool,
}

/// A validated graph in execution order. Made by [`crate::GraphBuilder::finish`]; a scheduler that receives one calls [`Graph::check`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Graph {
    /// Distinct bodies.
    pub bodies: Vec<Body>,
    /// For each task the index of its body; as long as there are tasks.
    pub body_of: Vec<u32>,
    /// `input_offsets[i] .. input_offsets[i + 1]` are task i's inputs; one longer than there are tasks.
    pub input_offsets: Vec<u32>,
    /// All inputs of all tasks.
    pub inputs: Vec<Input>,
    /// `group_offsets[g] .. group_offsets[g + 1]` are group g's members; one longer than there are groups.
    pub group_offsets: Vec<u32>,
    /// Members of all gather groups.
    pub group_members: Vec<TaskIdx>,
    /// Results of earlier graphs that tasks here use.
    pub externals: Vec<TaskId>,
    /// Names of the tasks.
    pub keys: Keys,
    /// Options of the tasks that have any, by task.
    pub options: Vec<(TaskIdx, TaskOptions)>,
    /// Tasks whose results the client wants, ascending, distinct.
    pub outputs: Vec<TaskIdx>,
}

/// A graph whose tables contradict each other: not made by [`crate::GraphBuilder`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed graph: {0}")]
pub struct MalformedGraph(pub String);

impl Graph {
    /// Number of tasks.
    #[must_use]
    pub fn n_tasks(&self) -> usize {
        self.body_of.len()
    }

    /// Number of gather groups.
    #[must_use]
    pub fn n_groups(&self) -> usize {
        self.group_offsets.len().saturating_sub(1)
    }

    /// The inputs of task `idx`.
    #[must_use]
    pub fn inputs_of(&self, idx: TaskIdx) -> &[Input] {
        &self.inputs[self.input_offsets[idx.index()] as usize..self.input_offsets[idx.index() + 1] as usize]
    }

    /// The members of gather group `group`.
    #[must_use]
    pub fn members_of(&self, group: u32) -> &[TaskIdx] {
        let group = group as usize;
        &self.group_members[self.group_offsets[group] as usize..self.group_offsets[group + 1] as usize]
    }

    /// The body of task `idx`.
    #[must_use]
    pub fn body(&self, idx: TaskIdx) -> &Body {
        &self.bodies[self.body_of[idx.index()] as usize]
    }

    /// The options of task `idx`, if it has any.
    #[must_use]
    pub fn options_of(&self, idx: TaskIdx) -> Option<&TaskOptions> {
        let at = self.options.binary_search_by_key(&idx, |(task, _)| *task).ok()?;
        Some(&self.options[at].1)
    }

    /// The number of kernel inputs of task `idx`: groups count all their members.
    #[must_use]
    pub fn n_kernel_inputs(&self, idx: TaskIdx) -> usize {
        self.inputs_of(idx)
            .iter()
            .map(|input| match input.source() {
                Source::Task(_) | Source::External(_) => 1,
                Source::Group(group) => self.members_of(group).len(),
            })
            .sum()
    }

    /// How many different wishes for resources and workers its tasks have.
    #[must_use]
    pub fn n_wishes(&self) -> usize {
        n_different_wishes(self.options.iter().map(|(_, options)| options))
    }

    /// Check every table against every other, in time linear in their size. After this no accessor can panic, and no task
    /// stands for more values than [`MAX_KERNEL_INPUTS`].
    ///
    /// # Errors
    /// Names the first contradiction.
    pub fn check(&self) -> Result<(), MalformedGraph> {
        let bad = |what: &str| Err(MalformedGraph(what.to_owned()));
        let n_tasks = self.n_tasks();
        if n_tasks > IDX_MASK as usize {
            return bad("more than 2^30 tasks");
        }
        if self.bodies.iter().any(|body| body.steps.is_empty()) {
            return bad("a body without steps");
        }
        let of_body = |body| BodyNeeds::of(body).map_err(|MalformedGraph(fault)| MalformedGraph(format!("a task: {fault}")));
        let bodies = self.bodies.iter().map(of_body).collect::<Result<Vec<_>, _>>()?;
        if self.body_of.iter().any(|&body| body as usize >= self.bodies.len()) {
            return bad("a task names a body that is not there");
        }
        if !is_csr(&self.input_offsets, n_tasks, self.inputs.len()) {
            return bad("input offsets do not fit the inputs");
        }
        let n_groups = self.n_groups();
        if !is_csr(&self.group_offsets, n_groups, self.group_members.len()) {
            return bad("group offsets do not fit the members");
        }
        let mut last_member = vec![0u32; n_groups];
        for (group, last_member) in last_member.iter_mut().enumerate() {
            for member in self.members_of(u32::try_from(group).unwrap_or(u32::MAX)) {
                if member.index() >= n_tasks {
                    return bad("a group names a task that is not there");
                }
                *last_member = (*last_member).max(member.0 + 1);
            }
        }
        if !self.keys.is_valid_for(n_tasks) {
            return bad("names do not fit the tasks");
        }
        let mut wires = WireBudget::default();
        for idx in 0..n_tasks {
            let task = TaskIdx(u32::try_from(idx).unwrap_or(u32::MAX));
            for input in self.inputs_of(task) {
                let in_order = match input.source() {
                    Source::Task(source) => source < task,
                    Source::Group(group) => last_member.get(group as usize).is_some_and(|&last| last <= task.0),
                    Source::External(external) => (external as usize) < self.externals.len(),
                };
                if !in_order {
                    return bad("an input does not precede its task");
                }
            }
            let body = self.body_of[idx] as usize;
            if bodies[body].n_inputs as usize > self.inputs_of(task).len() {
                return bad("a fused step uses an input that is not there");
            }
            let spread = |input: &Input| match input.source() {
                Source::Task(_) | Source::External(_) => 1,
                Source::Group(group) => self.members_of(group).len(),
            };
            if let Some(n_values) = wires.excess(&self.bodies[body], &bodies[body], self.inputs_of(task), spread) {
                let key = self.keys.name(task.0);
                return Err(MalformedGraph(format!("task \"{}\" {}", key.escape_debug(), too_many_values(n_values))));
            }
        }
        if self.externals.len() > MAX_EXTERNALS {
            let n_externals = self.externals.len();
            let message = format!("it uses {n_externals} results of earlier graphs, at most {MAX_EXTERNALS} are possible");
            return Err(MalformedGraph(message));
        }
        if self.keys.longest_family() > MAX_FAMILY_NBYTES {
            return bad("a task's name is too long");
        }
        self.check_options()?;
        let ascending = self.outputs.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.outputs.last().is_some_and(|task| task.index() >= n_tasks) {
            return bad("outputs do not fit the tasks");
        }
        Ok(())
    }

    fn check_options(&self) -> Result<(), MalformedGraph> {
        let ascending = self.options.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending || self.options.last().is_some_and(|(task, _)| task.index() >= self.n_tasks()) {
            return Err(MalformedGraph("options do not fit the tasks".to_owned()));
        }
        if let Some((task, fault)) = self.options.iter().find_map(|(task, options)| Some((task, options.fault()?))) {
            return Err(MalformedGraph(format!("task \"{}\": {fault}", self.keys.name(task.0).escape_debug())));
        }
        match too_many_wishes(self.options.iter().map(|(_, options)| options)) {
            Some(fault) => Err(MalformedGraph(fault)),
            None => Ok(()),
        }
    }
}

impl TaskOptions {
    /// What is wrong with what a task asks for, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        for (what, count) in [("resources", self.resources.len()), ("workers", self.workers.len())] {
            if count > MAX_WISHES {
                return Some(format!("it names {count} {what}, at most {MAX_WISHES} are possible"));
            }
        }
        for (name, amount) in &self.resources {
            if let Some(fault) = name_fault(name) {
                return Some(format!("the name of a resource {fault}"));
            }
            if !amount.is_finite() || *amount < 0.0 {
                return Some(format!("the amount of resource \"{name}\" is negative or not a number"));
            }
        }
        let fault = self.workers.iter().find_map(|name| name_fault(name))?;
        Some(format!("the name of a worker {fault}"))
    }
}

/// What is wrong with the wishes of all tasks together, if anything is: more are different than [`MAX_GRAPH_WISHES`].
pub(crate) fn too_many_wishes<'a>(options: impl Iterator<Item = &'a TaskOptions>) -> Option<String> {
    (n_different_wishes(options) > MAX_GRAPH_WISHES).then(|| {
        format!(
            "its tasks have too many different wishes for resources and workers: more than {MAX_GRAPH_WISHES}, which is the most"
        )
    })
}

/// How many different wishes there are; as soon as they are too many, that is enough.
fn n_different_wishes<'a>(options: impl Iterator<Item = &'a TaskOptions>) -> usize {
    type Wish<'a> = (Vec<(&'a str, u64)>, &'a [String], bool);
    let mut different: HashSet<Wish<'_>, FxBuildHasher> = HashSet::default();
    for options in options.filter(|options| !options.resources.is_empty() || !options.workers.is_empty()) {
        let resources = options.resources.iter().map(|(name, amount)| (name.as_str(), amount.to_bits()));
        different.insert((resources.collect(), &options.workers[..], options.allow_other_workers));
        if different.len() > MAX_GRAPH_WISHES {
            break;
        }
    }
    different.len()
}

/// What a body takes, looked at once and not once a task.
pub(crate) struct BodyNeeds {
    /// One more than the highest input that it names.
    pub(crate) n_inputs: u32,
    /// Most inputs that one of its steps names.
    max_wires: usize,
}

impl BodyNeeds {
    pub(crate) fn of(body: &Body) -> Result<Self, MalformedGraph> {
        let bad = |what: &str| Err(MalformedGraph(what.to_owned()));
        if body.steps.is_empty() {
            return bad("its body has no steps");
        }
        if body.steps.len() > MAX_BODY_STEPS {
            let n_steps = body.steps.len();
            return Err(MalformedGraph(format!("its body has {n_steps} steps, at most {MAX_BODY_STEPS} are possible")));
        }
        let mut needs = Self { n_inputs: 0, max_wires: 0 };
        for (idx, step) in body.steps.iter().enumerate() {
            let Wires::These(wires) = &step.wires else { continue };
            needs.max_wires = needs.max_wires.max(wires.len());
            for wire in wires {
                match wire {
                    Wire::Step(earlier, _) if *earlier as usize >= idx => {
                        return Err(MalformedGraph(format!("step {idx} of its body uses itself or a later step")));
                    }
                    Wire::Step(..) => {}
                    Wire::Input(input) => needs.n_inputs = needs.n_inputs.max(input.saturating_add(1)),
                }
            }
        }
        Ok(needs)
    }
}

/// Counts the values that tasks and their steps take, without looking at all steps of all tasks.
#[derive(Default)]
pub(crate) struct WireBudget {
    n_counted: usize,
}

impl WireBudget {
    /// How many values the task or one of its steps takes, when that is more than [`MAX_KERNEL_INPUTS`]. `spread` tells how many an
    /// input stands for.
    pub(crate) fn excess(
        &mut self,
        body: &Body,
        needs: &BodyNeeds,
        inputs: &[Input],
        spread: impl Fn(&Input) -> usize,
    ) -> Option<usize> {
        let (mut n_values, mut largest) = (0usize, 1);
        for input in inputs {
            let n_members = spread(input);
            n_values = n_values.saturating_add(n_members);
            largest = largest.max(n_members);
        }
        if n_values > MAX_KERNEL_INPUTS {
            return Some(n_values);
        }
        if needs.max_wires.saturating_mul(largest) <= MAX_KERNEL_INPUTS {
            return None;
        }
        // Its steps may name one input many times.
        for step in &body.steps {
            let Wires::These(wires) = &step.wires else { continue };
            self.n_counted = self.n_counted.saturating_add(wires.len());
            if self.n_counted > MAX_WIRES_COUNTED {
                return Some(needs.max_wires.saturating_mul(largest));
            }
            let values = wires.iter().map(|wire| match wire {
                Wire::Step(..) => 1,
                Wire::Input(input) => inputs.get(*input as usize).map_or(0, &spread),
            });
            let n_values = values.fold(0usize, usize::saturating_add);
            if n_values > MAX_KERNEL_INPUTS {
                return Some(n_values);
            }
        }
        None
    }
}

/// What is wrong with a task, or a step, that takes `n_values` values.
pub(crate) fn too_many_values(n_values: usize) -> String {
    format!(
        "takes {n_values} values, the members of groups counted one by one; at most {MAX_KERNEL_INPUTS} are possible: gather \
         them in several steps"
    )
}

fn is_csr(offsets: &[u32], n_rows: usize, n_values: usize) -> bool {
    offsets.len() == n_rows + 1
        && offsets.first() == Some(&0)
        && offsets.last().is_some_and(|&last| last as usize == n_values)
        && offsets.windows(2).all(|pair| pair[0] <= pair[1])
}
