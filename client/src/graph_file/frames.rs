//! Frames of a graph file: files, queries, and arrays taken for tables.

use std::sync::Arc;

use rask_frames::{Format, Frame, FrameError, ReadOptions, parse_type};
use rask_graphs::TaskIdx;
use rask_graphs::file::{Declaration, FrameFormat, FrameSource, Span, Text};

use super::lower::{Lowerer, Made};
use super::outputs::absolute;
use crate::bridge;

impl Lowerer<'_> {
    pub(super) fn frame(&mut self, source: &FrameSource, declaration: &Declaration) -> Made {
        match source {
            FrameSource::Read { paths, format, options } => self.read_frame(paths, *format, options, declaration.span),
            FrameSource::Sql { sql, tables } => {
                let mut frames = Vec::with_capacity(tables.len());
                for (name, id) in tables {
                    if let Made::Frame(frame) = &self.made[id.index()] {
                        frames.push((name.clone(), frame.clone()));
                    }
                }
                match Frame::sql(&sql.value, &frames) {
                    Ok(frame) => Made::Frame(frame),
                    Err(error) => self.frame_error(error, sql.span, Some(sql)),
                }
            }
            FrameSource::FromArray { array, of, columns } => {
                self.frame_from_array(array.index(), of, columns.as_deref(), &declaration.name)
            }
        }
    }

    fn read_frame(&mut self, paths: &[Text], format: FrameFormat, options: &rask_graphs::file::ReadOptions, span: Span) -> Made {
        for (_, wanted) in &options.types {
            if let Err(reason) = parse_type(&wanted.value) {
                return self.mistake(wanted.span, reason, None);
            }
        }
        let format = match format {
            FrameFormat::Csv => Format::Csv,
            FrameFormat::Parquet => Format::Parquet,
            FrameFormat::Json => Format::Json,
            FrameFormat::Arrow => Format::Arrow,
        };
        let usual = ReadOptions::default();
        let read_options = ReadOptions {
            header: options.header.unwrap_or(usual.header),
            delimiter: options.delimiter.unwrap_or(usual.delimiter),
            quote: options.quote.unwrap_or(usual.quote),
            comment: options.comment,
            nulls: options.null.clone().unwrap_or(usual.nulls),
            types: options.types.iter().map(|(name, wanted)| (name.clone(), wanted.value.clone())).collect(),
            partition_nbytes: options.partition_nbytes.unwrap_or(usual.partition_nbytes),
            infer_rows: options.infer_rows.map(|n_rows| usize::try_from(n_rows).unwrap_or(usize::MAX)),
        };
        let files: Vec<_> = paths.iter().map(|path| absolute(self.file, &path.value)).collect();
        let frame = match Frame::read(Some(format), &files, read_options) {
            Ok(frame) => frame,
            Err(error) => return self.frame_error(error, span, None),
        };
        match &options.columns {
            Some(columns) => self.select(&frame, columns),
            None => Made::Frame(frame),
        }
    }

    /// Some columns of a frame, in the order given.
    pub(super) fn select(&mut self, frame: &Frame, columns: &[Text]) -> Made {
        for column in columns {
            if frame.schema().index_of(&column.value).is_err() {
                let known: Vec<&str> = frame.schema().fields().iter().map(|field| field.name().as_str()).collect();
                let hint = nearest(&column.value, &known).unwrap_or_else(|| format!("it has {}", known.join(", ")));
                return self.mistake(column.span, format!("unknown column \"{}\"", column.value), Some(hint));
            }
        }
        let quoted: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.value.replace('"', "\"\""))).collect();
        let sql = format!("SELECT {} FROM frame", quoted.join(", "));
        match Frame::sql(&sql, &[("frame".to_owned(), frame.clone())]) {
            Ok(frame) => Made::Frame(frame),
            Err(error) => {
                let span = columns.first().map_or(Span::new(0, 0), |column| column.span);
                self.frame_error(error, span, None)
            }
        }
    }

    /// The tasks of a frame's partitions.
    pub(super) fn partitions(&mut self, frame: &Frame, name: &str, span: Span) -> Result<Vec<TaskIdx>, Made> {
        let lowered: Result<Vec<TaskIdx>, FrameError> = self.frames.lower(frame, self.arrays.graph(), name);
        lowered.map_err(|error| self.frame_error(error, span, None))
    }

    fn frame_from_array(&mut self, at: usize, of: &Text, columns: Option<&[Text]>, name: &str) -> Made {
        let Made::Array(array) = self.made[at].clone() else {
            let message = format!("the shape of task \"{}\" is not known before it runs", of.value);
            return self.mistake(of.span, message, Some("a frame is made from an array".to_owned()));
        };
        let n_columns = match array.shape().as_slice() {
            [_] => Some(1),
            [_, n_columns] if *n_columns != rask_arrays::UNKNOWN => Some(*n_columns),
            _ => None,
        };
        let Some(n_columns) = n_columns else {
            let message = format!("\"{}\" has shape {}, a frame needs one or two axes", of.value, shape_text(&array.shape()));
            return self.mistake(of.span, message, None);
        };
        let rows = match self.row_blocks(&array, &of.value, of.span) {
            Ok(rows) => rows,
            Err(made) => return made,
        };
        let names: Vec<String> = match columns {
            Some(columns) => columns.iter().map(|column| column.value.clone()).collect(),
            None => (0..n_columns).map(|column| format!("c{column}")).collect(),
        };
        if names.len() != n_columns {
            let message = format!("{} names for the {n_columns} columns of \"{}\"", names.len(), of.value);
            return self.mistake(columns.and_then(<[_]>::first).map_or(of.span, |column| column.span), message, None);
        }
        let empty = match bridge::empty(&names, array.dtype()) {
            Ok(empty) => empty,
            Err(error) => return self.mistake(of.span, error.0, None),
        };
        let tasks = bridge::arrays_to_frames(self.arrays.graph(), name, &rows, &names);
        Made::Frame(Frame::from_tasks(Arc::clone(empty.schema()), tasks))
    }
}

/// A shape as people read it, `?` for what is not known.
pub(super) fn shape_text(shape: &[usize]) -> String {
    let lengths = shape.iter().map(|&length| if length == rask_arrays::UNKNOWN { "?".to_owned() } else { length.to_string() });
    let lengths: Vec<String> = lengths.collect();
    match lengths.as_slice() {
        [one] => format!("({one},)"),
        many => format!("({})", many.join(", ")),
    }
}

/// `did you mean "..."?` for the nearest of `known`, if a third of the letters or fewer differ.
pub(super) fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let limit = (name.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::osa_distance(&name.to_lowercase(), &candidate.to_lowercase());
    let best = known.iter().map(|candidate| (distance(candidate), *candidate)).min()?;
    (best.0 <= limit).then(|| format!("did you mean \"{}\"?", best.1))
}
