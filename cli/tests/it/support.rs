//! What the tests share: running the binary, starting clusters, looking at answers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

/// Nothing on loopback takes this long, even in a busy development build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with the examples, and a state directory beside them.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With the example files and their data.
    pub(crate) fn with_examples() -> Self {
        let place = Self::new();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graphs/examples");
        for name in ["flights.toml", "arrays.toml", "mixed.toml", "tasks.toml"] {
            fs::copy(examples.join(name), place.path(name)).unwrap();
        }
        std::os::unix::fs::symlink(examples.join("data").canonicalize().unwrap(), place.path("data")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Write a file and give its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The binary, in this directory, seeing nothing of the user's own configuration.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rask"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RASK_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("HOME", self.dir.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command.env("RASK_STATE_DIR", self.path("state"));
        command
    }

    /// Run the binary to its end.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// Run the binary, expect success, and read its JSON.
    pub(crate) fn json<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Json {
        self.run(arguments).json()
    }

    /// Names in the directory `name`, hidden ones too; empty when it is not there.
    pub(crate) fn names_in(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// How a process ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A child that does not outlive the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Send a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Wait for the end, with everything that was said.
    pub(crate) fn end(mut self) -> Ended {
        let begun = Instant::now();
        let stdout = self.0.stdout.take().map(read_in_background);
        let stderr = self.0.stderr.take().map(read_in_background);
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "a process did not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |reader: Option<std::thread::JoinHandle<String>>| reader.map_or_else(String::new, |it| it.join().unwrap());
        Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

fn read_in_background(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A scheduler and workers, started as a person would.
pub(crate) struct Cluster {
    pub(crate) address: String,
    pub(crate) workers: Vec<Running>,
    /// Ends with the cluster.
    _scheduler: Running,
}

impl Cluster {
    /// Start them, and wait until all workers have joined.
    pub(crate) fn start(place: &Place, n_workers: usize) -> Self {
        Self::with_threads(place, n_workers, 1)
    }

    /// As [`Cluster::start`], with workers of several slots.
    pub(crate) fn with_threads(place: &Place, n_workers: usize, threads: u32) -> Self {
        let threads = threads.to_string();
        let mut scheduler = Running::start(place.command(["scheduler", "--listen", "127.0.0.1:0"]));
        let mut lines = BufReader::new(scheduler.0.stdout.take().unwrap()).lines();
        let first = lines.next().expect("the scheduler says where it is").unwrap();
        let address = first.strip_prefix("scheduler listens on ").expect("an address").to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        let mut cluster = Self { address, workers: Vec::new(), _scheduler: scheduler };
        for number in 0..n_workers {
            let name = format!("w{number}");
            let arguments =
                ["worker", "--scheduler", &cluster.address, "--threads", &threads, "--memory", "1GiB", "--name", &name];
            let mut worker = Running::start(place.command(arguments));
            // What nobody reads must not fill a pipe.
            drop(worker.0.stdout.take().map(read_in_background));
            drop(worker.0.stderr.take().map(read_in_background));
            cluster.workers.push(worker);
        }
        cluster.wait_until(place, |status| status["workers"].as_array().is_some_and(|workers| workers.len() == n_workers));
        cluster
    }

    /// What `rask status` says.
    pub(crate) fn status(&self, place: &Place) -> Json {
        place.json(["status", "--json", "--scheduler", &self.address])
    }

    /// Ask again until the cluster is as it should be.
    #[track_caller]
    pub(crate) fn wait_until(&self, place: &Place, is_so: impl Fn(&Json) -> bool) -> Json {
        let begun = Instant::now();
        loop {
            let status = self.status(place);
            if is_so(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "still {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Submit a file and read the answer.
    pub(crate) fn submit(&self, place: &Place, file: &str, settings: &[&str]) -> Json {
        let mut arguments = vec!["submit", file, "--scheduler", &self.address, "--json"];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        place.json(arguments)
    }
}

/// The number that output `name` is.
#[track_caller]
pub(crate) fn number(answer: &Json, name: &str) -> f64 {
    answer["outputs"][name]["data"].as_f64().unwrap_or_else(|| panic!("no number {name} in {answer}"))
}

/// Fails unless `found` is `expected` up to the relative error `tolerance`.
#[track_caller]
pub(crate) fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} is not {expected} (to {tolerance})");
}
