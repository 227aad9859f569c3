//! How files are read: formats and the options of each, as they stand in task arguments and graph files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::input::unpacked_name;
use crate::text::records::Dialect;
use crate::types::parse_type;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text with delimiters.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line, or a single array of objects.
    Json,
    /// Arrow IPC, file or stream.
    Arrow,
}

impl Format {
    /// The format by the extension of a file's name, before `.gz` or `.zst` if it has one of these.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match unpacked_name(path).extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "parquet" | "pq" => Some(Self::Parquet),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// Whether files of this format are text, which says nothing of the types of its values.
    pub(crate) fn is_text(self) -> bool {
        match self {
            Self::Csv | Self::Json => true,
            Self::Parquet | Self::Arrow => false,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Json => "json",
            Self::Arrow => "arrow",
        })
    }
}

/// How to read files. Formats ignore what does not concern them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// CSV: whether the first line names the columns; otherwise they are `column_1`, `column_2`, ...
    pub header: bool,
    /// CSV: the character between fields.
    pub delimiter: char,
    /// CSV: the character around fields that contain delimiters or line ends; doubled, it stands for itself.
    pub quote: char,
    /// CSV: what begins a line that is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<char>,
    /// CSV: the texts that mean "no value", in every column. The empty text in quotes is a text.
    pub nulls: Vec<String>,
    /// CSV and JSON: types of columns by name, where the ones inferred are not wanted.
    pub types: BTreeMap<String, String>,
    /// CSV and JSON: rows of each file to infer types from; when left out, all of the first 32 MiB and 1000 of each file
    /// after them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infer_rows: Option<usize>,
    /// Bytes of a file from which it is cut into partitions of about this size.
    pub partition_nbytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            header: true,
            delimiter: ',',
            quote: '"',
            comment: None,
            nulls: vec![String::new()],
            types: BTreeMap::new(),
            infer_rows: None,
            partition_nbytes: 32 << 20,
        }
    }
}

impl ReadOptions {
    /// Whether these options make sense.
    ///
    /// # Errors
    /// When a character is not ASCII, a type is unknown, or a size is zero.
    pub fn check(&self) -> Result<(), String> {
        let characters = [("delimiter", Some(self.delimiter)), ("quote", Some(self.quote)), ("comment", self.comment)];
        for (what, character) in characters.into_iter().filter_map(|(what, character)| Some((what, character?))) {
            if !character.is_ascii() || character == '\n' || character == '\r' {
                return Err(format!("{what} must be one ASCII character, not a line end"));
            }
        }
        if self.delimiter == self.quote {
            return Err("delimiter and quote must differ".to_owned());
        }
        if self.comment.is_some_and(|comment| comment == self.delimiter || comment == self.quote) {
            return Err("comment must differ from delimiter and quote".to_owned());
        }
        if self.infer_rows == Some(0) {
            return Err("infer_rows must be positive".to_owned());
        }
        if self.partition_nbytes == 0 {
            return Err("partition_nbytes must be positive".to_owned());
        }
        for name in self.types.values() {
            parse_type(name)?;
        }
        Ok(())
    }

    /// The characters that mean something, as the bytes they are once [`ReadOptions::check`] has passed.
    pub(crate) fn dialect(&self) -> Dialect {
        let byte = |character: char, usual: u8| u8::try_from(character).unwrap_or(usual);
        Dialect {
            delimiter: byte(self.delimiter, b','),
            quote: byte(self.quote, b'"'),
            comment: self.comment.map(|comment| byte(comment, b'#')),
        }
    }

    /// Whether a field means "no value". In quotes, the empty text is one where texts are wanted; other texts that mean
    /// nothing mean it in quotes too, as programs quote all fields.
    pub(crate) fn is_null(&self, text: &[u8], is_quoted: bool, is_text_wanted: bool) -> bool {
        let is_meant = !(is_quoted && text.is_empty() && is_text_wanted);
        is_meant && self.nulls.iter().any(|null| null.as_bytes() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_texts_match_whole_and_literally() {
        let nulls = |texts: &[&str]| ReadOptions { nulls: texts.iter().map(|&t| t.to_owned()).collect(), ..Default::default() };
        let some = nulls(&["NA", "", r"\N"]);
        for (text, is_null) in [("NA", true), ("", true), (r"\N", true), ("NAN", false), ("N", false)] {
            assert_eq!(some.is_null(text.as_bytes(), false, true), is_null, "{text}");
        }
        assert!(!some.is_null(b"", true, true) && some.is_null(b"", true, false) && some.is_null(b"NA", true, true));
        assert!(!nulls(&[]).is_null(b"", false, false));
    }

    #[test]
    fn nonsense_is_refused() {
        let base = ReadOptions::default;
        assert!(base().check().is_ok());
        let wrong = [
            ReadOptions { delimiter: '\n', ..base() },
            ReadOptions { delimiter: 'é', ..base() },
            ReadOptions { delimiter: '"', ..base() },
            ReadOptions { comment: Some(','), ..base() },
            ReadOptions { infer_rows: Some(0), ..base() },
            ReadOptions { partition_nbytes: 0, ..base() },
            ReadOptions { types: [("a".to_owned(), "int".to_owned())].into(), ..base() },
        ];
        for options in wrong {
            assert!(options.check().is_err(), "{options:?}");
        }
    }
}
