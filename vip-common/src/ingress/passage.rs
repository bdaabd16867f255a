//! The facts about a frame that its TTL (IPv6: hop limit) carries from node to node.
//!
//! A frame that a node hands on has one of these TTLs. TCP at the last node ignores it.
//!
//! | TTL | the frame is | nodes asked |
//! |---|---|---|
//! | 19 to 34 | *clean* | 34 - TTL |
//! | 2 to 18 | *doubtful*: a node that may have the socket was passed over | 18 - TTL |
//! | 0, 1 | the *last resort* of its segment | |
//!
//! A node is *asked* if it has looked for the socket. Each hop after the first counts one node more
//! at least, so the TTL falls with each hop. A node that gets a frame with as many nodes asked as
//! its list has keeps it or drops it. In a cluster of N nodes no frame therefore makes more than
//! N + 1 hops, whatever the nodes' source MACs, lists, hash keys and health are. If the nodes'
//! lists differ in length, the longest one is the bound.
//!
//! A client's own frame may arrive with a TTL of [`FIRST`] or less. That is rare: most hosts send
//! with 64, 128 or 255, and few paths have 30 routers. Such a frame counts as one that an unknown
//! node has handed on: it is doubtful, and never reset. A TCP traceroute does not end at the VIP.

use crate::abi::lookup::is_peer;
use crate::abi::{MAX_BACKENDS, State};
use crate::wire::addr::Mac;

/// TTL of a frame on its first hop: clean, and no node has been asked. It must be below the 64 that
/// hosts send with, less the routers on the path.
pub(crate) const FIRST: u8 = 34;

/// TTL of a doubtful frame for which no node has been asked.
const FIRST_DOUBTFUL: u8 = FIRST - MAX_BACKENDS as u8;

/// TTL of a frame that the next node must keep or drop.
pub(crate) const LAST_RESORT: u8 = 1;

const _: () = assert!(FIRST_DOUBTFUL as usize - MAX_BACKENDS > LAST_RESORT as usize);

/// Whether a node may have handed on a frame with this TTL.
#[inline(always)]
#[must_use]
pub(super) const fn may_be_handed_on(ttl: u8) -> bool {
    ttl <= FIRST
}

/// The way of a frame between the nodes, up to this one.
#[derive(Clone, Copy)]
pub(super) struct Passage {
    /// A peer has handed the frame on.
    pub(super) from_peer: bool,
    /// The walk begins at this node's own rank: a peer has tried the ranks above, or no hop is left
    /// to try them.
    pub(super) starts_here: bool,
    /// This node counts as asked, whether or not it looks for the socket. So it is for a frame that
    /// was handed on: its TTL must fall.
    pub(super) counts: bool,
    /// A node that may have the socket was passed over. Such a segment is never reset.
    pub(super) doubtful: bool,
    /// The nodes that have been asked; more than [`MAX_BACKENDS`] for a last resort.
    pub(super) asked: u32,
}

impl Passage {
    /// The passage of a frame with this Ethernet source and TTL.
    ///
    /// It is hidden from the verifier, which would verify all later code once for each kind.
    #[inline(always)]
    pub(super) fn of(state: &State, source: Mac, ttl: u8) -> Self {
        let counts = may_be_handed_on(ttl);
        let from_peer = counts && is_peer(state, source);
        let doubtful = counts && (!from_peer || ttl <= FIRST_DOUBTFUL);
        let asked = if ttl <= FIRST_DOUBTFUL {
            FIRST_DOUBTFUL - ttl
        } else {
            FIRST.saturating_sub(ttl)
        };
        let hide = |bit: bool| state.hide_from_verifier::<2>(bit.into()) != 0;
        let starts_here = from_peer || is_spent(asked.into(), state);
        Self {
            from_peer: hide(from_peer),
            starts_here: hide(starts_here),
            counts: hide(counts),
            doubtful: hide(doubtful),
            asked: state.hide_from_verifier::<32>(asked.into()) as u32,
        }
    }

    /// Whether the frame has made all the hops that it may.
    #[inline(always)]
    pub(super) fn is_spent(&self, state: &State) -> bool {
        is_spent(self.asked, state)
    }

    /// Whether this node is the last resort of the segment.
    #[inline(always)]
    pub(super) const fn is_last_resort(&self) -> bool {
        self.asked > MAX_BACKENDS as u32
    }

    /// The TTL that tells the next node.
    #[inline(always)]
    pub(super) fn ttl(&self) -> u8 {
        let asked = self.asked.min(MAX_BACKENDS as u32) as u8;
        // The range of clean frames ends before this number.
        if self.doubtful || asked == MAX_BACKENDS as u8 {
            FIRST_DOUBTFUL - asked
        } else {
            FIRST - asked
        }
    }
}

/// Whether a frame has made all the hops that it may if so many nodes have been asked. A number of
/// nodes above [`MAX_BACKENDS`] counts as [`MAX_BACKENDS`].
#[inline(always)]
fn is_spent(asked: u32, state: &State) -> bool {
    asked >= state.config.backend_count.min(MAX_BACKENDS as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, node_mac};

    /// The TTL with which a frame that came with `ttl` is handed on; `None` if it is not.
    fn next(state: &State, ttl: u8, doubtful: bool) -> Option<u8> {
        let mut passage = Passage::of(state, node_mac(1), ttl);
        passage.asked += u32::from(passage.counts);
        passage.doubtful |= doubtful;
        let spent = Passage::of(state, node_mac(1), ttl).is_spent(state);
        (!spent).then(|| passage.ttl())
    }

    #[test]
    fn a_frame_makes_one_hop_more_than_there_are_nodes() {
        for nodes in 1..=MAX_BACKENDS {
            let state = World::new(nodes, 0).state;
            for doubtful in [false, true] {
                let (mut ttl, mut hops) = (64, 0);
                while let Some(left) = next(&state, ttl, doubtful) {
                    (ttl, hops) = (left, hops + 1);
                }
                assert_eq!(hops, nodes + 1);
                for ttl in 0..=u8::MAX {
                    let fewer = |left| left < ttl && left > LAST_RESORT && may_be_handed_on(left);
                    assert!(next(&state, ttl, doubtful).is_none_or(fewer), "{ttl}");
                }
            }
        }
    }

    #[test]
    fn the_ttl_carries_the_facts() {
        let state = World::new(MAX_BACKENDS, 0).state;
        for asked in 0..MAX_BACKENDS as u32 {
            for doubtful in [false, true] {
                let sent = Passage {
                    from_peer: true,
                    starts_here: true,
                    counts: true,
                    doubtful,
                    asked,
                };
                let got = Passage::of(&state, node_mac(1), sent.ttl());
                assert_eq!((got.doubtful, got.asked), (doubtful, asked));
                let unknown = Passage::of(&state, Mac::BROADCAST, sent.ttl());
                assert!(unknown.doubtful && !unknown.starts_here && unknown.counts);
            }
        }
        let client = Passage::of(&state, node_mac(1), FIRST + 1);
        assert!(!client.doubtful && !client.starts_here && !client.counts);
        assert!(Passage::of(&state, node_mac(1), LAST_RESORT).is_spent(&state));
    }
}
