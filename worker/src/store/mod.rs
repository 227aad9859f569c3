//! Results in memory and in spill files, shared by the slots that make and use them and the data plane that serves them.
//!
//! The only place that names dashmap. It decides nothing: the machine says what is kept, spilled and dropped, and every entry
//! carries the attempt, so that a late result of an older run neither replaces nor removes a newer one. What is in memory is
//! found by [`Store::get`], which never waits; what has been spilled ([`spill`]) is read back by [`Store::read`], which does.

pub mod memory;
pub mod spill;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rask_graphs::{Attempt, Part, TaskId, Value};
use rustc_hash::FxBuildHasher;

use crate::machine::FetchItem;
use spill::{ReadBackError, SpillArea, SpillError, SpillFile};

struct Held {
    attempt: Attempt,
    nbytes: u64,
    n_parts: u32,
    /// In memory, in a file, or in both.
    value: Option<Value>,
    file: Option<Arc<SpillFile>>,
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
        let (nbytes, n_parts) = (value.nbytes(), value.n_parts());
        let held = Held { attempt: item.attempt, nbytes, n_parts, value: Some(value), file: None };
        match self.results.entry((item.task, item.part)) {
            Entry::Vacant(place) => {
                self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
                place.insert(held);
                None
            }
            Entry::Occupied(mut place) => {
                // What is in a file already is the same, and stays there.
                if place.get().attempt > item.attempt || (place.get().attempt == item.attempt && place.get().file.is_some()) {
                    return held.value;
                }
                let before = place.insert(held);
                self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
                self.forget_nbytes(&before);
                before.value
            }
        }
    }

    /// The result, or the part of one, that exactly this run made: held as such, or a part of the whole that is held. `None`
    /// also for what is in a spill file only.
    #[must_use]
    pub fn get(&self, item: &FetchItem) -> Option<Value> {
        if let Some(held) = self.results.get(&(item.task, item.part))
            && held.attempt == item.attempt
        {
            return held.value.clone();
        }
        if item.part.is_whole() {
            return None;
        }
        // The guard is gone before the part is taken, which may take as long as a slice of a table does.
        let whole = self.get(&FetchItem::whole(item.task, item.attempt))?;
        whole.part(item.part.0)
    }

    /// Whether `item` is a part that the result it is of, which is here in memory, does not have.
    #[must_use]
    pub fn lacks(&self, item: &FetchItem) -> bool {
        !item.part.is_whole() && self.get(item).is_none() && self.get(&FetchItem::whole(item.task, item.attempt)).is_some()
    }

    /// When `item`, or the whole it is a part of, is in a spill file only: the bytes of that result.
    #[must_use]
    pub fn spilled_nbytes(&self, item: &FetchItem) -> Option<u64> {
        let held = self.results.get(&(item.task, Part::WHOLE))?;
        (held.attempt == item.attempt && held.value.is_none()).then_some(held.nbytes)
    }

    /// Bytes of the result or part, wherever it is; of a part of what is in a file only, what parts of it have on average.
    #[must_use]
    pub fn nbytes_of(&self, item: &FetchItem) -> Option<u64> {
        if let Some(value) = self.get(item) {
            return Some(value.nbytes());
        }
        let held = self.results.get(&(item.task, Part::WHOLE)).filter(|held| held.attempt == item.attempt)?;
        let n_parts = if item.part.is_whole() { 1 } else { held.n_parts.max(1) };
        Some(held.nbytes / u64::from(n_parts))
    }

    /// As [`Store::get`], and what has been spilled is read from its file: waits for the disk. A whole result that is read is
    /// kept in memory too when `keeps` says so. One that cannot be read is dropped.
    ///
    /// # Errors
    /// When it was here and is lost.
    pub fn read(&self, item: &FetchItem, keeps: bool) -> Result<Option<Value>, ReadBackError> {
        if let Some(value) = self.get(item) {
            return Ok(Some(value));
        }
        let whole = (item.task, Part::WHOLE);
        let held = self.results.get(&whole).filter(|held| held.attempt == item.attempt);
        let Some(file) = held.and_then(|held| held.file.clone()) else { return Ok(None) };
        let is_it = |held: &Held| held.file.as_ref().is_some_and(|other| Arc::ptr_eq(other, &file));
        match file.read(item.part) {
            Ok(value) => {
                if keeps
                    && item.part.is_whole()
                    && let Some(mut held) = self.results.get_mut(&whole)
                    && is_it(&held)
                    && held.value.is_none()
                {
                    held.value = Some(value.clone());
                    self.nbytes.fetch_add(held.nbytes, Ordering::Relaxed);
                }
                Ok(Some(value))
            }
            Err(error) => {
                if let Some((_, held)) = self.results.remove_if(&whole, |_, held| is_it(held)) {
                    self.forget_nbytes(&held);
                }
                Err(error)
            }
        }
    }

    /// Write a result that is in memory to a file of `area`, so that it is in both; waits for the disk. `None` when it is not
    /// here, or not any more once it is written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn spill(&self, area: &Arc<SpillArea>, task: TaskId, attempt: Attempt) -> Result<Option<()>, SpillError> {
        let Some(value) = self.get(&FetchItem::whole(task, attempt)) else { return Ok(None) };
        let file = area.write(task, attempt, &value)?;
        let held = self.results.get_mut(&(task, Part::WHOLE)).filter(|held| held.attempt == attempt);
        Ok(held.map(|mut held| held.file = Some(Arc::new(file))))
    }

    /// Hold a result in its file only. The value is handed back so that the caller chooses where its memory is freed.
    #[must_use = "dropping the value frees its memory, which may take long"]
    pub fn evict(&self, task: TaskId, attempt: Attempt) -> Option<Value> {
        let mut held = self.results.get_mut(&(task, Part::WHOLE))?;
        if held.attempt != attempt || held.file.is_none() {
            return None;
        }
        let value = held.value.take()?;
        self.nbytes.fetch_sub(held.nbytes, Ordering::Relaxed);
        Some(value)
    }

    /// Stop holding exactly `item`; nothing happens when another run's result is in its place. The value is handed back so
    /// that the caller chooses where its memory is freed.
    #[must_use = "dropping the value frees its memory, which may take long"]
    pub fn remove(&self, item: &FetchItem) -> Option<Value> {
        let removed = self.results.remove_if(&(item.task, item.part), |_, held| held.attempt == item.attempt);
        let (_, held) = removed?;
        self.forget_nbytes(&held);
        held.value
    }

    fn forget_nbytes(&self, held: &Held) {
        if held.value.is_some() {
            self.nbytes.fetch_sub(held.nbytes, Ordering::Relaxed);
        }
    }

    /// Bytes of all results in memory, as the results themselves count them.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.nbytes.load(Ordering::Relaxed)
    }

    /// Whole results held, in memory and in files, and their bytes.
    #[must_use]
    pub fn whole_results(&self) -> (usize, u64) {
        let whole = self.results.iter().filter(|held| held.key().1.is_whole());
        whole.fold((0, 0), |(n, nbytes), held| (n + 1, nbytes + held.value().nbytes))
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
        assert!(store.lacks(&item(0, 3, Part(2))) && !store.lacks(&item(0, 3, Part(1))) && !store.lacks(&item(0, 2, Part(2))));
        assert!(store.get(&item(0, 2, Part(1))).is_none(), "another run");
    }

    #[test]
    fn a_spilled_result_is_read_back_or_lost_and_counted_where_it_is() {
        let base = tempfile::tempdir().unwrap();
        let area = SpillArea::create(&spill::SpillConfig::new(base.path()), Arc::new(rask_graphs::Registry::new())).unwrap();
        let store = Store::new();
        let whole = item(0, 1, Part::WHOLE);
        store.put(whole, Value::new(Parts(vec![value(5_000), value(7_000)])));
        assert!(store.evict(whole.task, whole.attempt).is_none(), "it is nowhere else yet");
        assert!(store.spill(&area, whole.task, whole.attempt).unwrap().is_some());
        assert!(store.get(&whole).is_some() && store.nbytes() == 12_000);
        assert!(store.evict(whole.task, whole.attempt).is_some());
        assert!(store.get(&whole).is_none() && store.get(&item(0, 1, Part(1))).is_none());
        assert_eq!((store.nbytes(), store.spilled_nbytes(&whole)), (0, Some(12_000)));
        let part = store.read(&item(0, 1, Part(1)), true).unwrap();
        assert_eq!((part.map(|part| part.nbytes()), store.nbytes()), (Some(7_000), 0));
        assert!(store.read(&item(0, 2, Part::WHOLE), true).unwrap().is_none(), "another run");
        assert!(store.read(&whole, false).unwrap().is_some() && store.nbytes() == 0);
        assert!(store.read(&whole, true).unwrap().is_some() && store.nbytes() == 12_000);
        assert!(store.evict(whole.task, whole.attempt).is_some(), "the file is still there");
        for entry in std::fs::read_dir(area.path()).unwrap() {
            std::fs::write(entry.unwrap().path(), "garbage").unwrap();
        }
        assert!(store.read(&whole, true).is_err());
        assert!(store.is_empty() && store.nbytes() == 0);
    }
}
