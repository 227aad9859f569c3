//! `rask token create`: what lets another host into the cluster.

use rask_comm::{Authority, Role, TokenStore};

use crate::arguments::{CreateTokenArguments, TokenArguments, TokenCommand, TokenRole};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use crate::terminal::print_to_stdout;

/// `rask token`
pub(crate) fn run(arguments: &TokenArguments, settings: &Settings) -> anyhow::Result<Exit> {
    match &arguments.command {
        TokenCommand::Create(arguments) => create(arguments, settings),
    }
}

fn create(arguments: &CreateTokenArguments, settings: &Settings) -> anyhow::Result<Exit> {
    let failed = |error: rask_comm::CreateTokenError| {
        let failure = Failure::failed(format!("cannot make a token: {error}"));
        match error {
            rask_comm::CreateTokenError::Name(_) => failure,
            rask_comm::CreateTokenError::State(_) => {
                failure.with_hint("tokens are made by the scheduler's user on the scheduler's host")
            }
        }
    };
    let authority = Authority::open_or_create(&settings.state_dir).map_err(|error| failed(error.into()))?;
    let store = TokenStore::of(&settings.state_dir);
    let role = match arguments.role {
        TokenRole::Worker => Role::Worker,
        TokenRole::Client => Role::Client,
        TokenRole::Viewer => Role::Viewer,
        TokenRole::Admin => Role::Admin,
    };
    let token = store.create(&authority, role, arguments.name.as_deref(), arguments.expires, arguments.uses).map_err(failed)?;
    print_to_stdout(&token.to_string())?;
    Ok(Exit::Done)
}
