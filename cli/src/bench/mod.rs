//! `rask bench`: what the scheduler costs, measured by the program that ships.

mod machine;
mod overhead;
mod scale;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

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

/// Run the benchmark asked for.
pub(crate) fn run(args: BenchArgs) -> Result<()> {
    match args.which {
        Bench::Overhead(args) => overhead::run(&args),
        Bench::Scale(args) => scale::run(&args),
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
        match value.as_object() {
            Some(inner) => {
                let parts: Vec<String> = inner.iter().map(|(name, value)| format!("{name} {value}")).collect();
                println!("{name:<16} {}", parts.join(", "));
            }
            None => println!("{name:<16} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        }
    }
}
