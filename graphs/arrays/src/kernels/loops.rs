//! The loops over a block of elements: one per function and type, compiled for each instruction set that
//! `pulp` can choose at run time.
//!
//! Blocks fit a cache; where they come from and where they go is [`super::evaluate`]'s business.

use pulp::Arch;
use rask_graphs::KernelError;

use crate::dtype::{DType, with_type};
use crate::function::Function;
use crate::kernels::convert::FromFloat;
use crate::kernels::number::{Bits, Number, Real};

#[inline(always)]
fn map<A: Copy, R>(arch: Arch, a: &[A], out: &mut [R], f: impl Fn(A) -> R) {
    arch.dispatch(
        #[inline(always)]
        || {
            for (place, &a) in out.iter_mut().zip(a) {
                *place = f(a);
            }
        },
    );
}

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(arch: Arch, a: &[A], b: &[B], out: &mut [R], f: impl Fn(A, B) -> R) {
    arch.dispatch(
        #[inline(always)]
        || {
            for ((place, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *place = f(a, b);
            }
        },
    );
}

fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

fn cast_mut<T: bytemuck::Pod>(bytes: &mut [u8]) -> &mut [T] {
    bytemuck::cast_slice_mut(bytes)
}

fn unsupported(function: Function, dtype: DType) -> KernelError {
    KernelError(format!("{} is not defined for {dtype} arrays", function.name()))
}

/// Apply `function` to blocks of `dtype`, all of the same number of elements.
pub(crate) fn apply(arch: Arch, function: Function, dtype: DType, operands: &[&[u8]], out: &mut [u8]) -> Result<(), KernelError> {
    match operands {
        [a] => apply_unary(arch, function, dtype, a, out),
        [a, b] => apply_binary(arch, function, dtype, a, b, out),
        [condition, a, b] if function == Function::Where => {
            crate::dtype::with_width!(dtype.size(), T => select::<T>(arch, condition, cast(a), cast(b), cast_mut(out)));
            Ok(())
        }
        _ => Err(unsupported(function, dtype)),
    }
}

fn select<T: bytemuck::Pod>(arch: Arch, condition: &[u8], a: &[T], b: &[T], out: &mut [T]) {
    arch.dispatch(
        #[inline(always)]
        || {
            for (((place, &condition), &a), &b) in out.iter_mut().zip(condition).zip(a).zip(b) {
                *place = if condition != 0 { a } else { b };
            }
        },
    );
}

fn apply_unary(arch: Arch, function: Function, dtype: DType, a: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest depends on the type")]
    match function {
        Function::LogicalNot if dtype == DType::Bool => {
            map(arch, a, out, |a: u8| u8::from(a == 0));
            Ok(())
        }
        Function::IsNan | Function::IsInf | Function::IsFinite => {
            with_type!(dtype, T => classify::<T>(arch, function, cast(a), out));
            Ok(())
        }
        _ => match dtype {
            DType::F32 => unary_real::<f32>(arch, function, cast(a), cast_mut(out)).ok_or_else(|| unsupported(function, dtype)),
            DType::F64 => unary_real::<f64>(arch, function, cast(a), cast_mut(out)).ok_or_else(|| unsupported(function, dtype)),
            DType::Bool | DType::U8 => unary_bits::<u8>(arch, function, dtype, a, out),
            DType::I8 => unary_bits::<i8>(arch, function, dtype, cast(a), cast_mut(out)),
            DType::I16 => unary_bits::<i16>(arch, function, dtype, cast(a), cast_mut(out)),
            DType::I32 => unary_bits::<i32>(arch, function, dtype, cast(a), cast_mut(out)),
            DType::I64 => unary_bits::<i64>(arch, function, dtype, cast(a), cast_mut(out)),
            DType::U16 => unary_bits::<u16>(arch, function, dtype, cast(a), cast_mut(out)),
            DType::U32 => unary_bits::<u32>(arch, function, dtype, cast(a), cast_mut(out)),
            DType::U64 => unary_bits::<u64>(arch, function, dtype, cast(a), cast_mut(out)),
        },
    }
}

fn classify<T: Number>(arch: Arch, function: Function, a: &[T], out: &mut [u8]) {
    if function == Function::IsNan {
        map(arch, a, out, |a: T| u8::from(a.is_nan()));
    } else if function == Function::IsInf {
        map(arch, a, out, |a: T| u8::from(a.is_inf()));
    } else {
        map(arch, a, out, |a: T| u8::from(!a.is_inf() && !a.is_nan()));
    }
}

/// The functions that every number has. `None` when `function` is none of them.
fn unary_number<T: Number>(arch: Arch, function: Function, a: &[T], out: &mut [T]) -> Option<()> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "most functions are handled by the callers")]
    match function {
        Function::Negative => map(arch, a, out, T::negative),
        Function::Absolute => map(arch, a, out, T::absolute),
        Function::Square => map(arch, a, out, |a: T| a.multiply(a)),
        Function::Sign => map(arch, a, out, T::sign),
        Function::Floor => map(arch, a, out, T::floor),
        Function::Ceil => map(arch, a, out, T::ceil),
        Function::Trunc => map(arch, a, out, T::trunc),
        Function::Round => map(arch, a, out, T::round),
        Function::Reciprocal => map(arch, a, out, |a: T| T::ONE.divide(a)),
        _ => return None,
    }
    Some(())
}

fn unary_bits<T: Bits>(arch: Arch, function: Function, dtype: DType, a: &[T], out: &mut [T]) -> Result<(), KernelError> {
    if function == Function::Invert {
        map(arch, a, out, T::not);
        return Ok(());
    }
    unary_number(arch, function, a, out).ok_or_else(|| unsupported(function, dtype))
}

fn unary_real<T: Real>(arch: Arch, function: Function, a: &[T], out: &mut [T]) -> Option<()> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not special to reals")]
    let scalar: fn(f64) -> f64 = match function {
        Function::Sqrt => {
            map(arch, a, out, T::sqrt);
            return Some(());
        }
        Function::Cbrt => f64::cbrt,
        Function::Exp => f64::exp,
        Function::Exp2 => f64::exp2,
        Function::Expm1 => f64::exp_m1,
        Function::Log => f64::ln,
        Function::Log2 => f64::log2,
        Function::Log10 => f64::log10,
        Function::Log1p => f64::ln_1p,
        Function::Sin => f64::sin,
        Function::Cos => f64::cos,
        Function::Tan => f64::tan,
        Function::Arcsin => f64::asin,
        Function::Arccos => f64::acos,
        Function::Arctan => f64::atan,
        Function::Sinh => f64::sinh,
        Function::Cosh => f64::cosh,
        Function::Tanh => f64::tanh,
        Function::Arcsinh => f64::asinh,
        Function::Arccosh => f64::acosh,
        Function::Arctanh => f64::atanh,
        _ => return unary_number(arch, function, a, out),
    };
    for (place, &a) in out.iter_mut().zip(a) {
        *place = a.apply(scalar);
    }
    Some(())
}

fn apply_binary(arch: Arch, function: Function, dtype: DType, a: &[u8], b: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    if with_type!(dtype, T => compare::<T>(arch, function, cast(a), cast(b), out)) {
        return Ok(());
    }
    match dtype {
        DType::F32 => binary_real::<f32>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::F64 => binary_real::<f64>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::Bool | DType::U8 => binary_bits::<u8>(arch, function, dtype, a, b, out),
        DType::I8 => binary_bits::<i8>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::I16 => binary_bits::<i16>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::I32 => binary_bits::<i32>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::I64 => binary_bits::<i64>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::U16 => binary_bits::<u16>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::U32 => binary_bits::<u32>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
        DType::U64 => binary_bits::<u64>(arch, function, dtype, cast(a), cast(b), cast_mut(out)),
    }
}

/// Whether `function` is a comparison; if so it has been done.
fn compare<T: Number>(arch: Arch, function: Function, a: &[T], b: &[T], out: &mut [u8]) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only comparisons are meant")]
    match function {
        Function::Equal => zip(arch, a, b, out, |a, b| u8::from(a == b)),
        Function::NotEqual => zip(arch, a, b, out, |a, b| u8::from(a != b)),
        Function::Less => zip(arch, a, b, out, |a, b| u8::from(a < b)),
        Function::LessEqual => zip(arch, a, b, out, |a, b| u8::from(a <= b)),
        Function::Greater => zip(arch, a, b, out, |a, b| u8::from(a > b)),
        Function::GreaterEqual => zip(arch, a, b, out, |a, b| u8::from(a >= b)),
        _ => return false,
    }
    true
}

fn binary_number<T: Number>(
    arch: Arch,
    function: Function,
    dtype: DType,
    a: &[T],
    b: &[T],
    out: &mut [T],
) -> Result<(), KernelError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "most functions are handled by the callers")]
    match function {
        Function::Add => zip(arch, a, b, out, T::add),
        Function::Subtract => zip(arch, a, b, out, T::subtract),
        Function::Multiply => zip(arch, a, b, out, T::multiply),
        Function::Divide => zip(arch, a, b, out, T::divide),
        Function::FloorDivide => zip(arch, a, b, out, T::floor_divide),
        Function::Remainder => zip(arch, a, b, out, T::remainder),
        Function::Fmod => zip(arch, a, b, out, T::fmod),
        Function::Minimum => zip(arch, a, b, out, T::minimum),
        Function::Maximum => zip(arch, a, b, out, T::maximum),
        Function::Power => {
            for ((place, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *place =
                    a.power(b).ok_or_else(|| KernelError("integers to negative integer powers are not allowed".to_owned()))?;
            }
        }
        _ => return Err(unsupported(function, dtype)),
    }
    Ok(())
}

fn binary_bits<T: Bits>(
    arch: Arch,
    function: Function,
    dtype: DType,
    a: &[T],
    b: &[T],
    out: &mut [T],
) -> Result<(), KernelError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not special to integers")]
    match function {
        Function::BitwiseAnd => zip(arch, a, b, out, T::and),
        Function::BitwiseOr => zip(arch, a, b, out, T::or),
        Function::BitwiseXor => zip(arch, a, b, out, T::xor),
        Function::LeftShift => zip(arch, a, b, out, T::left_shift),
        Function::RightShift => zip(arch, a, b, out, T::right_shift),
        _ => return binary_number(arch, function, dtype, a, b, out),
    }
    Ok(())
}

fn binary_real<T: Real>(
    arch: Arch,
    function: Function,
    dtype: DType,
    a: &[T],
    b: &[T],
    out: &mut [T],
) -> Result<(), KernelError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not special to reals")]
    match function {
        Function::Arctan2 => zip(arch, a, b, out, T::arctan2),
        Function::Hypot => zip(arch, a, b, out, T::hypot),
        _ => return binary_number(arch, function, dtype, a, b, out),
    }
    Ok(())
}

/// Convert a block from one type to another: floats to integers as [`super::convert`] says, anything to bool asks whether it
/// is nonzero.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    clippy::cast_possible_wrap,
    reason = "converting is what this is for"
)]
pub(crate) fn convert(arch: Arch, from: DType, to: DType, a: &[u8], out: &mut [u8]) {
    if to == DType::Bool {
        with_type!(from, A => map(arch, cast::<A>(a), out, |a: A| u8::from(a != A::ZERO)));
        return;
    }
    if from == DType::F32 && !to.is_float() {
        with_type!(to, B => map(arch, cast::<f32>(a), cast_mut::<B>(out), |a: f32| B::from_float(f64::from(a))));
        return;
    }
    if from == DType::F64 {
        with_type!(to, B => map(arch, cast::<f64>(a), cast_mut::<B>(out), B::from_float));
        return;
    }
    with_type!(from, A => with_type!(to, B => map(arch, cast::<A>(a), cast_mut::<B>(out), |a: A| a as B)));
}
