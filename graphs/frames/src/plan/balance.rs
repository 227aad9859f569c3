//! Long chains of AND and OR put in balance.
//!
//! The parser makes a tree as deep as a chain is long, and planners look at all of it again from every level. In balance
//! the same chain is as deep as its length's logarithm. AND and OR are associative, also with nulls, so the answer is the
//! same; and operands keep their order.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, VisitMut, VisitorMut};

/// Operands that stay in one chain.
const MAX_IN_CHAIN: usize = 16;

/// Put all chains of `query` in balance.
pub(super) fn balance(query: &mut impl VisitMut) {
    let _: ControlFlow<()> = query.visit(&mut Balance);
}

struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    /// From the top, so that what is visited next is shallow.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. } = expr else { return ControlFlow::Continue(()) };
        if is_long(expr) {
            let (op, operands) = taken_apart(std::mem::replace(expr, nothing()));
            *expr = in_balance(&op, operands);
        }
        ControlFlow::Continue(())
    }
}

fn nothing() -> Expr {
    Expr::Value(Value::Null.into())
}

/// Whether the chain that ends in `expr` has more operands than stay in one.
fn is_long(mut expr: &Expr) -> bool {
    let Expr::BinaryOp { op: top, .. } = expr else { return false };
    for _ in 0..MAX_IN_CHAIN {
        let Expr::BinaryOp { left, op, .. } = expr else { return false };
        if op != top {
            return false;
        }
        expr = left;
    }
    true
}

/// The operands of a chain in order.
fn taken_apart(mut expr: Expr) -> (BinaryOperator, Vec<Expr>) {
    let mut chain = BinaryOperator::And;
    let mut operands = Vec::new();
    while let Expr::BinaryOp { op, .. } = &expr {
        if !operands.is_empty() && *op != chain {
            break;
        }
        if let Expr::BinaryOp { left, op, right } = std::mem::replace(&mut expr, nothing()) {
            chain = op;
            operands.push(*right);
            expr = *left;
        }
    }
    operands.push(expr);
    operands.reverse();
    (chain, operands)
}

fn in_balance(op: &BinaryOperator, mut operands: Vec<Expr>) -> Expr {
    if operands.len() > MAX_IN_CHAIN {
        let right = operands.split_off(operands.len() / 2);
        let (left, right) = (Box::new(in_balance(op, operands)), Box::new(in_balance(op, right)));
        return Expr::BinaryOp { left, op: op.clone(), right };
    }
    let joined = operands.into_iter().reduce(|left, right| {
        let (left, right) = (Box::new(left), Box::new(right));
        Expr::BinaryOp { left, op: op.clone(), right }
    });
    joined.unwrap_or_else(nothing)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::visit_expressions;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn depth(expr: &Expr) -> usize {
        if let Expr::BinaryOp { left, right, .. } = expr { 1 + depth(left).max(depth(right)) } else { 1 }
    }

    #[test]
    fn chains_are_balanced_and_keep_their_order() {
        for (op, n) in [("OR", 1_000), ("AND", 17), ("AND", 16), ("AND", 1)] {
            let operands: Vec<String> = (0..n).map(|idx| format!("x{idx} = 1 + 2 + 3")).collect();
            let text = operands.join(&format!(" {op} "));
            let mut expr = Parser::new(&GenericDialect {}).try_with_sql(&text).unwrap().parse_expr().unwrap();
            balance(&mut expr);
            assert!(depth(&expr) <= 30, "{n}: {}", depth(&expr));
            let mut names = Vec::new();
            let _: ControlFlow<()> = visit_expressions(&expr, |expr| {
                if let Expr::Identifier(name) = expr {
                    names.push(name.value.clone());
                }
                ControlFlow::Continue(())
            });
            assert_eq!(names, (0..n).map(|idx| format!("x{idx}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn and_and_or_stay_apart() {
        let text = (0..40).map(|idx| format!("a{idx} AND b{idx}")).collect::<Vec<_>>().join(" OR ");
        let mut expr = Parser::new(&GenericDialect {}).try_with_sql(&text).unwrap().parse_expr().unwrap();
        balance(&mut expr);
        // Shown without brackets, so it must read as before.
        assert_eq!(expr.to_string(), text);
        assert!(depth(&expr) < 24);
    }
}
