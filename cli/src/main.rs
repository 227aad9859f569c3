//! The one `rask` binary.
fn main() {}
