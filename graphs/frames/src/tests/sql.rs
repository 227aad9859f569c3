//! What SQL means here (`docs/sql.md`), as queries with their answers. The answers are PostgreSQL's or DuckDB's, except where
//! the document says otherwise.

use arrow::array::{Float64Array, Int32Array};

use super::*;

fn parquet(dir: &Path, name: &str, columns: &[(&str, ArrayRef)]) -> Frame {
    let path = dir.join(name);
    let batch = RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, array)| (*name, Arc::clone(array), true)));
    let batch = batch.unwrap();
    let properties = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    Frame::read_parquet(&[path], ReadOptions { partition_nbytes: 1, ..Default::default() }).unwrap()
}

fn integers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<Int64Array>())
}

/// `t` and `u` with nulls, `f` with floats of every kind, `s` with words, each in several partitions.
fn tables(dir: &Path) -> Vec<(String, Frame)> {
    let t = parquet(
        dir,
        "t.parquet",
        &[
            ("id", integers(&[Some(1), Some(2), Some(3), Some(4), None])),
            ("v", integers(&[Some(10), None, Some(30), Some(40), Some(50)])),
            ("k", integers(&[Some(1), Some(1), Some(2), None, Some(2)])),
        ],
    );
    let u = parquet(
        dir,
        "u.parquet",
        &[
            ("id", integers(&[Some(1), None, Some(2), Some(9)])),
            ("w", integers(&[Some(10), Some(20), None, Some(90)])),
            ("k", integers(&[Some(1), Some(2), None, Some(9)])),
        ],
    );
    let negative_nan = f64::from_bits(f64::NAN.to_bits() | (1 << 63));
    let floats = vec![1.5, f64::NAN, negative_nan, 0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 2.0, -1.0, 0.0];
    let f = parquet(
        dir,
        "f.parquet",
        &[
            ("i", Arc::new((0..10).collect::<Int64Array>())),
            ("g", Arc::new(Int32Array::from(vec![0, 0, 0, 1, 1, 1, 2, 2, 2, 2]))),
            ("v", Arc::new(Float64Array::from(floats))),
        ],
    );
    let words = vec![Some("a%b"), Some("a_b"), Some("axb"), Some(r"a\b"), None];
    let s = parquet(dir, "s.parquet", &[("s", Arc::new(StringArray::from(words)))]);
    [("t", t), ("u", u), ("f", f), ("s", s)].into_iter().map(|(name, frame)| (name.to_owned(), frame)).collect()
}

fn answer(text: &str, tables: &[(String, Frame)]) -> Result<Json, String> {
    let frame = Frame::sql(text, tables).map_err(|error| error.to_string())?;
    Ok(json!(compute(&frame)?.rows()))
}

fn check(cases: &[(&str, Json)]) {
    let dir = tempfile::tempdir().unwrap();
    let tables = tables(dir.path());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, rows)| {
            let got = answer(text, &tables);
            (got.as_ref() != Ok(rows)).then(|| format!("{text}\n  got  {got:?}\n  want {rows}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check_refusals(cases: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let tables = tables(dir.path());
    for (text, word) in cases {
        match answer(text, &tables) {
            Ok(rows) => panic!("{text} gives {rows}"),
            Err(message) => assert!(message.to_lowercase().contains(word), "{text}: {message}"),
        }
    }
}

#[test]
fn subqueries_that_differ_in_their_conditions_have_values_of_their_own() {
    check(&[
        (
            "SELECT (SELECT count(*) FROM t WHERE v > 30) AS a, (SELECT count(*) FROM t WHERE v <= 30) AS b, \
             (SELECT count(*) FROM t WHERE v IS NULL) AS c",
            json!([[2, 2, 1]]),
        ),
        (
            "WITH q AS (SELECT k, v * 2 AS d FROM t) SELECT (SELECT sum(d) FROM q WHERE k = 1) AS a, \
             (SELECT sum(d) FROM q WHERE k = 2) AS b",
            json!([[20, 160]]),
        ),
        (
            "SELECT (SELECT count(*) FROM t WHERE id = 1) AS n UNION ALL SELECT (SELECT count(*) FROM t WHERE id > 1) \
             ORDER BY n",
            json!([[1], [3]]),
        ),
        (
            "SELECT a.id FROM t a WHERE a.v = (SELECT max(v) FROM t WHERE k = 1) OR a.v = (SELECT max(v) FROM t WHERE k = 2) \
             ORDER BY v",
            json!([[1], [null]]),
        ),
        (
            "SELECT count(*) FROM (SELECT id FROM t WHERE id < 3) a JOIN (SELECT id FROM t WHERE id > 1) b ON a.id = b.id",
            json!([[1]]),
        ),
    ]);
    // Two frames of one name, in queries over each other.
    let dir = tempfile::tempdir().unwrap();
    let one = Frame::read_csv(&[write(dir.path(), "one.csv", "x\n1\n")], ReadOptions::default()).unwrap();
    let two = Frame::read_csv(&[write(dir.path(), "two.csv", "x\n2\n")], ReadOptions::default()).unwrap();
    let inner = sql("SELECT x FROM t", &[("t", &two)]).unwrap();
    let both = sql("SELECT (SELECT max(x) FROM t) AS a, (SELECT max(x) FROM q) AS b", &[("t", &one), ("q", &inner)]).unwrap();
    assert_eq!(json!(compute(&both).unwrap().rows()), json!([[1, 2]]));
}

#[test]
fn in_and_not_in_know_three_truth_values() {
    let some = "(SELECT id FROM u WHERE id < 5)";
    let none = "(SELECT id FROM u WHERE id > 100)";
    let case = |text: &str| text.replace("SOME", some).replace("NONE", none);
    let cases = [
        ("SELECT id FROM t WHERE 3 NOT IN (SELECT id FROM u) ORDER BY id", json!([])),
        ("SELECT id FROM t WHERE 3 NOT IN SOME ORDER BY id", json!([[1], [2], [3], [4], [null]])),
        ("SELECT id FROM t WHERE id NOT IN SOME ORDER BY id", json!([[3], [4]])),
        ("SELECT id FROM t WHERE id NOT IN NONE ORDER BY id", json!([[1], [2], [3], [4], [null]])),
        ("SELECT id FROM t WHERE id NOT IN (SELECT id FROM u)", json!([])),
        ("SELECT count(*) FROM t WHERE CAST(NULL AS BIGINT) NOT IN SOME", json!([[0]])),
        ("SELECT count(*) FROM t WHERE CAST(NULL AS BIGINT) NOT IN NONE", json!([[5]])),
        ("SELECT id FROM t WHERE id NOT IN (SELECT id FROM u WHERE u.k = t.k) ORDER BY id", json!([[2], [4]])),
        (
            "SELECT id, id IN (SELECT id FROM u) AS a, id IN SOME AS b, id NOT IN NONE AS c FROM t ORDER BY id",
            json!([
                [1, true, true, true],
                [2, true, true, true],
                [3, null, false, true],
                [4, null, false, true],
                [null, null, null, true],
            ]),
        ),
        ("SELECT v FROM t WHERE (id IN (SELECT id FROM u)) IS NULL ORDER BY v", json!([[30], [40], [50]])),
        ("SELECT id FROM t WHERE id > 3 OR id NOT IN SOME ORDER BY id", json!([[3], [4]])),
        ("SELECT id FROM t WHERE NOT (id > 2 AND id IN (SELECT id FROM u)) ORDER BY id", json!([[1], [2]])),
        ("SELECT id FROM t WHERE (id, k) IN (SELECT id, k FROM u) ORDER BY id", json!([[1]])),
        ("SELECT id FROM t WHERE (id, k) NOT IN (SELECT id, k FROM u WHERE id < 2) ORDER BY id", json!([[2], [3], [4], [null]])),
        ("SELECT id FROM t WHERE (id, k) NOT IN (SELECT id, k FROM u)", json!([])),
        ("SELECT id FROM t WHERE id NOT IN (1, NULL)", json!([])),
    ];
    let cases: Vec<(String, Json)> = cases.into_iter().map(|(text, rows)| (case(text), rows)).collect();
    check(&cases.iter().map(|(text, rows)| (text.as_str(), rows.clone())).collect::<Vec<_>>());
}

#[test]
fn tests_stand_anywhere() {
    check(&[
        (
            "SELECT id, EXISTS (SELECT 1 FROM u WHERE u.k = t.k) AS x FROM t ORDER BY v NULLS LAST",
            json!([[1, true], [3, true], [4, false], [null, true], [2, true]]),
        ),
        (
            "SELECT sum(CASE WHEN EXISTS (SELECT 1 FROM u WHERE u.k > t.k) THEN 1 ELSE 0 END) AS n, \
             count(*) FILTER (WHERE id IN (SELECT id FROM u)) AS m FROM t",
            json!([[4, 2]]),
        ),
        (
            "SELECT k, count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.id = t.id)) AS n FROM t GROUP BY k ORDER BY k",
            json!([[1, 0], [2, 2], [null, 1]]),
        ),
        ("SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k <= t.k) ORDER BY id", json!([[1], [2], [3], [null]])),
    ]);
}

#[test]
fn subqueries_that_cannot_be_flattened_are_refused_in_words() {
    check_refusals(&[
        ("SELECT id, (SELECT sum(w) FROM u WHERE u.k <= t.k) AS s FROM t", "not supported"),
        ("SELECT t.id, z.x FROM t, LATERAL (SELECT t.id * 2 AS x) z", "not supported"),
    ]);
}

#[test]
fn integers_that_do_not_fit_are_refused() {
    check_refusals(&[
        ("SELECT 9223372036854775807 + 1", "overflow"),
        ("SELECT id + 9223372036854775807 FROM t", "overflow"),
        ("SELECT (id + 10) * 9223372036854775807 FROM t", "overflow"),
        ("SELECT -9223372036854775807 - id FROM t", "overflow"),
        ("SELECT CAST(2147483647 AS INT) + CAST(1 AS INT)", "overflow"),
        ("SELECT CAST(i AS TINYINT) * CAST(100 AS TINYINT) FROM f", "overflow"),
        ("SELECT -(CAST('-9223372036854775808' AS BIGINT))", "overflow"),
        ("SELECT abs(CAST('-9223372036854775808' AS BIGINT))", "overflow"),
        ("SELECT id FROM t WHERE id * 9223372036854775807 > 0", "overflow"),
        ("SELECT sum(x) FROM (VALUES (9223372036854775807), (1)) v(x)", "overflow"),
        ("SELECT k, sum(9223372036854775807) FROM t GROUP BY k", "overflow"),
        ("SELECT sum(x) OVER () FROM (VALUES (9223372036854775807), (1)) v(x)", "overflow"),
        ("SELECT sum(DISTINCT x), count(DISTINCT y) FROM (VALUES (9223372036854775807, 1), (1, 2)) v(x, y)", "overflow"),
        ("SELECT CAST(300 AS TINYINT)", "300"),
    ]);
    check(&[
        // The order of the rows makes no difference.
        ("SELECT sum(x) FROM (VALUES (9223372036854775807), (1), (-2)) v(x)", json!([[9223372036854775806_i64]])),
        ("SELECT sum(x) FROM (SELECT CAST(2147483647 AS INT) AS x UNION ALL SELECT 2147483647) v", json!([[4294967294_i64]])),
        ("SELECT k, sum(v) FROM t GROUP BY k ORDER BY k", json!([[1, 10], [2, 80], [null, 40]])),
        ("SELECT sum(DISTINCT k), count(DISTINCT id), sum(v) FROM t", json!([[3, 4, 130]])),
        (
            "SELECT sum(v) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t ORDER BY id",
            json!([[10], [10], [30], [70], [90]]),
        ),
        ("SELECT sum(v) FROM t WHERE v > 100", json!([[null]])),
        ("SELECT id + 1 FROM t ORDER BY id LIMIT 1", json!([[2]])),
    ]);
}

#[test]
fn nan_is_the_largest_number_and_equal_to_itself() {
    check(&[
        ("SELECT i FROM f ORDER BY v, i", json!([[6], [8], [3], [4], [9], [0], [7], [5], [1], [2]])),
        ("SELECT i FROM f ORDER BY v DESC, i LIMIT 3", json!([[1], [2], [5]])),
        (
            "SELECT g, min(v), max(v) FROM f GROUP BY g ORDER BY g",
            json!([[0, 1.5, "NaN"], [1, 0.0, "Infinity"], [2, "-Infinity", 2.0]]),
        ),
        ("SELECT min(v), max(v) FROM f", json!([["-Infinity", "NaN"]])),
        ("SELECT min(v) FROM f WHERE i IN (1, 2)", json!([["NaN"]])),
        ("SELECT count(DISTINCT v), approx_distinct(v) FROM f", json!([[7, 7]])),
        ("SELECT count(*) FROM (SELECT DISTINCT v FROM f) d", json!([[7]])),
        ("SELECT count(*) FROM f a JOIN f b ON a.v = b.v", json!([[18]])),
        ("SELECT i FROM f WHERE v > 1 ORDER BY i", json!([[0], [1], [2], [5], [7]])),
        ("SELECT i FROM f WHERE v = 0 ORDER BY i", json!([[3], [4], [9]])),
        ("SELECT i, rank() OVER (ORDER BY v) AS r FROM f ORDER BY r, i LIMIT 5", json!([[6, 1], [8, 2], [3, 3], [4, 3], [9, 3]])),
        ("SELECT 0.0 / (v * 0.0) > 1 FROM f WHERE i = 7", json!([[true]])),
        ("SELECT max(v) OVER (PARTITION BY g) FROM f WHERE i < 3 ORDER BY i LIMIT 1", json!([["NaN"]])),
    ]);
}

#[test]
fn dates_and_intervals_keep_their_hours() {
    check(&[
        ("SELECT DATE '2024-01-31' + INTERVAL '36 hours'", json!([["2024-02-01T12:00:00"]])),
        ("SELECT INTERVAL '30 minutes' + DATE '2024-01-31'", json!([["2024-01-31T00:30:00"]])),
        ("SELECT DATE '2024-01-31' - INTERVAL '1 hour'", json!([["2024-01-30T23:00:00"]])),
        ("SELECT DATE '2024-01-31' + INTERVAL '1 month'", json!([["2024-02-29"]])),
        ("SELECT INTERVAL '48 hours' > INTERVAL '1 day', INTERVAL '24 hours' = INTERVAL '1 day'", json!([[true, true]])),
        ("SELECT INTERVAL '1 month' BETWEEN INTERVAL '29 days' AND INTERVAL '31 days'", json!([[true]])),
        ("SELECT timestamp '2020-03-01 12:00:00' - timestamp '2020-02-01 00:00:00' > INTERVAL '29 days'", json!([[true]])),
        (
            "SELECT x FROM (VALUES (1, INTERVAL '48 hours'), (2, INTERVAL '1 day'), (3, INTERVAL '1 month')) v(x, i) ORDER BY i",
            json!([[2], [1], [3]]),
        ),
        (
            "SELECT timestamp '9999-12-31 23:59:59', timestamp '0001-01-01 00:00:00'",
            json!([["9999-12-31T23:59:59", "0001-01-01T00:00:00"]]),
        ),
        ("SELECT CAST('1500-01-01 00:00:00' AS timestamp) < timestamp '2020-01-01 00:00:00'", json!([[true]])),
    ]);
}

#[test]
fn a_volatile_frame_is_computed_once() {
    let dir = tempfile::tempdir().unwrap();
    let (flights, _) = flights(dir.path());
    let random = sql("SELECT distance, random() AS r FROM flights", &[("flights", &flights)]).unwrap();
    let above = sql("SELECT r + 1 AS r FROM random", &[("random", &random)]).unwrap();
    let tables = [("random", &random), ("above", &above), ("flights", &flights)];
    for text in [
        "SELECT count(*) FROM random a JOIN random b ON a.r = b.r",
        "SELECT count(*) FROM above a JOIN random b ON a.r = b.r + 1",
        "SELECT count(*) FROM above a JOIN above b ON a.r = b.r",
        "WITH q AS (SELECT random() AS r FROM flights) SELECT count(*) FROM q a JOIN q b ON a.r = b.r",
        "WITH p AS (SELECT distance FROM flights), q(s) AS (SELECT uuid() AS r FROM p) SELECT count(*) FROM q a JOIN q b ON a.s = b.s",
    ] {
        let ran = compute(&sql(text, &tables).unwrap()).unwrap();
        assert_eq!(json!(ran.rows()), json!([[120]]), "{text}");
    }
    // All queries of a graph have one clock.
    let (mut graph, mut lowering) = (GraphBuilder::new(), FrameLowering::new());
    let first = lowering.lower(&sql("SELECT now() AS n", &[]).unwrap(), &mut graph, "a").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let second = lowering.lower(&sql("SELECT now() AS m", &[]).unwrap(), &mut graph, "b").unwrap();
    let ran = run(graph, &[first[0], second[0]]).unwrap();
    assert_eq!(ran.rows()[0], ran.rows()[1]);
}

#[test]
fn merged_columns_have_a_value_on_both_sides() {
    check(&[
        (
            "SELECT k, v, w FROM t FULL JOIN (SELECT k, w FROM u) z USING (k) ORDER BY k, v, w",
            json!([[1, 10, 10], [1, null, 10], [2, 30, 20], [2, 50, 20], [9, null, 90], [null, 40, null], [null, null, null]]),
        ),
        ("SELECT k, count(*) FROM t RIGHT JOIN u USING (k) GROUP BY k ORDER BY k", json!([[1, 2], [2, 2], [9, 1], [null, 1]])),
        ("SELECT k, w FROM t RIGHT JOIN u USING (k) WHERE k > 5", json!([[9, 90]])),
        ("SELECT k, t.k AS l, u.k AS r FROM t FULL JOIN u USING (k) WHERE k = 9", json!([[9, null, 9]])),
        ("SELECT * FROM t FULL JOIN (SELECT k, w FROM u) z USING (k) WHERE w = 90", json!([[9, null, null, 90]])),
        ("SELECT k, id, v, w FROM t NATURAL FULL JOIN u WHERE w = 90", json!([[9, 9, null, 90]])),
        ("SELECT k FROM t a FULL JOIN u b USING (k) FULL JOIN (SELECT 9 AS k) c USING (k) WHERE k > 5", json!([[9]])),
        ("SELECT k, v FROM t JOIN u USING (k) ORDER BY v", json!([[1, 10], [2, 30], [2, 50], [1, null]])),
    ]);
}

#[test]
fn tables_without_rows_keep_their_columns() {
    check(&[
        ("SELECT count(*) AS n, sum(v) AS s, min(k) AS m FROM t WHERE false", json!([[0, null, null]])),
        ("SELECT sum(v) FROM t WHERE 1 = 0", json!([[null]])),
        ("SELECT avg(v) FROM t WHERE NULL", json!([[null]])),
        ("SELECT count(*) FROM t WHERE false GROUP BY GROUPING SETS ((), (k))", json!([[0]])),
        ("SELECT count(*), sum(b.w) FROM t a FULL JOIN (SELECT * FROM u WHERE false) b ON a.id = b.id", json!([[5, null]])),
        ("SELECT sum(v) FROM (SELECT v FROM t LIMIT 0) z", json!([[null]])),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let tables = tables(dir.path());
    for condition in ["WHERE false", "WHERE id > 5 AND id < 3", "WHERE NULL", "LIMIT 0"] {
        let frame = Frame::sql(&format!("SELECT id, v + 1 AS x, 'a' AS s FROM t {condition}"), &tables).unwrap();
        let ran = compute(&frame).unwrap();
        let names: Vec<&str> = ran.outputs[0].schema().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!((ran.rows().len(), names), (0, vec!["id", "x", "s"]), "{condition}");
    }
}

#[test]
fn more_of_sql_is_understood() {
    check(&[
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT sum(i) FROM n", json!([[5050]])),
        (
            "WITH RECURSIVE c(i) AS (SELECT id FROM t WHERE id = 1 UNION ALL SELECT t.id FROM t JOIN c ON t.id = c.i * 2) \
             SELECT i FROM c ORDER BY i",
            json!([[1], [2], [4]]),
        ),
        ("SELECT sum(value) FROM generate_series(1, 100)", json!([[5050]])),
        ("SELECT count(*) FROM generate_series(1, 3) g JOIN t ON g.value = t.id", json!([[3]])),
        ("SELECT s FROM s WHERE s LIKE 'a!%b' ESCAPE '!'", json!([["a%b"]])),
        ("SELECT s FROM s WHERE s LIKE 'a!_b' ESCAPE '!'", json!([["a_b"]])),
        ("SELECT id, id, k FROM t ORDER BY id LIMIT 1", json!([[1, 1, 1]])),
        ("SELECT id FROM t ORDER BY id FETCH FIRST 2 ROWS ONLY", json!([[1], [2]])),
        ("SELECT mod(-7, 3), mod(v, 7), sign(-3.0) FROM t WHERE id = 1", json!([[-1, 3, -1.0]])),
        ("SELECT id FROM t WHERE id IS DISTINCT FROM 2 AND v > 10 ORDER BY v", json!([[3], [4], [null]])),
        ("SELECT id FROM t WHERE v > 10 AND id IS DISTINCT FROM 4 OR id = 1 ORDER BY v", json!([[1], [3], [null]])),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let frame = Frame::read_csv(&[write(dir.path(), "a.csv", "id,Amount\n1,2\n")], ReadOptions::default()).unwrap();
    let named = sql("SELECT Amount, t.AMOUNT + 1 AS more, id, id FROM t", &[("t", &frame)]).unwrap();
    let names: Vec<&str> = named.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["Amount", "more", "id", "id_1"]);
    assert_eq!(json!(compute(&named).unwrap().rows()), json!([[2, 3, 1, 1]]));
    assert!(sql("SELECT \"AMOUNT\" FROM t", &[("t", &frame)]).is_err());
}
