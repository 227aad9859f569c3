//! Graphs that are left running: followed from the command line, with their reasons, and by one at a time.

use std::process::Command;

use futures::executor::block_on;
use rask::SubmitError;
use rask::graphs::GraphId;

use crate::support::{Cluster, single, submit};

#[test]
fn what_became_of_a_graph_can_be_waited_for() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    drop(submit(&client, "good", single("one", "core.noop", "{}"), true));
    drop(submit(&client, "bad", single("two", "core.fail", r#"{"message": "out of luck"}"#), true));
    drop(client);
    let good = cluster.run(&["wait", "g0"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.stdout.starts_with("g0 is done: 1 task on 1 worker"), "{good:?}");
    let bad = cluster.run(&["wait", "g1", "--json"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stderr.contains("graph g1 has failed") && bad.stderr.contains("out of luck"), "{bad:?}");
    assert!(bad.stdout.contains(r#""state":"failed""#) && bad.stdout.contains("out of luck"), "{bad:?}");
    let none = cluster.run(&["wait", "g7"]);
    assert!(none.code == Some(1) && none.stderr.contains("there is no graph g7"), "{none:?}");

    let status = cluster.status();
    assert!(status["graphs"][1]["failure"].as_str().unwrap().contains("out of luck"), "{status}");
    let text = cluster.run(&["status"]).stdout;
    assert!(text.contains("g1 has failed: task \"two\" on worker \"w0\": out of luck"), "{text}");
}

#[test]
fn attaching_tells_the_truth_while_the_first_client_is_there() {
    let cluster = Cluster::start(1);
    let (first, second) = (cluster.client(), cluster.client());
    let job = submit(&first, "long", single("one", "core.sleep", r#"{"seconds": 600}"#), true);
    let Err(SubmitError::Rejected(reason)) = block_on(second.attach(job.id())) else { panic!("two follow it") };
    assert!(reason.contains("graph g0 is followed by"), "{reason}");
    let Err(SubmitError::Rejected(reason)) = block_on(second.attach(GraphId(9))) else { panic!("there is no g9") };
    assert!(reason.contains("there is no graph g9"), "{reason}");
    drop((job, first));
    let begun = std::time::Instant::now();
    while block_on(second.attach(GraphId(0))).is_err() {
        assert!(begun.elapsed() < crate::support::PATIENCE, "the first client has gone");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_wait_is_interrupted_like_any_command() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    drop(submit(&client, "long", single("one", "core.sleep", r#"{"seconds": 600}"#), true));
    drop(client);
    let mut waiting = cluster.place.command(&["wait", "g0", "--scheduler", &cluster.address]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(Command::new("kill").args(["-s", "INT", &waiting.id().to_string()]).status().unwrap().success());
    assert!(!waiting.wait().unwrap().success());
    assert_eq!(cluster.status()["graphs"][0]["has_ended"], false, "it goes on");
}
