//! How many hops a frame has made between nodes, and how many it may make.
//!
//! A forwarded frame has a small TTL (IPv6: hop limit): [`FIRST`] after the first hop, one less
//! after each further hop. TCP at the last node ignores the TTL. The frame itself thus carries the
//! bound, which holds whatever the nodes' source MACs, lists, hash keys and health are. In a
//! cluster of N nodes no frame makes more than N + 1 hops: one for each rank and one more. If the
//! nodes' lists differ in length, each node uses its own, and the longest one is the bound.
//!
//! A client's own frame may arrive with a TTL of [`FIRST`] or less. That is rare: most hosts send
//! with 64, 128 or 255, and few paths have 30 routers. Such a frame counts as if nodes had
//! forwarded it already:
//!
//! - With a TTL of more than 34 - N it has hops left to reach the first server, but perhaps not to
//!   pass all nodes that are down.
//! - With less, the node that receives it keeps it if it has the connection, or if the client may
//!   open one here. Otherwise the frame is dropped, never reset: a TCP traceroute does not end at
//!   the VIP.

use crate::abi::MAX_BACKENDS;

/// TTL of a frame after its first hop. It must be below the 64 that hosts send with, less the
/// routers on the path, and above [`MAX_BACKENDS`] + 1. This value leaves room for a second range
/// of the same length below it.
pub const FIRST: u8 = 34;

const _: () = assert!(FIRST as usize > MAX_BACKENDS + 1);

/// Whether a peer may have forwarded a frame with this TTL. A forwarded frame has at most
/// [`FIRST`].
#[inline(always)]
#[must_use]
pub const fn may_be_forwarded(ttl: u8) -> bool {
    ttl <= FIRST
}

/// The TTL with which a frame that arrived with `ttl` is forwarded: one less, and at most
/// [`FIRST`].
#[inline(always)]
#[must_use]
pub const fn lowered(ttl: u8) -> u8 {
    if ttl > FIRST {
        FIRST
    } else {
        ttl.saturating_sub(1)
    }
}

/// Whether a frame with this TTL has made all the hops that it may: `nodes` + 1. A number of nodes
/// above [`MAX_BACKENDS`] counts as [`MAX_BACKENDS`].
#[inline(always)]
#[must_use]
pub const fn are_spent(ttl: u32, nodes: u32) -> bool {
    let nodes = if nodes < MAX_BACKENDS as u32 {
        nodes
    } else {
        MAX_BACKENDS as u32
    };
    ttl + nodes <= FIRST as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_makes_one_hop_more_than_there_are_nodes() {
        for nodes in 1..=MAX_BACKENDS as u32 {
            for begins in [FIRST + 1, 64, 255] {
                let (mut ttl, mut hops) = (begins, 0);
                while !are_spent(ttl.into(), nodes) {
                    ttl = lowered(ttl);
                    hops += 1;
                    assert!(may_be_forwarded(ttl));
                }
                assert_eq!(hops, nodes + 1);
            }
            for ttl in 0..=FIRST {
                assert!(lowered(ttl) < ttl || ttl == 0);
            }
        }
        // A number of nodes that no agent writes.
        assert!(are_spent(1, u32::MAX) && !are_spent(64, u32::MAX));
    }
}
