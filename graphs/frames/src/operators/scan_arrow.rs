//! Reading Arrow IPC: files (which begin with `ARROW1`) and streams alike.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use rask_graphs::KernelError;

use super::scan::{Request, Sink};

/// A reader of either form.
pub(crate) enum ArrowReader {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

/// Look at the beginning of `file` and open the fitting reader.
pub(crate) fn open(mut file: File) -> Result<ArrowReader, ArrowError> {
    let mut magic = [0; 6];
    let n_read = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::new(file);
    if n_read == magic.len() && &magic == b"ARROW1" {
        Ok(ArrowReader::File(FileReader::try_new(reader, None)?))
    } else {
        Ok(ArrowReader::Stream(StreamReader::try_new(reader, None)?))
    }
}

impl ArrowReader {
    /// The columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::File(reader) => reader.schema(),
            Self::Stream(reader) => reader.schema(),
        }
    }
}

impl Iterator for ArrowReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        }
    }
}

/// Read the file.
pub(super) fn arrow(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    for batch in open(request.open()?).map_err(|error| request.fail(error))? {
        if !sink.push(&batch.map_err(|error| request.fail(error))?)? {
            break;
        }
    }
    Ok(())
}
