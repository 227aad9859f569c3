//! `rask run`: compute a graph file in this process, or on processes made for it.

use std::path::PathBuf;

use rask::{Client, ClusterOptions, LocalCluster, LocalOptions};

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
    block_on(async {
        if arguments.processes {
            return on_processes(&size, settings.file.spill_dir.clone(), &request).await;
        }
        let options = LocalOptions {
            n_workers: size.n_workers,
            n_slots: size.threads,
            memory_limit: size.memory,
            spill_dir: settings.spill_dir(None, rask::default_spill_dir),
            data_roots: None,
            registry,
        };
        let client = Client::local(options).map_err(|error| Failure::failed(format!("cannot start a local cluster: {error}")))?;
        compute::compute(&client, &request).await
    })
}

async fn on_processes(size: &Size, spill_dir: Option<PathBuf>, request: &Request<'_>) -> anyhow::Result<Exit> {
    let binary = std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find this program's file: {error}")))?;
    let options = ClusterOptions {
        n_slots: size.threads,
        memory_limit: size.memory,
        spill_dir,
        ..ClusterOptions::new(binary, size.n_workers)
    };
    let started = LocalCluster::processes(options).await;
    let cluster = started.map_err(|error| Failure::failed(format!("cannot start a cluster of processes: {error}")))?;
    let client = cluster
        .client(rask::registry())
        .await
        .map_err(|error| Failure::unreachable(format!("cannot reach the scheduler: {error}")))?;
    let exit = compute::compute(&client, request).await;
    drop(client);
    drop(cluster);
    exit
}
