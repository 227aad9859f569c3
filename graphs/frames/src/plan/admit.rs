//! Which plans and expressions that arrive as bytes are run.
//!
//! A plan comes from a client, and what it says is done with the worker's rights. So it is looked at twice: as a message,
//! before anything is made of it (the kinds of steps and terms, all listed here; how many there are and how deep they will
//! lie), and as a plan (every table must be one that the task was given). The kinds are those that a query can come to.
//! Whatever reads, writes or describes anything but the tables given is refused.
//!
//! Messages nest to a hundred levels at most, which the reader of messages sees to, so the walks here may recurse.

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::ipc;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion_proto::protobuf::logical_expr_node::ExprType;
use datafusion_proto::protobuf::logical_plan_node::LogicalPlanType;
use datafusion_proto::protobuf::{
    self, BinaryExprNode, LogicalExprNode, LogicalExtensionNode, LogicalPlanNode, ScalarValue, SortExprNode,
};
use datafusion_proto_common::scalar_value::Value;

use super::bounds::{MAX_DEPTH, MAX_STEPS, MAX_TERMS};
use super::tables::travels_whole;
use crate::types::check_width;

/// Most rows of a list, struct or map that stands in a plan as a constant.
const MAX_CONSTANT_ROWS: i64 = 1 << 24;

/// Operands of AND or OR that stay in one chain.
const MAX_IN_CHAIN: usize = 16;

fn refused<T>(what: &str) -> Result<T> {
    Err(DataFusionError::Plan(format!("a query must not contain {what}")))
}

/// Whether `plan` may be made into a plan; long chains of AND and OR are put in balance.
/// `pieces` are the sizes of those that it may name; returns its own.
pub(super) fn check_plan(plan: &mut LogicalPlanNode, pieces: &[Size]) -> Result<Size> {
    let mut walk = Walk { pieces, ..Walk::default() };
    let depth = walk.step(Some(plan))?;
    Ok(Size { n_steps: walk.n_steps, depth })
}

/// How large a plan is, with its pieces in their places.
#[derive(Clone, Copy)]
pub(super) struct Size {
    n_steps: usize,
    depth: usize,
}

/// As [`check_plan`], of a condition on one row.
pub(super) fn check_condition(expr: &mut LogicalExprNode) -> Result<()> {
    let mut walk = Walk { is_condition: true, ..Walk::default() };
    walk.term(expr).map(|_| ())
}

/// What has been seen so far.
#[derive(Default)]
struct Walk<'p> {
    pieces: &'p [Size],
    n_steps: usize,
    n_terms: usize,
    /// Only what can be said of one row: neither subqueries nor aggregates.
    is_condition: bool,
}

impl Walk<'_> {
    /// Check a step and what is below it; returns how deep that is.
    fn step(&mut self, node: Option<&mut LogicalPlanNode>) -> Result<usize> {
        use LogicalPlanType as Kind;
        let Some(kind) = node.and_then(|node| node.logical_plan_type.as_mut()) else { return refused("a step of no kind") };
        self.n_steps = self.n_steps.saturating_add(1);
        if self.n_steps > MAX_STEPS {
            return Err(DataFusionError::Plan(format!("the plan has more than {MAX_STEPS} steps")));
        }
        match kind {
            Kind::Projection(n) => self.over([n.input.as_deref_mut()], &mut n.expr),
            Kind::Selection(n) => self.over([n.input.as_deref_mut()], n.expr.as_deref_mut()),
            Kind::Limit(n) => self.over([n.input.as_deref_mut()], None),
            Kind::Aggregate(n) => self.over([n.input.as_deref_mut()], n.group_expr.iter_mut().chain(&mut n.aggr_expr)),
            Kind::Sort(n) => self.over([n.input.as_deref_mut()], sorted(&mut n.expr)),
            Kind::Window(n) => self.over([n.input.as_deref_mut()], &mut n.window_expr),
            Kind::SubqueryAlias(n) => self.over([n.input.as_deref_mut()], None),
            Kind::Distinct(n) => self.over([n.input.as_deref_mut()], None),
            Kind::DistinctOn(n) => {
                let terms = n.on_expr.iter_mut().chain(&mut n.select_expr).chain(sorted(&mut n.sort_expr));
                self.over([n.input.as_deref_mut()], terms)
            }
            Kind::Unnest(n) => self.over([n.input.as_deref_mut()], None),
            Kind::Join(n) => {
                let terms = n.left_join_key.iter_mut().chain(&mut n.right_join_key).chain(n.filter.as_deref_mut());
                self.over([n.left.as_deref_mut(), n.right.as_deref_mut()], terms)
            }
            Kind::CrossJoin(n) => self.over([n.left.as_deref_mut(), n.right.as_deref_mut()], None),
            Kind::Union(n) => {
                // They are joined one to the other.
                let n_inputs = n.inputs.len();
                deeper(self.over(n.inputs.iter_mut().map(Some), None)?, n_inputs)
            }
            Kind::Values(n) if n.n_cols == 0 && !n.values_list.is_empty() => refused("rows without columns"),
            Kind::Values(n) => self.over([], &mut n.values_list),
            Kind::EmptyRelation(_) => Ok(1),
            // A table of the task; its filters are the business of scans, and have been applied.
            Kind::CustomScan(n) if n.filters.is_empty() => Ok(1),
            Kind::CustomScan(_) => refused("a filtered table"),
            Kind::RecursiveQuery(n) => self.over([n.static_term.as_deref_mut(), n.recursive_term.as_deref_mut()], None),
            Kind::CteWorkTableScan(_) => Ok(1),
            Kind::ListingScan(_) => refused("a scan of files"),
            Kind::ViewScan(_) => refused("a view"),
            Kind::EmptyTableScan(_) => refused("a table that no input holds"),
            Kind::Repartition(_) => refused("a repartitioning"),
            Kind::CreateExternalTable(_)
            | Kind::CreateCatalogSchema(_)
            | Kind::CreateCatalog(_)
            | Kind::CreateView(_)
            | Kind::DropView(_) => refused("a definition"),
            Kind::Explain(_) | Kind::Analyze(_) => refused("EXPLAIN"),
            Kind::Extension(n) => match piece_of(n).and_then(|number| self.pieces.get(number).copied()) {
                Some(piece) => {
                    // A piece that is named twice is there twice.
                    self.n_steps = self.n_steps.saturating_add(piece.n_steps);
                    Ok(piece.depth)
                }
                None => refused("an extension"),
            },
            Kind::Prepare(_) => refused("a prepared statement"),
            Kind::CopyTo(_) => refused("COPY"),
            Kind::Dml(_) => refused("a change of data"),
        }
    }

    fn over<'a>(
        &mut self,
        inputs: impl IntoIterator<Item = Option<&'a mut LogicalPlanNode>>,
        terms: impl IntoIterator<Item = &'a mut LogicalExprNode>,
    ) -> Result<usize> {
        let mut depth = self.terms(terms)?;
        for input in inputs {
            depth = depth.max(self.step(input)?);
        }
        deeper(depth, 1)
    }

    /// Check expressions; returns how deep the deepest is.
    fn terms<'a>(&mut self, terms: impl IntoIterator<Item = &'a mut LogicalExprNode>) -> Result<usize> {
        let mut depth = 0;
        for term in terms {
            depth = depth.max(self.term(term)?);
        }
        Ok(depth)
    }

    fn term(&mut self, node: &mut LogicalExprNode) -> Result<usize> {
        use ExprType as Kind;
        let Some(kind) = node.expr_type.as_mut() else { return refused("a term of no kind") };
        self.n_terms += 1;
        if self.n_terms > MAX_TERMS {
            return Err(DataFusionError::Plan(format!("the plan has more than {MAX_TERMS} terms")));
        }
        let below = match kind {
            Kind::Column(_) | Kind::LambdaVariable(_) => 0,
            Kind::Literal(value) => self.constant(value)?,
            Kind::Alias(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::BinaryExpr(n) => {
                balance(n);
                // A chain of operands is one term of the message, and will lie as deep as it is long.
                deeper(self.terms(&mut n.operands)?, n.operands.len())?
            }
            Kind::IsNullExpr(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsNotNullExpr(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::NotExpr(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsTrue(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsFalse(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsUnknown(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsNotTrue(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsNotFalse(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::IsNotUnknown(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::Negative(n) => self.terms(n.expr.as_deref_mut())?,
            Kind::Between(n) => self.terms([&mut n.expr, &mut n.low, &mut n.high].into_iter().flatten().map(AsMut::as_mut))?,
            Kind::Like(n) => self.terms([&mut n.expr, &mut n.pattern].into_iter().flatten().map(AsMut::as_mut))?,
            Kind::Ilike(n) => self.terms([&mut n.expr, &mut n.pattern].into_iter().flatten().map(AsMut::as_mut))?,
            Kind::SimilarTo(n) => self.terms([&mut n.expr, &mut n.pattern].into_iter().flatten().map(AsMut::as_mut))?,
            Kind::Case(n) => {
                let branches = n.when_then_expr.iter_mut().flat_map(|branch| [&mut branch.when_expr, &mut branch.then_expr]);
                let ends = [&mut n.expr, &mut n.else_expr].into_iter().flatten().map(AsMut::as_mut);
                self.terms(branches.flatten().chain(ends))?
            }
            Kind::Cast(n) => {
                n.arrow_type.as_ref().map_or(Ok(()), check_type)?;
                self.terms(n.expr.as_deref_mut())?
            }
            Kind::TryCast(n) => {
                n.arrow_type.as_ref().map_or(Ok(()), check_type)?;
                self.terms(n.expr.as_deref_mut())?
            }
            Kind::InList(n) => self.terms(n.list.iter_mut().chain(n.expr.as_deref_mut()))?,
            Kind::ScalarUdfExpr(n) if n.fun_definition.is_some() => return refused("a function's definition"),
            Kind::ScalarUdfExpr(n) => self.terms(&mut n.args)?,
            Kind::HigherOrderUdfExpr(n) if n.fun_definition.is_some() => return refused("a function's definition"),
            Kind::HigherOrderUdfExpr(n) => self.terms(&mut n.args)?,
            Kind::Lambda(n) => self.terms(n.body.as_deref_mut())?,
            Kind::Unnest(_)
            | Kind::WindowExpr(_)
            | Kind::AggregateUdfExpr(_)
            | Kind::GroupingSet(_)
            | Kind::Cube(_)
            | Kind::Rollup(_)
            | Kind::ScalarSubqueryExpr(_)
                if self.is_condition =>
            {
                return refused("conditions on more than one row at a time");
            }
            Kind::Unnest(n) => self.terms(&mut n.exprs)?,
            Kind::WindowExpr(n) if n.fun_definition.is_some() => return refused("a function's definition"),
            Kind::WindowExpr(n) => {
                let sorted = sorted(&mut n.order_by);
                self.terms(n.exprs.iter_mut().chain(&mut n.partition_by).chain(sorted).chain(n.filter.as_deref_mut()))?
            }
            Kind::AggregateUdfExpr(n) if n.fun_definition.is_some() => return refused("a function's definition"),
            Kind::AggregateUdfExpr(n) => {
                self.terms(n.args.iter_mut().chain(sorted(&mut n.order_by)).chain(n.filter.as_deref_mut()))?
            }
            Kind::GroupingSet(n) => self.terms(n.expr.iter_mut().flat_map(|set| &mut set.expr))?,
            Kind::Cube(n) => self.terms(&mut n.expr)?,
            Kind::Rollup(n) => self.terms(&mut n.expr)?,
            Kind::ScalarSubqueryExpr(n) => {
                let Some(subquery) = n.subquery.as_deref_mut() else { return refused("a subquery without a query") };
                self.over([subquery.subquery.as_deref_mut()], &mut subquery.outer_ref_columns)?
            }
            Kind::Wildcard(_) => return refused("a wildcard"),
            Kind::Placeholder(_) => return refused("a placeholder"),
        };
        deeper(below, 1)
    }

    fn constant(&mut self, value: &ScalarValue) -> Result<usize> {
        let Some(value) = &value.value else { return refused("a constant without a value") };
        match value {
            Value::LargeListValue(nested)
            | Value::ListValue(nested)
            | Value::FixedSizeListValue(nested)
            | Value::ListViewValue(nested)
            | Value::LargeListViewValue(nested)
            | Value::StructValue(nested)
            | Value::MapValue(nested) => check_nested(nested)?,
            Value::NullValue(data_type) => check_type(data_type)?,
            Value::DictionaryValue(inner) => return inner.value.as_deref().map_or(Ok(0), |inner| self.constant(inner)),
            Value::RunEndEncodedValue(_) | Value::UnionValue(_) => return refused("a constant of a rare kind"),
            Value::BoolValue(_)
            | Value::Utf8Value(_)
            | Value::LargeUtf8Value(_)
            | Value::Utf8ViewValue(_)
            | Value::Int8Value(_)
            | Value::Int16Value(_)
            | Value::Int32Value(_)
            | Value::Int64Value(_)
            | Value::Uint8Value(_)
            | Value::Uint16Value(_)
            | Value::Uint32Value(_)
            | Value::Uint64Value(_)
            | Value::Float32Value(_)
            | Value::Float64Value(_)
            | Value::Date32Value(_)
            | Value::Time32Value(_)
            | Value::Decimal32Value(_)
            | Value::Decimal64Value(_)
            | Value::Decimal128Value(_)
            | Value::Decimal256Value(_)
            | Value::Date64Value(_)
            | Value::IntervalYearmonthValue(_)
            | Value::DurationSecondValue(_)
            | Value::DurationMillisecondValue(_)
            | Value::DurationMicrosecondValue(_)
            | Value::DurationNanosecondValue(_)
            | Value::TimestampValue(_)
            | Value::BinaryValue(_)
            | Value::LargeBinaryValue(_)
            | Value::BinaryViewValue(_)
            | Value::Time64Value(_)
            | Value::IntervalDaytimeValue(_)
            | Value::IntervalMonthDayNano(_)
            | Value::FixedSizeBinaryValue(_) => {}
        }
        Ok(0)
    }
}

fn sorted(by: &mut [SortExprNode]) -> impl Iterator<Item = &mut LogicalExprNode> {
    by.iter_mut().filter_map(|by| by.expr.as_mut())
}

/// The number of the piece that an extension stands for.
fn piece_of(node: &LogicalExtensionNode) -> Option<usize> {
    let number = <[u8; 4]>::try_from(node.node.as_slice()).ok()?;
    if node.inputs.is_empty() { usize::try_from(u32::from_le_bytes(number)).ok() } else { None }
}

/// Put a long chain of AND or OR in balance, which changes nothing but how deep its operands lie.
fn balance(chain: &mut BinaryExprNode) {
    if chain.operands.len() <= MAX_IN_CHAIN || !matches!(chain.op.as_str(), "And" | "Or") {
        return;
    }
    let half = |operands: Vec<LogicalExprNode>| {
        let mut half = BinaryExprNode { operands, op: chain.op.clone() };
        balance(&mut half);
        LogicalExprNode { expr_type: Some(ExprType::BinaryExpr(half)) }
    };
    let right = chain.operands.split_off(chain.operands.len() / 2);
    let left = std::mem::take(&mut chain.operands);
    chain.operands = vec![half(left), half(right)];
}

fn deeper(depth: usize, by: usize) -> Result<usize> {
    let depth = depth.saturating_add(by);
    if depth > MAX_DEPTH {
        return Err(DataFusionError::Plan(format!("the plan is nested more than {MAX_DEPTH} deep")));
    }
    Ok(depth)
}

fn check_type(data_type: &protobuf::ArrowType) -> Result<()> {
    let data_type = DataType::try_from(data_type)?;
    check_width(&data_type).map_err(DataFusionError::Plan)
}

/// Constants that consist of others travel as Arrow messages, whose lengths nobody else checks before they are believed.
fn check_nested(nested: &datafusion_proto_common::ScalarNestedValue) -> Result<()> {
    if let Some(schema) = &nested.schema {
        for column in &schema.columns {
            column.arrow_type.as_deref().map_or(Ok(()), check_type)?;
        }
    }
    let own = [(&nested.ipc_message, &nested.arrow_data)];
    let dictionaries = nested.dictionaries.iter().map(|dictionary| (&dictionary.ipc_message, &dictionary.arrow_data));
    for (message, data) in own.into_iter().chain(dictionaries) {
        let message = ipc::root_as_message(message).map_err(|error| DataFusionError::Plan(format!("a constant: {error}")))?;
        let batch = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        let Some(batch) = message.header_as_record_batch().or(batch) else { return refused("a constant without a value") };
        let lengths = batch.nodes().into_iter().flatten().map(ipc::FieldNode::length);
        if lengths.chain([batch.length()]).any(|length| !(0..=MAX_CONSTANT_ROWS).contains(&length)) {
            return refused("a constant of so many rows");
        }
        for buffer in batch.buffers().into_iter().flatten() {
            let end = buffer.offset().checked_add(buffer.length()).and_then(|end| usize::try_from(end).ok());
            if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|end| end > data.len()) {
                return refused("a constant cut short");
            }
        }
    }
    Ok(())
}

/// Whether every table of `plan` is one of `tables`, and every step one that only computes.
pub(super) fn check_tables(plan: &LogicalPlan, tables: &[Arc<dyn TableProvider>]) -> Result<()> {
    plan.apply_with_subqueries(|step| {
        match step {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                let is_given = tables.iter().any(|table| std::ptr::addr_eq(Arc::as_ptr(table), Arc::as_ptr(&provider)));
                if !is_given && !travels_whole(&provider) {
                    return refused(&format!("the table {}, which no input holds", scan.table_name));
                }
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_) => {}
            LogicalPlan::Repartition(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => return refused("anything that does more than compute"),
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}
