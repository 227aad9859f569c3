//! Who needs whom, without repetition: the view of a graph that the passes share.
//!
//! Nodes are the tasks, then the gather groups; an edge runs from a member to its group and from a group to its consumers,
//! so that a shuffle of n by m costs n + m edges. Rows are flat (CSR) in both directions. This file knows nothing of
//! parts, bodies, names or priorities.

use crate::graph::{Graph, Input, Source};
use crate::ids::TaskIdx;

/// Distinct edges between tasks and gather groups, in both directions.
pub(crate) struct Links {
    n_tasks: usize,
    producer_offsets: Vec<u32>,
    producers: Vec<u32>,
    user_offsets: Vec<u32>,
    users: Vec<u32>,
}

impl Links {
    /// The edges of `n_tasks` tasks and `n_groups` groups. A group that no task uses keeps no edge. Every index named must exist.
    pub(crate) fn new<'a>(
        n_tasks: usize,
        n_groups: usize,
        inputs_of: impl Fn(usize) -> &'a [Input],
        members_of: impl Fn(usize) -> &'a [TaskIdx],
    ) -> Self {
        let n_nodes = n_tasks + n_groups;
        let mut last_seen_by = vec![u32::MAX; n_nodes];
        let mut producer_offsets = Vec::with_capacity(n_nodes + 1);
        let mut producers: Vec<u32> = Vec::new();
        producer_offsets.push(0);
        for task in 0..n_tasks {
            for input in inputs_of(task) {
                let node = match input.source() {
                    Source::Task(producer) => producer.index(),
                    Source::Group(group) => n_tasks + group as usize,
                    Source::External(_) => continue,
                };
                if last_seen_by[node] != as_node(task) {
                    last_seen_by[node] = as_node(task);
                    producers.push(as_node(node));
                }
            }
            producer_offsets.push(as_node(producers.len()));
        }
        for group in 0..n_groups {
            let node = n_tasks + group;
            if last_seen_by[node] != u32::MAX {
                for member in members_of(group) {
                    if last_seen_by[member.index()] != as_node(node) {
                        last_seen_by[member.index()] = as_node(node);
                        producers.push(member.0);
                    }
                }
            }
            producer_offsets.push(as_node(producers.len()));
        }
        let (user_offsets, users) = turned_around(&producer_offsets, &producers);
        Self { n_tasks, producer_offsets, producers, user_offsets, users }
    }

    /// The edges of a finished graph.
    pub(crate) fn of_graph(graph: &Graph) -> Self {
        Self::new(
            graph.n_tasks(),
            graph.n_groups(),
            |task| graph.inputs_of(TaskIdx(as_node(task))),
            |group| graph.members_of(as_node(group)),
        )
    }

    /// Number of tasks; nodes from here on are groups.
    pub(crate) fn n_tasks(&self) -> usize {
        self.n_tasks
    }

    /// Number of tasks and groups.
    pub(crate) fn n_nodes(&self) -> usize {
        self.producer_offsets.len() - 1
    }

    /// Number of distinct edges.
    pub(crate) fn n_edges(&self) -> usize {
        self.producers.len()
    }

    /// Whether `node` is a gather group.
    pub(crate) fn is_group(&self, node: u32) -> bool {
        node as usize >= self.n_tasks
    }

    /// What `node` needs directly, each once.
    pub(crate) fn producers_of(&self, node: u32) -> &[u32] {
        row(&self.producer_offsets, &self.producers, node)
    }

    /// What needs `node` directly, each once, ascending.
    pub(crate) fn users_of(&self, node: u32) -> &[u32] {
        row(&self.user_offsets, &self.users, node)
    }

    /// All nodes, producers before users; nodes on a cycle, and what needs them, are left out.
    pub(crate) fn topological(&self) -> Vec<u32> {
        let mut missing: Vec<u32> = (0..self.n_nodes()).map(|node| as_node(self.producers_of(as_node(node)).len())).collect();
        let mut sequence: Vec<u32> = (0..self.n_nodes()).filter(|&node| missing[node] == 0).map(as_node).collect();
        let mut next = 0;
        while let Some(&node) = sequence.get(next) {
            next += 1;
            for &user in self.users_of(node) {
                missing[user as usize] -= 1;
                if missing[user as usize] == 0 {
                    sequence.push(user);
                }
            }
        }
        sequence
    }
}

/// A table position as a node number. Validation keeps graphs below 2^30 tasks and 2^32 edges.
pub(crate) fn as_node(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn row<'a>(offsets: &[u32], values: &'a [u32], node: u32) -> &'a [u32] {
    let node = node as usize;
    &values[offsets[node] as usize..offsets[node + 1] as usize]
}

fn turned_around(offsets: &[u32], targets: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let n_nodes = offsets.len() - 1;
    let mut turned_offsets = vec![0u32; n_nodes + 1];
    for &target in targets {
        turned_offsets[target as usize + 1] += 1;
    }
    for node in 0..n_nodes {
        turned_offsets[node + 1] += turned_offsets[node];
    }
    let mut free: Vec<u32> = turned_offsets[..n_nodes].to_vec();
    let mut turned = vec![0u32; targets.len()];
    for node in 0..n_nodes {
        for &target in &targets[offsets[node] as usize..offsets[node + 1] as usize] {
            let slot = &mut free[target as usize];
            turned[*slot as usize] = as_node(node);
            *slot += 1;
        }
    }
    (turned_offsets, turned)
}
