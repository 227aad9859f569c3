//! `rask bench taskbench`: the patterns of Task Bench, and the smallest tasks with which they still use half of the machine.
//!
//! One problem size is one graph: a grid of tasks that depend as the pattern says, each doing the same arithmetic and returning
//! the same number of bytes. Its efficiency is its floating-point rate as a share of the peak, the rate of the same kernel on as
//! many threads as there are slots and without any runtime. The peak is measured before and after each graph, so that what else
//! the machine does weighs on both. The clock runs from submission of a finished graph until the client knows that it is done;
//! then some results are fetched and compared with a sequential evaluation.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::executor::block_on;
use rask::Job;
use rask::graphs::keys::KeyRef;
use rask::graphs::{Body, Graph, GraphBuilder, TaskIdx};
use serde_json::{Value, json};

use super::cluster::{Cluster, finish};
use super::kernels::{FLOPS_PER_ITERATION, Mark, peak};
use super::metg::{Metg, Point, search};
#[cfg(test)]
use super::patterns::Pattern;
use super::patterns::Shape;
use super::{TaskbenchArgs, print, round};

/// Time given to each measurement of the peak.
const PEAK_TIME: Duration = Duration::from_millis(60);
/// A graph that takes less says too much about its beginning and its end; one that takes more is waste.
const WANTED_SECONDS: (f64, f64) = (0.2, 1.0);
/// What the number of rows aims at.
const AIM_SECONDS: f64 = 0.4;
/// Time of the kernel alone where the search begins.
const FIRST_SECONDS: f64 = 1e-3;
/// And where it gives up.
const MOST_SECONDS: f64 = 0.25;
/// Rows, as wide as there are slots, of the graph from which the number of rows is learned.
const FIRST_STEPS: u32 = 50;
/// Fewer would be all beginning and end.
const LEAST_STEPS: u32 = 10;
/// Bounds the time that building a graph takes.
const MOST_TASKS: u64 = 1_000_000;
/// The same when the user has said how many rows there are.
const MOST_GIVEN_TASKS: u64 = 20_000_000;
/// Graphs that are run and thrown away, at most, to find the number of rows.
const MOST_TRIALS: u32 = 4;
/// Bounds the results that are all there when a graph ends, for patterns that do not consume them.
const MOST_LEFT_NBYTES: u64 = 512 << 20;
/// Results that are fetched and checked.
const N_CHECKED: usize = 4;

pub(super) fn run(args: &TaskbenchArgs) -> Result<()> {
    ensure!(
        args.payload >= Mark::NBYTES && args.payload.is_multiple_of(Mark::NBYTES),
        "a payload is a multiple of {} bytes",
        Mark::NBYTES
    );
    let n_slots = match args.cluster {
        Some(n_workers) => n_workers,
        None => std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
    };
    let cluster = Cluster::start(args.cluster, n_slots)?;
    for &pattern in &args.pattern {
        let width = args.width.unwrap_or(n_slots);
        let least = pattern.least_steps(width);
        ensure!(args.steps.is_none_or(|steps| steps >= least), "{} of width {width} needs {least} steps", pattern.name());
        let first_steps = (FIRST_STEPS * n_slots / width).clamp(LEAST_STEPS, FIRST_STEPS);
        let shape = Shape { pattern, width, steps: args.steps.unwrap_or(first_steps.max(least)), radix: args.radix };
        ensure!(u64::from(width) * u64::from(shape.steps) <= MOST_GIVEN_TASKS, "more than {MOST_GIVEN_TASKS} tasks");
        let mut bench = Bench { cluster: &cluster, args, n_slots, shape, peaks: Vec::new() };
        let line = bench.measure()?;
        print(&line, args.json);
    }
    Ok(())
}

struct Bench<'a> {
    cluster: &'a Cluster,
    args: &'a TaskbenchArgs,
    n_slots: u32,
    /// As the last graph; its rows are the first guess for the next.
    shape: Shape,
    /// Every peak measured, in floating-point operations a second.
    peaks: Vec<f64>,
}

/// One graph, once.
struct Sample {
    seconds: f64,
    efficiency: f64,
}

impl Bench<'_> {
    fn measure(&mut self) -> Result<Value> {
        // The first measurement also wakes the processor up.
        peak(self.n_slots, PEAK_TIME);
        let iterations_per_second = self.peak() / f64::from(self.n_slots) / FLOPS_PER_ITERATION as f64;
        let iterations_of = |seconds: f64| (seconds * iterations_per_second) as u64;
        let found = match self.args.iterations {
            Some(iterations) => {
                let point = self.point(iterations)?;
                // One problem size is not a search: it bounds nothing.
                (None, vec![point])
            }
            None => {
                let found =
                    search(iterations_of(FIRST_SECONDS), iterations_of(MOST_SECONDS), |iterations| self.point(iterations))?;
                (Some(found.metg), found.points)
            }
        };
        Ok(self.line(found.0, &found.1))
    }

    fn peak(&mut self) -> f64 {
        let peak = peak(self.n_slots, PEAK_TIME);
        self.peaks.push(peak);
        peak
    }

    /// The run of median efficiency among several, of tasks of so many iterations, with as many rows as it takes to take long enough.
    fn point(&mut self, iterations: u64) -> Result<Point> {
        let mut graph = TaskGraph::build(self.shape, iterations, self.args.payload)?;
        let mut samples = vec![self.sample(&graph)?];
        for _ in 0..MOST_TRIALS {
            let steps = self.better_steps(graph.n_tasks, samples[0].seconds);
            if steps == self.shape.steps {
                break;
            }
            self.shape.steps = steps;
            graph = TaskGraph::build(self.shape, iterations, self.args.payload)?;
            samples[0] = self.sample(&graph)?;
        }
        for _ in 1..self.args.repetitions {
            samples.push(self.sample(&graph)?);
        }
        // Both figures from one run: on a machine whose speed changes, those of two runs do not belong together.
        samples.sort_by(|a, b| a.efficiency.total_cmp(&b.efficiency));
        let median = &samples[samples.len() / 2];
        Ok(Point {
            iterations,
            steps: self.shape.steps,
            granularity_us: median.seconds * 1e6 * f64::from(self.n_slots) / graph.n_tasks as f64,
            efficiency: median.efficiency,
        })
    }

    /// The rows with which the present problem would take about as long as it should; as many as it has when it does, or when
    /// the user has said how many.
    fn better_steps(&self, n_tasks: u64, seconds: f64) -> u32 {
        let Shape { pattern, width, steps, .. } = self.shape;
        if self.args.steps.is_some() || (WANTED_SECONDS.0..=WANTED_SECONDS.1).contains(&seconds) {
            return steps;
        }
        let tasks_per_step = n_tasks as f64 / f64::from(steps);
        let most_tasks = if pattern.leaves_results() { MOST_LEFT_NBYTES / self.args.payload as u64 } else { MOST_TASKS };
        let most = (most_tasks.min(MOST_TASKS) as f64 / tasks_per_step) as u32;
        let least = LEAST_STEPS.max(pattern.least_steps(width));
        // A graph with a few rows may be all start-up: do not believe it further than this.
        let wanted = f64::from(steps) * (AIM_SECONDS / seconds).min(50.0);
        (wanted as u32).min(most).max(least)
    }

    fn sample(&mut self, graph: &TaskGraph) -> Result<Sample> {
        let before = self.peak();
        let (elapsed, job) = self.cluster.time(graph.graph.clone())?;
        let after = self.peak();
        graph.check(&job)?;
        drop(job);
        self.cluster.settle()?;
        let seconds = elapsed.as_secs_f64();
        let flops_per_second = (graph.n_tasks * graph.iterations * FLOPS_PER_ITERATION) as f64 / seconds;
        Ok(Sample { seconds, efficiency: flops_per_second / f64::midpoint(before, after) })
    }

    fn line(&self, metg: Option<Metg>, points: &[Point]) -> Value {
        let peak = median(self.peaks.iter().copied());
        let mut line = json!({
            "bench": "taskbench",
            "mode": self.cluster.mode,
            "n_workers": self.cluster.n_workers,
            "n_slots": self.n_slots,
            "pattern": self.shape.pattern.name(),
            "width": self.shape.width,
            "steps": self.shape.steps,
            "payload_nbytes": self.args.payload,
            "repetitions": self.args.repetitions,
            "peak_gflops": round(peak / 1e9),
            "metg50_us": match metg {
                Some(Metg::At(granularity_us)) => json!(round(granularity_us)),
                Some(Metg::Below(_) | Metg::Above(_)) | None => Value::Null,
            },
        });
        match metg {
            Some(Metg::Below(granularity_us)) => line["metg50_below_us"] = json!(round(granularity_us)),
            Some(Metg::Above(granularity_us)) => line["metg50_above_us"] = json!(round(granularity_us)),
            Some(Metg::At(_)) | None => {}
        }
        let kernel_us = |iterations: u64| (iterations * FLOPS_PER_ITERATION) as f64 * f64::from(self.n_slots) / peak * 1e6;
        let points = points.iter().map(|point| {
            json!({
                "iterations": point.iterations,
                "steps": point.steps,
                "kernel_us": round(kernel_us(point.iterations)),
                "granularity_us": round(point.granularity_us),
                "efficiency": round(point.efficiency),
            })
        });
        line["points"] = points.collect();
        line
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// A pattern as tasks, and what its last results must be.
struct TaskGraph {
    graph: Graph,
    n_tasks: u64,
    iterations: u64,
    /// Some outputs of the last row, and the marks they must bear.
    expected: Vec<(TaskIdx, Mark)>,
}

impl TaskGraph {
    /// Tasks are `task-<step x width + point>` and share one body. Results that no task needs are outputs, the others are freed
    /// when they have been used.
    fn build(shape: Shape, iterations: u64, payload_nbytes: usize) -> Result<Self> {
        let mut graph = GraphBuilder::new();
        let args = json!({ "iterations": iterations, "payload_nbytes": payload_nbytes });
        let (family, body) = (graph.family("task"), graph.body(Body::single("bench.compute", 1, &args.to_string())));
        // By point, the task of the row before and its mark; points outside that row are not looked at.
        let mut last: Vec<(TaskIdx, Mark)> = Vec::new();
        for step in 0..shape.steps {
            let mut row = vec![(TaskIdx(0), Mark { depth: 0, digest: 0 }); shape.width as usize];
            for point in shape.row(step) {
                let inputs = shape.dependencies(step, point).into_iter().map(|point| last[point as usize]);
                let (tasks, marks): (Vec<TaskIdx>, Vec<Mark>) = inputs.unzip();
                let member =
                    step.checked_mul(shape.width).and_then(|first| first.checked_add(point)).context("too many tasks")?;
                let task = graph.task_with(KeyRef { family, member: Some(member) }, body).inputs(tasks).add();
                let mark = Mark::after(marks).map_err(|error| anyhow::anyhow!("{error}"))?;
                row[point as usize] = (task, mark);
            }
            last = row;
        }
        let n_tasks = graph.n_tasks() as u64;
        let finished = finish(graph)?;
        let last_row = shape.row(shape.steps - 1).take(N_CHECKED).map(|point| last[point as usize]);
        let expected = last_row.filter_map(|(task, mark)| Some((finished.renumbering[task.index()]?, mark))).collect();
        Ok(Self { graph: finished.graph, n_tasks, iterations, expected })
    }

    fn check(&self, job: &Job) -> Result<()> {
        for (task, expected) in &self.expected {
            let value = block_on(job.gather(*task))?;
            let mark = Mark::read(&value).map_err(|error| anyhow::anyhow!("{error}"))?;
            ensure!(mark == *expected, "a result is {mark:?} and must be {expected:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_pattern_runs_and_gives_the_results_of_a_sequential_evaluation() {
        let cluster = Cluster::start(None, 2).unwrap();
        for &pattern in Pattern::value_variants() {
            let shape = Shape { pattern, width: 6, steps: 13, radix: 3 };
            let graph = TaskGraph::build(shape, 5, 64).unwrap();
            assert_eq!(graph.n_tasks, shape.n_tasks());
            assert!(!graph.expected.is_empty());
            let (_, job) = cluster.time(graph.graph.clone()).unwrap();
            graph.check(&job).unwrap();
        }
    }

    #[test]
    fn a_graph_with_another_dependence_is_found_out() {
        let cluster = Cluster::start(None, 1).unwrap();
        let shape = Shape { pattern: Pattern::Stencil1d, width: 4, steps: 9, radix: 3 };
        let right = TaskGraph::build(shape, 1, 16).unwrap();
        let wrong = TaskGraph::build(Shape { pattern: Pattern::Stencil1dPeriodic, ..shape }, 1, 16).unwrap();
        let (_, job) = cluster.time(wrong.graph.clone()).unwrap();
        assert!(right.check(&job).is_err());
        assert!(wrong.check(&job).is_ok());
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
