//! The addresses of the cluster and of its clients.

use crate::wire::addr::{Be32, Be128, Mac};

/// The cluster's IPv4 VIP.
pub const VIP: Be32 = Be32::from_wire([10, 0, 0, 10]);
/// The cluster's IPv6 VIP.
pub const VIP6: Be128 = ipv6_address(0x10);
/// Port and target of the service that both VIPs have.
pub const PORT: u16 = 6443;
/// IPv4 address of a client.
pub const CLIENT: Be32 = Be32::from_wire([10, 0, 0, 100]);
/// IPv6 address of the same client.
pub const CLIENT6: Be128 = ipv6_address(0x100);
/// IPv4 address of a client that no allow list has.
pub const BANNED: Be32 = Be32::from_wire([10, 6, 6, 6]);
/// IPv6 address of the same client.
pub const BANNED6: Be128 = ipv6_address(0x666);
/// Ethernet address that clients' frames come from: a client's NIC or a router's.
pub const CLIENT_MAC: Mac = Mac::from_wire([2, 0, 0, 0, 1, 0]);

/// Ethernet address of the node with this index.
#[must_use]
pub const fn node_mac(index: usize) -> Mac {
    Mac::from_wire([2, 0, 0, 0, 0, 11 + index as u8])
}

/// IPv4 address of the node with this index.
#[must_use]
pub const fn node_address(index: usize) -> Be32 {
    Be32::from_wire([10, 0, 0, 11 + index as u8])
}

/// IPv6 address of the node with this index.
#[must_use]
pub const fn node_address6(index: usize) -> Be128 {
    ipv6_address(0x11 + index as u16)
}

/// `fd00::` plus `last`.
pub(super) const fn ipv6_address(last: u16) -> Be128 {
    let [a, b] = last.to_be_bytes();
    Be128::from_wire([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b])
}
