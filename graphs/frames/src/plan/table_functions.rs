//! Table functions (`generate_series`, `range`) that travel: as their names and arguments, called again on the other side.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};

use super::codec;

/// What a call of a table function made, with the call.
#[derive(Debug)]
pub(crate) struct FunctionTable {
    call: Call,
    rows: Arc<dyn TableProvider>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    function: String,
    /// Literals, as [`codec`] writes them.
    args: Vec<String>,
}

/// A table function whose tables remember how they were called.
#[derive(Debug)]
struct Remembering(Arc<TableFunction>);

impl TableFunctionImpl for Remembering {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let written = args.exprs().iter().map(codec::encode_expr).collect::<Result<Vec<_>>>()?;
        let call = Call { function: self.0.name().to_owned(), args: written };
        let rows = self.0.create_table_provider_with_args(args)?;
        Ok(Arc::new(FunctionTable { call, rows }))
    }
}

/// `builder` with every table function made to travel.
pub(crate) fn install(state: SessionState) -> SessionState {
    let functions = state.table_functions().iter().map(|(name, function)| {
        let remembering = TableFunction::new(name.clone(), Arc::new(Remembering(Arc::clone(function))));
        (name.clone(), Arc::new(remembering))
    });
    let functions = functions.collect();
    SessionStateBuilder::new_from_existing(state).with_table_functions(functions).build()
}

impl FunctionTable {
    /// The call, written.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.call).map_err(|error| DataFusionError::Internal(error.to_string()))
    }

    /// Call again what [`FunctionTable::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8], state: &SessionState) -> Result<Arc<dyn TableProvider>> {
        let call: Call = serde_json::from_slice(bytes).map_err(|error| DataFusionError::Plan(error.to_string()))?;
        let Some(function) = state.table_functions().get(&call.function) else {
            return Err(DataFusionError::Plan(format!("there is no table function {}", call.function)));
        };
        let ctx = state.task_ctx();
        let args = call.args.iter().map(|arg| codec::decode_expr(arg, &ctx)).collect::<Result<Vec<_>>>()?;
        function.create_table_provider_with_args(TableFunctionArgs::new(&args, state))
    }
}

#[async_trait::async_trait]
impl TableProvider for FunctionTable {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        self.rows.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.rows.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }

    async fn scan_with_args<'a>(&self, state: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        self.rows.scan_with_args(state, args).await
    }
}
