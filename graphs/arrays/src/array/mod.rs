//! The lazy array: a tree of what is to be done, with type, shape and chunks known at every node.
//!
//! Building a tree runs nothing and touches no data (loading reads a file's header); every mistake in shapes and types is
//! found here. [`crate::lower`] turns a tree into tasks.

mod compose;
mod create;
mod elementwise;
mod linalg;
mod reduce;
mod shape;

use std::path::PathBuf;
use std::sync::Arc;

use rask_graphs::TaskIdx;

use crate::chunk::Chunk;
use crate::chunking::{UNKNOWN, axis_size, check_count, check_size};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::function::{Function, OperandType};
use crate::kernels::create::Fill;
use crate::kernels::layout::Range;
use crate::kernels::random::Distributed;
use crate::kernels::reduce::Reduction;
use crate::kernels::scan::Scan;
use crate::scalar::Scalar;
pub use shape::Index;
pub(crate) use shape::touched as shape_touched;

/// A lazy array, shared by cloning.
#[derive(Clone, Debug)]
pub struct Array(pub(crate) Arc<Node>);

/// One node of a tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) dtype: DType,
    /// Sizes of the chunks along each axis.
    pub(crate) chunks: Vec<Vec<usize>>,
    /// Their sums: what is asked for once a chunk must not take as long as there are chunks.
    shape: Vec<usize>,
    /// What tasks are called, if somebody has said.
    pub(crate) name: Option<String>,
    /// Nodes on the longest way down from here, itself included.
    depth: u32,
}

/// Most operations one after another in an array: planning goes down them.
pub const MAX_DEPTH: u32 = 20_000;

impl Drop for Node {
    /// Without recursion, however deep the tree is.
    fn drop(&mut self) {
        let mut left = self.op.take_inputs();
        while let Some(mut array) = left.pop() {
            if let Some(node) = Arc::get_mut(&mut array.0) {
                left.append(&mut node.op.take_inputs());
            }
        }
    }
}

/// How a node's elements come about.
#[derive(Debug)]
pub(crate) enum Op {
    /// From nothing.
    Create(Fill),
    /// Random numbers.
    Random { distribution: Distributed, parameters: Vec<Scalar>, seed: u64 },
    /// An npy file, as it lies.
    Load(PathBuf),
    /// Data in this process, one chunk.
    Literal(Chunk),
    /// Chunks that tasks of the same graph builder make, in C order.
    Tasks(Vec<TaskIdx>),
    /// An elementwise function; operands are of the node's chunks, or of size 1 along an axis, or lack it.
    Apply { function: Function, compute: DType, operands: Vec<Operand> },
    /// Another type.
    Cast(Array),
    /// Axes in another order, dropped or added; for each axis the input's, if it has one.
    View { input: Array, axes: Vec<Option<usize>> },
    /// A box with steps.
    Slice { input: Array, ranges: Vec<Range> },
    /// The same shape in other chunks.
    Rechunk(Array),
    /// The same elements in another shape: chunk i of the input is chunk i of the result.
    Reshape(Array),
    /// One after another; chunks of the inputs stay chunks.
    Concatenate { axis: usize, inputs: Vec<Array> },
    /// A reduction over ascending axes.
    Reduce { reduction: Reduction, input: Array, axes: Vec<usize>, keepdims: bool, ddof: i64 },
    /// Running sums or products along an axis, of each chunk by itself.
    Scan { scan: Scan, input: Array, axis: usize },
    /// A product of matrices whose chunks fit.
    MatMul(Array, Array),
    /// Diagonal of a matrix of square chunks along the diagonal, or the matrix of a diagonal.
    Diagonal(Array),
    /// Least squares; both in the same chunks of rows and whole in the others.
    Lstsq { matrix: Array, right: Array, is_vector: bool },
    /// Linear equations, each operand one chunk.
    Solve(Array, Array),
}

impl Op {
    /// The arrays it is made from.
    fn inputs(&self) -> Vec<&Array> {
        match self {
            Op::Create(_) | Op::Random { .. } | Op::Load(_) | Op::Literal(_) | Op::Tasks(_) => Vec::new(),
            Op::Apply { operands, .. } => operands
                .iter()
                .filter_map(|operand| if let Operand::Array(array) = operand { Some(array) } else { None })
                .collect(),
            Op::Cast(input) | Op::Rechunk(input) | Op::Reshape(input) | Op::Diagonal(input) => vec![input],
            Op::View { input, .. } | Op::Slice { input, .. } | Op::Reduce { input, .. } | Op::Scan { input, .. } => {
                vec![input]
            }
            Op::Concatenate { inputs, .. } => inputs.iter().collect(),
            Op::MatMul(a, b) | Op::Solve(a, b) => vec![a, b],
            Op::Lstsq { matrix, right, .. } => vec![matrix, right],
        }
    }

    /// The arrays it is made from, which it lets go.
    fn take_inputs(&mut self) -> Vec<Array> {
        match std::mem::replace(self, Op::Tasks(Vec::new())) {
            Op::Create(_) | Op::Random { .. } | Op::Load(_) | Op::Literal(_) | Op::Tasks(_) => Vec::new(),
            Op::Apply { operands, .. } => operands
                .into_iter()
                .filter_map(|operand| if let Operand::Array(array) = operand { Some(array) } else { None })
                .collect(),
            Op::Cast(input) | Op::Rechunk(input) | Op::Reshape(input) | Op::Diagonal(input) => vec![input],
            Op::View { input, .. } | Op::Slice { input, .. } | Op::Reduce { input, .. } | Op::Scan { input, .. } => {
                vec![input]
            }
            Op::Concatenate { inputs, .. } => inputs,
            Op::MatMul(a, b) | Op::Solve(a, b) => vec![a, b],
            Op::Lstsq { matrix, right, .. } => vec![matrix, right],
        }
    }
}

/// An operand of an elementwise function.
#[derive(Clone, Debug)]
pub enum Operand {
    /// An array.
    Array(Array),
    /// A number, which adapts its type.
    Scalar(Scalar),
}

impl Operand {
    pub(crate) fn type_of(&self) -> OperandType {
        match self {
            Operand::Array(array) => OperandType::Typed(array.dtype()),
            Operand::Scalar(scalar) => OperandType::Weak(*scalar),
        }
    }
}

impl From<Array> for Operand {
    fn from(array: Array) -> Self {
        Operand::Array(array)
    }
}

impl From<&Array> for Operand {
    fn from(array: &Array) -> Self {
        Operand::Array(array.clone())
    }
}

impl<T: Into<Scalar>> From<T> for Operand {
    fn from(scalar: T) -> Self {
        Operand::Scalar(scalar.into())
    }
}

impl Array {
    /// A node of checked size: of all arrays that can be built only those that can be planned.
    pub(crate) fn node(op: Op, dtype: DType, chunks: Vec<Vec<usize>>) -> Result<Self, ArrayError> {
        let shape: Vec<usize> = chunks.iter().map(|sizes| axis_size(sizes)).collect();
        check_size(&shape, dtype)?;
        check_count(chunks.iter().map(Vec::len))?;
        let depth = 1 + op.inputs().iter().map(|input| input.0.depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err(ArrayError::TooDeep);
        }
        Ok(Self(Arc::new(Node { op, dtype, chunks, shape, name: None, depth })))
    }

    /// Call the tasks of this array `name`, `name-0`, `name-1` and so on; those of unnamed arrays below it `name-sum-0` and the like.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        // A node that is in use elsewhere has its own name; both stay one computation.
        if let Some(node) = Arc::get_mut(&mut self.0) {
            node.name = Some(name.to_owned());
        }
        self
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The sizes of the chunks along each axis.
    #[must_use]
    pub fn chunks(&self) -> &[Vec<usize>] {
        &self.0.chunks
    }

    /// The size of each axis; [`UNKNOWN`] where only running the graph will tell.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.0.shape.clone()
    }

    /// Number of axes.
    #[must_use]
    pub fn n_axes(&self) -> usize {
        self.0.chunks.len()
    }

    /// Number of elements; [`UNKNOWN`] if some size is.
    #[must_use]
    pub fn size(&self) -> usize {
        let shape = self.shape();
        if shape.contains(&UNKNOWN) { UNKNOWN } else { shape.iter().product() }
    }

    /// Bytes of all elements together, if known.
    #[must_use]
    pub fn nbytes(&self) -> Option<u64> {
        (self.size() != UNKNOWN).then(|| self.size() as u64 * self.dtype().size() as u64)
    }

    /// How many chunks lie along each axis.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        self.0.chunks.iter().map(Vec::len).collect()
    }

    /// Number of chunks.
    #[must_use]
    pub fn n_chunks(&self) -> usize {
        self.counts().iter().product()
    }
}
