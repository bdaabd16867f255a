//! TCP segments, and ICMP errors that quote them.

use std::vec::Vec;

use super::addresses::{
    BANNED, BANNED6, CLIENT, CLIENT_MAC, CLIENT6, PORT, VIP, VIP6, ipv6_address, node_address,
    node_address6, node_mac,
};
use super::world::World;
use crate::abi::{MAX_BACKENDS, Service};
use crate::wire::addr::{Be16, Be32, Be128, Mac};
use crate::wire::{ethernet, icmp, ipv4, ipv6, tcp};

/// Sequence number of each [`Segment`].
pub const SEQUENCE: u32 = 0x1000;

/// The number that each of them acknowledges, in host byte order.
pub const ACKNOWLEDGEMENT: u32 = 0x2000;

/// The fields of a TCP segment, whose frame gets right checksums.
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
    /// TCP sequence number, in host byte order.
    pub sequence: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Number of 32-bit words of IPv4 options, `0..=10`, or of IPv6 extension headers.
    pub options: usize,
}

impl Segment {
    /// A segment from the client to the VIP, in a frame to the node `me`.
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
            sequence: SEQUENCE,
            ttl: 64,
            options: 0,
        }
    }

    /// The same segment between the IPv6 addresses of the same hosts.
    #[must_use]
    pub fn ipv6(self) -> Self {
        let other = |address: Be128| match address.ipv4() {
            Some(VIP) => VIP6,
            Some(CLIENT) => CLIENT6,
            Some(BANNED) => BANNED6,
            Some(address) if let Some(node) = node_with(address) => node_address6(node),
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

    /// The segment's frame, without padding.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.source_port.to_be_bytes());
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(ACKNOWLEDGEMENT.to_be_bytes());
        tcp.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = sum_of_pseudo_header(self.source, self.destination, 6, tcp.len());
        let sum = !fold(sum + sum_of(&tcp));
        tcp[tcp::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        self.around(ipv4::protocol::TCP, &tcp)
    }

    /// The frame of an ICMP or ICMPv6 error of type `kind`, which a router sends to the node `me`
    /// because it drops this segment.
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

    /// A frame with this IP payload, of the family of the addresses.
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

    /// The row of the segment's flow.
    #[must_use]
    pub fn bucket(&self, world: &World) -> usize {
        let key = world.state.config.hash_key;
        let port = Be16::new(self.port);
        let source_port = Be16::new(self.source_port);
        let service = Service::new(key, self.destination, port);
        let bucket = match self.source.ipv4() {
            Some(source) => service.hash.bucket_ipv4(source, source_port),
            None => service.hash.bucket_ipv6(self.source, source_port),
        };
        usize::from(bucket) % world.rows.len()
    }

    /// The same segment with a source port for which `node` has the first rank.
    ///
    /// # Panics
    /// If there is no such port, which a hash of any quality excludes.
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

/// The index of the node with this address.
fn node_with(address: Be32) -> Option<usize> {
    (0..MAX_BACKENDS).find(|node| node_address(*node) == address)
}

/// The sum of 16-bit words (RFC 1071) before it is folded.
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

/// The sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1), which is the same
/// for both families.
fn sum_of_pseudo_header(source: Be128, destination: Be128, protocol: u8, length: usize) -> u32 {
    // The prefix of an IPv4 address is no part of the pseudo-header.
    let address = |address: Be128| match address.ipv4() {
        Some(address) => sum_of(&address.to_wire()),
        None => sum_of(&address.to_wire()),
    };
    address(source) + address(destination) + u32::from(protocol) + length as u32
}

/// The sum, folded to 16 bits.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether the checksums of a TCP segment's frame are right: TCP's, and that of an IPv4 header.
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
