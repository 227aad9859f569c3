//! Spill files under every damage that can be thought of.

use bytes::Bytes;
use rask_graphs::builtin::{Opaque, Parts};
use rask_graphs::{Data, EncodeError, Encoded, GraphId, TaskIdx};

use super::*;

fn area(limit: u64) -> (tempfile::TempDir, Arc<SpillArea>) {
    let base = tempfile::tempdir().unwrap();
    let config = SpillConfig { directory: base.path().to_owned(), limit };
    let area = SpillArea::create(&config, Arc::new(Registry::new())).unwrap();
    (base, area)
}

fn task(idx: u32) -> TaskId {
    TaskId::new(GraphId(1), TaskIdx(idx))
}

/// A buffer that compresses when `n` is even and does not when it is odd.
fn opaque(n: u64, nbytes: usize) -> Value {
    let mut state = n;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if n.is_multiple_of(2) { (state >> 63) as u8 } else { (state >> 56) as u8 }
    };
    Value::new(Opaque((0..nbytes).map(next).collect::<Vec<u8>>().into()))
}

fn bytes_of(value: &Value) -> Bytes {
    value.downcast::<Opaque>().unwrap().0.clone()
}

#[test]
fn a_result_comes_back_whole_and_in_parts() {
    let (_base, area) = area(0);
    let parts: Vec<Value> = (0..5).map(|n| opaque(n, 10_000 * n as usize)).collect();
    let file = area.write(task(1), Attempt(3), &Value::new(Parts(parts.clone()))).unwrap();
    for (part, value) in (0..).zip(&parts) {
        let back = file.read(Part(part)).unwrap();
        assert_eq!(bytes_of(&back), bytes_of(value), "part {part}");
        assert!(bytes_of(&back).is_empty() || bytes_of(&back).as_ptr().addr().is_multiple_of(64));
    }
    let whole = file.read(Part::WHOLE).unwrap();
    for (part, value) in (0..).zip(&parts) {
        assert_eq!(bytes_of(&whole.part(part).unwrap()), bytes_of(value));
    }
    assert!(file.read(Part(5)).is_err(), "past the last part");
    // Parts 2 and 4 hold one bit a byte: compressed, the file is shorter than what is in it.
    assert!(area.nbytes() < 100_000 - 20_000, "{} bytes", area.nbytes());
}

#[test]
fn reading_a_part_does_not_read_the_others() {
    let (_base, area) = area(0);
    let value = Value::new(Parts((0..4).map(|n| opaque(2 * n + 1, 50_000)).collect()));
    let file = area.write(task(1), Attempt(1), &value).unwrap();
    // Damage in part 2: only who reads that notices.
    let path = area.path_of(file.number);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_AND + 2 * 50_000 + 25_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(file.read(Part(2)).is_err() && file.read(Part::WHOLE).is_err());
    for part in [0, 1, 3] {
        assert_eq!(bytes_of(&file.read(Part(part)).unwrap()), bytes_of(&value.part(part).unwrap()));
    }
}

/// Bytes before the first buffer.
const HEADER_AND: usize = 56;

#[test]
fn a_file_with_any_byte_flipped_is_never_believed() {
    let (_base, area) = area(0);
    for n in [3, 4] {
        let value = opaque(n, 6_000);
        let file = area.write(task(1), Attempt(1), &value).unwrap();
        let path = area.path_of(file.number);
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            assert!(file.read(Part::WHOLE).is_err(), "byte {at} of {} is flipped and nobody noticed", sound.len());
        }
        fs::write(&path, &sound).unwrap();
        assert_eq!(bytes_of(&file.read(Part::WHOLE).unwrap()), bytes_of(&value));
    }
}

#[test]
fn a_file_that_is_cut_swapped_or_deleted_is_an_error() {
    let (_base, area) = area(0);
    let (one, two) = (opaque(1, 5_000), opaque(3, 5_000));
    let (first, second) = (area.write(task(1), Attempt(1), &one).unwrap(), area.write(task(1), Attempt(2), &two).unwrap());
    let (path, other) = (area.path_of(first.number), area.path_of(second.number));
    let sound = fs::read(&path).unwrap();
    for nbytes in [0, 1, 55, 56, 3_000, sound.len() - 1] {
        fs::write(&path, &sound[..nbytes]).unwrap();
        assert!(first.read(Part::WHOLE).is_err(), "cut to {nbytes} bytes");
    }
    // The other is sound, of the same size and kind, and another run's.
    fs::copy(&other, &path).unwrap();
    assert!(first.read(Part::WHOLE).is_err() && second.read(Part::WHOLE).is_ok());
    fs::remove_file(&path).unwrap();
    assert!(first.read(Part::WHOLE).is_err());
}

#[test]
fn a_file_goes_after_its_last_handle_and_the_directory_after_the_area() {
    let (base, area) = area(0);
    let file = area.write(task(1), Attempt(1), &opaque(1, 9_000)).unwrap();
    let path = area.path_of(file.number);
    assert!(area.nbytes() > 9_000);
    drop(file);
    area.delete_dropped();
    assert!(!path.exists());
    assert_eq!(area.nbytes(), 0);
    drop(area);
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn the_limit_is_kept_and_space_returns() {
    let (_base, area) = area(20_000);
    let write = |idx| area.write(task(idx), Attempt(1), &opaque(1, 9_000));
    let (one, _two) = (write(1).unwrap(), write(2).unwrap());
    assert!(matches!(write(3), Err(SpillError::Full)));
    drop(one);
    assert!(matches!(write(3), Err(SpillError::Full)), "it is on the disk still");
    area.delete_dropped();
    assert!(write(3).is_ok());
}

struct Unsendable;

impl Data for Unsendable {
    fn kind(&self) -> &'static str {
        "unsendable"
    }

    fn nbytes(&self) -> u64 {
        1 << 20
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        Err(EncodeError("it is of this process".to_owned()))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[test]
fn what_cannot_be_encoded_is_refused_and_leaves_nothing() {
    let (_base, area) = area(0);
    let refused = area.write(task(1), Attempt(1), &Value::new(Unsendable));
    assert!(matches!(refused, Err(SpillError::CannotEncode(_))));
    assert_eq!(fs::read_dir(area.path()).unwrap().count(), 1, "the lock and nothing else");
}
