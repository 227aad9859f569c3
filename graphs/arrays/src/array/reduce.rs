//! Reductions over axes.

use super::shape::normalise_axes;
use super::{Array, Op};
use crate::error::ArrayError;
use crate::kernels::reduce::Reduction;

impl Array {
    /// `reduction` over `axes` (all for `None`). `ddof` matters to variance and standard deviation only.
    ///
    /// # Errors
    /// When an axis is not there, there is nothing to take an extreme of, or a position is asked over several but not all axes.
    pub fn reduce(&self, reduction: Reduction, axes: Option<&[i64]>, keepdims: bool, ddof: i64) -> Result<Self, ArrayError> {
        let shape = self.shape();
        let mut own = match axes {
            None => (0..shape.len()).collect(),
            Some(axes) => normalise_axes(axes, shape.len())?,
        };
        own.sort_unstable();
        if reduction.needs_elements() && own.iter().any(|&axis| shape[axis] == 0) {
            return Err(ArrayError::argument(reduction.name(), "an empty array has no such element"));
        }
        let is_positional = matches!(reduction, Reduction::Argmin | Reduction::Argmax);
        if is_positional && own.len() > 1 && own.len() < shape.len() {
            return Err(ArrayError::argument(reduction.name(), "takes one axis, or all"));
        }
        if is_positional {
            ArrayError::check_known(&shape, reduction.name())?;
        }
        let reduced = |axis: usize| own.contains(&axis);
        let chunks = self
            .chunks()
            .iter()
            .enumerate()
            .filter(|(axis, _)| keepdims || !reduced(*axis))
            .map(|(axis, sizes)| if reduced(axis) { vec![1] } else { sizes.clone() })
            .collect();
        let dtype = reduction.result_type(self.dtype());
        Ok(Self::node(Op::Reduce { reduction, input: self.clone(), axes: own, keepdims, ddof }, dtype, chunks))
    }

    /// Sum over `axes`, all for `None`.
    ///
    /// # Errors
    /// When an axis is not there.
    pub fn sum(&self, axes: Option<&[i64]>) -> Result<Self, ArrayError> {
        self.reduce(Reduction::Sum, axes, false, 0)
    }

    /// Arithmetic mean over `axes`, all for `None`.
    ///
    /// # Errors
    /// When an axis is not there.
    pub fn mean(&self, axes: Option<&[i64]>) -> Result<Self, ArrayError> {
        self.reduce(Reduction::Mean, axes, false, 0)
    }
}
