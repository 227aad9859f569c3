//! Products and linear algebra.

use super::shape::normalise_axes;
use super::{Array, Op, Operand};
use crate::chunking::{ChunkSpec, broadcast_shapes, check_pieces};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::function::Function;
use crate::kernels::linalg::solved_type;
use crate::kernels::reduce::Reduction;

impl Array {
    /// `self @ other` of vectors, matrices and stacks of matrices, by NumPy's rules: the last two axes are multiplied, those
    /// before them broadcast.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matmul(&self, other: &Array) -> Result<Self, ArrayError> {
        let (left, right) = (self.shape(), other.shape());
        let fail = |reason: &str| ArrayError::Shapes {
            operation: "matmul",
            left: left.clone(),
            right: right.clone(),
            reason: reason.to_owned(),
        };
        let (Some(inner), Some(other_inner)) = (left.last(), right.get(right.len().saturating_sub(2))) else {
            return Err(fail("vectors, matrices or stacks of matrices are needed"));
        };
        if inner != other_inner {
            let axis = if right.len() == 1 { "the first axis" } else { "the last axis but one" };
            return Err(fail(&format!("the last axis of the first must be {axis} of the second")));
        }
        let dtype = self.dtype().promote(other.dtype());
        if dtype == DType::Bool {
            // Whether any product of truths is one.
            let n_true = self.astype(DType::I64)?.matmul(&other.astype(DType::I64)?)?;
            return Self::apply(Function::NotEqual, &[n_true.into(), 0i64.into()]);
        }
        let a = if left.len() == 1 { self.expand_dims(&[0])? } else { self.clone() }.astype(dtype)?;
        let b = if right.len() == 1 { other.expand_dims(&[1])? } else { other.clone() }.astype(dtype)?;
        let (a, b) = fit_for_product(&a, &b)?;
        let n_stack = a.n_axes().max(b.n_axes()) - 2;
        let mut chunks = Vec::with_capacity(n_stack + 2);
        for axis in 0..n_stack {
            let own = |array: &Array| {
                let own = (axis + 2 + array.n_axes()).checked_sub(n_stack + 4)?;
                Some(array.chunks()[own].clone())
            };
            let (of_a, of_b) = (own(&a), own(&b));
            chunks.push(match (of_a, of_b) {
                // What runs along the axis decides; a single matrix goes with every chunk.
                (Some(of_a), Some(of_b)) => {
                    if of_a == [1] {
                        of_b
                    } else {
                        of_a
                    }
                }
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => vec![1],
            });
        }
        let (rows, columns) = (a.chunks()[a.n_axes() - 2].clone(), b.chunks()[b.n_axes() - 1].clone());
        chunks.extend([rows, columns]);
        let n_inner = a.counts()[a.n_axes() - 1];
        check_pieces("too many products of chunks", chunks.iter().map(Vec::len).chain([n_inner]))?;
        let product = Self::node(Op::MatMul(a, b), dtype, chunks)?;
        let kept = [(left.len() > 1).then_some(n_stack), (right.len() > 1).then_some(n_stack + 1)];
        product.view((0..n_stack).chain(kept.into_iter().flatten()).map(Some).collect())
    }

    /// NumPy's `dot`: the last axis of one with the last but one of the other, for every choice of the other axes.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn dot(&self, other: &Array) -> Result<Self, ArrayError> {
        match (self.n_axes(), other.n_axes()) {
            (0, _) | (_, 0) => Self::apply(Function::Multiply, &[self.into(), other.into()]),
            (_, 1 | 2) => self.matmul(other),
            (n_axes, n_other) => self.tensordot(other, &[n_axes as i64 - 1], &[n_other as i64 - 2]),
        }
    }

    /// Sums of products over `axes` of this one and `other_axes` of the other, pair by pair; the axes left over follow each
    /// other.
    ///
    /// # Errors
    /// When an axis is not there, lengths of a pair differ, or some size is unknown.
    pub fn tensordot(&self, other: &Array, axes: &[i64], other_axes: &[i64]) -> Result<Self, ArrayError> {
        let (left, right) = (self.shape(), other.shape());
        ArrayError::check_known(&left, "tensordot")?;
        ArrayError::check_known(&right, "tensordot")?;
        let (own, others) = (normalise_axes(axes, left.len())?, normalise_axes(other_axes, right.len())?);
        let fits = own.len() == others.len() && own.iter().zip(&others).all(|(&own, &other)| left[own] == right[other]);
        if !fits {
            let reason = format!("axes {axes:?} of the first and {other_axes:?} of the second must be equally long");
            return Err(ArrayError::Shapes { operation: "tensordot", left, right, reason });
        }
        let free: Vec<usize> = (0..left.len()).filter(|axis| !own.contains(axis)).collect();
        let other_free: Vec<usize> = (0..right.len()).filter(|axis| !others.contains(axis)).collect();
        let size = |shape: &[usize], axes: &[usize]| axes.iter().map(|&axis| shape[axis]).product::<usize>() as i64;
        let order = |first: &[usize], second: &[usize]| first.iter().chain(second).copied().map(Some).collect();
        let a = self.view(order(&free, &own))?.reshape(&[size(&left, &free), size(&left, &own)])?;
        let b = other.view(order(&others, &other_free))?.reshape(&[size(&right, &others), size(&right, &other_free)])?;
        let kept = free.iter().map(|&axis| left[axis]).chain(other_free.iter().map(|&axis| right[axis]));
        a.matmul(&b)?.reshape(&kept.map(|size| size as i64).collect::<Vec<i64>>())
    }

    /// Every element of one times every element of the other.
    ///
    /// # Errors
    /// When some size is unknown.
    pub fn outer(&self, other: &Array) -> Result<Self, ArrayError> {
        let column: Operand = self.ravel()?.expand_dims(&[1])?.into();
        let row: Operand = other.ravel()?.expand_dims(&[0])?.into();
        Self::apply(Function::Multiply, &[column, row])
    }

    /// The main diagonal of a matrix, or the matrix with this main diagonal.
    ///
    /// # Errors
    /// When there are not one or two axes.
    pub fn diag(&self) -> Result<Self, ArrayError> {
        let shape = self.shape();
        ArrayError::check_known(&shape, "diag")?;
        match shape[..] {
            [_] => Self::node(Op::Diagonal(self.clone()), self.dtype(), vec![self.chunks()[0].clone(), self.chunks()[0].clone()]),
            [n_rows, n_columns] => {
                // The part beyond the square has no diagonal; then both axes are cut alike.
                let n = n_rows.min(n_columns) as i64;
                let square = self.index(&[super::Index::Slice(None, Some(n), 1), super::Index::Slice(None, Some(n), 1)])?;
                let cuts = square.chunks()[0].clone();
                let square = square.rechunk(&ChunkSpec::explicit(vec![cuts.clone(), cuts.clone()]))?;
                Self::node(Op::Diagonal(square), self.dtype(), vec![cuts])
            }
            _ => Err(ArrayError::argument("diag", "an array of one or two axes is needed")),
        }
    }

    /// Sum of the main diagonal.
    ///
    /// # Errors
    /// When this is not a matrix.
    pub fn trace(&self) -> Result<Self, ArrayError> {
        if self.n_axes() != 2 {
            return Err(ArrayError::argument("trace", "a matrix is needed"));
        }
        self.diag()?.sum(None)
    }

    /// Euclidean (Frobenius) norm over `axes`, all for `None`.
    ///
    /// # Errors
    /// When an axis is not there.
    pub fn norm(&self, axes: Option<&[i64]>, keepdims: bool) -> Result<Self, ArrayError> {
        let real = if self.dtype().is_float() { self.clone() } else { self.astype(DType::F64)? };
        let squares = Self::apply(Function::Square, &[real.into()])?;
        Self::apply(Function::Sqrt, &[squares.reduce(Reduction::Sum, axes, keepdims, 0)?.into()])
    }

    /// `x` that makes `self @ x - right` least; the shortest such if there are many. Rows may be of unknown number.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn lstsq(&self, right: &Array) -> Result<Self, ArrayError> {
        let (shape, other) = (self.shape(), right.shape());
        if shape.len() != 2
            || other.is_empty()
            || other.len() > 2
            || shape[0] != other[0]
            || self.chunks()[0].len() != right.chunks()[0].len() && shape[0] == crate::UNKNOWN
        {
            return Err(ArrayError::Shapes {
                operation: "linalg.lstsq",
                left: shape,
                right: other,
                reason: "a matrix and a right-hand side with as many rows are needed".to_owned(),
            });
        }
        let is_vector = other.len() == 1;
        let matrix = self.whole_along(&[1])?;
        let right = if is_vector { right.expand_dims(&[1])? } else { right.whole_along(&[1])? };
        let mut cuts = right.chunks().to_vec();
        cuts[0].clone_from(&matrix.chunks()[0]);
        let right = right.rechunk(&ChunkSpec::explicit(cuts))?;
        let mut chunks = vec![vec![shape[1]]];
        if !is_vector {
            chunks.push(vec![other[1]]);
        }
        Self::node(Op::Lstsq { matrix, right, is_vector }, DType::F64, chunks)
    }

    /// `x` with `self @ x == right`; computed by one task.
    ///
    /// # Errors
    /// When the matrix is not square, or the right-hand side does not fit.
    pub fn solve(&self, right: &Array) -> Result<Self, ArrayError> {
        let (left, other) = (self.shape(), right.shape());
        if left.len() != 2 || left[0] != left[1] || other.first() != Some(&left[0]) || other.len() > 2 {
            return Err(ArrayError::Shapes {
                operation: "linalg.solve",
                left,
                right: other,
                reason: "a square matrix and a right-hand side with as many rows are needed".to_owned(),
            });
        }
        let right = right.whole_along(&[0, 1])?;
        let dtype = solved_type(self.dtype(), right.dtype());
        let chunks = right.chunks().to_vec();
        Self::node(Op::Solve(self.whole_along(&[0, 1])?, right), dtype, chunks)
    }
}

/// Two stacks of matrices with the same cuts along the axes that they have in common.
fn fit_for_product(a: &Array, b: &Array) -> Result<(Array, Array), ArrayError> {
    let (shape_a, shape_b) = (a.shape(), b.shape());
    let (n_a, n_b) = (shape_a.len() - 2, shape_b.len() - 2);
    let stack = broadcast_shapes(&shape_a[..n_a], &shape_b[..n_b])?;
    // The smaller one follows the larger one's cuts.
    let (first, second) = if a.nbytes() >= b.nbytes() { (a, b) } else { (b, a) };
    let along = |array: &Array, axis: usize| {
        let own = (axis + array.n_axes()).checked_sub(stack.len() + 2)?;
        (stack[axis] == 1 || array.shape()[own] != 1).then(|| array.chunks()[own].clone())
    };
    let grid: Vec<Vec<usize>> = (0..stack.len())
        .map(|axis| along(first, axis).or_else(|| along(second, axis)).unwrap_or_else(|| vec![stack[axis]]))
        .collect();
    let inner = if a.nbytes() >= b.nbytes() { a.chunks()[n_a + 1].clone() } else { b.chunks()[n_b].clone() };
    let fitted = |array: &Array, own_stack: usize, inner_axis: usize| {
        let shape = array.shape();
        let mut chunks = array.chunks().to_vec();
        for own in 0..own_stack {
            let axis = own + stack.len() - own_stack;
            chunks[own] = if shape[own] == 1 && stack[axis] != 1 { vec![1] } else { grid[axis].clone() };
        }
        chunks[inner_axis].clone_from(&inner);
        array.rechunk(&ChunkSpec::explicit(chunks))
    };
    Ok((fitted(a, n_a, n_a + 1)?, fitted(b, n_b, n_b)?))
}
