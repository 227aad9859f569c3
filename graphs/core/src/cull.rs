//! Dropping the tasks that no output needs.
//!
//! Walks from the outputs towards the sources; what is not reached is dead. It only marks: tables are compacted once, when
//! the graph is assembled.

use crate::finish::Draft;
use crate::graph::Source;

/// Mark as dead whatever no output needs.
pub(crate) fn cull(draft: &mut Draft) {
    let graph = &draft.graph;
    let mut is_needed = vec![false; graph.n_tasks()];
    let mut is_group_done = vec![false; graph.groups.len()];
    let mut to_visit: Vec<u32> = Vec::new();
    for (task, &is_output) in draft.is_output.iter().enumerate() {
        if is_output && !std::mem::replace(&mut is_needed[task], true) {
            to_visit.push(crate::links::as_node(task));
        }
    }
    while let Some(task) = to_visit.pop() {
        for input in &graph.inputs[task as usize] {
            match input.source() {
                Source::Task(producer) => {
                    if !std::mem::replace(&mut is_needed[producer.index()], true) {
                        to_visit.push(producer.0);
                    }
                }
                Source::Group(group) => {
                    if !std::mem::replace(&mut is_group_done[group as usize], true) {
                        let members = graph.groups[group as usize].iter();
                        to_visit.extend(
                            members.filter(|member| !std::mem::replace(&mut is_needed[member.index()], true)).map(|m| m.0),
                        );
                    }
                }
                Source::External(_) => {}
            }
        }
    }
    draft.is_alive = is_needed;
}
