//! `frame.sql`: SQL over the inputs, for tasks written by hand.

use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, TaskContext, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{execute, partitions};
use crate::error::plain_message;
use crate::partition::{KIND, Partition};
use crate::plan::sql::plan_over;
use crate::plan::{bounds, session};

/// Arguments of `frame.sql`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlArgs {
    /// The query.
    sql: String,
    /// The tables, in the order of the inputs. A single name has all inputs; of several, each has one unless it says how many.
    tables: Vec<TableInputs>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum TableInputs {
    /// A name.
    Name(String),
    /// A name and its number of inputs.
    Counted(CountedTable),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountedTable {
    /// The table's name in the query.
    name: String,
    /// How many of the inputs are its partitions.
    n_inputs: usize,
}

pub(super) fn register(registry: &mut Registry) {
    let doc = "Run a SQL query over the inputs. The result is one partition.";
    registry.register(OperatorSpec::new::<SqlArgs>("frame.sql", 1, Arity::any(), KIND, doc), |ctx, args, inputs| {
        bounds::planning(|| Ok(Value::new(sql(ctx, args, &partitions(inputs)?)?)))
    });
}

fn sql(ctx: &TaskContext, args: &SqlArgs, inputs: &[&Partition]) -> Result<Partition, KernelError> {
    let mut rest = inputs;
    let mut tables = Vec::with_capacity(args.tables.len());
    for table in &args.tables {
        let (name, n_inputs) = match table {
            TableInputs::Name(name) if args.tables.len() == 1 => (name, inputs.len()),
            TableInputs::Name(name) => (name, 1),
            TableInputs::Counted(counted) => (&counted.name, counted.n_inputs),
        };
        let own = rest.split_off(..n_inputs).filter(|own| !own.is_empty());
        let own =
            own.ok_or_else(|| KernelError(format!("table \"{name}\" takes {n_inputs} of the inputs, {} are left", rest.len())))?;
        tables.push((name.clone(), execute::table(own)?));
    }
    if !rest.is_empty() {
        return Err(KernelError(format!("{} inputs belong to no table", rest.len())));
    }
    let plain = |error| KernelError(plain_message(&error));
    let (state, plan) = plan_over(&args.sql, tables)?;
    let plan = state.optimize(&plan).map_err(plain)?;
    let state = session::within(ctx.memory_limit).map_err(plain)?;
    execute::run(ctx, &state, &plan)
}
