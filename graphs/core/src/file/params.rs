//! Parameters: `[params]`, what `--set` makes of them, and putting their values into the rest of the file.
//!
//! A string that is exactly `"${n}"` becomes n's value with n's type; `${n}` inside a longer string becomes text; `$${`
//! writes a plain `${`. Parameters are values, never pieces of syntax.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::diagnostic::{Problems, did_you_mean};
use super::document::{Entry, Node, Raw};
use super::source::Stretch;
use super::values::to_json;
use crate::expression::Span;

/// The parameters of the file with their final values, in the order written.
pub(super) fn read(section: Option<&Entry<'_>>, overrides: &[(String, String)], problems: &mut Problems) -> Vec<(String, Json)> {
    let mut params: Vec<(String, Json)> = Vec::new();
    let entries = match section.map(|entry| &entry.node) {
        None => &[][..],
        Some(Node { value: Raw::Table(entries), .. }) => entries,
        Some(node) => {
            problems.error(node.span, format!("\"params\" must be a table, found {}", node.found()));
            return params;
        }
    };
    for entry in entries {
        if !is_identifier(&entry.key) {
            let hint = "names are letters, digits and _, not beginning with a digit";
            problems.hinted(entry.key_span, format!("\"{}\" cannot name a parameter", entry.key), hint);
        }
        if let Raw::Null | Raw::Table(_) = entry.node.value {
            let found = entry.node.found();
            let message = format!("a parameter must be a number, a string, a boolean or a list, found {found}");
            problems.error(entry.node.span, message);
        }
        if contains_reference(&entry.node) {
            problems.error(entry.node.span, "parameters cannot be made of parameters");
        }
        params.push((entry.key.to_string(), to_json(&entry.node, problems).unwrap_or(Json::Null)));
    }
    for (name, text) in overrides {
        apply_override(&mut params, name, text, problems);
    }
    params
}

fn contains_reference(node: &Node<'_>) -> bool {
    match &node.value {
        Raw::Text(text) => text.contains("${"),
        Raw::List(items) => items.iter().any(contains_reference),
        Raw::Table(_) | Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) => false,
    }
}

fn apply_override(params: &mut [(String, Json)], name: &str, text: &str, problems: &mut Problems) {
    let argument = format!("--set {name}={text}");
    let Some(at) = params.iter().position(|(known, _)| known == name) else {
        let near = did_you_mean(name, params.iter().map(|(known, _)| known.as_str()));
        let hint = near.or_else(|| Some(known_parameters(params)));
        problems.on_command_line(argument, format!("unknown parameter \"{name}\""), hint);
        return;
    };
    let current = &params[at].1;
    let (value, expected) = match current {
        Json::String(_) => (Some(Json::from(text)), "a string"),
        Json::Bool(_) => (text.parse::<bool>().ok().map(Json::from), "true or false"),
        Json::Number(number) if number.is_f64() => {
            (text.parse().ok().and_then(serde_json::Number::from_f64).map(Json::Number), "a number")
        }
        Json::Number(_) => (text.replace('_', "").parse::<i64>().ok().map(Json::from), "an integer"),
        Json::Array(_) => (serde_json::from_str(text).ok().filter(Json::is_array), "a list like [1, 2]"),
        // Reported where the parameter is declared.
        Json::Null | Json::Object(_) => return,
    };
    match value {
        Some(value) => params[at].1 = value,
        None => problems.on_command_line(argument, format!("\"{name}\" must be {expected}, found \"{text}\""), None),
    }
}

fn known_parameters(params: &[(String, Json)]) -> String {
    if params.is_empty() {
        return "the file has no [params]".to_owned();
    }
    let names: Vec<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
    format!("the parameters are {}", names.join(", "))
}

/// Put the values of `params` into every string below `node`.
pub(super) fn substitute(node: &mut Node<'_>, params: &[(String, Json)], problems: &mut Problems) {
    match &mut node.value {
        Raw::Text(text) if text.contains("${") => match substitute_text(text, node.span, params, problems) {
            Some(value) => node.value = value,
            None => problems.mark_broken(node.span),
        },
        Raw::List(items) => items.iter_mut().for_each(|item| substitute(item, params, problems)),
        Raw::Table(entries) => entries.iter_mut().for_each(|entry| substitute(&mut entry.node, params, problems)),
        Raw::Text(_) | Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) => {}
    }
}

fn substitute_text(text: &str, span: Span, params: &[(String, Json)], problems: &mut Problems) -> Option<Raw<'static>> {
    let mut result = String::new();
    let mut stretches = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        let is_escaped = text[at..start].ends_with('$');
        let literal = &text[at..if is_escaped { start - 1 } else { start }];
        stretches.push(Stretch { after: result.len(), before: at, is_literal: true });
        result.push_str(literal);
        if is_escaped {
            stretches.push(Stretch { after: result.len(), before: start, is_literal: true });
            result.push_str("${");
            at = start + 2;
            continue;
        }
        let here = problems.source.within(span, Span::new(start, start + 2));
        let Some(length) = text[start..].find('}') else {
            problems.hinted(here, "this \"${\" is never closed", "a plain ${ is written $${");
            return None;
        };
        let name = text[start + 2..start + length].trim();
        let Some((_, value)) = params.iter().find(|(known, _)| known == name) else {
            let known = params.iter().map(|(known, _)| known.as_str());
            let hint = if is_identifier(name) { known_parameters(params) } else { "a plain ${ is written $${".to_owned() };
            problems.unknown(here, "parameter", name, known, Some(hint));
            return None;
        };
        if start == 0 && length + 1 == text.len() {
            return Some(from_json(value, span));
        }
        stretches.push(Stretch { after: result.len(), before: start, is_literal: false });
        match value {
            Json::String(value) => result.push_str(value),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
                result.push_str(&value.to_string())
            }
        }
        at = start + length + 1;
    }
    stretches.push(Stretch { after: result.len(), before: at, is_literal: true });
    result.push_str(&text[at..]);
    problems.source.substituted.insert(span.start, stretches);
    Some(Raw::Text(Cow::Owned(result)))
}

/// A parameter's value in place of the string at `span`; all its pieces stand there.
fn from_json(value: &Json, span: Span) -> Raw<'static> {
    match value {
        Json::Null => Raw::Null,
        Json::Bool(value) => Raw::Boolean(*value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Raw::Integer(integer),
            None => Raw::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Raw::Text(Cow::Owned(text.clone())),
        Json::Array(items) => Raw::List(items.iter().map(|item| Node { span, value: from_json(item, span) }).collect()),
        Json::Object(entries) => {
            let entry = |(key, value): (&String, &Json)| Entry {
                key: Cow::Owned(key.clone()),
                key_span: span,
                node: Node { span, value: from_json(value, span) },
            };
            Raw::Table(entries.iter().map(entry).collect())
        }
    }
}

/// Whether `name` can stand in an expression: letters, digits and `_`, not beginning with a digit.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_alphabetic() || c == '_') && characters.all(|c| c.is_alphanumeric() || c == '_')
}
