//! The state directory as daemons and people meet it: who makes an authority, what is trusted, tokens made and taken back, and what
//! clusters of processes leave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::files::{token, worker};
use crate::support::{Cluster, Ended, PATIENCE, Place, Running};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const ASKING: [&[&str]; 5] =
    [&["status"], &["cancel", "g0"], &["token", "create"], &["token", "list"], &["token", "revoke", "00000000000000000000"]];

/// On a host that never had a scheduler, and where the directory went from under a living one.
#[test]
fn only_a_scheduler_makes_an_authority() {
    let place = Place::new();
    let refuses = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        if arguments[0] != "token" {
            command.args(["--scheduler", "127.0.0.1:1"]);
        }
        let ended = Running::start(command).end();
        assert!(matches!(ended.code, Some(1 | 3)), "{ended:?}");
        assert_eq!(ended.stdout, "", "{ended:?}");
        let state = place.path("state").display().to_string();
        assert!(ended.stderr.contains(&state) && ended.stderr.contains("scheduler"), "{ended:?}");
        assert!(!place.path("state/authority").exists(), "{arguments:?}");
    };
    for arguments in ASKING {
        refuses(arguments);
        assert!(!place.path("state").exists(), "{arguments:?}");
    }
    let cluster = Cluster::start(&place, 0);
    fs::remove_dir_all(place.path("state")).unwrap();
    for arguments in ASKING {
        refuses(arguments);
    }
    drop(cluster);
    // An empty one is none either.
    fs::create_dir(place.path("state")).unwrap();
    for arguments in ASKING {
        refuses(arguments);
    }
}

#[test]
fn a_worker_waits_a_moment_for_the_first_scheduler() {
    let place = Place::new();
    let address = {
        let listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let _worker = Running::start(place.command(["worker", "--scheduler", &address, "--threads", "1"]));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!place.path("state/authority").exists());
    let _scheduler = Running::start(place.command(["scheduler", "--listen", &address]));
    let begun = Instant::now();
    loop {
        let status = place.run(["status", "--json", "--scheduler", &address]);
        if status.code == Some(0) && status.json()["workers"].as_array().is_some_and(|workers| workers.len() == 1) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_others_can_change_is_not_trusted_by_anybody() {
    let place = Place::new();
    drop(Cluster::start(&place, 0));
    let scheduler = |place: &Place| place.run(["scheduler", "--listen", "127.0.0.1:0"]);
    for name in ["state", "state/authority", "state/authority/ca.key", "state/epoch"] {
        let path = place.path(name);
        let sound = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        set_mode(&path, sound | 0o022);
        let ended = scheduler(&place);
        assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
        assert!(ended.stderr.contains("chmod go= ") && ended.stderr.contains(&path.display().to_string()), "{ended:?}");
        set_mode(&path, sound);
    }
    fs::write(place.path("state/epoch"), "many\n").unwrap();
    let ended = scheduler(&place);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("epoch"), "{ended:?}");
}

#[test]
fn a_prepared_directory_is_taken() {
    let place = Place::new();
    fs::create_dir(place.path("state")).unwrap();
    set_mode(&place.path("state"), 0o755);
    let _cluster = Cluster::start(&place, 1);
    assert_eq!(fs::metadata(place.path("state")).unwrap().permissions().mode() & 0o777, 0o700);
}

/// As a system service is started: there is no HOME. Whoever may write to the directory for temporary files could otherwise have
/// prepared an authority there.
#[test]
fn secrets_never_go_where_everybody_may_write() {
    let place = Place::new();
    let user = rustix::process::getuid().as_raw();
    let trap = place.path(&format!("tmp/rask-{user}"));
    fs::create_dir_all(&trap).unwrap();
    set_mode(&trap, 0o700);
    let mut command = place.command(["token", "list"]);
    command.env_remove("HOME").env_remove("RASK_STATE_DIR").env("TMPDIR", place.path("tmp"));
    let ended = Running::start(command).end();
    assert!(!ended.stderr.contains(&place.path("tmp").display().to_string()), "{ended:?}");
    let mut command = place.command(["token", "list"]);
    command.env_remove("HOME").env_remove("RASK_STATE_DIR").env("STATE_DIRECTORY", place.path("of-service"));
    let ended = Running::start(command).end();
    assert!(ended.stderr.contains("of-service"), "{ended:?}");
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0);
}

#[test]
fn tokens_are_listed_and_say_no_secret() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    let made = token(&place, &["--role", "admin", "--name", "alice", "--ttl", "1h", "--uses", "3"]);
    token(&place, &["--role", "viewer", "--expires", "30m"]);
    for flag in ["--ttl", "--expires"] {
        let nothing = place.run(["token", "create", flag, "0s"]);
        assert_eq!(nothing.code, Some(2), "{nothing:?}");
        assert!(nothing.stderr.contains("a second is the least"), "{nothing:?}");
    }
    let list = place.run(["token", "list"]);
    assert_eq!(list.code, Some(0), "{list:?}");
    for words in ["admin", "alice", "viewer", "uses left"] {
        assert!(list.stdout.contains(words), "no {words:?}: {list:?}");
    }
    // By when it is printed, a moment has gone.
    for either in [["in 29m", "in 30m"], ["in 59m", "in 1h"]] {
        assert!(either.iter().any(|words| list.stdout.contains(words)), "none of {either:?}: {list:?}");
    }
    let json = place.json(["token", "list", "--json"]);
    assert_eq!(json["tokens"].as_array().unwrap().len(), 2);
    let secret = made.rsplit('.').next().unwrap();
    assert!(!list.stdout.contains(secret) && !json.to_string().contains(secret));
    // What the state directory keeps of it is not the token either.
    for entry in fs::read_dir(place.path("state/tokens")).unwrap() {
        assert!(!fs::read_to_string(entry.unwrap().path()).unwrap().contains(secret));
    }
    let wrong = place.command(["status", "--scheduler", &cluster.address]).env("RASK_TOKEN", &made).output().unwrap();
    let wrong = Ended::of(wrong).stderr;
    assert!(!wrong.contains("for a admin"), "{wrong}");
    let unknown = place.run(["token", "revoke", "00000000000000000000"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert_eq!(place.run(["token", "revoke", &made]).code, Some(2), "a whole token is no id, and is not asked for");
}

#[test]
fn who_joined_by_a_revoked_token_goes_and_does_not_come_back() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    let [good, bad] = [token(&place, &["--name", "good"]), token(&place, &["--name", "bad"])];
    let _stays = worker(&place, &cluster, "stays", Some(&good), &[]);
    let goes = worker(&place, &cluster, "goes", Some(&bad), &[]);
    let json = place.json(["token", "list", "--json"]);
    let of_bad = json["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "bad").unwrap().clone();
    let revoked = place.run(["token", "revoke", of_bad["id"].as_str().unwrap()]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let ended = goes.end();
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the token that it joined by was revoked"), "{ended:?}");
    let status = cluster.status(&place);
    assert_eq!(status["workers"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["workers"][0]["name"], "stays");
    let mut again = place.command(["worker", "--scheduler", &cluster.address, "--threads", "1"]);
    again.env("RASK_TOKEN", &bad).env("RASK_STATE_DIR", place.path("elsewhere"));
    let again = Running::start(again).end();
    assert_eq!(again.code, Some(3), "{again:?}");
    assert!(again.stderr.contains("revoked"), "{again:?}");
    assert!(place.run(["token", "list"]).stdout.contains("revoked"));
}

fn clusters(place: &Place) -> Vec<String> {
    place.names_in("state/clusters")
}

/// A cluster of processes is its own, whatever cluster the person belongs to otherwise.
#[test]
fn processes_hear_nothing_of_another_clusters_token() {
    let place = Place::new();
    let arguments = ["bench", "overhead", "--cluster", "1", "--tasks", "10", "--tree", "10", "--chain", "10"];
    let configuration = place.write("rask.toml", "token_file = \"nowhere\"\nscheduler = \"127.0.0.1:1\"\n");
    let mut command = place.command(arguments);
    command.env("RASK_TOKEN", "rask1.worker.nonsense").env("RASK_TOKEN_FILE", place.path("nowhere"));
    command.env("RASK_SCHEDULER", "127.0.0.1:1").env("RASK_SPILL_DIR", "/dev/null").env("RASK_CONFIG", configuration);
    let ended = Running::start(command).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(clusters(&place), Vec::<String>::new());
}

#[test]
fn a_killed_cluster_of_processes_is_swept_by_the_next() {
    let place = Place::new();
    let long = ["bench", "overhead", "--cluster", "1", "--tasks", "2000000"];
    let mut killed = Running::start(place.command(long));
    let begun = Instant::now();
    while !clusters(&place).iter().any(|name| place.path("state/clusters").join(name).join("authority/ca.key").exists()) {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert_eq!(clusters(&place).len(), 1);
    let short = ["bench", "overhead", "--cluster", "1", "--tasks", "10", "--tree", "10", "--chain", "10"];
    let ended = place.run(short);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(clusters(&place), Vec::<String>::new());
}
