//! The machine by scripts: on each line what happens, and after the bar all that it asks for, in order.
//!
//! `run 5.2 p=1 <- 0:3x8@1,2 4@1` is attempt 2 of task 5 with priority 1, of part 3 of task 0 (8 bytes, held by workers 1 and
//! 2) and the whole result of task 4; `4!1` is one that worker 1 (0: this one) is still making. Attempts are 1 and sizes 1 byte where nothing else is said.

use std::fmt::Write as _;

use rask_comm::message::{FailureKind, LostResults, WorkerStatus};
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

pub(super) fn id(text: &str) -> (TaskId, Attempt) {
    let (task, attempt) = text.split_once('.').unwrap_or((text, "1"));
    (TaskId::new(GRAPH, TaskIdx(task.parse().unwrap())), Attempt(attempt.parse().unwrap()))
}

pub(super) fn item(text: &str) -> FetchItem {
    let (task, part) = text.split_once(':').map_or((text, Part::WHOLE), |(task, part)| (task, Part(part.parse().unwrap())));
    let (task, attempt) = id(task);
    FetchItem { task, attempt, part }
}

pub(super) fn source(text: &str) -> RunInput {
    let is_made = !text.contains('!');
    let (what, holders) = text.split_once(['@', '!']).unwrap();
    let (what, nbytes) = what.split_once('x').unwrap_or((what, "1"));
    let FetchItem { task, attempt, part } = item(what);
    let holders =
        holders.split(',').filter(|holder| !holder.is_empty()).map(|holder| WorkerId(holder.parse().unwrap())).collect();
    RunInput { task, attempt, part, nbytes: nbytes.parse().unwrap(), holders, is_made }
}

pub(super) fn run_of(words: &[&str]) -> Run {
    let (task, attempt) = id(words[0]);
    let priority = words.iter().find_map(|word| word.strip_prefix("p=")).map_or(0, |priority| priority.parse().unwrap());
    let inputs = words.iter().filter(|word| word.contains(['@', '!'])).map(|word| source(word)).collect();
    // Whoever does not say that tasks are of a kind means that they are not.
    let body = words.iter().find_map(|word| word.strip_prefix("b=")).map_or(task.idx.0, |body| body.parse().unwrap());
    Run { task, attempt, body, round: 0, priority, inputs, groups: Vec::new() }
}

pub(super) fn show_id(task: TaskId, attempt: Attempt) -> String {
    if attempt == Attempt(1) { task.idx.0.to_string() } else { format!("{}.{}", task.idx.0, attempt.0) }
}

pub(super) fn show_item(item: &FetchItem) -> String {
    let id = show_id(item.task, item.attempt);
    if item.part.is_whole() { id } else { format!("{id}:{}", item.part.0) }
}

pub(super) fn show_told(message: &FromWorker) -> String {
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

pub(super) fn show(action: &Action) -> String {
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
        Action::Exit { .. } => "exit".to_owned(),
        Action::Close { .. } => "close".to_owned(),
    }
}

impl Script {
    pub(super) fn new(config: MachineConfig) -> Self {
        let mut script = Self { machine: Machine::new(config), now: Time::default() };
        assert!(
            script
                .say(ToWorker::Welcome { worker: WorkerId(ME), epoch: Epoch(1), keys: rask_comm::WorkerKeys::default() })
                .is_empty()
        );
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
                self.say(ToWorker::Peer {
                    worker,
                    address: ([127, 0, 0, 1], 1).into(),
                    name: format!("w{worker}"),
                    pass: rask_comm::Grant::default(),
                })
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
            "leave" => self.say(ToWorker::Leave { lost: LostResults::default() }),
            "forget" => self.say(ToWorker::ForgetGraph { graph: GRAPH }),
            "body" => {
                let idx = rest.iter().find_map(|word| word.strip_prefix("b=")).map_or(0, |body| body.parse().unwrap());
                let id = BodyId { graph: GRAPH, idx };
                self.say(ToWorker::Body { id, body: Body::single("core.noop", 1, "{}"), label: "x".to_owned(), is_of_user: true })
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
