//! `[array.NAME]` sections. Names inside expressions are filled in later; shapes of results are for the arrays library.

use super::diagnostic::Problems;
use super::document::Entry;
use super::keys::ARRAY;
use super::names::{Draft, UNRESOLVED, extension};
use super::values::{Fields, fields};
use super::{ArrayFormat, ArraySource, AxisChunks, Chunks, DeclarationKind, Formula, Text};
use crate::expression::{Expression, RESERVED};

pub(super) fn read(entry: &Entry<'_>, problems: &mut Problems) -> Draft {
    let mut draft = Draft::new(&entry.key, entry.key_span, "array");
    draft.check_identifier(problems);
    if RESERVED.contains(&entry.key.as_ref()) {
        problems.error(entry.key_span, format!("\"{}\" means something in every expression and cannot name an array", entry.key));
    }
    if let Some(fields) = fields(&ARRAY, entry, problems) {
        draft.kind = source(&fields, problems).map(DeclarationKind::Array);
    }
    draft
}

/// Keys of random and created arrays that have their own place; all others are arguments.
const NO_ARGUMENTS: [&str; 6] = ["random", "create", "shape", "chunks", "seed", "dtype"];

fn source(fields: &Fields<'_, '_>, problems: &mut Problems) -> Option<ArraySource> {
    let argument_names = || fields.variant.keys().map(|key| key.name).filter(|name| !NO_ARGUMENTS.contains(name));
    let chunks = fields.chunks().unwrap_or(Chunks::Auto);
    let shape = fields.shape("shape");
    match fields.variant.source {
        "random" => {
            let shape = shape?;
            check_chunks(fields, &chunks, &shape, problems);
            Some(ArraySource::Random {
                distribution: fields.variant.choice.to_owned(),
                arguments: fields.arguments(argument_names()),
                shape,
                chunks,
                seed: fields.natural("seed"),
                dtype: fields.dtype(),
            })
        }
        "create" => {
            if let Some(shape) = &shape {
                check_chunks(fields, &chunks, shape, problems);
            }
            if let Some(node) = fields.node("step")
                && fields.arguments(std::iter::once("step")).get("step").and_then(serde_json::Value::as_f64) == Some(0.0)
            {
                problems.error(node.span, "\"step\" must not be 0");
            }
            Some(ArraySource::Create {
                function: fields.variant.choice.to_owned(),
                arguments: fields.arguments(argument_names()),
                shape,
                chunks,
                dtype: fields.dtype(),
            })
        }
        "load" => {
            let path = fields.text("load")?;
            let format = load_format(&path, problems)?;
            let key = fields.text("key").map(|text| text.value);
            Some(ArraySource::Load { path, format, key, chunks })
        }
        "expr" => formula(fields.text("expr")?, problems).map(ArraySource::Expression),
        _ => Some(ArraySource::FromFrame {
            frame: UNRESOLVED,
            of: fields.text("from_frame")?,
            columns: fields.texts("columns"),
            dtype: fields.dtype(),
            chunks: fields.chunks(),
        }),
    }
}

fn load_format(path: &Text, problems: &mut Problems) -> Option<ArrayFormat> {
    let ending = extension(path.value.trim_end_matches('/')).map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some("npy") => Some(ArrayFormat::Npy),
        Some("npz") => Some(ArrayFormat::Npz),
        Some("zarr") => Some(ArrayFormat::Zarr),
        Some(_) | None => {
            let message = format!("the format of \"{}\" is not known by its extension", path.value);
            problems.hinted(path.span, message, "arrays are loaded from .npy, .npz and .zarr");
            None
        }
    }
}

/// Parse the expression `text`; a mistake is reported at its place inside the string.
pub(super) fn formula(text: Text, problems: &mut Problems) -> Option<Formula> {
    match Expression::parse(&text.value) {
        Ok(expression) => Some(Formula { text, expression, names: Vec::new() }),
        Err(error) => {
            let span = problems.source.within(text.span, error.span);
            problems.error_with(span, error.message, error.hint);
            None
        }
    }
}

/// Chunks given per axis must be one an axis, and lengths given one by one must add up.
fn check_chunks(fields: &Fields<'_, '_>, chunks: &Chunks, shape: &[u64], problems: &mut Problems) {
    let (Chunks::PerAxis(axes), Some(node)) = (chunks, fields.node("chunks")) else { return };
    if axes.len() != shape.len() {
        let message = format!("\"chunks\" has {} entries and \"shape\" has {}", axes.len(), shape.len());
        problems.error(node.span, message);
        return;
    }
    for (axis, (chunks, length)) in axes.iter().zip(shape).enumerate() {
        let AxisChunks::Lengths(lengths) = chunks else { continue };
        let total: u128 = lengths.iter().map(|&length| u128::from(length)).sum();
        if total != u128::from(*length) {
            let message = format!("the chunks of axis {axis} add up to {total}, its length is {length}");
            problems.error(node.span, message);
        }
    }
}
