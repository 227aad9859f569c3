//! The bound of what is planned.

use super::*;
use crate::testing::parse;

#[test]
fn more_tasks_than_may_be_planned_are_an_error() {
    for (text, limit, fits) in [
        ("arange(100, chunks=1)[::-1].T * 2", 200, true),
        ("arange(100, chunks=1)[::-1] * 2", 150, false),
        ("arange(100, chunks=1).sum()", 150, false),
    ] {
        let mut graph = GraphBuilder::new();
        let mut lowering = Lowering::new(&mut graph);
        lowering.max_tasks = limit;
        let outcome = lowering.lower(&parse(text, &[]).unwrap());
        assert_eq!(outcome.is_ok(), fits, "{text}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("more than 150 tasks"), "{error}");
        }
        assert!(graph.n_tasks() <= limit, "{text}");
    }
}
