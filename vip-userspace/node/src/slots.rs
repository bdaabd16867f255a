//! A table with one entry for each member, by its slot.
//!
//! A member's *slot* is its place in this node's maps and masks, a [`BackendIndex`]. It stays the
//! same as long as the member is known. Slots are local: another node may have the same member in
//! another slot. A slot that a member has left stays empty until another one takes it.

use std::array;
use std::ops::Index;

use vip_common::abi::{BackendIndex, BackendMask, MAX_BACKENDS};

/// One entry at most for each slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slots<T>([Option<T>; MAX_BACKENDS]);

impl<T> Slots<T> {
    /// No entry.
    #[must_use]
    pub fn new() -> Self {
        Self(array::from_fn(|_| None))
    }

    /// The entry in a slot, if there is one.
    #[must_use]
    pub fn get(&self, slot: BackendIndex) -> Option<&T> {
        self.0[slot.get()].as_ref()
    }

    /// The same, to change it.
    #[must_use]
    pub fn get_mut(&mut self, slot: BackendIndex) -> Option<&mut T> {
        self.0[slot.get()].as_mut()
    }

    /// Puts an entry into a slot, and returns the one that was there.
    pub fn insert(&mut self, slot: BackendIndex, entry: T) -> Option<T> {
        self.0[slot.get()].replace(entry)
    }

    /// Empties a slot, and returns the entry that was there.
    pub fn remove(&mut self, slot: BackendIndex) -> Option<T> {
        self.0[slot.get()].take()
    }

    /// All entries with their slots, in the slots' order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (BackendIndex, &T)> {
        let entries = self.0.iter().enumerate();
        entries.filter_map(|(slot, entry)| Some((BackendIndex::new(slot)?, entry.as_ref()?)))
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (BackendIndex, &mut T)> {
        let entries = self.0.iter_mut().enumerate();
        entries.filter_map(|(slot, entry)| Some((BackendIndex::new(slot)?, entry.as_mut()?)))
    }

    /// All entries, in the slots' order.
    pub fn values(&self) -> std::iter::Flatten<std::slice::Iter<'_, Option<T>>> {
        self.0.iter().flatten()
    }

    /// The same, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    /// The slots with an entry.
    #[must_use]
    pub fn mask(&self) -> BackendMask {
        self.which(|_, _| true)
    }

    /// The slots with an entry for which `wanted` is true.
    #[must_use]
    pub fn which(&self, wanted: impl Fn(BackendIndex, &T) -> bool) -> BackendMask {
        let found = self.iter().filter(|(slot, entry)| wanted(*slot, entry));
        found.map(|(slot, _)| slot).collect()
    }

    /// Number of entries, at most [`MAX_BACKENDS`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.values().count()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first entry for which `wanted` is true, with its slot.
    pub fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<(BackendIndex, &T)> {
        self.iter().find(|(_, entry)| wanted(entry))
    }

    /// A table with an entry made of each one here, in the same slot.
    pub fn map<U>(&self, make: impl Fn(BackendIndex, &T) -> U) -> Slots<U> {
        let entries = self.iter();
        entries
            .map(|(slot, entry)| (slot, make(slot, entry)))
            .collect()
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// All entries, in the slots' order, without their slots.
impl<T> IntoIterator for Slots<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<array::IntoIter<Option<T>, MAX_BACKENDS>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl<T> Index<BackendIndex> for Slots<T> {
    type Output = T;

    /// # Panics
    /// If the slot is empty.
    fn index(&self, slot: BackendIndex) -> &T {
        self.get(slot).expect("the slot of a member")
    }
}

/// From the first slot on; entries beyond [`MAX_BACKENDS`] are left out.
impl<T> FromIterator<T> for Slots<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let places = (0..MAX_BACKENDS).filter_map(BackendIndex::new);
        places.zip(entries).collect()
    }
}

impl<T> FromIterator<(BackendIndex, T)> for Slots<T> {
    fn from_iter<I: IntoIterator<Item = (BackendIndex, T)>>(entries: I) -> Self {
        let mut slots = Self::new();
        for (slot, entry) in entries {
            slots.insert(slot, entry);
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::index;

    #[test]
    fn slot_that_was_left_stays_empty_until_another_entry_takes_it() {
        let mut slots: Slots<_> = ["a", "b", "c"].into_iter().collect();
        assert_eq!(slots.remove(index(1)), Some("b"));
        assert_eq!((slots.len(), slots[index(2)]), (2, "c"));
        assert!(!slots.mask().contains(index(1)) && slots.mask().contains(index(2)));
        slots.insert(index(1), "d");
        let all: Vec<_> = slots
            .iter()
            .map(|(slot, entry)| (slot.get(), *entry))
            .collect();
        assert_eq!(all, [(0, "a"), (1, "d"), (2, "c")]);
    }
}
