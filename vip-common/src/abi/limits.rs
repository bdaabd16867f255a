//! Sizes and bounds that the agent and the programs share.

use core::time::Duration;

use crate::wire::time::BootNanos;

/// Version of everything in this module. The agent stores it in
/// [`Config::layout_version`](super::Config::layout_version), and does not adopt pinned maps that
/// have another one.
pub const LAYOUT_VERSION: u32 = 10;

/// Ports of a bond whose Ethernet addresses the programs know.
pub const MAX_BOND_PORTS: usize = 4;

/// Virtual addresses that the programs serve at once.
pub const MAX_VIPS: usize = 16;

/// Services of one virtual address. A power of two.
pub const MAX_PORTS: usize = 8;

/// Different health checks. Services of the same server share one. A power of two.
pub const MAX_CHECKS: usize = 8;

/// Index of a health check, `0..MAX_CHECKS`: a place in [`Masks::new_connections`].
///
/// [`Masks::new_connections`]: super::Masks::new_connections
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CheckIndex(u8);

impl CheckIndex {
    /// The check of the API servers.
    pub const API: Self = Self(0);

    /// `None` from [`MAX_CHECKS`] on.
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_CHECKS {
            Some(Self(index as u8))
        } else {
            None
        }
    }

    /// The first `count` checks, [`MAX_CHECKS`] at most.
    pub fn first(count: usize) -> impl Iterator<Item = Self> + Clone {
        (0..count).map_while(Self::new)
    }

    /// For indexing slices.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// As it lies in [`Service::check`](super::Service::check).
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }
}

/// Backends, and so also ranks in a [`RankRow`](super::RankRow). A power of two.
pub const MAX_BACKENDS: usize = 16;

/// Buckets of the rank table: as many as there are values of 16 bits.
pub const BUCKETS: usize = 1 << 16;

/// Networks in all allow lists together.
pub const MAX_ALLOWED: u32 = 16_384;

/// Sources whose new connections are counted at once.
pub const MAX_SOURCES: u32 = 65_536;

/// Redirected local sockets that `getpeername` knows.
pub const MAX_REDIRECTED: u32 = 16_384;

/// Entries of [`maps::LISTENERS`](super::maps::LISTENERS).
pub const LISTENERS: u32 = 1 + MAX_CHECKS as u32;

/// Indices of [`maps::LISTENERS`](super::maps::LISTENERS).
pub mod listener {
    /// The time at which a listening socket of this node was last closed.
    pub const CLOSED: u32 = 0;

    /// The time at which the last successful health probe of this node's server began, for a check
    /// of `0..MAX_CHECKS`.
    #[inline(always)]
    #[must_use]
    pub const fn asked(check: u8) -> u32 {
        1 + check as u32
    }
}

/// The longest answer lease that the programs accept. No agent writes a longer one, so that it does
/// not stand: a node must not answer for ever if its agent has failed.
///
/// The agent derives its leases from the advertisement interval (two and a half intervals of up to
/// 41 s) and from BFD. With long timers it renews the lease more often: `MAX_LEASE` in
/// vip-userspace/node.
pub const LONGEST_LEASE: Duration = Duration::from_secs(5);

/// Whether an answer lease that ends at `answer_until` stands: it ends after `now`, by at most
/// [`LONGEST_LEASE`].
#[inline(always)]
#[must_use]
pub const fn lease_stands(answer_until: BootNanos, now: BootNanos) -> bool {
    // If nothing is left, this wraps to the largest value.
    let left = answer_until.0.wrapping_sub(now.0).wrapping_sub(1);
    left < LONGEST_LEASE.as_nanos() as u64
}

/// [`Config::own_index`](super::Config::own_index) of a node that is not a backend.
pub const NOT_A_BACKEND: u32 = u32::MAX;
