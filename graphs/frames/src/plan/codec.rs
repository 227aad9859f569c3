//! Plans and expressions as text for task arguments: DataFusion's protobuf form, base64.
//!
//! A table travels as the number of its slot; on the other side the slot's rows take its place. The form is that of this
//! DataFusion version only, which is no worry for arguments that live as long as a run: client and workers compare
//! versions when they meet.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use data_encoding::BASE64;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use datafusion_proto::bytes::{
    Serializeable, logical_plan_from_bytes_with_extension_codec, logical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::logical_plan::LogicalExtensionCodec;

use super::session;
use super::table_functions::FunctionTable;
use super::tables::{SlotTable, downcast};

/// What stands before a written call of a table function; a slot has four bytes and no more.
const FUNCTION: &[u8] = b"call:";

/// Writes slots; reads them as the tables at hand.
#[derive(Debug)]
struct SlotCodec {
    tables: Vec<Arc<dyn TableProvider>>,
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(DataFusionError::NotImplemented(format!("{what} in a distributed plan")))
}

impl LogicalExtensionCodec for SlotCodec {
    fn try_decode(&self, _buf: &[u8], _inputs: &[LogicalPlan], _ctx: &TaskContext) -> Result<Extension> {
        unsupported("an extension node")
    }

    fn try_encode(&self, node: &Extension, _buf: &mut Vec<u8>) -> Result<()> {
        unsupported(&format!("extension node {}", node.node.name()))
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        table_ref: &TableReference,
        _schema: SchemaRef,
        _ctx: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        if let Some(call) = buf.strip_prefix(FUNCTION) {
            return FunctionTable::from_bytes(call, &session::fresh());
        }
        let slot = <[u8; 4]>::try_from(buf).ok().and_then(|bytes| usize::try_from(u32::from_le_bytes(bytes)).ok());
        slot.and_then(|slot| self.tables.get(slot))
            .cloned()
            .ok_or_else(|| DataFusionError::Plan(format!("table {table_ref}: no input holds it")))
    }

    fn try_encode_table_provider(
        &self,
        table_ref: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        if let Some(table) = downcast::<FunctionTable>(&node) {
            buf.extend_from_slice(FUNCTION);
            buf.extend_from_slice(&table.to_bytes()?);
            return Ok(());
        }
        let Some(table) = downcast::<SlotTable>(&node) else {
            return unsupported(&format!("the table (or table function) {table_ref}"));
        };
        buf.extend_from_slice(&table.slot.to_le_bytes());
        Ok(())
    }
}

/// A plan over slots as text.
pub(crate) fn encode_plan(plan: &LogicalPlan) -> Result<String> {
    let bytes = logical_plan_to_bytes_with_extension_codec(plan, &SlotCodec { tables: Vec::new() })?;
    Ok(BASE64.encode(&bytes))
}

/// A plan whose slots are `tables`.
pub(crate) fn decode_plan(text: &str, tables: Vec<Arc<dyn TableProvider>>, ctx: &TaskContext) -> Result<LogicalPlan> {
    logical_plan_from_bytes_with_extension_codec(&decode_base64(text)?, ctx, &SlotCodec { tables })
}

/// An expression as text.
pub(crate) fn encode_expr(expr: &Expr) -> Result<String> {
    Ok(BASE64.encode(&expr.to_bytes()?))
}

/// Read back what [`encode_expr`] made.
pub(crate) fn decode_expr(text: &str, ctx: &TaskContext) -> Result<Expr> {
    Expr::from_bytes_with_ctx(&decode_base64(text)?, ctx)
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    BASE64.decode(text.as_bytes()).map_err(|error| DataFusionError::Plan(format!("not base64: {error}")))
}
