//! What can be computed, as plain values.
//!
//! A [`Graph`] is a flat, validated table of tasks in execution order; a [`GraphBuilder`] makes one. A task names an
//! operator from a [`Registry`], its arguments, and its inputs: whole results, addressable parts of results, or gather
//! groups. Arrays, frames and users' own functions register operators here and nowhere else, so nothing downstream
//! (wire, scheduler, worker) knows any kernel.
//!
//! Deliberately absent: threads, sockets, clocks, Arrow, DataFusion.

pub mod builder;
pub mod builtin;
pub mod expression;
pub mod graph;
pub mod ids;
pub mod keys;
pub mod operator;
pub mod value;

pub use builder::{GraphBuilder, TaskBuilder};
pub use graph::{Body, Graph, Input, Part, Source, Step, TaskOptions, Wire};
pub use ids::{Attempt, BodyId, ClientId, Epoch, GraphId, TaskId, TaskIdx, WorkerId};
pub use operator::{Arity, Kernel, KernelError, OperatorSpec, Registry, TaskContext};
pub use value::{Data, DecodeError, EncodeError, Encoded, Value};
