//! `rask bench client`: how fast values go from a client to workers (scatter) and back (gather), by the processes that ship.
//!
//! Two worker processes and a scheduler on loopback. The values are made while they are sent, and looked through when they are
//! back, because a client that streams never has all of them; the time for that, measured beforehand, is printed beside. The most
//! memory that this process, the client, ever took is printed too.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use futures::executor::block_on;
use futures::stream;
use rask::graphs::Value;
use rask::graphs::builtin::Opaque;
use rask::{GatherOptions, ScatterOptions, Scattered};
use serde_json::json;

use super::cluster::Cluster;
use super::memory::high_water_mark;
use super::{print, round};

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 16 values of 64 MiB
    Large,
    /// 10,000 values of 10 kB
    Small,
}

#[derive(Args)]
pub(super) struct ClientArgs {
    /// What travels; several, separated by commas, are measured one after another.
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',', default_value = "large,small")]
    case: Vec<Case>,
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

pub(super) fn run(args: &ClientArgs) -> Result<()> {
    let cluster = Cluster::start_processes(2, true)?;
    // Connections are made before the clock runs.
    let warm = scatter(&cluster, 8, 1 << 20, args.in_flight)?;
    gather(&warm.1, 8, 1 << 20, args.in_flight)?;
    drop(warm);
    for &case in &args.case {
        let (name, n_values, nbytes) = match case {
            Case::Large => ("large", 16, 64 << 20),
            Case::Small => ("small", 10_000, 10_000),
        };
        let making = time(|| (0..n_values).for_each(|seed| drop(std::hint::black_box(value(seed, nbytes)))));
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for _ in 0..args.repetitions {
            cluster.settle()?;
            let (time, scattered) = scatter(&cluster, n_values, nbytes, args.in_flight)?;
            there.push(time);
            back.push(gather(&scattered, n_values, nbytes, args.in_flight)?);
        }
        for (bench, mut times) in [("scatter", there), ("gather", back)] {
            times.sort_unstable();
            let seconds = times[times.len() / 2].as_secs_f64();
            let line = json!({
                "bench": bench,
                "case": name,
                "repetitions": args.repetitions,
                "seconds": round(seconds),
                "mb_per_second": round((n_values * nbytes) as f64 / 1e6 / seconds),
                "values_per_second": round(n_values as f64 / seconds),
                "seconds_to_make_them": round(making.as_secs_f64()),
                "nbytes_in_flight": args.in_flight,
                "peak_client_nbytes": high_water_mark(std::process::id()),
            });
            print(&line, args.json);
        }
    }
    Ok(())
}

/// A value whose every page says which it is.
fn value(seed: usize, nbytes: usize) -> Value {
    let mut bytes = vec![0; nbytes];
    for (at, page) in bytes.chunks_mut(4_096).enumerate() {
        mark(seed, at).to_le_bytes().into_iter().zip(page).for_each(|(from, to)| *to = from);
    }
    Value::new(Opaque(bytes.into()))
}

fn mark(seed: usize, at: usize) -> u64 {
    (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64
}

fn is_value(value: &Value, seed: usize, nbytes: usize) -> bool {
    value.downcast::<Opaque>().is_some_and(|found| {
        let is_page =
            |(at, page): (usize, &[u8])| mark(seed, at).to_le_bytes().iter().zip(page).all(|(wanted, byte)| wanted == byte);
        found.0.len() == nbytes && found.0.chunks(4_096).enumerate().all(is_page)
    })
}

fn time(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

/// From the first value that is made until all are held by workers.
fn scatter(cluster: &Cluster, n_values: usize, nbytes: usize, in_flight: u64) -> Result<(Duration, Scattered)> {
    let begun = Instant::now();
    let options = ScatterOptions { nbytes_in_flight: in_flight, ..ScatterOptions::default() };
    let values = stream::iter((0..n_values).map(|seed| value(seed, nbytes)));
    let scattered = block_on(cluster.client.scatter_stream(values, options))?;
    Ok((begun.elapsed(), scattered))
}

/// Until all have come back, in order, and every page of them has been found to be right.
fn gather(scattered: &Scattered, n_values: usize, nbytes: usize, in_flight: u64) -> Result<Duration> {
    let begun = Instant::now();
    let mut gathering = scattered.gather_all(GatherOptions { nbytes_in_flight: in_flight, ..GatherOptions::default() });
    let mut n_come = 0;
    while let Some((_, outcome)) = block_on(gathering.next()) {
        ensure!(is_value(&outcome?, n_come, nbytes), "value {n_come} is wrong");
        n_come += 1;
    }
    ensure!(n_come == n_values, "{n_come} of {n_values} values came back");
    Ok(begun.elapsed())
}
