//! Expressions that DataFusion evaluates otherwise than people expect, and what takes their place.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, InList, Like, ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use super::arithmetic;
use super::functions::{LENGTH, NAN, PATTERN, SORT_KEY, is_call, wrap};

/// Functions of floats that are NaN where they have no value, with whatever sign the machine gives it.
const MAY_BE_NAN: [&str; 20] = [
    "acos", "acosh", "asin", "atanh", "cos", "cot", "exp", "ln", "log", "log10", "log2", "power", "pow", "sin", "sinh", "cosh",
    "sqrt", "tan", "tanh", "cbrt",
];

/// After types are coerced: operands of one operator have the types it computes with.
#[derive(Debug)]
pub(super) struct Meaning;

impl AnalyzerRule for Meaning {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite).data()
    }

    fn name(&self) -> &str {
        "meaning"
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: one kind of node differs from all others")]
fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = match &node {
        LogicalPlan::TableScan(_) => return Ok(Transformed::no(node)),
        other => merge_schema(&other.inputs()),
    };
    let names = NamePreserver::new(&node);
    let is_sort = matches!(node, LogicalPlan::Sort(_));
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        let meant = meaning_of(expr, &schema)?;
        Ok(meant.update_data(|expr| name.restore(expr)))
    })?
    .transform_data(|node| match node {
        LogicalPlan::Sort(mut sort) if is_sort => {
            let schema = Arc::clone(sort.input.schema());
            sort.expr = sort.expr.into_iter().map(|key| sort_key(key, &schema)).collect::<Result<_>>()?;
            Ok(Transformed::yes(LogicalPlan::Sort(sort)))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// What takes the place of `expr` over rows of `schema`.
pub(crate) fn meaning_of(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| {
        #[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: what is not named here means what it should")]
        match part {
            Expr::BinaryExpr(binary) => operator(binary, schema),
            Expr::Between(between) if is_interval(&between.expr, schema) => {
                let Between { expr, negated, low, high } = between;
                let [expr, low, high] = [expr, low, high].map(|side| Box::new(wrap(&LENGTH, *side)));
                Ok(changed(Expr::Between(Between { expr, negated, low, high })))
            }
            Expr::InList(list) if is_interval(&list.expr, schema) => {
                let InList { expr, list, negated } = list;
                let list = list.into_iter().map(|item| wrap(&LENGTH, item)).collect();
                Ok(changed(Expr::InList(InList { expr: Box::new(wrap(&LENGTH, *expr)), list, negated })))
            }
            Expr::Like(Like { negated, expr, pattern, escape_char: Some(escape), case_insensitive }) if escape != '\\' => {
                let pattern = Box::new(PATTERN.call(vec![*pattern, lit(escape.to_string())]));
                Ok(changed(Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive })))
            }
            Expr::ScalarFunction(call) => Ok(scalar(call, schema)),
            Expr::AggregateFunction(call) => aggregate(call, schema),
            Expr::WindowFunction(mut window) => {
                let params = &mut window.params;
                let keys = std::mem::take(&mut params.order_by);
                params.order_by = keys.into_iter().map(|key| sort_key(key, schema)).collect::<Result<_>>()?;
                let keys = std::mem::take(&mut params.partition_by);
                params.partition_by = keys.into_iter().map(|key| comparable(key, schema)).collect::<Result<_>>()?;
                Ok(changed(Expr::WindowFunction(window)))
            }
            other => Ok(Transformed::no(other)),
        }
    })
}

fn changed(expr: Expr) -> Transformed<Expr> {
    Transformed::yes(expr)
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_)))
}

fn operator(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // Asking for the types of long conditions takes time, and nothing is wrong with AND and OR.
    if binary.op.is_logic_operator() {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    }
    let (Ok(left), Ok(right)) = (binary.left.get_type(schema), binary.right.get_type(schema)) else {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    };
    let BinaryExpr { left: left_side, op, right: right_side } = binary;
    if let Some(function) = arithmetic::replacement(op, &left, &right) {
        return Ok(changed(function.call(vec![*left_side, *right_side])));
    }
    let is_span = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    if op.supports_propagation() && (is_span(&left) && is_span(&right)) {
        let [left, right] = [left_side, right_side].map(|side| Box::new(wrap(&LENGTH, *side)));
        return Ok(changed(Expr::BinaryExpr(BinaryExpr::new(left, op, right))));
    }
    Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left_side, op, right_side))))
}

fn scalar(call: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let name = call.func.name().to_owned();
    // Made by an earlier analysis: one is enough.
    if name == NAN.name() && call.args.first().is_some_and(|arg| is_call(arg, &NAN)) {
        let inner = call.args.into_iter().next();
        return inner.map_or_else(|| Transformed::no(lit(0)), changed);
    }
    let expr = Expr::ScalarFunction(call);
    let is_float = expr.get_type(schema).is_ok_and(|data_type| data_type.is_floating());
    if is_float && MAY_BE_NAN.contains(&name.as_str()) { changed(NAN.call(vec![expr])) } else { Transformed::no(expr) }
}

fn aggregate(mut call: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let keys = std::mem::take(&mut call.params.order_by);
    call.params.order_by = keys.into_iter().map(|key| sort_key(key, schema)).collect::<Result<_>>()?;
    // Told apart by their bits otherwise.
    if call.params.distinct {
        let args = std::mem::take(&mut call.params.args);
        call.params.args = args.into_iter().map(|arg| distinct_key(arg, schema)).collect();
    }
    // It has no hash for floats, and finds that out in the task only. Equal numbers have equal texts.
    if call.func.name() == "approx_distinct" {
        let args = std::mem::take(&mut call.params.args);
        let as_text = |arg: Expr| {
            let is_float = arg.get_type(schema).is_ok_and(|data_type| data_type.is_floating());
            if is_float { cast(wrap(&SORT_KEY, arg), DataType::Utf8) } else { arg }
        };
        call.params.args = args.into_iter().map(as_text).collect();
    }
    Ok(changed(Expr::AggregateFunction(call)))
}

/// Intervals stay what they are, because their values may be wanted.
fn distinct_key(arg: Expr, schema: &DFSchema) -> Expr {
    let is_float = arg.get_type(schema).is_ok_and(|data_type| data_type.is_floating());
    if is_float { wrap(&SORT_KEY, arg) } else { arg }
}

fn sort_key(key: Sort, schema: &DFSchema) -> Result<Sort> {
    Ok(Sort { expr: comparable(key.expr, schema)?, ..key })
}

/// `expr` as it is to be sorted and kept apart by.
fn comparable(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if matches!(expr, Expr::Literal(..)) {
        return Ok(expr);
    }
    Ok(match expr.get_type(schema) {
        Ok(DataType::Float32 | DataType::Float64) => wrap(&SORT_KEY, expr),
        Ok(DataType::Interval(_)) => wrap(&LENGTH, expr),
        _ => expr,
    })
}
