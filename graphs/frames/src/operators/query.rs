//! `frame.query`: what remains of a planned query above its scans.

use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, TaskContext, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{execute, partitions};
use crate::error::plain_message;
use crate::partition::{KIND, Partition};
use crate::plan::{bounds, codec, session};

/// Arguments of `frame.query`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryArgs {
    /// The plan, as the planner writes it (base64 of DataFusion's protobuf form).
    pub(crate) plan: String,
    /// The pieces that a deep plan stands on, from the bottom, in the same form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) below: Vec<String>,
    /// For each table of the plan the number of inputs that hold its rows, in order.
    pub(crate) n_inputs: Vec<usize>,
}

pub(super) fn register(registry: &mut Registry) {
    let doc = "Run a planned query over partitions. Made by the planner; use frame.sql by hand.";
    registry.register(OperatorSpec::new::<QueryArgs>("frame.query", 1, Arity::any(), KIND, doc), |ctx, args, inputs| {
        bounds::planning(|| Ok(Value::new(query(ctx, args, &partitions(inputs)?)?)))
    });
}

fn query(ctx: &TaskContext, args: &QueryArgs, inputs: &[&Partition]) -> Result<Partition, KernelError> {
    let n_wanted = args.n_inputs.iter().fold(0_usize, |sum, n| sum.saturating_add(*n));
    if n_wanted != inputs.len() {
        return Err(KernelError(format!("the plan takes {n_wanted} partitions, got {}", inputs.len())));
    }
    let mut rest = inputs;
    let mut tables = Vec::with_capacity(args.n_inputs.len());
    for &n_inputs in &args.n_inputs {
        let (own, others) = rest.split_at(n_inputs);
        tables.push(execute::table(own)?);
        rest = others;
    }
    let state = session::within(ctx.memory_limit).map_err(|e| KernelError(plain_message(&e)))?;
    let pieces: Vec<&str> = args.below.iter().chain([&args.plan]).map(String::as_str).collect();
    let plan = codec::decode_plan(&pieces, tables, &state.task_ctx()).map_err(|e| KernelError(plain_message(&e)))?;
    execute::run(ctx, &state, &plan)
}
