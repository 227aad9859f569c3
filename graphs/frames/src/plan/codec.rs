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
use datafusion_proto::logical_plan::from_proto::parse_expr;
use datafusion_proto::logical_plan::to_proto::serialize_expr;
use datafusion_proto::logical_plan::{AsLogicalPlan, LogicalExtensionCodec};
use datafusion_proto::protobuf::{LogicalExprNode, LogicalPlanNode};
use prost::Message;

use super::pieces::Piece;
use super::session;
use super::table_functions::FunctionTable;
use super::tables::{SlotTable, downcast};
use super::{admit, pieces};

/// What stands before a written call of a table function; a slot has four bytes and no more.
const FUNCTION: &[u8] = b"call:";

/// Writes slots; reads them as the tables at hand.
#[derive(Debug, Default)]
struct SlotCodec {
    tables: Vec<Arc<dyn TableProvider>>,
    /// What has been read of the plan so far.
    pieces: Vec<LogicalPlan>,
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(DataFusionError::NotImplemented(format!("{what} in a distributed plan")))
}

impl LogicalExtensionCodec for SlotCodec {
    fn try_decode(&self, buf: &[u8], _inputs: &[LogicalPlan], _ctx: &TaskContext) -> Result<Extension> {
        let number = <[u8; 4]>::try_from(buf).map(u32::from_le_bytes).unwrap_or(u32::MAX);
        match self.pieces.get(number as usize) {
            Some(piece) => Ok(Piece::of(number, piece)),
            None => unsupported("an extension"),
        }
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        match Piece::from_step(&LogicalPlan::Extension(node.clone())) {
            Some(piece) => buf.extend_from_slice(&piece.number.to_le_bytes()),
            None => return unsupported(&format!("the extension {}", node.node.name())),
        }
        Ok(())
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

/// Longest plan or expression that is read.
const MAX_NBYTES: usize = 32 << 20;

/// A plan over slots as texts: its pieces, from the bottom.
pub(crate) fn encode_plan(plan: &LogicalPlan) -> Result<Vec<String>> {
    let (mut texts, mut sizes) = (Vec::new(), Vec::new());
    for piece in pieces::take_apart(plan.clone())? {
        let mut node = LogicalPlanNode::try_from_logical_plan(&piece, &SlotCodec::default())?;
        let bytes = node.encode_to_vec();
        // What cannot be read is better said here than by the worker.
        read_message::<LogicalPlanNode>(&bytes)?;
        sizes.push(admit::check_plan(&mut node, &sizes)?);
        texts.push(BASE64.encode(&bytes));
    }
    Ok(texts)
}

/// A plan whose slots are `tables`, which is all that it may touch.
pub(crate) fn decode_plan(texts: &[&str], tables: Vec<Arc<dyn TableProvider>>, ctx: &TaskContext) -> Result<LogicalPlan> {
    let mut codec = SlotCodec { tables, pieces: Vec::new() };
    let mut sizes = Vec::new();
    for text in texts {
        let mut node: LogicalPlanNode = read_message(&decode_base64(text)?)?;
        sizes.push(admit::check_plan(&mut node, &sizes)?);
        let piece = node.try_into_logical_plan(ctx, &codec)?;
        let piece = pieces::put_together(piece, &codec.pieces)?;
        codec.pieces.push(piece);
    }
    let plan = codec.pieces.pop().ok_or_else(|| DataFusionError::Plan("not a plan: there is nothing in it".to_owned()))?;
    admit::check_tables(&plan, &codec.tables)?;
    Ok(plan)
}

/// An expression as text.
pub(crate) fn encode_expr(expr: &Expr) -> Result<String> {
    let mut node = serialize_expr(expr, &SlotCodec::default())?;
    let bytes = node.encode_to_vec();
    read_message::<LogicalExprNode>(&bytes)?;
    admit::check_condition(&mut node)?;
    Ok(BASE64.encode(&bytes))
}

/// Read back what [`encode_expr`] made.
pub(crate) fn decode_expr(text: &str, ctx: &TaskContext) -> Result<Expr> {
    let mut node: LogicalExprNode = read_message(&decode_base64(text)?)?;
    admit::check_condition(&mut node)?;
    Ok(parse_expr(&node, ctx, &SlotCodec::default())?)
}

/// A message whose parts nest to a hundred levels at most: that is what its reader allows.
fn read_message<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|error| {
        let text = error.to_string();
        DataFusionError::Plan(if text.contains("recursion limit") {
            "the query is nested too deeply: compute it in steps, each a frame of its own that several queries use".to_owned()
        } else {
            format!("not a plan: {text}")
        })
    })
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    if text.len() > MAX_NBYTES {
        return Err(DataFusionError::Plan(format!("a plan of {} bytes, at most {MAX_NBYTES} are allowed", text.len())));
    }
    BASE64.decode(text.as_bytes()).map_err(|error| DataFusionError::Plan(format!("not base64: {error}")))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
