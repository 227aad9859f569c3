//! How files are read: formats and the options of each, as they stand in task arguments and graph files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use arrow::csv::reader::Format as CsvFormat;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The format by the extension of a file's name.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "parquet" | "pq" => Some(Self::Parquet),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Self::Arrow),
            _ => None,
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
    /// CSV: the texts that mean "no value", in every column.
    pub nulls: Vec<String>,
    /// CSV: whether quoted fields may contain line ends. Such files are read in one partition; a file that has such a field
    /// where it would be cut is refused without this option.
    pub quoted_newlines: bool,
    /// CSV and JSON: types of columns by name, where the ones inferred are not wanted.
    pub types: BTreeMap<String, String>,
    /// CSV and JSON: rows of each file to infer types from.
    pub infer_rows: usize,
    /// Bytes of a file from which it is cut into partitions of about this size.
    pub partition_nbytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            header: true,
            delimiter: ',',
            quote: '"',
            nulls: vec![String::new()],
            quoted_newlines: false,
            types: BTreeMap::new(),
            infer_rows: 1000,
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
        for (what, character) in [("delimiter", self.delimiter), ("quote", self.quote)] {
            if !character.is_ascii() || character == '\n' || character == '\r' {
                return Err(format!("{what} must be one ASCII character, not a line end"));
            }
        }
        if self.delimiter == self.quote {
            return Err("delimiter and quote must differ".to_owned());
        }
        if self.partition_nbytes == 0 {
            return Err("partition_nbytes must be positive".to_owned());
        }
        for name in self.types.values() {
            parse_type(name)?;
        }
        Ok(())
    }

    /// The delimiter as the byte it is once [`ReadOptions::check`] has passed.
    pub(crate) fn delimiter_byte(&self) -> u8 {
        u8::try_from(self.delimiter).unwrap_or(b',')
    }

    /// The quote as the byte it is once [`ReadOptions::check`] has passed.
    pub(crate) fn quote_byte(&self) -> u8 {
        u8::try_from(self.quote).unwrap_or(b'"')
    }

    /// Arrow's description of the CSV dialect.
    ///
    /// # Errors
    /// When the null texts make no regular expression (they are escaped, so only when they are enormous).
    pub(crate) fn csv_format(&self, has_header: bool) -> Result<CsvFormat, String> {
        let format = CsvFormat::default()
            .with_header(has_header)
            .with_delimiter(self.delimiter_byte())
            .with_quote(self.quote_byte())
            .with_truncated_rows(false);
        // Arrow's default is exactly "the empty text"; a regular expression for it would only be slower.
        if self.nulls == [""] {
            return Ok(format);
        }
        Ok(format.with_null_regex(self.null_regex()?))
    }

    /// Matches exactly the null texts; no null texts match nothing at all.
    fn null_regex(&self) -> Result<Regex, String> {
        let texts: Vec<String> = self.nulls.iter().map(|text| regex::escape(text)).collect();
        let pattern = if texts.is_empty() { r"[^\s\S]".to_owned() } else { format!("^(?:{})$", texts.join("|")) };
        Regex::new(&pattern).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_texts_match_whole_and_literally() {
        let nulls = |texts: &[&str]| ReadOptions { nulls: texts.iter().map(|&t| t.to_owned()).collect(), ..Default::default() };
        let regex = nulls(&["NA", "", r"\N"]).null_regex().unwrap();
        for (text, is_null) in [("NA", true), ("", true), (r"\N", true), ("NAN", false), ("N", false)] {
            assert_eq!(regex.is_match(text), is_null, "{text}");
        }
        assert!(!nulls(&[]).null_regex().unwrap().is_match(""));
    }

    #[test]
    fn nonsense_is_refused() {
        let base = ReadOptions::default;
        assert!(base().check().is_ok());
        let wrong = [
            ReadOptions { delimiter: '\n', ..base() },
            ReadOptions { delimiter: 'é', ..base() },
            ReadOptions { delimiter: '"', ..base() },
            ReadOptions { partition_nbytes: 0, ..base() },
            ReadOptions { types: [("a".to_owned(), "int".to_owned())].into(), ..base() },
        ];
        for options in wrong {
            assert!(options.check().is_err(), "{options:?}");
        }
    }
}
