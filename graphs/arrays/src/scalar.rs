//! Numbers as Python writes them: of a kind, but of no particular type, and integers of any usual size exactly.
//!
//! What they become beside an array is [`crate::dtype`]'s business, and arithmetic of numbers alone that of
//! [`crate::expression`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dtype::{DType, with_type};
use crate::kernels::convert::FromFloat;

/// A number as Python writes it: of a kind, but of no particular type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// `True` or `False`.
    Bool(bool),
    /// An integer. Every element of every integer type is one, and so are the usual results of arithmetic with them.
    Int(i128),
    /// A floating-point number.
    Float(f64),
}

impl Scalar {
    /// The type the scalar takes when it is alone; u64 for integers that i64 does not hold.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(value) if value > i128::from(i64::MAX) => DType::U64,
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

    /// The value as an element of `dtype` would have it, still untyped: what arguments of tasks say.
    #[must_use]
    pub(crate) fn settled(self, dtype: DType) -> Scalar {
        if dtype.is_float() { Scalar::Float(self.to_f64()) } else { self }
    }

    /// One element of type `dtype`, as it lies in memory; what does not fit is cut as NumPy's casts cut it.
    #[must_use]
    pub fn to_bytes(self, dtype: DType) -> Vec<u8> {
        if dtype == DType::Bool {
            return vec![u8::from(self.to_f64() != 0.0)];
        }
        with_type!(dtype, T => self.to_element::<T>().to_ne_bytes().to_vec())
    }

    /// The value as a number that elements are stored as.
    pub(crate) fn to_element<T: FromFloat>(self) -> T {
        match self {
            Scalar::Bool(value) => T::from_integer(i128::from(value)),
            Scalar::Int(value) => T::from_integer(value),
            Scalar::Float(value) => T::from_float(value),
        }
    }
}

/// Floats JSON cannot say (NaN and the infinities) are written as strings; everything else as itself.
impl Serialize for Scalar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Scalar::Bool(value) => serializer.serialize_bool(value),
            Scalar::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                // No element is such an integer, so a float is what it will be.
                (Err(_), Err(_)) => serializer.serialize_f64(self.to_f64()),
            },
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
            Natural(u64),
            Float(f64),
            Name(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bool(value) => Ok(Scalar::Bool(value)),
            Written::Int(value) => Ok(Scalar::Int(value.into())),
            Written::Natural(value) => Ok(Scalar::Int(value.into())),
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
        Scalar::Int(value.into())
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

    #[test]
    fn scalars_travel_as_json() {
        for scalar in [
            Scalar::Bool(true),
            Scalar::Int(-3),
            Scalar::Int(i64::MIN.into()),
            Scalar::Int(u64::MAX.into()),
            Scalar::Float(0.5),
            Scalar::Float(f64::INFINITY),
            Scalar::Float(2.0),
        ] {
            let text = serde_json::to_string(&scalar).unwrap();
            assert_eq!(serde_json::from_str::<Scalar>(&text).unwrap(), scalar);
        }
    }
}
