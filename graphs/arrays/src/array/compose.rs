//! Functions that are others put together: differences, running sums, gradients, repetitions.

use super::shape::normalise_axis;
use super::{Array, Index, Op};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::function::Function;
use crate::kernels::scan::Scan;
use crate::scalar::Scalar;

/// Most copies of an array one after another, and most differences of differences.
const MAX_COPIES: usize = 10_000;

impl Array {
    /// `start:stop` along one axis.
    fn along(&self, axis: usize, start: Option<i64>, stop: Option<i64>) -> Result<Self, ArrayError> {
        let mut items = vec![Index::Slice(None, None, 1); axis];
        items.push(Index::Slice(start, stop, 1));
        self.index(&items)
    }

    /// Each element less the one before it along `axis`, `n` times; whether they differ, for booleans.
    ///
    /// # Errors
    /// When the axis is not there or of unknown size, or `n` is too large.
    pub fn diff(&self, n: usize, axis: i64) -> Result<Self, ArrayError> {
        let axis = normalise_axis(axis, self.n_axes())?;
        ArrayError::check_known(&self.shape()[axis..=axis], "diff")?;
        check_copies("diff", n)?;
        let function = if self.dtype() == DType::Bool { Function::NotEqual } else { Function::Subtract };
        let mut result = self.clone();
        for _ in 0..n.min(self.shape()[axis]) {
            let (later, earlier) = (result.along(axis, Some(1), None)?, result.along(axis, None, Some(-1))?);
            result = Self::apply(function, &[later.into(), earlier.into()])?;
        }
        Ok(result)
    }

    /// For each element the sum or product of it and all before it along `axis`, of all in C order for `None`. Chunks along
    /// the axis go on from each other one after another.
    ///
    /// # Errors
    /// When the axis is not there or of unknown size, or there are too many chunks along it.
    pub(crate) fn scan(&self, scan: Scan, axis: Option<i64>) -> Result<Self, ArrayError> {
        // As in NumPy a single number has an axis here.
        let axis = axis.filter(|axis| self.n_axes() > 0 || !matches!(axis, 0 | -1));
        let Some(axis) = axis else { return self.ravel()?.scan(scan, Some(0)) };
        let axis = normalise_axis(axis, self.n_axes())?;
        ArrayError::check_known(&self.shape()[axis..=axis], "a running sum")?;
        let x = self.astype(self.dtype().to_sum())?;
        let (dtype, chunks) = (x.dtype(), x.chunks().to_vec());
        let local = Self::node(Op::Scan { scan, input: x, axis }, dtype, chunks)?;
        let sizes = local.chunks()[axis].clone();
        if sizes.len() == 1 {
            return Ok(local);
        }
        let function = match scan {
            Scan::Sum => Function::Add,
            Scan::Product => Function::Multiply,
        };
        let (mut parts, mut start, mut so_far) = (Vec::with_capacity(sizes.len()), 0i64, None::<Array>);
        for size in sizes.into_iter().filter(|&size| size > 0) {
            let stop = start + size as i64;
            let mut part = local.along(axis, Some(start), Some(stop))?;
            if let Some(so_far) = so_far {
                part = Self::apply(function, &[part.into(), so_far.into()])?;
            }
            so_far = Some(part.along(axis, Some(-1), None)?);
            parts.push(part);
            start = stop;
        }
        if parts.is_empty() { Ok(local) } else { Self::concatenate(&parts, axis as i64) }
    }

    /// The slope along `axis`, elements being `spacing` apart: half of the difference of the neighbours, and at the ends the
    /// difference from the only one.
    ///
    /// # Errors
    /// When the axis is not there, of unknown size, or shorter than 2.
    pub fn gradient(&self, spacing: f64, axis: i64) -> Result<Self, ArrayError> {
        let axis = normalise_axis(axis, self.n_axes())?;
        let size = self.shape()[axis];
        ArrayError::check_known(&[size], "gradient")?;
        if size < 2 {
            return Err(ArrayError::argument("gradient", format!("axis {axis} has size {size}, 2 are needed")));
        }
        let x = if self.dtype().is_float() { self.clone() } else { self.astype(DType::F64)? };
        let slope = |later: Array, earlier: Array, distance: f64| {
            let difference = Self::apply(Function::Subtract, &[later.into(), earlier.into()])?;
            Self::apply(Function::Divide, &[difference.into(), Scalar::Float(distance).into()])
        };
        let first = slope(x.along(axis, Some(1), Some(2))?, x.along(axis, None, Some(1))?, spacing)?;
        let last = slope(x.along(axis, Some(-1), None)?, x.along(axis, Some(-2), Some(-1))?, spacing)?;
        let mut parts = vec![first];
        if size > 2 {
            parts.push(slope(x.along(axis, Some(2), None)?, x.along(axis, None, Some(-2))?, 2.0 * spacing)?);
        }
        parts.push(last);
        let whole = Self::concatenate(&parts, axis as i64)?;
        // In the chunks it came in: ends of one element each are no chunks to go on with.
        whole.rechunk(&crate::ChunkSpec::explicit(x.chunks().to_vec()))
    }

    /// Every element `n` times, along `axis`, or of all in C order for `None`.
    ///
    /// # Errors
    /// When the axis is not there, some size is unknown, or `n` is too large.
    pub fn repeat(&self, n: usize, axis: Option<i64>) -> Result<Self, ArrayError> {
        check_copies("repeat", n)?;
        let Some(axis) = axis else { return self.ravel()?.repeat(n, Some(0)) };
        let axis = normalise_axis(axis, self.n_axes())?;
        if n == 0 {
            return self.along(axis, None, Some(0));
        }
        let copies = Self::stack(&vec![self.clone(); n], axis as i64 + 1)?;
        let shape: Vec<i64> = self.shape().iter().map(|&size| size as i64).collect();
        let mut repeated = shape;
        repeated[axis] *= n as i64;
        copies.reshape(&repeated)
    }

    /// The whole array again and again: `counts[i]` times along axis i, aligned at the last axes.
    ///
    /// # Errors
    /// When there would be too many copies.
    pub fn tile(&self, counts: &[usize]) -> Result<Self, ArrayError> {
        let mut result = self.clone();
        for _ in self.n_axes()..counts.len() {
            result = result.expand_dims(&[0])?;
        }
        let first = result.n_axes() - counts.len();
        for (axis, &n) in (first..).zip(counts) {
            check_copies("tile", n)?;
            result = match n {
                0 => result.along(axis, None, Some(0))?,
                1 => result,
                n => Self::concatenate(&vec![result; n], axis as i64)?,
            };
        }
        Ok(result)
    }
}

fn check_copies(function: &'static str, n: usize) -> Result<(), ArrayError> {
    if n <= MAX_COPIES {
        Ok(())
    } else {
        Err(ArrayError::argument(function, format!("{n} times, at most {MAX_COPIES} are possible")))
    }
}
