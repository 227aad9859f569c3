//! Products and linear algebra.

use super::{Array, Op, Operand};
use crate::chunking::ChunkSpec;
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::function::Function;
use crate::kernels::reduce::Reduction;

impl Array {
    /// `self @ other` of matrices and vectors, by NumPy's rules.
    ///
    /// # Errors
    /// When the shapes do not fit, or there are more than two axes.
    pub fn matmul(&self, other: &Array) -> Result<Self, ArrayError> {
        let (left, right) = (self.shape(), other.shape());
        let fail = |reason: &str| ArrayError::Shapes {
            operation: "matmul",
            left: left.clone(),
            right: right.clone(),
            reason: reason.to_owned(),
        };
        if left.is_empty() || right.is_empty() || left.len() > 2 || right.len() > 2 {
            return Err(fail("vectors and matrices are needed"));
        }
        if left[left.len() - 1] != right[0] {
            return Err(fail("the last axis of the first must be the first axis of the second"));
        }
        let dtype = self.dtype().promote(other.dtype());
        if dtype == DType::Bool {
            return Err(ArrayError::Type { function: "matmul", dtype });
        }
        let a = if left.len() == 1 { self.expand_dims(&[0])? } else { self.clone() }.astype(dtype);
        let b = if right.len() == 1 { other.expand_dims(&[1])? } else { other.clone() }.astype(dtype);
        // The smaller one follows the larger one's cuts of the common axis.
        let (inner_a, inner_b) = (a.chunks()[1].clone(), b.chunks()[0].clone());
        let (a, b) = if inner_a == inner_b {
            (a, b)
        } else if a.nbytes() >= b.nbytes() {
            let columns = b.chunks()[1].clone();
            (a, b.rechunk(&ChunkSpec::explicit(vec![inner_a, columns]))?)
        } else {
            let rows = a.chunks()[0].clone();
            (a.rechunk(&ChunkSpec::explicit(vec![rows, inner_b]))?, b)
        };
        let chunks = vec![a.chunks()[0].clone(), b.chunks()[1].clone()];
        let product = Self::node(Op::MatMul(a, b), dtype, chunks);
        let kept = [(left.len() == 2).then_some(0), (right.len() == 2).then_some(1)];
        product.view(kept.into_iter().flatten().map(Some).collect())
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
            [_] => {
                Ok(Self::node(Op::Diagonal(self.clone()), self.dtype(), vec![self.chunks()[0].clone(), self.chunks()[0].clone()]))
            }
            [n_rows, n_columns] => {
                // The part beyond the square has no diagonal; then both axes are cut alike.
                let n = n_rows.min(n_columns) as i64;
                let square = self.index(&[super::Index::Slice(None, Some(n), 1), super::Index::Slice(None, Some(n), 1)])?;
                let cuts = square.chunks()[0].clone();
                let square = square.rechunk(&ChunkSpec::explicit(vec![cuts.clone(), cuts.clone()]))?;
                Ok(Self::node(Op::Diagonal(square), self.dtype(), vec![cuts]))
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
        let real = if self.dtype().is_float() { self.clone() } else { self.astype(DType::F64) };
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
        Ok(Self::node(Op::Lstsq { matrix, right, is_vector }, DType::F64, chunks))
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
        let dtype = self.dtype().promote(right.dtype()).to_float();
        let chunks = right.chunks().to_vec();
        Ok(Self::node(Op::Solve(self.whole_along(&[0, 1])?, right), dtype, chunks))
    }
}
