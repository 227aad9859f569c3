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
