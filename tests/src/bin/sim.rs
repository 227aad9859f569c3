//! Runs many seeds of the simulation, or one again: `sim --seeds 500`, `sim --seed 17 --verbose`, `sim --faults`.
//!
//! Prints what was run and injected; on a broken rule also the seed, the last events and the command that replays it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rask_scheduler::machine::Fault as SchedulerFault;
use rask_worker::machine::Fault as WorkerFault;
use tests::sim::trace::{Counts, Recording};
use tests::sim::{Options, run};

/// Simulate scheduler, workers and clients under virtual time with seeded faults.
#[derive(Parser)]
#[command(name = "sim")]
struct Flags {
    /// Number of seeds to run [default: 100; with --faults up to 4000 each, the rarest shows after some 1900]
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Run only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the last events of the seed run with --seed; all of them with --lines.
    #[arg(long)]
    verbose: bool,
    /// How many of the last events to print.
    #[arg(long, default_value_t = 80)]
    lines: usize,
    /// Switch a deliberate fault on, by its name in the machines' `Fault` enums.
    #[arg(long)]
    fault: Option<String>,
    /// Switch every deliberate fault on in turn; each must be caught within the seeds.
    #[arg(long)]
    faults: bool,
    /// Run every seed twice and compare the histories.
    #[arg(long)]
    twice: bool,
    /// Go on after a failure, and list all failing seeds.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    // Broken rules are reported with their seed; the default hook would only add noise.
    std::panic::set_hook(Box::new(|_| {}));
    if flags.faults { try_faults(&flags) } else { try_seeds(&flags) }
}

fn fault_of(flags: &Flags) -> Result<(Option<SchedulerFault>, Option<WorkerFault>), String> {
    let Some(name) = &flags.fault else { return Ok((None, None)) };
    let scheduler = SchedulerFault::ALL.into_iter().find(|fault| format!("{fault:?}") == *name);
    let worker = WorkerFault::ALL.into_iter().find(|fault| format!("{fault:?}") == *name);
    if scheduler.is_none() && worker.is_none() {
        return Err(format!("no fault \"{name}\"; there are {:?} {:?}", SchedulerFault::ALL, WorkerFault::ALL));
    }
    Ok((scheduler, worker))
}

fn try_seeds(flags: &Flags) -> ExitCode {
    let (scheduler_fault, worker_fault) = match fault_of(flags) {
        Ok(fault) => fault,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let seeds = flags.seed.map_or(flags.start..flags.start + flags.seeds.unwrap_or(100), |seed| seed..seed + 1);
    let began = Instant::now();
    let mut counts = Counts::default();
    let (mut n_seeds, mut failing) = (0u64, Vec::new());
    for seed in seeds {
        let recording = match (flags.verbose, flags.twice) {
            (true, _) => Recording::Words,
            (false, true) => Recording::Hash,
            (false, false) => Recording::Counts,
        };
        let options = Options { scheduler_fault, worker_fault, recording, max_lines: flags.lines, ..Options::of_seed(seed) };
        let outcome = run(options);
        counts.add(&outcome.counts);
        n_seeds += 1;
        if flags.twice && run(options).hash != outcome.hash {
            println!("seed {seed}: two runs have different histories");
            failing.push(seed);
        }
        if let Some(violation) = outcome.violation {
            failing.push(seed);
            report(flags, options, &violation.message, &format!("{}", violation.at));
            if !flags.keep_going {
                break;
            }
        } else if flags.verbose {
            println!("seed {seed}: clean, history {:016x}", outcome.hash);
        }
    }
    print_counts(n_seeds, &counts, began.elapsed().as_secs_f64());
    if failing.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} seeds failed: {failing:?}", failing.len());
    ExitCode::FAILURE
}

fn report(flags: &Flags, options: Options, message: &str, at: &str) {
    println!("seed {} broke a rule at {at}:\n  {message}", options.seed);
    if flags.keep_going {
        return;
    }
    // The same history again, this time in words.
    let replay = run(Options { recording: Recording::Words, ..options });
    println!("last events:");
    replay.violation.iter().flat_map(|violation| &violation.lines).for_each(|line| println!("  {line}"));
    let fault = flags.fault.as_ref().map(|fault| format!(" --fault {fault}")).unwrap_or_default();
    println!("replay: cargo run -p tests --bin sim -- --seed {} --verbose --lines 400{fault}", options.seed);
}

fn try_faults(flags: &Flags) -> ExitCode {
    let scheduler = SchedulerFault::ALL.map(|fault| (Some(fault), None));
    let worker = WorkerFault::ALL.map(|fault| (None, Some(fault)));
    let n_seeds = flags.seeds.unwrap_or(4_000);
    let mut n_missed = 0;
    for (scheduler_fault, worker_fault) in scheduler.into_iter().chain(worker) {
        let name = scheduler_fault.map(|fault| format!("{fault:?}")).or(worker_fault.map(|fault| format!("{fault:?}")));
        let name = name.unwrap_or_default();
        let caught = (flags.start..flags.start + n_seeds)
            .find_map(|seed| run(Options { scheduler_fault, worker_fault, ..Options::of_seed(seed) }).violation);
        match caught {
            Some(violation) => {
                let first_line = violation.message.lines().next().unwrap_or_default();
                println!("{name:20} caught by seed {:4}: {}", violation.seed, first_line.get(..100).unwrap_or(first_line));
            }
            None => {
                n_missed += 1;
                println!("{name:20} NOT CAUGHT in {n_seeds} seeds");
            }
        }
    }
    if n_missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_counts(n_seeds: u64, counts: &Counts, seconds: f64) {
    println!(
        "{n_seeds} seeds, {} events, {} messages, {:.0} virtual seconds, {} tasks, {} executions, in {seconds:.1} s",
        counts.n_events, counts.n_messages, counts.virtual_seconds, counts.n_tasks, counts.n_executions
    );
    println!("  {} pushes, {} backups, of which {} won", counts.n_pushes, counts.n_backups, counts.n_backups_won);
    println!("  {} results spilled", counts.n_spills);
    println!("  {} values uploaded by clients", counts.n_uploads);
    for (kind, n) in &counts.faults {
        println!("  {n:6} {kind}");
    }
}
