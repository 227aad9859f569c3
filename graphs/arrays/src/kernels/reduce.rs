//! Reductions: per chunk, merged in a tree, finished once, so that the result does not depend on who computed what.
//!
//! Sums are pairwise and, for floats, in double precision. What travels between the levels of the tree is a `Partial`:
//! the accumulators, each an array with the reduced axes kept at length 1.

use rask_graphs::{KernelError, TaskContext, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::chunking::{ravel, unravel};
use crate::dtype::{DType, with_type};
use crate::kernels::layout::{TransposeArgs, transpose};
use crate::kernels::number::Number;
use crate::kernels::partial::{Partial, finish, merge};

mod extremes;

pub(crate) use extremes::{beats, nan_maximum, nan_minimum};
use extremes::{extremes, positions};

/// A reduction by NumPy's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Product.
    Prod,
    /// Arithmetic mean.
    Mean,
    /// Variance.
    Var,
    /// Standard deviation.
    Std,
    /// Smallest; NaN if any is.
    Min,
    /// Largest; NaN if any is.
    Max,
    /// Whether any is nonzero.
    Any,
    /// Whether all are nonzero.
    All,
    /// Position of the first smallest; of the first NaN if there is one.
    Argmin,
    /// Position of the first largest; of the first NaN if there is one.
    Argmax,
    /// How many are nonzero.
    CountNonzero,
    /// Smallest of what is not NaN; NaN if nothing else is there.
    NanMin,
    /// Largest of what is not NaN; NaN if nothing else is there.
    NanMax,
    /// Position of the first smallest of what is not NaN.
    NanArgmin,
    /// Position of the first largest of what is not NaN.
    NanArgmax,
}

/// Arguments of the reductions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReduceArgs {
    /// The axis or axes to reduce; all unless given. Negative counts from the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<Axes>,
    /// Keep reduced axes with length 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keepdims: bool,
    /// For var and std: the divisor is n - ddof.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ddof: i64,
    /// Do not finish: the result is merged with others later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// For argmin and argmax: where the input begins in the whole array.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offset: Vec<usize>,
    /// For argmin and argmax over all axes: the shape of the whole array.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<usize>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// One axis or several.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Axes {
    /// One.
    One(i64),
    /// Several.
    Many(Vec<i64>),
}

impl Reduction {
    /// Every reduction.
    pub const ALL: [Reduction; 16] = [
        Reduction::Sum,
        Reduction::Prod,
        Reduction::Mean,
        Reduction::Var,
        Reduction::Std,
        Reduction::Min,
        Reduction::Max,
        Reduction::Any,
        Reduction::All,
        Reduction::Argmin,
        Reduction::Argmax,
        Reduction::CountNonzero,
        Reduction::NanMin,
        Reduction::NanMax,
        Reduction::NanArgmin,
        Reduction::NanArgmax,
    ];

    /// NumPy's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.operator()["array.".len()..]
    }

    /// The operator.
    #[must_use]
    pub fn operator(self) -> &'static str {
        match self {
            Reduction::Sum => "array.sum",
            Reduction::Prod => "array.prod",
            Reduction::Mean => "array.mean",
            Reduction::Var => "array.var",
            Reduction::Std => "array.std",
            Reduction::Min => "array.min",
            Reduction::Max => "array.max",
            Reduction::Any => "array.any",
            Reduction::All => "array.all",
            Reduction::Argmin => "array.argmin",
            Reduction::Argmax => "array.argmax",
            Reduction::CountNonzero => "array.count_nonzero",
            Reduction::NanMin => "array.nanmin",
            Reduction::NanMax => "array.nanmax",
            Reduction::NanArgmin => "array.nanargmin",
            Reduction::NanArgmax => "array.nanargmax",
        }
    }

    /// What it computes, one sentence.
    #[must_use]
    pub fn doc(self) -> &'static str {
        match self {
            Reduction::Sum => "Sum over axes of one array, or of several as if they were one.",
            Reduction::Prod => "Product over axes of one array, or of several as if they were one.",
            Reduction::Mean => "Arithmetic mean over axes of one array, or of several as if they were one.",
            Reduction::Var => "Variance over axes of one array, or of several as if they were one.",
            Reduction::Std => "Standard deviation over axes of one array, or of several as if they were one.",
            Reduction::Min => "Smallest element over axes of one array, or of several as if they were one.",
            Reduction::Max => "Largest element over axes of one array, or of several as if they were one.",
            Reduction::Any => "Whether any element is nonzero, over axes.",
            Reduction::All => "Whether all elements are nonzero, over axes.",
            Reduction::Argmin => "Position of the first smallest element, over one axis or all.",
            Reduction::Argmax => "Position of the first largest element, over one axis or all.",
            Reduction::CountNonzero => "Number of nonzero elements, over axes.",
            Reduction::NanMin => "Smallest element that is not NaN, over axes; NaN where there is none.",
            Reduction::NanMax => "Largest element that is not NaN, over axes; NaN where there is none.",
            Reduction::NanArgmin => "Position of the first smallest element that is not NaN, over one axis or all.",
            Reduction::NanArgmax => "Position of the first largest element that is not NaN, over one axis or all.",
        }
    }

    /// The element type of the result.
    #[must_use]
    pub fn result_type(self, dtype: DType) -> DType {
        match self {
            Reduction::Sum | Reduction::Prod => dtype.to_sum(),
            Reduction::Mean | Reduction::Var | Reduction::Std => {
                if dtype == DType::F32 {
                    DType::F32
                } else {
                    DType::F64
                }
            }
            Reduction::Min | Reduction::Max | Reduction::NanMin | Reduction::NanMax => dtype,
            Reduction::Any | Reduction::All => DType::Bool,
            Reduction::Argmin | Reduction::Argmax | Reduction::NanArgmin | Reduction::NanArgmax => DType::I64,
            Reduction::CountNonzero => DType::I64,
        }
    }

    /// Whether an empty array has no result.
    #[must_use]
    pub fn needs_elements(self) -> bool {
        self.is_positional() || matches!(self, Reduction::Min | Reduction::Max | Reduction::NanMin | Reduction::NanMax)
    }

    /// Whether the result is a position.
    #[must_use]
    pub fn is_positional(self) -> bool {
        matches!(self, Reduction::Argmin | Reduction::Argmax | Reduction::NanArgmin | Reduction::NanArgmax)
    }
}

/// The axes meant by `axis`, ascending.
pub(crate) fn axes_of(axis: Option<&Axes>, n_axes: usize) -> Result<Vec<usize>, KernelError> {
    let given = match axis {
        None => return Ok((0..n_axes).collect()),
        Some(Axes::One(axis)) => vec![*axis],
        Some(Axes::Many(axes)) => axes.clone(),
    };
    let mut axes = Vec::with_capacity(given.len());
    for axis in given {
        let own = if axis < 0 { axis + n_axes as i64 } else { axis };
        match usize::try_from(own) {
            Ok(own) if own < n_axes && !axes.contains(&own) => axes.push(own),
            Ok(_) | Err(_) => {
                return Err(KernelError(format!("axis {axis} is out of bounds for {n_axes} dimensions, or named twice")));
            }
        }
    }
    axes.sort_unstable();
    Ok(axes)
}

/// Reduce the inputs (chunks, or partials of earlier levels), merge them in order, and finish unless asked not to.
pub(crate) fn reduce(ctx: &TaskContext, reduction: Reduction, args: &ReduceArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let mut partials = Vec::with_capacity(inputs.len());
    for input in inputs {
        partials.push(match input.downcast::<Partial>() {
            Some(partial) if partial.reduction == reduction => partial.clone(),
            Some(partial) => return Err(KernelError(format!("{} of a partial {}", reduction.name(), partial.reduction.name()))),
            None => reduce_chunk(ctx, reduction, args, input.expect::<Chunk>("an array")?)?,
        });
    }
    // Pairs of neighbours, then pairs of pairs: the order is fixed by the inputs alone.
    while partials.len() > 1 {
        let mut next = Vec::with_capacity(partials.len().div_ceil(2));
        let mut left = partials.into_iter();
        while let Some(first) = left.next() {
            next.push(match left.next() {
                Some(second) => merge(reduction, &first, &second)?,
                None => first,
            });
        }
        partials = next;
    }
    let Some(partial) = partials.pop() else { return Err(KernelError("nothing to reduce".to_owned())) };
    if args.partial { Ok(Value::new(partial)) } else { Ok(Value::new(finish(reduction, args, &partial)?)) }
}

/// The most that one element of a result takes before it is finished.
const ACCUMULATORS_NBYTES: u64 = 24;

/// The chunk seen as `outer` blocks of `n` rows of `inner` elements, of which the rows are reduced.
struct View {
    outer: usize,
    n: usize,
    inner: usize,
}

fn reduce_chunk(ctx: &TaskContext, reduction: Reduction, args: &ReduceArgs, chunk: &Chunk) -> Result<Partial, KernelError> {
    let axes = axes_of(args.axis.as_ref(), chunk.shape().len())?;
    let kept: Vec<usize> = (0..chunk.shape().len()).filter(|axis| !axes.contains(axis)).collect();
    let mut shape = chunk.shape().to_vec();
    for &axis in &axes {
        shape[axis] = 1;
    }
    let adjacent = axes.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let is_positional = reduction.is_positional();
    if is_positional && axes.len() > 1 && !kept.is_empty() {
        return Err(KernelError(format!("{} takes one axis, or all", reduction.name())));
    }
    let moved;
    let (chunk, view) = if adjacent {
        let (first, past) = (axes.first().copied().unwrap_or(0), axes.last().map_or(0, |last| last + 1));
        let size = |range: std::ops::Range<usize>| chunk.shape()[range].iter().product::<usize>();
        (chunk, View { outer: size(0..first), n: size(first..past), inner: size(past..chunk.shape().len()) })
    } else {
        let order: Vec<Option<usize>> = kept.iter().chain(&axes).copied().map(Some).collect();
        moved = transpose(&TransposeArgs { axes: Some(order) }, chunk)?;
        let size = |axes: &[usize]| axes.iter().map(|&axis| chunk.shape()[axis]).product::<usize>();
        (&moved, View { outer: size(&kept), n: size(&axes), inner: 1 })
    };
    // A chunk without elements may leave any number of accumulators.
    ctx.check_memory((view.outer as u64).saturating_mul(view.inner as u64).saturating_mul(ACCUMULATORS_NBYTES))?;
    let parts = accumulate(reduction, chunk, &view, &shape)?;
    let mut partial = Partial { reduction, dtype: chunk.dtype(), axes, parts };
    if is_positional && view.n > 0 {
        make_global(args, chunk, &mut partial)?;
    }
    Ok(partial)
}

/// Turn positions within the chunk into positions within the whole array.
fn make_global(args: &ReduceArgs, chunk: &Chunk, partial: &mut Partial) -> Result<(), KernelError> {
    if args.offset.is_empty() {
        return Ok(());
    }
    if args.offset.len() != chunk.shape().len() {
        return Err(KernelError("offset has another number of axes than the array".to_owned()));
    }
    let over_all = partial.axes.len() == chunk.shape().len() && args.whole.len() == chunk.shape().len();
    let positions: Vec<i64> = partial.parts[1]
        .typed::<i64>()
        .iter()
        .map(|&position| {
            let local = usize::try_from(position).unwrap_or(0);
            let global = if over_all {
                let place: Vec<usize> = unravel(local, chunk.shape())
                    .iter()
                    .zip(&args.offset)
                    .map(|(place, offset)| place.wrapping_add(*offset))
                    .collect();
                ravel(&place, &args.whole)
            } else {
                local.wrapping_add(partial.axes.first().map_or(0, |&axis| args.offset[axis]))
            };
            global as i64
        })
        .collect();
    partial.parts[1] = Chunk::from_slice(partial.parts[1].shape().to_vec(), &positions).map_err(KernelError)?;
    Ok(())
}

#[expect(
    clippy::unnecessary_cast,
    clippy::cast_possible_wrap,
    reason = "sums of unsigned integers are kept as the bits of signed ones"
)]
fn accumulate(reduction: Reduction, chunk: &Chunk, view: &View, shape: &[usize]) -> Result<Vec<Chunk>, KernelError> {
    let dtype = chunk.dtype();
    let make_f64 = |numbers: &[f64]| Chunk::from_slice(shape.to_vec(), numbers).map_err(KernelError);
    let make_i64 = |numbers: &[i64]| Chunk::from_slice(shape.to_vec(), numbers).map_err(KernelError);
    Ok(match reduction {
        Reduction::Sum if !dtype.is_float() => {
            vec![make_i64(&with_type!(dtype, T => fold(chunk.typed::<T>(), view, 0i64, |x| x as i64, i64::wrapping_add)))?]
        }
        Reduction::Prod if !dtype.is_float() => {
            vec![make_i64(&with_type!(dtype, T => fold(chunk.typed::<T>(), view, 1i64, |x| x as i64, i64::wrapping_mul)))?]
        }
        Reduction::Sum => vec![make_f64(&sums(chunk, view))?],
        Reduction::Prod => {
            vec![make_f64(&with_type!(dtype, T => fold(chunk.typed::<T>(), view, 1.0, Number::to_f64, |a: f64, b| a * b)))?]
        }
        Reduction::Mean => vec![make_f64(&sums(chunk, view))?, Chunk::from_slice(vec![], &[view.n as i64]).map_err(KernelError)?],
        Reduction::Var | Reduction::Std => {
            let (means, squares) = with_type!(dtype, T => moments(chunk.typed::<T>(), &sums(chunk, view), view));
            vec![make_f64(&means)?, make_f64(&squares)?, Chunk::from_slice(vec![], &[view.n as i64]).map_err(KernelError)?]
        }
        Reduction::Any => vec![bools(
            shape,
            &with_type!(dtype, T => fold(chunk.typed::<T>(), view, 0u8, |x| u8::from(x != T::ZERO), |a, b| a | b)),
        )?],
        Reduction::All => vec![bools(
            shape,
            &with_type!(dtype, T => fold(chunk.typed::<T>(), view, 1u8, |x| u8::from(x != T::ZERO), |a, b| a & b)),
        )?],
        Reduction::CountNonzero => vec![make_i64(
            &with_type!(dtype, T => fold(chunk.typed::<T>(), view, 0i64, |x| i64::from(x != T::ZERO), i64::wrapping_add)),
        )?],
        Reduction::Min | Reduction::Max | Reduction::NanMin | Reduction::NanMax => {
            let count = Chunk::from_slice(vec![], &[view.n as i64]).map_err(KernelError)?;
            vec![with_type!(dtype, T => extremes::<T>(reduction, chunk, view, shape))?, count]
        }
        Reduction::Argmin | Reduction::Argmax | Reduction::NanArgmin | Reduction::NanArgmax => {
            let (values, positions) = with_type!(dtype, T => positions::<T>(reduction, chunk, view, shape))?;
            vec![values, make_i64(&positions)?, Chunk::from_slice(vec![], &[view.n as i64]).map_err(KernelError)?]
        }
    })
}

fn bools(shape: &[usize], bytes: &[u8]) -> Result<Chunk, KernelError> {
    Chunk::from_bytes(DType::Bool, shape.to_vec(), Buffer::copy_of(bytes).freeze()).map_err(KernelError)
}

/// Pairwise sums in double precision.
fn sums(chunk: &Chunk, view: &View) -> Vec<f64> {
    with_type!(chunk.dtype(), T => fold(chunk.typed::<T>(), view, 0.0, Number::to_f64, |a: f64, b| a + b))
}

/// Elements summed straight on before halves are added up.
const LEAF: usize = 1024;
/// Rows added straight on before halves are added up.
const LEAF_ROWS: usize = 32;
/// Columns of a strip of rows, so that accumulators stay in the nearest cache.
const STRIP: usize = 1024;
/// Independent accumulators in a leaf.
const LANES: usize = 16;

/// Map every element and combine along the rows, in a fixed pairwise order.
fn fold<T: Number, A: Copy>(
    elements: &[T],
    view: &View,
    identity: A,
    map: impl Fn(T) -> A + Copy,
    combine: impl Fn(A, A) -> A + Copy,
) -> Vec<A> {
    let arch = pulp::Arch::new();
    let mut out = vec![identity; view.outer * view.inner];
    if out.is_empty() || view.n == 0 {
        return out;
    }
    arch.dispatch(
        #[inline(always)]
        || {
            for (block, place) in elements.chunks_exact(view.n * view.inner).zip(out.chunks_exact_mut(view.inner)) {
                if view.inner == 1 {
                    place[0] = fold_line(block, identity, map, combine);
                } else {
                    for column in (0..view.inner).step_by(STRIP) {
                        let width = STRIP.min(view.inner - column);
                        fold_rows(
                            &block[column..],
                            view.inner,
                            view.n,
                            &mut place[column..column + width],
                            identity,
                            map,
                            combine,
                        );
                    }
                }
            }
        },
    );
    out
}

#[inline(always)]
fn fold_line<T: Number, A: Copy>(line: &[T], identity: A, map: impl Fn(T) -> A + Copy, combine: impl Fn(A, A) -> A + Copy) -> A {
    // A stack of results, one per level, as a binary counter: the same tree as halving, without recursion.
    let mut levels = [identity; 64];
    let mut n_leaves = 0usize;
    for leaf in line.chunks(LEAF) {
        let mut result = fold_leaf(leaf, identity, map, combine);
        let mut level = 0;
        while n_leaves >> level & 1 == 1 {
            result = combine(levels[level], result);
            level += 1;
        }
        levels[level] = result;
        n_leaves += 1;
    }
    let mut total = identity;
    for (level, result) in levels.iter().enumerate() {
        if n_leaves >> level & 1 == 1 {
            total = combine(*result, total);
        }
    }
    total
}

#[inline(always)]
fn fold_leaf<T: Number, A: Copy>(leaf: &[T], identity: A, map: impl Fn(T) -> A + Copy, combine: impl Fn(A, A) -> A + Copy) -> A {
    let mut lanes = [identity; LANES];
    let (body, tail) = leaf.as_chunks::<LANES>();
    for group in body {
        for (lane, &element) in lanes.iter_mut().zip(group) {
            *lane = combine(*lane, map(element));
        }
    }
    for (lane, &element) in lanes.iter_mut().zip(tail) {
        *lane = combine(*lane, map(element));
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for idx in 0..width {
            lanes[idx] = combine(lanes[idx], lanes[idx + width]);
        }
    }
    lanes[0]
}

/// Combine rows of a strip into `place`; groups of rows are combined on their own first.
#[inline(always)]
fn fold_rows<T: Number, A: Copy>(
    block: &[T],
    stride: usize,
    n_rows: usize,
    place: &mut [A],
    identity: A,
    map: impl Fn(T) -> A + Copy,
    combine: impl Fn(A, A) -> A + Copy,
) {
    let mut group = [identity; STRIP];
    for first in (0..n_rows).step_by(LEAF_ROWS) {
        let group = &mut group[..place.len()];
        group.fill(identity);
        for row in first..(first + LEAF_ROWS).min(n_rows) {
            let row = &block[row * stride..row * stride + group.len()];
            for (total, &element) in group.iter_mut().zip(row) {
                *total = combine(*total, map(element));
            }
        }
        for (total, &part) in place.iter_mut().zip(group.iter()) {
            *total = combine(*total, part);
        }
    }
}

/// Means, and sums of squared deviations from them.
fn moments<T: Number>(elements: &[T], sums: &[f64], view: &View) -> (Vec<f64>, Vec<f64>) {
    let means: Vec<f64> = sums.iter().map(|sum| sum / view.n as f64).collect();
    let mut squares = vec![0.0; means.len()];
    if view.n == 0 || means.is_empty() {
        return (vec![0.0; means.len()], squares);
    }
    for (outer, block) in elements.chunks_exact(view.n * view.inner).enumerate() {
        if view.inner == 1 {
            let mean = means[outer];
            let line = View { outer: 1, n: view.n, inner: 1 };
            squares[outer] = fold_map(block, &line, |x: T| (x.to_f64() - mean).powi(2));
        } else {
            let own = outer * view.inner..(outer + 1) * view.inner;
            let (means, squares) = (&means[own.clone()], &mut squares[own]);
            for row in block.chunks_exact(view.inner) {
                for ((square, mean), element) in squares.iter_mut().zip(means).zip(row) {
                    *square += (element.to_f64() - mean).powi(2);
                }
            }
        }
    }
    (means, squares)
}

fn fold_map<T: Number>(line: &[T], view: &View, map: impl Fn(T) -> f64 + Copy) -> f64 {
    fold(line, view, 0.0, map, |a: f64, b| a + b)[0]
}
