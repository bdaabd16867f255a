//! The allow lists: for each service, a level-compressed Patricia trie of its networks (S. Nilsson,
//! G. Karlsson, "IP-Address Lookup Using LC-Tries", 1999).
//!
//! The networks of a list are disjoint, so a source can be in at most one of them. A branch reads
//! some bits of the source and selects the next node by them. Bits between two branches are
//! skipped, because the one comparison at the end covers all of them.

use bytemuck::{Pod, Zeroable};

use super::limits::MAX_ALLOWED;
use crate::wire::addr::Be128;

/// Nodes below the roots of all lists. vip-node shows that they are enough.
pub const ALLOW_NODES: usize = 1 << 16;

/// Networks of all lists: the first is [`Network::EVERYTHING`].
pub const ALLOW_NETWORKS: usize = 1 + MAX_ALLOWED as usize;

/// Most branches from a root to a network. vip-node shows that they are enough.
pub const ALLOW_DEPTH: usize = 44;

/// Most bits that a branch reads.
pub const BRANCH_BITS: u32 = 15;

/// A node of a trie, in one word so that a root changes in one step: a branch or a network.
///
/// | Bits | of a branch | of a network |
/// |---|---|---|
/// | 0 to 15 | index of its first child | its index |
/// | 16 to 21 | bits of the word before those that it reads | 0 |
/// | 22 | 1 if it reads the second word of the source | 0 |
/// | 23 to 28 | bits of the word without those that it reads | 0 |
/// | 31 | of a root: the half of the table | of a root: the half of the table |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct AllowNode(u32);

impl AllowNode {
    /// The root of a service without a list: the network that has all sources.
    pub const EVERYTHING: Self = Self(0);

    /// A network beyond the table, which has no source.
    pub const NOTHING: Self = Self(INDEX);

    /// The network with this index, `0..ALLOW_NETWORKS`.
    #[must_use]
    pub const fn network(index: usize) -> Self {
        Self(index as u32 & INDEX)
    }

    /// A branch on `bits` bits of the source, from the bit `position` on. These lie in one of both
    /// 64-bit words, and there is at least one. Its children begin at `first`, `0..ALLOW_NODES`.
    #[must_use]
    pub const fn branch(first: usize, position: u32, bits: u32) -> Self {
        Self(first as u32 & INDEX | position << POSITION | (u64::BITS - bits) << REST)
    }

    /// The same root in this half of the table, 0 or 1. One without a list is in both.
    #[must_use]
    pub const fn in_half(self, half: usize) -> Self {
        if self.0 == Self::EVERYTHING.0 {
            self
        } else {
            Self(self.0 & !(1 << HALF) | (half as u32) << HALF)
        }
    }

    /// The half of the table that the root is in.
    #[inline(always)]
    #[must_use]
    pub const fn half(self) -> usize {
        (self.0 >> HALF) as usize
    }

    #[inline(always)]
    const fn index(self) -> usize {
        (self.0 & INDEX) as usize
    }

    /// Bits of a word that a branch does not read; 0 of a network.
    #[inline(always)]
    const fn rest(self) -> u32 {
        self.0 >> REST & (u64::BITS - 1)
    }

    /// The bits that a branch reads of a source, whose words are in host byte order.
    #[inline(always)]
    const fn read(self, [first, second]: [u64; 2]) -> usize {
        let word = if self.0 & SECOND_WORD == 0 {
            first
        } else {
            second
        };
        (word << (self.0 >> POSITION & (u64::BITS - 1)) >> self.rest()) as usize
    }
}

const INDEX: u32 = 0xffff;
const POSITION: u32 = 16;
const SECOND_WORD: u32 = u64::BITS << POSITION;
const REST: u32 = 23;
const HALF: u32 = 31;

const _: () = assert!(ALLOW_NODES == INDEX as usize + 1 && ALLOW_NETWORKS <= INDEX as usize);

/// A network: the sources that are equal to `prefix` where `mask` has ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Network {
    prefix: Be128,
    mask: Be128,
}

impl Network {
    /// The network that has all sources.
    pub const EVERYTHING: Self = Self {
        prefix: Be128::UNSPECIFIED,
        mask: Be128::UNSPECIFIED,
    };

    /// The network of all addresses whose first `bits` bits, `0..=128`, are those of `address`.
    #[must_use]
    pub const fn new(address: u128, bits: u32) -> Self {
        let mask = match u128::MAX.checked_shl(u128::BITS - bits) {
            Some(mask) => mask,
            None => 0,
        };
        Self {
            prefix: Be128::from_wire((address & mask).to_be_bytes()),
            mask: Be128::from_wire(mask.to_be_bytes()),
        }
    }

    #[inline(always)]
    fn has(&self, source: Be128) -> bool {
        let ([a, b], [mask_a, mask_b]) = (source.words(), self.mask.words());
        [a & mask_a, b & mask_b] == self.prefix.words()
    }
}

/// The tries of all services.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AllowTries {
    /// The children of branches.
    pub nodes: [AllowNode; ALLOW_NODES],
    /// The networks.
    pub networks: [Network; ALLOW_NETWORKS],
}

/// The allow lists, twice. The agent writes new lists into the half that is not in use. Then it
/// changes the root of each service, which names the half.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AllowTable {
    /// Both halves.
    pub halves: [AllowTries; 2],
}

impl AllowTable {
    /// Whether the list with this root has the source.
    #[inline(always)]
    #[must_use]
    pub fn allows(&self, root: AllowNode, source: Be128) -> bool {
        let half = &self.halves[root.half()];
        let words = source.to_words_on_wire().map(u64::from_be_bytes);
        let mut node = root;
        let mut depth = 0;
        while depth < ALLOW_DEPTH && node.rest() != 0 {
            let child = node.index() + node.read(words);
            node = half.nodes[child & (ALLOW_NODES - 1)];
            depth += 1;
        }
        let network = half.networks.get(node.index());
        network.is_some_and(|network| network.has(source))
    }
}
