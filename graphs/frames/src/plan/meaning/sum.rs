//! `sum` of integers: added in 128 bits, an error when the total does not fit into the column's 64. The order of the rows
//! then makes no difference. Other types are DataFusion's.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature};
use rustc_hash::FxBuildHasher;

/// Room for the sum of as many 64-bit numbers as there can be rows.
const WIDE: DataType = DataType::Decimal128(38, 0);

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    plain: Arc<AggregateUDF>,
}

pub(super) fn checked_sum() -> AggregateUDF {
    AggregateUDF::new_from_impl(CheckedSum { plain: sum_udaf() })
}

fn overflow(data_type: &DataType) -> DataFusionError {
    let name = crate::types::type_name(data_type);
    DataFusionError::Execution(format!("overflow: a sum does not fit into {name}; cast to decimal(38,0) before the sum"))
}

fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        if !is_whole(&data_type) {
            return self.plain.accumulator(args);
        }
        if args.is_distinct {
            return Ok(Box::new(DistinctSum { seen: HashSet::default(), data_type }));
        }
        Ok(Box::new(WideSum { total: 0, n_values: 0, data_type }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_whole(args.return_type()) {
            return self.plain.state_fields(args);
        }
        if args.is_distinct {
            let item = Field::new_list_field(WIDE, true);
            return Ok(vec![Field::new_list(format_state_name(args.name, "sum distinct"), item, false).into()]);
        }
        Ok(vec![Field::new(format_state_name(args.name, "sum"), WIDE, true).into()])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type().clone();
        if !is_whole(&data_type) {
            return self.plain.create_groups_accumulator(args);
        }
        let wide: FieldRef = Arc::new(Field::new(args.name, WIDE, true));
        let inputs = [Arc::clone(&wide)];
        let args = AccumulatorArgs { return_field: wide, expr_fields: &inputs, ..args };
        Ok(Box::new(WideGroups { sums: self.plain.create_groups_accumulator(args)?, data_type }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let is_whole = is_whole(args.return_field.data_type());
        if is_whole && !args.is_distinct { self.accumulator(args) } else { self.plain.create_sliding_accumulator(args) }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn widened(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(values, &WIDE)?)
}

fn wide_values(values: &ArrayRef) -> impl Iterator<Item = i128> + '_ {
    values.as_primitive::<Decimal128Type>().iter().flatten()
}

fn narrowed(total: i128, data_type: &DataType) -> Result<ScalarValue> {
    let narrow = if *data_type == DataType::UInt64 {
        u64::try_from(total).ok().map(|total| ScalarValue::UInt64(Some(total)))
    } else {
        i64::try_from(total).ok().map(|total| ScalarValue::Int64(Some(total)))
    };
    narrow.ok_or_else(|| overflow(data_type))
}

#[derive(Debug)]
struct WideSum {
    total: i128,
    n_values: i64,
    data_type: DataType,
}

impl WideSum {
    fn count(array: &ArrayRef) -> i64 {
        i64::try_from(array.len() - array.null_count()).unwrap_or(i64::MAX)
    }
}

impl Accumulator for WideSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = widened(&values[0])?;
        self.total += wide_values(&values).sum::<i128>();
        self.n_values += Self::count(&values);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.n_values == 0 { Ok(ScalarValue::try_from(&self.data_type)?) } else { narrowed(self.total, &self.data_type) }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128((self.n_values > 0).then_some(self.total), 38, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = widened(&values[0])?;
        self.total -= wide_values(&values).sum::<i128>();
        self.n_values -= Self::count(&values);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct DistinctSum {
    seen: HashSet<i128, FxBuildHasher>,
    data_type: DataType,
}

impl Accumulator for DistinctSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = widened(&values[0])?;
        self.seen.extend(wide_values(&values));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.seen.is_empty() {
            return ScalarValue::try_from(&self.data_type);
        }
        narrowed(self.seen.iter().sum(), &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.capacity() * size_of::<i128>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.seen.iter().map(|&value| ScalarValue::Decimal128(Some(value), 38, 0)).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &WIDE))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.seen.extend(wide_values(&list));
        }
        Ok(())
    }
}

/// DataFusion's sums of decimals, with integers around them.
struct WideGroups {
    sums: Box<dyn GroupsAccumulator>,
    data_type: DataType,
}

impl GroupsAccumulator for WideGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.update_batch(&[widened(&values[0])?], group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = self.sums.evaluate(emit_to)?;
        let options = CastOptions { safe: false, ..Default::default() };
        cast_with_options(&totals, &self.data_type, &options).map_err(|_| overflow(&self.data_type))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.sums.state(emit_to)?;
        let as_declared = |state: ArrayRef| -> Result<ArrayRef> {
            let state: &Decimal128Array = state.as_primitive::<Decimal128Type>();
            Ok(Arc::new(state.clone().with_precision_and_scale(38, 0)?))
        };
        states.into_iter().map(as_declared).collect()
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.sums.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.sums.convert_to_state(&[widened(&values[0])?], opt_filter)
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}
