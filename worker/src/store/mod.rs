//! Results in memory, shared by the slots that make and use them and the data plane that serves them.
//!
//! The only place that names dashmap. It decides nothing: the machine says what is kept and dropped, and every entry carries
//! the attempt, so that a late result of an older run neither replaces nor removes a newer one. All reading goes through
//! [`Store::get`] and all writing through [`Store::put`]: that is where a tier of spill files belongs. Until there is one,
//! memory is measured ([`memory`]) and a worker that is short of it pauses.

pub mod memory;

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rask_graphs::{Attempt, Part, TaskId, Value};
use rustc_hash::FxBuildHasher;

use crate::machine::FetchItem;

struct Held {
    attempt: Attempt,
    nbytes: u64,
    value: Value,
}

/// The results one worker holds, whole or in parts. Every method may be called from any thread and holds no lock on return.
#[derive(Default)]
pub struct Store {
    results: DashMap<(TaskId, Part), Held, FxBuildHasher>,
    nbytes: AtomicU64,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hold `value` as `item`. Gives back what is not held after that: the older result that was in its place, or `value`
    /// itself when a newer run's result is there already.
    pub fn put(&self, item: FetchItem, value: Value) -> Option<Value> {
        let nbytes = value.nbytes();
        let held = Held { attempt: item.attempt, nbytes, value };
        match self.results.entry((item.task, item.part)) {
            Entry::Vacant(place) => {
                self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
                place.insert(held);
                None
            }
            Entry::Occupied(mut place) => {
                if place.get().attempt > item.attempt {
                    return Some(held.value);
                }
                let before = place.insert(held);
                self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
                self.nbytes.fetch_sub(before.nbytes, Ordering::Relaxed);
                Some(before.value)
            }
        }
    }

    /// The result, or the part of one, that exactly this run made: held as such, or a part of the whole that is held.
    #[must_use]
    pub fn get(&self, item: &FetchItem) -> Option<Value> {
        if let Some(held) = self.results.get(&(item.task, item.part))
            && held.attempt == item.attempt
        {
            return Some(held.value.clone());
        }
        if item.part.is_whole() {
            return None;
        }
        // The guard is gone before the part is taken, which may take as long as a slice of a table does.
        let whole = self.get(&FetchItem::whole(item.task, item.attempt))?;
        whole.part(item.part.0)
    }

    /// Stop holding exactly `item`; nothing happens when another run's result is in its place. The value is handed back so
    /// that the caller chooses where its memory is freed.
    #[must_use = "dropping the value frees its memory, which may take long"]
    pub fn remove(&self, item: &FetchItem) -> Option<Value> {
        let removed = self.results.remove_if(&(item.task, item.part), |_, held| held.attempt == item.attempt);
        let (_, held) = removed?;
        self.nbytes.fetch_sub(held.nbytes, Ordering::Relaxed);
        Some(held.value)
    }

    /// Bytes of all results held, as the results themselves count them.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.nbytes.load(Ordering::Relaxed)
    }

    /// Number of results and parts held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rask_graphs::builtin::{Opaque, Parts};
    use rask_graphs::{GraphId, TaskIdx};

    use super::*;

    fn value(nbytes: usize) -> Value {
        Value::new(Opaque(Bytes::from(vec![7; nbytes])))
    }

    fn item(idx: u32, attempt: u32, part: Part) -> FetchItem {
        FetchItem { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(attempt), part }
    }

    #[test]
    fn an_older_run_neither_replaces_nor_removes_a_newer_result() {
        let store = Store::new();
        let (old, new) = (item(0, 1, Part::WHOLE), item(0, 2, Part::WHOLE));
        assert!(store.put(new, value(20)).is_none());
        assert_eq!(store.put(old, value(10)).map(|refused| refused.nbytes()), Some(10));
        assert!(store.remove(&old).is_none());
        assert!(store.get(&old).is_none(), "another run's result is not this one");
        assert_eq!(store.get(&new).map(|value| value.nbytes()), Some(20));
        assert_eq!(store.nbytes(), 20);
    }

    #[test]
    fn a_newer_run_replaces_and_bytes_are_counted_once() {
        let store = Store::new();
        store.put(item(0, 1, Part::WHOLE), value(10));
        store.put(item(0, 2, Part::WHOLE), value(30));
        store.put(item(1, 1, Part(4)), value(5));
        assert_eq!((store.nbytes(), store.len()), (35, 2));
        assert!(store.remove(&item(0, 2, Part::WHOLE)).is_some());
        assert!(store.remove(&item(1, 1, Part(4))).is_some());
        assert_eq!((store.nbytes(), store.is_empty()), (0, true));
    }

    #[test]
    fn a_part_is_found_in_the_whole_of_the_same_run_only() {
        let store = Store::new();
        store.put(item(0, 3, Part::WHOLE), Value::new(Parts(vec![value(1), value(2)])));
        assert_eq!(store.get(&item(0, 3, Part(1))).map(|value| value.nbytes()), Some(2));
        assert!(store.get(&item(0, 3, Part(2))).is_none(), "past the last part");
        assert!(store.get(&item(0, 2, Part(1))).is_none(), "another run");
    }
}
