//! What a picture of a graph shows, before any picture: boxes with words, and arrows with counts.
//!
//! Small graphs get a box for each task, gather group and external result. Bigger ones are collapsed until a person can take
//! them in: by family of names, then by operators, then by family of operators. Neither positions nor any output format
//! are known here; `dot.rs` and `svg.rs` render the same drawing.

use std::collections::{BTreeMap, HashMap};

use rustc_hash::FxBuildHasher;

use crate::graph::{Graph, Source, Step};
use crate::ids::TaskIdx;
use crate::links::as_node;

/// Most boxes in a picture.
pub(crate) const MAX_NODES: usize = 500;

/// Most arrows in a picture.
pub(crate) const MAX_EDGES: usize = 3000;

/// Most characters of an operator's arguments in a tooltip.
const MAX_ARGS_SHOWN: usize = 240;

/// Most steps of a fused body listed in a tooltip.
const MAX_STEPS_SHOWN: usize = 12;

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// One or more tasks.
    Task,
    /// One or more gather groups.
    Group,
    /// One or more results of earlier graphs.
    External,
}

/// A box.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) sort: Sort,
    /// The name of the task, or what the tasks have in common.
    pub(crate) label: String,
    /// Second line: operators.
    pub(crate) detail: String,
    /// All there is to say, in lines.
    pub(crate) title: String,
    /// The part of the first operator's name before the dot: what colours go by.
    pub(crate) operator_family: String,
    /// How many tasks, groups or externals it stands for.
    pub(crate) count: u32,
    /// Whether the client wants any of the results.
    pub(crate) is_output: bool,
}

/// An arrow, from producer to user.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// How many inputs it stands for.
    pub(crate) count: u32,
    /// The part wanted, when it stands for one input that wants a part.
    pub(crate) part: Option<u32>,
}

/// Boxes and arrows. Boxes are in order of first execution.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
    /// One sentence: what was drawn.
    pub(crate) caption: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    Each,
    KeyFamily,
    Operators,
    OperatorFamily,
    All,
}

impl Grain {
    const FROM_FINE_TO_COARSE: [Grain; 5] = [Grain::Each, Grain::KeyFamily, Grain::Operators, Grain::OperatorFamily, Grain::All];

    fn box_means(self) -> &'static str {
        match self {
            Grain::Each => "a box for each task",
            Grain::KeyFamily => "a box for each family of tasks",
            Grain::Operators => "a box for each sort of work",
            Grain::OperatorFamily => "a box for each family of operators",
            Grain::All => "one box for all",
        }
    }
}

/// The drawing of `graph`, as fine as stays legible.
pub(crate) fn draw(graph: &Graph) -> Drawing {
    for grain in Grain::FROM_FINE_TO_COARSE {
        let is_hopeless = grain == Grain::Each && graph.n_tasks() + graph.n_groups() > MAX_NODES;
        if is_hopeless {
            continue;
        }
        if let Some(drawing) = Sketch::new(graph, grain).finish() {
            return drawing;
        }
    }
    // A single box always fits; only a graph with too many ways to gather ends here.
    Drawing { nodes: Vec::new(), edges: Vec::new(), caption: format!("{} tasks, too varied to draw", graph.n_tasks()) }
}

/// What decides which box something belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Identity {
    Task(u32),
    Group(u32),
    External(u32),
    Tasks(String, String),
    GroupsOf(u32),
    Externals,
}

struct Sketch<'a> {
    graph: &'a Graph,
    grain: Grain,
    body_names: Vec<String>,
    node_of: HashMap<Identity, u32, FxBuildHasher>,
    nodes: Vec<Node>,
    edges: BTreeMap<(u32, u32), (u32, Option<u32>)>,
    is_too_big: bool,
}

impl<'a> Sketch<'a> {
    fn new(graph: &'a Graph, grain: Grain) -> Self {
        let mut this = Self {
            graph,
            grain,
            body_names: graph.bodies.iter().map(|body| operators_text(&body.steps)).collect(),
            node_of: HashMap::default(),
            nodes: Vec::new(),
            edges: BTreeMap::new(),
            is_too_big: false,
        };
        this.trace();
        this
    }

    fn trace(&mut self) {
        let graph = self.graph;
        let mut node_of_task: Vec<u32> = Vec::with_capacity(graph.n_tasks());
        let mut node_of_group: Vec<Option<u32>> = vec![None; graph.n_groups()];
        let mut node_of_external: Vec<Option<u32>> = vec![None; graph.externals.len()];
        for idx in 0..as_node(graph.n_tasks()) {
            let task = TaskIdx(idx);
            // Sources first, so that a box's place in the list is when it first runs.
            let mut froms: Vec<(u32, Option<u32>)> = Vec::with_capacity(graph.inputs_of(task).len());
            for input in graph.inputs_of(task) {
                let from = match input.source() {
                    Source::Task(producer) => node_of_task[producer.index()],
                    Source::Group(group) => match node_of_group[group as usize] {
                        Some(node) => node,
                        None => *node_of_group[group as usize].insert(self.group_node(group, &node_of_task)),
                    },
                    Source::External(external) => match node_of_external[external as usize] {
                        Some(node) => node,
                        None => *node_of_external[external as usize].insert(self.external_node(external)),
                    },
                };
                froms.push((from, (!input.part.is_whole()).then_some(input.part.0)));
            }
            let to = self.task_node(task);
            node_of_task.push(to);
            for (from, part) in froms {
                self.connect(from, to, part);
            }
            if self.nodes.len() > MAX_NODES || self.edges.len() > MAX_EDGES {
                self.is_too_big = true;
                return;
            }
        }
        for output in &graph.outputs {
            self.nodes[node_of_task[output.index()] as usize].is_output = true;
        }
    }

    fn connect(&mut self, from: u32, to: u32, part: Option<u32>) {
        let edge = self.edges.entry((from, to)).or_insert((0, part));
        edge.0 += 1;
    }

    fn node(&mut self, identity: Identity, make: impl FnOnce() -> Node) -> u32 {
        if let Some(&node) = self.node_of.get(&identity) {
            self.nodes[node as usize].count += 1;
            return node;
        }
        let node = as_node(self.nodes.len());
        self.node_of.insert(identity, node);
        self.nodes.push(make());
        node
    }

    fn task_node(&mut self, task: TaskIdx) -> u32 {
        let graph = self.graph;
        let operators = &self.body_names[graph.body_of[task.index()] as usize];
        let family = operator_family(graph, task);
        let (identity, label) = match self.grain {
            Grain::Each => (Identity::Task(task.0), graph.keys.name(task.0)),
            Grain::KeyFamily => {
                let name = graph.keys.family_name(task.0).to_owned();
                (Identity::Tasks(name.clone(), operators.clone()), name)
            }
            Grain::Operators => (Identity::Tasks(String::new(), operators.clone()), operators.clone()),
            Grain::OperatorFamily => (Identity::Tasks(family.clone(), String::new()), format!("{family}.*")),
            Grain::All => (Identity::Tasks(String::new(), String::new()), "tasks".to_owned()),
        };
        let detail = match self.grain {
            Grain::Each | Grain::KeyFamily => operators.clone(),
            Grain::Operators | Grain::OperatorFamily | Grain::All => String::new(),
        };
        let node = || Node {
            sort: Sort::Task,
            title: task_title(graph, task, &label),
            label,
            detail,
            operator_family: family,
            count: 1,
            is_output: false,
        };
        self.node(identity, node)
    }

    fn group_node(&mut self, group: u32, node_of_task: &[u32]) -> u32 {
        let members = self.graph.members_of(group);
        let identity = match (self.grain, members.first()) {
            (Grain::Each, _) | (_, None) => Identity::Group(group),
            (_, Some(member)) => Identity::GroupsOf(node_of_task[member.index()]),
        };
        let node = self.node(identity, || Node {
            sort: Sort::Group,
            label: format!("gather {}", members.len()),
            detail: String::new(),
            title: format!("gather group of {} tasks", members.len()),
            operator_family: String::new(),
            count: 1,
            is_output: false,
        });
        for member in members {
            self.connect(node_of_task[member.index()], node, None);
        }
        node
    }

    fn external_node(&mut self, external: u32) -> u32 {
        let result = self.graph.externals[external as usize];
        let (identity, label) = match self.grain {
            Grain::Each => (Identity::External(external), format!("result {result}")),
            Grain::KeyFamily | Grain::Operators | Grain::OperatorFamily | Grain::All => {
                (Identity::Externals, "earlier results".to_owned())
            }
        };
        self.node(identity, || Node {
            sort: Sort::External,
            title: format!("{label}: of an earlier graph"),
            label,
            detail: String::new(),
            operator_family: String::new(),
            count: 1,
            is_output: false,
        })
    }

    fn finish(self) -> Option<Drawing> {
        if self.is_too_big {
            return None;
        }
        let edges = self.edges.into_iter();
        let edges = edges.map(|((from, to), (count, part))| Edge { from, to, count, part: part.filter(|_| count == 1) });
        let caption = format!(
            "{}, {}: {}",
            counted(self.graph.n_tasks(), "task"),
            counted(self.graph.outputs.len(), "output"),
            self.grain.box_means()
        );
        Some(Drawing { nodes: self.nodes, edges: edges.collect(), caption })
    }
}

/// `1 task`, `2 tasks`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The operators of a body, runs of equal ones counted: `a.read + b.add x 3`.
fn operators_text(steps: &[Step]) -> String {
    let runs = steps.chunk_by(|left, right| left.operator == right.operator);
    let names: Vec<String> = runs
        .map(|run| if run.len() == 1 { run[0].operator.to_string() } else { format!("{} \u{d7} {}", run[0].operator, run.len()) })
        .collect();
    names.join(" + ")
}

/// The family of the last operator: it is the one that made the result.
fn operator_family(graph: &Graph, task: TaskIdx) -> String {
    let operator = graph.body(task).steps.last().map_or("", |step| &*step.operator);
    operator.split('.').next().unwrap_or_default().to_owned()
}

fn task_title(graph: &Graph, task: TaskIdx, label: &str) -> String {
    let mut title = label.to_owned();
    let steps = &graph.body(task).steps;
    for step in steps.iter().take(MAX_STEPS_SHOWN) {
        let args = if &*step.args == "{}" { String::new() } else { shortened(&step.args, MAX_ARGS_SHOWN) };
        title.push_str(&format!("\n{} {args}", step.operator));
    }
    if steps.len() > MAX_STEPS_SHOWN {
        title.push_str(&format!("\n... and {}", counted(steps.len() - MAX_STEPS_SHOWN, "more step")));
    }
    title
}

/// `text` if it has at most `max` characters, else its beginning and an ellipsis.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('\u{2026}');
    short
}
