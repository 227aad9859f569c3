//! `rask bench client`: how fast values go from a client to workers (scatter) and back (gather), by the processes that ship.
//!
//! Two worker processes and a scheduler on loopback. The values are made while they are sent, and looked through to the last byte
//! when they are back, because a client that streams never has all of them; the time for that, measured beforehand, is printed
//! beside. So is the most memory that this process, the client, took in each direction. With a limit on the workers' memory,
//! values that are larger than that together go through their disks.

use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use futures::executor::block_on;
use futures::stream;
use rask::graphs::Value;
use rask::graphs::builtin::Opaque;
use rask::{Client, GatherOptions, LocalCluster, ScatterOptions, Scattered};
use serde_json::json;

use super::cluster::Cluster;
use super::memory::{PeakWatch, STATUS_INTERVAL, high_water_mark};
use super::{print, round};

const N_WORKERS: u32 = 2;

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Values of 64 MiB, 1 GiB in all.
    Large,
    /// 10,000 values of 10 kB.
    Small,
}

#[derive(Args)]
pub(super) struct ClientArgs {
    /// What travels; several, separated by commas, are measured one after another.
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', default_value = "small,large")]
    case: Vec<Case>,
    /// Bytes of all large values.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::parse_nbytes, default_value = "1GiB")]
    data: u64,
    /// Bytes of a large value.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::parse_nbytes, default_value = "64MiB")]
    value: u64,
    /// Memory limit of both workers together [default: none]
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::parse_nbytes)]
    memory: Option<u64>,
    /// Directory for spill files [default: one in the temporary directory]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<std::path::PathBuf>,
    /// Bytes that the client may hold of what is on its way.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::parse_nbytes, default_value = "128MiB")]
    in_flight: u64,
    /// Runs of each case, of which the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Print one JSON object a figure instead of text.
    #[arg(long)]
    json: bool,
}

/// How many values, and how long each.
#[derive(Clone, Copy)]
struct Load {
    n_values: usize,
    nbytes: usize,
}

/// The runs of one direction.
#[derive(Default)]
struct Runs {
    times: Vec<Duration>,
    peak_nbytes: u64,
}

impl Runs {
    fn add(&mut self, run: impl FnOnce() -> Result<()>) -> Result<()> {
        // The kernel begins its high-water mark anew.
        fs::write("/proc/self/clear_refs", "5")?;
        let begun = Instant::now();
        run()?;
        self.times.push(begun.elapsed());
        self.peak_nbytes = self.peak_nbytes.max(high_water_mark(std::process::id()).unwrap_or(0));
        Ok(())
    }

    fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    }
}

pub(super) fn run(args: &ClientArgs) -> Result<()> {
    ensure!(args.value > 0 && args.data >= args.value, "there is to be one large value at least");
    let loads = args.case.iter().map(|case| match case {
        Case::Large => Ok(("large", Load { n_values: (args.data / args.value).try_into()?, nbytes: args.value.try_into()? })),
        Case::Small => Ok(("small", Load { n_values: 10_000, nbytes: 10_000 })),
    });
    let loads = loads.collect::<Result<Vec<(&str, Load)>>>()?;
    let cluster = Cluster::start_limited(N_WORKERS, args.memory.unwrap_or(0) / u64::from(N_WORKERS), args.spill_dir.clone())?;
    // Connections are made before the clock runs.
    let warm = Load { n_values: 8, nbytes: 1 << 20 };
    gather(&scatter(&cluster.client, warm, args.in_flight)?, warm, args.in_flight)?;
    for (name, load) in loads {
        measure(&cluster, name, load, args)?;
    }
    Ok(())
}

fn measure(cluster: &Cluster, name: &str, load: Load, args: &ClientArgs) -> Result<()> {
    let (seconds_to_make, seconds_to_check) = seconds_beside(load)?;
    let workers = cluster.processes.as_ref().map(LocalCluster::process_ids).unwrap_or_default();
    let watch = PeakWatch::start(workers.get(1..).unwrap_or_default());
    let (mut there, mut back) = (Runs::default(), Runs::default());
    let mut nbytes_spilled = 0;
    for _ in 0..args.repetitions {
        cluster.settle()?;
        let mut scattered = None;
        there.add(|| {
            scattered = Some(scatter(&cluster.client, load, args.in_flight)?);
            Ok(())
        })?;
        back.add(|| scattered.as_ref().map_or(Ok(()), |scattered| gather(scattered, load, args.in_flight)))?;
        if args.memory.is_some() {
            thread::sleep(STATUS_INTERVAL);
            nbytes_spilled = block_on(cluster.client.status())?.workers.iter().map(|worker| worker.status.nbytes_written).sum();
        }
    }
    let peak_rss_nbytes = watch.stop();
    for (bench, runs, beside) in [("scatter", &there, seconds_to_make), ("gather", &back, seconds_to_check)] {
        let seconds = runs.median();
        let mut line = json!({
            "bench": bench,
            "case": name,
            "repetitions": args.repetitions,
            "n_values": load.n_values,
            "nbytes_of_each": load.nbytes,
            "seconds": round(seconds),
            "mb_per_second": round((load.n_values * load.nbytes) as f64 / 1e6 / seconds),
            "values_per_second": round(load.n_values as f64 / seconds),
            "seconds_beside": round(beside),
            "nbytes_in_flight": args.in_flight,
            "peak_client_nbytes": runs.peak_nbytes,
        });
        if let (Some(limit), Some(line)) = (args.memory, line.as_object_mut()) {
            line.insert("limit_nbytes".to_owned(), limit.into());
            line.insert("peak_workers_nbytes".to_owned(), peak_rss_nbytes.into());
            line.insert("nbytes_spilled".to_owned(), nbytes_spilled.into());
        }
        print(&line, args.json);
    }
    Ok(())
}

/// Seconds that it takes to make all values, and to look through them, one after another.
fn seconds_beside(load: Load) -> Result<(f64, f64)> {
    let (mut making, mut checking) = (Duration::ZERO, Duration::ZERO);
    for seed in 0..load.n_values {
        let begun = Instant::now();
        let made = value(seed, load.nbytes);
        making += begun.elapsed();
        let begun = Instant::now();
        ensure!(is_value(&made, seed, load.nbytes), "value {seed} is made wrong");
        checking += begun.elapsed();
    }
    Ok((making.as_secs_f64(), checking.as_secs_f64()))
}

/// Bytes between two marks.
const PAGE_NBYTES: usize = 4_096;
/// What is between them repeats itself after so many bytes, which is further than compression looks back.
const NOISE_NBYTES: usize = 64 * PAGE_NBYTES;

/// Bytes that compression finds nothing in.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..NOISE_NBYTES / 8).flat_map(|at| mark(0, at).to_le_bytes()).collect());

/// Noise, in which every page begins with a mark that says which it is of which value.
fn value(seed: usize, nbytes: usize) -> Value {
    let mut bytes = Vec::with_capacity(nbytes);
    while bytes.len() < nbytes {
        bytes.extend_from_slice(&NOISE[..NOISE_NBYTES.min(nbytes - bytes.len())]);
    }
    for (at, page) in bytes.chunks_mut(PAGE_NBYTES).enumerate() {
        mark(seed + 1, at).to_le_bytes().into_iter().zip(page).for_each(|(from, to)| *to = from);
    }
    Value::new(Opaque(bytes.into()))
}

fn mark(seed: usize, at: usize) -> u64 {
    let mixed = ((seed as u64) << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn is_value(value: &Value, seed: usize, nbytes: usize) -> bool {
    value.downcast::<Opaque>().is_some_and(|found| {
        let is_page = |(at, page): (usize, &[u8])| {
            let (found, rest) = page.split_at(page.len().min(8));
            let from = at * PAGE_NBYTES % NOISE_NBYTES + found.len();
            *found == mark(seed + 1, at).to_le_bytes()[..found.len()] && *rest == NOISE[from..from + rest.len()]
        };
        found.0.len() == nbytes && found.0.chunks(PAGE_NBYTES).enumerate().all(is_page)
    })
}

/// From the first value that is made until all are held by workers.
fn scatter(client: &Client, load: Load, in_flight: u64) -> Result<Scattered> {
    let options = ScatterOptions { nbytes_in_flight: in_flight, ..ScatterOptions::default() };
    let values = stream::iter((0..load.n_values).map(|seed| value(seed, load.nbytes)));
    Ok(block_on(client.scatter_stream(values, options))?)
}

/// Until all have come back, in order, and every one has been found to be right.
fn gather(scattered: &Scattered, load: Load, in_flight: u64) -> Result<()> {
    let mut gathering = scattered.gather_all(GatherOptions { nbytes_in_flight: in_flight, ..GatherOptions::default() });
    let mut n_come = 0;
    while let Some((_, outcome)) = block_on(gathering.next()) {
        ensure!(is_value(&outcome?, n_come, load.nbytes), "value {n_come} is wrong");
        n_come += 1;
    }
    ensure!(n_come == load.n_values, "{n_come} of {} values came back", load.n_values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rask::LocalOptions;

    use super::super::cluster::registry;
    use super::*;

    #[test]
    fn another_value_is_not_the_one() {
        for nbytes in [1, 8, 10_000, NOISE_NBYTES + 10_003] {
            let made = value(3, nbytes);
            assert!(is_value(&made, 3, nbytes));
            assert!(!is_value(&made, 4, nbytes));
            assert!(!is_value(&value(3, nbytes + 1), 3, nbytes));
            for at in [0, nbytes / 2, nbytes - 1] {
                let mut bytes = made.downcast::<Opaque>().unwrap().0.to_vec();
                bytes[at] ^= 1;
                assert!(!is_value(&Value::new(Opaque(bytes.into())), 3, nbytes), "byte {at} of {nbytes} is another");
            }
        }
    }

    #[test]
    fn what_comes_back_wrong_is_an_error() {
        let client = Client::local(LocalOptions { n_workers: 2, ..LocalOptions::new(registry()) }).unwrap();
        let load = Load { n_values: 20, nbytes: 50_000 };
        let scattered = scatter(&client, load, 200_000).unwrap();
        gather(&scattered, load, 200_000).unwrap();
        assert!(gather(&scattered, Load { n_values: 21, ..load }, 200_000).is_err());
        assert!(gather(&scattered, Load { nbytes: 50_001, ..load }, 200_000).is_err());
    }
}
