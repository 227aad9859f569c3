//! `rask bench`: what the scheduler costs, measured by the program that ships.

mod client_transfer;
mod cluster;
mod kernels;
mod machine;
mod memory;
mod metg;
mod overhead;
mod parcels;
mod patterns;
mod scale;
mod soak;
mod taskbench;
mod transfer;

pub(crate) use cluster::registry;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use patterns::Pattern;
use transfer::{Case, Transport};

/// Arguments of `rask bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    which: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Time no-op tasks: independent ones, a binary tree, a chain, and a chain that hops between workers.
    ///
    /// Without --cluster everything runs in this process. With it, a scheduler and N workers of one slot run as processes
    /// and speak QUIC over loopback. The clock runs from submission until the last result is known to be done.
    Overhead(OverheadArgs),
    /// Time the scheduler's state machine alone, with workers that take no time.
    Machine(MachineArgs),
    /// Schedule named workloads on up to 10,000 simulated workers, in virtual time.
    Scale(scale::ScaleArgs),
    /// Run workloads of several times the workers' memory, and see what memory they take. Prints a JSON object a workload.
    Memory(memory::MemoryArgs),
    /// Run mixed graphs above the workers' memory for a long time, while workers come, go and are killed. Ends with an error
    /// when an answer was wrong or anything has leaked.
    Soak(soak::SoakArgs),
    /// Find the smallest tasks that still use half of the machine: METG(50 %) of the patterns of Task Bench.
    ///
    /// The granularity of tasks is wall time x slots / tasks. Efficiency is the share of the peak, which is what the same
    /// arithmetic reaches on as many threads as slots without any runtime, measured in turn with the graphs. Each pattern takes
    /// about half a minute. Without --cluster everything runs in this process, with a slot a processor.
    Taskbench(TaskbenchArgs),
    /// Time how values go from a client to worker processes (scatter) and back (gather), as streams of bounded memory.
    Client(client_transfer::ClientArgs),
    /// Time how results go from one worker process to another: large ones, small ones, one at a time, all to all.
    Transfer(TransferArgs),
}

#[derive(Args)]
struct OverheadArgs {
    /// Run a scheduler and this many worker processes instead of an embedded cluster.
    #[arg(long, value_name = "N")]
    cluster: Option<u32>,
    /// Independent tasks.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    tasks: u32,
    /// Tasks of the binary tree.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    tree: u32,
    /// Links of the chains.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    chain: u32,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct MachineArgs {
    /// Tasks.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    tasks: u32,
    /// Simulated workers of one slot.
    #[arg(long, value_name = "N", default_value_t = 10)]
    workers: u32,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TaskbenchArgs {
    /// Run a scheduler and this many worker processes of one slot instead of an embedded cluster.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cluster: Option<u32>,
    /// How tasks depend on those of the step before; several, separated by commas, are measured one after another.
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', default_value = "stencil_1d")]
    pattern: Vec<Pattern>,
    /// Tasks side by side [default: the number of slots]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_096))]
    width: Option<u32>,
    /// Steps after one another [default: as many as take a graph about 0.4 s]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: Option<u32>,
    /// Dependences of a task in nearest, spread and random_nearest.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    radix: u32,
    /// Bytes that each task returns, a multiple of 16.
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    payload: usize,
    /// Measure tasks of this many iterations (of 32 floating-point operations) only, instead of searching.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    iterations: Option<u64>,
    /// Runs of each graph, of which the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Print one JSON object a pattern instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TransferArgs {
    /// How results travel; several, separated by commas, are measured one after another.
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', default_value = "quic,same-host")]
    transport: Vec<Transport>,
    /// What travels; several, separated by commas, are measured one after another.
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "large,small,fetch,latency,latency-under-load,all-to-all"
    )]
    case: Vec<Case>,
    /// Runs of each case, of which the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Print one JSON object a case instead of text.
    #[arg(long)]
    json: bool,
}

/// Run the benchmark asked for.
pub(crate) fn run(args: BenchArgs) -> Result<()> {
    match args.which {
        Bench::Overhead(args) => overhead::run(&args),
        Bench::Memory(args) => memory::run(&args),
        Bench::Scale(args) => scale::run(&args),
        Bench::Soak(args) => soak::run(&args),
        Bench::Taskbench(args) => taskbench::run(&args),
        Bench::Client(args) => client_transfer::run(&args),
        Bench::Transfer(args) => transfer::run(&args),
        Bench::Machine(args) => {
            let figures = machine::measure(args.tasks, args.workers);
            let line = json!({
                "bench": "machine",
                "n_workers": figures.n_workers,
                "n_tasks": figures.n_tasks,
                "us_per_task": round(figures.us_per_task()),
                "bytes_per_task": figures.bytes_per_task().round(),
            });
            print(&line, args.json);
            Ok(())
        }
    }
}

/// Three significant decimals are more than a noisy machine can vouch for.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// One line a figure for people, or the object as it is.
fn print(line: &Value, is_json: bool) {
    if is_json {
        println!("{line}");
        return;
    }
    let Some(object) = line.as_object() else { return };
    for (name, value) in object {
        match value {
            Value::Object(inner) => println!("{name:<16} {}", parts(inner)),
            Value::Array(list) => {
                list.iter().filter_map(Value::as_object).for_each(|inner| println!("{:<16} {}", "", parts(inner)))
            }
            Value::String(text) => println!("{name:<16} {text}"),
            Value::Null | Value::Bool(_) | Value::Number(_) => println!("{name:<16} {value}"),
        }
    }
}

fn parts(object: &Map<String, Value>) -> String {
    let parts: Vec<String> = object.iter().map(|(name, value)| format!("{name} {value}")).collect();
    parts.join(", ")
}
