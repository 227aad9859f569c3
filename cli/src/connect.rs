//! Reaching a scheduler, and what to say when that fails: every hint fits the failure that it follows.

use rask::{Client, ConnectError, ConnectOptions};

use crate::arguments::ConnectArguments;
use crate::exit::Failure;
use crate::settings::Settings;

/// A client of the scheduler that the arguments name.
///
/// # Errors
/// When it cannot be reached or refuses, with code 3; when what names it is no address, with code 2.
pub(crate) async fn connect(arguments: &ConnectArguments, settings: &Settings) -> Result<Client, Failure> {
    let scheduler = settings.scheduler(arguments.scheduler.as_ref());
    let options = ConnectOptions {
        scheduler: scheduler.clone(),
        state_dir: settings.state_dir.clone(),
        token: settings.token(arguments.token_file.as_ref())?,
        registry: rask::registry(),
        weight: 1.0,
    };
    Client::connect(options).await.map_err(|error| failure(&error, &scheduler))
}

fn failure(error: &ConnectError, scheduler: &str) -> Failure {
    let unreachable = || Failure::unreachable(format!("cannot reach a scheduler at {scheduler}: {error}"));
    match error {
        ConnectError::Address { reason, .. } => no_such_scheduler(scheduler, reason),
        ConnectError::Identity(why) => hinted(unreachable(), join_hint(why)),
        ConnectError::Connection(why) => hinted(unreachable(), connection_hint(why, scheduler)),
        ConnectError::System(_) => Failure::failed(error.to_string()),
    }
}

fn hinted(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// What names the scheduler names nothing.
pub(crate) fn no_such_scheduler(scheduler: &str, reason: &str) -> Failure {
    Failure::misuse(format!("cannot find the scheduler \"{scheduler}\": {reason}"))
        .with_hint("it is named as HOST:PORT, such as 127.0.0.1:8786 or head.example.org:8786")
}

/// What to do about a node that is not let in.
pub(crate) fn join_hint(error: &rask_comm::JoinError) -> Option<String> {
    use rask_comm::JoinError as Error;
    match error {
        Error::Connect(error) => connection_hint(error, ""),
        Error::Token(_) => Some("a token is one line, as `rask token create` prints it".to_owned()),
        Error::WrongRole { wanted, .. } => Some(format!("on the scheduler's host: rask token create --role {wanted}")),
        Error::Refused { .. } => Some("on the scheduler's host: rask token create makes a new one".to_owned()),
        // It says what to do itself.
        Error::NoProof { .. } => None,
        Error::Authority(_) => Some("RASK_STATE_DIR, or --state-dir, names the directory of the scheduler's user".to_owned()),
        Error::CutShort(_) | Error::Identity(_) | Error::Bind(_) => None,
    }
}

/// What to do about a scheduler that cannot be reached.
fn connection_hint(error: &rask_comm::ConnectError, scheduler: &str) -> Option<String> {
    use rask_comm::ConnectError as Error;
    match error {
        Error::Nobody { .. } | Error::Unreachable { .. } if !scheduler.is_empty() => {
            Some(format!("start one with: rask scheduler --listen {scheduler}"))
        }
        Error::Nobody { .. } | Error::Unreachable { .. } => Some("is the scheduler running, and is this its address?".to_owned()),
        Error::CertificateRefused { reason, .. } | Error::OwnCertificateRefused { reason, .. } => Some(if is_of_time(reason) {
            "compare the clocks of both hosts; a scheduler that has run for longer than its certificate has to be restarted"
                .to_owned()
        } else {
            "another user's or another cluster's scheduler is there: use its RASK_STATE_DIR, or a token of it".to_owned()
        }),
        Error::WrongPeer { .. } | Error::WrongPlane { .. } => {
            Some("that is another part of a cluster; `rask scheduler` printed the scheduler's address when it started".to_owned())
        }
        Error::Version { .. } => Some("install the same version of rask on both hosts".to_owned()),
        Error::RoleRefused { .. } => Some("a token of another role may do it: rask token create --role ROLE".to_owned()),
        Error::Ended { .. } | Error::Local { .. } => None,
    }
}

/// Whether a certificate was refused for its dates.
fn is_of_time(reason: &str) -> bool {
    reason.contains("date") || reason.contains("expired") || reason.contains("not valid yet")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hint(error: rask_comm::ConnectError) -> String {
        failure(&ConnectError::Connection(error), "head:1").hint.unwrap_or_default()
    }

    #[test]
    fn hints_fit_what_has_happened() {
        use rask_comm::ConnectError as Error;
        let address = ([127, 0, 0, 1], 1).into();
        let start = "rask scheduler --listen head:1";
        assert!(hint(Error::Nobody { address }).contains(start));
        assert!(hint(Error::Unreachable { address, waited: Duration::ZERO }).contains(start));
        let others = [
            (Error::CertificateRefused { address, reason: "out of date".to_owned() }, "clocks"),
            (Error::CertificateRefused { address, reason: "signed by another cluster's authority".to_owned() }, "RASK_STATE_DIR"),
            (Error::Version { address, reason: "7".to_owned() }, "same version"),
            (Error::RoleRefused { address, reason: "no".to_owned() }, "token create"),
        ];
        for (error, words) in others {
            let hint = hint(error.clone());
            assert!(hint.contains(words) && !hint.contains(start), "{error}: {hint}");
        }
        let wrong = failure(&ConnectError::Address { scheduler: "x".to_owned(), reason: "no port".to_owned() }, "x");
        assert_eq!(wrong.exit, crate::exit::Exit::Misuse);
    }
}
