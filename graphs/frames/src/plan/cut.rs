//! Where a plan is cut: at its scans, whose work moves into scan tasks, and (one day) at exchanges.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableScanBuilder};
use rask_graphs::TaskIdx;

use super::bounds::{MAX_STEPS, too_many_steps};
use super::tables::{FrameTable, SlotTable, TasksTable, downcast};
use crate::frame::{Frame, Node};

/// What one table of a query needs.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its name in the query.
    pub(crate) table: String,
    /// Its rows after the scan.
    pub(crate) schema: SchemaRef,
    pub(crate) rows: Rows,
}

/// Where the rows of a slot come from.
#[derive(Debug)]
pub(crate) enum Rows {
    /// From files, by scan tasks that do this much of the query's work.
    Scan {
        /// A frame of files.
        frame: Frame,
        /// The columns wanted, in order; `None` for all.
        columns: Option<Vec<String>>,
        /// All must hold; columns are unqualified.
        filters: Vec<Expr>,
        /// Rows that suffice.
        limit: Option<usize>,
    },
    /// From tasks that are there already.
    Tasks(Vec<TaskIdx>),
}

/// How the remaining plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing remains: the scan's partitions are the result.
    ScanOnly,
    /// Every partition of the only slot by itself: no row needs a row of another partition.
    PartitionWise,
    /// One task over all partitions of all slots.
    Whole,
}

/// A query taken apart.
#[derive(Debug)]
pub(crate) struct CutPlan {
    pub(crate) slots: Vec<Slot>,
    /// The rest of the plan, over [`SlotTable`]s.
    pub(crate) rest: LogicalPlan,
    pub(crate) cut: Cut,
}

/// Put in place of every table that is a query the query itself, and in place of every table for which `computed` has
/// tasks those tasks.
pub(crate) fn expand(plan: LogicalPlan, computed: &dyn Fn(&Frame) -> Option<Vec<TaskIdx>>) -> Result<LogicalPlan> {
    let mut n_left = MAX_STEPS;
    let expanded = plan.transform_down_with_subqueries(|node| {
        // Queries over queries that each name theirs twice are twice as much at every level.
        n_left = n_left.checked_sub(1).ok_or_else(too_many_steps)?;
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let provider = source_as_provider(&scan.source)?;
        let Some(FrameTable(frame)) = downcast::<FrameTable>(&provider) else { return Ok(Transformed::no(node)) };
        let tasks = match (&frame.0.node, computed(frame)) {
            (_, Some(tasks)) => tasks,
            (Node::Tasks(tasks), None) => tasks.clone(),
            (Node::Files(_), None) => return Ok(Transformed::no(node)),
            (Node::Query(query), None) => {
                let inlined = LogicalPlanBuilder::from(query.clone()).alias(scan.table_name.clone())?;
                return Ok(Transformed::yes(inlined.build()?));
            }
        };
        let table = TasksTable { schema: Arc::clone(frame.schema()), tasks };
        let source = provider_as_source(Arc::new(table));
        let scan = TableScanBuilder::from(scan.clone());
        // The builder keeps name, projection and filters; only the source is another.
        let scan = with_source(scan, source)?;
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(expanded.data)
}

fn with_source(scan: TableScanBuilder, source: Arc<dyn datafusion::logical_expr::TableSource>) -> Result<TableScan> {
    let scan = scan.build()?;
    TableScanBuilder::new(scan.table_name, source).with_projection(scan.projection).with_filters(scan.filters).build()
}

/// Cut an optimised plan at its scans.
pub(crate) fn cut(plan: LogicalPlan) -> Result<CutPlan> {
    let mut slots = Vec::new();
    let rest = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let (slot, scan) = cut_scan(scan, slots.len())?;
        slots.push(slot);
        Ok(Transformed::new(LogicalPlan::TableScan(scan), true, TreeNodeRecursion::Jump))
    })?;
    let rest = rest.data;
    let cut = kind_of(&rest, &slots);
    Ok(CutPlan { slots, rest, cut })
}

/// The slot of one scan, and the scan of that slot that takes its place.
fn cut_scan(scan: TableScan, slot: usize) -> Result<(Slot, TableScan)> {
    let provider = source_as_provider(&scan.source)?;
    let table = scan.table_name.table().to_owned();
    let slot_number = u32::try_from(slot).map_err(|_| DataFusionError::Plan("too many tables".to_owned()))?;
    let placed =
        |schema: &SchemaRef| -> Arc<dyn TableProvider> { Arc::new(SlotTable { schema: Arc::clone(schema), slot: slot_number }) };
    if let Some(tasks) = downcast::<TasksTable>(&provider) {
        let source = provider_as_source(placed(&tasks.schema));
        let rows = Rows::Tasks(tasks.tasks.clone());
        let slot = Slot { table, schema: Arc::clone(&tasks.schema), rows };
        let scan = TableScanBuilder::new(scan.table_name, source).with_projection(scan.projection).build()?;
        return Ok((slot, scan));
    }
    let Some(FrameTable(frame)) = downcast::<FrameTable>(&provider) else {
        return Err(DataFusionError::NotImplemented(format!("the table function {table} in a distributed plan")));
    };
    let schema = match &scan.projection {
        None => Arc::clone(frame.schema()),
        Some(columns) => Arc::new(frame.schema().project(columns)?),
    };
    let columns = scan.projection.as_ref().map(|_| schema.fields().iter().map(|field| field.name().clone()).collect());
    let filters = scan.filters.into_iter().map(unnormalize_col).collect();
    let source = provider_as_source(placed(&schema));
    let rows = Rows::Scan { frame: frame.clone(), columns, filters, limit: scan.fetch };
    let scan = TableScanBuilder::new(scan.table_name, source).build()?;
    Ok((Slot { table, schema, rows }, scan))
}

/// Whether rows of different partitions ever meet in `plan`.
fn kind_of(plan: &LogicalPlan, slots: &[Slot]) -> Cut {
    if slots.len() != 1 {
        return Cut::Whole;
    }
    let mut is_bare = true;
    let mut node = plan;
    loop {
        #[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: whatever is not known to be row by row is not")]
        match node {
            // A scan of tasks may have a projection, which is work that remains.
            LogicalPlan::TableScan(scan) if is_bare && scan.projection.is_none() => return Cut::ScanOnly,
            LogicalPlan::TableScan(_) => return Cut::PartitionWise,
            LogicalPlan::SubqueryAlias(alias) => node = &alias.input,
            LogicalPlan::Projection(projection) => {
                is_bare = false;
                node = &projection.input;
            }
            LogicalPlan::Filter(filter) => {
                is_bare = false;
                node = &filter.input;
            }
            LogicalPlan::Unnest(unnest) => {
                is_bare = false;
                node = &unnest.input;
            }
            _ => return Cut::Whole,
        }
    }
}
