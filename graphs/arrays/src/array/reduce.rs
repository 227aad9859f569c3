//! Reductions over axes.

use super::shape::normalise_axes;
use super::{Array, Op, Operand};
use crate::error::ArrayError;
use crate::function::Function;
use crate::kernels::reduce::Reduction;
use crate::scalar::Scalar;

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
        let is_positional = reduction.is_positional();
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
        Self::node(Op::Reduce { reduction, input: self.clone(), axes: own, keepdims, ddof }, dtype, chunks)
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

    /// Sum, product, mean, variance or standard deviation of what is not NaN, over `axes` (all for `None`).
    ///
    /// # Errors
    /// When an axis is not there, or the reduction is another one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others have no such form")]
    pub fn nan_reduce(&self, reduction: Reduction, axes: Option<&[i64]>, keepdims: bool, ddof: i64) -> Result<Self, ArrayError> {
        let missing = Self::apply(Function::IsNan, &[self.into()])?;
        let with = |value: f64| {
            // A weak number would make floats of truth values and integers.
            let value = if self.dtype().is_float() { Scalar::Float(value) } else { Scalar::Bool(value != 0.0) };
            Self::apply(Function::Where, &[(&missing).into(), Operand::Scalar(value), self.into()])
        };
        let n_present = |keepdims: bool| {
            let present = Self::apply(Function::LogicalNot, &[(&missing).into()])?;
            present.reduce(Reduction::CountNonzero, axes, keepdims, 0)
        };
        let mean = |keepdims: bool| {
            let sum = with(0.0)?.reduce(Reduction::Sum, axes, keepdims, 0)?;
            // Single precision stays single: the number of elements is a number like any other.
            let n = n_present(keepdims)?.astype(Reduction::Mean.result_type(self.dtype()))?;
            Self::apply(Function::Divide, &[sum.into(), n.into()])
        };
        match reduction {
            Reduction::Sum => with(0.0)?.reduce(Reduction::Sum, axes, keepdims, 0),
            Reduction::Prod => with(1.0)?.reduce(Reduction::Prod, axes, keepdims, 0),
            Reduction::Mean => mean(keepdims),
            Reduction::Var | Reduction::Std => {
                let distance = Self::apply(Function::Subtract, &[with(0.0)?.into(), mean(true)?.into()])?;
                let square = Self::apply(Function::Square, &[distance.into()])?;
                let square = Self::apply(Function::Where, &[(&missing).into(), 0.0.into(), square.into()])?;
                let sum = square.reduce(Reduction::Sum, axes, keepdims, 0)?;
                let freedom = Self::apply(Function::Subtract, &[n_present(keepdims)?.into(), ddof.into()])?;
                // Where nothing is left NumPy divides by nothing, which is NaN.
                let enough = Self::apply(Function::Greater, &[(&freedom).into(), 0i64.into()])?;
                let freedom = freedom.astype(sum.dtype())?;
                let divisor = Self::apply(Function::Where, &[enough.into(), freedom.into(), f64::NAN.into()])?;
                let variance = Self::apply(Function::Divide, &[sum.into(), divisor.into()])?;
                if reduction == Reduction::Var { Ok(variance) } else { Self::apply(Function::Sqrt, &[variance.into()]) }
            }
            other => Err(ArrayError::argument(other.name(), "has no such form")),
        }
    }
}
