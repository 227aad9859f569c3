//! Running sums and products along an axis of one chunk; how chunks go on from each other is for the array to say.

use rask_graphs::{KernelError, TaskContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::dtype::{DType, with_type};
use crate::kernels::number::Number;
use crate::kernels::reduce::{Axes, axes_of};

/// Arguments of `array.cumsum` and `array.cumprod`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanArgs {
    /// The axis along which elements are added up; negative counts from the end.
    pub axis: i64,
}

/// What is kept running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scan {
    /// The sum so far.
    Sum,
    /// The product so far.
    Product,
}

impl Scan {
    /// The operator.
    pub(crate) fn operator(self) -> &'static str {
        match self {
            Scan::Sum => "array.cumsum",
            Scan::Product => "array.cumprod",
        }
    }
}

/// For each element the sum or product of it and all before it along the axis, in the elements' own type.
pub(crate) fn scan(ctx: &TaskContext, scan: Scan, args: &ScanArgs, chunk: &Chunk) -> Result<Chunk, KernelError> {
    let [axis] = axes_of(Some(&Axes::One(args.axis)), chunk.shape().len())?[..] else {
        return Err(KernelError("a running sum needs one axis".to_owned()));
    };
    if chunk.dtype() == DType::Bool {
        return Err(KernelError("a running sum of truth values needs a type to count in".to_owned()));
    }
    ctx.check_memory(chunk.bytes().len() as u64)?;
    let mut buffer = Buffer::zeroed(chunk.bytes().len());
    if !chunk.is_empty() {
        let inner: usize = chunk.shape()[axis + 1..].iter().product();
        let block = chunk.shape()[axis] * inner;
        with_type!(chunk.dtype(), T => match scan {
            Scan::Sum => run::<T>(chunk.typed(), buffer.typed_mut(), block, inner, T::add),
            Scan::Product => run::<T>(chunk.typed(), buffer.typed_mut(), block, inner, T::multiply),
        });
    }
    Ok(Chunk::from_buffer(chunk.dtype(), chunk.shape().to_vec(), buffer))
}

fn run<T: Number>(elements: &[T], out: &mut [T], block: usize, inner: usize, combine: impl Fn(T, T) -> T) {
    for (from, to) in elements.chunks_exact(block).zip(out.chunks_exact_mut(block)) {
        to[..inner].copy_from_slice(&from[..inner]);
        for at in inner..block {
            to[at] = combine(to[at - inner], from[at]);
        }
    }
}
