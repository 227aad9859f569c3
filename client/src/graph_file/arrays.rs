//! Arrays of a graph file: random numbers, creation, files, formulas, and columns of frames.

use std::collections::HashMap;

use rask_arrays::{Array, ArrayError, AxisChunks, ChunkSpec, DType, Distributed, Scalar, UNKNOWN, fresh_seed};
use rask_graphs::TaskIdx;
use rask_graphs::file::{self, ArrayFormat, ArraySource, Chunks, Declaration, Formula, Span, Text};
use serde_json::{Map, Value as Json};

use super::frames::shape_text;
use super::lower::{Lowerer, Made};
use super::outputs::absolute;
use super::{OutputKind, PRINT_LIMIT};
use crate::bridge;

/// Most columns of an array that becomes a table: each has a name, and arrays without rows can have any number.
const MAX_COLUMNS: usize = 100_000;

impl Lowerer<'_> {
    pub(super) fn array(&mut self, source: &ArraySource, declaration: &Declaration) -> Made {
        let span = declaration.span;
        let made = match source {
            ArraySource::Random { distribution, arguments, shape, chunks, seed, dtype } => {
                let seed = match seed.map_or_else(|| self.draw_seed(&declaration.name), Ok) {
                    Ok(seed) => seed,
                    Err(reason) => return Made::Broken(reason),
                };
                random(distribution, arguments, &lengths(shape), seed, *dtype, &chunk_spec(chunks))
            }
            ArraySource::Create { function, arguments, shape, chunks, dtype } => {
                create(function, arguments, shape.as_deref(), &chunk_spec(chunks), *dtype)
            }
            ArraySource::Load { path, format, key: _, chunks } => match format {
                ArrayFormat::Npy => Array::load(&absolute(self.file, &path.value), &chunk_spec(chunks)),
                ArrayFormat::Npz | ArrayFormat::Zarr => {
                    let hint = Some("arrays are loaded from .npy files".to_owned());
                    return self.mistake(path.span, "this format is not supported yet", hint);
                }
            },
            ArraySource::Expression(formula) => {
                let made = self.formula(formula);
                return self.named(made, declaration);
            }
            ArraySource::FromFrame { frame, of, columns, dtype, chunks } => {
                match self.array_from_frame(frame.index(), of, columns.as_deref(), declaration) {
                    Ok(array) => {
                        let typed = dtype_named(*dtype).map_or(Ok(array.clone()), |dtype| array.astype(dtype));
                        typed.and_then(|array| match chunks {
                            Some(chunks) => array.rechunk(&chunk_spec(chunks)),
                            None => Ok(array),
                        })
                    }
                    Err(made) => return made,
                }
            }
        };
        match made {
            Ok(array) => self.named(Made::Array(array), declaration),
            Err(error) => self.array_error(error, span),
        }
    }

    fn named(&self, made: Made, declaration: &Declaration) -> Made {
        match made {
            Made::Array(array) => Made::Array(array.named(&declaration.name)),
            other @ (Made::Unneeded | Made::Frame(_) | Made::Task(_) | Made::Broken(_) | Made::Mistaken) => other,
        }
    }

    fn draw_seed(&mut self, name: &str) -> Result<u64, String> {
        let seed = fresh_seed()?;
        self.notes.push(format!("array \"{name}\" draws its numbers with seed = {seed}"));
        Ok(seed)
    }

    /// An array that cannot be made: a file's fault, or the author's.
    fn array_error(&mut self, error: ArrayError, span: Span) -> Made {
        if matches!(error, ArrayError::File { .. }) {
            return Made::Broken(error.to_string());
        }
        self.mistake(span, error.to_string(), None)
    }

    /// The array that a formula stands for.
    pub(super) fn formula(&mut self, formula: &Formula) -> Made {
        let mut known = HashMap::with_capacity(formula.names.len());
        for (name, id) in &formula.names {
            match &self.made[id.index()] {
                Made::Array(array) => {
                    known.insert(name.as_str(), array.clone());
                }
                Made::Broken(reason) => return Made::Broken(reason.clone()),
                Made::Task(_) => {
                    let message = format!("the shape of task \"{name}\" is not known before it runs");
                    let hint = Some("use its result in another task, or declare it as an array".to_owned());
                    return self.mistake(formula.text.span, message, hint);
                }
                Made::Frame(_) | Made::Unneeded | Made::Mistaken => return Made::Mistaken,
            }
        }
        let find = |name: &str| known.get(name).cloned();
        match rask_arrays::evaluate_expression(&formula.expression, &find) {
            Ok(array) => Made::Array(array),
            Err(error) => {
                let span = self.file.span_within(&formula.text, error.span);
                self.mistake(span, error.message, error.hint)
            }
        }
    }

    /// The task that makes the whole of `array` in one chunk.
    pub(super) fn assembled(&mut self, array: &Array, name: &str, span: Span) -> Result<TaskIdx, Made> {
        if array.nbytes().is_some_and(|nbytes| nbytes > u64::from(u32::MAX)) {
            let message = format!("\"{name}\" of shape {} is too large for one task", shape_text(&array.shape()));
            return Err(self.mistake(span, message, None));
        }
        self.arrays.assemble(&array.clone().named(name)).map_err(|error| self.array_error(error, span))
    }

    /// The tasks of blocks of whole rows, for a table.
    pub(super) fn row_blocks(&mut self, array: &Array, name: &str, span: Span) -> Result<Vec<TaskIdx>, Made> {
        let n_axes = array.n_axes();
        if n_axes == 0 || n_axes > 2 || array.shape().get(1) == Some(&UNKNOWN) {
            let message = format!("\"{name}\" has shape {}, a table needs one or two axes", shape_text(&array.shape()));
            return Err(self.mistake(span, message, None));
        }
        if array.shape().get(1).is_some_and(|&n_columns| n_columns > MAX_COLUMNS) {
            let n_columns = array.shape()[1];
            let message = format!("\"{name}\" has {n_columns} columns, a table can have {MAX_COLUMNS} at most");
            return Err(self.mistake(span, message, Some("write it as .npy".to_owned())));
        }
        let rows = match array.chunks() {
            [_] => array.clone(),
            [_, columns] if columns.len() == 1 => array.clone(),
            chunks => {
                let spec = ChunkSpec::Axes(vec![AxisChunks::Sizes(chunks[0].clone()), AxisChunks::Size(-1)]);
                array.rechunk(&spec).map_err(|error| self.array_error(error, span))?
            }
        };
        self.arrays.lower(&rows).map(|blocks| blocks.tasks).map_err(|error| self.array_error(error, span))
    }

    pub(super) fn printed_array(&mut self, array: &Array, name: &str, span: Span) -> Result<(OutputKind, Vec<TaskIdx>), Made> {
        if array.nbytes().is_some_and(|nbytes| nbytes > PRINT_LIMIT) {
            let message =
                format!("an array of shape {} and type {} is too large to print", shape_text(&array.shape()), array.dtype());
            let hint = Some("write it to a file with write = \"....npy\", or print a slice or a reduction of it".to_owned());
            return Err(self.mistake(span, message, hint));
        }
        let shape = array.shape().into_iter().map(|length| (length != UNKNOWN).then_some(length as u64)).collect();
        let kind = OutputKind::Array { dtype: array.dtype().to_string(), shape };
        Ok((kind, vec![self.assembled(array, name, span)?]))
    }

    pub(super) fn write_npy(&mut self, array: &Array, name: &str, path: &str, span: Span) -> Result<TaskIdx, Made> {
        self.arrays.write_npy(&array.clone().named(name), path).map_err(|error| self.array_error(error, span))
    }

    fn array_from_frame(
        &mut self,
        at: usize,
        of: &Text,
        columns: Option<&[Text]>,
        declaration: &Declaration,
    ) -> Result<Array, Made> {
        let Made::Frame(frame) = self.made[at].clone() else {
            return Err(self.mistake(of.span, format!("\"{}\" is not a frame", of.value), None));
        };
        let fields = frame.schema().fields();
        let columns: Vec<Text> = match columns {
            Some(columns) => columns.to_vec(),
            None => {
                let numeric = fields.iter().filter(|field| field.data_type().is_numeric());
                numeric.map(|field| Text { value: field.name().clone(), span: of.span }).collect()
            }
        };
        if columns.is_empty() {
            return Err(self.mistake(of.span, format!("\"{}\" has no numeric columns", of.value), None));
        }
        for column in &columns {
            if let Ok(field) = frame.schema().field_with_name(&column.value)
                && !field.data_type().is_numeric()
                && rask_frames::type_name(field.data_type()) != "bool"
            {
                let kind = rask_frames::type_name(field.data_type());
                return Err(self.mistake(column.span, format!("column \"{}\" is {kind}, not a number", column.value), None));
            }
        }
        let narrow = match self.select(&frame, &columns) {
            Made::Frame(narrow) => narrow,
            other @ (Made::Unneeded | Made::Array(_) | Made::Task(_) | Made::Broken(_) | Made::Mistaken) => return Err(other),
        };
        // A frame with one user need only make these columns; one with several is made once, as a whole.
        let source = if self.n_users[at] > 1 { frame } else { narrow };
        let name = if self.n_users[at] > 1 { of.value.clone() } else { format!("{}-{}", declaration.name, of.value) };
        let partitions = self.partitions(&source, &name, of.span)?;
        let names: Vec<String> = columns.into_iter().map(|column| column.value).collect();
        let chunks = vec![vec![UNKNOWN; partitions.len()], vec![names.len()]];
        let tasks = bridge::frames_to_arrays(self.arrays.graph(), &declaration.name, &partitions, &names);
        Array::from_tasks(tasks, bridge::DTYPE, chunks).map_err(|error| self.array_error(error, of.span))
    }
}

fn lengths(shape: &[u64]) -> Vec<usize> {
    shape.iter().map(|&length| usize::try_from(length).unwrap_or(UNKNOWN - 1)).collect()
}

/// Chunks as the arrays library takes them.
fn chunk_spec(chunks: &Chunks) -> ChunkSpec {
    let length = |length: u64| i64::try_from(length).unwrap_or(i64::MAX);
    let axis = |axis: &file::AxisChunks| match axis {
        file::AxisChunks::Auto => AxisChunks::Auto(rask_arrays::chunking::AutoWord::Auto),
        file::AxisChunks::Whole => AxisChunks::Size(-1),
        file::AxisChunks::Length(each) => AxisChunks::Size(length(*each)),
        file::AxisChunks::Lengths(all) => AxisChunks::Sizes(lengths(all)),
    };
    match chunks {
        Chunks::Auto => ChunkSpec::default(),
        Chunks::Each(each) => ChunkSpec::Size(each.map_or(-1, length)),
        Chunks::PerAxis(axes) => ChunkSpec::Axes(axes.iter().map(axis).collect()),
    }
}

/// The parser lets only names of types through, so an unknown one is as good as none.
fn dtype_named(name: Option<&str>) -> Option<DType> {
    name.and_then(|name| name.parse().ok())
}

fn scalar(json: &Json) -> Option<Scalar> {
    match json {
        Json::Bool(value) => Some(Scalar::Bool(*value)),
        Json::Number(number) => {
            let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            integer.map(Scalar::Int).or_else(|| number.as_f64().map(Scalar::Float))
        }
        Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn number(arguments: &Map<String, Json>, name: &str, usual: Scalar) -> Scalar {
    arguments.get(name).and_then(scalar).unwrap_or(usual)
}

fn integer(arguments: &Map<String, Json>, name: &str, usual: i64) -> i64 {
    arguments.get(name).and_then(Json::as_i64).unwrap_or(usual)
}

fn random(
    distribution: &str,
    arguments: &Map<String, Json>,
    shape: &[usize],
    seed: u64,
    dtype: Option<&str>,
    chunks: &ChunkSpec,
) -> Result<Array, ArrayError> {
    let given = |names: &[(&str, f64)]| -> Vec<Scalar> {
        names.iter().map(|(name, usual)| number(arguments, name, Scalar::Float(*usual))).collect()
    };
    let (distribution, parameters) = match distribution {
        "normal" => (Distributed::Normal, given(&[("loc", 0.0), ("scale", 1.0)])),
        "uniform" => (Distributed::Uniform, given(&[("low", 0.0), ("high", 1.0)])),
        "integers" => (Distributed::Integers, given(&[("low", 0.0), ("high", 2.0)])),
        "exponential" => (Distributed::Exponential, given(&[("scale", 1.0)])),
        "poisson" => (Distributed::Poisson, given(&[("lam", 1.0)])),
        other => return Err(unknown_function("random", other)),
    };
    Array::random(distribution, &parameters, shape, seed, dtype_named(dtype), chunks)
}

fn create(
    function: &str,
    arguments: &Map<String, Json>,
    shape: Option<&[u64]>,
    chunks: &ChunkSpec,
    dtype: Option<&str>,
) -> Result<Array, ArrayError> {
    let shape = lengths(shape.unwrap_or_default());
    let dtype = dtype_named(dtype);
    let value = |name: &str, usual: Scalar| arguments.get(name).and_then(scalar).unwrap_or(usual);
    let count = |name: &str, usual: usize| {
        arguments.get(name).and_then(Json::as_u64).map_or(usual, |count| usize::try_from(count).unwrap_or(UNKNOWN - 1))
    };
    match function {
        "zeros" => Array::zeros(&shape, dtype, chunks),
        "ones" => Array::ones(&shape, dtype, chunks),
        "full" => Array::full(&shape, value("fill_value", Scalar::Int(0)), dtype, chunks),
        "arange" => {
            let (start, stop) = (value("start", Scalar::Int(0)), value("stop", Scalar::Int(0)));
            Array::arange(start, stop, value("step", Scalar::Int(1)), dtype, chunks)
        }
        "linspace" => {
            let endpoint = arguments.get("endpoint").and_then(Json::as_bool).unwrap_or(true);
            let (start, stop) = (value("start", Scalar::Int(0)), value("stop", Scalar::Int(0)));
            Array::linspace(start, stop, count("num", 50), endpoint, dtype, chunks)
        }
        "eye" => {
            let n_rows = count("n", 0);
            Array::eye(n_rows, count("m", n_rows), integer(arguments, "k", 0), dtype, chunks)
        }
        other => Err(unknown_function("create", other)),
    }
}

fn unknown_function(function: &'static str, name: &str) -> ArrayError {
    ArrayError::Argument { function, reason: format!("there is no \"{name}\"") }
}
