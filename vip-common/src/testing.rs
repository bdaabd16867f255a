//! Frames and tables for unit tests, for the comparison of host and kernel, for fuzzing and
//! for benchmarks: one cluster of nodes in memory, and every kind of frame that may reach it.

use std::vec::Vec;

use bytemuck::Zeroable as _;

use crate::abi::{
    Backend, BackendIndex, BackendMask, Config, LAYOUT_VERSION, LONGEST_LEASE, Masks, RankRow,
    Service, State, Vip, flag,
};
use crate::egress;
use crate::env::{Address, Socket, Sockets, Tables};
use crate::hash::Flow;
use crate::ingress::untag::untag;
use crate::ingress::{self, Action};
use crate::verdict::{Kind, Verdict};
use crate::wire::addr::{Be16, Be32, Be128, Mac};
use crate::wire::time::BootNanos;
use crate::wire::{arp, ethernet, icmp, ipv4, ipv6, ndp, tcp, vlan};

/// The virtual address of the cluster.
pub const VIP: Be32 = Be32::from_wire([10, 0, 0, 10]);
/// Its other one.
pub const VIP6: Be128 = ipv6_address(0x10);
/// The port that is declared for both.
pub const PORT: u16 = 6443;
/// A client on the segment.
pub const CLIENT: Be32 = Be32::from_wire([10, 0, 0, 100]);
/// The same client's other address.
pub const CLIENT6: Be128 = ipv6_address(0x100);
/// A source that allow lists do not have.
pub const BANNED: Be32 = Be32::from_wire([10, 6, 6, 6]);
/// The same of IPv6.
pub const BANNED6: Be128 = ipv6_address(0x666);
/// The client's NIC, or the router's.
pub const CLIENT_MAC: Mac = Mac::from_wire([2, 0, 0, 0, 1, 0]);
/// Key of the flow hash.
pub const HASH_KEY: [u64; 2] = [1, 2];
/// Buckets of the rank table.
pub const BUCKETS: u32 = 64;

/// The time in a [`World`].
pub const NOW: BootNanos = BootNanos(1_000_000_000);

/// Ethernet address of a node.
#[must_use]
pub const fn node_mac(index: usize) -> Mac {
    Mac::from_wire([2, 0, 0, 0, 0, 11 + index as u8])
}

/// Address of a node.
#[must_use]
pub const fn node_address(index: usize) -> Be32 {
    Be32::from_wire([10, 0, 0, 11 + index as u8])
}

/// Its other address.
#[must_use]
pub const fn node_address6(index: usize) -> Be128 {
    ipv6_address(0x11 + index as u16)
}

/// `fd00::` and a number.
const fn ipv6_address(last: u16) -> Be128 {
    let [a, b] = last.to_be_bytes();
    Be128::from_wire([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b])
}

/// One node as the packet logic sees it.
#[derive(Clone, Debug)]
pub struct World {
    /// Its tables.
    pub state: State,
    /// The rank table: bucket `b` lists the nodes from number `b` on, round the circle.
    pub rows: Vec<RankRow>,
    /// What the node's TCP stack has for any flow to the VIP's declared port.
    pub socket: Socket,
    /// With [`Socket::TimeWait`] it says whether there is a listener too.
    pub listens: bool,
}

impl World {
    /// The node `me` of a cluster of `nodes`, all healthy; nobody owns the VIP and there are
    /// no sockets.
    #[must_use]
    pub fn new(nodes: usize, me: usize) -> Self {
        let members: Vec<usize> = (0..nodes).collect();
        Self::with_list(&members, me)
    }

    /// The same for a node with this list of nodes, in which it stands at place `me`.
    #[must_use]
    pub fn with_list(list: &[usize], me: usize) -> Self {
        let nodes = list.len();
        let rows = (0..BUCKETS as usize)
            .map(|bucket| RankRow::new((0..nodes).map(|rank| backend((bucket + rank) % nodes))));
        let mut state = State {
            config: Config {
                layout_version: LAYOUT_VERSION,
                own_index: me as u32,
                vip_count: 2,
                ipv4_count: 1,
                backend_count: nodes as u32,
                bucket_mask: BUCKETS - 1,
                hash_key: HASH_KEY,
                own_mac: node_mac(list[me]),
                own_address: node_address(list[me]),
                ..Config::zeroed()
            },
            masks: Masks::all(nodes),
            ..State::zeroed()
        };
        for (place, address) in state.vips.iter_mut().zip([VIP.into(), VIP6]) {
            *place = Vip::new(address, &[Service::new(HASH_KEY, address, Be16::new(PORT))]);
        }
        for (&node, backend) in list.iter().zip(&mut state.backends) {
            *backend = Backend {
                mac: node_mac(node),
                source: Mac::UNKNOWN,
                address: node_address(node).into(),
                other_address: node_address6(node),
            };
        }
        state.config.peers = state.peers();
        state.config.set_families(&state.backends[..nodes]);
        Self {
            state,
            rows: rows.collect(),
            socket: Socket::None,
            listens: false,
        }
    }

    /// The same node with its leases up or down.
    #[must_use]
    pub fn owning(mut self, owner: bool) -> Self {
        for vip in &mut self.state.vips[..2] {
            vip.answer_until = if owner {
                NOW.after(LONGEST_LEASE)
            } else {
                BootNanos::ZERO
            };
        }
        self
    }

    /// The same node, which knows that a node's frames come from this Ethernet address.
    #[must_use]
    pub fn knowing_source(mut self, node: usize, source: Mac) -> Self {
        self.state.backends[node].source = source;
        self.state.config.peers = self.state.peers();
        self
    }

    /// The same node with a service at `port` that it listens for at `target`.
    #[must_use]
    pub fn mapping(mut self, port: u16, target: u16) -> Self {
        self.state.config.maps_ports = 1;
        for vip in &mut self.state.vips[..2] {
            vip.services[0] = Service {
                target: Be16::new(target),
                ..Service::new(HASH_KEY, vip.address, Be16::new(port))
            };
        }
        self
    }

    /// The same node with an allow list that has all but [`BANNED`] and [`BANNED6`], and a limit
    /// of new connections that the same two have reached.
    #[must_use]
    pub fn refusing(mut self, flags: u8) -> Self {
        for vip in &mut self.state.vips[..2] {
            vip.services[0].flags = flags;
            // Nobody else reaches it.
            vip.services[0].syn_rate = 1_000_000_000;
        }
        self
    }

    /// Decides about a frame and carries the verdict out on it, as the programs do.
    ///
    /// # Panics
    /// If a tag that is there cannot be taken off.
    pub fn run(&self, frame: &mut Vec<u8>) -> (Verdict, Action) {
        assert!(untag(frame, self), "the tag is there");
        let verdict = ingress::decide(frame, self, self);
        (verdict, ingress::apply(verdict, frame, self))
    }
}

/// Whether a source is one of the two that are not welcome.
fn is_banned(source: Be128) -> bool {
    source == BANNED6 || source == BANNED.into()
}

impl Tables for World {
    fn state(&self) -> &State {
        &self.state
    }

    fn row(&self, index: u32) -> Option<RankRow> {
        self.rows.get(index as usize).copied()
    }

    fn now(&self) -> BootNanos {
        NOW
    }

    fn allows(&self, _service: u16, source: Be128) -> bool {
        !is_banned(source)
    }

    fn admits(&self, _service: &Service, source: Be128) -> bool {
        !is_banned(source)
    }
}

impl Sockets for World {
    fn lookup<A: Address>(&self, flow: &Flow<A>, cookie: bool, _tcp: usize) -> Socket {
        let destination: Be128 = flow.destination.into();
        assert!(
            destination == VIP6 || destination == VIP.into(),
            "only flows to a VIP are looked up"
        );
        match self.socket {
            Socket::Cookie if !cookie => Socket::Listener,
            socket => socket,
        }
    }

    fn listens<A: Address>(&self, _flow: &Flow<A>) -> bool {
        self.listens
    }
}

/// Index of a backend that is known to be small enough.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn backend(index: usize) -> BackendIndex {
    BackendIndex::new(index).expect("at most 16 backends")
}

/// Sequence number of each [`Segment`].
pub const SEQUENCE: u32 = 0x1000;

/// A TCP segment with right checksums, to be changed before it is built.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Ethernet destination.
    pub to: Mac,
    /// Ethernet source.
    pub from: Mac,
    /// IP source.
    pub source: Be128,
    /// IP destination, of the same family.
    pub destination: Be128,
    /// TCP source port.
    pub source_port: u16,
    /// TCP destination port.
    pub port: u16,
    /// TCP flags.
    pub flags: u8,
    /// Hops left.
    pub ttl: u8,
    /// 32-bit words of IPv4 options, `0..=10`, or extension headers of IPv6.
    pub options: usize,
}

impl Segment {
    /// From the client to the VIP, at the NIC of the node `me`.
    #[must_use]
    pub fn new(me: usize, source_port: u16, flags: u8) -> Self {
        Self {
            to: node_mac(me),
            from: CLIENT_MAC,
            source: CLIENT.into(),
            destination: VIP.into(),
            source_port,
            port: PORT,
            flags,
            ttl: 64,
            options: 0,
        }
    }

    /// The same by IPv6, from and to the other addresses of whoever they belong to.
    #[must_use]
    pub fn ipv6(self) -> Self {
        let other = |address: Be128| match address.ipv4() {
            Some(VIP) => VIP6,
            Some(CLIENT) => CLIENT6,
            Some(BANNED) => BANNED6,
            Some(address) => {
                let [.., a, b] = address.to_wire();
                ipv6_address(u16::from_be_bytes([a, b]))
            }
            None => address,
        };
        Self {
            source: other(self.source),
            destination: other(self.destination),
            ..self
        }
    }

    /// The frame, without padding.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.source_port.to_be_bytes());
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(SEQUENCE.to_be_bytes());
        tcp.extend([0, 0, 0x20, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = sum_of_pseudo_header(self.source, self.destination, 6, tcp.len());
        let sum = !fold(sum + sum_of(&tcp));
        tcp[tcp::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        self.around(ipv4::protocol::TCP, &tcp)
    }

    /// What a router sends that drops this segment, as an error of a kind of ICMP or ICMPv6, to
    /// the node `me`.
    #[must_use]
    pub fn quoted_by_router(&self, me: usize, kind: u8) -> Vec<u8> {
        let quote = &self.build()[ethernet::LENGTH..];
        let mut message = Vec::from([kind, 0, 0, 0, 0, 0, 5, 0]);
        message.extend(quote);
        let (router, protocol, pseudo) = if self.source.ipv4().is_some() {
            (Be32::from_wire([10, 9, 9, 9]).into(), 1, 0)
        } else {
            let router = ipv6_address(0x999);
            let sum = sum_of_pseudo_header(router, self.source, 58, message.len());
            (router, 58, sum)
        };
        let sum = !fold(pseudo + sum_of(&message));
        message[icmp::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        Self {
            to: node_mac(me),
            from: CLIENT_MAC,
            source: router,
            destination: self.source,
            ttl: 64,
            options: 0,
            ..*self
        }
        .around(protocol, &message)
    }

    /// A frame around a payload, of the family of the addresses.
    fn around(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.to.to_wire());
        frame.extend(self.from.to_wire());
        let (Some(source), Some(destination)) = (self.source.ipv4(), self.destination.ipv4())
        else {
            let extensions = 8 * self.options;
            let length = (extensions + payload.len()) as u16;
            let first = if self.options > 0 {
                ipv6::next_header::DESTINATION
            } else {
                protocol
            };
            let header = ipv6::Header::new(self.source, self.destination, first, self.ttl, length);
            frame.extend([0x86, 0xdd]);
            frame.extend(bytemuck::bytes_of(&header));
            for left in (0..self.options).rev() {
                let next = if left > 0 { first } else { protocol };
                // One option of padding (RFC 8200, section 4.2).
                frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
            }
            frame.extend(payload);
            return frame;
        };
        let header = ipv4::LENGTH + 4 * self.options;
        frame.extend([0x08, 0x00]);
        frame.extend([0x40 | (header / 4) as u8, 0]);
        frame.extend(((header + payload.len()) as u16).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0x00, self.ttl, protocol, 0, 0]);
        frame.extend(source.to_wire());
        frame.extend(destination.to_wire());
        frame.extend((0..4 * self.options).map(|_| 1));
        let sum = !fold(sum_of(&frame[ethernet::LENGTH..]));
        frame[ethernet::LENGTH + 10..][..2].copy_from_slice(&sum.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// The bucket of the segment's flow in a [`World`].
    #[must_use]
    pub fn bucket(&self, world: &World) -> usize {
        let key = world.state.config.hash_key;
        let port = Be16::new(self.port);
        let source_port = Be16::new(self.source_port);
        let service = Service::new(key, self.destination, port);
        let hash = match self.source.ipv4() {
            Some(source) => service.hash.flow_ipv4(source, source_port),
            None => service.hash.flow_ipv6(self.source, source_port, port),
        };
        (hash as u32 & world.state.config.bucket_mask) as usize
    }

    /// The same segment with a source port for which `node` is first in the order of ranks.
    ///
    /// # Panics
    /// If no port has it first, which cannot be while the hash is any good.
    #[must_use]
    pub fn first_at(mut self, world: &World, node: usize) -> Self {
        self.source_port = (20_000..60_000)
            .find(|&port| {
                let bucket = Self {
                    source_port: port,
                    ..self
                }
                .bucket(world);
                world.rows[bucket].first().get() == node
            })
            .expect("every node is first somewhere");
        self
    }
}

/// RFC 1071, before folding.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum()
}

/// RFC 9293, section 3.1, and RFC 8200, section 8.1: the same but for what is zero.
fn sum_of_pseudo_header(source: Be128, destination: Be128, protocol: u8, length: usize) -> u32 {
    // The prefix of an IPv4 address is no part of the pseudo-header.
    let address = |address: Be128| match address.ipv4() {
        Some(address) => sum_of(&address.to_wire()),
        None => sum_of(&address.to_wire()),
    };
    address(source) + address(destination) + u32::from(protocol) + length as u32
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether the checksums of a TCP segment's frame are right: that of the IPv4 header, if it has
/// one, and TCP's.
#[must_use]
pub fn checksums_are_right(frame: &[u8]) -> bool {
    let ip = &frame[ethernet::LENGTH..];
    let (source, destination, payload) = if ip[0] >> 4 == 4 {
        let header = usize::from(ip[0] & 0xf) * 4;
        if fold(sum_of(&ip[..header])) != 0xffff {
            return false;
        }
        let address = |at: usize| {
            let bytes = [ip[at], ip[at + 1], ip[at + 2], ip[at + 3]];
            Be128::from(Be32::from_wire(bytes))
        };
        (address(12), address(16), &ip[header..])
    } else {
        let header: &ipv6::Header = bytemuck::from_bytes(&ip[..ipv6::LENGTH]);
        let (_, payload) =
            ipv6::upper_layer(frame, header.next_header(), ethernet::LENGTH + ipv6::LENGTH)
                .expect("few extension headers");
        (header.source(), header.destination(), &frame[payload..])
    };
    let pseudo = sum_of_pseudo_header(source, destination, 6, payload.len());
    fold(pseudo + sum_of(payload)) == 0xffff
}

/// A frame of Neighbour Discovery, with a right checksum: from and to these Ethernet and IPv6
/// addresses.
#[must_use]
pub fn ndp_frame(from: (Mac, Be128), to: (Mac, Be128), message: &[u8]) -> Vec<u8> {
    let length = message.len() as u16;
    let icmp = ipv6::next_header::ICMP;
    let header = ipv6::Header::new(from.1, to.1, icmp, ndp::HOP_LIMIT, length);
    let mut message = Vec::from(message);
    message[icmp::CHECKSUM..][..2].fill(0);
    let sum = ndp::checksum(&message, from.1, to.1);
    message[icmp::CHECKSUM..][..2].copy_from_slice(&sum.get().to_be_bytes());
    let mut frame = Vec::new();
    frame.extend(to.0.to_wire());
    frame.extend(from.0.to_wire());
    frame.extend([0x86, 0xdd]);
    frame.extend(bytemuck::bytes_of(&header));
    frame.extend(message);
    frame
}

/// The client asks who has `target`. With `free` it asks whether anybody has it, as it would
/// like to have it himself (RFC 4862, section 5.4.2).
#[must_use]
pub fn solicitation(target: Be128, free: bool) -> Vec<u8> {
    let group = ndp::solicited_node(target);
    let mut message = Vec::from(bytemuck::bytes_of(&ndp::Message::solicitation(target)));
    let source = if free {
        Be128::UNSPECIFIED
    } else {
        // Its link-layer address (RFC 4861, section 4.6.1).
        message.extend([1, 1]);
        message.extend(CLIENT_MAC.to_wire());
        CLIENT6
    };
    let to = (ndp::group_mac(group), group);
    ndp_frame((CLIENT_MAC, source), to, &message)
}

/// An ARP frame.
#[must_use]
pub fn arp_frame(to: Mac, from: Mac, packet: arp::Packet) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.to_wire());
    frame.extend(from.to_wire());
    frame.extend([0x08, 0x06]);
    frame.extend(bytemuck::bytes_of(&packet));
    frame
}

/// The client asks who has `target`.
#[must_use]
pub fn arp_request(target: Be32) -> Vec<u8> {
    let packet = arp::Packet::new(
        arp::operation::REQUEST,
        (CLIENT_MAC, CLIENT),
        (Mac::default(), target),
    );
    arp_frame(Mac::BROADCAST, CLIENT_MAC, packet)
}

/// A small deterministic generator (SplitMix64; G. Steele, D. Lea, C. Flood, 2014), so that a
/// seed is enough to see a failure again.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// One of the values.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// A frame for node `me` of `nodes`: often one that goes far into the logic, often one with
    /// a few bytes or its length changed, sometimes with a tag or two, sometimes noise. At least 14 bytes long, which is
    /// what `BPF_PROG_TEST_RUN` takes, unless `any_length`.
    pub fn frame(&mut self, nodes: usize, me: usize, any_length: bool) -> Vec<u8> {
        let mut frame = match self.below(10) {
            0 => (0..self.below(128)).map(|_| self.word() as u8).collect(),
            3 => self.neighbour_discovery(me),
            1 | 2 => {
                let address =
                    |r: &mut Self| r.pick(&[VIP, CLIENT, node_address(0), Be32::default()]);
                let macs = [
                    CLIENT_MAC,
                    node_mac(0),
                    node_mac(1),
                    Mac::BROADCAST,
                    Mac::default(),
                ];
                let packet = arp::Packet::new(
                    Be16::new(self.pick(&[1, 1, 1, 2, 3])),
                    (self.pick(&macs), address(self)),
                    (self.pick(&macs), address(self)),
                );
                arp_frame(
                    self.pick(&[Mac::BROADCAST, node_mac(me)]),
                    self.pick(&macs),
                    packet,
                )
            }
            _ => {
                let macs = [
                    node_mac(me),
                    node_mac(me),
                    node_mac(me),
                    CLIENT_MAC,
                    Mac::BROADCAST,
                ];
                let from = [CLIENT_MAC, node_mac(self.below(nodes)), Mac::default()];
                let flags = [
                    tcp::SYN,
                    tcp::ACK,
                    tcp::SYN | tcp::ACK,
                    tcp::RST,
                    tcp::FIN | tcp::ACK,
                ];
                let random = Be32::from_wire((self.word() as u32).to_ne_bytes());
                let segment = Segment {
                    to: self.pick(&macs),
                    from: self.pick(&from),
                    source: self.pick(&[random, random, CLIENT, BANNED]).into(),
                    destination: self.pick(&[VIP, VIP, VIP, CLIENT]).into(),
                    source_port: self.word() as u16,
                    port: self.pick(&[PORT, PORT, PORT, 22]),
                    flags: if self.below(4) == 0 {
                        self.word() as u8
                    } else {
                        self.pick(&flags)
                    },
                    ttl: self.pick(&[64, 64, 255, 35, 34, 33, 32, 31, 18, 1, 0]),
                    options: self.pick(&[0, 0, 0, 1, 6, 10]),
                };
                let ipv6 = self.below(2) == 0;
                let segment = if ipv6 { segment.ipv6() } else { segment };
                if self.below(4) == 0 {
                    let answer = Segment {
                        source: segment.destination,
                        destination: segment.source,
                        source_port: segment.port,
                        port: segment.source_port,
                        options: 0,
                        ..segment
                    };
                    let kind = self.pick(&[1, 2, 3, 3, 11, 128]);
                    let mut frame = answer.quoted_by_router(me, kind);
                    frame[..6].copy_from_slice(&segment.to.to_wire());
                    frame[6..12].copy_from_slice(&segment.from.to_wire());
                    frame
                } else {
                    segment.build()
                }
            }
        };
        for _ in 0..self.pick(&[0, 0, 0, 1, 2, 8]) {
            if !frame.is_empty() {
                // Mostly in the headers, where it matters.
                let place = self.below(frame.len().min(90));
                frame[place] = self.word() as u8;
            }
        }
        for _ in 0..self.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]) {
            let kind = self.pick(&[0x8100, 0x8100, 0x88a8]);
            frame = vlan::tagged(&frame, kind, self.pick(&[0, 0, 0x6000, 5]));
        }
        match self.below(6) {
            0 => frame.truncate(self.below(frame.len() + 1)),
            1 => frame.extend((0..self.below(64)).map(|_| 0)),
            _ => {}
        }
        if !any_length && frame.len() < ethernet::LENGTH {
            frame.resize(ethernet::LENGTH, 0);
        }
        frame
    }

    /// Questions for addresses and claims of them.
    fn neighbour_discovery(&mut self, me: usize) -> Vec<u8> {
        let target = self.pick(&[VIP6, VIP6, VIP6, CLIENT6, node_address6(0)]);
        match self.below(4) {
            0 => solicitation(target, false),
            1 => solicitation(target, true),
            2 => {
                let mut frame = solicitation(target, false);
                frame[..6].copy_from_slice(&self.pick(&[node_mac(me), CLIENT_MAC]).to_wire());
                frame
            }
            _ => {
                let from = self.pick(&[CLIENT_MAC, node_mac(1), node_mac(me)]);
                let source = self.pick(&[CLIENT6, VIP6]);
                let to = ipv6::ALL_NODES;
                let message = ndp::Advertisement::new(target, from, 0x20, source, to);
                let to = (ndp::group_mac(to), to);
                ndp_frame((from, source), to, bytemuck::bytes_of(&message))
            }
        }
    }
}

/// What a fuzzer gives: three bytes that say how the node is, then a frame. Fails if the packet
/// logic does anything to it that it must never do.
///
/// # Panics
/// If it does.
pub fn check_input(input: &[u8]) {
    let [how, health, sockets, frame @ ..] = input else {
        return;
    };
    let mut world = World::new(3, 0).owning(how & 1 != 0);
    if how & 2 != 0 {
        world = world.mapping(443, PORT);
    }
    world = world.refusing(how >> 2 & (flag::ALLOW_LIST | flag::SYN_LIMIT));
    for node in 0..3 {
        let bit = |shift: usize| health >> (node + shift) & 1 != 0;
        let masks = &mut world.state.masks;
        masks.alive = masks.alive.with(backend(node), bit(0));
        masks.new_connections[0] = masks.new_connections[0].with(backend(node), bit(3));
    }
    world.socket = match sockets & 7 {
        0 | 1 => Socket::None,
        2 | 3 => Socket::Listener,
        4 => Socket::Cookie,
        5 => Socket::TimeWait {
            expects: (sockets & 16 != 0).then_some(SEQUENCE),
        },
        _ => Socket::Connection,
    };
    world.listens = sockets & 8 != 0;
    if sockets & 32 != 0 {
        world.state.masks.no_forward = BackendMask::ALL;
    }
    let mut frame = Vec::from(frame);
    assert!(untag(&mut frame, &world), "the tag is there");
    check_ingress(&world, &frame);
    check_egress(&world, &frame);
}

/// What comes in.
fn check_ingress(world: &World, frame: &[u8]) {
    let mut after = Vec::from(frame);
    let (verdict, action) = world.run(&mut after);
    match verdict.kind() {
        Kind::Pass | Kind::Local => {
            assert_eq!(action, Action::Pass);
            // At most a port and the checksum above it.
            let changed = after.iter().zip(frame).filter(|(a, b)| a != b).count();
            assert!(changed <= 4, "{changed} bytes changed: {verdict:?}");
        }
        Kind::Drop => assert_eq!(action, Action::Drop),
        Kind::Forward => {
            assert_eq!(action, Action::Transmit);
            // Whatever came in leaves with fewer hops, and no more than the first leaves.
            let hops = |frame: &[u8]| frame[if frame[12] == 8 { 22 } else { 21 }];
            let (came, left) = (hops(frame), hops(&after));
            let fewer = left < came && left <= ingress::hops::FIRST;
            assert!(fewer, "{came} hops left, then {left}");
            let to = verdict.backend() as usize;
            assert!((1..3).contains(&to), "to no other node: {verdict:?}");
            assert_eq!(after[..6], node_mac(to).to_wire());
            assert_eq!(after[6..12], node_mac(0).to_wire());
            let alive = world.state.masks.alive.contains(backend(to));
            assert!(alive, "to a dead node: {verdict:?}");
            let no_forward = world.state.masks.no_forward.contains(backend(to));
            assert!(!no_forward, "who may not know us: {verdict:?}");
        }
        Kind::AnswerArp | Kind::AnswerNdp => {
            assert_eq!(action, Action::Transmit);
            assert!(
                world.state.vips[0].answer_until > NOW,
                "answers for another"
            );
            assert_eq!(after[6..12], node_mac(0).to_wire());
        }
    }
    if verdict.kind() != Kind::AnswerNdp {
        assert_eq!(after.len(), frame.len());
    }
}

/// What leaves.
fn check_egress(world: &World, frame: &[u8]) {
    let mut after = Vec::from(frame);
    let verdict = egress::decide(&after, world);
    let leaves = egress::apply(verdict, &mut after, world);
    assert_eq!(leaves, verdict.kind() != egress::Kind::Drop, "{verdict:?}");
    assert_eq!(after.len(), frame.len());
    if leaves && !after.is_empty() {
        // Once is enough.
        let again = egress::decide(&after, world).kind();
        assert!(
            matches!(again, egress::Kind::Pass | egress::Kind::NamePort),
            "{verdict:?}, then {again:?}"
        );
    }
}
