//! Files that graphs name, and keys that processes leave: by commands that need arrays and frames.

use std::time::{Duration, Instant};

use crate::support::{Cluster, PATIENCE, Place, Running};

/// A graph file that reads `path` as a table, and prints it.
fn reads(place: &Place, path: &str) -> std::path::PathBuf {
    let text = format!(
        "rask = 1\n[task.t]\nop = 'frame.scan'\nargs = {{ path = '{path}', format = 'csv', options = {{ header = false }} }}\n\
         [output.t]\nof = 't'\n"
    );
    place.write("steal.toml", &text)
}

#[test]
fn a_client_token_does_not_read_the_authoritys_key() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1);
    let token = place.run(["token", "create", "--role", "client"]).stdout;
    let public = place.write("public.csv", "a,b\n1,2\n");
    let key = place.path("state/authority/ca.key");
    let paths = [key.as_path(), public.as_path(), "/proc/self/environ".as_ref(), "/etc/passwd".as_ref(), "/nothing".as_ref()];
    let mut said = Vec::new();
    for path in paths {
        let file = reads(&place, &path.display().to_string());
        let mut stranger = place.command(["submit", file.to_str().unwrap(), "--scheduler", &cluster.address]);
        stranger.env("RASK_STATE_DIR", place.path("nothing here")).env("RASK_TOKEN", token.trim());
        let ended = Running::start(stranger).end();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("touch no files"), "{ended:?}");
        assert!(!ended.stdout.contains("KEY") && !ended.stderr.contains("BEGIN"), "{ended:?}");
        // What follows says how long it took.
        let message = ended.stderr.lines().next().unwrap_or_default();
        said.push(message.replace(&path.display().to_string(), ""));
    }
    assert!(said.windows(2).all(|two| two[0] == two[1]), "what exists and what does not are told apart: {said:?}");
    // The user's own graph reads what the user may, and the key all the same not.
    let own = |path: &str| place.run(["submit", reads(&place, path).to_str().unwrap(), "--scheduler", &cluster.address]);
    let good = own(public.to_str().unwrap());
    assert_eq!(good.code, Some(0), "{good:?}");
    for path in [key.to_str().unwrap(), "/proc/self/environ"] {
        let ended = own(path);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("kept from graphs"), "{ended:?}");
    }
}

#[test]
fn a_run_on_processes_uses_no_token_of_another_cluster() {
    let place = Place::new();
    let file = place.write("one.toml", "rask = 1\n[task.t]\nop = 'core.noop'\n");
    let mut command = place.command(["run", file.to_str().unwrap(), "--processes", "--workers", "2"]);
    command.env("RASK_TOKEN", "rask1.worker.nonsense").env("RASK_SCHEDULER", "127.0.0.1:1");
    let ended = Running::start(command).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_run_on_processes_that_is_stopped_leaves_no_key() {
    let place = Place::new();
    let file = place.write(
        "long.toml",
        "rask = 1\n[array.x]\nrandom = 'normal'\nshape = [400000, 4000]\nseed = 1\n[output.s]\nof = 'sum(x)'\n",
    );
    for signal in ["TERM", "INT", "HUP"] {
        let running = Running::start(place.command(["run", file.to_str().unwrap(), "--processes", "--workers", "1"]));
        let begun = Instant::now();
        while place.names_in("state/clusters").is_empty() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code, Some(130), "{signal}: {ended:?}");
        assert_eq!(place.names_in("state/clusters"), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn a_worker_process_that_ends_fails_the_run_in_words() {
    let place = Place::new();
    let file = place.write("one.toml", "rask = 1\n[task.t]\nop = 'core.noop'\n");
    // Its workers cannot spill there, so they end as soon as they have begun.
    let configuration = place.write("rask.toml", "spill_dir = \"/proc/nowhere\"\n");
    let mut command = place.command(["run", file.to_str().unwrap(), "--processes"]);
    command.env("RASK_CONFIG", configuration);
    let ended = Running::start(command).end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("worker-0 ended by itself") && ended.stderr.contains("/proc/nowhere"), "{ended:?}");
}
