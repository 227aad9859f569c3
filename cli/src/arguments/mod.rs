//! The command line as data: commands, flags, and the help a person learns them from.
//!
//! Flags win over `RASK_*` variables, variables over the configuration file; a flag that the file may also set is an
//! `Option` here and gets its default where it is used. Nothing is computed here.

mod cluster;
#[cfg(feature = "collections")]
mod files;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use cluster::{CancelArguments, ConnectArguments, SchedulerArguments, StatusArguments, TokenArguments, TokenCommand};
pub(crate) use cluster::{CreateTokenArguments, Handover, TokenRole, WaitArguments, WorkerArguments};
#[cfg(feature = "collections")]
pub(crate) use files::{
    CheckArguments, FetchArguments, FileArguments, GraphArguments, OperatorsArguments, RunArguments, SubmitArguments,
};
pub(crate) use values::{parse_duration, parse_nbytes};

use crate::bench::BenchArgs;

const AFTER_HELP: &str = "\
Begin with a graph file on this machine:
  rask check graphs/examples/flights.toml
  rask run graphs/examples/flights.toml

The same file on a cluster, each line in a terminal of its own:
  rask scheduler --listen 127.0.0.1:8786
  rask worker --scheduler 127.0.0.1:8786 --threads 2 --memory 2GiB
  rask submit graphs/examples/flights.toml --scheduler 127.0.0.1:8786

Exit codes: 0 done, 1 the work failed, 2 a mistake in a file or an argument, 3 no scheduler reached, 130 interrupted.
Every value can also come from a RASK_* variable or from ~/.config/rask/rask.toml.";

/// Compute graphs of tasks over tables and arrays, here or on a cluster
#[derive(Parser)]
#[command(name = "rask", version, after_help = AFTER_HELP, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// What is valid for all commands
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is valid for all commands.
#[derive(Debug, Args)]
pub(crate) struct GlobalArguments {
    /// How much to log to standard error: error, warn, info, debug, trace, or a filter such as rask_scheduler=debug
    #[arg(long, global = true, env = "RASK_LOG", value_name = "LEVEL", help_heading = "Global options")]
    pub(crate) log: Option<String>,
    /// Configuration file [default: ~/.config/rask/rask.toml, if there is one]
    #[arg(long, global = true, env = "RASK_CONFIG", value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the cluster's certificates [default: ~/.local/state/rask]; who can read it may use the cluster
    #[arg(long, global = true, env = "RASK_STATE_DIR", value_name = "DIR", help_heading = "Global options")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "collections")]
    /// Compute a graph file in this process, or on a cluster of processes made for it
    Run(RunArguments),
    #[cfg(feature = "collections")]
    /// Compute a graph file on a running cluster
    Submit(SubmitArguments),
    /// Show a cluster's workers and graphs
    Status(StatusArguments),
    /// Wait until a graph that was left running has ended, and say what became of it
    Wait(WaitArguments),
    #[cfg(feature = "collections")]
    /// Wait for a graph that was left running, and print its outputs
    Fetch(FetchArguments),
    /// Stop a graph on a cluster and drop its results
    Cancel(CancelArguments),
    /// Start a scheduler: the process that workers and clients connect to
    Scheduler(SchedulerArguments),
    /// Start a worker: a process that runs tasks and holds their results
    Worker(WorkerArguments),
    /// Manage tokens, which let other hosts join a cluster
    Token(TokenArguments),
    #[cfg(feature = "collections")]
    /// Look for mistakes in a graph file and say what would run, without running it
    Check(CheckArguments),
    #[cfg(feature = "collections")]
    /// List the operators that tasks can use, or describe one
    Ops(OperatorsArguments),
    #[cfg(feature = "collections")]
    /// Print the JSON Schema of graph files, for editors
    Schema,
    #[cfg(feature = "collections")]
    /// Draw the tasks of a graph file, as DOT text or as an SVG image
    Graph(GraphArguments),
    /// Measure this machine
    Bench(BenchArgs),
}
