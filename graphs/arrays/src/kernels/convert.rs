//! Numbers of one type as numbers of another, as NumPy's casts make them on x86-64.
//!
//! Integers keep their low bits, floats become the nearest, and floats lose their fraction on the way to integers. A float
//! that is NaN or beyond its integer type gives what the processor's own conversion gives: the smallest i32 or i64, of
//! which narrower types keep the low bits. C leaves that open, and NumPy warns of it; here it is at least always the same.

/// Types that elements are stored as, made from the two kinds of numbers there are.
pub(crate) trait FromFloat: Copy {
    /// What a cast from double (or single) precision makes of `value`.
    fn from_float(value: f64) -> Self;
    /// The low bits of `value`, or the nearest float.
    fn from_integer(value: i128) -> Self;
}

const BEYOND_I32: f64 = 2_147_483_648.0;
const BEYOND_I64: f64 = 9_223_372_036_854_775_808.0;

/// The smallest integer stands for all that is no i32; what lies below is saturated to it already.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "converting is what this is for")]
fn to_i32(value: f64) -> i32 {
    if value < BEYOND_I32 { value as i32 } else { i32::MIN }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "converting is what this is for")]
fn to_i64(value: f64) -> i64 {
    if value < BEYOND_I64 { value as i64 } else { i64::MIN }
}

macro_rules! from_float {
    ($($T:ty, $value:ident => $convert:expr;)*) => {$(
        impl FromFloat for $T {
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "converting is what this is for")]
            fn from_float($value: f64) -> Self {
                $convert
            }
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "converting is what this is for")]
            #[allow(clippy::cast_precision_loss, reason = "floats round")]
            fn from_integer(value: i128) -> Self {
                value as $T
            }
        }
    )*};
}
from_float! {
    i8, value => to_i32(value) as i8;
    i16, value => to_i32(value) as i16;
    i32, value => to_i32(value);
    i64, value => to_i64(value);
    u8, value => to_i32(value) as u8;
    u16, value => to_i32(value) as u16;
    u32, value => to_i64(value) as u32;
    u64, value => if value >= BEYOND_I64 { to_i64(value - BEYOND_I64) as u64 ^ (1 << 63) } else { to_i64(value) as u64 };
    f32, value => value as f32;
    f64, value => value;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A float and what `numpy.float64(..).astype(..)` gives (NumPy 2.4, x86-64) for i8, u8, i16, u16, i32, u32, i64 and u64.
    #[expect(clippy::type_complexity, reason = "a row of a table")]
    const CASTS: &[(f64, (i8, u8, i16, u16, i32, u32, i64, u64))] = &[
        (-1.5, (-1, 255, -1, 65535, -1, u32::MAX, -1, u64::MAX)),
        (300.7, (44, 44, 300, 300, 300, 300, 300, 300)),
        (-300.7, (-44, 212, -300, 65236, -300, 4_294_966_996, -300, 18_446_744_073_709_551_316)),
        (70000.5, (112, 112, 4464, 4464, 70000, 70000, 70000, 70000)),
        (2_147_483_653.0, (0, 0, 0, 0, i32::MIN, 2_147_483_653, 2_147_483_653, 2_147_483_653)),
        (9_223_372_036_854_775_808.0, (0, 0, 0, 0, i32::MIN, 0, i64::MIN, 1 << 63)),
        (1.5 * 9_223_372_036_854_775_808.0, (0, 0, 0, 0, i32::MIN, 0, i64::MIN, 13_835_058_055_282_163_712)),
        (18_446_744_073_709_551_616.0, (0, 0, 0, 0, i32::MIN, 0, i64::MIN, 0)),
        (f64::INFINITY, (0, 0, 0, 0, i32::MIN, 0, i64::MIN, 0)),
        (f64::NEG_INFINITY, (0, 0, 0, 0, i32::MIN, 0, i64::MIN, 1 << 63)),
        (f64::NAN, (0, 0, 0, 0, i32::MIN, 0, i64::MIN, 1 << 63)),
    ];

    #[test]
    fn floats_become_integers_as_in_numpy() {
        for (value, want) in CASTS {
            let signed = (i8::from_float(*value), u8::from_float(*value), i16::from_float(*value), u16::from_float(*value));
            let wide = (i32::from_float(*value), u32::from_float(*value), i64::from_float(*value), u64::from_float(*value));
            assert_eq!((signed.0, signed.1, signed.2, signed.3, wide.0, wide.1, wide.2, wide.3), *want, "{value}");
        }
    }
}
