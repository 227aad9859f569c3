//! The smallest and largest elements of a chunk, and where they are.

use rask_graphs::KernelError;

use super::{Reduction, View, fold_line};
use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::kernels::number::Number;

pub(super) fn extremes<T: Number>(
    reduction: Reduction,
    chunk: &Chunk,
    view: &View,
    shape: &[usize],
) -> Result<Chunk, KernelError> {
    let elements = chunk.typed::<T>();
    let mut buffer = Buffer::zeroed(view.outer * view.inner * size_of::<T>());
    // An empty chunk has no extremes; it is told apart by its count when merged.
    if !elements.is_empty() {
        for (block, place) in elements.chunks_exact(view.n * view.inner).zip(buffer.typed_mut::<T>().chunks_exact_mut(view.inner))
        {
            place.copy_from_slice(&block[..view.inner]);
            extreme_block(reduction, block, view.inner, place);
        }
    }
    Chunk::from_bytes(chunk.dtype(), shape.to_vec(), buffer.freeze()).map_err(KernelError)
}

fn extreme_block<T: Number>(reduction: Reduction, block: &[T], inner: usize, place: &mut [T]) {
    // One loop a function: chosen inside, it would keep the compiler from making vectors of it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only extremes come here")]
    match reduction {
        Reduction::Min => extreme_of(block, inner, place, T::minimum),
        Reduction::Max => extreme_of(block, inner, place, T::maximum),
        Reduction::NanMin => extreme_of(block, inner, place, nan_minimum),
        _ => extreme_of(block, inner, place, nan_maximum),
    }
}

/// The smaller one, and of NaN and a number the number.
#[inline(always)]
pub(crate) fn nan_minimum<T: Number>(a: T, b: T) -> T {
    if a < b || b.is_nan() { a } else { b }
}

/// The larger one, and of NaN and a number the number.
#[inline(always)]
pub(crate) fn nan_maximum<T: Number>(a: T, b: T) -> T {
    if a > b || b.is_nan() { a } else { b }
}

#[inline(always)]
fn extreme_of<T: Number>(block: &[T], inner: usize, place: &mut [T], extreme: impl Fn(T, T) -> T + Copy) {
    let arch = pulp::Arch::new();
    arch.dispatch(
        #[inline(always)]
        || {
            if inner == 1 {
                place[0] = fold_line(block, place[0], |x| x, extreme);
                return;
            }
            for row in block.chunks_exact(inner) {
                for (best, &element) in place.iter_mut().zip(row) {
                    *best = extreme(*best, element);
                }
            }
        },
    );
}

/// Whether an element takes the place of the best one so far; the first of equals stays. NaN beats everything, or nothing.
pub(crate) fn beats<T: Number>(reduction: Reduction, element: T, best: T) -> bool {
    let ignores_nan = matches!(reduction, Reduction::NanArgmin | Reduction::NanArgmax);
    if best.is_nan() || element.is_nan() {
        // Then only one of them may win, and two of a kind change nothing.
        best.is_nan() != element.is_nan() && element.is_nan() != ignores_nan
    } else if matches!(reduction, Reduction::Argmin | Reduction::NanArgmin) {
        element < best
    } else {
        element > best
    }
}

pub(super) fn positions<T: Number>(
    reduction: Reduction,
    chunk: &Chunk,
    view: &View,
    shape: &[usize],
) -> Result<(Chunk, Vec<i64>), KernelError> {
    let elements = chunk.typed::<T>();
    let mut buffer = Buffer::zeroed(view.outer * view.inner * size_of::<T>());
    let mut positions = vec![0i64; view.outer * view.inner];
    if !elements.is_empty() {
        let best = buffer.typed_mut::<T>();
        for (outer, block) in elements.chunks_exact(view.n * view.inner).enumerate() {
            let own = outer * view.inner;
            best[own..own + view.inner].copy_from_slice(&block[..view.inner]);
            for (number, row) in block.chunks_exact(view.inner).enumerate().skip(1) {
                for (column, &element) in row.iter().enumerate() {
                    if beats(reduction, element, best[own + column]) {
                        best[own + column] = element;
                        positions[own + column] = number as i64;
                    }
                }
            }
        }
    }
    let values = Chunk::from_bytes(chunk.dtype(), shape.to_vec(), buffer.freeze()).map_err(KernelError)?;
    Ok((values, positions))
}
