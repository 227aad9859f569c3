//! The static order of a graph: user priority first, then so that few results are alive at any time.
//!
//! The goal is that of `dask.order`: finish what is begun, release early, start new work late. The algorithm is another one,
//! near linear and without recursion:
//!
//! 1. Pick a goal: a task that misses the fewest inputs of those that were begun, of equals the one begun longest ago, and
//!    from there up to where the way branches; with nothing begun, the next task that nobody else needs.
//! 2. Walk down depth first, of several missing inputs first the one that needs most room by itself (Sethi and Ullman,
//!    "The Generation of Optimal Code for Arithmetic Expressions", 1970), of equals the earlier added.
//! 3. Whenever all remaining users of a result could run and are few, run them at once: that releases the result.
//!
//! Gather groups are nodes that cost nothing, so an n by m shuffle has n + m edges here. Sizes of results are not known at this
//! point; every result counts as one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::Graph;
use crate::links::{Links, as_node};

/// A result with at most this many remaining users, all of them able to run, is used up at once.
const FEW_USERS: u32 = 4;

/// How many results are alive while a graph runs task after task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// Most results alive after a task, what it released not counted.
    pub max: usize,
    /// Results alive after a task, averaged over tasks.
    pub mean: f64,
}

/// Run `graph` in thought, in its order, and count the results alive after each task. Outputs stay alive; a result that nobody
/// needs dies at once.
#[must_use]
pub fn pressure(graph: &Graph) -> Pressure {
    let links = Links::of_graph(graph);
    let mut remaining: Vec<u32> = (0..links.n_nodes()).map(|node| as_node(links.users_of(as_node(node)).len())).collect();
    for output in &graph.outputs {
        remaining[output.index()] += 1;
    }
    let (mut alive, mut max, mut sum) = (0usize, 0usize, 0u64);
    for task in 0..as_node(links.n_tasks()) {
        alive += usize::from(remaining[task as usize] > 0);
        for &producer in links.producers_of(task) {
            remaining[producer as usize] -= 1;
            if remaining[producer as usize] > 0 {
                continue;
            }
            if !links.is_group(producer) {
                alive -= 1;
                continue;
            }
            for &member in links.producers_of(producer) {
                remaining[member as usize] -= 1;
                alive -= usize::from(remaining[member as usize] == 0);
            }
        }
        max = max.max(alive);
        sum += alive as u64;
    }
    let n_tasks = links.n_tasks().max(1);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let mean = sum as f64 / n_tasks as f64;
    Pressure { max, mean }
}

/// The live tasks in the order in which they should run, producers before users. `priority` is by task, or empty for none.
pub(crate) fn order(links: &Links, is_alive: &[bool], is_output: &[bool], priority: &[i32]) -> Vec<u32> {
    let topological = links.topological();
    let (level, n_levels) = levels(links, is_alive, priority, &topological);
    let mut walk = Walk::new(links, is_output, level, n_levels, &topological);
    let mut starts: Vec<Vec<u32>> = vec![Vec::new(); n_levels];
    for task in (0..as_node(links.n_tasks())).rev().filter(|&task| is_alive[task as usize]) {
        let level = walk.level[task as usize];
        if links.users_of(task).iter().all(|&user| walk.level[user as usize] > level) {
            starts[level as usize].push(task);
        }
    }
    for (level, mut starts) in starts.into_iter().enumerate() {
        walk.current_level = as_node(level);
        while let Some(goal) = walk.next_begun().or_else(|| starts.pop()) {
            walk.pursue(goal);
        }
    }
    walk.order
}

/// By node the rank of its effective priority (the highest of its own and its users'), 0 for the most urgent; and how many ranks.
fn levels(links: &Links, is_alive: &[bool], priority: &[i32], topological: &[u32]) -> (Vec<u32>, usize) {
    if priority.is_empty() {
        return (vec![0; links.n_nodes()], 1);
    }
    let mut effective: Vec<i32> = vec![i32::MIN; links.n_nodes()];
    for (task, &own) in priority.iter().enumerate().filter(|(task, _)| is_alive[*task]) {
        effective[task] = own;
    }
    for &node in topological.iter().rev() {
        let users = links.users_of(node).iter().map(|&user| effective[user as usize]).max();
        effective[node as usize] = effective[node as usize].max(users.unwrap_or(i32::MIN));
    }
    let mut ranks: Vec<i32> = effective.clone();
    ranks.sort_unstable_by_key(|&priority| Reverse(priority));
    ranks.dedup();
    let rank_of = |priority: i32| as_node(ranks.partition_point(|&rank| rank > priority));
    (effective.into_iter().map(rank_of).collect(), ranks.len())
}

/// A node that some finished task feeds: fewest missing inputs first, then the one fed longest ago (what has been alive
/// longest is used up first, so a blocked product goes row by row instead of growing along both axes), then the earliest added.
type Begun = Reverse<(u32, u32, u32)>;

struct Walk<'a> {
    links: &'a Links,
    is_output: &'a [bool],
    level: Vec<u32>,
    current_level: u32,
    /// By node: how many results are alive at once, at the least, while it is computed alone (shared inputs counted twice).
    room: Vec<u32>,
    /// By node: where the way from it first branches or ends, within its level.
    goal_of: Vec<u32>,
    /// By node: inputs not yet there.
    missing: Vec<u32>,
    /// By node: users that are not done.
    remaining: Vec<u32>,
    /// By node: users that cannot run yet. A group as user counts until the end: its consumers are what releases its members.
    unready: Vec<u32>,
    is_done: Vec<bool>,
    begun: Vec<BinaryHeap<Begun>>,
    stack: Vec<u32>,
    order: Vec<u32>,
}

impl<'a> Walk<'a> {
    fn new(links: &'a Links, is_output: &'a [bool], level: Vec<u32>, n_levels: usize, topological: &[u32]) -> Self {
        let n_nodes = links.n_nodes();
        let n_users: Vec<u32> = (0..n_nodes).map(|node| as_node(links.users_of(as_node(node)).len())).collect();
        let mut goal_of: Vec<u32> = (0..as_node(n_nodes)).collect();
        for &node in topological.iter().rev() {
            if let &[user] = links.users_of(node)
                && level[user as usize] == level[node as usize]
            {
                goal_of[node as usize] = goal_of[user as usize];
            }
        }
        Self {
            room: rooms(links, topological),
            goal_of,
            missing: (0..n_nodes).map(|node| as_node(links.producers_of(as_node(node)).len())).collect(),
            remaining: n_users.clone(),
            unready: n_users,
            is_done: vec![false; n_nodes],
            begun: (0..n_levels).map(|_| BinaryHeap::new()).collect(),
            stack: Vec::new(),
            order: Vec::with_capacity(links.n_tasks()),
            current_level: 0,
            links,
            is_output,
            level,
        }
    }

    /// The goal behind the begun node that is closest to running.
    fn next_begun(&mut self) -> Option<u32> {
        while let Some(Reverse((missing, _, node))) = self.begun[self.current_level as usize].pop() {
            // Entries are not updated but added anew: an outdated one is recognised by its count.
            if !self.is_done[node as usize] && self.missing[node as usize] == missing {
                return Some(self.goal_of[node as usize]);
            }
        }
        None
    }

    /// Do everything that `goal` needs, then `goal`.
    fn pursue(&mut self, goal: u32) {
        self.stack.push(goal);
        while let Some(&node) = self.stack.last() {
            if self.is_done[node as usize] {
                self.stack.pop();
            } else if self.missing[node as usize] == 0 {
                self.stack.pop();
                self.complete(node);
            } else {
                let first = self.stack.len();
                let (links, is_done, room) = (self.links, &self.is_done, &self.room);
                self.stack.extend(links.producers_of(node).iter().filter(|&&producer| !is_done[producer as usize]));
                self.stack[first..].sort_unstable_by_key(|&producer| (room[producer as usize], Reverse(producer)));
            }
        }
    }

    fn complete(&mut self, node: u32) {
        let links = self.links;
        self.is_done[node as usize] = true;
        if !links.is_group(node) {
            self.order.push(node);
            for &producer in links.producers_of(node) {
                self.use_up(producer);
            }
        }
        for &user in links.users_of(node) {
            self.missing[user as usize] -= 1;
            if self.missing[user as usize] > 0 || !self.make_ready(user) {
                let fed_at = as_node(self.order.len());
                let level = self.level[user as usize] as usize;
                self.begun[level].push(Reverse((self.missing[user as usize], fed_at, user)));
            }
        }
    }

    /// One user of `node` is done.
    fn use_up(&mut self, node: u32) {
        self.remaining[node as usize] -= 1;
        let remaining = self.remaining[node as usize];
        if remaining == FEW_USERS && self.unready[node as usize] == 0 {
            self.run_users(node);
        }
        if remaining == 0 && self.links.is_group(node) {
            let links = self.links;
            for &member in links.producers_of(node) {
                self.remaining[member as usize] -= 1;
            }
        }
    }

    /// All inputs of `node` are there. Whether it is going to run at once.
    fn make_ready(&mut self, node: u32) -> bool {
        if self.links.is_group(node) {
            self.stack.push(node);
            return true;
        }
        let is_current = self.level[node as usize] == self.current_level;
        let links = self.links;
        let mut runs = false;
        for &producer in links.producers_of(node) {
            self.unready[producer as usize] -= 1;
            if self.unready[producer as usize] == 0 && self.remaining[producer as usize] <= FEW_USERS {
                runs |= self.run_users(producer);
            }
        }
        runs && is_current
    }

    /// Run the remaining users of `node` next, all of which can, when that releases it.
    fn run_users(&mut self, node: u32) -> bool {
        if !self.links.is_group(node) && self.is_output[node as usize] {
            return false;
        }
        let (links, current) = (self.links, self.current_level);
        for &user in links.users_of(node).iter().rev() {
            if !self.is_done[user as usize] && self.level[user as usize] == current {
                self.stack.push(user);
            }
        }
        true
    }
}

/// See [`Walk::room`].
fn rooms(links: &Links, topological: &[u32]) -> Vec<u32> {
    let mut room = vec![1u32; links.n_nodes()];
    let mut inputs: Vec<(u32, u32)> = Vec::new();
    for &node in topological {
        inputs.clear();
        for &producer in links.producers_of(node) {
            let left = if links.is_group(producer) { as_node(links.producers_of(producer).len()) } else { 1 };
            inputs.push((room[producer as usize], left));
        }
        inputs.sort_unstable_by_key(|&(room, left)| Reverse(room.saturating_sub(left)));
        let mut held = 0u32;
        for &(own, left) in &inputs {
            room[node as usize] = room[node as usize].max(held.saturating_add(own));
            held = held.saturating_add(left);
        }
    }
    room
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
