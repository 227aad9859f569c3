//! The one DataFusion configuration of the process: which functions exist, how identifiers are read, how plans run.
//!
//! Client and workers must agree on it, since plans name functions and carry no definitions.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionConfig;

use super::{meaning, table_functions};

static BASE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new()
        // Inside a task there is one thread: the scheduler's other tasks are the parallelism.
        .with_target_partitions(1)
        .with_batch_size(8192)
        .with_information_schema(false);
    // Positions in error messages.
    config.options_mut().sql_parser.collect_spans = true;
    // The two ways of telling whether a CASE can be null disagree, and the check takes that for a mistake.
    config.options_mut().execution.skip_physical_aggregate_schema_check = true;
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    // Only a function of a name that is refused could fail, and no name is.
    let state = meaning::install(builder).expect("the rules of SQL are installed");
    table_functions::install(state)
});

/// A session with all functions and no tables, whose clock (`now()`) has been read.
pub(crate) fn fresh() -> SessionState {
    let mut state = timeless();
    state.mark_start_execution();
    state
}

/// The same with the clock at `now`.
pub(crate) fn at(now: &Now) -> SessionState {
    let mut state = fresh();
    state.execution_props_mut().query_execution_start_time = now.0.query_execution_start_time;
    state
}

/// A reading of the clock, for all queries of a graph.
pub(crate) struct Now(ExecutionProps);

impl Now {
    /// The time at this moment.
    pub(crate) fn read() -> Self {
        Self(fresh().execution_props().clone())
    }
}

fn timeless() -> SessionState {
    // A catalog of its own: tables of one query are none of another's business.
    let config = BASE.config().clone().with_create_default_catalog_and_schema(true);
    SessionStateBuilder::new_from_existing(BASE.clone())
        .with_config(config)
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .build()
}

/// `plan` with types coerced and everything in it meaning what it should.
pub(crate) fn analyse(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}

/// A condition on rows of `schema` as [`analyse`] has it.
#[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: a filter stays a filter")]
pub(crate) fn analyse_condition(state: &SessionState, condition: Expr, schema: &DFSchema) -> Result<Expr> {
    let rows = EmptyRelation { produce_one_row: false, schema: Arc::new(schema.clone()) };
    let plan = LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(rows)).filter(condition)?.build()?;
    match analyse(state, plan)? {
        LogicalPlan::Filter(filter) => Ok(filter.predicate),
        other => Err(DataFusionError::Internal(format!("a condition became {}", other.display()))),
    }
}

/// The result of a future that has nothing to wait for. DataFusion's planning is asynchronous for the sake of catalogs
/// over the network; with tables in memory it never waits, and so needs no runtime (the caller may be inside of one).
pub(crate) fn at_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(DataFusionError::Internal("planning waits for something".to_owned())),
    }
}
