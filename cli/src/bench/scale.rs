//! `rask bench scale`: schedules of named workloads on up to 10,000 simulated workers, and what they cost the scheduler.
//!
//! The real scheduler machine drives the real worker machines in virtual time, where only tasks, messages and links take
//! any. What it was told is then told again to a fresh machine with nothing else on the clock: that is the CPU time a task.
//! Every line is measured in a process of its own, so that none inherits the memory of another.

mod bounds;
mod node;
mod replay;
mod schedule;
#[cfg(test)]
mod tests;
mod workloads;
mod world;

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::bounds::Bounds;
use self::replay::Replay;
use self::workloads::{Draw, Name};
use self::world::{Cluster, World};
use super::round;

/// Arguments of `rask bench scale`.
#[derive(Args)]
pub(crate) struct ScaleArgs {
    /// Workloads; by default a table of all of them on up to 10,000 workers.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    workload: Vec<Name>,
    /// Simulated workers; several numbers make as many lines.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    workers: Vec<u32>,
    /// Slots a worker.
    #[arg(long, value_name = "N", default_value_t = 1)]
    slots: u32,
    /// Tasks, about.
    #[arg(long, value_name = "N")]
    tasks: Option<u32>,
    /// The mean time of a task that works on a chunk, in microseconds; all others in proportion.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    work_us: u32,
    /// Draws how long tasks take.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write what ran when and where, and what moved, as tab-separated lines; of a single workload on one number of workers.
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// One line of the table.
#[derive(Clone, Copy)]
struct Line {
    name: Name,
    n_workers: u32,
    n_tasks: u32,
}

/// What is printed when nothing is asked for: workload, tasks, workers.
const TABLE: [(Name, u32, &[u32]); 9] = [
    (Name::Lognormal, 500, &[8]),
    (Name::Map, 1_000_000, &[10, 100, 1_000, 10_000]),
    (Name::Tree, 200_000, &[10, 100, 1_000, 10_000]),
    (Name::Stencil, 200_000, &[10, 100, 1_000, 10_000]),
    (Name::TransposeSum, 200_000, &[10, 100, 1_000, 10_000]),
    (Name::DoubleDiff, 200_000, &[10, 100, 1_000, 10_000]),
    (Name::Anomaly, 200_000, &[10, 100, 1_000, 10_000]),
    (Name::Shuffle, 2_000, &[10, 100, 1_000]),
    (Name::Map, 10_000_000, &[1_000]),
];

/// How many draws of the durations a line of [`Name::Lognormal`] looks at: one alone would say more of itself than of the
/// scheduler.
const N_DRAWS: u64 = 21;

/// Run what was asked for and print it.
pub(crate) fn run(args: &ScaleArgs) -> Result<()> {
    ensure!(args.slots > 0 && args.workers.iter().all(|n| *n > 0), "a cluster has at least one worker with one slot");
    let lines = lines(args);
    if let [line] = lines[..] {
        let value = measure(line, args)?;
        print_line(&value, args.json, true);
        return Ok(());
    }
    ensure!(args.schedule.is_none(), "--schedule is for one workload on one number of workers");
    for (at, line) in lines.into_iter().enumerate() {
        print_line(&measure_apart(line, args)?, args.json, at == 0);
    }
    Ok(())
}

fn lines(args: &ScaleArgs) -> Vec<Line> {
    let is_whole_table = args.workload.is_empty() && args.workers.is_empty() && args.tasks.is_none();
    let rows = TABLE.iter().enumerate().filter(|(at, (name, ..))| {
        let is_first = TABLE[..*at].iter().all(|(other, ..)| other != name);
        is_whole_table || is_first && (args.workload.is_empty() || args.workload.contains(name))
    });
    rows.flat_map(|(_, &(name, n_tasks, workers))| {
        let workers = if args.workers.is_empty() { workers } else { &args.workers };
        workers.iter().map(move |&n_workers| Line { name, n_workers, n_tasks: args.tasks.unwrap_or(n_tasks) })
    })
    .collect()
}

/// Measure a line in a process of its own.
fn measure_apart(line: Line, args: &ScaleArgs) -> Result<Value> {
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let name = line.name.to_possible_value().context("every workload has a name")?;
    let mut command = Command::new(binary);
    command.args(["bench", "scale", "--json", "--workload", name.get_name()]);
    let numbers =
        [("--workers", line.n_workers), ("--tasks", line.n_tasks), ("--slots", args.slots), ("--work-us", args.work_us)];
    let numbers = numbers.map(|(name, number)| (name, u64::from(number)));
    for (name, number) in numbers.into_iter().chain([("--seed", args.seed)]) {
        command.args([name, &number.to_string()]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start a process for a line")?;
    ensure!(output.status.success(), "{} on {} workers: {}", name.get_name(), line.n_workers, output.status);
    serde_json::from_slice(&output.stdout).context("a line's process printed something else than its line")
}

fn measure(line: Line, args: &ScaleArgs) -> Result<Value> {
    let mut value = measure_draw(line, args, args.seed)?;
    if line.name == Name::Lognormal {
        let more = (1..N_DRAWS).map(|draw| Ok(measure_draw(line, args, args.seed + draw)?["makespan_ratio"].clone()));
        let mut ratios: Vec<f64> =
            more.chain([Ok(value["makespan_ratio"].clone())]).map(|ratio| ratio.map(as_number)).collect::<Result<_>>()?;
        ratios.sort_by(f64::total_cmp);
        value["makespan_ratio"] = json!(ratios[ratios.len() / 2]);
        value["worst_makespan_ratio"] = json!(ratios.last());
    }
    Ok(value)
}

fn as_number(value: Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn measure_draw(line: Line, args: &ScaleArgs, seed: u64) -> Result<Value> {
    let cluster = Cluster { n_workers: line.n_workers, n_slots: args.slots };
    let workload = workloads::build(line.name, line.n_tasks, line.n_workers, Draw { seed, work_us: args.work_us })?;
    let bounds = Bounds::of(&workload);
    let mut world = World::new(&workload, cluster, args.schedule.is_some())?;
    world.run()?;
    if let (Some(path), Some(schedule)) = (&args.schedule, &world.schedule) {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        schedule.write(BufWriter::new(file))?;
    }
    // The first machine keeps its tables until the second one has filled its own: memory given back would hide them.
    let mut replay = Replay::new(&workload);
    replay.tell(std::mem::take(&mut world.log));
    let graph_nbytes = world.graph_nbytes();
    world.release()?;
    replay.tell(std::mem::take(&mut world.log));
    ensure!(replay.counters() == world.counters(), "told the same again, the machine decided otherwise");
    let n_tasks = workload.costs.len() as f64;
    let n_slots = u64::from(line.n_workers) * u64::from(args.slots);
    let (makespan_us, least_us) = (world.ended_at.unwrap_or(0) as f64 / 1e3, bounds.makespan_us(n_slots) as f64);
    let (idle, counts) = (world.idle(), world.counts);
    let of_slots = |ns: u64| round(ns as f64 / (makespan_us * 1e3 * n_slots as f64));
    let is_path = bounds.critical_path_us as f64 == least_us;
    Ok(json!({
        "bench": "scale",
        "workload": line.name.to_possible_value().map(|name| name.get_name().to_owned()),
        "n_workers": line.n_workers,
        "n_slots": args.slots,
        "n_tasks": workload.costs.len(),
        "work_us": args.work_us,
        "us_per_task": round(replay.seconds * 1e6 / n_tasks),
        "bytes_per_task": (graph_nbytes as f64 / n_tasks).round(),
        "grown_bytes_per_task": (replay.grown_nbytes() as f64 / n_tasks).round(),
        "us_per_join": round(replay.join_seconds * 1e6 / f64::from(line.n_workers)),
        "makespan_ratio": round(makespan_us / least_us),
        "makespan_ms": round(makespan_us / 1e3),
        "bound": if is_path { "path" } else { "work" },
        "bytes_ratio": bytes_ratio(counts.nbytes_moved, workload.least_nbytes),
        "moved_share": (bounds.input_nbytes > 0).then(|| round(counts.nbytes_moved as f64 / bounds.input_nbytes as f64)),
        "nbytes_moved": counts.nbytes_moved,
        "n_transfers": counts.n_transfers,
        "n_pushed": counts.n_pushed,
        "n_misses": counts.n_misses,
        "n_repeated": counts.n_runs - workload.costs.len() as u64,
        "frames_up_per_task": round(counts.n_frames_up as f64 / n_tasks),
        "frames_down_per_task": round(counts.n_frames_down as f64 / n_tasks),
        "idle_for_data": of_slots(idle.for_data),
        "idle_for_work": of_slots(idle.for_work),
        "peak_nbytes_per_worker": world.nodes.iter().map(|node| node.peak_nbytes).max(),
    }))
}

/// Bytes moved by the least possible; 1 when nothing moves and nothing has to, and nothing to say when something moves that
/// need not, or when no bound is known.
fn bytes_ratio(nbytes_moved: u64, least_nbytes: Option<u64>) -> Option<f64> {
    match (nbytes_moved, least_nbytes?) {
        (0, 0) => Some(1.0),
        (_, 0) => None,
        (moved, least) => Some(round(moved as f64 / least as f64)),
    }
}

/// The columns of the table for people: key, heading, width.
const COLUMNS: [(&str, &str, usize); 14] = [
    ("workload", "workload", 14),
    ("n_workers", "workers", 8),
    ("n_tasks", "tasks", 9),
    ("us_per_task", "us/task", 9),
    ("bytes_per_task", "B/task", 7),
    ("grown_bytes_per_task", "RSS/task", 9),
    ("us_per_join", "us/join", 8),
    ("makespan_ms", "makespan ms", 12),
    ("makespan_ratio", "ratio", 7),
    ("bound", "bound", 6),
    ("idle_for_data", "no data", 8),
    ("idle_for_work", "no work", 8),
    ("moved_share", "moved", 6),
    ("bytes_ratio", "bytes ratio", 12),
];

fn print_line(value: &Value, is_json: bool, is_first: bool) {
    if is_json {
        println!("{value}");
        return;
    }
    let row = |text: &dyn Fn(&str, &str) -> String| {
        let cells: Vec<String> = COLUMNS.iter().map(|(key, heading, width)| format!("{:>width$}", text(key, heading))).collect();
        cells.join(" ")
    };
    if is_first {
        println!("{}", row(&|_, heading| heading.to_owned()));
    }
    let cell = |key: &str, _: &str| {
        let cell = &value[key];
        if cell.is_null() { "-".to_owned() } else { cell.as_str().map_or_else(|| cell.to_string(), str::to_owned) }
    };
    println!("{}", row(&cell));
}
