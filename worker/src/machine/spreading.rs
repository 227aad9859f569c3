//! Runs that take gather groups, and how many members are spread out for them at once.
//!
//! A run names a group in a few bytes, and its inputs are all the members: spread out, each takes memory that no result
//! accounts for. So only as many are spread out as a share of the memory limit allows, one run at least; the others wait as they
//! came. They wait in the order of coming, whatever their rank: a run may take what another one makes that was given before
//! it, so the first in line waits for nobody behind it.

use std::collections::VecDeque;

use rask_comm::limits::{MAX_SPREAD_INPUTS, SPREAD_INPUT_NBYTES, SPREAD_SHARE};
use rask_comm::message::Run;
use rask_comm::time::Time;
use rask_graphs::GraphId;
#[cfg(test)]
use rask_graphs::TaskId;

use super::executing::Executing;
use super::runs::{Needs, RunEntry, Runs};
use super::slab::Key;
use super::{Action, Machine};

/// Runs that wait to be spread out.
pub(super) struct Spreading {
    /// Each with its place among the runs, where it can be cancelled or revoked as any other.
    waiting: VecDeque<(Key, Run)>,
    max_inputs: u64,
}

impl Spreading {
    pub(super) fn new(memory_limit: u64) -> Self {
        let share = memory_limit / SPREAD_SHARE / SPREAD_INPUT_NBYTES;
        let max_inputs = if memory_limit == 0 { MAX_SPREAD_INPUTS } else { share.min(MAX_SPREAD_INPUTS) };
        Self { waiting: VecDeque::new(), max_inputs }
    }

    /// # Panics
    /// When a run waits that could be spread out.
    pub(super) fn validate(&self, runs: &Runs, executing: &Executing) {
        let is_any = self.waiting.iter().any(|(key, run)| runs.find(run.task).is_some_and(|(at, _)| at == *key));
        assert!(!is_any || runs.n_spread() + executing.n_spread() > 0, "a run waits for the members of others to go");
    }
}

impl Machine {
    /// Bytes that members take that are spread out for runs.
    pub(super) fn nbytes_spread(&self) -> u64 {
        (self.runs.n_spread() + self.executing.n_spread()) * SPREAD_INPUT_NBYTES
    }

    /// How many values a run takes when it is spread out; 0 when it takes no group.
    fn n_spread_out(&self, graph: GraphId, run: &Run) -> u64 {
        if run.groups.is_empty() {
            return 0;
        }
        let members = run.groups.iter().map(|group| self.groups.get(&(graph, group.group)).map_or(0, Vec::len) as u64);
        members.fold(run.inputs.len() as u64, u64::saturating_add)
    }

    fn has_room_to_spread(&self, n_inputs: u64) -> bool {
        let n_spread = self.runs.n_spread() + self.executing.n_spread();
        n_spread == 0 || n_spread.saturating_add(n_inputs) <= self.spreading.max_inputs
    }

    /// Have `run` wait if it takes groups and there is no room for their members. Otherwise it is handed back.
    pub(super) fn wait_to_spread(&mut self, run: Run) -> Option<Run> {
        let n_inputs = self.n_spread_out(run.task.graph, &run);
        if n_inputs == 0 || (self.spreading.waiting.is_empty() && self.has_room_to_spread(n_inputs)) {
            return Some(run);
        }
        let key = self.runs.insert(placeholder(&run));
        self.spreading.waiting.push_back((key, run));
        None
    }

    /// Spread out what waits, as far as there is room.
    pub(super) fn spread_waiting(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some((key, run)) = self.spreading.waiting.front() {
            let is_wanted = self.runs.find(run.task).is_some_and(|(at, _)| at == *key);
            if is_wanted && !self.has_room_to_spread(self.n_spread_out(run.task.graph, run)) {
                return;
            }
            let Some((key, run)) = self.spreading.waiting.pop_front() else { return };
            if is_wanted {
                self.runs.remove(key);
                self.enter_run(now, run, out);
            }
        }
    }

    /// Whether `task` has a run that waits to be spread out.
    #[cfg(test)]
    pub(super) fn waits_to_spread(&self, task: TaskId) -> bool {
        self.spreading.waiting.iter().any(|(_, run)| run.task == task)
    }
}

/// What stands for a run that is not spread out: it misses everything.
fn placeholder(run: &Run) -> RunEntry {
    RunEntry {
        task: run.task,
        attempt: run.attempt,
        round: run.round,
        priority: run.priority,
        body: rask_graphs::BodyId { graph: run.task.graph, idx: run.body },
        n_missing: u32::MAX,
        needs: Needs::new(),
        inputs: Vec::new(),
        spread: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use rask_comm::message::{GroupMember, RunGroup, ToWorker};
    use rask_graphs::{Attempt, Part, TaskIdx, WorkerId};

    use super::super::script::{GRAPH, ME, Script, config, id};
    use super::super::{Event, MachineConfig};
    use super::*;

    const N_MEMBERS: u32 = 1_000;

    /// A machine that holds the members of group 0, with room for so many spread-out values.
    fn with_group(max_inputs: u64) -> Script {
        let mut script = Script::new(MachineConfig { n_slots: 1, ..config(1) });
        script.machine.spreading.max_inputs = max_inputs;
        let members = (0..N_MEMBERS).map(|idx| GroupMember {
            task: TaskId::new(GRAPH, TaskIdx(idx)),
            attempt: Attempt(1),
            nbytes: 1,
            n_parts: 0,
            holders: vec![WorkerId(ME)],
        });
        let members: Vec<GroupMember> = members.collect();
        for member in &members {
            let input = rask_comm::message::RunInput {
                task: member.task,
                attempt: member.attempt,
                part: Part::WHOLE,
                nbytes: 1,
                holders: vec![],
                is_made: true,
            };
            let _ = input;
            script.machine.ledger.insert(member.task, member.attempt, 1, 0);
        }
        script.say(ToWorker::Group { graph: GRAPH, group: 0, members });
        script
    }

    fn gather(script: &mut Script, task: u32, n_times: u32) -> Vec<Action> {
        let groups = (0..n_times).map(|at| RunGroup { at, group: 0, part: Part::WHOLE }).collect();
        let task = TaskId::new(GRAPH, TaskIdx(task));
        let run = Run { task, attempt: Attempt(1), body: 0, round: 0, priority: 0, inputs: Vec::new(), groups };
        script.say(ToWorker::Run(run))
    }

    fn done(script: &mut Script, task: &str) -> Vec<Action> {
        let (task, attempt) = id(task);
        script.handle(Event::ExecutionFinished { task, attempt, nbytes: 1, n_parts: 0, duration_us: 1, nbytes_peak: 0 })
    }

    fn starts(actions: &[Action]) -> Vec<u32> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "one kind of action is looked for")]
        let started = actions.iter().filter_map(|action| match action {
            Action::Execute { task, inputs, .. } if !inputs.is_empty() => Some(task.idx.0),
            _ => None,
        });
        started.collect()
    }

    #[test]
    fn what_is_spread_out_at_once_is_bounded_however_many_runs_are_given() {
        let mut script = with_group(2 * u64::from(N_MEMBERS));
        assert_eq!(starts(&gather(&mut script, 5_000, 1)), [5_000]);
        for task in 5_001..5_200 {
            assert!(gather(&mut script, task, 1).is_empty());
        }
        let spread = |script: &Script| script.machine.nbytes_spread() / SPREAD_INPUT_NBYTES;
        assert_eq!(spread(&script), 2 * u64::from(N_MEMBERS));
        assert_eq!(script.machine.n_waiting(), 199, "they count as given, and can be revoked");
        script.play("revoke 5003 | told gave up 5003");
        for task in (5_000..5_200).filter(|task| *task != 5_003) {
            let after = done(&mut script, &task.to_string());
            let next = if task == 5_002 { 5_004 } else { task + 1 };
            assert_eq!(starts(&after), if next < 5_200 { vec![next] } else { vec![] });
            assert!(spread(&script) <= 2 * u64::from(N_MEMBERS));
        }
        assert_eq!((spread(&script), script.machine.n_waiting()), (0, 0));
    }

    #[test]
    fn a_run_that_takes_more_than_there_is_room_for_is_spread_out_alone() {
        let mut script = with_group(10);
        assert_eq!(starts(&gather(&mut script, 5_000, 3)), [5_000]);
        assert!(gather(&mut script, 5_001, 2).is_empty() && script.machine.waits_to_spread(id("5001").0));
        assert_eq!(starts(&done(&mut script, "5000")), [5_001]);
        assert_eq!(script.machine.nbytes_used(), script.machine.nbytes_in_memory() + 2_000 * SPREAD_INPUT_NBYTES);
    }

    #[test]
    fn the_room_is_a_share_of_the_memory_limit() {
        assert_eq!(Spreading::new(0).max_inputs, MAX_SPREAD_INPUTS);
        let limit = 512 << 20;
        assert!(Spreading::new(limit).max_inputs * SPREAD_INPUT_NBYTES <= limit / SPREAD_SHARE);
    }
}
