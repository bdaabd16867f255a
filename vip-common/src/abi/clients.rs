//! Keys and values of the maps that know clients: allow lists, limits, redirected sockets.

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Be128};

/// Key of the allow lists: a prefix of the service's number and the source's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AllowKey {
    /// [`Service::id`]; always the whole of it.
    pub service: u32,
    /// The source, or its network.
    pub source: [u8; 16],
}

impl AllowKey {
    /// Bits of the key before the source.
    pub const SERVICE_BITS: u32 = 32;

    /// Bits of the whole key.
    pub const BITS: u32 = Self::SERVICE_BITS + 128;

    /// The key to look a source up by, or to put a network in by.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: u16, source: Be128) -> Self {
        Self {
            service: service as u32,
            source: source.to_wire(),
        }
    }
}

/// A source of connections: an address of IPv4, a /64 of IPv6, which is as little as anybody is
/// given; with the service's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Source {
    /// The address or network.
    pub network: [u64; 2],
    /// [`Service::id`].
    pub service: u64,
}

impl Source {
    /// That of a client.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: u16, client: Be128) -> Self {
        let [high, low] = client.words();
        let network = if client.ipv4().is_some() {
            [high, low]
        } else {
            [high, 0]
        };
        Self {
            network,
            service: service as u64,
        }
    }
}

/// The VIP that a local socket believes to be connected to, and where it really is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Redirected {
    /// The VIP.
    pub vip: Be128,
    /// The node.
    pub node: Be128,
    /// The service's port.
    pub port: Be16,
    /// The port on the node.
    pub target: Be16,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}
