//! What can be computed, as plain values.
//!
//! A [`Graph`] is a flat, validated table of tasks in execution order; a [`GraphBuilder`] makes one. A task names an
//! operator from a [`Registry`], its arguments, and its inputs: whole results, addressable parts of results, or gather
//! groups. Arrays, frames and users' own functions register operators here and nowhere else, so nothing downstream
//! (wire, scheduler, worker) knows any kernel.
//!
//! Deliberately absent: threads, sockets, clocks, Arrow, DataFusion.

pub mod access;
pub mod builder;
pub mod builtin;
mod cull;
mod dot;
mod drawing;
pub mod evaluate;
pub mod expression;
pub mod file;
mod finish;
mod fuse;
pub mod graph;
pub mod ids;
pub mod keys;
mod layout;
pub mod limits;
mod links;
pub mod operator;
mod order;
mod pressure;
mod rows;
mod svg;
#[cfg(test)]
mod testing;
mod validate;
pub mod value;
mod walk;
pub mod written;

pub use access::FileAccess;
pub use builder::{GraphBuilder, TaskBuilder};
pub use dot::to_dot;
pub use evaluate::{EvaluateError, PreparedBody, evaluate, prepare};
pub use finish::{FinishOptions, Finished};
pub use fuse::MAX_STEPS;
pub use graph::{Body, Graph, Input, MalformedGraph, Part, Source, Step, TaskOptions, Wire, Wires};
pub use ids::{Attempt, BodyId, ClientId, Epoch, GraphId, TaskId, TaskIdx, WorkerId};
pub use operator::{Arity, Kernel, KernelError, OperatorSpec, PrepareError, Registry, TaskContext};
pub use pressure::{Pressure, pressure};
pub use svg::to_svg;
pub use validate::{BuildError, MAX_TASKS};
pub use value::{Data, DecodeError, EncodeError, Encoded, Value};
