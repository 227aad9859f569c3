//! `min` and `max` of floats over integer keys of the same order, so that NaN is the largest whatever the order of the
//! rows. Other types are DataFusion's.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature};

use super::floats::{from_keys, to_keys};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    plain: Arc<AggregateUDF>,
}

pub(super) fn both() -> [AggregateUDF; 2] {
    [min_udaf(), max_udaf()].map(|plain| AggregateUDF::new_from_impl(Extreme { plain }))
}

impl Extreme {
    /// What `make` makes when the values are keys; `None` when they are no floats.
    fn keyed<T>(&self, args: &AccumulatorArgs, make: impl FnOnce(AccumulatorArgs) -> Result<T>) -> Option<Result<(T, DataType)>> {
        let data_type = args.return_field.data_type().clone();
        if !data_type.is_floating() {
            return None;
        }
        let key: FieldRef = Arc::new(Field::new(args.name, DataType::Int64, true));
        let inputs = [Arc::clone(&key)];
        let args = AccumulatorArgs { return_field: key, expr_fields: &inputs, ..args.clone() };
        Some(make(args).map(|made| (made, data_type)))
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(arg_types)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.plain.coerce_types(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.keyed(&args, |args| self.plain.accumulator(args)) {
            Some(made) => made.map(|(keys, data_type)| Box::new(Keyed { keys, data_type }) as _),
            None => self.plain.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !args.return_type().is_floating() {
            return self.plain.state_fields(args);
        }
        Ok(vec![Field::new(format_state_name(args.name, self.name()), DataType::Int64, true).into()])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        args.return_field.data_type().is_floating() || self.plain.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match self.keyed(&args, |args| self.plain.create_groups_accumulator(args)) {
            Some(made) => made.map(|(keys, data_type)| Box::new(KeyedGroups { keys, data_type }) as _),
            None => self.plain.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.keyed(&args, |args| self.plain.create_sliding_accumulator(args)) {
            Some(made) => made.map(|(keys, data_type)| Box::new(Keyed { keys, data_type }) as _),
            None => self.plain.create_sliding_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn keys_of(values: &[ArrayRef]) -> Result<[ArrayRef; 1]> {
    Ok([Arc::new(to_keys(&values[0])?)])
}

#[derive(Debug)]
struct Keyed {
    keys: Box<dyn Accumulator>,
    data_type: DataType,
}

impl Accumulator for Keyed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.keys.update_batch(&keys_of(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let key = self.keys.evaluate()?.to_array()?;
        let value = from_keys(key.as_primitive::<Int64Type>(), &self.data_type)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.keys.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.keys.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.keys.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.keys.retract_batch(&keys_of(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.keys.supports_retract_batch()
    }
}

struct KeyedGroups {
    keys: Box<dyn GroupsAccumulator>,
    data_type: DataType,
}

impl GroupsAccumulator for KeyedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.keys.update_batch(&keys_of(values)?, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let keys = self.keys.evaluate(emit_to)?;
        Ok(from_keys(keys.as_primitive::<Int64Type>(), &self.data_type)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.keys.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.keys.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.keys.convert_to_state(&keys_of(values)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.keys.size()
    }
}
