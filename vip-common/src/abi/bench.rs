//! What lies in the maps of the programs that benchmarks compare with. No part of the product.

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Mac};

/// How packets are made anew between runs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Feed {
    /// The next flow, `0..flows`.
    pub next: u32,
    /// How many flows there are.
    pub flows: u32,
    /// Ethernet destination of each packet.
    pub destination: Mac,
    /// Ethernet source of each packet.
    pub source: Mac,
    /// 1 if packets are of IPv6, else 0.
    pub ipv6: u32,
    /// The port each packet goes to.
    pub port: Be16,
    /// Zero.
    pub reserved: u16,
}
