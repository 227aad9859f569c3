//! What the tests of this crate share: an operator whose result tells its whole history, and seeded random graphs.

use std::any::Any;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::builder::GraphBuilder;
use crate::graph::{Body, Graph, Input, Part, Source, TaskOptions};
use crate::ids::TaskIdx;
use crate::keys::KeyRef;
use crate::operator::{Arity, OperatorSpec, Registry};
use crate::value::{Data, EncodeError, Encoded, Value};

/// A number that depends on everything it was made from, in [`N_PARTS`] parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct History(pub(crate) u64);

pub(crate) const N_PARTS: u32 = 3;

impl Data for History {
    fn kind(&self) -> &'static str {
        "history"
    }

    fn nbytes(&self) -> u64 {
        8
    }

    fn n_parts(&self) -> u32 {
        N_PARTS
    }

    fn part(&self, idx: u32) -> Option<Value> {
        (idx < N_PARTS).then(|| Value::new(History(xxh3_64(&[self.0.to_le_bytes(), u64::from(idx).to_le_bytes()].concat()))))
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        Ok(Encoded { kind: "history", header: Bytes::copy_from_slice(&self.0.to_le_bytes()), buffers: Vec::new() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MixArgs {
    seed: u64,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct NoArgs {}

/// `core.*`, and `test.mix` (any inputs), `test.pair` (exactly two inputs).
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register(
        OperatorSpec::new::<MixArgs>("test.mix", 1, Arity::any(), "history", "Hash seed and inputs."),
        |_, args: &MixArgs, inputs| {
            let mut text = format!("{}", args.seed);
            for input in inputs {
                text.push_str(&format!(",{}", input.expect::<History>("a history")?.0));
            }
            Ok(Value::new(History(xxh3_64(text.as_bytes()))))
        },
    );
    registry.register(
        OperatorSpec::new::<NoArgs>("test.pair", 1, Arity::exactly(2), "history", "The first of two."),
        |_, _: &NoArgs, inputs| Ok(inputs[0].clone()),
    );
    registry
}

/// A body of `test.mix`.
pub(crate) fn mix(seed: u64) -> Body {
    Body::single("test.mix", 1, &format!("{{\"seed\":{seed}}}"))
}

/// Add a task of the no-op family called `key` with whole inputs.
pub(crate) fn noop(graph: &mut GraphBuilder, key: &str, inputs: &[TaskIdx]) -> TaskIdx {
    graph.task(key, "core.noop", 1, "{}").inputs(inputs.iter().copied()).add()
}

/// A splitmix64 generator: tests that draw must draw the same every time.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// A random graph of `test.mix` tasks with parts, gather groups, options, declared outputs, chains and forward references.
pub(crate) fn random_graph(seed: u64) -> GraphBuilder {
    let mut draw = Draw(seed);
    let mut graph = GraphBuilder::new();
    let n_tasks = 1 + draw.below(40);
    let families: Vec<u32> = (0..3).map(|family| graph.family(&format!("family{family}"))).collect();
    // Tasks are declared in a shuffled order, so that inputs often come after their users.
    let mut place: Vec<usize> = (0..n_tasks).collect();
    if draw.below(2) == 0 {
        for at in (1..n_tasks).rev() {
            place.swap(at, draw.below(at + 1));
        }
    }
    for _ in 0..n_tasks {
        let body = graph.body(mix(draw.below(4) as u64));
        let key = KeyRef { family: families[draw.below(3)], member: Some(u32::try_from(graph.n_tasks()).unwrap()) };
        let mut task = graph.task_with(key, body);
        if draw.below(8) == 0 {
            task = task.options(TaskOptions { priority: i32::try_from(draw.below(3)).unwrap() - 1, ..TaskOptions::default() });
        }
        task.add();
    }
    let at = |rank: usize| TaskIdx(u32::try_from(place[rank]).unwrap());
    for rank in 1..n_tasks {
        let mut inputs = Vec::new();
        let n_inputs = [0, 1, 1, 1, 1, 2, 2, 3][draw.below(8)];
        for _ in 0..n_inputs {
            let part = if draw.below(3) == 0 { Part(u32::try_from(draw.below(N_PARTS as usize)).unwrap()) } else { Part::WHOLE };
            // Often the task just before, so that there are chains to fuse.
            let producer = if draw.below(2) == 0 { rank - 1 } else { draw.below(rank) };
            if draw.below(10) == 0 {
                let members = (0..1 + draw.below(4)).map(|_| at(draw.below(rank))).collect();
                let group = graph.group(members);
                inputs.push(Input::new(Source::Group(group), part));
            } else {
                inputs.push(Input::new(Source::Task(at(producer)), part));
            }
        }
        graph.set_inputs(at(rank), inputs);
    }
    for _ in 0..draw.below(4) {
        let output = at(draw.below(n_tasks));
        graph.output(output);
    }
    graph
}

/// The names and results of a graph's outputs, by name.
pub(crate) fn output_histories(graph: &Graph) -> Vec<(String, u64)> {
    let values = crate::evaluate::evaluate(graph, &registry(), &graph.outputs).expect("evaluates");
    let history = |value: &Value| value.downcast::<History>().expect("a history").0;
    let mut named: Vec<(String, u64)> =
        graph.outputs.iter().zip(&values).map(|(output, value)| (graph.keys.name(output.0), history(value))).collect();
    named.sort();
    named
}
