//! `rask bench soak`: mixed graphs above the workers' memory, several at once and for a long time, while workers come, go and
//! are killed.
//!
//! It goes in rounds. In each, a few threads draw graphs from the seed, run them, and compare every output with what it must
//! be. At the end of a round all results are released, and once nothing is held any more the processes are looked at *at
//! rest*: that is what may not grow. Which graphs run is determined by the seed; when, and which of them a fault meets, is not.
//!
//! The first worker is spared, so that there is one process to follow to the end.

mod gauges;
mod graphs;
mod plays;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgAction, Args};
use futures::executor::block_on;
use rask::{Client, ClusterOptions, LocalCluster};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use super::cluster::registry;
use super::round;
use gauges::{Files, Process};
use graphs::{Dice, Scale};
use plays::{Ledger, play};
use verdict::{Rest, verdict};

/// How often a line is printed, and how often processes are looked at.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(250);
/// How long a graph may take, and how long it may take until nothing is held any more.
const GRAPH_LIMIT: Duration = Duration::from_secs(240);
const REST_LIMIT: Duration = Duration::from_secs(20);
/// How much of its limit a worker may take at any time, in percent: what is begun as the last resort may exceed it.
const MAX_PERCENT: u64 = 120;
/// At rest, connections to workers that have been killed still have to be given up.
const SETTLING: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct SoakArgs {
    /// How long; the round under way is finished.
    #[arg(long, value_name = "N", default_value_t = 30.0)]
    minutes: f64,
    /// What graphs and faults are drawn from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Begin with this round.
    #[arg(long, value_name = "N", default_value_t = 0)]
    round: u64,
    /// Have workers join, leave and be killed.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    faults: bool,
    /// Worker processes, of one thread each.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Graphs at once.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    at_once: u32,
    /// Graphs one after another in a round.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    graphs: u32,
    /// Memory limit of all workers together.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = crate::arguments::parse_nbytes)]
    memory: u64,
    /// Bytes of a chunk.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = crate::arguments::parse_nbytes)]
    chunk: u64,
    /// Directory for spill files, which must be empty [default: one in the temporary directory]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,
    /// Log of the workers, to standard error, such as warn
    #[arg(long, value_name = "LEVEL")]
    worker_log: Option<String>,
}

pub(super) fn run(args: &SoakArgs) -> Result<()> {
    ensure!(args.minutes > 0.0, "a soak takes some minutes");
    ensure!(args.chunk >= 4_096 && args.chunk.is_multiple_of(64), "a chunk has 4 KiB at least, and a multiple of 64 bytes");
    let own_name = format!("rask-soak-{}", std::process::id());
    let spill_dir = args.spill_dir.clone().unwrap_or_else(|| rask::default_spill_dir().join(own_name));
    let n_before = Files::read(&spill_dir).n_files;
    ensure!(n_before == 0, "there are {n_before} spill files in {} already", spill_dir.display());
    let mut soak = Soak::start(args, &spill_dir)?;
    let n_shared_before = gauges::n_shared_memory();
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let mut number = args.round;
    while soak.begun.elapsed() < length {
        soak.round(number)?;
        number += 1;
    }
    let Soak { cluster, client, ledger, rests, peak_worker_nbytes, n_faults, unexpected_ends, begun, .. } = soak;
    drop(client);
    drop(cluster);
    let mut wrong = ledger.wrong();
    wrong.extend(unexpected_ends);
    let left = Files::read(&spill_dir);
    if left != Files::default() {
        wrong.push(format!("{} spill files of {} bytes are left when all is over", left.n_files, left.nbytes));
    }
    let n_shared = gauges::n_shared_memory();
    if n_shared > n_shared_before {
        wrong.push(format!("{} more entries in /dev/shm than before", n_shared - n_shared_before));
    }
    // Whoever named a directory keeps it.
    if args.spill_dir.is_none() && std::fs::remove_dir(&spill_dir).is_err() && spill_dir.exists() {
        wrong.push(format!("something is left in {}", spill_dir.display()));
    }
    let worker_limit = args.memory / u64::from(args.workers);
    if peak_worker_nbytes > worker_limit / 100 * MAX_PERCENT {
        wrong.push(format!("a worker took {peak_worker_nbytes} bytes of memory, and its limit is {worker_limit}"));
    }
    let (memory, growth) = verdict(&rests);
    wrong.extend(growth);
    let line = json!({
        "bench": "soak",
        "verdict": if wrong.is_empty() { "good" } else { "bad" },
        "wrong": wrong,
        "seconds": round(begun.elapsed().as_secs_f64()),
        "n_rounds": number - args.round,
        "n_graphs": ledger.n_done(),
        "n_graphs_by_kind": ledger.by_kind(),
        "n_faults": n_faults,
        "worker_limit_nbytes": worker_limit,
        "peak_worker_rss_nbytes": peak_worker_nbytes,
        "at_rest": memory,
    });
    println!("{line}");
    if !wrong.is_empty() {
        bail!("the soak has found {} things that must not be", wrong.len());
    }
    Ok(())
}

struct Soak<'a> {
    args: &'a SoakArgs,
    spill_dir: &'a Path,
    cluster: LocalCluster,
    client: Client,
    ledger: Ledger,
    scale: Scale,
    begun: Instant,
    /// The worker that is spared.
    first_worker: u32,
    /// Workers that have been told to leave.
    leaving: Vec<u32>,
    dice: Dice,
    next_fault: Instant,
    last_line: Instant,
    peak_worker_nbytes: u64,
    rests: Vec<Rest>,
    n_faults: BTreeMap<&'static str, u64>,
    unexpected_ends: Vec<String>,
}

impl<'a> Soak<'a> {
    fn start(args: &'a SoakArgs, spill_dir: &'a Path) -> Result<Self> {
        let binary = std::env::current_exe().context("cannot find this program's own file")?;
        let options = ClusterOptions {
            memory_limit: args.memory / u64::from(args.workers),
            spill_dir: Some(spill_dir.to_owned()),
            log: args.worker_log.clone(),
            ..ClusterOptions::new(binary, args.workers)
        };
        let cluster = block_on(LocalCluster::processes(options))?;
        let client = block_on(cluster.client(registry()))?;
        let first_worker = cluster.process_ids().get(1).copied().context("there is no worker")?;
        let now = Instant::now();
        let worker_memory = args.memory / u64::from(args.workers);
        let scale = Scale { memory: args.memory, worker_memory, chunk: args.chunk };
        Ok(Self {
            args,
            spill_dir,
            cluster,
            client,
            ledger: Ledger::default(),
            scale,
            begun: now,
            first_worker,
            leaving: Vec::new(),
            dice: Dice::at(args.seed, [u64::MAX, 0]),
            next_fault: now + Duration::from_secs(10),
            last_line: now,
            peak_worker_nbytes: 0,
            rests: Vec::new(),
            n_faults: BTreeMap::new(),
            unexpected_ends: Vec::new(),
        })
    }

    /// Run a round's graphs, with faults meanwhile, and then look at what is left.
    fn round(&mut self, number: u64) -> Result<()> {
        let n_running = AtomicUsize::new(self.args.at_once as usize);
        let (client, ledger, scale) = (self.client.clone(), self.ledger.clone(), self.scale);
        let (seed, n_graphs) = (self.args.seed, self.args.graphs);
        thread::scope(|scope| {
            for thread in 0..u64::from(self.args.at_once) {
                let (client, ledger, n_running) = (&client, &ledger, &n_running);
                scope.spawn(move || {
                    let mut dice = Dice::at(seed, [number, thread]);
                    play(client, ledger, scale, &mut dice, n_graphs, &format!("round {number}, thread {thread}"));
                    n_running.fetch_sub(1, Ordering::Release);
                });
            }
            while n_running.load(Ordering::Acquire) > 0 {
                thread::sleep(GLANCE);
                self.glance()?;
                if self.args.faults && self.next_fault <= Instant::now() {
                    self.do_fault()?;
                }
                if let Some(stuck) = self.ledger.stuck(GRAPH_LIMIT) {
                    let status = block_on(self.client.status());
                    eprintln!("{stuck} takes longer than {GRAPH_LIMIT:?}: {status:#?}");
                    // Threads that wait for it cannot be ended otherwise; the children end with this process.
                    std::process::exit(1);
                }
            }
            anyhow::Ok(())
        })?;
        self.rest(number)
    }

    /// Wait until nothing is held any more, and look at what processes take then.
    fn rest(&mut self, number: u64) -> Result<()> {
        let begun = Instant::now();
        while let Some(held) = self.held()? {
            if begun.elapsed() > REST_LIMIT {
                self.ledger.complain(format!("round {number}: when all is released there are still {held}"));
                break;
            }
            thread::sleep(GLANCE);
            self.glance()?;
        }
        thread::sleep(SETTLING);
        self.glance()?;
        crate::allocator::give_back();
        let processes = self.cluster.process_ids();
        let read = |id: Option<u32>| id.and_then(Process::read).unwrap_or_default();
        let rest = Rest {
            scheduler: read(processes.first().copied()),
            client: read(Some(std::process::id())),
            worker: read(Some(self.first_worker)),
            n_workers: processes.len() as u64 - 1,
        };
        println!("{}", json!({ "bench": "soak", "round": number, "seconds": self.seconds(), "at_rest": rest.to_json() }));
        self.rests.push(rest);
        Ok(())
    }

    /// What is still held somewhere, in words.
    fn held(&self) -> Result<Option<String>> {
        let status = block_on(self.client.status())?;
        let of_workers = |what: fn(&rask::WorkerReport) -> u64| status.workers.iter().map(what).sum::<u64>();
        let files = Files::read(self.spill_dir);
        let held = [
            ("graphs", status.graphs.len() as u64),
            ("results at workers, by the scheduler's books", of_workers(|worker| u64::from(worker.n_results))),
            ("runs", of_workers(|worker| u64::from(worker.n_processing + worker.status.n_waiting + worker.status.n_executing))),
            ("bytes of results in workers' memory", of_workers(|worker| worker.status.nbytes_results)),
            ("bytes in flight", of_workers(|worker| worker.status.nbytes_in_flight)),
            ("bytes set aside", of_workers(|worker| worker.status.nbytes_reserved)),
            ("bytes of results in files", of_workers(|worker| worker.status.nbytes_spilled)),
            ("spill files", files.n_files),
        ];
        let held: Vec<String> = held.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        Ok((!held.is_empty()).then(|| held.join(", ")))
    }

    /// Look at the processes, and say how it goes from time to time.
    fn glance(&mut self) -> Result<()> {
        for (process, is_well) in self.cluster.take_ended_workers() {
            let is_expected = is_well && self.leaving.contains(&process);
            if !is_expected {
                self.unexpected_ends.push(format!("worker process {process} ended by itself"));
            }
            self.leaving.retain(|other| *other != process);
        }
        let processes = self.cluster.process_ids();
        let workers: Vec<Process> = processes.iter().skip(1).filter_map(|id| Process::read(*id)).collect();
        self.peak_worker_nbytes = workers.iter().map(|worker| worker.peak_nbytes).fold(self.peak_worker_nbytes, u64::max);
        if self.last_line.elapsed() < LINE_INTERVAL {
            return Ok(());
        }
        self.last_line = Instant::now();
        let status = block_on(self.client.status())?;
        let files = Files::read(self.spill_dir);
        let line = json!({
            "bench": "soak",
            "seconds": self.seconds(),
            "n_graphs": self.ledger.n_done(),
            "n_wrong": self.ledger.n_wrong(),
            "scheduler": processes.first().and_then(|id| Process::read(*id)).map(Process::to_json),
            "client": Process::read(std::process::id()).map(Process::to_json),
            "workers": workers.into_iter().map(Process::to_json).collect::<Vec<Json>>(),
            "n_spill_files": files.n_files,
            "nbytes_in_spill_files": files.nbytes,
            "n_graphs_held": status.graphs.len(),
            "n_results_held": status.workers.iter().map(|worker| u64::from(worker.n_results)).sum::<u64>(),
            "n_paused": status.workers.iter().filter(|worker| worker.status.is_paused).count(),
        });
        println!("{line}");
        Ok(())
    }

    fn seconds(&self) -> f64 {
        round(self.begun.elapsed().as_secs_f64())
    }

    /// Have a worker join, leave, or be killed and replaced.
    fn do_fault(&mut self) -> Result<()> {
        self.next_fault = Instant::now() + Duration::from_secs(self.dice.between(8, 25));
        let is_spared = |process: &u32| *process == self.first_worker || self.leaving.contains(process);
        let others: Vec<u32> = self.cluster.process_ids().into_iter().skip(1).filter(|process| !is_spared(process)).collect();
        let n_usual = self.args.workers as usize;
        let victim = others.get(self.dice.between(0, others.len().max(1) as u64 - 1) as usize).copied();
        let name = match (self.dice.between(0, 2), victim) {
            (0, _) | (_, None) if others.len() < n_usual + 1 => {
                self.cluster.start_worker()?;
                "joined"
            }
            (1, Some(victim)) if others.len() >= n_usual => {
                self.leaving.push(victim);
                let id = i32::try_from(victim).ok().and_then(Pid::from_raw).context("a process id is a small number")?;
                // One that has ended just now is noticed as such.
                let _ = kill_process(id, Signal::TERM);
                "told to leave"
            }
            (_, Some(victim)) => {
                self.cluster.kill_worker(victim);
                self.cluster.start_worker()?;
                "killed and replaced"
            }
            (_, None) => return Ok(()),
        };
        *self.n_faults.entry(name).or_default() += 1;
        println!("{}", json!({ "bench": "soak", "seconds": self.seconds(), "fault": format!("a worker was {name}") }));
        Ok(())
    }
}
