//! The packets that make a client answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vip_common::wire::addr::{Be16, Be128};
use vip_common::wire::checksum::Sum;
use vip_common::wire::{ethernet, ipv4, ipv6, tcp};

use super::Hop;

/// A segment from a server to its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The server's end: a VIP or a node's address.
    pub source: SocketAddr,
    /// The client's end.
    pub client: SocketAddr,
    /// Why the client answers.
    pub kind: Kind,
}

/// Why a client answers a [`Segment`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One byte of data that the client has already. It is outside the client's window, so the client
    /// answers with an ACK (RFC 9293, section 3.10.7.4), as to a keepalive. Linux does not limit the
    /// rate of these answers, because the segment has data (`tcp_oow_rate_limited`,
    /// net/ipv4/tcp_input.c). The numbers must fit, and the value of the byte does not matter.
    Ack {
        /// Sequence number of the byte, in host byte order: the one before the server's first byte
        /// that is not acknowledged (`snd_una - 1`).
        sequence: u32,
        /// The next sequence number that the server expects of the client (`rcv_nxt`), in host byte
        /// order.
        acknowledgement: u32,
    },
    /// A SYN-ACK whose numbers are these random bits. A client with a connection answers with a
    /// challenge ACK, whatever the numbers are (RFC 5961, section 4.2). Linux sends at most one in
    /// 500 ms for each connection (`tcp_invalid_ratelimit`).
    SynAck(u64),
}

/// The data of [`Kind::Ack`].
const OLD_BYTE: u8 = 0;

/// Bytes that the client may send, at most, without regard to window scaling. The segment is too old
/// to change what the client knows.
const WINDOW: u16 = 1024;

/// Initial TTL or hop limit, as Linux sets it.
const TTL: u8 = 64;

/// Length of the longest frame, in bytes.
const LONGEST: usize = ethernet::LENGTH + ipv6::LENGTH + tcp::LENGTH + 1;

/// A packet, or a part of one, on the stack.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Bytes {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Bytes {
    const fn new() -> Self {
        Self {
            bytes: [0; LONGEST],
            length: 0,
        }
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.length..][..part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    pub(in crate::net) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Segment {
    /// The TCP header without options, and the data.
    pub(in crate::net) fn tcp(&self) -> Bytes {
        let (numbers, flags, data) = match self.kind {
            Kind::Ack {
                sequence,
                acknowledgement,
            } => {
                let numbers = u64::from(sequence) << 32 | u64::from(acknowledgement);
                (numbers, tcp::ACK, &[OLD_BYTE][..])
            }
            Kind::SynAck(numbers) => (numbers, tcp::SYN | tcp::ACK, &[][..]),
        };
        let mut segment = Bytes::new();
        segment.push(&self.source.port().to_be_bytes());
        segment.push(&self.client.port().to_be_bytes());
        segment.push(&numbers.to_be_bytes());
        // The header's length in words, in the upper half of the byte.
        segment.push(&[(tcp::LENGTH as u8 / 4) << 4, flags]);
        segment.push(&WINDOW.to_be_bytes());
        // The checksum, which comes last, and the urgent pointer.
        segment.push(&[0; 4]);
        segment.push(data);

        let [source, client] = [self.source, self.client].map(|end| Be128::from(end.ip()));
        let length = segment.length as u16;
        let sum = Sum::default().pseudo_header(source, client, length, ipv4::protocol::TCP);
        let checksum = add(sum, segment.as_slice()).checksum();
        segment.bytes[tcp::CHECKSUM..][..2].copy_from_slice(&checksum.raw().to_ne_bytes());
        segment
    }

    /// The whole frame.
    ///
    /// # Errors
    /// `InvalidInput`: the ends are of different families.
    pub(super) fn frame(&self, hop: &Hop) -> io::Result<Bytes> {
        let tcp = self.tcp();
        let mut frame = Bytes::new();
        frame.push(&hop.destination);
        frame.push(&hop.source);
        frame.push(&ether_type(self.source.ip()).raw().to_ne_bytes());
        let (source, client) = (self.source.ip(), self.client.ip());
        match (source, client) {
            (IpAddr::V4(source), IpAddr::V4(client)) => {
                frame.push(&ipv4_header(source, client, tcp.length));
            }
            (IpAddr::V6(_), IpAddr::V6(_)) => {
                let header = ipv6::Header::new(
                    source.into(),
                    client.into(),
                    ipv6::next_header::TCP,
                    TTL,
                    tcp.length as u16,
                );
                frame.push(bytemuck::bytes_of(&header));
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        frame.push(tcp.as_slice());
        Ok(frame)
    }
}

/// The EtherType of packets from an address.
pub(super) fn ether_type(address: IpAddr) -> Be16 {
    if address.is_ipv4() {
        ethernet::ether_type::IPV4
    } else {
        ethernet::ether_type::IPV6
    }
}

/// A header without options. A packet that must not be fragmented needs no identification (RFC 6864,
/// section 4.1).
fn ipv4_header(source: Ipv4Addr, client: Ipv4Addr, payload: usize) -> [u8; ipv4::LENGTH] {
    const VERSION_AND_LENGTH: u8 = 0x45;
    const DO_NOT_FRAGMENT: [u8; 2] = [0x40, 0];
    const CHECKSUM: usize = 10;
    let mut header = [0; ipv4::LENGTH];
    header[0] = VERSION_AND_LENGTH;
    header[2..4].copy_from_slice(&((ipv4::LENGTH + payload) as u16).to_be_bytes());
    header[6..8].copy_from_slice(&DO_NOT_FRAGMENT);
    header[8..10].copy_from_slice(&[TTL, ipv4::protocol::TCP]);
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&client.octets());
    let checksum = add(Sum::default(), &header).checksum();
    header[CHECKSUM..][..2].copy_from_slice(&checksum.raw().to_ne_bytes());
    header
}

/// Adds bytes to a sum. One that is left over is the upper half of a word (RFC 1071, section 4.1).
fn add(sum: Sum, bytes: &[u8]) -> Sum {
    let (words, rest) = bytes.as_chunks();
    let sum = words
        .iter()
        .fold(sum, |sum, word| sum.word(Be16::from_wire(*word)));
    rest.iter()
        .fold(sum, |sum, last| sum.word(Be16::from_wire([*last, 0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: Hop = Hop {
        interface: 1,
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
    };

    /// RFC 1071, computed in the simplest way. 0 if the checksum among the bytes is right.
    fn checksum(bytes: &[u8]) -> u16 {
        let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into());
        let sum: u32 = bytes.chunks(2).map(word).sum();
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    fn segment(source: &str, client: &str, kind: Kind) -> Segment {
        Segment {
            source: source.parse().unwrap(),
            client: client.parse().unwrap(),
            kind,
        }
    }

    const ACK: Kind = Kind::Ack {
        sequence: 0x0102_0304,
        acknowledgement: 0x0506_0708,
    };
    const SYN_ACK: Kind = Kind::SynAck(0x1112_1314_1516_1718);

    #[test]
    fn an_ack_by_ipv4_has_one_old_byte_and_right_checksums() {
        let segment = segment("10.0.0.10:6443", "192.168.1.2:40000", ACK);
        let frame = segment.frame(&HOP).unwrap();
        let (ethernet, packet) = frame.as_slice().split_at(14);
        assert_eq!(ethernet, [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        let (ip, tcp) = packet.split_at(20);
        // Version and length, TOS, total length, identification, DF, TTL, protocol.
        assert_eq!(ip[..10], [0x45, 0, 0, 41, 0, 0, 0x40, 0, 64, 6]);
        assert_eq!(ip[12..], [10, 0, 0, 10, 192, 168, 1, 2]);
        assert_eq!(checksum(ip), 0);
        // Ports, numbers, the header's length, flags, window.
        let (ports, numbers) = ([0x19, 0x2b, 0x9c, 0x40], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(tcp[..12], [&ports[..], &numbers].concat());
        assert_eq!(tcp[12..16], [0x50, 0x10, 4, 0]);
        assert_eq!(tcp[18..], [0, 0, 0]);
        assert_eq!(checksum(&[&ip[12..], &[0, 6, 0, 21], tcp].concat()), 0);
    }

    #[test]
    fn a_syn_ack_by_ipv6_has_its_random_numbers_and_a_right_checksum() {
        let segment = segment("[fd00::10]:6443", "[fd01::2]:40000", SYN_ACK);
        let frame = segment.frame(&HOP).unwrap();
        let (ethernet, packet) = frame.as_slice().split_at(14);
        assert_eq!(ethernet[12..], [0x86, 0xdd]);
        let (ip, tcp) = packet.split_at(40);
        // Version, payload length, next header, hop limit.
        assert_eq!(ip[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        let numbers = [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
        assert_eq!(tcp[4..12], numbers);
        assert_eq!((tcp.len(), &tcp[12..16]), (20, &[0x50, 0x12, 4, 0][..]));
        assert_eq!(checksum(&[&ip[8..], &[0, 6, 0, 20], tcp].concat()), 0);
    }

    #[test]
    fn ends_of_different_families_are_refused() {
        for (source, client) in [
            ("10.0.0.10:1", "[fd01::2]:2"),
            ("[fd01::2]:2", "10.0.0.1:1"),
        ] {
            let error = segment(source, client, ACK).frame(&HOP).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
