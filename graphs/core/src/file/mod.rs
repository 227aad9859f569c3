//! Graph files: what people write instead of Rust, read into checked declarations.
//!
//! [`GraphFile::parse`] reads TOML or JSON, puts parameters in, checks every key and name, and sorts the declarations so
//! that each stands behind what it uses. Every part keeps its place in the text, so that what is found wrong later (a
//! shape, a missing file) is said with a line and a column: [`GraphFile::diagnostic`].
//!
//! Deliberately not known here: SQL (a hook, [`SqlNames`], finds the tables of a query), which functions expressions may
//! call, whether files exist, and how declarations become tasks. That is for arrays, frames and the command line.

mod arrays;
mod diagnostic;
mod document;
mod family;
mod frames;
mod json;
mod keys;
mod names;
mod operators;
mod outputs;
mod params;
mod resolve;
mod schema;
mod source;
mod tasks;
#[cfg(test)]
mod tests;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::expression::Expression;
pub use crate::expression::Span;
use crate::graph::{Part, TaskOptions};
pub use diagnostic::Diagnostic;
pub use document::Format;
pub use schema::schema;

/// The version of the format that this code reads.
pub const FORMAT_VERSION: i64 = 1;

/// A string of the file and where it stands, quotes included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// The string, parameters put in.
    pub value: String,
    /// The whole string in the file.
    pub span: Span,
}

/// A table of a query: its name, and where it stands as line and column of the SQL text, both from 1, in characters.
pub type SqlTable = (String, Option<(usize, usize)>);

/// Why a query cannot be read, and where.
pub type SqlError = (String, Option<(usize, usize)>);

/// Finds the tables that a SQL query uses: what the frames library knows and this crate does not.
pub trait SqlNames {
    /// The names of the tables that `sql` reads, without those it defines itself (`WITH`).
    ///
    /// # Errors
    /// When `sql` is not one query.
    fn tables(&self, sql: &str) -> Result<Vec<SqlTable>, SqlError>;
}

/// Position of a declaration in [`GraphFile::declarations`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeclarationId(pub u32);

impl DeclarationId {
    /// As an index into [`GraphFile::declarations`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One name of the file and what it stands for. Each member of a family of tasks has its own.
#[derive(Clone, PartialEq, Debug)]
pub struct Declaration {
    /// The name, unique among frames, arrays and tasks.
    pub name: String,
    /// Where the name is declared.
    pub span: Span,
    /// What it stands for.
    pub kind: DeclarationKind,
}

impl Declaration {
    /// The name taken apart as a graph's keys want it: `half-3` is member 3 of `half`, `total` stands alone.
    #[must_use]
    pub fn family(&self) -> (&str, Option<u32>) {
        let member = self.name.rsplit_once('-').and_then(|(stem, digits)| {
            let number: u32 = digits.parse().ok()?;
            // `x-07` and `x-+7` are names of their own: the number alone would not give them back.
            (number < u32::MAX && number.to_string() == digits && !stem.is_empty()).then_some((stem, number))
        });
        member.map_or((&self.name, None), |(stem, number)| (stem, Some(number)))
    }
}

/// What a name stands for.
#[derive(Clone, PartialEq, Debug)]
pub enum DeclarationKind {
    /// `[frame.NAME]`
    Frame(FrameSource),
    /// `[array.NAME]`
    Array(ArraySource),
    /// `[task.NAME]`, or one member of such a family.
    Task(Box<TaskDeclaration>),
}

impl DeclarationKind {
    /// The declarations that this one uses; they stand before it. One that is used twice may be there twice.
    #[must_use]
    pub fn uses(&self) -> Vec<DeclarationId> {
        match self {
            DeclarationKind::Frame(FrameSource::Read { .. }) => Vec::new(),
            DeclarationKind::Frame(FrameSource::Sql { tables, .. }) => tables.iter().map(|(_, id)| *id).collect(),
            DeclarationKind::Frame(FrameSource::FromArray { array, .. }) => vec![*array],
            DeclarationKind::Array(ArraySource::Random { .. } | ArraySource::Create { .. } | ArraySource::Load { .. }) => {
                Vec::new()
            }
            DeclarationKind::Array(ArraySource::Expression(formula)) => formula.names.iter().map(|(_, id)| *id).collect(),
            DeclarationKind::Array(ArraySource::FromFrame { frame, .. }) => vec![*frame],
            DeclarationKind::Task(task) => task.inputs.iter().map(|input| input.of).collect(),
        }
    }
}

/// Formats that frames are read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFormat {
    /// Comma-separated values.
    Csv,
    /// Parquet.
    Parquet,
    /// One JSON object a line.
    Json,
    /// Arrow IPC.
    Arrow,
}

/// How files are to be read; what is `None` or empty is for the reader to choose.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReadOptions {
    /// The columns wanted, in order.
    pub columns: Option<Vec<Text>>,
    /// Types of columns by name, as the author wrote them.
    pub types: Vec<(String, Text)>,
    /// CSV: what separates fields.
    pub delimiter: Option<char>,
    /// CSV: what encloses fields.
    pub quote: Option<char>,
    /// CSV: what begins a line to ignore.
    pub comment: Option<char>,
    /// CSV: whether the first line names the columns.
    pub header: Option<bool>,
    /// CSV: what stands for no value.
    pub null: Option<Vec<String>>,
    /// CSV and JSON: rows of each file to find the types by.
    pub infer_rows: Option<u64>,
    /// Bytes of file that make one partition, about.
    pub partition_nbytes: Option<u64>,
}

/// Where a frame comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum FrameSource {
    /// Files.
    Read {
        /// Paths as written, perhaps with `*` and `?`; see [`GraphFile::path`]. At least one.
        paths: Vec<Text>,
        /// Their format.
        format: FrameFormat,
        /// How to read them.
        options: ReadOptions,
    },
    /// A query over other frames.
    Sql {
        /// The query.
        sql: Text,
        /// Its tables by the name the query uses, each once.
        tables: Vec<(String, DeclarationId)>,
    },
    /// An array or a task's result, rows x columns.
    FromArray {
        /// Which.
        array: DeclarationId,
        /// The name as written.
        of: Text,
        /// Names for the columns.
        columns: Option<Vec<Text>>,
    },
}

/// Lengths of the chunks of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chunks {
    /// For the library to choose.
    Auto,
    /// The same length along every axis; `None` for whole axes.
    Each(Option<u64>),
    /// One entry an axis.
    PerAxis(Vec<AxisChunks>),
}

/// Lengths of the chunks along one axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AxisChunks {
    /// For the library to choose.
    Auto,
    /// One chunk.
    Whole,
    /// Chunks of this length, at least 1, the last one perhaps shorter.
    Length(u64),
    /// Chunks of these lengths.
    Lengths(Vec<u64>),
}

/// Where an array comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum ArraySource {
    /// Random numbers.
    Random {
        /// `normal`, `uniform`, `integers`, `exponential`, `poisson`.
        distribution: String,
        /// The distribution's parameters by NumPy's names, as far as they are given.
        arguments: Map<String, Json>,
        /// Lengths of the axes.
        shape: Vec<u64>,
        /// Lengths of the chunks, one entry an axis when they are per axis.
        chunks: Chunks,
        /// `None`: draw one.
        seed: Option<u64>,
        /// `f64` and so on.
        dtype: Option<&'static str>,
    },
    /// A function that makes an array from nothing.
    Create {
        /// `zeros`, `ones`, `full`, `arange`, `linspace`, `eye`.
        function: String,
        /// The function's arguments by NumPy's names in small letters, without shape, as far as they are given.
        arguments: Map<String, Json>,
        /// Lengths of the axes, where the function takes them.
        shape: Option<Vec<u64>>,
        /// Lengths of the chunks.
        chunks: Chunks,
        /// `f64` and so on.
        dtype: Option<&'static str>,
    },
    /// A file.
    Load {
        /// The path as written; see [`GraphFile::path`].
        path: Text,
        /// By extension.
        format: ArrayFormat,
        /// Which array of the file.
        key: Option<String>,
        /// Lengths of the chunks.
        chunks: Chunks,
    },
    /// A formula over other arrays.
    Expression(Formula),
    /// Numeric columns of a frame.
    FromFrame {
        /// Which.
        frame: DeclarationId,
        /// The name as written.
        of: Text,
        /// The columns wanted; all numeric ones when left out.
        columns: Option<Vec<Text>>,
        /// `f64` and so on.
        dtype: Option<&'static str>,
        /// Lengths of the chunks; as the partitions fall when left out.
        chunks: Option<Chunks>,
    },
}

/// Formats that arrays are read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArrayFormat {
    /// One array.
    Npy,
    /// A zip of arrays.
    Npz,
    /// A directory of chunks.
    Zarr,
}

/// An expression of the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Formula {
    /// Its text. The spans of the expression count within its value: see [`GraphFile::span_within`].
    pub text: Text,
    /// It, parsed.
    pub expression: Expression,
    /// What its names stand for, each once: arrays, or tasks whose results are arrays.
    pub names: Vec<(String, DeclarationId)>,
}

/// One node of the graph, said explicitly.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskDeclaration {
    /// The operator's name; [`GraphFile::check_operators`] says whether there is one.
    pub op: Arc<str>,
    /// Where it stands.
    pub op_span: Span,
    /// JSON text, an object; shared by tasks with the same arguments.
    pub args: Arc<str>,
    /// Where the arguments stand, or the operator when there are none.
    pub args_span: Span,
    /// Where each argument's name and value stand, in the order of `args`.
    pub arg_spans: Arc<[(Span, Span)]>,
    /// In order, patterns spread out.
    pub inputs: Vec<TaskInput>,
    /// Where they stand, or the operator when there are none.
    pub inputs_span: Span,
    /// Priority and so on, when any is given.
    pub options: Option<Box<TaskOptions>>,
}

/// An input of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskInput {
    /// Whose result.
    pub of: DeclarationId,
    /// Which part of it; parts are of tasks only.
    pub part: Part,
}

/// Something to compute.
#[derive(Clone, PartialEq, Debug)]
pub struct OutputDeclaration {
    /// Its name, unique among outputs.
    pub name: String,
    /// Where it is declared.
    pub span: Span,
    /// What to compute.
    pub of: OutputOf,
    /// Where to write it; printed when left out.
    pub write: Option<Write>,
}

/// What an output computes.
#[derive(Clone, PartialEq, Debug)]
pub enum OutputOf {
    /// A declared name, or a part of a task's result.
    Name(DeclarationId, Part),
    /// An expression over arrays.
    Expression(Formula),
}

/// A file to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The path as written; see [`GraphFile::path`].
    pub path: Text,
    /// By extension.
    pub format: WriteFormat,
}

/// Formats that outputs are written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFormat {
    /// Frames.
    Parquet,
    /// Frames, and arrays of up to two dimensions.
    Csv,
    /// Frames and arrays.
    Json,
    /// Arrays.
    Npy,
    /// Arrays.
    Zarr,
}

/// A graph file without mistakes that can be seen in the file alone.
#[derive(Clone, Debug)]
pub struct GraphFile {
    /// Parameters with their final values, in the order written.
    pub params: Vec<(String, Json)>,
    /// Everything declared, each behind what it uses. Not all of it need be wanted by an output.
    pub declarations: Vec<Declaration>,
    /// What to compute: as declared, or every name nobody uses. At least one.
    pub outputs: Vec<OutputDeclaration>,
    /// What relative paths are relative to: the directory of the file. Change it for text that came from elsewhere.
    pub base_dir: PathBuf,
    source: source::Source,
}

impl GraphFile {
    /// Read and check `text`. `name` is the file's path, for messages and for [`GraphFile::base_dir`]; `overrides` are
    /// parameters by name with the text given on the command line; `sql` finds the tables of queries.
    ///
    /// # Errors
    /// All mistakes found, by position; at least one.
    pub fn parse(
        name: &str,
        text: &str,
        format: Format,
        overrides: &[(String, String)],
        sql: &dyn SqlNames,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = diagnostic::Problems::new(source::Source::new(name, text));
        let file = resolve::file(text, format, overrides, sql, &mut problems);
        match file {
            Some((params, declarations, outputs)) if problems.is_empty() => {
                let base_dir = Path::new(name).parent().map(Path::to_owned).unwrap_or_default();
                Ok(Self { params, declarations, outputs, base_dir, source: problems.source })
            }
            Some(_) | None => Err(problems.into_diagnostics()),
        }
    }

    /// The declaration at `id`.
    #[must_use]
    pub fn declaration(&self, id: DeclarationId) -> &Declaration {
        &self.declarations[id.index()]
    }

    /// The declaration called `name`; looks at all of them.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<DeclarationId> {
        let at = self.declarations.iter().position(|declaration| declaration.name == name)?;
        u32::try_from(at).ok().map(DeclarationId)
    }

    /// Line and column of the start of `span`, both from 1; columns count characters.
    #[must_use]
    pub fn resolve(&self, span: Span) -> (usize, usize) {
        self.source.resolve(span.start)
    }

    /// The span in the file of `inner`, which counts bytes of `text`'s value: of a node of an expression, say.
    #[must_use]
    pub fn span_within(&self, text: &Text, inner: Span) -> Span {
        self.source.within(text.span, inner)
    }

    /// The span in the file of a line and a column (both from 1, in characters) of `text`'s value: of a piece of SQL.
    #[must_use]
    pub fn span_at(&self, text: &Text, line: usize, column: usize) -> Span {
        let offset = names::offset_at(&text.value, line, column);
        self.source.within(text.span, Span::new(offset, offset))
    }

    /// A mistake found later, said the way the file's own are.
    #[must_use]
    pub fn diagnostic(&self, span: Span, message: impl Into<String>, hint: Option<String>) -> Diagnostic {
        diagnostic::diagnostic(&self.source, span, message.into(), hint)
    }

    /// `raw`, a path of the file, relative to [`GraphFile::base_dir`] unless absolute.
    #[must_use]
    pub fn path(&self, raw: &str) -> PathBuf {
        self.base_dir.join(raw)
    }
}
