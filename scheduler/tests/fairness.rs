//! Clients share the workers: what one of them waits for another's tasks is counted, wherever tasks wait.
//!
//! Workers here keep time and start what they were given in the order they are told: round, then task.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Cluster, graph};
use rask_comm::message::FromClient;
use rask_comm::time::Time;
use rask_graphs::{Graph, GraphId, Source, TaskId, WorkerId};
use rask_scheduler::machine::{Config, Event, TaskState};

/// A cluster whose workers take the time that tasks of a graph cost.
struct Play {
    cluster: Cluster,
    /// By graph: microseconds a task, and each task's inputs.
    graphs: BTreeMap<GraphId, (u64, Vec<Vec<TaskId>>)>,
    /// What each worker is at, and when it will have finished.
    running: BTreeMap<WorkerId, (Time, TaskId)>,
    n_finished: BTreeMap<GraphId, u64>,
}

impl Play {
    fn new(config: Config, n_workers: usize) -> Self {
        let cluster = Cluster::with_workers(config, &vec![1; n_workers]);
        Self { cluster, graphs: BTreeMap::new(), running: BTreeMap::new(), n_finished: BTreeMap::new() }
    }

    fn submit(&mut self, client: &str, name: &str, graph: Graph, cost_us: u64) -> GraphId {
        self.submit_with_priority(client, name, graph, cost_us, 0)
    }

    fn submit_with_priority(&mut self, client: &str, name: &str, graph: Graph, cost_us: u64, priority: i32) -> GraphId {
        let id = GraphId(self.cluster.graphs.len() as u32);
        let inputs_of = |idx: usize| {
            let range = graph.input_offsets[idx] as usize..graph.input_offsets[idx + 1] as usize;
            let sources = graph.inputs[range].iter().map(|input| match input.source() {
                Source::Task(source) => TaskId::new(id, source),
                Source::Group(_) | Source::External(_) => panic!("graphs of text have neither"),
            });
            sources.collect()
        };
        self.graphs.insert(id, (cost_us, (0..graph.n_tasks()).map(inputs_of).collect()));
        self.cluster.submit(client, name, graph, priority)
    }

    /// Have every operator of `family` known to take `cost_us`.
    fn teach(&mut self, family: &str, cost_us: u64) {
        let graph = self.submit("teacher", &format!("teach {family}"), graph(&format!("{family}*")), cost_us);
        self.run_until(|play| play.n_finished(graph) == 1);
    }

    fn n_finished(&self, graph: GraphId) -> u64 {
        self.n_finished.get(&graph).copied().unwrap_or_default()
    }

    /// Every worker that has come to rest starts the first of its runs that has its inputs.
    fn start(&mut self) {
        let (machine, running) = (&self.cluster.machine, &mut self.running);
        let can_start = |task: &TaskId| {
            let inputs = &self.graphs[&task.graph].1[task.idx.index()];
            inputs.iter().all(|input| machine.task_state(*input) == Some(TaskState::Memory))
        };
        let mut first: BTreeMap<WorkerId, (u32, TaskId)> = BTreeMap::new();
        for (task, (worker, _)) in &self.cluster.given {
            if !running.contains_key(worker) && can_start(task) {
                let rank = (machine.round(*task), *task);
                let best = first.entry(*worker).or_insert(rank);
                *best = rank.min(*best);
            }
        }
        for (worker, (_, task)) in first {
            let end = self.cluster.now.after(Duration::from_micros(self.graphs[&task.graph].0));
            running.insert(worker, (end, task));
        }
    }

    fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        while !is_done(self) {
            self.step();
        }
    }

    /// The run that ends first ends.
    fn step(&mut self) {
        self.start();
        let (worker, (end, task)) = self.running.iter().min_by_key(|(_, run)| **run).expect("a run that can start");
        let (worker, end, task) = (*worker, *end, *task);
        self.running.remove(&worker);
        self.cluster.now = end;
        self.cluster.finish(task, 100, self.graphs[&task.graph].0);
        *self.n_finished.entry(task.graph).or_default() += 1;
    }

    /// Runs of others that are given from now until `n` tasks of `graph` have finished, of which none has been given.
    fn foreign_runs_until(&mut self, graph: GraphId, n_given: u64, n: u64) -> u64 {
        let before = self.cluster.machine.counters().n_runs - n_given;
        self.run_until(|play| play.n_finished(graph) == n);
        self.cluster.machine.counters().n_runs - before - n
    }

    /// Submit ten tasks of another client; how many foreign runs are given before they have finished.
    fn wait_of_ten(&mut self, text: &str, cost_us: u64) -> u64 {
        let before = self.cluster.machine.counters().n_runs;
        let small = self.submit("small", "small", graph(text), cost_us);
        let n_given = self.cluster.machine.counters().n_runs - before;
        let n = self.graphs[&small].1.len() as u64;
        self.foreign_runs_until(small, n_given, n)
    }
}

/// Chains of one operator.
fn chains(n: u32, length: u32) -> Graph {
    let link = |chain: u32, at: u32| {
        let star = if at + 1 == length { "*" } else { "" };
        let input = if at == 0 { String::new() } else { format!(" <- c{chain}x{}", at - 1) };
        format!("c{chain}x{at}{star}{input}")
    };
    let links: Vec<String> = (0..n).flat_map(|chain| (0..length).map(move |at| link(chain, at))).collect();
    let mut graph = graph(&links.join("; "));
    graph.body_of.fill(0);
    graph
}

fn ready_only() -> Config {
    Config { max_early: 0, ..Config::default() }
}

#[test]
fn ten_tasks_are_not_delayed_by_thousands() {
    let mut play = Play::new(ready_only(), 4);
    play.teach("r", 1_000);
    play.teach("s", 1_000);
    let big = play.submit("big", "big", graph("r[4000]*"), 1_000);
    play.run_until(|play| play.n_finished(big) == 500);
    let n_foreign = play.wait_of_ten("s[10]*", 1_000);
    assert!(n_foreign <= 40, "{n_foreign} foreign runs given before the ten had finished");
}

#[test]
fn ten_tasks_of_unknown_cost_are_not_delayed_either() {
    let mut play = Play::new(ready_only(), 4);
    play.teach("r", 1_000);
    let big = play.submit("big", "big", graph("r[4000]*"), 1_000);
    play.run_until(|play| play.n_finished(big) == 500);
    let n_foreign = play.wait_of_ten("s[10]*", 1_000);
    assert!(n_foreign <= 80, "{n_foreign} foreign runs given before the ten had finished");
}

#[test]
fn ten_tasks_that_depend_on_data_are_not_stuck_behind_a_long_backlog() {
    let mut play = Play::new(ready_only(), 1);
    ["d", "c", "e", "f"].iter().for_each(|family| play.teach(family, 1_000));
    let big = play.submit("big", "big", graph("d; c[4000]* <- d"), 1_000);
    play.run_until(|play| play.n_finished(big) == 500);
    let n_foreign = play.wait_of_ten("e; f[10]* <- e", 1_000);
    assert!(n_foreign <= 40, "{n_foreign} foreign runs given before the ten had finished");
}

#[test]
fn ten_roots_have_their_turn_among_chains_that_make_their_own_work() {
    for max_early in [0, 64] {
        for cost_us in [100, 20_000] {
            let mut play = Play::new(Config { max_early, ..Config::default() }, 2);
            ["c0x0", "s"].iter().for_each(|family| play.teach(family, cost_us));
            let big = play.submit("big", "big", chains(20, 60), cost_us);
            play.run_until(|play| play.n_finished(big) == 100);
            let n_foreign = play.wait_of_ten("s[10]*", cost_us);
            // Neighbours, and what the two workers are given ahead of need.
            let most = 30 + 2 * 5_000 / cost_us;
            assert!(n_foreign <= most, "max_early {max_early}, {cost_us} us: {n_foreign} foreign runs given meanwhile");
        }
    }
}

#[test]
fn ten_tasks_with_wishes_are_not_delayed_by_thousands_with_the_same() {
    let mut play = Play::new(ready_only(), 2);
    play.cluster.join("gpu", 1, &[("gpu", 1.0)]);
    ["r", "s"].iter().for_each(|family| play.teach(family, 1_000));
    let big = play.submit("big", "big", graph("r[2000]* gpu=1"), 1_000);
    play.run_until(|play| play.n_finished(big) == 200);
    let n_foreign = play.wait_of_ten("s[10]* gpu=1", 1_000);
    assert!(n_foreign <= 20, "{n_foreign} foreign runs given before the ten had finished");
}

#[test]
fn a_priority_does_not_reach_beyond_its_client() {
    let mut play = Play::new(ready_only(), 2);
    ["r", "s"].iter().for_each(|family| play.teach(family, 1_000));
    let big = play.submit_with_priority("big", "big", graph("r[2000]*"), 1_000, 1_000);
    play.run_until(|play| play.n_finished(big) == 100);
    let n_foreign = play.wait_of_ten("s[10]*", 1_000);
    assert!(n_foreign <= 40, "{n_foreign} foreign runs given before the ten had finished");
}

/// While both have work waiting, what has been given for them differs from their weights' ratio by no more than a run of each:
/// the bound of start-time fair queuing.
#[test]
fn work_given_is_in_the_ratio_of_weights() {
    let draws = [(1.0, 1.0, 1_000, 1_000, 1), (1.0, 3.0, 1_000, 1_000, 2), (1.0, 3.0, 5_000, 700, 3), (0.5, 20.0, 200, 9_000, 5)];
    for (weight_a, weight_b, cost_a, cost_b, n_workers) in draws {
        let mut play = Play::new(ready_only(), n_workers);
        play.cluster.client_of_weight("a", weight_a);
        play.cluster.client_of_weight("b", weight_b);
        ["x", "y"].iter().zip([cost_a, cost_b]).for_each(|(family, cost)| play.teach(family, cost));
        // Somebody keeps the workers busy until both are there.
        let blocker = play.submit("c", "blocker", graph(&format!("z[{}]*", 2 * n_workers)), 50_000);
        let a = play.submit("a", "as", graph("x[1500]*"), cost_a);
        let b = play.submit("b", "bs", graph("y[1500]*"), cost_b);
        play.run_until(|play| play.n_finished(blocker) == 2 * n_workers as u64);
        let bound = cost_a as f64 / weight_a + cost_b as f64 / weight_b;
        let given = |play: &Play, graph| {
            let waiting = (0..1500).filter(|idx| {
                play.cluster.machine.task_state(TaskId::new(graph, rask_graphs::TaskIdx(*idx))) == Some(TaskState::Queued)
            });
            1500 - waiting.count() as u64
        };
        let (first_a, first_b) = (given(&play, a), given(&play, b));
        let mut n_checks = 0;
        loop {
            play.step();
            n_checks += 1;
            let (given_a, given_b) = (given(&play, a), given(&play, b));
            if given_a.max(given_b) == 1500 {
                break;
            }
            let work = |given: u64, cost: u64, weight: f64| (given * cost) as f64 / weight;
            let apart = work(given_a - first_a, cost_a, weight_a) - work(given_b - first_b, cost_b, weight_b);
            assert!(
                apart.abs() <= bound + 1.0,
                "{apart} us apart after {given_a} and {given_b} runs, weights {weight_a}:{weight_b}"
            );
        }
        assert!(n_checks > 100, "{n_checks} checks only");
    }
}

#[test]
fn a_detached_graph_keeps_its_share_when_its_client_goes() {
    let mut play = Play::new(ready_only(), 1);
    ["r", "s"].iter().for_each(|family| play.teach(family, 1_000));
    let client = play.cluster.client("gone");
    let id = GraphId(play.cluster.graphs.len() as u32);
    let options = rask_comm::message::SubmitOptions { name: "left".to_owned(), priority: 0, detached: true };
    let left = graph("r[300]*");
    play.graphs.insert(id, (1_000, vec![Vec::new(); left.n_tasks()]));
    play.cluster.graphs.insert("left".to_owned(), id);
    let message = FromClient::Submit { request: 0, graph: Box::new(left), options };
    play.cluster.event(Event::ClientSaid { client, message });
    play.cluster.event(Event::ClientLost { client });
    let other = play.submit("other", "other", graph("s[300]*"), 1_000);
    play.run_until(|play| play.n_finished(other) == 100);
    let n_left = play.n_finished(id);
    assert!((90..=112).contains(&n_left), "{n_left} runs of the detached graph beside 100 of another client");
}
