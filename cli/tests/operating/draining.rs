//! Workers that are told to stop: what they wait for, what they say of what is lost, and how they end.

use std::time::{Duration, Instant};

use futures::executor::block_on;

use crate::support::{Cluster, single, submit};

#[test]
fn the_last_worker_says_what_goes_with_it() {
    let mut cluster = Cluster::start(1);
    let client = cluster.client();
    let job = submit(&client, "kept", single("precious", "core.noop", "{}"), false);
    block_on(job.wait()).unwrap();
    let worker = &mut cluster.workers[0];
    worker.signal("TERM");
    assert_eq!(worker.end(), Some(1), "{}", worker.said());
    worker.wait_for(&["error: left as the last worker", "1 result", "precious of g0"]);
    cluster.scheduler.wait_for(&["WARN", "worker \"w0\" leaves", "1 results", "precious of g0"]);
    drop(job);
}

#[test]
fn a_worker_with_nothing_to_lose_leaves_well_also_when_its_terminal_goes() {
    let mut cluster = Cluster::start(2);
    let client = cluster.client();
    let job = submit(&client, "kept", single("precious", "core.noop", "{}"), false);
    block_on(job.wait()).unwrap();
    let worker = &mut cluster.workers[0];
    worker.signal("HUP");
    worker.wait_for(&["asked to stop", "30 s"]);
    assert_eq!(worker.end(), Some(0), "{}", worker.said());
    cluster.scheduler.wait_for(&["INFO", "worker \"w0\" leaves; nothing is lost with it"]);
    block_on(client.gather(job.result_id(crate::support::FIRST))).unwrap();
}

#[test]
fn the_limit_of_draining_is_a_flag_and_running_over_it_is_told() {
    let mut cluster = Cluster::start(0);
    cluster.add_worker(&["--name", "hurried", "--drain-limit", "500ms"]);
    let client = cluster.client();
    let job = submit(&client, "long", single("sleeper", "core.sleep", r#"{"seconds": 600}"#), false);
    while cluster.status()["workers"][0]["n_executing"] != 1 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let begun = Instant::now();
    let worker = &mut cluster.workers[0];
    worker.signal("TERM");
    assert_eq!(worker.end(), Some(1), "{}", worker.said());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    worker.wait_for(&["error: left before everything was moved", "1 task cut short", "0 results"]);
    worker.wait_for(&["hint:", "--drain-limit, 500ms here"]);
    drop(job);
}
