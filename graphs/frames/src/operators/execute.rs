//! Running a plan inside a task: one thread, rows from the inputs, stoppable.
//!
//! A cancelled plan stops at the next batch it produces or the next time it gives way to others. An operator that does
//! neither (a join whose condition drops every pair, over inputs read already) runs to its end: nothing outside it can
//! interrupt it.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use rask_graphs::{KernelError, TaskContext};

use crate::error::plain_message;
use crate::partition::Partition;
use crate::plan::meaning::canonical_batch;

/// How often a plan that produces no rows looks whether anybody still wants them.
const CANCELLATION_PERIOD: Duration = Duration::from_millis(50);

/// The rows of partitions as a table.
pub(crate) fn table(parts: &[&Partition]) -> Result<Arc<dyn TableProvider>, KernelError> {
    let all = super::concat::concat(parts)?;
    let batches = all.batches().iter().cloned().map(canonical_batch).collect::<Result<_, _>>()?;
    let table = MemTable::try_new(Arc::clone(all.schema()), vec![batches]).map_err(|error| KernelError(plain_message(&error)))?;
    Ok(Arc::new(table))
}

/// Run `plan`, optimised already, to its end.
pub(crate) fn run(ctx: &TaskContext, state: &SessionState, plan: &LogicalPlan) -> Result<Partition, KernelError> {
    ctx.check_cancelled()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(collect(ctx, state, plan))
}

async fn collect(ctx: &TaskContext, state: &SessionState, plan: &LogicalPlan) -> Result<Partition, KernelError> {
    let plain = |error| KernelError(plain_message(&error));
    let physical = state.query_planner().create_physical_plan(plan, state).await.map_err(plain)?;
    let mut stream = execute_stream(physical, state.task_ctx()).map_err(plain)?;
    let schema: SchemaRef = stream.schema();
    let mut batches = Vec::new();
    loop {
        tokio::select! {
            next = stream.next() => match next {
                Some(batch) => {
                    let batch = batch.map_err(plain)?;
                    if batch.num_rows() > 0 {
                        batches.push(batch);
                    }
                }
                None => break,
            },
            () = tokio::time::sleep(CANCELLATION_PERIOD) => {}
        }
        ctx.check_cancelled()?;
    }
    Partition::try_new(schema, batches)
}
