//! Arrays from nothing, from files, from memory and from other tasks.

use std::path::Path;

use ndarray::ArrayViewD;
use rask_graphs::TaskIdx;

use super::{Array, Op};
use crate::chunk::{Chunk, Element};
use crate::chunking::{ChunkSpec, check_count};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::kernels::create::Fill;
use crate::kernels::npy;
use crate::kernels::random::Distributed;
use crate::scalar::Scalar;

impl Array {
    /// The same number everywhere.
    ///
    /// # Errors
    /// When the chunks do not fit, the array is too large, or the value is no element of the type: NaN is no integer.
    pub fn full(shape: &[usize], value: Scalar, dtype: Option<DType>, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        let dtype = dtype.unwrap_or(value.dtype());
        dtype.check_holds(value)?;
        Self::node(Op::Create(Fill::Full(value)), dtype, chunks.resolve(shape, dtype)?)
    }

    /// Zeros, of f64 unless said otherwise.
    ///
    /// # Errors
    /// See [`Array::full`].
    pub fn zeros(shape: &[usize], dtype: Option<DType>, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        Self::full(shape, Scalar::Int(0), Some(dtype.unwrap_or(DType::F64)), chunks)
    }

    /// Ones, of f64 unless said otherwise.
    ///
    /// # Errors
    /// See [`Array::full`].
    pub fn ones(shape: &[usize], dtype: Option<DType>, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        Self::full(shape, Scalar::Int(1), Some(dtype.unwrap_or(DType::F64)), chunks)
    }

    /// `start, start + step, ..` before `stop`; integers if all three are.
    ///
    /// # Errors
    /// When the step is zero or not finite, or the chunks do not fit.
    pub fn arange(
        start: Scalar,
        stop: Scalar,
        step: Scalar,
        dtype: Option<DType>,
        chunks: &ChunkSpec,
    ) -> Result<Self, ArrayError> {
        let fail = |reason: &str| ArrayError::argument("arange", reason);
        let integer = |scalar: Scalar| match scalar {
            Scalar::Bool(value) => Some(i128::from(value)),
            Scalar::Int(value) => Some(value),
            Scalar::Float(_) => None,
        };
        let n = if let (Some(start), Some(stop), Some(step)) = (integer(start), integer(stop), integer(step)) {
            if step == 0 {
                return Err(fail("the step is zero"));
            }
            let distance = if step > 0 { stop.checked_sub(start) } else { start.checked_sub(stop) };
            let distance = distance.ok_or_else(|| fail("the range is too long"))?.max(0).unsigned_abs();
            usize::try_from(distance.div_ceil(step.unsigned_abs())).map_err(|_| fail("the range is too long"))?
        } else {
            let n = ((stop.to_f64() - start.to_f64()) / step.to_f64()).ceil();
            if n.is_nan() || n > 9e15 {
                return Err(fail("the step is zero or not a number, or the range is too long"));
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count")]
            let n = n.max(0.0) as usize;
            n
        };
        let natural = [start, stop, step].into_iter().map(Scalar::dtype).fold(DType::I64, DType::promote);
        let dtype = dtype.unwrap_or(natural);
        if dtype == DType::Bool && n > 2 {
            return Err(fail("there are no more than two truth values"));
        }
        Self::node(Op::Create(Fill::Range { start, step }), dtype, chunks.resolve(&[n], dtype)?)
    }

    /// `n` evenly spaced numbers from `start` to `stop`.
    ///
    /// # Errors
    /// When the chunks do not fit.
    pub fn linspace(
        start: Scalar,
        stop: Scalar,
        n: usize,
        endpoint: bool,
        dtype: Option<DType>,
        chunks: &ChunkSpec,
    ) -> Result<Self, ArrayError> {
        let dtype = dtype.unwrap_or(DType::F64);
        Self::node(Op::Create(Fill::Linspace { start, stop, n, endpoint }), dtype, chunks.resolve(&[n], dtype)?)
    }

    /// Ones on diagonal `k` of a matrix, zeros elsewhere.
    ///
    /// # Errors
    /// When the chunks do not fit.
    pub fn eye(n_rows: usize, n_columns: usize, k: i64, dtype: Option<DType>, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        let dtype = dtype.unwrap_or(DType::F64);
        Self::node(Op::Create(Fill::Eye { k }), dtype, chunks.resolve(&[n_rows, n_columns], dtype)?)
    }

    /// Random numbers; the same for the same seed whatever the chunks. `parameters` as [`Distributed`] names them.
    ///
    /// # Errors
    /// When the parameters make no distribution, the type does not hold its numbers, or the chunks do not fit.
    pub fn random(
        distribution: Distributed,
        parameters: &[Scalar],
        shape: &[usize],
        seed: u64,
        dtype: Option<DType>,
        chunks: &ChunkSpec,
    ) -> Result<Self, ArrayError> {
        let dtype = dtype.unwrap_or(distribution.default_dtype());
        let parameters = distribution.complete(parameters, dtype).map_err(|reason| ArrayError::argument("random", reason))?;
        Self::node(Op::Random { distribution, parameters, seed }, dtype, chunks.resolve(shape, dtype)?)
    }

    /// The array in an npy file, read in chunks by the tasks; here only its header is.
    ///
    /// # Errors
    /// When the file is missing or not such a file, or the chunks do not fit.
    pub fn load(path: &Path, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        let fail = |reason: String| ArrayError::File { path: path.to_owned(), reason };
        let (_, header) = npy::open(&rask_graphs::FileAccess::everything(), path).map_err(fail)?;
        let mut shape = header.shape.clone();
        if header.is_fortran {
            shape.reverse();
        }
        let mut chunks = chunks.resolve(&shape, header.dtype)?;
        if !header.is_fortran {
            return Self::node(Op::Load(path.to_owned()), header.dtype, chunks);
        }
        // Fortran order is the transpose in C order.
        chunks.reverse();
        let n_axes = shape.len();
        Self::node(Op::Load(path.to_owned()), header.dtype, chunks)?.view((0..n_axes).rev().map(Some).collect())
    }

    /// A chunk in this process; it travels in the graph itself, so it should be small.
    ///
    /// # Errors
    /// When the chunks do not fit.
    pub fn from_chunk(chunk: Chunk, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        let resolved = chunks.resolve(chunk.shape(), chunk.dtype())?;
        let whole = chunk.shape().iter().map(|&size| vec![size]).collect();
        let dtype = chunk.dtype();
        Self::node(Op::Literal(chunk), dtype, whole)?.rechunk(&ChunkSpec::explicit(resolved))
    }

    /// A copy of an `ndarray` array; see [`Array::from_chunk`].
    ///
    /// # Errors
    /// When the chunks do not fit.
    pub fn from_ndarray<T: Element>(array: &ArrayViewD<'_, T>, chunks: &ChunkSpec) -> Result<Self, ArrayError> {
        Self::from_chunk(Chunk::from_ndarray(array), chunks)
    }

    /// Chunks that tasks make: `tasks` in C order, in the graph builder this array will be lowered into. Sizes may be
    /// [`crate::UNKNOWN`].
    ///
    /// # Errors
    /// When the number of tasks is not that of the chunks.
    pub fn from_tasks(tasks: Vec<TaskIdx>, dtype: DType, chunks: Vec<Vec<usize>>) -> Result<Self, ArrayError> {
        check_count(chunks.iter().map(Vec::len))?;
        let n: usize = chunks.iter().map(Vec::len).product();
        if n != tasks.len() {
            return Err(ArrayError::argument("from_tasks", format!("{} tasks for {n} chunks", tasks.len())));
        }
        Self::node(Op::Tasks(tasks), dtype, chunks)
    }
}
