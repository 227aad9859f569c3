//! Deep plans in pieces: the reader of messages allows a hundred levels in one, which fifteen table expressions on top of
//! each other use up. A plan that is deeper travels as several, from the bottom, and a piece stands for each within the next.

use std::fmt;

use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

/// Steps that lie above one another in one piece. Each takes two levels of a message; the rest is for expressions.
const N_STEPS: usize = 16;

/// Stands for the piece of this number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) number: u32,
    schema: DFSchemaRef,
}

impl Piece {
    /// In the place of `plan`, as a step.
    pub(super) fn of(number: u32, plan: &LogicalPlan) -> Extension {
        Extension { node: std::sync::Arc::new(Self { number, schema: std::sync::Arc::clone(plan.schema()) }) }
    }

    /// The piece that a step is.
    pub(super) fn from_step(step: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(Extension { node }) = step else { return None };
        node.as_any().downcast_ref()
    }
}

impl PartialOrd for Piece {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Piece {
    fn name(&self) -> &str {
        "Piece"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece {}", self.number)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// `plan` in pieces, the last of which is its top. A shallow one is a single piece.
pub(super) fn take_apart(plan: LogicalPlan) -> Result<Vec<LogicalPlan>> {
    let mut pieces = Vec::new();
    let (top, _) = cut(plan, &mut pieces)?;
    pieces.push(top);
    Ok(pieces)
}

/// The plan with pieces in place of what lies deep, and how many steps are above one another in the rest.
fn cut(plan: LogicalPlan, pieces: &mut Vec<LogicalPlan>) -> Result<(LogicalPlan, usize)> {
    let mut height = 0;
    let plan = plan.map_children(|child| {
        let (child, below) = cut(child, pieces)?;
        if below < N_STEPS {
            height = height.max(below);
            return Ok(Transformed::yes(child));
        }
        height = height.max(1);
        let piece = Piece::of(u32::try_from(pieces.len()).unwrap_or(u32::MAX), &child);
        pieces.push(child);
        Ok(Transformed::yes(LogicalPlan::Extension(piece)))
    })?;
    Ok((plan.data, height + 1))
}

/// `plan` with `pieces` in their places.
pub(super) fn put_together(plan: LogicalPlan, pieces: &[LogicalPlan]) -> Result<LogicalPlan> {
    let whole = plan.transform_up_with_subqueries(|step| {
        let piece = Piece::from_step(&step).and_then(|piece| pieces.get(piece.number as usize)).cloned();
        Ok(piece.map_or_else(|| Transformed::no(step), Transformed::yes))
    })?;
    Ok(whole.data)
}
