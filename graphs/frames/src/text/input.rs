//! The bytes of a text file: unpacked when its name says that it is packed, without a byte order mark.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

/// Whether the file is packed, by its name. A packed file has no places to begin reading at, so it is never cut.
pub(crate) fn is_packed(path: &Path) -> bool {
    packing(path).is_some()
}

/// `path` without the ending that says how it is packed: what its own format goes by.
pub(crate) fn unpacked_name(path: &Path) -> std::path::PathBuf {
    if is_packed(path) { path.with_extension("") } else { path.to_owned() }
}

#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

fn packing(path: &Path) -> Option<Packing> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "gz" => Some(Packing::Gzip),
        "zst" => Some(Packing::Zstd),
        _ => None,
    }
}

/// Read `file` (at its beginning) as text, and the number of bytes that are left out before it. Members of a packed file that
/// was put together of several are read one after the other.
///
/// # Errors
/// When it cannot be read, or is UTF-16.
pub(crate) fn open(file: File, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
    let bytes: Box<dyn Read + Send> = match packing(path) {
        None => Box::new(file),
        Some(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some(Packing::Zstd) => Box::new(zstd::stream::read::Decoder::new(file)?),
    };
    without_mark(bytes)
}

/// `bytes` without the byte order mark that may stand at their beginning.
fn without_mark(mut bytes: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, u64)> {
    let mut head = Vec::with_capacity(4);
    bytes.by_ref().take(3).read_to_end(&mut head)?;
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is UTF-16; convert it to UTF-8"));
    }
    let skipped = if head == [0xef, 0xbb, 0xbf] { 3 } else { 0 };
    Ok((Box::new(Cursor::new(head[skipped..].to_vec()).chain(bytes)), skipped as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text_of(name: &str, bytes: &[u8]) -> io::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut text = String::new();
        open(File::open(&path)?, &path)?.0.read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_files_are_unpacked_member_by_member() {
        let members = [gzip("a,b\n1,"), gzip("2\n")].concat();
        assert_eq!(text_of("a.csv.gz", &members).unwrap(), "a,b\n1,2\n");
        let zst = [zstd::encode_all(&b"a\n"[..], 1).unwrap(), zstd::encode_all(&b"1\n"[..], 1).unwrap()].concat();
        assert_eq!(text_of("a.csv.zst", &zst).unwrap(), "a\n1\n");
        assert!(text_of("a.csv.gz", b"not packed").is_err());
        assert_eq!(unpacked_name(Path::new("d/a.csv.gz")), Path::new("d/a.csv"));
    }

    #[test]
    fn byte_order_marks_are_no_text() {
        assert_eq!(text_of("a.csv", b"\xef\xbb\xbfa\n1\n").unwrap(), "a\n1\n");
        assert_eq!(text_of("a.csv", b"a").unwrap(), "a");
        assert_eq!(text_of("a.csv", b"").unwrap(), "");
        assert!(text_of("a.csv", b"\xff\xfea\0").unwrap_err().to_string().contains("UTF-16"));
    }
}
