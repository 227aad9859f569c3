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
use crate::chunking::{broadcast_shapes, check_size, shape_text, unravel};
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

/// The type of what solves equations: single precision only when both are.
pub(crate) fn solved_type(a: DType, b: DType) -> DType {
    if a == DType::F32 && b == DType::F32 { DType::F32 } else { DType::F64 }
}

/// A stack of matrices: the axes before the last two, and the matrices' rows and columns.
struct Stack<'a> {
    chunk: &'a Chunk,
    over: &'a [usize],
    n_rows: usize,
    n_columns: usize,
}

impl<'a> Stack<'a> {
    fn of(chunk: &'a Chunk) -> Result<Self, KernelError> {
        match chunk.shape() {
            [over @ .., n_rows, n_columns] => Ok(Self { chunk, over, n_rows: *n_rows, n_columns: *n_columns }),
            _ => Err(KernelError(format!("matrices are needed, got shape {}", shape_text(chunk.shape())))),
        }
    }

    /// The matrix that goes with number `number` of a stack of shape `whole`, to which this one broadcasts.
    fn matrix<T: bytemuck::Pod>(&self, number: usize, whole: &[usize]) -> &[T] {
        let position = unravel(number, whole);
        let own = position[whole.len() - self.over.len()..].iter().zip(self.over);
        let at = own.fold(0, |at, (&place, &size)| at * size + if size == 1 { 0 } else { place });
        let n = self.n_rows * self.n_columns;
        &self.chunk.typed::<T>()[at * n..(at + 1) * n]
    }
}

/// The sum of the products of pairs of matrices, or stacks of them, `a1, b1, a2, b2, ..`.
pub(crate) fn multiply(ctx: &TaskContext, inputs: &[&Chunk]) -> Result<Chunk, KernelError> {
    let [first, ..] = inputs else { return Err(KernelError("a product needs two matrices".to_owned())) };
    if !inputs.len().is_multiple_of(2) {
        return Err(KernelError(format!("pairs of matrices are needed, got {} inputs", inputs.len())));
    }
    let dtype = first.dtype();
    if inputs.iter().any(|input| input.dtype() != dtype) {
        return Err(KernelError("matrices of one type are needed".to_owned()));
    }
    let stacks = inputs.iter().map(|input| Stack::of(input)).collect::<Result<Vec<Stack<'_>>, KernelError>>()?;
    let (n_rows, n_columns) = (stacks[0].n_rows, stacks[1].n_columns);
    let over = broadcast_shapes(stacks[0].over, stacks[1].over)?;
    for pair in stacks.chunks_exact(2) {
        let fits = pair[0].n_rows == n_rows && pair[1].n_columns == n_columns && pair[0].n_columns == pair[1].n_rows;
        if !fits || broadcast_shapes(pair[0].over, pair[1].over)? != over {
            return Err(KernelError(format!(
                "matmul: shapes {} and {} do not match",
                shape_text(pair[0].chunk.shape()),
                shape_text(pair[1].chunk.shape())
            )));
        }
    }
    let mut shape = over.clone();
    shape.extend([n_rows, n_columns]);
    check_size(&shape, dtype)?;
    let n_stack: usize = over.iter().product();
    let nbytes = n_stack * n_rows * n_columns * dtype.size();
    ctx.check_memory(nbytes as u64)?;
    let mut out = Buffer::zeroed(nbytes);
    if nbytes == 0 {
        return Ok(Chunk::from_buffer(dtype, shape, out));
    }
    for (number, place) in out.bytes_mut().chunks_exact_mut(n_rows * n_columns * dtype.size()).enumerate() {
        if number % 256 == 0 {
            ctx.check_cancelled()?;
        }
        for pair in stacks.chunks_exact(2) {
            let sizes = (n_rows, pair[0].n_columns, n_columns);
            match dtype {
                DType::F64 => {
                    let (a, b) = (pair[0].matrix::<f64>(number, &over), pair[1].matrix::<f64>(number, &over));
                    add_product(a, b, sizes, bytemuck::cast_slice_mut(place));
                }
                DType::F32 => {
                    let (a, b) = (pair[0].matrix::<f32>(number, &over), pair[1].matrix::<f32>(number, &over));
                    add_product(a, b, sizes, bytemuck::cast_slice_mut(place));
                }
                DType::Bool => return Err(KernelError("matmul is not defined for bool arrays".to_owned())),
                DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
                    with_type!(dtype, T => {
                        let (a, b) = (pair[0].matrix::<T>(number, &over), pair[1].matrix::<T>(number, &over));
                        add_integer_product::<T>(a, b, (sizes.1, n_columns), bytemuck::cast_slice_mut(place));
                    });
                }
            }
        }
    }
    Ok(Chunk::from_buffer(dtype, shape, out))
}

fn add_product<T: faer::traits::ComplexField + bytemuck::Pod>(
    a: &[T],
    b: &[T],
    (n_rows, inner, n_columns): (usize, usize, usize),
    out: &mut [T],
) {
    let a = MatRef::from_row_major_slice(a, n_rows, inner);
    let b = MatRef::from_row_major_slice(b, inner, n_columns);
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
    // Only blocks that fit make a matrix no larger than they are themselves.
    let fits = blocks.chunks(args.n_across).all(|across| {
        across.iter().all(|block| block.nrows() == across[0].nrows()) && across.iter().map(Mat::ncols).sum::<usize>() == n_columns
    });
    if !fits {
        let shapes: Vec<String> = blocks.iter().map(|block| shape_text(&[block.nrows(), block.ncols()])).collect();
        return Err(KernelError(format!("shapes {} do not match: blocks in rows of {}", shapes.join(" and "), args.n_across)));
    }
    let mut whole = Mat::<f64>::zeros(n_rows, n_columns);
    let mut row = 0;
    for across in blocks.chunks(args.n_across) {
        let mut column = 0;
        for block in across {
            whole.as_mut().submatrix_mut(row, column, block.nrows(), block.ncols()).copy_from(block);
            column += block.ncols();
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
pub(crate) fn lstsq_finish(ctx: &TaskContext, args: &LstsqFinishArgs, factor: &Chunk) -> Result<Chunk, KernelError> {
    let factor = to_mat(factor)?;
    let n = args.n_unknowns;
    if factor.ncols() < n {
        return Err(KernelError(format!("a factor of {} columns for {n} unknowns", factor.ncols())));
    }
    let n_rows = factor.nrows().min(n);
    // A factor without rows may have any number of columns.
    ctx.check_memory((n as u64).saturating_mul((factor.ncols() - n).max(1) as u64).saturating_mul(8))?;
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
    let dtype = solved_type(a.dtype(), b.dtype());
    let lu = to_mat(a)?.partial_piv_lu();
    let diagonal_is_fine = (0..n_rows).all(|idx| lu.U()[(idx, idx)] != 0.0);
    if !diagonal_is_fine {
        return Err(KernelError("solve: the matrix is singular".to_owned()));
    }
    let solution = lu.solve(&to_mat(b)?);
    from_mat(&solution, dtype)?.reshaped(b.shape().to_vec()).map_err(KernelError)
}
