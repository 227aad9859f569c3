//! Reading Arrow IPC: files (which begin with `ARROW1`) and streams alike.

use rask_graphs::KernelError;

use super::scan::{Request, Sink};
use crate::ipc::FileReader;

/// Read the file.
pub(super) fn arrow(request: &Request<'_>, sink: &mut Sink<'_>) -> Result<(), KernelError> {
    for batch in FileReader::open(request.open()?).map_err(|error| request.fail(error))? {
        if !sink.push(&batch.map_err(|error| request.fail(error))?)? {
            break;
        }
    }
    Ok(())
}
