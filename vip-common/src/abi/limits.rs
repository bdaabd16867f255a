//! Sizes and bounds that both sides go by.

use core::time::Duration;

use crate::wire::time::BootNanos;

/// Version of everything in this module. The agent stores it in [`Config::layout_version`]
/// and refuses to adopt pinned maps that carry another one.
pub const LAYOUT_VERSION: u32 = 6;

/// Ports of a bond whose Ethernet addresses are kept at once.
pub const MAX_BOND_PORTS: usize = 4;

/// Virtual addresses the program can serve at once.
pub const MAX_VIPS: usize = 16;

/// Services (TCP ports) that can be declared for one virtual address.
pub const MAX_PORTS: usize = 8;

/// Different checks of health. Services that the same server answers share one.
pub const MAX_CHECKS: usize = 8;

/// Backends (control-plane nodes), and so also ranks in a [`RankRow`].
pub const MAX_BACKENDS: usize = 16;

/// Buckets of the rank table unless configured otherwise. A power of two.
pub const DEFAULT_BUCKETS: u32 = 65_536;

/// Networks in all allow lists together.
pub const MAX_ALLOWED: u32 = 16_384;

/// Sources whose new connections are counted at once.
pub const MAX_SOURCES: u32 = 65_536;

/// Local sockets that were connected to a VIP and are remembered.
pub const MAX_REDIRECTED: u32 = 16_384;

/// Entries of [`maps::LISTENERS`].
pub const LISTENERS: u32 = 1 + MAX_CHECKS as u32;

/// Places in [`maps::LISTENERS`].
pub mod listener {
    /// When a socket of this node that listened was closed last.
    pub const CLOSED: u32 = 0;

    /// When the last probe began that found a listener on this node by a check, less than
    /// [`MAX_CHECKS`](super::MAX_CHECKS).
    #[inline(always)]
    #[must_use]
    pub const fn asked(check: u8) -> u32 {
        1 + check as u32
    }
}

/// How far ahead the programs let a lease end. One that ends later is no agent's, and counts as
/// down: a node that answers for ever, whatever became of its agent, is what leases are there to
/// prevent.
///
/// Leases follow from the interval of advertisements (two and a half of them, and these may be
/// 41 s apart) and from BFD. An agent whose timers are that long renews its lease before that:
/// `MAX_LEASE` in vip-userspace/node.
pub const LONGEST_LEASE: Duration = Duration::from_secs(5);

/// Whether a lease that ends at `answer_until` stands: not yet over, and not set further ahead than
/// [`LONGEST_LEASE`].
#[inline(always)]
#[must_use]
pub const fn lease_stands(answer_until: BootNanos, now: BootNanos) -> bool {
    // Nothing left wraps to the most there is.
    let left = answer_until.0.wrapping_sub(now.0).wrapping_sub(1);
    left < LONGEST_LEASE.as_nanos() as u64
}

/// [`Config::own_index`](super::Config::own_index) of a node that is not a backend.
pub const NOT_A_BACKEND: u32 = u32::MAX;
