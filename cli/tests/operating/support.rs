//! A cluster of processes, what they say, and graphs for them.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rask::graphs::{FinishOptions, Graph, GraphBuilder, TaskIdx};
use rask::{Client, ConnectOptions, Job, StateDir, SubmitOptions};
use serde_json::Value as Json;

/// Nothing on loopback takes this long, even in a busy development build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test's own.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The binary, in this directory, seeing nothing of the user's own configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rask"));
        self.isolate(command.args(arguments));
        command
    }

    /// See that a command sees nothing of the user's own configuration.
    pub(crate) fn isolate(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RASK_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.env("HOME", self.0.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env("NO_COLOR", "1");
        command.env("RASK_STATE_DIR", self.path("state"));
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
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
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A process, and what it says on both of its outputs, as far as it has.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    said: Arc<Mutex<String>>,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let outputs: [Box<dyn Read + Send>; 2] = [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    said.lock().unwrap().push_str(&format!("{line}\n"));
                }
            });
        }
        Self { child, said }
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Wait until it has said something with all of these words in one line.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let said = self.said();
            if let Some(line) = said.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "no {words:?} in:\n{said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Wait for its end: the exit code.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last is on its way through the pipes.
                std::thread::sleep(Duration::from_millis(50));
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Cluster {
    pub(crate) place: Place,
    pub(crate) address: String,
    pub(crate) workers: Vec<Daemon>,
    pub(crate) scheduler: Daemon,
}

impl Cluster {
    pub(crate) fn start(n_workers: usize) -> Self {
        Self::with(n_workers, &[])
    }

    /// With further arguments for the scheduler.
    pub(crate) fn with(n_workers: usize, arguments: &[&str]) -> Self {
        let place = Place::new();
        let all: Vec<&str> = ["scheduler", "--listen", "127.0.0.1:0"].iter().chain(arguments).copied().collect();
        let scheduler = Daemon::start(place.command(&all));
        let line = scheduler.wait_for(&["scheduler listens on "]);
        let address = line.rsplit(' ').next().unwrap().to_owned();
        let mut cluster = Self { place, address, workers: Vec::new(), scheduler };
        for number in 0..n_workers {
            cluster.add_worker(&["--name", &format!("w{number}")]);
        }
        cluster
    }

    /// Start a worker and wait until it has joined.
    pub(crate) fn add_worker(&mut self, arguments: &[&str]) {
        let all = ["worker", "--scheduler", &self.address, "--threads", "1", "--memory", "512MiB"];
        let all: Vec<&str> = all.iter().chain(arguments).copied().collect();
        let worker = Daemon::start(self.place.command(&all));
        worker.wait_for(&["joined the scheduler at"]);
        self.workers.push(worker);
    }

    pub(crate) fn client(&self) -> Client {
        let options = ConnectOptions {
            scheduler: self.address.clone(),
            state_dir: StateDir::at(self.place.path("state")),
            token: None,
            registry: rask::registry(),
            weight: 1.0,
        };
        block_on(Client::connect(options)).unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let all: Vec<&str> = arguments.iter().chain(&["--scheduler", &self.address]).copied().collect();
        self.place.run(&all)
    }

    pub(crate) fn status(&self) -> Json {
        let ended = self.run(&["status", "--json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    }
}

/// One task, which is the output.
pub(crate) fn single(name: &str, operator: &str, args: &str) -> Graph {
    let mut graph = GraphBuilder::new();
    let task = graph.task(name, operator, 1, args).add();
    graph.output(task);
    graph.finish(&FinishOptions::default()).unwrap().graph
}

pub(crate) fn submit(client: &Client, name: &str, graph: Graph, detached: bool) -> Job {
    let options = SubmitOptions { name: name.to_owned(), priority: 0, detached };
    block_on(client.submit(graph, options)).unwrap()
}

pub(crate) const FIRST: TaskIdx = TaskIdx(0);
