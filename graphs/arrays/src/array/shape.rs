//! Everything that moves elements: views, indices, rechunking, reshaping, joining.

use super::{Array, Op};
use crate::chunking::{AxisChunks, ChunkSpec, UNKNOWN, axis_size, check_pieces, offsets};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::kernels::layout::Range;

/// One item between the brackets of `x[..]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// One element; the axis goes.
    At(i64),
    /// `start:stop:step`.
    Slice(Option<i64>, Option<i64>, i64),
    /// A new axis of length 1.
    NewAxis,
    /// As many whole axes as fit.
    Ellipsis,
}

/// The axis meant by `axis`, which may count from the end.
pub(crate) fn normalise_axis(axis: i64, n_axes: usize) -> Result<usize, ArrayError> {
    let own = if axis < 0 { axis.saturating_add(n_axes as i64) } else { axis };
    usize::try_from(own).ok().filter(|own| *own < n_axes).ok_or(ArrayError::Axis { axis, n_axes })
}

/// Distinct axes, in the order given.
pub(crate) fn normalise_axes(axes: &[i64], n_axes: usize) -> Result<Vec<usize>, ArrayError> {
    let mut seen = Vec::with_capacity(axes.len());
    for &axis in axes {
        let own = normalise_axis(axis, n_axes)?;
        if seen.contains(&own) {
            return Err(ArrayError::RepeatedAxis(own));
        }
        seen.push(own);
    }
    Ok(seen)
}

impl Array {
    /// Axes in another order, dropped (if of length 1) or added.
    pub(crate) fn view(&self, axes: Vec<Option<usize>>) -> Result<Self, ArrayError> {
        let is_same = axes.len() == self.n_axes() && axes.iter().enumerate().all(|(axis, own)| *own == Some(axis));
        if is_same {
            return Ok(self.clone());
        }
        // An axis of length 1 may still be cut, into a full chunk and empty ones: before it goes, it is made whole.
        let is_cut = |axis: &usize| !axes.contains(&Some(*axis)) && self.chunks()[*axis].len() > 1;
        let cut: Vec<usize> = (0..self.n_axes()).filter(is_cut).collect();
        if !cut.is_empty() {
            return self.whole_along(&cut)?.view(axes);
        }
        if let Op::View { input, axes: inner } = &self.0.op {
            // A view of a view is a view.
            return input.view(axes.into_iter().map(|axis| axis.and_then(|axis| inner[axis])).collect());
        }
        let chunks = axes.iter().map(|axis| axis.map_or_else(|| vec![1], |axis| self.chunks()[axis].clone())).collect();
        Self::node(Op::View { input: self.clone(), axes }, self.dtype(), chunks)
    }

    /// Axes in the order given, all reversed for `None`.
    ///
    /// # Errors
    /// When the axes are not a permutation.
    pub fn transpose(&self, axes: Option<&[i64]>) -> Result<Self, ArrayError> {
        let n_axes = self.n_axes();
        let order = match axes {
            None => (0..n_axes).rev().collect(),
            Some(axes) if axes.len() == n_axes => normalise_axes(axes, n_axes)?,
            Some(axes) => {
                return Err(ArrayError::argument(
                    "transpose",
                    format!("{} axes for an array of {n_axes} dimensions", axes.len()),
                ));
            }
        };
        self.view(order.into_iter().map(Some).collect())
    }

    /// Two axes exchanged.
    ///
    /// # Errors
    /// When one is not there.
    pub fn swapaxes(&self, a: i64, b: i64) -> Result<Self, ArrayError> {
        let mut order: Vec<Option<usize>> = (0..self.n_axes()).map(Some).collect();
        order.swap(normalise_axis(a, self.n_axes())?, normalise_axis(b, self.n_axes())?);
        self.view(order)
    }

    /// New axes of length 1, at these places of the result.
    ///
    /// # Errors
    /// When a place does not exist or is named twice.
    pub fn expand_dims(&self, axes: &[i64]) -> Result<Self, ArrayError> {
        let n_axes = self.n_axes() + axes.len();
        let new = normalise_axes(axes, n_axes)?;
        let mut own = 0..self.n_axes();
        self.view((0..n_axes).map(|axis| if new.contains(&axis) { None } else { own.next() }).collect())
    }

    /// Without axes of length 1: these, or all for `None`.
    ///
    /// # Errors
    /// When an axis is longer.
    pub fn squeeze(&self, axes: Option<&[i64]>) -> Result<Self, ArrayError> {
        let shape = self.shape();
        let gone = match axes {
            None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
            Some(axes) => normalise_axes(axes, shape.len())?,
        };
        if let Some(&axis) = gone.iter().find(|&&axis| shape[axis] != 1) {
            return Err(ArrayError::argument("squeeze", format!("axis {axis} has size {}, not 1", shape[axis])));
        }
        self.view((0..shape.len()).filter(|axis| !gone.contains(axis)).map(Some).collect())
    }

    /// `x[items]`, as NumPy's basic indexing.
    ///
    /// # Errors
    /// When there are too many items, two ellipses, or an index is out of bounds.
    pub fn index(&self, items: &[Index]) -> Result<Self, ArrayError> {
        let n_axes = self.n_axes();
        let given = items.iter().filter(|item| matches!(item, Index::At(_) | Index::Slice(..))).count();
        if given > n_axes {
            return Err(ArrayError::TooManyIndices { given, n_axes });
        }
        if items.iter().filter(|item| **item == Index::Ellipsis).count() > 1 {
            return Err(ArrayError::argument("indexing", "an index can have one ellipsis only"));
        }
        let shape = self.shape();
        let whole = |axis: usize| Range { start: 0, step: 1, n: shape[axis] };
        let mut ranges = Vec::with_capacity(n_axes);
        let mut axes = Vec::new();
        let ends_open = !items.contains(&Index::Ellipsis);
        for item in items.iter().chain(ends_open.then_some(&Index::Ellipsis)) {
            let axis = ranges.len();
            match *item {
                Index::NewAxis => axes.push(None),
                Index::Ellipsis => {
                    for axis in axis..axis + n_axes - given {
                        ranges.push(whole(axis));
                        axes.push(Some(axis));
                    }
                }
                Index::Slice(None, None, 1) => {
                    ranges.push(whole(axis));
                    axes.push(Some(axis));
                }
                Index::Slice(start, stop, step) => {
                    ArrayError::check_known(&shape[axis..=axis], "a slice")?;
                    ranges.push(
                        Range::of(start, stop, step, shape[axis]).map_err(|reason| ArrayError::argument("indexing", reason))?,
                    );
                    axes.push(Some(axis));
                }
                Index::At(index) => {
                    ArrayError::check_known(&shape[axis..=axis], "an index")?;
                    let own = if index < 0 { index.saturating_add(shape[axis] as i64) } else { index };
                    let start = usize::try_from(own).ok().filter(|own| *own < shape[axis]);
                    let start = start.ok_or(ArrayError::Index { index, axis, size: shape[axis] })?;
                    ranges.push(Range { start, step: 1, n: 1 });
                }
            }
        }
        self.slice(ranges)?.view(axes)
    }

    fn slice(&self, ranges: Vec<Range>) -> Result<Self, ArrayError> {
        if ranges.iter().zip(self.shape()).all(|(range, size)| range.is_whole(size)) {
            return Ok(self.clone());
        }
        let chunks = ranges
            .iter()
            .zip(self.chunks())
            .map(|(range, sizes)| touched(range, sizes).into_iter().map(|(_, local)| local.n).collect())
            .collect();
        Self::node(Op::Slice { input: self.clone(), ranges }, self.dtype(), chunks)
    }

    /// The same elements in other chunks. Axes of unknown size must keep theirs.
    ///
    /// # Errors
    /// When the chunks do not fit.
    pub fn rechunk(&self, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        if let ChunkSpec::Axes(axes) = chunks {
            let same = axes.len() == self.n_axes()
                && axes.iter().zip(self.chunks()).all(|(axis, own)| matches!(axis, AxisChunks::Sizes(sizes) if sizes == own));
            if same {
                return Ok(self.clone());
            }
        }
        let chunks = self.resolve_chunks(chunks)?;
        if chunks == self.chunks() {
            return Ok(self.clone());
        }
        // Only the last of several cuts counts.
        let source = if let Op::Rechunk(source) = &self.0.op { source.clone() } else { self.clone() };
        if chunks == source.chunks() {
            return Ok(source);
        }
        // Along an axis every cut on either side ends a piece.
        let n_pieces =
            chunks.iter().zip(source.chunks()).map(|(to, from)| if to == from { to.len() } else { to.len() + from.len() });
        check_pieces("too many pieces of chunks", n_pieces)?;
        Self::node(Op::Rechunk(source), self.dtype(), chunks)
    }

    /// The chunks that `spec` means for this array; axes of unknown size keep theirs, and may be asked for nothing else.
    fn resolve_chunks(&self, spec: &ChunkSpec) -> Result<Vec<Vec<usize>>, ArrayError> {
        let shape = self.shape();
        if !shape.contains(&UNKNOWN) {
            return spec.resolve(&shape, self.dtype());
        }
        let mut axes = match spec {
            ChunkSpec::Axes(axes) => axes.clone(),
            ChunkSpec::Size(size) => vec![AxisChunks::Size(*size); shape.len()],
            ChunkSpec::Auto(word) => vec![AxisChunks::Auto(*word); shape.len()],
        };
        let mut known = shape.clone();
        for (axis, size) in known.iter_mut().enumerate().filter(|(_, size)| **size == UNKNOWN) {
            *size = 1;
            let Some(entry) = axes.get_mut(axis) else { continue };
            let keeps = match entry {
                AxisChunks::Auto(_) => true,
                AxisChunks::Size(_) => false,
                AxisChunks::Sizes(sizes) => *sizes == self.chunks()[axis],
            };
            if !keeps {
                return Err(ArrayError::UnknownSize("rechunk"));
            }
            *entry = AxisChunks::Size(-1);
        }
        let mut chunks = ChunkSpec::Axes(axes).resolve(&known, self.dtype())?;
        for (axis, _) in shape.iter().enumerate().filter(|(_, size)| **size == UNKNOWN) {
            chunks[axis].clone_from(&self.chunks()[axis]);
        }
        Ok(chunks)
    }

    /// Without some chunks' cuts: each of `axes` in one chunk.
    pub(crate) fn whole_along(&self, axes: &[usize]) -> Result<Self, ArrayError> {
        let chunks = self
            .chunks()
            .iter()
            .enumerate()
            .map(|(axis, sizes)| if axes.contains(&axis) && sizes.len() > 1 { vec![axis_size(sizes)] } else { sizes.clone() })
            .collect();
        self.rechunk(&ChunkSpec::explicit(chunks))
    }

    /// The same elements, in C order, in another shape; one entry may be -1.
    ///
    /// # Errors
    /// When the shape has more or fewer elements.
    pub fn reshape(&self, shape: &[i64]) -> Result<Self, ArrayError> {
        let own = self.shape();
        ArrayError::check_known(&own, "reshape")?;
        let n: usize = own.iter().product();
        let target = complete_shape(shape, n).ok_or_else(|| {
            ArrayError::argument("reshape", format!("cannot reshape {} into {shape:?}", crate::chunking::shape_text(&own)))
        })?;
        if target == own {
            return Ok(self.clone());
        }
        // Slabs: everything but the first axis is whole, so chunk i is one run of elements on both sides.
        let per_target: usize = target.iter().skip(1).product();
        let per_own: usize = own.iter().skip(1).product();
        let whole: Vec<usize> = (1..own.len()).collect();
        let slabs = self.whole_along(&whole)?;
        if n == 0 || target.is_empty() || own.is_empty() {
            let all: Vec<usize> = (0..own.len()).collect();
            let chunks = target.iter().map(|&size| vec![size]).collect();
            return Self::node(Op::Reshape(self.whole_along(&all)?), self.dtype(), chunks);
        }
        // Cuts that fall on a row of the target stay; the others go.
        let mut own_sizes = Vec::new();
        let mut target_sizes = Vec::new();
        let mut last = 0;
        for &cut in offsets(&slabs.chunks()[0]).iter().skip(1) {
            if (cut * per_own).is_multiple_of(per_target) && cut > last {
                own_sizes.push(cut - last);
                target_sizes.push((cut - last) * per_own / per_target);
                last = cut;
            }
        }
        let mut own_chunks = slabs.chunks().to_vec();
        own_chunks[0] = own_sizes;
        let mut chunks: Vec<Vec<usize>> = target.iter().map(|&size| vec![size]).collect();
        chunks[0] = target_sizes;
        Self::node(Op::Reshape(slabs.rechunk(&ChunkSpec::explicit(own_chunks))?), self.dtype(), chunks)
    }

    /// All elements along one axis, in C order.
    ///
    /// # Errors
    /// When some size is unknown.
    pub fn ravel(&self) -> Result<Self, ArrayError> {
        self.reshape(&[-1])
    }

    /// Arrays one after another along an axis.
    ///
    /// # Errors
    /// When there are none, or shapes differ along another axis.
    pub fn concatenate(arrays: &[Array], axis: i64) -> Result<Self, ArrayError> {
        let Some(first) = arrays.first() else { return Err(ArrayError::argument("concatenate", "needs at least one array")) };
        let axis = normalise_axis(axis, first.n_axes())?;
        let dtype = arrays.iter().map(Array::dtype).reduce(DType::promote).unwrap_or(first.dtype());
        for other in arrays {
            let (left, right) = (first.shape(), other.shape());
            let fits = left.len() == right.len() && (0..left.len()).all(|own| own == axis || left[own] == right[own]);
            if !fits {
                return Err(ArrayError::Shapes {
                    operation: "concatenate",
                    left,
                    right,
                    reason: format!("all axes but axis {axis} must be equal"),
                });
            }
        }
        let mut grid = first.chunks().to_vec();
        let inputs = arrays
            .iter()
            .map(|array| {
                let mut own = grid.clone();
                own[axis].clone_from(&array.chunks()[axis]);
                array.astype(dtype)?.rechunk(&ChunkSpec::explicit(own))
            })
            .collect::<Result<Vec<Array>, ArrayError>>()?;
        grid[axis] = inputs.iter().flat_map(|input| input.chunks()[axis].iter().copied()).collect();
        Self::node(Op::Concatenate { axis, inputs }, dtype, grid)
    }

    /// Arrays of one shape along a new axis.
    ///
    /// # Errors
    /// When there are none, or shapes differ.
    pub fn stack(arrays: &[Array], axis: i64) -> Result<Self, ArrayError> {
        if let Some(other) = arrays.iter().find(|array| array.shape() != arrays[0].shape()) {
            return Err(ArrayError::Shapes {
                operation: "stack",
                left: arrays[0].shape(),
                right: other.shape(),
                reason: "all shapes must be equal".to_owned(),
            });
        }
        let expanded = arrays.iter().map(|array| array.expand_dims(&[axis])).collect::<Result<Vec<Array>, ArrayError>>()?;
        Self::concatenate(&expanded, axis)
    }
}

fn complete_shape(shape: &[i64], n: usize) -> Option<Vec<usize>> {
    let known = shape
        .iter()
        .filter(|&&size| size != -1)
        .try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?))?;
    let n_free = shape.iter().filter(|&&size| size == -1).count();
    let free = match n_free {
        0 if known == n => 0,
        1 if known > 0 && n.is_multiple_of(known) => n / known,
        _ => return None,
    };
    Some(shape.iter().map(|&size| usize::try_from(size).unwrap_or(free)).collect())
}

/// Which chunks of an axis a range touches, in the order of the range, and which indices inside each; an empty range
/// touches the first chunk with no index.
pub(crate) fn touched(range: &Range, sizes: &[usize]) -> Vec<(usize, Range)> {
    if range.is_whole(axis_size(sizes)) {
        return sizes.iter().enumerate().map(|(chunk, &n)| (chunk, Range { start: 0, step: 1, n })).collect();
    }
    if range.n == 0 {
        return vec![(0, Range { start: 0, step: 1, n: 0 })];
    }
    let starts = offsets(sizes);
    let mut pieces = Vec::new();
    let mut n_done = 0;
    while n_done < range.n {
        let first = range.at(n_done);
        let chunk = starts.partition_point(|&start| start <= first).saturating_sub(1).min(sizes.len() - 1);
        // How many more steps stay inside this chunk.
        let room = if range.step > 0 { (starts[chunk + 1] - 1 - first) as u64 } else { (first - starts[chunk]) as u64 };
        let n = usize::try_from(room / range.step.unsigned_abs() + 1).unwrap_or(usize::MAX).min(range.n - n_done);
        pieces.push((chunk, Range { start: first - starts[chunk], step: range.step, n }));
        n_done += n;
    }
    pieces
}
