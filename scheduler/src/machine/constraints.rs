//! Tasks that not every worker may run: those that need abstract resources or name workers.
//!
//! Tasks with the same wishes form a class with a queue of its own, so finding work for a worker looks at a few classes,
//! not at all tasks. An entry whose task has moved on is skipped when met, or dropped when all are looked through because half
//! of them may have moved on; so is a class without entries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rask_comm::message::UnmetReport;
use rask_comm::time::Time;
use rask_graphs::{TaskId, TaskOptions, WorkerId};

use super::fairness::{FlowId, Flows, StartTag};
use super::lines::Lines;
use super::workers::{Rank, Worker, Workers};

/// What the tasks of a class have in common.
struct Class {
    /// Its wishes, written out.
    key: String,
    resources: Vec<(String, f64)>,
    names: Vec<String>,
    allow_others: bool,
    ready: Lines<BinaryHeap<Reverse<Rank>>>,
    /// Tasks whose inputs are still being made.
    early: Lines<BinaryHeap<Reverse<Rank>>>,
    /// Since when it has ready tasks but no worker that could ever run one.
    stranded_since: Option<Time>,
}

impl Class {
    fn heap(&mut self, flow: FlowId, is_early: bool) -> &mut BinaryHeap<Reverse<Rank>> {
        if is_early { self.early.line(flow) } else { self.ready.line(flow) }
    }

    fn sweep(&mut self, is_there: &impl Fn(TaskId, bool) -> bool) -> usize {
        let mut n_entries = 0;
        for (lines, is_early) in [(&mut self.ready, false), (&mut self.early, true)] {
            for line in lines.iter_mut() {
                line.retain(|Reverse((_, task))| is_there(*task, is_early));
                n_entries += line.len();
            }
        }
        n_entries
    }

    fn matches_name(&self, worker: &Worker, is_any_named_there: bool) -> bool {
        self.names.is_empty() || self.names.contains(&worker.hello.name) || (self.allow_others && !is_any_named_there)
    }
}

/// Whether `worker` could run a task with these options; with `now`, without waiting for others to give resources back.
pub(super) fn suits(options: &TaskOptions, worker: &Worker, workers: &Workers, now: bool) -> bool {
    let names = &options.workers;
    let is_named = names.is_empty() || names.contains(&worker.hello.name);
    let any_named_there = || names.iter().any(|name| !workers.named(name).is_empty());
    (is_named || options.allow_other_workers && !any_named_there()) && worker.offers(&options.resources, now)
}

/// All classes and their ready tasks.
#[derive(Default)]
pub(super) struct Constraints {
    classes: Vec<Class>,
    /// Class by its wishes, written out: resource amounts have no order of their own.
    ids: BTreeMap<String, usize>,
    /// Entries added since all were looked through last, classes included, and how many there were then.
    n_added: usize,
    n_kept: usize,
}

/// So few entries are not looked through.
const MIN_SWEPT: usize = 256;

impl Constraints {
    /// The class of a task with these options.
    pub(super) fn class(&mut self, options: &TaskOptions) -> usize {
        let key = format!("{:?} {:?} {}", options.resources, options.workers, options.allow_other_workers);
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        self.n_added += 1;
        self.classes.push(Class {
            key: key.clone(),
            resources: options.resources.clone(),
            names: options.workers.clone(),
            allow_others: options.allow_other_workers,
            ready: Lines::default(),
            early: Lines::default(),
            stranded_since: None,
        });
        self.ids.insert(key, self.classes.len() - 1);
        self.classes.len() - 1
    }

    pub(super) fn push(&mut self, class: usize, flow: FlowId, rank: Rank, is_early: bool) {
        self.classes[class].heap(flow, is_early).push(Reverse(rank));
        self.n_added += 1;
    }

    /// Whether half of the entries may be of tasks that have moved on.
    pub(super) fn is_due_for_sweep(&self) -> bool {
        self.n_added > self.n_kept.max(MIN_SWEPT)
    }

    /// Drop the entries of tasks that are not there any more, ready or (`true`) early, and classes that have none.
    pub(super) fn sweep(&mut self, is_there: impl Fn(TaskId, bool) -> bool) {
        self.n_kept = 0;
        let classes = std::mem::take(&mut self.classes);
        for mut class in classes {
            let n_entries = class.sweep(&is_there);
            if n_entries > 0 {
                self.n_kept += 1 + n_entries;
                self.classes.push(class);
            }
        }
        self.ids = self.classes.iter().enumerate().map(|(id, class)| (class.key.clone(), id)).collect();
        self.n_added = 0;
    }

    /// What tasks ask for that no connected worker fulfils, and how many ready tasks do: `is_queued` tells which are.
    pub(super) fn unmet(&self, workers: &Workers, is_queued: impl Fn(TaskId) -> bool) -> Vec<UnmetReport> {
        let mut unmet = Vec::new();
        for (id, class) in self.classes.iter().enumerate() {
            let entries = class.ready.iter().flat_map(|(_, line)| line.iter());
            let n_tasks = entries.filter(|Reverse((_, task))| is_queued(*task)).count() as u32;
            if n_tasks > 0 && !workers.iter().any(|(_, worker)| self.suits(id, worker, workers, false)) {
                unmet.push(UnmetReport { resources: class.resources.clone(), workers: class.names.clone(), n_tasks });
            }
        }
        unmet
    }

    /// Whether `worker` may run tasks of `class`, now or (with `free` false) ever.
    fn suits(&self, class: usize, worker: &Worker, workers: &Workers, free: bool) -> bool {
        let class = &self.classes[class];
        let named_there = class.names.iter().any(|name| !workers.named(name).is_empty());
        !worker.is_retiring && class.matches_name(worker, named_there) && worker.offers(&class.resources, free)
    }

    /// The first task, ready or early, that `worker` could be given now, and its class: over all classes the one whose turn
    /// it is, best rank first.
    pub(super) fn first_for(
        &self,
        worker: WorkerId,
        workers: &Workers,
        flows: &Flows,
        is_early: bool,
        ignore_resources: bool,
    ) -> Option<(StartTag, Rank, usize)> {
        let entry = workers.get(worker)?;
        let first = |class: &Class| if is_early { class.early.first(flows) } else { class.ready.first(flows) };
        (0..self.classes.len())
            .filter_map(|class| first(&self.classes[class]).map(|(tag, rank)| (tag, rank, class)))
            .filter(|(_, _, class)| self.suits(*class, entry, workers, !ignore_resources))
            .min()
    }

    pub(super) fn pop(&mut self, class: usize, flow: FlowId, is_early: bool) {
        self.classes[class].heap(flow, is_early).pop();
    }

    /// Note which classes no worker could ever serve, and return one ready task of each that has been so since `deadline`.
    pub(super) fn stranded(&mut self, workers: &Workers, now: Time, is_queued: impl Fn(TaskId) -> bool) -> Vec<(TaskId, Time)> {
        let mut stranded = Vec::new();
        for class in 0..self.classes.len() {
            for line in self.classes[class].ready.iter_mut() {
                while line.peek().is_some_and(|Reverse((_, task))| !is_queued(*task)) {
                    line.pop();
                }
            }
            let first = self.classes[class].ready.iter().find_map(|(_, line)| line.peek().map(|Reverse((_, task))| *task));
            let Some(task) = first else {
                self.classes[class].stranded_since = None;
                continue;
            };
            if workers.iter().any(|(_, worker)| self.suits(class, worker, workers, false)) {
                self.classes[class].stranded_since = None;
            } else {
                let since = *self.classes[class].stranded_since.get_or_insert(now);
                stranded.push((task, since));
            }
        }
        stranded
    }
}
