//! Deterministic simulation: one seed, one world, one history.
//!
//! A seed draws a cluster, clients with their graphs, and faults. The first phase lets faults happen and checks safety
//! after every event; then everything is healed and has to end within a bound; then everything is released and nothing may
//! be left. The machines are the real ones; time, network, stores and clients are simulated.

pub mod entropy;
pub mod oracle;
pub mod shapes;
pub mod trace;

mod checks;
mod faults;
mod process;
mod session;
mod shell;
mod spilling;
mod uploading;
mod watching;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use rask_comm::time::Time;
use rask_worker::machine::MachineConfig;

use entropy::{Dice, Seeded};
use oracle::Plan;
use process::Process;
use session::{Job, JobState, OutputState, Session};
use shapes::Style;
use trace::{Counts, Recording, Trace};
use world::{Delivery, World};

/// Virtual time that healed clusters are given to end everything.
const BOUND: Duration = Duration::from_secs(900);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// A deliberate fault of the scheduler machine.
    pub scheduler_fault: Option<rask_scheduler::machine::Fault>,
    /// A deliberate fault of the worker machine.
    pub worker_fault: Option<rask_worker::machine::Fault>,
    /// How much to write down.
    pub recording: Recording,
    /// How many events to keep in words.
    pub max_lines: usize,
}

impl Options {
    /// Seed `seed` without deliberate faults, counting only.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self { seed, scheduler_fault: None, worker_fault: None, recording: Recording::Counts, max_lines: 80 }
    }
}

/// A run in which a rule was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// When, in virtual time.
    pub at: Time,
    /// What was broken.
    pub message: String,
    /// The last events, if they were written down.
    pub lines: Vec<String>,
}

/// What came of a run.
pub struct Outcome {
    /// Counts of what happened.
    pub counts: Counts,
    /// Hash of everything that happened; meaningful when it was recorded.
    pub hash: u64,
    /// The broken rule, if any.
    pub violation: Option<Violation>,
}

/// Run one seed to its end, or to the first broken rule.
#[must_use]
pub fn run(options: Options) -> Outcome {
    let mut world = build(options);
    let result = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let violation = result.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let message = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Violation {
            seed: options.seed,
            at: world.now,
            message: message.unwrap_or_else(|| "a panic without a message".to_owned()),
            lines: world.trace.lines().map(str::to_owned).collect(),
        }
    });
    let counters = world.scheduler.counters();
    (world.trace.counts.n_backups, world.trace.counts.n_backups_won) = (counters.n_backups, counters.n_backups_won);
    world.trace.counts.virtual_seconds = world.now.0.as_secs_f64();
    Outcome { counts: world.trace.counts.clone(), hash: world.trace.hash(), violation }
}

fn build(options: Options) -> World {
    let mut dice = Dice::new(Box::new(Seeded::new(options.seed)));
    let profile = faults::Profile::draw(&mut dice);
    let mut config = faults::draw_config(&mut dice);
    if profile.is_flickering {
        // Many runs wait at the worker, so that cancellations meet them there.
        config.prefill = Duration::from_secs(1);
        config.max_prefill = 1_024;
    }
    config.fault = options.scheduler_fault;
    let trace = Trace::new(options.recording, options.max_lines);
    let may_repeat_work = profile.fetch_breaks_per_mille > 0;
    let mut world = World::new(dice, trace, profile, config);
    world.may_repeat_work = may_repeat_work;
    let max_resource = build_workers(&mut world, options);
    let style = draw_style(&mut world, max_resource);
    build_sessions(&mut world, &style);
    world.plan_faults();
    world
}

/// Draw the workers. Gives the largest amount of the resource that one of them has.
fn build_workers(world: &mut World, options: Options) -> u64 {
    let n_workers = if world.profile.is_flickering { 1 } else { world.dice.between(1, 5) as usize };
    let has_resources = world.dice.chance(40);
    let mut max_resource = 0;
    for at in 0..n_workers {
        let n_slots = if world.profile.is_flickering { 1 } else { world.dice.magnitude(1, 4) as u32 };
        let amount = if has_resources && (at == 0 || world.dice.chance(60)) { world.dice.between(1, 3) } else { 0 };
        max_resource = max_resource.max(amount);
        let resources = if amount > 0 { vec![("gpu".to_owned(), amount as f64)] } else { Vec::new() };
        let mut config = MachineConfig::new(n_slots, 1 << 30);
        config.memory = faults::draw_memory(&mut world.dice);
        if world.dice.chance(40) {
            config.limits.max_request_items = world.dice.magnitude(1, 8) as usize;
            config.limits.max_requests_per_peer = world.dice.between(1, 3) as usize;
            config.limits.max_request_nbytes = world.dice.magnitude(1, 1 << 20);
            config.limits.max_nbytes_in_flight = world.dice.magnitude(1, 1 << 22);
            config.blame_after = Duration::from_micros(world.dice.magnitude(1, 100_000));
        }
        config.fault = options.worker_fault;
        let mut process = Process::new(format!("worker-{at}"), n_slots, resources, config);
        process.disk_limit = faults::draw_disk(&mut world.dice, &config.memory);
        world.processes.push(process);
        let start = world.dice.below(5_000);
        world.push_in(start, Delivery::Connect { process: at });
    }
    max_resource
}

fn draw_style(world: &mut World, max_resource: u64) -> Style {
    let dice = &mut world.dice;
    let max_duration_us = if world.profile.is_flickering { 30_000 } else { dice.magnitude(100, 400_000) };
    Style {
        max_tasks: dice.magnitude(3, 50),
        max_duration_us,
        max_nbytes: dice.magnitude(8, 4 << 20),
        misbehaving: if dice.chance(35) { dice.between(1, 10) } else { 0 },
        killing: if dice.chance(12) { dice.between(1, 40) } else { 0 },
        constrained: if dice.chance(35) { dice.between(5, 60) } else { 0 },
        worker_names: world.processes.iter().map(|process| process.name.clone()).collect(),
        max_resource,
    }
}

fn build_sessions(world: &mut World, style: &Style) {
    for session in 0..world.dice.between(1, 3) as usize {
        let mut jobs: Vec<Job> = Vec::new();
        for _ in 0..world.dice.between(1, 4) {
            let usable: Vec<usize> = if world.dice.chance(60) { (0..jobs.len()).collect() } else { Vec::new() };
            let plans: Vec<Rc<Plan>> = jobs.iter().map(|job| Rc::clone(&job.plan)).collect();
            let earlier: Vec<&Plan> = plans.iter().map(AsRef::as_ref).collect();
            let is_scatter = world.dice.chance(20);
            let plan = if is_scatter {
                shapes::draw_scatter(&mut world.dice, style)
            } else {
                shapes::draw(&mut world.dice, style, &earlier, &usable)
            };
            let outputs = plan.graph.outputs.iter().map(|idx| (*idx, OutputState::Pending)).collect();
            let latest = world.profile.horizon_us / if world.profile.is_flickering { 8 } else { 1 };
            let submit_at = Time(Duration::from_micros(world.dice.below(latest)));
            jobs.push(Job {
                plan: Rc::new(plan),
                submit_at,
                is_detached: world.dice.chance(30),
                priority: world.dice.between(0, 2) as i32 - 1,
                is_kept: world.profile.is_flickering || world.dice.chance(40),
                state: JobState::Planned,
                outputs,
                has_ended: false,
                was_attached: false,
                keeps_values: world.dice.chance(60),
                has_values: true,
            });
            world.push(submit_at, Delivery::SessionWakes { session });
        }
        world.sessions.push(Session { link: None, is_welcome: false, jobs });
        let start = world.dice.below(5_000);
        world.push_in(start, Delivery::SessionWakes { session });
    }
}

/// The phases of a run.
fn live(world: &mut World) {
    let heal_at = Time(Duration::from_micros(world.profile.horizon_us));
    while world.next_at().is_some_and(|at| at <= heal_at) {
        world.step();
    }
    world.heal();
    let deadline = world.now.after(BOUND);
    run_until(world, deadline, |world| world.is_quiet() && world.sessions.iter().all(Session::is_done));
    world.check_sessions_done();
    settle(world);
    world.check_no_work_repeated();
    world.release_everything();
    settle(world);
    world.cancel_orphans();
    settle(world);
    world.check_empty();
}

/// Let what is under way come to rest, and see that the tables agree.
fn settle(world: &mut World) {
    let deadline = world.now.after(BOUND);
    // A second more, so that every worker has told its status once: news that is due only then is part of the rest.
    let mut at_least = world.now.after(Duration::from_millis(2_500));
    if world.profile.is_abandoned {
        // What nobody can do fails only after the grace period.
        at_least = at_least.after(world.config.no_worker_grace);
    }
    run_until(world, deadline, |world| world.now >= at_least && world.is_quiet());
    assert!(world.is_quiet(), "the cluster does not come to rest");
    world.check_honest();
}

fn run_until(world: &mut World, deadline: Time, is_over: impl Fn(&World) -> bool) {
    while !is_over(world) && world.next_at().is_some_and(|at| at <= deadline) {
        world.step();
    }
}
