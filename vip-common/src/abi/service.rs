//! Virtual addresses, and the services declared for each.

use bytemuck::{Pod, Zeroable};

use super::allow::AllowNode;
use super::limits::MAX_PORTS;
use crate::hash::ServiceHash;
use crate::wire::addr::{Be16, Be128};
use crate::wire::time::BootNanos;

/// A virtual address and its services.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Vip {
    /// The address, of either family.
    pub address: Be128,
    /// The end of this node's answer lease: until then it answers for the address. See
    /// [`lease_stands`](super::lease_stands).
    pub answer_until: BootNanos,
    /// Services in use, `1..=MAX_PORTS`.
    pub service_count: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// The first `service_count` are in use. Segments to any other port are dropped.
    pub services: [Service; MAX_PORTS],
}

impl Vip {
    /// A VIP with the first [`MAX_PORTS`] of these services.
    #[must_use]
    pub fn new(address: Be128, services: &[Service]) -> Self {
        let mut vip = Self {
            address,
            ..Self::zeroed()
        };
        for (entry, service) in vip.services.iter_mut().zip(services) {
            *entry = *service;
            vip.service_count += 1;
        }
        vip
    }

    /// The services in use.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services[..(self.service_count as usize).min(MAX_PORTS)]
    }
}

/// A TCP port of a VIP, and how connections to it are steered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Service {
    /// The port that clients connect to.
    pub port: Be16,
    /// The port that the nodes listen on. Each service of a VIP has another one.
    pub target: Be16,
    /// Key of the service in the tables of clients; different for each service.
    pub id: u16,
    /// Index of its health check, `0..MAX_CHECKS`, in
    /// [`Masks::new_connections`](super::Masks::new_connections).
    pub check: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// With [`flag::SYN_LIMIT`]: new connections for each second that one source may open. It is
    /// also the largest burst.
    pub syn_rate: u32,
    /// With [`flag::ALLOW_LIST`]: the root of its list in the
    /// [`AllowTable`](super::AllowTable).
    pub allowed: AllowNode,
    /// The hash of its flows.
    pub hash: ServiceHash,
}

impl Service {
    /// A service whose target is its port, open to all clients, with the first check. `key` is
    /// [`Config::hash_key`](super::Config::hash_key).
    #[must_use]
    pub fn new(key: [u64; 2], address: Be128, port: Be16) -> Self {
        Self {
            port,
            target: port,
            hash: ServiceHash::new(key, address, port),
            ..Self::zeroed()
        }
    }

    /// Whether the target is another port than the one that clients connect to.
    #[inline(always)]
    #[must_use]
    pub fn maps_port(&self) -> bool {
        self.port != self.target
    }
}

/// Bits of [`Service::flags`].
pub mod flag {
    /// Only sources on the service's allow list may use it.
    pub const ALLOW_LIST: u8 = 1;
    /// A source may open only [`Service::syn_rate`](super::Service::syn_rate) connections for each
    /// second.
    pub const SYN_LIMIT: u8 = 2;
}
