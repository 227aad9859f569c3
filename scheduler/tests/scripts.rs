//! Policies as text: commands, a line of dashes, and exactly the actions they must cause.
//!
//! One file of `scripts/` is one story. Lines begin with `#` for comments; blank lines separate steps. Messages that only
//! introduce (welcomes, bodies, peers, progress) are not shown.

mod common;

use std::time::Duration;

use common::{Cluster, graph};
use rask_comm::message::{FailureKind, FromClient, FromWorker, SubmitOptions};
use rask_graphs::Attempt;
use rask_scheduler::machine::{Config, Event};

#[test]
fn every_script_causes_exactly_the_actions_it_names() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("the scripts").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "scripts are missing: {paths:?}");
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a script");
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        wrong.extend(play(&name, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Play a script; what differs is told.
fn play(name: &str, text: &str) -> Vec<String> {
    // Most stories are about something else, and clearer without it.
    let mut config = Config { max_early: 0, retry_pause: Duration::ZERO, ..Config::default() };
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
    while let Some(line) = lines.next_if(|line| line.starts_with("config ") || line.is_empty()) {
        configure(&mut config, line.trim_start_matches("config "));
    }
    let mut cluster = Cluster::new(config);
    let (mut wrong, mut n_steps) = (Vec::new(), 0);
    let mut commands = Vec::new();
    while let Some(line) = lines.next() {
        if line != "----" {
            if !line.is_empty() {
                commands.push(line.to_owned());
                command(&mut cluster, line);
            }
            continue;
        }
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.is_empty()) {
            expected.push(line.to_owned());
        }
        n_steps += 1;
        let actual = cluster.take_log();
        if actual != expected {
            wrong.push(format!(
                "{name}, after \"{}\":\nexpected\n  {}\ngot\n  {}",
                commands.join("; "),
                expected.join("\n  "),
                actual.join("\n  ")
            ));
        }
        commands.clear();
    }
    assert!(n_steps > 0, "{name} expects nothing");
    assert!(commands.is_empty(), "{name} ends with commands that nothing is expected of");
    wrong
}

fn configure(config: &mut Config, settings: &str) {
    for setting in settings.split_whitespace() {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        match key {
            "saturation" => config.saturation = value.parse().expect("a number"),
            "prefill" => config.prefill = Duration::from_millis(value.parse().expect("milliseconds")),
            "early" => config.max_early = value.parse().expect("a number"),
            "allowed_failures" => config.allowed_failures = value.parse().expect("a number"),
            "retry_pause" => config.retry_pause = Duration::from_millis(value.parse().expect("milliseconds")),
            "grace" => config.no_worker_grace = Duration::from_secs(value.parse().expect("seconds")),
            _ => panic!("no setting \"{key}\""),
        }
    }
}

fn number(words: &[&str], key: &str, default: u64) -> u64 {
    let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number")))
}

fn command(cluster: &mut Cluster, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[0] {
        "worker" => {
            let gpu = number(&words, "gpu", 0) as f64;
            let resources: &[(&str, f64)] = if gpu > 0.0 { &[("gpu", gpu)] } else { &[] };
            cluster.memory_limit = Some(number(&words, "memory", 0)).filter(|limit| *limit > 0);
            cluster.join(words[1], number(&words, "slots", 1) as u32, resources);
        }
        "client" => {
            cluster.client_of_weight(words[1], number(&words, "weight", 1) as f64);
        }
        // graph NAME [client=C] [priority=N] : TASKS
        "graph" => {
            let (head, tasks) = line.split_once(" : ").expect("tasks after a colon");
            let client = head.split_whitespace().find_map(|word| word.strip_prefix("client=")).unwrap_or("client");
            let head: Vec<&str> = head.split_whitespace().collect();
            let options = SubmitOptions {
                name: words[1].to_owned(),
                priority: number(&head, "priority", 0) as i32,
                detached: head.contains(&"detached"),
            };
            cluster.submit_as(client, graph(tasks), options);
        }
        "finish" => {
            let task = cluster.task(words[1]);
            cluster.finish(task, number(&words, "nbytes", 100), number(&words, "us", 1_000_000));
        }
        "fail" => {
            let task = cluster.task(words[1]);
            cluster.fail(task, &words[2..].join(" "));
        }
        // too-large TASK: it takes more than the memory of its worker
        "too-large" => {
            let task = cluster.task(words[1]);
            cluster.fail_as(task, FailureKind::TooLarge, "it takes 2.0 GiB of memory");
        }
        "executing" => {
            let task = cluster.task(words[1]);
            cluster.executing(task);
        }
        // The next commands are about the other run of a task that two workers have.
        "other" => cluster.swap(cluster.task(words[1])),
        // What a worker gives back when it is asked to.
        "revoked" => {
            let task = cluster.task(words[1]);
            let (worker, attempt) = cluster.take_run(task);
            cluster.say(worker, FromWorker::Revoked { task, attempt, given_up: true });
        }
        // The worker that is asked to give a run back has begun it.
        "refused" => {
            let task = cluster.task(words[1]);
            let (worker, attempt) = cluster.given[&task];
            cluster.say(worker, FromWorker::Revoked { task, attempt, given_up: false });
        }
        // late TASK WORKER: word that WORKER has given up the first run of TASK, which was taken back meanwhile
        "late" => {
            let (task, worker) = (cluster.task(words[1]), cluster.worker(words[2]));
            cluster.say(worker, FromWorker::Revoked { task, attempt: Attempt(1), given_up: true });
        }
        // fetched TASK by=WORKER from=WORKER
        "fetched" => {
            let task = cluster.task(words[1]);
            let named = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)).expect("a worker");
            let (by, from) = (cluster.worker(named("by=")), cluster.worker(named("from=")));
            let attempt = cluster.machine.attempt(task);
            let message = FromWorker::Fetched { task, attempt, nbytes: 100, from, duration_us: 1 };
            cluster.say(by, message);
        }
        // input-lost TASK INPUT HOLDER: the run of TASK is given back, INPUT could not be had from HOLDER
        "input-lost" => {
            let (task, input, holder) = (cluster.task(words[1]), cluster.task(words[2]), cluster.worker(words[3]));
            let (worker, attempt) = cluster.take_run(task);
            cluster.say(worker, FromWorker::InputLost { task, attempt, input, holders: vec![holder] });
        }
        // burdened TASK WORKER: WORKER asks whether its replica of TASK may go
        "burdened" => {
            let (task, worker) = (cluster.task(words[1]), cluster.worker(words[2]));
            let attempt = cluster.machine.attempt(task);
            cluster.say(worker, FromWorker::Burdened { task, attempt });
        }
        "lost" => {
            let (task, worker) = (cluster.task(words[1]), cluster.worker(words[2]));
            cluster.say(worker, FromWorker::Lost { task });
        }
        "kill" => cluster.lose(words[1], false),
        "left" => cluster.lose(words[1], true),
        "retire" => cluster.say(cluster.worker(words[1]), FromWorker::Retiring),
        "pause" => cluster.set_paused(cluster.worker(words[1]), true),
        "resume" => cluster.set_paused(cluster.worker(words[1]), false),
        "status" => cluster.set_paused(cluster.worker(words[1]), false),
        "cancel" => {
            let (client, graph) = (cluster.client("client"), cluster.graphs[words[1]]);
            cluster.event(Event::ClientSaid { client, message: FromClient::Cancel { request: 0, graph } });
        }
        "release" => {
            let (client, task) = (cluster.client("client"), cluster.task(words[1]));
            cluster.event(Event::ClientSaid { client, message: FromClient::Release { tasks: vec![task] } });
        }
        "locate" => {
            let (client, task) = (cluster.client("client"), cluster.task(words[1]));
            cluster.event(Event::ClientSaid { client, message: FromClient::Locate { tasks: vec![task] } });
        }
        // attach GRAPH CLIENT
        "attach" => {
            let (graph, client) = (cluster.graphs[words[1]], cluster.client(words[2]));
            cluster.event(Event::ClientSaid { client, message: FromClient::Attach { request: 0, graph } });
        }
        "client-gone" => {
            let client = cluster.client(words[1]);
            cluster.event(Event::ClientLost { client });
        }
        "pass" => cluster.pass(Duration::from_secs_f64(words[1].parse().expect("seconds"))),
        _ => panic!("no command \"{line}\""),
    }
}
