//! Footers of Parquet files, each parsed once: many tasks read row groups of one file, and its footer describes them all.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Type as PhysicalType;

use crate::error::FrameError;

/// Bytes of footers kept, and their number: enough for the files that the tasks of a moment read.
const MAX_KEPT_NBYTES: usize = 64 << 20;
const MAX_KEPT: usize = 256;

/// What a file is as long as nobody writes to it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    nbytes: u64,
    modified: (i64, i64),
}

struct Kept {
    identity: Identity,
    footer: ArrowReaderMetadata,
    nbytes: usize,
}

/// The one used last comes last.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// The footer of `file`, which was opened as `path`.
pub(crate) fn footer(file: &File, path: &Path) -> Result<ArrowReaderMetadata, FrameError> {
    let identity = identity(file).map_err(|error| FrameError::io(path, &error))?;
    {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|kept| kept.identity == identity) {
            let found = kept.remove(at);
            let footer = found.footer.clone();
            kept.push(found);
            return Ok(footer);
        }
    }
    let footer = read(file).map_err(|error| FrameError::data(path, error))?;
    keep(Kept { identity, nbytes: footer.metadata().memory_size(), footer: footer.clone() });
    Ok(footer)
}

fn keep(new: Kept) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if new.nbytes > MAX_KEPT_NBYTES || kept.iter().any(|kept| kept.identity == new.identity) {
        return;
    }
    kept.push(new);
    let mut nbytes: usize = kept.iter().map(|kept| kept.nbytes).sum();
    let mut n_dropped = 0;
    while nbytes > MAX_KEPT_NBYTES || kept.len() - n_dropped > MAX_KEPT {
        nbytes -= kept[n_dropped].nbytes;
        n_dropped += 1;
    }
    kept.drain(..n_dropped);
}

fn identity(file: &File) -> std::io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        nbytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn read(file: &File) -> parquet::errors::Result<ArrowReaderMetadata> {
    let plain = ArrowReaderMetadata::load(file, ArrowReaderOptions::default())?;
    match without_short_times(&plain) {
        None => Ok(plain),
        Some(schema) => {
            let options = ArrowReaderOptions::default().with_schema(Arc::new(schema));
            ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options)
        }
    }
}

/// The columns with microseconds for the old 96-bit times, if there are any: these reach every day, and the nanoseconds that
/// they would be read as otherwise end in 2262 and begin again in 1677.
fn without_short_times(footer: &ArrowReaderMetadata) -> Option<Schema> {
    let descriptor = footer.metadata().file_metadata().schema_descr();
    let is_short = |root: usize| {
        (0..descriptor.num_columns()).any(|leaf| {
            descriptor.get_column_root_idx(leaf) == root && descriptor.column(leaf).physical_type() == PhysicalType::INT96
        })
    };
    let has_any = descriptor.columns().iter().any(|column| column.physical_type() == PhysicalType::INT96);
    if !has_any {
        return None;
    }
    let fields = footer.schema().fields().iter().enumerate().map(|(root, field)| {
        let DataType::Timestamp(TimeUnit::Nanosecond, zone) = field.data_type() else { return field.as_ref().clone() };
        if !is_short(root) {
            return field.as_ref().clone();
        }
        Field::new(field.name(), DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), field.is_nullable())
    });
    Some(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    fn write(path: &Path, values: Vec<i64>) {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn a_footer_is_parsed_once_and_again_when_the_file_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, vec![1, 2, 3]);
        let footer_of = || footer(&File::open(&path).unwrap(), &path).unwrap();
        let first = footer_of();
        assert!(Arc::ptr_eq(first.metadata(), footer_of().metadata()), "the same footer");
        std::fs::remove_file(&path).unwrap();
        write(&path, vec![1; 50]);
        assert_eq!(footer_of().metadata().file_metadata().num_rows(), 50);
    }
}
