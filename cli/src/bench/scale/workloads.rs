//! The named workloads: graphs with the time each task takes, the size of its result, and the least that has to move.
//!
//! Sizes are of one kind everywhere, so that figures can be compared: a chunk is 1 MiB and takes 2 ms to load and 1 ms to
//! work on, give or take a fifth. [`Draw::work_us`] makes all tasks shorter or longer in proportion. **Least bytes** are lower bounds for schedules in which every worker does its share (one
//! worker alone moves nothing and helps nobody); each workload says how its own follows.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, FinishOptions, Graph, GraphBuilder, Part, TaskIdx};

/// A chunk, as of an array.
const CHUNK_NBYTES: u32 = 1 << 20;
/// The time it takes to load or create a chunk, and to do something elementwise with it.
const LOAD_US: u32 = 2_000;
const WORK_US: u32 = 1_000;
/// A result that is a number or two.
const SCALAR_NBYTES: u32 = 8;

/// Which graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Name {
    /// Independent tasks of 1 ms and 1 KiB.
    Map,
    /// A binary tree of sums, 1 ms and 8 KiB each.
    Tree,
    /// A one-dimensional stencil, four columns a worker, 1 ms and 16 KiB.
    Stencil,
    /// Block sums of x + x.T.
    TransposeSum,
    /// Every reducer takes a part of every mapper's result, through one gather group.
    Shuffle,
    /// Block sums of a[1:, 1:] - b[:-1, :-1].
    DoubleDiff,
    /// The mean of deviations from the mean of each group of rows: rows are used again long after they were first.
    Anomaly,
    /// Independent tasks whose times are lognormal, 6.3 ms in the mean.
    Lognormal,
}

/// What a task is made to cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Time on a slot, in microseconds.
    pub(super) duration_us: u32,
    /// Size of the result in bytes.
    pub(super) nbytes: u32,
    /// Addressable parts of the result, 0 when only whole.
    pub(super) n_parts: u32,
}

/// A graph to schedule.
pub(super) struct Workload {
    pub(super) graph: Graph,
    /// By task.
    pub(super) costs: Vec<Cost>,
    /// A lower bound on the bytes that workers exchange when all take part; `None` where none is known.
    pub(super) least_nbytes: Option<u64>,
}

impl Workload {
    /// The size of one part of a result: an even share.
    pub(super) fn part_nbytes(&self, task: TaskIdx, part: Part) -> u64 {
        let cost = self.costs[task.index()];
        if part.is_whole() || cost.n_parts == 0 { u64::from(cost.nbytes) } else { u64::from(cost.nbytes / cost.n_parts) }
    }
}

/// What the durations of tasks are drawn from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) seed: u64,
    /// The mean of a task that works on a chunk, in microseconds.
    pub(super) work_us: u32,
}

/// `name` with about `n_tasks` tasks, for `n_workers` workers.
///
/// # Errors
/// When there are too few tasks to make the pattern.
pub(super) fn build(name: Name, n_tasks: u32, n_workers: u32, draw: Draw) -> Result<Workload> {
    ensure!(n_tasks >= 8, "a workload has at least 8 tasks");
    let sketch = Sketch::new(draw);
    match name {
        Name::Map => map(sketch, n_tasks),
        Name::Tree => tree(sketch, n_tasks, n_workers),
        Name::Stencil => stencil(sketch, n_tasks, n_workers),
        Name::TransposeSum => transpose_sum(sketch, n_tasks),
        Name::Shuffle => shuffle(sketch, n_tasks, n_workers),
        Name::DoubleDiff => double_diff(sketch, n_tasks, n_workers),
        Name::Anomaly => anomaly(sketch, n_tasks, n_workers),
        Name::Lognormal => lognormal(sketch, n_tasks),
    }
}

fn map(mut sketch: Sketch, n_tasks: u32) -> Result<Workload> {
    let mapped = sketch.family("map");
    for member in 0..n_tasks {
        sketch.add(mapped, member, &[], WORK_US, 1 << 10);
    }
    sketch.finish(Some(0))
}

/// Every worker that took part has to hand on its share of the sum once, except the one that ends up with it.
fn tree(mut sketch: Sketch, n_tasks: u32, n_workers: u32) -> Result<Workload> {
    const NBYTES: u32 = 8 << 10;
    let (leaf, sum) = (sketch.family("leaf"), sketch.family("sum"));
    let n_leaves = n_tasks.div_ceil(2);
    let leaves = (0..n_leaves).map(|member| sketch.add(leaf, member, &[], WORK_US, NBYTES)).collect();
    sketch.reduce(sum, leaves, 2, (WORK_US, NBYTES));
    sketch.finish(Some(u64::from(n_leaves.min(n_workers) - 1) * u64::from(NBYTES)))
}

/// Workers that share the columns of a step form a chain of neighbours at least, and neighbours exchange a result each way.
fn stencil(mut sketch: Sketch, n_tasks: u32, n_workers: u32) -> Result<Workload> {
    const NBYTES: u32 = 16 << 10;
    let width = (4 * n_workers).clamp(2, (n_tasks / 2).max(2));
    let n_steps = (n_tasks / width).max(2);
    let family = sketch.family("step");
    let mut last: Vec<TaskIdx> = Vec::new();
    for step in 0..n_steps {
        let columns = 0..width as usize;
        let add = |column: usize| {
            let from = if step == 0 { 0..0 } else { column.saturating_sub(1)..(column + 2).min(width as usize) };
            sketch.add(family, step * width + column as u32, &last[from], WORK_US, NBYTES)
        };
        last = columns.map(add).collect();
    }
    let n_borders = u64::from(n_workers.min(width) - 1) * u64::from(n_steps - 1);
    sketch.finish(Some(2 * n_borders * u64::from(NBYTES)))
}

/// Blocks (i, j) and (j, i) loaded by the same worker need no transfer at all.
fn transpose_sum(mut sketch: Sketch, n_tasks: u32) -> Result<Workload> {
    let side = (n_tasks / 2).isqrt();
    let (x, sum) = (sketch.family("x"), sketch.family("sum"));
    let blocks: Vec<TaskIdx> = (0..side * side).map(|block| sketch.add(x, block, &[], LOAD_US, CHUNK_NBYTES)).collect();
    for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
        let pair = [blocks[(i * side + j) as usize], blocks[(j * side + i) as usize]];
        let inputs = if i == j { &pair[..1] } else { &pair[..] };
        sketch.add(sum, i * side + j, inputs, WORK_US, SCALAR_NBYTES);
    }
    sketch.finish(Some(0))
}

/// With mappers and reducers spread evenly over W workers, a reducer finds a share of 1/W of its parts where it runs.
fn shuffle(mut sketch: Sketch, n_tasks: u32, n_workers: u32) -> Result<Workload> {
    let n_each = n_tasks / 2;
    let (mapper, reducer) = (sketch.family("mapper"), sketch.family("reducer"));
    let members: Vec<TaskIdx> = (0..n_each).map(|member| sketch.add(mapper, member, &[], LOAD_US, CHUNK_NBYTES)).collect();
    members.iter().for_each(|member| sketch.costs[member.index()].n_parts = n_each);
    let group = sketch.graph.group(members);
    for part in 0..n_each {
        let key = KeyRef { family: reducer.0, member: Some(part) };
        let task = sketch.graph.task_with(key, reducer.1).input_group(group, Part(part)).add();
        sketch.cost(task, WORK_US, SCALAR_NBYTES);
    }
    let part_nbytes = u64::from(CHUNK_NBYTES / n_each);
    let total = u64::from(n_each) * u64::from(n_each) * part_nbytes;
    sketch.finish(Some(total - total / u64::from(n_workers.min(n_each))))
}

/// A worker with k of the outputs needs at least (sqrt(k) + 1)^2 chunks of `a` (the area of a set of k unit squares grown by
/// a unit square, by the Brunn-Minkowski inequality); what the workers need beyond the chunks there are has to be copied.
fn double_diff(mut sketch: Sketch, n_tasks: u32, n_workers: u32) -> Result<Workload> {
    let side = (n_tasks / 3).isqrt();
    let (a, b, diff) = (sketch.family("a"), sketch.family("b"), sketch.family("diff"));
    let side_a = side + 1;
    let of_a: Vec<TaskIdx> = (0..side_a * side_a).map(|block| sketch.add(a, block, &[], LOAD_US, CHUNK_NBYTES)).collect();
    let of_b: Vec<TaskIdx> = (0..side * side).map(|block| sketch.add(b, block, &[], LOAD_US, CHUNK_NBYTES)).collect();
    for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
        let of_a = |i: u32, j: u32| of_a[(i * side_a + j) as usize];
        let inputs = [of_a(i, j), of_a(i, j + 1), of_a(i + 1, j), of_a(i + 1, j + 1), of_b[(i * side + j) as usize]];
        sketch.add(diff, i * side + j, &inputs, WORK_US, SCALAR_NBYTES);
    }
    let n_sharing = f64::from(n_workers.min(side * side));
    let share = f64::from(side * side) / n_sharing;
    let n_needed = n_sharing * (share.sqrt() + 1.0).powi(2);
    let n_copied = (n_needed - f64::from(side_a * side_a)).max(0.0);
    sketch.finish(Some((n_copied * f64::from(CHUNK_NBYTES)) as u64))
}

/// Neighbours in time are of neighbouring groups, so as many groups as the last mean takes inputs at once can stay together
/// with all their rows; with enough of such for every worker, only shares of that mean have to move.
fn anomaly(mut sketch: Sketch, n_tasks: u32, n_workers: u32) -> Result<Workload> {
    const GROUP: u32 = 100;
    const FAN_IN: usize = 10;
    // A row, its deviation, a tenth of a partial sum and a ninth of a mean; a group's mean of every hundred rows.
    let n_groups = (n_tasks / 222).max(1);
    let n_groups = if n_groups < FAN_IN as u32 { n_groups } else { n_groups - n_groups % FAN_IN as u32 };
    let n_rows = n_groups * if n_groups == 1 { n_tasks.div_ceil(3).min(GROUP) } else { GROUP };
    let (row, climate, deviation, mean) =
        (sketch.family("row"), sketch.family("climate"), sketch.family("deviation"), sketch.family("mean"));
    let rows: Vec<TaskIdx> = (0..n_rows).map(|at| sketch.add(row, at, &[], LOAD_US, CHUNK_NBYTES)).collect();
    let climates: Vec<TaskIdx> = (0..n_groups as usize)
        .map(|group| {
            let of_group = rows.iter().skip(group).step_by(n_groups as usize).copied().collect();
            sketch.reduce(climate, of_group, FAN_IN, (WORK_US, CHUNK_NBYTES))
        })
        .collect();
    let deviations = rows.iter().enumerate().map(|(at, row)| {
        let inputs = [*row, climates[at % n_groups as usize]];
        sketch.add(deviation, at as u32, &inputs, WORK_US, CHUNK_NBYTES)
    });
    let deviations = deviations.collect();
    sketch.reduce(mean, deviations, FAN_IN, (WORK_US, CHUNK_NBYTES));
    let can_stay = n_workers == 1 || n_groups >= FAN_IN as u32 * n_workers;
    sketch.finish(can_stay.then(|| u64::from(n_workers - 1) * u64::from(CHUNK_NBYTES)))
}

/// min(60 ms, lognormal(1, 1.3) ms), as in Dask's benchmark of inhomogeneous tasks, a thousand times shorter.
fn lognormal(mut sketch: Sketch, n_tasks: u32) -> Result<Workload> {
    let family = sketch.family("sleep");
    for member in 0..n_tasks {
        let task = sketch.add(family, member, &[], 0, SCALAR_NBYTES);
        let ms = (1.0 + 1.3 * sketch.dice.normal()).exp().min(60.0);
        sketch.costs[task.index()].duration_us = (ms * 1e3 * sketch.scale) as u32;
    }
    sketch.finish(Some(0))
}

/// Tasks of one kind: a family of names, and a body.
type Kind = (u32, u32);

/// A graph being drawn up, with what its tasks cost.
struct Sketch {
    graph: GraphBuilder,
    costs: Vec<Cost>,
    dice: Dice,
    /// What times are multiplied with.
    scale: f64,
}

impl Sketch {
    fn new(draw: Draw) -> Self {
        let scale = f64::from(draw.work_us) / f64::from(WORK_US);
        Self { graph: GraphBuilder::new(), costs: Vec::new(), dice: Dice(draw.seed), scale }
    }

    /// Tasks called `name`, learned about under that name too.
    fn family(&mut self, name: &str) -> Kind {
        (self.graph.family(name), self.graph.body(Body::single(&format!("bench.{name}"), 1, "{}")))
    }

    fn add(&mut self, kind: Kind, member: u32, inputs: &[TaskIdx], mean_us: u32, nbytes: u32) -> TaskIdx {
        let key = KeyRef { family: kind.0, member: Some(member) };
        let task = self.graph.task_with(key, kind.1).inputs(inputs.iter().copied()).add();
        self.cost(task, mean_us, nbytes);
        task
    }

    /// The last task added takes `mean_us`, give or take a fifth.
    fn cost(&mut self, task: TaskIdx, mean_us: u32, nbytes: u32) {
        debug_assert_eq!(task.index(), self.costs.len());
        let duration_us = (f64::from(mean_us) * self.scale * (0.8 + 0.4 * self.dice.unit())) as u32;
        self.costs.push(Cost { duration_us, nbytes, n_parts: 0 });
    }

    /// A tree over `level` whose tasks take `fan_in` neighbours each and cost (microseconds, bytes) alike. Gives its root.
    fn reduce(&mut self, kind: Kind, mut level: Vec<TaskIdx>, fan_in: usize, (mean_us, nbytes): (u32, u32)) -> TaskIdx {
        while level.len() > 1 {
            let add = |inputs: &[TaskIdx]| match inputs {
                [only] => *only,
                several => self.add(kind, self.costs.len() as u32, several, mean_us, nbytes),
            };
            level = level.chunks(fan_in).map(add).collect();
        }
        level[0]
    }

    /// The graph in its execution order, as a client would submit it, nothing fused or dropped.
    fn finish(self, least_nbytes: Option<u64>) -> Result<Workload> {
        let finished = self.graph.finish(&FinishOptions { cull: false, fuse: false, order: true })?;
        let mut costs = self.costs.clone();
        for (old, new) in finished.renumbering.iter().enumerate() {
            if let Some(new) = new {
                costs[new.index()] = self.costs[old];
            }
        }
        Ok(Workload { graph: finished.graph, costs, least_nbytes })
    }
}

/// A generator of numbers: the same for the same seed, everywhere (splitmix64, Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * self.unit().ln()).sqrt(), std::f64::consts::TAU * self.unit());
        radius * angle.cos()
    }
}
