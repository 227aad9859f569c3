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
    /// When there are more or fewer entries than axes, a size is 0 or below -1, or explicit sizes do not add up.
    pub fn resolve(&self, shape: &[usize], dtype: DType) -> Result<Vec<Vec<usize>>, ArrayError> {
        let fail = |reason: String| ArrayError::Chunks { shape: shape.to_vec(), reason };
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
                    Ok(chunk) if chunk > 0 => cut(size, chunk),
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
        choose(shape, dtype, &mut chunks, &auto);
        Ok(chunks)
    }
}

/// Cut the `auto` axes in halves, longest piece first, until chunks are small enough.
fn choose(shape: &[usize], dtype: DType, chunks: &mut [Vec<usize>], auto: &[usize]) {
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
    for &axis in auto {
        chunks[axis] = cut(shape[axis], piece[axis].max(1));
    }
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

/// Fails when the elements or bytes of an array cannot be counted in an `isize`.
pub(crate) fn check_size(shape: &[usize], dtype: DType) -> Result<(), ArrayError> {
    let nonzero =
        shape.iter().filter(|&&size| size != UNKNOWN).try_fold(dtype.size(), |product, &size| product.checked_mul(size.max(1)));
    match nonzero {
        Some(nbytes) if isize::try_from(nbytes).is_ok() => Ok(()),
        Some(_) | None => Err(ArrayError::TooLarge(shape.to_vec())),
    }
}

/// The size of an axis cut like this.
#[must_use]
pub fn axis_size(sizes: &[usize]) -> usize {
    if sizes.contains(&UNKNOWN) { UNKNOWN } else { sizes.iter().sum() }
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
    position.iter().zip(counts).fold(0, |flat, (&place, &count)| flat * count + place)
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
    }
}
