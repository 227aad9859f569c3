//! Logs: to standard error, filtered by `--log`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;
use crate::settings::Settings;

const QUIET: &str = "warn,quinn=error,quinn_proto=error,rustls=error";

/// Begin to log. Without `--log` only warnings are shown, and of daemons also what comes and goes: graphs and workers.
///
/// # Errors
/// When the filter cannot be understood.
pub(crate) fn start(settings: &Settings, is_daemon: bool) -> Result<(), Failure> {
    let filter = match settings.log.as_deref() {
        None if is_daemon => EnvFilter::new(format!("{QUIET},rask_scheduler=info,rask_worker=info,rask_comm=info")),
        None => EnvFilter::new(QUIET),
        Some(text) => parse(text)?,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    Ok(())
}

fn parse(text: &str) -> Result<EnvFilter, Failure> {
    let wrong = |reason: String| {
        Failure::misuse(format!("cannot understand --log {text}: {reason}"))
            .with_hint("levels are error, warn, info, debug and trace; filters look like info,rask_scheduler=debug")
    };
    // A word that is no level would be taken for the name of a module, and silence everything.
    let is_level = matches!(text, "off" | "error" | "warn" | "info" | "debug" | "trace");
    if !is_level && !text.contains('=') {
        return Err(wrong("no such level".to_owned()));
    }
    EnvFilter::try_new(text).map_err(|error| wrong(error.to_string()))
}
