//! Elementwise functions: types by promotion, shapes by broadcasting, chunks brought to one grid.

use super::{Array, Op, Operand};
use crate::chunking::{ChunkSpec, UNKNOWN, broadcast_shapes};
use crate::dtype::{DType, Scalar};
use crate::error::ArrayError;
use crate::function::Function;

impl Array {
    /// `function` of the operands, of which at least one is an array.
    ///
    /// # Errors
    /// When shapes do not broadcast, the function is not defined for the types, or a number does not fit.
    pub fn apply(function: Function, operands: &[Operand]) -> Result<Self, ArrayError> {
        if operands.len() != function.n_operands() {
            return Err(ArrayError::argument(
                function.name(),
                format!("takes {} operands, got {}", function.n_operands(), operands.len()),
            ));
        }
        if let Some(quicker) = quicker(function, operands)? {
            return Ok(quicker);
        }
        let types: Vec<_> = operands.iter().map(Operand::type_of).collect();
        let resolved = function.resolve(&types)?;
        let (operands, chunks) = unify(operands)?;
        Ok(Self::node(Op::Apply { function: resolved.function, compute: resolved.compute, operands }, resolved.result, chunks))
    }

    /// The elements converted to `dtype`; floats to integers truncate.
    #[must_use]
    pub fn astype(&self, dtype: DType) -> Self {
        if dtype == self.dtype() {
            return self.clone();
        }
        Self::node(Op::Cast(self.clone()), dtype, self.chunks().to_vec())
    }

    /// Elements below `low` raised to it, above `high` lowered to it.
    ///
    /// # Errors
    /// When shapes do not broadcast, or both bounds are missing.
    pub fn clip(&self, low: Option<&Operand>, high: Option<&Operand>) -> Result<Self, ArrayError> {
        if low.is_none() && high.is_none() {
            return Err(ArrayError::argument("clip", "one of the bounds is needed"));
        }
        let mut result = self.clone();
        if let Some(low) = low {
            result = Self::apply(Function::Maximum, &[result.into(), low.clone()])?;
        }
        if let Some(high) = high {
            result = Self::apply(Function::Minimum, &[result.into(), high.clone()])?;
        }
        Ok(result)
    }
}

/// Powers that have a function of their own, and tests that are always false.
fn quicker(function: Function, operands: &[Operand]) -> Result<Option<Array>, ArrayError> {
    if function != Function::Power {
        return Ok(None);
    }
    let [Operand::Array(base), Operand::Scalar(exponent)] = operands else { return Ok(None) };
    if let Scalar::Int(exponent) = exponent
        && *exponent < 0
        && !base.dtype().is_float()
    {
        return Err(ArrayError::argument("power", "integers to negative integer powers are not allowed"));
    }
    let is_square = matches!(exponent, Scalar::Int(2)) || (base.dtype().is_float() && *exponent == Scalar::Float(2.0));
    let quick = if is_square && base.dtype() != DType::Bool {
        Function::Square
    } else if base.dtype().is_float() && *exponent == Scalar::Float(0.5) {
        Function::Sqrt
    } else {
        return Ok(None);
    };
    Array::apply(quick, &operands[..1]).map(Some)
}

/// The grid of a broadcast, and the operands rechunked to it (axes of size 1 stay as they are).
fn unify(operands: &[Operand]) -> Result<(Vec<Operand>, Vec<Vec<usize>>), ArrayError> {
    let arrays: Vec<&Array> =
        operands.iter().filter_map(|operand| if let Operand::Array(array) = operand { Some(array) } else { None }).collect();
    if arrays.is_empty() {
        return Err(ArrayError::argument("elementwise function", "at least one operand has to be an array"));
    }
    let mut shape = Vec::new();
    for array in &arrays {
        shape = broadcast_shapes(&shape, &array.shape())?;
    }
    let n_axes = shape.len();
    let mut grid: Vec<Vec<usize>> = shape.iter().map(|&size| vec![size]).collect();
    for (axis, sizes) in grid.iter_mut().enumerate() {
        // The biggest operand that runs along this axis keeps its chunks; the others move.
        let along = arrays.iter().filter_map(|array| {
            let own = (axis + array.n_axes()).checked_sub(n_axes)?;
            (shape[axis] == 1 || array.shape()[own] != 1).then(|| (array.nbytes().unwrap_or(u64::MAX), &array.chunks()[own]))
        });
        let candidates: Vec<(u64, &Vec<usize>)> = along.collect();
        if let Some((_, chosen)) = candidates.iter().rev().max_by_key(|(nbytes, _)| *nbytes) {
            sizes.clone_from(chosen);
        }
        let unknown = candidates.iter().any(|(_, sizes)| sizes.contains(&UNKNOWN));
        if unknown
            && candidates.iter().any(|(_, own)| {
                own.len() != sizes.len() || (!own.contains(&UNKNOWN) && *own != sizes && !sizes.contains(&UNKNOWN))
            })
        {
            return Err(ArrayError::UnknownSize("an elementwise function of differently chunked arrays"));
        }
    }
    let operands = operands
        .iter()
        .map(|operand| match operand {
            Operand::Scalar(_) => Ok(operand.clone()),
            Operand::Array(array) => {
                let own_grid = (0..array.n_axes())
                    .map(|own| {
                        let axis = own + n_axes - array.n_axes();
                        let own_sizes = &array.chunks()[own];
                        if array.shape()[own] == 1 && shape[axis] != 1
                            || own_sizes.contains(&UNKNOWN)
                            || grid[axis].contains(&UNKNOWN)
                        {
                            own_sizes.clone()
                        } else {
                            grid[axis].clone()
                        }
                    })
                    .collect();
                Ok(Operand::Array(array.rechunk(&ChunkSpec::explicit(own_grid))?))
            }
        })
        .collect::<Result<Vec<Operand>, ArrayError>>()?;
    Ok((operands, grid))
}
