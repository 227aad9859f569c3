//! The operators of frames, as graph files and planned queries use them alike.

pub(crate) mod concat;
pub(crate) mod execute;
mod holds;
pub(crate) mod query;
pub(crate) mod scan;
mod scan_arrow;
mod scan_csv;
mod scan_json;
pub(crate) mod scan_parquet;
pub(crate) mod sql;
pub(crate) mod write;
mod write_text;

use rask_graphs::{KernelError, Registry, Value};

use crate::partition::{self, Partition};

/// Register the kind of partitions and the operators `frame.*`.
///
/// # Panics
/// When they are registered already.
pub fn register(registry: &mut Registry) {
    registry.register_kind(partition::KIND, partition::decode);
    scan::register(registry);
    query::register(registry);
    sql::register(registry);
    concat::register(registry);
    write::register(registry);
}

/// All inputs as partitions.
pub(crate) fn partitions(inputs: &[Value]) -> Result<Vec<&Partition>, KernelError> {
    inputs.iter().map(|input| input.expect::<Partition>("a partition of a frame")).collect()
}
