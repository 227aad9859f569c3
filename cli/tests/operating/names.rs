//! How a scheduler is named and found, and what is said when it is not.

use std::time::{Duration, Instant};

use crate::support::{Cluster, Daemon, Ended, Place};

/// An address at which nobody listens.
fn nobody() -> String {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_port_where_nobody_listens_is_known_at_once() {
    let cluster = Cluster::start(0);
    let place = &cluster.place;
    let address = nobody();
    let begun = Instant::now();
    for command in [&["status"][..], &["cancel", "g1"], &["wait", "g1"]] {
        let ended = place.run(&[command, &["--scheduler", &address]].concat());
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains(&format!("nobody listens at {address}")), "{ended:?}");
        assert!(ended.stderr.contains(&format!("hint: start one with: rask scheduler --listen {address}")), "{ended:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(9), "three times {:?}", begun.elapsed() / 3);
}

#[test]
fn a_worker_says_what_it_waits_for_and_for_how_long() {
    let cluster = Cluster::start(0);
    let place = &cluster.place;
    let address = nobody();
    let mut worker = Daemon::start(place.command(&["worker", "--scheduler", &address, "--patience", "1s"]));
    worker.wait_for(&["waiting for the scheduler at", &address, "(0 of 1 s)", "nobody listens"]);
    assert_eq!(worker.end(), Some(3));
    worker.wait_for(&["error: no scheduler at", "nobody listens"]);
    worker.wait_for(&["hint: start one with", "--patience"]);
}

#[test]
fn what_is_no_address_is_a_mistake_for_every_command() {
    let place = Place::new();
    for (wrong, why) in
        [("127.0.0.1", "no port"), ("tcp://127.0.0.1:1", "without a scheme"), ("no.such.host.invalid:1", "no such")]
    {
        for command in [&["status"][..], &["worker"], &["wait", "g1"]] {
            let ended = place.run(&[command, &["--scheduler", wrong]].concat());
            assert_eq!(ended.code, Some(2), "{command:?} {wrong}: {ended:?}");
            assert!(ended.stderr.contains(why) && ended.stderr.contains("HOST:PORT"), "{command:?} {wrong}: {ended:?}");
        }
    }
}

#[test]
fn names_can_be_listened_on_and_what_cannot_is_refused_in_words() {
    let place = Place::new();
    let scheduler = Daemon::start(place.command(&["scheduler", "--listen", "localhost:0"]));
    let line = scheduler.wait_for(&["scheduler listens on 127.0.0.1:"]);
    let port = line.rsplit(':').next().unwrap().to_owned();
    let ended = place.run(&["status", "--scheduler", &format!("localhost:{port}")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let taken = place.run(&["scheduler", "--listen", &format!("127.0.0.1:{port}")]);
    assert!(taken.code == Some(1) && taken.stderr.contains("hint: is one running already?"), "{taken:?}");
    let foreign = place.run(&["scheduler", "--listen", "192.0.2.1:0"]);
    assert!(foreign.code == Some(1) && foreign.stderr.contains("hint: this host has no such address"), "{foreign:?}");
    let nonsense = place.run(&["scheduler", "--listen", "localhost"]);
    assert!(nonsense.code == Some(2) && nonsense.stderr.contains("cannot listen on \"localhost\""), "{nonsense:?}");
}

/// A name whose first address is one where nobody is, in a mount namespace with a hosts file of its own.
#[test]
fn all_addresses_of_a_name_are_tried() {
    let mut cluster = Cluster::start(1);
    let port = cluster.address.rsplit(':').next().unwrap().to_owned();
    std::fs::write(cluster.place.path("hosts"), "127.0.0.9 head.test\n127.0.0.1 head.test\n").unwrap();
    let name = format!("head.test:{port}");
    let script = "mount --bind hosts /etc/hosts || exit 77; exec \"$@\"";
    let inside = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_rask")]);
        cluster.place.isolate(command.args(arguments));
        command
    };
    let Ok(output) = inside(&["status", "--scheduler", &name]).output() else { return };
    let ended = Ended::of(output);
    if ended.code == Some(77) || ended.stderr.contains("unshare") {
        println!("skipped, since there are no namespaces: {}", ended.stderr.trim());
        return;
    }
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let worker = Daemon::start(inside(&["worker", "--scheduler", &name, "--name", "by-name", "--threads", "1"]));
    worker.wait_for(&["joined the scheduler at", &name]);
    cluster.workers.push(worker);
    assert_eq!(cluster.status()["workers"].as_array().unwrap().len(), 2);
}
