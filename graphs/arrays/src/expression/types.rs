//! The names of types in expressions: ours, NumPy's, and NumPy's codes, of which two mean something else here.
//!
//! Rask counts bits, `i64`; NumPy's codes count bytes, `i4`. Where a name is both, it is refused with both its meanings.

use super::{Mistake, functions};
use crate::dtype::DType;
use crate::scalar::Scalar;

/// Names in two meanings: here, and in NumPy.
const AMBIGUOUS: [(&str, DType, DType); 2] = [("i8", DType::I8, DType::I64), ("u8", DType::U8, DType::U64)];

/// NumPy's other names and codes on 64-bit Linux. `int_` and `long` have 64 bits there since version 2.
const ALIASES: [(&str, DType); 51] = [
    ("bool_", DType::Bool),
    ("b1", DType::Bool),
    ("?", DType::Bool),
    ("i1", DType::I8),
    ("b", DType::I8),
    ("byte", DType::I8),
    ("i2", DType::I16),
    ("h", DType::I16),
    ("short", DType::I16),
    ("i4", DType::I32),
    ("i", DType::I32),
    ("intc", DType::I32),
    ("int", DType::I64),
    ("int_", DType::I64),
    ("intp", DType::I64),
    ("long", DType::I64),
    ("longlong", DType::I64),
    ("l", DType::I64),
    ("q", DType::I64),
    ("p", DType::I64),
    ("n", DType::I64),
    ("u1", DType::U8),
    ("B", DType::U8),
    ("ubyte", DType::U8),
    ("u2", DType::U16),
    ("H", DType::U16),
    ("ushort", DType::U16),
    ("u4", DType::U32),
    ("I", DType::U32),
    ("uintc", DType::U32),
    ("uint", DType::U64),
    ("uintp", DType::U64),
    ("ulong", DType::U64),
    ("ulonglong", DType::U64),
    ("L", DType::U64),
    ("Q", DType::U64),
    ("P", DType::U64),
    ("N", DType::U64),
    ("f4", DType::F32),
    ("f", DType::F32),
    ("single", DType::F32),
    ("f8", DType::F64),
    ("d", DType::F64),
    ("float", DType::F64),
    ("double", DType::F64),
    // With a byte order nobody means bits.
    ("<i8", DType::I64),
    ("=i8", DType::I64),
    ("|i8", DType::I64),
    ("<u8", DType::U64),
    ("=u8", DType::U64),
    ("|u8", DType::U64),
];

/// Types that NumPy has and that do not exist here.
const UNSUPPORTED: [&str; 34] = [
    "float16",
    "f2",
    "e",
    "half",
    "f16",
    "float128",
    "longdouble",
    "g",
    "float96",
    "complex",
    "complex64",
    "complex128",
    "complex256",
    "csingle",
    "cdouble",
    "clongdouble",
    "c8",
    "c16",
    "F",
    "D",
    "G",
    "object",
    "object_",
    "O",
    "str",
    "str_",
    "U",
    "S",
    "bytes_",
    "datetime64",
    "timedelta64",
    "M8",
    "m8",
    "V",
];

/// The type called `name`; `value` is what its elements will be, if that is one number.
///
/// # Errors
/// When it is ambiguous, exists in NumPy only, or nowhere.
pub(super) fn named(name: &str, value: Option<Scalar>) -> Result<DType, Mistake> {
    if let Some((_, here, there)) = AMBIGUOUS.iter().find(|(ambiguous, ..)| *ambiguous == name) {
        let but = |dtype: &DType| match value {
            Some(Scalar::Int(value)) if !dtype.can_hold(value) => format!(" (which does not hold {value})"),
            Some(_) | None => String::new(),
        };
        let (but_here, but_there) = (but(here), but(there));
        let (here, there) = (here.numpy_name(), there.numpy_name());
        let meanings = format!("{here} by the bits that Rask counts{but_here}, {there} by NumPy's bytes{but_there}");
        return Err(Mistake {
            message: format!("the type \"{name}\" is ambiguous: {meanings}"),
            hint: Some(format!("write \"{here}\" or \"{there}\"")),
        });
    }
    let plain = name.strip_prefix(['<', '=', '|']).filter(|plain| plain.len() == 2).unwrap_or(name);
    let own = DType::ALL.into_iter().find(|dtype| dtype.name() == name || dtype.numpy_name() == name);
    let alias = |name: &str| ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, dtype)| *dtype);
    if let Some(dtype) = own.or_else(|| alias(name)).or_else(|| alias(plain)) {
        return Ok(dtype);
    }
    if name.starts_with('>') {
        return Err(Mistake {
            message: format!("the type \"{name}\" is of another byte order than this machine's"),
            hint: Some("leave the \">\" out: values do not depend on the order of their bytes".to_owned()),
        });
    }
    if UNSUPPORTED.contains(&plain) {
        return Err(Mistake::new(format!("the type \"{name}\" is not supported yet")));
    }
    let known = DType::ALL.map(DType::numpy_name);
    let hint = match functions::nearest(name, &known) {
        Some((_, near)) => format!("did you mean \"{near}\"?"),
        None => format!("one of {}", known.join(", ")),
    };
    Err(Mistake { message: format!("unknown type \"{name}\""), hint: Some(hint) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_mean_in_numpy() {
        for (name, want) in [
            ("float32", DType::F32),
            ("f32", DType::F32),
            ("f4", DType::F32),
            ("double", DType::F64),
            ("int", DType::I64),
            ("i4", DType::I32),
            ("<i8", DType::I64),
            ("|u1", DType::U8),
            ("B", DType::U8),
            ("b", DType::I8),
            ("?", DType::Bool),
            ("|b1", DType::Bool),
            ("i16", DType::I16),
        ] {
            assert!(named(name, None).is_ok_and(|dtype| dtype == want), "{name}");
        }
    }

    #[test]
    fn what_means_two_things_or_nothing_is_refused_with_reasons() {
        for (name, words) in [
            ("i8", "int8 by the bits"),
            ("u8", "uint64 by NumPy's bytes"),
            ("f2", "not supported yet"),
            ("complex128", "not supported yet"),
            (">f8", "byte order"),
            ("floot64", "unknown type"),
        ] {
            let mistake = named(name, None).err().map(|mistake| mistake.message).unwrap_or_default();
            assert!(mistake.contains(words), "{name}: {mistake}");
        }
        assert_eq!(named("floot64", None).err().and_then(|mistake| mistake.hint).as_deref(), Some("did you mean \"float64\"?"));
        let mut all: Vec<&str> = ALIASES.iter().map(|(name, _)| *name).chain(UNSUPPORTED).collect();
        all.extend(AMBIGUOUS.iter().map(|(name, ..)| *name));
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n, "a name is in two tables");
    }
}
