//! How fast a big graph becomes bytes and comes back, and how many bytes a task takes.
//!
//! `cargo run --release -p rask-comm --example codec_speed`

use std::error::Error;
use std::time::Instant;

use rask_comm::codec::{GRAPH_FRAME_LIMIT, decode_frame, encode_frame};
use rask_comm::message::{FromClient, SubmitOptions};
use rask_graphs::graph::{Body, Graph};
use rask_graphs::keys::KeyRef;
use rask_graphs::{FinishOptions, GraphBuilder, TaskIdx};

const N_TASKS: u32 = 1_000_000;

/// For a task of the upper half, by its place there, the first of its two inputs, if it has any.
type FirstInput = fn(u32) -> Option<u32>;

fn main() -> Result<(), Box<dyn Error>> {
    let shapes: [(&str, FirstInput); 2] = [("independent tasks", |_| None), ("a binary tree", |idx| Some(2 * idx))];
    for (name, first_input) in shapes {
        let graph = graph(first_input)?;
        let n_tasks = graph.n_tasks();
        let submit = FromClient::Submit { request: 1, graph: Box::new(graph), options: SubmitOptions::default() };
        let messages = [submit];
        for _ in 0..3 {
            let mut frame = Vec::new();
            let began = Instant::now();
            encode_frame(&messages, GRAPH_FRAME_LIMIT, &mut frame)?;
            let encoding = began.elapsed();
            let began = Instant::now();
            let back: Vec<FromClient> = decode_frame(&frame)?;
            let decoding = began.elapsed();
            assert!(back == messages, "what comes back is what was sent");
            let nbytes = frame.len() as f64 / n_tasks as f64;
            println!("{name}: {n_tasks} tasks, {nbytes:.1} bytes a task, encoded in {encoding:.1?}, decoded in {decoding:.1?}");
        }
    }
    Ok(())
}

/// A million tasks of one family; task `idx` of the upper half takes `first_input(idx - half)` and the task after it.
fn graph(first_input: FirstInput) -> Result<Graph, Box<dyn Error>> {
    let mut builder = GraphBuilder::new();
    let body = builder.body(Body::single("core.noop", 1, "{}"));
    let family = builder.family("task");
    let half = N_TASKS / 2 + 1;
    for idx in 0..N_TASKS {
        let mut task = builder.task_with(KeyRef { family, member: Some(idx) }, body);
        if idx >= half
            && let Some(first) = first_input(idx - half)
        {
            task = task.input(TaskIdx(first)).input(TaskIdx(first + 1));
        }
        let task = task.add();
        if first_input(0).is_none() || idx + 1 == N_TASKS {
            builder.output(task);
        }
    }
    Ok(builder.finish(&FinishOptions { cull: false, fuse: false, order: false })?.graph)
}
