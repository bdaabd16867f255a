//! What lies in the BPF maps: the contract between the agent, which writes it, and the
//! XDP and tcx programs, which read it.
//!
//! Everything is plain old data (`#[repr(C)]`, no padding that is not named), so that both
//! sides see the same bytes. A change of any type here is a new [`LAYOUT_VERSION`]: an agent
//! that finds pinned maps of another version must not write to them.

mod backends;
mod counters;
mod words;

use bytemuck::{Pod, Zeroable};

pub use self::backends::*;
pub use self::counters::*;
pub use self::words::*;
use crate::hash::ServiceHash;

/// Version of everything in this module. The agent stores it in [`Config::layout_version`]
/// and refuses to adopt pinned maps that carry another one.
pub const LAYOUT_VERSION: u32 = 6;

/// Ports of a bond whose Ethernet addresses are kept at once.
pub const MAX_BOND_PORTS: usize = 4;

/// Virtual addresses the program can serve at once.
pub const MAX_VIPS: usize = 16;

/// Services (TCP ports) that can be declared for one virtual address.
pub const MAX_PORTS: usize = 8;

/// Different checks of health. Services that the same server answers share one.
pub const MAX_CHECKS: usize = 8;

/// Backends (control-plane nodes), and so also ranks in a [`RankRow`].
pub const MAX_BACKENDS: usize = 16;

/// Buckets of the rank table unless configured otherwise. A power of two.
pub const DEFAULT_BUCKETS: u32 = 65_536;

/// Networks in all allow lists together.
pub const MAX_ALLOWED: u32 = 16_384;

/// Sources whose new connections are counted at once.
pub const MAX_SOURCES: u32 = 65_536;

/// Local sockets that were connected to a VIP and are remembered.
pub const MAX_REDIRECTED: u32 = 16_384;

/// Entries of [`maps::LISTENERS`].
pub const LISTENERS: u32 = 1 + MAX_CHECKS as u32;

/// Places in [`maps::LISTENERS`].
pub mod listener {
    /// When a socket of this node that listened was closed last.
    pub const CLOSED: u32 = 0;

    /// When the last probe began that found a listener on this node by a check, less than
    /// [`MAX_CHECKS`](super::MAX_CHECKS).
    #[inline(always)]
    #[must_use]
    pub const fn asked(check: u8) -> u32 {
        1 + check as u32
    }
}

/// How far ahead the programs let a fence end. One that ends later is no agent's, and counts as
/// down: a node that answers for ever, whatever became of its agent, is what fences are there to
/// prevent.
///
/// Fences follow from the interval of advertisements (two and a half of them, and these may be
/// 41 s apart) and from BFD. An agent whose timers are that long renews its fence before that:
/// `MAX_FENCE` in vip-userspace/src/decide/node.
pub const LONGEST_FENCE: core::time::Duration = core::time::Duration::from_secs(5);

/// Names of the maps, as the object file and `bpftool` show them.
pub mod maps {
    /// [`State`](super::State), a global of the programs. Its section gives the map its name.
    pub const STATE: &str = ".data.VIP_STATE";
    /// `Array<RankRow>`, mmapable, two halves of `bucket_mask + 1` rows each.
    pub const RANKS: &str = "VIP_RANKS";
    /// `Array<Mac>`, one entry: who claimed a VIP last and is no living node of the cluster. Written by
    /// the programs.
    pub const CLAIMANT: &str = "VIP_CLAIMANT";
    /// `LpmTrie<AllowKey, u32>`: who may use the services with [`flag::ALLOW_LIST`](super::flag).
    pub const ALLOWED: &str = "VIP_ALLOWED";
    /// `LruHash<Source, Bucket>`: new connections of each source, for services with a limit.
    pub const SOURCES: &str = "VIP_SOURCES";
    /// `LruHash<u64, Redirected>`: by its cookie, which VIP a local socket was connected to.
    pub const REDIRECTED: &str = "VIP_REDIRECTED";
    /// `Array<BootNanos>`, [`LISTENERS`](super::LISTENERS) entries: see
    /// [`listener`](super::listener). The first is written by the programs.
    pub const LISTENERS: &str = "VIP_LISTENERS";
    /// `PerCpuArray<u64>`, one entry a [`Counter`](super::Counter).
    pub const COUNTERS: &str = "VIP_COUNTERS";
    /// `PerCpuArray<BackendCounters>`, one entry a backend.
    pub const BACKEND_COUNTERS: &str = "VIP_BACKEND_CTR";
}

/// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`, `bpf_ktime_get_boot_ns`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct BootNanos(pub u64);

impl BootNanos {
    /// The beginning of time: a fence set to it is down.
    pub const ZERO: Self = Self(0);

    /// This time plus a duration, saturating.
    #[must_use]
    pub const fn after(self, duration: core::time::Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }

    /// This time less a duration, saturating.
    #[must_use]
    pub const fn before(self, duration: core::time::Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_nanos() as u64))
    }

    /// Whether a fence that ends at this time stands: not yet over, and not set further ahead
    /// than [`LONGEST_FENCE`].
    #[inline(always)]
    #[must_use]
    pub const fn stands(self, now: Self) -> bool {
        // Nothing left wraps to the most there is.
        let left = self.0.wrapping_sub(now.0).wrapping_sub(1);
        left < LONGEST_FENCE.as_nanos() as u64
    }

    /// How long from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> core::time::Duration {
        core::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

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
    /// Always 0: what makes the verifier forget, see [`State::any_below`].
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
    pub(crate) fn any_below<const LIMIT: usize>(&self, number: usize) -> usize {
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

/// [`Config::own_index`] of a node that is not a backend.
pub const NOT_A_BACKEND: u32 = u32::MAX;

/// A virtual address and what is declared for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Vip {
    /// The address.
    pub address: Be128,
    /// The fence: until when this node answers for the address. See [`BootNanos::stands`].
    pub owner_until: BootNanos,
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

/// What lies in the maps of the programs that benchmarks compare with. No part of the product.
pub mod bench {
    use super::{Be16, Mac, Pod, Zeroable};

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
}

#[cfg(test)]
mod tests;
