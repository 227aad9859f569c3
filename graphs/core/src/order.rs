//! The static order of a graph: user priority first, then so that few results are alive at any time.
//!
//! The goal is that of `dask.order`: finish what is begun, release early, start new work late. The algorithm is another one, near
//! linear and without recursion. A [`walk`](crate::walk) goes through the graph once; how far ahead it should look depends on the
//! graph, and no rule was found that says how far. So it is tried: the order is the one, of three walks, that keeps the fewest results
//! alive. Where one is known to be best, or the graph is so large that the time would be missed, one walk has to do.

use std::cmp::Reverse;

use crate::links::{Links, as_node};
use crate::pressure;
use crate::walk::{Reach, Walk};

/// With more tasks, groups and edges than this, only one walk is tried.
const MAX_TRIED: usize = 2_000_000;

/// The live tasks in the order in which they should run, producers before users. `priority` is by task, or empty for none.
pub(crate) fn order(links: &Links, is_alive: &[bool], is_output: &[bool], priority: &[i32]) -> Vec<u32> {
    let topological = links.topological();
    let (level, n_levels) = levels(links, is_alive, priority, &topological);
    let starts = starts(links, is_alive, &level, n_levels);
    let n_live = is_alive.iter().filter(|is_alive| **is_alive).count();
    let walk = |reach| Walk::new(links, is_output, &level, &topological, reach).sequence(&starts, n_live);
    let first = walk(Reach::NextJoin);
    if links.n_nodes() + links.n_edges() > MAX_TRIED || has_one_best(links) {
        return first;
    }
    let found = pressure::of_sequence(links, is_output, &first);
    let mut best = (found, first);
    for reach in [Reach::Join, Reach::End] {
        if best.0.max <= least_pressure(links, is_alive, is_output) {
            break;
        }
        let sequence = walk(reach);
        let found = pressure::of_sequence(links, is_output, &sequence);
        if found.max < best.0.max || (found.max == best.0.max && found.mean < best.0.mean) {
            best = (found, sequence);
        }
    }
    best.1
}

/// Whether no result has two users: the walk is depth first on trees, whatever its reach, and that is the best there is.
fn has_one_best(links: &Links) -> bool {
    (0..as_node(links.n_nodes())).all(|node| links.users_of(node).len() <= 1)
}

/// A pressure that no order is below: the outputs are there in the end, the inputs of each task before it.
fn least_pressure(links: &Links, is_alive: &[bool], is_output: &[bool]) -> usize {
    let n_outputs = is_output.iter().zip(is_alive).filter(|(is_output, is_alive)| **is_output && **is_alive).count();
    let most_inputs = (0..as_node(links.n_nodes())).map(|node| links.producers_of(node).len()).max().unwrap_or(0);
    n_outputs.max(most_inputs)
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

/// By level the live tasks that no other task of the level needs, last added first.
fn starts(links: &Links, is_alive: &[bool], level: &[u32], n_levels: usize) -> Vec<Vec<u32>> {
    let mut starts: Vec<Vec<u32>> = vec![Vec::new(); n_levels];
    for task in (0..as_node(links.n_tasks())).rev().filter(|&task| is_alive[task as usize]) {
        let own = level[task as usize];
        if links.users_of(task).iter().all(|&user| level[user as usize] > own) {
            starts[own as usize].push(task);
        }
    }
    starts
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
