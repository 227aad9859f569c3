//! Uploads by scripts; see `tests`. `offer 5 7 1:100` is offer number 5 with ticket 7 of a value for task 1 of 100 bytes.

use super::tests::{Script, config, play};
use super::*;

/// Memory of 1,000 bytes, of which results that are spilled are no part.
fn tight() -> Script {
    let memory = MemoryConfig { can_spill: true, min_spill_nbytes: 10, ..MemoryConfig::new(1_000) };
    let limits = FetchLimits { max_nbytes_in_flight: 600, ..config(1).limits };
    Script::new(MachineConfig { memory, limits, ..config(1) })
}

#[test]
fn who_is_heard_first_does_not_matter() {
    let script = play(
        1,
        "expect 1 7 x100      |
         offer 1 7 1:100      | admit 1 [true]
         uploaded 1 x100      | told finished 1
         offer 2 7 2:50 3:60  |
         expect 2 7 x50       |
         expect 3 7 x60       | admit 2 [true, true]
         uploaded 3 x60       | told finished 3
         uploaded 2 x50       | told finished 2
         run 4 <- 1@0         | start 4",
    );
    assert_eq!((script.machine.n_held(), script.machine.n_expected()), (3, 0));
}

#[test]
fn what_nobody_was_asked_for_is_refused() {
    play(
        1,
        "expect 1 7 x100       |
         offer 1 8 1:100       | admit 1 [false]
         offer 2 7 1:101       | admit 2 [false]
         offer 3 7 1:100 1:100 | admit 3 [true, false]
         offer 4 7 1:100       | admit 4 [false]
         offer 5 7 9:1         |
         overdue 5             | admit 5 [false]
         offer 6 7 9:1         |
         withdraw 6            |
         expect 9 7 x1         |
         uploaded 1 x100       | told finished 1",
    );
}

#[test]
fn attempts_do_not_mix() {
    play(
        1,
        "expect 1.2 7 x100     |
         offer 1 7 1.1:100     | admit 1 [false]
         offer 2 7 1.2:100     | admit 2 [true]
         cancel 1.2            |
         expect 1.3 7 x100     |
         uploaded 1.2 x100     | drop 1.2
         offer 3 7 1.3:100     | admit 3 [true]
         lost 1.3              |
         offer 4 7 1.3:100     | admit 4 [true]
         uploaded 1.3 x100     | told finished 1.3
         expect 1.3 7 x100     |
         uploaded 1.2 x100     | drop 1.2",
    );
}

#[test]
fn an_upload_waits_for_room_and_what_is_behind_it_waits_too() {
    let mut script = tight();
    script.play(
        "expect 1 7 x500       |
         expect 2 7 x400       |
         expect 3 7 x1         |
         offer 1 7 1:500       | admit 1 [true]
         offer 2 7 2:400       |
         offer 3 7 3:1         |
         uploaded 1 x500       | told finished 1, spill 1
         spilled 1             | told spilled, evict 1, admit 2 [true], admit 3 [true]",
    );
    assert_eq!(script.machine.nbytes_in_files(), 500);
}

#[test]
fn runs_come_before_uploads_and_with_nothing_else_to_do_one_is_let_in() {
    tight().play(
        "expect 1 7 x950      |
         expect 2 7 x950      |
         offer 1 7 1:950      | admit 1 [true]
         offer 2 7 2:950      |
         uploaded 1 x950      | told finished 1, spill 1
         full 1               | admit 2 [true], told status 0 executing 0 waiting 950 flying, paused, disk full
         expect 3 7 x951      | told failed 3",
    );
}
