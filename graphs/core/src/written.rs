//! Results as files that last: `core.write`, and [`read`], which has them back.
//!
//! ```text
//! header   magic, version, length and checksum of the table, checksum of the header
//! table    kind and header of the result, length and checksum of each buffer, as MessagePack
//! buffers  one after another
//! ```
//!
//! So what is too large for whoever wants it can be written where it is. A file appears under its name only when it is complete
//! and on the disk. One that is there already is never replaced unless that is asked for; but when it is byte by byte the same,
//! it counts as written, since a task whose note was lost with its worker runs again. Spill files are something else: they are
//! compressed, read by part, and go with their worker.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::access::Directories;
use crate::builtin::FileWritten;
use crate::operator::{Arity, KernelError, OperatorSpec, Registry, TaskContext};
use crate::value::{DecodeError, Encoded, Value};

const MAGIC: [u8; 8] = *b"RaskRslt";
const VERSION: u64 = 1;
const HEADER_NBYTES: usize = 40;
/// Buffers come back aligned as those from the wire do.
const ALIGNMENT: usize = 64;
/// So much is written or compared between two looks at whether anybody still wants it.
const STRIDE: usize = 8 << 20;

/// Arguments of `core.write`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WriteArgs {
    /// Where the file goes. Made when it is missing; the directory that it is in must be there.
    directory: String,
    /// The file's name, without a directory.
    name: String,
    /// Whether a file of that name may be replaced.
    #[serde(default)]
    overwrite: bool,
}

#[derive(Serialize, Deserialize)]
struct Table {
    kind: String,
    header: Bytes,
    buffers: Vec<StoredBuffer>,
}

#[derive(Serialize, Deserialize)]
struct StoredBuffer {
    nbytes: u64,
    checksum: u64,
}

/// Why a file could not be read back as a result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system does not give it.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what `core.write` has written.
    #[error("{path}: not a result, or damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is whole, and no decoder here takes it.
    #[error("{path}: {source}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
}

pub(crate) fn register(registry: &mut Registry) {
    let doc =
        "Write the input into a file, as `rask::graphs::written::read` reads it. The file appears only when it is complete.";
    registry.register(OperatorSpec::new::<WriteArgs>("core.write", 1, Arity::exactly(1), "file", doc), |ctx, args, inputs| {
        let [value] = inputs else { return Err(KernelError(format!("one input expected, got {}", inputs.len()))) };
        Ok(Value::new(write(ctx, args, value)?))
    });
}

fn write(ctx: &TaskContext, args: &WriteArgs, value: &Value) -> Result<FileWritten, KernelError> {
    let given = Path::new(&args.directory).join(&args.name);
    let fail = |error: io::Error| KernelError(format!("{}: {error}", given.display()));
    if Path::new(&args.name).file_name() != Some(OsStr::new(&args.name)) {
        return Err(KernelError(format!("\"{}\" is not a file's name", args.name)));
    }
    let target = ctx.files.target(&given, Directories::Last)?;
    let encoded = value.encode()?;
    let front = front_of(&encoded)?;
    let segments = || std::iter::once(&front).chain(&encoded.buffers);
    let nbytes = segments().map(|segment| segment.len() as u64).sum();
    let written = FileWritten { path: given.display().to_string(), nbytes };
    let refuse_other = |existing: Option<File>| match is_same(ctx, existing, nbytes, segments()).map_err(fail)? {
        Some(true) => Ok(written.clone()),
        Some(false) => Err(KernelError(format!("{}: there is another file of that name", given.display()))),
        None => Err(KernelError("cancelled".to_owned())),
    };
    if !args.overwrite
        && let Some(existing) = target.existing()?
    {
        return refuse_other(existing);
    }
    let mut unfinished = target.begin()?;
    for piece in segments().flat_map(|segment| segment.chunks(STRIDE)) {
        ctx.check_cancelled()?;
        unfinished.file().write_all(piece).map_err(fail)?;
    }
    ctx.check_cancelled()?;
    match unfinished.finish(args.overwrite) {
        Ok(_) => Ok(written),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !args.overwrite => {
            refuse_other(unfinished.target().existing()?.flatten())
        }
        Err(error) => Err(fail(error)),
    }
}

/// Header and table.
fn front_of(encoded: &Encoded) -> Result<Bytes, KernelError> {
    let stored = |buffer: &Bytes| StoredBuffer { nbytes: buffer.len() as u64, checksum: xxh3_64(buffer) };
    let buffers = encoded.buffers.iter().map(stored).collect();
    let table = rmp_serde::to_vec(&Table { kind: encoded.kind.to_owned(), header: encoded.header.clone(), buffers })?;
    let mut front = header_bytes(table.len() as u64, xxh3_64(&table)).to_vec();
    front.extend(table);
    Ok(front.into())
}

fn header_bytes(table_nbytes: u64, table_checksum: u64) -> [u8; HEADER_NBYTES] {
    let mut header = [0; HEADER_NBYTES];
    header[..8].copy_from_slice(&MAGIC);
    for (place, number) in header[8..32].chunks_exact_mut(8).zip([VERSION, table_nbytes, table_checksum]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let checksum = xxh3_64(&header[..32]);
    header[32..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Whether the file consists of these segments; `None` when nobody wants to know any more.
fn is_same<'a>(
    ctx: &TaskContext,
    file: Option<File>,
    nbytes: u64,
    segments: impl Iterator<Item = &'a Bytes>,
) -> io::Result<Option<bool>> {
    let Some(mut file) = file else { return Ok(Some(false)) };
    if file.metadata()?.len() != nbytes {
        return Ok(Some(false));
    }
    let mut found = Vec::new();
    for piece in segments.flat_map(|segment| segment.chunks(STRIDE)) {
        if ctx.check_cancelled().is_err() {
            return Ok(None);
        }
        found.clear();
        (&mut file).take(piece.len() as u64).read_to_end(&mut found)?;
        if found != *piece {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

/// The result in a file that `core.write` has written. Everything is checked before it is used.
///
/// # Errors
/// When the file cannot be read, is not such a file or no longer what was written, or when `registry` does not know the kind.
pub fn read(path: &Path, registry: &Registry) -> Result<Value, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let damaged = |reason: String| ReadError::Damaged { path: path.to_owned(), reason };
    let too_short = || damaged("it is too short".to_owned());
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length < HEADER_NBYTES as u64 {
        return Err(too_short());
    }
    let mut header = [0; HEADER_NBYTES];
    file.read_exact(&mut header).map_err(failed)?;
    let number = |at: usize| header[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (table_nbytes, table_checksum) = (number(16), number(24));
    if header != header_bytes(table_nbytes, table_checksum) {
        return Err(damaged("its header is wrong, or of another version".to_owned()));
    }
    let mut left = length - HEADER_NBYTES as u64;
    // Nothing is allocated that the file does not have.
    let mut take = |nbytes: u64, checksum: u64| {
        left = left.checked_sub(nbytes).ok_or_else(too_short)?;
        let bytes = read_aligned(&mut file, nbytes).map_err(failed)?;
        if xxh3_64(&bytes) != checksum { Err(damaged("a checksum is wrong".to_owned())) } else { Ok(bytes) }
    };
    let table = take(table_nbytes, table_checksum)?;
    let table: Table = rmp_serde::from_slice(&table).map_err(|error| damaged(error.to_string()))?;
    let buffers = table.buffers.iter().map(|stored| take(stored.nbytes, stored.checksum));
    let buffers = buffers.collect::<Result<Vec<Bytes>, ReadError>>()?;
    if left > 0 {
        return Err(damaged(format!("it is {left} bytes too long")));
    }
    registry.decode(&table.kind, &table.header, buffers).map_err(|source| ReadError::Decode { path: path.to_owned(), source })
}

fn read_aligned(file: &mut File, nbytes: u64) -> io::Result<Bytes> {
    let capacity = usize::try_from(nbytes).unwrap_or(usize::MAX).saturating_add(2 * ALIGNMENT);
    let mut buffer: Vec<u8> = Vec::with_capacity(capacity);
    let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    buffer.resize(start, 0);
    // With more room than is needed, reading to the end never moves it.
    file.take(nbytes).read_to_end(&mut buffer)?;
    Ok(Bytes::from(buffer).slice(start..))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::access::FileAccess;
    use crate::builtin::{Opaque, Parts};

    fn opaque(bytes: &[u8]) -> Value {
        Value::new(Opaque(Bytes::copy_from_slice(bytes)))
    }

    fn run(ctx: &TaskContext, args: serde_json::Value, value: &Value) -> Result<FileWritten, String> {
        let kernel = Registry::new().prepare("core.write", 1, &args.to_string()).map_err(|error| error.to_string())?;
        let note = kernel.run(ctx, std::slice::from_ref(value)).map_err(|error| error.0)?;
        Ok(note.downcast::<FileWritten>().unwrap().clone())
    }

    fn args(directory: &Path, name: &str) -> serde_json::Value {
        serde_json::json!({ "directory": directory, "name": name })
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("new");
        let large: Vec<u8> = (0..STRIDE + 77).map(|at| (at % 251) as u8).collect();
        let parts = Value::new(Parts(vec![opaque(b"first"), opaque(b""), opaque(&large)]));
        for (name, value) in [("none", opaque(b"")), ("large", opaque(&large)), ("parts", parts)] {
            let written = run(&TaskContext::detached("x"), args(&directory, name), &value).unwrap();
            assert_eq!(Path::new(&written.path), directory.join(name));
            assert_eq!(written.nbytes, fs::metadata(&written.path).unwrap().len());
            let back = read(Path::new(&written.path), &Registry::new()).unwrap();
            let (back, value) = (back.encode().unwrap(), value.encode().unwrap());
            assert_eq!((back.kind, back.header, &back.buffers), (value.kind, value.header, &value.buffers));
            assert!(back.buffers.iter().all(|buffer| buffer.is_empty() || buffer.as_ptr().addr() % ALIGNMENT == 0));
        }
        assert_eq!(names_in(&directory).len(), 3, "{:?}", names_in(&directory));
    }

    #[test]
    fn another_file_stays_unless_it_may_be_replaced() {
        let place = tempfile::tempdir().unwrap();
        let ctx = TaskContext::detached("x");
        let written = run(&ctx, args(place.path(), "it"), &opaque(b"first")).unwrap();
        let path = PathBuf::from(&written.path);
        assert_eq!(run(&ctx, args(place.path(), "it"), &opaque(b"first")), Ok(written), "the same again is no other file");
        for other in [opaque(b"other"), opaque(b"longer than the first")] {
            let refused = run(&ctx, args(place.path(), "it"), &other).unwrap_err();
            assert!(refused.contains("another file"), "{refused}");
            let kept = read(&path, &Registry::new()).unwrap();
            assert_eq!(kept.downcast::<Opaque>().unwrap().0, "first");
        }
        let mut args = args(place.path(), "it");
        args["overwrite"] = true.into();
        run(&ctx, args, &opaque(b"other")).unwrap();
        let replaced = read(&path, &Registry::new()).unwrap();
        assert_eq!(replaced.downcast::<Opaque>().unwrap().0, "other");
        assert_eq!(names_in(place.path()), ["it"]);
    }

    /// As when another has written it after this has looked.
    #[test]
    fn a_file_that_comes_meanwhile_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("it");
        let mut unfinished = FileAccess::everything().target(&path, Directories::There).unwrap().begin().unwrap();
        fs::write(&path, "other").unwrap();
        assert_eq!(unfinished.finish(false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(unfinished);
        assert_eq!((names_in(place.path()), fs::read_to_string(&path).unwrap()), (vec!["it".to_owned()], "other".to_owned()));
    }

    #[test]
    fn every_byte_counts_and_so_does_every_length() {
        let place = tempfile::tempdir().unwrap();
        let value = Value::new(Parts(vec![opaque(b"first"), opaque(b"second")]));
        let written = run(&TaskContext::detached("x"), args(place.path(), "it"), &value).unwrap();
        let good = fs::read(&written.path).unwrap();
        let path = Path::new(&written.path);
        let refuses = |bytes: &[u8]| {
            fs::write(path, bytes).unwrap();
            matches!(read(path, &Registry::new()), Err(ReadError::Damaged { .. }))
        };
        assert!(!refuses(&good));
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x10;
            assert!(refuses(&flipped), "byte {at} of {} flipped", good.len());
            assert!(refuses(&good[..at]), "cut at {at} of {}", good.len());
        }
        assert!(refuses(&[good.as_slice(), b"x"].concat()), "a byte more");
    }

    #[test]
    fn a_cancelled_run_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let ctx = TaskContext::detached("x");
        ctx.cancelled.store(true, Ordering::Relaxed);
        let refused = run(&ctx, args(place.path(), "it"), &opaque(b"first")).unwrap_err();
        assert_eq!((refused.as_str(), names_in(place.path())), ("cancelled", Vec::new()));
    }

    #[test]
    fn what_lies_outside_the_data_roots_is_not_touched() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("old"), "old").unwrap();
        std::os::unix::fs::symlink(outside.join("old"), inside.join("link")).unwrap();
        let files = FileAccess::beneath(std::slice::from_ref(&inside), &[]).unwrap();
        let ctx = TaskContext { files, ..TaskContext::detached("x") };
        run(&ctx, args(&inside, "it"), &opaque(b"first")).unwrap();
        run(&ctx, args(&inside.join("new"), "it"), &opaque(b"first")).unwrap();
        for (directory, name) in [(&outside, "it"), (&place.path().join("new"), "it"), (&inside, "link")] {
            let mut args = args(directory, name);
            args["overwrite"] = true.into();
            let refused = run(&ctx, args, &opaque(b"first")).unwrap_err();
            assert!(refused.contains("outside this worker's data roots"), "{refused}");
        }
        for name in ["../it", "a/it", "..", "", "it/", "/it"] {
            let refused = run(&ctx, args(&inside, name), &opaque(b"first")).unwrap_err();
            assert!(refused.contains("is not a file's name"), "{name}: {refused}");
        }
        assert_eq!(
            (names_in(&outside), fs::read_to_string(outside.join("old")).unwrap()),
            (vec!["old".to_owned()], "old".into())
        );
        assert_eq!(names_in(place.path()).len(), 2, "{:?}", names_in(place.path()));
    }
}
