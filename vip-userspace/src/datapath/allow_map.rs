//! The allow lists in the kernel, mapped into the agent.

use std::mem::offset_of;

use aya::maps::{Array, Map};
use vip_common::abi::{AllowTable, AllowTries, maps::ALLOWED};
use vip_node::allow::AllowLists;

use super::error::{DatapathError, map_error};
use super::mapping::Mapping;
use super::value::Value;

/// The [`AllowTable`] of the programs.
pub(super) struct AllowMap(Mapping<u32>);

/// Index of the first word of a field in a half.
const fn word(half: usize, offset: usize) -> usize {
    (half * size_of::<AllowTries>() + offset) / size_of::<u32>()
}

impl AllowMap {
    pub(super) fn new(map: &Map) -> Result<Self, DatapathError> {
        // Checks the sizes of key and value.
        Array::<_, Value<AllowTable>>::try_from(map).map_err(map_error(ALLOWED))?;
        let Map::Array(data) = map else {
            return Err(DatapathError::Missing(ALLOWED));
        };
        let words = size_of::<AllowTable>() / size_of::<u32>();
        Mapping::new(data, ALLOWED, words).map(Self)
    }

    /// Whether a half has these lists.
    pub(super) fn holds(&self, half: usize, lists: &AllowLists) -> bool {
        let mut parts = parts(half, lists).into_iter();
        parts.all(|(from, words)| self.0.holds(from, words))
    }

    /// Writes these lists into a half.
    pub(super) fn write(&mut self, half: usize, lists: &AllowLists) {
        for (from, words) in parts(half, lists) {
            self.0.write(from, words);
        }
    }
}

/// The words of the lists, and the index in the map that they begin at.
fn parts(half: usize, lists: &AllowLists) -> [(usize, &[u32]); 2] {
    let networks = bytemuck::cast_slice(lists.networks());
    let nodes = bytemuck::cast_slice(lists.nodes());
    [
        (word(half, offset_of!(AllowTries, networks)), networks),
        (word(half, offset_of!(AllowTries, nodes)), nodes),
    ]
}
