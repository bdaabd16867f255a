//! The map of the programs that benchmarks compare with. Not part of the product.

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Mac};

/// The fields of the packet that `bench_feed` makes for each run.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Feed {
    /// The next flow, `0..flows`.
    pub next: u32,
    /// Number of flows.
    pub flows: u32,
    /// Ethernet destination of each packet.
    pub destination: Mac,
    /// Ethernet source of each packet.
    pub source: Mac,
    /// IPv4 source of the first 1,000 flows, in host byte order; each further 1,000 have the next
    /// one. IPv6 sources end with the same four bytes.
    pub clients: u32,
    /// TCP destination port of each packet.
    pub port: Be16,
    /// TTL or hop limit of each packet.
    pub ttl: u8,
    /// 1 for IPv6 packets, 0 for IPv4.
    pub ipv6: u8,
}
