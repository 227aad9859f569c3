//! Lazy, chunked, n-dimensional arrays with NumPy's names, and the operators that compute their chunks.

pub mod array;
mod buffer;
pub mod chunk;
pub mod chunking;
pub mod dtype;
pub mod error;
pub mod expression;
pub mod function;
pub mod kernels;
pub mod lower;
#[cfg(test)]
mod numpy_tests;
pub mod print;
pub mod scalar;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use array::{Array, Index, Operand};
pub use chunk::{Chunk, Element};
pub use chunking::{AxisChunks, ChunkSpec, UNKNOWN};
pub use dtype::DType;
pub use error::ArrayError;
pub use expression::{ExpressionError, evaluate_expression};
pub use function::Function;
pub use kernels::random::{Distributed, fresh_seed};
pub use kernels::reduce::Reduction;
pub use kernels::register;
pub use lower::{Blocks, ChunkGrid, Lowering};
pub use print::to_json;
pub use scalar::Scalar;
