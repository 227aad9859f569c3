//! Cutting files into partitions: text where records begin, Parquet by row groups, Arrow files whole.

use std::path::{Path, PathBuf};

use rask_graphs::FileAccess;

use super::footers;
use super::infer::Seen;
use super::open;
use super::options::{Format, ReadOptions};
use crate::error::FrameError;
use crate::text::records::Records;
use crate::text::{cuts, input};

/// The part of a file that one scan task reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The file.
    pub(crate) path: PathBuf,
    /// Text: read the records that begin in this range of bytes; `None` for all.
    pub(crate) range: Option<(u64, u64)>,
    /// Parquet: read these row groups; `None` for all.
    pub(crate) row_groups: Option<Vec<usize>>,
}

/// Cut `path`, of which `seen` is known, and append its slices: one at least.
pub(super) fn slices(
    files: &FileAccess,
    format: Format,
    path: &Path,
    seen: &Seen,
    options: &ReadOptions,
    out: &mut Vec<Slice>,
) -> Result<(), FrameError> {
    let whole = Slice { path: path.to_owned(), range: None, row_groups: None };
    match format {
        Format::Csv | Format::Json if input::is_packed(path) || !seen.has_lines => out.push(whole),
        Format::Csv | Format::Json => {
            let io = |error: std::io::Error| FrameError::io(path, &error);
            let nbytes = open(files, path)?.metadata().map_err(io)?.len();
            let wanted = boundaries(nbytes, options.partition_nbytes);
            let mut cuts = match format {
                Format::Csv if !wanted.is_empty() => csv_cuts(files, path, &wanted, seen, options)?,
                Format::Csv | Format::Json | Format::Parquet | Format::Arrow => wanted,
            };
            cuts.push(nbytes);
            cuts.dedup();
            if cuts.len() == 1 {
                out.push(whole);
                return Ok(());
            }
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            out.extend(starts.zip(&cuts).map(|(start, &end)| Slice { range: Some((start, end)), ..whole.clone() }));
        }
        Format::Parquet => row_group_slices(files, whole, options.partition_nbytes, out)?,
        Format::Arrow => out.push(whole),
    }
    Ok(())
}

/// Where to cut `nbytes` bytes. Equal ranges rather than full ones and a rest: the last task should not be the small one.
fn boundaries(nbytes: u64, partition_nbytes: u64) -> Vec<u64> {
    let n_slices = nbytes.div_ceil(partition_nbytes);
    let boundary = |idx: u64| u64::try_from(u128::from(nbytes) * u128::from(idx) / u128::from(n_slices)).unwrap_or(nbytes);
    (1..n_slices).map(boundary).collect()
}

/// Where records begin at or after `wanted`: known for a file that was looked through, likely for a longer one.
fn csv_cuts(files: &FileAccess, path: &Path, wanted: &[u64], seen: &Seen, options: &ReadOptions) -> Result<Vec<u64>, FrameError> {
    let io = |error: std::io::Error| FrameError::io(path, &error);
    if seen.is_whole {
        let (text, offset) = input::open(open(files, path)?, path).map_err(io)?;
        let mut records = Records::new(text, options.dialect(), offset, 1);
        return cuts::exact(&mut records, wanted).map_err(|error| FrameError::record(path, error));
    }
    let mut file = open(files, path)?;
    let mut likely = Vec::with_capacity(wanted.len());
    for &position in wanted {
        let previous = likely.last().copied().unwrap_or(0);
        // A record that goes on beyond the next place to cut leaves nothing to cut there.
        let cut = if previous >= position {
            previous
        } else {
            cuts::likely(&mut file, position, options.dialect(), seen.n_fields).map_err(io)?
        };
        likely.push(cut);
    }
    Ok(likely)
}

/// Runs of row groups of about `partition_nbytes` each, measured uncompressed: that is what the task will hold.
fn row_group_slices(files: &FileAccess, whole: Slice, partition_nbytes: u64, out: &mut Vec<Slice>) -> Result<(), FrameError> {
    let footer = footers::footer(&open(files, &whole.path)?, &whole.path)?;
    let mut run: Vec<usize> = Vec::new();
    let mut run_nbytes = 0_u64;
    let n_before = out.len();
    for (idx, row_group) in footer.metadata().row_groups().iter().enumerate() {
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
