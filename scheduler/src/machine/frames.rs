//! What fits a frame to a worker. A message that does not would cost the worker its connection, and all that it holds; so a graph
//! of which one could not be sent is refused when it comes, in words.
//!
//! Lists of messages are cut into frames by the outboxes. Here is what a single message may come to: the inputs of one task, the
//! members of one gather group, the arguments of one body. Integers count what they take at most (bincode's varints).

use rask_comm::codec::FRAME_LIMIT;
use rask_graphs::{Body, Graph, TaskIdx};

/// Bytes of an input of a run, or a member of a group, that names one holder: graph, task, attempt, part or number of parts, size,
/// number of holders, holder, and whether it is made.
const ENTRY_NBYTES: usize = 5 + 5 + 5 + 5 + 9 + 1 + 5 + 1;

/// Most inputs of a task, and most members of a gather group.
pub(super) const MAX_ENTRIES: usize = 450_000;

/// From so many on, one holder is named of each: all of them would not fit.
pub(super) const MAX_ENTRIES_WITH_HOLDERS: usize = 100_000;

/// Longest arguments of one body, in bytes.
const MAX_BODY_NBYTES: usize = 8 << 20;

/// Longest label of a body that is sent, in characters; it is for logs.
const MAX_LABEL_CHARS: usize = 256;

const _: () = assert!(MAX_ENTRIES * ENTRY_NBYTES + 1_024 < FRAME_LIMIT);
const _: () = assert!(MAX_ENTRIES_WITH_HOLDERS * (ENTRY_NBYTES + 5 * super::placement::N_HOLDERS) + 1_024 < FRAME_LIMIT);
const _: () = assert!(MAX_BODY_NBYTES + 5 * MAX_LABEL_CHARS < FRAME_LIMIT);

/// Why some message about `graph` would be too long, if one would.
pub(super) fn too_long(graph: &Graph) -> Option<String> {
    let longest = |offsets: &[u32]| {
        let lengths = offsets.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as usize);
        lengths.enumerate().max_by_key(|(_, length)| *length).filter(|(_, length)| *length > MAX_ENTRIES)
    };
    if let Some((task, n_inputs)) = longest(&graph.input_offsets) {
        let name = name(graph, TaskIdx(task as u32));
        return Some(format!(
            "task {name} has {n_inputs} inputs, and {MAX_ENTRIES} are possible: combine them in several steps, a few thousand each"
        ));
    }
    if let Some((group, n_members)) = longest(&graph.group_offsets) {
        return Some(format!(
            "gather group {group} has {n_members} members, and {MAX_ENTRIES} are possible: use fewer, larger ones"
        ));
    }
    let body = graph.bodies.iter().find(|body| nbytes_of(body) > MAX_BODY_NBYTES)?;
    let nbytes = rask_comm::words::size_text(nbytes_of(body) as u64);
    let limit = rask_comm::words::size_text(MAX_BODY_NBYTES as u64);
    let name: String = body.name().chars().take(MAX_LABEL_CHARS).collect();
    Some(format!("the arguments of {name} take {nbytes}, and {limit} is possible: scatter such data, or put it into a file"))
}

fn nbytes_of(body: &Body) -> usize {
    body.steps.iter().map(|step| step.operator.len() + step.args.len() + 64).sum()
}

fn name(graph: &Graph, task: TaskIdx) -> String {
    let name: String = graph.keys.name(task.0).chars().take(MAX_LABEL_CHARS).collect();
    format!("\"{}\"", name.escape_debug())
}

/// A label that is not too long.
pub(super) fn label(family: &str) -> String {
    family.chars().take(MAX_LABEL_CHARS).collect()
}
