//! Where a plan is cut: at its scans, whose work moves into scan tasks, and (one day) at exchanges.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, ScalarValue, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableScanBuilder};
use rask_graphs::TaskIdx;

use super::bounds::{MAX_STEPS, too_many_steps};
use super::tables::{FrameTable, SlotTable, TasksTable, downcast, travels_whole};
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
///
/// Scans are compared by their tables' names, and subqueries with equal plans are computed once. So what is left of tables
/// gets a name of its own for each frame, under an alias that is the name in the query: two frames of one name in
/// different queries stay two.
pub(crate) fn expand(plan: LogicalPlan, computed: &dyn Fn(&Frame) -> Option<Vec<TaskIdx>>) -> Result<LogicalPlan> {
    let (mut known, mut n_left) = (Vec::new(), MAX_STEPS);
    expand_into(plan, computed, &mut known, &mut n_left)
}

fn expand_into(
    plan: LogicalPlan,
    computed: &dyn Fn(&Frame) -> Option<Vec<TaskIdx>>,
    known: &mut Vec<Frame>,
    n_left: &mut usize,
) -> Result<LogicalPlan> {
    let expanded = plan.transform_down_with_subqueries(|node| {
        // Queries over queries that each name theirs twice are twice as much at every level.
        *n_left = n_left.checked_sub(1).ok_or_else(too_many_steps)?;
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let provider = source_as_provider(&scan.source)?;
        let Some(FrameTable(frame)) = downcast::<FrameTable>(&provider) else { return Ok(Transformed::no(node)) };
        let name = scan.table_name.clone();
        let tasks = match (&frame.0.node, computed(frame)) {
            (_, Some(tasks)) => Some(tasks),
            (Node::Tasks(tasks), None) => Some(tasks.clone()),
            (Node::Files(_), None) => None,
            (Node::Query(query), None) => {
                let inlined = expand_into(query.clone(), computed, known, n_left)?;
                let inlined = LogicalPlanBuilder::from(inlined).alias(name)?.build()?;
                return Ok(Transformed::new(inlined, true, TreeNodeRecursion::Jump));
            }
        };
        let source = match tasks {
            Some(tasks) => provider_as_source(Arc::new(TasksTable { schema: Arc::clone(frame.schema()), tasks })),
            None => Arc::clone(&scan.source),
        };
        let number = known.iter().position(|other| other.is_same(frame)).unwrap_or_else(|| {
            known.push(frame.clone());
            known.len() - 1
        });
        let own_name = numbered(name.table(), number);
        let scan = TableScanBuilder::new(own_name, source).with_projection(scan.projection.clone()).build()?;
        let aliased = LogicalPlanBuilder::from(LogicalPlan::TableScan(scan)).alias(name)?.build()?;
        Ok(Transformed::new(aliased, true, TreeNodeRecursion::Jump))
    })?;
    Ok(expanded.data)
}

/// The tables of `plan` whose rows are others each time they are computed, with their names.
pub(crate) fn volatile_frames(plan: &LogicalPlan) -> Result<Vec<(String, Frame)>> {
    let mut seen: Vec<(String, Frame)> = Vec::new();
    each_frame(plan, &mut seen)?;
    seen.retain(|(_, frame)| is_volatile(frame));
    Ok(seen)
}

/// Whether a frame is a query with random numbers in it.
pub(crate) fn is_volatile(frame: &Frame) -> bool {
    match &frame.0.node {
        Node::Query(plan) => is_volatile_plan(plan),
        Node::Files(_) | Node::Tasks(_) => false,
    }
}

fn is_volatile_plan(plan: &LogicalPlan) -> bool {
    let mut is_volatile = false;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            is_volatile |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    });
    is_volatile || visited.is_err()
}

/// Every table of `plan` and of the queries below, once.
fn each_frame(plan: &LogicalPlan, seen: &mut Vec<(String, Frame)>) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            if let Some(FrameTable(frame)) = downcast::<FrameTable>(&provider)
                && !seen.iter().any(|(_, known)| known.is_same(frame))
            {
                seen.push((scan.table_name.table().to_owned(), frame.clone()));
                if let Node::Query(inner) = &frame.0.node {
                    each_frame(inner, seen)?;
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// A table's name with a number behind it, and back. SQL cannot write the sign between them without quotes.
fn numbered(name: &str, number: usize) -> TableReference {
    TableReference::bare(format!("{name}#{number}"))
}

fn without_number(name: &str) -> &str {
    name.rsplit_once('#').map_or(name, |(name, _)| name)
}

/// Cut an optimised plan at its scans.
#[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: the leaves of a plan are cut, nothing else")]
pub(crate) fn cut(plan: LogicalPlan) -> Result<CutPlan> {
    let mut slots = Vec::new();
    let rest = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source)?;
            if travels_whole(&provider) {
                return Ok(Transformed::new(LogicalPlan::TableScan(scan), false, TreeNodeRecursion::Jump));
            }
            let (slot, scan) = cut_scan(scan, slots.len())?;
            slots.push(slot);
            Ok(Transformed::new(scan, true, TreeNodeRecursion::Jump))
        }
        LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row && !empty.schema.fields().is_empty() => {
            Ok(Transformed::new(no_rows(&empty.schema)?, true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let rest = rest.data;
    let cut = kind_of(&rest, &slots);
    Ok(CutPlan { slots, rest, cut })
}

/// Columns without rows. An empty relation loses its columns on the way to a worker, a projection of one keeps them.
fn no_rows(schema: &DFSchemaRef) -> Result<LogicalPlan> {
    let columns = schema.iter().map(|(relation, field)| {
        let null = Expr::Literal(ScalarValue::try_from(field.data_type())?, None);
        Ok(null.alias_qualified(relation.cloned(), field.name()))
    });
    LogicalPlanBuilder::empty(false).project(columns.collect::<Result<Vec<_>>>()?)?.build()
}

/// The slot of one scan, and the scan of that slot that takes its place.
///
/// What told two scans of one table apart (filters, limits) has moved into their slots, so each scan gets a name of its
/// own: otherwise subqueries over them would look equal and be computed once for all.
fn cut_scan(scan: TableScan, slot: usize) -> Result<(Slot, LogicalPlan)> {
    let provider = source_as_provider(&scan.source)?;
    let table = without_number(scan.table_name.table()).to_owned();
    let own_name = numbered(scan.table_name.table(), slot);
    let as_before =
        |scan: TableScan, name: TableReference| LogicalPlanBuilder::from(LogicalPlan::TableScan(scan)).alias(name)?.build();
    let slot_number = u32::try_from(slot).map_err(|_| DataFusionError::Plan("too many tables".to_owned()))?;
    let placed =
        |schema: &SchemaRef| -> Arc<dyn TableProvider> { Arc::new(SlotTable { schema: Arc::clone(schema), slot: slot_number }) };
    if let Some(tasks) = downcast::<TasksTable>(&provider) {
        let source = provider_as_source(placed(&tasks.schema));
        let rows = Rows::Tasks(tasks.tasks.clone());
        let slot = Slot { table, schema: Arc::clone(&tasks.schema), rows };
        let own = TableScanBuilder::new(own_name, source).with_projection(scan.projection).build()?;
        return Ok((slot, as_before(own, scan.table_name)?));
    }
    let Some(FrameTable(frame)) = downcast::<FrameTable>(&provider) else {
        return Err(DataFusionError::NotImplemented(format!("the table function {table} is not supported")));
    };
    let schema = match &scan.projection {
        None => Arc::clone(frame.schema()),
        Some(columns) => Arc::new(frame.schema().project(columns)?),
    };
    let columns = scan.projection.as_ref().map(|_| schema.fields().iter().map(|field| field.name().clone()).collect());
    let filters = scan.filters.into_iter().map(unnormalize_col).collect();
    let source = provider_as_source(placed(&schema));
    let rows = Rows::Scan { frame: frame.clone(), columns, filters, limit: scan.fetch };
    let own = TableScanBuilder::new(own_name, source).build()?;
    Ok((Slot { table, schema, rows }, as_before(own, scan.table_name)?))
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
