//! A scheduler and workers on threads of this process, over QUIC on loopback, and clients of them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rask::graphs::{Arity, OperatorSpec, Registry, Value};
use rask::{Client, ConnectOptions, StateDir};
use rask_comm::{Authority, Identity, Role};
use rask_scheduler::server::SchedulerConfig;
use rask_worker::server::WorkerConfig;
use rask_worker::store::spill::SpillConfig;
use tokio::sync::oneshot;

/// Ends what runs on the thread when it is dropped: at once, as a kill does, since nobody is told.
struct Daemon {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start<F: Future<Output = ()>>(run: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = run() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct Cluster {
    workers: Vec<(String, Daemon)>,
    _scheduler: Daemon,
    pub(crate) address: SocketAddr,
    pub(crate) state: tempfile::TempDir,
    pub(crate) registry: Arc<Registry>,
}

impl Cluster {
    /// `n_workers` workers with this limit of memory (0 for none).
    pub(crate) fn start(n_workers: u32, memory_limit: u64) -> Self {
        let private = std::fs::Permissions::from_mode(0o700);
        let state = tempfile::Builder::new().permissions(private).tempdir().expect("a directory");
        let (tell, told) = mpsc::channel();
        let mut config = SchedulerConfig::new(([127, 0, 0, 1], 0).into(), StateDir::at(state.path()));
        config.machine.no_worker_grace = Duration::from_secs(5);
        let scheduler = Daemon::start(move || async move {
            let on_ready = move |address| tell.send(address).expect("somebody waits");
            rask_scheduler::server::run(config, on_ready, std::future::pending()).await.expect("a scheduler");
        });
        let address = told.recv().expect("an address");
        let mut cluster = Self { workers: Vec::new(), _scheduler: scheduler, address, state, registry: registry() };
        for idx in 0..n_workers {
            cluster.add_worker(&format!("worker-{idx}"), memory_limit);
        }
        cluster
    }

    pub(crate) fn add_worker(&mut self, name: &str, memory_limit: u64) {
        let authority = Authority::open_or_create(&StateDir::at(self.state.path())).expect("an authority");
        let identity = Identity::issue(&authority, Role::Worker, name).expect("an identity");
        let mut config = WorkerConfig::new(self.address, 2);
        config.memory_limit = memory_limit;
        config.status_interval = Duration::from_millis(100);
        config.spill = (memory_limit > 0).then(|| SpillConfig::new(self.state.path().join("spill")));
        let registry = Arc::clone(&self.registry);
        let daemon = Daemon::start(move || async move {
            let ended = rask_worker::server::run(config, identity, registry, std::future::pending()).await;
            drop(ended);
        });
        self.workers.push((name.to_owned(), daemon));
    }

    /// End a worker without a word to anybody.
    pub(crate) fn kill(&mut self, name: &str) {
        let at = self.workers.iter().position(|(other, _)| other == name).expect("a worker of that name");
        drop(self.workers.remove(at));
    }

    /// A client, once all workers are there.
    pub(crate) fn client(&self) -> Client {
        let options = ConnectOptions {
            scheduler: self.address.to_string(),
            state_dir: StateDir::at(self.state.path()),
            token: None,
            registry: Arc::clone(&self.registry),
            weight: 1.0,
        };
        let client = block_on(Client::connect(options)).expect("a connection");
        wait_until(|| block_on(client.status()).expect("a scheduler").workers.len() == self.workers.len());
        client
    }
}

pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One operator more: `test.length`, the sum of the lengths of its inputs.
pub(crate) fn registry() -> Arc<Registry> {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct NoArgs {}
    let mut registry = Registry::new();
    registry.register(
        OperatorSpec::new::<NoArgs>("test.length", 1, Arity::any(), "bytes", "Lengths."),
        |_ctx, _args: &NoArgs, inputs| Ok(Value::from_serde(&inputs.iter().map(Value::nbytes).sum::<u64>())?),
    );
    registry.into()
}
