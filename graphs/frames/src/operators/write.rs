//! `frame.write`: partitions into one file, which appears under its name only when it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rask_graphs::access::Directories;
use rask_graphs::builtin::FileWritten;
use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, TaskContext, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::holds::{check_columns, check_parquet};
use super::partitions;
use super::write_text::{CsvStyle, CsvWriter, JsonWriter};
use crate::error::FrameError;
use crate::partition::{Partition, check_same_columns};
use crate::source::Format;

/// Arguments of `frame.write`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WriteArgs {
    /// The file. Missing directories are made.
    path: String,
    /// csv, parquet, json (an object a line) or arrow; by the file's extension when left out.
    #[serde(default)]
    format: Option<Format>,
    /// CSV: whether to begin with the columns' names.
    #[serde(default = "yes")]
    header: bool,
    /// CSV: the character between fields.
    #[serde(default = "comma")]
    delimiter: char,
    /// CSV: the text for "no value".
    #[serde(default)]
    null: String,
}

fn yes() -> bool {
    true
}

fn comma() -> char {
    ','
}

pub(super) fn register(registry: &mut Registry) {
    let doc = "Write all inputs, in order, into one file. The file appears only when it is complete.";
    registry.register(OperatorSpec::new::<WriteArgs>("frame.write", 1, Arity::at_least(1), "file", doc), |ctx, args, inputs| {
        Ok(Value::new(write(ctx, args, &partitions(inputs)?)?))
    });
}

fn write(ctx: &TaskContext, args: &WriteArgs, parts: &[&Partition]) -> Result<FileWritten, KernelError> {
    if crate::text::input::is_packed(Path::new(&args.path)) {
        return Err(KernelError(format!("{}: packed files are read, not written; leave the last ending away", args.path)));
    }
    let format = args.format.or_else(|| Format::of_path(Path::new(&args.path)));
    let format = format.ok_or_else(|| KernelError(format!("{}: say which format it shall have", args.path)))?;
    check_columns(parts[0].schema())?;
    for part in parts {
        check_same_columns(parts[0].schema(), part.schema())?;
    }
    let path = Path::new(&args.path);
    let fail = |error: KernelError| KernelError(format!("{}: {error}", path.display()));
    let target = ctx.files.target(path, Directories::All).map_err(|error| FrameError::access(&error))?;
    let mut unfinished = target.begin().map_err(|error| FrameError::access(&error))?;
    let file = unfinished.file().try_clone().map_err(|error| fail(error.into()))?;
    write_rows(ctx, args, format, parts, file).map_err(fail)?;
    let nbytes = unfinished.finish(true).map_err(|error| fail(error.into()))?;
    Ok(FileWritten { path: args.path.clone(), nbytes })
}

fn write_rows(
    ctx: &TaskContext,
    args: &WriteArgs,
    format: Format,
    parts: &[&Partition],
    file: File,
) -> Result<File, KernelError> {
    let batches = || parts.iter().flat_map(|part| part.batches());
    let schema = parts[0].schema();
    match format {
        Format::Parquet => {
            let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            for field in schema.fields() {
                check_parquet(field)?;
            }
            // Partitions may differ in nullability, so columns are nullable in the file where any of them needs it.
            let all = super::concat::concat(parts)?;
            let mut writer = ArrowWriter::try_new(file, std::sync::Arc::clone(all.schema()), Some(properties))?;
            for batch in all.batches() {
                ctx.check_cancelled()?;
                writer.write(batch)?;
            }
            Ok(writer.into_inner()?)
        }
        Format::Csv => {
            let delimiter =
                u8::try_from(args.delimiter).map_err(|_| KernelError("delimiter must be one ASCII character".to_owned()))?;
            let out = BufWriter::with_capacity(256 << 10, file);
            let mut writer = CsvWriter::new(out, CsvStyle { delimiter, null: &args.null });
            if args.header {
                writer.header(schema.fields())?;
            }
            for batch in batches() {
                ctx.check_cancelled()?;
                writer.rows(batch)?;
            }
            finish(writer.into_inner())
        }
        Format::Json => {
            let mut writer = JsonWriter::new(BufWriter::with_capacity(256 << 10, file));
            for batch in batches() {
                ctx.check_cancelled()?;
                writer.rows(batch)?;
            }
            finish(writer.into_inner()?)
        }
        Format::Arrow => {
            let all = super::concat::concat(parts)?;
            let mut writer = arrow::ipc::writer::FileWriter::try_new_buffered(file, all.schema())?;
            for batch in all.batches() {
                ctx.check_cancelled()?;
                writer.write(batch)?;
            }
            finish(writer.into_inner()?)
        }
    }
}

fn finish(mut out: BufWriter<File>) -> Result<File, KernelError> {
    out.flush()?;
    out.into_inner().map_err(|error| KernelError(error.to_string()))
}
