//! A cluster of real processes on this machine: one scheduler and some workers as children, on loopback, with an
//! authority of their own that is thrown away with them.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rask_comm::{AuthorityError, StateDir, ThrowAwayState};
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
    /// A process of the cluster has ended by itself.
    #[error("{who} ended by itself ({status}){}{said}", if said.is_empty() { "" } else { ": " })]
    Ended {
        /// The scheduler, or a worker's name.
        who: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last of what it said.
        said: String,
    },
    /// There is no place for the cluster's authority.
    #[error(transparent)]
    State(#[from] AuthorityError),
    /// The scheduler cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The scheduler has gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

/// How long children may take to be there.
const START_LIMIT: Duration = Duration::from_secs(20);

/// So much of what a child said last is kept, in bytes.
const SAID_LIMIT: usize = 4096;

/// A running child. The open pipe tells it that this process lives; when it closes, however this process ends, the child
/// ends too.
struct Process {
    who: String,
    id: u32,
    child: Mutex<Child>,
    said: Arc<Mutex<Vec<u8>>>,
    _leash: Option<ChildStdin>,
}

impl Process {
    fn start(who: &str, command: &mut Command) -> std::io::Result<(Self, Option<ChildStdout>)> {
        let mut child = command.spawn()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || keep_last(stderr, &said));
        }
        let (leash, stdout) = (child.stdin.take(), child.stdout.take());
        let id = child.id();
        Ok((Self { who: who.to_owned(), id, child: Mutex::new(child), said, _leash: leash }, stdout))
    }

    fn try_wait(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }

    /// Fails if it has ended.
    fn check(&self) -> Result<(), ClusterError> {
        match self.try_wait() {
            Some(status) => Err(ClusterError::Ended { who: self.who.clone(), status, said: self.said() }),
            None => Ok(()),
        }
    }

    /// The last of what it said. Once it has ended, what it said at the end may take a moment to arrive.
    fn said(&self) -> String {
        std::thread::sleep(Duration::from_millis(50));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Keep the end of what comes out of a pipe, which must not fill up.
fn keep_last(mut pipe: impl Read, said: &Mutex<Vec<u8>>) {
    let mut piece = [0; 1024];
    while let Ok(n_read @ 1..) = pipe.read(&mut piece) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&piece[..n_read]);
        let n_old = said.len().saturating_sub(SAID_LIMIT);
        said.drain(..n_old);
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
    // Last: nobody uses it any more.
    state: ThrowAwayState,
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
        let state = ThrowAwayState::make(&StateDir::default())?;
        let mut command = command(&options, state.state());
        command.args(["scheduler", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let (scheduler, stdout) = Process::start("the scheduler", &mut command).map_err(spawn_error)?;
        let Some(address) = stdout.and_then(read_address) else {
            return Err(ClusterError::NoScheduler { said: scheduler.said() });
        };
        let _spill_dir = options.spill_dir.clone().map(SpillDir);
        let n_workers = options.n_workers;
        let mut cluster = Self { workers: Vec::new(), _spill_dir, scheduler, address, state, options, n_started: 0 };
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
        let mut command = command(options, self.state.state());
        command.args(["worker", "--scheduler", &self.address.to_string(), "--name", name]);
        command.args(["--threads", &options.n_slots.to_string()]).stdout(Stdio::null());
        command.args(["--handover", if options.has_handover { "on" } else { "off" }]);
        if options.memory_limit > 0 {
            command.args(["--memory", &options.memory_limit.to_string()]);
        }
        if let Some(directory) = &options.spill_dir {
            command.arg("--spill-dir").arg(directory);
        }
        let (worker, _) = Process::start(name, &mut command)?;
        let id = worker.id;
        self.workers.push(worker);
        Ok(id)
    }

    /// Kill a worker as the system does that runs out of memory: it can do nothing before it ends. Whether there was one with
    /// this process id.
    pub fn kill_worker(&mut self, process: u32) -> bool {
        let before = self.workers.len();
        // Dropping it kills it and waits until it has ended.
        self.workers.retain(|worker| worker.id != process);
        self.workers.len() < before
    }

    /// Workers that have ended by themselves since this was last asked, and whether they said that all was well.
    pub fn take_ended_workers(&mut self) -> Vec<(u32, bool)> {
        let mut ended = Vec::new();
        self.workers.retain_mut(|worker| {
            let status = worker.try_wait();
            ended.extend(status.map(|status| (worker.id, status.success())));
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
        std::iter::once(&self.scheduler).chain(&self.workers).map(|process| process.id).collect()
    }

    /// Fails when the scheduler or a worker has ended that nobody has ended, with the last of what it said.
    ///
    /// # Errors
    /// [`ClusterError::Ended`], for the first of them.
    pub fn check(&self) -> Result<(), ClusterError> {
        std::iter::once(&self.scheduler).chain(&self.workers).try_for_each(Process::check)
    }

    /// Fails when no graph can be finished any more: the scheduler has ended, or all workers have. What one worker had is
    /// computed again by the others.
    ///
    /// # Errors
    /// [`ClusterError::Ended`], for one of them.
    pub fn check_that_it_can_go_on(&self) -> Result<(), ClusterError> {
        self.scheduler.check()?;
        match self.workers.iter().any(|worker| worker.try_wait().is_none()) {
            true => Ok(()),
            false => self.check(),
        }
    }

    /// A client of this cluster, once every worker has joined.
    ///
    /// # Errors
    /// When the scheduler or a worker does not come up in time, or ends instead.
    pub async fn client(&self, registry: Arc<Registry>) -> Result<Client, ClusterError> {
        let options = ConnectOptions {
            scheduler: self.address.to_string(),
            state_dir: self.state.state().clone(),
            token: None,
            registry,
            weight: 1.0,
        };
        let connected = Client::connect(options).await;
        // If the scheduler has ended, that is why.
        self.check()?;
        let client = connected?;
        let begun = Instant::now();
        loop {
            self.check()?;
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

/// A process of the cluster: it hears nothing of what this process was told about another one.
fn command(options: &ClusterOptions, state: &StateDir) -> Command {
    let mut command = Command::new(&options.binary);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"RASK_") {
            command.env_remove(name);
        }
    }
    command.env("RASK_LEASH", "stdin").env("RASK_CONFIG", "/dev/null");
    if let Ok(path) = state.path() {
        command.env("RASK_STATE_DIR", path);
    }
    command.stdin(Stdio::piped());
    match &options.log {
        Some(level) => command.args(["--log", level]),
        None => command.stderr(Stdio::piped()),
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
