//! What no schedule can beat: the longest path through a graph, and its work shared evenly.

use rask_graphs::{Source, TaskIdx};

use super::workloads::Workload;

/// Lower bounds of a workload on a number of slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// The longest chain of tasks, transfers taken to be free, in microseconds.
    pub(super) critical_path_us: u64,
    /// All tasks' time, in microseconds.
    pub(super) work_us: u64,
    /// Bytes that tasks read, each input counted.
    pub(super) input_nbytes: u64,
}

impl Bounds {
    pub(super) fn of(workload: &Workload) -> Self {
        let graph = &workload.graph;
        // By task, when it ends at the earliest. Inputs come before their users.
        let mut ends: Vec<u64> = Vec::with_capacity(graph.n_tasks());
        let mut group_ends: Vec<Option<(u64, u64)>> = vec![None; graph.n_groups()];
        let (mut work_us, mut input_nbytes) = (0, 0);
        for (idx, cost) in workload.costs.iter().enumerate() {
            let mut begin = 0;
            for input in graph.inputs_of(TaskIdx(idx as u32)) {
                let (end, nbytes) = match input.source() {
                    Source::Task(task) => (ends[task.index()], workload.part_nbytes(task, input.part)),
                    // All parts of a member are of one size, so a group's figures hold for each of its users.
                    Source::Group(group) => *group_ends[group as usize].get_or_insert_with(|| {
                        let members = graph.members_of(group).iter();
                        members.fold((0, 0), |(end, nbytes), task| {
                            (end.max(ends[task.index()]), nbytes + workload.part_nbytes(*task, input.part))
                        })
                    }),
                    Source::External(_) => (0, 0),
                };
                begin = begin.max(end);
                input_nbytes += nbytes;
            }
            ends.push(begin + u64::from(cost.duration_us));
            work_us += u64::from(cost.duration_us);
        }
        Self { critical_path_us: ends.iter().copied().max().unwrap_or(0), work_us, input_nbytes }
    }

    /// The least time in microseconds on `n_slots` slots.
    pub(super) fn makespan_us(&self, n_slots: u64) -> u64 {
        self.critical_path_us.max(self.work_us.div_ceil(n_slots))
    }
}
