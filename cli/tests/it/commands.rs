//! The smaller commands, output as text, configuration, and what a terminal must not be told.

use crate::support::{Place, Running};

#[test]
fn help_teaches_the_first_steps() {
    let place = Place::new();
    let ended = place.run(["--help"]);
    assert_eq!(ended.code, Some(0));
    for part in
        ["rask run graphs/examples/flights.toml", "rask scheduler --listen 127.0.0.1:8786", "Exit codes", "submit", "worker"]
    {
        assert!(ended.stdout.contains(part), "no {part} in {}", ended.stdout);
    }
    for command in
        ["run", "submit", "status", "cancel", "scheduler", "worker", "token", "check", "ops", "schema", "graph", "bench"]
    {
        let ended = place.run([command, "--help"]);
        assert_eq!(ended.code, Some(0), "{command}");
        assert!(ended.stdout.contains("Usage: rask"), "{command}");
    }
    assert_eq!(place.run(["rum"]).code, Some(2));
    assert_eq!(place.run(["run", "--workers", "0", "x.toml"]).code, Some(2));
}

#[test]
fn results_are_printed_for_people() {
    let place = Place::with_examples();
    let ended = place.run(["run", "flights.toml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("| SkyWest Airlines Inc.       | 1       | 0         | 67.0"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("16 rows")
            && ended.stdout.contains("file: wrote ")
            && ended.stdout.contains("out/delays.parquet (")
    );
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.contains(" tasks on 1 worker in ") && last.ends_with("moved between workers, 0 B spilled"), "{last}");
    assert!(!ended.stdout.contains('\x1b') && !ended.stderr.contains('\x1b'), "no terminal, no colours");

    place.write("a.toml", "rask = 1\n[array.a]\ncreate = 'arange'\nstop = 6\n[output.square]\nof = 'a.reshape((2, 3)) / 4'\n[output.n]\nof = 'a.sum()'\n");
    let ended = place.run(["run", "a.toml"]);
    assert_eq!(ended.stdout, "square:\n[[0.   0.25 0.5 ]\n [0.75 1.   1.25]]\n\nn: 15\n");
}

#[test]
fn json_is_one_object_and_says_what_the_format_promises() {
    let place = Place::new();
    let text = "rask = 1\n[array.a]\ncreate = 'linspace'\nstart = -1\nstop = 1\nnum = 3\n[output.odd]\nof = '1 / a'\n\
                [output.not]\nof = 'log(a)'\n[output.one]\nof = 'a.max()'\n[output.saved]\nof = 'a'\nwrite = 'a.npy'\n";
    place.write("a.toml", text);
    let ended = place.run(["run", "a.toml", "--json"]);
    let answer = ended.json();
    assert_eq!(
        answer["outputs"]["odd"],
        serde_json::json!({"kind": "array", "dtype": "f64", "shape": [3], "data": [-1.0, "Infinity", 1.0]})
    );
    assert_eq!(answer["outputs"]["not"]["data"], serde_json::json!(["NaN", "-Infinity", 0.0]));
    assert_eq!(answer["outputs"]["one"], serde_json::json!({"kind": "array", "dtype": "f64", "shape": [], "data": 1.0}));
    assert_eq!(answer["outputs"]["saved"]["kind"], "file");
    for key in ["n_tasks", "seconds", "nbytes_transferred", "nbytes_spilled", "n_workers"] {
        assert!(answer["stats"][key].is_number(), "{key} in {answer}");
    }
    assert_eq!(ended.stdout.trim().lines().count(), 1);
}

#[test]
fn a_graph_comes_from_standard_input_too() {
    let place = Place::new();
    let mut command = place.command(["run", "-", "--json"]);
    command.stdin(std::process::Stdio::piped());
    let mut running = Running::start(command);
    let text = "{\"rask\": 1, \"array\": {\"x\": {\"create\": \"ones\", \"shape\": [3, 4]}}, \"output\": {\"n\": {\"of\": \"x.sum()\"}}}";
    std::io::Write::write_all(&mut running.0.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert_eq!(running.end().json()["outputs"]["n"]["data"], 12.0);
}

#[test]
fn a_drawn_seed_is_told_and_gives_the_numbers_again() {
    let place = Place::new();
    let file = |seed: &str| format!("rask = 1\n[array.x]\nrandom = 'uniform'\nshape = 5\n{seed}\n");
    place.write("x.toml", &file(""));
    let ended = place.run(["run", "x.toml", "--json"]);
    let answer = ended.json();
    let seed = ended.stderr.lines().find_map(|line| line.split("seed = ").nth(1)).expect("a seed").to_owned();
    place.write("again.toml", &file(&format!("seed = {seed}")));
    assert_eq!(place.json(["run", "again.toml", "--json"])["outputs"]["x"], answer["outputs"]["x"]);
}

#[test]
fn check_says_what_would_run() {
    let place = Place::with_examples();
    let ended = place.run(["check", "arrays.toml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("array x: f64 (8000, 8000) in 64 chunks"), "{ended:?}");
    assert!(ended.stdout.contains("output norm: one number, f64"), "{ended:?}");
    let json = place.json(["check", "flights.toml", "--json"]);
    assert!(json["n_tasks"].as_u64().unwrap() > 3);
    assert_eq!(json["outputs"]["delays"]["columns"][0], "airline");
    assert!(!place.path("out").exists(), "checking writes nothing");
}

#[test]
fn operators_and_the_schema_are_listed() {
    let place = Place::new();
    let all = place.run(["ops"]);
    for name in ["core.noop", "array.random", "frame.scan", "frame.to_array"] {
        assert!(all.stdout.contains(name), "no {name}");
    }
    let one = place.run(["ops", "core.sleep"]);
    assert!(one.stdout.contains("seconds") && one.stdout.contains("(required)"), "{}", one.stdout);
    assert_eq!(place.run(["ops", "nothing"]).code, Some(2));
    let specs = place.json(["ops", "core.sleep", "--json"]);
    assert_eq!(specs[0]["name"], "core.sleep");
    let schema = place.json(["schema"]);
    assert!(schema["properties"]["frame"].is_object(), "{schema}");
}

#[test]
fn graphs_are_drawn() {
    let place = Place::with_examples();
    let ended = place.run(["graph", "tasks.toml"]);
    assert!(ended.stdout.starts_with("digraph"), "{ended:?}");
    let ended = place.run(["graph", "tasks.toml", "--svg", "tasks.svg"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    assert!(std::fs::read_to_string(place.path("tasks.svg")).unwrap().contains("<svg"));
}

#[test]
fn names_cannot_steer_the_terminal() {
    let place = Place::new();
    place.write("evil.toml", "rask = 1\n[task.bad]\nop = 'core.fail'\nargs = { message = \"\\u001b[2Jgone\" }\n[output.\"\\u001b]0;mine\"]\nof = 'bad'\n");
    for command in ["run", "check"] {
        let ended = place.run([command, "evil.toml"]);
        assert!(!ended.stderr.contains('\x1b') && !ended.stdout.contains('\x1b'), "{ended:?}");
    }
}

#[test]
fn flags_beat_variables_and_variables_beat_the_file() {
    let place = Place::new();
    place.write("one.toml", "rask = 1\n[task.t]\nop = 'core.noop'\n");
    place.write("rask.toml", "workers = 2\nthreads = 1\n");
    let n_workers = |arguments: &[&str], variable: Option<&str>, file: bool| {
        let mut command = place.command(["run", "one.toml", "--json"].iter().chain(arguments));
        if let Some(value) = variable {
            command.env("RASK_WORKERS", value);
        }
        if file {
            command.env("RASK_CONFIG", place.path("rask.toml"));
        }
        crate::support::Ended::of(command.output().unwrap()).json()["stats"]["n_workers"].as_u64()
    };
    assert_eq!(n_workers(&[], None, false), Some(1));
    assert_eq!(n_workers(&[], None, true), Some(2));
    assert_eq!(n_workers(&[], Some("3"), true), Some(3));
    assert_eq!(n_workers(&["--workers", "4"], Some("3"), true), Some(4));
    place.write("wrong.toml", "wrokers = 2\n");
    let ended = place.run(["--config", "wrong.toml", "schema"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.starts_with("error: wrong.toml:1:1: unknown field `wrokers`"), "{ended:?}");
    assert_eq!(place.run(["--log", "loud", "schema"]).code, Some(2));
}
