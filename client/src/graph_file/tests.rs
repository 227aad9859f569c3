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
    assert_eq!(outputs[2]["rows"], json!([[6.0]]));
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
