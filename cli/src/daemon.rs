//! `rask scheduler` and `rask worker`: processes that run until they are told to stop.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rask_comm::message::LostResults;
use rask_comm::reach::race;
use rask_comm::{Authority, AuthorityError, BindError, JoinError, Role, StateDir, host_name, obtain_identity};
use rask_scheduler::server::{SchedulerConfig, ServerError};
use rask_worker::server::{WorkerConfig, WorkerError};
use rask_worker::store::spill::SpillConfig;

use crate::arguments::{Handover, SchedulerArguments, WorkerArguments};
use crate::bench;
use crate::blocking::block_on;
use crate::connect::{join_hint, no_such_scheduler};
use crate::data_roots::file_policy;
use crate::exit::{Exit, Failure};
use crate::machine::{default_memory, n_processors};
use crate::report::{plural, size_text};
use crate::settings::{DEFAULT_ADDRESS, Settings};
use crate::terminal::{print_note, print_to_stdout};

/// `rask scheduler`
pub(crate) fn run_scheduler(arguments: &SchedulerArguments, settings: &Settings) -> anyhow::Result<Exit> {
    hold_leash();
    keep_memory_private();
    let listen = arguments.listen.clone().or_else(|| settings.file.listen.clone());
    let listen = listen.unwrap_or_else(|| DEFAULT_ADDRESS.to_string());
    let address = listen_address(&listen)?;
    let mut config = SchedulerConfig::new(address, settings.state_dir.clone());
    if let Some(grace) = arguments.grace.or(settings.file.grace) {
        config.machine.no_worker_grace = grace;
    }
    config.believes_addresses = arguments.believe_addresses;
    let quotas = &mut config.machine.quotas;
    quotas.max_graphs = arguments.owner_graphs.unwrap_or(quotas.max_graphs);
    quotas.max_tasks = arguments.owner_tasks.unwrap_or(quotas.max_tasks);
    block_on(async {
        let failed = |error| Failure::failed(format!("cannot listen for signals: {error}"));
        let stopped = rask_worker::server::termination().map_err(failed)?;
        let ended = rask_scheduler::server::run(config, announce, stopped).await;
        ended.map_err(|error| scheduler_failure(&error, &listen))?;
        Ok(Exit::Done)
    })
}

/// Where to listen: an address, or a name for one of this host's.
fn listen_address(listen: &str) -> Result<SocketAddr, Failure> {
    let wrong = |reason: String| {
        Failure::misuse(format!("cannot listen on \"{listen}\": {reason}"))
            .with_hint("addresses look like 127.0.0.1:8786, 0.0.0.0:8786 for all of this host, or localhost:8786")
    };
    let found = block_on(async { Ok(rask_comm::reach::lookup(listen).await) }).map_err(|error| wrong(error.to_string()))?;
    let addresses = found.map_err(wrong)?;
    // Of a name with several addresses one has to be chosen, and everybody has the older kind.
    Ok(addresses.iter().find(|address| address.is_ipv4()).copied().unwrap_or(addresses[0]))
}

fn scheduler_failure(error: &ServerError, listen: &str) -> Failure {
    let failure = Failure::failed(format!("cannot start a scheduler at {listen}: {error}"));
    match error {
        ServerError::Bind(BindError::Socket { source, .. }) => match bind_hint(source.kind()) {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        },
        ServerError::Bind(BindError::Setup(_)) => failure,
        ServerError::Authority(_) | ServerError::Identity(_) | ServerError::State { .. } => failure,
    }
}

/// What to do about an address that cannot be had.
fn bind_hint(kind: std::io::ErrorKind) -> Option<&'static str> {
    let hints = [
        (std::io::ErrorKind::AddrInUse, "is one running already? --listen takes another address, port 0 any free one"),
        (
            std::io::ErrorKind::AddrNotAvailable,
            "this host has no such address; `ip address` lists those it has, 0.0.0.0 stands for all of them",
        ),
        (std::io::ErrorKind::PermissionDenied, "ports below 1024 are the system's; take another one"),
    ];
    hints.iter().find(|(of, _)| *of == kind).map(|(_, hint)| *hint)
}

/// Say where the scheduler is, and how others get there.
fn announce(address: SocketAddr) {
    let mut text = format!("scheduler listens on {address}\n");
    if address.ip().is_loopback() {
        text.push_str(&format!("join with: rask worker --scheduler {address}"));
    } else {
        let reachable =
            if address.ip().is_unspecified() { format!("{}:{}", host_name(), address.port()) } else { address.to_string() };
        text.push_str("make a token here:  rask token create --role worker > token\n");
        text.push_str(&format!("join elsewhere with: RASK_TOKEN_FILE=token rask worker --scheduler {reachable}"));
    }
    // Nobody may be reading; the scheduler works all the same.
    let _ = print_to_stdout(&text);
}

/// How long one address of the scheduler may take to let this worker join before the next one is asked too.
const JOIN_STAGGER: Duration = Duration::from_millis(1_500);

/// `rask worker`
pub(crate) fn run_worker(arguments: &WorkerArguments, settings: &Settings) -> anyhow::Result<Exit> {
    hold_leash();
    let scheduler = settings.scheduler(arguments.connect.scheduler.as_ref());
    let addresses = resolve(&scheduler)?;
    let token = settings.token(arguments.connect.token_file.as_ref())?;
    let name = arguments.name.clone().or_else(|| settings.file.name.clone());
    let name = name.unwrap_or_else(rask_comm::process_name);
    let mut config = worker_config(arguments, settings, &scheduler)?;
    config.files = file_policy(arguments, settings, token.is_some())?;
    if token.is_none() && addresses[0].ip().is_loopback() {
        wait_for_authority(&settings.state_dir);
    }
    let identity = block_on(async {
        let join = |address| obtain_identity(Role::Worker, &name, address, &settings.state_dir, token.as_deref());
        let weight = |error: &JoinError| if let JoinError::Connect(error) = error { error.weight() } else { 5 };
        // A token may count how often it is used, so the next address waits for an answer of the first.
        let identity = race(&addresses, JOIN_STAGGER, join, weight).await;
        identity.map_err(|error| join_failure(&error, &scheduler).into())
    })?;
    let drain_limit = config.drain_limit;
    print_note(&format!("worker {name} of {} threads, scheduler {scheduler}", config.n_slots));
    // Futures that need a runtime's signals are made on it.
    let stopped = async {
        match rask_worker::server::termination() {
            Ok(stopped) => stopped.await,
            Err(error) => {
                print_note(&format!("cannot listen for signals, so a worker that is told to stop does so at once: {error}"));
                std::future::pending().await
            }
        }
    };
    match rask_worker::server::run_blocking(config, identity, bench::registry(), stopped) {
        Ok(rask_worker::server::Exit::Left) => Ok(Exit::Done),
        Ok(rask_worker::server::Exit::Last { lost }) => Err(lost_with_the_last(&lost).into()),
        Ok(rask_worker::server::Exit::Hurried { n_results: 0, n_running: 0, .. }) => Ok(Exit::Done),
        Ok(rask_worker::server::Exit::Hurried { n_results, nbytes, n_running }) => {
            let results = format!("{} ({})", plural(count(n_results), "result"), size_text(nbytes));
            let message = format!(
                "left before everything was moved: {} cut short and {results} held here, of which those that no other worker has are lost",
                plural(count(n_running), "task"),
            );
            let hint = format!("what is lost and needed is computed again; --drain-limit, {drain_limit:?} here, gives more time");
            Err(Failure::failed(message).with_hint(hint).into())
        }
        Err(error) => Err(worker_failure(&error).into()),
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// There was no other worker to take what this one held.
fn lost_with_the_last(lost: &LostResults) -> Failure {
    let names = lost.names.join(", ");
    let n_more = (lost.n_results as usize).saturating_sub(lost.names.len());
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    let results = format!("{} ({})", plural(lost.n_results, "result"), size_text(lost.nbytes));
    Failure::failed(format!("left as the last worker: {results} that only it held are lost: {names}{more}")).with_hint(
        "what is needed is computed again when a worker comes; to keep results, start another worker before the last one stops",
    )
}

fn worker_config(arguments: &WorkerArguments, settings: &Settings, scheduler: &str) -> Result<WorkerConfig, Failure> {
    let threads = arguments.threads.or(settings.file.threads).unwrap_or_else(n_processors);
    let mut config = WorkerConfig::new(scheduler, threads);
    config.patience = arguments.patience.or(settings.file.patience).unwrap_or(config.patience);
    config.drain_limit = arguments.drain_limit.or(settings.file.drain_limit).unwrap_or(config.drain_limit);
    config.memory_limit = arguments.memory.or(settings.file.memory).unwrap_or_else(default_memory);
    config.spill = spill_config(arguments, settings)?;
    config.listen = arguments.listen;
    config.has_handover = arguments.handover == Handover::On;
    config.resources = if arguments.resources.is_empty() {
        settings.file.resources.iter().map(|(name, amount)| (name.clone(), *amount)).collect()
    } else {
        arguments.resources.clone()
    };
    Ok(config)
}

/// Where results go that memory is too short for.
fn spill_config(arguments: &WorkerArguments, settings: &Settings) -> Result<Option<SpillConfig>, Failure> {
    let limit = arguments.spill_limit.or(settings.file.spill_limit).unwrap_or(0);
    let directory = settings.spill_dir(arguments.spill_dir.as_ref(), || {
        let beside_state = settings.state_dir.path().map(|state| state.join("spill"));
        beside_state.map_err(|error| {
            Failure::failed(error.to_string()).with_hint("or say --spill-dir DIR, or none to keep all results in memory")
        })
    })?;
    Ok(directory.map(|directory| SpillConfig { limit, ..SpillConfig::new(directory) }))
}

/// How long a worker of the scheduler's user waits for a scheduler that makes the cluster's authority: both may start at once.
const AUTHORITY_PATIENCE: Duration = Duration::from_secs(10);

/// Wait until there is an authority in the state directory, as long as it may be about to be made.
fn wait_for_authority(state_dir: &StateDir) {
    let begun = Instant::now();
    while let Err(AuthorityError::Missing(directory)) = Authority::open(state_dir) {
        if begun.elapsed() < Duration::from_millis(100) {
            print_note(&format!("no cluster in {} yet: waiting for a scheduler to start there", directory.display()));
        } else if begun.elapsed() > AUTHORITY_PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The addresses of the scheduler by which this worker joins; they are looked up anew whenever it has to be found again.
fn resolve(scheduler: &str) -> Result<Vec<SocketAddr>, Failure> {
    let found = block_on(async { Ok(rask_comm::reach::lookup(scheduler).await) });
    let found = found.unwrap_or_else(|error| Err(error.to_string()));
    found.map_err(|reason| no_such_scheduler(scheduler, &reason))
}

fn join_failure(error: &JoinError, scheduler: &str) -> Failure {
    let message = format!("cannot join the cluster of {scheduler}: {error}");
    match (error, join_hint(error)) {
        (JoinError::Identity(_), _) => Failure::misuse(message),
        (_, Some(hint)) => Failure::unreachable(message).with_hint(hint),
        (_, None) => Failure::unreachable(message),
    }
}

fn worker_failure(error: &WorkerError) -> Failure {
    match error {
        WorkerError::NoScheduler { scheduler, .. } => Failure::unreachable(error.to_string())
            .with_hint(format!("start one with: rask scheduler --listen {scheduler}; --patience gives it longer to come")),
        WorkerError::Refused { .. } => Failure::unreachable(error.to_string()),
        WorkerError::Spill { .. } => Failure::failed(error.to_string())
            .with_hint("--spill-dir takes another directory, or none to keep all results in memory"),
        WorkerError::Exhausted { .. } => Failure::failed(error.to_string()).with_hint(
            "fewer --threads let fewer tasks need memory at once; a larger --memory, if the machine has it, lets each need more",
        ),
        WorkerError::Bind(_) | WorkerError::System(_) => Failure::failed(error.to_string()),
    }
}

/// The authority's key is in this process's memory as long as it runs: nobody else of this user shall read it there, and no
/// core dump have it. Workers cannot do the same, since they read each other's results.
fn keep_memory_private() {
    let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let core = rustix::process::setrlimit(rustix::process::Resource::Core, limit);
    let dump = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    if let Some(error) = core.err().or(dump.err()) {
        print_note(&format!("note: a core dump of the scheduler would have the authority's key in it: {error}"));
    }
}

/// With `RASK_LEASH=stdin` the process ends when its standard input does: with whoever started it, however that ended.
fn hold_leash() {
    if std::env::var_os("RASK_LEASH").is_none_or(|value| value != "stdin") {
        return;
    }
    std::thread::spawn(|| {
        let mut nothing = [0; 64];
        while std::io::stdin().lock().read(&mut nothing).is_ok_and(|n| n > 0) {}
        std::process::exit(Exit::Done.code().into());
    });
}
