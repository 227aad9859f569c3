//! Arithmetic of numbers alone, as Python does it: integers exactly, or not at all; nothing wraps.
//!
//! Integers have 128 bits here. What needs more is an error, as is what Python refuses: division by zero, a negative
//! shift, a root of a negative number.

use std::cmp::Ordering;

use super::Mistake;
use crate::function::Function;
use crate::scalar::Scalar;

/// Beyond 2^53 not every integer is a float.
const EXACT_IN_FLOAT: u128 = 1 << 53;

type Outcome = Result<Scalar, Mistake>;

fn too_large() -> Mistake {
    Mistake {
        message: "the integer is too large: 128 bits are possible".to_owned(),
        hint: Some("write one of the numbers as a float, 2.0**200".to_owned()),
    }
}

fn by_zero() -> Mistake {
    Mistake::new("division by zero")
}

/// The result of `function`, if it is one that Python has for numbers; `None` for the others.
pub(super) fn compute(function: Function, operands: &[Scalar]) -> Option<Outcome> {
    match *operands {
        [operand] => unary(function, operand),
        [left, right] => binary(function, left, right),
        _ => None,
    }
}

fn unary(function: Function, operand: Scalar) -> Option<Outcome> {
    use Function as F;
    let integer = integer_of(operand);
    let checked = |result: Option<i128>| result.map(Scalar::Int).ok_or_else(too_large);
    Some(match (function, operand) {
        (F::Negative, Scalar::Float(value)) => Ok(Scalar::Float(-value)),
        (F::Negative, _) => checked(integer.and_then(i128::checked_neg)),
        (F::Absolute, Scalar::Float(value)) => Ok(Scalar::Float(value.abs())),
        (F::Absolute, _) => checked(integer.and_then(i128::checked_abs)),
        (F::Square, Scalar::Float(value)) => Ok(Scalar::Float(value * value)),
        (F::Square, _) => checked(integer.and_then(|value| value.checked_mul(value))),
        (F::Invert, Scalar::Float(_)) => Err(Mistake::new("~ is not defined for floats")),
        (F::Invert, _) => checked(integer.map(|value| !value)),
        (F::Floor | F::Ceil | F::Trunc | F::Round, Scalar::Int(_)) => Ok(operand),
        _ => return None,
    })
}

/// Truth values count as 0 and 1.
fn integer_of(scalar: Scalar) -> Option<i128> {
    match scalar {
        Scalar::Bool(value) => Some(i128::from(value)),
        Scalar::Int(value) => Some(value),
        Scalar::Float(_) => None,
    }
}

fn binary(function: Function, left: Scalar, right: Scalar) -> Option<Outcome> {
    use Function as F;
    if function.is_comparison() {
        return Some(Ok(Scalar::Bool(holds(function, compare(left, right)))));
    }
    let outcome = match (integer_of(left), integer_of(right)) {
        (Some(a), Some(b)) => integers(function, a, b)?,
        _ => floats(function, left.to_f64(), right.to_f64())?,
    };
    let are_truths = matches!((left, right), (Scalar::Bool(_), Scalar::Bool(_)));
    Some(match outcome {
        Ok(Scalar::Int(value)) if are_truths && matches!(function, F::BitwiseAnd | F::BitwiseOr | F::BitwiseXor) => {
            Ok(Scalar::Bool(value != 0))
        }
        other => other,
    })
}

fn holds(function: Function, order: Option<Ordering>) -> bool {
    use Function as F;
    #[expect(clippy::wildcard_enum_match_arm, reason = "only comparisons come here")]
    match function {
        F::Equal => order == Some(Ordering::Equal),
        F::NotEqual => order != Some(Ordering::Equal),
        F::Less => order == Some(Ordering::Less),
        F::LessEqual => order.is_some_and(Ordering::is_le),
        F::Greater => order == Some(Ordering::Greater),
        _ => order.is_some_and(Ordering::is_ge),
    }
}

/// Exact also between an integer and a float; `None` beside NaN.
fn compare(left: Scalar, right: Scalar) -> Option<Ordering> {
    match (integer_of(left), integer_of(right)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => compare_with_float(a, right.to_f64()),
        (None, Some(b)) => compare_with_float(b, left.to_f64()).map(Ordering::reverse),
        (None, None) => left.to_f64().partial_cmp(&right.to_f64()),
    }
}

fn compare_with_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    let beyond = 2f64.powi(127);
    if float >= beyond {
        return Some(Ordering::Less);
    }
    if float < -beyond {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    let whole = float.trunc() as i128;
    Some(integer.cmp(&whole).then(0.0.partial_cmp(&float.fract())?))
}

fn integers(function: Function, a: i128, b: i128) -> Option<Outcome> {
    use Function as F;
    let checked = |result: Option<i128>| result.map(Scalar::Int).ok_or_else(too_large);
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no operator")]
    Some(match function {
        F::Add => checked(a.checked_add(b)),
        F::Subtract => checked(a.checked_sub(b)),
        F::Multiply => checked(a.checked_mul(b)),
        F::Divide | F::FloorDivide | F::Remainder if b == 0 => Err(by_zero()),
        F::Divide => Ok(Scalar::Float(quotient(a, b))),
        F::FloorDivide => checked(a.checked_div_euclid(b).and_then(|quotient| {
            // Euclid rounds so that the rest is positive; Python so that it has the divisor's sign.
            if b < 0 && a.checked_rem_euclid(b)? != 0 { quotient.checked_sub(1) } else { Some(quotient) }
        })),
        F::Remainder => checked(a.checked_rem_euclid(b).map(|rest| if b < 0 && rest != 0 { rest + b } else { rest })),
        F::Power if b < 0 => return floats(function, to_float(a), to_float(b)),
        F::Power => power(a, b),
        F::LeftShift | F::RightShift if b < 0 => Err(Mistake::new("a shift by a negative number of bits")),
        F::LeftShift => checked(shifted(a, b)),
        F::RightShift => Ok(Scalar::Int(a >> b.min(127))),
        F::BitwiseAnd => Ok(Scalar::Int(a & b)),
        F::BitwiseOr => Ok(Scalar::Int(a | b)),
        F::BitwiseXor => Ok(Scalar::Int(a ^ b)),
        F::Minimum => Ok(Scalar::Int(a.min(b))),
        F::Maximum => Ok(Scalar::Int(a.max(b))),
        _ => return None,
    })
}

fn shifted(a: i128, by: i128) -> Option<i128> {
    if a == 0 {
        return Some(0);
    }
    let result = a.checked_shl(u32::try_from(by).ok()?)?;
    (result >> by == a).then_some(result)
}

fn power(base: i128, exponent: i128) -> Outcome {
    if matches!(base, -1..=1) && exponent > 1 {
        return Ok(Scalar::Int(if exponent % 2 == 0 { base * base } else { base }));
    }
    let result = u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent));
    result.map(Scalar::Int).ok_or_else(too_large)
}

#[expect(clippy::cast_precision_loss, reason = "the nearest float is what is wanted")]
fn to_float(value: i128) -> f64 {
    value as f64
}

/// The float nearest to a quotient of integers.
fn quotient(a: i128, b: i128) -> f64 {
    let (size, divisor) = (a.unsigned_abs(), b.unsigned_abs());
    if size <= EXACT_IN_FLOAT && divisor <= EXACT_IN_FLOAT {
        return to_float(a) / to_float(b);
    }
    // Long division to more bits than a float has, and whether anything is left: rounding then sees what the exact one has.
    let (mut whole, mut rest, mut exponent) = (size / divisor, size % divisor, 0);
    while whole < 1 << 56 && rest != 0 {
        rest <<= 1;
        whole <<= 1;
        if rest >= divisor {
            rest -= divisor;
            whole |= 1;
        }
        exponent -= 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "this is the rounding")]
    let rounded = (whole | u128::from(rest != 0)) as f64 * 2f64.powi(exponent);
    if (a < 0) == (b < 0) { rounded } else { -rounded }
}

fn floats(function: Function, a: f64, b: f64) -> Option<Outcome> {
    use crate::kernels::number::Number;
    use Function as F;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no operator")]
    Some(match function {
        F::Add => Ok(Scalar::Float(a + b)),
        F::Subtract => Ok(Scalar::Float(a - b)),
        F::Multiply => Ok(Scalar::Float(a * b)),
        F::Divide | F::FloorDivide | F::Remainder if b == 0.0 => Err(by_zero()),
        F::Divide => Ok(Scalar::Float(a / b)),
        F::FloorDivide => Ok(Scalar::Float(Number::floor_divide(a, b))),
        F::Remainder => Ok(Scalar::Float(Number::remainder(a, b))),
        F::Power if a == 0.0 && b < 0.0 => Err(Mistake::new("zero to a negative power")),
        F::Power if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            Err(Mistake::new("a negative number to a power that is no integer: complex numbers are not supported"))
        }
        F::Power => {
            let result = a.powf(b);
            if result.is_infinite() && a.is_finite() && b.is_finite() {
                return Some(Err(Mistake::new("the power is too large for a float")));
            }
            Ok(Scalar::Float(result))
        }
        F::LeftShift | F::RightShift | F::BitwiseAnd | F::BitwiseOr | F::BitwiseXor => {
            Err(Mistake::new(format!("{} is not defined for floats", function.name())))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(function: Function, operands: &[Scalar]) -> Result<Scalar, String> {
        compute(function, operands).expect("an operator").map_err(|mistake| mistake.message)
    }

    #[test]
    fn integers_are_exact_or_refused() {
        let int = Scalar::Int;
        let cases: &[(Function, i128, i128, i128)] = &[
            (Function::Multiply, 1 << 62, 4, 1 << 64),
            (Function::Power, 2, 64, 1 << 64),
            (Function::Power, -2, 3, -8),
            (Function::Power, 0, 0, 1),
            (Function::Power, -1, i128::MAX, -1),
            (Function::FloorDivide, 7, -2, -4),
            (Function::FloorDivide, -7, 2, -4),
            (Function::FloorDivide, -7, -2, 3),
            (Function::Remainder, 7, -2, -1),
            (Function::Remainder, -7, 3, 2),
            (Function::Remainder, -6, -3, 0),
            (Function::LeftShift, 1, 100, 1 << 100),
            (Function::RightShift, -5, 1000, -1),
            (Function::BitwiseXor, 6, 3, 5),
        ];
        for &(function, a, b, want) in cases {
            assert_eq!(computed(function, &[int(a), int(b)]), Ok(int(want)), "{function:?} {a} {b}");
        }
        for (function, a, b) in [
            (Function::Multiply, 1 << 100, 1 << 100),
            (Function::Power, 10, 39),
            (Function::Power, 2, i128::MAX),
            (Function::LeftShift, 1, 127),
            (Function::LeftShift, 1, 1 << 40),
            (Function::LeftShift, 1, -1),
            (Function::FloorDivide, 5, 0),
            (Function::Remainder, 5, 0),
            (Function::Divide, 1, 0),
            (Function::FloorDivide, i128::MIN, -1),
        ] {
            assert!(computed(function, &[int(a), int(b)]).is_err(), "{function:?} {a} {b}");
        }
        assert_eq!(computed(Function::Negative, &[Scalar::Bool(true)]), Ok(int(-1)));
        assert_eq!(computed(Function::Add, &[Scalar::Bool(true), Scalar::Bool(true)]), Ok(int(2)));
        assert_eq!(computed(Function::BitwiseAnd, &[Scalar::Bool(true), Scalar::Bool(false)]), Ok(Scalar::Bool(false)));
        assert_eq!(computed(Function::Invert, &[int(5)]), Ok(int(-6)));
    }

    #[test]
    fn quotients_are_the_nearest_floats() {
        for (a, b, want) in [
            (7, 2, 3.5),
            (10i128.pow(30), 10i128.pow(29), 10.0),
            (10i128.pow(30) + 1, 3, 3.333_333_333_333_333e29),
            (1, 3 * 10i128.pow(20), 3.333_333_333_333_333_3e-21),
            (-(1 << 62) - 1, 1 << 62, -1.0),
            (9_007_199_254_740_993, 1, 9_007_199_254_740_992.0),
            (9_007_199_254_740_995, 1, 9_007_199_254_740_996.0),
            (i128::MAX, i128::MIN, -1.0),
        ] {
            assert_eq!(computed(Function::Divide, &[Scalar::Int(a), Scalar::Int(b)]), Ok(Scalar::Float(want)), "{a} / {b}");
        }
    }

    #[test]
    fn floats_are_pythons() {
        let float = Scalar::Float;
        assert_eq!(computed(Function::Power, &[Scalar::Int(10), Scalar::Int(-5)]), Ok(float(1e-5)));
        assert_eq!(computed(Function::Power, &[Scalar::Int(2), Scalar::Int(-1)]), Ok(float(0.5)));
        assert_eq!(computed(Function::FloorDivide, &[float(-1.0), float(f64::INFINITY)]), Ok(float(-1.0)));
        for (function, a, b) in [
            (Function::Divide, 1.0, 0.0),
            (Function::FloorDivide, 1.0, 0.0),
            (Function::Remainder, 1.0, 0.0),
            (Function::Power, 0.0, -1.0),
            (Function::Power, -8.0, 1.0 / 3.0),
            (Function::Power, 10.0, 400.0),
            (Function::BitwiseAnd, 1.0, 1.0),
        ] {
            assert!(computed(function, &[float(a), float(b)]).is_err(), "{function:?} {a} {b}");
        }
    }

    #[test]
    fn comparisons_are_exact() {
        let above = Scalar::Int((1 << 53) + 1);
        let float = Scalar::Float(9_007_199_254_740_992.0);
        assert_eq!(computed(Function::Equal, &[above, float]), Ok(Scalar::Bool(false)));
        assert_eq!(computed(Function::Greater, &[above, float]), Ok(Scalar::Bool(true)));
        assert_eq!(computed(Function::Less, &[Scalar::Int(-1), Scalar::Float(-0.5)]), Ok(Scalar::Bool(true)));
        assert_eq!(computed(Function::Less, &[Scalar::Int(-2), Scalar::Float(-2.5)]), Ok(Scalar::Bool(false)));
        assert_eq!(computed(Function::Less, &[Scalar::Int(5), Scalar::Float(f64::INFINITY)]), Ok(Scalar::Bool(true)));
        assert_eq!(computed(Function::NotEqual, &[Scalar::Int(5), Scalar::Float(f64::NAN)]), Ok(Scalar::Bool(true)));
    }
}
