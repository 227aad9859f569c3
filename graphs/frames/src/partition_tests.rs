//! Partitions on the wire: every kind of column, and bytes that lie.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::Buffer;
use arrow::datatypes::*;

use super::*;

fn every_type() -> Partition {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let structs = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])) as ArrayRef),
        (
            Arc::new(Field::new("v", DataType::Utf8View, true)),
            Arc::new(StringViewArray::from(vec![Some("short"), None, Some("longer than twelve bytes")])),
        ),
    ]);
    let dictionary: DictionaryArray<Int32Type> = [Some("x"), None, Some("y")].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("i8", Arc::new(Int8Array::from(vec![Some(-1), None, Some(3)]))),
        ("u64", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(f64::INFINITY)]))),
        ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some("ünï")]))),
        ("large", Arc::new(LargeStringArray::from(vec![Some("a"), None, Some("b")]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("tiny"), None, Some("a text that does not fit inline")]))),
        ("binary", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(b"")]))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 2], [3, 4], [5, 6]].into_iter()).unwrap())),
        ("dictionary", Arc::new(dictionary)),
        ("decimal", Arc::new(Decimal128Array::from(vec![Some(123), None, Some(-5)]).with_precision_and_scale(20, 2).unwrap())),
        ("date", Arc::new(Date32Array::from(vec![Some(0), None, Some(19_000)]))),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None, Some(1)]).with_timezone("+02:00"))),
        ("seconds", Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(2)]))),
        ("span", Arc::new(DurationMillisecondArray::from(vec![Some(1), None, Some(2)]))),
        ("null", Arc::new(NullArray::new(3))),
        ("list", Arc::new(list)),
        ("struct", Arc::new(structs)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    // A slice has offsets, another dictionary a replacement.
    Partition::try_new(batch.schema(), vec![batch.clone(), batch.slice(1, 2), batch]).unwrap()
}

fn round(partition: &Partition) -> Result<Value, String> {
    let encoded = partition.encode().unwrap();
    decode(&encoded.header, encoded.buffers)
}

#[test]
fn every_type_goes_over_the_wire() {
    let partition = every_type();
    let value = round(&partition).unwrap();
    let again = value.downcast::<Partition>().unwrap();
    assert_eq!(again.schema(), partition.schema());
    let (a, b) = (crate::rows_as_json(&partition).unwrap(), crate::rows_as_json(again).unwrap());
    assert_eq!(a, b);
    assert_eq!(again.n_rows(), 8);
}

#[test]
fn partitions_without_rows_or_columns_go_over_the_wire() {
    let empty = Partition::empty(Arc::clone(every_type().schema()));
    assert_eq!(round(&empty).unwrap().downcast::<Partition>().unwrap().schema(), empty.schema());
    let schema = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(7));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
    let counted = Partition::try_new(schema, vec![batch]).unwrap();
    assert_eq!(round(&counted).unwrap().downcast::<Partition>().unwrap().n_rows(), 7);
}

struct Aligned(Buffer);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn decoding_copies_nothing() {
    let numbers: ArrayRef = Arc::new((0..100_000).map(f64::from).collect::<Float64Array>());
    let batch = RecordBatch::try_from_iter([("x", numbers)]).unwrap();
    let partition = Partition::try_new(batch.schema(), vec![batch]).unwrap();
    let encoded = partition.encode().unwrap();
    // As a receiver does: into memory aligned to 64 bytes.
    let mut body = arrow::buffer::MutableBuffer::new(encoded.buffers[0].len());
    body.extend_from_slice(&encoded.buffers[0]);
    let body = Buffer::from(body);
    let span = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
    let bytes = Bytes::from_owner(Aligned(body));
    let value = decode(&encoded.header, vec![bytes]).unwrap();
    let again = value.downcast::<Partition>().unwrap();
    let data = again.batches()[0].column(0).to_data();
    assert!(span.contains(&(data.buffers()[0].as_ptr() as usize)));
}

#[test]
fn shared_buffers_count_once() {
    let numbers: ArrayRef = Arc::new((0..1000).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("a", Arc::clone(&numbers)), ("b", numbers)]).unwrap();
    let partition = Partition::try_new(batch.schema(), vec![batch.clone(), batch]).unwrap();
    assert_eq!(partition.nbytes(), 8000);
    let value = round(&partition).unwrap();
    // The wire form has every column of every batch by itself.
    assert!((32_000..33_000).contains(&value.nbytes()), "{}", value.nbytes());
}

#[test]
fn damaged_bytes_are_errors_and_never_panics() {
    let encoded = every_type().encode().unwrap();
    // Silence the panics that are caught; what matters is that none gets out and nothing is read out of bounds.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut n_errors = 0;
    for _ in 0..3000 {
        let mut header = encoded.header.to_vec();
        let mut buffers: Vec<Vec<u8>> = encoded.buffers.iter().map(|buffer| buffer.to_vec()).collect();
        match random(4) {
            0 | 1 => {
                let at = random(header.len());
                header[at] ^= 1 << random(8);
            }
            2 => {
                let buffer = random(buffers.len());
                let at = random(buffers[buffer].len().max(1));
                if let Some(byte) = buffers[buffer].get_mut(at) {
                    *byte ^= 1 << random(8);
                }
            }
            _ => {
                let buffer = random(buffers.len());
                let length = random(buffers[buffer].len() + 1);
                buffers[buffer].truncate(length);
            }
        }
        match decode(&header, buffers.into_iter().map(Bytes::from).collect()) {
            // What is accepted must be safe to use.
            Ok(value) => {
                let partition = value.downcast::<Partition>().unwrap();
                let _: Result<_, _> = crate::rows_as_json(partition);
                let _: u64 = partition.nbytes();
            }
            Err(_) => n_errors += 1,
        }
    }
    assert!(n_errors > 300, "{n_errors}");
    for length in 0..encoded.header.len() {
        assert!(decode(&encoded.header[..length], encoded.buffers.clone()).is_err());
    }
    assert!(decode(&encoded.header, Vec::new()).is_err());
}

#[test]
fn partitions_have_the_columns_they_say() {
    let partition = every_type();
    let other = Arc::new(Schema::new(vec![Field::new("a", DataType::Int8, true)]));
    let error = Partition::try_new(other, partition.batches().to_vec()).unwrap_err();
    assert!(error.0.contains("different columns"), "{error}");
}
