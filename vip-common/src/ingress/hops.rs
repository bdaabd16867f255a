//! How many hops a frame has made between nodes, and how many it may make.
//!
//! A frame that a node hands on bears a small TTL (hop limit): [`FIRST`] after the first hop, one
//! less after each further one. The stack that it ends at does not mind. So the frame itself
//! carries the bound, and nothing that nodes know or believe (source MACs, lists, hash keys,
//! health) can make it go round: no frame makes more than N + 1 hops in a cluster of N nodes,
//! which is one for each rank and one more. Nodes whose lists differ in length each go by their
//! own, so the longest one bounds them all.
//!
//! What this means for a client whose own frames arrive with such a TTL (most begin at 64, 128 or
//! 255, and few ways have 30 routers): they count as if they had made the hops that are missing.
//! With a TTL of more than 34 - N, there are hops left for the way to the first server, if not
//! past all that are down. With less, they reach the server of the node that gets them, if it has
//! the connection or is the first in the row that may, and are dropped otherwise, never reset: a
//! traceroute by TCP does not end at the VIP.

use crate::abi::MAX_BACKENDS;

/// What a frame bears after its first hop. Any value below the 64 that hosts begin with, less the
/// routers on the way, and above [`MAX_BACKENDS`] + 1 would do. This one leaves room for a second
/// range of the same length below it.
pub const FIRST: u8 = 34;

const _: () = assert!(FIRST as usize > MAX_BACKENDS + 1);

/// Whether a frame with this TTL may have come from a node. None that comes from one has more.
#[inline(always)]
#[must_use]
pub const fn may_be_handed_on(ttl: u8) -> bool {
    ttl <= FIRST
}

/// What a frame bears that came with this TTL and is handed on: one less, and no more than
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

/// Whether a frame with this TTL has made all the hops that it may: one more than there are
/// nodes.
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
                    assert!(may_be_handed_on(ttl));
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
