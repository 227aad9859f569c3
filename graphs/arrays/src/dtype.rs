//! Element types, Python's untyped scalars, and NumPy 2's rules for what comes out when they meet.
//!
//! Promotion is decided here once, when an expression is built; kernels only ever see operands of one type. Knows
//! nothing of shapes or data.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ArrayError;

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

    /// The type when this meets an untyped scalar, which adapts to the array unless it is of a higher kind.
    ///
    /// # Errors
    /// When an integer does not fit the integer type it would have to take.
    pub fn promote_scalar(self, scalar: Scalar) -> Result<DType, ArrayError> {
        match scalar {
            Scalar::Bool(_) => Ok(self),
            Scalar::Int(value) => {
                if self == DType::Bool {
                    return Ok(DType::I64);
                }
                if !self.can_hold(value) {
                    return Err(ArrayError::OutOfBounds { value, dtype: self });
                }
                Ok(self)
            }
            Scalar::Float(_) => Ok(if self.is_float() { self } else { DType::F64 }),
        }
    }

    /// Whether an integer of this type can be `value`; always true for the others.
    #[must_use]
    pub fn can_hold(self, value: i64) -> bool {
        let bits = u32::try_from(self.size() * 8).unwrap_or(64);
        if self.is_signed() {
            bits == 64 || (-(1i64 << (bits - 1))..1i64 << (bits - 1)).contains(&value)
        } else if self.is_unsigned() {
            value >= 0 && (bits == 64 || value < 1i64 << bits)
        } else {
            true
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

/// A number as Python writes it: of a kind, but of no particular type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
}

impl Scalar {
    /// The type the scalar takes when it is alone.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::I64,
            Scalar::Float(_) => DType::F64,
        }
    }

    /// The value as a floating-point number.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "that is what converting an integer to a float means")]
    pub fn to_f64(self) -> f64 {
        match self {
            Scalar::Bool(value) => f64::from(u8::from(value)),
            Scalar::Int(value) => value as f64,
            Scalar::Float(value) => value,
        }
    }

    /// The value as an integer, truncated towards zero.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "truncation is what is asked for")]
    pub fn to_i64(self) -> i64 {
        match self {
            Scalar::Bool(value) => i64::from(value),
            Scalar::Int(value) => value,
            Scalar::Float(value) => value as i64,
        }
    }

    /// One element of type `dtype`, as it lies in memory.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "NumPy casts so too"
    )]
    pub fn to_bytes(self, dtype: DType) -> Vec<u8> {
        if dtype == DType::Bool {
            return vec![u8::from(self.to_f64() != 0.0)];
        }
        with_type!(dtype, T => {
            let element = match self {
                Scalar::Bool(value) => u8::from(value) as T,
                Scalar::Int(value) => value as T,
                Scalar::Float(value) => value as T,
            };
            element.to_ne_bytes().to_vec()
        })
    }
}

/// Floats JSON cannot say (NaN and the infinities) are written as strings; everything else as itself.
impl Serialize for Scalar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Scalar::Bool(value) => serializer.serialize_bool(value),
            Scalar::Int(value) => serializer.serialize_i64(value),
            Scalar::Float(value) if value.is_finite() => serializer.serialize_f64(value),
            Scalar::Float(value) => serializer.serialize_str(non_finite_name(value)),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bool(bool),
            Int(i64),
            Float(f64),
            Name(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bool(value) => Ok(Scalar::Bool(value)),
            Written::Int(value) => Ok(Scalar::Int(value)),
            Written::Float(value) => Ok(Scalar::Float(value)),
            Written::Name(name) => match name.as_str() {
                "NaN" | "nan" => Ok(Scalar::Float(f64::NAN)),
                "Infinity" | "inf" => Ok(Scalar::Float(f64::INFINITY)),
                "-Infinity" | "-inf" => Ok(Scalar::Float(f64::NEG_INFINITY)),
                _ => Err(serde::de::Error::custom(format!("expected a number, got \"{name}\""))),
            },
        }
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["number", "boolean", "string"], "description": "A number, a truth value, or \"NaN\", \"Infinity\", \"-Infinity\"."})
    }
}

/// How JSON output spells a float it has no number for.
pub(crate) fn non_finite_name(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Scalar::Float(value)
    }
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Scalar::Int(value)
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Scalar::Bool(value)
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
        assert_eq!(DType::U8.promote_scalar(Scalar::Int(255)).unwrap(), DType::U8);
        assert!(DType::U8.promote_scalar(Scalar::Int(256)).is_err());
        assert!(DType::U64.promote_scalar(Scalar::Int(-1)).is_err());
        assert_eq!(DType::F32.promote_scalar(Scalar::Float(0.1)).unwrap(), DType::F32);
        assert_eq!(DType::I8.promote_scalar(Scalar::Float(0.1)).unwrap(), DType::F64);
        assert_eq!(DType::Bool.promote_scalar(Scalar::Int(1)).unwrap(), DType::I64);
    }

    #[test]
    fn names_parse() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>().unwrap(), dtype);
            assert_eq!(dtype.numpy_name().parse::<DType>().unwrap(), dtype);
        }
        assert!("float16".parse::<DType>().is_err());
    }

    #[test]
    fn scalars_travel_as_json() {
        for scalar in [Scalar::Bool(true), Scalar::Int(-3), Scalar::Float(0.5), Scalar::Float(f64::INFINITY), Scalar::Float(2.0)]
        {
            let text = serde_json::to_string(&scalar).unwrap();
            assert_eq!(serde_json::from_str::<Scalar>(&text).unwrap(), scalar);
        }
    }
}
