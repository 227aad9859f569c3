//! Wrong graph files through `rask check`: message, place and exit code of each; and data files that are not there, which
//! are no mistakes of the graph file but fail what needs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::Place;

const CSV: &str = "carrier,delay\nAA,1.5\nUA,2.5\n";

/// A file, where its first mistake is, and what is said about it; behind a `|` the hint.
const WRONG: &[(&str, &str)] = &[
    // The file as a whole.
    ("[array.x]\ncreate = 'ones'\nshape = 3", "1:1: the version of the format is missing|begin the file with rask = 1"),
    ("rask = 2", "1:8: format version 2 is not known here, this is version 1"),
    ("rask = 1", "1:1: the file declares nothing to compute"),
    ("rask = 1\n[fram.x]\npath = 'a.csv'", "2:2: unknown section \"fram\"|did you mean \"frame\"?"),
    ("rask = 1\n[array.x\n", "2:9: "),
    ("rask = 1\nrask = 1\n", "2:1: "),
    // Keys and values.
    ("rask = 1\n[array.x]\nrandom = 'normal'", "2:8: [array.x] needs \"shape\""),
    ("rask = 1\n[array.x]\nchunks = 5", "2:8: [array.x] has no source|it needs random, create, load, expr or from_frame"),
    ("rask = 1\n[array.x]\nexpr = '1'\nload = 'x.npy'", "4:1: [array.x] has two sources, \"expr\" and \"load\""),
    ("rask = 1\n[array.x]\nrandom = 'norml'\nshape = 3", "3:10: unknown distribution \"norml\"|did you mean \"normal\"?"),
    (
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [3, -1]",
        "4:13: \"shape\" must be a list of integers of at least 0, found -1",
    ),
    (
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = 3\ndtyp = 'f8'",
        "5:1: unknown key \"dtyp\" in [array.x]|did you mean \"dtype\"?",
    ),
    ("rask = 1\n[array.x]\ncreate = 'ones'\nshape = [3, 4]\nchunks = [1]", "5:10: \"chunks\" has 1 entries and \"shape\" has 2"),
    (
        "rask = 1\n[frame.f]\npath = 'a.csv'\nread = 'cvs'",
        "4:8: \"read\" must be csv, parquet, json or arrow, found \"cvs\"|did you mean \"csv\"?",
    ),
    ("rask = 1\n[frame.f]\npath = 'a.xls'", "3:8: the format of \"a.xls\" is not known by its extension"),
    ("rask = 1\n[task.t]\nop = 'core.noop'\npriority = 'high'", "4:12: \"priority\" must be an integer, found \"high\""),
    // Names and references.
    (
        "rask = 1\n[frame.x]\npath = 'a.csv'\n[array.x]\ncreate = 'ones'\nshape = 3",
        "4:8: the name \"x\" is taken|a frame has it, on line 2",
    ),
    (
        "rask = 1\n[array.pi]\ncreate = 'ones'\nshape = 3",
        "2:8: \"pi\" means something in every expression and cannot name an array",
    ),
    (
        "rask = 1\n[frame.data]\npath = 'data.csv'\n[array.x]\nfrom_frame = 'dta'",
        "5:14: unknown frame \"dta\"|did you mean \"data\"?",
    ),
    (
        "rask = 1\n[frame.data]\npath = 'data.csv'\n[frame.g]\nsql = 'SELECT * FROM dtaa'",
        "5:22: unknown frame \"dtaa\"|did you mean \"data\"?",
    ),
    (
        "rask = 1\n[array.price]\ncreate = 'ones'\nshape = 3\n[array.y]\nexpr = '2 * prize'",
        "6:13: unknown name \"prize\"|did you mean \"price\"?",
    ),
    ("rask = 1\n[task.t]\nop = 'core.noop'\ninputs = ['nothing-*']", "4:11: no task has a name like \"nothing-*\""),
    (
        "rask = 1\n[array.a]\nexpr = 'b'\n[array.b]\nexpr = 'a'",
        "2:8: these names form a cycle: a -> b -> a|a -> b means that a uses b",
    ),
    // Parameters and families.
    (
        "rask = 1\n[params]\nrows = 3\n[array.x]\ncreate = 'ones'\nshape = ['${row}']",
        "6:11: unknown parameter \"row\"|did you mean \"rows\"?",
    ),
    (
        "rask = 1\n[params]\nn = 'x'\n[array.x]\ncreate = 'eye'\nn = '${n}'",
        "6:5: \"n\" must be an integer of at least 0, found \"x\"",
    ),
    (
        "rask = 1\n[task.'t-{i}']\nop = 'core.noop'",
        "2:7: \"t-{i}\" has a placeholder but no \"for\"|a family says for = { i = 4 }",
    ),
    (
        "rask = 1\n[task.'t-{i}']\nfor = { i = 2 }\nop = 'core.noop'\ninputs = 't-{i/2}'",
        "5:15: formulas have no / because they are integers|// divides and rounds down",
    ),
    // Operators.
    ("rask = 1\n[task.t]\nop = 'core.nop'", "3:6: unknown operator \"core.nop\"|did you mean \"core.noop\"?"),
    (
        "rask = 1\n[task.t]\nop = 'core.sleep'\nargs = { secnds = 1 }",
        "4:10: unknown argument \"secnds\" of operator \"core.sleep\"|did you mean \"seconds\"?",
    ),
    ("rask = 1\n[task.t]\nop = 'core.sleep'", "3:6: operator \"core.sleep\" needs the argument \"seconds\""),
    (
        "rask = 1\n[task.t]\nop = 'core.sleep'\nargs = { seconds = 'long' }",
        "4:20: operator \"core.sleep\": invalid type: string \"long\", expected f64",
    ),
    ("rask = 1\n[task.t]\nop = 'frame.to_array'", "3:6: operator \"frame.to_array\" takes 1 input, got 0"),
    // Expressions: syntax, functions, shapes.
    ("rask = 1\n[array.y]\nexpr = '(1 + 2'", "3:9: "),
    ("rask = 1\n[array.x]\ncreate = 'ones'\nshape = 3\n[output.o]\nof = 'sqroot(x)'", "6:7: unknown function \"sqroot\""),
    (
        "rask = 1\n[array.a]\ncreate = 'ones'\nshape = [2, 3]\n[array.b]\ncreate = 'ones'\nshape = [4, 5]\n[output.o]\nof = 'a + b'",
        "9:7: shapes (2, 3) and (4, 5) do not match",
    ),
    ("rask = 1\n[array.a]\ncreate = 'ones'\nshape = [2, 3]\n[output.o]\nof = 'a @ a'", "6:7: "),
    (
        "rask = 1\n[array.a]\ncreate = 'ones'\nshape = [2, 3]\n[output.o]\nof = 'a.sum(axis=2)'",
        "6:7: axis 2 is out of bounds for an array of 2 dimensions",
    ),
    (
        "rask = 1\n[array.a]\ncreate = 'ones'\nshape = 5\n[output.o]\nof = 'a[7]'",
        "6:7: index 7 is out of bounds for axis 0 with size 5",
    ),
    ("rask = 1\n[array.a]\ncreate = 'ones'\nshape = 5\n[output.o]\nof = 'a and a'", "6:9: "),
    // SQL and columns.
    ("rask = 1\n[frame.data]\npath = 'data.csv'\n[frame.g]\nsql = 'SELEC 1'", "5:8: Expected: an SQL statement, found: SELEC"),
    ("rask = 1\n[frame.data]\npath = 'data.csv'\n[frame.g]\nsql = 'SELECT dely FROM data'", "5:15: "),
    ("rask = 1\n[frame.data]\npath = 'data.csv'\n[frame.g]\nsql = 'SELECT sqroot(delay) FROM data'", "5:"),
    ("rask = 1\n[frame.data]\npath = 'data.csv'\ncolumns = ['dely']", "4:12: unknown column \"dely\"|did you mean \"delay\"?"),
    (
        "rask = 1\n[frame.data]\npath = 'data.csv'\n[array.x]\nfrom_frame = 'data'\ncolumns = ['carrier']",
        "6:12: column \"carrier\" is string, not a number",
    ),
    ("rask = 1\n[frame.data]\npath = 'data.csv'\ntypes = { delay = 'flot' }", "4:19: unknown type \"flot\""),
    // Outputs.
    ("rask = 1\n[frame.data]\npath = 'data.csv'\n[output.o]\nof = 'dat'", "5:6: unknown name \"dat\"|did you mean \"data\"?"),
    (
        "rask = 1\n[frame.data]\npath = 'data.csv'\n[output.o]\nof = 'data'\nwrite = 'd.npy'",
        "6:9: \"d.npy\" cannot hold this output|a frame is written as .parquet, .csv or .json",
    ),
    (
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [9000, 9000]\n[output.o]\nof = 'x'",
        "5:9: an array of shape (9000, 9000) and type f64 is too large to print",
    ),
    (
        "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [2, 2, 2]\n[frame.f]\nfrom_array = 'x'",
        "6:14: \"x\" has shape (2, 2, 2), a frame needs one or two axes",
    ),
];

#[test]
fn every_mistake_has_its_message_its_place_and_its_exit_code() {
    let place = Place::new();
    place.write("data.csv", CSV);
    let mut failures = String::new();
    for (text, expected) in WRONG {
        place.write("wrong.toml", text);
        let ended = place.run(["check", "wrong.toml"]);
        let (message, hint) = expected.split_once('|').unwrap_or((expected, ""));
        let says_it = ended.stderr.contains(&format!("error: wrong.toml:{message}"));
        let hints = hint.is_empty() || ended.stderr.contains(&format!("\nhint: {hint}"));
        if !(says_it && hints && ended.code == Some(2) && ended.stdout.is_empty()) {
            failures.push_str(&format!("--- {text}\nexpected {expected}\nfound {:?} {}\n", ended.code, ended.stderr));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(WRONG.len() >= 40);
}

#[test]
fn all_mistakes_are_told_at_once_and_nothing_runs() {
    let place = Place::new();
    place.write("data.csv", CSV);
    let text = "rask = 1\n[frame.data]\npath = 'data.csv'\n[output.good]\nof = 'data'\nwrite = 'good.csv'\n\
                [output.a]\nof = 'datta'\n[output.b]\nof = 'sqrt('\n";
    place.write("wrong.toml", text);
    let ended = place.run(["run", "wrong.toml"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stderr.matches("error: ").count(), 2, "{ended:?}");
    assert!(!place.path("good.csv").exists());
}

#[test]
fn json_files_have_places_too() {
    let place = Place::new();
    place.write("wrong.json", "{\"rask\": 1,\n \"array\": {\"x\": {\"create\": \"ones\", \"shap\": 3}}}");
    let ended = place.run(["check", "wrong.json"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("error: wrong.json:2:36: unknown key \"shap\""), "{ended:?}");
}

#[test]
fn settings_are_checked() {
    let place = Place::with_examples();
    for (setting, message) in [
        ("m=3", "error: --set m=3: unknown parameter \"m\""),
        ("n=many", "error: --set n=many: \"n\" must be an integer, found \"many\""),
    ] {
        let ended = place.run(["run", "arrays.toml", "--set", setting]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with(message), "{ended:?}");
    }
}

#[test]
fn a_graph_file_that_is_not_there_is_an_argument_mistake() {
    let place = Place::new();
    let ended = place.run(["run", "nowhere.toml"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), "error: cannot read nowhere.toml: no such file or directory\n"));
    fs::write(place.path("bytes.toml"), b"rask = 1\n\xff").unwrap();
    let ended = place.run(["run", "bytes.toml"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(2), "error: bytes.toml is not UTF-8 text: byte 9 is not part of a character\n")
    );
}

#[test]
fn a_missing_data_file_fails_only_what_needs_it() {
    let place = Place::new();
    place.write("data.csv", CSV);
    let text = "rask = 1\n[frame.data]\npath = 'data.csv'\n[frame.lost]\npath = 'lost-*.csv'\n[frame.less]\nsql = 'SELECT * FROM lost'\n\
                [array.gone]\nload = 'gone.npy'\n[output.here]\nof = 'data'\n[output.away]\nof = 'less'\nwrite = 'away.parquet'\n\
                [output.far]\nof = 'gone.sum()'\n";
    place.write("graph.toml", text);
    for command in ["run", "check"] {
        let ended = place.run([command, "graph.toml"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("error: output \"away\": ") && ended.stderr.contains("lost-*.csv"), "{ended:?}");
        assert!(ended.stderr.contains("error: output \"far\": ") && ended.stderr.contains("gone.npy"), "{ended:?}");
        assert!(!ended.stderr.contains("\"here\""), "{ended:?}");
        if command == "run" {
            assert!(ended.stdout.contains("| AA      | 1.5   |"), "{ended:?}");
        }
    }
    assert!(!place.path("away.parquet").exists());
    let ended = place.run(["run", "graph.toml", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["outputs"]["here"]["rows"], serde_json::json!([["AA", 1.5], ["UA", 2.5]]));
    assert!(answer["failed"]["away"].as_str().unwrap().contains("lost-*.csv"));
}

#[test]
fn a_file_that_breaks_in_the_middle_leaves_nothing_behind() {
    let place = Place::new();
    let mut rows = String::from("a,b\n");
    for row in 0..5000 {
        rows.push_str(&format!("{row},{row}\n"));
    }
    rows.push_str("not a number,1\n");
    place.write("bad.csv", &rows);
    place.write(
        "graph.toml",
        "rask = 1\n[frame.bad]\npath = 'bad.csv'\ntypes = { a = 'i64' }\n[output.o]\nof = 'bad'\nwrite = 'out/bad.parquet'\n",
    );
    let ended = place.run(["run", "graph.toml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("bad.csv") && ended.stderr.contains("5002"), "the file and the line are named: {ended:?}");
    assert_eq!(place.names_in("out"), Vec::<String>::new());
}

#[test]
fn an_unwritable_target_is_named() {
    let place = Place::new();
    place.write("data.csv", CSV);
    place.write(
        "graph.toml",
        "rask = 1\n[frame.data]\npath = 'data.csv'\n[output.o]\nof = 'data'\nwrite = 'data.csv/x.parquet'\n",
    );
    let ended = place.run(["run", "graph.toml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("data.csv/x.parquet") || ended.stderr.contains("data.csv"), "{ended:?}");
    assert_eq!(fs::read_to_string(place.path("data.csv")).unwrap(), CSV);
}

#[test]
fn an_unreadable_file_is_named() {
    let place = Place::new();
    let path = place.write("data.csv", CSV);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Whoever may read everything cannot meet this.
    if fs::read(&path).is_ok() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
    }
    place.write("graph.toml", "rask = 1\n[frame.data]\npath = 'data.csv'\n");
    let ended = place.run(["run", "graph.toml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("output \"data\": ") && ended.stderr.contains("data.csv"), "{ended:?}");
}
