//! From lazy frames to tasks: parse and check SQL, optimise, cut the plan at its scans, put the rest into tasks.
//!
//! Planning happens once, at the client, over tables that know only their columns. The optimiser pushes projections,
//! filters and limits down to the scans; those become `frame.scan` tasks, one a partition, that read no more than the plan
//! needs. What remains of the plan runs above them: partition by partition when no row needs another (`Cut::PartitionWise`),
//! otherwise in one task over all (`Cut::Whole`). A plan cut at every exchange, with tasks for each stage and partition,
//! would be another way of cutting in [`cut`], and nothing else here would know.

mod admit;
mod balance;
pub(crate) mod bounds;
pub(crate) mod codec;
pub(crate) mod cut;
mod dialect;
pub(crate) mod lower;
pub(crate) mod meaning;
mod pieces;
mod room;
pub(crate) mod session;
pub(crate) mod sql;
mod syntax;
pub(crate) mod table_functions;
pub(crate) mod tables;
