//! Files as sources of frames: which files, of what format and schema, cut into which partitions.
//!
//! All of this happens while the frame is described, where the person is who can correct it: a pattern without files, a
//! file that cannot be opened, headers that differ. Reading rows is the work of the `frame.scan` operator.

pub(crate) mod infer;
pub(crate) mod lines;
pub(crate) mod options;
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
        let paths = expand(patterns)?;
        let format = match format {
            Some(format) => format,
            None => format_of(&paths)?,
        };
        // The person whose process this is describes the frame.
        let files = FileAccess::everything();
        let schema = infer::schema(&files, format, &paths, &options)?;
        let mut slices = Vec::new();
        for path in &paths {
            split::slices(&files, format, path, &options, &mut slices)?;
        }
        Ok(Self { format, options, schema, slices })
    }
}

/// Open a file for reading, as far as `files` gives it.
pub(crate) fn open(files: &FileAccess, path: &Path) -> Result<File, FrameError> {
    files.open(path).map_err(|error| FrameError::access(&error))
}

/// The files that match, each once: patterns in the order given, the matches of one pattern by name. A directory stands
/// for the files in it.
fn expand(patterns: &[PathBuf]) -> Result<Vec<PathBuf>, FrameError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let found = if pattern.is_file() { vec![pattern.clone()] } else { matches(pattern)? };
        if found.is_empty() {
            // A plain path that is not there has an error of its own to show; a pattern just matched nothing.
            let reason = if is_pattern(pattern) { "no file matches" } else { "no such file" };
            return Err(FrameError::Io { path: pattern.clone(), reason: reason.to_owned() });
        }
        for path in found {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    if paths.is_empty() {
        return Err(FrameError::Plan("no path given".to_owned()));
    }
    Ok(paths)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

fn matches(pattern: &Path) -> Result<Vec<PathBuf>, FrameError> {
    let text = if pattern.is_dir() { pattern.join("*") } else { pattern.to_owned() };
    let text = text.to_str().ok_or_else(|| FrameError::Plan(format!("{}: not UTF-8", pattern.display())))?;
    let entries = glob::glob(text).map_err(|error| FrameError::Plan(format!("{text}: {}", error.msg)))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| FrameError::io(error.path(), error.error()))?;
        // Names with a leading dot are files somebody is still writing, or none of our business.
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !is_hidden {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn format_of(paths: &[PathBuf]) -> Result<Format, FrameError> {
    let mut common = None;
    for path in paths {
        let format = Format::of_path(path).ok_or_else(|| {
            FrameError::Plan(format!("{}: format unknown from the name; say csv, parquet, json or arrow", path.display()))
        })?;
        match common {
            None => common = Some(format),
            Some(other) if other == format => {}
            Some(other) => {
                return Err(FrameError::Plan(format!("{}: {format} among {other} files", path.display())));
            }
        }
    }
    common.ok_or_else(|| FrameError::Plan("no path given".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_sorted_and_each_file_comes_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", ".hidden.csv", "c.txt"] {
            std::fs::write(dir.path().join(name), "x\n1\n").unwrap();
        }
        let found = expand(&[dir.path().join("*.csv"), dir.path().join("a.csv")]).unwrap();
        assert_eq!(found, [dir.path().join("a.csv"), dir.path().join("b.csv")]);
    }

    #[test]
    fn what_matches_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, reason) in [("*.csv", "no file matches"), ("gone.csv", "no such file")] {
            let path = dir.path().join(name);
            let error = expand(std::slice::from_ref(&path)).unwrap_err();
            assert_eq!(error, FrameError::Io { path, reason: reason.to_owned() });
        }
    }

    #[test]
    fn formats_do_not_mix() {
        let error = format_of(&["a.csv".into(), "b.parquet".into()]).unwrap_err();
        assert_eq!(error.to_string(), "b.parquet: parquet among csv files");
        assert!(format_of(&["a.xyz".into()]).is_err());
    }
}
