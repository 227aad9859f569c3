//! Uploads as the scheduler decides them: balance, room, turns among clients, loss, refusals, and clients that lie.

mod common;

use std::time::Duration;

use common::Cluster;
use rask_comm::Ticket;
use rask_comm::message::{FromClient, FromWorker, Spread, SubmitOptions, WorkerStatus};
use rask_graphs::{Attempt, ClientId, GraphId, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, TaskState};

const MIB: u64 = 1 << 20;

/// Scatter values of these sizes, called `name`; gives their graph.
fn scatter(cluster: &mut Cluster, client: &str, name: &str, nbytes: &[u64], spread: Spread) -> GraphId {
    let client = cluster.client(client);
    let id = GraphId(cluster.graphs.len() as u32);
    cluster.graphs.insert(name.to_owned(), id);
    for idx in 0..nbytes.len() as u32 {
        cluster.tasks.insert(format!("{name}-{idx}"), TaskId::new(id, TaskIdx(idx)));
    }
    let options = SubmitOptions { name: name.to_owned(), ..SubmitOptions::default() };
    let (nbytes, ticket) = (nbytes.to_vec(), Ticket([7; 16]));
    let message = FromClient::Scatter { request: id.0, nbytes, ticket, spread, options };
    cluster.event(Event::ClientSaid { client, message });
    id
}

fn not_uploaded(cluster: &mut Cluster, client: ClientId, task: TaskId, attempt: Attempt, is_final: bool) {
    let message = FromClient::NotUploaded { task, attempt, is_final, reason: "no way".to_owned() };
    cluster.event(Event::ClientSaid { client, message });
}

fn one_copy() -> Spread {
    Spread::default()
}

#[test]
fn values_go_where_the_least_is_and_no_more_at_once_than_there_is_room_for() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1, 1]);
    // The first has half of what it could hold: the others go to the second, until that has as much.
    let status = WorkerStatus { nbytes_results: 100 * MIB, ..WorkerStatus::default() };
    cluster.say(WorkerId(0), FromWorker::Status(Box::new(status)));
    let graph = scatter(&mut cluster, "client", "v", &[40 * MIB; 10], one_copy());
    // An eighth of a worker's gibibyte is on its way to it at most.
    assert_eq!((cluster.n_given(WorkerId(0)), cluster.n_given(WorkerId(1))), (3, 3));
    let first = cluster.log.iter().find(|line| line.contains("upload")).cloned();
    assert_eq!(first.as_deref(), Some("client: upload v-0 to w1"));
    while let Some(task) = cluster.given.keys().next().copied() {
        cluster.finish(task, 40 * MIB, 1);
    }
    let held = |worker| (0..10).filter(|idx| cluster.machine.who_has(TaskId::new(graph, TaskIdx(*idx))) == [worker]).count();
    assert_eq!((held(WorkerId(0)), held(WorkerId(1))), (4, 6));
}

#[test]
fn uploads_take_no_slot() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1]);
    scatter(&mut cluster, "client", "v", &[MIB; 50], one_copy());
    assert_eq!(cluster.n_given(WorkerId(0)), 50);
    cluster.submit("client", "g", common::graph("a*"), 0);
    let a = cluster.task("a");
    assert_eq!(cluster.machine.processing_on(a), Some(WorkerId(0)));
}

#[test]
fn clients_take_turns() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1]);
    scatter(&mut cluster, "first", "a", &[60 * MIB; 20], one_copy());
    scatter(&mut cluster, "second", "b", &[60 * MIB; 2], one_copy());
    while let Some(task) = cluster.given.keys().next_back().copied() {
        cluster.finish(task, 60 * MIB, 1);
    }
    let order: Vec<&str> = cluster.log.iter().filter_map(|line| line.split_once(": upload ")?.1.split('-').next()).collect();
    // The second does not wait for the first, and the first has half of its window while the second uploads.
    assert_eq!(order[..5], ["a", "a", "b", "b", "a"]);
}

#[test]
fn a_client_that_announces_and_never_uploads_keeps_nobody_waiting() {
    for nbytes in [500 * MIB, 1] {
        let mut cluster = Cluster::with_workers(Config::default(), &[1, 1]);
        scatter(&mut cluster, "greedy", "a", &vec![nbytes; 60_000], one_copy());
        assert!(cluster.given.len() < 60_000, "{} are asked for at once", cluster.given.len());
        let modest = scatter(&mut cluster, "modest", "b", &[1_000; 100], one_copy());
        let asked = cluster.log.iter().filter(|line| line.starts_with("modest: upload b-")).count();
        assert_eq!(asked, 100, "beside {nbytes} bytes that never come");
        while let Some(task) = cluster.given.keys().copied().find(|task| task.graph == modest) {
            cluster.finish(task, 1_000, 1);
        }
        assert_eq!(cluster.stats.get(&modest).map(|stats| stats.n_executions), Some(100));
    }
}

#[test]
fn what_was_lost_is_asked_for_again_and_its_worker_s_death_blames_nobody() {
    let mut cluster = Cluster::with_workers(Config { allowed_failures: 0, ..Config::default() }, &[1, 1]);
    let graph = scatter(&mut cluster, "client", "v", &[MIB; 4], one_copy());
    let tasks: Vec<TaskId> = (0..4).map(|idx| TaskId::new(graph, TaskIdx(idx))).collect();
    cluster.finish(tasks[0], MIB, 1);
    cluster.lose("w0", false);
    assert!(tasks.iter().all(|task| cluster.machine.task_state(*task) != Some(TaskState::Erred)));
    while let Some(task) = cluster.given.keys().next().copied() {
        cluster.finish(task, MIB, 1);
    }
    assert!(tasks.iter().all(|task| cluster.machine.who_has(*task) == [WorkerId(1)]));
}

#[test]
fn a_worker_that_cannot_be_reached_is_avoided_and_one_failure_too_many_is_final() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1, 1]);
    let client = cluster.client("client");
    let graph = scatter(&mut cluster, "client", "v", &[MIB], one_copy());
    let task = TaskId::new(graph, TaskIdx(0));
    let mut asked = Vec::new();
    while let Some(worker) = cluster.machine.processing_on(task) {
        asked.push(worker.0);
        let attempt = cluster.machine.attempt(task);
        not_uploaded(&mut cluster, client, task, attempt, false);
    }
    assert_eq!(asked, [0, 1, 0, 1]);
    assert_eq!(cluster.machine.task_state(task), Some(TaskState::Erred));
    assert!(cluster.log.iter().any(|line| line.contains("failed v-0: NotUploaded of v-0: no way")), "{:#?}", cluster.log);
}

#[test]
fn word_of_others_uploads_and_of_older_ones_changes_nothing() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1, 1]);
    let (client, stranger) = (cluster.client("client"), cluster.client("stranger"));
    let graph = scatter(&mut cluster, "client", "v", &[MIB], one_copy());
    let task = TaskId::new(graph, TaskIdx(0));
    not_uploaded(&mut cluster, stranger, task, Attempt(1), true);
    not_uploaded(&mut cluster, client, task, Attempt(9), true);
    not_uploaded(&mut cluster, client, TaskId::new(GraphId(99), TaskIdx(0)), Attempt(1), true);
    assert_eq!(cluster.machine.task_state(task), Some(TaskState::Processing));
    not_uploaded(&mut cluster, client, task, Attempt(1), false);
    not_uploaded(&mut cluster, client, task, Attempt(1), true);
    assert_eq!((cluster.machine.attempt(task), cluster.machine.processing_on(task)), (Attempt(2), Some(WorkerId(1))));
    cluster.finish(task, MIB, 1);
    // A worker that says it runs what is uploaded lies.
    let (worker, mut out) = (WorkerId(0), Actions::default());
    let message = FromWorker::Executing { task, attempt: Attempt(1) };
    cluster.machine.handle(cluster.now, Event::WorkerSaid { worker, message }, &mut out);
    assert_eq!(out.close_workers, [worker]);
}

#[test]
fn a_broadcast_spreads_in_waves_and_a_copy_that_fails_is_not_asked_for_again() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1; 6]);
    let spread = Spread { n_copies: u32::MAX, ..Spread::default() };
    let graph = scatter(&mut cluster, "client", "v", &[MIB], spread);
    let task = TaskId::new(graph, TaskIdx(0));
    let replicating = |cluster: &mut Cluster| -> Vec<String> {
        let log = std::mem::take(&mut cluster.log);
        log.iter().filter_map(|line| line.strip_suffix(": replicate v-0").map(str::to_owned)).collect()
    };
    cluster.finish(task, MIB, 1);
    assert_eq!(replicating(&mut cluster), ["w1", "w2"]);
    let fetched = |worker| FromWorker::Fetched { task, attempt: Attempt(1), nbytes: MIB, from: WorkerId(worker), duration_us: 1 };
    cluster.say(WorkerId(1), fetched(0));
    assert_eq!(replicating(&mut cluster), ["w3", "w4", "w5"]);
    cluster.say(WorkerId(3), FromWorker::NotReplicated { task });
    cluster.say(WorkerId(2), fetched(0));
    assert!(replicating(&mut cluster).is_empty());
    cluster.say(WorkerId(4), fetched(0));
    cluster.say(WorkerId(5), fetched(0));
    assert!(replicating(&mut cluster).is_empty());
    assert_eq!(cluster.machine.who_has(task).len(), 5);
}

#[test]
fn a_client_that_goes_fails_what_others_wait_for() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1]);
    let graph = scatter(&mut cluster, "client", "v", &[MIB; 3], one_copy());
    let client = cluster.client("client");
    cluster.finish(TaskId::new(graph, TaskIdx(0)), MIB, 1);
    cluster.event(Event::ClientLost { client });
    assert_eq!(cluster.machine.n_graphs(), 0);
    assert!(cluster.log.iter().any(|line| line == "w0: free v-0"), "{:#?}", cluster.log);
}

#[test]
fn a_scatter_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::with_workers(Config::default(), &[1]);
    scatter(&mut cluster, "client", "nothing", &[], one_copy());
    scatter(&mut cluster, "client", "many", &vec![1; 70_000], one_copy());
    scatter(&mut cluster, "client", "huge", &[u64::MAX], one_copy());
    scatter(&mut cluster, "client", "none", &[1], Spread { n_copies: 0, ..Spread::default() });
    assert_eq!(cluster.log.iter().filter(|line| line.starts_with("client: rejected")).count(), 4, "{:#?}", cluster.log);
    assert_eq!(cluster.machine.n_graphs(), 0);
}

#[test]
fn what_is_for_a_worker_that_never_comes_fails_after_the_grace_period() {
    let config = Config { no_worker_grace: Duration::from_secs(3), ..Config::default() };
    let mut cluster = Cluster::with_workers(config, &[1]);
    let spread = Spread { workers: vec!["w7".to_owned()], n_copies: 1 };
    scatter(&mut cluster, "client", "v", &[1], spread.clone());
    cluster.pass(Duration::from_secs(2));
    assert!(!cluster.log.iter().any(|line| line.contains("failed")));
    cluster.pass(Duration::from_secs(3));
    assert!(cluster.log.iter().any(|line| line.contains("failed v-0: Unsatisfiable")), "{:#?}", cluster.log);
    scatter(&mut cluster, "client", "u", &[1], spread);
    cluster.join("w7", 1, &[]);
    assert_eq!(cluster.machine.processing_on(cluster.task("u-0")), Some(cluster.worker("w7")));
}
