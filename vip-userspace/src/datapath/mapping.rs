//! An array map in the agent's memory: a copy instead of a system call for each entry. aya has no
//! such mapping. Its `unsafe` stays in this file.

use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use aya::maps::MapData;
use bytemuck::Pod;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::error::DatapathError;

/// The mapping of a map's only entry, as words. It keeps the map alive.
pub(super) struct Mapping<T> {
    start: NonNull<T>,
    words: usize,
}

// SAFETY: the mapping belongs to this value alone, not to a thread.
unsafe impl<T: Send> Send for Mapping<T> {}

impl<T: Pod + PartialEq> Mapping<T> {
    /// Maps an entry of so many words, which was made with `BPF_F_MMAPABLE`.
    pub(super) fn new(
        map: &MapData,
        name: &'static str,
        words: usize,
    ) -> Result<Self, DatapathError> {
        let length = NonZero::new(words * size_of::<T>()).ok_or(DatapathError::Missing(name))?;
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses. The kernel refuses a map
        // that is shorter.
        let start = unsafe {
            mmap(
                None,
                length,
                flags,
                MapFlags::MAP_SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|errno| DatapathError::Io {
            what: format!("cannot map {name} into memory"),
            error: errno.into(),
        })?;
        Ok(Self {
            start: start.cast(),
            words,
        })
    }

    fn within(&self, from: usize, words: &[T]) -> bool {
        from + words.len() <= self.words
    }

    /// Whether the words from this index on are these.
    pub(super) fn holds(&self, from: usize, words: &[T]) -> bool {
        self.within(from, words)
            && words.iter().enumerate().all(|(index, word)| {
                // SAFETY: in range by the check above. Only agents write, one at a time (they hold
                // a lock), so this reads the word that was written last.
                unsafe { self.start.add(from + index).read_volatile() == *word }
            })
    }

    /// Writes these words from this index on.
    ///
    /// # Panics
    /// If they do not fit: a mistake of the caller.
    pub(super) fn write(&mut self, from: usize, words: &[T]) {
        assert!(self.within(from, words), "beyond the end of a map");
        for (index, word) in words.iter().enumerate() {
            // SAFETY: in range by the check above. Programs may read the words meanwhile, each
            // of which is valid by itself.
            unsafe { self.start.add(from + index).write_volatile(*word) };
        }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: made in `new` with this length, and nothing else has the address.
        let undone = unsafe { munmap(self.start.cast(), self.words * size_of::<T>()) };
        debug_assert!(undone.is_ok(), "{undone:?}");
    }
}
