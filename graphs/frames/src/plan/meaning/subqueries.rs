//! `IN` and `NOT IN` with three truth values, and subqueries that test something in any place.
//!
//! `x NOT IN (S)` holds when no row of S is equal to x or might be (a null on either side), which is a `NOT EXISTS`.
//! DataFusion's own plan for it knows nulls only for one uncorrelated key with a column in it; that case, the usual and
//! fastest, is left to it. Where a test stands outside of WHERE, each `EXISTS` becomes a column of a mark join below.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, ScalarValue, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not, when,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use crate::plan::bounds::Sizes;

/// The name of the rows of S while they are compared.
const CANDIDATES: &str = "__in";

#[derive(Debug)]
pub(super) struct ThreeTruthValues;

impl AnalyzerRule for ThreeTruthValues {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite).data()
    }

    fn name(&self) -> &str {
        "three_truth_values"
    }
}

fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut has_test = false;
    node.apply_expressions(|expr| {
        has_test |= is_test(expr)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !has_test {
        return Ok(Transformed::no(node));
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: the nodes whose expressions are computed row by row")]
    match node {
        LogicalPlan::Filter(filter) => {
            let schema = Arc::clone(filter.input.schema());
            let predicate = condition(filter.predicate, &schema, true)?;
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
        }
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => marked(node),
        other => Ok(Transformed::no(other)),
    }
}

fn is_test(expr: &Expr) -> Result<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::InSubquery(_) | Expr::Exists(_))))
}

/// A condition of which only "true" matters; `must_hold` when no row is kept without it.
#[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: only these pass on that \"true\" alone matters")]
fn condition(expr: Expr, schema: &DFSchema, must_hold: bool) -> Result<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let must_hold = must_hold && op == Operator::And;
            let (left, right) = (condition(*left, schema, must_hold)?, condition(*right, schema, must_hold)?);
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::InSubquery(test) if !test.negated => {
            if test.subquery.outer_ref_columns.is_empty() && !has_outer(&test.expr)? {
                return Ok(Expr::InSubquery(test));
            }
            let comparison = Comparison::new(&test, schema)?;
            comparison.exists(comparison.equal(), false)
        }
        Expr::InSubquery(test) => none_may_be_equal(test, schema, must_hold),
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(test) => {
                let test = InSubquery { negated: !test.negated, ..test };
                condition(Expr::InSubquery(test), schema, must_hold)
            }
            inner => in_full(not(inner), schema),
        },
        other => in_full(other, schema),
    }
}

/// `NOT IN`, where only "true" matters.
fn none_may_be_equal(test: InSubquery, schema: &DFSchema, must_hold: bool) -> Result<Expr> {
    let is_plain = must_hold && !test.expr.column_refs().is_empty() && !has_outer(&test.expr)?;
    if is_plain && test.subquery.outer_ref_columns.is_empty() {
        return Ok(Expr::InSubquery(test));
    }
    let comparison = Comparison::new(&test, schema)?;
    let may_be = comparison.equal().or(comparison.unknown());
    comparison.exists(may_be, true)
}

fn has_outer(expr: &Expr) -> Result<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::OuterReferenceColumn(..))))
}

/// Every `IN` within `expr` spelled out: true, unknown or false.
fn in_full(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let spelled = expr.transform_up(|part| {
        let Expr::InSubquery(test) = part else { return Ok(Transformed::no(part)) };
        let comparison = Comparison::new(&test, schema)?;
        let some_equal = comparison.exists(comparison.equal(), false)?;
        let is_in = if comparison.is_nullable {
            let unknown = comparison.exists(comparison.unknown(), false)?;
            when(some_equal, lit(true)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?
        } else {
            some_equal
        };
        Ok(Transformed::yes(if test.negated { not(is_in) } else { is_in }))
    })?;
    Ok(spelled.data)
}

/// x against the rows of S.
struct Comparison {
    /// x as seen from within a subquery.
    left: Expr,
    right: Expr,
    candidates: LogicalPlan,
    is_left_nullable: bool,
    is_right_nullable: bool,
    is_nullable: bool,
    subquery: Subquery,
}

impl Comparison {
    #[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: one kind of node has a projection to replace")]
    fn new(test: &InSubquery, schema: &DFSchema) -> Result<Self> {
        let plan = test.subquery.subquery.as_ref().clone();
        let [column] = plan
            .schema()
            .columns()
            .try_into()
            .map_err(|_| DataFusionError::Plan("IN takes a subquery with one column".to_owned()))?;
        let is_right_nullable = plan.schema().nullable(&column)?;
        // Subqueries within are there twice by now, and so on.
        Sizes::default().check(&plan)?;
        // A name that nothing outside has. It is given by a projection, through which conditions can be pulled up; in place
        // of its own projection, whose name may be that of a column that is pulled up.
        let (value, rows) = match plan {
            LogicalPlan::Projection(mut projection) if projection.expr.len() == 1 => {
                (projection.expr.remove(0).unalias(), Arc::unwrap_or_clone(projection.input))
            }
            other => (Expr::Column(column), other),
        };
        let named = value.alias_qualified(Some(CANDIDATES), "value");
        let candidates = LogicalPlanBuilder::from(rows).project([named])?.build()?;
        let right = Expr::Column(Column::new(Some(CANDIDATES), "value"));
        let is_left_nullable = test.expr.nullable(schema).unwrap_or(true);
        let left = test.expr.as_ref().clone().transform(|part| {
            let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
            let field = Arc::clone(schema.field_from_column(column)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column.clone())))
        })?;
        Ok(Self {
            left: left.data,
            right,
            is_left_nullable,
            is_right_nullable,
            is_nullable: is_left_nullable || is_right_nullable,
            candidates,
            subquery: test.subquery.clone(),
        })
    }

    fn equal(&self) -> Expr {
        self.right.clone().eq(self.left.clone())
    }

    fn unknown(&self) -> Expr {
        let sides = [(self.is_right_nullable, &self.right), (self.is_left_nullable, &self.left)];
        let nulls = sides.into_iter().filter(|(is_nullable, _)| *is_nullable).map(|(_, side)| side.clone().is_null());
        nulls.reduce(Expr::or).unwrap_or_else(|| lit(false))
    }

    fn exists(&self, condition: Expr, negated: bool) -> Result<Expr> {
        let plan = LogicalPlanBuilder::from(self.candidates.clone()).filter(condition)?.build()?;
        let outer_ref_columns = plan.all_out_ref_exprs();
        let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: self.subquery.spans.clone() };
        Ok(Expr::Exists(Exists { subquery, negated }))
    }
}

/// `node` with every test in its expressions a column of its input.
fn marked(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let inputs = node.inputs();
    let schema = merge_schema(&inputs);
    let [input] = inputs.as_slice() else { return Ok(Transformed::no(node)) };
    let mut input = (*input).clone();
    let names = NamePreserver::new(&node);
    let mut exprs = Vec::new();
    for expr in node.expressions() {
        if !is_test(&expr)? {
            exprs.push(expr);
            continue;
        }
        let name = names.save(&expr);
        let replaced = in_full(expr, &schema)?.transform_up(|part| {
            let Expr::Exists(test) = part else { return Ok(Transformed::no(part)) };
            let (joined, mark) = mark(input.clone(), &test.subquery.subquery)?;
            input = joined;
            Ok(Transformed::yes(if test.negated { not(mark) } else { mark }))
        })?;
        exprs.push(name.restore(replaced.data));
    }
    Ok(Transformed::yes(node.with_new_exprs(exprs, vec![input])?))
}

/// `input` with a column more: whether `subquery` has a row for it.
fn mark(input: LogicalPlan, subquery: &LogicalPlan) -> Result<(LogicalPlan, Expr)> {
    let is_taken = |name: &str| input.schema().iter().any(|(table, _)| table.is_some_and(|table| table.table() == name));
    let name = (0..).map(|number| format!("__mark_{number}")).find(|name| !is_taken(name)).unwrap_or_default();
    let mut pulled = PullUpCorrelatedExpr::new().with_exists_sub_query(true);
    let plan = subquery.clone().rewrite(&mut pulled)?.data;
    if !pulled.can_pull_up {
        return Err(DataFusionError::NotImplemented(
            "a subquery like this one, which looks at the rows around it from below a limit, a set operation or a \
             group, is not supported here; a join can say the same"
                .to_owned(),
        ));
    }
    let own: BTreeSet<Column> = pulled.correlated_subquery_cols_map.into_values().flatten().collect();
    let renamed = |expr: Expr| {
        expr.transform(|part| {
            let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
            if !own.contains(column) {
                return Ok(Transformed::no(part));
            }
            let column = Column::new(Some(TableReference::bare(name.clone())), column.name.clone());
            Ok(Transformed::yes(Expr::Column(column)))
        })
        .data()
    };
    let filter = conjunction(pulled.join_filters).map_or_else(|| Ok(lit(true)), renamed)?;
    let rows = LogicalPlanBuilder::from(plan).alias(name.clone())?.build()?;
    let is_needed = |column: &Column| filter.column_refs().contains(column);
    let needed: Vec<Expr> = rows.schema().columns().into_iter().filter(is_needed).map(Expr::Column).collect();
    let rows = if needed.is_empty() { rows } else { LogicalPlanBuilder::from(rows).project(needed)?.build()? };
    let joined = LogicalPlanBuilder::from(input).join_on(rows, JoinType::LeftMark, Some(filter))?.build()?;
    Ok((joined, Expr::Column(Column::new(Some(TableReference::bare(name)), "mark"))))
}
