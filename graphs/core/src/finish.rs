//! From a builder to a finished graph: check, cull, fuse, order, and write the flat tables.
//!
//! Each pass has a file of its own and works on a [`Draft`]: the builder's tables plus marks. Nothing is moved until the end,
//! when live tasks are renumbered in execution order.

use std::cmp::Reverse;

use crate::builder::GraphBuilder;
use crate::graph::{Graph, Input, Source, TaskOptions};
use crate::ids::TaskIdx;
use crate::keys::KeysBuilder;
use crate::links::{Links, as_node};
use crate::validate::{BuildError, validate};
use crate::{cull, fuse, order};

/// Which passes [`GraphBuilder::finish`] runs. Checks always run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishOptions {
    /// Drop tasks that no output needs.
    pub cull: bool,
    /// Turn chains of tasks into single tasks of several steps.
    pub fuse: bool,
    /// Order so that results live shortly and priorities come first; otherwise the order of adding, as far as inputs allow.
    pub order: bool,
}

impl Default for FinishOptions {
    fn default() -> Self {
        Self { cull: true, fuse: true, order: true }
    }
}

/// A finished graph, and where the builder's tasks are in it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The graph.
    pub graph: Graph,
    /// For each task of the builder its index in the graph; `None` when it was dropped, or fused into the task that used it.
    pub renumbering: Vec<Option<TaskIdx>>,
}

/// A checked builder on its way to a graph.
pub(crate) struct Draft {
    /// The tables; passes may replace bodies and inputs.
    pub(crate) graph: GraphBuilder,
    /// By task: neither dropped nor fused away.
    pub(crate) is_alive: Vec<bool>,
    /// By task: the client wants its result.
    pub(crate) is_output: Vec<bool>,
    /// All tasks, producers before users.
    pub(crate) topological: Vec<u32>,
}

impl GraphBuilder {
    /// Check the graph, run the passes that `options` names, and lay the result out flat in execution order. When no output was
    /// declared, every task whose result no other task uses is one.
    ///
    /// Operators are not looked up; see [`GraphBuilder::check_operators`].
    ///
    /// # Errors
    /// When the graph contradicts itself: see [`BuildError`].
    pub fn finish(self, options: &FinishOptions) -> Result<Finished, BuildError> {
        let topological = validate(&self)?;
        let is_output = self.output_marks();
        let mut draft = Draft { is_alive: vec![true; self.n_tasks()], is_output, topological, graph: self };
        // Without declared outputs everything leads to one.
        if options.cull && !draft.graph.outputs.is_empty() {
            cull::cull(&mut draft);
        }
        let sequence = if draft.graph.inputs.n_values() == 0 {
            draft.sequence_of_independent(options.order)
        } else {
            draft.fuse_and_order(options)
        };
        Ok(draft.assemble(&sequence))
    }

    fn output_marks(&self) -> Vec<bool> {
        let mut marks = vec![self.outputs.is_empty(); self.n_tasks()];
        for output in &self.outputs {
            marks[output.index()] = true;
        }
        if self.outputs.is_empty() {
            let mut is_group_used = vec![false; self.groups.len()];
            for input in self.inputs.iter().flatten() {
                match input.source() {
                    Source::Task(producer) => marks[producer.index()] = false,
                    Source::Group(group) => is_group_used[group as usize] = true,
                    Source::External(_) => {}
                }
            }
            for (members, _) in self.groups.iter().zip(is_group_used).filter(|(_, is_used)| *is_used) {
                for member in members {
                    marks[member.index()] = false;
                }
            }
        }
        marks
    }
}

impl Draft {
    fn fuse_and_order(&mut self, options: &FinishOptions) -> Vec<u32> {
        let mut links = self.links();
        if options.fuse && fuse::fuse(self, &links) {
            links = self.links();
        }
        if options.order {
            order::order(&links, &self.is_alive, &self.is_output, &self.priorities())
        } else {
            self.live_in_topological_order()
        }
    }

    /// Without inputs there is nothing to fuse, and only priorities to order by.
    fn sequence_of_independent(&self, by_priority: bool) -> Vec<u32> {
        let mut sequence = self.live_in_topological_order();
        let priorities = self.priorities();
        if by_priority && !priorities.is_empty() {
            sequence.sort_by_key(|&task| Reverse(priorities[task as usize]));
        }
        sequence
    }

    fn live_in_topological_order(&self) -> Vec<u32> {
        self.topological.iter().copied().filter(|&task| self.is_alive[task as usize]).collect()
    }

    /// The edges between live tasks.
    pub(crate) fn links(&self) -> Links {
        let nothing: &[Input] = &[];
        Links::new(
            self.graph.n_tasks(),
            self.graph.groups.len(),
            |task| if self.is_alive[task] { &self.graph.inputs[task] } else { nothing },
            |group| &self.graph.groups[group],
        )
    }

    /// The options of a task, when they are not the plain ones.
    pub(crate) fn options_of(&self, task: u32) -> Option<&TaskOptions> {
        if self.graph.options.is_empty() {
            return None;
        }
        self.graph.options.get(&TaskIdx(task)).filter(|options| **options != TaskOptions::default())
    }

    /// By task its user priority; empty when nobody set one.
    fn priorities(&self) -> Vec<i32> {
        let mut priorities = Vec::new();
        for (task, options) in
            self.graph.options.iter().filter(|(task, options)| options.priority != 0 && self.is_alive[task.index()])
        {
            priorities.resize(self.graph.n_tasks(), 0);
            priorities[task.index()] = options.priority;
        }
        priorities
    }

    /// Write the tables, tasks in the order of `sequence` (all live tasks, producers before users).
    fn assemble(self, sequence: &[u32]) -> Finished {
        let mut renumbering: Vec<Option<TaskIdx>> = vec![None; self.graph.n_tasks()];
        for (new, &old) in sequence.iter().enumerate() {
            renumbering[old as usize] = Some(TaskIdx(as_node(new)));
        }
        let mut bodies = Compacted::new(self.graph.bodies.len());
        let mut groups = Compacted::new(self.graph.groups.len());
        let mut externals = Compacted::new(self.graph.externals.len());
        let mut body_of = Vec::with_capacity(sequence.len());
        let mut input_offsets = Vec::with_capacity(sequence.len() + 1);
        let mut inputs = Vec::with_capacity(sequence.iter().map(|&task| self.graph.inputs[task as usize].len()).sum());
        let mut keys: KeysBuilder = self.graph.keys.clone();
        input_offsets.push(0);
        for &old in sequence {
            let old = old as usize;
            body_of.push(bodies.number(self.graph.body_of[old]));
            keys.push(self.graph.key_of[old]);
            for input in &self.graph.inputs[old] {
                let source = match input.source() {
                    Source::Task(producer) => Source::Task(renumbered(&renumbering, producer)),
                    Source::Group(group) => Source::Group(groups.number(group)),
                    Source::External(external) => Source::External(externals.number(external)),
                };
                inputs.push(Input::new(source, input.part));
            }
            input_offsets.push(as_node(inputs.len()));
        }
        let mut group_offsets = vec![0];
        let mut group_members = Vec::new();
        for &group in &groups.kept {
            let members = self.graph.groups[group as usize].iter();
            group_members.extend(members.map(|&member| renumbered(&renumbering, member)));
            group_offsets.push(as_node(group_members.len()));
        }
        let mut options: Vec<(TaskIdx, TaskOptions)> = Vec::new();
        let mut old_options = self.graph.options;
        for (old, task_options) in old_options.drain() {
            options.extend(renumbering[old.index()].map(|new| (new, task_options)));
        }
        options.sort_unstable_by_key(|(task, _)| *task);
        let outputs = sequence.iter().enumerate().filter(|(_, old)| self.is_output[**old as usize]);
        let outputs = outputs.map(|(new, _)| TaskIdx(as_node(new))).collect();
        let old_bodies = self.graph.bodies;
        let graph = Graph {
            bodies: bodies.kept.iter().map(|&body| old_bodies[body as usize].clone()).collect(),
            body_of,
            input_offsets,
            inputs,
            group_offsets,
            group_members,
            externals: externals.kept.iter().map(|&external| self.graph.externals[external as usize]).collect(),
            keys: keys.finish(),
            options,
            outputs,
        };
        debug_assert_eq!(graph.check(), Ok(()));
        Finished { graph, renumbering }
    }
}

/// Producers of live tasks are alive: culling keeps what is needed, fusing rewires what it swallows.
fn renumbered(renumbering: &[Option<TaskIdx>], task: TaskIdx) -> TaskIdx {
    let new = renumbering[task.index()];
    debug_assert!(new.is_some(), "a live task needs a dead one");
    new.unwrap_or_default()
}

/// Numbers for the entries of a table that are still used, in order of first use.
struct Compacted {
    new_of: Vec<u32>,
    kept: Vec<u32>,
}

impl Compacted {
    fn new(n_entries: usize) -> Self {
        Self { new_of: vec![u32::MAX; n_entries], kept: Vec::new() }
    }

    fn number(&mut self, old: u32) -> u32 {
        let new = &mut self.new_of[old as usize];
        if *new == u32::MAX {
            *new = as_node(self.kept.len());
            self.kept.push(old);
        }
        *new
    }
}

#[cfg(test)]
#[path = "finish_tests.rs"]
mod tests;
