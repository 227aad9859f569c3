//! `rask ops` and `rask schema`: what a graph file can say.

use rask_graphs::OperatorSpec;
use serde_json::{Value as Json, json};

use crate::arguments::OperatorsArguments;
use crate::exit::{Exit, Failure};
use crate::terminal::print_to_stdout;

/// `rask ops`
pub(crate) fn run(arguments: &OperatorsArguments) -> anyhow::Result<Exit> {
    let registry = rask::registry();
    let wanted = arguments.name.as_deref().unwrap_or_default();
    let exact: Vec<&OperatorSpec> = registry.spec(wanted).into_iter().collect();
    let chosen = if exact.is_empty() { registry.specs().filter(|spec| spec.name.starts_with(wanted)).collect() } else { exact };
    let text = match chosen.as_slice() {
        [] => {
            let failure = Failure::misuse(format!("there is no operator \"{wanted}\""));
            return Err(failure.with_hint("rask ops lists them all").into());
        }
        chosen if arguments.json => Json::from(chosen.iter().map(|spec| to_json(spec)).collect::<Vec<_>>()).to_string(),
        [spec] => describe(spec),
        chosen => list(chosen),
    };
    print_to_stdout(&text)?;
    Ok(Exit::Done)
}

/// `rask schema`
pub(crate) fn print_schema() -> anyhow::Result<Exit> {
    print_to_stdout(&serde_json::to_string_pretty(&rask_graphs::file::schema())?)?;
    Ok(Exit::Done)
}

fn first_sentence(doc: &str) -> &str {
    doc.find(". ").map_or(doc, |end| &doc[..=end])
}

fn list(specs: &[&OperatorSpec]) -> String {
    let width = specs.iter().map(|spec| spec.name.len()).max().unwrap_or_default();
    let lines: Vec<String> = specs.iter().map(|spec| format!("{:width$}  {}", spec.name, first_sentence(spec.doc))).collect();
    format!("{}\n\n`rask ops NAME` describes one of them.", lines.join("\n"))
}

fn describe(spec: &OperatorSpec) -> String {
    let mut text =
        format!("{} (version {}): {} inputs -> {}\n\n{}\n", spec.name, spec.version, spec.inputs, spec.output, spec.doc);
    let properties = spec.args_schema.get("properties").and_then(Json::as_object);
    let required = spec.args_schema.get("required").and_then(Json::as_array);
    let Some(properties) = properties.filter(|properties| !properties.is_empty()) else {
        text.push_str("\nno arguments");
        return text;
    };
    text.push_str("\narguments:");
    let width = properties.keys().map(String::len).max().unwrap_or_default();
    for (name, schema) in properties {
        let is_required = required.is_some_and(|names| names.iter().any(|required| required == name));
        let doc = schema.get("description").and_then(Json::as_str).unwrap_or_default().replace('\n', " ");
        let default = match schema.get("default") {
            Some(Json::Null) | None => {
                if is_required {
                    " (required)".to_owned()
                } else {
                    String::new()
                }
            }
            Some(default) => format!(" (default {default})"),
        };
        text.push_str(&format!(
            "\n  {name:width$}  {}{default}{}",
            type_text(schema),
            if doc.is_empty() { String::new() } else { format!("  {doc}") }
        ));
    }
    text
}

/// The type in a schema, in a word or two.
fn type_text(schema: &Json) -> String {
    match schema.get("type") {
        Some(Json::String(one)) => one.clone(),
        Some(Json::Array(several)) => {
            several.iter().filter_map(Json::as_str).filter(|name| *name != "null").collect::<Vec<_>>().join(" or ")
        }
        Some(_) | None => "any".to_owned(),
    }
}

fn to_json(spec: &OperatorSpec) -> Json {
    json!({
        "name": spec.name, "version": spec.version, "n_inputs": { "min": spec.inputs.min, "max": spec.inputs.max },
        "output": spec.output, "doc": spec.doc, "args": spec.args_schema,
    })
}
