//! The errors of DataFusion and Arrow in plain words: what went wrong and a hint, without names of their parts.
//!
//! Their texts are made for programmers: categories before categories, physical types, the inside of values. People get
//! the words and types that the rest of Rask has. A text that is not known here loses its categories and inside views and
//! stays as it is.

use std::sync::LazyLock;

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use regex::{Captures, Regex};

use crate::types::type_name;

/// Columns that are listed when one is not found.
const N_COLUMNS_LISTED: usize = 20;
/// Longest text of others that is shown.
const MAX_NBYTES: usize = 1_000;

/// `error` in words.
pub(crate) fn plain_message(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::SchemaError(error, _) => return schema_message(error),
        DataFusionError::SQL(error, _) => return parser_message(error),
        DataFusionError::ArrowError(error, _) => return arrow_message(error),
        DataFusionError::ResourcesExhausted(text) => {
            let size = text.split(" for ").next().unwrap_or_default();
            return format!("the query takes more memory than the worker has: {}", plain(size));
        }
        DataFusionError::Collection(errors) => return errors.first().map_or_else(String::new, plain_message),
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Internal(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Configuration(text)
        | DataFusionError::Substrait(text)
        | DataFusionError::Context(text, _) => text.clone(),
        DataFusionError::ExecutionJoin(error) => error.to_string(),
        DataFusionError::External(error) => error.to_string(),
        DataFusionError::ParquetError(error) => error.to_string(),
        DataFusionError::IoError(error) => error.to_string(),
        other @ (DataFusionError::ObjectStore(_)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Shared(_)
        | DataFusionError::Ffi(_)) => other.strip_backtrace(),
    };
    plain(&text)
}

/// `error` in words.
pub(crate) fn arrow_message(error: &ArrowError) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: the rest has texts of its own")]
    let text = match error {
        ArrowError::DivideByZero => return "division by zero".to_owned(),
        ArrowError::ExternalError(error) => match error.downcast_ref::<DataFusionError>() {
            Some(error) => return plain_message(error),
            None => error.to_string(),
        },
        ArrowError::CastError(text)
        | ArrowError::ParseError(text)
        | ArrowError::CsvError(text)
        | ArrowError::JsonError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::SchemaError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::NotYetImplemented(text)
        | ArrowError::IpcError(text)
        | ArrowError::ParquetError(text)
        | ArrowError::MemoryError(text)
        | ArrowError::ArithmeticOverflow(text) => text.clone(),
        other => other.to_string(),
    };
    plain(&text)
}

fn parser_message(error: &ParserError) -> String {
    match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "the query is nested more than 50 deep".to_owned(),
    }
}

fn schema_message(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => not_found(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            format!("column \"{}\" is in several tables: write which one is meant, as in t.{}", field.name, field.name)
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            let table = qualifier.table();
            format!("column \"{table}.{name}\" is there twice: give each table of a join a name of its own with AS")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            format!("two columns are called \"{name}\": give one of them another name with AS")
        }
    }
}

fn shown(column: &Column) -> String {
    match &column.relation {
        Some(table) => format!("{}.{}", table.table(), column.name),
        None => column.name.clone(),
    }
}

fn not_found(field: &Column, valid: &[Column]) -> String {
    let mut text = format!("there is no column \"{}\"", shown(field));
    // A table that is called otherwise is the mistake when the column is right.
    let is_other_table =
        |column: &&Column| column.name == field.name && field.relation.is_some() && column.relation != field.relation;
    let wanted = field.name.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    let near = valid.iter().map(|column| (distance(&wanted, &column.name.to_lowercase()), column));
    let nearest = near.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, column)| column);
    if let Some(column) = valid.iter().find(is_other_table).or(nearest) {
        let is_case = column.name != field.name && column.name.to_lowercase() == wanted;
        let name = if is_case { format!("\"{}\" in double quotes", column.name) } else { format!("\"{}\"", shown(column)) };
        text.push_str(&format!("; did you mean {name}?"));
    }
    if !valid.is_empty() {
        let mut names: Vec<String> = Vec::new();
        for name in valid.iter().map(shown) {
            if !names.contains(&name) && names.len() < N_COLUMNS_LISTED {
                names.push(name);
            }
        }
        let more = if valid.len() > N_COLUMNS_LISTED { ", .." } else { "" };
        text.push_str(&format!(" (there are {}{more})", names.join(", ")));
    }
    text
}

/// How many letters must be put in, left out or replaced (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A pattern and what takes its place.
type Rewording = (Regex, &'static str);

/// Whole sentences, in other words.
static SENTENCES: LazyLock<Vec<Rewording>> = LazyLock::new(|| {
    compiled(&[
        (
            r"(?s)^.*No function matches the given name and argument types '([^']*)'.*$",
            "there is no function $1: cast its arguments",
        ),
        (r"(?s)^.*Function '(\w+)' failed to match any signature.*$", "$1 cannot take these arguments: cast them"),
        (r"^Invalid function '([^']*)'\.?\s*(?:Did you mean '([^']*)'\?)?$", "there is no function \"$1\"; did you mean \"$2\"?"),
        (
            r#"(?s)^.*[Cc]olumn "([^"]*)" must appear in the GROUP BY clause or must be part of an aggregate function.*$"#,
            "column \"$1\" must be in GROUP BY or within an aggregate function",
        ),
        (
            r#"^Projections require unique expression names but the expression "(.*)" at position (\d+) and "(.*)" at position (\d+) have the same name.*$"#,
            "two columns have the same name ($1 and $3): give one of them another name with AS",
        ),
        (r"^Cannot coerce arithmetic expression (.*) to valid types$", "$1 cannot be computed: cast one of the two"),
        (r"^Cannot create filter with non-boolean predicate '(.*)' returning (.*)$", "the condition $1 is $2, not true or false"),
        (r"(?s)^Cannot cast (?:string|value) '(.*)' to value of (.*?) type$", "'$1' cannot be read as $2"),
        (r"^Divide by zero error$", "division by zero"),
        (r"^Schema contains duplicate unqualified field name (.*)$", "two columns are called $1: give one another name with AS"),
        (r"^Dot access not supported for .*$", "a period must follow a name: put what stands before it into brackets"),
        (r#"^variable \["(.*)"\] has no type information$"#, "there is no variable $1"),
        (r"(?s)^Invalid regex.*$", "the regular expression is wrong"),
    ])
});

/// Parts of sentences.
static PARTS: LazyLock<Vec<Rewording>> = LazyLock::new(|| {
    compiled(&[
        // Categories.
        (
            r"(?:Error during planning|SQL error|Schema error|Execution error|External error|Arrow error|Internal error|Cast error|Parser error|Compute error|Invalid argument error|Csv error|Json error|Optimizer rule '\w+' failed|This feature is not implemented|Parquet error|IO error): ?",
            "",
        ),
        (r"(?s)\s*\.?\s*This (?:issue )?was likely caused by a bug in DataFusion.*$", ""),
        (r"(?s)\s*(?:\ncaused by\n)", ": "),
        // The inside of values.
        (r#"Column \{ relation: Some\(\w+ \{(?:[^{}]*, )? ?table: "([^"]*)" \}\), name: "([^"]*)"[^}]*\}"#, "$1.$2"),
        (r#"Column \{ relation: None, name: "([^"]*)"[^}]*\}"#, "$1"),
        (r#"Ident \{ value: "([^"]*)"[^}]*\}"#, "$1"),
        (r"Identifier\((\w+)\)", "$1"),
        // Constants.
        (r#"\b(?:LargeUtf8|Utf8View|Utf8)\("([^"]*)"\)"#, "'$1'"),
        (r"\b(?:U?Int(?:8|16|32|64)|Float(?:16|32|64)|Boolean)\(([^()]*)\)", "$1"),
    ])
});

/// Any value shown from the inside: a name, and pairs of names and values in braces.
static INSIDE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b[A-Z]\w*(?:::\w+)? \{ \w+: [^{}]*\}").ok());

/// Physical types.
static TYPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"\b(?:LargeUtf8|Utf8View|Utf8|U?Int(?:8|16|32|64)|Float(?:16|32|64)|Boolean|Date(?:32|64)|Time(?:32|64)\(\w+\)|Timestamp\(\w+(?:, ?(?:None|Some\(.[\w/+:-]+.\)|.[\w/+:-]+.))?\)|Interval\(\w+\)|Duration\(\w+\)|Decimal(?:32|64|128|256)\(\d+, ?-?\d+\)|LargeBinary|BinaryView|FixedSizeBinary\(\d+\))",
    )
    .ok()
});

fn compiled(all: &[(&str, &'static str)]) -> Vec<Rewording> {
    all.iter().filter_map(|(pattern, words)| Regex::new(pattern).ok().map(|pattern| (pattern, *words))).collect()
}

/// `text` without what people cannot read.
pub(crate) fn plain(text: &str) -> String {
    let mut text = text.trim().to_owned();
    for (pattern, words) in SENTENCES.iter() {
        if pattern.is_match(&text) {
            text = pattern.replace(&text, *words).into_owned().replace("; did you mean \"\"?", "");
            break;
        }
    }
    for (pattern, words) in PARTS.iter() {
        text = pattern.replace_all(&text, *words).into_owned();
    }
    if let Some(inside) = INSIDE.as_ref() {
        // From within, as often as they are nested.
        for _ in 0..20 {
            let without = inside.replace_all(&text, "..").into_owned();
            if without == text {
                break;
            }
            text = without;
        }
    }
    if let Some(types) = TYPES.as_ref() {
        text = types.replace_all(&text, |found: &Captures<'_>| type_in_words(&found[0])).into_owned();
    }
    if text.len() > MAX_NBYTES {
        let end = (0..=MAX_NBYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ..");
    }
    text.trim().to_owned()
}

fn type_in_words(name: &str) -> String {
    if let Some(known) = name.parse().ok().map(|data_type| type_name(&data_type)) {
        return known;
    }
    let (name, inside) = name.split_once('(').unwrap_or((name, ""));
    match name {
        "Boolean" => "bool".to_owned(),
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => format!("decimal({}", inside.replace(' ', "")),
        other => other.trim_end_matches(char::is_numeric).to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_put_into_words() {
        let cases = [
            (
                "Cannot coerce arithmetic expression Int64 + Utf8View to valid types",
                "i64 + string cannot be computed: cast one of the two",
            ),
            ("Cannot cast string 'x' to value of Date32 type", "'x' cannot be read as date"),
            (
                "Optimizer rule 'simplify_expressions' failed: Arrow error: Cast error: Cannot add Timestamp(ns) to it",
                "Cannot add timestamp to it",
            ),
            ("Invalid function 'nosuch'.\nDid you mean 'cosh'?", "there is no function \"nosuch\"; did you mean \"cosh\"?"),
            ("Invalid function 'nosuch'", "there is no function \"nosuch\""),
            (
                "Internal error: Function 'substr' failed to match any signature, errors: .. \nThis issue was likely caused by a bug in DataFusion's code. No function matches the given name and argument types 'substr(Int64, Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tsubstr(str, ..)",
                "there is no function substr(i64, i64): cast its arguments",
            ),
            ("the count(Int64(1)) of Utf8(\"it\") in Decimal128(10, 2)", "the count(1) of 'it' in decimal(10,2)"),
            ("wrong: Column { relation: Some(Bare { table: \"t\" }), name: \"k\" }, yes", "wrong: t.k, yes"),
            ("wrong: Column { relation: None, name: \"k\" }", "wrong: k"),
            ("at Ident { value: \"x\", quote_style: None, span: Span(Location(1,24)..Location(1,25)) }", "at x"),
            ("odd Field { name: \"k\", data_type: List(Field { data_type: Int64 }) } here", "odd .. here"),
            ("Divide by zero error", "division by zero"),
            ("Timestamp(Nanosecond, Some(\"UTC\")) and Interval(MonthDayNano)", "timestamp(UTC) and interval"),
        ];
        for (text, words) in cases {
            assert_eq!(plain(text), words);
        }
        assert!(plain(&"ä".repeat(2_000)).len() < MAX_NBYTES + 10);
    }

    #[test]
    fn columns_that_are_not_there_have_neighbours() {
        let columns: Vec<Column> = ["carrier", "dep_delay", "Total"].map(|name| Column::new(Some("f"), name)).to_vec();
        let message = |column: &str| not_found(&Column::from_qualified_name(column), &columns);
        assert_eq!(
            message("dep_dealy"),
            "there is no column \"dep_dealy\"; did you mean \"f.dep_delay\"? (there are f.carrier, f.dep_delay, f.Total)"
        );
        assert!(message("g.carrier").contains("did you mean \"f.carrier\"?"));
        assert!(message("total").contains("did you mean \"Total\" in double quotes?"));
        assert!(!message("zz").contains("did you mean"));
    }
}
