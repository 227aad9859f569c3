//! Spilling and admission by scripts; see `tests`. The limit is 1,000 bytes unless said otherwise: results are spilled above 600
//! bytes down to 550, and nothing begins that would make it more than 800.

use super::tests::{Script, config};
use super::*;

fn script(n_slots: u32) -> Script {
    let memory = MemoryConfig { can_spill: true, min_spill_nbytes: 10, ..MemoryConfig::new(1_000) };
    let limits = FetchLimits { max_request_nbytes: 500, max_nbytes_in_flight: 500, ..config(n_slots).limits };
    Script::new(MachineConfig { memory, limits, ..config(n_slots) })
}

#[test]
fn the_least_recently_used_results_are_spilled_above_the_target_until_below_it() {
    let mut script = script(1);
    script.play(
        "run 1             | start 1
         done 1 x200       | told finished 1
         run 2             | start 2
         done 2 x200       | told finished 2
         run 3             | start 3
         done 3 x150       | told finished 3
         run 4 <- 1@0      | start 4
         done 4 x100       | told finished 4, spill 2
         spilled 2         | told spilled, evict 2
         run 5             | start 5
         done 5 x5         | told finished 5",
    );
    assert_eq!((script.machine.ledger.nbytes_in_memory(), script.machine.ledger.nbytes_in_files()), (455, 200));
}

#[test]
fn what_is_small_stays_and_what_a_run_uses_waits() {
    script(2).play(
        "run 1            | start 1
         done 1 x9        | told finished 1
         run 2            | start 2
         done 2 x300      | told finished 2
         run 3            | start 3
         run 4 <- 2@0     | start 4
         done 3 x300      | told finished 3, spill 3
         spilled 3        | told spilled, evict 3
         done 4 x300      | told finished 4, spill 2",
    );
}

#[test]
fn a_spilled_result_that_a_run_reads_is_in_memory_again_and_leaves_it_without_being_written() {
    let mut script = script(1);
    script.play(
        "run 1            | start 1
         done 1 x400      | told finished 1
         run 2            | start 2
         done 2 x300      | told finished 2, spill 1
         spilled 1        | told spilled, evict 1
         run 3 <- 1@0     | start 3, spill 2
         spilled 2        | told spilled, evict 2
         done 3 x20       | told finished 3
         run 4 <- 2@0     | start 4, evict 1
         free 1           | drop 1",
    );
    assert_eq!(script.machine.ledger.nbytes_written(), 700);
    assert_eq!((script.machine.ledger.nbytes_in_memory(), script.machine.ledger.nbytes_in_files()), (320, 0));
}

#[test]
fn runs_wait_for_room_as_their_siblings_sizes_tell_and_one_goes_when_nothing_else_does() {
    script(4).play(
        "body b=7        | add body
         run 1 b=7       | start 1
         done 1 x450     | told finished 1
         run 2 b=7       | spill 1
         run 3 b=7       |
         spilled 1       | told spilled, evict 1, start 2
         done 2 x900     | told finished 2, spill 2
         run 4 b=7       |
         full 2          | told status 0 executing 2 waiting 0 flying, paused, disk full
         free 2          | drop 2, start 3, told status 1 executing 1 waiting 0 flying, disk full",
    );
}

#[test]
fn a_full_disk_pauses_the_worker_and_space_that_returns_frees_it() {
    script(1).play(
        "run 1           | start 1
         done 1 x500     | told finished 1
         run 2           | start 2
         done 2 x410     | told finished 2, spill 1
         full 1          | told status 0 executing 0 waiting 0 flying, paused, disk full
         run 3           |
         resume          | told status 0 executing 1 waiting 0 flying, paused, disk full, spill 1
         full 1          |
         resume          | told status 0 executing 1 waiting 0 flying, paused, disk full, spill 1
         spilled 1       | told spilled, evict 1, start 3, told status 1 executing 0 waiting 0 flying",
    );
}

#[test]
fn what_cannot_be_encoded_is_not_tried_again() {
    script(1).play(
        "run 1          | start 1
         done 1 x500    | told finished 1
         run 2          | start 2
         done 2 x200    | told finished 2, spill 1
         stuck 1        | spill 2
         stuck 2        |
         resume         | told status 0 executing 0 waiting 0 flying",
    );
}

#[test]
fn fetches_wait_for_room_and_the_most_urgent_one_goes_when_nothing_else_does() {
    script(2).play(
        "peer 1                       |
         peer 2                       |
         run 1                        | start 1
         done 1 x500                  | told finished 1
         run 9 <- 10x200@1 11x250@2   | fetch 0 from 1: 10, spill 1
         spilled 1                    | told spilled, evict 1, fetch 1 from 2: 11
         came 0 10 x200               | told fetched 10
         came 1 11 x250               | told fetched 11, start 9",
    );
    script(1).play(
        "peer 1                     |
         run 1 <- 10:0x900@1        | fetch 0 from 1: 10:0
         run 2 <- 11:0x50@1         |
         came 0 10:0 x900           | start 1
         done 1 x1                  | told 900 bytes of parts, drop 10:0, told finished 1, fetch 1 from 1: 11:0",
    );
}

#[test]
fn the_process_taking_too_much_spills_what_the_ledger_would_keep() {
    script(1).play(
        "run 1          | start 1
         done 1 x200    | told finished 1
         run 2          | start 2
         done 2 x200    | told finished 2
         rss 699        |
         rss 720        | spill 1
         spilled 1      | told spilled, evict 1
         rss 660        |
         rss 640        |",
    );
}

#[test]
fn memory_that_is_used_up_for_long_or_far_ends_the_process_or_the_runs() {
    script(1).play(
        "run 1          | start 1
         rss 960        | told status 1 executing 0 waiting 0 flying, paused
         wait 999       | told executing 1
         rss 890        |
         rss 960        |
         wait 999       |
         rss 960        |
         wait 1         |
         rss 940        |
         rss 960        | abort
         rss 990        |",
    );
    // What does nothing takes no more, however much it has.
    script(1).play(
        "rss 960        |
         wait 1000      |
         rss 960        |
         rss 1200       | abort",
    );
    script(1).play(
        "run 1          | start 1
         rss 1200       | told status 1 executing 0 waiting 0 flying, paused
         rss 960        |
         rss 1200       | abort
         rss 990        |",
    );
    let memory = MemoryConfig { fails_tasks: true, ..MemoryConfig::new(1_000) };
    Script::new(MachineConfig { memory, ..config(2) }).play(
        "run 1          | start 1
         run 2          | start 2
         rss 1960       | told status 2 executing 0 waiting 0 flying, paused
         rss 1960       | interrupt 1, told failed 1, interrupt 2, told failed 2
         rss 960        |
         broke 1        |
         broke 2        |
         run 3          |
         rss 899        | start 3
         rss 100        | told status 1 executing 0 waiting 0 flying",
    );
}

#[test]
fn inputs_that_can_never_be_in_memory_together_are_refused_before_they_are_fetched() {
    script(1).play(
        "peer 1                     |
         run 1 <- 5x600@1 6x500@1   | told failed 1
         replicate 7x1001@1         | told not replicated 7
         run 2 <- 5x600@1 5x600@1   | fetch 0 from 1: 5",
    );
}

#[test]
fn a_result_that_is_dropped_while_it_is_written_leaves_nothing() {
    let mut script = script(1);
    script.play(
        "run 1          | start 1
         done 1 x700    | told finished 1, spill 1
         free 1         | drop 1
         run 2          | start 2
         spilled 1      |
         run 3          |",
    );
    assert_eq!((script.machine.ledger.nbytes_in_memory(), script.machine.ledger.nbytes_in_files()), (0, 0));
    assert_eq!(script.machine.ledger.n_writes(), 0);
}

#[test]
fn a_spilled_result_whose_file_is_damaged_is_lost() {
    script(1).play(
        "run 1            | start 1
         done 1 x700      | told finished 1, spill 1
         spilled 1        | told spilled, evict 1
         run 2 <- 1@0     | start 2
         missed 2 1       | told lost 1, told 2 lacks 1 of [0]
         run 3            | start 3",
    );
}

#[test]
fn a_replica_is_not_written_but_offered_and_goes_when_the_scheduler_says_so() {
    let mut script = script(1);
    script.play(
        "peer 1                 |
         run 1                  | start 1
         done 1 x300            | told finished 1
         run 2 <- 5x200@1       | fetch 0 from 1: 5
         came 0 5 x200          | told fetched 5, start 2
         done 2 x60             | told finished 2
         run 3                  | start 3
         done 3 x50             | told finished 3, told burdened 5
         free 5                 | drop 5
         run 4                  | start 4
         done 4 x200            | told finished 4, spill 1",
    );
    assert_eq!((script.machine.ledger.nbytes_leaving(), script.machine.ledger.nbytes_written()), (300, 0));
}

#[test]
fn a_replica_that_has_to_stay_is_written_like_any_result() {
    let mut script = script(1);
    script.play(
        "peer 1                 |
         run 2 <- 5x500@1       | fetch 0 from 1: 5
         came 0 5 x500          | told fetched 5, start 2
         done 2 x120            | told finished 2, told burdened 5
         keep 5                 | spill 5
         spilled 5              | told spilled, evict 5
         keep 5                 |",
    );
    assert_eq!((script.machine.ledger.nbytes_in_memory(), script.machine.ledger.nbytes_in_files()), (120, 500));
}

#[test]
fn what_is_cheap_to_have_again_leaves_before_what_was_used_earlier_and_must_be_written() {
    // 1 was used earlier, but 2 is in a file already.
    let mut script = script(1);
    script.play(
        "run 2            | start 2
         done 2 x200      | told finished 2
         rss 720          | spill 2
         spilled 2        | told spilled, evict 2
         rss 100          |
         run 1            | start 1
         done 1 x350      | told finished 1
         run 3 <- 2@0     | start 3
         done 3 x60       | told finished 3, evict 2",
    );
    assert_eq!(script.machine.ledger.nbytes_written(), 200);
}

#[test]
fn what_is_read_for_others_takes_room_until_it_is_sent() {
    script(1).play(
        "body b=7         | add body
         run 1 b=7        | start 1
         done 1 x300      | told finished 1
         run 8            | start 8
         lend x350        | spill 1
         run 2 b=7        |
         done 8 x1        | told finished 8
         spilled 1        | told spilled, evict 1, start 2",
    );
    script(1).play(
        "lend x900        |
         sent x900        |
         run 1            | start 1
         done 1 x500      | told finished 1",
    );
}

#[test]
fn a_run_waits_for_room_for_what_its_siblings_worked_with() {
    script(2).play(
        "body b=7               | add body
         run 1 b=7              | start 1
         done 1 x5 peak=500     | told finished 1
         run 2 b=7              | start 2
         run 3 b=7              |
         done 2 x5 peak=500     | told finished 2, start 3",
    );
}

#[test]
fn with_a_full_disk_what_only_reads_goes_on_when_nothing_that_would_stay_can_begin() {
    let mut script = script(1);
    script.play(
        "body b=7         | add body
         run 1 b=7        | start 1
         done 1 x150      | told finished 1
         run 2            | start 2
         done 2 x460      | told finished 2, spill 1
         full 1           |
         rss 820          |
         run 3 <- 2@0     | start 3, told status 1 executing 0 waiting 0 flying, paused, disk full
         done 3 x1        | told finished 3, told status 0 executing 0 waiting 0 flying, disk full
         run 4 b=7        | told status 0 executing 1 waiting 0 flying, paused, disk full
         rss 590          | start 4, told status 1 executing 0 waiting 0 flying, disk full",
    );
}
