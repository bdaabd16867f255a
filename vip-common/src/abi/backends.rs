//! The backends: their addresses, their health, and their order in a bucket.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::limits::{BUCKETS, MAX_BACKENDS, MAX_CHECKS};
use crate::wire::addr::{Be128, Mac};

/// A filter of Ethernet addresses in one word: a Bloom filter of 64 bits whose one hash is the last
/// byte modulo 64. It may match addresses that were not added, and always matches those that were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct MacFilter(u64);

impl MacFilter {
    const fn bit(mac: Mac) -> u64 {
        1 << (mac.last_byte() & 63)
    }

    /// False if the address was not added; true if it may have been.
    #[inline(always)]
    #[must_use]
    pub const fn may_hold(self, mac: Mac) -> bool {
        self.0 & Self::bit(mac) != 0
    }

    /// The filter with the address added.
    #[must_use]
    pub const fn with(self, mac: Mac) -> Self {
        Self(self.0 | Self::bit(mac))
    }
}

/// Index of a backend in the maps and masks of this node, `0..MAX_BACKENDS`: its slot. Another node
/// may have the same backend in another one.
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

    /// The index, for maps and slices.
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

/// A set of backends, one bit for each index.
#[derive(Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct BackendMask(u32);

impl BackendMask {
    /// No backend.
    pub const EMPTY: Self = Self(0);

    /// All [`MAX_BACKENDS`] backends.
    pub const ALL: Self = Self::first(MAX_BACKENDS);

    /// The first `count` backends, at most [`MAX_BACKENDS`].
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

    /// Whether the backend with this index is in the set. False from [`MAX_BACKENDS`] on.
    #[inline(always)]
    #[must_use]
    pub const fn has_index(self, index: u32) -> bool {
        index < MAX_BACKENDS as u32 && self.0 >> index & 1 != 0
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

    /// The backends in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The number of backends in the set.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The backend that has `before` others of the set before it; `None` if the set is too small.
    #[inline(always)]
    #[must_use]
    pub const fn nth(self, before: u32) -> Option<BackendIndex> {
        let mut rest = self.0;
        let mut taken = 0;
        // Not `while taken < before`: the verifier must see a bound.
        while taken < MAX_BACKENDS as u32 {
            if taken < before {
                // Clears the lowest bit.
                rest &= rest.wrapping_sub(1);
            }
            taken += 1;
        }
        BackendIndex::new(rest.trailing_zeros() as usize)
    }

    /// The backends in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The backends in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BackendMask {
    /// The backends in the set, in the order of their indices.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = BackendIndex> {
        (0..MAX_BACKENDS)
            .filter_map(BackendIndex::new)
            .filter(move |index| self.contains(*index))
    }
}

impl FromIterator<BackendIndex> for BackendMask {
    fn from_iter<I: IntoIterator<Item = BackendIndex>>(backends: I) -> Self {
        let add = |set: Self, backend| set.with(backend, true);
        backends.into_iter().fold(Self::EMPTY, add)
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
    /// Ethernet address that frames for it are sent to; [`Mac::UNKNOWN`] until it is learned, and
    /// nothing is forwarded until then.
    pub mac: Mac,
    /// Ethernet source of its frames, if something on the path rewrites it (a bond of mode 5 or 6,
    /// the MAC NAT of a hypervisor); else [`Mac::UNKNOWN`]. Frames from either address are its.
    pub source: Mac,
    /// The node's own address, which identifies it.
    pub address: Be128,
    /// Its address of the other family; [`Be128::UNSPECIFIED`] if it has none.
    pub other_address: Be128,
}

impl Backend {
    /// Whether there is a node in this entry.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.address.is_unspecified()
    }

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

/// Health of the backends. A change of health rewrites these few words and no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Masks {
    /// Nodes that are up or watched. They get segments of open connections in their turn.
    pub alive: BackendMask,
    /// Nodes whose packets stay out, and whose kernels have not answered yet. They get a segment
    /// after all other nodes, as its last resort.
    pub suspect: BackendMask,
    /// Members that may have a connection, in whichever state: all but those that are gone. This
    /// node is one of them. A segment is reset only after so many nodes have looked for its socket.
    pub not_gone: BackendMask,
    /// Peers that this node forwards nothing to, even if they are alive. It is
    /// [`BackendMask::ALL`] while this node is joining, or isolated: it does not know which peers
    /// are alive. It resets nothing then, because a peer may have the connection.
    pub no_forward: BackendMask,
    /// Nodes that the operator drains. No program reads it: `new_connections` takes it into account
    /// already. The next agent reads it when it starts.
    pub draining: BackendMask,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// For each check: the nodes that get new connections. The agent has made the whole choice, and
    /// the programs add only that the node is alive.
    pub new_connections: [BackendMask; MAX_CHECKS],
    /// For each check: the nodes that local processes and pods are connected to. These connections
    /// go to a node's own address, so only the health of its server counts: not whether its agent
    /// was heard, and not whether this node is joining.
    pub connect: [BackendMask; MAX_CHECKS],
}

impl Masks {
    /// The first `count` backends alive and chosen for new connections.
    #[must_use]
    pub const fn all(count: usize) -> Self {
        Self::of(BackendMask::first(count))
    }

    /// These backends alive and chosen for new connections.
    #[must_use]
    pub const fn of(all: BackendMask) -> Self {
        Self {
            alive: all,
            suspect: BackendMask::EMPTY,
            not_gone: all,
            no_forward: BackendMask::EMPTY,
            draining: BackendMask::EMPTY,
            reserved: 0,
            new_connections: [all; MAX_CHECKS],
            connect: [all; MAX_CHECKS],
        }
    }

    /// Nodes that are alive or suspect.
    #[inline(always)]
    #[must_use]
    pub const fn living(&self) -> BackendMask {
        self.alive.or(self.suspect)
    }

    /// The usable backends for new connections, by the index of a check, `0..MAX_CHECKS`. Never one
    /// that is not alive, in whichever order the agent writes the words.
    #[inline(always)]
    #[must_use]
    pub const fn for_new_connections(&self, check: u8) -> BackendMask {
        // The verifier must see that the index is in range.
        self.new_connections[check as usize & (MAX_CHECKS - 1)].and(self.alive)
    }

    /// The backends for connections of this node and its pods, by the index of a check,
    /// `0..MAX_CHECKS`. If it is empty, they are not redirected.
    #[inline(always)]
    #[must_use]
    pub const fn for_connect(&self, check: u8) -> BackendMask {
        self.connect[check as usize & (MAX_CHECKS - 1)]
    }
}

/// The row of one bucket: all backends in the order of their ranks.
///
/// Each rank has four bits, the first rank the lowest, so that a step down is a shift. Ranks from
/// `backend_count` on are not used. The programs' table has a row in two parts: [`FirstRanks`] and
/// [`LaterRanks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RankRow(u64);

/// Bits of a rank in a [`RankRow`].
const RANK_BITS: usize = 4;

/// Ranks in [`FirstRanks`].
pub const FIRST_RANKS: usize = 16 / RANK_BITS;

const _: () = assert!(MAX_BACKENDS == 1 << RANK_BITS && MAX_BACKENDS * RANK_BITS == 64);

impl RankRow {
    /// The row of these backends in the order of their ranks, the first [`MAX_BACKENDS`] of them.
    #[must_use]
    pub fn new(order: impl IntoIterator<Item = BackendIndex>) -> Self {
        let ranks = order.into_iter().take(MAX_BACKENDS).enumerate();
        Self(ranks.fold(0, |row, (rank, backend)| {
            row | u64::from(backend.0) << (rank * RANK_BITS)
        }))
    }

    /// The row of both parts.
    #[inline(always)]
    #[must_use]
    pub const fn of(first: FirstRanks, later: LaterRanks) -> Self {
        Self(first.0 as u64 | later.0 << u16::BITS)
    }

    /// The first [`FIRST_RANKS`] ranks.
    #[must_use]
    pub const fn first_ranks(self) -> FirstRanks {
        FirstRanks(self.0 as u16)
    }

    /// All other ranks.
    #[must_use]
    pub const fn later_ranks(self) -> LaterRanks {
        LaterRanks(self.0 >> u16::BITS)
    }

    /// The backend of the first rank.
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

/// The first [`FIRST_RANKS`] ranks of a [`RankRow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct FirstRanks(u16);

impl FirstRanks {
    /// The backend of the first rank.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> BackendIndex {
        BackendIndex(self.0 as u8 & (MAX_BACKENDS - 1) as u8)
    }
}

/// The ranks of a [`RankRow`] behind the first [`FIRST_RANKS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct LaterRanks(u64);

/// The rank table as the programs have it.
///
/// It has two halves, so that a new table does not touch the one in use:
/// [`Config::rank_base`](super::Config::rank_base) is the first row of the half in use.
///
/// Nearly all frames read only the first ranks. Those of one half are 128 KiB, which stay in a
/// core's second-level cache.
#[repr(C)]
pub struct RankTable {
    /// The first ranks of each row.
    pub first: [FirstRanks; 2 * BUCKETS],
    /// The later ranks of each row.
    pub later: [LaterRanks; 2 * BUCKETS],
}

const _: () = assert!(size_of::<RankTable>() == 2 * BUCKETS * (2 + 8));
