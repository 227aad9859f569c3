//! `rask bench transfer`: how fast results go from one worker to another, by the processes that ship.
//!
//! Two worker processes of one slot and a scheduler, on loopback. What is moved is made first, on the one worker, as outputs of
//! a graph; the clock runs while a second graph, on the other worker, takes them as external inputs, so that every result is
//! asked for, moved, decoded, stored and looked into. Afterwards the outcome is compared with what it must be.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use futures::executor::block_on;
use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, Graph, GraphBuilder, Part, Source, TaskIdx, TaskOptions};
use rask::{Job, SubmitOptions};
use serde_json::json;

use super::cluster::{Cluster, finish};
use super::parcels::{RELAY_NBYTES, expected_sum, read_word, time_on_the_way};
use super::{TransferArgs, print, round};

/// How results travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Transport {
    /// As between hosts
    Quic,
    /// As workers on one host agree on among themselves
    SameHost,
}

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Case {
    /// 16 results of 64 MiB, each the input of a task
    Large,
    /// 10,000 results of 10 kB, the inputs of ten tasks
    Small,
    /// 1,500 results of 100 bytes that are asked for one after another
    Fetch,
    /// A chain of results of 100 bytes that goes to and fro, each sent unasked
    Latency,
    /// The same while 1 GiB goes one way; of the links that go that way
    LatencyUnderLoad,
    /// 200 rows of 200 parts, 2 GB in all, that are added up by column; rows and columns are shared by both workers
    AllToAll,
}

/// A worker reports how long its fetches took once a second.
const REPORTS_WITHIN: Duration = Duration::from_millis(1_500);

/// What a case came to.
struct Figures {
    time: Duration,
    n_chunks: u64,
    nbytes: u64,
    /// 50th and 99th percentile of single transfers, in microseconds.
    percentiles: Option<(f64, f64)>,
}

pub(super) fn run(args: &TransferArgs) -> Result<()> {
    for &transport in &args.transport {
        let cluster = Cluster::start_processes(2, transport == Transport::SameHost)?;
        // Connections are made before the clock runs.
        large(&cluster, 2, 1 << 20)?;
        for &case in &args.case {
            let mut runs = Vec::new();
            for _ in 0..args.repetitions {
                runs.push(measure(&cluster, case)?);
                cluster.settle()?;
            }
            runs.sort_by_key(|figures| figures.time);
            let figures = &runs[runs.len() / 2];
            let seconds = figures.time.as_secs_f64();
            let line = json!({
                "bench": "transfer",
                "transport": name(transport),
                "case": name(case),
                "repetitions": args.repetitions,
                "seconds": round(seconds),
                "mb_per_second": round(figures.nbytes as f64 / 1e6 / seconds),
                "chunks_per_second": round(figures.n_chunks as f64 / seconds),
                "p50_us": figures.percentiles.map(|(p50, _)| round(p50)),
                "p99_us": figures.percentiles.map(|(_, p99)| round(p99)),
            });
            print(&line, args.json);
        }
    }
    Ok(())
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn measure(cluster: &Cluster, case: Case) -> Result<Figures> {
    match case {
        Case::Large => large(cluster, 16, 64 << 20),
        Case::Small => small(cluster),
        Case::Fetch => fetch(cluster, 1_500),
        Case::Latency => latency(cluster, 2_000),
        Case::LatencyUnderLoad => latency_under_load(cluster, 6_000),
        Case::AllToAll => all_to_all(cluster, 200, 80 * 80),
    }
}

/// Every result the only input of a task of its own.
fn large(cluster: &Cluster, n_parcels: u64, nbytes: u64) -> Result<Figures> {
    move_parcels(cluster, n_parcels, nbytes, 1)
}

/// Ten tasks with a thousand inputs each.
fn small(cluster: &Cluster) -> Result<Figures> {
    move_parcels(cluster, 10_000, 10_000, 1_000)
}

/// Make `n_parcels` results on the one worker, then time how they come to tasks with `n_inputs` inputs on the other.
fn move_parcels(cluster: &Cluster, n_parcels: u64, nbytes: u64, n_inputs: usize) -> Result<Figures> {
    let (sender, parcels) = make_parcels(cluster, n_parcels, nbytes)?;
    let (graph, unpackers) = unpacking(&sender, &parcels, n_inputs)?;
    let (time, receiver) = cluster.time(graph)?;
    check_parcels(&receiver, unpackers, n_parcels)?;
    Ok(Figures { time, n_chunks: n_parcels, nbytes: n_parcels * nbytes, percentiles: None })
}

/// Results on the one worker, made and waiting.
fn make_parcels(cluster: &Cluster, n_parcels: u64, nbytes: u64) -> Result<(Job, Vec<TaskIdx>)> {
    let mut graph = GraphBuilder::new();
    let family = graph.family("parcel");
    let mut parcels = Vec::new();
    for seed in 0..n_parcels {
        let body = graph.body(Body::single("bench.parcel", 1, &json!({ "seed": seed, "nbytes": nbytes }).to_string()));
        let key = KeyRef { family, member: Some(u32::try_from(seed)?) };
        let parcel = graph.task_with(key, body).options(on(0)).add();
        graph.output(parcel);
        parcels.push(parcel);
    }
    let finished = finish(graph)?;
    let parcels: Vec<TaskIdx> = parcels.iter().filter_map(|parcel| finished.renumbering[parcel.index()]).collect();
    let (_, sender) = cluster.time(finished.graph)?;
    Ok((sender, parcels))
}

/// Tasks on the other worker that look into `parcels`, `n_inputs` each.
fn unpacking(sender: &Job, parcels: &[TaskIdx], n_inputs: usize) -> Result<(Graph, Vec<TaskIdx>)> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("unpack"), graph.body(Body::single("bench.unpack", 1, "{}")));
    let mut unpackers = Vec::new();
    for (member, batch) in (0..).zip(parcels.chunks(n_inputs)) {
        let inputs: Vec<u32> = batch.iter().map(|parcel| graph.external(sender.result_id(*parcel))).collect();
        let mut task = graph.task_with(KeyRef { family, member: Some(member) }, body).options(on(1));
        for input in inputs {
            task = task.input_from(Source::External(input), Part::WHOLE);
        }
        let task = task.add();
        graph.output(task);
        unpackers.push(task);
    }
    let finished = finish(graph)?;
    let unpackers: Vec<TaskIdx> = unpackers.iter().filter_map(|task| finished.renumbering[task.index()]).collect();
    Ok((finished.graph, unpackers))
}

fn check_parcels(receiver: &Job, unpackers: impl IntoIterator<Item = TaskIdx>, n_parcels: u64) -> Result<()> {
    let mut sum = 0;
    for task in unpackers {
        sum += word_of(receiver, task)?;
    }
    ensure!(sum == n_parcels * (n_parcels - 1) / 2, "the parcels that came add up to {sum}");
    Ok(())
}

/// One result after another that the other worker does not have, and is told of when it needs it. The times are the worker's own,
/// from the moment it asks until it has decoded and stored the answer, as it reports them.
fn fetch(cluster: &Cluster, n_parcels: u64) -> Result<Figures> {
    let (sender, parcels) = make_parcels(cluster, n_parcels, RELAY_NBYTES as u64)?;
    let begun = Instant::now();
    let mut sum = 0;
    for parcel in &parcels {
        let (graph, unpackers) = unpacking(&sender, std::slice::from_ref(parcel), 1)?;
        let (_, receiver) = cluster.time(graph)?;
        sum += unpackers.into_iter().map(|task| word_of(&receiver, task)).sum::<Result<u64>>()?;
    }
    let time = begun.elapsed();
    ensure!(sum == n_parcels * (n_parcels - 1) / 2, "the parcels that came add up to {sum}");
    let percentiles = Some(fetch_times(cluster)?);
    Ok(Figures { time, n_chunks: n_parcels, nbytes: n_parcels * RELAY_NBYTES as u64, percentiles })
}

/// The times of the last thousand fetches of the worker that unpacks, in microseconds, from its next report.
fn fetch_times(cluster: &Cluster) -> Result<(f64, f64)> {
    std::thread::sleep(REPORTS_WITHIN);
    let report = block_on(cluster.client.status())?;
    let worker = report.workers.iter().find(|worker| worker.name == worker_name(1));
    let traffic = worker.ok_or_else(|| anyhow!("a worker has gone"))?.status.traffic;
    Ok((traffic.fetch_p50_ns as f64 / 1e3, traffic.fetch_p99_ns as f64 / 1e3))
}

fn latency(cluster: &Cluster, n_links: u32) -> Result<Figures> {
    let (graph, links) = chain(n_links)?;
    let (time, job) = cluster.time(graph)?;
    let percentiles = Some(times_on_the_way(&job, links.into_iter().skip(1))?);
    let n_chunks = u64::from(n_links);
    Ok(Figures { time, n_chunks, nbytes: n_chunks * RELAY_NBYTES as u64, percentiles })
}

/// A chain while 16 results of 64 MiB go from the one worker to the other. Only the links that go the same way count. One task takes
/// all of the 16, so that nothing but the chain needs a slot before they are there.
fn latency_under_load(cluster: &Cluster, n_links: u32) -> Result<Figures> {
    let (n_parcels, nbytes) = (16, 64 << 20);
    let (sender, parcels) = make_parcels(cluster, n_parcels, nbytes)?;
    let (graph, unpackers) = unpacking(&sender, &parcels, parcels.len())?;
    let (chain, links) = chain(n_links)?;
    let begun = Instant::now();
    let load = block_on(cluster.client.submit(graph, SubmitOptions::default()))?;
    let (_, job) = cluster.time(chain)?;
    block_on(load.wait())?;
    let time = begun.elapsed();
    check_parcels(&load, unpackers, n_parcels)?;
    let percentiles = Some(times_on_the_way(&job, links.into_iter().skip(1).step_by(2))?);
    Ok(Figures { time, n_chunks: n_parcels, nbytes: n_parcels * nbytes, percentiles })
}

/// A chain whose links alternate between the workers. Each link says how long it took from the end of the run before, on the
/// other worker, until its own began: the processes share a clock.
fn chain(n_links: u32) -> Result<(Graph, Vec<TaskIdx>)> {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("relay"), graph.body(Body::single("bench.relay", 1, "{}")));
    let mut links: Vec<TaskIdx> = Vec::new();
    for member in 0..n_links {
        let task = graph.task_with(KeyRef { family, member: Some(member) }, body).inputs(links.last().copied());
        let task = task.options(on(member % 2)).add();
        graph.output(task);
        links.push(task);
    }
    let finished = finish(graph)?;
    let links: Vec<TaskIdx> = links.iter().filter_map(|task| finished.renumbering[task.index()]).collect();
    Ok((finished.graph, links))
}

fn times_on_the_way(job: &Job, links: impl Iterator<Item = TaskIdx>) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    for link in links {
        let value = block_on(job.gather(link))?;
        times.push(time_on_the_way(&value).map_err(|error| anyhow!("{error}"))?);
    }
    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).map_or(f64::NAN, |time| *time as f64 / 1e3);
    Ok((percentile(50), percentile(99)))
}

/// `n_rows` rows of as many parts of `n_numbers` numbers, made and added up by column. Half of the parts change workers; making
/// them and adding them up is timed too.
fn all_to_all(cluster: &Cluster, n_rows: u32, n_numbers: usize) -> Result<Figures> {
    let mut graph = GraphBuilder::new();
    let (rows, columns, total) = (graph.family("row"), graph.family("column"), graph.family("total"));
    let sum = graph.body(Body::single("bench.sum", 1, "{}"));
    let mut members = Vec::new();
    for row in 0..n_rows {
        let args = json!({ "row": row, "n_parts": n_rows, "n_numbers": n_numbers });
        let body = graph.body(Body::single("bench.blocks", 1, &args.to_string()));
        members.push(graph.task_with(KeyRef { family: rows, member: Some(row) }, body).options(on(row % 2)).add());
    }
    let group = graph.group(members);
    let mut sums = Vec::new();
    for column in 0..n_rows {
        let task = graph.task_with(KeyRef { family: columns, member: Some(column) }, sum).input_group(group, Part(column));
        sums.push(task.options(on(column % 2)).add());
    }
    let total = graph.task_with(KeyRef { family: total, member: None }, sum).inputs(sums).add();
    graph.output(total);
    let finished = finish(graph)?;
    let total = finished.renumbering[total.index()].ok_or_else(|| anyhow!("the total was dropped"))?;
    let (time, job) = cluster.time(finished.graph)?;
    let found = f64::from_bits(word_of(&job, total)?);
    ensure!(found == expected_sum(n_rows, n_numbers), "the sum is {found}");
    let n_chunks = u64::from(n_rows) * u64::from(n_rows);
    Ok(Figures { time, n_chunks, nbytes: n_chunks * (n_numbers * size_of::<f64>()) as u64, percentiles: None })
}

fn on(worker: u32) -> TaskOptions {
    TaskOptions { workers: vec![worker_name(worker)], ..TaskOptions::default() }
}

fn worker_name(worker: u32) -> String {
    format!("worker-{worker}")
}

fn word_of(job: &Job, task: TaskIdx) -> Result<u64> {
    let value = block_on(job.gather(task))?;
    read_word(&value, 0).map_err(|error| anyhow!("{error}"))
}
