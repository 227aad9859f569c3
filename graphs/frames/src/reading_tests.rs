//! What files hold is what is read, or the reader says what it does not understand, where, and what to write.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};

use crate::tests::{compute, sql, write};
use crate::{Frame, ReadOptions};

fn options() -> ReadOptions {
    ReadOptions::default()
}

/// Types are guessed from so few rows of each file, as if the files were too long to be looked at in full.
fn sampled(n_rows: usize) -> ReadOptions {
    ReadOptions { infer_rows: Some(n_rows), ..options() }
}

fn read(paths: &[PathBuf], options: ReadOptions) -> Result<Json, String> {
    let frame = Frame::read(None, paths, options).map_err(|error| error.to_string())?;
    Ok(json!(compute(&frame)?.rows()))
}

fn read_text(name: &str, text: &str, options: ReadOptions) -> Result<Json, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), name, text);
    // Messages without the directory, which has another name each time.
    let prefix = format!("{}/", dir.path().display());
    read(&[path], options).map_err(|error| error.replace(&prefix, ""))
}

fn lines(first: &str, n_rows: usize, row: &str, last: &str) -> String {
    format!("{first}{}{last}", row.repeat(n_rows))
}

#[test]
fn small_files_have_the_types_that_all_rows_need() {
    let last = |name: &str, text: String| {
        let rows = read_text(name, &text, options()).unwrap();
        rows.as_array().unwrap().last().unwrap().clone()
    };
    assert_eq!(last("a.csv", lines("v\n", 5000, "1\n", "1.5\n")), json!([1.5]));
    assert_eq!(last("a.csv", lines("v\n", 5000, "2024-01-01\n", "2024-01-02T10:00:00\n")), json!(["2024-01-02T10:00:00"]));
    let times = lines("v\n", 5000, "2024-01-01 10:00:00\n", "2024-01-01 10:00:00.25\n");
    assert_eq!(last("a.csv", times), json!(["2024-01-01T10:00:00.250"]));
    assert_eq!(last("a.csv", lines("v\n", 3, "2024-01-01\n", "0000-00-00\n")), json!(["0000-00-00"]));
    assert_eq!(last("a.csv", lines("v\n", 3, "1\n", "18446744073709551615\n")), json!([u64::MAX]));
    assert_eq!(last("a.json", lines("", 5000, "{\"a\": 1}\n", "{\"a\": 1.5, \"b\": true}\n")), json!([1.5, true]));
    assert_eq!(last("a.json", lines("", 3, "{\"a\": 1}\n", "{\"a\": 18446744073709551615}\n")), json!([u64::MAX]));
}

#[test]
fn values_that_do_not_fit_the_type_of_a_sample_are_refused_by_name_and_line() {
    for (name, text, error) in [
        (
            "a.csv",
            lines("v\n", 30, "1\n", "1.5\n"),
            "a.csv:32: column \"v\": \"1.5\" is no i64; types = { v = \"f64\" } reads it",
        ),
        (
            "a.csv",
            lines("v\n", 30, "2024-01-01\n", "2024-01-01T10:00:00\n"),
            "a.csv:32: column \"v\": \"2024-01-01T10:00:00\" is no date; types = { v = \"timestamp\" } reads it",
        ),
        (
            "a.csv",
            lines("v\n", 30, "2024-01-01 10:00:00\n", "2024-01-01T10:00:00.0000001\n"),
            "a.csv:32: column \"v\": \"2024-01-01T10:00:00.0000001\" is no timestamp; types = { v = \"Timestamp(ns)\" } reads it",
        ),
        (
            "a.csv",
            lines("a b\n", 30, "1\n", "x\n"),
            "a.csv:32: column \"a b\": \"x\" is no i64; types = { \"a b\" = \"string\" } reads it",
        ),
        (
            "a.csv",
            lines("v\n", 30, "1.5\n", "9007199254740993\n"),
            "a.csv:32: column \"v\": \"9007199254740993\" is no f64; types = { v = \"string\" } reads it",
        ),
        (
            "a.json",
            lines("", 30, "{\"v\": 1}\n", "{\"v\": 1.5}\n"),
            "a.json:31: column \"v\": \"1.5\" is no i64; types = { v = \"f64\" } reads it",
        ),
        (
            "a.json",
            lines("", 30, "{\"v\": [1]}\n", "{\"v\": [1, 2.5]}\n"),
            "a.json:31: column \"v\": \"2.5\" is no i64; a larger infer_rows looks at more",
        ),
        (
            "a.json",
            lines("", 30, "{\"v\": 1}\n", "{\"v\": 1, \"w\": 2.5}\n"),
            "a.json:31: key \"w\" is in none of the rows that were looked at for columns; make it a column with \
             types = { w = \"f64\" }",
        ),
        (
            "a.json",
            lines("", 30, "{\"s\": {\"v\": 1}}\n", "{\"s\": {\"w\": 1}}\n"),
            "a.json:31: key \"w\" is in none of the rows that were looked at for columns; a larger infer_rows looks at more",
        ),
    ] {
        let partition_sizes = [1 << 20, 100, 37];
        for partition_nbytes in partition_sizes {
            let options = ReadOptions { partition_nbytes, ..sampled(10) };
            assert_eq!(read_text(name, &text, options).unwrap_err(), error, "by {partition_nbytes}");
        }
    }
    let text = lines("", 30, "{\"v\": 1}\n", "{\"v\": 1, \"w\": 2.5}\n");
    let told = ReadOptions { types: [("w".to_owned(), "f64".to_owned())].into(), ..sampled(10) };
    assert_eq!(read_text("a.json", &text, told).unwrap()[30], json!([1, 2.5]));
}

#[test]
fn every_file_is_read_by_its_own_header() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for n in 0..200 {
        let text = if n == 77 { "b,a\n100,1\n" } else { "a,b\n1,100\n" };
        paths.push(write(dir.path(), &format!("f{n:03}.csv"), text));
    }
    let frame = Frame::read(None, &[dir.path().join("*.csv")], sampled(1)).unwrap();
    let sums = compute(&sql("SELECT sum(a), sum(b) FROM t", &[("t", &frame)]).unwrap()).unwrap().rows();
    assert_eq!(json!(sums), json!([[200, 20_000]]));
    for (text, error) in [
        ("a,c\n1,2\n", "f077.csv: column \"c\" where the first file has \"b\""),
        ("a\n1\n", "f077.csv: no column \"b\": 1 columns where the first file has 2"),
        ("a,b,c\n1,2,3\n", "f077.csv: 3 columns where the first file has 2"),
        ("a,a\n1,2\n", "f077.csv:1: two columns are called \"a\": 1 and 2"),
    ] {
        write(dir.path(), "f077.csv", text);
        let found = read(&paths, sampled(1)).unwrap_err();
        assert!(found.contains(error), "{found}");
    }
    // A file that is another by the time it is read.
    write(dir.path(), "f077.csv", "a,b\n1,2\n");
    let frame = Frame::read(None, &paths, options()).unwrap();
    write(dir.path(), "f077.csv", "a,x\n1,2\n");
    let error = compute(&frame).err().unwrap();
    assert!(error.contains("f077.csv: column \"x\" where the plan has \"b\""), "{error}");
}

#[test]
fn keys_and_types_of_every_json_file_count() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..200)
        .map(|n| {
            let text = if n == 123 { "{\"a\": 1.5, \"b\": 1}\n" } else { "{\"a\": 1}\n" };
            write(dir.path(), &format!("f{n:03}.json"), text)
        })
        .collect();
    let rows = read(&paths, options()).unwrap();
    assert_eq!(rows[123], json!([1.5, 1]));
    assert_eq!(rows[0], json!([1.0, null]));
    // The last of many that are too long to be looked at.
    let mut source = crate::source::FileSource::open(None, &paths, options()).unwrap();
    source.schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let mut registry = rask_graphs::Registry::new();
    crate::register(&mut registry);
    let schema = data_encoding::BASE64.encode(&crate::partition::schema_to_bytes(&source.schema));
    let args = json!({ "path": paths[123], "schema": schema }).to_string();
    let kernel = registry.prepare("frame.scan", 1, &args).unwrap();
    let error = kernel.run(&rask_graphs::TaskContext::detached("t"), &[]).unwrap_err();
    assert!(error.0.contains("f123.json:1: key \"b\""), "{error}");
}

#[test]
fn line_ends_in_quotes_are_read_wherever_the_file_is_cut() {
    let row = |n: usize| match n % 4 {
        0 => format!("{n},\"first\nsecond, {n}\"\n"),
        1 => format!("{n},\"says \"\"{n}\"\"\n\n\"\n"),
        2 => format!("{n},5\" pipe\n"),
        _ => format!("{n},\"a,b\"\r\n"),
    };
    let text = format!("n,text\n{}", (0..60).map(row).collect::<String>());
    let long = format!("n,text\n1,\"{}\"\n2,y\n", "x\n".repeat(300));
    for text in [text, long] {
        let whole = read_text("a.csv", &text, options()).unwrap();
        for base in [options(), sampled(5)] {
            for partition_nbytes in [10, 25, 40, 64, 100, 200, 399] {
                let options = ReadOptions { partition_nbytes, ..base.clone() };
                assert_eq!(read_text("a.csv", &text, options).as_ref(), Ok(&whole), "by {partition_nbytes}");
            }
        }
    }
}

#[test]
fn a_cut_that_was_guessed_wrong_is_refused_and_never_torn() {
    // Inside of quotes stands what looks like records.
    let text = format!("n,text\n1,\"{}\"\n2,y\n", "7,z\n".repeat(50_000));
    let whole = read_text("a.csv", &text, options()).unwrap();
    let by = |partition_nbytes, base: ReadOptions| read_text("a.csv", &text, ReadOptions { partition_nbytes, ..base });
    assert_eq!(by(10_000, options()).as_ref(), Ok(&whole), "files that were looked through are cut right");
    match by(10_000, sampled(1)) {
        Ok(rows) => assert_eq!(rows, whole),
        Err(error) => assert!(error.contains("a.csv: a quoted field goes on where the file is cut"), "{error}"),
    }
    assert_eq!(by(text.len() as u64, sampled(1)).as_ref(), Ok(&whole), "as the message says");
}

#[test]
fn a_quote_that_is_not_closed_loses_nothing_silently() {
    let text = lines("n,text\n", 20, "1,x\n", "2,\"open\n3,y\n4,z\n");
    for base in [options(), sampled(5)] {
        for partition_nbytes in [1 << 20, 50, 20] {
            let error = read_text("a.csv", &text, ReadOptions { partition_nbytes, ..base.clone() }).unwrap_err();
            assert!(error.starts_with("a.csv:22: ") && error.contains("does not end"), "{error}");
        }
    }
}

#[test]
fn names_are_columns_and_each_is_one() {
    assert_eq!(read_text("a.csv", "a,b,a\n1,2,3\n", options()).unwrap_err(), "a.csv:1: two columns are called \"a\": 1 and 3");
    assert_eq!(read_text("a.csv", ",b\n1,2\n", options()).unwrap(), json!([[1, 2]]));
    let headless = ReadOptions { header: false, partition_nbytes: 5, ..options() };
    assert_eq!(read_text("a.csv", "1,2\n3,4\n5,6\n", headless).unwrap(), json!([[1, 2], [3, 4], [5, 6]]));
    let odd = "\"a\nb\",\"say \"\"c\"\"\"\n1,2\n3,4\n";
    assert_eq!(read_text("a.csv", odd, ReadOptions { partition_nbytes: 8, ..options() }).unwrap(), json!([[1, 2], [3, 4]]));
    let dir = tempfile::tempdir().unwrap();
    let (path, two) = (dir.path().join("a.arrow"), Field::new("a", DataType::Int64, true));
    let schema = Arc::new(Schema::new(vec![two.clone(), two]));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_new(schema, vec![column.clone(), column]).unwrap();
    write_arrow(&path, &batch);
    assert!(read(&[path], options()).unwrap_err().contains("two columns are called \"a\""));
}

#[test]
fn files_without_rows_or_bytes_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("1.csv", "v\n1\n"), ("2.csv", ""), ("3.csv", "v\n"), ("4.csv", "v\n2.5"), ("5.csv", "\n")] {
        write(dir.path(), name, text);
    }
    assert_eq!(read(&[dir.path().join("*.csv")], options()).unwrap(), json!([[1.0], [2.5]]));
    assert_eq!(read(&[dir.path().join("[234].csv")], options()).unwrap(), json!([[2.5]]));
    assert!(read(&[dir.path().join("2.csv")], options()).unwrap_err().contains("2.csv: no columns: the file is empty"));
    for (name, text) in [("1.json", ""), ("2.json", "[]"), ("3.json", "{\"v\": 1}")] {
        write(dir.path(), name, text);
    }
    assert_eq!(read(&[dir.path().join("*.json")], options()).unwrap(), json!([[1]]));
    assert!(read(&[dir.path().join("1.json")], options()).unwrap_err().contains("1.json: no columns"));
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn packed_files_are_read_by_their_ending() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("a.csv.gz"), [gzip("v,w\n1,"), gzip("x\n2,y\n")].concat()).unwrap();
    std::fs::write(at("b.csv"), "v,w\n3,z\n").unwrap();
    std::fs::write(at("c.csv.zst"), zstd::encode_all(&b"v,w\n4,q\n"[..], 1).unwrap()).unwrap();
    let small = ReadOptions { partition_nbytes: 4, ..options() };
    let expected = json!([[1, "x"], [2, "y"], [3, "z"], [4, "q"]]);
    assert_eq!(read(&[at("*.csv*")], small).unwrap(), expected);
    std::fs::write(at("a.jsonl.gz"), gzip("{\"a\": 1}\n{\"a\": 2}\n")).unwrap();
    assert_eq!(read(&[at("a.jsonl.gz")], options()).unwrap(), json!([[1], [2]]));
    let torn = &gzip("v\n1\n2\n")[..18];
    std::fs::write(at("torn.csv.gz"), torn).unwrap();
    assert!(read(&[at("torn.csv.gz")], options()).unwrap_err().contains("torn.csv.gz: "));
}

#[test]
fn comments_marks_and_line_ends_of_other_systems() {
    let text = "# made by \"hand\na,b\n1,2\n#3,4\n5,\"#6\"\n";
    for partition_nbytes in [1 << 20, 9, 5] {
        let options = ReadOptions { comment: Some('#'), partition_nbytes, ..options() };
        assert_eq!(read_text("a.csv", text, options).unwrap(), json!([[1, "2"], [5, "#6"]]), "{partition_nbytes}");
    }
    for partition_nbytes in [1 << 20, 6, 4] {
        let small = ReadOptions { partition_nbytes, ..options() };
        assert_eq!(read_text("a.csv", "\u{feff}a,b\r1,2\r3,4\r", small.clone()).unwrap(), json!([[1, 2], [3, 4]]));
        assert_eq!(read_text("a.json", "\u{feff}{\"a\":1}\r\n{\"a\":2}\r\n", small).unwrap(), json!([[1], [2]]));
    }
    let dir = tempfile::tempdir().unwrap();
    let wide = dir.path().join("a.csv");
    std::fs::write(&wide, b"\xff\xfea\0\n\0").unwrap();
    assert!(read(std::slice::from_ref(&wide), options()).unwrap_err().contains("utf-16"));
    std::fs::write(&wide, b"a\nx\ncaf\xe9\n").unwrap();
    let error = read(&[wide], options()).unwrap_err();
    assert!(error.contains("a.csv:3: column \"a\"") && error.contains("not UTF-8"), "{error}");
}

#[test]
fn records_have_all_their_fields() {
    for (text, error) in [
        ("a,b\n1,2\n3\n", "a.csv:3: 1 fields where 2 are expected"),
        ("a,b\n1,2,\n3,4,\n", "a.csv:2: 3 fields where 2 are expected"),
        ("a,b\n\"1\"x,2\n", "a.csv:2: text after the closing quote of a field; a quote inside of one is written twice"),
    ] {
        assert_eq!(read_text("a.csv", text, options()).unwrap_err(), error);
    }
}

#[test]
fn nothing_and_the_empty_text_are_two() {
    let rows = read_text("a.csv", "a,b\n\"\",1\n,\"\"\nx,\n", options()).unwrap();
    assert_eq!(rows, json!([["", 1], [null, null], ["x", null]]));
    // A blank line is a record where a record may be one empty field.
    assert_eq!(read_text("a.csv", "a\nx\n\n\"\"\n", options()).unwrap(), json!([["x"], [null], [""]]));
    let named = ReadOptions { nulls: vec!["NA".to_owned()], ..options() };
    assert_eq!(read_text("a.csv", "a,b\nNA,\"NA\"\n,1\n", named).unwrap(), json!([[null, null], ["", 1]]));
}

#[test]
fn given_types_round_and_never_cut() {
    let typed = |wanted: &str| ReadOptions { types: [("a".to_owned(), wanted.to_owned())].into(), ..options() };
    assert_eq!(read_text("a.csv", "a\n1.239\n1.2\n", typed("decimal(10,2)")).unwrap(), json!([[1.24], [1.2]]));
    let error = read_text("a.csv", "a\n1.5\n", typed("i64")).unwrap_err();
    assert_eq!(error, "a.csv:2: column \"a\": \"1.5\" is no i64; types = { a = \"f64\" } reads it");
    assert!(read_text("a.csv", "a\n2024-01-01 10:00:00\n", typed("date")).is_err());
    assert_eq!(read_text("a.json", "{\"a\": \"2024-01-01\"}", typed("date")).unwrap(), json!([["2024-01-01"]]));
    assert_eq!(read_text("a.csv", "a\n007\n", typed("string")).unwrap(), json!([["007"]]));
}

#[test]
fn json_is_read_in_every_layout() {
    let pretty = "{\n  \"a\": 1,\n  \"b\": [\n    1\n  ]\n}\n{\n  \"a\": 2,\n  \"b\": []\n}\n";
    let array = "[\n{\"a\": 1, \"b\": [1]},\n{\"a\": 2, \"b\": []}\n]\n";
    for text in [pretty, array, "{\"a\": 1, \"b\": [1]}{\"a\": 2, \"b\": []}"] {
        for partition_nbytes in [1 << 20, 10] {
            let options = ReadOptions { partition_nbytes, ..options() };
            assert_eq!(read_text("a.json", text, options).unwrap(), json!([[1, [1]], [2, []]]), "{text}");
        }
    }
    for (text, error) in [
        ("{\"a\": 1}\n[1]\n", "a.json:2: a row must be an object"),
        ("{\"a\": 1}\n{\"a\" 2}\n", "a.json:2: expected `:`"),
        ("{\"a\": 1}\n{\"a\": [2]}\n", "a.json: \"a\" is a list in some rows and a plain value in others"),
    ] {
        assert_eq!(read_text("a.json", text, options()).unwrap_err(), error);
    }
    // Beyond the sample too.
    let text = lines("", 30, "{\"a\": 1}\n", "{\n\"a\": 2\n}\n{\"a\": }\n");
    assert_eq!(read_text("a.json", &text, sampled(5)).unwrap_err(), "a.json:34: expected value");
}

#[test]
fn rows_of_very_many_columns_are_read_a_few_at_a_time() {
    let n_columns = 50_000;
    let row = |value: usize| vec![value.to_string(); n_columns].join(",");
    let names: Vec<String> = (0..n_columns).map(|n| format!("c{n}")).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.csv", &format!("{}\n{}\n{}\n", names.join(","), row(1), row(2)));
    let ran = compute(&Frame::read(None, &[path], options()).unwrap()).unwrap();
    assert_eq!((ran.outputs[0].n_rows(), ran.outputs[0].schema().fields().len()), (2, n_columns));
}

fn write_arrow(path: &Path, batch: &RecordBatch) {
    let mut writer = arrow::ipc::writer::FileWriter::try_new(File::create(path).unwrap(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn parquet_files(columns: Vec<ArrayRef>) -> Result<Json, String> {
    let dir = tempfile::tempdir().unwrap();
    for (n, column) in columns.into_iter().enumerate() {
        write_parquet(&dir.path().join(format!("{n}.parquet")), vec![("v", column)]);
    }
    read(&[dir.path().to_owned()], options())
}

#[test]
fn columns_that_differ_harmlessly_are_one() {
    let decimal = |values: Vec<i128>, precision, scale| {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()) as ArrayRef
    };
    let dictionary: DictionaryArray<Int32Type> = ["x", "y"].into_iter().collect();
    let cases: Vec<(Vec<ArrayRef>, Json)> = vec![
        (
            vec![
                Arc::new(UInt8Array::from(vec![200])),
                Arc::new(UInt16Array::from(vec![300])),
                Arc::new(Int8Array::from(vec![-1])),
                Arc::new(UInt64Array::from(vec![1 << 40])),
                Arc::new(Int64Array::from(vec![i64::MIN])),
            ],
            json!([[200], [300], [-1], [1_u64 << 40], [i64::MIN]]),
        ),
        (vec![Arc::new(Float32Array::from(vec![0.5])), Arc::new(Float64Array::from(vec![0.25]))], json!([[0.5], [0.25]])),
        (
            vec![Arc::new(Int64Array::from(vec![1 << 53])), Arc::new(Float64Array::from(vec![0.5]))],
            json!([[9.007199254740992e15], [0.5]]),
        ),
        (
            vec![decimal(vec![125], 5, 2), decimal(vec![1_234_525], 10, 2), decimal(vec![5], 9, 4)],
            json!([[1.25], [12345.25], [0.0005]]),
        ),
        (
            vec![Arc::new(dictionary), Arc::new(StringArray::from(vec!["z"])), Arc::new(LargeStringArray::from(vec!["w"]))],
            json!([["x"], ["y"], ["z"], ["w"]]),
        ),
        (
            vec![Arc::new(Date32Array::from(vec![1])), Arc::new(TimestampMillisecondArray::from(vec![1500]))],
            json!([["1970-01-02T00:00:00"], ["1970-01-01T00:00:01.500"]]),
        ),
        (
            vec![Arc::new(TimestampMillisecondArray::from(vec![1])), Arc::new(TimestampNanosecondArray::from(vec![1]))],
            json!([["1970-01-01T00:00:00.001"], ["1970-01-01T00:00:00.000000001"]]),
        ),
    ];
    for (columns, expected) in cases {
        assert_eq!(parquet_files(columns).unwrap(), expected);
    }
}

#[test]
fn columns_that_no_type_holds_are_refused_by_file() {
    let far = 253_402_300_799_000;
    let cases: Vec<(Vec<ArrayRef>, &str)> = vec![
        (
            vec![Arc::new(Int64Array::from(vec![(1 << 53) + 1])), Arc::new(Float64Array::from(vec![0.5]))],
            "0.parquet: column \"v\"",
        ),
        (
            vec![Arc::new(TimestampMillisecondArray::from(vec![far])), Arc::new(TimestampNanosecondArray::from(vec![1]))],
            "0.parquet: column \"v\"",
        ),
        (
            vec![Arc::new(Date32Array::from(vec![2_932_896])), Arc::new(TimestampNanosecondArray::from(vec![1]))],
            "0.parquet: column \"v\"",
        ),
        (vec![Arc::new(UInt64Array::from(vec![u64::MAX])), Arc::new(Int64Array::from(vec![-1]))], "0.parquet: column \"v\""),
        (vec![Arc::new(Int64Array::from(vec![1])), Arc::new(StringArray::from(vec!["x"]))], "1.parquet: column \"v\" is string"),
    ];
    for (columns, words) in cases {
        let error = parquet_files(columns).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn row_groups_with_nan_are_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    // One group of plain numbers, one with the NaN that a division leaves, one with a number and the usual NaN.
    let values = vec![1.0, 2.0, -f64::NAN, 1.0, f64::NAN, 1.5];
    write_parquet(&path, vec![("x", Arc::new(Float64Array::from(values)))]);
    let frame = Frame::read(None, &[path], options()).unwrap();
    for (condition, n) in [
        ("x > 2", 2),
        ("x >= 3", 2),
        ("NOT (x < 10)", 2),
        ("x <> 1.0", 4),
        ("x < 2", 3),
        ("isnan(x)", 2),
        ("x = CAST('NaN' AS DOUBLE)", 2),
        ("x IN (CAST('NaN' AS DOUBLE), 2)", 3),
    ] {
        let text = format!("SELECT count(*) FROM t WHERE {condition}");
        let rows = compute(&sql(&text, &[("t", &frame)]).unwrap()).unwrap().rows();
        assert_eq!(json!(rows), json!([[n]]), "{condition}");
    }
    let rows = compute(&sql("SELECT count(DISTINCT x) FROM t", &[("t", &frame)]).unwrap()).unwrap().rows();
    assert_eq!(json!(rows), json!([[4]]), "one NaN");
}

#[test]
fn rows_without_bytes_are_refused_before_they_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.arrow");
    // A length that stands nowhere else in the file, to be replaced.
    let n_rows = 0x0123_4567_usize;
    let nulls = RecordBatch::try_from_iter([("n", Arc::new(NullArray::new(n_rows)) as ArrayRef)]).unwrap();
    write_arrow(&path, &nulls);
    let frame = Frame::read(None, std::slice::from_ref(&path), options()).unwrap();
    let counted = compute(&sql("SELECT count(*) FROM t", &[("t", &frame)]).unwrap()).unwrap().rows();
    assert_eq!(json!(counted), json!([[n_rows]]));
    let original = std::fs::read(&path).unwrap();
    for claimed in [1_i64 << 40, 1 << 62, i64::MAX, i64::from(i32::MAX), -1] {
        let mut bytes = original.clone();
        let mut n_replaced = 0;
        for at in 0..bytes.len() - 8 {
            if bytes[at..at + 8] == (n_rows as i64).to_le_bytes() {
                bytes[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
                n_replaced += 1;
            }
        }
        assert!(n_replaced >= 2);
        std::fs::write(&path, bytes).unwrap();
        assert!(read(std::slice::from_ref(&path), options()).unwrap_err().contains("a.arrow: "), "{claimed}");
    }
    let run_ends = Int32Array::from(vec![i32::MAX]);
    let values = StringArray::from(vec!["x".repeat(1000)]);
    let runs: ArrayRef = Arc::new(RunArray::<Int32Type>::try_new(&run_ends, &values).unwrap());
    write_arrow(&path, &RecordBatch::try_from_iter([("r", runs)]).unwrap());
    let error = read(std::slice::from_ref(&path), options()).unwrap_err();
    assert!(error.contains("stand for"), "{error}");
    let run_ends = Int32Array::from(vec![2, 5]);
    let runs: ArrayRef = Arc::new(RunArray::<Int32Type>::try_new(&run_ends, &StringArray::from(vec!["a", "b"])).unwrap());
    write_arrow(&path, &RecordBatch::try_from_iter([("r", runs)]).unwrap());
    assert_eq!(read(&[path], options()).unwrap(), json!([["a"], ["a"], ["b"], ["b"], ["b"]]));
}

#[test]
fn lengths_in_files_are_only_claims() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.arrow");
    for bytes in
        [&b"\xff\xff\xff\xff\xff\xff\xff\x7f"[..], b"\xff\xff\xff\x7f", b"ARROW1\0\0\xff\xff\xff\x7fARROW1", b"", b"ARROW1"]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = read(std::slice::from_ref(&path), options()).unwrap_err();
        assert!(error.contains("a.arrow: "), "{error}");
    }
}

#[test]
fn arrow_streams_and_files_are_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (file, stream) = (dir.path().join("a.arrow"), dir.path().join("b.arrows"));
    let dictionary: DictionaryArray<Int32Type> = ["x", "y", "x"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![("d", Arc::new(dictionary)), ("n", Arc::new(Int64Array::from(vec![1, 2, 3])))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    write_arrow(&file, &batch);
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(File::create(&stream).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let rows = json!([["x", 1], ["y", 2], ["x", 3]]);
    assert_eq!(read(&[file], options()).unwrap(), rows);
    assert_eq!(read(&[stream], options()).unwrap().as_array().unwrap().len(), 6);
}
