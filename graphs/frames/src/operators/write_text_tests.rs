//! Each type of column as CSV and as JSON: nothing is lost, nothing looks like something else, or it is refused by name.

use arrow::array::*;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use rask_graphs::{Registry, TaskContext, Value};
use serde_json::json;

use super::*;
use crate::partition::Partition;
use crate::{Frame, ReadOptions};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn as_csv(batch: &RecordBatch) -> Result<String, String> {
    let mut writer = CsvWriter::new(Vec::new(), CsvStyle { delimiter: b',', null: "" });
    writer.header(batch.schema().fields()).unwrap();
    writer.rows(batch).map_err(|error| error.0)?;
    Ok(String::from_utf8(writer.into_inner()).unwrap())
}

fn as_json(batch: &RecordBatch) -> Result<String, String> {
    let mut writer = JsonWriter::new(Vec::new());
    writer.rows(batch).map_err(|error| error.0)?;
    Ok(String::from_utf8(writer.into_inner().unwrap()).unwrap())
}

/// Run `frame.write` on a partition.
fn write(partition: Partition, path: &std::path::Path) -> Result<(), String> {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    let kernel = registry.prepare("frame.write", 1, &json!({ "path": path }).to_string()).map_err(|error| error.to_string())?;
    kernel.run(&TaskContext::detached("w"), &[Value::new(partition)]).map(|_| ()).map_err(|error| error.0)
}

/// All rows of a file.
fn scanned(path: &std::path::Path) -> Partition {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    let kernel = registry.prepare("frame.scan", 1, &json!({ "path": path }).to_string()).unwrap();
    let rows = kernel.run(&TaskContext::detached("s"), &[]).unwrap();
    rows.downcast::<Partition>().unwrap().clone()
}

fn list(values: Vec<Option<f64>>) -> ArrayRef {
    let field = Arc::new(Field::new("item", DataType::Float64, true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Arc::new(ListArray::new(field, offsets, Arc::new(Float64Array::from(values)), None))
}

fn map() -> ArrayRef {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    builder.keys().append_value("k");
    builder.values().append_value(1);
    builder.keys().append_value("j");
    builder.values().append_null();
    builder.append(true).unwrap();
    Arc::new(builder.finish())
}

fn union() -> ArrayRef {
    let fields = UnionFields::try_new(vec![0], vec![Field::new("a", DataType::Int32, true)]).unwrap();
    let ids = ScalarBuffer::from(vec![0_i8]);
    Arc::new(UnionArray::try_new(fields, ids, None, vec![Arc::new(Int32Array::from(vec![7]))]).unwrap())
}

#[test]
fn every_type_has_a_text_or_is_refused() {
    let decimal = |digits: i128, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![digits]).with_precision_and_scale(precision, scale).unwrap())
    };
    let months = IntervalMonthDayNano::new(1, 2, 3);
    let fields: Fields = vec![Field::new("a", DataType::Int64, true), Field::new("f", DataType::Float32, true)].into();
    let structs: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Float32Array::from(vec![f32::NAN]))];
    let runs = RunArray::try_new(&Int32Array::from(vec![1]), &StringArray::from(vec!["r"])).unwrap();
    // The field of a CSV file; the value of a JSON file.
    let cases: Vec<(ArrayRef, &str, &str)> = vec![
        (Arc::new(NullArray::new(1)), "", "null"),
        (Arc::new(BooleanArray::from(vec![true])), "true", "true"),
        (Arc::new(Int8Array::from(vec![i8::MIN])), "-128", "-128"),
        (Arc::new(Int64Array::from(vec![i64::MAX])), "9223372036854775807", "9223372036854775807"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615", "18446744073709551615"),
        (arrow::compute::cast(&Float32Array::from(vec![1.5]), &DataType::Float16).unwrap(), "1.5", "1.5"),
        (Arc::new(Float32Array::from(vec![0.1])), "0.1", "0.1"),
        (Arc::new(Float64Array::from(vec![0.1])), "0.1", "0.1"),
        (Arc::new(Float64Array::from(vec![2.0])), "2.0", "2.0"),
        (Arc::new(Float64Array::from(vec![1e300])), "1e300", "1e+300"),
        (Arc::new(Float64Array::from(vec![-0.0])), "-0.0", "-0.0"),
        (Arc::new(Float64Array::from(vec![f64::NAN])), "NaN", "\"NaN\""),
        (Arc::new(Float64Array::from(vec![f64::INFINITY])), "inf", "\"Infinity\""),
        (Arc::new(Float32Array::from(vec![f32::NEG_INFINITY])), "-inf", "\"-Infinity\""),
        (decimal(150, 5, 2), "1.50", "1.50"),
        (
            decimal(123_456_789_012_345_678_901_234_567_890, 38, 10),
            "12345678901234567890.1234567890",
            "12345678901234567890.1234567890",
        ),
        (Arc::new(StringArray::from(vec!["x"])), "x", "\"x\""),
        (Arc::new(StringArray::from(vec![""])), "\"\"", "\"\""),
        (Arc::new(LargeStringArray::from(vec!["a,b"])), "\"a,b\"", "\"a,b\""),
        (Arc::new(StringViewArray::from(vec!["a\"\n"])), "\"a\"\"\n\"", "\"a\\\"\\n\""),
        (Arc::new(BinaryArray::from(vec![&b"\x01\xff"[..]])), "01ff", "\"01ff\""),
        (Arc::new(FixedSizeBinaryArray::try_from_iter([b"ab"].iter()).unwrap()), "6162", "\"6162\""),
        (Arc::new(Date32Array::from(vec![-719_162])), "0001-01-01", "\"0001-01-01\""),
        (Arc::new(Date32Array::from(vec![2_932_897])), "+10000-01-01", "\"+10000-01-01\""),
        (Arc::new(Time32SecondArray::from(vec![3_723])), "01:02:03", "\"01:02:03\""),
        (Arc::new(Time64NanosecondArray::from(vec![1])), "00:00:00.000000001", "\"00:00:00.000000001\""),
        (Arc::new(TimestampMillisecondArray::from(vec![1_500])), "1970-01-01T00:00:01.500", "\"1970-01-01T00:00:01.500\""),
        (
            Arc::new(TimestampSecondArray::from(vec![0]).with_timezone("+01:00")),
            "1970-01-01T01:00:00+01:00",
            "\"1970-01-01T01:00:00+01:00\"",
        ),
        (Arc::new(DurationMillisecondArray::from(vec![1_500])), "PT1.5S", "\"PT1.5S\""),
        (
            Arc::new(IntervalMonthDayNanoArray::from(vec![months])),
            "1 mons 2 days 0.000000003 secs",
            "\"1 mons 2 days 0.000000003 secs\"",
        ),
        (list(vec![Some(1.0), None, Some(f64::NAN)]), "\"[1.0,null,\"\"NaN\"\"]\"", "[1.0,null,\"NaN\"]"),
        (Arc::new(StructArray::new(fields, structs, None)), "\"{\"\"a\"\":1,\"\"f\"\":\"\"NaN\"\"}\"", "{\"a\":1,\"f\":\"NaN\"}"),
        (map(), "\"{\"\"k\"\":1,\"\"j\"\":null}\"", "{\"k\":1,\"j\":null}"),
        (Arc::new(["p"].into_iter().collect::<DictionaryArray<Int8Type>>()), "p", "\"p\""),
        (Arc::new(runs), "r", "\"r\""),
    ];
    for (column, csv, json) in cases {
        let kind = type_name(column.data_type());
        let batch = batch(vec![("c", column), ("last", Arc::new(Int8Array::from(vec![0])))]);
        assert_eq!(as_csv(&batch).unwrap(), format!("c,last\n{csv},0\n"), "{kind}");
        assert_eq!(as_json(&batch).unwrap(), format!("{{\"c\":{json},\"last\":0}}\n"), "{kind}");
    }
    let beyond: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(0), None, Some(i64::MAX), Some(1)]));
    let within = Arc::new(Field::new("item", beyond.data_type().clone(), true));
    let nested: ArrayRef = Arc::new(ListArray::new(within, OffsetBuffer::from_lengths([4]), Arc::clone(&beyond), None));
    for wrong in [beyond, nested, union()] {
        let batch = batch(vec![("when", wrong)]);
        for error in [as_csv(&batch).unwrap_err(), as_json(&batch).unwrap_err()] {
            assert!(error.contains("column \"when\"") && !error.contains("Cast error"), "{error}");
        }
    }
}

#[test]
fn missing_and_empty_are_two_things_in_csv() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None, Some("NA"), Some("x")]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1), None, Some(2)]));
    let both = batch(vec![("t", Arc::clone(&texts)), ("n", numbers)]);
    assert_eq!(as_csv(&both).unwrap(), "t,n\n\"\",\n,1\nNA,\nx,2\n");
    // The text for a missing value is quoted where it is a text.
    let mut writer = CsvWriter::new(Vec::new(), CsvStyle { delimiter: b';', null: "NA" });
    writer.rows(&both).unwrap();
    assert_eq!(String::from_utf8(writer.into_inner()).unwrap(), ";NA\nNA;1\n\"NA\";NA\nx;2\n");
    // A line with nothing on it may be passed over; among texts it is the only way.
    let alone = batch(vec![("t", texts)]);
    assert_eq!(as_csv(&alone).unwrap(), "t\n\"\"\n\nNA\nx\n");
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    assert_eq!(as_csv(&batch(vec![("n", numbers)])).unwrap(), "n\n1\n\"\"\n");
    // What is written is read again, in one column and in two.
    let dir = tempfile::tempdir().unwrap();
    for (name, written) in [("one.csv", alone), ("two.csv", both)] {
        let partition = Partition::try_new(written.schema(), vec![written]).unwrap();
        write(partition.clone(), &dir.path().join(name)).unwrap();
        let again = scanned(&dir.path().join(name));
        assert_eq!(crate::rows_as_json(&again).unwrap().rows, crate::rows_as_json(&partition).unwrap().rows, "{name}");
    }
    let names = batch(vec![("a,b", Arc::new(NullArray::new(0)) as ArrayRef), ("q\"x", Arc::new(NullArray::new(0)))]);
    assert_eq!(as_csv(&names).unwrap(), "\"a,b\",\"q\"\"x\"\n");
}

#[test]
fn a_frame_without_rows_keeps_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]));
    for name in ["a.csv", "a.parquet", "a.arrow", "a.json"] {
        let path = dir.path().join(name);
        write(Partition::empty(Arc::clone(&schema)), &path).unwrap();
        if name == "a.json" {
            assert_eq!(std::fs::read(&path).unwrap(), b"");
            continue;
        }
        let again = Frame::read(None, &[&path], ReadOptions::default()).unwrap();
        let names: Vec<&str> = again.schema().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["k", "s"], "{name}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("a.csv")).unwrap(), "k,s\n");
}

#[test]
fn what_a_file_cannot_hold_is_refused_by_name_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let one = |column: ArrayRef| {
        let batch = batch(vec![("odd", column)]);
        Partition::try_new(batch.schema(), vec![batch]).unwrap()
    };
    let interval: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]));
    for column in [interval, union()] {
        let error = write(one(column), &dir.path().join("a.parquet")).unwrap_err();
        assert!(error.contains("column \"odd\"") && error.contains("which Parquet cannot hold"), "{error}");
    }
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("k", DataType::Int64, true)]));
    let twice = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&number), number]).unwrap();
    for name in ["a.csv", "a.json", "a.parquet", "a.arrow"] {
        let partition = Partition::try_new(Arc::clone(&schema), vec![twice.clone()]).unwrap();
        let error = write(partition, &dir.path().join(name)).unwrap_err();
        assert!(error.contains("two columns are called \"k\""), "{error}");
        let error = write(Partition::empty(Arc::new(Schema::empty())), &dir.path().join(name)).unwrap_err();
        assert!(error.contains("no columns"), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
