//! Plans of small files: what is lowered, what is shared, what is left out, and what comes of it when it runs.

use std::path::Path;

use rask_graphs::file::Diagnostic;
use serde_json::json;

use super::{OutputKind, Plan, Presented, plan, read};
use crate::{Client, LocalOptions, SubmitOptions, registry};

fn planned(dir: &Path, text: &str) -> Result<Plan, Vec<Diagnostic>> {
    let registry = registry();
    let file = read(&dir.join("graph.toml"), text, &[], &registry)?;
    plan(&file, &registry)
}

fn nowhere(text: &str) -> Plan {
    planned(Path::new("/nowhere"), text).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
}

/// The outputs of a plan as JSON, computed in process.
fn computed(plan: &Plan) -> Vec<serde_json::Value> {
    let client = Client::local(LocalOptions { n_workers: 2, n_slots: 1, ..LocalOptions::new(registry()) }).unwrap();
    futures::executor::block_on(async {
        let job = client.submit(plan.graph.clone(), SubmitOptions::default()).await.unwrap();
        let mut outputs = Vec::new();
        for output in &plan.outputs {
            let mut values = Vec::new();
            for task in &output.tasks {
                values.push(job.gather(*task).await.unwrap());
            }
            outputs.push(Presented::new(values).to_json().unwrap());
        }
        outputs
    })
}

#[test]
fn only_what_outputs_need_is_lowered() {
    let plan = nowhere(
        "rask = 1\n[array.a]\ncreate = 'ones'\nshape = [100, 100]\nchunks = 10\n[array.b]\nexpr = 'a * 2'\n\
         [array.unused]\nexpr = 'a @ a'\n[output.corner]\nof = 'b[:10, :10].sum()'\n",
    );
    assert!(plan.graph.n_tasks() <= 3, "one chunk of a hundred is needed: {} tasks", plan.graph.n_tasks());
    assert_eq!(plan.summary.iter().map(|summary| summary.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(plan.outputs[0].kind, OutputKind::Array { dtype: "f64".to_owned(), shape: vec![] });
    assert_eq!(computed(&plan)[0]["data"], 200.0);
}

#[test]
fn a_query_that_two_others_use_is_computed_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.csv"), "a,b\n1,10\n2,20\n3,30\n").unwrap();
    let text = "rask = 1\n[frame.t]\npath = 't.csv'\n[frame.some]\nsql = 'SELECT a, b FROM t WHERE a > 1 ORDER BY a'\n\
                [frame.x]\nsql = 'SELECT sum(a) AS s FROM some'\n[frame.y]\nsql = 'SELECT sum(b) AS s FROM some'\n";
    let plan = planned(dir.path(), text).unwrap();
    let operators: Vec<String> =
        (0..plan.graph.n_tasks()).map(|idx| plan.graph.body(rask_graphs::TaskIdx(u32::try_from(idx).unwrap())).name()).collect();
    assert_eq!(operators.iter().filter(|name| name.contains("frame.scan")).count(), 1, "{operators:?}");
    let outputs = computed(&plan);
    assert_eq!([&outputs[0]["rows"], &outputs[1]["rows"]], [&json!([[5]]), &json!([[50]])]);
}

#[test]
fn frames_and_arrays_meet() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.csv"), "name,a,b\nx,1,10\ny,2,\nz,3,30\n").unwrap();
    let text = "rask = 1\n[frame.t]\npath = 't.csv'\n[array.all]\nfrom_frame = 't'\n[array.a]\nfrom_frame = 't'\ncolumns = ['a']\n\
                [array.w]\ncreate = 'arange'\nstop = 4\n[frame.back]\nfrom_array = 'w'\ncolumns = ['w']\n\
                [frame.sum]\nsql = 'SELECT sum(w) AS s FROM back'\n[output.all]\nof = 'all'\n[output.mean]\nof = 'a.mean()'\n\
                [output.sum]\nof = 'sum'\n";
    let outputs = computed(&planned(dir.path(), text).unwrap());
    assert_eq!(outputs[0]["data"], json!([[1.0, 10.0], [2.0, "NaN"], [3.0, 30.0]]));
    assert_eq!(outputs[1]["data"], 2.0);
    assert_eq!(outputs[2]["rows"], json!([[6]]));
}

#[test]
fn tasks_take_arrays_frames_and_parts() {
    let plan = nowhere(
        "rask = 1\n[array.x]\ncreate = 'arange'\nstop = 10\nchunks = 3\n[task.total]\nop = 'array.sum'\ninputs = ['x']\n\
         [task.parts]\nop = 'core.part_list'\ninputs = ['x', 'total']\n[output.total]\nof = 'total'\n[output.second]\nof = 'parts[1]'\n\
         [output.first]\nof = 'parts[0]'\n",
    );
    let outputs = computed(&plan);
    assert_eq!(outputs[0]["data"], 45);
    assert_eq!(outputs[1]["data"], 45);
    assert_eq!(outputs[2]["data"], json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn a_missing_file_breaks_what_uses_it_and_nothing_else() {
    let plan = nowhere(
        "rask = 1\n[frame.f]\npath = 'f.csv'\n[array.a]\nfrom_frame = 'f'\n[array.b]\ncreate = 'ones'\nshape = 3\n\
         [output.lost]\nof = 'a.sum()'\n[output.good]\nof = 'b.sum()'\n",
    );
    assert!(plan.outputs[0].failure.as_ref().is_some_and(|reason| reason.contains("/nowhere/f.csv")), "{:?}", plan.outputs[0]);
    assert!(plan.outputs[0].tasks.is_empty() && plan.outputs[1].failure.is_none());
    assert_eq!(plan.outputs[1].tasks.len(), 1);
    let nothing = nowhere("rask = 1\n[frame.f]\npath = 'f.csv'\n");
    assert_eq!(nothing.graph.n_tasks(), 0);
}

#[test]
fn one_mistake_is_said_once() {
    let text = "rask = 1\n[array.a]\ncreate = 'ones'\nshape = [2, 3]\n[array.b]\nexpr = 'a @ a'\n[array.c]\nexpr = 'b + 1'\n\
                [output.o]\nof = 'c.sum()'\n[output.p]\nof = 'b'\n";
    let mistakes = planned(Path::new("/nowhere"), text).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert_eq!((mistakes[0].line, mistakes[0].column), (6, 9), "{}", mistakes[0]);
}

#[test]
fn a_drawn_seed_is_noted() {
    let plan = nowhere("rask = 1\n[array.x]\nrandom = 'normal'\nshape = 3\n");
    assert_eq!(plan.notes.len(), 1);
    assert!(plan.notes[0].starts_with("array \"x\" draws its numbers with seed = "));
}

#[test]
fn one_array_is_written_as_often_as_one_likes() {
    let dir = tempfile::tempdir().unwrap();
    let text = "rask = 1\n[array.a]\ncreate = 'arange'\nstop = 6\nchunks = 2\n[array.a_rows]\nexpr = 'a + 1'\n\
                [task.a-0]\nop = 'array.sum'\ninputs = ['a']\n[task.a-write]\nop = 'array.sum'\ninputs = ['a_rows']\n\
                [output.x]\nof = 'a'\nwrite = 'a.csv'\n[output.y]\nof = 'a'\nwrite = 'a.json'\n\
                [output.z]\nof = 'a'\nwrite = 'a.npy'\n[output.again]\nof = 'a'\nwrite = 'b.npy'\n\
                [output.shown]\nof = 'a'\n[output.first]\nof = 'a-0'\n[output.second]\nof = 'a-write'\n";
    let plan = planned(dir.path(), text).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    let outputs = computed(&plan);
    assert_eq!(std::fs::read_to_string(dir.path().join("a.csv")).unwrap(), "c0\n0\n1\n2\n3\n4\n5\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("a.json")).unwrap().lines().next(), Some("{\"c0\":0}"));
    assert_eq!(std::fs::read(dir.path().join("a.npy")).unwrap(), std::fs::read(dir.path().join("b.npy")).unwrap());
    assert_eq!(
        [&outputs[4]["data"], &outputs[5]["data"], &outputs[6]["data"]],
        [&json!([0, 1, 2, 3, 4, 5]), &json!(15), &json!(21)]
    );
}

#[test]
fn integers_of_64_bits_are_written_with_all_their_digits() {
    let dir = tempfile::tempdir().unwrap();
    let text = "rask = 1\n[array.u]\nexpr = 'array([2**64 - 1, 2**63 + 1], dtype=uint64)'\n[array.b]\nexpr = 'u > 2**63 + 1'\n\
                [output.csv]\nof = 'u'\nwrite = 'u.csv'\n[output.json]\nof = 'u'\nwrite = 'u.json'\n[output.shown]\nof = 'u'\n\
                [output.truths]\nof = 'b'\nwrite = 'b.csv'\n";
    let plan = planned(dir.path(), text).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    let outputs = computed(&plan);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("u.csv"), "c0\n18446744073709551615\n9223372036854775809\n");
    assert_eq!(read("u.json"), "{\"c0\":18446744073709551615}\n{\"c0\":9223372036854775809}\n");
    assert_eq!(read("b.csv"), "c0\ntrue\nfalse\n");
    assert_eq!(outputs[2]["data"], json!([u64::MAX, (1u64 << 63) + 1]));
}

#[test]
fn an_output_may_be_a_name_with_something_before_or_behind_it() {
    let text = "rask = 1\n[array.x]\ncreate = 'arange'\nstop = 3\n[output.a]\nof = '-x'\n[output.b]\nof = 'x.T'\n\
                [output.c]\nof = 'x-1'\n[output.d]\nof = 'x.astype(float32)'\n[output.e]\nof = 'x.astype(np.int8)'\n";
    let outputs = computed(&nowhere(text));
    assert_eq!(outputs[0]["data"], json!([0, -1, -2]));
    assert_eq!(outputs[1]["data"], json!([0, 1, 2]));
    assert_eq!(outputs[2]["data"], json!([-1, 0, 1]));
    assert_eq!([&outputs[3]["dtype"], &outputs[4]["dtype"]], ["f32", "i8"]);
    let mistakes =
        planned(Path::new("/nowhere"), "rask = 1\n[array.half]\ncreate = 'ones'\nshape = 3\n[output.a]\nof = 'halv'\n");
    assert!(mistakes.unwrap_err()[0].to_string().contains("did you mean \"half\""));
}

#[test]
fn absurd_sizes_are_refused_with_the_count_and_the_limit() {
    for (array, words) in [
        ("create = 'zeros'\nshape = [1000000000000000000]", "too many chunks: "),
        ("create = 'ones'\nshape = [100000, 100000]\nchunks = 1", "too many chunks: 10000000000, at most 1000000"),
        ("random = 'normal'\nshape = [1000000000000000000]\nseed = 1", "too many chunks: "),
        ("create = 'arange'\nstop = 1000000000000\nchunks = 1", "too many chunks: 1000000000000"),
        ("create = 'linspace'\nstart = 0\nstop = 1\nnum = 1000000000000\nchunks = 1", "too many chunks: 1000000000000"),
        ("create = 'eye'\nn = 4000000000", "is too large"),
        ("create = 'zeros'\nshape = [9223372036854775807, 2]", "is too large"),
        ("random = 'integers'\nlow = 0\nhigh = 300\nshape = [2]\nseed = 1\ndtype = 'u8'", "high = 300 is out of bounds for u8"),
    ] {
        let text = format!("rask = 1\n[array.x]\n{array}\n[output.x]\nof = 'x.sum()'\n");
        let mistakes = planned(Path::new("/nowhere"), &text).expect_err(array);
        assert!(mistakes[0].to_string().contains(words), "{array}: {}", mistakes[0]);
    }
}
