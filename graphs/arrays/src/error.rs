//! What can be wrong with an array expression, found when it is built and before anything runs.
//!
//! Messages name the shapes and types involved, since that is what a person needs to find the mistake. Failures of
//! kernels are not here: they travel as text in [`rask_graphs::KernelError`].

use std::path::PathBuf;

use crate::array::MAX_DEPTH;
use crate::chunking::{MAX_AXES, UNKNOWN, shape_text};
use crate::dtype::DType;

/// A mistake in an array expression.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// Shapes that do not broadcast.
    #[error("shapes {} and {} do not match: they cannot be broadcast together", shape_text(.left), shape_text(.right))]
    Broadcast {
        /// Shape of the left operand.
        left: Vec<usize>,
        /// Shape of the right operand.
        right: Vec<usize>,
    },
    /// Shapes that do not fit an operation.
    #[error("{operation}: shapes {} and {} do not match: {reason}", shape_text(.left), shape_text(.right))]
    Shapes {
        /// The operation, by NumPy's name.
        operation: &'static str,
        /// Shape of the first operand.
        left: Vec<usize>,
        /// Shape of the second operand.
        right: Vec<usize>,
        /// What would have to agree.
        reason: String,
    },
    /// An axis that is not there.
    #[error("axis {axis} is out of bounds for an array of {n_axes} dimensions")]
    Axis {
        /// The axis as given.
        axis: i64,
        /// Number of axes there are.
        n_axes: usize,
    },
    /// An axis named twice.
    #[error("axis {0} is named twice")]
    RepeatedAxis(usize),
    /// An index outside its axis.
    #[error("index {index} is out of bounds for axis {axis} with size {size}")]
    Index {
        /// The index as given.
        index: i64,
        /// Which axis.
        axis: usize,
        /// The axis's size.
        size: usize,
    },
    /// More indices than axes.
    #[error("too many indices: {given} for an array of {n_axes} dimensions")]
    TooManyIndices {
        /// Number of indices.
        given: usize,
        /// Number of axes.
        n_axes: usize,
    },
    /// A function that is not defined for the type.
    #[error("{function} is not defined for {dtype} arrays")]
    Type {
        /// The function, by NumPy's name.
        function: &'static str,
        /// The type.
        dtype: DType,
    },
    /// An integer that does not fit.
    #[error("integer {value} is out of bounds for {dtype}")]
    OutOfBounds {
        /// The integer.
        value: i128,
        /// The type it should take.
        dtype: DType,
    },
    /// A float that no integer stands for.
    #[error("{value} cannot be an element of type {dtype}")]
    NotAnInteger {
        /// The float.
        value: f64,
        /// The type it should take.
        dtype: DType,
    },
    /// More than can be planned.
    #[error("{what}: {count}, at most {limit} are possible; make the chunks larger")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there would be.
        count: u128,
        /// How many there may be.
        limit: usize,
    },
    /// A type nobody knows.
    #[error("unknown dtype \"{0}\"")]
    UnknownDType(String),
    /// Chunks that do not add up to the shape.
    #[error("chunks do not fit shape {}: {reason}", shape_text(.shape))]
    Chunks {
        /// The array's shape.
        shape: Vec<usize>,
        /// What is wrong.
        reason: String,
    },
    /// Something that needs the size of an axis that only running the graph will tell.
    #[error("{0} needs the size of an axis that is known only after the data has been read")]
    UnknownSize(&'static str),
    /// Sizes whose product does not fit an address space.
    #[error("an array of shape {} is too large", shape_text(.0))]
    TooLarge(Vec<usize>),
    /// More tasks than can be planned.
    #[error("the arrays need more than {limit} tasks, which is the limit; make the chunks larger")]
    TooManyTasks {
        /// How many there may be.
        limit: usize,
    },
    /// A tree too high to be planned.
    #[error("more than {MAX_DEPTH} operations one after another: write an intermediate result to a file, and go on from there")]
    TooDeep,
    /// More axes than an array can have.
    #[error("an array of {n_axes} axes, at most {MAX_AXES} are possible")]
    TooManyAxes {
        /// How many it would have.
        n_axes: usize,
    },
    /// An argument that makes no sense.
    #[error("{function}: {reason}")]
    Argument {
        /// The function, by NumPy's name.
        function: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file that is missing or is not what it should be.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl ArrayError {
    /// An [`ArrayError::Argument`].
    pub(crate) fn argument(function: &'static str, reason: impl Into<String>) -> Self {
        Self::Argument { function, reason: reason.into() }
    }

    /// An [`ArrayError::UnknownSize`] if `size` is unknown.
    pub(crate) fn check_known(sizes: &[usize], operation: &'static str) -> Result<(), Self> {
        if sizes.contains(&UNKNOWN) { Err(Self::UnknownSize(operation)) } else { Ok(()) }
    }
}
