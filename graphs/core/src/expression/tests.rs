//! Tables: precedence shown by printing back with all parentheses, mistakes with their position, hostile input.

use super::{Expression, NodeKind, RESERVED, TYPE_NAMES};

#[test]
fn precedence_is_pythons() {
    let table = [
        ("a + b * c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b * c", "((a / b) * c)"),
        ("a // b % c @ d", "(((a // b) % c) @ d)"),
        ("-x ** 2", "(-(x ** 2))"),
        ("2 ** -x", "(2 ** (-x))"),
        ("a ** b ** c", "(a ** (b ** c))"),
        ("-a * b", "((-a) * b)"),
        ("~a & b", "((~a) & b)"),
        ("- - + ~a", "(-(-(+(~a))))"),
        ("a | b ^ c & d", "(a | (b ^ (c & d)))"),
        ("a & b << 2 + 1", "(a & (b << (2 + 1)))"),
        ("a < b + 1", "(a < (b + 1))"),
        ("(a < b) & (b <= c)", "((a < b) & (b <= c))"),
        ("a == b | c", "(a == (b | c))"),
        ("x.T @ x", "(x.T @ x)"),
        ("-x.T[0] ** 2", "(-(x.T[0] ** 2))"),
        ("(x + x.T) - x.mean(axis=0)", "((x + x.T) - x.mean(axis=0))"),
        ("sqrt(sum(y * y))", "sqrt(sum((y * y)))"),
        ("np.linalg.qr(x)[0]", "linalg.qr(x)[0]"),
        ("numpy.where(x > 0, x, da.zeros_like(x))", "where((x > 0), x, zeros_like(x))"),
        ("concatenate([a, b], axis=1)", "concatenate([a, b], axis=1)"),
        ("x.rechunk([1000, -1])", "x.rechunk([1000, (-1)])"),
        ("x[1:-1:2, None, ..., 3, mask, [1, 2, 3]]", "x[1:(-1):2, None, ..., 3, mask, [1, 2, 3]]"),
        ("x[:, ::2, 1:, :5, np.newaxis]", "x[:, ::2, 1:, :5, None]"),
        ("x[1:2:]", "x[1:2]"),
        ("x[(1, 2)]", "x[(1, 2)]"),
        ("(1,)", "(1,)"),
        ("()", "()"),
        ("((x))", "x"),
        ("[\n 1, # one\n 2,\n]", "[1, 2]"),
        ("x.std(ddof=1,)", "x.std(ddof=1)"),
        ("x.astype('f4').sum(None, keepdims=True)", "x.astype('f4').sum(None, keepdims=True)"),
        ("1_000 + .5 + 5. + 1e-3 + 2E5 + 0xff", "(((((1000 + 0.5) + 5.0) + 0.001) + 200000.0) + 255)"),
        ("1..real", "1.0.real"),
        ("(1).T + 2 .real", "((1).T + (2).real)"),
        ("pi * e + np.inf - nan", "(((pi * e) + inf) - nan)"),
        ("f(\"a\\n'b\")", "f('a\\n\\'b')"),
        ("x != y", "(x != y)"),
        ("x >> 1 >= y", "((x >> 1) >= y)"),
        ("étage + 1", "(étage + 1)"),
    ];
    for (text, expected) in table {
        let parsed = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parsed.to_string(), expected, "{text}");
        let again = Expression::parse(expected).unwrap_or_else(|error| panic!("{expected}: {error}"));
        assert_eq!(again.to_string(), expected, "printing {text} and parsing that again");
    }
}

#[test]
fn mistakes_have_a_position_and_often_a_hint() {
    const LONG: &str = "the integer 9999999999999999999999999999999999999999 does not fit 128 bits";
    let table = [
        ("", 0, "the expression is empty", ""),
        ("  # nothing", 0, "the expression is empty", ""),
        ("x +", 3, "expected a value, found the end of the expression", ""),
        ("x = 1", 2, "expected the end, found \"=\"", "== compares"),
        ("a < b < c", 6, "comparisons cannot be chained", "(a < b) & (b < c)"),
        ("x > 0 & y > 0", 10, "comparisons cannot be chained", "& binds tighter"),
        ("x and y", 2, "\"and\" is not an operator here", "write &"),
        ("x or y", 2, "\"or\" is not an operator here", "write |"),
        ("not x", 0, "\"not\" is not an operator here", "write ~"),
        ("x if y else z", 2, "\"if\" is not an operator here", "where("),
        ("x && y", 2, "unknown operator &&", "write &"),
        ("!x", 0, "unexpected character \"!\"", "~"),
        ("sum((x + 1)", 3, "this \"(\" is never closed", ""),
        ("x[1, 2", 1, "this \"[\" is never closed", ""),
        ("(x + 1]", 6, "\"]\" does not close \"(\"", "character 1"),
        ("x + 1)", 5, "\")\" closes nothing", ""),
        ("x[]", 1, "the index is empty", ""),
        ("x[1,,2]", 4, "expected an index, found \",\"", ""),
        ("x 2", 2, "expected the end, found the number 2", "multiply with *"),
        ("2 x", 2, "expected the end, found \"x\"", "multiply with *"),
        ("2x", 0, "malformed number \"2x\"", ""),
        ("1j", 0, "malformed number \"1j\"", "complex"),
        ("007", 0, "malformed number \"007\"", "leading zeros"),
        ("9999999999999999999999999999999999999999", 0, LONG, "write it as a float"),
        ("1e999", 0, "malformed number \"1e999\"", ""),
        ("(x)(y)", 3, "this value cannot be called", "multiply"),
        ("sum(axis=0, x)", 12, "an argument without a name follows one with a name", "first"),
        ("sum(x, axis=0, axis=1)", 15, "the argument \"axis\" is given twice", ""),
        ("sum(*x)", 4, "arguments cannot be unpacked", "one by one"),
        ("linalg", 0, "\"linalg\" is a family of functions, not a value", ""),
        ("np.linalg.norm", 0, "\"linalg.norm\" is a function; call it: linalg.norm(...)", ""),
        ("np.x", 0, "\"np.x\" is neither a constant nor a call", "pi"),
        ("a, b", 1, "expected the end, found \",\"", "parentheses"),
        ("'abc", 0, "this string is never closed", ""),
        ("x.", 2, "expected the name of an attribute or method, found the end of the expression", ""),
        ("f(x y)", 4, "expected \",\" or \")\", found \"y\"", "operator is missing"),
        ("...", 0, "... can only stand in an index", ""),
        ("x; y", 1, "unexpected character \";\"", "one expression"),
    ];
    for (text, position, message, hint) in table {
        let error = Expression::parse(text).expect_err(text);
        assert_eq!((error.span.start, error.message.as_str()), (position, message), "{text}");
        let found = error.hint.unwrap_or_default();
        assert!(found.contains(hint) && found.is_empty() == hint.is_empty(), "{text}: hint {found:?}, expected {hint:?}");
    }
}

#[test]
fn names_are_the_arrays_and_nothing_else() {
    let parsed = Expression::parse("sum(y * y, axis=0) + x.T.dot(y) - pi + np.zeros_like(mask)[k:]").expect("a good expression");
    let names: Vec<(String, u32)> = parsed.names().into_iter().map(|(name, span)| (name, span.start)).collect();
    let expected = [("y", 4), ("x", 21), ("mask", 53), ("k", 59)];
    assert_eq!(names, expected.map(|(name, start)| (name.to_owned(), start)));
}

#[test]
fn integers_have_their_digits_and_types_their_names() {
    let parsed = Expression::parse("18446744073709551615").expect("a good expression");
    assert_eq!(parsed.node(parsed.root()), &NodeKind::Integer(18_446_744_073_709_551_615));
    let parsed = Expression::parse("np.float32").expect("a good expression");
    assert_eq!(parsed.node(parsed.root()), &NodeKind::Text("float32".to_owned()));
    assert!(TYPE_NAMES.iter().all(|name| !RESERVED.contains(name)));
}

#[test]
fn children_come_before_parents_and_new_axes_leave_no_node() {
    let parsed = Expression::parse("x[None, 1:2] + f(y, axis=-1)").expect("a good expression");
    assert_eq!(parsed.root().index() + 1, parsed.nodes().len());
    assert!(!parsed.nodes().contains(&NodeKind::None));
    assert_eq!(parsed.span(parsed.root()).end, 28);
}

#[test]
fn hostile_nesting_is_an_error_and_long_chains_are_fine() {
    for (unit, close) in [("(", ")"), ("[", "]"), ("-", ""), ("f(", ")"), ("x[", "]"), ("2**", "")] {
        let text = format!("{}x{}", unit.repeat(100_000), close.repeat(100_000));
        let error = Expression::parse(&text).expect_err("far too deep");
        assert!(error.message.contains("nests deeper"), "{unit}: {error}");
    }
    let chain = vec!["x"; 1_500].join(" + ");
    assert_eq!(Expression::parse(&chain).map(|parsed| parsed.nodes().len()), Ok(2_999));
    assert!(Expression::parse(&vec!["x"; 3_000].join(" + ")).is_err());
    assert!(Expression::parse(&format!("x{}", ".T".repeat(3_000))).is_err());
}

#[test]
fn random_texts_never_panic() {
    let pieces = [
        "x", "(", ")", "[", "]", ",", ":", "**", "-", "1", "1.5", "np.", ".T", "=", "axis", " ", "é", "'", "...", "None", "<",
        "#", "\n",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..(state >> 60) + 1 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        match Expression::parse(&text) {
            Ok(parsed) => assert!(Expression::parse(&parsed.to_string()).is_ok(), "{text} printed as {parsed}"),
            Err(error) => {
                assert!(text.is_char_boundary(error.span.start as usize) && error.span.end as usize <= text.len(), "{text}")
            }
        }
    }
}
