//! Keys and values of the tables of clients: allow lists, limits, redirected sockets.

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Be128};

/// Key of the allow lists: the service's id, then an address or a prefix of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AllowKey {
    /// [`Service::id`](super::Service::id), all 32 bits of which are part of the prefix.
    pub service: u32,
    /// The source's address or network, as in [`Be128`].
    pub source: [u8; 16],
}

impl AllowKey {
    /// Bits of the key before the source.
    pub const SERVICE_BITS: u32 = 32;

    /// Bits of the whole key.
    pub const BITS: u32 = Self::SERVICE_BITS + 128;

    /// The key of a source for a lookup, or of a network for an entry.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: u16, source: Be128) -> Self {
        Self {
            service: service as u32,
            source: source.to_wire(),
        }
    }
}

/// Key of a token bucket: a source of connections and a service. A source is an IPv4 address or an
/// IPv6 /64, the smallest network that a site is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Source {
    /// The address or network, in network byte order.
    pub network: [u64; 2],
    /// [`Service::id`](super::Service::id).
    pub service: u64,
}

impl Source {
    /// The key of a client for a service.
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

/// The VIP that a local socket connected to, and the node that it was redirected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Redirected {
    /// The VIP.
    pub vip: Be128,
    /// The node's own address.
    pub node: Be128,
    /// The service's port on the VIP.
    pub port: Be16,
    /// The service's target on the node.
    pub target: Be16,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}
