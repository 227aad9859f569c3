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
        ("astype(x, 'floot64')", "unknown dtype", None),
        ("concatenate([x, x.T])", "shapes (2, 3) and (3, 2) do not match", None),
        ("x.reshape(4, 2)", "cannot reshape (2, 3) into [4, 2]", None),
        ("arange(3) ** -1", "negative integer powers", None),
        ("x.astype('u8') + 300", "integer 300 is out of bounds for u8", None),
        ("sqrt(x, x)", "sqrt takes 1 arguments, got 2", None),
        ("x.TT", "unknown attribute \"TT\"", Some("T")),
    ];
    for (text, message, hint) in cases {
        let error = parse(text, &[("x", &x)]).expect_err(text);
        assert!(error.message.contains(message), "{text}: {}", error.message);
        if let Some(hint) = hint {
            assert_eq!(error.hint, Some(format!("did you mean \"{hint}\"?")), "{text}");
        }
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
