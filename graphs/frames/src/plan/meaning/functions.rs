//! The functions that rules put into plans, by the names under which workers find them. People have no use for them.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, AsArray, Decimal128Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::arithmetic::{Arithmetic, Op};
use super::floats;

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![Arc::clone(&NAN), Arc::clone(&SORT_KEY), Arc::clone(&LENGTH), Arc::clone(&PATTERN)];
    all.extend(Op::ALL.map(|op| Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(op)))));
    all
}

/// NaN in one form, of a float.
pub(super) static NAN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| one("rask_nan", Same::Nan));
/// A float that sorts as numbers do: NaN in one form and above everything, no negative zero.
pub(super) static SORT_KEY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| one("rask_sort_key", Same::SortKey));
/// The length of an interval, months of 30 days and days of 24 hours, in nanoseconds.
pub(super) static LENGTH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| one("rask_interval_length", Same::Length));
/// The pattern with `\` as escape that means what the pattern with another escape does.
pub(super) static PATTERN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| one("rask_like_pattern", Same::Pattern));

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Same {
    Nan,
    SortKey,
    Length,
    Pattern,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    what: Same,
    signature: Signature,
}

fn one(name: &'static str, what: Same) -> Arc<ScalarUDF> {
    let n_args = if what == Same::Pattern { 2 } else { 1 };
    let signature = Signature::any(n_args, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Function { name, what, signature }))
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    /// What is put in unasked is not seen in names of columns.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|arg| arg.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(match self.what {
            Same::Nan | Same::SortKey => arg_types.first().cloned().unwrap_or(DataType::Null),
            Same::Length => DataType::Decimal128(38, 0),
            Same::Pattern => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result = match (self.what, arrays.as_slice()) {
            (Same::Nan, [values]) => floats::canonical(values),
            (Same::SortKey, [values]) => floats::sort_key(values),
            (Same::Length, [values]) => lengths(values)?,
            (Same::Pattern, [patterns, escapes]) => like_patterns(patterns, escapes)?,
            (Same::Nan | Same::SortKey | Same::Length | Same::Pattern, _) => {
                return Err(DataFusionError::Plan(format!("{}: a wrong number of arguments", self.name)));
            }
        };
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn lengths(values: &ArrayRef) -> Result<ArrayRef> {
    const DAY: i128 = 86_400_000_000_000;
    let values = cast(values, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let values = values.as_primitive::<IntervalMonthDayNanoType>();
    let length = |v: datafusion::arrow::datatypes::IntervalMonthDayNano| {
        (i128::from(v.months) * 30 + i128::from(v.days)) * DAY + i128::from(v.nanoseconds)
    };
    let lengths: Decimal128Array = values.iter().map(|value| value.map(length)).collect();
    Ok(Arc::new(lengths.with_precision_and_scale(38, 0)?))
}

fn like_patterns(patterns: &ArrayRef, escapes: &ArrayRef) -> Result<ArrayRef> {
    let (patterns, escapes) = (cast(patterns, &DataType::Utf8)?, cast(escapes, &DataType::Utf8)?);
    let pairs = patterns.as_string::<i32>().iter().zip(escapes.as_string::<i32>());
    let rewritten = pairs.map(|pair| match pair {
        (Some(pattern), Some(escape)) => like_pattern(pattern, escape.chars().next()).map(Some),
        (None, _) | (_, None) => Ok(None),
    });
    Ok(Arc::new(rewritten.collect::<Result<StringArray>>()?))
}

fn like_pattern(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut rewritten = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if Some(char) == escape {
            let Some(next) = chars.next() else {
                return Err(DataFusionError::Execution(format!("LIKE pattern '{pattern}' ends with its escape character")));
            };
            rewritten.push('\\');
            rewritten.push(next);
        } else {
            if char == '\\' {
                rewritten.push('\\');
            }
            rewritten.push(char);
        }
    }
    Ok(rewritten)
}

/// Whether `expr` is a call of `function`.
pub(super) fn is_call(expr: &Expr, function: &Arc<ScalarUDF>) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == function.name())
}

/// `function(arg)`, or `arg` when it is one already.
pub(super) fn wrap(function: &Arc<ScalarUDF>, arg: Expr) -> Expr {
    if is_call(&arg, function) { arg } else { function.call(vec![arg]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_keep_their_meaning_with_another_escape() {
        assert_eq!(like_pattern("a!%b!!c_", Some('!')).unwrap(), r"a\%b\!c_");
        assert_eq!(like_pattern(r"a\b", Some('!')).unwrap(), r"a\\b");
        assert_eq!(like_pattern(r"a\_b", None).unwrap(), r"a\\_b");
        assert!(like_pattern("a!", Some('!')).is_err());
    }
}
