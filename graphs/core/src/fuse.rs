//! Linear fusion: a task that only one other task uses becomes a step of that task.
//!
//! A fused task costs one scheduling decision, stores no intermediate result and moves no bytes between its steps. The price
//! would be parallelism, so two tasks become one only where they could not have run at the same time anyway, or where there
//! is plenty to run besides:
//!
//! - a chain: the used task is the only task that its user waits for;
//! - a cheap source: the used task has no inputs, its user waits for few tasks, and the user has so many siblings (tasks of one
//!   family of names) that they keep the slots busy among themselves.
//!
//! Outputs stay, gather groups are never fused into or out of, and tasks with different options stay apart. Chains end at
//! [`MAX_STEPS`]: a body is sent, retried and lost as a whole.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::builder::InputList;
use crate::finish::Draft;
use crate::graph::{Body, Input, Source, Step, Wire, Wires};
use crate::links::{Links, as_node};

/// Most steps in a fused body.
pub const MAX_STEPS: usize = 64;

/// Most tasks a task may wait for when its sources are fused into it.
const MAX_FUSED_FAN_IN: usize = 4;

/// Fewest tasks in the user's family when sources are fused into it.
const MIN_SIBLINGS: u32 = 16;

const NOBODY: u32 = u32::MAX;

/// Fuse what can be fused without losing parallelism; `links` are those of the draft. Fused-away tasks are marked dead. Whether
/// there was anything to fuse.
pub(crate) fn fuse(draft: &mut Draft, links: &Links) -> bool {
    let fused_into = Decisions::make(draft, links);
    let fuses = fused_into.iter().any(|&user| user != NOBODY);
    if fuses {
        rewrite(draft, links, &fused_into);
    }
    fuses
}

struct Decisions<'a> {
    draft: &'a Draft,
    links: &'a Links,
    n_siblings: Vec<u32>,
    n_steps: Vec<u32>,
    fused_into: Vec<u32>,
}

impl<'a> Decisions<'a> {
    /// For each task the user it becomes a step of, or [`NOBODY`].
    fn make(draft: &'a Draft, links: &'a Links) -> Vec<u32> {
        let graph = &draft.graph;
        let n_families = graph.key_of.iter().map(|key| key.family as usize + 1).max().unwrap_or(0);
        let mut n_siblings = vec![0u32; n_families];
        for (task, key) in graph.key_of.iter().enumerate() {
            n_siblings[key.family as usize] += u32::from(draft.is_alive[task]);
        }
        let n_steps = graph.body_of.iter().map(|&body| as_node(graph.bodies[body as usize].steps.len())).collect();
        let mut this = Self { draft, links, n_siblings, n_steps, fused_into: vec![NOBODY; graph.n_tasks()] };
        for &task in draft.topological.iter().filter(|&&task| draft.is_alive[task as usize]) {
            this.decide_for(task);
        }
        this.fused_into
    }

    /// Decide which producers of `user` become steps of it. Producers have been decided on before.
    fn decide_for(&mut self, user: u32) {
        let producers = self.links.producers_of(user);
        let has_group = producers.iter().any(|&producer| self.links.is_group(producer));
        if producers.is_empty() || has_group {
            return;
        }
        let has_siblings = self.n_siblings[self.draft.graph.key_of[user as usize].family as usize] >= MIN_SIBLINGS;
        let takes_sources = producers.len() == 1 || (has_siblings && producers.len() <= MAX_FUSED_FAN_IN);
        let mut others = 0;
        let mut other = NOBODY;
        for &producer in producers {
            if takes_sources && self.is_source(producer) && self.may_join(producer, user) {
                self.join(producer, user);
            } else {
                others += 1;
                other = producer;
            }
        }
        if others == 1 && self.may_join(other, user) {
            self.join(other, user);
        }
    }

    fn is_source(&self, task: u32) -> bool {
        self.links.producers_of(task).is_empty()
    }

    fn may_join(&self, producer: u32, user: u32) -> bool {
        self.links.users_of(producer) == [user]
            && !self.draft.is_output[producer as usize]
            && self.n_steps[producer as usize] + self.n_steps[user as usize] <= as_node(MAX_STEPS)
            && self.draft.options_of(producer) == self.draft.options_of(user)
    }

    fn join(&mut self, producer: u32, user: u32) {
        self.fused_into[producer as usize] = user;
        self.n_steps[user as usize] += self.n_steps[producer as usize];
    }
}

/// Give every task that others were fused into its new body and inputs.
fn rewrite(draft: &mut Draft, links: &Links, fused_into: &[u32]) {
    let mut bodies_by_shape: HashMap<Vec<u32>, u32, FxBuildHasher> = HashMap::default();
    // By task: the number of its last step within the body being put together. Only read for members of that body.
    let mut last_step = vec![0u32; fused_into.len()];
    for task in 0..as_node(fused_into.len()) {
        if !draft.is_alive[task as usize] || fused_into[task as usize] != NOBODY {
            continue;
        }
        let members = members_of(task, links, fused_into);
        if members.len() == 1 {
            continue;
        }
        let (shape, inputs) = shape_of(draft, &members, fused_into, &mut last_step);
        let body = match bodies_by_shape.get(&shape) {
            Some(&body) => body,
            None => {
                let fused = fused_body(draft, &members, fused_into, &last_step);
                let body = draft.graph.body(fused);
                bodies_by_shape.insert(shape, body);
                body
            }
        };
        draft.graph.body_of[task as usize] = body;
        draft.graph.inputs.set(task as usize, &inputs);
    }
    for (task, &user) in fused_into.iter().enumerate() {
        draft.is_alive[task] &= user == NOBODY;
    }
}

/// `task` and all that was fused into it, producers first.
fn members_of(task: u32, links: &Links, fused_into: &[u32]) -> Vec<u32> {
    let mut members = Vec::new();
    let mut to_visit = vec![task];
    while let Some(member) = to_visit.pop() {
        members.push(member);
        let swallowed = links
            .producers_of(member)
            .iter()
            .filter(|&&producer| !links.is_group(producer) && fused_into[producer as usize] == member);
        to_visit.extend(swallowed);
    }
    members.reverse();
    members
}

/// What the fused body will be, as numbers cheap to compare (bodies and wires), and the inputs it keeps. Notes each member's
/// last step on the way.
fn shape_of(draft: &Draft, members: &[u32], fused_into: &[u32], last_step: &mut [u32]) -> (Vec<u32>, InputList) {
    let graph = &draft.graph;
    let mut shape = Vec::with_capacity(members.len() * 4);
    let mut kept = InputList::new();
    let mut n_steps = 0;
    for &member in members {
        let body = graph.body_of[member as usize];
        let inputs = &graph.inputs[member as usize];
        shape.extend([body, as_node(inputs.len())]);
        for input in inputs {
            match swallowed_producer(input, member, fused_into) {
                Some(producer) => shape.extend([last_step[producer as usize], input.part.0]),
                None => {
                    shape.push(u32::MAX);
                    kept.push(*input);
                }
            }
        }
        n_steps += as_node(graph.bodies[body as usize].steps.len());
        last_step[member as usize] = n_steps - 1;
    }
    (shape, kept)
}

fn swallowed_producer(input: &Input, member: u32, fused_into: &[u32]) -> Option<u32> {
    match input.source() {
        Source::Task(producer) if fused_into[producer.index()] == member => Some(producer.0),
        Source::Task(_) | Source::Group(_) | Source::External(_) => None,
    }
}

fn fused_body(draft: &Draft, members: &[u32], fused_into: &[u32], last_step: &[u32]) -> Body {
    let graph = &draft.graph;
    let mut steps: Vec<Step> = Vec::new();
    let mut n_kept = 0;
    for &member in members {
        let first_step = as_node(steps.len());
        let mut wires: Vec<Wire> = Vec::with_capacity(graph.inputs[member as usize].len());
        for input in &graph.inputs[member as usize] {
            match swallowed_producer(input, member, fused_into) {
                Some(producer) => wires.push(Wire::Step(last_step[producer as usize], input.part)),
                None => {
                    wires.push(Wire::Input(n_kept));
                    n_kept += 1;
                }
            }
        }
        for step in &graph.bodies[graph.body_of[member as usize] as usize].steps {
            let moved = match &step.wires {
                Wires::All => wires.clone(),
                Wires::These(own) => own.iter().map(|wire| moved_wire(*wire, &wires, first_step)).collect(),
            };
            steps.push(Step { wires: Wires::These(moved), ..step.clone() });
        }
    }
    Body { steps }
}

fn moved_wire(wire: Wire, wires: &[Wire], first_step: u32) -> Wire {
    match wire {
        Wire::Input(input) => wires[input as usize],
        Wire::Step(step, part) => Wire::Step(first_step + step, part),
    }
}

#[cfg(test)]
#[path = "fuse_tests.rs"]
mod tests;
