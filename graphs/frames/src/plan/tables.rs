//! Tables as plans see them: at the client a table is a frame with columns and no rows; in a plan that travels it is a
//! number, the slot of the inputs that hold its rows.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use rask_graphs::TaskIdx;

use super::table_functions::FunctionTable;
use crate::frame::{Frame, Node};

/// A frame under a name in a query.
#[derive(Debug)]
pub(crate) struct FrameTable(pub(crate) Frame);

/// The results of tasks as a table: nothing can be pushed into what is computed already.
#[derive(Debug)]
pub(crate) struct TasksTable {
    pub(crate) schema: SchemaRef,
    pub(crate) tasks: Vec<TaskIdx>,
}

/// Where rows will come from in a task: the inputs of slot `slot`.
#[derive(Debug)]
pub(crate) struct SlotTable {
    pub(crate) schema: SchemaRef,
    pub(crate) slot: u32,
}

fn not_executable<T>() -> Result<T> {
    Err(DataFusionError::Internal("a table without rows was asked for rows".to_owned()))
}

#[async_trait::async_trait]
impl TableProvider for FrameTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Scans evaluate every filter on every row, whatever the format can skip by itself, so none needs to be repeated.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = match self.0.0.node {
            Node::Files(_) => TableProviderFilterPushDown::Exact,
            Node::Query(_) | Node::Tasks(_) => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters
            .iter()
            .map(|filter| if travels(filter) { answer.clone() } else { TableProviderFilterPushDown::Unsupported })
            .collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_executable()
    }
}

/// Whether an expression means the same on any worker and needs nothing but the row.
fn travels(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let has_subquery = expr.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    !expr.is_volatile() && !has_subquery.unwrap_or(true)
}

#[async_trait::async_trait]
impl TableProvider for TasksTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_executable()
    }
}

#[async_trait::async_trait]
impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_executable()
    }
}

/// Whether a table is written out into a plan as it is, rather than fed from a slot: a recursive query's own rows, and
/// table functions, whose arguments say everything.
pub(crate) fn travels_whole(provider: &Arc<dyn TableProvider>) -> bool {
    downcast::<CteWorkTable>(provider).is_some() || downcast::<FunctionTable>(provider).is_some()
}

/// `provider` as a `T`.
pub(crate) fn downcast<T: TableProvider>(provider: &Arc<dyn TableProvider>) -> Option<&T> {
    let any: &dyn Any = provider.as_ref();
    any.downcast_ref()
}
