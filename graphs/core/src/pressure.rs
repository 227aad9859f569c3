//! How many results are alive while a graph runs task after task: what an order is good for, as a number.
//!
//! Sizes of results are not known here; every result counts as one.

use crate::graph::Graph;
use crate::links::{Links, as_node};

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
    let mut is_output = vec![false; graph.n_tasks()];
    for output in &graph.outputs {
        is_output[output.index()] = true;
    }
    let sequence: Vec<u32> = (0..as_node(graph.n_tasks())).collect();
    of_sequence(&Links::of_graph(graph), &is_output, &sequence)
}

/// The same for tasks that run in the order of `sequence`.
pub(crate) fn of_sequence(links: &Links, is_output: &[bool], sequence: &[u32]) -> Pressure {
    let mut remaining: Vec<u32> = (0..links.n_nodes()).map(|node| as_node(links.users_of(as_node(node)).len())).collect();
    for (task, &is_output) in is_output.iter().enumerate() {
        remaining[task] += u32::from(is_output);
    }
    let (mut alive, mut max, mut sum) = (0usize, 0usize, 0u64);
    for &task in sequence {
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
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let mean = sum as f64 / sequence.len().max(1) as f64;
    Pressure { max, mean }
}
