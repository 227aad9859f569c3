//! Tasks that not every worker may run: those that need abstract resources or name workers.
//!
//! Tasks with the same wishes form a class with a queue of its own, so finding work for a worker looks at a few classes,
//! not at all tasks. An entry whose task has moved on is skipped when met, or dropped when all are looked through because half
//! of them may have moved on; so is a class without entries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use rask_comm::message::UnmetReport;
use rask_comm::time::Time;
use rask_comm::words::size_text;
use rask_graphs::{GraphId, TaskId, TaskOptions, WorkerId};

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
    /// Memory limits up to this have been too small.
    needs_above: u64,
    ready: Lines<BinaryHeap<Reverse<Rank>>>,
    /// Tasks whose inputs are still being made.
    early: Lines<BinaryHeap<Reverse<Rank>>>,
    /// While no connected worker could ever run one of its ready tasks: since when that keeps each graph waiting. Graphs that
    /// come later wait from then on, each for its own time.
    stranded: Option<BTreeMap<GraphId, Time>>,
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

/// Whether `worker` may use more memory than so many bytes; 0 stands for no limit, as it does in what workers say.
pub(super) fn has_more_than(worker: &Worker, nbytes: u64) -> bool {
    nbytes == 0 || worker.hello.memory_limit == 0 || worker.hello.memory_limit > nbytes
}

/// Whether `worker` could run a task with these options; with `now`, without waiting for others to give resources back.
pub(super) fn suits(options: &TaskOptions, worker: &Worker, workers: &Workers, now: bool) -> bool {
    let names = &options.workers;
    let is_named = names.is_empty() || names.contains(&worker.hello.name);
    let any_named_there = || names.iter().any(|name| !workers.named(name).is_empty());
    (is_named || options.allow_other_workers && !any_named_there()) && worker.offers(&options.resources, now)
}

/// What a task asks for, in words.
pub(super) fn wishes(options: Option<&TaskOptions>, needs_above: u64) -> String {
    let resources = options.map_or(&[][..], |options| &options.resources);
    let workers = options.map_or(&[][..], |options| &options.workers);
    in_words(resources, workers, needs_above)
}

fn in_words(resources: &[(String, f64)], workers: &[String], needs_above: u64) -> String {
    let resources = resources.iter().map(|(name, amount)| format!("{}={amount}", name.escape_debug()));
    let named = (!workers.is_empty()).then(|| format!("worker {}", names(workers)));
    let memory = (needs_above > 0).then(|| format!("more than {} of memory", size_text(needs_above)));
    resources.chain(named).chain(memory).collect::<Vec<String>>().join(", ")
}

/// Names of workers of which any will do, in words.
pub(super) fn names(names: &[String]) -> String {
    let quoted = names.iter().map(|name| format!("\"{}\"", name.escape_debug()));
    quoted.collect::<Vec<String>>().join(" or ")
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
    /// The class of a task with these options, for workers with more than `needs_above` bytes of memory if that is not 0.
    pub(super) fn class(&mut self, options: &TaskOptions, needs_above: u64) -> usize {
        let key = format!("{:?} {:?} {} {needs_above}", options.resources, options.workers, options.allow_other_workers);
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        self.n_added += 1;
        self.classes.push(Class {
            key: key.clone(),
            resources: options.resources.clone(),
            names: options.workers.clone(),
            allow_others: options.allow_other_workers,
            needs_above,
            ready: Lines::default(),
            early: Lines::default(),
            stranded: None,
        });
        self.ids.insert(key, self.classes.len() - 1);
        self.classes.len() - 1
    }

    pub(super) fn push(&mut self, class: usize, flow: FlowId, rank: Rank, is_early: bool, now: Time) {
        self.classes[class].heap(flow, is_early).push(Reverse(rank));
        if let (Some(stranded), false) = (&mut self.classes[class].stranded, is_early) {
            stranded.entry(rank.1.graph).or_insert(now);
        }
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

    /// What ready tasks of `graph` ask for that no connected worker fulfils, in words, if there are such.
    pub(super) fn stranded_wishes(&self, graph: GraphId) -> Option<String> {
        let waits = |class: &&Class| class.stranded.as_ref().is_some_and(|waiting| waiting.contains_key(&graph));
        self.classes.iter().find(waits).map(|class| in_words(&class.resources, &class.names, class.needs_above))
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
        let is_large_enough = has_more_than(worker, class.needs_above);
        !worker.is_retiring && is_large_enough && class.matches_name(worker, named_there) && worker.offers(&class.resources, free)
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

    /// Note which classes no worker could ever serve, and take out of them the ready tasks of the graphs that have waited for one
    /// for `grace`. While there is no worker at all nothing is noted: that has a grace of its own.
    pub(super) fn stranded(
        &mut self,
        workers: &Workers,
        now: Time,
        grace: Duration,
        is_queued: impl Fn(TaskId) -> bool,
    ) -> Vec<TaskId> {
        let mut stranded = Vec::new();
        for at in 0..self.classes.len() {
            let is_served = workers.iter().any(|(_, worker)| self.suits(at, worker, workers, false));
            let class = &mut self.classes[at];
            if is_served || workers.len() == 0 {
                class.stranded = None;
                continue;
            }
            let waiting = class.stranded.get_or_insert_with(|| {
                let entries = class.ready.iter().flat_map(|(_, line)| line.iter());
                let queued = entries.filter(|Reverse((_, task))| is_queued(*task));
                queued.map(|Reverse((_, task))| (task.graph, now)).collect()
            });
            let overdue: BTreeSet<GraphId> =
                waiting.iter().filter(|(_, since)| since.after(grace) <= now).map(|(graph, _)| *graph).collect();
            if overdue.is_empty() {
                continue;
            }
            waiting.retain(|graph, _| !overdue.contains(graph));
            for line in class.ready.iter_mut() {
                line.retain(|Reverse((_, task))| {
                    let is_overdue = overdue.contains(&task.graph);
                    if is_overdue && is_queued(*task) {
                        stranded.push(*task);
                    }
                    !is_overdue
                });
            }
        }
        stranded.sort_unstable();
        stranded
    }
}
