//! Frames and tables for unit tests, for the comparison of host and kernel, for fuzzing and
//! for benchmarks: one cluster of nodes in memory, and every kind of frame that may reach it.

use std::vec::Vec;

use bytemuck::Zeroable as _;

use crate::hash::{Flow, ServiceHash};
use crate::layout::{
    Backend, BackendIndex, BackendMask, Be16, Be32, BootNanos, Config, LAYOUT_VERSION, Mac,
    MacFilter, Masks, RankRow, State, Vip,
};
use crate::node::{Socket, Sockets, Tables};
use crate::steer::{self, Action, Verdict};
use crate::wire::{arp, ethernet, ipv4, tcp};

/// The virtual address of the cluster.
pub const VIP: Be32 = Be32::from_wire([10, 0, 0, 10]);
/// The port that is declared for it.
pub const PORT: u16 = 6443;
/// A client on the segment.
pub const CLIENT: Be32 = Be32::from_wire([10, 0, 0, 100]);
/// The client's NIC, or the router's.
pub const CLIENT_MAC: Mac = Mac::from_wire([2, 0, 0, 0, 1, 0]);
/// Key of the flow hash.
pub const HASH_KEY: [u64; 2] = [1, 2];
/// Buckets of the rank table.
pub const BUCKETS: u32 = 64;

/// The time in a [`World`].
const NOW: BootNanos = BootNanos(1_000_000_000);

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

/// One node as the packet logic sees it.
#[derive(Clone, Debug)]
pub struct World {
    /// Its tables.
    pub state: State,
    /// The rank table: bucket `b` lists the nodes from number `b` on, round the circle.
    pub rows: Vec<RankRow>,
    /// What the node's TCP stack has for any flow to the VIP's declared port.
    pub socket: Socket,
    /// With [`Socket::TimeWait`]: whether there is a listener too.
    pub listens: bool,
}

impl World {
    /// The node `me` of a cluster of `nodes`, all healthy; nobody owns the VIP and there are
    /// no sockets.
    #[must_use]
    pub fn new(nodes: usize, me: usize) -> Self {
        let rows = (0..BUCKETS as usize)
            .map(|bucket| RankRow::new((0..nodes).map(|rank| backend((bucket + rank) % nodes))));
        let all = BackendMask::first(nodes);
        let mut state = State {
            config: Config {
                layout_version: LAYOUT_VERSION,
                own_index: me as u32,
                vip_count: 1,
                backend_count: nodes as u32,
                bucket_mask: BUCKETS - 1,
                rank_base: 0,
                hash_key: HASH_KEY,
                own_mac: node_mac(me),
                peers: (0..nodes).fold(MacFilter::default(), |all, node| all.with(node_mac(node))),
                own_address: node_address(me),
                reserved: 0,
            },
            masks: Masks {
                alive: all,
                ready: all,
            },
            ..State::zeroed()
        };
        state.vips[0] = Vip::new(VIP, &[Be16::new(PORT)], HASH_KEY);
        for (node, backend) in state.backends[..nodes].iter_mut().enumerate() {
            *backend = Backend {
                mac: node_mac(node),
                address: node_address(node),
                reserved: 0,
            };
        }
        Self {
            state,
            rows: rows.collect(),
            socket: Socket::None,
            listens: false,
        }
    }

    /// The same node with its fence up or down.
    #[must_use]
    pub fn owning(mut self, owner: bool) -> Self {
        self.state.vips[0].owner_until = if owner {
            BootNanos(u64::MAX)
        } else {
            BootNanos::ZERO
        };
        self
    }

    /// Decides about a frame and carries the verdict out on it.
    pub fn run(&self, frame: &mut [u8]) -> (Verdict, Action) {
        let verdict = steer::decide(frame, self, self);
        (verdict, steer::apply(verdict, frame, self))
    }
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
}

impl Sockets for World {
    fn lookup(&self, flow: &Flow, cookie: bool, _tcp: usize) -> Socket {
        assert_eq!(flow.destination, VIP, "only flows to a VIP are looked up");
        match self.socket {
            Socket::Cookie if !cookie => Socket::Listener,
            socket => socket,
        }
    }

    fn listens(&self, _flow: &Flow) -> bool {
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

/// A TCP segment with right checksums, to be changed before it is built.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Ethernet destination.
    pub to: Mac,
    /// Ethernet source.
    pub from: Mac,
    /// IPv4 source.
    pub source: Be32,
    /// IPv4 destination.
    pub destination: Be32,
    /// TCP source port.
    pub source_port: u16,
    /// TCP destination port.
    pub port: u16,
    /// TCP flags.
    pub flags: u8,
    /// Hops left.
    pub ttl: u8,
    /// 32-bit words of IPv4 options, `0..=10`.
    pub options: usize,
}

impl Segment {
    /// From the client to the VIP, at the NIC of the node `me`.
    #[must_use]
    pub fn new(me: usize, source_port: u16, flags: u8) -> Self {
        Self {
            to: node_mac(me),
            from: CLIENT_MAC,
            source: CLIENT,
            destination: VIP,
            source_port,
            port: PORT,
            flags,
            ttl: 64,
            options: 0,
        }
    }

    /// The frame, without padding.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let header = ipv4::LENGTH + 4 * self.options;
        let length = (header + tcp::LENGTH) as u16;
        let mut frame = Vec::new();
        frame.extend(self.to.to_wire());
        frame.extend(self.from.to_wire());
        frame.extend([0x08, 0x00]);
        frame.extend([0x40 | (header / 4) as u8, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0x00, self.ttl, ipv4::protocol::TCP, 0, 0]);
        frame.extend(self.source.to_wire());
        frame.extend(self.destination.to_wire());
        frame.extend((0..4 * self.options).map(|_| 1));
        let sum = !fold(sum_of(&frame[ethernet::LENGTH..]));
        frame[ethernet::LENGTH + 10..][..2].copy_from_slice(&sum.to_be_bytes());

        let start = frame.len();
        frame.extend(self.source_port.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend([
            0, 0, 0x10, 0, 0, 0, 0x20, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0,
        ]);
        let pseudo = sum_of_pseudo_header(self.source, self.destination);
        let sum = !fold(pseudo + sum_of(&frame[start..]));
        frame[start + 16..][..2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// The bucket of the segment's flow in a [`World`].
    #[must_use]
    pub fn bucket(&self, world: &World) -> usize {
        let port = Be16::new(self.port);
        let service = ServiceHash::new(world.state.config.hash_key, self.destination, port);
        let hash = service.flow(self.source, Be16::new(self.source_port));
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

fn sum_of_pseudo_header(source: Be32, destination: Be32) -> u32 {
    sum_of(&source.to_wire())
        + sum_of(&destination.to_wire())
        + u32::from(ipv4::protocol::TCP)
        + tcp::LENGTH as u32
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether the IPv4 header of a frame has a right checksum.
#[must_use]
pub fn ipv4_checksum_is_right(frame: &[u8]) -> bool {
    let header = usize::from(frame[ethernet::LENGTH] & 0xf) * 4;
    fold(sum_of(&frame[ethernet::LENGTH..][..header])) == 0xffff
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
    /// a few bytes or its length changed, sometimes noise. At least 14 bytes long, which is
    /// what `BPF_PROG_TEST_RUN` takes, unless `any_length`.
    pub fn frame(&mut self, nodes: usize, me: usize, any_length: bool) -> Vec<u8> {
        let mut frame = match self.below(8) {
            0 => (0..self.below(128)).map(|_| self.word() as u8).collect(),
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
                Segment {
                    to: self.pick(&macs),
                    from: self.pick(&from),
                    source: Be32::from_wire((self.word() as u32).to_ne_bytes()),
                    destination: self.pick(&[VIP, VIP, VIP, CLIENT]),
                    source_port: self.word() as u16,
                    port: self.pick(&[PORT, PORT, PORT, 22]),
                    flags: if self.below(4) == 0 {
                        self.word() as u8
                    } else {
                        self.pick(&flags)
                    },
                    ttl: self.pick(&[64, 1, 0, 255]),
                    options: self.pick(&[0, 0, 0, 1, 10]),
                }
                .build()
            }
        };
        for _ in 0..self.pick(&[0, 0, 1, 2, 8]) {
            if !frame.is_empty() {
                // Mostly in the headers, where it matters.
                let place = self.below(frame.len().min(60));
                frame[place] = self.word() as u8;
            }
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
}
