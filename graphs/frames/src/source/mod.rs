//! Files as sources of frames: which files, of what format and schema, cut into which partitions.
//!
//! All of this happens while the frame is described, where the person is who can correct it: a pattern without files, a
//! file that cannot be opened, headers that differ. Reading rows is the work of the `frame.scan` operator.

pub(crate) mod footers;
pub(crate) mod infer;
pub(crate) mod options;
mod paths;
pub(crate) mod split;

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use rask_graphs::FileAccess;

use crate::error::FrameError;
pub use options::{Format, ReadOptions};
pub(crate) use split::Slice;

/// Files of one format and schema, cut into partitions.
#[derive(Debug)]
pub(crate) struct FileSource {
    pub(crate) format: Format,
    pub(crate) options: ReadOptions,
    pub(crate) schema: SchemaRef,
    pub(crate) slices: Vec<Slice>,
}

impl FileSource {
    /// Find the files, look at their beginnings (or footers), and cut them.
    pub(crate) fn open(format: Option<Format>, patterns: &[PathBuf], options: ReadOptions) -> Result<Self, FrameError> {
        options.check().map_err(FrameError::Plan)?;
        // The person whose process this is describes the frame.
        let files = FileAccess::everything();
        let paths = paths::expand(patterns)?;
        let format = match format {
            Some(format) => format,
            None => paths::format_of(&paths)?,
        };
        paths::check_format(format, &paths)?;
        let (schema, seen) = infer::schema(&files, format, &paths, &options)?;
        let mut slices = Vec::new();
        for (path, seen) in paths.iter().zip(&seen).filter(|(_, seen)| seen.has_columns) {
            split::slices(&files, format, path, seen, &options, &mut slices)?;
        }
        Ok(Self { format, options, schema, slices })
    }
}

/// Open a file for reading, as far as `files` gives it.
pub(crate) fn open(files: &FileAccess, path: &Path) -> Result<File, FrameError> {
    files.open(path).map_err(|error| FrameError::access(&error))
}
