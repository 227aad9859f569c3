//! One submitted graph: a dense table of task entries beside the graph's own flat tables.
//!
//! Nodes are numbered tasks first, then gather groups, then externals; a group is one node, so a shuffle of M x N parts
//! costs O(M + N) here. Nothing in this file knows workers' loads or decides anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use rask_comm::message::{SubmitOptions, TaskCounts, TaskFailure};
use rask_comm::{Grant, Owner};
use rask_graphs::{Attempt, ClientId, Graph, GraphId, Source, TaskId, TaskIdx, WorkerId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use rask_comm::time::Time;

use super::fairness::FlowId;
use super::quotas::Size;
use super::uploads::Scatter;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TaskState {
    /// Not needed now: never asked for, or its result was let go.
    #[default]
    Released,
    /// Needed; some input is neither in memory nor being made.
    Waiting,
    /// Every input is in memory, or being made by a run that was given to a worker; held back until a worker has room for it
    /// (or until one that fits is there).
    Queued,
    /// Given to a worker; early, when some input is still being made.
    Processing,
    /// Its result is in some worker's memory.
    Memory,
    /// Failed for good, or depends on a task that did.
    Erred,
}

pub(super) const WANTED: u16 = 1;
pub(super) const OUTPUT_PENDING: u16 = 2;
pub(super) const FINISHED_ONCE: u16 = 4;
pub(super) const EXECUTING: u16 = 8;
pub(super) const HAS_EXTERNAL: u16 = 16;
pub(super) const IS_CONSTRAINED: u16 = 32;
/// To be given to a worker only when all its inputs are in memory: it holds resources, or an early run of it went wrong.
pub(super) const NOT_EARLY: u16 = 64;

/// Its present run was given to a worker while some input was still being made.
pub(super) const BOUND_EARLY: u16 = 128;
/// Its present or last run has, or had, a backup, which took the attempt after it. While such a run is under way it is not placed.
pub(super) const SPECULATED: u16 = 256;

/// Its worker has been asked to give its present run up.
pub(super) const MOVING: u16 = 512;

/// While processing: a consumer is to have the slot of its present run when that is over.
pub(super) const FOLLOWED: u16 = 1024;

/// It was at a worker that died of nobody knows what, and has not been run since: see [`super::quarantine`].
pub(super) const DOUBTED: u16 = 2048;
/// Its result is not computed: its client uploads it.
pub(super) const UPLOADED: u16 = 4096;

/// It has failed, and waits before it is tried again: see [`super::delays`].
pub(super) const DELAYED: u16 = 8192;

/// No worker.
pub(super) const NOBODY: WorkerId = WorkerId(u32::MAX);

/// What the scheduler keeps of a task.
#[derive(Clone, Debug)]
pub(super) struct TaskEntry {
    pub(super) state: TaskState,
    pub(super) flags: u16,
    /// Worker deaths it is blamed for.
    pub(super) n_crashes: u8,
    /// Failed runs so far.
    pub(super) n_failures: u8,
    /// While active: inputs (edges, groups counting one) that are not in memory.
    pub(super) n_missing: u32,
    /// While active: those of them that no worker has been given to make. Groups and results of other graphs are not looked
    /// into: they count until they are in memory.
    pub(super) n_unplaced: u32,
    /// Edges from active tasks and active groups to this result.
    pub(super) n_consumers: u32,
    /// The last run's number; 0 before the first.
    pub(super) attempt: Attempt,
    /// While processing: where. While queued: whose backlog it is in, or [`NOBODY`].
    pub(super) worker: WorkerId,
    /// While processing: what it was estimated to cost, in nanoseconds.
    pub(super) estimate_ns: u32,
    /// While processing: the run's round at its worker.
    pub(super) round: u32,
    /// While processing: when it is expected to have finished, in nanoseconds of the machine's time.
    pub(super) expected_end_ns: u64,
    /// In memory: its addressable parts.
    pub(super) n_parts: u32,
    /// In memory: its size.
    pub(super) nbytes: u64,
    /// In memory: who has it; never empty then.
    pub(super) holders: SmallVec<[WorkerId; 2]>,
}

const _: () = assert!(size_of::<TaskEntry>() <= 80);

impl TaskEntry {
    fn new() -> Self {
        Self {
            state: TaskState::Released,
            flags: 0,
            n_crashes: 0,
            n_failures: 0,
            n_missing: 0,
            n_unplaced: 0,
            n_consumers: 0,
            attempt: Attempt(0),
            worker: NOBODY,
            estimate_ns: 0,
            round: 0,
            expected_end_ns: 0,
            n_parts: 0,
            nbytes: 0,
            holders: SmallVec::new(),
        }
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    pub(super) fn clear(&mut self, flag: u16) {
        self.flags &= !flag;
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, TaskState::Waiting | TaskState::Queued | TaskState::Processing)
    }

    /// Whether its inputs are not all in memory yet.
    pub(super) fn is_early(&self) -> bool {
        self.n_missing > 0
    }

    pub(super) fn is_needed(&self) -> bool {
        self.n_consumers > 0 || self.has(WANTED)
    }
}

/// What the scheduler keeps of a gather group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupEntry {
    /// Members not in memory.
    pub(super) n_missing: u32,
    /// Edges from active tasks.
    pub(super) n_consumers: u32,
    /// Raised whenever a member is not where it was: workers that have been told have to be told again.
    pub(super) version: u32,
}

/// What the scheduler keeps of a result of an earlier graph.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExternalEntry {
    /// Whether it is in memory.
    pub(super) is_present: bool,
    /// Edges from active tasks.
    pub(super) n_consumers: u32,
}

/// A node of the graph, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Task(TaskIdx),
    Group(u32),
    External(u32),
}

/// A submitted graph and everything known about its tasks.
#[derive(Clone)]
pub(super) struct GraphRun {
    pub(super) id: GraphId,
    /// The client that follows it.
    pub(super) client: Option<ClientId>,
    pub(super) owner: Owner,
    /// Opens its results at workers.
    pub(super) grant: Grant,
    /// Whose share of the workers it has: that of the client that submitted it, for good.
    pub(super) flow: FlowId,
    pub(super) options: SubmitOptions,
    pub(super) accepted_at: Time,
    pub(super) ended_at: Option<Time>,
    pub(super) graph: Graph,
    /// For each body the operator it is learned under.
    pub(super) operator_of: Vec<u32>,
    pub(super) tasks: Vec<TaskEntry>,
    pub(super) groups: Vec<GroupEntry>,
    pub(super) externals: Vec<ExternalEntry>,
    dependent_offsets: Vec<u32>,
    dependents: Vec<u32>,
    pub(super) n_active: u32,
    pub(super) n_memory: u32,
    pub(super) n_wanted: u32,
    pub(super) n_outputs_pending: u32,
    pub(super) counts: TaskCounts,
    pub(super) has_news: bool,
    pub(super) n_executions: u32,
    pub(super) nbytes_transferred: u64,
    /// Bytes of its results that were written to spill files.
    pub(super) nbytes_spilled: u64,
    pub(super) failures: Vec<Arc<TaskFailure>>,
    pub(super) cause_of: FxHashMap<TaskIdx, u32>,
    /// Clients to tell when a result is in memory.
    pub(super) locating: BTreeMap<TaskIdx, Vec<ClientId>>,
    /// Users of results of this graph in later graphs.
    pub(super) external_users: BTreeMap<TaskIdx, Vec<(GraphId, u32)>>,
    /// Different wishes of its tasks.
    n_wishes: u32,
    /// Tasks that took more than the memory of a worker: they need one with more than so many bytes.
    pub(super) needs_above: FxHashMap<TaskIdx, u64>,
    /// What its client has been told that it waits for.
    pub(super) told_waits: String,
    /// Bytes of its outputs when it ended.
    pub(super) nbytes_kept: u64,
    /// Whether the log has been told how it ended.
    pub(super) is_end_noted: bool,
    /// Deaths of workers that only this graph can have caused, since it last got further; and when the last of them was.
    pub(super) n_deaths: u32,
    /// Deaths after which tasks of it have failed for killing workers, and the last of those workers.
    pub(super) n_killers: u32,
    pub(super) last_killed: Option<WorkerId>,
    pub(super) last_death: Option<Time>,
    /// What there is to know when its results are values that the client uploads.
    pub(super) scatter: Option<Box<Scatter>>,
}

/// A graph that has been checked, and its tables: all that can be made of it without knowing anything else, and so on another
/// thread than the machine's.
#[derive(Clone)]
pub struct PreparedGraph {
    pub(super) run: Box<GraphRun>,
    /// What can begin, if that is known: it depends on results of earlier graphs, if the graph uses any.
    pub(super) beginning: Option<Beginning>,
}

/// The tasks of a graph that miss nothing.
#[derive(Clone, Default)]
pub(super) struct Beginning {
    /// Roots without wishes; they count as queued.
    pub(super) first: Vec<TaskIdx>,
    /// The others, which are waiting.
    pub(super) others: Vec<TaskIdx>,
    /// Results of earlier graphs that are needed.
    pub(super) externals: Vec<TaskId>,
}

impl std::fmt::Debug for PreparedGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PreparedGraph").field(&self.run.graph).finish()
    }
}

impl PartialEq for PreparedGraph {
    /// The tables follow from the graph.
    fn eq(&self, other: &Self) -> bool {
        self.run.graph == other.run.graph
    }
}

impl PreparedGraph {
    /// Check `graph`, in time linear in its size, and make its tables.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(graph: Graph) -> Result<Self, String> {
        graph.check().map_err(|error| error.to_string())?;
        let mut prepared = Self::of_values(graph);
        if prepared.run.graph.externals.is_empty() {
            prepared.beginning = Some(prepared.run.begin());
        }
        Ok(prepared)
    }

    /// Tables for a graph that the machine made itself, of values that are to be uploaded.
    pub(super) fn of_values(graph: Graph) -> Self {
        Self { run: Box::new(GraphRun::new(graph)), beginning: None }
    }
}

impl GraphRun {
    /// Tables for `graph`, which has been checked; every task still released, and its outputs wanted. Whose it is, and under
    /// which number, is said when it enters the machine's tables.
    fn new(graph: Graph) -> Self {
        let n_tasks = graph.n_tasks();
        let n_groups = graph.n_groups();
        let (dependent_offsets, dependents) = build_dependents(&graph);
        let groups = (0..n_groups)
            .map(|group| GroupEntry {
                n_missing: graph.group_offsets[group + 1] - graph.group_offsets[group],
                n_consumers: 0,
                version: 1,
            })
            .collect();
        let mut tasks = vec![TaskEntry::new(); n_tasks];
        for (idx, options) in &graph.options {
            if !options.resources.is_empty() || !options.workers.is_empty() {
                tasks[idx.index()].set(IS_CONSTRAINED);
            }
            if !options.resources.is_empty() {
                tasks[idx.index()].set(NOT_EARLY);
            }
        }
        let n_wishes = u32::try_from(graph.n_wishes()).unwrap_or(u32::MAX);
        let n_tasks = u32::try_from(n_tasks).unwrap_or(u32::MAX);
        let mut run = Self {
            id: GraphId(u32::MAX),
            client: None,
            owner: Owner::Local,
            grant: Grant::default(),
            flow: FlowId::default(),
            options: SubmitOptions::default(),
            accepted_at: Time::default(),
            ended_at: None,
            operator_of: Vec::new(),
            tasks,
            groups,
            externals: vec![ExternalEntry::default(); graph.externals.len()],
            dependent_offsets,
            dependents,
            graph,
            n_active: 0,
            n_memory: 0,
            n_wanted: 0,
            n_outputs_pending: 0,
            counts: TaskCounts { n_tasks, ..TaskCounts::default() },
            has_news: false,
            n_executions: 0,
            nbytes_transferred: 0,
            nbytes_spilled: 0,
            failures: Vec::new(),
            cause_of: FxHashMap::default(),
            locating: BTreeMap::new(),
            external_users: BTreeMap::new(),
            n_wishes,
            needs_above: FxHashMap::default(),
            told_waits: String::new(),
            nbytes_kept: 0,
            is_end_noted: false,
            n_deaths: 0,
            n_killers: 0,
            last_killed: None,
            last_death: None,
            scatter: None,
        };
        for at in 0..run.graph.outputs.len() {
            let output = run.graph.outputs[at];
            let entry = run.entry_mut(output);
            entry.set(WANTED);
            entry.set(OUTPUT_PENDING);
            run.n_wanted += 1;
            run.n_outputs_pending += 1;
        }
        run
    }

    /// One pass down marks what the outputs need, one pass up counts what is missing; what misses nothing can begin.
    pub(super) fn begin(&mut self) -> Beginning {
        let mut beginning = Beginning::default();
        for idx in (0..self.n_tasks()).rev().map(TaskIdx) {
            if self.entry(idx).is_needed() {
                self.count_needs_once(idx, &mut beginning.externals);
            }
        }
        for idx in (0..self.n_tasks()).map(TaskIdx) {
            if !self.entry(idx).is_needed() {
                continue;
            }
            self.entry_mut(idx).state = TaskState::Waiting;
            self.n_active += 1;
            self.counts.n_waiting += 1;
            // Nothing of it is in memory or being made yet, except results of other graphs.
            let n_missing = self.count_missing(idx);
            (self.entry_mut(idx).n_missing, self.entry_mut(idx).n_unplaced) = (n_missing, n_missing);
            if n_missing == 0 {
                if self.is_root(idx) && !self.entry(idx).has(IS_CONSTRAINED) {
                    self.entry_mut(idx).state = TaskState::Queued;
                    self.counts.n_waiting -= 1;
                    self.counts.n_queued += 1;
                    beginning.first.push(idx);
                } else {
                    beginning.others.push(idx);
                }
            }
        }
        beginning
    }

    /// The needs of an active task, when nothing is in memory yet: only counts, no cascades.
    fn count_needs_once(&mut self, idx: TaskIdx, needed_externals: &mut Vec<TaskId>) {
        for at in self.inputs(idx) {
            match self.graph.inputs[at].source() {
                Source::Task(source) => self.entry_mut(source).n_consumers += 1,
                Source::Group(group) => {
                    self.groups[group as usize].n_consumers += 1;
                    if self.groups[group as usize].n_consumers == 1 {
                        for at in self.members(group) {
                            let member = self.graph.group_members[at];
                            self.entry_mut(member).n_consumers += 1;
                        }
                    }
                }
                Source::External(external) => {
                    self.externals[external as usize].n_consumers += 1;
                    if self.externals[external as usize].n_consumers == 1 {
                        needed_externals.push(self.graph.externals[external as usize]);
                    }
                }
            }
        }
    }

    pub(super) fn task_id(&self, idx: TaskIdx) -> TaskId {
        TaskId::new(self.id, idx)
    }

    /// What it takes of its owner's quotas.
    pub(super) fn size(&self) -> Size {
        Size::of_graph(self.n_tasks(), self.n_wishes)
    }

    pub(super) fn n_tasks(&self) -> u32 {
        self.counts.n_tasks
    }

    pub(super) fn entry(&self, idx: TaskIdx) -> &TaskEntry {
        &self.tasks[idx.index()]
    }

    pub(super) fn entry_mut(&mut self, idx: TaskIdx) -> &mut TaskEntry {
        &mut self.tasks[idx.index()]
    }

    pub(super) fn node(&self, node: u32) -> Node {
        let n_tasks = self.n_tasks();
        if node < n_tasks {
            return Node::Task(TaskIdx(node));
        }
        let n_groups = self.groups.len() as u32;
        if node < n_tasks + n_groups { Node::Group(node - n_tasks) } else { Node::External(node - n_tasks - n_groups) }
    }

    fn node_number(&self, node: Node) -> usize {
        match node {
            Node::Task(idx) => idx.index(),
            Node::Group(group) => (self.n_tasks() + group) as usize,
            Node::External(external) => (self.n_tasks() + external) as usize + self.groups.len(),
        }
    }

    /// The range of positions of the dependants of `node`; [`GraphRun::dependent`] reads one. A range, not a slice, so
    /// that entries can be changed while walking.
    pub(super) fn dependents(&self, node: Node) -> std::ops::Range<usize> {
        let number = self.node_number(node);
        self.dependent_offsets[number] as usize..self.dependent_offsets[number + 1] as usize
    }

    pub(super) fn dependent(&self, at: usize) -> Node {
        self.node(self.dependents[at])
    }

    /// The range of positions of the inputs of `idx` in `graph.inputs`.
    pub(super) fn inputs(&self, idx: TaskIdx) -> std::ops::Range<usize> {
        self.graph.input_offsets[idx.index()] as usize..self.graph.input_offsets[idx.index() + 1] as usize
    }

    pub(super) fn members(&self, group: u32) -> std::ops::Range<usize> {
        self.graph.group_offsets[group as usize] as usize..self.graph.group_offsets[group as usize + 1] as usize
    }

    /// Whether `source` is in memory, as far as this graph's own tables know.
    pub(super) fn is_available(&self, source: Source) -> bool {
        match source {
            Source::Task(idx) => self.entry(idx).state == TaskState::Memory,
            Source::Group(group) => self.groups[group as usize].n_missing == 0,
            Source::External(external) => self.externals[external as usize].is_present,
        }
    }

    /// The number of inputs of `idx` that are not in memory.
    pub(super) fn count_missing(&self, idx: TaskIdx) -> u32 {
        let missing = self.graph.inputs[self.inputs(idx)].iter().filter(|input| !self.is_available(input.source()));
        missing.count() as u32
    }

    /// Whether `source` is in memory or being made by a run that a worker has been given.
    pub(super) fn is_placed(&self, source: Source) -> bool {
        match source {
            Source::Task(idx) => {
                let entry = self.entry(idx);
                entry.state == TaskState::Memory || entry.state == TaskState::Processing && !entry.has(SPECULATED)
            }
            Source::Group(_) | Source::External(_) => self.is_available(source),
        }
    }

    /// The number of inputs of `idx` that are neither in memory nor being made.
    pub(super) fn count_unplaced(&self, idx: TaskIdx) -> u32 {
        self.graph.inputs[self.inputs(idx)].iter().filter(|input| !self.is_placed(input.source())).count() as u32
    }

    pub(super) fn is_root(&self, idx: TaskIdx) -> bool {
        self.inputs(idx).is_empty()
    }

    /// The state's counter, for people.
    pub(super) fn counter(&mut self, state: TaskState) -> Option<&mut u32> {
        match state {
            TaskState::Waiting => Some(&mut self.counts.n_waiting),
            TaskState::Queued => Some(&mut self.counts.n_queued),
            TaskState::Processing => Some(&mut self.counts.n_processing),
            TaskState::Erred => Some(&mut self.counts.n_erred),
            TaskState::Released | TaskState::Memory => None,
        }
    }

    /// Whether nothing is left to do or to hold.
    pub(super) fn is_over(&self) -> bool {
        self.n_active == 0 && self.n_wanted == 0 && self.n_memory == 0
    }

    /// Bytes of memory held for this graph: tables, edges and bodies.
    pub(super) fn nbytes(&self) -> usize {
        let graph = &self.graph;
        self.tasks.capacity() * size_of::<TaskEntry>()
            + (self.dependent_offsets.capacity() + self.dependents.capacity()) * 4
            + (graph.body_of.capacity() + graph.input_offsets.capacity() + graph.group_offsets.capacity()) * 4
            + graph.inputs.capacity() * size_of::<rask_graphs::Input>()
            + graph.group_members.capacity() * 4
            + graph.keys.nbytes()
            + graph.outputs.capacity() * 4
            + self.operator_of.capacity() * 4
            + graph.bodies.iter().map(body_nbytes).sum::<usize>()
    }
}

fn body_nbytes(body: &rask_graphs::Body) -> usize {
    body.steps.iter().map(|step| size_of_val(step) + step.operator.len() + step.args.len()).sum()
}

/// CSR of dependants over nodes, by counting and filling.
fn build_dependents(graph: &Graph) -> (Vec<u32>, Vec<u32>) {
    let n_tasks = graph.n_tasks();
    let n_groups = graph.n_groups();
    let n_nodes = n_tasks + n_groups + graph.externals.len();
    let number = |source: Source| match source {
        Source::Task(idx) => idx.index(),
        Source::Group(group) => n_tasks + group as usize,
        Source::External(external) => n_tasks + n_groups + external as usize,
    };
    let mut offsets = vec![0u32; n_nodes + 1];
    for input in &graph.inputs {
        offsets[number(input.source()) + 1] += 1;
    }
    for member in &graph.group_members {
        offsets[member.index() + 1] += 1;
    }
    for node in 0..n_nodes {
        offsets[node + 1] += offsets[node];
    }
    let mut dependents = vec![0u32; offsets[n_nodes] as usize];
    // Fill from the back, so that after it each offset is where its row begins and rows ascend.
    let mut cursor: Vec<u32> = offsets[1..].to_vec();
    let mut place = |source: usize, node: usize| {
        cursor[source] -= 1;
        dependents[cursor[source] as usize] = node as u32;
    };
    for group in (0..n_groups).rev() {
        for at in (graph.group_offsets[group]..graph.group_offsets[group + 1]).rev() {
            place(graph.group_members[at as usize].index(), n_tasks + group);
        }
    }
    for idx in (0..n_tasks).rev() {
        for at in (graph.input_offsets[idx]..graph.input_offsets[idx + 1]).rev() {
            place(number(graph.inputs[at as usize].source()), idx);
        }
    }
    (offsets, dependents)
}
