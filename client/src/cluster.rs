//! A cluster of real processes on this machine: one scheduler and some workers as children, on loopback, with an
//! authority of their own that is thrown away with them.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rask_comm::StateDir;
use rask_graphs::Registry;

use crate::client::Client;
use crate::remote::{ConnectError, ConnectOptions};
use crate::session::Disconnected;

/// What a cluster of processes consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Workers.
    pub n_workers: u32,
    /// Slots of each worker.
    pub n_slots: u32,
    /// Memory limit of each worker in bytes, 0 for none.
    pub memory_limit: u64,
    /// Whether workers hand results to each other within this host; over QUIC otherwise.
    pub has_handover: bool,
    /// Where workers put results that memory is too short for; `None` for a directory that goes with the cluster.
    pub spill_dir: Option<PathBuf>,
    /// The `rask` program.
    pub binary: PathBuf,
    /// Log level of the children, to this process's stderr; `None` for silence.
    pub log: Option<String>,
}

impl ClusterOptions {
    /// `n_workers` workers of one slot, from the program at `binary`.
    #[must_use]
    pub fn new(binary: PathBuf, n_workers: u32) -> Self {
        Self { n_workers, n_slots: 1, memory_limit: 0, has_handover: true, spill_dir: None, binary, log: None }
    }
}

/// Why a cluster of processes could not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A child could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The scheduler ended, or said nothing of its address.
    #[error("the scheduler did not start: {said}")]
    NoScheduler {
        /// What it said instead.
        said: String,
    },
    /// Not all workers were there in time.
    #[error("{n_there} of {n_wanted} workers joined within {waited:?}")]
    TooFewWorkers {
        /// Workers that joined.
        n_there: usize,
        /// Workers asked for.
        n_wanted: usize,
        /// How long they had.
        waited: Duration,
    },
    /// The scheduler cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The scheduler has gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

/// How long children may take to be there.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running child. The open pipe tells it that this process lives; when it closes, however this process ends, the child
/// ends too.
struct Process {
    child: Child,
    _leash: Option<ChildStdin>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for spill files that outlives the cluster. Workers that are killed leave theirs there.
struct SpillDir(PathBuf);

impl Drop for SpillDir {
    fn drop(&mut self) {
        rask_worker::store::spill::sweep(&self.0);
    }
}

/// One scheduler and some workers as processes of this machine. Dropping it ends them.
pub struct LocalCluster {
    // Workers first, then what they leave: fields are dropped in order.
    workers: Vec<Process>,
    _spill_dir: Option<SpillDir>,
    scheduler: Process,
    address: SocketAddr,
    state_dir: tempfile::TempDir,
    options: ClusterOptions,
    n_started: u32,
}

impl LocalCluster {
    /// Start a cluster and wait until every worker is there.
    ///
    /// # Errors
    /// When a process cannot be started or does not come up.
    pub async fn processes(options: ClusterOptions) -> Result<Self, ClusterError> {
        let spawn_error = |source| ClusterError::Spawn { program: options.binary.display().to_string(), source };
        let private = std::fs::Permissions::from_mode(0o700);
        let state_dir = tempfile::Builder::new().prefix("rask-cluster-").permissions(private).tempdir().map_err(spawn_error)?;
        let mut command = command(&options, &state_dir);
        command.args(["scheduler", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        if options.log.is_none() {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(spawn_error)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let leash = child.stdin.take();
        let scheduler = Process { child, _leash: leash };
        let Some(address) = stdout.and_then(read_address) else {
            let mut said = String::new();
            let _ = stderr.map(|mut stderr| stderr.read_to_string(&mut said));
            return Err(ClusterError::NoScheduler { said: said.trim().to_owned() });
        };
        // What it prints later must not fill the pipe.
        stderr.map(|mut stderr| std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink())));
        let _spill_dir = options.spill_dir.clone().map(SpillDir);
        let n_workers = options.n_workers;
        let mut cluster = Self { workers: Vec::new(), _spill_dir, scheduler, address, state_dir, options, n_started: 0 };
        for _ in 0..n_workers {
            cluster.start_worker()?;
        }
        Ok(cluster)
    }

    /// Start one more worker, without waiting until it has joined; its process id.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_worker(&mut self) -> Result<u32, ClusterError> {
        let name = format!("worker-{}", self.n_started);
        self.n_started += 1;
        let program = self.options.binary.display().to_string();
        self.spawn_worker(&name).map_err(|source| ClusterError::Spawn { program, source })
    }

    fn spawn_worker(&mut self, name: &str) -> std::io::Result<u32> {
        let options = &self.options;
        let mut command = command(options, &self.state_dir);
        command.args(["worker", "--scheduler", &self.address.to_string(), "--name", name]);
        command.args(["--threads", &options.n_slots.to_string()]).stdout(Stdio::null());
        command.args(["--handover", if options.has_handover { "on" } else { "off" }]);
        if options.memory_limit > 0 {
            command.args(["--memory", &options.memory_limit.to_string()]);
        }
        if let Some(directory) = &options.spill_dir {
            command.arg("--spill-dir").arg(directory);
        }
        let mut child = command.spawn()?;
        let leash = child.stdin.take();
        let id = child.id();
        self.workers.push(Process { child, _leash: leash });
        Ok(id)
    }

    /// Kill a worker as the system does that runs out of memory: it can do nothing before it ends. Whether there was one with
    /// this process id.
    pub fn kill_worker(&mut self, process: u32) -> bool {
        let before = self.workers.len();
        // Dropping it kills it and waits until it has ended.
        self.workers.retain(|worker| worker.child.id() != process);
        self.workers.len() < before
    }

    /// Workers that have ended by themselves since this was last asked, and whether they said that all was well.
    pub fn take_ended_workers(&mut self) -> Vec<(u32, bool)> {
        let mut ended = Vec::new();
        self.workers.retain_mut(|worker| {
            let status = worker.child.try_wait().ok().flatten();
            ended.extend(status.map(|status| (worker.child.id(), status.success())));
            status.is_none()
        });
        ended
    }

    /// The scheduler's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process ids: the scheduler's first, then the workers'.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        std::iter::once(&self.scheduler).chain(&self.workers).map(|process| process.child.id()).collect()
    }

    /// A client of this cluster, once every worker has joined.
    ///
    /// # Errors
    /// When the scheduler or a worker does not come up in time.
    pub async fn client(&self, registry: Arc<Registry>) -> Result<Client, ClusterError> {
        let options = ConnectOptions {
            scheduler: self.address.to_string(),
            state_dir: StateDir::at(self.state_dir.path()),
            token: None,
            registry,
            weight: 1.0,
        };
        let client = Client::connect(options).await?;
        let begun = Instant::now();
        loop {
            let n_there = client.status().await?.workers.len();
            if n_there >= self.workers.len() {
                return Ok(client);
            }
            if begun.elapsed() > START_LIMIT {
                return Err(ClusterError::TooFewWorkers { n_there, n_wanted: self.workers.len(), waited: START_LIMIT });
            }
            // Asking again is the wait: this future may run on any executor, so it has no timer of its own.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn command(options: &ClusterOptions, state_dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(&options.binary);
    command.env("RASK_STATE_DIR", state_dir.path()).env("RASK_LEASH", "stdin").env_remove("RASK_TOKEN_FILE");
    command.stdin(Stdio::piped());
    match &options.log {
        Some(level) => command.args(["--log", level]),
        None => command.stderr(Stdio::null()),
    };
    command
}

/// The first address in what the scheduler prints.
fn read_address(stdout: std::process::ChildStdout) -> Option<SocketAddr> {
    let mut lines = BufReader::new(stdout).lines();
    let address =
        lines.by_ref().map_while(Result::ok).find_map(|line| line.split_whitespace().find_map(|word| word.parse().ok()));
    // What it prints later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    address
}
