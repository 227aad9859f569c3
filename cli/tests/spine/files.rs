//! What graphs may touch on workers of daemons: by whose they are, how the worker joined, and `--data-root`.

use std::path::Path;
use std::sync::Arc;

use rask::{Client, ConnectOptions, JobError, StateDir, SubmitOptions};
use rask_graphs::{FinishOptions, GraphBuilder, Registry};

use crate::support::{Cluster, Place, Running};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub(crate) fn token(place: &Place, arguments: &[&str]) -> String {
    let made = place.run([&["token", "create"], arguments].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout.trim().to_owned()
}

/// A worker besides those of the cluster, perhaps with a token and from a state directory of its own.
pub(crate) fn worker(place: &Place, cluster: &Cluster, name: &str, token: Option<&str>, arguments: &[&str]) -> Running {
    let mut command = place.command(["worker", "--scheduler", &cluster.address, "--threads", "1", "--name", name]);
    command.args(arguments);
    if let Some(token) = token {
        command.env("RASK_TOKEN", token).env("RASK_STATE_DIR", place.path("elsewhere"));
    }
    let worker = Running::start(command);
    let is_there = |status: &serde_json::Value| {
        status["workers"].as_array().is_some_and(|workers| workers.iter().any(|worker| worker["name"] == name))
    };
    cluster.wait_until(place, is_there);
    worker
}

/// Have a worker write a file: what went wrong, if anything did.
fn write(place: &Place, cluster: &Cluster, token: Option<&str>, directory: &Path, name: &str) -> Result<(), String> {
    let options = ConnectOptions {
        scheduler: cluster.address.clone(),
        state_dir: StateDir::at(place.path(if token.is_some() { "nothing here" } else { "state" })),
        token: token.map(str::to_owned),
        registry: Arc::new(Registry::new()),
        weight: 1.0,
    };
    block_on(async {
        let client = Client::connect(options).await.unwrap();
        let mut graph = GraphBuilder::new();
        let value = graph.task("value", "core.noop", 1, "{}").add();
        let args = serde_json::json!({ "directory": directory, "name": name, "overwrite": true }).to_string();
        let written = graph.task("written", "core.write", 1, &args).input(value).add();
        graph.output(written);
        let graph = graph.finish(&FinishOptions::default()).unwrap().graph;
        let output = graph.outputs[0];
        let job = client.submit(graph, SubmitOptions::default()).await.unwrap();
        match job.outcome(output).await {
            Ok(_) => Ok(()),
            Err(JobError::Failed(failure)) => Err(failure.message),
            Err(error) => panic!("{error}"),
        }
    })
}

/// The scheduler is on a loopback address, as it is in most set-ups of one host.
#[test]
fn a_stranger_touches_nothing_on_the_users_own_worker() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1);
    let stranger = token(&place, &["--role", "client", "--name", "stranger"]);
    let (home, state) = (place.path(""), place.path("state"));
    for (directory, name) in [(&home, "authorized_keys"), (&state, "x"), (&place.path("nowhere"), "x")] {
        let refused = write(&place, &cluster, Some(&stranger), directory, name).unwrap_err();
        assert!(refused.contains("touch no files") && refused.contains("--data-root"), "{refused}");
    }
    assert!(!place.path("authorized_keys").exists() && !place.path("state/x").exists());
    // The user's own graphs may what the user may, but for the cluster's secrets.
    write(&place, &cluster, None, &home, "mine").unwrap();
    assert!(place.path("mine").exists());
    for directory in [&state, &state.join("authority"), &state.join("tokens"), &state.join("spill"), Path::new("/proc/self")] {
        let refused = write(&place, &cluster, None, directory, "x").unwrap_err();
        assert!(refused.contains("kept from graphs"), "{refused}");
    }
}

#[test]
fn data_roots_hold_for_everybody() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    for name in ["data", "other"] {
        std::fs::create_dir(place.path(name)).unwrap();
    }
    std::os::unix::fs::symlink(place.path("other"), place.path("data/link")).unwrap();
    let root = place.path("data").display().to_string();
    let _worker = worker(&place, &cluster, "rooted", None, &["--data-root", &root]);
    let stranger = token(&place, &["--role", "client"]);
    for token in [None, Some(stranger.as_str())] {
        write(&place, &cluster, token, &place.path("data"), "x").unwrap();
        write(&place, &cluster, token, &place.path("data/new"), "x").unwrap();
        for directory in ["other", "data/link", "data/../other", "nowhere", "state", ""] {
            let refused = write(&place, &cluster, token, &place.path(directory), "x").unwrap_err();
            assert!(refused.contains("outside this worker's data roots"), "{directory}: {refused}");
        }
    }
    assert_eq!(std::fs::read_dir(place.path("other")).unwrap().count(), 0);
}

/// A root that holds the user's home holds the cluster's keys too; they stay out of reach.
#[test]
fn a_root_that_holds_secrets_does_not_give_them() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    let root = place.path("").display().to_string();
    let _worker = worker(&place, &cluster, "homely", None, &["--data-root", &root]);
    let stranger = token(&place, &["--role", "client"]);
    for directory in ["state", "state/authority", "state/tokens", "state/spill", ".ssh", ".config/rask"] {
        let refused = write(&place, &cluster, Some(&stranger), &place.path(directory), "x").unwrap_err();
        assert!(refused.contains("kept from graphs"), "{directory}: {refused}");
    }
    write(&place, &cluster, Some(&stranger), &place.path(""), "x").unwrap();
    let everything = place.run(["worker", "--scheduler", &cluster.address, "--data-root", "/"]);
    assert_eq!(everything.code, Some(2), "{everything:?}");
    assert!(everything.stderr.contains("it holds everything"), "{everything:?}");
    let missing = place.run(["worker", "--scheduler", &cluster.address, "--data-root", "nowhere"]);
    assert_eq!(missing.code, Some(2), "{missing:?}");
}

#[test]
fn a_worker_that_joined_by_token_gives_the_user_no_more_than_its_roots() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 0);
    let joins = token(&place, &["--role", "worker"]);
    {
        let _worker = worker(&place, &cluster, "bare", Some(&joins), &[]);
        let refused = write(&place, &cluster, None, &place.path(""), "x").unwrap_err();
        assert!(refused.contains("touch no files"), "{refused}");
    }
    std::fs::create_dir(place.path("data")).unwrap();
    let root = place.path("data").display().to_string();
    cluster.wait_until(&place, |status| status["workers"].as_array().is_some_and(Vec::is_empty));
    let _worker = worker(&place, &cluster, "rooted", Some(&joins), &["--data-root", &root]);
    write(&place, &cluster, None, &place.path("data"), "x").unwrap();
    let refused = write(&place, &cluster, None, &place.path(""), "x").unwrap_err();
    assert!(refused.contains("outside this worker's data roots"), "{refused}");
}
