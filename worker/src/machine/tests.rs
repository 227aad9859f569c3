//! The machine by scripts: on each line what happens, and after the bar all that it asks for, in order.
//!
//! `run 5.2 p=1 <- 0:3x8@1,2 4@1` is attempt 2 of task 5 with priority 1, of part 3 of task 0 (8 bytes, held by workers 1 and
//! 2) and the whole result of task 4; `4!1` is one that worker 1 (0: this one) is still making. Attempts are 1 and sizes 1 byte where nothing else is said.

use std::fmt::Write as _;

use rask_comm::message::{FailureKind, WorkerStatus};
use rask_graphs::{Body, GraphId, Part, TaskIdx};

use super::*;

pub(super) const GRAPH: GraphId = GraphId(1);
pub(super) const ME: u32 = 0;

pub(super) struct Script {
    pub(super) machine: Machine,
    pub(super) now: Time,
}

pub(super) fn config(n_slots: u32) -> MachineConfig {
    let limits = FetchLimits { max_request_nbytes: 10, max_request_items: 4, max_requests_per_peer: 2, max_nbytes_in_flight: 30 };
    MachineConfig { limits, ..MachineConfig::new(n_slots, 0) }
}

fn id(text: &str) -> (TaskId, Attempt) {
    let (task, attempt) = text.split_once('.').unwrap_or((text, "1"));
    (TaskId::new(GRAPH, TaskIdx(task.parse().unwrap())), Attempt(attempt.parse().unwrap()))
}

fn item(text: &str) -> FetchItem {
    let (task, part) = text.split_once(':').map_or((text, Part::WHOLE), |(task, part)| (task, Part(part.parse().unwrap())));
    let (task, attempt) = id(task);
    FetchItem { task, attempt, part }
}

fn source(text: &str) -> RunInput {
    let is_made = !text.contains('!');
    let (what, holders) = text.split_once(['@', '!']).unwrap();
    let (what, nbytes) = what.split_once('x').unwrap_or((what, "1"));
    let FetchItem { task, attempt, part } = item(what);
    let holders =
        holders.split(',').filter(|holder| !holder.is_empty()).map(|holder| WorkerId(holder.parse().unwrap())).collect();
    RunInput { task, attempt, part, nbytes: nbytes.parse().unwrap(), holders, is_made }
}

fn run_of(words: &[&str]) -> Run {
    let (task, attempt) = id(words[0]);
    let priority = words.iter().find_map(|word| word.strip_prefix("p=")).map_or(0, |priority| priority.parse().unwrap());
    let inputs = words.iter().filter(|word| word.contains(['@', '!'])).map(|word| source(word)).collect();
    // Whoever does not say that tasks are of a kind means that they are not.
    let body = words.iter().find_map(|word| word.strip_prefix("b=")).map_or(task.idx.0, |body| body.parse().unwrap());
    Run { task, attempt, body, round: 0, priority, inputs, groups: Vec::new() }
}

fn show_id(task: TaskId, attempt: Attempt) -> String {
    if attempt == Attempt(1) { task.idx.0.to_string() } else { format!("{}.{}", task.idx.0, attempt.0) }
}

fn show_item(item: &FetchItem) -> String {
    let id = show_id(item.task, item.attempt);
    if item.part.is_whole() { id } else { format!("{id}:{}", item.part.0) }
}

fn show_told(message: &FromWorker) -> String {
    match message {
        FromWorker::Finished { task, attempt, .. } => format!("told finished {}", show_id(*task, *attempt)),
        FromWorker::Failed { task, attempt, .. } => format!("told failed {}", show_id(*task, *attempt)),
        FromWorker::InputLost { task, attempt, input, holders } => {
            let holders: Vec<String> = holders.iter().map(|holder| holder.0.to_string()).collect();
            format!("told {} lacks {} of [{}]", show_id(*task, *attempt), input.idx.0, holders.join(" "))
        }
        FromWorker::Fetched { task, attempt, .. } => format!("told fetched {}", show_id(*task, *attempt)),
        FromWorker::Burdened { task, .. } => format!("told burdened {}", task.idx.0),
        FromWorker::Spilled { .. } => "told spilled".to_owned(),
        FromWorker::FetchedParts { nbytes, .. } => format!("told {nbytes} bytes of parts"),
        FromWorker::Revoked { task, attempt, given_up } => {
            format!("told {} {}", if *given_up { "gave up" } else { "kept" }, show_id(*task, *attempt))
        }
        FromWorker::Lost { task } => format!("told lost {}", task.idx.0),
        FromWorker::NotReplicated { task } => format!("told not replicated {}", task.idx.0),
        FromWorker::Executing { task, attempt } => format!("told executing {}", show_id(*task, *attempt)),
        FromWorker::Status(status) => {
            let states = [(status.is_paused, ", paused"), (status.is_spill_full, ", disk full")];
            let states: String = states.into_iter().filter(|(is_so, _)| *is_so).map(|(_, state)| state).collect();
            format!(
                "told status {} executing {} waiting {} flying{states}",
                status.n_executing, status.n_waiting, status.nbytes_in_flight
            )
        }
        FromWorker::Retiring => "told retiring".to_owned(),
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Tell(message) => show_told(message),
        Action::AddBody { .. } => "add body".to_owned(),
        Action::ForgetBodies { .. } => "forget bodies".to_owned(),
        Action::Execute { task, attempt, .. } => format!("start {}", show_id(*task, *attempt)),
        Action::Interrupt { task, attempt } => format!("interrupt {}", show_id(*task, *attempt)),
        Action::Fetch { fetch, from, items, .. } => {
            let items: Vec<String> = items.iter().map(show_item).collect();
            format!("fetch {} from {}: {}", fetch.0, from.0, items.join(" "))
        }
        Action::Watch { from, items, .. } => {
            let items: Vec<String> = items.iter().map(show_item).collect();
            format!("watch {}: {}", from.0, items.join(" "))
        }
        Action::Unwatch { from, items } => {
            let items: Vec<String> = items.iter().map(show_item).collect();
            format!("unwatch {}: {}", from.0, items.join(" "))
        }
        Action::Push { to, item } => format!("push {} to {}", show_item(item), to.0),
        Action::Drop(item) => format!("drop {}", show_item(item)),
        Action::Admit { offer, verdict } => format!("admit {} {verdict:?}", offer.0),
        Action::Spill { task, attempt } => format!("spill {}", show_id(*task, *attempt)),
        Action::Evict { task, attempt } => format!("evict {}", show_id(*task, *attempt)),
        Action::Abort { .. } => "abort".to_owned(),
        Action::Exit => "exit".to_owned(),
        Action::Close { .. } => "close".to_owned(),
    }
}

impl Script {
    pub(super) fn new(config: MachineConfig) -> Self {
        let mut script = Self { machine: Machine::new(config), now: Time::default() };
        assert!(script.say(ToWorker::Welcome { worker: WorkerId(ME), epoch: Epoch(1) }).is_empty());
        script
    }

    pub(super) fn say(&mut self, message: ToWorker) -> Vec<Action> {
        self.handle(Event::SchedulerSaid(message))
    }

    pub(super) fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        self.machine.validate();
        out
    }

    pub(super) fn perform(&mut self, line: &str) -> Vec<Action> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (word, rest) = (words[0], &words[1..]);
        let task = || id(rest[0]);
        let fetch = || FetchId(rest[0].parse().unwrap());
        let peer = || WorkerId(rest[0].parse().unwrap());
        let nbytes = rest.iter().find_map(|word| word.strip_prefix('x')).map_or(1, |nbytes| nbytes.parse().unwrap());
        match word {
            "peer" => {
                let worker = peer();
                self.say(ToWorker::Peer { worker, address: ([127, 0, 0, 1], 1).into(), name: format!("w{worker}") })
            }
            "run" => self.say(ToWorker::Run(run_of(rest))),
            "done" => {
                let (task, attempt) = task();
                let peak = rest.iter().find_map(|word| word.strip_prefix("peak="));
                let nbytes_peak = peak.map_or(0, |peak| peak.parse().unwrap());
                self.handle(Event::ExecutionFinished { task, attempt, nbytes, n_parts: 0, duration_us: 1, nbytes_peak })
            }
            "broke" => {
                let (task, attempt) = task();
                let failure = RunFailure { kind: FailureKind::Operator, operator: String::new(), message: String::new() };
                self.handle(Event::ExecutionFailed { task, attempt, failure })
            }
            "missed" => {
                let (task, attempt) = task();
                self.handle(Event::InputGone { task, attempt, input: item(rest[1]) })
            }
            "came" => self.handle(Event::FetchArrived { fetch: fetch(), item: item(rest[1]), nbytes, duration_us: 1 }),
            "failed" => {
                self.handle(Event::FetchFailed { fetch: fetch(), item: item(rest[1]), reason: FetchFailure::Unreachable })
            }
            "unsendable" => {
                let reason = FetchFailure::NotSendable("too odd".to_owned());
                self.handle(Event::FetchFailed { fetch: fetch(), item: item(rest[1]), reason })
            }
            "pushed" => self.handle(Event::Pushed { from: peer(), item: item(rest[1]), nbytes: 1 }),
            "made" => self.handle(Event::Made { from: peer(), item: item(rest[1]), nbytes: 1 }),
            "deaf" => self.handle(Event::WatchLost { from: peer() }),
            "watches" => {
                self.handle(Event::PeerWatches { peer: peer(), items: rest[1..].iter().map(|word| item(word)).collect() })
            }
            "unwatches" => {
                self.handle(Event::PeerUnwatches { peer: peer(), items: rest[1..].iter().map(|word| item(word)).collect() })
            }
            "gone" => self.handle(Event::PeerGone { peer: peer() }),
            "spoilt" => self.handle(Event::ResultLost { task: task().0, attempt: task().1 }),
            "spilled" => self.handle(Event::Spilled { task: task().0, attempt: task().1 }),
            "full" | "stuck" => {
                let reason = if word == "full" { SpillFailure::NoSpace } else { SpillFailure::CannotEncode };
                self.handle(Event::NotSpilled { task: task().0, attempt: task().1, reason })
            }
            "lend" => self.handle(Event::ReadForOthers { nbytes }),
            "sent" => self.handle(Event::SentOff { nbytes }),
            "expect" => {
                let ((task, attempt), ticket) = (task(), rask_comm::Ticket([rest[1].parse().unwrap(); 16]));
                self.say(ToWorker::Expect { task, attempt, nbytes, ticket })
            }
            "offer" => {
                let ticket = rask_comm::Ticket([rest[1].parse().unwrap(); 16]);
                let offered = rest[2..].iter().map(|word| {
                    let (name, nbytes) = word.split_once(':').unwrap();
                    let (task, attempt) = id(name);
                    rask_comm::OfferedItem { task, attempt, nbytes: nbytes.parse().unwrap() }
                });
                let offer = rask_comm::Offer { ticket, items: offered.collect() };
                self.handle(Event::UploadsOffered { id: OfferId(rest[0].parse().unwrap()), offer })
            }
            "overdue" => self.handle(Event::OfferOverdue { id: OfferId(rest[0].parse().unwrap()) }),
            "withdraw" => self.handle(Event::OfferWithdrawn { id: OfferId(rest[0].parse().unwrap()) }),
            "uploaded" => {
                let (task, attempt) = task();
                self.handle(Event::UploadArrived { task, attempt, nbytes, n_parts: 0, duration_us: 1 })
            }
            "lost" => self.handle(Event::UploadFailed { task: task().0, attempt: task().1 }),
            "rss" => self.handle(Event::MemoryMeasured { rss_nbytes: rest[0].parse().unwrap() }),
            "cancel" => self.say(ToWorker::Cancel { task: task().0, attempt: task().1 }),
            "revoke" => self.say(ToWorker::Revoke { task: task().0, attempt: task().1 }),
            "free" => self.say(ToWorker::Free { tasks: rest.iter().map(|word| id(word).0).collect() }),
            "keep" => self.say(ToWorker::Keep { task: task().0, attempt: task().1 }),
            "replicate" => self.say(ToWorker::Replicate { input: source(rest[0]) }),
            "pause" | "resume" => {
                let limit = self.machine.config.memory.limit;
                let rss_nbytes = if word == "pause" { limit / 100 * PAUSE.begins } else { 0 };
                self.handle(Event::Measured(Box::new(WorkerStatus { rss_nbytes, ..WorkerStatus::default() })))
            }
            "retire" => self.handle(Event::RetireRequested),
            "leave" => self.say(ToWorker::Leave),
            "forget" => self.say(ToWorker::ForgetGraph { graph: GRAPH }),
            "body" => {
                let idx = rest.iter().find_map(|word| word.strip_prefix("b=")).map_or(0, |body| body.parse().unwrap());
                let id = BodyId { graph: GRAPH, idx };
                self.say(ToWorker::Body { id, body: Body::single("core.noop", 1, "{}"), label: "x".to_owned() })
            }
            "wait" => {
                self.now = self.now.after(Duration::from_millis(rest[0].parse().unwrap()));
                let mut out = Vec::new();
                if self.machine.poll_timeout().is_some_and(|(due, Timer::Blame)| due <= self.now) {
                    self.machine.handle_timeout(self.now, &mut out);
                }
                out
            }
            other => panic!("no such command: {other}"),
        }
    }

    pub(super) fn play(&mut self, script: &str) {
        let (mut wanted, mut got) = (String::new(), String::new());
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, expected) = line.split_once('|').unwrap();
            let actions: Vec<String> = self.perform(command).iter().map(show).collect();
            writeln!(wanted, "{} | {}", command.trim(), expected.trim()).unwrap();
            writeln!(got, "{} | {}", command.trim(), actions.join(", ")).unwrap();
        }
        assert_eq!(got, wanted, "\ngot:\n{got}\nwanted:\n{wanted}");
    }
}

pub(super) fn play(n_slots: u32, script: &str) -> Script {
    let mut machine = Script::new(config(n_slots));
    machine.play(script);
    machine
}

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
    machine.handle(Time::default(), Event::SchedulerSaid(ToWorker::Leave), &mut out);
    assert_eq!(out.iter().map(show).collect::<Vec<_>>(), ["close"]);
    let mut script = play(1, "");
    let twice = script.say(ToWorker::Welcome { worker: WorkerId(3), epoch: Epoch(2) });
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
