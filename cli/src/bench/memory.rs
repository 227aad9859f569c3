//! `rask bench memory`: workloads of several times the workers' memory, and what memory they take.
//!
//! A scheduler and workers run as processes, anew for each case. Peak memory is the kernel's high-water mark of the workers
//! (`VmHWM`), added up. The clock runs from submission until the last result is known to be done; then that result is compared
//! with the same sum made here, so that whatever was spilled has come back as it was.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use futures::executor::block_on;
use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, Finished, GraphBuilder, Part, Source, TaskIdx};
use rask::{Client, ClusterOptions, Job, LocalCluster, SubmitOptions};
use rask_worker::store::memory::read_nbytes;
use serde_json::json;

use super::cluster::{finish, registry};
use super::kernels::{sum_of_chunk, total_of};
use super::round;

/// Inputs of a task that adds up.
const FAN_IN: usize = 8;
/// Workers say how they are once a second.
pub(super) const STATUS_INTERVAL: Duration = Duration::from_millis(1_200);

/// A workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Case {
    /// Chunks that stay, several times the memory of all workers, and then their sum.
    PersistedSum,
    /// The sum of as many chunks that nobody keeps.
    StreamingSum,
    /// Rows of one and a half times the memory, regrouped as columns through one gather group, and the sum of these.
    Rechunk,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::PersistedSum => "persisted-sum",
            Self::StreamingSum => "streaming-sum",
            Self::Rechunk => "rechunk",
        }
    }
}

#[derive(Args)]
pub(super) struct MemoryArgs {
    /// Workloads; several, separated by commas, run one after another [default: all]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    case: Vec<Case>,
    /// Worker processes, of one thread each.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Memory limit of all workers together.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = crate::arguments::parse_nbytes)]
    memory: u64,
    /// Bytes of all chunks of the sums [default: four times the memory]
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::parse_nbytes)]
    data: Option<u64>,
    /// Bytes of a chunk.
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = crate::arguments::parse_nbytes)]
    chunk: u64,
    /// Directory for spill files [default: one in the temporary directory]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<std::path::PathBuf>,
    /// Log of the workers, to standard error, such as warn
    #[arg(long, value_name = "LEVEL")]
    worker_log: Option<String>,
}

pub(super) fn run(args: &MemoryArgs) -> Result<()> {
    ensure!(args.chunk >= 4_096 && args.chunk.is_multiple_of(64), "a chunk has 4 KiB at least, and a multiple of 64 bytes");
    let cases = if args.case.is_empty() { Case::value_variants() } else { &args.case };
    for &case in cases {
        measure(case, args)?;
    }
    Ok(())
}

fn measure(case: Case, args: &MemoryArgs) -> Result<()> {
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let options = ClusterOptions {
        memory_limit: args.memory / u64::from(args.workers),
        spill_dir: args.spill_dir.clone(),
        log: args.worker_log.clone(),
        ..ClusterOptions::new(binary, args.workers)
    };
    let cluster = block_on(LocalCluster::processes(options))?;
    let client = block_on(cluster.client(registry()))?;
    let watch = PeakWatch::start(&cluster.process_ids()[1..]);
    let data = match case {
        Case::PersistedSum | Case::StreamingSum => args.data.unwrap_or(args.memory * 4),
        Case::Rechunk => args.memory / 2 * 3,
    };
    let n_chunks = u32::try_from(data.div_ceil(args.chunk)).context("too many chunks")?;
    let begun = Instant::now();
    let sum = match case {
        Case::PersistedSum => persisted_sum(&client, n_chunks, args.chunk),
        Case::StreamingSum => streaming_sum(&client, n_chunks, args.chunk),
        Case::Rechunk => rechunk(&client, n_chunks, args.chunk),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let (sum, kept) = sum.with_context(|| format!("{} failed after {seconds:.1} s", case.name()))?;
    thread::sleep(STATUS_INTERVAL);
    let nbytes_spilled: u64 = block_on(client.status())?.workers.iter().map(|worker| worker.status.nbytes_written).sum();
    let peak_rss_nbytes = watch.stop();
    drop(kept);
    let expected = (0..n_chunks).map(|seed| sum_of_chunk(seed.into(), args.chunk)).fold(0, u64::wrapping_add);
    ensure!(sum == expected, "{}: the sum is {sum} and must be {expected}", case.name());
    let line = json!({
        "bench": "memory",
        "case": case.name(),
        "n_workers": args.workers,
        "limit_nbytes": args.memory,
        "data_nbytes": u64::from(n_chunks) * args.chunk,
        "chunk_nbytes": args.chunk,
        "peak_rss_nbytes": peak_rss_nbytes,
        "seconds": round(seconds),
        "nbytes_spilled": nbytes_spilled,
    });
    println!("{line}");
    Ok(())
}

/// The sum, and what has to be held until memory was read.
type Summed = Result<(u64, Vec<Job>)>;

fn fill(graph: &mut GraphBuilder, seed: u32, nbytes: u64, n_parts: u32) -> TaskIdx {
    let family = graph.family("chunk");
    let args = json!({ "seed": seed, "nbytes": nbytes, "n_parts": n_parts });
    let body = graph.body(Body::single("bench.fill", 1, &args.to_string()));
    graph.task_with(KeyRef { family, member: Some(seed) }, body).add()
}

/// Tasks that add up `sources`, as a tree; its root.
pub(super) fn add_up(graph: &mut GraphBuilder, sources: Vec<Source>) -> TaskIdx {
    let (family, body) = (graph.family("total"), graph.body(Body::single("bench.total", 1, "{}")));
    let mut member = 0;
    let mut add = |graph: &mut GraphBuilder, sources: &[Source]| {
        let mut task = graph.task_with(KeyRef { family, member: Some(member) }, body);
        member += 1;
        for &source in sources {
            task = task.input_from(source, Part::WHOLE);
        }
        task.add()
    };
    // Each chunk by itself first: it goes as soon as it has been added up.
    let mut level: Vec<TaskIdx> = sources.iter().map(|source| add(graph, &[*source])).collect();
    while level.len() > 1 {
        let next = level.chunks(FAN_IN).map(|tasks| {
            let sources: Vec<Source> = tasks.iter().map(|task| Source::Task(*task)).collect();
            add(graph, &sources)
        });
        level = next.collect();
    }
    level[0]
}

fn submit(client: &Client, graph: GraphBuilder) -> Result<(Job, Finished)> {
    let finished = finish(graph)?;
    let job = block_on(client.submit(finished.graph.clone(), SubmitOptions::default()))?;
    block_on(job.wait())?;
    Ok((job, finished))
}

/// The graph's one output.
fn output_of(client: &Client, mut graph: GraphBuilder, root: TaskIdx) -> Result<(u64, Job)> {
    graph.output(root);
    let (job, finished) = submit(client, graph)?;
    let root = finished.renumbering[root.index()].context("the sum is not in its own graph")?;
    let sum = total_of(&block_on(job.gather(root))?).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((sum, job))
}

fn persisted_sum(client: &Client, n_chunks: u32, nbytes: u64) -> Summed {
    let mut graph = GraphBuilder::new();
    let chunks: Vec<TaskIdx> = (0..n_chunks).map(|seed| fill(&mut graph, seed, nbytes, 0)).collect();
    chunks.iter().for_each(|chunk| graph.output(*chunk));
    let (persisted, finished) = submit(client, graph)?;
    let mut graph = GraphBuilder::new();
    let mut sources = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let Some(idx) = finished.renumbering[chunk.index()] else { bail!("an output is not in its graph") };
        sources.push(Source::External(graph.external(persisted.result_id(idx))));
    }
    let root = add_up(&mut graph, sources);
    let (sum, job) = output_of(client, graph, root)?;
    Ok((sum, vec![persisted, job]))
}

fn streaming_sum(client: &Client, n_chunks: u32, nbytes: u64) -> Summed {
    let mut graph = GraphBuilder::new();
    let chunks = (0..n_chunks).map(|seed| Source::Task(fill(&mut graph, seed, nbytes, 0))).collect();
    let root = add_up(&mut graph, chunks);
    let (sum, job) = output_of(client, graph, root)?;
    Ok((sum, vec![job]))
}

fn rechunk(client: &Client, n_chunks: u32, nbytes: u64) -> Summed {
    let mut graph = GraphBuilder::new();
    let rows = (0..n_chunks).map(|seed| fill(&mut graph, seed, nbytes, n_chunks)).collect();
    let (family, body) = (graph.family("column"), graph.body(Body::single("bench.join", 1, "{}")));
    let rows = graph.group(rows);
    let column = |graph: &mut GraphBuilder, idx: u32| {
        graph.task_with(KeyRef { family, member: Some(idx) }, body).input_group(rows, Part(idx)).add()
    };
    let columns = (0..n_chunks).map(|idx| Source::Task(column(&mut graph, idx))).collect();
    let root = add_up(&mut graph, columns);
    let (sum, job) = output_of(client, graph, root)?;
    Ok((sum, vec![job]))
}

/// Reads the high-water marks of processes again and again, so that those of one that dies are known too.
pub(super) struct PeakWatch {
    is_over: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl PeakWatch {
    pub(super) fn start(processes: &[u32]) -> Self {
        let (is_over, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (processes, is_stopped, sum) = (processes.to_vec(), Arc::clone(&is_over), Arc::clone(&peak));
        let thread = thread::spawn(move || {
            let mut peaks = vec![0; processes.len()];
            loop {
                let ends = is_stopped.load(Ordering::Acquire);
                for (peak, process) in peaks.iter_mut().zip(&processes) {
                    *peak = high_water_mark(*process).unwrap_or(0).max(*peak);
                }
                sum.store(peaks.iter().sum(), Ordering::Release);
                if ends {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { is_over, peak, thread }
    }

    /// The marks, added up.
    pub(super) fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Release);
        let _ = self.thread.join();
        self.peak.load(Ordering::Acquire)
    }
}

/// The most memory that a process ever took.
pub(super) fn high_water_mark(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    read_nbytes(&status, "VmHWM")
}

#[cfg(test)]
mod tests {
    use rask::LocalOptions;

    use super::*;

    /// With little memory they run in `cli/tests/it`, in processes of their own: what a limit is held against is the memory of the
    /// whole process, and in this one other tests run.
    #[test]
    fn every_case_gives_the_sum_of_its_chunks() {
        let (n_chunks, nbytes) = (24, 1 << 20);
        let expected = (0..u64::from(n_chunks)).map(|seed| sum_of_chunk(seed, nbytes)).fold(0, u64::wrapping_add);
        let options = LocalOptions { n_workers: 2, n_slots: 1, memory_limit: 0, ..LocalOptions::new(registry()) };
        let client = Client::local(options).unwrap();
        assert_eq!(persisted_sum(&client, n_chunks, nbytes).unwrap().0, expected);
        assert_eq!(streaming_sum(&client, n_chunks, nbytes).unwrap().0, expected);
        assert_eq!(rechunk(&client, n_chunks, nbytes).unwrap().0, expected);
    }

    #[test]
    fn this_process_has_a_high_water_mark() {
        assert!(high_water_mark(std::process::id()).is_some_and(|nbytes| nbytes > 1 << 20));
    }
}
