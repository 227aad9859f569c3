//! What daemons say at the level that they log at by default.

use futures::executor::block_on;

use crate::support::{Cluster, FIRST, single, submit};

#[test]
fn graphs_and_workers_come_and_go_by_name() {
    let mut cluster = Cluster::start(2);
    let scheduler = &cluster.scheduler;
    scheduler.wait_for(&["INFO", "worker joined", "w0"]);
    let client = cluster.client();
    let job = submit(&client, "nightly", single("one", "core.noop", "{}"), false);
    block_on(job.wait()).unwrap();
    scheduler.wait_for(&["INFO", "graph g0 \"nightly\" accepted from", "1 tasks"]);
    scheduler.wait_for(&["INFO", "graph g0 \"nightly\" done: 1 tasks after", " s"]);
    let job = submit(&client, "wrong", single("two", "core.fail", r#"{"message": "out of luck"}"#), false);
    block_on(job.wait()).unwrap_err();
    scheduler.wait_for(&["WARN", "graph g1 \"wrong\" failed after", "out of luck"]);
    let job = submit(&client, "long", single("three", "core.sleep", r#"{"seconds": 600}"#), false);
    block_on(job.cancel()).unwrap();
    scheduler.wait_for(&["INFO", "graph g2 \"long\" cancelled by", "after"]);
    drop(submit(&client, "left", single("four", "core.sleep", r#"{"seconds": 600}"#), false));
    drop(client);
    // Nobody names workers by their number, which a person has not seen.
    drop(cluster.workers.remove(0));
    let line = cluster.scheduler.wait_for(&["WARN", "worker \"w0\" lost"]);
    assert!(!line.contains("worker w0"), "{line}");
}

#[test]
fn a_client_that_waits_is_told_why() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client();
    let job = submit(&client, "early", single("one", "core.noop", "{}"), false);
    assert_eq!(block_on(job.waits_for("")).unwrap(), "no workers are connected");
    let text = cluster.run(&["status"]).stdout;
    assert!(text.contains("g0 waits: no workers are connected"), "{text}");
    cluster.add_worker(&["--name", "late"]);
    block_on(job.outcome(FIRST)).unwrap();
    assert_eq!(block_on(job.waits_for("no workers are connected")).unwrap_or_default(), "");
}
