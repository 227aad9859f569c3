//! How fast the kernels are on this machine: one core, one chunk at a time, no cluster.
//!
//! `cargo run --release -p rask-arrays --example measure`

use std::time::Instant;

use rask_arrays::{Array, Chunk, ChunkSpec, Distributed, Lowering, evaluate_expression};
use rask_graphs::evaluate::evaluate;
use rask_graphs::expression::Expression;
use rask_graphs::{FinishOptions, GraphBuilder, Registry, TaskContext, Value};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut registry = Registry::new();
    rask_arrays::register(&mut registry);
    operators(&registry)?;
    expression(&registry, "(x + x.T) - x.mean(axis=0)", 4000, 1000)?;
    expression(&registry, "sqrt(sum(x * x))", 4000, 1000)?;
    Ok(())
}

/// Run one operator on inputs a few times, and give the best time in seconds.
fn time(registry: &Registry, operator: &str, args: &str, inputs: &[Value]) -> Result<(Value, f64), Box<dyn std::error::Error>> {
    let kernel = registry.prepare(operator, 1, args)?;
    let ctx = TaskContext::detached(operator);
    let mut best = f64::INFINITY;
    let mut result = None;
    for _ in 0..5 {
        let start = Instant::now();
        let value = kernel.run(&ctx, inputs).map_err(|error| error.0)?;
        best = best.min(start.elapsed().as_secs_f64());
        result = Some(value);
    }
    Ok((result.ok_or("five runs give a result")?, best))
}

fn operators(registry: &Registry) -> Outcome {
    let random = |n: usize, seed: u64| format!(r#"{{"distribution":"normal","shape":[{n},{n}],"seed":{seed}}}"#);
    let (_, seconds) = time(registry, "array.random", &random(2000, 1), &[])?;
    println!("normals:            {:6.2} ns each, 8000 x 8000 in {:.2} s", seconds * 1e9 / 4e6, seconds * 16.0);
    let (a, _) = time(registry, "array.random", &random(1000, 1), &[])?;
    let (b, _) = time(registry, "array.random", &random(1000, 2), &[])?;
    let (_, seconds) = time(registry, "array.matmul", "{}", &[a.clone(), b.clone()])?;
    println!("matmul 1000^3:      {:6.2} GFLOP/s", 2.0 / seconds);
    let fused = r#"{"inputs":[{"dtype":"f64","axes":[0,1]},{"dtype":"f64","axes":[0,1]}],
        "code":[{"input":0},{"input":1},{"apply":["add","f64"]},{"constant":["f64",2.0]},{"apply":["multiply","f64"]},{"input":0},{"apply":["subtract","f64"]}]}"#;
    let (_, seconds) = time(registry, "array.elementwise", fused, &[a.clone(), b.clone()])?;
    println!("(a + b) * 2 - a:    {:6.2} GB/s read and written", 24e6 / seconds / 1e9);
    let transposed = r#"{"inputs":[{"dtype":"f64","axes":[0,1]},{"dtype":"f64","axes":[1,0]}],"code":[{"input":0},{"input":1},{"apply":["add","f64"]}]}"#;
    let (_, seconds) = time(registry, "array.elementwise", transposed, &[a.clone(), b.clone()])?;
    println!("a + b.T:            {:6.2} GB/s read and written", 24e6 / seconds / 1e9);
    for args in ["{}", r#"{"axis":0}"#, r#"{"axis":1}"#] {
        let (_, seconds) = time(registry, "array.sum", args, std::slice::from_ref(&a))?;
        println!("sum {args:<14}: {:7.2} GB/s read", 8e6 / seconds / 1e9);
    }
    let (_, seconds) = time(registry, "array.var", "{}", std::slice::from_ref(&a))?;
    println!("var:                {:6.2} GB/s", 8e6 / seconds / 1e9);
    let (_, seconds) = time(registry, "array.exp", "{}", std::slice::from_ref(&a))?;
    println!("exp:                {:6.2} ns each", seconds * 1e3);
    Ok(())
}

fn expression(registry: &Registry, text: &str, n: usize, chunk: i64) -> Outcome {
    let x = Array::random(Distributed::Normal, &[], &[n, n], 7, None, &ChunkSpec::Size(chunk))?.named("x");
    let parsed = Expression::parse(text)?;
    let array = evaluate_expression(&parsed, &|name| (name == "x").then(|| x.clone()))?;
    let start = Instant::now();
    let mut graph = GraphBuilder::new();
    let blocks = Lowering::new(&mut graph).lower(&array)?;
    for task in &blocks.tasks {
        graph.output(*task);
    }
    let finished = graph.finish(&FinishOptions::default())?;
    let outputs: Vec<_> = blocks.tasks.iter().filter_map(|task| finished.renumbering[task.index()]).collect();
    let lowered = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let values = evaluate(&finished.graph, registry, &outputs)?;
    let seconds = start.elapsed().as_secs_f64();
    let first = values.first().and_then(|value| value.downcast::<Chunk>()).and_then(|chunk| chunk.element(0));
    println!(
        "{text}, {n} x {n}: {} tasks lowered in {:.1} ms, run in {seconds:.3} s on one thread, first element {first:?}",
        finished.graph.n_tasks(),
        lowered * 1e3
    );
    Ok(())
}
