//! Values against the kinds of [`super::keys`]: checking a section's keys, and taking typed values out of it afterwards.
//!
//! [`fields`] reports every unknown, missing or ill-typed key of a section; the getters of [`Fields`] are then simple
//! because what is there has the right kind.

use serde_json::{Map, Value as Json};

use super::diagnostic::{Problems, did_you_mean, one_of};
use super::document::{Entry, Node, Raw, get};
use super::keys::{DTYPES, Key, Kind, Section, Variant};
use super::{AxisChunks, Chunks, Text};
use crate::expression::Span;

/// A section whose keys have been checked. Keys with a wrong value are as good as absent.
pub(super) struct Fields<'n, 'a> {
    entries: Vec<&'n Entry<'a>>,
    pub(super) variant: &'static Variant,
    /// Whether everything was in order.
    pub(super) is_good: bool,
}

/// Check `entry`, one declaration of `section`: its source and all its keys. `None` when it is not clear which variant it is.
pub(super) fn fields<'n, 'a>(section: &'static Section, entry: &'n Entry<'a>, problems: &mut Problems) -> Option<Fields<'n, 'a>> {
    let label = format!("[{}.{}]", section.name, entry.key);
    let Raw::Table(entries) = &entry.node.value else {
        problems.error(entry.node.span, format!("{label} must be a table, found {}", entry.node.found()));
        return None;
    };
    let variant = choose(section, entries, entry.key_span, &label, problems)?;
    let mut fields = Fields { entries: Vec::with_capacity(entries.len()), variant, is_good: true };
    for entry in entries {
        match variant.keys().find(|key| key.name == entry.key) {
            Some(_) if problems.is_broken(entry.node.span) => fields.is_good = false,
            Some(key) => match misfit(key.kind, &entry.node) {
                None => fields.entries.push(entry),
                Some((span, ..)) if problems.is_broken(span) => fields.is_good = false,
                Some((span, expected, found)) => {
                    let hint = value_hint(key.kind, &entry.node);
                    problems.error_with(span, format!("\"{}\" must be {expected}, found {found}", key.name), hint);
                    fields.is_good = false;
                }
            },
            None => {
                unknown_key(variant, entry, &label, problems);
                fields.is_good = false;
            }
        }
    }
    for key in variant.keys().filter(|key| key.is_required && get(entries, key.name).is_none()) {
        problems.error(entry.key_span, format!("{label} needs \"{}\"", key.name));
        fields.is_good = false;
    }
    Some(fields)
}

fn unknown_key(variant: &'static Variant, entry: &Entry<'_>, label: &str, problems: &mut Problems) {
    let names = || variant.keys().map(|key: &Key| key.name);
    let of_what = match (variant.source, variant.choice) {
        ("", _) => "it".to_owned(),
        (source, "") => format!("\"{source}\""),
        (source, choice) => format!("{source} = \"{choice}\""),
    };
    let all = format!("{of_what} goes with {}", names().filter(|name| *name != variant.source).collect::<Vec<_>>().join(", "));
    let hint = did_you_mean(&entry.key, names()).or(Some(all));
    problems.error_with(entry.key_span, format!("unknown key \"{}\" in {label}", entry.key), hint);
}

/// The variant that the source of a section selects; there must be exactly one source.
fn choose(
    section: &'static Section,
    entries: &[Entry<'_>],
    name: Span,
    label: &str,
    problems: &mut Problems,
) -> Option<&'static Variant> {
    let sources = section.sources();
    if sources == [""] {
        return section.variants.first();
    }
    let mut found: Vec<(&'static str, &Entry<'_>)> = Vec::new();
    for entry in entries {
        let variant = section.variants.iter().find(|variant| entry.key == variant.source || entry.key == variant.also);
        if let Some(variant) = variant
            && found.iter().all(|(source, _)| *source != variant.source)
        {
            found.push((variant.source, entry));
        }
    }
    let (source, entry) = match found[..] {
        [only] => only,
        [] => {
            let near = entries.iter().find_map(|entry| did_you_mean(&entry.key, sources.iter().copied()));
            let hint = near.unwrap_or_else(|| format!("it needs {}", one_of(sources.iter().copied())));
            problems.hinted(name, format!("{label} has no source"), hint);
            return None;
        }
        [(first, _), (second, entry), ..] => {
            let hint = format!("exactly one of {}", one_of(sources.iter().copied()));
            problems.hinted(entry.key_span, format!("{label} has two sources, \"{first}\" and \"{second}\""), hint);
            return None;
        }
    };
    let choices = section.choices(source);
    if choices.is_empty() {
        return section.variants.iter().find(|variant| variant.source == source);
    }
    let Raw::Text(choice) = &entry.node.value else {
        let found = entry.node.found();
        problems.error(entry.node.span, format!("\"{source}\" must be a string, found {found}"));
        return None;
    };
    let variant = section.variants.iter().find(|variant| variant.source == source && variant.choice == choice.as_ref());
    if variant.is_none() {
        let what = if source == "random" { "distribution" } else { "function" };
        let all = format!("one of {}", one_of(choices.iter().copied()));
        problems.unknown(entry.node.span, what, choice, choices.iter().copied(), Some(all));
    }
    variant
}

/// Where and how `node` is not of `kind`: the place, what was expected, what was found.
fn misfit(kind: Kind, node: &Node<'_>) -> Option<(Span, String, String)> {
    let wrong = |node: &Node<'_>, expected: &str| Some((node.span, expected.to_owned(), found(node)));
    match (kind, &node.value) {
        (Kind::Integer, Raw::Integer(_))
        | (Kind::Number, Raw::Integer(_))
        | (Kind::Boolean, Raw::Boolean(_))
        | (Kind::Text | Kind::Texts, Raw::Text(_))
        | (Kind::Arguments, Raw::Table(_)) => None,
        (Kind::Number, Raw::Float(value)) if value.is_finite() => None,
        (Kind::Natural | Kind::Shape, Raw::Integer(0..)) | (Kind::Positive, Raw::Integer(1..)) => None,
        (Kind::Texts, Raw::List(items)) => {
            items.iter().find(|item| !matches!(item.value, Raw::Text(_))).and_then(|item| wrong(item, "a list of strings"))
        }
        (Kind::Shape, Raw::List(items)) => items
            .iter()
            .find(|item| !matches!(item.value, Raw::Integer(0..)))
            .and_then(|item| wrong(item, "a list of integers of at least 0")),
        (Kind::TextTable, Raw::Table(entries)) => entries
            .iter()
            .find(|entry| !matches!(entry.node.value, Raw::Text(_)))
            .and_then(|entry| wrong(&entry.node, "a table of strings")),
        (Kind::AmountTable, Raw::Table(entries)) => entries
            .iter()
            .find(|entry| !is_amount(&entry.node))
            .and_then(|entry| wrong(&entry.node, "a table of numbers of at least 0")),
        (Kind::Loops, Raw::Table(entries)) => {
            let expected = "a table of counts or lists of integers and strings";
            entries.iter().find(|entry| !is_loop(&entry.node)).and_then(|entry| wrong(&entry.node, expected))
        }
        (Kind::Character, Raw::Text(text)) if text.chars().count() == 1 => None,
        (Kind::OneOf(names), Raw::Text(text)) if names.contains(&text.as_ref()) => None,
        (Kind::Dtype, Raw::Text(text)) if dtype_named(text).is_some() => None,
        (Kind::Chunks, _) if chunks(node).is_some() => None,
        (kind, _) => wrong(node, &expected(kind)),
    }
}

/// What a value of `kind` is, for messages.
pub(super) fn expected(kind: Kind) -> String {
    match kind {
        Kind::Integer => "an integer".to_owned(),
        Kind::Natural => "an integer of at least 0".to_owned(),
        Kind::Positive => "an integer of at least 1".to_owned(),
        Kind::Number => "a number".to_owned(),
        Kind::Boolean => "a boolean".to_owned(),
        Kind::Text => "a string".to_owned(),
        Kind::Character => "a string of one character".to_owned(),
        Kind::Texts => "a string or a list of strings".to_owned(),
        Kind::TextTable => "a table of strings".to_owned(),
        Kind::AmountTable => "a table of numbers".to_owned(),
        Kind::Shape => "a list of integers of at least 0".to_owned(),
        Kind::Chunks => "\"auto\", an integer of at least 1, or a list with one entry an axis".to_owned(),
        Kind::Dtype => format!("one of {}", one_of(DTYPES.iter().map(|(name, _)| *name))),
        Kind::OneOf(names) => one_of(names.iter().copied()),
        Kind::Arguments => "a table".to_owned(),
        Kind::Loops => "a table like { i = 4 }".to_owned(),
    }
}

/// What a value is, with the value itself where it is short.
fn found(node: &Node<'_>) -> String {
    match &node.value {
        Raw::Integer(value) => value.to_string(),
        Raw::Text(text) if text.chars().count() <= 20 => format!("\"{text}\""),
        Raw::Float(value) => value.to_string(),
        Raw::Null | Raw::Boolean(_) | Raw::Text(_) | Raw::List(_) | Raw::Table(_) => node.found().to_owned(),
    }
}

fn value_hint(kind: Kind, node: &Node<'_>) -> Option<String> {
    let Raw::Text(text) = &node.value else { return None };
    match kind {
        Kind::OneOf(names) => did_you_mean(text, names.iter().copied()),
        Kind::Dtype => did_you_mean(text, DTYPES.iter().flat_map(|(name, long)| [*name, *long])),
        Kind::Chunks => did_you_mean(text, ["auto"]),
        Kind::Integer | Kind::Natural | Kind::Positive | Kind::Number | Kind::Shape if text.parse::<f64>().is_ok() => {
            Some("numbers are written without quotes".to_owned())
        }
        Kind::Integer
        | Kind::Natural
        | Kind::Positive
        | Kind::Number
        | Kind::Shape
        | Kind::Boolean
        | Kind::Text
        | Kind::Character
        | Kind::Texts
        | Kind::TextTable
        | Kind::AmountTable
        | Kind::Arguments
        | Kind::Loops => None,
    }
}

fn is_amount(node: &Node<'_>) -> bool {
    match node.value {
        Raw::Integer(value) => value >= 0,
        Raw::Float(value) => value.is_finite() && value >= 0.0,
        Raw::Null | Raw::Boolean(_) | Raw::Text(_) | Raw::List(_) | Raw::Table(_) => false,
    }
}

fn is_loop(node: &Node<'_>) -> bool {
    match &node.value {
        Raw::Integer(count) => *count >= 0,
        Raw::List(items) => items.iter().all(|item| matches!(item.value, Raw::Integer(_) | Raw::Text(_))),
        Raw::Null | Raw::Boolean(_) | Raw::Float(_) | Raw::Text(_) | Raw::Table(_) => false,
    }
}

fn dtype_named(text: &str) -> Option<&'static str> {
    DTYPES.iter().find(|(name, long)| *name == text || *long == text).map(|(name, _)| *name)
}

fn chunks(node: &Node<'_>) -> Option<Chunks> {
    match &node.value {
        Raw::Text(text) if text == "auto" => Some(Chunks::Auto),
        Raw::Integer(-1) => Some(Chunks::Each(None)),
        Raw::Integer(length @ 1..) => Some(Chunks::Each(u64::try_from(*length).ok())),
        Raw::List(items) => items.iter().map(axis_chunks).collect::<Option<Vec<_>>>().map(Chunks::PerAxis),
        Raw::Null | Raw::Boolean(_) | Raw::Float(_) | Raw::Text(_) | Raw::Integer(_) | Raw::Table(_) => None,
    }
}

fn axis_chunks(node: &Node<'_>) -> Option<AxisChunks> {
    match &node.value {
        Raw::Text(text) if text == "auto" => Some(AxisChunks::Auto),
        Raw::Integer(-1) => Some(AxisChunks::Whole),
        Raw::Integer(length @ 1..) => u64::try_from(*length).ok().map(AxisChunks::Length),
        Raw::List(items) => items.iter().map(length).collect::<Option<Vec<u64>>>().map(AxisChunks::Lengths),
        Raw::Null | Raw::Boolean(_) | Raw::Float(_) | Raw::Text(_) | Raw::Integer(_) | Raw::Table(_) => None,
    }
}

fn length(node: &Node<'_>) -> Option<u64> {
    if let Raw::Integer(length) = node.value { u64::try_from(length).ok() } else { None }
}

impl<'n, 'a> Fields<'n, 'a> {
    pub(super) fn node(&self, key: &str) -> Option<&'n Node<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub(super) fn text(&self, key: &str) -> Option<Text> {
        self.node(key).and_then(as_text)
    }

    /// The strings of a key that takes one or several.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<Text>> {
        let node = self.node(key)?;
        match &node.value {
            Raw::List(items) => items.iter().map(as_text).collect(),
            Raw::Text(_) | Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) | Raw::Table(_) => {
                as_text(node).map(|text| vec![text])
            }
        }
    }

    /// Like [`Fields::texts`], without positions.
    pub(super) fn strings(&self, key: &str) -> Option<Vec<String>> {
        Some(self.texts(key)?.into_iter().map(|text| text.value).collect())
    }

    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        if let Raw::Integer(value) = self.node(key)?.value { Some(value) } else { None }
    }

    pub(super) fn natural(&self, key: &str) -> Option<u64> {
        self.integer(key).and_then(|value| u64::try_from(value).ok())
    }

    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        if let Raw::Boolean(value) = self.node(key)?.value { Some(value) } else { None }
    }

    pub(super) fn character(&self, key: &str) -> Option<char> {
        self.text(key).and_then(|text| text.value.chars().next())
    }

    pub(super) fn table(&self, key: &str) -> Option<&'n [Entry<'a>]> {
        if let Raw::Table(entries) = &self.node(key)?.value { Some(entries) } else { None }
    }

    pub(super) fn shape(&self, key: &str) -> Option<Vec<u64>> {
        let node = self.node(key)?;
        match &node.value {
            Raw::List(items) => items.iter().map(length).collect(),
            Raw::Text(_) | Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) | Raw::Table(_) => {
                length(node).map(|n| vec![n])
            }
        }
    }

    pub(super) fn chunks(&self) -> Option<Chunks> {
        self.node("chunks").and_then(chunks)
    }

    pub(super) fn dtype(&self) -> Option<&'static str> {
        self.text("dtype").and_then(|text| dtype_named(&text.value))
    }

    /// The numbers and booleans among `names`, as JSON.
    pub(super) fn arguments(&self, names: impl Iterator<Item = &'static str>) -> Map<String, Json> {
        let value = |node: &Node<'_>| match node.value {
            Raw::Integer(value) => Some(Json::from(value)),
            Raw::Float(value) => Some(Json::from(value)),
            Raw::Boolean(value) => Some(Json::from(value)),
            Raw::Null | Raw::Text(_) | Raw::List(_) | Raw::Table(_) => None,
        };
        names.filter_map(|name| Some((name.to_owned(), value(self.node(name)?)?))).collect()
    }
}

fn as_text(node: &Node<'_>) -> Option<Text> {
    if let Raw::Text(text) = &node.value { Some(Text { value: text.to_string(), span: node.span }) } else { None }
}

/// `node` as JSON. `None` after a number that JSON does not have, which is reported.
pub(super) fn to_json(node: &Node<'_>, problems: &mut Problems) -> Option<Json> {
    Some(match &node.value {
        Raw::Null => Json::Null,
        Raw::Boolean(value) => Json::Bool(*value),
        Raw::Integer(value) => Json::from(*value),
        Raw::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => Json::Number(number),
            None => {
                problems.error(node.span, format!("arguments and parameters must be finite, found {value}"));
                return None;
            }
        },
        Raw::Text(text) => Json::String(text.to_string()),
        Raw::List(items) => Json::Array(items.iter().map(|item| to_json(item, problems)).collect::<Option<_>>()?),
        Raw::Table(entries) => {
            let mut table = Map::with_capacity(entries.len());
            for entry in entries {
                table.insert(entry.key.to_string(), to_json(&entry.node, problems)?);
            }
            Json::Object(table)
        }
    })
}
