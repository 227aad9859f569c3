//! Matrix products and factorisations of single chunks, by `faer` on views of the chunks' own memory.
//!
//! Always sequential inside a task: the scheduler owns the cores.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Solve;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rask_graphs::{KernelError, TaskContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::chunking::shape_text;
use crate::dtype::{DType, with_type};
use crate::kernels::number::Number;

/// Arguments of the operators that have none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoArgs {}

/// Arguments of `array.tsqr`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TsqrArgs {
    /// How many inputs stand side by side in each block of rows; 1 unless given.
    #[serde(default = "one")]
    pub n_across: usize,
}

fn one() -> usize {
    1
}

/// Arguments of `array.lstsq_finish`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LstsqFinishArgs {
    /// Number of unknowns; the columns after them are right-hand sides.
    pub n_unknowns: usize,
    /// Singular values below this times the largest count as zero; machine precision unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcond: Option<f64>,
    /// Whether the right-hand side was a vector, and the solution shall be one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_vector: bool,
}

fn matrix(chunk: &Chunk) -> Result<(usize, usize), KernelError> {
    match *chunk.shape() {
        [n_rows, n_columns] => Ok((n_rows, n_columns)),
        _ => Err(KernelError(format!("a matrix is needed, got shape {}", shape_text(chunk.shape())))),
    }
}

/// The sum of the products of pairs of matrices `a1, b1, a2, b2, ..`.
pub(crate) fn multiply(ctx: &TaskContext, inputs: &[&Chunk]) -> Result<Chunk, KernelError> {
    let [first, second, ..] = inputs else { return Err(KernelError("a product needs two matrices".to_owned())) };
    if !inputs.len().is_multiple_of(2) {
        return Err(KernelError(format!("pairs of matrices are needed, got {} inputs", inputs.len())));
    }
    let dtype = first.dtype();
    if inputs.iter().any(|input| input.dtype() != dtype) {
        return Err(KernelError("matrices of one type are needed".to_owned()));
    }
    let (n_rows, n_columns) = (matrix(first)?.0, matrix(second)?.1);
    for pair in inputs.chunks_exact(2) {
        let ((rows, inner), (other, columns)) = (matrix(pair[0])?, matrix(pair[1])?);
        if rows != n_rows || columns != n_columns || inner != other {
            return Err(KernelError(format!(
                "matmul: shapes {} and {} do not match",
                shape_text(pair[0].shape()),
                shape_text(pair[1].shape())
            )));
        }
    }
    let nbytes = n_rows.saturating_mul(n_columns).saturating_mul(dtype.size());
    ctx.check_memory(nbytes as u64)?;
    let mut out = Buffer::zeroed(nbytes);
    for pair in inputs.chunks_exact(2) {
        let (a, b) = (pair[0], pair[1]);
        let inner = a.shape()[1];
        match dtype {
            DType::F64 => add_product::<f64>(a, b, (n_rows, inner, n_columns), out.typed_mut()),
            DType::F32 => add_product::<f32>(a, b, (n_rows, inner, n_columns), out.typed_mut()),
            DType::Bool => return Err(KernelError("matmul is not defined for bool arrays".to_owned())),
            DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
                with_type!(dtype, T => add_integer_product::<T>(a.typed(), b.typed(), (inner, n_columns), out.typed_mut()));
            }
        }
    }
    Ok(Chunk::from_buffer(dtype, vec![n_rows, n_columns], out))
}

fn add_product<T: faer::traits::ComplexField + bytemuck::Pod>(
    a: &Chunk,
    b: &Chunk,
    (n_rows, inner, n_columns): (usize, usize, usize),
    out: &mut [T],
) {
    let a = MatRef::from_row_major_slice(a.typed::<T>(), n_rows, inner);
    let b = MatRef::from_row_major_slice(b.typed::<T>(), inner, n_columns);
    let out = MatMut::from_row_major_slice_mut(out, n_rows, n_columns);
    matmul(out, Accum::Add, a, b, T::one_impl(), Par::Seq);
}

fn add_integer_product<T: Number>(a: &[T], b: &[T], (inner, n_columns): (usize, usize), out: &mut [T]) {
    if inner == 0 || n_columns == 0 {
        return;
    }
    for (row, place) in a.chunks_exact(inner).zip(out.chunks_exact_mut(n_columns)) {
        for (&factor, other) in row.iter().zip(b.chunks_exact(n_columns)) {
            for (sum, &element) in place.iter_mut().zip(other) {
                *sum = sum.add(factor.multiply(element));
            }
        }
    }
}

/// All elements in double precision as a column-major matrix.
fn to_mat(chunk: &Chunk) -> Result<Mat<f64>, KernelError> {
    let (n_rows, n_columns) = match *chunk.shape() {
        [n] => (n, 1),
        _ => matrix(chunk)?,
    };
    let numbers = chunk.to_f64();
    let numbers: Vec<f64> = numbers.into_iter().collect();
    Ok(Mat::from_fn(n_rows, n_columns, |row, column| numbers[row * n_columns + column]))
}

fn from_mat(mat: &Mat<f64>, dtype: DType) -> Result<Chunk, KernelError> {
    let (n_rows, n_columns) = (mat.nrows(), mat.ncols());
    let numbers = (0..n_rows * n_columns).map(|at| mat[(at / n_columns, at % n_columns)]);
    let shape = vec![n_rows, n_columns];
    #[expect(clippy::cast_possible_truncation, reason = "single precision is what was asked for")]
    if dtype == DType::F32 {
        Chunk::from_slice(shape, &numbers.map(|x| x as f32).collect::<Vec<f32>>()).map_err(KernelError)
    } else {
        Chunk::from_slice(shape, &numbers.collect::<Vec<f64>>()).map_err(KernelError)
    }
}

/// The triangular factor of the inputs stacked on each other (`n_across` of them side by side in each block of rows).
///
/// The kernel of TSQR (Demmel, Grigori, Hoemmen, Langou, 2012): the factor of stacked factors is the factor of the whole.
pub(crate) fn tsqr(args: &TsqrArgs, inputs: &[&Chunk]) -> Result<Chunk, KernelError> {
    if args.n_across == 0 || inputs.is_empty() || !inputs.len().is_multiple_of(args.n_across) {
        return Err(KernelError(format!("{} inputs do not make blocks of {}", inputs.len(), args.n_across)));
    }
    let blocks = inputs.iter().map(|input| to_mat(input)).collect::<Result<Vec<Mat<f64>>, KernelError>>()?;
    let n_rows: usize = blocks.iter().step_by(args.n_across).map(Mat::nrows).sum();
    let n_columns: usize = blocks[..args.n_across].iter().map(Mat::ncols).sum();
    let mut whole = Mat::<f64>::zeros(n_rows, n_columns);
    let mut row = 0;
    for across in blocks.chunks(args.n_across) {
        let mut column = 0;
        for block in across {
            if block.nrows() != across[0].nrows() || column + block.ncols() > n_columns {
                return Err(KernelError(format!(
                    "shapes ({}, ..) and ({}, ..) do not match: blocks side by side",
                    across[0].nrows(),
                    block.nrows()
                )));
            }
            whole.as_mut().submatrix_mut(row, column, block.nrows(), block.ncols()).copy_from(block);
            column += block.ncols();
        }
        if column != n_columns {
            return Err(KernelError(format!("blocks of {column} and {n_columns} columns do not match")));
        }
        row += across[0].nrows();
    }
    if n_rows == 0 || n_columns == 0 {
        return from_mat(&Mat::zeros(0, n_columns), DType::F64);
    }
    let factor = whole.qr().thin_R().to_owned();
    let upper =
        Mat::from_fn(factor.nrows(), factor.ncols(), |row, column| if row > column { 0.0 } else { factor[(row, column)] });
    from_mat(&upper, DType::F64)
}

/// The solution of least norm, from the triangular factor of matrix and right-hand sides side by side.
pub(crate) fn lstsq_finish(args: &LstsqFinishArgs, factor: &Chunk) -> Result<Chunk, KernelError> {
    let factor = to_mat(factor)?;
    let n = args.n_unknowns;
    if factor.ncols() < n {
        return Err(KernelError(format!("a factor of {} columns for {n} unknowns", factor.ncols())));
    }
    let n_rows = factor.nrows().min(n);
    let left = factor.submatrix(0, 0, n_rows, n).to_owned();
    let right = factor.submatrix(0, n, n_rows, factor.ncols() - n).to_owned();
    let mut solution = Mat::<f64>::zeros(n, right.ncols());
    if n_rows > 0 {
        let svd = left.thin_svd().map_err(|error| KernelError(format!("lstsq: {error:?}")))?;
        let values: Vec<f64> = (0..svd.S().column_vector().nrows()).map(|idx| svd.S().column_vector()[idx]).collect();
        let cutoff = args.rcond.unwrap_or(f64::EPSILON * factor.nrows().max(n) as f64) * values.first().copied().unwrap_or(0.0);
        let projected = svd.U().transpose() * &right;
        let scaled = Mat::from_fn(values.len(), right.ncols(), |row, column| {
            if values[row] > cutoff { projected[(row, column)] / values[row] } else { 0.0 }
        });
        solution = svd.V() * &scaled;
    }
    let chunk = from_mat(&solution, DType::F64)?;
    if args.is_vector { chunk.reshaped(vec![n]).map_err(KernelError) } else { Ok(chunk) }
}

/// `x` with `a @ x == b`.
pub(crate) fn solve(a: &Chunk, b: &Chunk) -> Result<Chunk, KernelError> {
    let (n_rows, n_columns) = matrix(a)?;
    if n_rows != n_columns || b.shape().first() != Some(&n_rows) || b.shape().len() > 2 {
        return Err(KernelError(format!("solve: shapes {} and {} do not match", shape_text(a.shape()), shape_text(b.shape()))));
    }
    let dtype = a.dtype().promote(b.dtype()).to_float();
    let lu = to_mat(a)?.partial_piv_lu();
    let diagonal_is_fine = (0..n_rows).all(|idx| lu.U()[(idx, idx)] != 0.0);
    if !diagonal_is_fine {
        return Err(KernelError("solve: the matrix is singular".to_owned()));
    }
    let solution = lu.solve(&to_mat(b)?);
    from_mat(&solution, dtype)?.reshaped(b.shape().to_vec()).map_err(KernelError)
}
