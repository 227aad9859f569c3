//! Between frames and arrays: operators that turn partitions into chunks and chunks into partitions.
//!
//! The two libraries do not know each other; this crate knows both. Also here: handing on one part of a result, which a
//! graph file can ask for as an output.

use rask_arrays::{Chunk, DType, Element};
use rask_frames::{Numbers, Partition, columns_to_f64, numbers_to_columns};
use rask_graphs::keys::KeyRef;
use rask_graphs::{Arity, Body, GraphBuilder, KernelError, OperatorSpec, Registry, TaskIdx, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of `frame.to_array`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToArrayArgs {
    /// The columns, in order; all when left out. They must be numbers or booleans.
    #[serde(default)]
    columns: Vec<String>,
}

/// Arguments of `frame.from_array`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FromArrayArgs {
    /// Names for the columns, as many as the array has.
    columns: Vec<String>,
}

/// Arguments of operators that take none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

/// Register the operators of this module.
pub(crate) fn register(registry: &mut Registry) {
    let doc = "Columns of one partition as an f64 array of rows x columns; missing values become NaN.";
    registry.register(
        OperatorSpec::new::<ToArrayArgs>("frame.to_array", 1, Arity::exactly(1), "array", doc),
        |_ctx, args: &ToArrayArgs, inputs| to_array(&inputs[0], &args.columns),
    );
    let doc = "The rows of an array of one or two axes as a partition with columns of its type.";
    registry.register(
        OperatorSpec::new::<FromArrayArgs>("frame.from_array", 1, Arity::exactly(1), "frame", doc),
        |_ctx, args: &FromArrayArgs, inputs| from_array(&inputs[0], &args.columns),
    );
    let doc = "Hand on the input as it is: what makes one part of a result a result.";
    registry
        .register(OperatorSpec::new::<NoArgs>("core.same", 1, Arity::exactly(1), "any", doc), |_ctx, _args: &NoArgs, inputs| {
            Ok(inputs[0].clone())
        });
}

fn to_array(input: &Value, columns: &[String]) -> Result<Value, KernelError> {
    let partition: &Partition = input.expect("a partition of a frame")?;
    let (values, n_rows) = columns_to_f64(partition, columns)?;
    let n_columns = if columns.is_empty() { partition.schema().fields().len() } else { columns.len() };
    Ok(Value::new(Chunk::from_slice(vec![n_rows, n_columns], &values).map_err(KernelError)?))
}

fn from_array(input: &Value, columns: &[String]) -> Result<Value, KernelError> {
    let chunk: &Chunk = input.expect("an array")?;
    let n_columns = match chunk.shape() {
        [_] => 1,
        [_, n_columns] => *n_columns,
        other => return Err(KernelError(format!("an array of {} axes is no table", other.len()))),
    };
    if n_columns != columns.len() {
        return Err(KernelError(format!("{} names for {n_columns} columns", columns.len())));
    }
    Ok(Value::new(numbers_to_columns(columns, numbers(chunk))?))
}

/// The elements of a chunk as the numbers that they are.
fn numbers(chunk: &Chunk) -> Numbers<'_> {
    /// A chunk knows its type, so the elements are there.
    fn typed<T: Element>(chunk: &Chunk) -> &[T] {
        chunk.as_slice().unwrap_or_default()
    }
    match chunk.dtype() {
        DType::Bool => Numbers::Bool(typed(chunk)),
        DType::I8 => Numbers::I8(typed(chunk)),
        DType::I16 => Numbers::I16(typed(chunk)),
        DType::I32 => Numbers::I32(typed(chunk)),
        DType::I64 => Numbers::I64(typed(chunk)),
        DType::U8 => Numbers::U8(typed(chunk)),
        DType::U16 => Numbers::U16(typed(chunk)),
        DType::U32 => Numbers::U32(typed(chunk)),
        DType::U64 => Numbers::U64(typed(chunk)),
        DType::F32 => Numbers::F32(typed(chunk)),
        DType::F64 => Numbers::F64(typed(chunk)),
    }
}

/// The type that elements have after [`frames_to_arrays`].
pub(crate) const DTYPE: rask_arrays::DType = <f64 as Element>::DTYPE;

/// Add a task a partition that turns it into a chunk of rows x `columns`.
pub(crate) fn frames_to_arrays(graph: &mut GraphBuilder, name: &str, partitions: &[TaskIdx], columns: &[String]) -> Vec<TaskIdx> {
    each(graph, name, partitions, "frame.to_array", &ToArrayArgs { columns: columns.to_vec() })
}

/// Add a task a chunk (of whole rows) that turns it into a partition with `columns`.
pub(crate) fn arrays_to_frames(graph: &mut GraphBuilder, name: &str, chunks: &[TaskIdx], columns: &[String]) -> Vec<TaskIdx> {
    each(graph, name, chunks, "frame.from_array", &FromArrayArgs { columns: columns.to_vec() })
}

fn each(graph: &mut GraphBuilder, name: &str, inputs: &[TaskIdx], operator: &str, args: &impl Serialize) -> Vec<TaskIdx> {
    // These arguments are lists of strings, which always have a JSON form.
    let args = serde_json::to_string(args).unwrap_or_default();
    let body = graph.body(Body::single(operator, 1, &args));
    let family = graph.family(name);
    let tasks = inputs.iter().zip(0..);
    tasks.map(|(input, member)| graph.task_with(KeyRef { family, member: Some(member) }, body).input(*input).add()).collect()
}

/// No rows of a frame made by [`arrays_to_frames`] of chunks of `dtype`: its schema is the frame's.
///
/// # Errors
/// When there are no columns.
pub(crate) fn empty(columns: &[String], dtype: DType) -> Result<Partition, KernelError> {
    let nothing = Chunk::from_bytes(dtype, vec![0, columns.len()], bytes::Bytes::new()).map_err(KernelError)?;
    numbers_to_columns(columns, numbers(&nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_frames_turn_into_each_other() {
        let chunk = Chunk::from_slice(vec![2, 2], &[1.0, 2.0, 3.0, f64::NAN]).unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let frame = from_array(&Value::new(chunk.clone()), &names).unwrap();
        assert_eq!(frame.downcast::<Partition>().unwrap().n_rows(), 2);
        let back = to_array(&frame, &[]).unwrap();
        assert_eq!(back.downcast::<Chunk>().unwrap(), &chunk);
        let most = Chunk::from_slice(vec![2], &[u64::MAX, 1]).unwrap();
        let exact = from_array(&Value::new(most), &["a".to_owned()]).unwrap();
        let schema = exact.downcast::<Partition>().unwrap().schema().clone();
        assert_eq!(empty(&["a".to_owned()], DType::U64).unwrap().schema(), &schema);
        let swapped = to_array(&frame, &["b".to_owned(), "a".to_owned()]).unwrap();
        assert_eq!(swapped.downcast::<Chunk>().unwrap().to_f64()[[0, 0]], 2.0);
    }

    #[test]
    fn misfits_are_named() {
        let chunk = Value::new(Chunk::from_slice(vec![1, 2], &[1.0, 2.0]).unwrap());
        assert_eq!(from_array(&chunk, &["a".to_owned()]).unwrap_err().0, "1 names for 2 columns");
        assert!(to_array(&chunk, &[]).unwrap_err().0.contains("a partition"));
        let cube = Value::new(Chunk::from_slice(vec![1, 1, 1], &[1.0]).unwrap());
        assert!(from_array(&cube, &["a".to_owned()]).unwrap_err().0.contains("3 axes"));
    }
}
