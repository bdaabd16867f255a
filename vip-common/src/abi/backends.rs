//! The nodes: where they are, which of them may be used, and in which order.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::limits::{MAX_BACKENDS, MAX_CHECKS};
use crate::wire::addr::{Be128, Mac};

/// A set of Ethernet addresses, kept in one word: it may hold more than was put in, never less
/// (a Bloom filter of one hash, the last byte modulo 64).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct MacFilter(u64);

impl MacFilter {
    const fn bit(mac: Mac) -> u64 {
        1 << (mac.last_byte() & 63)
    }

    /// False if the address was surely not put in.
    #[inline(always)]
    #[must_use]
    pub const fn may_hold(self, mac: Mac) -> bool {
        self.0 & Self::bit(mac) != 0
    }

    /// With the address put in.
    #[must_use]
    pub const fn with(self, mac: Mac) -> Self {
        Self(self.0 | Self::bit(mac))
    }
}

/// Which backend: the place of a node in the configured list, `0..MAX_BACKENDS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(u8);

impl BackendIndex {
    /// `None` from [`MAX_BACKENDS`] on.
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_BACKENDS {
            Some(Self(index as u8))
        } else {
            None
        }
    }

    /// For indexing maps and slices.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for BackendIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A set of backends, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct BackendMask(u32);

impl BackendMask {
    /// No backend.
    pub const EMPTY: Self = Self(0);

    /// Every backend that there may be.
    pub const ALL: Self = Self::first(MAX_BACKENDS);

    /// The first `count` backends.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        Self(
            ((1_u64
                << if count < MAX_BACKENDS {
                    count
                } else {
                    MAX_BACKENDS
                })
                - 1) as u32,
        )
    }

    /// Whether the backend is in the set.
    #[must_use]
    pub const fn contains(self, backend: BackendIndex) -> bool {
        self.0 >> backend.0 & 1 != 0
    }

    /// The set with the backend in it (`true`) or without it (`false`).
    #[must_use]
    pub const fn with(self, backend: BackendIndex, member: bool) -> Self {
        let bit = 1 << backend.0;
        Self(if member { self.0 | bit } else { self.0 & !bit })
    }

    /// True if no backend is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many backends are in the set.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The backend in the set that has so many before it. `None` if there are not enough.
    #[inline(always)]
    #[must_use]
    pub const fn nth(self, before: u32) -> Option<BackendIndex> {
        let mut rest = self.0;
        let mut taken = 0;
        // Not `while taken < before`: the verifier wants to see an end.
        while taken < MAX_BACKENDS as u32 {
            if taken < before {
                // Without the lowest.
                rest &= rest.wrapping_sub(1);
            }
            taken += 1;
        }
        BackendIndex::new(rest.trailing_zeros() as usize)
    }

    /// What both sets hold.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for BackendMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06b}", self.0)
    }
}

/// A node that may get packets for the VIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Backend {
    /// Where to send its frames; all zeros while unknown, and then nothing is sent.
    pub mac: Mac,
    /// Where its frames come from, if something on the way rewrites that (a bond of mode 5 or 6,
    /// the MAC NAT of a hypervisor); else all zeros. By either address it is known as a sender.
    pub source: Mac,
    /// The node's own address, by which it is known.
    pub address: Be128,
    /// Its address of the other family; [`Be128::UNSPECIFIED`] if it has none.
    pub other_address: Be128,
}

impl Backend {
    /// Its address of the family of `like`.
    #[inline(always)]
    #[must_use]
    pub fn address_like(&self, like: Be128) -> Option<Be128> {
        if self.address.ipv4().is_some() == like.ipv4().is_some() {
            Some(self.address)
        } else if self.other_address.is_unspecified() {
            None
        } else {
            Some(self.other_address)
        }
    }
}

/// Health, as bits: a change of health rewrites these few words and no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Masks {
    /// The node answers. Open connections may be sent there.
    pub alive: BackendMask,
    /// Gets nothing from this node, however alive. All while this node is joining: it has just
    /// come and does not know yet which others are there, nor they that it is. It resets nothing
    /// then either, as one of them may have the connection.
    pub no_forward: BackendMask,
    /// The node's operator wants no new connections there. No program reads it: the agent has
    /// chosen with it, and the next agent is to know it from its start.
    pub draining: BackendMask,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// For each check: where the agent wants new connections to be sent. It has put together what
    /// it knows, so that nothing is left to be chosen for each of them.
    pub new_connections: [BackendMask; MAX_CHECKS],
    /// For each check: which nodes this one's own processes and pods are connected to. To a node's
    /// own address, so its server counts and nothing else: whether its agent was heard or this node
    /// is joining makes no difference.
    pub connect: [BackendMask; MAX_CHECKS],
}

impl Masks {
    /// The first `count` backends alive, and new connections to all.
    #[must_use]
    pub const fn all(count: usize) -> Self {
        let all = BackendMask::first(count);
        Self {
            alive: all,
            no_forward: BackendMask::EMPTY,
            draining: BackendMask::EMPTY,
            reserved: 0,
            new_connections: [all; MAX_CHECKS],
            connect: [all; MAX_CHECKS],
        }
    }

    /// Where new connections may go, by a check of `0..MAX_CHECKS`. Never to a node that does not
    /// answer, whichever of the words was written first.
    #[inline(always)]
    #[must_use]
    pub const fn for_new_connections(&self, check: u8) -> BackendMask {
        // The verifier wants to see that it is in range.
        self.new_connections[check as usize & (MAX_CHECKS - 1)].and(self.alive)
    }

    /// Where connections of this node and its pods go, by a check of `0..MAX_CHECKS`. Nowhere means
    /// that they stay as they are.
    #[inline(always)]
    #[must_use]
    pub const fn for_connect(&self, check: u8) -> BackendMask {
        self.connect[check as usize & (MAX_CHECKS - 1)]
    }
}

/// One bucket: all backends, in this bucket's order of rank.
///
/// Four bits a rank, the first rank lowest: a row is one word and the walk down it a shift, and
/// 65,536 rows are 512 KiB, which a core's second cache still holds. Ranks from `backend_count`
/// on mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct RankRow(u64);

/// Bits of a rank in a [`RankRow`].
const RANK_BITS: usize = 4;

const _: () = assert!(MAX_BACKENDS == 1 << RANK_BITS && MAX_BACKENDS * RANK_BITS == 64);

impl RankRow {
    /// From the backends in the order of their ranks; from [`MAX_BACKENDS`] on they are left out.
    #[must_use]
    pub fn new(order: impl IntoIterator<Item = BackendIndex>) -> Self {
        let ranks = order.into_iter().take(MAX_BACKENDS).enumerate();
        Self(ranks.fold(0, |row, (rank, backend)| {
            row | u64::from(backend.0) << (rank * RANK_BITS)
        }))
    }

    /// The backend of the first rank, whatever the number of backends.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> BackendIndex {
        BackendIndex(self.0 as u8 & (MAX_BACKENDS - 1) as u8)
    }

    /// The row without its first rank.
    #[inline(always)]
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(self.0 >> RANK_BITS)
    }

    /// The first `count` backends in the order of their ranks.
    pub fn order(self, count: usize) -> impl Iterator<Item = BackendIndex> {
        core::iter::successors(Some(self), |row| Some(row.rest()))
            .map(Self::first)
            .take(count.min(MAX_BACKENDS))
    }
}
