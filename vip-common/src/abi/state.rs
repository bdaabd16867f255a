//! The one value that packets are decided by, and the node it is about.

use bytemuck::{Pod, Zeroable};

use super::backends::{Backend, BackendIndex, BackendMask, MacFilter, Masks};
use super::limits::{MAX_BACKENDS, MAX_BOND_PORTS, MAX_VIPS};
use super::service::Vip;
use crate::wire::addr::{Be32, Be128, Mac};

/// What the program needs to know about its own node and about the sizes of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`] of the agent that wrote the maps.
    pub layout_version: u32,
    /// This node's own place among the backends; [`NOT_A_BACKEND`] if it is none.
    pub own_index: u32,
    /// Virtual addresses in use, `0..=MAX_VIPS`: those of IPv4 first.
    pub vip_count: u32,
    /// Those of IPv4 among them.
    pub ipv4_count: u32,
    /// Backends in use, `0..=MAX_BACKENDS`.
    pub backend_count: u32,
    /// Number of buckets less one. The number is a power of two.
    pub bucket_mask: u32,
    /// First row of the half of the rank table in use: 0 or `bucket_mask + 1`.
    pub rank_base: u32,
    /// Not 0 if connections from this node and its pods to a VIP are redirected.
    pub redirects: u32,
    /// Key of the flow hash (SipHash `k0`, `k1`), the same on all nodes of a cluster.
    pub hash_key: [u64; 2],
    /// Ethernet address of the NIC.
    pub own_mac: Mac,
    /// Those of its ports that are not the same, if it is a bond: one in mode balance-alb tells
    /// hosts to send to its ports' addresses. [`Mac::UNKNOWN`] in places that are not used.
    pub port_macs: [Mac; MAX_BOND_PORTS],
    /// What the nodes' Ethernet addresses have in common that others' mostly have not.
    pub peers: MacFilter,
    /// The node's own IPv4 address on the NIC, which ARP requests may name as their sender.
    pub own_address: Be32,
    /// Not 0 if any service has another port on the nodes: then what leaves from a VIP is
    /// looked at.
    pub maps_ports: u32,
    /// The nodes with an address of IPv4.
    pub ipv4_nodes: BackendMask,
    /// The nodes with an address of IPv6.
    pub ipv6_nodes: BackendMask,
    /// Number of the agent's network namespace (`SO_NETNS_COOKIE`), by which connections that
    /// the node itself makes are told from its pods'. 0 if the kernel does not tell (before Linux
    /// 5.14): then it counts as the first one.
    pub netns: u64,
    /// Always 0: what makes the verifier forget, see [`State::hide_from_verifier`].
    pub zero: u64,
}

impl Config {
    /// Whether a frame to this Ethernet address is to this node, as its stack sees it too.
    #[inline(always)]
    #[must_use]
    pub fn is_own(&self, mac: Mac) -> bool {
        if mac == self.own_mac {
            return true;
        }
        if mac.is_unknown() {
            return false;
        }
        // Left at the first match, so that the verifier does not look at each combination.
        for port in &self.port_macs {
            if *port == mac {
                return true;
            }
        }
        false
    }
}

impl Config {
    /// The nodes with an address of the family of `like`.
    #[inline(always)]
    #[must_use]
    pub const fn nodes_like(&self, like: Be128) -> BackendMask {
        if like.ipv4().is_some() {
            self.ipv4_nodes
        } else {
            self.ipv6_nodes
        }
    }

    /// Notes which nodes have addresses of which family.
    pub fn set_families(&mut self, backends: &[Backend]) {
        (self.ipv4_nodes, self.ipv6_nodes) = (BackendMask::EMPTY, BackendMask::EMPTY);
        for (place, backend) in backends.iter().enumerate() {
            let Some(index) = BackendIndex::new(place) else {
                break;
            };
            let has = |like| backend.address_like(like).is_some();
            self.ipv4_nodes = self
                .ipv4_nodes
                .with(index, has(Be32::from_wire([0; 4]).into()));
            self.ipv6_nodes = self.ipv6_nodes.with(index, has(Be128::UNSPECIFIED));
        }
    }
}

/// What a packet is decided by, but for the rank table.
///
/// One value, because the programs then know its address when they are loaded, and reading
/// any of it is a plain load: no lookup, no test for an entry that is always there. All zeros
/// (as it is loaded) it has no VIP, and nothing is steered.
///
/// The agent is the only writer and writes it whole. A program that reads meanwhile sees words
/// from before and after; those that must agree with each other never change together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct State {
    /// This node, and the sizes of the rest.
    pub config: Config,
    /// Who is alive, who gets new connections.
    pub masks: Masks,
    /// The nodes, the first `backend_count` in use.
    pub backends: [Backend; MAX_BACKENDS],
    /// The VIPs, the first `vip_count` in use.
    pub vips: [Vip; MAX_VIPS],
}

impl State {
    /// The same number, which is below `LIMIT`, a power of two; but the verifier no longer
    /// knows which one it is.
    ///
    /// It follows a search to each place where that may end. Were the places different to it
    /// from then on, it would verify all that comes behind once for each, and one search behind
    /// the other multiplies them: beyond the million instructions that it is willing to look
    /// at (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h).
    #[inline(always)]
    pub(crate) fn hide_from_verifier<const LIMIT: usize>(&self, number: usize) -> usize {
        const { assert!(LIMIT.is_power_of_two()) };
        number.wrapping_add(self.config.zero as usize) & (LIMIT - 1)
    }

    /// The nodes in use.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        let count = self.config.backend_count as usize;
        &self.backends[..count.min(MAX_BACKENDS)]
    }

    /// What the Ethernet addresses of the nodes in use have in common: for [`Config::peers`].
    #[must_use]
    pub fn peers(&self) -> MacFilter {
        let nodes = self.backends().iter();
        nodes
            .flat_map(|node| [node.mac, node.source])
            .filter(|mac| !mac.is_unknown())
            .fold(MacFilter::default(), MacFilter::with)
    }

    /// The VIPs in use.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        &self.vips[..(self.config.vip_count as usize).min(MAX_VIPS)]
    }
}
