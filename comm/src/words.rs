//! Numbers as people read them, in messages that go from one node to a person at another.

/// Bytes with their unit: `512 B`, `1.5 GiB`.
#[must_use]
pub fn size_text(nbytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if nbytes < 1 << 10 {
        return format!("{nbytes} B");
    }
    let (mut size, mut at) = (nbytes as f64 / 1024.0, 0);
    // What would be rounded to 1024.0 is one of the next unit.
    while size >= 1023.95 && at + 1 < UNITS.len() {
        size /= 1024.0;
        at += 1;
    }
    format!("{size:.1} {}", UNITS[at])
}

#[cfg(test)]
mod tests {
    use super::size_text;

    #[test]
    fn sizes_read_well() {
        assert_eq!([size_text(0), size_text(1023), size_text(1024)], ["0 B", "1023 B", "1.0 KiB"]);
        assert_eq!([size_text(3 << 29), size_text((1 << 30) - 1)], ["1.5 GiB", "1.0 GiB"]);
        assert_eq!(size_text(u64::MAX), "16384.0 PiB");
    }
}
