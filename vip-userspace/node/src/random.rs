//! Numbers that differ from node to node and from peer to peer.

/// A number made of a seed and a place.
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mixed =
        (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}
