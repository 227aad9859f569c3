//! What can go wrong before any task runs: files that cannot be read, SQL that is not SQL, plans that make no sense.
//!
//! The variants differ in whose mistake it is, because programs treat them differently: a missing file fails one output,
//! wrong SQL makes the whole graph file wrong. What goes wrong inside a task is a `KernelError` and not here.

use std::path::{Path, PathBuf};

use datafusion::error::DataFusionError;
use rask_graphs::access::{AccessError, Denial};

use crate::text::records::RecordError;

pub(crate) use crate::plain::{arrow_message, plain, plain_message};

/// A mistake in SQL text, with its place where the parser knows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What is wrong, without the position.
    pub message: String,
    /// Line in the text, from 1.
    pub line: Option<u32>,
    /// Column in the line in characters, from 1.
    pub column: Option<u32>,
}

/// Why a frame could not be described or planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A file or directory is missing or cannot be read.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path, or the pattern that matched nothing.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// A file was read but is not what it should be.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Data {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1, where that is known.
        line: Option<u64>,
        /// What is wrong in it.
        message: String,
    },
    /// SQL that cannot be parsed or does not fit its tables.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A frame that cannot be turned into tasks, or options that make no sense.
    #[error("{0}")]
    Plan(String),
}

impl FrameError {
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        let reason = if error.kind() == std::io::ErrorKind::NotFound {
            "no such file".to_owned()
        } else {
            // The raw text carries "(os error 13)", which tells people nothing.
            error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
        };
        Self::Io { path: path.to_owned(), reason }
    }

    pub(crate) fn access(error: &AccessError) -> Self {
        match &error.why {
            Denial::Io(reason) => Self::io(&error.path, reason),
            why @ (Denial::Outside | Denial::NoRoots | Denial::Secret | Denial::NotAFile) => {
                Self::Io { path: error.path.clone(), reason: why.to_string() }
            }
        }
    }

    pub(crate) fn data(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Data { path: path.to_owned(), line: None, message: plain(&error.to_string()) }
    }

    pub(crate) fn at(path: &Path, line: u64, error: impl std::fmt::Display) -> Self {
        Self::Data { path: path.to_owned(), line: Some(line), message: plain(&error.to_string()) }
    }

    pub(crate) fn record(path: &Path, error: RecordError) -> Self {
        match error {
            RecordError::Io(error) => Self::io(path, &error),
            RecordError::At(line, what) => Self::at(path, line, what),
        }
    }
}

impl From<DataFusionError> for FrameError {
    fn from(error: DataFusionError) -> Self {
        Self::Plan(plain_message(&error))
    }
}

impl From<DataFusionError> for SqlError {
    /// The position is that of the diagnostic when the planner attached one, else the one the parser put into its text.
    fn from(error: DataFusionError) -> Self {
        let (message, in_text) = split_position(&plain_message(&error));
        let narrow = |n: u64| u32::try_from(n).ok().filter(|&n| n > 0);
        let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
        let in_span = span.and_then(|span| narrow(span.start.line).zip(narrow(span.start.column)));
        let position = in_span.or(in_text);
        Self { message, line: position.map(|(line, _)| line), column: position.map(|(_, column)| column) }
    }
}

/// Split ` at Line: 1, Column: 8` off the end of a parser's message.
fn split_position(message: &str) -> (String, Option<(u32, u32)>) {
    let Some(at) = message.rfind("at Line: ") else { return (message.to_owned(), None) };
    let Some((line, column)) = message[at + "at Line: ".len()..].split_once(", Column: ") else {
        return (message.to_owned(), None);
    };
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    match (digits(line), digits(column)) {
        (Some(line), Some(column)) => (message[..at].trim_end().to_owned(), Some((line, column))),
        (None, _) | (_, None) => (message.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_split_from_parser_messages() {
        let cases = [
            ("Expected: ), found: EOF at Line: 3, Column: 14", "Expected: ), found: EOF", Some((3, 14))),
            ("Unterminated string literal at Line: 1, Column: 8", "Unterminated string literal", Some((1, 8))),
            ("no position", "no position", None),
            ("odd at Line: x, Column: 2", "odd at Line: x, Column: 2", None),
        ];
        for (text, message, position) in cases {
            assert_eq!(split_position(text), (message.to_owned(), position));
        }
    }
}
