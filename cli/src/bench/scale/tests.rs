//! The simulation itself: schedules that can be worked out by hand, bounds, and that every task runs exactly once.

use clap::ValueEnum;
use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, FinishOptions, GraphBuilder, TaskIdx};

use super::bounds::Bounds;
use super::replay::Replay;
use super::workloads::{self, Cost, Draw, Name, Workload};
use super::world::{Cluster, World};

/// A workload of tasks given as (inputs, microseconds, bytes), in order. Tasks that take equally long are of one operator.
fn workload(tasks: &[(&[u32], u32, u32)]) -> Workload {
    let mut graph = GraphBuilder::new();
    let family = graph.family("task");
    for (member, (inputs, duration_us, _)) in tasks.iter().enumerate() {
        let key = KeyRef { family, member: Some(member as u32) };
        let body = graph.body(Body::single(&format!("bench.{duration_us}"), 1, "{}"));
        graph.task_with(key, body).inputs(inputs.iter().map(|input| TaskIdx(*input))).add();
    }
    let graph = graph.finish(&FinishOptions { cull: false, fuse: false, order: false }).unwrap().graph;
    let costs = tasks.iter().map(|&(_, duration_us, nbytes)| Cost { duration_us, nbytes, n_parts: 0 }).collect();
    Workload { graph, costs, least_nbytes: None }
}

fn build(name: Name, n_tasks: u32, n_workers: u32, seed: u64) -> Workload {
    workloads::build(name, n_tasks, n_workers, Draw { seed, work_us: 1_000 }).unwrap()
}

fn simulate(workload: &Workload, n_workers: u32, n_slots: u32) -> World<'_> {
    let mut world = World::new(workload, Cluster { n_workers, n_slots }, false).unwrap();
    world.run().unwrap();
    world.release().unwrap();
    world
}

fn makespan_us(workload: &Workload, n_workers: u32, n_slots: u32) -> u64 {
    simulate(workload, n_workers, n_slots).ended_at.unwrap() / 1_000
}

#[test]
fn one_worker_takes_the_sum_and_a_message_each_way() {
    let tasks = [(&[][..], 1_000, 8); 5];
    assert_eq!(makespan_us(&workload(&tasks), 1, 1), 50 + 5 * 1_000 + 50);
}

#[test]
fn slots_share_the_work() {
    let tasks = [(&[][..], 1_000, 8); 6];
    // While nothing is known of the operator two slots are given three tasks, so one of them has to ask for its second.
    assert_eq!(makespan_us(&workload(&tasks), 1, 2), 50 + 1_000 + 100 + 2 * 1_000 + 50);
    assert_eq!(makespan_us(&workload(&tasks), 2, 3), 50 + 1_000 + 50);
}

/// Both inputs are made by 1,050 us, one at each worker. How big they are is not known before, so the sum is not given to either until
/// that is reported; then it fetches: a message here, one there, 1 ms on the link, a message back.
#[test]
fn one_transfer_takes_three_messages_and_its_bytes() {
    let graph = workload(&[(&[], 1_000, 1_000_000), (&[], 1_000, 1_000_000), (&[0, 1], 1_000, 8)]);
    let world = simulate(&graph, 2, 1);
    assert_eq!(world.ended_at.unwrap() / 1_000, 50 + 1_000 + 50 + 50 + 50 + 1_000 + 50 + 1_000 + 50);
    assert_eq!((world.counts.n_transfers, world.counts.nbytes_moved, world.counts.n_pushed), (1, 1_000_000, 0));
}

/// The second row begins as above. By then results of the operator are known to be small, so the last task is given at once to one of
/// the two workers, and the input from the other comes with the message that it is made. So does one of the second row's, because of
/// two reports one is the first, and then the size of the other is known.
#[test]
fn a_small_result_is_pushed_along() {
    let result = 10_000;
    let rows = [(&[][..], 1_000, result), (&[], 1_000, result), (&[0, 1], 1_000, result), (&[0, 1], 1_000, result)];
    let last = (&[2, 3][..], 1_000, 8);
    let graph = workload(&[rows[0], rows[1], rows[2], rows[3], last]);
    let world = simulate(&graph, 2, 1);
    let first_row = 50 + 1_000 + 50;
    let second_row = 50 + 50 + 10 + 50 + 1_000;
    assert_eq!(world.ended_at.unwrap() / 1_000, first_row + second_row + 10 + 50 + 1_000 + 50);
    assert_eq!((world.counts.n_transfers, world.counts.nbytes_moved, world.counts.n_pushed), (3, 30_000, 2));
}

/// Two inputs to fetch, from different workers: they share the link of the one that fetches. The sum is given away when the first two
/// of three reports have been taken in, so its worker asks to be told of what is made already: a message each way.
#[test]
fn parcels_queue_for_the_link_of_their_receiver() {
    let input = (&[][..], 1_000, 1_000_000);
    let graph = workload(&[input, input, input, (&[0, 1, 2], 1_000, 8)]);
    assert_eq!(makespan_us(&graph, 3, 1), 50 + 1_000 + 50 + 50 + 2 * 50 + 50 + 2 * 1_000 + 50 + 1_000 + 50);
}

/// Three long tasks use one result: two workers fetch it, and share the link of the one that has it.
#[test]
fn parcels_queue_for_the_link_of_their_sender() {
    let graph = workload(&[(&[], 1_000, 4_000_000), (&[0], 100_000, 8), (&[0], 100_000, 8), (&[0], 100_000, 8)]);
    assert_eq!(makespan_us(&graph, 3, 1), 50 + 1_000 + 50 + 50 + 50 + 2 * 4_000 + 50 + 100_000 + 50);
}

#[test]
fn idle_slots_are_told_apart_by_what_they_lack() {
    let graph = workload(&[(&[], 1_000, 1_000_000), (&[], 1_000, 1_000_000), (&[0, 1], 1_000, 8)]);
    let mut world = simulate(&graph, 2, 1);
    let idle = world.idle();
    // The worker of the sum misses an input from 1,150 us to 2,250 us; at 3,300 us all is known to be over.
    assert_eq!(idle.for_data, 1_100_000);
    // Both wait for the first word of all, one has nothing to do after its only task, the other one until it is given the sum and
    // after it.
    assert_eq!(idle.for_work, (2 * 50 + (3_300 - 1_050) + 100 + 50) * 1_000);
}

#[test]
fn bounds_are_the_longest_path_and_the_shared_work() {
    let graph = workload(&[(&[], 10, 100), (&[0], 20, 30), (&[0], 5, 7), (&[1, 2], 1, 8)]);
    let bounds = Bounds::of(&graph);
    assert_eq!(bounds, Bounds { critical_path_us: 31, work_us: 36, input_nbytes: 100 + 100 + 30 + 7 });
    assert_eq!((bounds.makespan_us(1), bounds.makespan_us(2)), (36, 31));
}

#[test]
fn a_group_counts_with_the_parts_that_are_read() {
    let shuffle = build(Name::Shuffle, 8, 2, 1);
    let bounds = Bounds::of(&shuffle);
    assert_eq!(bounds.input_nbytes, 4 << 20);
    let longest = |of_mappers: bool| {
        let costs = shuffle.costs.iter().filter(|cost| (cost.n_parts > 0) == of_mappers);
        costs.map(|cost| u64::from(cost.duration_us)).max().unwrap()
    };
    assert_eq!(bounds.critical_path_us, longest(true) + longest(false));
}

/// Every workload on clusters smaller and larger than it: nothing is made twice or missed, and no bound is beaten.
#[test]
fn every_task_runs_once_and_no_bound_is_beaten() {
    for name in Name::value_variants() {
        for n_workers in [1, 3, 16] {
            let workload = build(*name, 300, n_workers, 7);
            let world = simulate(&workload, n_workers, 1);
            // Where times differ as much as these, a straggler gets a second run on an idle worker.
            let n_most = if matches!(name, Name::Lognormal) { 2 } else { 1 };
            assert!(world.n_runs_of.iter().all(|n| (1..=n_most).contains(n)), "{name:?} on {n_workers}: {:?}", world.n_runs_of);
            assert_eq!(world.counts.n_misses, 0, "{name:?} on {n_workers}");
            let least = Bounds::of(&workload).makespan_us(u64::from(n_workers));
            assert!(world.ended_at.unwrap() / 1_000 >= least, "{name:?} on {n_workers}: faster than {least} us");
            if n_workers == 1 {
                assert_eq!((world.counts.nbytes_moved, workload.least_nbytes.unwrap_or(0)), (0, 0), "{name:?}");
            }
        }
    }
}

#[test]
fn a_machine_told_the_same_does_the_same() {
    let workload = build(Name::Anomaly, 500, 4, 3);
    let mut world = simulate(&workload, 4, 1);
    let mut replay = Replay::new(&workload);
    replay.tell(std::mem::take(&mut world.log));
    assert_eq!(replay.counters(), world.counters());
    assert_eq!(world.counts.n_runs, workload.costs.len() as u64);
}

#[test]
fn a_seed_draws_the_same_durations_and_another_one_others() {
    let draw = |seed| -> Vec<u32> {
        let workload = build(Name::Lognormal, 10_000, 1, seed);
        workload.costs.iter().map(|cost| cost.duration_us).collect()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let mean_us = draw(1).iter().map(|us| u64::from(*us)).sum::<u64>() / 10_000;
    assert!((5_000..7_000).contains(&mean_us), "{mean_us} us in the mean");
}

#[test]
fn times_are_scaled_together() {
    let of = |work_us| workloads::build(Name::DoubleDiff, 100, 1, Draw { seed: 1, work_us }).unwrap();
    for (normal, short) in of(1_000).costs.iter().zip(&of(100).costs) {
        assert_eq!((normal.duration_us / 10, normal.nbytes), (short.duration_us, short.nbytes));
    }
}

#[test]
fn a_tree_moves_at_least_a_result_a_worker() {
    assert_eq!(build(Name::Tree, 100, 5, 1).least_nbytes, Some(4 * 8192));
    assert_eq!(build(Name::Shuffle, 8, 2, 1).least_nbytes, Some(2 << 20));
    // 2 x 2 outputs at 4 workers: each needs 2 x 2 chunks of the 3 x 3 there are.
    assert_eq!(build(Name::DoubleDiff, 12, 4, 1).least_nbytes, Some((16 - 9) << 20));
}
