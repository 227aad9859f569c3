//! `frame.concat`: partitions one after the other as one partition.

use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::partitions;
use crate::partition::{KIND, Partition};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

pub(super) fn register(registry: &mut Registry) {
    let doc = "Put partitions with the same columns one after the other. Rows are shared with the inputs, not copied.";
    registry.register(
        OperatorSpec::new::<NoArgs>("frame.concat", 1, Arity::at_least(1), KIND, doc),
        |_ctx, _args: &NoArgs, inputs| Ok(Value::new(concat(&partitions(inputs)?)?)),
    );
}

/// The rows of all partitions in order.
pub(crate) fn concat(parts: &[&Partition]) -> Result<Partition, KernelError> {
    let Some(first) = parts.first() else { return Err(KernelError("no partitions".to_owned())) };
    let batches = parts.iter().flat_map(|part| part.batches().iter().cloned()).collect();
    // Empty partitions carry no batches whose columns would be compared.
    for part in parts {
        crate::partition::check_same_columns(first.schema(), part.schema())?;
    }
    Partition::try_new(loosest(parts, first), batches)
}

/// The first schema, nullable wherever any partition's is.
fn loosest(parts: &[&Partition], first: &Partition) -> arrow::datatypes::SchemaRef {
    let fields = first.schema().fields().iter().enumerate().map(|(idx, field)| {
        let is_nullable = parts.iter().any(|part| part.schema().field(idx).is_nullable());
        field.as_ref().clone().with_nullable(is_nullable)
    });
    std::sync::Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}
