//! The rank table in the kernel: a global of the programs.
//!
//! It is read and written whole, by one system call each. Programs may read meanwhile: only the
//! half that is not in use gets other bytes.

use std::iter::zip;
use std::mem::offset_of;
use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData};
use vip_common::abi::{BUCKETS, FirstRanks, LaterRanks, RankRow, RankTable, maps::RANKS};

use super::error::{DatapathError, map_error};
use crate::kernel::bpf;

/// Words of 8 bytes in a [`RankTable`], and those before its later ranks.
const WORDS: usize = size_of::<RankTable>() / size_of::<u64>();
const FIRST_WORDS: usize = offset_of!(RankTable, later) / size_of::<u64>();

/// The contents of a [`RankTable`].
pub(super) struct Ranks(Box<[u64]>);

impl Ranks {
    /// Zeros, but for these rows in the first half.
    pub(super) fn new(rows: &[RankRow]) -> Self {
        let mut ranks = Self(vec![0; WORDS].into());
        ranks.put(0, rows);
        ranks
    }

    /// As [`RankTable`] has them.
    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    fn parts(&self) -> (&[FirstRanks], &[LaterRanks]) {
        let (first, later) = self.0.split_at(FIRST_WORDS);
        (bytemuck::cast_slice(first), bytemuck::cast_slice(later))
    }

    /// Whether the rows from `base` on are these.
    pub(super) fn hold(&self, base: u32, rows: &[RankRow]) -> bool {
        let (first, later) = self.parts();
        let base = base as usize;
        let found = zip(first.iter().skip(base), later.iter().skip(base));
        base + rows.len() <= first.len()
            && zip(rows, found).all(|(row, (first, later))| *row == RankRow::of(*first, *later))
    }

    /// Puts rows from `base` on.
    fn put(&mut self, base: u32, rows: &[RankRow]) {
        let (first, later) = self.0.split_at_mut(FIRST_WORDS);
        let first: &mut [FirstRanks] = bytemuck::cast_slice_mut(first);
        let later: &mut [LaterRanks] = bytemuck::cast_slice_mut(later);
        let base = base as usize;
        let places = zip(first.iter_mut().skip(base), later.iter_mut().skip(base));
        for (row, (first, later)) in zip(rows, places) {
            (*first, *later) = (row.first_ranks(), row.later_ranks());
        }
    }
}

/// The other half of the table than the one that begins at `base`.
pub(super) const fn other_half(base: u32) -> u32 {
    if base == 0 { BUCKETS as u32 } else { 0 }
}

/// The map.
pub(super) struct RankMap(MapData);

impl RankMap {
    pub(super) fn new(map: Map) -> Result<Self, DatapathError> {
        // Whether its value is as long as a table.
        Array::<_, [u8; size_of::<RankTable>()]>::try_from(&map).map_err(map_error(RANKS))?;
        match map {
            Map::Array(data) => Ok(Self(data)),
            _ => Err(DatapathError::Missing(RANKS)),
        }
    }

    /// What the programs see.
    pub(super) fn read(&self) -> Result<Ranks, DatapathError> {
        let mut ranks = Ranks(vec![0; WORDS].into());
        // SAFETY: the map's value is as long as a table, as `new` has checked.
        unsafe { bpf::read_global(self.0.fd().as_fd(), &mut ranks.0) }
            .map_err(DatapathError::io(format!("cannot read {RANKS}")))?;
        Ok(ranks)
    }

    /// Writes the rows from `base` on.
    pub(super) fn write(&mut self, base: u32, rows: &[RankRow]) -> Result<(), DatapathError> {
        let mut ranks = self.read()?;
        ranks.put(base, rows);
        // SAFETY: the map's value is as long as a table, as `new` has checked.
        unsafe { bpf::write_global(self.0.fd().as_fd(), &ranks.0) }
            .map_err(DatapathError::io(format!("cannot write {RANKS}")))
    }
}

#[cfg(test)]
mod tests {
    use vip_common::abi::BackendIndex;

    use super::*;

    #[test]
    fn halves_do_not_touch_each_other() {
        let row =
            |order: [usize; 6]| RankRow::new(order.map(|node| BackendIndex::new(node).unwrap()));
        let (old, new) = (
            vec![row([5, 4, 3, 2, 1, 0]); BUCKETS],
            vec![row([0, 1, 2, 3, 4, 5]); BUCKETS],
        );
        let mut ranks = Ranks::new(&old);
        let other = other_half(0);
        assert!(ranks.hold(0, &old) && !ranks.hold(other, &new));
        ranks.put(other, &new);
        assert!(ranks.hold(0, &old) && ranks.hold(other, &new));
        assert_eq!(other_half(other), 0);
        // Beyond the end.
        assert!(!ranks.hold(other + 1, &new));
    }
}
