//! JSON by the rules of graph files, type by type.

use std::sync::Arc;

use arrow::array::*;
use serde_json::json;

use super::*;

fn rows_of(column: ArrayRef) -> (String, Json) {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
    let rows = rows_as_json(&Partition::try_new(batch.schema(), vec![batch]).unwrap()).unwrap();
    let values = rows.rows.into_iter().map(|mut row| row.remove(0)).collect();
    (rows.types[0].clone(), Json::Array(values))
}

#[test]
fn values_become_json_by_type() {
    let cases: Vec<(ArrayRef, &str, Json)> = vec![
        (Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), "i64", json!([i64::MIN, null])),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "u64", json!([u64::MAX])),
        (
            Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), None])),
            "f64",
            json!([1.5, "NaN", "Infinity", "-Infinity", null]),
        ),
        (Arc::new(BooleanArray::from(vec![Some(true), None])), "bool", json!([true, null])),
        (Arc::new(StringViewArray::from(vec![Some("a\"b"), None])), "string", json!(["a\"b", null])),
        (
            Arc::new(Decimal128Array::from(vec![Some(150), Some(200), None]).with_precision_and_scale(5, 2).unwrap()),
            "decimal(5,2)",
            json!([1.5, 2.0, null]),
        ),
        (Arc::new(Decimal128Array::from(vec![7]).with_precision_and_scale(5, 0).unwrap()), "decimal(5,0)", json!([7])),
        (Arc::new(Date32Array::from(vec![Some(0), None])), "date", json!(["1970-01-01", null])),
        (Arc::new(TimestampSecondArray::from(vec![0])), "timestamp", json!(["1970-01-01T00:00:00"])),
        (Arc::new(TimestampMillisecondArray::from(vec![1500])), "timestamp", json!(["1970-01-01T00:00:01.500"])),
        (
            Arc::new(TimestampSecondArray::from(vec![0]).with_timezone("+00:00")),
            "timestamp(+00:00)",
            json!(["1970-01-01T00:00:00Z"]),
        ),
        (Arc::new(BinaryArray::from(vec![&b"\x01\xff"[..]])), "binary", json!(["01ff"])),
        (Arc::new(NullArray::new(1)), "null", json!([null])),
        (
            Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([Some(vec![Some(1), None]), None])),
            "list<i32>",
            json!([[1, null], null]),
        ),
        (
            Arc::new([Some("x"), None].into_iter().collect::<DictionaryArray<arrow::datatypes::Int8Type>>()),
            "string",
            json!(["x", null]),
        ),
    ];
    for (column, type_name, values) in cases {
        assert_eq!(rows_of(column), (type_name.to_owned(), values));
    }
}

#[test]
fn rare_types_and_long_decimals_are_json_too() {
    let decimal = |digits: i128, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![digits]).with_precision_and_scale(precision, scale).unwrap())
    };
    let mut map = MapBuilder::new(None, Int64Builder::new(), StringBuilder::new());
    for (keys, is_there) in [(vec![1, 2], true), (vec![], true), (vec![9], false), (vec![3], true)] {
        for key in keys {
            map.keys().append_value(key);
            map.values().append_value(format!("v{key}"));
        }
        map.append(is_there).unwrap();
    }
    let map: ArrayRef = Arc::new(map.finish());
    let cases: Vec<(ArrayRef, &str, Json)> = vec![
        // Numbers as long as an `i64`, a `u64` or an `f64` has all their digits.
        (decimal(1 << 63, 38, 0), "decimal(38,0)", json!([9_223_372_036_854_775_808_u64])),
        (decimal(-7, 38, 0), "decimal(38,0)", json!([-7])),
        (decimal(1 << 100, 38, 0), "decimal(38,0)", json!(["1267650600228229401496703205376"])),
        (decimal(123_456_789_012_345, 38, 10), "decimal(38,10)", json!([12_345.678_901_234_5])),
        (decimal(1_234_567_890_123_456_789, 38, 10), "decimal(38,10)", json!(["123456789.0123456789"])),
        (decimal(5_000_000_000, 38, 10), "decimal(38,10)", json!([0.5])),
        (map.slice(0, 2), "map<i64, string>", json!([{"1": "v1", "2": "v2"}, {}])),
        (map.slice(2, 2), "map<i64, string>", json!([null, {"3": "v3"}])),
    ];
    for (column, type_name, values) in cases {
        assert_eq!(rows_of(column), (type_name.to_owned(), values));
    }
    let runs = RunArray::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec!["r", "w"])).unwrap();
    assert_eq!(rows_of(Arc::new(runs)).1, json!(["r", "r", "w"]));
}

/// Rows of nothing take no bytes, so no limit on bytes keeps them away.
#[test]
fn more_rows_than_anybody_reads_are_refused() {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::new(NullArray::new(1 << 40)) as ArrayRef, true)]).unwrap();
    let partition = Partition::try_new(batch.schema(), vec![batch]).unwrap();
    assert!(rows_as_json(&partition).unwrap_err().0.contains("too many to print"));
    assert!(to_table_string(&[&partition], 20).unwrap().contains("20 of 1099511627776 rows"));
}

#[test]
fn what_cannot_be_shown_is_named() {
    let batch = RecordBatch::try_from_iter([("when", Arc::new(TimestampSecondArray::from(vec![i64::MAX])) as ArrayRef)]).unwrap();
    let error = rows_as_json(&Partition::try_new(batch.schema(), vec![batch]).unwrap()).unwrap_err();
    assert!(error.0.starts_with("column \"when\": "), "{error}");
}
