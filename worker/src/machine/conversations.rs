//! Random conversations with the worker machine: whatever a scheduler says and peers do, every run is answered once and
//! nothing is left behind.

use rask_graphs::{Part, TaskIdx};

use super::tests::*;
use super::*;

/// A small generator of numbers, so that this crate needs none: xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        if among.is_empty() { None } else { Some(among[usize::try_from(self.below(among.len() as u64)).unwrap()]) }
    }
}

/// Random conversations, events in every order: invariants hold after each, and once everything in motion has come to its
/// end every run has been answered exactly once and every dropped or freed item is out of a store that does as it is told.
#[test]
fn every_run_is_answered_once_and_nothing_is_left_behind() {
    for seed in 1..=300 {
        let mut dice = Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut world = World { script: Script::new(config(1 + dice.below(3) as u32)), ..World::default() };
        for worker in 1..4 {
            world.script.perform(&format!("peer {worker}"));
        }
        for _ in 0..200 {
            world.step(&mut dice);
        }
        world.settle(&mut dice);
        world.judge(seed);
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new(config(1))
    }
}

#[derive(Default)]
struct World {
    script: Script,
    next: u32,
    /// Runs sent and neither answered nor cancelled.
    owed: Vec<(TaskId, Attempt)>,
    on_slots: Vec<(TaskId, Attempt)>,
    in_air: Vec<(FetchId, FetchItem)>,
    store: std::collections::BTreeSet<FetchItem>,
    /// Whole results the machine has told of and not been told to free.
    told: std::collections::BTreeSet<FetchItem>,
}

impl World {
    fn step(&mut self, dice: &mut Dice) {
        let actions = match dice.below(12) {
            0..4 => self.send_run(dice),
            4..6 => self.end_run(dice),
            6..9 => self.end_item(dice),
            9 => {
                let Some((task, attempt)) = dice.pick(&self.owed) else { return };
                self.owed.retain(|run| *run != (task, attempt));
                self.script.say(ToWorker::Cancel { task, attempt })
            }
            10 => {
                let Some((task, attempt)) = dice.pick(&self.owed) else { return };
                self.script.say(ToWorker::Revoke { task, attempt })
            }
            _ => self.script.perform(if dice.below(4) == 0 { "pause" } else { "resume" }),
        };
        self.take(actions);
    }

    fn send_run(&mut self, dice: &mut Dice) -> Vec<Action> {
        let task = TaskId::new(GRAPH, TaskIdx(1_000 + self.next));
        self.next += 1;
        let mut inputs = Vec::new();
        for _ in 0..dice.below(4) {
            let part = if dice.below(2) == 0 { Part::WHOLE } else { Part(dice.below(2) as u32) };
            let holders = (1..4).filter(|_| dice.below(2) == 0).map(WorkerId).collect();
            let input = TaskId::new(GRAPH, TaskIdx(dice.below(6) as u32));
            inputs.push(RunInput { task: input, attempt: Attempt(1), part, nbytes: 1 + dice.below(12), holders, is_made: true });
        }
        let priority = dice.below(3) as i32;
        self.owed.push((task, Attempt(1)));
        self.script.say(ToWorker::Run(Run { task, attempt: Attempt(1), body: 0, round: 0, priority, inputs, groups: Vec::new() }))
    }

    fn end_run(&mut self, dice: &mut Dice) -> Vec<Action> {
        let Some((task, attempt)) = dice.pick(&self.on_slots) else { return Vec::new() };
        self.on_slots.retain(|run| *run != (task, attempt));
        if dice.below(5) == 0 {
            return self.script.perform(&format!("broke {}.{}", task.idx.0, attempt.0));
        }
        self.store.insert(FetchItem::whole(task, attempt));
        self.script.perform(&format!("done {}.{}", task.idx.0, attempt.0))
    }

    fn end_item(&mut self, dice: &mut Dice) -> Vec<Action> {
        let Some((fetch, item)) = dice.pick(&self.in_air) else { return Vec::new() };
        self.in_air.retain(|open| *open != (fetch, item));
        if dice.below(4) == 0 {
            return self.script.handle(Event::FetchFailed { fetch, item, reason: FetchFailure::NotThere });
        }
        self.store.insert(item);
        self.script.handle(Event::FetchArrived { fetch, item, nbytes: 1, duration_us: 1 })
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(message) => self.hear(message),
                Action::Execute { task, attempt, inputs, .. } => {
                    for input in inputs {
                        let has_whole = self.store.contains(&FetchItem::whole(input.task, input.attempt));
                        assert!(has_whole || self.store.contains(&input), "{task} starts without {input:?}");
                    }
                    self.on_slots.push((task, attempt));
                }
                Action::Fetch { fetch, items, .. } => self.in_air.extend(items.into_iter().map(|item| (fetch, item))),
                Action::Drop(item) => assert!(self.store.remove(&item), "{item:?} is dropped and not there"),
                Action::Interrupt { .. }
                | Action::Watch { .. }
                | Action::Unwatch { .. }
                | Action::Push { .. }
                | Action::Admit { .. } => {}
                other @ (Action::AddBody { .. }
                | Action::ForgetBodies { .. }
                | Action::Spill { .. }
                | Action::Evict { .. }
                | Action::Abort { .. }
                | Action::Exit { .. }
                | Action::Close { .. }) => {
                    panic!("unexpected: {other:?}")
                }
            }
        }
    }

    fn hear(&mut self, message: FromWorker) {
        let answered = match message {
            FromWorker::Finished { task, attempt, .. } => {
                self.told.insert(FetchItem::whole(task, attempt));
                (task, attempt)
            }
            FromWorker::Fetched { task, attempt, .. } => {
                self.told.insert(FetchItem::whole(task, attempt));
                return;
            }
            FromWorker::FetchedParts { .. } | FromWorker::Spilled { .. } => return,
            FromWorker::Failed { task, attempt, .. }
            | FromWorker::InputLost { task, attempt, .. }
            | FromWorker::Revoked { task, attempt, given_up: true } => (task, attempt),
            FromWorker::Revoked { .. } | FromWorker::Executing { .. } | FromWorker::Status(_) => return,
            FromWorker::Burdened { .. } | FromWorker::Lost { .. } | FromWorker::NotReplicated { .. } | FromWorker::Retiring => {
                panic!("unexpected: {message:?}")
            }
        };
        let before = self.owed.len();
        self.owed.retain(|run| *run != answered);
        assert_eq!(self.owed.len() + 1, before, "{answered:?} is answered twice, or after it was cancelled");
    }

    /// Let everything in motion come to its end.
    fn settle(&mut self, dice: &mut Dice) {
        let actions = self.script.perform("resume");
        self.take(actions);
        for _ in 0..10_000 {
            if self.on_slots.is_empty() && self.in_air.is_empty() {
                return;
            }
            let actions = self.end_run(dice);
            self.take(actions);
            let actions = self.end_item(dice);
            self.take(actions);
        }
        panic!("it never comes to rest");
    }

    fn judge(&mut self, seed: u64) {
        assert!(self.owed.is_empty(), "seed {seed}: never answered: {:?}", self.owed);
        assert_eq!(self.store, self.told, "seed {seed}: what is held is what was told");
        let tasks: Vec<TaskId> = self.told.iter().map(|item| item.task).collect();
        let actions = self.script.say(ToWorker::Free { tasks });
        self.take(actions);
        assert!(self.store.is_empty(), "seed {seed}: left behind: {:?}", self.store);
    }
}
