//! The one DataFusion configuration of the process: which functions exist, how identifiers are read, how plans run.
//!
//! Client and workers must agree on it, since plans name functions and carry no definitions.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;

static BASE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new()
        // Inside a task there is one thread: the scheduler's other tasks are the parallelism.
        .with_target_partitions(1)
        .with_batch_size(8192)
        .with_information_schema(false);
    // Positions in error messages.
    config.options_mut().sql_parser.collect_spans = true;
    SessionStateBuilder::new().with_config(config).with_default_features().build()
});

/// A session with all functions and no tables, whose clock (`now()`) has been read.
pub(crate) fn fresh() -> SessionState {
    // A catalog of its own: tables of one query are none of another's business.
    let config = BASE.config().clone().with_create_default_catalog_and_schema(true);
    let mut state = SessionStateBuilder::new_from_existing(BASE.clone())
        .with_config(config)
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .build();
    state.mark_start_execution();
    state
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
