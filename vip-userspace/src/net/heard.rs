//! An answer to the question who has an address.

use std::net::IpAddr;

use vip_common::wire::addr::Mac;

/// A host has said who has an address, by ARP or by Neighbour Discovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The address.
    pub address: IpAddr,
    /// The Ethernet address that has it, as the host says.
    pub mac: Mac,
}
