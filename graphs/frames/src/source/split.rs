//! Cutting files into partitions: text by byte ranges, Parquet by row groups, Arrow files whole.
//!
//! Slices say where to look, not where lines end; the scan aligns itself (see [`super::lines`]).

use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use rask_graphs::FileAccess;

use super::open;
use super::options::{Format, ReadOptions};
use crate::error::FrameError;

/// The part of a file that one scan task reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The file.
    pub(crate) path: PathBuf,
    /// Text: read the lines that begin in this range of bytes; `None` for all.
    pub(crate) range: Option<(u64, u64)>,
    /// Parquet: read these row groups; `None` for all.
    pub(crate) row_groups: Option<Vec<usize>>,
}

/// Cut `path` and append its slices: one at least, so that an empty file still has its columns.
pub(super) fn slices(
    files: &FileAccess,
    format: Format,
    path: &Path,
    options: &ReadOptions,
    out: &mut Vec<Slice>,
) -> Result<(), FrameError> {
    let whole = Slice { path: path.to_owned(), range: None, row_groups: None };
    match format {
        Format::Csv if options.quoted_newlines => out.push(whole),
        Format::Csv | Format::Json => {
            let nbytes = open(files, path)?.metadata().map_err(|error| FrameError::io(path, &error))?.len();
            if nbytes <= options.partition_nbytes || (format == Format::Json && starts_with_bracket(files, path)?) {
                out.push(whole);
                return Ok(());
            }
            // Equal ranges rather than full ones and a rest: the last task should not be the small one.
            let n_slices = nbytes.div_ceil(options.partition_nbytes);
            let boundary =
                |idx: u64| u64::try_from(u128::from(nbytes) * u128::from(idx) / u128::from(n_slices)).unwrap_or(nbytes);
            out.extend((0..n_slices).map(|idx| Slice { range: Some((boundary(idx), boundary(idx + 1))), ..whole.clone() }));
        }
        Format::Parquet => row_group_slices(files, whole, options.partition_nbytes, out)?,
        Format::Arrow => out.push(whole),
    }
    Ok(())
}

/// Whether a JSON file is one array instead of lines; it can only be read as a whole.
pub(crate) fn starts_with_bracket(files: &FileAccess, path: &Path) -> Result<bool, FrameError> {
    use std::io::Read;
    let mut file = open(files, path)?;
    let mut head = [0; 256];
    let n_read = file.read(&mut head).map_err(|error| FrameError::io(path, &error))?;
    Ok(head[..n_read].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
}

/// Runs of row groups of about `partition_nbytes` each, measured uncompressed: that is what the task will hold.
fn row_group_slices(files: &FileAccess, whole: Slice, partition_nbytes: u64, out: &mut Vec<Slice>) -> Result<(), FrameError> {
    let metadata = parquet_metadata(files, &whole.path)?;
    let mut run: Vec<usize> = Vec::new();
    let mut run_nbytes = 0_u64;
    let n_before = out.len();
    for (idx, row_group) in metadata.metadata().row_groups().iter().enumerate() {
        let nbytes = u64::try_from(row_group.total_byte_size()).unwrap_or(0);
        if !run.is_empty() && run_nbytes.saturating_add(nbytes) > partition_nbytes {
            out.push(Slice { row_groups: Some(std::mem::take(&mut run)), ..whole.clone() });
            run_nbytes = 0;
        }
        run.push(idx);
        run_nbytes = run_nbytes.saturating_add(nbytes);
    }
    if out.len() == n_before {
        out.push(whole);
    } else if !run.is_empty() {
        out.push(Slice { row_groups: Some(run), ..whole });
    }
    Ok(())
}

/// The footer of a Parquet file.
pub(crate) fn parquet_metadata(files: &FileAccess, path: &Path) -> Result<ArrowReaderMetadata, FrameError> {
    let file = open(files, path)?;
    ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|error| FrameError::data(path, error))
}
