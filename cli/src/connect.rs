//! Reaching a scheduler, and what to say when that fails.

use rask::{Client, ConnectOptions};

use crate::arguments::ConnectArguments;
use crate::exit::Failure;
use crate::settings::Settings;

/// A client of the scheduler that the arguments name.
///
/// # Errors
/// When it cannot be reached or refuses, with code 3.
pub(crate) async fn connect(arguments: &ConnectArguments, settings: &Settings) -> Result<Client, Failure> {
    let scheduler = settings.scheduler(arguments.scheduler.as_ref());
    let options = ConnectOptions {
        scheduler: scheduler.clone(),
        state_dir: settings.state_dir.clone(),
        token: settings.token(arguments.token_file.as_ref())?,
        registry: rask::registry(),
        weight: 1.0,
    };
    Client::connect(options).await.map_err(|error| {
        Failure::unreachable(format!("cannot reach a scheduler at {scheduler}: {error}"))
            .with_hint(format!("start one with: rask scheduler --listen {scheduler}"))
    })
}
