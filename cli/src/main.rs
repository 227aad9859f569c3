//! The one `rask` binary: reads the command line, runs a command, and turns its end into an exit code.
//!
//! Commands live in files of their own. What they have in common (graph files, connections, failures, the terminal) is
//! here beside them; what graphs are and how they run is in the crates below.

mod allocator;
mod arguments;
mod attach;
mod bench;
mod blocking;
#[cfg(feature = "collections")]
mod check;
#[cfg(feature = "collections")]
mod compute;
mod configuration;
mod connect;
mod daemon;
mod data_roots;
#[cfg_attr(not(feature = "collections"), expect(dead_code, reason = "part of it is for the commands about graph files"))]
mod exit;
#[cfg(feature = "collections")]
mod files;
mod logging;
mod machine;
#[cfg(feature = "collections")]
mod operators;
#[cfg(feature = "collections")]
mod progress;
mod report;
#[cfg(feature = "collections")]
mod run;
mod settings;
mod status;
#[cfg(feature = "collections")]
mod submit;
mod terminal;
mod token;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use exit::{Exit, Failure};
use settings::Settings;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(exit) => exit.into(),
        Err(error) => report_error(&error).into(),
    }
}

fn execute(arguments: Arguments) -> anyhow::Result<Exit> {
    rask_worker::store::memory::when_short(allocator::give_back);
    rask_worker::store::memory::meter_with(rask_worker::store::memory::Meter {
        begin: allocator::begin_count,
        peak: allocator::peak,
    });
    let settings = Settings::load(&arguments.global)?;
    let is_daemon = matches!(arguments.command, Command::Scheduler(_) | Command::Worker(_));
    logging::start(&settings, is_daemon)?;
    match arguments.command {
        #[cfg(feature = "collections")]
        Command::Run(arguments) => run::run(&arguments, &settings),
        #[cfg(feature = "collections")]
        Command::Submit(arguments) => submit::run(&arguments, &settings),
        Command::Status(arguments) => status::run(&arguments, &settings),
        Command::Wait(arguments) => attach::wait(&arguments, &settings),
        #[cfg(feature = "collections")]
        Command::Fetch(arguments) => submit::fetch(&arguments, &settings),
        Command::Cancel(arguments) => status::cancel(&arguments, &settings),
        Command::Scheduler(arguments) => daemon::run_scheduler(&arguments, &settings),
        Command::Worker(arguments) => daemon::run_worker(&arguments, &settings),
        Command::Token(arguments) => token::run(&arguments, &settings),
        #[cfg(feature = "collections")]
        Command::Check(arguments) => check::run(&arguments),
        #[cfg(feature = "collections")]
        Command::Ops(arguments) => operators::run(&arguments),
        #[cfg(feature = "collections")]
        Command::Schema => operators::print_schema(),
        #[cfg(feature = "collections")]
        Command::Graph(arguments) => check::draw(&arguments),
        Command::Bench(arguments) => bench::run(arguments).map(|()| Exit::Done),
    }
}

fn report_error(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<Failure>() {
        Some(failure) => {
            terminal::print_failure(failure);
            failure.exit
        }
        None => {
            terminal::print_error(&format!("{error:#}"), None);
            Exit::Failed
        }
    }
}
