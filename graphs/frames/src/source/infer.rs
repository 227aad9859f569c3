//! The columns of files: from footers where the format has them, from the values where not.
//!
//! The header of every file is read. Of the values, the first 32 MiB are looked at in full, so that small inputs have the types
//! that all of their rows need; of what comes after, the beginnings of some files. What those do not show is found by the scan,
//! which takes no value that is not of its column's type.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rask_graphs::FileAccess;

use super::options::{Format, ReadOptions};
use super::{footers, open};
use crate::convert::unify;
use crate::error::FrameError;
use crate::operators::scan::places;
use crate::text::guess::Guess;
use crate::text::json::Keys;
use crate::text::records::Records;
use crate::text::{input, json};
use crate::types::{parse_type, type_name};

/// Bytes of text that are looked at in full.
const WHOLE_NBYTES: u64 = 32 << 20;

/// Rows that are looked at of files after those.
const SAMPLED_ROWS: usize = 1000;

/// Sampling thousands of files would take longer than reading a few of them; so many, evenly spread, are looked at.
const MAX_SAMPLED_FILES: usize = 64;

/// Bytes of JSON that samples of rows are looked for in.
const MIN_JSON_SAMPLE: u64 = 1 << 20;
const MAX_JSON_SAMPLE: u64 = 256 << 20;

/// What is known of a file once its columns are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Whether there are columns in it; a file of no bytes has none, and no rows.
    pub(crate) has_columns: bool,
    /// Whether all of its rows were looked at.
    pub(crate) is_whole: bool,
    /// Whether it may be cut at line ends (those outside of quotes).
    pub(crate) has_lines: bool,
    /// CSV: the fields of each record.
    pub(crate) n_fields: usize,
}

const NOTHING: Seen = Seen { has_columns: false, is_whole: true, has_lines: false, n_fields: 0 };

/// The common schema of `paths`, and what is known of each.
pub(crate) fn schema(
    files: &FileAccess,
    format: Format,
    paths: &[PathBuf],
    options: &ReadOptions,
) -> Result<(SchemaRef, Vec<Seen>), FrameError> {
    let (schema, seen) = match format {
        Format::Csv => csv(files, paths, options)?,
        Format::Json => json(files, paths, options)?,
        Format::Parquet => binary(paths, |path| Ok(footers::footer(&open(files, path)?, path)?.schema().as_ref().clone()))?,
        Format::Arrow => binary(paths, |path| arrow_schema(files, path))?,
    };
    // Metadata written by other programs (a pandas index, say) means nothing here and would travel with every task.
    Ok((Arc::new(Schema::new(schema.fields().clone())), seen))
}

/// How much of each file is looked at.
struct Plan<'a> {
    files: &'a FileAccess,
    options: &'a ReadOptions,
    stride: usize,
    nbytes_left: u64,
}

impl<'a> Plan<'a> {
    fn new(files: &'a FileAccess, n_files: usize, options: &'a ReadOptions) -> Self {
        Self { files, options, stride: n_files.div_ceil(MAX_SAMPLED_FILES).max(1), nbytes_left: WHOLE_NBYTES }
    }

    /// Rows of file `idx` to look at, when it is too long to be looked at in full.
    fn n_rows(&self, idx: usize) -> usize {
        match self.options.infer_rows {
            Some(n_rows) => n_rows,
            None if idx.is_multiple_of(self.stride) => SAMPLED_ROWS,
            None => 0,
        }
    }
}

/// The columns of a CSV file: their names, and what their values have been.
struct CsvColumns {
    names: Vec<String>,
    guesses: Vec<Guess>,
}

fn csv(files: &FileAccess, paths: &[PathBuf], options: &ReadOptions) -> Result<(Schema, Vec<Seen>), FrameError> {
    let mut plan = Plan::new(files, paths.len(), options);
    let mut merged: Option<(CsvColumns, &PathBuf)> = None;
    let mut all_seen = Vec::with_capacity(paths.len());
    for (idx, path) in paths.iter().enumerate() {
        let (columns, seen) = csv_file(path, idx, &mut plan)?;
        all_seen.push(seen);
        let Some(columns) = columns else { continue };
        match &mut merged {
            None => merged = Some((columns, path)),
            Some((so_far, first)) => {
                let order = csv_order(&so_far.names, &columns.names, "the first file")
                    .map_err(|reason| FrameError::data(path, format!("{reason} (in {})", first.display())))?;
                for (guess, &place) in so_far.guesses.iter_mut().zip(&order) {
                    *guess = guess.union(columns.guesses[place]);
                }
            }
        }
    }
    let Some((columns, _)) = merged else {
        return Err(paths.first().map_or_else(no_path, |path| FrameError::data(path, "no columns: the file is empty")));
    };
    let fields = columns.names.into_iter().zip(columns.guesses).map(|(name, guess)| Field::new(name, guess.data_type(), true));
    Ok((settle(&Schema::new(fields.collect::<Vec<_>>()), options, false)?, all_seen))
}

fn no_path() -> FrameError {
    FrameError::Plan("no path given".to_owned())
}

fn csv_file(path: &Path, idx: usize, plan: &mut Plan<'_>) -> Result<(Option<CsvColumns>, Seen), FrameError> {
    let options = plan.options;
    let file = open(plan.files, path)?;
    let nbytes = file.metadata().map_err(|error| FrameError::io(path, &error))?.len();
    let (text, offset) = input::open(file, path).map_err(|error| FrameError::io(path, &error))?;
    let mut records = Records::new(text, options.dialect(), offset, 1);
    let Some(names) = csv_names(path, &mut records, options)? else { return Ok((None, NOTHING)) };
    let mut guesses = vec![Guess::default(); names.len()];
    let mut n_rows = 0;
    if !options.header {
        see_record(&records, &mut guesses, options);
        n_rows = 1;
    }
    // How long a packed file is, reading it tells.
    let fits = input::is_packed(path) || nbytes <= plan.nbytes_left;
    let max_rows = if fits && options.infer_rows.is_none() { usize::MAX } else { plan.n_rows(idx) };
    let mut is_whole = false;
    loop {
        let is_too_long = max_rows == usize::MAX && records.position() > plan.nbytes_left && n_rows >= plan.n_rows(idx);
        if n_rows >= max_rows || is_too_long {
            break;
        }
        if !records.read().map_err(|error| FrameError::record(path, error))? {
            is_whole = true;
            break;
        }
        see_record(&records, &mut guesses, options);
        n_rows += 1;
    }
    plan.nbytes_left = plan.nbytes_left.saturating_sub(records.position());
    let seen = Seen { has_columns: true, is_whole, has_lines: true, n_fields: names.len() };
    Ok((Some(CsvColumns { names, guesses }), seen))
}

fn see_record<R: Read>(records: &Records<R>, guesses: &mut [Guess], options: &ReadOptions) {
    let mut text = Vec::new();
    for (guess, &field) in guesses.iter_mut().zip(records.fields()) {
        text.clear();
        records.append(field, &mut text);
        // A quoted nothing is a text only if the column turns out to be one, and then it is one already.
        if !options.is_null(&text, field.is_quoted, false) {
            guess.see(&text);
        }
    }
}

/// Read the names of the columns, or make them up from the first record; `None` when there is no record. The first record is
/// the one read last.
pub(crate) fn csv_names<R: Read>(
    path: &Path,
    records: &mut Records<R>,
    options: &ReadOptions,
) -> Result<Option<Vec<String>>, FrameError> {
    if !records.read().map_err(|error| FrameError::record(path, error))? {
        return Ok(None);
    }
    let mut names: Vec<String> = Vec::with_capacity(records.fields().len());
    for (idx, &field) in records.fields().iter().enumerate() {
        let mut text = Vec::new();
        if options.header {
            records.append(field, &mut text);
        }
        let name = String::from_utf8(text)
            .map_err(|_| FrameError::at(path, records.line(), format!("the name of column {} is not UTF-8", idx + 1)))?;
        names.push(if name.is_empty() { format!("column_{}", idx + 1) } else { name });
    }
    let mut seen = std::collections::HashMap::new();
    for (idx, name) in names.iter().enumerate() {
        if let Some(other) = seen.insert(name, idx) {
            let what = format!("two columns are called \"{name}\": {} and {}", other + 1, idx + 1);
            return Err(FrameError::at(path, records.line(), what));
        }
    }
    records.expect_fields(names.len());
    Ok(Some(names))
}

/// For each of `names`, which `whose` has, its place among `own`, the names in another file.
pub(crate) fn csv_order(names: &[String], own: &[String], whose: &str) -> Result<Vec<usize>, String> {
    if names == own {
        return Ok((0..names.len()).collect());
    }
    let places: std::collections::HashMap<&String, usize> = own.iter().zip(0..).collect();
    let missing = names.iter().find(|name| !places.contains_key(name));
    if let Some(missing) = missing {
        let new = own.iter().find(|name| !names.contains(name));
        return Err(match new {
            Some(new) => format!("column \"{new}\" where {whose} has \"{missing}\""),
            None => format!("no column \"{missing}\": {} columns where {whose} has {}", own.len(), names.len()),
        });
    }
    if own.len() != names.len() {
        return Err(format!("{} columns where {whose} has {}", own.len(), names.len()));
    }
    Ok(names.iter().filter_map(|name| places.get(name).copied()).collect())
}

fn json(files: &FileAccess, paths: &[PathBuf], options: &ReadOptions) -> Result<(Schema, Vec<Seen>), FrameError> {
    let mut plan = Plan::new(files, paths.len(), options);
    let mut keys = Keys::default();
    let mut all_seen = Vec::with_capacity(paths.len());
    let mut schema = Schema::empty();
    for (idx, path) in paths.iter().enumerate() {
        all_seen.push(json_file(path, idx, &mut plan, &mut keys)?);
        // After every file, so that the one is named with which the trouble begins.
        if idx < MAX_SAMPLED_FILES || idx + 1 == paths.len() {
            schema = keys.schema().map_err(|reason| FrameError::data(path, reason))?;
        }
    }
    if schema.fields().is_empty() {
        return Err(paths.first().map_or_else(no_path, |path| FrameError::data(path, "no columns: there is no row")));
    }
    let is_whole = all_seen.iter().all(|seen| seen.is_whole);
    Ok((settle(&schema, options, !is_whole)?, all_seen))
}

fn json_file(path: &Path, idx: usize, plan: &mut Plan<'_>, keys: &mut Keys) -> Result<Seen, FrameError> {
    let io = |error: std::io::Error| FrameError::io(path, &error);
    let at = |(line, reason): (u64, String)| FrameError::at(path, line, reason);
    let (mut text, _) = input::open(open(plan.files, path)?, path).map_err(io)?;
    let (mut bytes, mut is_whole) = (Vec::new(), false);
    let mut read_to = |bytes: &mut Vec<u8>, length: u64| {
        let n_wanted = length.saturating_sub(bytes.len() as u64);
        text.by_ref().take(n_wanted).read_to_end(bytes).map(|n_read| (n_read as u64) < n_wanted)
    };
    let n_rows = if plan.options.infer_rows.is_none() {
        // One byte more tells whether that is all.
        is_whole = read_to(&mut bytes, plan.nbytes_left + 1).map_err(io)?;
        if is_whole { usize::MAX } else { plan.n_rows(idx) }
    } else {
        plan.n_rows(idx)
    };
    // A file that is only opened is still looked at for what it is.
    let mut length = MIN_JSON_SAMPLE;
    while !is_whole && length <= MAX_JSON_SAMPLE && n_whole_rows(&bytes, n_rows.max(1)).map_err(at)? < n_rows.max(1) {
        is_whole = read_to(&mut bytes, length).map_err(io)?;
        length *= 8;
    }
    plan.nbytes_left = plan.nbytes_left.saturating_sub(bytes.len() as u64);
    let n_seen = keys.look_at(&bytes, n_rows, is_whole).map_err(at)?;
    let mut rows = json::Rows::new(&bytes);
    let is_array = rows.is_array();
    let first = rows.next().map_err(at)?;
    let is_a_line = first.as_ref().is_some_and(|row| !row.text.contains(&b'\n'));
    let has_columns = first.is_some();
    let is_whole = is_whole && n_seen < n_rows.max(1);
    Ok(Seen { has_columns, is_whole, has_lines: is_a_line && !is_array, n_fields: 0 })
}

/// Whole rows in `bytes`, counted up to `enough`.
fn n_whole_rows(bytes: &[u8], enough: usize) -> Result<usize, (u64, String)> {
    let mut rows = json::Rows::new(bytes);
    let mut n_rows = 0;
    while n_rows < enough {
        match rows.next()? {
            Some(row) if row.is_complete => n_rows += 1,
            Some(_) | None => break,
        }
    }
    Ok(n_rows)
}

/// The columns of files that name them with their types.
fn binary(paths: &[PathBuf], schema_of: impl Fn(&Path) -> Result<Schema, FrameError>) -> Result<(Schema, Vec<Seen>), FrameError> {
    let mut merged: Option<(Schema, &PathBuf)> = None;
    for path in paths {
        let schema = schema_of(path)?;
        check_names(&schema).map_err(|reason| FrameError::data(path, reason))?;
        merged = Some(match merged {
            None => (plain(&schema), path),
            Some((so_far, first)) if so_far == schema => (so_far, first),
            Some((so_far, first)) => {
                let combined = merge_by_name(&so_far, &plain(&schema));
                let explain = |reason| FrameError::data(path, format!("{reason} (in {})", first.display()));
                (combined.map_err(explain)?, first)
            }
        });
    }
    let (schema, _) = merged.ok_or_else(no_path)?;
    Ok((schema, vec![Seen { has_columns: true, ..NOTHING }; paths.len()]))
}

/// Columns are found by name, so each name must be one column.
pub(crate) fn check_names(schema: &Schema) -> Result<(), String> {
    let mut names = std::collections::HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(field) => Err(format!("two columns are called \"{}\"", field.name())),
        None => Ok(()),
    }
}

/// Runs of equal values are a way of writing, not a type that queries know.
fn plain(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let DataType::RunEndEncoded(_, values) = field.data_type() else { return field.as_ref().clone() };
        Field::new(field.name(), values.data_type().clone(), true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Columns by name; those that a file does not have are null there. Types that differ must have a common one.
fn merge_by_name(first: &Schema, other: &Schema) -> Result<Schema, String> {
    let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    let own_places = places(first);
    let other_places = places(other);
    for field in &mut fields {
        if !other_places.contains_key(field.name().as_str()) {
            field.set_nullable(true);
        }
    }
    for field in other.fields() {
        let Some(own) = own_places.get(field.name().as_str()).map(|&place| &mut fields[place]) else {
            fields.push(field.as_ref().clone().with_nullable(true));
            continue;
        };
        let common = unify(own.data_type(), field.data_type()).ok_or_else(|| {
            let (a, b) = (type_name(own.data_type()), type_name(field.data_type()));
            format!("column \"{}\" is {b} where the first file has {a}", field.name())
        })?;
        *own = Field::new(own.name(), common, own.is_nullable() || field.is_nullable());
    }
    Ok(Schema::new(fields))
}

/// Put the wanted types in, and give columns without any value the type that holds anything. Where rows may have keys that
/// nobody has seen, naming the type of one makes it a column.
fn settle(schema: &Schema, options: &ReadOptions, may_be_more: bool) -> Result<Schema, FrameError> {
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let data_type = match options.types.get(field.name()) {
            Some(name) => parse_type(name).map_err(FrameError::Plan)?,
            None => without_null(field.data_type()),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    for (name, wanted) in &options.types {
        if schema.field_with_name(name).is_ok() {
            continue;
        }
        if !may_be_more {
            return Err(FrameError::Plan(format!("types: there is no column \"{name}\"")));
        }
        fields.push(Field::new(name, parse_type(wanted).map_err(FrameError::Plan)?, true));
    }
    Ok(Schema::new(fields))
}

/// `data_type` with text in every place where no value has been.
fn without_null(data_type: &DataType) -> DataType {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: guesses have no others with types inside")]
    match data_type {
        DataType::Null => DataType::Utf8,
        DataType::List(items) => DataType::List(Arc::new(items.as_ref().clone().with_data_type(without_null(items.data_type())))),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| f.as_ref().clone().with_data_type(without_null(f.data_type())));
            DataType::Struct(fields.collect::<Vec<_>>().into())
        }
        other => other.clone(),
    }
}

fn arrow_schema(files: &FileAccess, path: &Path) -> Result<Schema, FrameError> {
    let reader = crate::ipc::FileReader::open(open(files, path)?).map_err(|error| FrameError::data(path, error))?;
    Ok(reader.schema().as_ref().clone())
}
