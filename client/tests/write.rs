//! Results that workers write into files, in process, and read back here.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::executor::block_on;
use rask::graphs::builtin::{FileWritten, Opaque};
use rask::graphs::written::read;
use rask::graphs::{Arity, FinishOptions, GraphBuilder, OperatorSpec, Registry, Value};
use rask::{Client, Job, JobError, LocalOptions, ScatterOptions, SubmitOptions, WriteError, WriteOptions};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Number {
    is: u32,
}

/// A client of two workers that know `test.number`.
fn client(data_root: Option<PathBuf>) -> Client {
    let mut registry = Registry::new();
    registry
        .register(OperatorSpec::new::<Number>("test.number", 1, Arity::any(), "bytes", "A number."), |_ctx, args: &Number, _| {
            Ok(Value::from_serde(&args.is)?)
        });
    let data_roots = data_root.map(|root| vec![root]);
    Client::local(LocalOptions { n_workers: 2, data_roots, ..LocalOptions::new(registry.into()) }).expect("threads")
}

fn numbers(client: &Client, numbers: &[u32]) -> Job {
    let mut graph = GraphBuilder::new();
    for is in numbers {
        let task = graph.task(&format!("number-{is}"), "test.number", 1, &format!(r#"{{"is": {is}}}"#)).add();
        graph.output(task);
    }
    let graph = graph.finish(&FinishOptions::default()).expect("a graph").graph;
    block_on(client.submit(graph, SubmitOptions::default())).expect("accepted")
}

fn number_in(file: &FileWritten) -> u32 {
    assert_eq!(fs::metadata(&file.path).expect("the file is there").len(), file.nbytes);
    read(Path::new(&file.path), &Registry::new()).expect("a result").to_serde().expect("a number")
}

fn message_of(outcome: Result<Vec<FileWritten>, WriteError>) -> String {
    let Err(WriteError::Job(JobError::Failed(failure))) = outcome else { panic!("{outcome:?}") };
    failure.message
}

#[test]
fn every_output_is_written_in_its_place() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("new");
    let client = client(None);
    let job = numbers(&client, &(0..100).collect::<Vec<_>>());
    let files = block_on(job.write_all(directory.to_str().expect("text"), WriteOptions::default())).expect("they are written");
    let gathered = |job: &Job| {
        let mut results = job.gather_all(rask::GatherOptions::default());
        std::iter::from_fn(move || block_on(results.next()))
            .map(|(_, value)| value.expect("a result").to_serde().expect("a number"))
            .collect::<Vec<u32>>()
    };
    assert_eq!(files.iter().map(number_in).collect::<Vec<_>>(), gathered(&job));
    assert_eq!(Path::new(&files[7].path), directory.join("result-00007"));
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 100);
}

#[test]
fn what_was_scattered_is_written_too() {
    let place = tempfile::tempdir().expect("a directory");
    let client = client(None);
    let values = (0..5_u8).map(|seed| Value::new(Opaque(Bytes::from(vec![seed; 100_000]))));
    let scattered = block_on(client.scatter(values, ScatterOptions::default())).expect("accepted");
    let options = WriteOptions { name: "mine".to_owned(), ..WriteOptions::default() };
    let files = block_on(scattered.write_all(place.path().to_str().expect("text"), options)).expect("they are written");
    for (seed, file) in (0_u8..).zip(&files) {
        let value = read(Path::new(&file.path), &Registry::new()).expect("a result");
        assert_eq!(value.downcast::<Opaque>().expect("bytes").0, vec![seed; 100_000]);
    }
    assert_eq!(Path::new(&files[4].path), place.path().join("mine-00004"));
    assert!(block_on(client.write_many(&[], "/nowhere", WriteOptions::default())).expect("nothing to do").is_empty());
}

#[test]
fn a_file_of_another_run_stays_unless_it_may_be_replaced() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().to_str().expect("text");
    let client = client(None);
    let (first, other) = (numbers(&client, &[1]), numbers(&client, &[2]));
    let written = block_on(first.write_all(directory, WriteOptions::default())).expect("it is written");
    assert_eq!(block_on(first.write_all(directory, WriteOptions::default())).expect("it is there already"), written);
    let message = message_of(block_on(other.write_all(directory, WriteOptions::default())));
    assert!(message.contains("another file"), "{message}");
    assert_eq!(number_in(&written[0]), 1);
    let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
    let written = block_on(other.write_all(directory, options)).expect("it is replaced");
    assert_eq!(number_in(&written[0]), 2);
}

#[test]
fn workers_write_only_beneath_their_data_roots() {
    let place = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
    fs::create_dir(&inside).expect("a directory");
    let client = client(Some(inside.clone()));
    let job = numbers(&client, &[1]);
    let message = message_of(block_on(job.write_all(outside.to_str().expect("text"), WriteOptions::default())));
    assert!(message.contains("outside this worker's data roots"), "{message}");
    assert!(!outside.exists());
    let files = block_on(job.write_all(inside.to_str().expect("text"), WriteOptions::default())).expect("it is written");
    assert_eq!(number_in(&files[0]), 1);
}
