//! Arithmetic on one element as NumPy defines it, for every type that stores elements.
//!
//! Integers wrap, division by zero gives zero, floats propagate NaN. All is inlined into the loops of
//! [`crate::kernels::loops`], where the compiler makes vectors of it.

use crate::chunk::Element;
use crate::kernels::convert::FromFloat;

/// Elements with arithmetic.
pub(crate) trait Number: Element + FromFloat {
    const ZERO: Self;
    const ONE: Self;
    fn add(self, other: Self) -> Self;
    fn subtract(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn divide(self, other: Self) -> Self;
    fn floor_divide(self, other: Self) -> Self;
    fn remainder(self, other: Self) -> Self;
    /// The remainder with the sign of `self`.
    fn fmod(self, other: Self) -> Self;
    /// `None` for an integer to a negative power.
    fn power(self, other: Self) -> Option<Self>;
    fn minimum(self, other: Self) -> Self;
    fn maximum(self, other: Self) -> Self;
    fn negative(self) -> Self;
    fn absolute(self) -> Self;
    fn sign(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    fn round(self) -> Self;
    fn is_nan(self) -> bool;
    fn is_inf(self) -> bool;
    fn to_f64(self) -> f64;
}

/// Elements with bits.
pub(crate) trait Bits: Number {
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn not(self) -> Self;
    fn left_shift(self, other: Self) -> Self;
    fn right_shift(self, other: Self) -> Self;
}

/// Elements with transcendental functions.
pub(crate) trait Real: Number {
    fn apply(self, function: fn(f64) -> f64) -> Self;
    fn arctan2(self, other: Self) -> Self;
    fn hypot(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
}

macro_rules! integer {
    ($T:ty, $floor_divide:expr, $remainder:expr, $negative_power:expr, $absolute:expr, $sign:expr) => {
        impl Number for $T {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn subtract(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn divide(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            #[inline(always)]
            fn floor_divide(self, other: Self) -> Self {
                if other == 0 { 0 } else { $floor_divide(self, other) }
            }
            #[inline(always)]
            fn remainder(self, other: Self) -> Self {
                if other == 0 { 0 } else { $remainder(self, other) }
            }
            #[inline(always)]
            fn fmod(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            #[inline(always)]
            fn power(self, other: Self) -> Option<Self> {
                if $negative_power(other) {
                    return None;
                }
                let (mut base, mut exponent, mut result) = (self, other, 1);
                while exponent > 0 {
                    if exponent & 1 == 1 {
                        result = <$T>::wrapping_mul(result, base);
                    }
                    base = base.wrapping_mul(base);
                    exponent >>= 1;
                }
                Some(result)
            }
            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                self.min(other)
            }
            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline(always)]
            fn negative(self) -> Self {
                self.wrapping_neg()
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                $absolute(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                $sign(self)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                self
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                self
            }
            #[inline(always)]
            fn round(self) -> Self {
                self
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn is_inf(self) -> bool {
                false
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }

        impl Bits for $T {
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            fn not(self) -> Self {
                !self
            }
            #[inline(always)]
            fn left_shift(self, other: Self) -> Self {
                // A shift by the width or more (or by a negative amount) moves every bit out.
                u32::try_from(other).ok().and_then(|by| self.checked_shl(by)).unwrap_or(0)
            }
            #[inline(always)]
            fn right_shift(self, other: Self) -> Self {
                let sign = if $negative_power(self) { !0 } else { 0 };
                u32::try_from(other).ok().and_then(|by| self.checked_shr(by)).unwrap_or(sign)
            }
        }
    };
}

macro_rules! signed {
    ($($T:ty),*) => {$(
        integer!(
            $T,
            |a: $T, b: $T| {
                let quotient = a.wrapping_div(b);
                if (a.wrapping_rem(b) != 0) && ((a < 0) != (b < 0)) { quotient - 1 } else { quotient }
            },
            |a: $T, b: $T| {
                let rest = a.wrapping_rem(b);
                if rest != 0 && ((rest < 0) != (b < 0)) { rest + b } else { rest }
            },
            |exponent: $T| exponent < 0,
            |a: $T| a.wrapping_abs(),
            |a: $T| a.signum()
        );
    )*};
}

macro_rules! unsigned {
    ($($T:ty),*) => {$(
        integer!($T, |a: $T, b: $T| a / b, |a: $T, b: $T| a % b, |_: $T| false, |a: $T| a, |a: $T| <$T>::from(a > 0));
    )*};
}

signed!(i8, i16, i32, i64);
unsigned!(u8, u16, u32, u64);

macro_rules! real {
    ($T:ty) => {
        impl Number for $T {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn subtract(self, other: Self) -> Self {
                self - other
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn divide(self, other: Self) -> Self {
                self / other
            }
            #[inline(always)]
            fn floor_divide(self, other: Self) -> Self {
                // Python's: the quotient of what is left once the remainder is taken away, one less where that has the other
                // sign. Rounded down once more, since the quotient itself is rounded.
                if other == 0.0 {
                    return self / other;
                }
                let rest = self % other;
                let mut quotient = (self - rest) / other;
                if rest != 0.0 && (rest < 0.0) != (other < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return (0.0 as $T).copysign(self / other);
                }
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
            #[inline(always)]
            fn remainder(self, other: Self) -> Self {
                let rest = self % other;
                if rest != 0.0 && (rest < 0.0) != (other < 0.0) {
                    rest + other
                } else if rest == 0.0 {
                    rest.copysign(other)
                } else {
                    rest
                }
            }
            #[inline(always)]
            fn fmod(self, other: Self) -> Self {
                self % other
            }
            #[inline(always)]
            fn power(self, other: Self) -> Option<Self> {
                Some(self.powf(other))
            }
            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                if self < other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                if self > other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn negative(self) -> Self {
                -self
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn sign(self) -> Self {
                if self > 0.0 {
                    1.0
                } else if self < 0.0 {
                    -1.0
                } else {
                    // Zero, or NaN, which stays what it is.
                    self + 0.0
                }
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$T>::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                <$T>::ceil(self)
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                <$T>::trunc(self)
            }
            #[inline(always)]
            fn round(self) -> Self {
                self.round_ties_even()
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$T>::is_nan(self)
            }
            #[inline(always)]
            fn is_inf(self) -> bool {
                self.is_infinite()
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }

        impl Real for $T {
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, reason = "single precision is what is asked for")]
            fn apply(self, function: fn(f64) -> f64) -> Self {
                function(f64::from(self)) as $T
            }
            #[inline(always)]
            fn arctan2(self, other: Self) -> Self {
                self.atan2(other)
            }
            #[inline(always)]
            fn hypot(self, other: Self) -> Self {
                <$T>::hypot(self, other)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$T>::sqrt(self)
            }
        }
    };
}

real!(f32);
real!(f64);
