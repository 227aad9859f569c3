//! `[frame.NAME]` sections: files, queries, arrays as tables. References to other names are filled in later.

use super::diagnostic::{Problems, did_you_mean};
use super::document::{Entry, Raw};
use super::keys::FRAME;
use super::names::{Draft, UNRESOLVED, extension};
use super::values::{Fields, fields};
use super::{DeclarationKind, FrameFormat, FrameSource, ReadOptions, Text};

const FORMATS: [(&str, FrameFormat); 11] = [
    ("csv", FrameFormat::Csv),
    ("parquet", FrameFormat::Parquet),
    ("json", FrameFormat::Json),
    ("arrow", FrameFormat::Arrow),
    // Other endings of the same formats; `read` takes the first four names only.
    ("jsonl", FrameFormat::Json),
    ("ndjson", FrameFormat::Json),
    ("tsv", FrameFormat::Csv),
    ("pq", FrameFormat::Parquet),
    ("arrows", FrameFormat::Arrow),
    ("feather", FrameFormat::Arrow),
    ("ipc", FrameFormat::Arrow),
];

pub(super) fn read(entry: &Entry<'_>, problems: &mut Problems) -> Draft {
    let mut draft = Draft::new(&entry.key, entry.key_span, "frame");
    draft.check_identifier(problems);
    if let Some(fields) = fields(&FRAME, entry, problems) {
        draft.kind = source(&fields, problems).map(DeclarationKind::Frame);
    }
    draft
}

fn source(fields: &Fields<'_, '_>, problems: &mut Problems) -> Option<FrameSource> {
    match fields.variant.source {
        "sql" => Some(FrameSource::Sql { sql: fields.text("sql")?, tables: Vec::new() }),
        "from_array" => {
            Some(FrameSource::FromArray { array: UNRESOLVED, of: fields.text("from_array")?, columns: fields.texts("columns") })
        }
        _ => {
            let paths = fields.texts("path")?;
            let Some(first) = paths.first() else {
                if let Some(node) = fields.node("path") {
                    problems.error(node.span, "\"path\" must name at least one file");
                }
                return None;
            };
            let format = match fields.text("read") {
                Some(named) => FORMATS.iter().find(|(name, _)| *name == named.value)?.1,
                None if fields.is_good => format_of(first, problems)?,
                None => return None,
            };
            let mut options = options(fields);
            if options.delimiter.is_none() && format_ending(&first.value).is_some_and(|e| e.eq_ignore_ascii_case("tsv")) {
                options.delimiter = Some('\t');
            }
            if format != FrameFormat::Csv {
                let is_text = format == FrameFormat::Json;
                if let Some(node) = fields.node("infer_rows").filter(|_| !is_text) {
                    problems.error(node.span, "\"infer_rows\" is for CSV and JSON files only");
                }
                for key in ["delimiter", "quote", "comment", "header", "null"] {
                    if let Some(node) = fields.node(key) {
                        problems.error(node.span, format!("\"{key}\" is for CSV files only"));
                    }
                }
            }
            Some(FrameSource::Read { paths, format, options })
        }
    }
}

/// The ending that says the format: before the one that says how the file is packed, if there is one.
fn format_ending(path: &str) -> Option<&str> {
    let ending = extension(path)?;
    let is_packing = ["gz", "zst"].iter().any(|packing| packing.eq_ignore_ascii_case(ending));
    if is_packing { extension(&path[..path.len() - ending.len() - 1]) } else { Some(ending) }
}

fn format_of(path: &Text, problems: &mut Problems) -> Option<FrameFormat> {
    let ending = format_ending(&path.value);
    let known = ending.and_then(|ending| FORMATS.iter().find(|(name, _)| name.eq_ignore_ascii_case(ending)));
    if known.is_none() {
        let message = format!("the format of \"{}\" is not known by its extension", path.value);
        let near = ending.and_then(|ending| did_you_mean(ending, FORMATS.iter().map(|(name, _)| *name)));
        let hint = near.unwrap_or_else(|| "say read = \"csv\", \"parquet\", \"json\" or \"arrow\"".to_owned());
        problems.hinted(path.span, message, hint);
    }
    known.map(|(_, format)| *format)
}

fn options(fields: &Fields<'_, '_>) -> ReadOptions {
    let types = fields.table("types").unwrap_or_default();
    let typed = |entry: &Entry<'_>| match &entry.node.value {
        Raw::Text(text) => Some((entry.key.to_string(), Text { value: text.to_string(), span: entry.node.span })),
        Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    ReadOptions {
        columns: fields.texts("columns"),
        types: types.iter().filter_map(typed).collect(),
        delimiter: fields.character("delimiter"),
        quote: fields.character("quote"),
        comment: fields.character("comment"),
        header: fields.boolean("header"),
        null: fields.strings("null"),
        infer_rows: fields.natural("infer_rows"),
        partition_nbytes: fields.natural("partition_nbytes"),
    }
}
