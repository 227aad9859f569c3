//! Every graph of up to four tasks, every single worker loss at every point: it always ends, and loses only what it must.
//!
//! Small enough to try everything, so nothing here is drawn.

mod common;

use std::time::Duration;

use common::{Cluster, graph};
use rask_scheduler::machine::Config;

/// All graphs of `n` tasks: for each pair an edge or none; outputs are the sinks.
fn graphs(n: usize) -> Vec<String> {
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
    (0..1usize << pairs.len())
        .map(|edges| {
            let has = |from, to| pairs.iter().position(|pair| *pair == (from, to)).is_some_and(|at| edges >> at & 1 == 1);
            let tasks = (0..n).map(|to| {
                let star = if (to + 1..n).any(|user| has(to, user)) { "" } else { "*" };
                let inputs: Vec<String> = (0..to).filter(|from| has(*from, to)).map(|from| format!("t{from}")).collect();
                format!("t{to}{star} <- {}", inputs.join(" "))
            });
            tasks.collect::<Vec<_>>().join("; ")
        })
        .collect()
}

/// Run `text` on two workers and lose `victim` after `at` finishes; gives the number of finishes.
fn try_loss(text: &str, n_tasks: usize, victim: &str, at: usize) -> usize {
    let config = Config { saturation: 1.0, prefill: Duration::ZERO, ..Config::default() };
    let mut cluster = Cluster::with_workers(config, &[1, 1]);
    cluster.submit("client", "g", graph(text), 0);
    let mut n_done = 0;
    loop {
        if n_done == at && cluster.workers.contains_key(victim) {
            cluster.lose(victim, false);
        }
        let Some(task) = cluster.given.keys().next().copied() else { break };
        cluster.finish(task, 100, 1_000_000);
        n_done += 1;
        assert!(n_done <= 4 * n_tasks, "{text}, {victim} lost after {at}: it never ends");
    }
    let n_ended = cluster.log.iter().filter(|line| *line == "client: ended g").count();
    assert_eq!(n_ended, 1, "{text}, {victim} lost after {at}: {:#?}", cluster.log);
    assert!(!cluster.log.iter().any(|line| line.contains("failed")), "{text}, {victim} lost after {at}: {:#?}", cluster.log);
    // Every output is in memory at the end, whatever was lost.
    for (name, task) in &cluster.tasks {
        if text.contains(&format!("{name}*")) {
            assert!(!cluster.machine.who_has(*task).is_empty(), "{text}, {victim} lost after {at}: {name} is gone");
        }
    }
    n_done
}

#[test]
fn every_small_graph_survives_every_single_loss() {
    let mut n_cases = 0;
    for n_tasks in 1..=4 {
        for text in graphs(n_tasks) {
            assert_eq!(try_loss(&text, n_tasks, "w0", usize::MAX), n_tasks, "{text}: nothing lost, nothing repeated");
            for victim in ["w0", "w1"] {
                for at in 0..=n_tasks {
                    let n_done = try_loss(&text, n_tasks, victim, at);
                    assert!(n_done <= n_tasks + at, "{text}, {victim} lost after {at}: {n_done} runs");
                    n_cases += 1;
                }
            }
        }
    }
    assert_eq!(n_cases, 2 * (2 + 2 * 3 + 8 * 4 + 64 * 5), "all of them");
}
