//! Tests of graph files as a whole: good ones, a long table of wrong ones, hostile ones.

mod good;
mod hostile;
mod wrong;

use super::{Diagnostic, Format, GraphFile, SqlError, SqlNames, SqlTable};

/// Enough of SQL for tests: the words behind FROM and JOIN are tables; a query begins with SELECT.
struct Words;

impl SqlNames for Words {
    fn tables(&self, sql: &str) -> Result<Vec<SqlTable>, SqlError> {
        let mut tables = Vec::new();
        let mut previous = "";
        for (at, line) in sql.lines().enumerate() {
            for word in line.split_whitespace() {
                let offset = word.as_ptr() as usize - line.as_ptr() as usize;
                let place = (at + 1, line[..offset].chars().count() + 1);
                if previous.is_empty() && !word.eq_ignore_ascii_case("select") {
                    return Err((format!("expected SELECT, found {word}"), Some(place)));
                }
                if ["FROM", "JOIN"].contains(&previous) {
                    tables.push((word.to_owned(), Some(place)));
                }
                previous = word;
            }
        }
        Ok(tables)
    }
}

fn parse(text: &str) -> Result<GraphFile, Vec<Diagnostic>> {
    parse_with(text, &[])
}

fn parse_with(text: &str, overrides: &[(&str, &str)]) -> Result<GraphFile, Vec<Diagnostic>> {
    let format = if text.trim_start().starts_with('{') { Format::Json } else { Format::Toml };
    let overrides: Vec<(String, String)> =
        overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    GraphFile::parse("dir/f.toml", text, format, &overrides, &Words)
}

/// The file, or a panic that shows what is wrong with it.
fn good(text: &str) -> GraphFile {
    parse(text).unwrap_or_else(|mistakes| panic!("{text}\n{}", shown(&mistakes)))
}

/// Diagnostics without the file's name, a line each: `line:column: message (hint)`.
fn shown(mistakes: &[Diagnostic]) -> String {
    let line = |mistake: &Diagnostic| {
        let hint = mistake.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let place = if mistake.line == 0 { mistake.file.clone() } else { format!("{}:{}", mistake.line, mistake.column) };
        format!("{place}: {}{hint}", mistake.message)
    };
    mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
}
