//! Kernels that move elements without looking at them: slices, permuted axes, splitting and putting together.

use bytemuck::Pod;
use rask_graphs::{KernelError, TaskContext, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::chunking::{axis_size, check_count, check_size, offsets, ravel, shape_text, unravel};
use crate::dtype::with_width;

/// Arguments of `array.slice`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SliceArgs {
    /// First index along each axis (of the first axes, if there are fewer entries); negative counts from the end.
    pub starts: Vec<Option<i64>>,
    /// Index before which to stop along each axis.
    pub stops: Vec<Option<i64>>,
    /// Distance between indices along each axis; negative goes backwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<i64>,
}

/// Arguments of `array.transpose`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransposeArgs {
    /// For each axis of the result the axis of the input, null for a new one of length 1; input axes left out must have
    /// length 1. All axes reversed unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axes: Option<Vec<Option<usize>>>,
}

/// Arguments of `array.reshape`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReshapeArgs {
    /// The new shape; one entry may be -1.
    pub shape: Vec<i64>,
}

/// Arguments of `array.split`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitArgs {
    /// Sizes of the pieces along each axis, none for an axis that stays whole; parts are the pieces in C order.
    pub sizes: Vec<Vec<usize>>,
}

/// Arguments of `array.assemble`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssembleArgs {
    /// How many pieces lie along each axis; the inputs are the pieces in C order.
    pub counts: Vec<usize>,
}

/// Arguments of `array.concatenate`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConcatenateArgs {
    /// The axis along which the inputs follow one another; negative counts from the end.
    #[serde(default)]
    pub axis: i64,
}

/// Indices `start, start + step, ..`, `n` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) step: i64,
    pub(crate) n: usize,
}

impl Range {
    /// Python's meaning of `start:stop:step` on an axis of `size`.
    pub(crate) fn of(start: Option<i64>, stop: Option<i64>, step: i64, size: usize) -> Result<Self, String> {
        if step == 0 {
            return Err("a slice's step cannot be zero".to_owned());
        }
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let (lowest, highest) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let settle = |index: i64| (if index < 0 { index.saturating_add(size) } else { index }).clamp(lowest, highest);
        let first = start.map_or(if step > 0 { 0 } else { size - 1 }, settle);
        let end = stop.map_or(if step > 0 { size } else { -1 }, settle);
        let distance = if step > 0 { end - first } else { first - end };
        let n = if distance <= 0 { 0 } else { (distance as u64).div_ceil(step.unsigned_abs()) };
        // With one index or none there is no step, and a huge one would not fit what is counted with it.
        let step = if n > 1 { step } else { step.signum() };
        Ok(Self { start: usize::try_from(first).unwrap_or(0), step, n: usize::try_from(n).unwrap_or(usize::MAX) })
    }

    pub(crate) fn is_whole(&self, size: usize) -> bool {
        self.start == 0 && self.n == size && (self.step == 1 || size <= 1)
    }

    /// The n-th index.
    pub(crate) fn at(&self, n: usize) -> usize {
        usize::try_from(self.start as i64 + self.step * n as i64).unwrap_or(0)
    }
}

fn strides_of(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

pub(crate) fn slice(args: &SliceArgs, chunk: &Chunk) -> Result<Chunk, KernelError> {
    let n_axes = chunk.shape().len();
    if args.starts.len() > n_axes || args.stops.len() > n_axes || args.steps.len() > n_axes {
        return Err(KernelError(format!("too many indices for an array of shape {}", shape_text(chunk.shape()))));
    }
    let ranges = (0..n_axes)
        .map(|axis| {
            let start = args.starts.get(axis).copied().flatten();
            let stop = args.stops.get(axis).copied().flatten();
            Range::of(start, stop, args.steps.get(axis).copied().unwrap_or(1), chunk.shape()[axis])
        })
        .collect::<Result<Vec<Range>, String>>()
        .map_err(KernelError)?;
    Ok(take(chunk, &ranges))
}

/// The elements of `chunk` at the cross product of `ranges`, which lie inside it.
pub(crate) fn take(chunk: &Chunk, ranges: &[Range]) -> Chunk {
    let shape: Vec<usize> = ranges.iter().map(|range| range.n).collect();
    if ranges.iter().zip(chunk.shape()).all(|(range, &size)| range.is_whole(size)) {
        return chunk.clone();
    }
    let strides = strides_of(chunk.shape());
    let base: usize = ranges.iter().zip(&strides).map(|(range, stride)| range.start * stride).sum();
    let steps: Vec<i64> = ranges.iter().zip(&strides).map(|(range, &stride)| range.step * stride as i64).collect();
    copy_strided(chunk, base, &shape, &steps)
}

/// A contiguous chunk of `shape` whose elements lie at `base` plus `steps` along each axis of `chunk`'s memory.
fn copy_strided(chunk: &Chunk, base: usize, shape: &[usize], steps: &[i64]) -> Chunk {
    let n: usize = shape.iter().product();
    let mut buffer = Buffer::zeroed(n * chunk.dtype().size());
    if n > 0 {
        with_width!(chunk.dtype().size(), T => copy_rows::<T>(chunk.typed(), base, shape, steps, buffer.typed_mut()));
    }
    Chunk::from_buffer(chunk.dtype(), shape.to_vec(), buffer)
}

fn copy_rows<T: Pod>(from: &[T], base: usize, shape: &[usize], steps: &[i64], out: &mut [T]) {
    let (row, step) = (shape.last().copied().unwrap_or(1), steps.last().copied().unwrap_or(1));
    let outer = &shape[..shape.len().saturating_sub(1)];
    let mut place = vec![0usize; outer.len()];
    let mut at = base as i64;
    for line in out.chunks_exact_mut(row) {
        let start = usize::try_from(at).unwrap_or(0);
        if step == 1 {
            line.copy_from_slice(&from[start..start + row]);
        } else {
            for (idx, element) in line.iter_mut().enumerate() {
                *element = from[usize::try_from(at + step * idx as i64).unwrap_or(0)];
            }
        }
        for axis in (0..outer.len()).rev() {
            place[axis] += 1;
            at += steps[axis];
            if place[axis] < outer[axis] {
                break;
            }
            at -= steps[axis] * outer[axis] as i64;
            place[axis] = 0;
        }
    }
}

/// Permute, drop and add axes.
pub(crate) fn transpose(args: &TransposeArgs, chunk: &Chunk) -> Result<Chunk, KernelError> {
    let n_axes = chunk.shape().len();
    let axes = args.axes.clone().unwrap_or_else(|| (0..n_axes).rev().map(Some).collect());
    let mut seen = vec![false; n_axes];
    for axis in axes.iter().flatten() {
        match seen.get_mut(*axis) {
            Some(seen) if !*seen => *seen = true,
            Some(_) | None => return Err(KernelError(format!("axis {axis} of {axes:?} is not there or is there twice"))),
        }
    }
    if let Some(axis) = (0..n_axes).find(|&axis| !seen[axis] && chunk.shape()[axis] != 1) {
        return Err(KernelError(format!("axis {axis} of size {} cannot be dropped", chunk.shape()[axis])));
    }
    let strides = strides_of(chunk.shape());
    let shape: Vec<usize> = axes.iter().map(|axis| axis.map_or(1, |axis| chunk.shape()[axis])).collect();
    // Axes of length 1 do not count: if the others keep their order, nothing has to move.
    let long: Vec<usize> = axes.iter().flatten().copied().filter(|&axis| chunk.shape()[axis] != 1).collect();
    if long.is_sorted() {
        return chunk.reshaped(shape).map_err(KernelError);
    }
    let steps: Vec<i64> = axes.iter().map(|axis| axis.map_or(0, |axis| strides[axis] as i64)).collect();
    if let ([n_rows, n_columns], [1, stride]) = (&shape[..], &steps[..]) {
        let mut buffer = Buffer::zeroed(chunk.bytes().len());
        with_width!(chunk.dtype().size(), T => transpose_tiles::<T>(chunk.typed(), *n_rows, *n_columns, *stride as usize, buffer.typed_mut()));
        return Ok(Chunk::from_buffer(chunk.dtype(), shape, buffer));
    }
    Ok(copy_strided(chunk, 0, &shape, &steps))
}

/// Transpose a matrix in tiles that fit the nearest cache.
fn transpose_tiles<T: Pod>(from: &[T], n_rows: usize, n_columns: usize, stride: usize, out: &mut [T]) {
    const TILE: usize = 32;
    for row in (0..n_rows).step_by(TILE) {
        for column in (0..n_columns).step_by(TILE) {
            for c in column..(column + TILE).min(n_columns) {
                for r in row..(row + TILE).min(n_rows) {
                    out[r * n_columns + c] = from[c * stride + r];
                }
            }
        }
    }
}

pub(crate) fn reshape(args: &ReshapeArgs, chunk: &Chunk) -> Result<Chunk, KernelError> {
    let known = args.shape.iter().filter(|&&size| size != -1).try_fold(1i64, |product, &size| product.checked_mul(size));
    let fail = || KernelError(format!("cannot reshape {} into {:?}", shape_text(chunk.shape()), args.shape));
    let n = i64::try_from(chunk.len()).map_err(|_| fail())?;
    let known = known.ok_or_else(fail)?;
    let shape = args
        .shape
        .iter()
        .map(|&size| match size {
            -1 if known > 0 && n % known == 0 => usize::try_from(n / known).map_err(|_| fail()),
            -1 => Err(fail()),
            size => usize::try_from(size).map_err(|_| fail()),
        })
        .collect::<Result<Vec<usize>, KernelError>>()?;
    chunk.reshaped(shape).map_err(|_| fail())
}

/// The pieces of `chunk`, in C order.
pub(crate) fn split(args: &SplitArgs, chunk: &Chunk) -> Result<Vec<Value>, KernelError> {
    let whole = |(sizes, &size): (&Vec<usize>, &usize)| if sizes.is_empty() { vec![size] } else { sizes.clone() };
    let sizes: Vec<Vec<usize>> = args.sizes.iter().zip(chunk.shape()).map(whole).collect();
    let sum = |sizes: &[usize]| sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    let adds_up = sizes.iter().zip(chunk.shape()).all(|(sizes, &size)| sum(sizes) == Some(size));
    let fits = args.sizes.len() == chunk.shape().len() && adds_up;
    if !fits {
        return Err(KernelError(format!("pieces {:?} do not add up to shape {}", args.sizes, shape_text(chunk.shape()))));
    }
    let counts: Vec<usize> = sizes.iter().map(Vec::len).collect();
    check_count(counts.iter().copied())?;
    let starts: Vec<Vec<usize>> = sizes.iter().map(|sizes| offsets(sizes)).collect();
    let n_pieces: usize = counts.iter().product();
    let piece = |number: usize| {
        let position = unravel(number, &counts);
        let ranges: Vec<Range> = position
            .iter()
            .enumerate()
            .map(|(axis, &place)| Range { start: starts[axis][place], step: 1, n: sizes[axis][place] })
            .collect();
        Value::new(take(chunk, &ranges))
    };
    Ok((0..n_pieces).map(piece).collect())
}

/// How many chunks a grid has, if they can be counted.
pub(crate) fn n_of_grid(counts: &[usize]) -> Option<usize> {
    counts.iter().try_fold(1usize, |product, &count| product.checked_mul(count))
}

/// One chunk of a grid of pieces.
pub(crate) fn assemble(counts: &[usize], pieces: &[&Chunk]) -> Result<Chunk, KernelError> {
    let n_axes = counts.len();
    let Some(first) = pieces.first() else { return Err(KernelError("nothing to put together".to_owned())) };
    if n_of_grid(counts) != Some(pieces.len())
        || pieces.iter().any(|piece| piece.shape().len() != n_axes || piece.dtype() != first.dtype())
    {
        return Err(KernelError(format!("{} pieces do not make a grid of {counts:?} pieces of one type", pieces.len())));
    }
    if pieces.len() == 1 {
        return Ok((*first).clone());
    }
    let mut sizes: Vec<Vec<usize>> = counts.iter().map(|&count| vec![0; count]).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let position = unravel(number, counts);
        for axis in 0..n_axes {
            let others_first = position.iter().enumerate().all(|(other, &place)| other == axis || place == 0);
            if others_first {
                sizes[axis][position[axis]] = piece.shape()[axis];
            }
        }
    }
    for (number, piece) in pieces.iter().enumerate() {
        let position = unravel(number, counts);
        if (0..n_axes).any(|axis| sizes[axis][position[axis]] != piece.shape()[axis]) {
            return Err(KernelError(format!(
                "shapes {} and {} do not match: pieces of one grid",
                shape_text(first.shape()),
                shape_text(piece.shape())
            )));
        }
    }
    let shape: Vec<usize> = sizes.iter().map(|sizes| axis_size(sizes)).collect();
    check_size(&shape, first.dtype())?;
    let starts: Vec<Vec<usize>> = sizes.iter().map(|sizes| offsets(sizes)).collect();
    let mut out = Buffer::zeroed(shape.iter().product::<usize>() * first.dtype().size());
    for (number, piece) in pieces.iter().enumerate() {
        let position = unravel(number, counts);
        let at: Vec<usize> = position.iter().enumerate().map(|(axis, &place)| starts[axis][place]).collect();
        place_at(piece, &at, &shape, &mut |start, bytes| out.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes));
    }
    Ok(Chunk::from_buffer(first.dtype(), shape, out))
}

/// Call `write(byte offset, bytes)` for each run of `piece` that is contiguous where it goes: at index `at` of an array of `shape`.
pub(crate) fn place_at(piece: &Chunk, at: &[usize], shape: &[usize], write: &mut dyn FnMut(usize, &[u8])) {
    if piece.is_empty() {
        return;
    }
    let size = piece.dtype().size();
    let strides = strides_of(shape);
    // Trailing axes that are whole in both make one run with the axis before them.
    let mut split = shape.len();
    let mut run = size;
    while split > 0 {
        split -= 1;
        run *= piece.shape()[split];
        if piece.shape()[split] != shape[split] {
            break;
        }
    }
    let outer = &piece.shape()[..split];
    for (number, bytes) in piece.bytes().chunks_exact(run).enumerate() {
        let position = unravel(number, outer);
        let start: usize =
            (0..shape.len()).map(|axis| (at[axis] + position.get(axis).copied().unwrap_or(0)) * strides[axis]).sum();
        write(start * size, bytes);
    }
}

pub(crate) fn concatenate(args: &ConcatenateArgs, pieces: &[&Chunk]) -> Result<Chunk, KernelError> {
    let n_axes = pieces.first().map_or(0, |piece| piece.shape().len());
    let axis = if args.axis < 0 { args.axis + n_axes as i64 } else { args.axis };
    let mut counts = vec![1; n_axes];
    let place = usize::try_from(axis).ok().and_then(|axis| counts.get_mut(axis));
    *place.ok_or_else(|| KernelError(format!("axis {} is out of bounds for {n_axes} dimensions", args.axis)))? = pieces.len();
    assemble(&counts, pieces)
}

/// The diagonal of a matrix, or the matrix with this diagonal.
pub(crate) fn diagonal(ctx: &TaskContext, chunk: &Chunk) -> Result<Chunk, KernelError> {
    let size = chunk.dtype().size();
    match *chunk.shape() {
        [n] => {
            let nbytes = n.saturating_mul(n).saturating_mul(size);
            ctx.check_memory(nbytes as u64)?;
            let mut buffer = Buffer::zeroed(nbytes);
            for (idx, element) in chunk.bytes().chunks_exact(size).enumerate() {
                let at = ravel(&[idx, idx], &[n, n]) * size;
                buffer.bytes_mut()[at..at + size].copy_from_slice(element);
            }
            Ok(Chunk::from_buffer(chunk.dtype(), vec![n, n], buffer))
        }
        [n_rows, n_columns] => {
            let n = n_rows.min(n_columns);
            let mut buffer = Buffer::zeroed(n * size);
            for (idx, place) in buffer.bytes_mut().chunks_exact_mut(size).enumerate() {
                let at = (idx * n_columns + idx) * size;
                place.copy_from_slice(&chunk.bytes()[at..at + size]);
            }
            Ok(Chunk::from_buffer(chunk.dtype(), vec![n], buffer))
        }
        _ => Err(KernelError(format!("diag needs one or two axes, got shape {}", shape_text(chunk.shape())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_pythons() {
        // (start, stop, step, size) and list(range(size))[start:stop:step]
        type Case<'a> = (Option<i64>, Option<i64>, i64, usize, &'a [usize]);
        let cases: &[Case<'_>] = &[
            (None, None, 1, 3, &[0, 1, 2]),
            (None, None, -1, 3, &[2, 1, 0]),
            (Some(-2), None, 1, 5, &[3, 4]),
            (Some(1), Some(-1), 2, 6, &[1, 3]),
            (Some(10), Some(0), -3, 6, &[5, 2]),
            (Some(3), Some(1), 1, 6, &[]),
            (None, Some(-10), -1, 3, &[2, 1, 0]),
            (Some(0), Some(0), -1, 0, &[]),
        ];
        for (start, stop, step, size, want) in cases {
            let range = Range::of(*start, *stop, *step, *size).unwrap();
            let got: Vec<usize> = (0..range.n).map(|n| range.at(n)).collect();
            assert_eq!(&got, want, "{start:?}:{stop:?}:{step} of {size}");
        }
        assert!(Range::of(None, None, 0, 3).is_err());
    }

    #[test]
    fn pieces_go_back_together() {
        let numbers: Vec<i32> = (0..60).collect();
        let chunk = Chunk::from_slice(vec![3, 4, 5], &numbers).unwrap();
        let sizes = vec![vec![1, 2], vec![], vec![2, 0, 3]];
        let pieces = split(&SplitArgs { sizes }, &chunk).unwrap();
        let pieces: Vec<&Chunk> = pieces.iter().map(|piece| piece.downcast().unwrap()).collect();
        assert_eq!(pieces.len(), 6);
        assert_eq!(assemble(&[2, 1, 3], &pieces).unwrap(), chunk);
        assert!(assemble(&[3, 1, 2], &pieces).is_err());
    }

    #[test]
    fn axes_move_drop_and_appear() {
        let chunk = Chunk::from_slice(vec![1, 2, 3], &[1i16, 2, 3, 4, 5, 6]).unwrap();
        let moved = transpose(&TransposeArgs { axes: Some(vec![Some(2), None, Some(1)]) }, &chunk).unwrap();
        assert_eq!(moved, Chunk::from_slice(vec![3, 1, 2], &[1i16, 4, 2, 5, 3, 6]).unwrap());
        let free = transpose(&TransposeArgs { axes: Some(vec![Some(1), Some(2)]) }, &chunk).unwrap();
        assert_eq!(free.bytes().as_ptr(), chunk.bytes().as_ptr());
        assert!(transpose(&TransposeArgs { axes: Some(vec![Some(0), Some(1)]) }, &chunk).is_err());
    }
}
