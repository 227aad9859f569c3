//! `rask run`: compute a graph file in this process, or on processes made for it.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use rask::{Client, ClusterOptions, LocalCluster, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::RunArguments;
use crate::blocking::block_on;
use crate::compute::{self, Request};
use crate::exit::{Exit, Failure};
use crate::files::{Loaded, display_name, load_plan};
use crate::machine::{default_memory, n_processors};
use crate::settings::Settings;

struct Size {
    n_workers: u32,
    threads: u32,
    memory: u64,
}

impl Size {
    fn of(arguments: &RunArguments, settings: &Settings) -> Self {
        let n_workers = arguments.workers.or(settings.file.workers).unwrap_or(1).max(1);
        let threads = arguments.threads.or(settings.file.threads);
        let memory = arguments.memory.or(settings.file.memory);
        Self {
            n_workers,
            threads: threads.unwrap_or((n_processors() / n_workers).max(1)),
            memory: memory.unwrap_or(default_memory() / u64::from(n_workers)),
        }
    }
}

/// Run the command.
pub(crate) fn run(arguments: &RunArguments, settings: &Settings) -> anyhow::Result<Exit> {
    let registry = rask::registry();
    let plan = match load_plan(&arguments.file, &registry)? {
        Loaded::Good(plan) => plan,
        Loaded::Bad(exit) => return Ok(exit),
    };
    let name = display_name(&arguments.file.file);
    let size = Size::of(arguments, settings);
    let request = Request { plan: &plan, name: &name, priority: 0, is_json: arguments.json, is_detached: false };
    if arguments.processes {
        return block_on(on_processes(&size, settings.file.spill_dir.clone(), &request));
    }
    block_on(async {
        let options = LocalOptions {
            n_workers: size.n_workers,
            n_slots: size.threads,
            memory_limit: size.memory,
            spill_dir: settings.spill_dir::<Failure>(None, || Ok(rask::default_spill_dir()))?,
            data_roots: None,
            registry,
        };
        let client = Client::local(options).map_err(|error| Failure::failed(format!("cannot start a local cluster: {error}")))?;
        compute::compute(&client, &request).await
    })
}

/// How often children are looked at while they compute.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

async fn on_processes(size: &Size, spill_dir: Option<PathBuf>, request: &Request<'_>) -> anyhow::Result<Exit> {
    let binary = std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find this program's file: {error}")))?;
    let options = ClusterOptions {
        n_slots: size.threads,
        memory_limit: size.memory,
        spill_dir,
        ..ClusterOptions::new(binary, size.n_workers)
    };
    let failed = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    // From here on none of these ends the process at once: the cluster's directory, with its key, goes first.
    let (mut terminate, mut hang_up) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::hangup()).map_err(failed)?);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let is_computing = Cell::new(false);
    let work = async {
        let started = LocalCluster::processes(options).await;
        let cluster = started.map_err(|error| Failure::failed(format!("cannot start a cluster of processes: {error}")))?;
        let client = cluster.client(rask::registry()).await.map_err(|error| Failure::unreachable(error.to_string()))?;
        is_computing.set(true);
        let watch = async {
            while let Ok(()) = cluster.check_that_it_can_go_on() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            cluster.check()
        };
        let exit = tokio::select! {
            exit = compute::compute(&client, request) => exit,
            Err(error) = watch => Err(Failure::failed(format!("the cluster of processes cannot go on: {error}")).into()),
        };
        drop(client);
        drop(cluster);
        exit
    };
    // Once it computes, it hears an interruption itself, and cancels the graph.
    let interrupted = async { while interrupt.recv().await.is_some() && is_computing.get() {} };
    tokio::select! {
        exit = work => exit,
        _ = terminate.recv() => Ok(Exit::Interrupted),
        _ = hang_up.recv() => Ok(Exit::Interrupted),
        () = interrupted => Ok(Exit::Interrupted),
    }
}
