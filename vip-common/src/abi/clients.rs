//! Keys and values of the tables of clients: limits, redirected sockets.

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Be128};

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
