//! The graphs of a soak, drawn from a seed, with what each of their outputs must be.
//!
//! What must come out is worked out here, from the seeds of the chunks alone, while the graph is drawn. So it shares with the
//! cluster only the generator of numbers.

use std::collections::{BTreeSet, VecDeque};

use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, GraphBuilder, Part, Source, TaskIdx};
use serde_json::json;

use super::super::kernels::{blended_seed, sum_of_chunk, sum_of_part};
use super::super::memory::add_up;

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
pub(super) struct Dice(u64);

impl Dice {
    /// The sequence of `seed` at `place`, which is different for each place.
    pub(super) fn at(seed: u64, place: [u64; 2]) -> Self {
        let mut dice = Self(seed);
        for step in place {
            dice.0 = dice.next() ^ step.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `least` to `most`.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.between(0, of.len() as u64 - 1) as usize]
    }
}

/// What an output must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// The chunk of this seed and size.
    Chunk { seed: u64, nbytes: u64 },
    /// The eight bytes of this sum.
    Sum(u64),
    /// A failure with one of these messages, those of the tasks it comes from that fail.
    Failure(BTreeSet<String>),
}

/// A graph and what its outputs must be.
pub(super) struct Drawing {
    pub(super) graph: GraphBuilder,
    pub(super) outputs: Vec<(TaskIdx, Expected)>,
}

impl Drawing {
    pub(super) fn new() -> Self {
        Self { graph: GraphBuilder::new(), outputs: Vec::new() }
    }

    pub(super) fn output(&mut self, task: TaskIdx, expected: Expected) {
        self.graph.output(task);
        self.outputs.push((task, expected));
    }

    fn fill(&mut self, seed: u64, nbytes: u64, n_parts: u64) -> TaskIdx {
        let args = json!({ "seed": seed, "nbytes": nbytes, "n_parts": n_parts });
        let (family, body) = (self.graph.family("chunk"), self.graph.body(Body::single("bench.fill", 1, &args.to_string())));
        self.graph.task_with(KeyRef { family, member: u32::try_from(seed).ok() }, body).add()
    }
}

/// How big graphs are.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Memory of all workers, and of each.
    pub(super) memory: u64,
    pub(super) worker_memory: u64,
    pub(super) chunk: u64,
}

impl Scale {
    /// So many chunks that they take `least` to `most` percent of the workers' memory.
    fn n_chunks(self, dice: &mut Dice, least: u64, most: u64) -> u64 {
        (self.memory / 100 * dice.between(least, most) / self.chunk).max(2)
    }
}

/// Seeds of `n` chunks, neighbours in a drawn place.
fn seeds(dice: &mut Dice, n: u64) -> std::ops::Range<u64> {
    let first = dice.between(0, 1 << 28);
    first..first + n
}

/// Chunks that are to stay, and the graph that adds them up later.
pub(super) fn persisted(dice: &mut Dice, scale: Scale) -> (Drawing, u64) {
    let mut drawing = Drawing::new();
    let n_chunks = scale.n_chunks(dice, 50, 150);
    let mut sum = 0u64;
    for seed in seeds(dice, n_chunks) {
        let chunk = drawing.fill(seed, scale.chunk, 0);
        drawing.output(chunk, Expected::Chunk { seed, nbytes: scale.chunk });
        sum = sum.wrapping_add(sum_of_chunk(seed, scale.chunk));
    }
    (drawing, sum)
}

/// A sum of chunks that nobody keeps.
pub(super) fn streaming(dice: &mut Dice, scale: Scale) -> Drawing {
    let mut drawing = Drawing::new();
    let n_chunks = scale.n_chunks(dice, 100, 250);
    let (mut chunks, mut sum) = (Vec::new(), 0u64);
    for seed in seeds(dice, n_chunks) {
        chunks.push(Source::Task(drawing.fill(seed, scale.chunk, 0)));
        sum = sum.wrapping_add(sum_of_chunk(seed, scale.chunk));
    }
    let root = add_up(&mut drawing.graph, chunks);
    drawing.output(root, Expected::Sum(sum));
    drawing
}

/// Rows regrouped as columns through a gather group, the sum of each of a few columns, and that of all.
pub(super) fn rechunk(dice: &mut Dice, scale: Scale) -> Drawing {
    let mut drawing = Drawing::new();
    let n = scale.n_chunks(dice, 40, 120);
    let rows = seeds(dice, n);
    let tasks = rows.clone().map(|seed| drawing.fill(seed, scale.chunk, n)).collect();
    let sum = rows.clone().fold(0u64, |sum, seed| sum.wrapping_add(sum_of_chunk(seed, scale.chunk)));
    let graph = &mut drawing.graph;
    let (family, body) = (graph.family("column"), graph.body(Body::single("bench.join", 1, "{}")));
    let group = graph.group(tasks);
    let join = |graph: &mut GraphBuilder, part: u64| {
        let part = part as u32;
        graph.task_with(KeyRef { family, member: Some(part) }, body).input_group(group, Part(part)).add()
    };
    let columns: Vec<TaskIdx> = (0..n).map(|part| join(graph, part)).collect();
    let root = add_up(graph, columns.iter().map(|column| Source::Task(*column)).collect());
    drawing.output(root, Expected::Sum(sum));
    let (family, body) = (drawing.graph.family("of_column"), drawing.graph.body(Body::single("bench.total", 1, "{}")));
    for part in (0..n).step_by(n.div_ceil(3) as usize) {
        let of_rows = rows.clone().map(|seed| sum_of_part(seed, scale.chunk, part, n));
        let expected = Expected::Sum(of_rows.fold(0, u64::wrapping_add));
        let key = KeyRef { family, member: Some(part as u32) };
        let total = drawing.graph.task_with(key, body).input(columns[part as usize]).add();
        drawing.output(total, expected);
    }
    drawing
}

/// A task of a graph of blends, as far as it is known without running it.
struct Blend {
    task: TaskIdx,
    /// Of its result's numbers.
    sum: u64,
    seed: u64,
    nbytes: u64,
    /// Messages of the failures it must end in one of.
    failures: BTreeSet<String>,
}

impl Blend {
    fn expected(&self) -> Expected {
        if self.failures.is_empty() {
            Expected::Chunk { seed: self.seed, nbytes: self.nbytes }
        } else {
            Expected::Failure(self.failures.clone())
        }
    }
}

/// Add a task that blends `inputs`, or fails with `message` if there is one.
fn blend(drawing: &mut Drawing, own_seed: u64, nbytes: u64, inputs: &[&Blend], message: Option<String>) -> Blend {
    let body = match &message {
        None => Body::single("bench.blend", 1, &json!({ "seed": own_seed, "nbytes": nbytes }).to_string()),
        Some(message) => Body::single("core.fail", 1, &json!({ "message": message }).to_string()),
    };
    let (family, body) = (drawing.graph.family("blend"), drawing.graph.body(body));
    let key = KeyRef { family, member: u32::try_from(own_seed).ok() };
    let task = drawing.graph.task_with(key, body).inputs(inputs.iter().map(|input| input.task)).add();
    // One that has a failed input does not run, and fails as that.
    let mut failures: BTreeSet<String> = inputs.iter().flat_map(|input| input.failures.iter().cloned()).collect();
    if failures.is_empty() {
        failures.extend(message);
    }
    let seed = blended_seed(own_seed, inputs.iter().map(|input| input.sum));
    let sum = if failures.is_empty() { sum_of_chunk(seed, nbytes) } else { 0 };
    Blend { task, sum, seed, nbytes, failures }
}

/// Bytes of the results of tiny tasks.
const TINY: u64 = 16;

/// A chain, or a tree, of tasks that take no time.
pub(super) fn tiny(dice: &mut Dice) -> Drawing {
    let mut drawing = Drawing::new();
    let (n_tasks, is_chain) = (dice.between(500, 4_000), dice.between(0, 1) == 0);
    let (n_roots, fan_in) = if is_chain { (1, 1) } else { (n_tasks / 2, dice.between(2, 8) as usize) };
    let mut left: VecDeque<Blend> = (0..n_roots).map(|seed| blend(&mut drawing, seed, TINY, &[], None)).collect();
    for own_seed in n_roots..n_tasks {
        if !is_chain && left.len() == 1 {
            break;
        }
        let inputs: Vec<Blend> = left.drain(..fan_in.min(left.len())).collect();
        left.push_back(blend(&mut drawing, own_seed, TINY, &inputs.iter().collect::<Vec<_>>(), None));
    }
    for last in left {
        drawing.output(last.task, last.expected());
    }
    drawing
}

/// Any graph: results of all sizes, most with few inputs and some with hundreds. `n_failing` of its tasks fail.
pub(super) fn dag(dice: &mut Dice, scale: Scale, n_failing: u64) -> Drawing {
    let mut drawing = Drawing::new();
    let n_tasks = dice.between(60, 400);
    let failing: BTreeSet<u64> = (0..n_failing).map(|_| dice.between(n_tasks / 10, n_tasks - 1)).collect();
    // Half of the workers' memory at least is in the big ones of these.
    let big = scale.memory / n_tasks / 2;
    let mut tasks: Vec<Blend> = Vec::new();
    for own_seed in 0..n_tasks {
        let n_before = tasks.len() as u64;
        let n_inputs = match dice.between(0, 19) {
            0..=2 => 0,
            3..=17 => dice.between(1, 4),
            18 => dice.between(5, 40),
            _ => dice.between(40, 300),
        };
        // Mostly late ones, so that there are long ways.
        let nearest = dice.pick(&[8, 32, n_before.max(1)]).min(n_before.max(1));
        let picks: Vec<usize> =
            (0..n_inputs.min(n_before)).map(|_| dice.between(n_before - nearest.min(n_before), n_before - 1) as usize).collect();
        let nbytes = dice.pick(&[16, 256, 8_192, 100_000, big / 2, big, 2 * big.min(scale.chunk), scale.chunk]) / 8 * 8;
        let message = failing.contains(&own_seed).then(|| format!("task {own_seed} was to fail"));
        // All inputs have to be in memory at once.
        let mut room = scale.worker_memory / 3;
        let fits = |input: &&Blend| {
            let left = room.checked_sub(input.nbytes);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let inputs: Vec<&Blend> = picks.iter().map(|pick| &tasks[*pick]).filter(fits).collect();
        let next = blend(&mut drawing, own_seed, nbytes, &inputs, message);
        tasks.push(next);
    }
    let n_outputs = dice.between(1, 12);
    let mut outputs: BTreeSet<usize> = (0..n_outputs).map(|_| dice.between(0, n_tasks - 1) as usize).collect();
    outputs.insert(tasks.len() - 1);
    for idx in outputs {
        drawing.output(tasks[idx].task, tasks[idx].expected());
    }
    drawing
}

/// A few results of several chunks each, for the client.
pub(super) fn big_results(dice: &mut Dice, scale: Scale) -> Drawing {
    let mut drawing = Drawing::new();
    let n = dice.between(4, 10);
    for seed in seeds(dice, n) {
        let nbytes = scale.chunk * dice.between(1, 4);
        let task = drawing.fill(seed, nbytes, 0);
        drawing.output(task, Expected::Chunk { seed, nbytes });
    }
    drawing
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { memory: 64 << 20, worker_memory: 32 << 20, chunk: 1 << 20 };

    #[test]
    fn a_place_has_one_sequence_and_others_have_others() {
        let draw = |seed, place| Dice::at(seed, place).between(0, u64::MAX - 1);
        assert_eq!(draw(1, [2, 3]), draw(1, [2, 3]));
        assert_ne!(draw(1, [2, 3]), draw(1, [3, 2]));
        assert_ne!(draw(1, [2, 3]), draw(2, [2, 3]));
    }

    #[test]
    fn what_comes_after_a_failure_fails_with_it_and_nothing_else_does() {
        let mut drawing = Drawing::new();
        let good = blend(&mut drawing, 0, 16, &[], None);
        let bad = blend(&mut drawing, 1, 16, &[&good], Some("no".to_owned()));
        let behind = blend(&mut drawing, 2, 16, &[&good, &bad], Some("never runs".to_owned()));
        let beside = blend(&mut drawing, 3, 16, &[&good], None);
        assert_eq!(behind.expected(), Expected::Failure(BTreeSet::from(["no".to_owned()])));
        assert!(matches!(beside.expected(), Expected::Chunk { nbytes: 16, .. }));
    }

    #[test]
    fn a_graph_takes_what_it_is_meant_to_of_the_workers_memory() {
        let (drawing, _) = persisted(&mut Dice::at(7, [0, 0]), SCALE);
        assert!((32..=96).contains(&drawing.outputs.len()), "{}", drawing.outputs.len());
        let drawing = dag(&mut Dice::at(7, [0, 1]), SCALE, 3);
        assert!(drawing.outputs.iter().any(|(_, expected)| matches!(expected, Expected::Chunk { .. } | Expected::Failure(_))));
    }
}
