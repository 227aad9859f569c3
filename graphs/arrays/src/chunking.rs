//! How an axis is cut into chunks: reading what people write, choosing sizes for them, and arithmetic on cuts.
//!
//! A chunking is a list of sizes per axis, in any mixture. A size can be [`UNKNOWN`]: the rows of a frame's partition are
//! counted only when it is read. Knows no arrays and no tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::error::ArrayError;

/// The size of a chunk, and of an axis with such a chunk, that only running the graph will tell.
pub const UNKNOWN: usize = usize::MAX;

/// Most axes of an array, as in NumPy.
pub const MAX_AXES: usize = 64;

/// Most chunks of an array: each becomes a task, and planning takes about a kilobyte for one.
pub const MAX_CHUNKS: usize = 1_000_000;

/// Largest chunk that [`ChunkSpec::Auto`] makes, in bytes.
const AUTO_MAX_NBYTES: usize = 128 << 20;

/// Smallest chunk that [`ChunkSpec::Auto`] makes unless the array is smaller, in bytes.
const AUTO_MIN_NBYTES: usize = 8 << 20;

/// Chunks that [`ChunkSpec::Auto`] aims at, so that a few workers have something to do.
const AUTO_N_CHUNKS: usize = 16;

/// How to cut an array, as people write it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ChunkSpec {
    /// `"auto"`: about 128 MiB, fewer for small work.
    Auto(AutoWord),
    /// One size for all axes; -1 leaves axes whole.
    Size(i64),
    /// For each axis.
    Axes(Vec<AxisChunks>),
}

/// The word `"auto"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum AutoWord {
    /// Choose for me.
    #[serde(rename = "auto")]
    Auto,
}

/// How to cut one axis.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AxisChunks {
    /// `"auto"`: chosen with the other such axes.
    Auto(AutoWord),
    /// Chunks of this size, the last one smaller if need be; -1 for one chunk.
    Size(i64),
    /// Exactly these sizes.
    Sizes(Vec<usize>),
}

impl Default for ChunkSpec {
    fn default() -> Self {
        Self::Auto(AutoWord::Auto)
    }
}

impl ChunkSpec {
    /// Exactly these chunks.
    #[must_use]
    pub fn explicit(chunks: Vec<Vec<usize>>) -> Self {
        Self::Axes(chunks.into_iter().map(AxisChunks::Sizes).collect())
    }

    /// The sizes of the chunks of an array of `shape` and `dtype`, per axis.
    ///
    /// # Errors
    /// When there are more or fewer entries than axes, a size is 0 or below -1, explicit sizes do not add up, or there would be
    /// more than [`MAX_CHUNKS`].
    pub fn resolve(&self, shape: &[usize], dtype: DType) -> Result<Vec<Vec<usize>>, ArrayError> {
        let fail = |reason: String| ArrayError::Chunks { shape: shape.to_vec(), reason };
        if shape.contains(&UNKNOWN) {
            return Err(ArrayError::TooLarge(shape.to_vec()));
        }
        check_size(shape, dtype)?;
        let per_axis: Vec<AxisChunks> = match self {
            Self::Auto(word) => vec![AxisChunks::Auto(*word); shape.len()],
            Self::Size(size) => vec![AxisChunks::Size(*size); shape.len()],
            Self::Axes(axes) if axes.len() == shape.len() => axes.clone(),
            Self::Axes(axes) => return Err(fail(format!("{} chunk entries for {} axes", axes.len(), shape.len()))),
        };
        let mut chunks = Vec::with_capacity(shape.len());
        for (axis, (entry, &size)) in per_axis.iter().zip(shape).enumerate() {
            chunks.push(match entry {
                AxisChunks::Auto(_) => vec![size],
                AxisChunks::Size(-1) => vec![size],
                AxisChunks::Size(chunk) => match usize::try_from(*chunk) {
                    Ok(chunk) if chunk > 0 => {
                        check_count(std::iter::once(size.div_ceil(chunk)))?;
                        cut(size, chunk)
                    }
                    Ok(_) | Err(_) => return Err(fail(format!("chunk size {chunk} on axis {axis}"))),
                },
                AxisChunks::Sizes(sizes)
                    if !sizes.is_empty() && sizes.iter().try_fold(0, |sum: usize, &size| sum.checked_add(size)) == Some(size) =>
                {
                    sizes.clone()
                }
                AxisChunks::Sizes(sizes) => return Err(fail(format!("sizes {sizes:?} on axis {axis} do not add up to {size}"))),
            });
        }
        let auto: Vec<usize> = (0..shape.len()).filter(|&axis| matches!(per_axis[axis], AxisChunks::Auto(_))).collect();
        choose(shape, dtype, &mut chunks, &auto)?;
        check_count(chunks.iter().map(Vec::len))?;
        Ok(chunks)
    }
}

/// Cut the `auto` axes in halves, longest piece first, until chunks are small enough. The array's size has been checked.
fn choose(shape: &[usize], dtype: DType, chunks: &mut [Vec<usize>], auto: &[usize]) -> Result<(), ArrayError> {
    let nbytes: usize = shape.iter().product::<usize>() * dtype.size();
    let target = (nbytes / AUTO_N_CHUNKS).clamp(AUTO_MIN_NBYTES, AUTO_MAX_NBYTES);
    let mut piece: Vec<usize> = chunks.iter().map(|sizes| sizes.iter().copied().max().unwrap_or(0)).collect();
    while piece.iter().product::<usize>() * dtype.size() > target {
        let Some(&longest) = auto.iter().max_by_key(|&&axis| (piece[axis], usize::MAX - axis)) else { break };
        if piece[longest] <= 1 {
            break;
        }
        piece[longest] = piece[longest].div_ceil(2);
    }
    let counts = (0..shape.len())
        .map(|axis| if auto.contains(&axis) { shape[axis].div_ceil(piece[axis].max(1)) } else { chunks[axis].len() });
    check_count(counts)?;
    for &axis in auto {
        chunks[axis] = cut(shape[axis], piece[axis].max(1));
    }
    Ok(())
}

/// Fails when there are more chunks than can be planned, `counts` of them along each axis.
pub(crate) fn check_count(counts: impl IntoIterator<Item = usize>) -> Result<(), ArrayError> {
    // Axes without a chunk do not exist, and with 64 axes even saturated numbers say enough.
    let count = counts.into_iter().fold(1u128, |product, count| product.saturating_mul(count.max(1) as u128));
    if count <= MAX_CHUNKS as u128 {
        Ok(())
    } else {
        Err(ArrayError::TooMany { what: "too many chunks", count, limit: MAX_CHUNKS })
    }
}

/// Most pieces into which the chunks of an array are cut, or products of pairs of chunks that make one.
const MAX_PIECES: usize = 20_000_000;

/// Fails when there are more pieces of chunks than can be planned, the product of `counts` of them.
pub(crate) fn check_pieces(what: &'static str, counts: impl IntoIterator<Item = usize>) -> Result<(), ArrayError> {
    let count = counts.into_iter().fold(1u128, |product, count| product.saturating_mul(count.max(1) as u128));
    if count <= MAX_PIECES as u128 { Ok(()) } else { Err(ArrayError::TooMany { what, count, limit: MAX_PIECES }) }
}

/// Pieces of size `chunk`, the last one smaller if need be; an empty axis has one empty piece.
pub(crate) fn cut(size: usize, chunk: usize) -> Vec<usize> {
    if size == 0 {
        return vec![0];
    }
    let mut sizes = vec![chunk; size / chunk];
    if !size.is_multiple_of(chunk) {
        sizes.push(size % chunk);
    }
    sizes
}

/// The widest element: arrays are no larger than that they fit an address space in every type.
const MAX_ELEMENT_NBYTES: usize = 8;

/// Fails when an array has too many axes, or its elements cannot be counted in an `isize`, whatever their type. Sizes of 0
/// count as 1, so that products of some of the axes can be counted too, and sizes not known yet do not count.
pub(crate) fn check_size(shape: &[usize], dtype: DType) -> Result<(), ArrayError> {
    if shape.len() > MAX_AXES {
        return Err(ArrayError::TooManyAxes { n_axes: shape.len() });
    }
    let nonzero = shape
        .iter()
        .filter(|&&size| size != UNKNOWN)
        .try_fold(dtype.size().max(MAX_ELEMENT_NBYTES), |product, &size| product.checked_mul(size.max(1)));
    match nonzero {
        Some(nbytes) if isize::try_from(nbytes).is_ok() => Ok(()),
        Some(_) | None => Err(ArrayError::TooLarge(shape.to_vec())),
    }
}

/// The size of an axis cut like this.
#[must_use]
pub fn axis_size(sizes: &[usize]) -> usize {
    // What cannot be counted is not "unknown": `check_size` refuses it.
    if sizes.contains(&UNKNOWN) {
        UNKNOWN
    } else {
        sizes.iter().fold(0, |sum: usize, &size| sum.saturating_add(size).min(UNKNOWN - 1))
    }
}

/// Where each chunk of an axis begins, and at the end the axis's size.
pub(crate) fn offsets(sizes: &[usize]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(sizes.len() + 1);
    let mut at = 0usize;
    offsets.push(0);
    for size in sizes {
        at = at.saturating_add(*size);
        offsets.push(at);
    }
    offsets
}

/// The position of chunk number `flat` (C order) in a grid of `counts` chunks per axis.
pub(crate) fn unravel(mut flat: usize, counts: &[usize]) -> Vec<usize> {
    let mut position = vec![0; counts.len()];
    for (place, &count) in position.iter_mut().zip(counts).rev() {
        *place = flat % count.max(1);
        flat /= count.max(1);
    }
    position
}

/// The number (C order) of the chunk at `position` in a grid of `counts` chunks per axis.
pub(crate) fn ravel(position: &[usize], counts: &[usize]) -> usize {
    // Wraps only for numbers that a stranger's task made up.
    position.iter().zip(counts).fold(0usize, |flat, (&place, &count)| flat.wrapping_mul(count).wrapping_add(place))
}

/// A shape as Python prints it, with `?` for sizes not known yet.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(|&size| if size == UNKNOWN { "?".to_owned() } else { size.to_string() }).collect();
    match sizes.as_slice() {
        [one] => format!("({one},)"),
        many => format!("({})", many.join(", ")),
    }
}

/// The shape two shapes broadcast to, by NumPy's rule.
///
/// # Errors
/// When two sizes differ and neither is 1.
pub fn broadcast_shapes(left: &[usize], right: &[usize]) -> Result<Vec<usize>, ArrayError> {
    let n_axes = left.len().max(right.len());
    let size_of = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(n_axes).map_or(1, |own| shape[own]);
    (0..n_axes)
        .map(|axis| match (size_of(left, axis), size_of(right, axis)) {
            (same, other) if same == other => Ok(same),
            (1, other) => Ok(other),
            (own, 1) => Ok(own),
            // Sizes that only the run will tell are compared by the kernel.
            (UNKNOWN, known) | (known, UNKNOWN) => Ok(known),
            _ => Err(ArrayError::Broadcast { left: left.to_vec(), right: right.to_vec() }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ChunkSpec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn chunks_as_people_write_them() {
        let shape = [10, 7];
        for (text, want) in [
            ("4", vec![vec![4, 4, 2], vec![4, 3]]),
            ("-1", vec![vec![10], vec![7]]),
            ("[5, -1]", vec![vec![5, 5], vec![7]]),
            ("[[1, 9], \"auto\"]", vec![vec![1, 9], vec![7]]),
            ("\"auto\"", vec![vec![10], vec![7]]),
        ] {
            assert_eq!(spec(text).resolve(&shape, DType::F64).unwrap(), want, "{text}");
        }
        for text in ["0", "-2", "[5]", "[[1, 8], 7]", "[[], 7]"] {
            assert!(spec(text).resolve(&shape, DType::F64).is_err(), "{text}");
        }
    }

    #[test]
    fn auto_cuts_big_arrays_evenly_and_leaves_small_ones_alone() {
        let chunks = spec("\"auto\"").resolve(&[8000, 8000], DType::F64).unwrap();
        assert_eq!(chunks, vec![vec![2000; 4], vec![2000; 4]]);
        let chunks = spec("\"auto\"").resolve(&[100_000, 100_000], DType::F64).unwrap();
        let largest: usize = chunks.iter().map(|sizes| sizes.iter().max().unwrap()).product();
        assert!(largest * 8 <= AUTO_MAX_NBYTES && largest * 8 > AUTO_MAX_NBYTES / 4);
    }

    #[test]
    fn broadcasting_names_both_shapes() {
        assert_eq!(broadcast_shapes(&[3, 1], &[4]).unwrap(), vec![3, 4]);
        assert_eq!(broadcast_shapes(&[], &[0]).unwrap(), vec![0]);
        assert_eq!(broadcast_shapes(&[1], &[0]).unwrap(), vec![0]);
        let text = broadcast_shapes(&[3, 2], &[4]).unwrap_err().to_string();
        assert!(text.contains("(3, 2)") && text.contains("(4,)"), "{text}");
    }

    #[test]
    fn too_large_is_an_error_not_an_overflow() {
        assert!(ChunkSpec::default().resolve(&[usize::MAX / 2, 16], DType::F64).is_err());
        assert!(ChunkSpec::default().resolve(&[usize::MAX], DType::U8).is_err());
        assert!(ChunkSpec::default().resolve(&[usize::MAX, usize::MAX, 0], DType::U8).is_err());
        assert!(ChunkSpec::default().resolve(&[1; MAX_AXES + 1], DType::U8).is_err());
    }

    #[test]
    fn too_many_chunks_are_refused_before_there_are_any() {
        let many = 1_000_000_000_000_000_000;
        for (text, shape) in [
            ("\"auto\"", vec![many]),
            ("1", vec![many]),
            ("1000", vec![many]),
            ("[1, -1]", vec![MAX_CHUNKS + 1, 1]),
            ("1", vec![2000, 2000]),
            ("[\"auto\", 1]", vec![2000, 2000]),
        ] {
            let error = spec(text).resolve(&shape, DType::F64);
            if text == "[\"auto\", 1]" {
                assert_eq!(error.unwrap().len(), 2);
                continue;
            }
            let error = error.unwrap_err().to_string();
            assert!(error.contains("too many chunks: ") && error.contains("at most 1000000"), "{text}: {error}");
        }
        assert_eq!(spec("-1").resolve(&[many], DType::U8).unwrap(), vec![vec![many]]);
        assert!(spec("1").resolve(&[MAX_CHUNKS], DType::U8).is_ok());
    }
}
