//! Functions whose results are as large as a number says: `lpad('x', 2000000000, 'y')` is two gigabytes and ten seconds from
//! thirty letters, and the optimiser would make it while it plans. They are asked for their sizes first.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The functions, and which of their arguments is the number.
const SIZED: [(&str, usize); 6] =
    [("lpad", 1), ("rpad", 1), ("repeat", 1), ("array_repeat", 1), ("array_resize", 1), ("list_resize", 1)];

/// Most letters or elements that one call makes, of all rows of a batch together.
const MAX_SIZE: i64 = 1 << 27;

/// Put the functions that ask first in the place of those that do not.
pub(super) fn install(state: &mut SessionState) -> Result<()> {
    for (name, idx) in SIZED {
        if let Ok(function) = state.udf(name)
            && function.name() == name
        {
            let sized = Sized { function: function.as_ref().clone(), idx };
            state.register_udf(Arc::new(ScalarUDF::new_from_impl(sized)))?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sized {
    function: ScalarUDF,
    idx: usize,
}

impl ScalarUDFImpl for Sized {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let size = match args.args.get(self.idx) {
            Some(number) => size_of(number, args.number_rows)?,
            None => 0,
        };
        if size > MAX_SIZE {
            let name = self.name();
            return Err(DataFusionError::Execution(format!(
                "{name} would make {size} letters or elements, at most {MAX_SIZE} are allowed"
            )));
        }
        self.function.invoke_with_args(args)
    }
}

/// The sum of the numbers of all rows.
fn size_of(number: &ColumnarValue, n_rows: usize) -> Result<i64> {
    match number {
        ColumnarValue::Scalar(value) => match value.cast_to(&DataType::Int64) {
            // A constant is one for all rows; how many they are decides when anything else differs.
            Ok(ScalarValue::Int64(Some(size))) => {
                Ok(size.max(0).saturating_mul(i64::try_from(n_rows.max(1)).unwrap_or(i64::MAX)))
            }
            Ok(_) | Err(_) => Ok(0),
        },
        ColumnarValue::Array(sizes) => {
            let Ok(sizes) = cast(sizes, &DataType::Int64) else { return Ok(0) };
            let sizes = sizes.as_primitive::<Int64Type>();
            Ok(sizes.iter().flatten().fold(0_i64, |sum, size| sum.saturating_add(size.max(0))))
        }
    }
}
