//! What SQL means here where DataFusion means something else: rules over analysed plans, and the functions they put in.
//!
//! Integers that do not fit are an error, not a wrapped number; NaN is the largest number and equal to itself, whatever its
//! bits; intervals are compared by their lengths; `NOT IN` and `IN` know three truth values. `docs/sql.md` has the list.
//! Every rule leaves alone what it made itself, because a frame's plan is analysed again as part of another's.

mod arithmetic;
mod exprs;
mod floats;
mod functions;
mod min_max;
mod planners;
mod subqueries;
mod sum;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};

pub(crate) use floats::canonical_batch;

/// A session in which SQL means what `docs/sql.md` says.
pub(crate) fn install(builder: SessionStateBuilder) -> Result<SessionState> {
    let mut state = builder.with_type_planner(Arc::new(planners::Types)).build();
    state.register_expr_planner(Arc::new(planners::Dates))?;
    for function in functions::all() {
        state.register_udf(function)?;
    }
    for function in [sum::checked_sum()].into_iter().chain(min_max::both()) {
        state.register_udaf(Arc::new(function))?;
    }
    state.add_analyzer_rule(Arc::new(subqueries::ThreeTruthValues));
    state.add_analyzer_rule(Arc::new(exprs::Meaning));
    Ok(state)
}
