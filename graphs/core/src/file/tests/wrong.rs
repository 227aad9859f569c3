//! Wrong files: each with all the messages it must get, as `line:column: message (hint)`.
//!
//! A table entry's text follows a first line `rask = 1` unless it begins with another; positions count that line.

use super::{parse, parse_with, shown};

/// Each case: what is wrong, the file, and exactly what is said about it.
const CASES: &[(&str, &str, &str)] = &[
    // Syntax and the top of the file.
    ("no version", "[array.x]\nload = 'x.npy'", "1:1: the version of the format is missing (begin the file with rask = 1)"),
    ("another version", "rask = 2\n[frme.x]", "1:8: format version 2 is not known here, this is version 1"),
    ("version of another type", "rask = \"1\"\n[array.x]\nload = 'x.npy'", "1:8: \"rask\" must be the integer 1, found a string"),
    ("nothing", "", "1:1: the version of the format is missing (begin the file with rask = 1)"),
    (
        "nothing declared",
        "rask = 1",
        "1:1: the file declares nothing to compute (add a [frame.NAME], [array.NAME] or [task.NAME])",
    ),
    ("unknown section", "rask = 1\n[fram.x]\npath = 'a.csv'", "2:2: unknown section \"fram\" (did you mean \"frame\"?)"),
    (
        "unknown section, nothing near",
        "rask = 1\n[workers]\nx = 1\n[array.x]\nload = 'x.npy'",
        "2:2: unknown section \"workers\" (the sections are params, frame, array, task and output)",
    ),
    ("section of another type", "rask = 1\nframe = 3", "2:9: \"frame\" must be a table, found an integer"),
    ("declaration of another type", "rask = 1\n[array]\nx = 3", "3:5: [array.x] must be a table, found an integer"),
    ("JSON, a comma too many", "{\"rask\": 1,\n }", "2:2: expected a key in double quotes, found `}`"),
    ("JSON, no value", "{\"rask\": }", "1:10: expected a value, found `}`"),
    ("JSON, a key twice", "{\"rask\": 1,\n \"rask\": 1}", "2:2: duplicate key \"rask\""),
    ("JSON, an open string", "{\"rask", "1:2: this string is never closed"),
    ("JSON, a leading zero", "{\"rask\": 01}", "1:10: malformed number 01"),
    ("JSON, something behind", "{\"rask\": 1} x", "1:13: expected the end of the file, found `x`"),
    (
        "an integer beyond 64 bits",
        "rask = 1\nx = 99999999999999999999",
        "2:5: the integer 99999999999999999999 does not fit 64 bits",
    ),
    // Keys and values.
    (
        "unknown key",
        "rask = 1\n[frame.f]\npth = 'a.csv'\nread = 'csv'",
        "2:8: [frame.f] needs \"path\"\n3:1: unknown key \"pth\" in [frame.f] (did you mean \"path\"?)",
    ),
    ("missing key", "rask = 1\n[array.x]\nrandom = 'normal'", "2:8: [array.x] needs \"shape\""),
    (
        "no source",
        "rask = 1\n[array.x]\nchunks = 5",
        "2:8: [array.x] has no source (it needs random, create, load, expr or from_frame)",
    ),
    ("misspelt source", "rask = 1\n[array.x]\nexpt = 'y'", "2:8: [array.x] has no source (did you mean \"expr\"?)"),
    (
        "two sources",
        "rask = 1\n[frame.f]\npath = 'a.csv'\nsql = 'SELECT'",
        "4:1: [frame.f] has two sources, \"read\" and \"sql\" (exactly one of read, sql or from_array)",
    ),
    (
        "unknown distribution",
        "rask = 1\n[array.x]\nrandom = 'norml'\nshape = 3",
        "3:10: unknown distribution \"norml\" (did you mean \"normal\"?)",
    ),
    (
        "unknown function",
        "rask = 1\n[array.x]\ncreate = 'identity'\nn = 3",
        "3:10: unknown function \"identity\" (one of zeros, ones, full, arange, linspace or eye)",
    ),
    (
        "a key of another function",
        "rask = 1\n[array.x]\ncreate = 'zeros'\nshape = 3\nstop = 4",
        "5:1: unknown key \"stop\" in [array.x] (create = \"zeros\" goes with chunks, dtype, shape)",
    ),
    (
        "shape of another type",
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = ['3']",
        "4:10: \"shape\" must be a list of integers of at least 0, found \"3\"",
    ),
    (
        "negative shape",
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [3, -1]",
        "4:13: \"shape\" must be a list of integers of at least 0, found -1",
    ),
    (
        "unknown dtype",
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = 3\ndtype = 'float46'",
        "5:9: \"dtype\" must be one of bool, i8, i16, i32, i64, u8, u16, u32, u64, f32 or f64, found \"float46\" (did you mean \"float64\"?)",
    ),
    (
        "chunks that are none",
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = 3\nchunks = 'auot'",
        "5:10: \"chunks\" must be \"auto\", an integer of at least 1, or a list with one entry an axis, found \"auot\" (did you mean \"auto\"?)",
    ),
    (
        "chunks for another shape",
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [3, 4]\nchunks = [1]",
        "5:10: \"chunks\" has 1 entries and \"shape\" has 2",
    ),
    (
        "chunks that do not add up",
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [3, 4]\nchunks = [3, [1, 2]]",
        "5:10: the chunks of axis 1 add up to 3, its length is 4",
    ),
    ("a step of nothing", "rask = 1\n[array.x]\ncreate = 'arange'\nstop = 3\nstep = 0", "5:8: \"step\" must not be 0"),
    (
        "unknown format",
        "rask = 1\n[frame.f]\npath = 'a.csv'\nread = 'cvs'",
        "4:8: \"read\" must be csv, parquet, json or arrow, found \"cvs\" (did you mean \"csv\"?)",
    ),
    (
        "no format by extension",
        "rask = 1\n[frame.f]\npath = ['data/a.xls']",
        "3:9: the format of \"data/a.xls\" is not known by its extension (say read = \"csv\", \"parquet\", \"json\" or \"arrow\")",
    ),
    ("no path", "rask = 1\n[frame.f]\npath = []", "3:8: \"path\" must name at least one file"),
    (
        "an option of another format",
        "rask = 1\n[frame.f]\npath = 'a.parquet'\ndelimiter = ';'",
        "4:13: \"delimiter\" is for CSV files only",
    ),
    (
        "two characters",
        "rask = 1\n[frame.f]\npath = 'a.csv'\ndelimiter = '||'",
        "4:13: \"delimiter\" must be a string of one character, found \"||\"",
    ),
    (
        "an array file of another format",
        "rask = 1\n[array.x]\nload = 'a.csv'",
        "3:8: the format of \"a.csv\" is not known by its extension (arrays are loaded from .npy, .npz and .zarr)",
    ),
    (
        "a priority too high",
        "rask = 1\n[task.t]\nop = 'core.noop'\npriority = 3000000000",
        "4:12: \"priority\" does not fit 32 bits",
    ),
    (
        "negative resources",
        "rask = 1\n[task.t]\nop = 'core.noop'\nresources = { gpu = -1 }",
        "4:21: \"resources\" must be a table of numbers of at least 0, found -1",
    ),
    (
        "arguments without number",
        "rask = 1\n[task.t]\nop = 'core.noop'\nargs = { a = nan }",
        "4:14: arguments and parameters must be finite, found NaN",
    ),
    // Names.
    (
        "a name twice",
        "rask = 1\n[frame.x]\npath = 'a.csv'\n[array.x]\nload = 'x.npy'",
        "4:8: the name \"x\" is taken (a frame has it, on line 2)",
    ),
    (
        "a name that is no identifier",
        "rask = 1\n[array.x-1]\nload = 'x.npy'",
        "2:8: \"x-1\" cannot name an array (names are letters, digits and _, not beginning with a digit)",
    ),
    (
        "a reserved name",
        "rask = 1\n[array.pi]\nload = 'x.npy'",
        "2:8: \"pi\" means something in every expression and cannot name an array",
    ),
    ("a task's name with a star", "rask = 1\n[task.'x*']\nop = 'core.noop'", "2:7: a task's name cannot contain \"*\""),
    // References.
    (
        "unknown frame",
        "rask = 1\n[frame.flights]\npath = 'a.csv'\n[array.x]\nfrom_frame = 'flihgts'",
        "5:14: unknown frame \"flihgts\" (did you mean \"flights\"?)",
    ),
    (
        "an array for a frame",
        "rask = 1\n[array.a]\nload = 'a.npy'\n[array.x]\nfrom_frame = 'a'",
        "5:14: \"a\" is an array, not a frame",
    ),
    (
        "unknown table in SQL",
        "rask = 1\n[frame.flights]\npath = 'a.csv'\n[frame.g]\nsql = \"\"\"SELECT a\n  FROM flihgts\"\"\"",
        "6:8: unknown frame \"flihgts\" (did you mean \"flights\"?)",
    ),
    (
        "an array in SQL",
        "rask = 1\n[array.a]\nload = 'a.npy'\n[frame.g]\nsql = 'SELECT b FROM a'",
        "5:22: \"a\" is an array, not a frame (make a frame of it: [frame.NAME] with from_array = \"a\")",
    ),
    ("no SQL", "rask = 1\n[frame.g]\nsql = \"\"\"\n\n  SELEC a\"\"\"", "5:3: expected SELECT, found SELEC"),
    (
        "unknown name in an expression",
        "rask = 1\n[array.price]\nload = 'a.npy'\n[array.y]\nexpr = '2 * prize'",
        "5:13: unknown name \"prize\" (did you mean \"price\"?)",
    ),
    (
        "a frame in an expression",
        "rask = 1\n[frame.f]\npath = 'a.csv'\n[array.y]\nexpr = '''\nf + 1'''",
        "6:1: \"f\" is a frame, not an array (make an array of it: [array.NAME] with from_frame = \"f\")",
    ),
    (
        "no expression",
        "rask = 1\n[array.y]\nexpr = \"\"\"\n  (1 +\n   2]\"\"\"",
        "5:5: \"]\" does not close \"(\" (\"(\" was opened at character 3 of the expression)",
    ),
    (
        "an assignment",
        "rask = 1\n[array.y]\nexpr = \"1 = 2\"",
        "3:11: expected the end, found \"=\" (== compares; = only names an argument inside a call)",
    ),
    (
        "unknown input",
        "rask = 1\n[task.split]\nop = 'core.noop'\n[task.t]\nop = 'core.noop'\ninputs = ['spilt[2]']",
        "6:11: unknown input \"spilt\" (did you mean \"split\"?)",
    ),
    (
        "a pattern nothing fits",
        "rask = 1\n[task.t]\nop = 'core.noop'\ninputs = 'hlaf-*'",
        "4:10: no task has a name like \"hlaf-*\"",
    ),
    (
        "a part of an array",
        "rask = 1\n[array.x]\nload = 'x.npy'\n[task.t]\nop = 'core.noop'\ninputs = 'x[0]'",
        "6:10: \"x\" is an array; only results of tasks have parts",
    ),
    (
        "a cycle of arrays",
        "rask = 1\n[array.a]\nexpr = 'b'\n[array.b]\nexpr = 'c + 1'\n[array.c]\nexpr = 'a'",
        "2:8: these names form a cycle: a -> b -> c -> a (a -> b means that a uses b)",
    ),
    (
        "a cycle across sections",
        "rask = 1\n[frame.f]\nsql = 'SELECT x FROM g'\n[frame.g]\nfrom_array = 'y'\n[array.y]\nfrom_frame = 'f'",
        "2:8: these names form a cycle: f -> g -> y -> f (a -> b means that a uses b)",
    ),
    (
        "a task that uses itself",
        "rask = 1\n[task.x-total]\nop = 'core.noop'\ninputs = ['x-*']",
        "2:7: these names form a cycle: x-total -> x-total (a -> b means that a uses b)",
    ),
    // Parameters.
    (
        "unknown parameter",
        "rask = 1\n[params]\nrows = 3\n[array.x]\ncreate = 'ones'\nshape = ['${row}']",
        "6:11: unknown parameter \"row\" (did you mean \"rows\"?)",
    ),
    (
        "a parameter of another type",
        "rask = 1\n[params]\nn = 'x'\n[array.x]\ncreate = 'eye'\nn = '${n}'",
        "6:5: \"n\" must be an integer of at least 0, found \"x\"",
    ),
    (
        "an open parameter",
        "rask = 1\n[array.x]\nload = 'a${.npy'",
        "3:10: this \"${\" is never closed (a plain ${ is written $${)",
    ),
    (
        "a parameter of parameters",
        "rask = 1\n[params]\na = 1\nb = '${a}'\n[array.x]\nload = 'x.npy'",
        "4:5: parameters cannot be made of parameters",
    ),
    (
        "a table as parameter",
        "rask = 1\n[params]\na = { b = 1 }\n[array.x]\nload = 'x.npy'",
        "3:5: a parameter must be a number, a string, a boolean or a list, found a table",
    ),
    (
        "params that are none",
        "rask = 1\nparams = 3\n[array.x]\nload = 'x.npy'",
        "2:10: \"params\" must be a table, found an integer",
    ),
    // Families.
    (
        "unknown variable",
        "rask = 1\n[task.'t-{row}']\nfor = { row = 2 }\nop = 'core.noop'\nargs = { a = 'x{rwo+1}' }",
        "5:17: unknown variable \"rwo\" (did you mean \"row\"?)",
    ),
    (
        "a variable that is not in the name",
        "rask = 1\n[task.'t-{i}']\nfor = { i = 2, j = 2 }\nop = 'core.noop'",
        "2:7: the name \"t-{i}\" must contain every variable, {j} is missing (without it several members would have one name)",
    ),
    (
        "members with one name",
        "rask = 1\n[task.'t-{i//2}']\nfor = { i = 2 }\nop = 'core.noop'",
        "2:7: two members of this family are called \"t-0\"",
    ),
    (
        "a placeholder without for",
        "rask = 1\n[task.'t-{i}']\nop = 'core.noop'",
        "2:7: \"t-{i}\" has a placeholder but no \"for\" (a family says for = { i = 4 })",
    ),
    (
        "a negative count",
        "rask = 1\n[task.'t-{i}']\nfor = { i = -1 }\nop = 'core.noop'",
        "3:13: \"for\" must be a table of counts or lists of integers and strings, found -1",
    ),
    (
        "division by zero",
        "rask = 1\n[task.'t-{i}']\nfor = { i = 2 }\nop = 'core.noop'\nargs = { a = '{1 // i}' }",
        "5:8: division by zero, for \"t-0\"",
    ),
    (
        "a true division",
        "rask = 1\n[task.'t-{i}']\nfor = { i = 2 }\nop = 'core.noop'\ninputs = 't-{i/2}'",
        "5:15: formulas have no / because they are integers (// divides and rounds down)",
    ),
    (
        "an open brace",
        "rask = 1\n[task.'t-{i}']\nfor = { i = 2 }\nop = 'core.noop'\ninputs = 't-{i'",
        "5:13: this \"{\" has no partner (in a family a plain brace is written {{ or }})",
    ),
    (
        "calculating with text",
        "rask = 1\n[task.'t-{i}']\nfor = { i = ['a'] }\nop = 'core.noop'\nargs = { a = '{i+1}' }",
        "5:8: \"a\" is not an integer to calculate with, for \"t-a\"",
    ),
    (
        "a broken family's members are no further mistakes",
        "rask = 1\n[task.'t-{i}']\nfor = { i = 2 }\npo = 'core.noop'\n[task.u]\nop = 'core.noop'\ninputs = ['t-0', 't-*']",
        "2:7: [task.t-{i}] needs \"op\"\n4:1: unknown key \"po\" in [task.t-{i}] (did you mean \"op\"?)",
    ),
    // Outputs.
    (
        "unknown output",
        "rask = 1\n[frame.by_carrier]\npath = 'a.csv'\n[output.o]\nof = 'by_carier'",
        "5:6: unknown name \"by_carier\" (did you mean \"by_carrier\"?)",
    ),
    ("an output of nothing", "rask = 1\n[array.x]\nload = 'x.npy'\n[output.o]\nwrite = 'a.npy'", "4:9: [output.o] needs \"of\""),
    (
        "an unknown name in an output",
        "rask = 1\n[array.x]\nload = 'x.npy'\n[output.o]\nof = 'sqrt(xx + zzzzz)'",
        "5:12: unknown name \"xx\" (did you mean \"x\"?)\n5:17: unknown name \"zzzzz\"",
    ),
    (
        "an unknown ending",
        "rask = 1\n[array.x]\nload = 'x.npy'\n[output.o]\nof = 'x'\nwrite = 'x.pny'",
        "6:9: the format of \"x.pny\" is not known by its extension (did you mean \"npy\"?)",
    ),
    (
        "no ending",
        "rask = 1\n[array.x]\nload = 'x.npy'\n[output.o]\nof = 'x'\nwrite = 'out/x'",
        "6:9: the format of \"out/x\" is not known by its extension (end it with .parquet, .csv, .json, .npy or .zarr)",
    ),
    (
        "a frame as array file",
        "rask = 1\n[frame.f]\npath = 'a.csv'\n[output.o]\nof = 'f'\nwrite = 'f.npy'",
        "6:9: \"f.npy\" cannot hold this output (a frame is written as .parquet, .csv or .json)",
    ),
    (
        "one file twice",
        "rask = 1\n[array.x]\nload = 'x.npy'\n[output.o]\nof = 'x'\nwrite = 'y.npy'\n[output.p]\nof = 'x'\nwrite = 'y.npy'",
        "9:9: \"y.npy\" is written by output \"o\" already",
    ),
];

#[test]
fn wrong_files_are_told_exactly_what_is_wrong() {
    let mut failures = String::new();
    for (title, text, expected) in CASES {
        let found = match parse(text) {
            Ok(_) => "no mistake".to_owned(),
            Err(mistakes) => shown(&mistakes),
        };
        if found != *expected {
            failures.push_str(&format!("--- {title}\nexpected {expected}\nfound    {found}\n"));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(CASES.len() >= 45);
}

#[test]
fn toml_syntax_mistakes_have_a_position() {
    for (text, place) in
        [("rask = 1\n[array.x\n", (2, 9)), ("rask = 1\nrask = 2", (2, 1)), ("rask = 1\n[a]\nx = \"abc\n", (3, 9))]
    {
        let mistakes = parse(text).expect_err(text);
        assert_eq!((mistakes[0].line, mistakes[0].column), place, "{}", shown(&mistakes));
    }
}

#[test]
fn overrides_are_checked_against_the_parameters() {
    let text = "rask = 1\n[params]\nrows = 3\nratio = 0.5\nfast = true\nlist = [1]\n[array.x]\nload = 'x.npy'";
    for (name, value, expected) in [
        ("row", "3", "--set row=3: unknown parameter \"row\" (did you mean \"rows\"?)"),
        ("zzzzzz", "3", "--set zzzzzz=3: unknown parameter \"zzzzzz\" (the parameters are rows, ratio, fast, list)"),
        ("rows", "3.5", "--set rows=3.5: \"rows\" must be an integer, found \"3.5\""),
        ("ratio", "half", "--set ratio=half: \"ratio\" must be a number, found \"half\""),
        ("ratio", "nan", "--set ratio=nan: \"ratio\" must be a number, found \"nan\""),
        ("fast", "yes", "--set fast=yes: \"fast\" must be true or false, found \"yes\""),
        ("list", "1", "--set list=1: \"list\" must be a list like [1, 2], found \"1\""),
    ] {
        assert_eq!(shown(&parse_with(text, &[(name, value)]).expect_err(name)), expected);
    }
}

#[test]
fn operators_and_their_arguments_are_checked() {
    let text = r#"
rask = 1
[task.a]
op = "core.nop"
[task.b]
op = "core.sleep"
args = { secnods = 1.0, seconds = 2.0 }
[task.c]
op = "core.sleep"
[task."d-{i}"]
for = { i = 3 }
op = "core.sleep"
args = { seconds = "long" }
[task.e]
op = "core.noop"
args = { x = 1 }
[task.f]
op = "test.one"
inputs = ["a", "b"]
args = { first = 1, second = "x" }
[task.g]
op = "nothing.like.it"
"#;
    let mut registry = crate::Registry::new();
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Args {
        #[expect(dead_code, reason = "only its type matters")]
        first: i64,
        #[expect(dead_code, reason = "only its type matters")]
        second: i64,
    }
    let spec = crate::OperatorSpec::new::<Args>("test.one", 1, crate::Arity::exactly(1), "bytes", "A test.");
    registry.register(spec, |_, _: &Args, inputs| Ok(inputs[0].clone()));
    let file = super::good(text);
    let expected = "4:6: unknown operator \"core.nop\" (did you mean \"core.noop\"?)\n\
        7:10: unknown argument \"secnods\" of operator \"core.sleep\" (did you mean \"seconds\"?)\n\
        9:6: operator \"core.sleep\" needs the argument \"seconds\"\n\
        13:20: operator \"core.sleep\": invalid type: string \"long\", expected f64\n\
        16:10: unknown argument \"x\" of operator \"core.noop\" (it takes no arguments)\n\
        19:10: operator \"test.one\" takes 1 input, got 2\n\
        20:30: operator \"test.one\": invalid type: string \"x\", expected i64\n\
        22:6: unknown operator \"nothing.like.it\" (`rask ops` lists them)";
    assert_eq!(shown(&file.check_operators(&registry)), expected);
}
