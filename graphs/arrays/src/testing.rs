//! For tests: computing an array from tree to chunk the way a cluster would, one task after another.

use rask_graphs::FinishOptions;
use rask_graphs::{GraphBuilder, Registry, Value};

use crate::array::Array;
use crate::chunk::Chunk;
use crate::expression::evaluate_expression;
use crate::lower::Lowering;

/// The value of an array, and how many tasks it took before fusion of chains.
pub(crate) fn compute_counting(array: &Array) -> Result<(Chunk, usize), String> {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    let mut graph = GraphBuilder::new();
    let blocks = Lowering::new(&mut graph).lower(array).map_err(|error| error.to_string())?;
    for task in &blocks.tasks {
        graph.output(*task);
    }
    let n_tasks = graph.n_tasks();
    let finished = graph.finish(&FinishOptions::default()).map_err(|error| error.to_string())?;
    finished.graph.check().map_err(|error| error.to_string())?;
    let outputs: Vec<_> = blocks
        .tasks
        .iter()
        .map(|task| finished.renumbering[task.index()].ok_or("an output was dropped".to_owned()))
        .collect::<Result<_, String>>()?;
    let values: Vec<Value> =
        rask_graphs::evaluate::evaluate(&finished.graph, &registry, &outputs).map_err(|error| error.to_string())?;
    for (value, number) in values.iter().zip(0..) {
        let chunk = value.expect::<Chunk>("a chunk").map_err(|error| error.0)?;
        let position = crate::chunking::unravel(number, &array.counts());
        for (axis, &place) in position.iter().enumerate() {
            let announced = array.chunks()[axis][place];
            if announced != crate::UNKNOWN && announced != chunk.shape()[axis] {
                return Err(format!("chunk {number} has shape {:?}, announced were {:?}", chunk.shape(), array.chunks()));
            }
        }
        if chunk.dtype() != array.dtype() {
            return Err(format!("chunk {number} is {}, announced was {}", chunk.dtype(), array.dtype()));
        }
    }
    Ok((blocks.grid.assemble(&values).map_err(|error| error.0)?, n_tasks))
}

/// The value of an array.
pub(crate) fn compute(array: &Array) -> Chunk {
    compute_counting(array).map(|(chunk, _)| chunk).unwrap_or_else(|error| panic!("{error}"))
}

/// The array that `text` means.
pub(crate) fn parse(text: &str, names: &[(&str, &Array)]) -> Result<Array, crate::ExpressionError> {
    let expression = rask_graphs::expression::Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    evaluate_expression(&expression, &|name| names.iter().find(|(known, _)| *known == name).map(|(_, array)| (*array).clone()))
}

/// The value of `text`.
pub(crate) fn value(text: &str, names: &[(&str, &Array)]) -> Chunk {
    let array = parse(text, names).unwrap_or_else(|error| panic!("{text}: {error}"));
    compute_counting(&array).map(|(chunk, _)| chunk).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Whether two chunks are equal up to rounding; NaN equals NaN.
pub(crate) fn assert_close(text: &str, got: &Chunk, want: &Chunk) {
    assert_eq!(got.dtype(), want.dtype(), "{text}");
    assert_eq!(got.shape(), want.shape(), "{text}");
    for (idx, (got, want)) in got.to_f64().iter().zip(want.to_f64().iter()).enumerate() {
        let close = (got - want).abs() <= 1e-9 * (1.0 + want.abs()) || (got.is_nan() && want.is_nan()) || got == want;
        assert!(close, "{text}: element {idx} is {got}, not {want}");
    }
}
