//! Chunked dataframes: DataFusion's plans as tasks over partitions, and the operators that run them.
//!
//! A [`Frame`] is lazy: files, or SQL over other frames. [`FrameLowering`] puts the tasks that compute one into a graph:
//! scans of files, one a partition, that read only the columns and rows the query needs, and the query above them. The
//! operators (`frame.*`, see [`register`]) are ordinary operators: graph files can use them by hand.
//!
//! Deliberately absent: the cluster, and arrays ([`columns_to_f64`] is all they need from here).

pub mod columns;
mod convert;
pub mod error;
mod frame;
mod ipc;
mod numbers;
mod operators;
mod partition;
mod plain;
mod plan;
pub mod present;
mod source;
mod text;
mod types;

#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod tests;

pub use columns::{columns_to_f64, f64_to_columns};
pub use error::{FrameError, SqlError};
pub use frame::{Frame, sql_tables};
pub use numbers::{Numbers, numbers_to_columns};
pub use operators::register;
pub use partition::{KIND, Partition, decode};
pub use plan::lower::{FrameLowering, explain};
pub use present::{JsonRows, rows_as_json, to_table_string};
pub use source::{Format, ReadOptions};
pub use types::{parse_type, type_name};

/// The version of DataFusion, in whose form plans travel: peers must have the same.
pub const PLAN_VERSION: &str = datafusion::DATAFUSION_VERSION;
