//! The [`State`] of the programs: everything that a decision reads but the rank table and the
//! tables of clients.

use bytemuck::{Pod, Zeroable};

use super::backends::{Backend, BackendIndex, BackendMask, MacFilter, Masks};
use super::limits::{MAX_BACKENDS, MAX_BOND_PORTS, MAX_VIPS};
use super::service::Vip;
use crate::wire::addr::{Be32, Be128, Mac};
use crate::wire::time::BootNanos;

/// This node, and the sizes of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`](super::LAYOUT_VERSION) of the agent that wrote the maps.
    pub layout_version: u32,
    /// Not 0 if connections from this node and its pods to a VIP are redirected.
    pub redirects: u32,
    /// Key from which the flow hashes and the rank table are made, the same on all nodes of a
    /// cluster. No program reads it.
    pub hash_key: [u64; 2],
    /// Ethernet addresses of the NIC's ports that differ from `own_mac`, if the NIC is a bond: in
    /// mode balance-alb it tells hosts to send to those. [`Mac::UNKNOWN`] in entries that are not
    /// used.
    pub port_macs: [Mac; MAX_BOND_PORTS],
    /// The node's own IPv4 address on the NIC, which the egress program writes into ARP requests.
    pub own_address: Be32,
    /// Not 0 if any service has a target other than its port: the egress program then rewrites
    /// segments from VIPs.
    pub maps_ports: u32,
    /// The nodes with an IPv4 address.
    pub ipv4_nodes: BackendMask,
    /// The nodes with an IPv6 address.
    pub ipv6_nodes: BackendMask,
    /// Cookie of the agent's network namespace (`SO_NETNS_COOKIE`). It tells connections of the
    /// node itself from those of its pods. 0 before Linux 5.14, where the agent cannot read it: the
    /// initial network namespace then counts as the agent's.
    pub netns: u64,
    // From here to the end of the masks: what nearly every frame for a VIP reads, side by side.
    /// A filter of the nodes' Ethernet addresses: see [`State::peers`].
    pub peers: MacFilter,
    /// Ethernet address of the NIC.
    pub own_mac: Mac,
    /// Ethernet destination of the frames that the straight path decides about: `own_mac`, or
    /// [`Mac::UNKNOWN`] if the programs are to log each frame, which only the longer way does.
    pub straight_mac: Mac,
    /// Always 0. Only [`State`]'s `hide_from_verifier` reads it.
    pub zero: u64,
    /// Number of IPv4 VIPs in use.
    pub ipv4_count: u32,
    /// Number of IPv6 VIPs in use; [`MAX_VIPS`] with those of IPv4 at most.
    pub ipv6_count: u32,
    /// Index of this node among the backends; [`NOT_A_BACKEND`](super::NOT_A_BACKEND) if it is
    /// none.
    pub own_index: u32,
    /// Number of backends in use, `0..=MAX_BACKENDS`: so many ranks each row has.
    pub backend_count: u32,
    /// Index of the first row of the half of the rank table in use: 0 or
    /// [`BUCKETS`](super::BUCKETS).
    pub rank_base: u32,
    /// One more than the highest index of a backend in use, `0..=MAX_BACKENDS`. Below it there may
    /// be entries that are not in use.
    pub slot_count: u32,
}

impl Config {
    /// Whether a frame to this Ethernet address is for this node's stack.
    #[inline(always)]
    #[must_use]
    pub fn is_own(&self, mac: Mac) -> bool {
        if mac == self.own_mac {
            return true;
        }
        if mac.is_unknown() {
            return false;
        }
        // Returns at the first match, so that the verifier does not follow each combination.
        for port in &self.port_macs {
            if *port == mac {
                return true;
            }
        }
        false
    }
}

impl Config {
    /// The nodes that have an address of the same family as `like`.
    #[inline(always)]
    #[must_use]
    pub const fn nodes_like(&self, like: Be128) -> BackendMask {
        if like.ipv4().is_some() {
            self.ipv4_nodes
        } else {
            self.ipv6_nodes
        }
    }

    /// Sets `ipv4_nodes` and `ipv6_nodes` from the backends.
    pub fn set_families(&mut self, backends: &[Backend]) {
        (self.ipv4_nodes, self.ipv6_nodes) = (BackendMask::EMPTY, BackendMask::EMPTY);
        for (index, backend) in backends.iter().enumerate() {
            let Some(index) = BackendIndex::new(index) else {
                break;
            };
            let has = |like| backend.is_used() && backend.address_like(like).is_some();
            self.ipv4_nodes = self
                .ipv4_nodes
                .with(index, has(Be32::from_wire([0; 4]).into()));
            self.ipv6_nodes = self.ipv6_nodes.with(index, has(Be128::UNSPECIFIED));
        }
    }
}

/// Everything that a decision reads but the rank table and the tables of clients.
///
/// It is one global value. The programs know its address when they are loaded, and read it with
/// plain loads: no lookup, and no test for an entry that is always there. It is loaded with all
/// zeros: there is no VIP then, and nothing is steered.
///
/// The agent is the only writer and writes all of it. A program that reads at the same time sees
/// old and new words. Words that must agree with each other never change together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct State {
    /// This node, and the sizes of the rest.
    pub config: Config,
    /// Health of the backends.
    pub masks: Masks,
    /// Until then, a segment may be reset that no node has the socket for. The agent moves it on,
    /// as it does an answer lease: a verdict of a dead agent must not hold for ever.
    pub resets_until: BootNanos,
    /// The backends. Entries that are not in use are zero.
    pub backends: [Backend; MAX_BACKENDS],
    /// The addresses of the first `ipv4_count` VIPs, side by side for a quick search.
    pub ipv4: [Be32; MAX_VIPS],
    /// The addresses of the next `ipv6_count` VIPs.
    pub ipv6: [Be128; MAX_VIPS],
    /// The VIPs, those of IPv4 first.
    pub vips: [Vip; MAX_VIPS],
}

impl State {
    /// Returns `number`, which must be below `LIMIT`, a power of two. The verifier afterwards knows
    /// only that bound.
    ///
    /// The verifier follows a search to each index where it can end. If it knew the index, it would
    /// verify all later code once for each. Several searches in a row multiply this beyond the
    /// million instructions that it verifies at most (`BPF_COMPLEXITY_LIMIT_INSNS`,
    /// include/linux/bpf.h).
    #[inline(always)]
    pub(crate) fn hide_from_verifier<const LIMIT: usize>(&self, number: usize) -> usize {
        const { assert!(LIMIT.is_power_of_two()) };
        number.wrapping_add(self.config.zero as usize) & (LIMIT - 1)
    }

    /// The backends in use, with their indices.
    pub fn backends(&self) -> impl Iterator<Item = (BackendIndex, &Backend)> {
        let backends = self.backends.iter().enumerate();
        let backends = backends.filter(|(_, backend)| backend.is_used());
        backends.filter_map(|(index, backend)| Some((BackendIndex::new(index)?, backend)))
    }

    /// The filter of the Ethernet addresses of all backends in use, for [`Config::peers`].
    #[must_use]
    pub fn peers(&self) -> MacFilter {
        self.backends()
            .flat_map(|(_, node)| [node.mac, node.source])
            .filter(|mac| !mac.is_unknown())
            .fold(MacFilter::default(), MacFilter::with)
    }

    /// Sets the VIPs in use, of which those of IPv4 come first. At most [`MAX_VIPS`] are taken.
    pub fn set_vips(&mut self, vips: impl IntoIterator<Item = Vip>) {
        (self.config.ipv4_count, self.config.ipv6_count) = (0, 0);
        for (entry, vip) in self.vips.iter_mut().zip(vips) {
            *entry = vip;
            match vip.address.ipv4() {
                Some(address) => {
                    self.ipv4[self.config.ipv4_count as usize] = address;
                    self.config.ipv4_count += 1;
                }
                None => {
                    self.ipv6[self.config.ipv6_count as usize] = vip.address;
                    self.config.ipv6_count += 1;
                }
            }
        }
    }

    /// The VIPs in use.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        let count = self.config.ipv4_count + self.config.ipv6_count;
        &self.vips[..(count as usize).min(MAX_VIPS)]
    }
}
