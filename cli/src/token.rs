//! `rask token`: what lets other hosts into the cluster, made, listed and taken back on the scheduler's host.

use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};
use rask_comm::{Authority, AuthorityError, CreateTokenError, Role, TokenId, TokenRecord, TokenStore};
use serde_json::{Value as Json, json};

use crate::arguments::{CreateTokenArguments, TokenArguments, TokenCommand, TokenRole};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use crate::terminal::{escape, print_to_stdout};

/// `rask token`
pub(crate) fn run(arguments: &TokenArguments, settings: &Settings) -> anyhow::Result<Exit> {
    // Only a scheduler makes an authority. A token of another one would let nobody in anywhere.
    let authority = Authority::open(&settings.state_dir).map_err(|error| state_failure(&error))?;
    let store = TokenStore::of(&settings.state_dir);
    match &arguments.command {
        TokenCommand::Create(arguments) => create(arguments, &authority, &store),
        TokenCommand::List(arguments) => list(&store, arguments.json),
        TokenCommand::Revoke(arguments) => revoke(&store, &arguments.id),
    }
}

fn state_failure(error: &AuthorityError) -> Failure {
    let failure = Failure::failed(format!("cannot use this cluster's tokens: {error}"));
    match error {
        AuthorityError::Missing(_) => failure.with_hint(
            "tokens are made by the scheduler's user on the scheduler's host; RASK_STATE_DIR, or --state-dir, must be the scheduler's",
        ),
        AuthorityError::Foreign { .. } => failure.with_hint("tokens are made by the scheduler's user on the scheduler's host"),
        AuthorityError::File { .. }
        | AuthorityError::Exposed { .. }
        | AuthorityError::Unexpected { .. }
        | AuthorityError::Nowhere
        | AuthorityError::Unreadable { .. }
        | AuthorityError::Making(_) => failure,
    }
}

fn create(arguments: &CreateTokenArguments, authority: &Authority, store: &TokenStore) -> anyhow::Result<Exit> {
    let role = match arguments.role {
        TokenRole::Worker => Role::Worker,
        TokenRole::Client => Role::Client,
        TokenRole::Viewer => Role::Viewer,
        TokenRole::Admin => Role::Admin,
    };
    let token = store.create(authority, role, arguments.name.as_deref(), arguments.ttl, arguments.uses);
    let token = token.map_err(|error| match error {
        CreateTokenError::Name(error) => Failure::misuse(format!("cannot make a token: {error}")),
        CreateTokenError::State(error) => state_failure(&error),
    })?;
    print_to_stdout(&token.to_string())?;
    Ok(Exit::Done)
}

fn list(store: &TokenStore, is_json: bool) -> anyhow::Result<Exit> {
    let mut tokens = store.list().map_err(|error| state_failure(&error))?;
    tokens.sort_by_key(|(id, record)| (record.expires, *id));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = if is_json {
        json!({ "tokens": tokens.iter().map(|(id, record)| to_json(id, record)).collect::<Vec<Json>>() }).to_string()
    } else if tokens.is_empty() {
        "no tokens".to_owned()
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["id", "role", "name", "uses left", "ends"]);
        for (id, record) in &tokens {
            table.add_row([
                id.to_string(),
                record.role.to_string(),
                escape(record.name.as_deref().unwrap_or("-")),
                record.n_uses_left.map_or_else(|| "any".to_owned(), |n_left| n_left.to_string()),
                end_text(record, now),
            ]);
        }
        table.to_string()
    };
    print_to_stdout(&text)?;
    Ok(Exit::Done)
}

fn end_text(record: &TokenRecord, now: u64) -> String {
    let text = |seconds: u64| {
        // Two units are enough: nobody plans by the second a week ahead.
        let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    };
    match (record.revoked, record.expires.checked_sub(now)) {
        (Some(at), _) => format!("revoked {} ago", text(now.saturating_sub(at))),
        (None, Some(left)) => format!("in {}", text(left)),
        (None, None) => format!("ended {} ago", text(now - record.expires)),
    }
}

fn to_json(id: &TokenId, record: &TokenRecord) -> Json {
    json!({
        "id": id.to_string(), "role": record.role.as_str(), "name": record.name, "n_uses_left": record.n_uses_left,
        "expires": record.expires, "revoked": record.revoked,
    })
}

fn revoke(store: &TokenStore, id: &TokenId) -> anyhow::Result<Exit> {
    if !store.revoke(id).map_err(|error| state_failure(&error))? {
        return Err(Failure::failed(format!("there is no token {id}")).with_hint("rask token list shows them").into());
    }
    print_to_stdout(&format!("revoked {id}: the scheduler lets go of nodes that joined by it within 15 s"))?;
    Ok(Exit::Done)
}
