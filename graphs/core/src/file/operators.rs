//! Explicit tasks against the operators of a registry: names, arguments, numbers of inputs.

use std::collections::HashSet;

use rustc_hash::FxBuildHasher;
use serde_json::Value as Json;

use super::diagnostic::{Problems, did_you_mean};
use super::{DeclarationKind, Diagnostic, GraphFile, TaskDeclaration};
use crate::operator::{OperatorSpec, PrepareError, Registry};

impl GraphFile {
    /// What is wrong with the operators of explicit tasks, by position: unknown operators and arguments with the nearest
    /// known one, missing and refused arguments, wrong numbers of inputs. Inputs are counted by name; an array or a frame
    /// counts as one. Empty when all is well.
    #[must_use]
    pub fn check_operators(&self, registry: &Registry) -> Vec<Diagnostic> {
        let mut problems = Problems::new(self.source.clone());
        let mut seen: HashSet<(&str, &str), FxBuildHasher> = HashSet::default();
        for declaration in &self.declarations {
            let DeclarationKind::Task(task) = &declaration.kind else { continue };
            if problems.is_full() {
                break;
            }
            let Some(spec) = registry.spec(&task.op) else {
                let known = registry.specs().map(|spec| spec.name);
                problems.unknown(task.op_span, "operator", &task.op, known, Some("`rask ops` lists them".to_owned()));
                continue;
            };
            if !spec.inputs.accepts(task.inputs.len()) {
                let plural = if spec.inputs.max == Some(1) && spec.inputs.min == 1 { "input" } else { "inputs" };
                let message = format!("operator \"{}\" takes {} {plural}, got {}", task.op, spec.inputs, task.inputs.len());
                problems.error(task.inputs_span, message);
            }
            // Tasks with the same arguments need one look; a mistake is shown at the first of them.
            if seen.insert((&task.op, &task.args)) {
                check_arguments(task, spec, registry, &mut problems);
            }
        }
        problems.into_diagnostics()
    }
}

fn check_arguments(task: &TaskDeclaration, spec: &OperatorSpec, registry: &Registry, problems: &mut Problems) {
    let args: serde_json::Map<String, Json> = serde_json::from_str(&task.args).unwrap_or_default();
    let mut is_good = true;
    if has_closed_arguments(spec) {
        for (at, name) in args.keys().enumerate() {
            if spec.arg_names().contains(&name.as_str()) {
                continue;
            }
            let span = task.arg_spans.get(at).map_or(task.args_span, |(key, _)| *key);
            let hint = did_you_mean(name, spec.arg_names()).unwrap_or_else(|| known_arguments(spec));
            problems.hinted(span, format!("unknown argument \"{name}\" of operator \"{}\"", task.op), hint);
            is_good = false;
        }
    }
    let required = spec.args_schema.get("required").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    for name in required.iter().filter_map(Json::as_str).filter(|name| !args.contains_key(*name)) {
        problems.error(task.args_span, format!("operator \"{}\" needs the argument \"{name}\"", task.op));
        is_good = false;
    }
    if !is_good {
        return;
    }
    if let Err(error) = registry.prepare(&task.op, spec.version, &task.args) {
        match error {
            PrepareError::Arguments { reason, .. } => {
                let (reason, column) = split_position(&reason);
                let span = column.and_then(|column| argument_at(&args, column)).and_then(|at| task.arg_spans.get(at));
                let span = span.map_or(task.args_span, |(_, value)| *value);
                problems.error(span, format!("operator \"{}\": {reason}", task.op));
            }
            other @ (PrepareError::UnknownOperator(_) | PrepareError::Version { .. } | PrepareError::Inputs { .. }) => {
                problems.error(task.op_span, other.to_string());
            }
        }
    }
}

/// Whether the schema lists all arguments there can be.
fn has_closed_arguments(spec: &OperatorSpec) -> bool {
    let schema = &spec.args_schema;
    match schema.get("additionalProperties") {
        Some(Json::Bool(is_open)) => !is_open,
        Some(_) => false,
        None => schema.get("properties").is_some(),
    }
}

fn known_arguments(spec: &OperatorSpec) -> String {
    match spec.arg_names() {
        names if names.is_empty() => "it takes no arguments".to_owned(),
        names => format!("it takes {}", names.join(", ")),
    }
}

/// A parser's message without the position that it ends with, and the column of that position in the JSON text.
fn split_position(reason: &str) -> (&str, Option<usize>) {
    let Some((message, place)) = reason.rsplit_once(" at line 1 column ") else { return (reason, None) };
    match place.parse() {
        Ok(column) => (message, Some(column)),
        Err(_) => (reason, None),
    }
}

/// Which of `args` covers `column` (from 1) of their JSON text.
fn argument_at(args: &serde_json::Map<String, Json>, column: usize) -> Option<usize> {
    let mut end = 1;
    args.iter().position(|(name, value)| {
        // The name and a colon, the value, and the comma or brace behind it.
        end += Json::from(name.as_str()).to_string().len() + 1 + value.to_string().len() + 1;
        column < end
    })
}
