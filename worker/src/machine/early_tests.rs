//! Runs whose inputs are still being made, here or by a peer, by scripts as in [`super::tests`].

use super::tests::play;

#[test]
fn a_result_that_is_being_made_elsewhere_is_watched_for_and_kept_while_needed() {
    play(
        1,
        "peer 1      |
         run 5 4!1   | watch 1: 4
         run 6 4!1   |
         pushed 1 4  | start 5
         done 5      | told finished 5, start 6
         done 6      | drop 4, told finished 6
         pushed 1 4  | drop 4",
    );
}

#[test]
fn a_big_result_that_is_being_made_elsewhere_is_fetched_once_it_is_made() {
    play(
        1,
        "peer 1        |
         run 5 4x9!1   | watch 1: 4
         made 1 4      | fetch 0 from 1: 4
         came 0 4      | told fetched 4, start 5
         done 5        | told finished 5",
    );
}

#[test]
fn a_result_that_is_being_made_here_wakes_what_waits_for_it() {
    play(
        1,
        "run 4           | start 4
         run 5 4!0       |
         run 6 5!0 4!0   |
         done 4          | told finished 4, start 5
         done 5          | told finished 5, start 6",
    );
}

#[test]
fn a_watch_ends_with_the_last_run_that_needs_it() {
    play(
        1,
        "peer 1      |
         run 5 4!1   | watch 1: 4
         run 6 4!1   |
         cancel 5    |
         revoke 6    | told gave up 6, unwatch 1: 4
         pushed 1 4  | drop 4",
    );
}

#[test]
fn without_the_peer_that_makes_it_a_run_is_given_back() {
    play(
        1,
        "peer 1      |
         run 5 4!1   | watch 1: 4
         deaf 1      | told 5 lacks 4 of [1]
         run 5.2 4!3 | told 5.2 lacks 4 of [3]",
    );
}

#[test]
fn what_peers_watch_for_is_pushed_when_it_is_made_or_at_once() {
    play(
        1,
        "watches 1 4 4:2  |
         watches 2 4 4.2  |
         unwatches 1 4    |
         run 4            | start 4
         done 4           | told finished 4, push 4:2 to 1, push 4 to 2
         watches 3 4 9    | push 4 to 3
         gone 3           |
         gone 2           |
         run 4.2          | start 4.2
         done 4.2         | told finished 4.2",
    );
}

#[test]
fn a_pushed_result_can_become_a_replica() {
    play(
        1,
        "peer 1         |
         run 3          | start 3
         run 5 4!1      | watch 1: 4
         pushed 1 4     |
         replicate 4@1  | told fetched 4
         done 3         | told finished 3, start 5
         done 5         | told finished 5
         free 4         | drop 4",
    );
}
