//! What lies in the BPF maps: the contract between the agent, which writes it, and the
//! XDP and tcx programs, which read it.
//!
//! Everything is plain old data (`#[repr(C)]`, no padding that is not named), so that both
//! sides see the same bytes. A change of any type here is a new [`LAYOUT_VERSION`]: an agent
//! that finds pinned maps of another version must not write to them.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use crate::hash::ServiceHash;

/// Version of everything in this module. The agent stores it in [`Config::layout_version`]
/// and refuses to adopt pinned maps that carry another one.
pub const LAYOUT_VERSION: u32 = 2;

/// Virtual addresses the program can serve at once.
pub const MAX_VIPS: usize = 16;

/// TCP ports that can be declared for one virtual address.
pub const MAX_PORTS: usize = 8;

/// Backends (control-plane nodes), and so also ranks in a [`RankRow`].
pub const MAX_BACKENDS: usize = 16;

/// Buckets of the rank table unless configured otherwise. A power of two.
pub const DEFAULT_BUCKETS: u32 = 65_536;

/// Names of the maps, as the object file and `bpftool` show them.
pub mod maps {
    /// [`State`](super::State), a global of the programs. Its section gives the map its name.
    pub const STATE: &str = ".data.VIP_STATE";
    /// `Array<RankRow>`, mmapable, two halves of `bucket_mask + 1` rows each.
    pub const RANKS: &str = "VIP_RANKS";
    /// `Array<Mac>`, one entry: who claimed a VIP by ARP last and is no node of the cluster.
    /// Written by the programs.
    pub const CLAIMANT: &str = "VIP_CLAIMANT";
    /// `PerCpuArray<u64>`, one entry a [`Counter`](super::Counter).
    pub const COUNTERS: &str = "VIP_COUNTERS";
    /// `PerCpuArray<BackendCounters>`, one entry a backend.
    pub const BACKEND_COUNTERS: &str = "VIP_BACKEND_CTR";
}

/// A 16-bit word in network byte order, as it lies in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From the host's byte order.
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// In the host's byte order.
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The word as it lies in memory: what the kernel's `__be16` fields hold.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.get())
    }
}

/// A 32-bit word in network byte order, as it lies in the frame: an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// From the host's byte order.
    #[must_use]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The bytes as they lie in the frame.
    #[must_use]
    pub const fn to_wire(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The word as it lies in memory: what the kernel's `__be32` fields hold.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl From<core::net::Ipv4Addr> for Be32 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::from_wire(address.octets())
    }
}

impl From<Be32> for core::net::Ipv4Addr {
    fn from(word: Be32) -> Self {
        Self::from(word.to_wire())
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&core::net::Ipv4Addr::from(*self), f)
    }
}

/// An Ethernet address, packed into one word so that two of them compare in one instruction:
/// the six bytes as they lie in the frame, first byte lowest, the upper 16 bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Mac(u64);

impl Mac {
    /// All zeros: an address that is not known (yet).
    pub const UNKNOWN: Self = Self(0);

    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self::from_wire([0xff; 6]);

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(b: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([
            b[0], b[1], b[2], b[3], b[4], b[5], 0, 0,
        ]))
    }

    /// From the first four and the last two bytes as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(first: [u8; 4], last: [u8; 2]) -> Self {
        Self(u32::from_le_bytes(first) as u64 | (u16::from_le_bytes(last) as u64) << 32)
    }

    /// The first four and the last two bytes as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn to_words(self) -> ([u8; 4], [u8; 2]) {
        (
            (self.0 as u32).to_le_bytes(),
            ((self.0 >> 32) as u16).to_le_bytes(),
        )
    }

    /// The bytes as they lie in the frame.
    #[must_use]
    pub const fn to_wire(self) -> [u8; 6] {
        let b = self.0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }

    /// True for [`Self::UNKNOWN`].
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        self.0 == 0
    }

    /// True for multicast and broadcast (IEEE 802.3, the I/G bit).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0 & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.to_wire();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of Ethernet addresses, kept in one word: it may hold more than was put in, never less
/// (a Bloom filter of one hash, the last byte modulo 64).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct MacFilter(u64);

impl MacFilter {
    const fn bit(mac: Mac) -> u64 {
        1 << (mac.0 >> 40 & 63)
    }

    /// False if the address was surely not put in.
    #[inline(always)]
    #[must_use]
    pub const fn may_hold(self, mac: Mac) -> bool {
        self.0 & Self::bit(mac) != 0
    }

    /// With the address put in.
    #[must_use]
    pub const fn with(self, mac: Mac) -> Self {
        Self(self.0 | Self::bit(mac))
    }
}

/// Which backend: the place of a node in the configured list, `0..MAX_BACKENDS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(u8);

impl BackendIndex {
    /// `None` from [`MAX_BACKENDS`] on.
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_BACKENDS {
            Some(Self(index as u8))
        } else {
            None
        }
    }

    /// For indexing maps and slices.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for BackendIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A set of backends, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct BackendMask(u32);

impl BackendMask {
    /// No backend.
    pub const EMPTY: Self = Self(0);

    /// The first `count` backends.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        Self(
            ((1_u64
                << if count < MAX_BACKENDS {
                    count
                } else {
                    MAX_BACKENDS
                })
                - 1) as u32,
        )
    }

    /// Whether the backend is in the set.
    #[must_use]
    pub const fn contains(self, backend: BackendIndex) -> bool {
        self.0 >> backend.0 & 1 != 0
    }

    /// The set with the backend in it (`true`) or without it (`false`).
    #[must_use]
    pub const fn with(self, backend: BackendIndex, member: bool) -> Self {
        let bit = 1 << backend.0;
        Self(if member { self.0 | bit } else { self.0 & !bit })
    }

    /// True if no backend is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both sets hold.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for BackendMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06b}", self.0)
    }
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
    /// Virtual addresses in use, `0..=MAX_VIPS`.
    pub vip_count: u32,
    /// Backends in use, `0..=MAX_BACKENDS`.
    pub backend_count: u32,
    /// Number of buckets less one. The number is a power of two.
    pub bucket_mask: u32,
    /// First row of the half of the rank table in use: 0 or `bucket_mask + 1`.
    pub rank_base: u32,
    /// Key of the flow hash (SipHash `k0`, `k1`), the same on all nodes of a cluster.
    pub hash_key: [u64; 2],
    /// Ethernet address of the NIC.
    pub own_mac: Mac,
    /// What the nodes' Ethernet addresses have in common that others' mostly have not.
    pub peers: MacFilter,
    /// The node's own address on the NIC, which ARP requests may name as their sender.
    pub own_address: Be32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
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
    /// Who is alive, who is ready.
    pub masks: Masks,
    /// The nodes, the first `backend_count` in use.
    pub backends: [Backend; MAX_BACKENDS],
    /// The VIPs, the first `vip_count` in use.
    pub vips: [Vip; MAX_VIPS],
}

impl State {
    /// The nodes in use.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        let count = self.config.backend_count as usize;
        &self.backends[..count.min(MAX_BACKENDS)]
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
    pub address: Be32,
    /// Ports in use, `0..=MAX_PORTS`.
    pub port_count: u32,
    /// The fence: until when this node answers for the address.
    pub owner_until: BootNanos,
    /// TCP ports that are steered. Any other is dropped.
    pub ports: [Be16; MAX_PORTS],
    /// What flows to each of the ports are hashed with.
    pub hashes: [ServiceHash; MAX_PORTS],
}

impl Vip {
    /// A VIP with the first [`MAX_PORTS`] of these ports; the key is that of [`Config`].
    #[must_use]
    pub fn new(address: Be32, ports: &[Be16], hash_key: [u64; 2]) -> Self {
        let mut vip = Self {
            address,
            ..Self::zeroed()
        };
        for (index, &port) in ports.iter().take(MAX_PORTS).enumerate() {
            vip.ports[index] = port;
            vip.hashes[index] = ServiceHash::new(hash_key, address, port);
            vip.port_count = index as u32 + 1;
        }
        vip
    }
}

/// A node that may get packets for the VIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Backend {
    /// Where to send its frames; all zeros while unknown, and then nothing is sent.
    pub mac: Mac,
    /// The node's own address.
    pub address: Be32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// Health, as bits: a change of health rewrites these eight bytes and no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Masks {
    /// The node answers. Open connections may be sent there.
    pub alive: BackendMask,
    /// Its API server says it is ready and it does not drain. New connections may be sent there.
    pub ready: BackendMask,
}

impl Masks {
    /// Where new connections may go. If no backend is ready (etcd has lost its quorum, say),
    /// any that lives: never worse than no balancer at all.
    #[must_use]
    pub const fn for_new_connections(self) -> BackendMask {
        let ready = self.ready.and(self.alive);
        if ready.is_empty() { self.alive } else { ready }
    }
}

/// One bucket: all backends, in this bucket's order of rank.
///
/// Four bits a rank, the first rank lowest: a row is one word and the walk down it a shift, and
/// 65,536 rows are 512 KiB, which a core's second cache still holds. Ranks from `backend_count`
/// on mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct RankRow(u64);

/// Bits of a rank in a [`RankRow`].
const RANK_BITS: usize = 4;

const _: () = assert!(MAX_BACKENDS == 1 << RANK_BITS && MAX_BACKENDS * RANK_BITS == 64);

impl RankRow {
    /// From the backends in the order of their ranks; from [`MAX_BACKENDS`] on they are left out.
    #[must_use]
    pub fn new(order: impl IntoIterator<Item = BackendIndex>) -> Self {
        let ranks = order.into_iter().take(MAX_BACKENDS).enumerate();
        Self(ranks.fold(0, |row, (rank, backend)| {
            row | u64::from(backend.0) << (rank * RANK_BITS)
        }))
    }

    /// The backend of the first rank, whatever the number of backends.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> BackendIndex {
        BackendIndex(self.0 as u8 & (MAX_BACKENDS - 1) as u8)
    }

    /// The row without its first rank.
    #[inline(always)]
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(self.0 >> RANK_BITS)
    }

    /// The first `count` backends in the order of their ranks.
    pub fn order(self, count: usize) -> impl Iterator<Item = BackendIndex> {
        core::iter::successors(Some(self), |row| Some(row.rest()))
            .map(Self::first)
            .take(count.min(MAX_BACKENDS))
    }
}

/// Traffic of one backend, as this node steered it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct BackendCounters {
    /// Frames sent to the backend or, on the backend itself, passed to its own stack.
    pub packets: u64,
    /// Bytes of those frames, Ethernet header included, FCS not.
    pub bytes: u64,
    /// SYNs among them.
    pub syns: u64,
}

impl core::ops::Add for BackendCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            syns: self.syns + other.syns,
        }
    }
}

/// What lies in the maps of the programs that benchmarks compare with. No part of the product.
pub mod bench {
    use super::{Mac, Pod, Zeroable};

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
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What became of a frame: one counter a verdict. Names are those of metrics and status.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All of them, in the order of their index in the map.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// `snake_case`, as in metrics and in `vip status --json`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One line for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }

            /// Index in the map of counters.
            #[must_use]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

counters! {
    /// Not for a VIP: untouched. Not counted, to keep that path short; never seen in the map.
    Untouched = "untouched",
    /// SYN sent on to another node.
    ForwardedSyn = "forwarded_syn",
    /// Any other segment sent on to another node.
    ForwardedSegment = "forwarded_segment",
    /// SYN passed to this node's own stack.
    LocalSyn = "local_syn",
    /// Any other segment passed to this node's own stack, which has its connection.
    LocalSegment = "local_segment",
    /// Acknowledgement of a SYN cookie of this node, passed to its stack.
    LocalCookie = "local_cookie",
    /// No node has the connection or a listener: passed to this stack, which resets it.
    NoSocket = "no_socket",
    /// Went from node to node until its TTL ran out: dropped. The nodes' configurations differ.
    TtlExceeded = "ttl_exceeded",
    /// A TCP port that is not declared for the VIP: dropped.
    UndeclaredPort = "undeclared_port",
    /// A protocol other than TCP and ICMP for the VIP: dropped.
    OtherProtocol = "other_protocol",
    /// A fragment of TCP for the VIP: dropped.
    Fragment = "fragment",
    /// Headers that contradict themselves or the frame, for the VIP: dropped.
    Malformed = "malformed",
    /// Shorter than its headers, before a VIP could be seen in it: passed.
    Short = "short",
    /// For the VIP, but not for this NIC's address (flooded, promiscuous): passed, the stack drops it.
    OtherHost = "other_host",
    /// ICMP for the VIP: passed to this node's stack.
    Icmp = "icmp",
    /// ARP request for the VIP, answered.
    ArpAnswered = "arp_answered",
    /// ARP request for the VIP on a node that does not own it: dropped.
    ArpNotOwner = "arp_not_owner",
    /// Gratuitous ARP for the VIP from a node of the cluster: dropped.
    ArpAnnouncement = "arp_announcement",
    /// ARP from somebody else who claims the VIP as his own: dropped.
    ArpConflict = "arp_conflict",
    /// Any other ARP: passed.
    ArpPassed = "arp_passed",
    /// Outgoing ARP that named the VIP as its sender: rewritten to name the node.
    GuardRewritten = "guard_rewritten",
    /// Outgoing announcement of the VIP from a node whose fence is down: dropped.
    GuardDropped = "guard_dropped",
}

/// Length of the map of counters.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_wire_order_and_host_value_apart() {
        assert_eq!(Be16::new(6443).get(), 6443);
        assert_eq!(Be16::from_wire([0x19, 0x2b]).get(), 6443);
        assert_eq!(Be32::from_wire([10, 0, 0, 1]).to_wire(), [10, 0, 0, 1]);
        let mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
        assert_eq!(Mac::from_wire(mac).to_wire(), mac);
        assert!(Mac::BROADCAST.is_multicast() && !Mac::from_wire(mac).is_multicast());
    }

    #[test]
    fn counters_index_is_their_place_in_the_list() {
        for (place, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter.index() as usize, place);
        }
    }

    #[test]
    fn no_ready_backend_means_any_living_one() {
        let index = |i| BackendIndex::new(i).expect("small");
        let alive = BackendMask::first(3);
        let ready = BackendMask::EMPTY.with(index(1), true);
        assert_eq!(Masks { alive, ready }.for_new_connections(), ready);
        assert_eq!(
            Masks {
                alive,
                ready: BackendMask::EMPTY
            }
            .for_new_connections(),
            alive
        );
        // Ready but dead (the probe is slower than the liveness check): not ready.
        let dead = alive.with(index(1), false);
        assert_eq!(Masks { alive: dead, ready }.for_new_connections(), dead);
    }
}
