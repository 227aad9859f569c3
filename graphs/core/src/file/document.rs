//! The tree of a TOML or JSON text, with a span for every key and value. What the keys mean is not known here.
//!
//! Both readers limit nesting to 80 levels, so recursion over a tree is safe everywhere.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::diagnostic::Problems;
use super::json;
use crate::expression::Span;

/// How a graph file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// TOML 1.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// The format of a file of this name: JSON for `.json` and for `-` (standard input), TOML for everything else.
    #[must_use]
    pub fn of_file(name: &str) -> Self {
        let is_json = name == "-" || name.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("json"));
        if is_json { Format::Json } else { Format::Toml }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) span: Span,
    pub(super) value: Raw<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Raw<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) key_span: Span,
    pub(super) node: Node<'a>,
}

impl Node<'_> {
    /// What it is, for messages.
    pub(super) fn found(&self) -> &'static str {
        match &self.value {
            Raw::Null => "null",
            Raw::Boolean(_) => "a boolean",
            Raw::Integer(_) => "an integer",
            Raw::Float(_) => "a float",
            Raw::Text(_) => "a string",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
        }
    }
}

/// The entry called `key`. Tables that are searched by name have few keys.
pub(super) fn get<'n, 'a>(entries: &'n [Entry<'a>], key: &str) -> Option<&'n Entry<'a>> {
    entries.iter().find(|entry| entry.key == key)
}

/// The root table of `text`, or nothing after mistakes of syntax, which are reported.
pub(super) fn read<'a>(text: &'a str, format: Format, problems: &mut Problems) -> Option<Vec<Entry<'a>>> {
    if u32::try_from(text.len()).is_err() {
        problems.error(Span::default(), "the file has 4 GiB or more");
        return None;
    }
    match format {
        Format::Toml => read_toml(text, problems),
        Format::Json => match json::read(text) {
            Ok(Node { value: Raw::Table(entries), .. }) => Some(entries),
            Ok(node) => {
                problems.error(node.span, format!("a graph file is a table, found {}", node.found()));
                None
            }
            Err((span, message)) => {
                problems.error(span, message);
                None
            }
        },
    }
}

fn read_toml<'a>(text: &'a str, problems: &mut Problems) -> Option<Vec<Entry<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return convert_table(table.into_inner(), problems);
    }
    for error in errors {
        let range = error.span().unwrap_or(text.len()..text.len());
        problems.error(Span::new(range.start, range.end), error.message().trim_end().replace('\n', ", "));
    }
    None
}

fn convert_table<'a>(table: DeTable<'a>, problems: &mut Problems) -> Option<Vec<Entry<'a>>> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let range = key.span();
        let key_span = Span::new(range.start, range.end);
        let range = value.span();
        let node = convert(value.into_inner(), Span::new(range.start, range.end), problems)?;
        entries.push(Entry { key: key.into_inner(), key_span, node });
    }
    // The library sorts by name; authors think in the order they wrote.
    entries.sort_by_key(|entry| entry.key_span.start);
    Some(entries)
}

fn convert<'a>(value: DeValue<'a>, span: Span, problems: &mut Problems) -> Option<Node<'a>> {
    let value = match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Raw::Integer(integer),
            Err(_) => {
                problems.error(span, format!("the integer {integer} does not fit 64 bits"));
                return None;
            }
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(float) => Raw::Float(float),
            Err(_) => {
                problems.error(span, format!("malformed number {float}"));
                return None;
            }
        },
        DeValue::Boolean(boolean) => Raw::Boolean(boolean),
        // Operators take times as text; nothing else in a graph file has them.
        DeValue::Datetime(datetime) => Raw::Text(Cow::Owned(datetime.to_string())),
        DeValue::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for item in items {
                let range = item.span();
                nodes.push(convert(item.into_inner(), Span::new(range.start, range.end), problems)?);
            }
            Raw::List(nodes)
        }
        DeValue::Table(table) => Raw::Table(convert_table(table, problems)?),
    };
    Some(Node { span, value })
}
