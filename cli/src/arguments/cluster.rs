//! Arguments of the commands that make a cluster or talk to one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rask_comm::TokenId;

use super::values::{parse_duration, parse_graph_id, parse_lifetime, parse_nbytes, parse_resource, parse_token_id};

/// How to reach a scheduler.
#[derive(Debug, Args)]
pub(crate) struct ConnectArguments {
    /// Address of the scheduler [default: 127.0.0.1:8786]
    #[arg(long, env = "RASK_SCHEDULER", value_name = "HOST:PORT")]
    pub(crate) scheduler: Option<String>,
    /// File with a join token; not needed by the scheduler's user on its own host. RASK_TOKEN may hold the token itself
    #[arg(long, env = "RASK_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// `rask status`
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask wait`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 when all of its outputs are done, 1 when one has failed, 3 when the scheduler cannot be reached."
)]
pub(crate) struct WaitArguments {
    /// The graph's id, as `rask submit --detach` and `rask status` print it
    #[arg(value_name = "GRAPH", value_parser = parse_graph_id)]
    pub(crate) graph: u32,
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask cancel`
#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// The graph's id, as `rask submit --detach` and `rask status` print it
    #[arg(value_name = "GRAPH", value_parser = parse_graph_id)]
    pub(crate) graph: u32,
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
}

/// `rask scheduler`
#[derive(Debug, Args)]
#[command(after_help = "\
The scheduler listens on this machine only unless told otherwise. To take in workers from other hosts:
  rask scheduler --listen 10.0.0.5:8786
  rask token create --role worker > token
and there, with the token copied over:
  RASK_TOKEN_FILE=token rask worker --scheduler 10.0.0.5:8786")]
pub(crate) struct SchedulerArguments {
    /// Address to listen on, or a name for one; port 0 takes a free one [default: 127.0.0.1:8786]
    #[arg(long, env = "RASK_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// How long each graph waits while there is no worker, or none that fits, before it fails [default: 30s]
    #[arg(long, env = "RASK_GRACE", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) grace: Option<Duration>,
    /// Believe workers that came with tokens where their data planes are, as behind address translation; otherwise only on
    /// the address that they come from
    #[arg(long, env = "RASK_BELIEVE_ADDRESSES")]
    pub(crate) believe_addresses: bool,
    /// Graphs that one owner may have, running or with results that are held [default: 4096]
    #[arg(long, env = "RASK_OWNER_GRAPHS", value_name = "N")]
    pub(crate) owner_graphs: Option<u32>,
    /// Tasks in these graphs together [default: 67108864]
    #[arg(long, env = "RASK_OWNER_TASKS", value_name = "N")]
    pub(crate) owner_tasks: Option<u64>,
}

/// `rask worker`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rask worker --threads 2 --memory 2GiB
  RASK_TOKEN_FILE=token rask worker --scheduler 10.0.0.5:8786 --name node-a --resources gpu=1

SIGTERM, SIGINT and SIGHUP let running tasks finish and move results to other workers before the process ends, for as long as
--drain-limit; a second one ends it at once. Its exit code is 0 when nothing is lost with it, and 1 otherwise.")]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Tasks to run at once [default: the processors of this machine]
    #[arg(long, env = "RASK_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Memory for results, such as 2GiB [default: three quarters of the machine's memory]
    #[arg(long, env = "RASK_MEMORY", value_name = "SIZE", value_parser = parse_nbytes)]
    pub(crate) memory: Option<u64>,
    /// Directory for results that memory is too short for, or "none" [default: spill in the state directory]
    #[arg(long, env = "RASK_SPILL_DIR", value_name = "DIR")]
    pub(crate) spill_dir: Option<PathBuf>,
    /// Space to use there at most, such as 100GiB [default: as much as there is]
    #[arg(long, env = "RASK_SPILL_LIMIT", value_name = "SIZE", value_parser = parse_nbytes)]
    pub(crate) spill_limit: Option<u64>,
    /// How long to look for a scheduler that is not there, at the start and whenever it is lost [default: 60s]
    #[arg(long, env = "RASK_PATIENCE", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) patience: Option<Duration>,
    /// How long a worker that is told to stop waits for running tasks and for its results to be moved [default: 30s]
    #[arg(long, env = "RASK_DRAIN_LIMIT", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) drain_limit: Option<Duration>,
    /// Name of the worker, for restrictions and reports [default: made from the host's name and the process id]
    #[arg(long, env = "RASK_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Address on which other workers and clients fetch results [default: the one that reaches the scheduler, a free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Whether results go to other workers of this user on this host without the network
    #[arg(long, env = "RASK_HANDOVER", value_enum, value_name = "on|off", default_value_t = Handover::On)]
    pub(crate) handover: Handover,
    /// Abstract resources that tasks can ask for; may be repeated
    #[arg(long, value_name = "NAME=AMOUNT", value_parser = parse_resource)]
    pub(crate) resources: Vec<(String, f64)>,
    /// Directory whose files graphs may touch; may be repeated [default: without a token, all that this user may for graphs
    /// of the same user, and none for others'; with a token, none]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Vec<PathBuf>,
}

/// Handing results over within a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Handover {
    /// Where both sides can
    On,
    /// Always over QUIC
    Off,
}

/// `rask token`
#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token, on the scheduler's host; whoever has it may join in its role until it expires
    Create(CreateTokenArguments),
    /// Print all tokens, on the scheduler's host: ids, roles, names, uses and ends, but no secrets
    List(ListTokenArguments),
    /// Take a token back, on the scheduler's host: nobody joins by it any more, and the scheduler lets go of those who have
    Revoke(RevokeTokenArguments),
}

/// `rask token list`
#[derive(Debug, Args)]
pub(crate) struct ListTokenArguments {
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rask token revoke`
#[derive(Debug, Args)]
pub(crate) struct RevokeTokenArguments {
    /// The token's id, as `rask token list` prints it
    #[arg(value_name = "ID", value_parser = parse_token_id)]
    pub(crate) id: TokenId,
}

/// `rask token create`
#[derive(Debug, Args)]
pub(crate) struct CreateTokenArguments {
    /// What its holder may be
    #[arg(long, value_enum, default_value_t = TokenRole::Worker)]
    pub(crate) role: TokenRole,
    /// Whose it is: what clients do that join by it is this name's, whichever token of the name they have [default: the
    /// token's own id]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long it can be used, such as 15m, 24h or 30days
    #[arg(long, visible_alias = "expires", value_name = "TIME", default_value = "24h", value_parser = parse_lifetime)]
    pub(crate) ttl: Duration,
    /// How often it can be used; as often as wanted when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: Option<u32>,
}

/// What the holder of a token may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Run tasks and hold results
    Worker,
    /// Submit graphs, and see, fetch and cancel its own
    Client,
    /// See the status of everything, and change nothing
    Viewer,
    /// What a client may, and see and cancel everybody's graphs
    Admin,
}
