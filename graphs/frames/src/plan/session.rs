//! The one DataFusion configuration of the process: which functions exist, how identifiers are read, how plans run.
//!
//! Client and workers must agree on it, since plans name functions and carry no definitions.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::DFSchema;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::prelude::SessionConfig;

use super::bounds::{Sizes, Watched};
use super::{meaning, room, table_functions};

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
    let rules =
        Optimizer::new().rules.into_iter().map(|rule| -> Arc<dyn OptimizerRule + Send + Sync> { Arc::new(Watched(rule)) });
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(rules.collect())
        .with_runtime_env(Arc::clone(&NOWHERE));
    // They fail for a session whose functions cannot be replaced, which this is not.
    let mut state = meaning::install(builder).unwrap_or_else(|error| panic!("no rules for queries: {error}"));
    // Plans compute over tables at hand: there is nothing to make tables of files with.
    state.table_factories_mut().clear();
    room::install(&mut state).unwrap_or_else(|error| panic!("no functions for queries: {error}"));
    table_functions::install(state)
});

/// Where plans run: no store of files or objects, whatever a plan may name, and no files on disk.
static NOWHERE: LazyLock<Arc<RuntimeEnv>> = LazyLock::new(|| {
    let stores = DefaultObjectStoreRegistry::new();
    // It comes with the local files.
    let _ = stores.deregister_store(ObjectStoreUrl::local_filesystem().as_ref());
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let builder = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(stores)).with_disk_manager_builder(disk);
    // It fails only when it cannot make its directory on disk, and it has none.
    builder.build_arc().unwrap_or_else(|error| panic!("no environment for queries: {error}"))
});

/// As [`fresh`], for running a plan that may take `memory` bytes besides its tables.
pub(crate) fn within(memory: Option<u64>) -> Result<SessionState> {
    let state = fresh();
    let Some(limit) = memory else { return Ok(state) };
    let pool = GreedyMemoryPool::new(usize::try_from(limit).unwrap_or(usize::MAX));
    let env = RuntimeEnvBuilder::from_runtime_env(&NOWHERE).with_memory_pool(Arc::new(pool)).build_arc()?;
    Ok(SessionStateBuilder::new_from_existing(state).with_runtime_env(env).build())
}

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
    let analysed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    // A test that is spelled out names its subquery twice.
    Sizes::default().check(&analysed)?;
    Ok(analysed)
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
