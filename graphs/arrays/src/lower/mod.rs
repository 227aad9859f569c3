//! From trees to tasks: one task per chunk that is needed, elementwise trees fused into one.
//!
//! Chunks are asked for one by one from the result downwards, so what nobody needs is never made: a slice touches only
//! the chunks under it. Every node is lowered once, however many others use it. The way down is as deep as the tree, so it
//! takes stack from the heap when its own runs out.

mod fuse;
mod rechunk;

use std::collections::HashMap;
use std::sync::Arc;

use rask_graphs::keys::KeyRef;
use rask_graphs::{GraphBuilder, Input, KernelError, Part, Source, TaskIdx, Value};
use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::Serialize;

use crate::array::{Array, Node, Op, shape_touched};
use crate::chunk::Chunk;
use crate::chunking::{offsets, ravel, unravel};
use crate::error::ArrayError;
use crate::kernels::VERSION;
use crate::kernels::create::{CreateArgs, LiteralArgs};
use crate::kernels::layout::{AssembleArgs, Range, ReshapeArgs, SliceArgs, TransposeArgs, assemble};
use crate::kernels::linalg::{LstsqFinishArgs, NoArgs, TsqrArgs};
use crate::kernels::npy::{LoadArgs, WriteArgs};
use crate::kernels::random::RandomArgs;
use crate::kernels::reduce::{Axes, ReduceArgs};
use crate::kernels::scan::ScanArgs;

/// How many partial results one task merges.
const FAN_IN: usize = 8;
/// How many pairs of matrices one task multiplies and adds up.
const PAIRS: usize = 8;

/// Most tasks that arrays of one graph become, for the sake of whoever plans them.
const MAX_TASKS: usize = 2_000_000;
/// So much stack is left when more is taken, which is so much.
const RED_ZONE: usize = 128 << 10;
const STACK_NBYTES: usize = 2 << 20;

/// Lowers arrays into a graph under construction. Keep it for all arrays of a graph, so that what they share is made once.
pub struct Lowering<'a> {
    graph: &'a mut GraphBuilder,
    nodes: FxHashMap<*const Node, Lowered>,
    /// Keeps the nodes alive, so that no address is used twice.
    kept: Vec<Array>,
    families: HashMap<String, u32, FxBuildHasher>,
    n_tasks: usize,
    max_tasks: usize,
}

/// What is there of a node.
struct Lowered {
    family: Arc<str>,
    family_id: u32,
    tasks: Vec<Option<TaskIdx>>,
    n_done: usize,
    along: Option<Arc<Along>>,
    /// Where chunks begin along each axis.
    starts: Option<Arc<Vec<Vec<usize>>>>,
    fused: Option<Arc<fuse::Fused>>,
    cuts: Option<Arc<rechunk::Cuts>>,
    /// The family of the node's helper tasks, and how many there are.
    helpers: Option<(u32, u32)>,
}

/// What is known of a node's axes, found out once for all its chunks.
enum Along {
    /// For each axis and chunk of a slice: the chunk of the input, and what of it.
    Slices(Vec<Vec<(usize, Range)>>),
    /// For each chunk along the axis of a concatenation: the input, and the chunk there.
    Joined(Vec<(usize, usize)>),
}

/// The tasks that make the chunks of an array.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// One per chunk, in C order.
    pub tasks: Vec<TaskIdx>,
    /// How they lie.
    pub grid: ChunkGrid,
}

/// How the chunks of an array lie, for putting their values together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkGrid {
    /// How many chunks lie along each axis.
    pub counts: Vec<usize>,
}

impl ChunkGrid {
    /// One chunk of the chunks' values, which come in C order.
    ///
    /// # Errors
    /// When a value is no chunk, or they do not make a grid.
    pub fn assemble(&self, values: &[Value]) -> Result<Chunk, KernelError> {
        let pieces =
            values.iter().map(|value| value.expect::<Chunk>("an array")).collect::<Result<Vec<&Chunk>, KernelError>>()?;
        assemble(&self.counts, &pieces)
    }
}

impl<'a> Lowering<'a> {
    /// Lower into `graph`.
    pub fn new(graph: &'a mut GraphBuilder) -> Self {
        Self {
            graph,
            nodes: FxHashMap::default(),
            kept: Vec::new(),
            families: HashMap::default(),
            n_tasks: 0,
            max_tasks: MAX_TASKS,
        }
    }

    /// The graph, to add other tasks between arrays.
    pub fn graph(&mut self) -> &mut GraphBuilder {
        self.graph
    }

    /// The tasks of all chunks of `array`.
    ///
    /// # Errors
    /// When there would be too many tasks.
    pub fn lower(&mut self, array: &Array) -> Result<Blocks, ArrayError> {
        let hint = array.0.name.clone().unwrap_or_else(|| "array".to_owned());
        let tasks =
            (0..array.n_chunks()).map(|chunk| self.chunk(array, chunk, &hint)).collect::<Result<Vec<TaskIdx>, ArrayError>>()?;
        Ok(Blocks { tasks, grid: ChunkGrid { counts: array.counts() } })
    }

    /// One task that makes the whole of `array` as a single chunk; for small results.
    ///
    /// # Errors
    /// When there would be too many tasks.
    pub fn assemble(&mut self, array: &Array) -> Result<TaskIdx, ArrayError> {
        let blocks = self.lower(array)?;
        if let [only] = blocks.tasks[..] {
            return Ok(only);
        }
        let name = format!("{}-whole", array.0.name.as_deref().unwrap_or("array"));
        Ok(self.single(&name, "array.assemble", &AssembleArgs { counts: blocks.grid.counts }, &blocks.tasks))
    }

    /// One task that writes `array` as the npy file `path` (as the worker sees it); its result is of kind "file".
    ///
    /// # Errors
    /// When there would be too many tasks.
    pub fn write_npy(&mut self, array: &Array, path: &str) -> Result<TaskIdx, ArrayError> {
        let blocks = self.lower(array)?;
        let name = format!("{}-write", array.0.name.as_deref().unwrap_or("array"));
        let args = WriteArgs { path: path.to_owned(), counts: Some(blocks.grid.counts) };
        Ok(self.single(&name, "array.write", &args, &blocks.tasks))
    }

    fn single(&mut self, name: &str, operator: &str, args: &impl Serialize, inputs: &[TaskIdx]) -> TaskIdx {
        let name = self.unique(name);
        self.graph.task(&name, operator, VERSION, &json(args)).inputs(inputs.iter().copied()).add()
    }

    /// One more task.
    fn count(&mut self) -> Result<(), ArrayError> {
        self.n_tasks += 1;
        if self.n_tasks > self.max_tasks {
            return Err(ArrayError::TooManyTasks { limit: self.max_tasks });
        }
        Ok(())
    }

    fn unique(&mut self, name: &str) -> String {
        let n = self.families.entry(name.to_owned()).or_insert(0);
        *n += 1;
        if *n == 1 { name.to_owned() } else { format!("{name}#{n}") }
    }

    fn node(&mut self, array: &Array, hint: &str) -> &mut Lowered {
        let address = Arc::as_ptr(&array.0);
        if !self.nodes.contains_key(&address) {
            let name = array.0.name.clone().unwrap_or_else(|| format!("{hint}-{}", verb(&array.0.op)));
            let family: Arc<str> = self.unique(&name).into();
            let family_id = self.graph.family(&family);
            let n_chunks = array.n_chunks();
            self.kept.push(array.clone());
            self.nodes.insert(
                address,
                Lowered {
                    family,
                    family_id,
                    tasks: vec![None; n_chunks],
                    n_done: 0,
                    along: None,
                    starts: None,
                    fused: None,
                    cuts: None,
                    helpers: None,
                },
            );
        }
        self.nodes.entry(address).or_insert_with(|| unreachable!("inserted above"))
    }

    /// The task that makes chunk `chunk` (C order) of `array`.
    pub(crate) fn chunk(&mut self, array: &Array, chunk: usize, hint: &str) -> Result<TaskIdx, ArrayError> {
        let node = self.node(array, hint);
        if let Some(task) = node.tasks[chunk] {
            return Ok(task);
        }
        let hint: &str = array.0.name.as_deref().unwrap_or(hint);
        let task = stacker::maybe_grow(RED_ZONE, STACK_NBYTES, || self.make(array, chunk, hint))?;
        let node = self.node(array, hint);
        node.n_done += usize::from(node.tasks[chunk].replace(task).is_none());
        Ok(task)
    }

    /// What a slice or a concatenation `make`s known of its axes.
    fn along(&mut self, array: &Array, make: impl FnOnce() -> Along) -> Arc<Along> {
        let node = self.node(array, "array");
        Arc::clone(node.along.get_or_insert_with(|| Arc::new(make())))
    }

    /// Where the chunk at `position` begins.
    fn start_of(&mut self, array: &Array, position: &[usize]) -> Vec<usize> {
        let make = || Arc::new(array.chunks().iter().map(|sizes| offsets(sizes)).collect());
        let starts = self.node(array, "array").starts.get_or_insert_with(make);
        position.iter().zip(starts.iter()).map(|(&place, starts)| starts[place]).collect()
    }

    /// Add the task of chunk `chunk` of `array`, called by the array's family and the chunk's number.
    fn add(
        &mut self,
        array: &Array,
        chunk: usize,
        operator: &str,
        args: &str,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<TaskIdx, ArrayError> {
        self.count()?;
        let family = self.node(array, "array").family_id;
        let member = if array.n_chunks() == 1 { None } else { u32::try_from(chunk).ok() };
        let body = self.graph.body(rask_graphs::Body::single(operator, VERSION, args));
        let mut task = self.graph.task_with(KeyRef { family, member }, body);
        for input in inputs {
            task = task.input_from(input.source(), input.part);
        }
        Ok(task.add())
    }

    /// Add a helper of `array` that is no chunk of it: a partial result, a split.
    fn add_helper(
        &mut self,
        array: &Array,
        suffix: &str,
        operator: &str,
        args: &str,
        inputs: impl IntoIterator<Item = TaskIdx>,
    ) -> Result<TaskIdx, ArrayError> {
        self.count()?;
        let node = self.node(array, "array");
        let known = node.helpers;
        let name = format!("{}-{suffix}", node.family);
        let (family, member) = known.unwrap_or_else(|| {
            let name = self.unique(&name);
            (self.graph.family(&name), 0)
        });
        self.node(array, "array").helpers = Some((family, member + 1));
        let body = self.graph.body(rask_graphs::Body::single(operator, VERSION, args));
        Ok(self.graph.task_with(KeyRef { family, member: Some(member) }, body).inputs(inputs).add())
    }

    fn make(&mut self, array: &Array, chunk: usize, hint: &str) -> Result<TaskIdx, ArrayError> {
        let position = unravel(chunk, &array.counts());
        match &array.0.op {
            Op::Tasks(tasks) => Ok(tasks[chunk]),
            Op::Create(_) | Op::Random { .. } | Op::Load(_) | Op::Literal(_) => self.source(array, chunk, &position),
            Op::Apply { .. } | Op::Cast(_) => self.fused(array, chunk, &position, hint),
            Op::View { input, axes } => {
                let task = self.chunk(input, fuse::chunk_under(input, axes, &position), hint)?;
                self.add(array, chunk, "array.transpose", &json(&TransposeArgs { axes: Some(axes.clone()) }), whole([task]))
            }
            Op::Slice { input, ranges } => {
                let along = self.along(array, || {
                    let axes = ranges.iter().zip(input.chunks());
                    Along::Slices(axes.map(|(range, sizes)| shape_touched(range, sizes)).collect())
                });
                let Along::Slices(slices) = &*along else { unreachable!("a slice knows what it touches") };
                let pieces: Vec<(usize, Range)> = position.iter().zip(slices).map(|(&place, axis)| axis[place]).collect();
                let from: Vec<usize> = pieces.iter().map(|(chunk, _)| *chunk).collect();
                let task = self.chunk(input, ravel(&from, &input.counts()), hint)?;
                let sizes = (0..from.len()).map(|axis| input.chunks()[axis][from[axis]]);
                if pieces.iter().zip(sizes).all(|((_, range), size)| range.is_whole(size)) {
                    return Ok(task);
                }
                self.add(array, chunk, "array.slice", &json(&slice_args(&pieces)), whole([task]))
            }
            Op::Rechunk(input) => self.rechunk(array, input, chunk, &position, hint),
            Op::Reshape(input) => {
                let task = self.chunk(input, chunk, hint)?;
                let shape = position.iter().enumerate().map(|(axis, &place)| array.chunks()[axis][place] as i64).collect();
                self.add(array, chunk, "array.reshape", &json(&ReshapeArgs { shape }), whole([task]))
            }
            Op::Concatenate { axis, inputs } => {
                let along = self.along(array, || {
                    let counts = inputs.iter().map(|input| input.chunks()[*axis].len()).enumerate();
                    Along::Joined(counts.flat_map(|(input, count)| (0..count).map(move |place| (input, place))).collect())
                });
                let Along::Joined(places) = &*along else { unreachable!("a concatenation knows what it joins") };
                let (input, place) = places[position[*axis]];
                let mut own = position.clone();
                own[*axis] = place;
                self.chunk(&inputs[input], ravel(&own, &inputs[input].counts()), hint)
            }
            Op::Reduce { .. } => self.reduce(array, chunk, &position, hint),
            Op::Scan { scan, input, axis } => {
                let task = self.chunk(input, chunk, hint)?;
                self.add(array, chunk, scan.operator(), &json(&ScanArgs { axis: *axis as i64 }), whole([task]))
            }
            Op::MatMul(a, b) => self.multiply(array, (a, b), chunk, &position, hint),
            Op::Diagonal(input) => self.diagonal(array, input, chunk, &position, hint),
            Op::Lstsq { matrix, right, is_vector } => self.lstsq(array, matrix, right, *is_vector, hint),
            Op::Solve(a, b) => {
                let tasks = [self.chunk(a, 0, hint)?, self.chunk(b, 0, hint)?];
                self.add(array, chunk, "array.solve", &json(&NoArgs {}), whole(tasks))
            }
        }
    }

    fn source(&mut self, array: &Array, chunk: usize, position: &[usize]) -> Result<TaskIdx, ArrayError> {
        let shape: Vec<usize> = position.iter().enumerate().map(|(axis, &place)| array.chunks()[axis][place]).collect();
        let offset = self.start_of(array, position);
        let (operator, args) = match &array.0.op {
            Op::Create(fill) => {
                let offset = if matches!(fill, crate::kernels::create::Fill::Full(_)) { Vec::new() } else { offset };
                ("array.create", json(&CreateArgs { fill: *fill, shape, dtype: array.dtype(), offset }))
            }
            Op::Random { distribution, parameters, seed } => {
                let args = RandomArgs {
                    distribution: *distribution,
                    shape,
                    seed: *seed,
                    dtype: Some(array.dtype()),
                    parameters: parameters.clone(),
                    offset: Some(offset),
                    whole: Some(array.shape()),
                };
                ("array.random", json(&args))
            }
            Op::Load(path) => {
                let stops = offset.iter().zip(&shape).map(|(start, size)| start + size).collect();
                ("array.load", json(&LoadArgs { path: path.display().to_string(), starts: Some(offset), stops: Some(stops) }))
            }
            Op::Literal(literal) => ("array.literal", json(&LiteralArgs::of(literal))),
            Op::Tasks(_)
            | Op::Apply { .. }
            | Op::Cast(_)
            | Op::View { .. }
            | Op::Slice { .. }
            | Op::Rechunk(_)
            | Op::Reshape(_) => unreachable!("not a source"),
            Op::Concatenate { .. } | Op::Reduce { .. } | Op::Scan { .. } => unreachable!("not a source"),
            Op::MatMul(..) | Op::Diagonal(_) | Op::Lstsq { .. } | Op::Solve(..) => {
                unreachable!("not a source")
            }
        };
        self.add(array, chunk, operator, &args, [])
    }

    /// Partial results per chunk, merged in a tree, finished by the last task.
    fn reduce(&mut self, array: &Array, chunk: usize, position: &[usize], hint: &str) -> Result<TaskIdx, ArrayError> {
        let Op::Reduce { reduction, input, axes, keepdims, ddof } = &array.0.op else {
            unreachable!("called for reductions only")
        };
        let counts = input.counts();
        let mut kept = position.iter();
        let fixed: Vec<Option<usize>> = (0..counts.len())
            .map(|axis| {
                if !axes.contains(&axis) {
                    return kept.next().copied();
                }
                if *keepdims {
                    kept.next();
                }
                None
            })
            .collect();
        let reduced_counts: Vec<usize> = axes.iter().map(|&axis| counts[axis]).collect();
        let n_chunks: usize = reduced_counts.iter().product();
        let is_positional = reduction.is_positional();
        let over_all = axes.len() == counts.len();
        let axis = (!over_all).then(|| Axes::Many(axes.iter().map(|&axis| axis as i64).collect()));
        let finishing = ReduceArgs { axis, keepdims: *keepdims, ddof: *ddof, ..ReduceArgs::default() };
        let mut level = Vec::with_capacity(n_chunks);
        for number in 0..n_chunks {
            let along = unravel(number, &reduced_counts);
            let mut from: Vec<usize> = fixed.iter().map(|place| place.unwrap_or(0)).collect();
            for (&axis, &place) in axes.iter().zip(&along) {
                from[axis] = place;
            }
            let task = self.chunk(input, ravel(&from, &counts), hint)?;
            let mut args = ReduceArgs { partial: n_chunks > 1, ..finishing.clone() };
            if is_positional {
                args.offset = self.start_of(input, &from);
                if over_all {
                    args.whole = input.shape();
                }
            }
            if n_chunks == 1 {
                return self.add(array, chunk, reduction.operator(), &json(&args), whole([task]));
            }
            level.push(self.add_helper(array, "part", reduction.operator(), &json(&args), [task])?);
        }
        let merging = json(&ReduceArgs { partial: true, ..finishing.clone() });
        while level.len() > FAN_IN {
            let groups: Vec<Vec<TaskIdx>> = level.chunks(FAN_IN).map(<[TaskIdx]>::to_vec).collect();
            level = groups
                .into_iter()
                .map(|group| {
                    if let [only] = group[..] {
                        Ok(only)
                    } else {
                        self.add_helper(array, "part", reduction.operator(), &merging, group)
                    }
                })
                .collect::<Result<Vec<TaskIdx>, ArrayError>>()?;
        }
        self.add(array, chunk, reduction.operator(), &json(&finishing), whole(level))
    }

    fn multiply(
        &mut self,
        array: &Array,
        (a, b): (&Array, &Array),
        chunk: usize,
        position: &[usize],
        hint: &str,
    ) -> Result<TaskIdx, ArrayError> {
        let (counts_a, counts_b) = (a.counts(), b.counts());
        let n_inner = counts_a[counts_a.len() - 1];
        let [stack @ .., row, column] = position else { unreachable!("a product has two axes at least") };
        // Each one's stack lies at the last axes of the whole stack; what is there once goes with everything.
        let under = |counts: &[usize]| -> Vec<usize> {
            let own = &counts[..counts.len() - 2];
            let places = &stack[stack.len() - own.len()..];
            places.iter().zip(own).map(|(&place, &count)| if count == 1 { 0 } else { place }).collect()
        };
        let (mut of_a, mut of_b) = (under(&counts_a), under(&counts_b));
        of_a.extend([*row, 0]);
        of_b.extend([0, *column]);
        let (inner_a, inner_b) = (of_a.len() - 1, of_b.len() - 2);
        let mut pairs = Vec::with_capacity(2 * n_inner);
        for inner in 0..n_inner {
            of_a[inner_a] = inner;
            of_b[inner_b] = inner;
            pairs.push(self.chunk(a, ravel(&of_a, &counts_a), hint)?);
            pairs.push(self.chunk(b, ravel(&of_b, &counts_b), hint)?);
        }
        let args = json(&NoArgs {});
        if n_inner <= PAIRS {
            return self.add(array, chunk, "array.matmul", &args, whole(pairs));
        }
        let groups: Vec<Vec<TaskIdx>> = pairs.chunks(2 * PAIRS).map(<[TaskIdx]>::to_vec).collect();
        let mut level: Vec<TaskIdx> = groups
            .into_iter()
            .map(|group| self.add_helper(array, "part", "array.matmul", &args, group))
            .collect::<Result<Vec<TaskIdx>, ArrayError>>()?;
        while level.len() > 2 {
            let groups: Vec<Vec<TaskIdx>> = level.chunks(2).map(<[TaskIdx]>::to_vec).collect();
            level =
                groups
                    .into_iter()
                    .map(|group| {
                        if let [only] = group[..] { Ok(only) } else { self.add_helper(array, "part", "array.add", &args, group) }
                    })
                    .collect::<Result<Vec<TaskIdx>, ArrayError>>()?;
        }
        self.add(array, chunk, "array.add", &args, whole(level))
    }

    fn diagonal(
        &mut self,
        array: &Array,
        input: &Array,
        chunk: usize,
        position: &[usize],
        hint: &str,
    ) -> Result<TaskIdx, ArrayError> {
        if let [place] = position {
            let task = self.chunk(input, ravel(&[*place, *place], &input.counts()), hint)?;
            return self.add(array, chunk, "array.diag", &json(&NoArgs {}), whole([task]));
        }
        if position[0] == position[1] {
            let task = self.chunk(input, position[0], hint)?;
            return self.add(array, chunk, "array.diag", &json(&NoArgs {}), whole([task]));
        }
        let shape = position.iter().enumerate().map(|(axis, &place)| array.chunks()[axis][place]).collect();
        let args = CreateArgs {
            fill: crate::kernels::create::Fill::Full(crate::scalar::Scalar::Int(0)),
            shape,
            dtype: array.dtype(),
            offset: Vec::new(),
        };
        self.add(array, chunk, "array.create", &json(&args), [])
    }

    fn lstsq(
        &mut self,
        array: &Array,
        matrix: &Array,
        right: &Array,
        is_vector: bool,
        hint: &str,
    ) -> Result<TaskIdx, ArrayError> {
        let beside = json(&TsqrArgs { n_across: 2 });
        let n_blocks = matrix.counts()[0];
        let mut level = Vec::with_capacity(n_blocks);
        for block in 0..n_blocks {
            let tasks = [self.chunk(matrix, block, hint)?, self.chunk(right, block, hint)?];
            level.push(self.add_helper(array, "factor", "array.tsqr", &beside, tasks)?);
        }
        let stacked = json(&TsqrArgs { n_across: 1 });
        while level.len() > 1 {
            let groups: Vec<Vec<TaskIdx>> = level.chunks(FAN_IN).map(<[TaskIdx]>::to_vec).collect();
            level = groups
                .into_iter()
                .map(|group| {
                    if let [only] = group[..] {
                        Ok(only)
                    } else {
                        self.add_helper(array, "factor", "array.tsqr", &stacked, group)
                    }
                })
                .collect::<Result<Vec<TaskIdx>, ArrayError>>()?;
        }
        let args = LstsqFinishArgs { n_unknowns: matrix.shape()[1], rcond: None, is_vector };
        self.add(array, 0, "array.lstsq_finish", &json(&args), whole(level))
    }
}

fn slice_args(pieces: &[(usize, Range)]) -> SliceArgs {
    let mut args = SliceArgs::default();
    for (_, range) in pieces {
        // Past the front, going backwards, there is no index to stop before; an unknown size is a whole axis.
        let is_whole = range.n == crate::UNKNOWN;
        let end = range.start as i64 + range.step.saturating_mul(range.n as i64);
        args.starts.push((!is_whole).then_some(range.start as i64));
        args.stops.push((!is_whole && end >= 0).then_some(end));
        args.steps.push(range.step);
    }
    args
}

/// Whole results of tasks as inputs.
fn whole(tasks: impl IntoIterator<Item = TaskIdx>) -> impl Iterator<Item = Input> {
    tasks.into_iter().map(|task| Input::new(Source::Task(task), Part::WHOLE))
}

/// Arguments as text. They are plain data, so there is nothing that JSON could not say.
pub(crate) fn json(args: &impl Serialize) -> String {
    serde_json::to_string(args).unwrap_or_else(|error| unreachable!("arguments are plain data: {error}"))
}

/// What the tasks of an unnamed node are called.
fn verb(op: &Op) -> &'static str {
    match op {
        Op::Create(_) => "create",
        Op::Random { .. } => "random",
        Op::Load(_) => "load",
        Op::Literal(_) => "literal",
        Op::Tasks(_) => "given",
        Op::Apply { function, .. } => function.name(),
        Op::Cast(_) => "astype",
        Op::View { .. } => "transpose",
        Op::Slice { .. } => "slice",
        Op::Rechunk(_) => "rechunk",
        Op::Reshape(_) => "reshape",
        Op::Concatenate { .. } => "concatenate",
        Op::Reduce { reduction, .. } => reduction.name(),
        Op::Scan { scan, .. } => &scan.operator()["array.".len()..],
        Op::MatMul(..) => "matmul",
        Op::Diagonal(_) => "diag",
        Op::Lstsq { .. } => "lstsq",
        Op::Solve(..) => "solve",
    }
}

#[cfg(test)]
mod tests;
