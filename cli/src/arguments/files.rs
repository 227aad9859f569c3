//! Arguments of the commands that read a graph file.

use std::path::PathBuf;

use clap::Args;

use super::ConnectArguments;
use super::values::{parse_graph_id, parse_nbytes, parse_setting};

/// A graph file and its parameters.
#[derive(Debug, Args)]
pub(crate) struct FileArguments {
    /// Graph file: TOML, or JSON by its extension; `-` reads JSON from standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Give parameter NAME of the file another value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub(crate) settings: Vec<(String, String)>,
}

/// `rask run`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rask run flights.toml
  rask run arrays.toml --set n=2000 --workers 4 --threads 1
  rask run arrays.toml --processes --workers 2 --memory 1GiB
  rask run flights.toml --json | jq '.outputs.delays.rows[0]'")]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) file: FileArguments,
    /// Number of workers [default: 1]
    #[arg(long, env = "RASK_WORKERS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// Tasks that a worker runs at once [default: the processors of this machine, shared by the workers]
    #[arg(long, env = "RASK_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// Memory for results in each worker, such as 2GiB [default: the machine's memory, shared by the workers]
    #[arg(long, env = "RASK_MEMORY", value_name = "SIZE", value_parser = parse_nbytes)]
    pub(crate) memory: Option<u64>,
    /// Make scheduler and workers processes of their own that talk over QUIC, as on a cluster
    #[arg(long)]
    pub(crate) processes: bool,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask submit`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rask submit flights.toml --scheduler 10.0.0.5:8786
  rask submit nightly.toml --detach
  rask status

Files are read and written by workers: paths must mean the same on their hosts.")]
pub(crate) struct SubmitArguments {
    #[command(flatten)]
    pub(crate) file: FileArguments,
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Wait for the results and print them; this is the default
    #[arg(long, conflicts_with = "detach")]
    pub(crate) wait: bool,
    /// Print the graph's id and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Run this graph before (higher) or after (lower) the other graphs of this client
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask fetch`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rask submit nightly.toml --set day=5 --detach
  rask fetch g7 nightly.toml --set day=5 --json

The file, and what is set in it, have to be those that were submitted: they say what the results mean. Results stay on the
workers until the graph is cancelled: rask cancel g7.")]
pub(crate) struct FetchArguments {
    /// The graph's id, as `rask submit --detach` and `rask status` print it
    #[arg(value_name = "GRAPH", value_parser = parse_graph_id)]
    pub(crate) graph: u32,
    #[command(flatten)]
    pub(crate) file: FileArguments,
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask check`
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) file: FileArguments,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask graph`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rask graph tasks.toml --svg tasks.svg
  rask graph tasks.toml | dot -Tpdf > tasks.pdf")]
pub(crate) struct GraphArguments {
    #[command(flatten)]
    pub(crate) file: FileArguments,
    /// Write an SVG image to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write DOT text to this file; without --svg and --dot it goes to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) dot: Option<PathBuf>,
}

/// `rask ops`
#[derive(Debug, Args)]
pub(crate) struct OperatorsArguments {
    /// An operator to describe, or the beginning of names to list
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}
