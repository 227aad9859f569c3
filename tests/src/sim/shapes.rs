//! Random graphs of the shapes that real work has: independent tasks, chains, trees, layers, stencils, map and reduce, one
//! result that all want, shuffles through gather groups, and users of earlier results.

use rask_comm::message::Spread;
use rask_graphs::graph::Input;
use rask_graphs::keys::{KeyRef, KeysBuilder};
use rask_graphs::{Body, FinishOptions, Graph, GraphBuilder, Part, Source, TaskIdx, TaskOptions};

use super::entropy::Dice;
use super::oracle::{Behaviour, ExternalResult, Plan, TaskPlan};

/// How wild a seed's graphs are; drawn once a seed.
#[derive(Clone, Debug)]
pub struct Style {
    /// Most tasks of a graph, roughly.
    pub max_tasks: u64,
    /// Longest duration of a task, in microseconds.
    pub max_duration_us: u64,
    /// Largest result in bytes.
    pub max_nbytes: u64,
    /// Percentage of tasks that misbehave.
    pub misbehaving: u64,
    /// Percentage of tasks that kill their worker.
    pub killing: u64,
    /// Percentage of tasks that need a resource or name a worker.
    pub constrained: u64,
    /// Names of the workers that constraints may name.
    pub worker_names: Vec<String>,
    /// Units of resource "gpu" of the best worker; 0 when none has any.
    pub max_resource: u64,
}

struct Task {
    inputs: Vec<Input>,
    n_parts: u32,
}

/// A graph being drawn. Tasks are added in execution order.
#[derive(Default)]
struct Sketch {
    tasks: Vec<Task>,
    groups: Vec<Vec<TaskIdx>>,
    externals: Vec<ExternalResult>,
}

impl Sketch {
    fn add(&mut self, inputs: Vec<Input>) -> TaskIdx {
        self.add_with_parts(inputs, 0)
    }

    fn add_with_parts(&mut self, inputs: Vec<Input>, n_parts: u32) -> TaskIdx {
        self.tasks.push(Task { inputs, n_parts });
        TaskIdx(self.tasks.len() as u32 - 1)
    }

    /// The whole result of `source`, or, when it has parts, now and then only one of them.
    fn edge(&self, dice: &mut Dice, source: TaskIdx) -> Input {
        let n_parts = self.tasks[source.index()].n_parts;
        let part = if n_parts > 0 && dice.chance(60) { Part(dice.below(u64::from(n_parts)) as u32) } else { Part::WHOLE };
        Input::new(Source::Task(source), part)
    }

    fn group(&mut self, members: Vec<TaskIdx>) -> u32 {
        self.groups.push(members);
        self.groups.len() as u32 - 1
    }
}

/// Draw a graph for a client whose earlier jobs are `earlier`; `usable` are the jobs whose outputs it may use.
#[must_use]
pub fn draw(dice: &mut Dice, style: &Style, earlier: &[&Plan], usable: &[usize]) -> Plan {
    let mut sketch = Sketch::default();
    let size = dice.magnitude(1, style.max_tasks);
    let n_shapes = dice.between(1, 2);
    for _ in 0..n_shapes {
        let before = sketch.tasks.len();
        draw_shape(dice, &mut sketch, size / n_shapes + 1);
        if before > 0 && dice.chance(50) {
            // Join the shapes, so that one is not always independent of the other.
            let (left, right) = (TaskIdx(before as u32 - 1), TaskIdx(sketch.tasks.len() as u32 - 1));
            let inputs = vec![sketch.edge(dice, left), sketch.edge(dice, right)];
            sketch.add(inputs);
        }
    }
    use_earlier(dice, &mut sketch, earlier, usable);
    finish(dice, style, sketch, earlier)
}

/// Draw values that a client uploads: tasks without inputs, all of them wanted.
#[must_use]
pub fn draw_scatter(dice: &mut Dice, style: &Style) -> Plan {
    let mut graph = GraphBuilder::new();
    let n_values = dice.magnitude(1, style.max_tasks) as usize;
    for at in 0..n_values {
        // What the scheduler calls them, and something that tells one from the other.
        let value = graph.task(&format!("value-{at}"), "client.upload", 1, &format!("{{\"value\": {at}}}")).add();
        graph.output(value);
    }
    let graph = graph.finish(&FinishOptions { fuse: false, ..FinishOptions::default() }).expect("values need nothing").graph;
    let draw_task = |_| TaskPlan {
        duration_us: 0,
        nbytes: dice.magnitude(1, style.max_nbytes),
        n_parts: if dice.chance(15) { dice.between(1, 4) as u32 } else { 0 },
        behaviour: Behaviour::Sound,
    };
    let tasks = (0..n_values).map(draw_task).collect();
    let mut plan = Plan::new(graph, tasks, Vec::new(), &vec![0; n_values], &[]);
    let workers =
        if dice.chance(15) { vec![style.worker_names[dice.index(style.worker_names.len())].clone()] } else { Vec::new() };
    let n_copies = [1, 1, 2, u32::MAX][dice.index(4)];
    plan.spread = Some(Spread { workers, n_copies });
    plan
}

fn draw_shape(dice: &mut Dice, sketch: &mut Sketch, size: u64) {
    match dice.below(10) {
        0 => independent(sketch, size),
        1 => chain(dice, sketch, size),
        2 => tree(dice, sketch, size),
        3 | 4 => layers(dice, sketch, size),
        5 => stencil(sketch, size),
        6 => map_reduce(dice, sketch, size),
        7 => fan_out(sketch, size),
        _ => shuffle(dice, sketch, size),
    }
}

fn independent(sketch: &mut Sketch, size: u64) {
    for _ in 0..size {
        sketch.add(Vec::new());
    }
}

/// Everybody wants the same result.
fn fan_out(sketch: &mut Sketch, size: u64) {
    let root = sketch.add(Vec::new());
    for _ in 1..size {
        sketch.add(vec![Input::new(Source::Task(root), Part::WHOLE)]);
    }
}

fn chain(dice: &mut Dice, sketch: &mut Sketch, size: u64) {
    let mut last = sketch.add(Vec::new());
    for _ in 1..size {
        let inputs = vec![sketch.edge(dice, last)];
        last = sketch.add(inputs);
    }
}

fn tree(dice: &mut Dice, sketch: &mut Sketch, size: u64) {
    let mut level: Vec<TaskIdx> = (0..size.div_ceil(2)).map(|_| sketch.add(Vec::new())).collect();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| {
                let inputs = pair.iter().map(|source| sketch.edge(dice, *source)).collect();
                sketch.add(inputs)
            })
            .collect();
    }
}

fn layers(dice: &mut Dice, sketch: &mut Sketch, size: u64) {
    let width = dice.between(1, size.min(8));
    let first = sketch.tasks.len() as u64;
    for at in 0..size {
        let n_before = at - at % width;
        let fewest = u64::from(!dice.chance(10));
        let n_inputs = if n_before == 0 { 0 } else { dice.between(fewest, 3) };
        let mut inputs = Vec::new();
        for _ in 0..n_inputs {
            // Mostly from the layer before, so that results come and go.
            let low = if dice.chance(75) { n_before - width.min(n_before) } else { 0 };
            let source = TaskIdx((first + dice.between(low, n_before - 1)) as u32);
            inputs.push(sketch.edge(dice, source));
        }
        let n_parts = if dice.chance(15) { dice.between(1, 4) as u32 } else { 0 };
        sketch.add_with_parts(inputs, n_parts);
    }
}

fn stencil(sketch: &mut Sketch, size: u64) {
    let width = size.isqrt().max(1) as usize;
    let whole = |source: TaskIdx| Input::new(Source::Task(source), Part::WHOLE);
    let mut row: Vec<TaskIdx> = (0..width).map(|_| sketch.add(Vec::new())).collect();
    for _ in 1..width {
        let next = (0..width).map(|at| {
            let inputs = row[at.saturating_sub(1)..(at + 2).min(width)].iter().map(|source| whole(*source)).collect();
            sketch.add(inputs)
        });
        row = next.collect();
    }
}

fn map_reduce(dice: &mut Dice, sketch: &mut Sketch, size: u64) {
    let roots: Vec<TaskIdx> = (0..size.div_ceil(2)).map(|_| sketch.add(Vec::new())).collect();
    let mut mapped = Vec::new();
    for root in &roots {
        let edge = sketch.edge(dice, *root);
        // Now and then a task uses a result twice, as x + x does.
        let inputs = if dice.chance(20) { vec![edge, edge] } else { vec![edge] };
        mapped.push(sketch.add(inputs));
    }
    let inputs = mapped.iter().map(|source| sketch.edge(dice, *source)).collect();
    sketch.add(inputs);
}

fn shuffle(dice: &mut Dice, sketch: &mut Sketch, size: u64) {
    let n_members = dice.between(1, size.div_ceil(2).min(8));
    let n_reducers = dice.between(1, size.div_ceil(2).min(8)) as u32;
    let members: Vec<TaskIdx> = (0..n_members)
        .map(|_| {
            let root = sketch.add(Vec::new());
            let edge = sketch.edge(dice, root);
            sketch.add_with_parts(vec![edge], n_reducers)
        })
        .collect();
    let group = sketch.group(members);
    let reducers: Vec<TaskIdx> =
        (0..n_reducers).map(|part| sketch.add(vec![Input::new(Source::Group(group), Part(part))])).collect();
    if dice.chance(30) {
        // A user of the whole members, through the same group.
        sketch.add(vec![Input::new(Source::Group(group), Part::WHOLE)]);
    }
    if dice.chance(50) {
        let inputs = reducers.iter().map(|source| sketch.edge(dice, *source)).collect();
        sketch.add(inputs);
    }
}

/// Let some tasks use outputs of earlier jobs.
fn use_earlier(dice: &mut Dice, sketch: &mut Sketch, earlier: &[&Plan], usable: &[usize]) {
    for &job in usable {
        if !dice.chance(70) {
            continue;
        }
        for _ in 0..dice.between(1, 3) {
            let Some(idx) = dice.pick(&earlier[job].graph.outputs) else { continue };
            let result = ExternalResult { job, idx };
            let at = sketch.externals.iter().position(|other| *other == result).unwrap_or(sketch.externals.len());
            if at == sketch.externals.len() {
                sketch.externals.push(result);
            }
            let n_parts = earlier[job].tasks[idx.index()].n_parts;
            let part = if n_parts > 0 && dice.chance(60) { Part(dice.below(u64::from(n_parts)) as u32) } else { Part::WHOLE };
            let user = dice.index(sketch.tasks.len());
            sketch.tasks[user].inputs.push(Input::new(Source::External(at as u32), part));
        }
    }
}

fn finish(dice: &mut Dice, style: &Style, sketch: Sketch, earlier: &[&Plan]) -> Plan {
    let n_tasks = sketch.tasks.len();
    let mut bodies: Vec<Body> = Vec::new();
    let (mut body_of, mut plans, mut options, mut retries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut keys = KeysBuilder::default();
    let family = keys.family("task");
    let n_operators = dice.between(1, 4);
    for (at, task) in sketch.tasks.iter().enumerate() {
        // Roots differ from each other in their arguments; other tasks share a few bodies.
        let operator = dice.below(n_operators);
        let args = if task.inputs.is_empty() { format!("{{\"root\":{at}}}") } else { format!("{{\"salt\":{}}}", dice.below(2)) };
        let body = Body::single(&format!("sim.{operator}"), 1, &args);
        let id = bodies.iter().position(|other| *other == body).unwrap_or(bodies.len());
        if id == bodies.len() {
            bodies.push(body);
        }
        body_of.push(id as u32);
        keys.push(KeyRef { family, member: Some(at as u32) });
        let task_options = draw_options(dice, style);
        let n_retries = task_options.as_ref().map_or(0, |options| options.retries);
        plans.push(draw_task(dice, style, n_retries, task.n_parts));
        retries.push(n_retries);
        options.extend(task_options.map(|options| (TaskIdx(at as u32), options)));
    }
    let outputs = draw_outputs(dice, &sketch);
    let mut graph = Graph {
        bodies,
        body_of,
        input_offsets: vec![0],
        inputs: Vec::new(),
        group_offsets: vec![0],
        group_members: Vec::new(),
        externals: Vec::new(),
        keys: keys.finish(),
        options,
        outputs,
    };
    for task in sketch.tasks {
        graph.inputs.extend(task.inputs);
        graph.input_offsets.push(graph.inputs.len() as u32);
    }
    for members in sketch.groups {
        graph.group_members.extend(members);
        graph.group_offsets.push(graph.group_members.len() as u32);
    }
    assert_eq!(graph.n_tasks(), n_tasks);
    Plan::new(graph, plans, sketch.externals, &retries, earlier)
}

/// The sinks, mostly, and now and then something in the middle.
fn draw_outputs(dice: &mut Dice, sketch: &Sketch) -> Vec<TaskIdx> {
    let mut is_used = vec![false; sketch.tasks.len()];
    for input in sketch.tasks.iter().flat_map(|task| &task.inputs) {
        match input.source() {
            Source::Task(source) => is_used[source.index()] = true,
            Source::Group(group) => sketch.groups[group as usize].iter().for_each(|member| is_used[member.index()] = true),
            Source::External(_) => {}
        }
    }
    let some_sinks = dice.chance(20);
    let mut outputs = Vec::new();
    for (at, used) in is_used.iter().enumerate() {
        let is_output = if *used { dice.chance(8) } else { !some_sinks || dice.chance(50) };
        if is_output {
            outputs.push(TaskIdx(at as u32));
        }
    }
    if outputs.is_empty() {
        outputs.push(TaskIdx(sketch.tasks.len() as u32 - 1));
    }
    outputs
}

fn draw_task(dice: &mut Dice, style: &Style, n_retries: u32, n_parts: u32) -> TaskPlan {
    let behaviour = if dice.chance(style.killing) {
        if dice.chance(60) { Behaviour::KillsWorker } else { Behaviour::KillsFetching }
    } else if dice.chance(style.misbehaving) {
        match dice.below(4) {
            0 => Behaviour::FailsAlways,
            1 => Behaviour::Panics,
            _ => Behaviour::FailsFirst(n_retries.saturating_sub(dice.below(2) as u32)),
        }
    } else {
        Behaviour::Sound
    };
    // Killers live long enough to be known to be executing.
    let kills = matches!(behaviour, Behaviour::KillsWorker | Behaviour::KillsFetching);
    let low = if kills { 30_000 } else { 50 };
    let duration_us = dice.magnitude(low, style.max_duration_us.max(low));
    TaskPlan { duration_us, nbytes: dice.magnitude(8, style.max_nbytes), n_parts, behaviour }
}

fn draw_options(dice: &mut Dice, style: &Style) -> Option<TaskOptions> {
    let mut options = TaskOptions::default();
    if dice.chance(style.misbehaving) {
        options.retries = dice.between(0, 3) as u32;
    }
    if dice.chance(style.constrained) {
        if style.max_resource > 0 && dice.chance(60) {
            options.resources.push(("gpu".to_owned(), dice.between(1, style.max_resource) as f64));
        } else {
            let at = dice.index(style.worker_names.len());
            options.workers.push(style.worker_names[at].clone());
            options.allow_other_workers = dice.chance(50);
        }
    }
    (options != TaskOptions::default()).then_some(options)
}
