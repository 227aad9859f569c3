//! Clusters under strain: two clients at once, a killed worker, an interrupted client, a scheduler that is not there.

use std::time::{Duration, Instant};

use crate::support::{Cluster, Place, Running, number};

/// A graph of one task that sleeps.
fn sleeper(seconds: f64) -> String {
    format!("rask = 1\n[task.nap]\nop = 'core.sleep'\nargs = {{ seconds = {seconds:?} }}\n")
}

#[test]
fn a_second_client_is_served_while_the_first_runs() {
    let place = Place::with_examples();
    place.write("long.toml", &sleeper(8.0));
    // Two slots a worker: a run that is queued behind the sleeping one finds the other slot.
    let cluster = Cluster::with_threads(&place, 2, 2);
    let begun = Instant::now();
    let first = Running::start(place.command(["submit", "long.toml", "--json", "--scheduler", &cluster.address]));
    cluster.wait_until(&place, |status| status["graphs"].as_array().is_some_and(|graphs| !graphs.is_empty()));
    let second = cluster.submit(&place, "arrays.toml", &["n=200", "chunk=100"]);
    assert!(number(&second, "norm") > 0.0);
    assert!(begun.elapsed() < Duration::from_secs(8), "the second client waited for the first");
    assert_eq!(first.end().json()["stats"]["n_tasks"], 1);
    // Both clients are gone, and their graphs with them.
    cluster.wait_until(&place, |status| status["graphs"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_killed_worker_costs_time_and_nothing_else() {
    let place = Place::with_examples();
    let settings = ["n=4000", "chunk=250"];
    let expected = place.json(["run", "arrays.toml", "--json", "--set", settings[0], "--set", settings[1]]);
    let mut cluster = Cluster::start(&place, 3);
    let arguments =
        ["submit", "arrays.toml", "--json", "--scheduler", &cluster.address, "--set", settings[0], "--set", settings[1]];
    let submitted = Running::start(place.command(arguments));
    let status = cluster.wait_until(&place, |status| status["graphs"][0]["n_finished"].as_u64().is_some_and(|n| n >= 60));
    assert_eq!(status["graphs"][0]["has_ended"], false, "the graph is too quick for this test: {status}");
    let holder = status["workers"].as_array().unwrap().iter().position(|worker| worker["n_results"].as_u64() > Some(0)).unwrap();
    let name = status["workers"][holder]["name"].as_str().unwrap();
    let victim: usize = name.strip_prefix('w').unwrap().parse().unwrap();
    cluster.workers[victim].signal("KILL");
    let _ = cluster.workers[victim].0.wait();
    let ended = submitted.end();
    let answer = ended.json();
    assert_eq!(answer["outputs"], expected["outputs"]);
    assert_eq!(answer["stats"]["n_workers"], 2);
    let (n_tasks, n_executions) = (answer["stats"]["n_tasks"].as_u64(), answer["stats"]["n_executions"].as_u64());
    assert!(n_executions > n_tasks, "nothing was lost and made again: {answer}");
}

#[test]
fn ctrl_c_cancels_the_graph_on_the_cluster() {
    let place = Place::new();
    place.write("long.toml", &sleeper(600.0));
    let cluster = Cluster::start(&place, 1);
    let submitted = Running::start(place.command(["submit", "long.toml", "--scheduler", &cluster.address]));
    cluster.wait_until(&place, |status| status["graphs"][0]["n_processing"] == 1);
    submitted.signal("INT");
    let ended = submitted.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    cluster.wait_until(&place, |status| status["graphs"].as_array().is_some_and(Vec::is_empty));
    // The slot is free again: the sleeping task noticed that nobody waits for it.
    place.write("short.toml", &sleeper(0.0));
    cluster.submit(&place, "short.toml", &[]);
}

#[test]
fn ctrl_c_ends_a_run_in_this_process() {
    let place = Place::new();
    place.write("long.toml", &sleeper(600.0));
    let running = Running::start(place.command(["run", "long.toml"]));
    std::thread::sleep(Duration::from_secs(5));
    running.signal("INT");
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
}

#[test]
fn no_scheduler_is_an_exit_code_of_its_own() {
    let place = Place::new();
    place.write("long.toml", &sleeper(0.0));
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    for arguments in [
        vec!["submit", "long.toml", "--scheduler", &address],
        vec!["status", "--scheduler", &address],
        vec!["cancel", "g1", "--scheduler", &address],
    ] {
        let ended = place.run(arguments);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains(&format!("error: cannot reach a scheduler at {address}")), "{ended:?}");
        assert!(ended.stderr.contains("start the scheduler first"), "{ended:?}");
    }
}

#[test]
fn a_detached_graph_goes_on_and_can_be_cancelled() {
    let place = Place::new();
    place.write("long.toml", &sleeper(600.0));
    let cluster = Cluster::start(&place, 1);
    let ended = place.run(["submit", "long.toml", "--detach", "--scheduler", &cluster.address]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let id = ended.stdout.trim().to_owned();
    cluster.wait_until(&place, |status| status["graphs"][0]["id"] == id.as_str() && status["graphs"][0]["n_processing"] == 1);
    let cancelled = place.run(["cancel", &id, "--scheduler", &cluster.address]);
    assert_eq!((cancelled.code, cancelled.stdout.trim()), (Some(0), format!("cancelled {id}").as_str()), "{cancelled:?}");
    let again = place.run(["cancel", "g4711", "--scheduler", &cluster.address]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("error: there is no graph g4711\nhint: rask status lists the graphs"), "{again:?}");
}

#[test]
fn a_worker_that_is_asked_to_stop_leaves_in_order() {
    let place = Place::new();
    let mut cluster = Cluster::start(&place, 2);
    let leaving = cluster.workers.remove(0);
    leaving.signal("TERM");
    let ended = leaving.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    cluster.wait_until(&place, |status| status["workers"].as_array().is_some_and(|workers| workers.len() == 1));
}

#[test]
fn a_failing_task_is_named_with_everything_about_it() {
    let place = Place::new();
    let text = "rask = 1\n[task.bad]\nop = 'core.fail'\nargs = { message = 'the disk is on fire' }\n[task.after]\nop = 'core.noop'\n\
                inputs = ['bad']\n[task.good]\nop = 'core.noop'\n\
                [task.too]\nop = 'core.noop'\ninputs = ['bad']\n";
    place.write("bad.toml", text);
    let cluster = Cluster::start(&place, 1);
    let ended = place.run(["submit", "bad.toml", "--scheduler", &cluster.address]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in ["output \"after\"", "core.fail", "the disk is on fire", "\"w0\"", "attempt 1", "task \"bad\""] {
        assert!(ended.stderr.contains(part), "no {part} in {ended:?}");
    }
    assert!(ended.stdout.contains("good: a result of kind \"bytes\", 0 bytes"), "the other output is there: {ended:?}");
}
