//! Bombs in text are refused at once and in words; large honest queries are planned and run, on a small stack.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int64Array, RecordBatch};
use rask_graphs::{GraphBuilder, Registry, TaskContext, TaskIdx, Value};
use serde_json::json;

use super::*;
use crate::frame::Frame;
use crate::partition::Partition;
use crate::plan::lower::FrameLowering;
use crate::{operators, rows_as_json};

fn partition() -> Partition {
    let numbers = || -> arrow::array::ArrayRef { Arc::new(Int64Array::from(vec![1, 2, 3])) };
    let batch = RecordBatch::try_from_iter([("a", numbers()), ("b", numbers())]).unwrap();
    Partition::try_new(batch.schema(), vec![batch]).unwrap()
}

fn table() -> Frame {
    Frame::from_tasks(Arc::clone(partition().schema()), vec![TaskIdx(0)])
}

/// On a thread whose stack is as small as any that the library may be called on.
fn on_a_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap()
    })
}

/// Plan and optimise a query, as a client does.
fn planned(sql: &str) -> Result<(), String> {
    on_a_small_stack(|| {
        let frame = Frame::sql(sql, &[("t".to_owned(), table())]).map_err(|error| error.to_string())?;
        let mut graph = GraphBuilder::new();
        graph.task("t", "core.noop", 1, "{}").add();
        FrameLowering::new().lower(&frame, &mut graph, "q").map(|_| ()).map_err(|error| error.to_string())
    })
}

/// Run an operator of frames as a worker does.
fn run(operator: &str, args: &serde_json::Value) -> Result<usize, String> {
    on_a_small_stack(|| {
        let mut registry = Registry::new();
        operators::register(&mut registry);
        let kernel = registry.prepare(operator, 1, &args.to_string()).map_err(|error| error.to_string())?;
        let inputs = if operator == "frame.sql" { vec![Value::new(partition())] } else { Vec::new() };
        let result = kernel.run(&TaskContext::detached("q"), &inputs).map_err(|error| error.0)?;
        Ok(result.downcast::<Partition>().unwrap().n_rows())
    })
}

fn sum_of(n: usize, term: &str) -> String {
    vec![term; n].join(" + ")
}

#[test]
fn bombs_are_refused_before_they_cost_anything() {
    let nested = |open: &str, n: usize, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    let tables = (1..40).map(|n| format!(", w{n} AS (SELECT x.a FROM w{} x JOIN w{} y ON x.a = y.a)", n - 1, n - 1));
    let doubled: String = tables.collect();
    let joined: String = (0..600).map(|n| format!(", t x{n}")).collect();
    let bombs: Vec<(String, &str)> = vec![
        (format!("SELECT {} FROM t", sum_of(50_000, "1")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(4_000, "a")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(4_000, "t.a")), "too long or nested"),
        (format!("SELECT {} FROM t", vec!["a"; 4_000].join(" || ")), "too long or nested"),
        // Words that mean something elsewhere hide nothing.
        (format!("SELECT {} FROM t", sum_of(4_000, "t.and")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(4_000, "when")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(4_000, "and")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(4_000, "CASE WHEN a = 1 THEN 2 END")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(4_000, "(a)")), "too long or nested"),
        (format!("SELECT {} FROM t", sum_of(30, "case")), "too many ways"),
        (format!("SELECT {} FROM t", sum_of(300, "case")), "nested more than"),
        (format!("SELECT * FROM t WHERE a = 1 {}", "IS NULL ".repeat(9_000)), "too long or nested"),
        (format!("SELECT a{} FROM t", "::bigint".repeat(9_000)), "too long or nested"),
        (format!("SELECT a{} FROM t", "[1]".repeat(9_000)), "too long or nested"),
        (format!("SELECT a{} FROM t", ".a".repeat(9_000)), "too long or nested"),
        (format!("SELECT * FROM t WHERE a{}", " BETWEEN 1 AND 2".repeat(9_000)), "too long or nested"),
        (format!("SELECT * FROM t WHERE {}", vec!["a = 1"; 40_000].join(" OR ")), "conditions"),
        (format!("SELECT {} FROM t", nested("(", 5_000, "a", ")")), "nested more than"),
        (vec!["SELECT a FROM t"; 600].join(" UNION ALL "), "SELECTs"),
        (format!("SELECT 1 FROM t{joined}"), "tables"),
        (format!("SELECT '{}'", "x".repeat(2 << 20)), "bytes long"),
        (format!("WITH w0 AS (SELECT a FROM t){doubled} SELECT * FROM w39"), "tables"),
        (format!("SELECT {} FROM t", nested("coalesce(", 30, "a", ", 1)")), "more than 200000 terms"),
        (format!("SELECT * FROM t WHERE {}", nested("(", 30, "a BETWEEN 0 AND 1", ") BETWEEN false AND true")), "terms"),
        (format!("SELECT * FROM t WHERE {}", nested("(", 30, "a IN (1, 2, 3)", ") IN (true, false)")), "terms"),
        (format!("{} WHERE a > 5", nested("SELECT a + a AS a FROM (", 18, "SELECT a FROM t", ")")), "too complex"),
        ("SELECT arrow_cast(NULL, 'FixedSizeList(2147483647, Int64)')".to_owned(), "at most"),
    ];
    for (sql, word) in bombs {
        let began = Instant::now();
        let error = planned(&sql).unwrap_err();
        assert!(error.contains(word), "{}: {error}", sql.chars().take(60).collect::<String>());
        // Without optimisation and beside other tests; a tenth of it otherwise.
        assert!(began.elapsed().as_secs() < 60, "{}: {:?}", sql.chars().take(60).collect::<String>(), began.elapsed());
    }
}

#[test]
fn bombs_in_the_operators_arguments_are_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    std::fs::write(&path, "a\n1\n2\n").unwrap();
    for condition in [format!("{} > 0", sum_of(50_000, "1")), format!("{} > 0", sum_of(4_000, "a")), sum_of(30, "case")] {
        let error = run("frame.scan", &json!({ "path": path, "where": condition })).unwrap_err();
        assert!(error.contains("too long") || error.contains("too many ways"), "{error}");
        let error = run("frame.sql", &json!({ "sql": format!("SELECT {condition} FROM t"), "tables": ["t"] })).unwrap_err();
        assert!(error.contains("too long") || error.contains("too many ways"), "{error}");
    }
    for (call, word) in [("length(lpad('x', 2147483647, 'y'))", "lpad"), ("array_resize([1], 2147483647, 0)", "array_resize")] {
        let error = run("frame.sql", &json!({ "sql": format!("SELECT {call} FROM t"), "tables": ["t"] })).unwrap_err();
        assert!(error.contains(&format!("{word} would make")), "{error}");
    }
    let many = vec!["a = 1"; 5_000].join(" OR ");
    assert_eq!(run("frame.scan", &json!({ "path": path, "where": many })), Ok(1));
}

#[test]
fn large_honest_queries_are_planned_and_run() {
    let list = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let columns = |n: usize| (0..n).map(|n| format!("a + {n} AS c{n}")).collect::<Vec<_>>().join(", ");
    let branches = |n: usize| (0..n).map(|n| format!("WHEN a = {n} THEN 'x{n}'")).collect::<Vec<_>>().join(" ");
    let pairs = |n: usize, op: &str| (0..n).map(|n| format!("(a = {n} AND b = {n})")).collect::<Vec<_>>().join(op);
    let queries = [
        (format!("SELECT * FROM t WHERE a IN ({})", list(10_000)), 3),
        (format!("SELECT * FROM t WHERE a NOT IN ({})", list(10_000)), 0),
        (format!("SELECT CASE {} ELSE 'none' END AS c FROM t", branches(500)), 3),
        (format!("SELECT {} FROM t", columns(1_000)), 3),
        (format!("SELECT * FROM t WHERE {}", vec!["a <> 7"; 200].join(" AND ")), 3),
        (format!("SELECT * FROM t WHERE {}", (0..200).map(|n| format!("a <> {}", n + 5)).collect::<Vec<_>>().join(" AND ")), 3),
        (format!("SELECT * FROM t WHERE {}", (0..200).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(" OR ")), 3),
        (format!("SELECT * FROM t WHERE {}", (0..5_000).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(" OR ")), 3),
        (format!("SELECT * FROM t WHERE {}", pairs(500, " OR ")), 3),
        (format!("SELECT {} AS s FROM t", sum_of(40, "a")), 3),
        (format!("SELECT * FROM (VALUES {}) v(x)", (0..1_000).map(|n| format!("({n})")).collect::<Vec<_>>().join(", ")), 1_000),
        (format!("SELECT {} FROM t", (0..15).fold("a".to_owned(), |inner, n| format!("abs({inner} - {n})"))), 3),
        (vec!["SELECT a FROM t"; 100].join(" UNION ALL "), 300),
        ("SELECT lpad('x', 5, '0'), rpad('x', a, 'y'), repeat('ab', 1000), array_repeat(1, 3) FROM t".to_owned(), 3),
    ];
    for (sql, n_rows) in queries {
        let began = Instant::now();
        let start: String = sql.chars().take(60).collect();
        planned(&sql).unwrap_or_else(|error| panic!("{start}: {error}"));
        let n = run("frame.sql", &json!({ "sql": sql, "tables": ["t"] })).unwrap_or_else(|error| panic!("{start}: {error}"));
        assert_eq!(n, n_rows, "{start}");
        assert!(began.elapsed().as_secs() < 60, "{start}: {:?}", began.elapsed());
    }
}

/// In a file every one of these is a line; together they would be a trillion scans.
#[test]
fn queries_over_queries_do_not_double_without_bound() {
    let names = ["x".to_owned(), "y".to_owned()];
    let mut frame = table();
    for _ in 0..40 {
        let tables = names.clone().map(|name| (name, frame.clone()));
        frame = Frame::sql("SELECT x.a FROM x JOIN y ON x.a = y.a", &tables).unwrap();
    }
    let mut graph = GraphBuilder::new();
    graph.task("t", "core.noop", 1, "{}").add();
    let error = FrameLowering::new().lower(&frame, &mut graph, "q").unwrap_err().to_string();
    assert!(error.contains("steps"), "{error}");
}

#[test]
fn frames_are_not_stacked_without_bound() {
    on_a_small_stack(|| {
        let mut frame = table();
        for n in 0.. {
            match Frame::sql("SELECT a FROM t", &[("t".to_owned(), frame.clone())]) {
                Ok(next) => frame = next,
                Err(error) => {
                    assert!(n >= 100 && error.to_string().contains("on top of each other"), "{n}: {error}");
                    break;
                }
            }
        }
    });
}

#[test]
fn balanced_conditions_mean_the_same() {
    // Nulls among them, and more than stay in one chain.
    let mut conditions: Vec<String> = (0..50).map(|n| format!("a > {}", n + 10)).collect();
    conditions[33] = "CAST(NULL AS BOOLEAN)".to_owned();
    conditions[34] = "a = 2".to_owned();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    std::fs::write(&path, "a\n1\n2\n3\n").unwrap();
    let count = |condition: &str| run("frame.scan", &json!({ "path": path, "where": condition })).unwrap();
    assert_eq!(count(&conditions.join(" OR ")), 1);
    assert_eq!(count(&format!("({}) IS NULL", conditions.join(" OR "))), 2);
    conditions[34] = "a < 3".to_owned();
    let fine: Vec<String> = conditions.iter().map(|condition| condition.replace("a > ", "a < ")).collect();
    assert_eq!(count(&format!("({}) IS FALSE", fine.join(" AND "))), 1);
    assert_eq!(count(&format!("({}) IS NULL", fine.join(" AND "))), 2);
}

#[test]
fn places_are_those_in_the_text() {
    let text = format!("SELECT\n  {} FROM t", sum_of(5_000, "a"));
    let error = check_text(&text).unwrap_err();
    assert_eq!(error.line, Some(2));
    assert!(error.column.is_some_and(|column| column > 1_000), "{error:?}");
    let rows = rows_as_json(&partition()).unwrap();
    assert_eq!(rows.rows.len(), 3);
}
