//! `rask check` and `rask graph`: what a file would run, without running it.

use std::path::Path;

use rask::graph_file::{OutputKind, Plan};
use serde_json::{Map, Value as Json, json};

use crate::arguments::{CheckArguments, GraphArguments};
use crate::exit::{Exit, Failure};
use crate::files::{Loaded, display_name, load_plan, plain_reason};
use crate::terminal::{escape, print_error, print_note, print_to_stdout};

/// `rask check`
pub(crate) fn run(arguments: &CheckArguments) -> anyhow::Result<Exit> {
    let plan = match load_plan(&arguments.file, &rask::registry())? {
        Loaded::Good(plan) => plan,
        Loaded::Bad(exit) => return Ok(exit),
    };
    let name = display_name(&arguments.file.file);
    print_to_stdout(&if arguments.json { to_json(&plan).to_string() } else { to_text(&plan, &name) })?;
    let mut exit = Exit::Done;
    for output in &plan.outputs {
        if let Some(reason) = &output.failure {
            print_error(&format!("output \"{}\": {reason}", output.name), None);
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

fn describe(kind: &OutputKind) -> String {
    match kind {
        OutputKind::Frame { columns } => {
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            format!("a table of {}", names.join(", "))
        }
        OutputKind::Array { dtype, shape } => {
            let lengths: Vec<String> = shape.iter().map(|size| size.map_or("?".to_owned(), |size| size.to_string())).collect();
            match lengths.as_slice() {
                [] => format!("one number, {dtype}"),
                lengths => format!("an array of {}, {dtype}", lengths.join(" x ")),
            }
        }
        OutputKind::File { path } => format!("written to {}", path.display()),
        OutputKind::Value => "a task's result".to_owned(),
    }
}

fn to_text(plan: &Plan, name: &str) -> String {
    let n_tasks = plan.graph.n_tasks();
    let mut text = format!("{name}: {n_tasks} task{}\n", if n_tasks == 1 { "" } else { "s" });
    // Families of tasks can have a hundred thousand members; the first few show what they are.
    const N_TASKS_SHOWN: usize = 20;
    let (tasks, others): (Vec<_>, Vec<_>) = plan.summary.iter().partition(|summary| summary.section == "task");
    for summary in others.iter().chain(tasks.iter().take(N_TASKS_SHOWN)) {
        text.push_str(&format!("  {} {}: {}\n", summary.section, summary.name, summary.description));
    }
    if tasks.len() > N_TASKS_SHOWN {
        text.push_str(&format!("  and {} more tasks\n", tasks.len() - N_TASKS_SHOWN));
    }
    for output in &plan.outputs {
        text.push_str(&format!("  output {}: {}\n", output.name, describe(&output.kind)));
    }
    escape(text.trim_end())
}

fn to_json(plan: &Plan) -> Json {
    let mut outputs = Map::new();
    for output in &plan.outputs {
        let mut json = match &output.kind {
            OutputKind::Frame { columns } => {
                let (names, types): (Vec<_>, Vec<_>) = columns.iter().cloned().unzip();
                json!({ "kind": "frame", "columns": names, "types": types })
            }
            OutputKind::Array { dtype, shape } => json!({ "kind": "array", "dtype": dtype, "shape": shape }),
            OutputKind::File { path } => json!({ "kind": "file", "path": path }),
            OutputKind::Value => json!({ "kind": "value" }),
        };
        if let Some(reason) = &output.failure {
            json["failure"] = Json::from(reason.as_str());
        }
        outputs.insert(output.name.clone(), json);
    }
    let declarations: Vec<Json> = plan
        .summary
        .iter()
        .map(|summary| json!({ "section": summary.section, "name": summary.name, "description": summary.description }))
        .collect();
    json!({ "n_tasks": plan.graph.n_tasks(), "declarations": declarations, "outputs": outputs })
}

/// `rask graph`
pub(crate) fn draw(arguments: &GraphArguments) -> anyhow::Result<Exit> {
    let plan = match load_plan(&arguments.file, &rask::registry())? {
        Loaded::Good(plan) => plan,
        Loaded::Bad(exit) => return Ok(exit),
    };
    if let Some(path) = &arguments.svg {
        write(path, &rask_graphs::to_svg(&plan.graph))?;
    }
    if let Some(path) = &arguments.dot {
        write(path, &rask_graphs::to_dot(&plan.graph))?;
    }
    if arguments.svg.is_none() && arguments.dot.is_none() {
        print_to_stdout(rask_graphs::to_dot(&plan.graph).trim_end())?;
    }
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::failed(format!("cannot write {}: {}", path.display(), plain_reason(error)));
    std::fs::write(path, text).map_err(|error| failed(&error))?;
    print_note(&format!("wrote {}", path.display()));
    Ok(())
}
