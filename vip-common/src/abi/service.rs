//! Virtual addresses, and the services declared for each.

use bytemuck::{Pod, Zeroable};

use super::limits::MAX_PORTS;
use crate::hash::ServiceHash;
use crate::wire::addr::{Be16, Be128};
use crate::wire::time::BootNanos;

/// A virtual address and what is declared for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Vip {
    /// The address.
    pub address: Be128,
    /// The lease: until when this node answers for the address. See [`BootNanos::stands`].
    pub answer_until: BootNanos,
    /// Services in use, `0..=MAX_PORTS`.
    pub service_count: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// What is steered. Any other port is dropped.
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
        for (place, service) in vip.services.iter_mut().zip(services) {
            *place = *service;
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

/// A TCP port of a VIP, and what becomes of connections to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Service {
    /// What clients connect to.
    pub port: Be16,
    /// What the nodes listen on. No two services of a VIP have the same.
    pub target: Be16,
    /// Different for each service: what its allow list goes by.
    pub id: u16,
    /// Which of the [`Masks::new_connections`] is its.
    pub check: u8,
    /// See [`flag`].
    pub flags: u8,
    /// New connections a second that one source may open, and as many at once, with
    /// [`flag::SYN_LIMIT`].
    pub syn_rate: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// What its flows are hashed with.
    pub hash: ServiceHash,
}

impl Service {
    /// A service that the nodes listen for on the port that clients connect to, for everybody,
    /// with the first check. `key` is that of [`Config`].
    #[must_use]
    pub fn new(key: [u64; 2], address: Be128, port: Be16) -> Self {
        Self {
            port,
            target: port,
            hash: ServiceHash::new(key, address, port),
            ..Self::zeroed()
        }
    }

    /// Whether the nodes listen on another port.
    #[inline(always)]
    #[must_use]
    pub fn maps_port(&self) -> bool {
        self.port != self.target
    }
}

/// [`Service::flags`].
pub mod flag {
    /// Only sources on its list may use it.
    pub const ALLOW_LIST: u8 = 1;
    /// A source may open only so many connections a second.
    pub const SYN_LIMIT: u8 = 2;
}
