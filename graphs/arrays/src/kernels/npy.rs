//! NumPy's file format, versions 1 to 3: reading pieces where they lie, and writing files that appear only when complete.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rask_graphs::access::Directories;
use rask_graphs::builtin::FileWritten;
use rask_graphs::{FileAccess, KernelError, TaskContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::chunking::{MAX_AXES, UNKNOWN, axis_size, check_size, offsets, shape_text, unravel};
use crate::dtype::DType;
use crate::kernels::layout::{n_of_grid, place_at};

/// Arguments of `array.load`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadArgs {
    /// An npy file, where the worker can read it.
    pub path: String,
    /// First index along each axis; the whole array unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Vec<usize>>,
    /// Index before which to stop along each axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<Vec<usize>>,
}

/// Arguments of `array.write`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteArgs {
    /// The npy file to make, replacing one that is there.
    pub path: String,
    /// How many chunks lie along each axis; the inputs are the chunks in C order. One chunk unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Vec<usize>>,
}

/// What an npy file's header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NpyHeader {
    pub(crate) dtype: DType,
    /// In the order in which the elements lie: reversed for Fortran order.
    pub(crate) shape: Vec<usize>,
    pub(crate) is_fortran: bool,
    data_offset: u64,
}

/// Open an npy file and read its header; the file must be as long as the header says.
pub(crate) fn open(files: &FileAccess, path: &Path) -> Result<(File, NpyHeader), String> {
    let mut file = files.open(path).map_err(|error| error.why.to_string())?;
    let header = read_header(&mut file)?;
    // The header's size has been checked, so that this can be counted.
    let n: usize = header.shape.iter().product();
    let want = header.data_offset + (n * header.dtype.size()) as u64;
    let have = file.metadata().map_err(|error| error.to_string())?.len();
    if have < want {
        return Err(format!("the file is cut short: {want} bytes expected, {have} there"));
    }
    Ok((file, header))
}

fn read_header(file: &mut impl Read) -> Result<NpyHeader, String> {
    let mut magic = [0u8; 8];
    file.read_exact(&mut magic).map_err(|_| "not an npy file: too short".to_owned())?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err("not an npy file: it begins with something else".to_owned());
    }
    let (length, prefix) = match magic[6] {
        1 => {
            let mut length = [0u8; 2];
            file.read_exact(&mut length).map_err(|_| "not an npy file: too short".to_owned())?;
            (u32::from(u16::from_le_bytes(length)), 10)
        }
        2 | 3 => {
            let mut length = [0u8; 4];
            file.read_exact(&mut length).map_err(|_| "not an npy file: too short".to_owned())?;
            (u32::from_le_bytes(length), 12)
        }
        version => return Err(format!("an npy file of version {version}; versions 1 to 3 can be read")),
    };
    if length > 1 << 20 {
        return Err(format!("not an npy file: a header of {length} bytes"));
    }
    let mut text = vec![0u8; length as usize];
    file.read_exact(&mut text).map_err(|_| "not an npy file: its header is cut short".to_owned())?;
    let text = String::from_utf8_lossy(&text);
    parse_header(&text, prefix + u64::from(length))
}

/// What the dictionary of a header can hold.
#[derive(PartialEq, Debug)]
enum Literal {
    Text(String),
    Truth(bool),
    Sizes(Vec<usize>),
}

/// Reads the dictionary that a header is, as Python writes it, and nothing else: what is damaged must not pass for sound.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn accept(&mut self, symbol: &str) -> bool {
        self.skip_spaces();
        let found = self.rest.strip_prefix(symbol);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.accept(symbol) { Ok(()) } else { Err(format!("npy header: \"{symbol}\" expected before {}", self.shown())) }
    }

    fn shown(&self) -> String {
        let rest: String = self.rest.chars().take(20).collect();
        format!("{rest:?}")
    }

    fn text(&mut self) -> Result<String, String> {
        self.skip_spaces();
        let delimiter = self.rest.chars().next().filter(|first| matches!(first, '\'' | '"'));
        let delimiter = delimiter.ok_or_else(|| format!("npy header: a string expected before {}", self.shown()))?;
        let inside = &self.rest[1..];
        let end = inside.find(delimiter).ok_or("npy header: a string is never closed")?;
        self.rest = &inside[end + 1..];
        Ok(inside[..end].to_owned())
    }

    /// A size, perhaps with the `L` of Python 2.
    fn size(&mut self) -> Result<usize, String> {
        self.skip_spaces();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let size = digits.parse::<usize>().ok().filter(|&size| size != UNKNOWN);
        let size = size.ok_or_else(|| format!("npy header: a size expected before {}", self.shown()))?;
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        Ok(size)
    }

    fn literal(&mut self) -> Result<Literal, String> {
        if self.accept("True") {
            return Ok(Literal::Truth(true));
        }
        if self.accept("False") {
            return Ok(Literal::Truth(false));
        }
        if !self.accept("(") {
            if self.accept("[") {
                return Err("structured npy files cannot be read".to_owned());
            }
            return self.text().map(Literal::Text);
        }
        let mut sizes = Vec::new();
        while !self.accept(")") {
            if sizes.len() == MAX_AXES {
                return Err(format!("an npy file of more than {MAX_AXES} axes"));
            }
            sizes.push(self.size()?);
            if !self.accept(",") {
                self.expect(")")?;
                if sizes.len() == 1 {
                    return Err("npy header: the shape is a number, not a tuple".to_owned());
                }
                break;
            }
        }
        Ok(Literal::Sizes(sizes))
    }
}

fn parse_header(text: &str, data_offset: u64) -> Result<NpyHeader, String> {
    let (mut descr, mut order, mut shape) = (None, None, None);
    let mut reader = Reader { rest: text.trim_end_matches(['\n', ' ', '\0']) };
    reader.expect("{")?;
    while !reader.accept("}") {
        let key = reader.text()?;
        reader.expect(":")?;
        let value = reader.literal()?;
        let is_new = match (key.as_str(), value) {
            ("descr", Literal::Text(code)) => descr.replace(code).is_none(),
            ("fortran_order", Literal::Truth(is_fortran)) => order.replace(is_fortran).is_none(),
            ("shape", Literal::Sizes(sizes)) => shape.replace(sizes).is_none(),
            (key, Literal::Text(_) | Literal::Truth(_) | Literal::Sizes(_)) => {
                return Err(format!("npy header: {key:?} has a value that makes no sense"));
            }
        };
        if !is_new {
            return Err(format!("npy header: {key:?} is there twice"));
        }
        if !reader.accept(",") {
            reader.expect("}")?;
            break;
        }
    }
    if !reader.rest.trim().is_empty() {
        return Err(format!("npy header: something follows it, {}", reader.shown()));
    }
    let missing = |key: &str| format!("npy header without {key}");
    let code = descr.ok_or_else(|| missing("descr"))?;
    let is_fortran = order.ok_or_else(|| missing("fortran_order"))?;
    let mut shape: Vec<usize> = shape.ok_or_else(|| missing("shape"))?;
    let normal = code.replace('=', "<");
    let one_byte = format!("|{}", normal.trim_start_matches(['<', '>', '|']));
    let dtype = DType::ALL
        .into_iter()
        .find(|dtype| dtype.npy_code() == normal || (dtype.size() == 1 && dtype.npy_code() == one_byte))
        .ok_or_else(|| format!("elements of type {code:?} cannot be read"))?;
    check_size(&shape, dtype).map_err(|error| error.to_string())?;
    if is_fortran {
        shape.reverse();
    }
    Ok(NpyHeader { dtype, shape, is_fortran, data_offset })
}

/// Read a box of the array as it lies in the file (for Fortran order that is the transpose).
pub(crate) fn load(ctx: &TaskContext, args: &LoadArgs) -> Result<Chunk, KernelError> {
    let fail = |reason: String| KernelError(format!("{}: {reason}", args.path));
    let (file, header) = open(&ctx.files, Path::new(&args.path)).map_err(fail)?;
    let n_axes = header.shape.len();
    let starts = args.starts.clone().unwrap_or_else(|| vec![0; n_axes]);
    let stops = args.stops.clone().unwrap_or_else(|| header.shape.clone());
    let inside = starts.len() == n_axes
        && stops.len() == n_axes
        && (0..n_axes).all(|axis| starts[axis] <= stops[axis] && stops[axis] <= header.shape[axis]);
    if !inside {
        return Err(fail(format!("{starts:?} to {stops:?} does not lie inside shape {}", shape_text(&header.shape))));
    }
    let shape: Vec<usize> = (0..n_axes).map(|axis| stops[axis] - starts[axis]).collect();
    let size = header.dtype.size();
    let nbytes = shape.iter().fold(size, |product, &size| product.saturating_mul(size));
    ctx.check_memory(nbytes as u64)?;
    let mut buffer = Buffer::zeroed(nbytes);
    if buffer.bytes().is_empty() {
        return Ok(Chunk::from_buffer(header.dtype, shape, buffer));
    }
    // Trailing axes that are read whole make one run with the axis before them.
    let mut split = n_axes;
    let mut run = size;
    while split > 0 {
        split -= 1;
        run *= shape[split];
        if shape[split] != header.shape[split] {
            break;
        }
    }
    for (number, place) in buffer.bytes_mut().chunks_exact_mut(run).enumerate() {
        let position = unravel(number, &shape[..split]);
        let at =
            (0..n_axes).fold(0, |at, axis| at * header.shape[axis] + starts[axis] + position.get(axis).copied().unwrap_or(0));
        file.read_exact_at(place, header.data_offset + (at * size) as u64).map_err(|error| fail(error.to_string()))?;
    }
    let chunk = Chunk::from_buffer(header.dtype, shape.clone(), buffer);
    Chunk::from_bytes(header.dtype, shape, chunk.bytes().clone()).map_err(fail)
}

/// The header of version 1, padded so that the data begins on a 64-byte boundary.
fn header_of(dtype: DType, shape: &[usize]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", dtype.npy_code(), shape_text(shape));
    let padding = 64 - (10 + text.len() + 1) % 64;
    text.push_str(&" ".repeat(padding % 64));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(text.into_bytes());
    bytes
}

/// Write a grid of chunks as one npy file: into a temporary file beside it, which is renamed when it is complete and
/// removed when something goes wrong.
pub(crate) fn write(ctx: &TaskContext, args: &WriteArgs, chunks: &[&Chunk]) -> Result<FileWritten, KernelError> {
    let fail = |error: std::io::Error| KernelError(format!("{}: {error}", args.path));
    let Some(first) = chunks.first() else { return Err(KernelError("nothing to write".to_owned())) };
    let counts = args.counts.clone().unwrap_or_else(|| vec![1; first.shape().len()]);
    let sizes = grid_sizes(&counts, chunks)?;
    let shape: Vec<usize> = sizes.iter().map(|sizes| axis_size(sizes)).collect();
    check_size(&shape, first.dtype())?;
    let starts: Vec<Vec<usize>> = sizes.iter().map(|sizes| offsets(sizes)).collect();
    let mut file = ctx.files.target(Path::new(&args.path), Directories::There)?.begin()?;
    let header = header_of(first.dtype(), &shape);
    file.file().write_all(&header).map_err(fail)?;
    for (number, chunk) in chunks.iter().enumerate() {
        ctx.check_cancelled()?;
        let position = unravel(number, &counts);
        let at: Vec<usize> = position.iter().enumerate().map(|(axis, &place)| starts[axis][place]).collect();
        let mut outcome = Ok(());
        place_at(chunk, &at, &shape, &mut |start, bytes| {
            if outcome.is_ok() {
                outcome = file.file().write_all_at(bytes, (header.len() + start) as u64);
            }
        });
        outcome.map_err(fail)?;
    }
    let nbytes = (header.len() + shape.iter().product::<usize>() * first.dtype().size()) as u64;
    file.file().set_len(nbytes).map_err(fail)?;
    file.finish(true).map_err(fail)?;
    Ok(FileWritten { path: args.path.clone(), nbytes })
}

fn grid_sizes(counts: &[usize], chunks: &[&Chunk]) -> Result<Vec<Vec<usize>>, KernelError> {
    let fail = || KernelError(format!("{} chunks do not make a grid of {counts:?} chunks of one type", chunks.len()));
    if n_of_grid(counts) != Some(chunks.len()) {
        return Err(fail());
    }
    let mut sizes: Vec<Vec<Option<usize>>> = counts.iter().map(|&count| vec![None; count]).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        if chunk.shape().len() != counts.len() || chunk.dtype() != chunks[0].dtype() {
            return Err(fail());
        }
        for (axis, place) in unravel(number, counts).into_iter().enumerate() {
            let size = chunk.shape()[axis];
            if *sizes[axis][place].get_or_insert(size) != size {
                return Err(fail());
            }
        }
    }
    Ok(sizes.into_iter().map(|sizes| sizes.into_iter().flatten().collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.npy").display().to_string();
        let ctx = TaskContext::detached("x");
        let (left, right) =
            (Chunk::from_slice(vec![2, 1], &[1.0, 4.0]).unwrap(), Chunk::from_slice(vec![2, 2], &[2.0, 3.0, 5.0, 6.0]).unwrap());
        let written = write(&ctx, &WriteArgs { path: path.clone(), counts: Some(vec![1, 2]) }, &[&left, &right]).unwrap();
        assert_eq!(written.nbytes, std::fs::metadata(&path).unwrap().len());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let whole = load(&ctx, &LoadArgs { path: path.clone(), starts: None, stops: None }).unwrap();
        assert_eq!(whole, Chunk::from_slice(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
        let piece = load(&ctx, &LoadArgs { path, starts: Some(vec![0, 1]), stops: Some(vec![2, 2]) }).unwrap();
        assert_eq!(piece, Chunk::from_slice(vec![2, 1], &[2.0, 5.0]).unwrap());
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        let header = parse_header("{'descr': '<i4', 'fortran_order': True, 'shape': (3, 5), }   \n", 80).unwrap();
        assert_eq!(header, NpyHeader { dtype: DType::I32, shape: vec![5, 3], is_fortran: true, data_offset: 80 });
        assert_eq!(
            parse_header("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", 80).unwrap().shape,
            Vec::<usize>::new()
        );
        for text in [
            "",
            "{'descr': '>f8', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (x,)}",
            "{'descr': '<f8', 'fortran_order': 'maybe', 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': 1}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'shape': (2,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'more': True}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)} and more",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,",
            "{'descr': '<f8', 'fortran_order': False}",
            "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (np.int64(3),)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (18446744073709551615,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (18446744073709551615, 18446744073709551615, 0)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
            "{'descr': '|u1', 'fortran_order': True, 'shape': (0, 4294967296, 4294967296)}",
        ] {
            assert!(parse_header(text, 80).is_err(), "{text}");
        }
        let many = |n: usize| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}), }}", "1, ".repeat(n));
        assert_eq!(parse_header(&many(64), 80).unwrap().shape.len(), 64);
        assert!(parse_header(&many(65), 80).unwrap_err().contains("64 axes"));
        let old = "{\"shape\": (3L, 5L), 'fortran_order' : False,'descr':'=f8'}\n";
        assert_eq!(parse_header(old, 80).unwrap().shape, vec![3, 5]);
        assert_eq!((header_of(DType::F64, &[3, 4]).len()) % 64, 0);
    }

    #[test]
    fn broken_files_are_named_as_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let sound = header_of(DType::F64, &[2]);
        let with = |at: usize, byte: u8| {
            let mut bytes = [sound.clone(), vec![0; 16]].concat();
            bytes[at] = byte;
            bytes
        };
        for (bytes, words) in [
            (Vec::new(), "too short"),
            (b"PK\x03\x04 not npy".to_vec(), "begins with something else"),
            (sound[..9].to_vec(), "too short"),
            (sound[..40].to_vec(), "cut short"),
            ([sound.clone(), vec![0; 15]].concat(), "16 more bytes expected"),
            (with(6, 9), "version 9"),
            (with(9, 255), "cut short"),
            (with(8, 20), "npy header"),
            (with(10, b'('), "npy header"),
        ] {
            let path = directory.path().join("broken.npy");
            std::fs::write(&path, &bytes).unwrap();
            let error = open(&FileAccess::everything(), &path).unwrap_err();
            let words = if words.contains("more bytes") { "cut short: 144 bytes expected, 143 there" } else { words };
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn failures_name_the_file_and_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let ctx = TaskContext::detached("x");
        let missing = directory.path().join("missing.npy").display().to_string();
        let error = load(&ctx, &LoadArgs { path: missing.clone(), starts: None, stops: None }).unwrap_err();
        assert!(error.0.contains("missing.npy"), "{error}");
        let (a, b) = (Chunk::from_slice(vec![1], &[1.0]).unwrap(), Chunk::from_slice(vec![1], &[1i64]).unwrap());
        assert!(write(&ctx, &WriteArgs { path: missing, counts: Some(vec![2]) }, &[&a, &b]).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let short = directory.path().join("short.npy");
        std::fs::write(&short, &header_of(DType::F64, &[3])[..]).unwrap();
        assert!(open(&FileAccess::everything(), &short).unwrap_err().contains("cut short"));
    }
}
