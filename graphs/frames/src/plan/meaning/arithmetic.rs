//! `+ - * / %` that never lie: integers and times that do not fit are an error, and NaN has one form.
//!
//! They are functions because the plan's own operators wrap, also while constants are folded.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Datum};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum;

use super::floats;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Op {
    pub(super) const ALL: [Self; 5] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide, Self::Remainder];

    fn name(self) -> &'static str {
        match self {
            Self::Add => "rask_add",
            Self::Subtract => "rask_subtract",
            Self::Multiply => "rask_multiply",
            Self::Divide => "rask_divide",
            Self::Remainder => "rask_remainder",
        }
    }

    fn operator(self) -> Operator {
        match self {
            Self::Add => Operator::Plus,
            Self::Subtract => Operator::Minus,
            Self::Multiply => Operator::Multiply,
            Self::Divide => Operator::Divide,
            Self::Remainder => Operator::Modulo,
        }
    }

    fn apply(self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
        let result = match self {
            Self::Add => numeric::add(left, right)?,
            Self::Subtract => numeric::sub(left, right)?,
            Self::Multiply => numeric::mul(left, right)?,
            Self::Divide => numeric::div(left, right)?,
            Self::Remainder => numeric::rem(left, right)?,
        };
        Ok(floats::canonical(&result))
    }
}

/// The function to use in place of `op` on operands of these types, if DataFusion's own would not do.
pub(super) fn replacement(op: Operator, left: &DataType, right: &DataType) -> Option<Arc<ScalarUDF>> {
    let op = Op::ALL.into_iter().find(|known| known.operator() == op)?;
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..) | DataType::Duration(_));
    let is_wrong = match op {
        Op::Add | Op::Subtract => (left.is_integer() && right.is_integer()) || (is_time(left) && is_time(right)),
        Op::Multiply => left.is_integer() && right.is_integer(),
        Op::Divide | Op::Remainder => false,
    };
    let is_float = left.is_floating() && right.is_floating();
    (is_float || is_wrong).then(|| Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(op))))
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Arithmetic {
    op: Op,
    signature: Signature,
}

impl Arithmetic {
    pub(super) fn new(op: Op) -> Self {
        Self { op, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn written(&self, args: &[String]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("{left} {} {right}", self.op.operator())),
            _ => Err(DataFusionError::Plan(format!("{} takes two arguments", self.op.name()))),
        }
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.op.name()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.written(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.written(&args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [left, right] => BinaryTypeCoercer::new(left, &self.op.operator(), right).get_result_type(),
            _ => Err(DataFusionError::Plan(format!("{} takes two arguments", self.op.name()))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(DataFusionError::Plan(format!("{} takes two arguments", self.op.name())));
        };
        datum::apply(left, right, |left, right| self.op.apply(left, right))
    }
}
