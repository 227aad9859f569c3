//! NumPy's answers, written down: the type of every function's result for every type, and values where types, signs and
//! ranges have edges. Made with NumPy 2.4.6 on x86-64; where it answers in half precision, single is expected here.

use serde_json::Value as Json;

use crate::chunk::Chunk;
use crate::dtype::DType;
use crate::function::{Function, OperandType};
use crate::kernels::reduce::Reduction;
use crate::print::to_json;
use crate::testing::{compute_counting, parse};

/// Functions of one operand, and their results' types for an operand of each type, in the order of [`CODES`].
const UNARY: &[(&str, &str)] = &[
    ("negative sign", "-bhilBHILfd"),
    ("absolute floor ceil trunc", "?bhilBHILfd"),
    (
        "fabs rint sqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh tanh \
         arcsinh arccosh arctanh",
        "fffddffddfd",
    ),
    ("square reciprocal", "bbhilBHILfd"),
    ("invert", "?bhilBHIL--"),
    ("logical_not isnan isinf isfinite", "???????????"),
    ("round", "fbhilBHILfd"),
];

/// Functions of two: for each type of the first, those of the results for each type of the second.
const BINARY: &[(&str, &str)] = &[
    (
        "add multiply minimum maximum",
        "?bhilBHILfd bbhilhildfd hhhilhildfd iiiiliilddd llllllllddd BhhilBHILfd HiiilHHILfd IllllIIILdd \
         LddddLLLLdd fffddffddfd ddddddddddd",
    ),
    (
        "subtract",
        "-bhilBHILfd bbhilhildfd hhhilhildfd iiiiliilddd llllllllddd BhhilBHILfd HiiilHHILfd IllllIIILdd \
         LddddLLLLdd fffddffddfd ddddddddddd",
    ),
    (
        "divide",
        "dddddddddfd dddddddddfd dddddddddfd ddddddddddd ddddddddddd dddddddddfd dddddddddfd ddddddddddd \
         ddddddddddd fffddffddfd ddddddddddd",
    ),
    (
        "floor_divide remainder fmod power",
        "bbhilBHILfd bbhilhildfd hhhilhildfd iiiiliilddd llllllllddd BhhilBHILfd HiiilHHILfd IllllIIILdd \
         LddddLLLLdd fffddffddfd ddddddddddd",
    ),
    (
        "arctan2 hypot",
        "fffddffddfd fffddffddfd fffddffddfd ddddddddddd ddddddddddd fffddffddfd fffddffddfd ddddddddddd \
         ddddddddddd fffddffddfd ddddddddddd",
    ),
    (
        "bitwise_and bitwise_or bitwise_xor",
        "?bhilBHIL-- bbhilhil--- hhhilhil--- iiiiliil--- llllllll--- BhhilBHIL-- HiiilHHIL-- IllllIIIL-- \
         L----LLLL-- ----------- -----------",
    ),
    (
        "left_shift right_shift",
        "bbhilBHIL-- bbhilhil--- hhhilhil--- iiiiliil--- llllllll--- BhhilBHIL-- HiiilHHIL-- IllllIIIL-- \
         L----LLLL-- ----------- -----------",
    ),
    (
        "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor",
        "??????????? ??????????? ??????????? ??????????? ??????????? ??????????? ??????????? ??????????? \
         ??????????? ??????????? ???????????",
    ),
];

/// Reductions.
const REDUCTIONS: &[(&str, &str)] = &[
    ("sum prod", "lllllLLLLfd"),
    ("mean var std", "dddddddddfd"),
    ("min max", "?bhilBHILfd"),
    ("any all", "???????????"),
    ("argmin argmax count_nonzero", "lllllllllll"),
];

/// NumPy's letters for our types, and `-` for what is refused.
const CODES: [(char, DType); 11] = [
    ('?', DType::Bool),
    ('b', DType::I8),
    ('h', DType::I16),
    ('i', DType::I32),
    ('l', DType::I64),
    ('B', DType::U8),
    ('H', DType::U16),
    ('I', DType::U32),
    ('L', DType::U64),
    ('f', DType::F32),
    ('d', DType::F64),
];

fn code(dtype: Option<DType>) -> char {
    dtype.and_then(|dtype| CODES.iter().find(|(_, own)| *own == dtype)).map_or('-', |(code, _)| *code)
}

#[test]
fn types_of_results_are_numpys() {
    let resolved = |name: &str, operands: &[DType]| {
        let function = Function::named(name).unwrap_or_else(|| panic!("{name}"));
        let operands: Vec<OperandType> = operands.iter().copied().map(OperandType::Typed).collect();
        code(function.resolve(&operands).ok().map(|resolved| resolved.result))
    };
    let mut n_functions = 0;
    for (names, codes) in UNARY {
        for name in names.split(' ') {
            let got: String = CODES.iter().map(|(_, dtype)| resolved(name, &[*dtype])).collect();
            assert_eq!(&got, codes, "{name}");
            n_functions += 1;
        }
    }
    for (names, codes) in BINARY {
        for name in names.split(' ') {
            let row = |left: DType| CODES.iter().map(|(_, right)| resolved(name, &[left, *right])).collect::<String>();
            let got: Vec<String> = CODES.iter().map(|(_, left)| row(*left)).collect();
            assert_eq!(&got.join(" "), codes, "{name}");
            n_functions += 1;
        }
    }
    // All but `where`, whose condition counts for nothing.
    assert_eq!(n_functions, Function::ALL.len() - 1);
    for (names, codes) in REDUCTIONS {
        for name in names.split(' ') {
            let reduction = Reduction::ALL.into_iter().find(|reduction| reduction.name() == name).unwrap();
            let got: String = CODES.iter().map(|(_, dtype)| code(Some(reduction.result_type(*dtype)))).collect();
            assert_eq!(&got, codes, "{name}");
        }
    }
}

/// Whether two nested lists are the same: integers exactly, floats to `tolerance` and with their sign.
fn same(got: &Json, want: &Json, tolerance: f64) -> bool {
    match (got, want) {
        (Json::Array(got), Json::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same(got, want, tolerance))
        }
        (Json::Number(a), Json::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= tolerance * b.abs() && a.is_sign_negative() == b.is_sign_negative()
        }
        _ => got == want,
    }
}

#[test]
fn values_are_numpys_whatever_the_chunks() {
    let (definitions, cases) = include_str!("numpy_values.txt").split_once("\n\n").unwrap();
    let parts = definitions.lines().map(|line| line.split_once(" = ").unwrap());
    let whole: Vec<_> =
        parts.map(|(name, text)| (name, parse(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}")))).collect();
    for size in [-1, 1, 2] {
        let cut: Vec<_> =
            whole.iter().map(|(name, array)| (*name, array.rechunk(&crate::ChunkSpec::Size(size)).unwrap())).collect();
        let names: Vec<_> = cut.iter().map(|(name, array)| (*name, array)).collect();
        for case in cases.lines() {
            let (text, answer) = case.split_once(" -> ").unwrap();
            let (dtype, data) = answer.split_once(' ').unwrap();
            let array = parse(text, &names).unwrap_or_else(|error| panic!("{text}: {error}"));
            let (chunk, _): (Chunk, usize) = compute_counting(&array).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(chunk.dtype().name(), dtype, "{text}");
            let tolerance = if chunk.dtype() == DType::F32 { 1e-6 } else { 1e-15 };
            let want: Json = serde_json::from_str(data).unwrap();
            assert!(same(&to_json(&chunk), &want, tolerance), "{text} in chunks of {size}:\n{}\n{want}", to_json(&chunk));
        }
    }
}
