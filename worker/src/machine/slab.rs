//! A table whose entries keep their place, with keys that notice when a place has been given to somebody else.
//!
//! Runs and wanted items refer to each other by such keys, so that neither side has to be told when the other goes: a key
//! of an entry that is gone finds nothing.

/// Names an entry of a [`Slab`] for as long as it is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    idx: u32,
    generation: u32,
}

struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

/// Entries of one kind. Grows with the largest number of entries there ever were at once.
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// # Panics
    /// At 2^32 entries, which no memory holds.
    pub(super) fn insert(&mut self, entry: T) -> Key {
        if let Some(idx) = self.free.pop() {
            let place = &mut self.places[idx as usize];
            place.entry = Some(entry);
            return Key { idx, generation: place.generation };
        }
        let idx = u32::try_from(self.places.len()).expect("fewer than 2^32 entries fit into memory");
        self.places.push(Place { generation: 0, entry: Some(entry) });
        Key { idx, generation: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.places.get(key.idx as usize).filter(|place| place.generation == key.generation)?.entry.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.places.get_mut(key.idx as usize).filter(|place| place.generation == key.generation)?.entry.as_mut()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.idx as usize).filter(|place| place.generation == key.generation)?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.idx);
        Some(entry)
    }

    /// All entries, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().zip(0u32..).filter_map(|(place, idx)| {
            let key = Key { idx, generation: place.generation };
            place.entry.as_ref().map(|entry| (key, entry))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn a_key_of_a_removed_entry_finds_nothing_even_when_its_place_is_taken_again() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        let other = slab.insert("other");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.iter().map(|(key, _)| key).collect::<Vec<_>>(), [second, other]);
        assert_eq!(slab.len(), 2);
    }
}
