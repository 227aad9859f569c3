//! The elementwise functions by NumPy's names, and which types each takes and gives.
//!
//! Resolving happens when an expression is built: a function and its operands' types become the type to compute in, the
//! type of the result, and possibly another function (a sum of booleans is a logical or).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::error::ArrayError;
use crate::scalar::Scalar;

macro_rules! functions {
    ($($variant:ident $name:literal $n_operands:literal $doc:literal,)*) => {
        /// An elementwise function.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
        pub enum Function {
            $(
                #[doc = $doc]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl Function {
            /// Every function.
            pub const ALL: &'static [Function] = &[$(Function::$variant),*];

            /// NumPy's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Function::$variant => $name,)* }
            }

            /// The operator under which the function can be used in a task by itself.
            #[must_use]
            pub fn operator(self) -> &'static str {
                match self { $(Function::$variant => concat!("array.", $name),)* }
            }

            /// What it computes, one sentence.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Function::$variant => $doc,)* }
            }

            /// How many operands it takes.
            #[must_use]
            pub fn n_operands(self) -> usize {
                match self { $(Function::$variant => $n_operands,)* }
            }
        }
    };
}

functions! {
    Add "add" 2 "Sum of two arrays, element by element; a logical or for booleans.",
    Subtract "subtract" 2 "Difference of two arrays, element by element.",
    Multiply "multiply" 2 "Product of two arrays, element by element; a logical and for booleans.",
    Divide "divide" 2 "Quotient of two arrays, element by element; floating point for integers too.",
    FloorDivide "floor_divide" 2 "Quotient rounded down; 0 where an integer is divided by 0.",
    Remainder "remainder" 2 "Remainder with the sign of the divisor; 0 where an integer is divided by 0.",
    Fmod "fmod" 2 "Remainder with the sign of the dividend, as in C; 0 where an integer is divided by 0.",
    Power "power" 2 "First operand to the power of the second.",
    Minimum "minimum" 2 "The smaller of two elements; NaN if either is.",
    Maximum "maximum" 2 "The larger of two elements; NaN if either is.",
    Arctan2 "arctan2" 2 "Angle of the point (second, first), in radians.",
    Hypot "hypot" 2 "Length of the hypotenuse.",
    BitwiseAnd "bitwise_and" 2 "Bits set in both; a logical and for booleans.",
    BitwiseOr "bitwise_or" 2 "Bits set in either; a logical or for booleans.",
    BitwiseXor "bitwise_xor" 2 "Bits set in exactly one.",
    LeftShift "left_shift" 2 "Bits moved up.",
    RightShift "right_shift" 2 "Bits moved down.",
    Equal "equal" 2 "Whether elements are equal.",
    NotEqual "not_equal" 2 "Whether elements differ.",
    Less "less" 2 "Whether the first is smaller.",
    LessEqual "less_equal" 2 "Whether the first is not larger.",
    Greater "greater" 2 "Whether the first is larger.",
    GreaterEqual "greater_equal" 2 "Whether the first is not smaller.",
    LogicalAnd "logical_and" 2 "Whether both are nonzero.",
    LogicalOr "logical_or" 2 "Whether either is nonzero.",
    LogicalXor "logical_xor" 2 "Whether exactly one is nonzero.",
    Where "where" 3 "Elements of the second operand where the first is nonzero, of the third elsewhere.",
    Negative "negative" 1 "The element with its sign changed.",
    Absolute "absolute" 1 "The element without its sign.",
    Fabs "fabs" 1 "The element without its sign, in floating point for integers too.",
    Square "square" 1 "The element times itself.",
    Sign "sign" 1 "-1, 0 or 1; NaN for NaN.",
    Invert "invert" 1 "All bits changed; a logical not for booleans.",
    LogicalNot "logical_not" 1 "Whether the element is zero.",
    Floor "floor" 1 "Rounded down.",
    Ceil "ceil" 1 "Rounded up.",
    Trunc "trunc" 1 "Rounded towards zero.",
    Round "round" 1 "Rounded to the nearest integer, halves to even.",
    Rint "rint" 1 "Rounded to the nearest integer, halves to even, in floating point for integers too.",
    IsNan "isnan" 1 "Whether the element is not a number.",
    IsInf "isinf" 1 "Whether the element is infinite.",
    IsFinite "isfinite" 1 "Whether the element is neither infinite nor NaN.",
    Sqrt "sqrt" 1 "Square root.",
    Cbrt "cbrt" 1 "Cube root.",
    Reciprocal "reciprocal" 1 "One over the element; 0 for an integer 0.",
    Exp "exp" 1 "e to the power of the element.",
    Exp2 "exp2" 1 "2 to the power of the element.",
    Expm1 "expm1" 1 "exp(x) - 1, exact for small x.",
    Log "log" 1 "Natural logarithm.",
    Log2 "log2" 1 "Logarithm to base 2.",
    Log10 "log10" 1 "Logarithm to base 10.",
    Log1p "log1p" 1 "log(1 + x), exact for small x.",
    Sin "sin" 1 "Sine of an angle in radians.",
    Cos "cos" 1 "Cosine of an angle in radians.",
    Tan "tan" 1 "Tangent of an angle in radians.",
    Arcsin "arcsin" 1 "Inverse sine, in radians.",
    Arccos "arccos" 1 "Inverse cosine, in radians.",
    Arctan "arctan" 1 "Inverse tangent, in radians.",
    Sinh "sinh" 1 "Hyperbolic sine.",
    Cosh "cosh" 1 "Hyperbolic cosine.",
    Tanh "tanh" 1 "Hyperbolic tangent.",
    Arcsinh "arcsinh" 1 "Inverse hyperbolic sine.",
    Arccosh "arccosh" 1 "Inverse hyperbolic cosine.",
    Arctanh "arctanh" 1 "Inverse hyperbolic tangent.",
}

/// What an operand is: of a type, or an untyped number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum OperandType {
    /// An array's.
    Typed(DType),
    /// A number's, which adapts.
    Weak(Scalar),
}

/// How a function is computed for given operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The function to compute; not always the one asked for.
    pub function: Function,
    /// The type all operands are brought to first (the condition of `where` is brought to bool instead).
    pub compute: DType,
    /// The type of the result.
    pub result: DType,
}

/// The common type of operands by NumPy 2's rules. Whether integers fit it is not asked.
pub(crate) fn common_type(operands: &[OperandType]) -> DType {
    let typed = operands.iter().filter_map(|operand| match operand {
        OperandType::Typed(dtype) => Some(*dtype),
        OperandType::Weak(_) => None,
    });
    let scalars = operands.iter().filter_map(|operand| match operand {
        OperandType::Typed(_) => None,
        OperandType::Weak(scalar) => Some(*scalar),
    });
    match typed.reduce(DType::promote) {
        Some(dtype) => scalars.fold(dtype, DType::promote_scalar),
        None => scalars.map(Scalar::dtype).reduce(DType::promote).unwrap_or(DType::F64),
    }
}

impl Function {
    /// The function called `name` (also NumPy's second names, `abs`, `mod`, `acos`).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = match name {
            "abs" => "absolute",
            "mod" => "remainder",
            "true_divide" => "divide",
            "pow" => "power",
            "around" => "round",
            "fix" => "trunc",
            "bitwise_not" | "bitwise_invert" => "invert",
            "asin" => "arcsin",
            "acos" => "arccos",
            "atan" => "arctan",
            "atan2" => "arctan2",
            "asinh" => "arcsinh",
            "acosh" => "arccosh",
            "atanh" => "arctanh",
            "bitwise_left_shift" => "left_shift",
            "bitwise_right_shift" => "right_shift",
            other => other,
        };
        Self::ALL.iter().copied().find(|function| function.name() == name)
    }

    /// Whether it compares two operands by size.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        use Function as F;
        matches!(self, F::Equal | F::NotEqual | F::Less | F::LessEqual | F::Greater | F::GreaterEqual)
    }

    /// The comparison that says the same when the operands change places; other functions are themselves.
    #[must_use]
    pub(crate) fn mirrored(self) -> Function {
        use Function as F;
        #[expect(clippy::wildcard_enum_match_arm, reason = "only these four have a direction")]
        match self {
            F::Less => F::Greater,
            F::LessEqual => F::GreaterEqual,
            F::Greater => F::Less,
            F::GreaterEqual => F::LessEqual,
            other => other,
        }
    }

    /// How to compute the function for these operands.
    ///
    /// # Errors
    /// When the function is not defined for the type, or an integer does not fit the integer type it would have to take.
    pub fn resolve(self, operands: &[OperandType]) -> Result<Resolved, ArrayError> {
        let data = if self == Function::Where { operands.get(1..).unwrap_or_default() } else { operands };
        let common = if matches!(self, Function::Arctan2 | Function::Hypot) {
            // Each becomes a float by itself: two integers of 16 bits single ones, though what holds both is a double.
            let floats = |operand: &OperandType| match operand {
                OperandType::Typed(dtype) => OperandType::Typed(dtype.to_float()),
                weak @ OperandType::Weak(_) => *weak,
            };
            common_type(&data.iter().map(floats).collect::<Vec<OperandType>>())
        } else {
            common_type(data)
        };
        let resolved = self.resolve_types(common)?;
        for operand in data {
            if let OperandType::Weak(scalar @ Scalar::Int(_)) = operand {
                resolved.compute.check_holds(*scalar)?;
            }
        }
        Ok(resolved)
    }

    /// How to compute the function for operands whose common type is `common`.
    fn resolve_types(self, common: DType) -> Result<Resolved, ArrayError> {
        use Function as F;
        let same = |function, compute| Ok(Resolved { function, compute, result: compute });
        let truth = |function, compute| Ok(Resolved { function, compute, result: DType::Bool });
        let refuse = || Err(ArrayError::Type { function: self.name(), dtype: common });
        let number = if common == DType::Bool { DType::I8 } else { common };
        match self {
            F::Add | F::Maximum if common == DType::Bool => same(F::BitwiseOr, common),
            F::Multiply | F::Minimum if common == DType::Bool => same(F::BitwiseAnd, common),
            F::Subtract | F::Negative | F::Sign if common == DType::Bool => refuse(),
            F::Add | F::Subtract | F::Multiply | F::Minimum | F::Maximum | F::Where => same(self, common),
            F::Negative | F::Absolute | F::Sign | F::Floor | F::Ceil | F::Trunc => same(self, common),
            F::LeftShift | F::RightShift if common.is_float() => refuse(),
            F::FloorDivide | F::Remainder | F::Fmod | F::Power | F::LeftShift | F::RightShift | F::Reciprocal | F::Square => {
                same(self, number)
            }
            F::Round if common == DType::Bool => same(self, common.to_float()),
            F::Round => same(self, common),
            F::Rint => same(F::Round, common.to_float()),
            F::Fabs => same(F::Absolute, common.to_float()),
            F::Divide => same(self, if common.is_float() { common } else { DType::F64 }),
            F::BitwiseAnd | F::BitwiseOr | F::BitwiseXor | F::Invert if common.is_float() => refuse(),
            F::Invert if common == DType::Bool => same(F::LogicalNot, common),
            F::BitwiseAnd | F::BitwiseOr | F::BitwiseXor | F::Invert => same(self, common),
            F::Equal | F::NotEqual | F::Less | F::LessEqual | F::Greater | F::GreaterEqual => {
                truth(self, if common == DType::Bool { DType::U8 } else { common })
            }
            F::LogicalAnd => truth(F::BitwiseAnd, DType::Bool),
            F::LogicalOr => truth(F::BitwiseOr, DType::Bool),
            F::LogicalXor => truth(F::BitwiseXor, DType::Bool),
            F::LogicalNot => truth(self, DType::Bool),
            F::IsNan | F::IsInf | F::IsFinite => truth(self, common),
            F::Arctan2 | F::Hypot => same(self, common.to_float()),
            F::Sqrt | F::Cbrt | F::Exp | F::Exp2 | F::Expm1 | F::Log | F::Log2 | F::Log10 | F::Log1p => {
                same(self, common.to_float())
            }
            F::Sin | F::Cos | F::Tan | F::Arcsin | F::Arccos | F::Arctan => same(self, common.to_float()),
            F::Sinh | F::Cosh | F::Tanh | F::Arcsinh | F::Arccosh | F::Arctanh => same(self, common.to_float()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OperandType::{Typed, Weak};

    #[test]
    fn types_are_numpys() {
        let cases: &[(Function, &[OperandType], &str)] = &[
            (Function::Add, &[Typed(DType::I32), Typed(DType::F32)], "f64"),
            (Function::Add, &[Typed(DType::F32), Weak(Scalar::Float(1.5))], "f32"),
            (Function::Add, &[Typed(DType::Bool), Typed(DType::Bool)], "bool"),
            (Function::Add, &[Typed(DType::Bool), Weak(Scalar::Int(1))], "i64"),
            (Function::Divide, &[Typed(DType::I8), Typed(DType::I8)], "f64"),
            (Function::FloorDivide, &[Typed(DType::I16), Weak(Scalar::Int(2))], "i16"),
            (Function::Power, &[Typed(DType::Bool), Typed(DType::Bool)], "i8"),
            (Function::Less, &[Typed(DType::I16), Typed(DType::F64)], "bool"),
            (Function::Sqrt, &[Typed(DType::I16)], "f32"),
            (Function::Sqrt, &[Typed(DType::I32)], "f64"),
            (Function::Floor, &[Typed(DType::I32)], "i32"),
            (Function::Where, &[Typed(DType::F64), Typed(DType::I8), Weak(Scalar::Int(0))], "i8"),
            (Function::LogicalNot, &[Typed(DType::F64)], "bool"),
            (Function::Absolute, &[Typed(DType::U8)], "u8"),
            (Function::Hypot, &[Typed(DType::I32), Weak(Scalar::Int(1))], "f64"),
        ];
        for (function, operands, want) in cases {
            assert_eq!(function.resolve(operands).unwrap().result.name(), *want, "{function:?} {operands:?}");
        }
    }

    #[test]
    fn what_is_not_defined_is_refused() {
        for (function, dtype) in [
            (Function::Subtract, DType::Bool),
            (Function::BitwiseAnd, DType::F64),
            (Function::Invert, DType::F32),
            (Function::LeftShift, DType::F64),
            (Function::Negative, DType::Bool),
        ] {
            let operands = vec![Typed(dtype); function.n_operands()];
            assert!(function.resolve(&operands).is_err(), "{function:?} of {dtype}");
        }
    }

    #[test]
    fn names_are_found() {
        assert_eq!(Function::named("abs"), Some(Function::Absolute));
        assert_eq!(Function::named("arctan2"), Some(Function::Arctan2));
        assert_eq!(Function::named("nope"), None);
    }
}
