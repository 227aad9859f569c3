//! Frames end to end, without a cluster: describe, lower, finish the graph, run every task in order, look at the rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use rask_graphs::FinishOptions;
use rask_graphs::{GraphBuilder, Registry, Source, TaskContext, TaskIdx, Value};
use serde_json::{Value as Json, json};

mod sql;

use crate::{Format, Frame, FrameError, FrameLowering, Partition, ReadOptions, explain, rows_as_json, to_table_string};

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    registry
}

/// What a run of tasks left behind.
pub(crate) struct Ran {
    /// Operator, arguments and rows of every task that ran, in order.
    tasks: Vec<(String, Json, usize)>,
    pub(crate) outputs: Vec<Partition>,
}

impl Ran {
    pub(crate) fn rows(&self) -> Vec<Vec<Json>> {
        self.outputs.iter().flat_map(|partition| rows_as_json(partition).unwrap().rows).collect()
    }

    fn args_of(&self, operator: &str) -> Vec<&Json> {
        self.tasks.iter().filter(|(name, ..)| name == operator).map(|(_, args, _)| args).collect()
    }

    fn n_rows_of(&self, operator: &str) -> usize {
        self.tasks.iter().filter(|(name, ..)| name == operator).map(|(.., n_rows)| n_rows).sum()
    }
}

/// Run a graph, every result going over the wire once, as between workers.
fn run(graph: GraphBuilder, outputs: &[TaskIdx]) -> Result<Ran, String> {
    let registry = registry();
    let mut graph = graph;
    outputs.iter().for_each(|&task| graph.output(task));
    let finished = graph.finish(&FinishOptions { fuse: false, ..Default::default() }).unwrap();
    let graph = finished.graph;
    let mut results: Vec<Value> = Vec::new();
    let mut tasks = Vec::new();
    for idx in 0..graph.n_tasks() {
        let idx = TaskIdx(u32::try_from(idx).unwrap());
        let step = &graph.body(idx).steps[0];
        let kernel = registry.prepare(&step.operator, step.version, &step.args).map_err(|error| error.to_string())?;
        let inputs: Vec<Value> = graph
            .inputs_of(idx)
            .iter()
            .map(|input| match input.source() {
                Source::Task(task) => results[task.index()].clone(),
                Source::Group(_) | Source::External(_) => panic!("frames use neither"),
            })
            .collect();
        let result = kernel.run(&TaskContext::detached(&graph.keys.name(idx.0)), &inputs).map_err(|error| error.0)?;
        let encoded = result.encode().unwrap();
        let result = registry.decode(encoded.kind, &encoded.header, encoded.buffers).unwrap();
        let n_rows = result.downcast::<Partition>().map_or(0, Partition::n_rows);
        tasks.push((step.operator.to_string(), serde_json::from_str(&step.args).unwrap(), n_rows));
        results.push(result);
    }
    let place = |task: &TaskIdx| finished.renumbering[task.index()].unwrap();
    let partition = |task| results[place(task).index()].downcast::<Partition>().cloned();
    Ok(Ran { tasks, outputs: outputs.iter().filter_map(partition).collect() })
}

pub(crate) fn compute(frame: &Frame) -> Result<Ran, String> {
    let mut graph = GraphBuilder::new();
    let tasks = FrameLowering::new().lower(frame, &mut graph, "out").map_err(|error| error.to_string())?;
    run(graph, &tasks)
}

pub(crate) fn sql(text: &str, tables: &[(&str, &Frame)]) -> Result<Frame, FrameError> {
    let tables: Vec<_> = tables.iter().map(|(name, frame)| ((*name).to_owned(), (*frame).clone())).collect();
    Frame::sql(text, &tables)
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Three small months of flights, with a missing delay here and there, and the names of their carriers.
fn flights(dir: &Path) -> (Frame, Frame) {
    for month in 1..=3 {
        let mut text = "month,carrier,dep_delay,distance,time_hour\n".to_owned();
        for flight in 0..40 {
            let carrier = ["UA", "AA", "B6"][flight % 3];
            let delay = if flight % 7 == 0 { String::new() } else { format!("{}.0", flight * month) };
            text.push_str(&format!("{month},{carrier},{delay},{},2013-0{month}-01T10:00:00Z\n", flight * 10));
        }
        write(dir, &format!("flights-{month}.csv"), &text);
    }
    let airlines = write(dir, "airlines.csv", "carrier,name\nUA,United\nAA,American\nB6,JetBlue\n");
    let read = |path: PathBuf| Frame::read_csv(&[path], ReadOptions::default()).unwrap();
    (read(dir.join("flights-*.csv")), read(airlines))
}

#[test]
fn the_flights_query_reads_only_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, airlines) = flights(dir.path());
    let text = "SELECT a.name, count(*) AS n, avg(dep_delay) AS delay FROM flights f JOIN airlines a ON f.carrier = a.carrier \
                WHERE f.distance >= 100 GROUP BY a.name ORDER BY delay DESC, name";
    let query = sql(text, &[("flights", &flights), ("airlines", &airlines)]).unwrap();
    let ran = compute(&query).unwrap();
    let mut expected: Vec<(String, i64, f64)> = Vec::new();
    for (at, name) in ["United", "American", "JetBlue"].into_iter().enumerate() {
        let all: Vec<(usize, usize)> =
            (1..=3).flat_map(|m| (10..40).map(move |f| (m, f))).filter(|&(_, f)| f % 3 == at).collect();
        let known: Vec<f64> = all.iter().filter(|(_, f)| f % 7 != 0).map(|(m, f)| (m * f) as f64).collect();
        expected.push((name.to_owned(), all.len() as i64, known.iter().sum::<f64>() / known.len() as f64));
    }
    expected.sort_by(|a, b| b.2.total_cmp(&a.2));
    let rows: Vec<Vec<Json>> = expected.iter().map(|(name, n, delay)| vec![json!(name), json!(n), json!(delay)]).collect();
    assert_eq!(ran.rows(), rows);
    // Pushdown: the scans of flights read three columns and keep 90 of 120 rows.
    let scans = ran.args_of("frame.scan");
    let of_flights: Vec<_> = scans.iter().filter(|args| args["path"].as_str().unwrap().contains("flights-")).collect();
    assert_eq!(of_flights.len(), 3);
    for args in of_flights {
        assert_eq!(args["columns"], json!(["carrier", "dep_delay"]));
        assert_eq!(args["pushed"][0]["text"], json!("distance >= Int64(100)"));
    }
    assert_eq!(ran.n_rows_of("frame.scan"), 90 + 3);
    assert_eq!(ran.args_of("frame.query").len(), 1);
    let text = explain(&query).unwrap();
    assert!(
        text.contains(
            "scan flights: 3 partitions of 3 csv files\n  columns: carrier, dep_delay\n  where: distance >= Int64(100)"
        ),
        "{text}"
    );
}

#[test]
fn filters_and_projections_run_partition_by_partition() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, _) = flights(dir.path());
    let scan_only =
        compute(&sql("SELECT carrier, distance FROM flights WHERE distance > 350", &[("flights", &flights)]).unwrap()).unwrap();
    assert_eq!((scan_only.tasks.len(), scan_only.rows().len()), (3, 12));
    let query = sql("SELECT distance * 2 AS d2 FROM flights WHERE distance > 350", &[("flights", &flights)]).unwrap();
    let mapped = compute(&query).unwrap();
    assert_eq!(mapped.args_of("frame.query").len(), 3);
    assert_eq!(mapped.outputs.len(), 3);
    assert_eq!(mapped.rows()[0], [json!(720)]);
    let limited = compute(&sql("SELECT * FROM flights LIMIT 5", &[("flights", &flights)]).unwrap()).unwrap();
    assert_eq!(limited.rows().len(), 5);
    assert_eq!(limited.n_rows_of("frame.scan"), 15, "each scan stops after five rows");
}

#[test]
fn sql_corners_give_right_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, airlines) = flights(dir.path());
    let late = sql("SELECT carrier, dep_delay FROM flights WHERE dep_delay > 60", &[("flights", &flights)]).unwrap();
    let tables = [("flights", &flights), ("airlines", &airlines), ("late", &late)];
    let cases: &[(&str, Json)] = &[
        ("SELECT 1 + 1 AS two", json!([[2]])),
        ("SELECT count(*) FROM flights", json!([[120]])),
        ("SELECT count(*), count(dep_delay) FROM flights WHERE month = 2", json!([[40, 34]])),
        ("SELECT max(dep_delay) FROM late", json!([[117.0]])),
        (
            "SELECT count(*) FROM flights a JOIN flights b ON a.distance = b.distance WHERE a.month = 1 AND b.month = 2",
            json!([[40]]),
        ),
        ("SELECT name FROM airlines WHERE carrier IN (SELECT carrier FROM late WHERE dep_delay >= 117)", json!([["United"]])),
        ("SELECT count(*) FROM flights WHERE distance > (SELECT avg(distance) FROM flights)", json!([[60]])),
        ("SELECT count(*) FROM airlines a WHERE NOT EXISTS (SELECT 1 FROM flights f WHERE f.carrier = a.carrier)", json!([[0]])),
        (
            "WITH m AS (SELECT month, sum(distance) AS s FROM flights GROUP BY month) SELECT month, s FROM m ORDER BY month LIMIT 1",
            json!([[1, 7800]]),
        ),
        ("SELECT carrier FROM airlines UNION ALL SELECT name FROM airlines ORDER BY 1 LIMIT 2", json!([["AA"], ["American"]])),
        (
            "SELECT distance, row_number() OVER (ORDER BY distance DESC) AS r FROM flights WHERE month = 1 ORDER BY r LIMIT 2",
            json!([[390, 1], [380, 2]]),
        ),
        ("SELECT DISTINCT date_trunc('month', time_hour) AS t FROM flights WHERE month = 3", json!([["2013-03-01T00:00:00"]])),
        (
            "SELECT upper(name), length(name), regexp_like(name, '^J') FROM airlines ORDER BY name LIMIT 1",
            json!([["AMERICAN", 8, false]]),
        ),
        ("SELECT a.carrier, a.carrier FROM (SELECT carrier FROM airlines LIMIT 0) a", json!([])),
        ("SELECT count(*) FROM flights WHERE time_hour >= TIMESTAMP '2013-02-01 00:00:00' AND carrier LIKE 'U%'", json!([[28]])),
        ("SELECT count(*) FROM flights WHERE random() >= 0", json!([[120]])),
        ("SELECT sum(x) FROM (VALUES (1), (2)) AS v(x)", json!([[3]])),
        ("SELECT grouping(month), count(*) FROM flights GROUP BY ROLLUP(month) ORDER BY 1 DESC LIMIT 1", json!([[1, 120]])),
    ];
    for (text, rows) in cases {
        let frame = match sql(text, &tables) {
            Ok(frame) => frame,
            Err(error) => {
                // The one name twice is refused by the planner, which is also an answer.
                assert!(text.contains("a.carrier, a.carrier"), "{text}: {error}");
                continue;
            }
        };
        let ran = compute(&frame).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(json!(ran.rows()), *rows, "{text}");
    }
}

#[test]
fn a_frame_that_is_computed_is_not_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, _) = flights(dir.path());
    let totals = sql("SELECT carrier, sum(distance) AS total FROM flights GROUP BY carrier", &[("flights", &flights)]).unwrap();
    let top = sql("SELECT max(total) FROM totals", &[("totals", &totals)]).unwrap();
    let (mut graph, mut lowering) = (GraphBuilder::new(), FrameLowering::new());
    let first = lowering.lower(&totals, &mut graph, "totals").unwrap();
    let n_tasks = graph.n_tasks();
    let second = lowering.lower(&top, &mut graph, "top").unwrap();
    assert_eq!(graph.n_tasks(), n_tasks + 1);
    assert_eq!(lowering.lower(&totals, &mut graph, "again").unwrap(), first);
    assert_eq!(graph.key_name(second[0]), "top");
    let ran = run(graph, &second).unwrap();
    assert_eq!(ran.rows(), [[json!(8190)]]);
}

#[test]
fn scans_of_the_same_columns_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, _) = flights(dir.path());
    let (mut graph, mut lowering) = (GraphBuilder::new(), FrameLowering::new());
    for (idx, text) in ["SELECT sum(distance) FROM flights", "SELECT max(distance) FROM flights"].iter().enumerate() {
        let frame = sql(text, &[("flights", &flights)]).unwrap();
        lowering.lower(&frame, &mut graph, &format!("q{idx}")).unwrap();
    }
    assert_eq!(graph.n_tasks(), 3 + 2);
}

#[test]
fn mistakes_in_sql_have_places() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, _) = flights(dir.path());
    let cases = [
        ("SELECT dep_dealy FROM flights", Some((1, 8)), "dep_dealy"),
        ("SELECT carrier,\n       nope + 1\nFROM flights", Some((2, 8)), "nope"),
        ("SELECT * FROM flihgts", Some((1, 15)), "flihgts"),
        ("SELECT * FORM flights", Some((1, 10)), "FORM"),
        ("SELECT carrier, count(*) FROM flights GROUP BY month", None, "carrier"),
        ("SELECT nosuch(distance) FROM flights", None, "nosuch"),
    ];
    for (text, place, word) in cases {
        let Err(FrameError::Sql(error)) = sql(text, &[("flights", &flights)]) else { panic!("{text} is accepted") };
        if place.is_some() {
            assert_eq!(error.line.zip(error.column), place, "{text}: {error}");
        }
        assert!(error.message.contains(word), "{text}: {error}");
    }
}

#[test]
fn any_partition_size_gives_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut csv = "n,text\n".to_owned();
    let mut json_lines = String::new();
    for n in 0..50 {
        let word = "x".repeat(n % 9);
        let quoted = if n % 4 == 0 { format!("\"a,\"\"{word}\"") } else { format!("5\" {word}") };
        csv.push_str(&format!("{n},{quoted}\n"));
        json_lines.push_str(&format!("{{\"n\": {n}, \"text\": \"{word}\", \"deep\": {{\"k\": [{n}]}}}}\n"));
    }
    for (name, text) in [("a.csv", csv.as_str()), ("a.json", json_lines.as_str())] {
        let path = write(dir.path(), name, text);
        let rows_for = |partition_nbytes| {
            let options = ReadOptions { partition_nbytes, ..Default::default() };
            let frame = Frame::read(None, &[&path], options).unwrap();
            let ran = compute(&frame).unwrap();
            (ran.outputs.len(), ran.rows())
        };
        let (n_partitions, whole) = rows_for(1 << 20);
        assert_eq!((n_partitions, whole.len()), (1, 50));
        for partition_nbytes in [1, 7, 13, 50, 100, 333, 500] {
            let (n_partitions, rows) = rows_for(partition_nbytes);
            let n_wanted = (text.len() as u64).div_ceil(partition_nbytes);
            assert!(n_partitions as u64 <= n_wanted && n_partitions as u64 > n_wanted.min(50) / 2, "{n_partitions}");
            assert_eq!(rows, whole, "{name} by {partition_nbytes}");
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, _) = flights(dir.path());
    let original = compute(&flights).unwrap().rows();
    for name in ["new/dir/out.parquet", "out.csv", "out.json", "out.arrow"] {
        let path = dir.path().join(name);
        let (mut graph, mut lowering) = (GraphBuilder::new(), FrameLowering::new());
        let parts = lowering.lower(&flights, &mut graph, "flights").unwrap();
        let args = json!({ "path": path }).to_string();
        let task = graph.task("write", "frame.write", 1, &args).inputs(parts).add();
        run(graph, &[task]).unwrap();
        let again = Frame::read(None, &[&path], ReadOptions::default()).unwrap();
        let ran = compute(&again).unwrap();
        // JSON has no timestamps, only texts that look like them.
        let strip = |rows: Vec<Vec<Json>>| rows.into_iter().map(|mut row| row.drain(..4).collect::<Vec<_>>()).collect::<Vec<_>>();
        if name.ends_with("json") {
            assert_eq!(strip(ran.rows()), strip(original.clone()), "{name}");
        } else {
            assert_eq!(ran.rows(), original, "{name}");
        }
        let beside: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(beside.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{beside:?}");
    }
}

#[test]
fn a_failed_write_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let numbers = Frame::read_csv(&[write(dir.path(), "a.csv", "a\n1\n4611686018427387904\n")], ReadOptions::default()).unwrap();
    let beyond = sql("SELECT arrow_cast(a, 'Timestamp(s)') AS late FROM t", &[("t", &numbers)]).unwrap();
    let out = tempfile::tempdir().unwrap();
    for name in ["a.csv", "a.json"] {
        let (mut graph, mut lowering) = (GraphBuilder::new(), FrameLowering::new());
        let parts = lowering.lower(&beyond, &mut graph, "beyond").unwrap();
        let args = json!({ "path": out.path().join(name) }).to_string();
        let task = graph.task("write", "frame.write", 1, &args).inputs(parts).add();
        let error = run(graph, &[task]).err().unwrap();
        assert!(error.contains(name) && error.contains("\"late\"") && error.contains("4611686018427387904"), "{error}");
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
}

#[test]
fn parquet_row_groups_are_partitions_and_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let batch = RecordBatch::try_from_iter([
        ("n", Arc::new((0..1000).collect::<Int64Array>()) as ArrayRef),
        ("s", Arc::new((0..1000).map(|n| Some(format!("s{n}"))).collect::<StringArray>())),
    ])
    .unwrap();
    let properties = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let options = ReadOptions { partition_nbytes: 5000, ..Default::default() };
    let frame = Frame::read_parquet(&[&path], options).unwrap();
    let whole = compute(&frame).unwrap();
    assert!(whole.outputs.len() > 2, "{}", whole.outputs.len());
    assert_eq!(whole.rows().len(), 1000);
    let some = compute(&sql("SELECT s FROM t WHERE n BETWEEN 250 AND 252", &[("t", &frame)]).unwrap()).unwrap();
    assert_eq!(some.rows(), [[json!("s250")], [json!("s251")], [json!("s252")]]);

    // The pruning itself: of ten row groups one may hold these rows.
    let file = std::fs::File::open(&path).unwrap();
    let metadata = crate::source::footers::footer(&file, &path).unwrap();
    let schema = Arc::clone(metadata.schema());
    let table = datafusion::common::DFSchema::try_from(Arc::clone(&schema)).unwrap();
    let state = crate::plan::session::fresh();
    let condition = state.create_logical_expr("n >= 250 AND n < 260", &table).unwrap();
    let predicate = state.create_physical_expr(condition, &table).unwrap();
    let (ctx, options) = (TaskContext::detached("t"), ReadOptions::default());
    let request = crate::operators::scan::Request {
        ctx: &ctx,
        path: &path,
        options: &options,
        range: None,
        row_groups: None,
        file_schema: &schema,
        needed: Arc::clone(&schema),
        predicate: Some(predicate),
    };
    let kept = crate::operators::scan_parquet::prune(&request, metadata.metadata(), &schema, (0..10).collect());
    assert_eq!(kept, [2]);
}

#[test]
fn bad_rows_name_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "n,m\n".to_owned();
    (2..=60).for_each(|line| text.push_str(if line == 57 { "1,oops\n" } else { "1,2\n" }));
    let csv = write(dir.path(), "bad.csv", &text);
    let mut text = String::new();
    (1..=60).for_each(|line| text.push_str(if line == 58 { "{\"n\": [1]}\n" } else { "{\"n\": 1}\n" }));
    let json_lines = write(dir.path(), "bad.json", &text);
    let ragged = write(dir.path(), "ragged.csv", &format!("a,b\n{}1,2,3\n", "1,2\n".repeat(30)));
    for (path, line, partition_nbytes) in [
        (&csv, 57, 1 << 20),
        (&csv, 57, 50),
        (&json_lines, 58, 1 << 20),
        (&json_lines, 58, 100),
        (&ragged, 32, 1 << 20),
        (&ragged, 32, 40),
    ] {
        let options = ReadOptions { infer_rows: Some(10), partition_nbytes, ..Default::default() };
        let error = compute(&Frame::read(None, &[path], options).unwrap()).err().unwrap();
        assert!(error.starts_with(&format!("{}:{line}: ", path.display())), "{error}");
    }
}

#[test]
fn csv_dialects_and_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.csv", "id;v;d\n001;NA;1.50\n002;'x;y';NA\n");
    let options = ReadOptions {
        delimiter: ';',
        quote: '\'',
        nulls: vec!["NA".to_owned()],
        types: [("id".to_owned(), "string".to_owned()), ("d".to_owned(), "decimal(10,2)".to_owned())].into(),
        ..Default::default()
    };
    let ran = compute(&Frame::read_csv(&[&path], options).unwrap()).unwrap();
    assert_eq!(json!(ran.rows()), json!([["001", null, 1.5], ["002", "x;y", null]]));
    let headless = ReadOptions { header: false, delimiter: ';', quote: '\'', ..Default::default() };
    let frame = Frame::read_csv(&[path], headless).unwrap();
    assert_eq!(frame.schema().field(2).name(), "column_3");
    assert_eq!(compute(&frame).unwrap().rows().len(), 3);
}

#[test]
fn files_that_disagree_or_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), "a.csv", "x,y\n1,2\n");
    let b = write(dir.path(), "b.csv", "x,z\n1,2\n");
    let error = Frame::read_csv(&[a.clone(), b], ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("b.csv: column \"z\" where the first file has \"y\""), "{error}");
    let floats = write(dir.path(), "c.csv", "x,y\n1,2.5\n");
    let merged = Frame::read_csv(&[a.clone(), floats], ReadOptions::default()).unwrap();
    assert_eq!(json!(compute(&merged).unwrap().rows()), json!([[1, 2.0], [1, 2.5]]));
    assert!(matches!(Frame::read_csv(&[dir.path().join("no-*.csv")], ReadOptions::default()), Err(FrameError::Io { .. })));
    let garbage = write(dir.path(), "g.parquet", "this is no parquet");
    assert!(matches!(Frame::read_parquet(&[garbage], ReadOptions::default()), Err(FrameError::Data { .. })));
    // A file that goes away between planning and running fails its task, by name.
    let frame = Frame::read_csv(&[&a], ReadOptions::default()).unwrap();
    std::fs::remove_file(&a).unwrap();
    let error = compute(&frame).err().unwrap();
    assert!(error.contains("a.csv: no such file"), "{error}");
}

#[test]
fn json_arrays_and_nested_values_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.json", r#"[{"a": 1, "b": {"c": [1, 2]}}, {"a": 2.5, "b": null}]"#);
    let ran = compute(&Frame::read(None, &[path], ReadOptions::default()).unwrap()).unwrap();
    assert_eq!(json!(ran.rows()), json!([[1.0, {"c": [1, 2]}], [2.5, null]]));
}

#[test]
fn tasks_written_by_hand_work() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _) = flights(dir.path());
    let mut graph = GraphBuilder::new();
    let scan = |graph: &mut GraphBuilder, name: &str, args: Json| {
        let mut args = args;
        args["path"] = json!(dir.path().join(name));
        graph.task(name, "frame.scan", 1, &args.to_string()).add()
    };
    let one = scan(
        &mut graph,
        "flights-1.csv",
        json!({ "columns": ["carrier", "distance"], "where": "distance >= 300 and month = 1" }),
    );
    let two = scan(&mut graph, "flights-2.csv", json!({ "columns": ["carrier", "distance"], "limit": 3 }));
    let airlines = scan(&mut graph, "airlines.csv", json!({}));
    let both = graph.task("both", "frame.concat", 1, "{}").input(one).input(two).add();
    let args = json!({ "sql": "SELECT count(*) AS n FROM f JOIN a USING (carrier)", "tables": ["f", "a"] }).to_string();
    let joined = graph.task("joined", "frame.sql", 1, &args).input(both).input(airlines).add();
    let args = json!({ "sql": "SELECT sum(distance) FROM f", "tables": ["f"] }).to_string();
    let total = graph.task("total", "frame.sql", 1, &args).input(one).input(two).add();
    let args = json!({ "sql": "SELECT count(*) FROM f, a", "tables": [{ "name": "f", "n_inputs": 2 }, "a"] }).to_string();
    let product = graph.task("product", "frame.sql", 1, &args).input(one).input(two).input(airlines).add();
    let ran = run(graph, &[joined, total, product]).unwrap();
    assert_eq!(json!(ran.rows()), json!([[13], [(30..40).sum::<i64>() * 10 + 30], [39]]));
}

#[test]
fn file_access_stays_inside_the_data_roots() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = write(outside.path(), "secret.csv", "a\n1\n");
    let mut ctx = TaskContext::detached("t");
    ctx.files = rask_graphs::FileAccess::beneath(&[inside.path().to_owned()], &[]).unwrap();
    let registry = registry();
    let run = |operator: &str, args: Json, inputs: &[Value]| {
        registry.prepare(operator, 1, &args.to_string()).unwrap().run(&ctx, inputs).map_err(|error| error.0)
    };
    assert!(run("frame.scan", json!({ "path": secret }), &[]).unwrap_err().contains("outside"));
    let own = write(inside.path(), "own.csv", "a\n1\n");
    let value = run("frame.scan", json!({ "path": own }), &[]).unwrap();
    assert!(run("frame.write", json!({ "path": outside.path().join("x.csv") }), std::slice::from_ref(&value)).is_err());
    assert!(run("frame.write", json!({ "path": outside.path().join("new/x.csv") }), std::slice::from_ref(&value)).is_err());
    assert!(!outside.path().join("new").exists());
    assert!(
        run("frame.write", json!({ "path": inside.path().join("deep/er/../../../x.csv") }), std::slice::from_ref(&value))
            .is_err()
    );
    run("frame.write", json!({ "path": inside.path().join("deep/er/x.csv") }), &[value]).unwrap();
    // A query cannot name files.
    let sql = format!("SELECT * FROM '{}'", secret.display());
    assert!(run("frame.sql", json!({ "sql": sql, "tables": [] }), &[]).is_err());
}

#[test]
fn a_cancelled_query_stops() {
    let registry = registry();
    let ctx = TaskContext::detached("t");
    let numbers = crate::f64_to_columns(&["x".to_owned()], &(0..20_000).map(f64::from).collect::<Vec<_>>()).unwrap();
    // Four hundred million rows, if nobody stops it.
    let sql = "SELECT a.x FROM t a CROSS JOIN t b";
    let kernel = registry.prepare("frame.sql", 1, &json!({ "sql": sql, "tables": ["t"] }).to_string()).unwrap();
    let cancelled = Arc::clone(&ctx.cancelled);
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let began = std::time::Instant::now();
    let error = kernel.run(&ctx, &[Value::new(numbers)]).unwrap_err();
    stopper.join().unwrap();
    assert_eq!(error.0, "cancelled");
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

#[test]
fn tables_show_the_first_rows_and_the_total() {
    let partition = crate::f64_to_columns(&["x".to_owned()], &[1.0, 2.0, f64::NAN]).unwrap();
    let text = to_table_string(&[&partition, &partition], 2).unwrap();
    assert_eq!(text, "+-----+\n| x   |\n+-----+\n| 1.0 |\n| 2.0 |\n+-----+\n2 of 6 rows");
    assert!(to_table_string(&[&partition], 20).unwrap().ends_with("\n3 rows"));
    let empty = Partition::empty(Arc::clone(partition.schema()));
    assert!(to_table_string(&[&empty], 20).unwrap().contains("| x |"));
}

#[test]
fn formats_go_by_name() {
    for (name, format) in
        [("a.csv", Format::Csv), ("a.PARQUET", Format::Parquet), ("a.jsonl", Format::Json), ("a.arrow", Format::Arrow)]
    {
        assert_eq!(Format::of_path(Path::new(name)), Some(format));
    }
    assert_eq!(Format::of_path(Path::new("a.txt")), None);
}
