//! Checks of a graph under construction, with errors that name tasks as people named them.
//!
//! A builder whose tasks only use earlier ones (nearly all of them) is proven acyclic by one comparison an edge. Only when
//! that fails is a petgraph graph built, to find an order, or a cycle worth showing. Whether operators exist and take their
//! arguments is a separate question, asked of a registry by [`GraphBuilder::check_operators`].

use std::collections::{HashMap, VecDeque};

use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::FxBuildHasher;

use crate::builder::GraphBuilder;
use crate::graph::{BodyNeeds, Input, MalformedGraph, Source, Wire, WireBudget, Wires, too_many_wishes};
use crate::ids::TaskIdx;
use crate::keys::KeyRef;
use crate::limits::MAX_FAMILY_NBYTES;
use crate::links::as_node;
use crate::operator::{PrepareError, Registry};

/// Most tasks a graph can hold: two bits of an input's 32 say what sort of source it is.
pub const MAX_TASKS: usize = 1 << 30;

/// How many members of a cycle an error message shows.
const CYCLE_SHOWN: usize = 12;

/// A graph that cannot be finished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// More tasks, inputs or group members than the tables can number.
    #[error("too many {what}: {count}, at most {limit}")]
    TooMany {
        /// Tasks, inputs or group members.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Tasks that wait for each other.
    #[error("tasks wait for each other: {}", cycle_text(.members))]
    Cycle {
        /// Names of the tasks on the cycle; each is an input of the next, and the last one of the first.
        members: Vec<String>,
    },
    /// An input that is no task of this graph.
    #[error("task \"{key}\": input {input} is task number {number}, which does not exist")]
    UnknownInput {
        /// The task's name.
        key: String,
        /// Which input, counted from 0.
        input: usize,
        /// The number it names.
        number: u32,
    },
    /// An input that is no gather group of this graph.
    #[error("task \"{key}\": input {input} is gather group number {number}, which does not exist")]
    UnknownGroup {
        /// The task's name.
        key: String,
        /// Which input, counted from 0.
        input: usize,
        /// The number it names.
        number: u32,
    },
    /// An input that is no external result of this graph.
    #[error("task \"{key}\": input {input} is external result number {number}, which does not exist")]
    UnknownExternal {
        /// The task's name.
        key: String,
        /// Which input, counted from 0.
        input: usize,
        /// The number it names.
        number: u32,
    },
    /// A gather group with a member that is no task of this graph.
    #[error("gather group {group}: member {member} is task number {number}, which does not exist")]
    UnknownMember {
        /// The group's number.
        group: u32,
        /// Which member, counted from 0.
        member: usize,
        /// The number it names.
        number: u32,
    },
    /// An output that is no task of this graph.
    #[error("output {output} is task number {number}, which does not exist")]
    UnknownOutput {
        /// Which output, counted from 0.
        output: usize,
        /// The number it names.
        number: u32,
    },
    /// A task whose family of names was never made.
    #[error("task number {number} has no name: family {family} does not exist")]
    UnknownFamily {
        /// The task's number in the builder.
        number: u32,
        /// The family it names.
        family: u32,
    },
    /// A task whose body was never made.
    #[error("task \"{key}\" has no body: body {body} does not exist")]
    UnknownBody {
        /// The task's name.
        key: String,
        /// The body it names.
        body: u32,
    },
    /// A body without steps, or whose steps are wired to what is not there.
    #[error("task \"{key}\": {reason}")]
    BadBody {
        /// The name of a task with this body.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A resource amount that is negative or not a number.
    #[error("task \"{key}\": the amount of resource \"{resource}\" is negative or not a number")]
    BadResource {
        /// The task's name.
        key: String,
        /// The resource.
        resource: String,
    },
    /// A task, or a step of its body, that takes more values than any may.
    #[error("task \"{key}\" {}", crate::graph::too_many_values(*.count))]
    TooManyInputs {
        /// The task's name.
        key: String,
        /// How many it takes, members of groups counted one by one.
        count: usize,
    },
    /// A task that asks for what nobody may ask for.
    #[error("task \"{key}\": {fault}")]
    BadOptions {
        /// The task's name.
        key: String,
        /// What is wrong.
        fault: String,
    },
    /// Tasks that ask for more different things than a scheduler keeps queues for.
    #[error("{0}")]
    TooManyWishes(String),
    /// A name of a family that is longer than any may be.
    #[error("a task's name is {nbytes} bytes long, at most {limit} are possible")]
    LongName {
        /// Its length.
        nbytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Two tasks with one name.
    #[error("two tasks are called \"{key}\"")]
    DuplicateKey {
        /// The name.
        key: String,
    },
    /// An operator that is unknown, or refuses its arguments or number of inputs.
    #[error("task \"{key}\": {error}")]
    Operator {
        /// The task's name.
        key: String,
        /// What the registry says.
        error: PrepareError,
    },
}

fn cycle_text(members: &[String]) -> String {
    let mut text = String::new();
    for member in members.iter().take(CYCLE_SHOWN) {
        text.push_str(member);
        text.push_str(" -> ");
    }
    if members.len() > CYCLE_SHOWN {
        text.push_str(&format!("... {} more ... -> ", members.len() - CYCLE_SHOWN));
    }
    text.push_str(members.first().map_or("", String::as_str));
    text
}

/// Check everything that can be checked without a registry. Returns the tasks with producers before users.
pub(crate) fn validate(graph: &GraphBuilder) -> Result<Vec<u32>, BuildError> {
    let n_inputs = graph.inputs.n_values();
    let n_members = graph.groups.iter().map(Vec::len).sum();
    check_sizes(graph.n_tasks(), n_inputs, n_members)?;
    check_sources(graph)?;
    check_bodies(graph)?;
    check_options(graph)?;
    check_names(graph)?;
    topological(graph)
}

fn check_sizes(n_tasks: usize, n_inputs: usize, n_members: usize) -> Result<(), BuildError> {
    let edge_limit = u32::MAX as usize;
    let table =
        [("tasks", n_tasks, MAX_TASKS), ("inputs", n_inputs, edge_limit), ("gather group members", n_members, edge_limit)];
    match table.into_iter().find(|&(_, count, limit)| count > limit) {
        Some((what, count, limit)) => Err(BuildError::TooMany { what, count, limit }),
        None => Ok(()),
    }
}

fn check_sources(graph: &GraphBuilder) -> Result<(), BuildError> {
    let n_tasks = graph.n_tasks();
    for (idx, key) in graph.key_of.iter().enumerate() {
        if !graph.keys.has_family(key.family) {
            return Err(BuildError::UnknownFamily { number: as_node(idx), family: key.family });
        }
    }
    for (group, members) in graph.groups.iter().enumerate() {
        if let Some((member, unknown)) = members.iter().enumerate().find(|(_, member)| member.index() >= n_tasks) {
            return Err(BuildError::UnknownMember { group: as_node(group), member, number: unknown.0 });
        }
    }
    for (idx, inputs) in graph.inputs.iter().enumerate() {
        for (input, source) in inputs.iter().map(|input| input.source()).enumerate() {
            let key = || graph.key_name(TaskIdx(as_node(idx)));
            match source {
                Source::Task(task) if task.index() >= n_tasks => {
                    return Err(BuildError::UnknownInput { key: key(), input, number: task.0 });
                }
                Source::Group(group) if group as usize >= graph.groups.len() => {
                    return Err(BuildError::UnknownGroup { key: key(), input, number: group });
                }
                Source::External(external) if external as usize >= graph.externals.len() => {
                    return Err(BuildError::UnknownExternal { key: key(), input, number: external });
                }
                Source::Task(_) | Source::Group(_) | Source::External(_) => {}
            }
        }
    }
    match graph.outputs.iter().enumerate().find(|(_, output)| output.index() >= n_tasks) {
        Some((output, unknown)) => Err(BuildError::UnknownOutput { output, number: unknown.0 }),
        None => Ok(()),
    }
}

fn check_bodies(graph: &GraphBuilder) -> Result<(), BuildError> {
    let needs: Vec<Result<BodyNeeds, MalformedGraph>> = graph.bodies.iter().map(BodyNeeds::of).collect();
    let spread = |input: &Input| match input.source() {
        Source::Task(_) | Source::External(_) => 1,
        Source::Group(group) => graph.groups.get(group as usize).map_or(0, Vec::len),
    };
    let mut wires = WireBudget::default();
    for (idx, &body) in graph.body_of.iter().enumerate() {
        let key = || graph.key_name(TaskIdx(as_node(idx)));
        let Some(of_body) = needs.get(body as usize) else { return Err(BuildError::UnknownBody { key: key(), body }) };
        let of_body = match of_body {
            Ok(of_body) => of_body,
            Err(MalformedGraph(reason)) => return Err(BuildError::BadBody { key: key(), reason: reason.clone() }),
        };
        let (wired, inputs) = (of_body.n_inputs, &graph.inputs[idx]);
        if wired as usize > inputs.len() {
            let reason = format!("its body is wired to {wired} inputs, it has {}", inputs.len());
            return Err(BuildError::BadBody { key: key(), reason });
        }
        if let Some(count) = wires.excess(&graph.bodies[body as usize], of_body, inputs, spread) {
            return Err(BuildError::TooManyInputs { key: key(), count });
        }
    }
    Ok(())
}

fn check_options(graph: &GraphBuilder) -> Result<(), BuildError> {
    let mut bad: Vec<(TaskIdx, &String)> = Vec::new();
    let mut faulty: Option<TaskIdx> = None;
    for (&task, options) in &graph.options {
        bad.extend(
            options.resources.iter().filter(|(_, amount)| !amount.is_finite() || *amount < 0.0).map(|(name, _)| (task, name)),
        );
        if options.fault().is_some() && faulty.is_none_or(|first| task < first) {
            faulty = Some(task);
        }
    }
    // The table is hashed: without the minimum the task named would differ from run to run.
    if let Some((task, resource)) = bad.into_iter().min() {
        return Err(BuildError::BadResource { key: graph.key_name(task), resource: resource.clone() });
    }
    match faulty.and_then(|task| Some((task, graph.options.get(&task)?.fault()?))) {
        Some((task, fault)) => Err(BuildError::BadOptions { key: graph.key_name(task), fault }),
        None => too_many_wishes(graph.options.values()).map_or(Ok(()), |fault| Err(BuildError::TooManyWishes(fault))),
    }
}

/// Members of one family nearly always come in ascending order, and then no two can be equal; otherwise names are hashed.
fn check_names(graph: &GraphBuilder) -> Result<(), BuildError> {
    let (nbytes, limit) = (graph.keys.longest_family(), MAX_FAMILY_NBYTES);
    if nbytes > limit {
        return Err(BuildError::LongName { nbytes, limit });
    }
    let plain = graph.keys.canonical_families();
    let mut next_member: Vec<u32> = vec![0; graph.keys.n_families()];
    let mut is_ascending = true;
    for &key in &graph.key_of {
        let (family, member) = canonical(key, &plain);
        let Some(member) = member else {
            // A name without a number: the number after the highest keeps a second one from passing.
            is_ascending &= std::mem::replace(&mut next_member[family as usize], u32::MAX) == 0;
            continue;
        };
        let next = &mut next_member[family as usize];
        is_ascending &= member >= *next && member < u32::MAX - 1;
        *next = member.saturating_add(1);
    }
    if is_ascending {
        return Ok(());
    }
    let mut seen: HashMap<(u32, Option<u32>), (), FxBuildHasher> =
        HashMap::with_capacity_and_hasher(graph.key_of.len(), FxBuildHasher);
    for (idx, &key) in graph.key_of.iter().enumerate() {
        if seen.insert(canonical(key, &plain), ()).is_some() {
            return Err(BuildError::DuplicateKey { key: graph.key_name(TaskIdx(as_node(idx))) });
        }
    }
    Ok(())
}

impl GraphBuilder {
    /// Give tasks whose name another one has before them a name of their own: `x-rows-3` becomes `x-rows#2-3`.
    ///
    /// For whoever names tasks after what people call things: two outputs of one array, an array called as the parts of
    /// another are. Otherwise [`GraphBuilder::finish`] refuses a name that is there twice.
    pub fn distinguish_names(&mut self) {
        if check_names(self).is_ok() {
            return;
        }
        // A new name may be taken as well, by somebody who wrote it so; then the next round makes a longer one.
        loop {
            let plain = self.keys.canonical_families();
            let mut n_before: HashMap<(u32, Option<u32>), u32, FxBuildHasher> = HashMap::default();
            let mut renamed: HashMap<(u32, u32), u32, FxBuildHasher> = HashMap::default();
            for idx in 0..self.key_of.len() {
                let key = self.key_of[idx];
                let number = n_before.entry(canonical(key, &plain)).or_insert(0);
                *number += 1;
                if *number > 1 {
                    let family = renamed.entry((key.family, *number)).or_insert_with(|| {
                        let name = self.keys.name_of(KeyRef { family: key.family, member: None });
                        self.keys.family(&format!("{name}#{number}"))
                    });
                    self.key_of[idx].family = *family;
                }
            }
            if renamed.is_empty() {
                return;
            }
        }
    }
}

/// A lone task called `x-7` and member 7 of family `x` are the same name.
fn canonical(key: KeyRef, plain: &HashMap<u32, (u32, u32), FxBuildHasher>) -> (u32, Option<u32>) {
    match (key.member, plain.get(&key.family)) {
        (None, Some(&(family, member))) => (family, Some(member)),
        (member, _) => (key.family, member),
    }
}

fn topological(graph: &GraphBuilder) -> Result<Vec<u32>, BuildError> {
    let last_member: Vec<u32> =
        graph.groups.iter().map(|members| members.iter().map(|member| member.0 + 1).max().unwrap_or(0)).collect();
    let precedes = |input: &Input, task: u32| match input.source() {
        Source::Task(producer) => producer.0 < task,
        Source::Group(group) => last_member[group as usize] <= task,
        Source::External(_) => true,
    };
    let n_tasks = as_node(graph.n_tasks());
    if (0..n_tasks).all(|task| graph.inputs[task as usize].iter().all(|input| precedes(input, task))) {
        return Ok((0..n_tasks).collect());
    }
    let network = network(graph);
    match petgraph::algo::toposort(&network, None) {
        Ok(sequence) => Ok(sequence.into_iter().map(|node| as_node(node.index())).filter(|&node| node < n_tasks).collect()),
        Err(cycle) => {
            let members = shortest_cycle(&network, cycle.node_id());
            let tasks = members.into_iter().map(|node| as_node(node.index())).filter(|&node| node < n_tasks);
            Err(BuildError::Cycle { members: tasks.map(|task| graph.key_name(TaskIdx(task))).collect() })
        }
    }
}

/// Tasks, then gather groups, as a petgraph graph with edges from producers to users.
fn network(graph: &GraphBuilder) -> DiGraph<(), (), u32> {
    let n_tasks = graph.n_tasks();
    let n_edges = graph.inputs.n_values();
    let mut network = DiGraph::with_capacity(n_tasks + graph.groups.len(), n_edges);
    for _ in 0..n_tasks + graph.groups.len() {
        network.add_node(());
    }
    for (task, inputs) in graph.inputs.iter().enumerate() {
        for input in inputs {
            match input.source() {
                Source::Task(producer) => network.add_edge(NodeIndex::new(producer.index()), NodeIndex::new(task), ()),
                Source::Group(group) => network.add_edge(NodeIndex::new(n_tasks + group as usize), NodeIndex::new(task), ()),
                Source::External(_) => continue,
            };
        }
    }
    for (group, members) in graph.groups.iter().enumerate() {
        for member in members {
            network.add_edge(NodeIndex::new(member.index()), NodeIndex::new(n_tasks + group), ());
        }
    }
    network
}

/// The shortest way from `start` back to itself, `start` first; breadth first, so a person reads as few names as possible.
fn shortest_cycle(network: &DiGraph<(), (), u32>, start: NodeIndex<u32>) -> Vec<NodeIndex<u32>> {
    let mut came_from: Vec<Option<NodeIndex<u32>>> = vec![None; network.node_count()];
    let mut queue = VecDeque::from([start]);
    'search: while let Some(node) = queue.pop_front() {
        for user in network.neighbors(node) {
            if came_from[user.index()].is_none() {
                came_from[user.index()] = Some(node);
                queue.push_back(user);
            }
            if user == start {
                break 'search;
            }
        }
    }
    let mut members = vec![start];
    let mut at = start;
    while let Some(before) = came_from[at.index()] {
        if before == start {
            break;
        }
        members.push(before);
        at = before;
    }
    members[1..].reverse();
    members
}

impl GraphBuilder {
    /// Check that `registry` knows every operator in its version, and that each accepts its arguments and number of inputs.
    /// A body shared by many tasks is prepared once.
    ///
    /// # Errors
    /// Names the first task, in the order of adding, whose operator is refused.
    pub fn check_operators(&self, registry: &Registry) -> Result<(), BuildError> {
        let mut is_prepared = vec![false; self.bodies.len()];
        for (idx, &body_id) in self.body_of.iter().enumerate() {
            let key = || self.key_name(TaskIdx(as_node(idx)));
            let refuse = |error| BuildError::Operator { key: key(), error };
            let Some(body) = self.bodies.get(body_id as usize) else {
                return Err(BuildError::UnknownBody { key: key(), body: body_id });
            };
            if !std::mem::replace(&mut is_prepared[body_id as usize], true) {
                for step in &body.steps {
                    registry.prepare(&step.operator, step.version, &step.args).map_err(refuse)?;
                }
            }
            for step in &body.steps {
                let Some(spec) = registry.spec(&step.operator) else { continue };
                let got = self.n_kernel_inputs(idx, &step.wires);
                if !spec.inputs.accepts(got) {
                    let takes = spec.inputs.to_string();
                    return Err(refuse(PrepareError::Inputs { operator: step.operator.to_string(), takes, got }));
                }
            }
        }
        Ok(())
    }

    fn n_kernel_inputs(&self, task: usize, wires: &Wires) -> usize {
        let spread = |input: &Input| match input.source() {
            Source::Task(_) | Source::External(_) => 1,
            Source::Group(group) => self.groups.get(group as usize).map_or(0, Vec::len),
        };
        let inputs = &self.inputs[task];
        match wires {
            Wires::All => inputs.iter().map(spread).sum(),
            Wires::These(wires) => wires
                .iter()
                .map(|wire| match wire {
                    Wire::Step(..) => 1,
                    Wire::Input(input) => inputs.get(*input as usize).map_or(0, spread),
                })
                .sum(),
        }
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
