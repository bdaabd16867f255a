//! Frames and tables for unit tests, for the comparison of host and kernel, for fuzzing and for
//! benchmarks: one cluster of nodes in memory, and every kind of frame that may reach a node.

mod addresses;
mod check;
mod neighbor;
mod random;
mod segment;
mod world;

pub use self::addresses::{
    BANNED, BANNED6, CLIENT, CLIENT_MAC, CLIENT6, PORT, VIP, VIP6, node_address, node_address6,
    node_mac,
};
pub use self::check::{check_bfd, check_input};
pub use self::neighbor::{arp_frame, arp_request, ndp_frame, solicitation};
pub use self::random::Random;
pub use self::segment::{ACKNOWLEDGEMENT, SEQUENCE, Segment, checksums_are_right};
pub use self::world::{HASH_KEY, NOW, ROWS, Seen, World, backend};
