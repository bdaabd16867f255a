//! The rank table in the kernel, mapped into the agent.
//!
//! 65,536 rows are 65,536 system calls through `bpf(2)`, or one copy through `mmap(2)`. aya
//! has no mapping of arrays, so it is made here. The `unsafe` of it stays in this file.

use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use aya::maps::{Array, Map};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use vip_common::abi::{RankRow, maps::RANKS};

use super::error::{DatapathError, map_error};

/// The mapping. It keeps the map alive, and is undone when dropped.
pub(super) struct RankMap {
    start: NonNull<RankRow>,
    rows: usize,
}

// SAFETY: the mapping belongs to this value alone, not to a thread.
unsafe impl Send for RankMap {}

impl RankMap {
    pub(super) fn new(map: Map) -> Result<Self, DatapathError> {
        let count = Array::<_, [u8; size_of::<RankRow>()]>::try_from(&map)
            .map_err(map_error(RANKS))?
            .len();
        let count = count as usize;
        let Map::Array(data) = map else {
            return Err(DatapathError::Missing(RANKS));
        };
        let length =
            NonZero::new(count * size_of::<RankRow>()).ok_or(DatapathError::Missing(RANKS))?;
        // SAFETY: a new mapping at an address the kernel chooses; the map was made with
        // BPF_F_MMAPABLE, and its values lie one behind the other (8 bytes need no rounding).
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(|errno| DatapathError::Io {
            what: format!("cannot map {RANKS} into memory"),
            error: errno.into(),
        })?;
        Ok(Self {
            start: start.cast(),
            rows: count,
        })
    }

    /// Rows in both halves.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the rows from `base` on are these.
    pub(super) fn holds(&self, base: u32, rows: &[RankRow]) -> bool {
        let base = base as usize;
        base + rows.len() <= self.rows
            && rows.iter().enumerate().all(|(index, row)| {
                // SAFETY: in range by the check above. Only agents write, and one at a time
                // (they hold a lock), so this reads what was written last.
                unsafe { self.start.add(base + index).read_volatile() == *row }
            })
    }

    /// Writes the rows from `base` on.
    ///
    /// # Panics
    /// If the table has no room for them, which would be a mistake in [`super::Datapath`]: it
    /// sizes the map by the rows.
    pub(super) fn write(&mut self, base: u32, rows: &[RankRow]) {
        let base = base as usize;
        assert!(
            base + rows.len() <= self.rows,
            "the rank table is sized by its rows"
        );
        for (index, row) in rows.iter().enumerate() {
            // SAFETY: in range by the check above; programs that read these rows meanwhile
            // read bytes, each of which is a rank or the end.
            unsafe { self.start.add(base + index).write_volatile(*row) };
        }
    }
}

impl Drop for RankMap {
    fn drop(&mut self) {
        // SAFETY: made in `new` with this length, and nobody else has the address.
        let undone = unsafe { munmap(self.start.cast(), self.rows * size_of::<RankRow>()) };
        debug_assert!(undone.is_ok(), "{undone:?}");
    }
}
