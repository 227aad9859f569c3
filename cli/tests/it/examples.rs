//! The four examples, in the three ways a person can run them, against answers that were worked out elsewhere: the tables
//! by pandas 3.1, the regression by NumPy 2.4, matrices from their own definition or from the numbers themselves.

use std::fs;

use serde_json::{Value as Json, json};

use crate::support::{Cluster, Place, assert_close, number};

/// Airline, flights, cancelled, mean delay at departure and at arrival, rounded to two places.
const DELAYS: [(&str, i64, i64, f64, f64); 16] = [
    ("SkyWest Airlines Inc.", 1, 0, 67.0, 107.0),
    ("Hawaiian Airlines Inc.", 90, 0, 24.53, -5.47),
    ("ExpressJet Airlines Inc.", 12724, 790, 24.14, 22.07),
    ("Frontier Airlines Inc.", 165, 1, 18.13, 21.37),
    ("Mesa Airlines Inc.", 112, 9, 16.34, 11.24),
    ("Endeavor Air Inc.", 4659, 294, 15.55, 6.76),
    ("JetBlue Airways", 13302, 181, 12.5, 9.28),
    ("Southwest Airlines Co.", 2905, 104, 12.02, 3.25),
    ("United Air Lines Inc.", 13954, 257, 9.35, 1.68),
    ("AirTran Airways Corporation", 940, 29, 8.08, 7.88),
    ("American Airlines Inc.", 8098, 212, 7.96, -0.36),
    ("Envoy Air", 6571, 324, 7.22, 5.99),
    ("Delta Air Lines Inc.", 11323, 219, 6.62, -2.33),
    ("Alaska Airlines Inc.", 180, 2, 5.71, -2.43),
    ("Virgin America", 890, 11, 5.68, -11.41),
    ("US Airways Inc.", 4875, 210, 1.87, 0.39),
];

/// Intercept, per mile, per minute of delay at departure.
const COEFFICIENTS: [f64; 3] = [-1.992_704_636_120_658_6, -0.003_534_307_802_835_393, 1.006_990_343_038_056_2];

fn check_delays(place: &Place, answer: &Json) {
    let delays = &answer["outputs"]["delays"];
    assert_eq!(delays["kind"], "frame");
    assert_eq!(delays["columns"], json!(["airline", "flights", "cancelled", "dep_delay", "arr_delay"]));
    let rows: Vec<Json> = DELAYS.iter().map(|row| json!([row.0, row.1, row.2, row.3, row.4])).collect();
    assert_eq!(delays["rows"], Json::from(rows));
    let file = &answer["outputs"]["file"];
    let path = place.path("out/delays.parquet");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    assert_eq!(file["kind"], "file");
    assert_eq!(file["nbytes"], bytes.len());
    assert_eq!(fs::canonicalize(file["path"].as_str().unwrap()).unwrap(), fs::canonicalize(path).unwrap());
    assert_eq!(place.names_in("out"), ["delays.parquet"], "something was left behind");
    fs::remove_file(place.path("out/delays.parquet")).unwrap();
}

fn check_coefficients(answer: &Json) {
    let found = answer["outputs"]["coefficients"]["data"].as_array().unwrap();
    assert_eq!(answer["outputs"]["coefficients"]["shape"], json!([3]));
    for (found, expected) in found.iter().zip(COEFFICIENTS) {
        assert_close(found.as_f64().unwrap(), expected, 1e-9);
    }
}

fn check_products(answer: &Json, n: f64) {
    assert_close(number(answer, "norm"), number(answer, "expected"), 1e-12);
    // The mean square of an element of the product of two such matrices is n.
    assert_close(number(answer, "norm"), n.powf(1.5), 0.02);
}

/// What the numbers of `arrays.toml` come to, by loops over the matrix that a run has written.
fn norm_from_the_numbers(place: &Place, n: usize) -> f64 {
    let text = format!(
        "rask = 1\n[array.x]\nrandom = 'normal'\nshape = [{n}, {n}]\nchunks = 100\nseed = 7\n[output.x]\nof = 'x'\nwrite = 'x.npy'\n"
    );
    place.write("x.toml", &text);
    place.json(["run", "x.toml", "--json"]);
    let bytes = fs::read(place.path("x.npy")).unwrap();
    let data = &bytes[bytes.len() - 8 * n * n..];
    let x: Vec<f64> = data.chunks_exact(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap())).collect();
    let mut means = vec![0.0; n];
    for row in x.chunks_exact(n) {
        for (mean, value) in means.iter_mut().zip(row) {
            *mean += value / n as f64;
        }
    }
    let mut squares = 0.0;
    for i in 0..n {
        for j in 0..n {
            let y = x[i * n + j] + x[j * n + i] - means[j];
            squares += y * y;
        }
    }
    squares.sqrt()
}

#[test]
fn flights_in_three_ways() {
    let place = Place::with_examples();
    check_delays(&place, &place.json(["run", "flights.toml", "--json"]));
    check_delays(&place, &place.json(["run", "flights.toml", "--json", "--workers", "4", "--threads", "1"]));
    let cluster = Cluster::start(&place, 3);
    check_delays(&place, &cluster.submit(&place, "flights.toml", &[]));
}

#[test]
fn what_was_written_reads_back_the_same() {
    let place = Place::with_examples();
    let printed = place.json(["run", "flights.toml", "--json"]);
    place.write("back.toml", "rask = 1\n[frame.back]\npath = 'out/delays.parquet'\n");
    let back = place.json(["run", "back.toml", "--json"]);
    assert_eq!(back["outputs"]["back"]["rows"], printed["outputs"]["delays"]["rows"]);
    assert_eq!(back["outputs"]["back"]["types"], printed["outputs"]["delays"]["types"]);
}

#[test]
fn arrays_in_three_ways() {
    let place = Place::with_examples();
    let small = ["n=400", "chunk=100"];
    let run = |more: &[&str]| {
        let mut arguments = vec!["run", "arrays.toml", "--json", "--set", small[0], "--set", small[1]];
        arguments.extend(more);
        place.json(arguments)
    };
    let alone = run(&[]);
    assert_eq!(alone["outputs"]["norm"]["shape"], json!([]));
    assert_close(number(&alone, "norm"), norm_from_the_numbers(&place, 400), 1e-12);
    let four = run(&["--workers", "4", "--threads", "1"]);
    assert_eq!(four["outputs"], alone["outputs"], "the number of workers changes nothing, not even the last digit");
    assert_eq!(four["stats"]["n_workers"], 4);
    let cluster = Cluster::start(&place, 3);
    let submitted = cluster.submit(&place, "arrays.toml", &small);
    assert_eq!(submitted["outputs"], alone["outputs"]);
    assert!(submitted["stats"]["nbytes_transferred"].as_u64().unwrap() > 0, "{submitted}");
    let other_chunks = place.json(["run", "arrays.toml", "--json", "--set", "n=400", "--set", "chunk=150"]);
    assert_close(number(&other_chunks, "norm"), number(&alone, "norm"), 1e-12);
}

#[test]
fn mixed_in_three_ways() {
    let place = Place::with_examples();
    check_coefficients(&place.json(["run", "mixed.toml", "--json"]));
    check_coefficients(&place.json(["run", "mixed.toml", "--json", "--workers", "4", "--threads", "1"]));
    let cluster = Cluster::start(&place, 3);
    check_coefficients(&cluster.submit(&place, "mixed.toml", &[]));
}

#[test]
fn tasks_in_three_ways() {
    let place = Place::with_examples();
    check_products(&place.json(["run", "tasks.toml", "--json", "--set", "n=400"]), 400.0);
    check_products(&place.json(["run", "tasks.toml", "--json", "--set", "n=400", "--workers", "4", "--threads", "1"]), 400.0);
    let cluster = Cluster::start(&place, 3);
    check_products(&cluster.submit(&place, "tasks.toml", &["n=400"]), 400.0);
}

#[test]
fn a_run_on_processes_is_the_same() {
    let place = Place::with_examples();
    let run = |more: &[&str]| {
        let mut arguments = vec!["run", "arrays.toml", "--json", "--set", "n=400", "--set", "chunk=200"];
        arguments.extend(more);
        place.json(arguments)
    };
    assert_eq!(run(&[])["outputs"], run(&["--processes", "--workers", "2", "--threads", "1"])["outputs"]);
}
