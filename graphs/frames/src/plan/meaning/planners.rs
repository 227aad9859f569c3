//! What is decided while SQL is read, because it decides the types of columns: `TIMESTAMP`, and dates plus hours.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, TimezoneInfo};

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// `TIMESTAMP` without a precision is in microseconds, as in PostgreSQL and DuckDB: nanoseconds end in 2262.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let is_plain = matches!(
            sql_type,
            ast::DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | ast::DataType::Datetime(None)
        );
        Ok(is_plain.then(|| Arc::new(Field::new("", TIMESTAMP, true))))
    }
}

/// A date plus an interval with hours in it is a timestamp; plus days, months and years it stays a date.
#[derive(Debug)]
pub(super) struct Dates;

impl ExprPlanner for Dates {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's enum: only these two add intervals")]
        let op = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_date = |data_type: &DataType| matches!(data_type, DataType::Date32 | DataType::Date64);
        let is_span = |data_type: &DataType| matches!(data_type, DataType::Interval(_) | DataType::Duration(_));
        let (left, right) = if is_date(&left) && is_span(&right) && has_time(&expr.right) {
            (cast(expr.left, TIMESTAMP), expr.right)
        } else if is_span(&left) && is_date(&right) && op == Operator::Plus && has_time(&expr.left) {
            (expr.left, cast(expr.right, TIMESTAMP))
        } else {
            return Ok(PlannerResult::Original(expr));
        };
        Ok(PlannerResult::Planned(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
    }
}

/// Whether an interval may have hours, minutes or seconds in it: known only of what is written out.
#[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: what is not written out may have hours")]
fn has_time(interval: &Expr) -> bool {
    let may = interval.exists(|part| {
        Ok(match part {
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => value.nanoseconds != 0,
            Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) => value.milliseconds != 0,
            Expr::Literal(..) | Expr::BinaryExpr(_) | Expr::Negative(_) => false,
            // A column, a cast of a text, a function: anything may be in there.
            _ => true,
        })
    });
    may.unwrap_or(true)
}
