//! Building graphs: tasks in any order, collected into tables.
//!
//! Nothing is checked here; `finish.rs` runs the passes that turn a builder into a [`crate::Graph`].

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::graph::{Body, Input, Part, Source, TaskOptions};
use crate::ids::{TaskId, TaskIdx};
use crate::keys::{KeyRef, KeysBuilder};
use crate::rows::InputRows;

/// A graph under construction. Task numbers here are those of the builder; [`GraphBuilder::finish`] renumbers.
#[derive(Default)]
pub struct GraphBuilder {
    pub(crate) bodies: Vec<Body>,
    body_ids: HashMap<Body, u32, FxBuildHasher>,
    pub(crate) body_of: Vec<u32>,
    pub(crate) inputs: InputRows,
    pub(crate) keys: KeysBuilder,
    pub(crate) key_of: Vec<KeyRef>,
    pub(crate) groups: Vec<Vec<TaskIdx>>,
    pub(crate) externals: Vec<TaskId>,
    pub(crate) options: HashMap<TaskIdx, TaskOptions, FxBuildHasher>,
    pub(crate) outputs: Vec<TaskIdx>,
}

pub(crate) type InputList = smallvec::SmallVec<[Input; 2]>;

/// One task being described; [`TaskBuilder::add`] puts it into the graph.
pub struct TaskBuilder<'a> {
    graph: &'a mut GraphBuilder,
    key: KeyRef,
    body: u32,
    inputs: InputList,
    options: Option<TaskOptions>,
}

impl GraphBuilder {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of tasks so far.
    #[must_use]
    pub fn n_tasks(&self) -> usize {
        self.body_of.len()
    }

    /// Share `body` with every equal one. Use the index with [`GraphBuilder::task_with`] when many tasks do the same.
    pub fn body(&mut self, body: Body) -> u32 {
        if let Some(&id) = self.body_ids.get(&body) {
            return id;
        }
        let id = u32::try_from(self.bodies.len()).unwrap_or(u32::MAX);
        self.bodies.push(body.clone());
        self.body_ids.insert(body, id);
        id
    }

    /// The index of the family of names `name`, for [`GraphBuilder::task_with`].
    pub fn family(&mut self, name: &str) -> u32 {
        self.keys.family(name)
    }

    /// Begin a task called `key` that applies `operator` to its inputs with `args` (JSON text, an object).
    pub fn task(&mut self, key: &str, operator: &str, version: u32, args: &str) -> TaskBuilder<'_> {
        let family = self.keys.family(key);
        let body = self.body(Body::single(operator, version, args));
        self.task_with(KeyRef { family, member: None }, body)
    }

    /// Begin a task called `family-member` with a shared body: the quick way to many like tasks.
    pub fn task_with(&mut self, key: KeyRef, body: u32) -> TaskBuilder<'_> {
        TaskBuilder { graph: self, key, body, inputs: InputList::new(), options: None }
    }

    /// Replace the inputs of a task that is already there. The only way to name a task before it exists, and so to make a cycle.
    pub fn set_inputs(&mut self, task: TaskIdx, inputs: impl IntoIterator<Item = Input>) {
        let inputs: InputList = inputs.into_iter().collect();
        self.inputs.set(task.index(), &inputs);
    }

    /// A gather group: consumers fetch one part of every member, through one node instead of an edge a member.
    pub fn group(&mut self, members: Vec<TaskIdx>) -> u32 {
        let id = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        self.groups.push(members);
        id
    }

    /// A result of an earlier graph as a source.
    pub fn external(&mut self, result: TaskId) -> u32 {
        let id = u32::try_from(self.externals.len()).unwrap_or(u32::MAX);
        self.externals.push(result);
        id
    }

    /// Ask for the result of `task`.
    pub fn output(&mut self, task: TaskIdx) {
        self.outputs.push(task);
    }

    /// The name of `task`.
    #[must_use]
    pub fn key_name(&self, task: TaskIdx) -> String {
        self.key_of.get(task.index()).map_or_else(String::new, |&key| self.keys.name_of(key))
    }
}

impl TaskBuilder<'_> {
    /// The whole result of `task` as the next input.
    #[must_use]
    pub fn input(self, task: TaskIdx) -> Self {
        self.input_from(Source::Task(task), Part::WHOLE)
    }

    /// Part `part` of the result of `task` as the next input.
    #[must_use]
    pub fn input_part(self, task: TaskIdx, part: u32) -> Self {
        self.input_from(Source::Task(task), Part(part))
    }

    /// Part `part` of every member of gather group `group` as the next inputs.
    #[must_use]
    pub fn input_group(self, group: u32, part: Part) -> Self {
        self.input_from(Source::Group(group), part)
    }

    /// Any source as the next input.
    #[must_use]
    pub fn input_from(mut self, source: Source, part: Part) -> Self {
        self.inputs.push(Input::new(source, part));
        self
    }

    /// The whole results of `tasks` as the next inputs.
    #[must_use]
    pub fn inputs(mut self, tasks: impl IntoIterator<Item = TaskIdx>) -> Self {
        self.inputs.extend(tasks.into_iter().map(|task| Input::new(Source::Task(task), Part::WHOLE)));
        self
    }

    /// Priority, retries, resources, workers.
    #[must_use]
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Put the task into the graph.
    pub fn add(self) -> TaskIdx {
        let idx = TaskIdx(u32::try_from(self.graph.body_of.len()).unwrap_or(u32::MAX));
        self.graph.body_of.push(self.body);
        self.graph.inputs.push(&self.inputs);
        self.graph.key_of.push(self.key);
        if let Some(options) = self.options {
            self.graph.options.insert(idx, options);
        }
        idx
    }
}
