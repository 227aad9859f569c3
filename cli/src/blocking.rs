//! A command that waits for the network, on the thread that called it.

use std::future::Future;

use crate::exit::Failure;

/// Run a command's future: on this thread, with timers and signals.
///
/// # Errors
/// Those of the future, or that the system refuses what a runtime needs.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}
