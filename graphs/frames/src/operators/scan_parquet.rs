//! Reading Parquet: only the columns needed, and only the row groups whose statistics leave a chance of a match.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use rask_graphs::KernelError;

use super::scan::{Request, Sink};
use crate::source::footers::footer;

/// Rows of a batch, and values of one in all its columns.
const BATCH_ROWS: usize = 8192;
const BATCH_VALUES: usize = 1 << 22;

/// Read the row groups asked for.
pub(super) fn parquet(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    let file = request.open()?;
    let footer = footer(&file, request.path)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer);
    let metadata = Arc::clone(builder.metadata());
    let n_row_groups = metadata.num_row_groups();
    let asked: Vec<usize> = match request.row_groups {
        Some(row_groups) => row_groups.to_vec(),
        None => (0..n_row_groups).collect(),
    };
    if let Some(missing) = asked.iter().find(|&&idx| idx >= n_row_groups) {
        return Err(request.fail(format!("row group {missing} of {n_row_groups}; the file has changed")));
    }
    let row_groups = prune(request, &metadata, builder.schema(), asked);
    let descriptor = builder.parquet_schema();
    let roots = builder.schema().fields().iter().enumerate();
    let wanted = roots.filter(|(_, field)| request.needed.field_with_name(field.name()).is_ok()).map(|(idx, _)| idx);
    let wanted: Vec<usize> = wanted.collect();
    let n_rows = (BATCH_VALUES / wanted.len().max(1)).clamp(1, BATCH_ROWS);
    let mask = ProjectionMask::roots(descriptor, wanted);
    let mut builder = builder.with_projection(mask).with_row_groups(row_groups).with_batch_size(n_rows);
    if let Some(n_rows) = sink.n_rows_wanted() {
        builder = builder.with_limit(n_rows);
    }
    for batch in builder.build().map_err(|error| request.fail(error))? {
        if !sink.push(&batch.map_err(|error| request.fail(error))?)? {
            break;
        }
    }
    Ok(())
}

/// Those of `asked` in which a row may match. Whatever cannot be decided from the statistics stays.
pub(crate) fn prune(request: &Request<'_>, metadata: &ParquetMetaData, file_schema: &SchemaRef, asked: Vec<usize>) -> Vec<usize> {
    let Some(predicate) = &request.predicate else { return asked };
    // Statistics are of the types in the file; where those differ from the planned ones the comparison would be wrong.
    let is_as_planned = request
        .needed
        .fields()
        .iter()
        .all(|field| file_schema.field_with_name(field.name()).is_ok_and(|own| own.data_type() == field.data_type()));
    if !is_as_planned {
        return asked;
    }
    let predicate = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&request.needed)).build(Arc::clone(predicate));
    let Some(predicate) = predicate else { return asked };
    let statistics = RowGroupStatistics {
        row_groups: asked.iter().map(|&idx| metadata.row_group(idx)).collect(),
        metadata,
        schema: file_schema,
    };
    match predicate.prune(&statistics) {
        Ok(keep) => asked.into_iter().zip(keep).filter_map(|(idx, keep)| keep.then_some(idx)).collect(),
        // Pruning only saves work; a predicate it cannot handle is evaluated on the rows.
        Err(_) => asked,
    }
}

struct RowGroupStatistics<'a> {
    row_groups: Vec<&'a RowGroupMetaData>,
    metadata: &'a ParquetMetaData,
    schema: &'a Schema,
}

impl<'a> RowGroupStatistics<'a> {
    fn converter(&'a self, column: &'a Column) -> Option<StatisticsConverter<'a>> {
        let converter = StatisticsConverter::try_new(&column.name, self.schema, self.metadata.file_metadata().schema_descr());
        // A file that does not count its nulls may have any number of them.
        Some(converter.ok()?.with_missing_null_counts_as_zero(false))
    }

    /// The converter of a column whose least and greatest values bound all of them. Those of floats do not: NaN, which is
    /// greater than every number, is left out of them. Nor do those of the first version of the format for what it compared
    /// as if it were signed bytes.
    fn bounds(&'a self, column: &'a Column) -> Option<StatisticsConverter<'a>> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        if has_floats(field.data_type()) {
            return None;
        }
        let converter = self.converter(column)?;
        let leaf = converter.parquet_column_index()?;
        let is_signed = field.data_type().is_signed_integer() || field.data_type().is_temporal();
        let are_old = |group: &&RowGroupMetaData| {
            group.column(leaf).statistics().is_some_and(|statistics| statistics.is_min_max_deprecated())
        };
        if !is_signed && self.row_groups.iter().any(are_old) {
            return None;
        }
        Some(converter)
    }
}

fn has_floats(data_type: &DataType) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: all others have an order of their own")]
    match data_type {
        DataType::Dictionary(_, values) => has_floats(values),
        other => other.is_floating() || other.is_nested(),
    }
}

impl PruningStatistics for RowGroupStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column)?.row_group_mins(self.row_groups.iter().copied()).ok()
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column)?.row_group_maxes(self.row_groups.iter().copied()).ok()
    }

    fn num_containers(&self) -> usize {
        self.row_groups.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let counts = self.converter(column)?.row_group_null_counts(self.row_groups.iter().copied()).ok()?;
        Some(Arc::new(counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts: UInt64Array = self.row_groups.iter().map(|group| u64::try_from(group.num_rows()).ok()).collect();
        Some(Arc::new(counts))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
