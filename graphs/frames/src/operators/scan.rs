//! `frame.scan`: rows of one slice of a file, no more columns and rows than wanted.
//!
//! The formats' own files read batches of the columns needed; filters, limit and the final columns are applied here, the
//! same for all formats. Filters are exact: what a format can skip by itself (row groups by their statistics) is only
//! work saved.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, utils::conjunction};
use datafusion::physical_expr::PhysicalExpr;
use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, TaskContext, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{scan_arrow, scan_csv, scan_json, scan_parquet};
use crate::convert::convert;
use crate::error::plain_message;
use crate::partition::{KIND, Partition, nbytes_of_batch, schema_from_bytes};
use crate::plan::meaning::canonical_batch;
use crate::plan::sql::plan_condition;
use crate::plan::{bounds, codec, session};
use crate::source::infer::{self, check_names};
use crate::source::{self, Format, ReadOptions};
use crate::text::values::{BadValue, Origin};

/// Batches with fewer rows than this are joined: a filter leaves many small ones, and each costs a little forever after.
const MIN_BATCH_ROWS: usize = 4096;

/// Most conditions that a planner pushes into one scan: each lies a level deeper than the last.
const MAX_PUSHED: usize = 20_000;

/// Arguments of `frame.scan`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanArgs {
    /// The file.
    pub(crate) path: String,
    /// csv, parquet, json or arrow; by the file's extension when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Format>,
    /// CSV and JSON: read the lines that begin in this range of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<(u64, u64)>,
    /// Parquet: read these row groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) row_groups: Option<Vec<usize>>,
    /// The columns wanted, in order; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) columns: Option<Vec<String>>,
    /// A condition in SQL that rows must meet.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<String>,
    /// Stop after so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
    /// How to read the file.
    #[serde(default)]
    pub(crate) options: ReadOptions,
    /// Conditions that the planner has pushed down; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pushed: Vec<Pushed>,
    /// The columns of the file as the planner has found them (base64 of an Arrow IPC schema); found anew when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
}

/// A condition pushed down by the planner.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pushed {
    /// In words, for people.
    pub(crate) text: String,
    /// What is evaluated (base64 of DataFusion's protobuf form).
    pub(crate) expr: String,
}

pub(super) fn register(registry: &mut Registry) {
    let doc = "Read a file, or a slice of one, as a partition. Only the columns and rows asked for are kept.";
    registry.register(OperatorSpec::new::<ScanArgs>("frame.scan", 1, Arity::exactly(0), KIND, doc), |ctx, args, _inputs| {
        bounds::planning(|| Ok(Value::new(scan(ctx, args)?)))
    });
}

/// What a format must read.
pub(crate) struct Request<'a> {
    pub(crate) ctx: &'a TaskContext,
    pub(crate) path: &'a Path,
    pub(crate) options: &'a ReadOptions,
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) row_groups: Option<&'a [usize]>,
    /// All columns of the file, as planned.
    pub(crate) file_schema: &'a SchemaRef,
    /// The columns to read: those wanted and those that the filter looks at, in file order.
    pub(crate) needed: SchemaRef,
    /// The filter over `needed`.
    pub(crate) predicate: Option<Arc<dyn PhysicalExpr>>,
}

/// Takes the batches of a scan in order; they may have more columns than needed, in any order. Answers whether it wants
/// more.
pub(crate) struct Sink<'a> {
    request: &'a Request<'a>,
    output: SchemaRef,
    n_left: Option<usize>,
    batches: Vec<RecordBatch>,
    nbytes: u64,
}

fn scan(ctx: &TaskContext, args: &ScanArgs) -> Result<Partition, KernelError> {
    args.options.check().map_err(KernelError)?;
    let path = PathBuf::from(&args.path);
    let format = args.format.or_else(|| Format::of_path(&path));
    let format = format.ok_or_else(|| KernelError(format!("{}: say which format it has", args.path)))?;
    let file_schema = match &args.schema {
        Some(schema) => planned_schema(schema)?,
        None => infer::schema(&ctx.files, format, std::slice::from_ref(&path), &args.options)?.0,
    };
    let (filter, predicate_columns) = filter_of(args, &file_schema)?;
    let output = match &args.columns {
        None => Arc::clone(&file_schema),
        Some(columns) => project(&file_schema, columns)?,
    };
    let needed = needed_columns(&file_schema, &output, &predicate_columns);
    let predicate = filter.map(|filter| physical(filter, &needed)).transpose()?;
    let request = Request {
        ctx,
        path: &path,
        options: &args.options,
        range: args.range,
        row_groups: args.row_groups.as_deref(),
        file_schema: &file_schema,
        needed,
        predicate,
    };
    let mut sink = Sink { request: &request, output: Arc::clone(&output), n_left: args.limit, batches: Vec::new(), nbytes: 0 };
    match format {
        Format::Csv => scan_csv::csv(&request, &mut sink)?,
        Format::Json => scan_json::json(&request, &mut sink)?,
        Format::Parquet => scan_parquet::parquet(&request, &mut sink)?,
        Format::Arrow => scan_arrow::arrow(&request, &mut sink)?,
    }
    Partition::try_new(Arc::clone(&output), compact(&output, sink.batches)?)
}

fn planned_schema(schema: &str) -> Result<SchemaRef, KernelError> {
    let bytes = data_encoding::BASE64.decode(schema.as_bytes())?;
    schema_from_bytes(&bytes).map_err(KernelError)
}

fn project(schema: &Schema, columns: &[String]) -> Result<SchemaRef, KernelError> {
    let places = places(schema);
    let find = |name: &String| {
        places.get(name.as_str()).map(|&place| schema.field(place).clone()).ok_or_else(|| {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).take(100).collect();
            KernelError(format!("there is no column \"{name}\" among {}", known.join(", ")))
        })
    };
    Ok(Arc::new(Schema::new(columns.iter().map(find).collect::<Result<Vec<_>, _>>()?)))
}

/// The conjunction of all conditions, and the columns it looks at.
fn filter_of(args: &ScanArgs, schema: &SchemaRef) -> Result<(Option<Expr>, Vec<String>), KernelError> {
    // A session is not free, and many scans have no condition.
    if args.filter.is_none() && args.pushed.is_empty() {
        return Ok((None, Vec::new()));
    }
    let plain = |error| KernelError(plain_message(&error));
    let state = session::fresh();
    let mut conditions = Vec::new();
    if let Some(text) = &args.filter {
        let table = DFSchema::try_from(Arc::clone(schema)).map_err(plain)?;
        conditions.push(plan_condition(&state, text, &table)?);
    }
    if args.pushed.len() > MAX_PUSHED {
        return Err(KernelError(format!("{} conditions, at most {MAX_PUSHED} are allowed", args.pushed.len())));
    }
    for pushed in &args.pushed {
        conditions.push(codec::decode_expr(&pushed.expr, &state.task_ctx()).map_err(plain)?);
    }
    let Some(filter) = conjunction(conditions) else { return Ok((None, Vec::new())) };
    let filter = filter.transform(unqualify).map_err(plain)?.data;
    let columns = filter.column_refs().into_iter().map(|column| column.name.clone()).collect();
    Ok((Some(filter), columns))
}

fn unqualify(expr: Expr) -> datafusion::error::Result<datafusion::common::tree_node::Transformed<Expr>> {
    use datafusion::common::tree_node::Transformed;
    if let Expr::Column(column) = &expr
        && column.relation.is_some()
    {
        return Ok(Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(column.name.clone()))));
    }
    Ok(Transformed::no(expr))
}

fn needed_columns(file: &Schema, output: &Schema, predicate_columns: &[String]) -> SchemaRef {
    let names = output.fields().iter().map(|field| field.name());
    let needed: FxHashSet<&String> = names.chain(predicate_columns).collect();
    Arc::new(Schema::new(file.fields().iter().filter(|field| needed.contains(field.name())).cloned().collect::<Vec<_>>()))
}

/// Where each column of `schema` is, by name. Looking names up one by one in thousands of columns takes as many squared.
pub(crate) fn places(schema: &Schema) -> FxHashMap<&str, usize> {
    schema.fields().iter().map(|field| field.name().as_str()).zip(0..).collect()
}

fn physical(filter: Expr, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, KernelError> {
    let plain = |error| KernelError(plain_message(&error));
    let table = DFSchema::try_from(Arc::clone(schema)).map_err(plain)?;
    session::fresh().create_physical_expr(filter, &table).map_err(plain)
}

impl Request<'_> {
    /// Open the file, naming it when that fails.
    pub(crate) fn open(&self) -> Result<File, KernelError> {
        Ok(source::open(&self.ctx.files, self.path)?)
    }

    /// `error`, with the file named.
    pub(crate) fn fail(&self, error: impl std::fmt::Display) -> KernelError {
        KernelError(format!("{}: {error}", self.path.display()))
    }

    /// `error`, with the file and the line named.
    pub(crate) fn fail_at(&self, line: u64, error: impl std::fmt::Display) -> KernelError {
        KernelError(format!("{}:{line}: {error}", self.path.display()))
    }

    /// Whether the type of a column was given or guessed.
    pub(crate) fn origin_of(&self, column: &str) -> Origin {
        if self.options.types.contains_key(column) { Origin::Given } else { Origin::Guessed }
    }

    /// What is wrong with a value of `column`, and what to write so that it is not.
    pub(crate) fn describe(&self, field: &Field, bad: &BadValue) -> String {
        let (column, BadValue { reason, better, .. }) = (field.name(), bad);
        if better.is_empty() {
            return format!("column \"{column}\": {reason}");
        }
        // The types of what is inside of objects and lists cannot be given.
        if field.data_type().is_nested() {
            return format!("column \"{column}\": {reason}; a larger infer_rows looks at more");
        }
        format!("column \"{column}\": {reason}; types = {{ {} = \"{better}\" }} reads it", toml_key(column))
    }
}

/// `name` as a key in a graph file.
pub(crate) fn toml_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_owned() } else { format!("{name:?}") }
}

impl Sink<'_> {
    /// Filter and keep a batch; `false` once no more rows are wanted.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<bool, KernelError> {
        self.request.ctx.check_cancelled()?;
        check_names(batch.schema_ref()).map_err(|error| self.request.fail(error))?;
        let batch = adapt(batch, &self.request.needed).map_err(|error| self.request.fail(error))?;
        let mut batch = canonical_batch(batch)?;
        if let Some(predicate) = &self.request.predicate {
            let verdict = predicate.evaluate(&batch).and_then(|value| value.into_array(batch.num_rows()));
            let verdict = verdict.map_err(|error| self.request.fail(plain_message(&error)))?;
            let verdict = verdict.as_any().downcast_ref::<BooleanArray>().ok_or_else(|| {
                KernelError(format!("a condition must be true or false, not {}", crate::types::type_name(verdict.data_type())))
            })?;
            batch = filter_record_batch(&batch, verdict)?;
        }
        let mut batch = select(&batch, &self.output)?;
        if let Some(n_left) = &mut self.n_left {
            batch = batch.slice(0, batch.num_rows().min(*n_left));
            *n_left -= batch.num_rows();
        }
        if batch.num_rows() > 0 {
            // A small file may hold very many rows, and only reading it tells.
            self.nbytes = self.nbytes.saturating_add(nbytes_of_batch(&batch));
            self.request.ctx.check_memory(self.nbytes).map_err(|error| self.request.fail(error))?;
            self.batches.push(batch);
        }
        Ok(self.n_left != Some(0))
    }

    /// Rows that suffice when every row read is kept.
    pub(crate) fn n_rows_wanted(&self) -> Option<usize> {
        if self.request.predicate.is_none() { self.n_left } else { None }
    }
}

/// The columns of `schema` out of `batch` by name: converted where the file has another type than planned, null where it
/// has no such column.
fn adapt(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, KernelError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let places = places(batch.schema_ref());
    for field in schema.fields() {
        columns.push(match places.get(field.name().as_str()).map(|&place| batch.column(place)) {
            Some(column) => convert(column, field.data_type())
                .map_err(|error| KernelError(format!("column \"{}\": {error}", field.name())))?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The columns of `schema` out of `batch`, which has them.
fn select(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, KernelError> {
    let places = places(batch.schema_ref());
    let columns = schema.fields().iter().filter_map(|field| places.get(field.name().as_str()));
    let columns = columns.map(|&place| Arc::clone(batch.column(place))).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Join runs of small batches.
fn compact(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, KernelError> {
    // Batches without columns have nothing to join but their numbers of rows.
    if schema.fields().is_empty() {
        return Ok(batches);
    }
    let mut compacted = Vec::new();
    let mut run: Vec<RecordBatch> = Vec::new();
    let mut n_rows = 0;
    for batch in batches {
        n_rows += batch.num_rows();
        run.push(batch);
        if n_rows >= MIN_BATCH_ROWS {
            compacted.push(join(schema, &mut run)?);
            n_rows = 0;
        }
    }
    if !run.is_empty() {
        compacted.push(join(schema, &mut run)?);
    }
    Ok(compacted)
}

fn join(schema: &SchemaRef, run: &mut Vec<RecordBatch>) -> Result<RecordBatch, KernelError> {
    match run.pop() {
        Some(only) if run.is_empty() => Ok(only),
        Some(last) => {
            run.push(last);
            let joined = concat_batches(schema, run.iter())?;
            run.clear();
            Ok(joined)
        }
        None => Ok(RecordBatch::new_empty(Arc::clone(schema))),
    }
}
