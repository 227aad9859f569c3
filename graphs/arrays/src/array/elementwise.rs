//! Elementwise functions: types by promotion, shapes by broadcasting, chunks brought to one grid.
//!
//! Comparisons of integers are exact whatever the types: what no common type holds is said in other comparisons.

use super::{Array, Op, Operand};
use crate::chunking::{ChunkSpec, UNKNOWN, broadcast_shapes};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::function::{Function, common_type};
use crate::scalar::Scalar;

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
        if let Some(other) = as_others(function, operands)? {
            return Ok(other);
        }
        let types: Vec<_> = operands.iter().map(Operand::type_of).collect();
        let resolved = function.resolve(&types)?;
        let (operands, chunks) = unify(operands)?;
        Self::node(Op::Apply { function: resolved.function, compute: resolved.compute, operands }, resolved.result, chunks)
    }

    /// The elements converted to `dtype`: floats to integers lose their fraction, integers their high bits.
    ///
    /// # Errors
    /// When there are too many operations one after another.
    pub fn astype(&self, dtype: DType) -> Result<Self, ArrayError> {
        if dtype == self.dtype() {
            return Ok(self.clone());
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
        let operands: Vec<_> = [Some(&Operand::from(self)), low, high].into_iter().flatten().map(Operand::type_of).collect();
        let common = common_type(&operands);
        // A bound that no element of the type can reach bounds nothing; one on the wrong side fails below.
        let range = common.range();
        let binds = |bound: &&Operand, is_low: bool| match (bound, range) {
            (Operand::Scalar(Scalar::Int(bound)), Some((least, most))) => {
                if is_low {
                    *bound >= least
                } else {
                    *bound <= most
                }
            }
            (Operand::Scalar(_) | Operand::Array(_), _) => true,
        };
        let mut result = if common.is_float() { self.astype(common)? } else { self.clone() };
        if let Some(low) = low.filter(|low| binds(low, true)) {
            result = Self::apply(Function::Maximum, &[result.into(), low.clone()])?;
        }
        if let Some(high) = high.filter(|high| binds(high, false)) {
            result = Self::apply(Function::Minimum, &[result.into(), high.clone()])?;
        }
        Ok(result)
    }
}

/// The same said by other functions: powers that have one of their own, comparisons that no common type could hold.
fn as_others(function: Function, operands: &[Operand]) -> Result<Option<Array>, ArrayError> {
    match operands {
        [Operand::Array(base), Operand::Scalar(exponent)] if function == Function::Power => power(base, *exponent),
        [Operand::Array(array), Operand::Scalar(Scalar::Int(value))] if function.is_comparison() => {
            beyond(function, array, *value)
        }
        [Operand::Scalar(Scalar::Int(value)), Operand::Array(array)] if function.is_comparison() => {
            beyond(function.mirrored(), array, *value)
        }
        [Operand::Array(left), Operand::Array(right)] if function.is_comparison() => {
            if left.dtype().is_signed() && right.dtype() == DType::U64 {
                mixed(function, left, right).map(Some)
            } else if left.dtype() == DType::U64 && right.dtype().is_signed() {
                mixed(function.mirrored(), right, left).map(Some)
            } else {
                Ok(None)
            }
        }
        _ => Ok(None),
    }
}

/// A power by a number for which there is a quicker function.
fn power(base: &Array, exponent: Scalar) -> Result<Option<Array>, ArrayError> {
    if let Scalar::Int(exponent) = exponent
        && exponent < 0
        && !base.dtype().is_float()
    {
        return Err(ArrayError::argument("power", "integers to negative integer powers are not allowed"));
    }
    let is_square = exponent == Scalar::Int(2) || (base.dtype().is_float() && exponent == Scalar::Float(2.0));
    let quick = if is_square && base.dtype() != DType::Bool {
        Function::Square
    } else if base.dtype().is_float() && exponent == Scalar::Float(0.5) {
        Function::Sqrt
    } else {
        return Ok(None);
    };
    Array::apply(quick, &[base.into()]).map(Some)
}

/// A comparison with an integer that the array's type does not hold, by one with the nearest that it does hold, which is as
/// true or as false for every element.
fn beyond(function: Function, array: &Array, value: i128) -> Result<Option<Array>, ArrayError> {
    use Function as F;
    let Some((low, high)) = array.dtype().range() else { return Ok(None) };
    let (function, bound) = if value > high {
        (if matches!(function, F::Less | F::LessEqual | F::NotEqual) { F::LessEqual } else { F::Greater }, high)
    } else if value < low {
        (if matches!(function, F::Greater | F::GreaterEqual | F::NotEqual) { F::GreaterEqual } else { F::Less }, low)
    } else {
        return Ok(None);
    };
    Array::apply(function, &[array.into(), Operand::Scalar(Scalar::Int(bound))]).map(Some)
}

/// A comparison of a signed integer with one of 64 bits without sign: what is negative is smaller, the rest is compared
/// without sign. Their common type would be f64, which rounds them.
fn mixed(function: Function, signed: &Array, unsigned: &Array) -> Result<Array, ArrayError> {
    use Function as F;
    let zero = Operand::Scalar(Scalar::Int(0));
    let compared = Array::apply(function, &[signed.astype(DType::U64)?.into(), unsigned.into()])?;
    if matches!(function, F::Less | F::LessEqual | F::NotEqual) {
        let negative = Array::apply(F::Less, &[signed.into(), zero])?;
        Array::apply(F::LogicalOr, &[negative.into(), compared.into()])
    } else {
        let natural = Array::apply(F::GreaterEqual, &[signed.into(), zero])?;
        Array::apply(F::LogicalAnd, &[natural.into(), compared.into()])
    }
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
                let own_shape = array.shape();
                let own_grid = (0..array.n_axes())
                    .map(|own| {
                        let axis = own + n_axes - array.n_axes();
                        let own_sizes = &array.chunks()[own];
                        if own_shape[own] == 1 && shape[axis] != 1 {
                            // One element goes with every chunk, so it must be one chunk itself.
                            vec![1]
                        } else if own_sizes.contains(&UNKNOWN) || grid[axis].contains(&UNKNOWN) {
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
