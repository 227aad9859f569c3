//! The simulation as a test: a few seeds clean, the same seed the same history, and every deliberate fault caught.
//!
//! `cargo run -p tests --bin sim -- --seeds 10000` runs more.

use tests::sim::trace::Recording;
use tests::sim::{Options, run};

const N_SEEDS: u64 = 100;
/// Most faults show within a dozen seeds; the two about news of old attempts need rare coincidences.
const N_SEEDS_A_FAULT: u64 = 3_000;

fn quietly<T>(action: impl FnOnce() -> T) -> T {
    // Broken rules are panics that are caught and reported with their seed.
    std::panic::set_hook(Box::new(|_| {}));
    let result = action();
    let _ = std::panic::take_hook();
    result
}

#[test]
fn seeds_run_clean() {
    for seed in 0..N_SEEDS {
        if let Some(violation) = run(Options::of_seed(seed)).violation {
            panic!(
                "seed {seed} at {}: {}\nreplay: cargo run -p tests --bin sim -- --seed {seed} --verbose --lines 400",
                violation.at, violation.message
            );
        }
    }
}

#[test]
fn seeds_exercise_what_they_are_meant_to() {
    let mut counts = tests::sim::trace::Counts::default();
    (0..N_SEEDS).for_each(|seed| counts.add(&run(Options::of_seed(seed)).counts));
    assert!(counts.faults.len() >= 15, "kinds of faults: {:?}", counts.faults);
    assert!(counts.n_tasks > 2_000 && counts.n_executions > 2_000, "{counts:?}");
}

#[test]
fn a_seed_has_one_history() {
    for seed in 0..12 {
        let options = Options { recording: Recording::Hash, ..Options::of_seed(seed) };
        assert_eq!(run(options).hash, run(options).hash, "seed {seed}");
    }
    let hash = |seed| run(Options { recording: Recording::Hash, ..Options::of_seed(seed) }).hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn every_deliberate_fault_is_caught() {
    let scheduler = rask_scheduler::machine::Fault::ALL.map(|fault| (Some(fault), None));
    let worker = rask_worker::machine::Fault::ALL.map(|fault| (None, Some(fault)));
    let missed = quietly(|| {
        let mut missed = Vec::new();
        for (scheduler_fault, worker_fault) in scheduler.into_iter().chain(worker) {
            let is_caught = |seed| run(Options { scheduler_fault, worker_fault, ..Options::of_seed(seed) }).violation.is_some();
            if !(0..N_SEEDS_A_FAULT).any(is_caught) {
                missed.push(format!("{scheduler_fault:?} {worker_fault:?}"));
            }
        }
        missed
    });
    assert!(missed.is_empty(), "not caught within {N_SEEDS_A_FAULT} seeds: {missed:?}");
}
