//! Element types, and NumPy 2's rules for what comes out when they meet each other and untyped numbers.
//!
//! Promotion is decided here once, when an expression is built; kernels only ever see operands of one type. Knows
//! nothing of shapes or data. Half precision is not there: where NumPy computes in it, single precision is used.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ArrayError;
use crate::scalar::Scalar;

/// The type of an array's elements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub enum DType {
    /// Truth values, one byte each, 0 or 1.
    #[serde(rename = "bool")]
    Bool,
    /// Signed, 8 bits.
    #[serde(rename = "i8", alias = "int8")]
    I8,
    /// Signed, 16 bits.
    #[serde(rename = "i16", alias = "int16")]
    I16,
    /// Signed, 32 bits.
    #[serde(rename = "i32", alias = "int32")]
    I32,
    /// Signed, 64 bits.
    #[serde(rename = "i64", alias = "int64", alias = "int")]
    I64,
    /// Unsigned, 8 bits.
    #[serde(rename = "u8", alias = "uint8")]
    U8,
    /// Unsigned, 16 bits.
    #[serde(rename = "u16", alias = "uint16")]
    U16,
    /// Unsigned, 32 bits.
    #[serde(rename = "u32", alias = "uint32")]
    U32,
    /// Unsigned, 64 bits.
    #[serde(rename = "u64", alias = "uint64")]
    U64,
    /// IEEE 754 single precision.
    #[serde(rename = "f32", alias = "float32")]
    F32,
    /// IEEE 754 double precision.
    #[serde(rename = "f64", alias = "float64", alias = "float")]
    F64,
}

/// Expands `body` once for each element type, with `T` naming the Rust type that stores it (booleans are stored as `u8`).
macro_rules! with_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::Bool | $crate::dtype::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::dtype::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::dtype::DType::I16 => {
                type $T = i16;
                $body
            }
            $crate::dtype::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::dtype::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::dtype::DType::U16 => {
                type $T = u16;
                $body
            }
            $crate::dtype::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::dtype::DType::U64 => {
                type $T = u64;
                $body
            }
            $crate::dtype::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::dtype::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}
pub(crate) use with_type;

/// Expands `body` once for each storage width, for kernels that move elements without looking at them.
macro_rules! with_width {
    ($size:expr, $T:ident => $body:expr) => {
        match $size {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            _ => {
                type $T = u64;
                $body
            }
        }
    };
}
pub(crate) use with_width;

impl DType {
    /// Every element type.
    pub const ALL: [DType; 11] = [
        DType::Bool,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::F32,
        DType::F64,
    ];

    /// Bytes an element takes.
    #[must_use]
    pub fn size(self) -> usize {
        with_type!(self, T => size_of::<T>())
    }

    /// The short name, `"f64"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// NumPy's name, `"float64"`.
    #[must_use]
    pub fn numpy_name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I8 => "int8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::U8 => "uint8",
            DType::U16 => "uint16",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }

    /// Whether elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    /// Whether elements are signed integers.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
    }

    /// Whether elements are unsigned integers.
    #[must_use]
    pub fn is_unsigned(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }

    /// Whether elements are integers (booleans are not).
    #[must_use]
    pub fn is_integer(self) -> bool {
        self.is_signed() || self.is_unsigned()
    }

    /// The type that holds both, as `numpy.promote_types`.
    #[must_use]
    pub fn promote(self, other: DType) -> DType {
        if self == other {
            return self;
        }
        let (low, high) = if self < other { (self, other) } else { (other, self) };
        if low == DType::Bool {
            return high;
        }
        if high.is_float() {
            // Single precision holds 16-bit integers exactly and nothing wider.
            return if high == DType::F32 && low.size() <= 2 && !low.is_float() { DType::F32 } else { DType::F64 };
        }
        if low.is_signed() == high.is_signed() {
            return if low.size() >= high.size() { low } else { high };
        }
        // One signed (`low`, by the order of the variants), one unsigned.
        if low.size() > high.size() {
            return low;
        }
        match high.size() {
            1 => DType::I16,
            2 => DType::I32,
            4 => DType::I64,
            _ => DType::F64,
        }
    }

    /// The floating-point type in which functions such as `sqrt` compute. NumPy uses half precision for 8-bit integers
    /// and booleans; the smallest here is single.
    #[must_use]
    pub fn to_float(self) -> DType {
        match self {
            DType::Bool | DType::I8 | DType::I16 | DType::U8 | DType::U16 | DType::F32 => DType::F32,
            DType::I32 | DType::I64 | DType::U32 | DType::U64 | DType::F64 => DType::F64,
        }
    }

    /// The type of a sum or product of elements.
    #[must_use]
    pub fn to_sum(self) -> DType {
        if self.is_float() {
            self
        } else if self.is_unsigned() {
            DType::U64
        } else {
            DType::I64
        }
    }

    /// The type when this meets an untyped scalar, which adapts to the array unless it is of a higher kind. Whether an
    /// integer fits is asked by [`DType::check_holds`], since some functions take any.
    #[must_use]
    pub fn promote_scalar(self, scalar: Scalar) -> DType {
        match scalar {
            Scalar::Bool(_) => self,
            Scalar::Int(_) if self == DType::Bool => DType::I64,
            Scalar::Int(_) => self,
            Scalar::Float(_) if self.is_float() => self,
            Scalar::Float(_) => DType::F64,
        }
    }

    /// The smallest and the largest integer of this type; `None` for those that are no integers.
    #[must_use]
    pub fn range(self) -> Option<(i128, i128)> {
        let bits = self.size() * 8;
        if self.is_signed() {
            Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
        } else if self.is_unsigned() {
            Some((0, (1 << bits) - 1))
        } else {
            None
        }
    }

    /// Whether an integer of this type can be `value`; always true for the others.
    #[must_use]
    pub fn can_hold(self, value: i128) -> bool {
        self.range().is_none_or(|(low, high)| (low..=high).contains(&value))
    }

    /// Whether `scalar` can be an element of this type: an integer in its range, a float whose whole part is.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_holds(self, scalar: Scalar) -> Result<(), ArrayError> {
        match scalar {
            Scalar::Int(value) if !self.can_hold(value) => Err(ArrayError::OutOfBounds { value, dtype: self }),
            Scalar::Float(value) if self.range().is_some_and(|range| !holds_float(range, value)) => {
                Err(ArrayError::NotAnInteger { value, dtype: self })
            }
            Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) => Ok(()),
        }
    }

    /// The code in an npy header for this machine's byte order.
    #[must_use]
    pub fn npy_code(self) -> &'static str {
        match self {
            DType::Bool => "|b1",
            DType::I8 => "|i1",
            DType::I16 => "<i2",
            DType::I32 => "<i4",
            DType::I64 => "<i8",
            DType::U8 => "|u1",
            DType::U16 => "<u2",
            DType::U32 => "<u4",
            DType::U64 => "<u8",
            DType::F32 => "<f4",
            DType::F64 => "<f8",
        }
    }
}

/// Whether `value` without its fraction lies in the range; NaN and the infinities do not.
#[expect(clippy::cast_possible_truncation, reason = "what does not fit saturates, and saturated it is outside")]
fn holds_float((low, high): (i128, i128), value: f64) -> bool {
    value.is_finite() && (low..=high).contains(&(value.trunc() as i128))
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = ArrayError;

    /// Short names, NumPy's names, and Python's `bool`, `int`, `float`.
    fn from_str(text: &str) -> Result<Self, ArrayError> {
        let alias = match text {
            "int" => Some(DType::I64),
            "float" => Some(DType::F64),
            "bool_" => Some(DType::Bool),
            _ => None,
        };
        alias
            .or_else(|| Self::ALL.into_iter().find(|dtype| dtype.name() == text || dtype.numpy_name() == text))
            .ok_or_else(|| ArrayError::UnknownDType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows and columns in the order of [`DType::ALL`]; from `numpy.promote_types` of NumPy 2.
    const PROMOTIONS: [&str; 11] = [
        "bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64",
        "i8 i8 i16 i32 i64 i16 i32 i64 f64 f32 f64",
        "i16 i16 i16 i32 i64 i16 i32 i64 f64 f32 f64",
        "i32 i32 i32 i32 i64 i32 i32 i64 f64 f64 f64",
        "i64 i64 i64 i64 i64 i64 i64 i64 f64 f64 f64",
        "u8 i16 i16 i32 i64 u8 u16 u32 u64 f32 f64",
        "u16 i32 i32 i32 i64 u16 u16 u32 u64 f32 f64",
        "u32 i64 i64 i64 i64 u32 u32 u32 u64 f64 f64",
        "u64 f64 f64 f64 f64 u64 u64 u64 u64 f64 f64",
        "f32 f32 f32 f64 f64 f32 f32 f64 f64 f32 f64",
        "f64 f64 f64 f64 f64 f64 f64 f64 f64 f64 f64",
    ];

    #[test]
    fn promotion_is_numpys() {
        for (row, left) in PROMOTIONS.iter().zip(DType::ALL) {
            for (want, right) in row.split(' ').zip(DType::ALL) {
                assert_eq!(left.promote(right).name(), want, "{left} with {right}");
            }
        }
    }

    #[test]
    fn scalars_are_weak() {
        assert_eq!(DType::U8.promote_scalar(Scalar::Int(255)), DType::U8);
        assert_eq!(DType::F32.promote_scalar(Scalar::Float(0.1)), DType::F32);
        assert_eq!(DType::I8.promote_scalar(Scalar::Float(0.1)), DType::F64);
        assert_eq!(DType::Bool.promote_scalar(Scalar::Int(1)), DType::I64);
    }

    #[test]
    fn what_does_not_fit_is_known() {
        for dtype in DType::ALL {
            let Some((low, high)) = dtype.range() else { continue };
            for (value, fits) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
                assert_eq!(dtype.check_holds(Scalar::Int(value)).is_ok(), fits, "{value} in {dtype}");
            }
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
                assert!(dtype.check_holds(Scalar::Float(value)).is_err(), "{value} in {dtype}");
            }
            assert!(dtype.check_holds(Scalar::Float(2.75)).is_ok());
        }
        assert!(DType::U64.check_holds(Scalar::Float(18_446_744_073_709_551_616.0)).is_err());
        assert!(DType::I64.check_holds(Scalar::Float(9_223_372_036_854_775_808.0)).is_err());
        assert!(DType::I64.check_holds(Scalar::Float(-9_223_372_036_854_775_808.0)).is_ok());
        assert!(DType::U8.check_holds(Scalar::Float(-1.5)).is_err() && DType::U8.check_holds(Scalar::Float(-0.5)).is_ok());
        assert!(DType::F32.check_holds(Scalar::Float(f64::NAN)).is_ok());
    }

    #[test]
    fn names_parse() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>().unwrap(), dtype);
            assert_eq!(dtype.numpy_name().parse::<DType>().unwrap(), dtype);
        }
        assert!("float16".parse::<DType>().is_err());
    }
}
