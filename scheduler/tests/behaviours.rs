//! Behaviours that need counting rather than a transcript: saturation, gravity, trees that lose workers, retirement of many.

mod common;

use std::time::Duration;

use common::{Cluster, graph};
use rask_comm::message::{FailureKind, FromWorker, RunFailure, ToWorker};
use rask_graphs::{Attempt, GraphId, Part, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, TaskState};

fn held_back(saturation: f64) -> Config {
    Config { saturation, prefill: Duration::ZERO, ..Config::default() }
}

#[test]
fn saturation_gives_each_worker_its_slots_times_the_factor_rounded_up() {
    for (factor, expected) in [(1.0, [2, 1]), (1.1, [3, 2]), (2.5, [5, 3])] {
        let mut cluster = Cluster::with_workers(held_back(factor), &[2, 1]);
        cluster.submit("client", "g", graph("r[10]*"), 0);
        let given = [cluster.n_given(WorkerId(0)), cluster.n_given(WorkerId(1))];
        assert_eq!(given, expected, "factor {factor}");
    }
}

#[test]
fn short_tasks_are_given_ahead_and_long_ones_are_not() {
    let config = Config { saturation: 1.0, prefill: Duration::from_millis(5), max_prefill: 64, ..Config::default() };
    for (duration_us, fewest, most) in [(10, 60, 64), (1_000_000, 1, 1)] {
        let mut cluster = Cluster::with_workers(config.clone(), &[1]);
        cluster.submit("client", "g", graph("r[500]*"), 0);
        let first = *cluster.given.keys().next().expect("a run");
        cluster.finish(first, 100, duration_us);
        let n = cluster.n_given(WorkerId(0));
        assert!((fewest..=most).contains(&n), "{n} runs of {duration_us} us given");
    }
}

#[test]
fn most_trivial_children_run_where_their_input_is() {
    let mut cluster = Cluster::with_workers(held_back(1.1), &[1; 5]);
    // One child alone, so that children are known to be trivial.
    cluster.submit("client", "warm", graph("child*"), 0);
    let first = cluster.task("child");
    cluster.finish(first, 8, 100);
    cluster.submit("client", "g", graph("big; child[100]* <- big"), 0);
    let big = cluster.task("big");
    cluster.finish(big, 100_000_000, 1_000);
    let mut n_there = 0;
    let home = cluster.machine.who_has(big)[0];
    for _ in 0..100 {
        let (task, (worker, _)) = cluster.given.iter().next().map(|(task, run)| (*task, *run)).expect("children are left");
        n_there += u32::from(worker == home);
        cluster.finish(task, 8, 100);
    }
    assert!(n_there > 80, "{n_there} of 100 children ran where their input is");
}

/// Finish everything, counting how often each task is done; `disturb` is called with the number of finishes so far.
fn drive(cluster: &mut Cluster, mut disturb: impl FnMut(&mut Cluster, usize)) -> Vec<TaskId> {
    let mut done = Vec::new();
    while let Some((task, (worker, _))) = cluster.given.iter().next().map(|(task, run)| (*task, *run)) {
        assert!(cluster.machine.processing_on(task) == Some(worker), "{task} is given, but not processing");
        cluster.finish(task, 100, 1_000);
        done.push(task);
        disturb(cluster, done.len());
        assert!(done.len() < 20_000, "it never ends");
    }
    done
}

fn tree(n_leaves: u32) -> String {
    let mut text = format!("l[{n_leaves}]");
    let (mut below, mut width, mut level) = ("l".to_owned(), n_leaves, 0);
    while width > 1 {
        for at in 0..width / 2 {
            let star = if width == 2 { "*" } else { "" };
            let (left, right) = (2 * at, 2 * at + 1);
            // Each node a family of its own, so that it can be named; levels are told apart by their letter.
            let name = |level: usize, at: u32| if level == 0 { format!("l-{at}") } else { format!("n{level}x{at}") };
            text.push_str(&format!("; n{}x{at}{star} <- {} {}", level + 1, name(level, left), name(level, right)));
        }
        below.clear();
        width /= 2;
        level += 1;
    }
    text
}

#[test]
fn a_tree_of_256_leaves_survives_two_deaths() {
    let mut cluster = Cluster::with_workers(held_back(1.1), &[2, 2, 2]);
    cluster.submit("client", "g", graph(&tree(256)), 0);
    let done = drive(&mut cluster, |cluster, n| {
        if n == 100 {
            cluster.lose("w0", false);
        }
        if n == 300 {
            cluster.join("w3", 2, &[]);
            cluster.lose("w1", false);
        }
    });
    assert!(cluster.log.iter().any(|line| line == "client: ended g"), "the tree ends");
    assert!(done.len() > 511, "something was made again");
    assert!(done.len() < 2 * 511, "{} runs for 511 tasks and two deaths", done.len());
}

#[test]
fn nine_of_ten_workers_may_leave_at_once_and_nothing_is_made_again() {
    let mut cluster = Cluster::with_workers(held_back(1.1), &[1; 10]);
    cluster.submit("client", "g", graph("x[40]; y[40]* <- x"), 0);
    for _ in 0..40 {
        let task = *cluster.given.keys().next().expect("work is left");
        cluster.finish(task, 1_000, 1_000);
    }
    cluster.take_log();
    let n_runs = cluster.machine.counters().n_runs;
    let in_memory: Vec<TaskId> =
        cluster.tasks.values().copied().filter(|task| cluster.machine.task_state(*task) == Some(TaskState::Memory)).collect();
    for at in 0..9 {
        cluster.say(WorkerId(at), FromWorker::Retiring);
    }
    let mut n_left = 0;
    for _ in 0..1_000 {
        let log = cluster.take_log();
        if log.is_empty() && n_left == 9 {
            break;
        }
        for line in log {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words[0].trim_end_matches(':');
            match words[1] {
                "revoke" => {
                    let task = cluster.task(words[2]);
                    if let Some((worker, attempt)) = cluster.given.remove(&task) {
                        cluster.say(worker, FromWorker::Revoked { task, attempt, given_up: true });
                    }
                }
                "replicate" => {
                    let (task, by) = (cluster.task(words[2]), cluster.worker(name));
                    let (attempt, from) = (cluster.machine.attempt(task), cluster.machine.who_has(task)[0]);
                    cluster.say(by, FromWorker::Fetched { task, attempt, nbytes: 1, from, duration_us: 1 });
                }
                "leave" => {
                    cluster.lose(name, true);
                    n_left += 1;
                }
                _ => {}
            }
        }
    }
    assert_eq!(n_left, 9, "all nine have left");
    for task in in_memory {
        assert_eq!(cluster.machine.task_state(task), Some(TaskState::Memory), "{task} survived");
    }
    let done = drive(&mut cluster, |_, _| {});
    assert_eq!(cluster.machine.counters().n_lost_results, 0);
    assert_eq!(done.len(), 40, "the other half is done once each");
    assert!(cluster.machine.counters().n_runs >= n_runs, "runs only grow");
}

#[test]
fn messages_and_transitions_of_fixed_graphs_do_not_grow_unnoticed() {
    // (graph, messages to anybody, transitions). A change here is a change of the protocol's cost: look before accepting.
    let cases = [("r[100]*", 206, 200), ("a; b <- a; c <- b; d* <- c", 17, 14), ("x[10]; y[10]* <- x", 38, 60)];
    for (text, n_messages, n_transitions) in cases {
        let mut cluster = Cluster::with_workers(held_back(1.0), &[1]);
        cluster.submit("client", "g", graph(text), 0);
        cluster.run_to_end();
        let counted = (cluster.n_messages, cluster.machine.counters().n_transitions);
        assert!(cluster.log.iter().any(|line| line == "client: ended g"), "{text} ends");
        assert_eq!(counted, (n_messages, n_transitions), "{text}");
    }
}

fn no_luck() -> RunFailure {
    RunFailure { kind: FailureKind::Operator, operator: "x".to_owned(), message: "no luck".to_owned() }
}

/// What might be late cannot be told from a lie; it changes nothing that is another's.
#[test]
fn a_worker_that_speaks_for_another_changes_nothing() {
    let mut cluster = Cluster::with_workers(held_back(1.0), &[1, 1, 1]);
    cluster.submit("client", "g", graph("x on=w0; y* <- x on=w1; z* on=w0"), 0);
    let (x, y) = (cluster.task("x"), cluster.task("y"));
    let (honest, liar) = (cluster.worker("w0"), cluster.worker("w2"));
    let attempt = Attempt(1);
    let lies = |task, other| {
        [
            FromWorker::Finished { task, attempt, nbytes: 8, n_parts: 0, duration_us: 1 },
            FromWorker::Failed { task, attempt, failure: no_luck() },
            FromWorker::Revoked { task, attempt, given_up: true },
            FromWorker::Executing { task, attempt },
            FromWorker::Burdened { task, attempt },
            FromWorker::Lost { task },
            FromWorker::NotReplicated { task },
            FromWorker::InputLost { task: y, attempt, input: other, holders: vec![honest] },
        ]
    };
    for lie in lies(x, x) {
        // Of y nothing has been given to anybody, so whoever speaks of its run is closed; see the other test.
        if !matches!(lie, FromWorker::InputLost { .. }) {
            cluster.say(liar, lie);
        }
    }
    assert_eq!(cluster.machine.processing_on(x), Some(honest));
    cluster.finish(x, 8, 1);
    for lie in lies(x, x) {
        cluster.say(liar, lie);
        assert_eq!(cluster.machine.who_has(x), [honest]);
        assert_eq!(cluster.machine.processing_on(y), Some(cluster.worker("w1")));
    }
    // One that says it holds what it does not is asked for it, and is believed that no longer.
    cluster.say(liar, FromWorker::Fetched { task: x, attempt, nbytes: 8, from: honest, duration_us: 1 });
    assert_eq!(cluster.machine.who_has(x), [honest, liar]);
    let (worker, attempt) = cluster.take_run(y);
    cluster.say(worker, FromWorker::InputLost { task: y, attempt, input: x, holders: vec![liar] });
    assert_eq!(cluster.machine.who_has(x), [honest]);
    cluster.run_to_end();
    assert!(cluster.log.iter().any(|line| line == "client: ended g"));
    assert_eq!(cluster.machine.counters().n_lost_results, 0);
}

#[test]
fn what_workers_write_to_spill_files_is_in_the_graphs_statistics() {
    let mut cluster = Cluster::with_workers(held_back(1.0), &[1, 1]);
    cluster.submit("client", "g", graph("x; y* <- x"), 0);
    cluster.submit("client", "h", graph("z*"), 0);
    let (g, h) = (cluster.graphs["g"], cluster.graphs["h"]);
    for (worker, graph, nbytes) in [("w0", g, 70), ("w1", g, 7), ("w1", h, 500)] {
        cluster.say(cluster.worker(worker), FromWorker::Spilled { graph, nbytes });
    }
    cluster.run_to_end();
    assert_eq!((cluster.stats[&g].nbytes_spilled, cluster.stats[&h].nbytes_spilled), (77, 500));
}

#[test]
fn what_nobody_offers_is_told_in_the_status_until_somebody_comes_who_does() {
    let mut cluster = Cluster::with_workers(Config { no_worker_grace: Duration::MAX, ..held_back(1.0) }, &[1]);
    cluster.submit("client", "g", graph("x[3]* gpu=2; y* on=elsewhere; z*"), 0);
    cluster.run_to_end();
    cluster.pass(Duration::from_secs(1_000));
    let unmet = cluster.machine.status().unmet;
    let wishes: Vec<_> = unmet.iter().map(|unmet| (&unmet.resources[..], &unmet.workers[..], unmet.n_tasks)).collect();
    assert_eq!(wishes, [(&[("gpu".to_owned(), 2.0)][..], &[][..], 3), (&[], &["elsewhere".to_owned()], 1)]);
    cluster.join("elsewhere", 1, &[("gpu", 2.0)]);
    assert_eq!(cluster.machine.status().unmet, []);
    cluster.run_to_end();
    assert!(cluster.log.iter().any(|line| line == "client: ended g"));
    assert!(!cluster.log.iter().any(|line| line.contains("failed")), "{:?}", cluster.log);
}

#[test]
fn a_worker_that_says_what_cannot_be_is_closed_and_believed_nothing_more() {
    let task = |graph, idx| TaskId::new(GraphId(graph), TaskIdx(idx));
    let finished =
        |task, attempt, nbytes| FromWorker::Finished { task, attempt: Attempt(attempt), nbytes, n_parts: 0, duration_us: 1 };
    let lies = [
        finished(task(0, 0), 2, 8),
        finished(task(0, 9), 1, 8),
        finished(task(7, 0), 1, 8),
        finished(task(0, 0), 1, u64::MAX),
        FromWorker::Executing { task: task(0, 0), attempt: Attempt(5) },
        FromWorker::FetchedParts { graph: GraphId(3), nbytes: 1 },
        FromWorker::Spilled { graph: GraphId(3), nbytes: 1 },
        FromWorker::Spilled { graph: GraphId(0), nbytes: u64::MAX },
        FromWorker::Burdened { task: task(0, 0), attempt: Attempt(2) },
        FromWorker::Fetched { task: task(0, 0), attempt: Attempt(2), nbytes: 8, from: WorkerId(1), duration_us: 1 },
        FromWorker::Failed { task: task(0, 5), attempt: Attempt(1), failure: no_luck() },
        FromWorker::Revoked { task: task(0, 1), attempt: Attempt(9), given_up: true },
        FromWorker::InputLost { task: task(0, 0), attempt: Attempt(1), input: task(0, 1), holders: vec![WorkerId(1)] },
        FromWorker::Lost { task: task(0, 7) },
        FromWorker::NotReplicated { task: task(9, 0) },
    ];
    for lie in lies {
        let mut cluster = Cluster::with_workers(held_back(1.0), &[1, 1]);
        cluster.submit("client", "g", graph("x[2]*"), 0);
        let (liar, mut out) = (cluster.worker("w0"), Actions::default());
        cluster.machine.handle(cluster.now, Event::WorkerSaid { worker: liar, message: lie.clone() }, &mut out);
        cluster.machine.validate();
        assert_eq!(out.close_workers, [liar], "{lie:?}");
        assert!(matches!(out.to_workers[&liar][..], [ToWorker::Close { .. }]), "{lie:?}");
        assert_eq!(cluster.machine.counters().n_expelled, 1);
        // What it says before its connection is closed counts no more; then its run goes elsewhere.
        let (held, (_, attempt)) =
            cluster.given.iter().find(|(_, (at, _))| *at == liar).map(|(task, run)| (*task, *run)).unwrap();
        cluster.say(liar, FromWorker::Finished { task: held, attempt, nbytes: 8, n_parts: 0, duration_us: 1 });
        assert_eq!(cluster.machine.who_has(held), []);
        cluster.lose("w0", false);
        cluster.run_to_end();
        assert_eq!(cluster.machine.who_has(held), [cluster.worker("w1")]);
    }
}

#[test]
fn a_part_that_a_result_does_not_have_fails_the_task_and_is_not_made_again() {
    let mut cluster = Cluster::with_workers(held_back(1.0), &[1]);
    let mut with_part = graph("x; y* <- x");
    with_part.inputs[0].part = Part(5);
    cluster.submit("client", "g", with_part, 0);
    let (x, y) = (cluster.task("x"), cluster.task("y"));
    cluster.finish(x, 100, 1_000);
    cluster.take_log();
    let (worker, attempt) = cluster.take_run(y);
    cluster.say(worker, FromWorker::InputLost { task: y, attempt, input: x, holders: vec![worker] });
    let log = cluster.take_log();
    assert!(
        log.iter().any(|line| line.contains("failed y: Operator") && line.contains("takes part 5 of the result of \"x\"")),
        "{log:?}"
    );
    assert!(!log.iter().any(|line| line.contains("run x")), "{log:?}");
}
