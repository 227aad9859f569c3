//! The machine by scripts: what is told on the left, what it does on the right of each line.

pub(super) use super::script::*;
use rask_comm::message::LostResults;

use super::*;

#[test]
fn runs_start_by_priority_then_index_as_slots_become_free() {
    play(
        2,
        "run 5        | start 5
         run 9        | start 9
         run 8        |
         run 7        |
         run 30 p=1   |
         done 5       | told finished 5, start 30
         done 9       | told finished 9, start 7
         broke 30     | told failed 30, start 8",
    );
}

#[test]
fn a_newer_attempt_replaces_an_older_one_wherever_that_is() {
    play(
        1,
        "run 1     | start 1
         run 2.1   |
         run 2.2   |
         run 2.1   |
         run 2.2   |
         done 1    | told finished 1, start 2.2
         run 2.3   | interrupt 2.2
         run 2.2   |
         done 2.2  | drop 2.2, start 2.3
         done 2.3  | told finished 2.3
         run 2.3   |
         done 2.2  | drop 2.2
         done 2.3  | ",
    );
}

#[test]
fn cancelled_runs_leave_nothing_whatever_they_were_doing() {
    play(
        1,
        "peer 1           |
         run 1            | start 1
         run 2            |
         run 3 <- 10:0@1  | fetch 0 from 1: 10:0
         run 4 <- 10:0@1  |
         cancel 2         |
         cancel 3         |
         cancel 4         |
         came 0 10:0      | drop 10:0
         cancel 1         | interrupt 1
         cancel 1         |
         broke 1          |
         cancel 1         |
         run 6            | start 6
         done 6           | told finished 6
         cancel 6         | drop 6
         free 6           |",
    );
}

#[test]
fn only_what_has_not_started_is_given_up() {
    play(
        1,
        "peer 1          |
         run 1           | start 1
         run 2           |
         run 3 <- 10@1   | fetch 0 from 1: 10
         revoke 1        | told kept 1
         revoke 2.7      | told kept 2.7
         revoke 2        | told gave up 2
         revoke 2        | told kept 2
         revoke 3        | told gave up 3
         came 0 10       | drop 10
         done 1          | told finished 1
         revoke 1        | told kept 1",
    );
}

#[test]
fn one_fetch_serves_all_runs_and_a_whole_result_stays() {
    play(
        2,
        "peer 1            |
         run 5 <- 0@1      | fetch 0 from 1: 0
         run 6 <- 0@1 0@1  |
         came 0 0          | told fetched 0, start 5, start 6
         done 5            | told finished 5
         done 6            | told finished 6
         run 7 <- 0@1 0:3@1 | start 7
         free 0            | drop 0
         came 0 0          | drop 0",
    );
}

#[test]
fn parts_are_dropped_when_the_last_run_that_needs_them_is_over() {
    play(
        1,
        "peer 1                  |
         run 5 <- 0:1@1 0:2@1    | fetch 0 from 1: 0:1 0:2
         run 6 <- 0:1@1 0:1@1    |
         came 0 0:1              | start 6
         came 0 0:2              |
         run 7 <- 0:1@1          |
         done 6                  | told 2 bytes of parts, told finished 6, start 5
         cancel 7                |
         done 5                  | drop 0:1, drop 0:2, told finished 5",
    );
}

#[test]
fn what_no_holder_can_send_fails_those_who_wait_for_it() {
    play(
        1,
        "peer 1                 |
         peer 2                 |
         run 4 <- 0@2,1         | fetch 0 from 2: 0
         run 5 <- 0@1           |
         unsendable 0 0         | fetch 1 from 1: 0
         unsendable 1 0         | told failed 4, told failed 5",
    );
}

#[test]
fn a_failed_item_is_tried_elsewhere_before_the_run_is_given_back() {
    play(
        1,
        "peer 1                 |
         peer 2                 |
         run 4 <- 0@2,1 9@1     | fetch 0 from 1: 9, fetch 1 from 2: 0
         came 0 9               | told fetched 9
         failed 1 0             | fetch 2 from 1: 0
         run 5 <- 0@1           |
         failed 1 0             |
         failed 2 0             | told 4 lacks 0 of [2 1], told 5 lacks 0 of [2 1]
         failed 2 0             |
         came 2 0               | drop 0
         run 5.2 <- 0@1         | fetch 3 from 1: 0",
    );
}

#[test]
fn an_input_that_nobody_here_can_ask_for_gives_the_run_back_at_once() {
    play(
        1,
        "peer 1                 |
         run 4 <- 7:0@1 0@0,77  | told 4 lacks 0 of [0 77]
         run 5 <- 0@            | told 5 lacks 0 of []
         run 6                  | start 6",
    );
}

#[test]
fn requests_keep_to_their_limits_and_the_most_urgent_run_goes_first() {
    // 10 bytes and 4 items a request, 2 requests a peer, 30 bytes in all.
    play(
        1,
        "peer 1                           |
         peer 2                           |
         run 50 <- 0x6@1 1x6@1 2x3@1      | fetch 0 from 1: 0, fetch 1 from 1: 1 2
         run 51 <- 3x1@1 4x1@1            |
         run 40 <- 5x1@1                  |
         run 60 p=9 <- 6x1@1 3x1@1        |
         came 1 1                         | told fetched 1
         came 1 2                         | told fetched 2, fetch 2 from 1: 6 3 5 4
         run 70 <- 7x28@2                 |
         run 69 <- 8x2@2                  | fetch 3 from 2: 8
         came 0 0                         | told fetched 0, start 50
         came 2 5                         | told fetched 5
         came 2 4                         | told fetched 4
         came 3 8                         | told fetched 8, fetch 4 from 2: 7
         came 2 3                         | told fetched 3
         came 2 6                         | told fetched 6",
    );
}

#[test]
fn what_is_larger_than_every_limit_goes_alone() {
    play(
        1,
        "peer 1              |
         run 1 <- 10x2@1     | fetch 0 from 1: 10
         run 2 <- 11x99@1    |
         run 3 <- 12x1@1     |
         came 0 10           | told fetched 10, start 1, fetch 1 from 1: 11
         came 1 11           | told fetched 11, fetch 2 from 1: 12",
    );
}

#[test]
fn items_go_to_the_holder_with_the_fewest_bytes_assigned() {
    play(
        1,
        "peer 1              |
         peer 2              |
         run 1 <- 10x5@1,2 11x4@1,2 12x3@1,2 13x2@1,2  | fetch 0 from 1: 10 13, fetch 1 from 2: 11 12",
    );
}

#[test]
fn a_result_made_here_ends_the_wait_for_it() {
    play(
        1,
        "peer 1          |
         run 1           | start 1
         run 2 <- 1:0@1  | fetch 0 from 1: 1:0
         done 1          | told finished 1, start 2
         came 0 1:0      | drop 1:0
         done 2          | told finished 2",
    );
}

#[test]
fn freeing_ends_every_wait_for_the_result() {
    play(
        1,
        "peer 1                  |
         run 1 <- 10@1 11:2@1    | fetch 0 from 1: 10 11:2
         came 0 11:2             |
         free 10 11              | drop 11:2, told 1 lacks 10 of []
         came 0 10               | drop 10
         run 2 <- 10@            | told 2 lacks 10 of []",
    );
}

#[test]
fn replicas_are_fetched_and_kept() {
    play(
        1,
        "peer 1          |
         replicate 3@1   | fetch 0 from 1: 3
         replicate 3@1   |
         came 0 3        | told fetched 3
         replicate 3@1   |
         replicate 4@1   | fetch 1 from 1: 4
         failed 1 4      | told not replicated 4
         replicate 5@    | told not replicated 5
         run 7 <- 6@1    | fetch 2 from 1: 6
         replicate 6@1   |
         cancel 7        |
         came 2 6        | told fetched 6
         free 6          | drop 6",
    );
}

#[test]
fn a_paused_worker_keeps_just_moving() {
    let memory = MemoryConfig::new(1_000);
    Script::new(MachineConfig { memory, ..config(2) }).play(
        "peer 1              |
         run 1               | start 1
         pause               | told status 1 executing 0 waiting 0 flying, paused
         run 2               |
         run 3               |
         run 4 <- 10@1       |
         done 1              | told finished 1, start 2
         done 2              | told finished 2, start 3
         done 3              | told finished 3, fetch 0 from 1: 10
         run 5 <- 11@1       |
         came 0 10           | told fetched 10, start 4
         resume              | told status 1 executing 1 waiting 0 flying, fetch 1 from 1: 11",
    );
}

#[test]
fn the_scheduler_is_told_of_runs_that_last() {
    play(
        3,
        "run 1     | start 1
         wait 15   |
         run 2     | start 2
         run 3     | start 3
         cancel 3  | interrupt 3
         wait 5    | told executing 1
         wait 1    |
         done 1    | told finished 1
         wait 14   | told executing 2
         wait 100  |",
    );
}

#[test]
fn vanished_results_are_told() {
    let mut script = play(
        1,
        "run 1             | start 1
         done 1            | told finished 1
         run 2 <- 1@0      | start 2
         missed 2 1        | told lost 1, told 2 lacks 1 of [0]
         spoilt 1          |
         run 1.2           | start 1.2
         done 1.2          | told finished 1.2
         spoilt 1.2         | told lost 1
         missed 9 1        |",
    );
    assert_eq!(script.machine.n_held(), 0);
    script.play("run 1.3 | start 1.3");
}

#[test]
fn retirement_goes_on_with_the_work_until_the_scheduler_lets_go() {
    play(
        1,
        "retire   | told retiring
         retire   |
         run 1    | start 1
         done 1   | told finished 1
         leave    | exit",
    );
}

#[test]
fn bodies_pass_through() {
    play(1, "body | add body\n forget | forget bodies");
}

#[test]
fn a_scheduler_that_speaks_out_of_turn_is_closed() {
    let mut machine = Machine::new(config(1));
    let mut out = Vec::new();
    machine.handle(Time::default(), Event::SchedulerSaid(ToWorker::Leave { lost: LostResults::default() }), &mut out);
    assert_eq!(out.iter().map(show).collect::<Vec<_>>(), ["close"]);
    let mut script = play(1, "");
    let twice = script.say(ToWorker::Welcome { worker: WorkerId(3), epoch: Epoch(2), keys: rask_comm::WorkerKeys::default() });
    assert_eq!(twice.iter().map(show).collect::<Vec<_>>(), ["close"]);
    assert_eq!(script.machine.worker(), Some(WorkerId(ME)));
}

#[test]
fn a_story_is_told_in_order() {
    let script =
        play(1, "peer 1|\n run 5 <- 0@1 | fetch 0 from 1: 0\n came 0 0 | told fetched 0, start 5\n done 5 | told finished 5");
    let stages: Vec<Stage> = script.machine.story(id("5").0).map(|transition| transition.stage).collect();
    assert_eq!(stages, [Stage::Waiting, Stage::Ready, Stage::Executing, Stage::InMemory]);
}
