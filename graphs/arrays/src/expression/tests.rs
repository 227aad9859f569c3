//! What expressions mean, and what is said about those that mean nothing.

use crate::array::Array;
use crate::chunk::Chunk;
use crate::chunking::ChunkSpec;
use crate::testing::{assert_close, parse, value};

fn x() -> Array {
    let chunk = Chunk::from_slice(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    Array::from_chunk(chunk, &ChunkSpec::explicit(vec![vec![1, 1], vec![2, 1]])).unwrap()
}

/// Expressions of `x = [[1. 2. 3.] [4. 5. 6.]]` and what NumPy 2 prints for them.
const VALUES: &[(&str, &str)] = &[
    ("x.T", "[[1. 4.]\n [2. 5.]\n [3. 6.]]"),
    ("x + 1", "[[2. 3. 4.]\n [5. 6. 7.]]"),
    ("2 ** -x", "[[0.5      0.25     0.125   ]\n [0.0625   0.03125  0.015625]]"),
    ("x // 2", "[[0. 1. 1.]\n [2. 2. 3.]]"),
    ("-x % 4", "[[3. 2. 1.]\n [0. 3. 2.]]"),
    ("x > 2", "[[False False  True]\n [ True  True  True]]"),
    ("(x > 2) & ~(x > 4)", "[[False False  True]\n [ True False False]]"),
    ("where(x > 2, x, 0)", "[[0. 0. 3.]\n [4. 5. 6.]]"),
    ("sum(x)", "21.0"),
    ("x.sum(axis=0)", "[5. 7. 9.]"),
    ("x.mean(axis=-1, keepdims=True)", "[[2.]\n [5.]]"),
    ("x.var()", "2.9166666666666665"),
    ("x.std(ddof=1, axis=1)", "[1. 1.]"),
    ("x.argmax(axis=1)", "[2 2]"),
    ("argmin(-x)", "5"),
    ("x[0]", "[1. 2. 3.]"),
    ("x[:, -1]", "[3. 6.]"),
    ("x[::-1, ::2]", "[[4. 6.]\n [1. 3.]]"),
    ("x[..., None].shape[2] + x[0, 0]", "2.0"),
    ("x[1, 2]", "6.0"),
    ("x.reshape(3, 2)", "[[1. 2.]\n [3. 4.]\n [5. 6.]]"),
    ("x.ravel()[1::2]", "[2. 4. 6.]"),
    ("x @ x.T", "[[14. 32.]\n [32. 77.]]"),
    ("x @ [1, 0, -1]", "[-2. -2.]"),
    ("x[0].dot(x[1])", "32.0"),
    ("concatenate([x, x[:1]], axis=0)", "[[1. 2. 3.]\n [4. 5. 6.]\n [1. 2. 3.]]"),
    ("stack([x[0], x[1]], axis=1)", "[[1. 4.]\n [2. 5.]\n [3. 6.]]"),
    ("linalg.norm(x[0, :2] * 0 + [3, 4])", "5.0"),
    ("trace(x[:, :2])", "6.0"),
    ("diag([1, 2])", "[[1 0]\n [0 2]]"),
    ("outer([1, 2], [3, 4])", "[[3 4]\n [6 8]]"),
    ("clip(x, 2, 5)", "[[2. 2. 3.]\n [4. 5. 5.]]"),
    ("x.astype(int32) / 2", "[[0.5 1.  1.5]\n [2.  2.5 3. ]]"),
    ("astype(x, 'int8') + 1", "[[2 3 4]\n [5 6 7]]"),
    ("arange(5)", "[0 1 2 3 4]"),
    ("arange(1, 2, 0.25)", "[1.   1.25 1.5  1.75]"),
    ("linspace(0, 1, 5)", "[0.   0.25 0.5  0.75 1.  ]"),
    ("eye(2)", "[[1. 0.]\n [0. 1.]]"),
    ("full((2,), 7)", "[7 7]"),
    ("x.rechunk([2, -1]).max()", "6.0"),
    ("linalg.solve([[2, 0], [0, 4]], [1, 1])", "[0.5  0.25]"),
    ("1 + 2 * 3", "7"),
    ("7 // -2", "-4"),
    ("7 / 2", "3.5"),
    ("count_nonzero(x > 2)", "4"),
    ("x.any() & all(x > 0)", "True"),
    ("squeeze(x[:1]) * 1", "[1. 2. 3.]"),
    ("x * (2**40 * 2**30)", "[[1.18059162e+21 2.36118324e+21 3.54177486e+21]\n [4.72236648e+21 5.90295810e+21 7.08354972e+21]]"),
    ("x[0] * 10**-1", "[0.1 0.2 0.3]"),
    ("True + True", "2"),
    ("-7 // 2 + 2 ** -1", "-3.5"),
    ("2**63 + 1", "9223372036854775809"),
    ("[18446744073709551615] + zeros((1,), dtype=uint64)", "[18446744073709551615]"),
    ("arange(3).astype('uint8') < 300", "[ True  True  True]"),
    ("-1 >= arange(3).astype('uint8')", "[False False False]"),
    ("arange(3).astype('u1') / 256 * 256", "[0. 1. 2.]"),
    ("clip(arange(3).astype('u1'), -1, 300)", "[0 1 2]"),
    ("[-1, 5] < array([18446744073709551615, 5], dtype='uint64')", "[ True False]"),
    ("array([9007199254740993], dtype='uint64') == [9007199254740992]", "[False]"),
    ("fmod([-5, 5], 3)", "[-2  2]"),
    ("divmod([-5, 5], 3)[1]", "[1 2]"),
    ("[-1.0, 1.0, -0.0] // inf", "[-1.  0. -0.]"),
    ("nanmax([[1, nan], [nan, nan]], axis=1)", "[ 1. nan]"),
    ("nanmin([nan, 2, -inf])", "-inf"),
    ("nanargmax([nan, 2, 7, nan])", "2"),
    ("nansum([[1, nan], [nan, nan]], axis=1)", "[1. 0.]"),
    ("nanprod([2, nan, 3])", "6.0"),
    ("nanmean([1, nan, 3])", "2.0"),
    ("nanmean([[1, nan], [nan, nan]], axis=1)", "[ 1. nan]"),
    ("nanvar([1, nan, 3, 8], ddof=1)", "13.0"),
    ("nanstd([[1, 3], [nan, nan]], axis=1)", "[ 1. nan]"),
    ("nanvar([1, nan], ddof=1)", "nan"),
    ("nansum([1, 2]) + nanmax([True, False])", "4"),
    ("diff([1, 4, 9, 16], n=2)", "[2 2]"),
    ("diff(x, axis=0)", "[[3. 3. 3.]]"),
    ("diff([True, False, False])", "[ True False]"),
    ("gradient([1, 2, 4, 7])", "[1.  1.5 2.5 3. ]"),
    ("gradient(x)[1]", "[[1. 1. 1.]\n [1. 1. 1.]]"),
    ("gradient([1.0, 2], 0.5)", "[2. 2.]"),
    ("repeat(x, 2, axis=1)[0]", "[1. 1. 2. 2. 3. 3.]"),
    ("repeat([[1], [2]], 2)", "[1 1 2 2]"),
    ("x.repeat(0, 0).shape[0] + x[0, 0]", "1.0"),
    ("tile([1, 2], 2)", "[1 2 1 2]"),
    ("tile([1, 2], (2, 1))", "[[1 2]\n [1 2]]"),
    ("cumprod(x[0, 1], axis=0)", "[2.]"),
    ("clip(arange(3).astype('u1'), 2**63, 1.5)", "[1.5 1.5 1.5]"),
    ("cumsum(x)", "[ 1.  3.  6. 10. 15. 21.]"),
    ("x.cumsum(axis=0)", "[[1. 2. 3.]\n [5. 7. 9.]]"),
    ("cumprod(x, axis=1)", "[[  1.   2.   6.]\n [  4.  20. 120.]]"),
    ("cumsum(arange(7, chunks=[[2, 0, 1, 4]]))", "[ 0  1  3  6 10 15 21]"),
    ("cumsum([True, True, False])", "[1 2 2]"),
    ("fabs([-1, 2])", "[1. 2.]"),
    ("rint([1, 2])", "[1. 2.]"),
    ("x.astype(x.dtype).astype(np.float32)[0]", "[1. 2. 3.]"),
    ("linspace(-1, 1, 4, dtype=int)", "[-1 -1  0  1]"),
    ("linspace(0, inf, 3)", "[nan inf inf]"),
    ("+x[0]", "[1. 2. 3.]"),
    ("matmul(stack([x, x]), x.T)[1, 0]", "[14. 32.]"),
    ("dot(stack([x, x]), stack([x.T, x.T])).shape[3] + x[0, 0]", "3.0"),
    ("tensordot(x, x, 2)", "91.0"),
    ("(x > 2) @ (x > 2).T", "[[ True  True]\n [ True  True]]"),
    ("np.sqrt(x * x)", "[[1. 2. 3.]\n [4. 5. 6.]]"),
    ("maximum(x, 3) - minimum(x, 3)", "[[2. 1. 0.]\n [1. 2. 3.]]"),
];

#[test]
fn values_are_numpys() {
    let x = x();
    for (text, want) in VALUES {
        assert_eq!(&value(text, &[("x", &x)]).to_string(), want, "{text}");
    }
}

#[test]
fn mistakes_are_named_where_they_stand() {
    let x = x();
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("x + y", "unknown array \"y\"", None),
        ("summ(x)", "unknown function \"summ\"", Some("sum")),
        ("x.maen()", "unknown method \"maen\"", Some("mean")),
        ("sum(x, axes=0)", "unknown argument of sum \"axes\"", Some("axis")),
        ("sum(x, axis=2)", "axis 2 is out of bounds for an array of 2 dimensions", None),
        ("x + x.T", "shapes (2, 3) and (3, 2) do not match", None),
        ("x @ x", "shapes (2, 3) and (2, 3) do not match", None),
        ("x[5]", "index 5 is out of bounds for axis 0 with size 2", None),
        ("x[0, 0, 0]", "too many indices", None),
        ("x & x", "bitwise_and is not defined for f64 arrays", None),
        ("x.astype(float46)", "unknown array \"float46\"", None),
        ("astype(x, 'floot64')", "unknown type \"floot64\"", Some("float64")),
        ("x.astype('i8')", "ambiguous: int8 by the bits that Rask counts, int64 by NumPy's bytes", None),
        ("x.astype(u8)", "ambiguous: uint8 by the bits", None),
        ("x.astype('f2')", "\"f2\" is not supported yet", None),
        ("concatenate([x, x.T])", "shapes (2, 3) and (3, 2) do not match", None),
        ("x.reshape(4, 2)", "cannot reshape (2, 3) into [4, 2]", None),
        ("arange(3) ** -1", "negative integer powers", None),
        ("x.astype('uint8') + 300", "integer 300 is out of bounds for u8", None),
        ("sqrt(x, x)", "sqrt takes 1 argument, got 2", None),
        ("nanmedian(x)", "the function \"nanmedian\" is not supported yet", None),
        ("x.nanmax()", "unknown method \"nanmax\"", None),
        ("x.argsort()", "the method \"argsort\" is not supported yet", None),
        ("sum(x, dtype='int64')", "the argument of sum \"dtype\" is not supported yet", None),
        ("average(x, weights=[1, 2])", "the argument of average \"weights\" is not supported yet", None),
        ("x.nbytes", "the attribute \"nbytes\" is not supported yet", None),
        ("linalg.qr(x)", "the function \"linalg.qr\" is not supported yet", None),
        ("full((2,), nan, dtype='int64')", "NaN cannot be an element of type i64", None),
        ("full((2,), 300.0, dtype=uint8)", "300 cannot be an element of type u8", None),
        ("full((2,), 300, dtype='u8')", "uint8 by the bits that Rask counts (which does not hold 300), uint64 by", None),
        ("full_like(x, -1, dtype='u8')", "uint64 by NumPy's bytes (which does not hold -1)", None),
        ("full((2,), -1, dtype=uint8)", "integer -1 is out of bounds for u8", None),
        ("full((2,), 2**64)", "integer 18446744073709551616 is out of bounds for u64", None),
        ("array([1, nan], dtype=int)", "NaN cannot be an element", None),
        ("array([300], dtype='u1')", "integer 300 is out of bounds for u8", None),
        ("arange(3) * 2**63", "integer 9223372036854775808 is out of bounds for i64", None),
        ("x + 5 // 0", "division by zero", None),
        ("tile(x, 10**9)", "at most 10000 are possible", None),
        ("gradient(x[:1], axis=0)", "size 1, 2 are needed", None),
        ("x + 1 % 0.0", "division by zero", None),
        ("x * 2**200", "the integer is too large", None),
        ("x.astype(int).clip(300.5, None) << 1", "left_shift is not defined for f64", None),
        ("x.astype('u1').clip(300, None)", "integer 300 is out of bounds for u8", None),
        ("maximum(x.astype('u1'), 300)", "integer 300 is out of bounds for u8", None),
        ("zeros((10**18,))", "too many chunks: ", None),
        ("zeros((10**18,), chunks=1)", "too many chunks: 1000000000000000000, at most 1000000", None),
        ("zeros((10**30,))", "which is too large", None),
        ("arange(0, 10**17, chunks=1)", "too many chunks", None),
        ("linspace(0, 1, 10**17, chunks=1)", "too many chunks", None),
        ("zeros((4000000000, 4000000000))", "is too large", None),
        ("zeros((3000000000,))[:, None] * zeros((3000000000,))", "is too large", None),
        ("zeros((100000,), chunks=1)[:, None] * zeros((100000,), chunks=1)", "too many chunks: 10000000000", None),
        ("zeros((10000, 10000), chunks=(1, -1)).rechunk((-1, 1))", "too many pieces of chunks", None),
        ("zeros((300, 300), chunks=1) @ zeros((300, 300), chunks=1)", "too many products of chunks: 27000000", None),
        ("zeros((10**18,), chunks=-1).rechunk(1)", "too many chunks", None),
        ("x.TT", "unknown attribute \"TT\"", Some("T")),
    ];
    for (text, message, hint) in cases {
        let error = parse(text, &[("x", &x)]).expect_err(text);
        assert!(error.message.contains(message), "{text}: {}", error.message);
        if let Some(hint) = hint {
            assert_eq!(error.hint, Some(format!("did you mean \"{hint}\"?")), "{text}");
        }
    }
    for text in ["rnd(x)", "nanmdian(x)", "x.foo()", "bincont(x)"] {
        let hint = parse(text, &[("x", &x)]).expect_err(text).hint;
        assert!(hint.as_ref().is_none_or(|hint| !hint.contains("did you mean")), "{text}: {hint:?}");
    }
    let error = parse("1 + sun(x)", &[("x", &x)]).unwrap_err();
    assert_eq!((error.span.start, error.span.end), (4, 10));
}

#[test]
fn scalars_are_weak_in_expressions() {
    let small = parse("x.astype('float32')", &[("x", &x())]).unwrap();
    assert_eq!(parse("s * 2.5 + pi", &[("s", &small)]).unwrap().dtype().name(), "f32");
    assert_eq!(parse("s + s.astype('int32')", &[("s", &small)]).unwrap().dtype().name(), "f64");
    assert_close(
        "0-d",
        &value("x - x.mean()", &[("x", &x())]),
        &Chunk::from_slice(vec![2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]).unwrap(),
    );
}
