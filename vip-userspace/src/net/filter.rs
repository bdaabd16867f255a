//! Socket filters (classic BPF): the kernel drops what a socket's reader has no use for before it
//! is queued and wakes anybody. The agent's threads keep time, and anybody may send.

use std::io;
use std::net::IpAddr;

use nix::libc;
use socket2::{SockFilter, Socket};
use vip_common::wire::ethernet;

/// Where a field lies, in bytes.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// From where the socket's data begins: the UDP header for a UDP socket, the ICMPv6 header for
    /// a raw socket of IPv6, the Ethernet header for a packet socket.
    Data(u32),
    /// From the beginning of the IP header, whatever kind of IP socket it is.
    Network(u32),
    /// Behind an IPv4 header at the beginning of the data (a raw socket of IPv4).
    BehindIpv4(u32),
    /// Behind an IPv4 header in an untagged Ethernet frame (a packet socket).
    BehindIpv4InFrame(u32),
}

/// A filter that grows by conditions, all of which a packet must meet.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<SockFilter>);

const LOAD: u32 = libc::BPF_LD;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const DROP: u32 = 0;
const TAKE: u32 = u32::MAX;

impl Filter {
    fn step(&mut self, code: u32, if_true: u8, if_false: u8, operand: u32) {
        let step = SockFilter::new(code as u16, if_true, if_false, operand);
        self.0.push(step);
    }

    /// Loads a field of `size`: `BPF_B`, `BPF_H` or `BPF_W`.
    fn load(&mut self, size: u32, at: At) {
        match at {
            At::Data(offset) => self.step(LOAD | size | libc::BPF_ABS, 0, 0, offset),
            At::Network(offset) => {
                let base = libc::SKF_NET_OFF.cast_unsigned();
                self.step(LOAD | size | libc::BPF_ABS, 0, 0, base.wrapping_add(offset));
            }
            At::BehindIpv4(offset) => self.load_behind(size, 0, offset),
            At::BehindIpv4InFrame(offset) => {
                self.load_behind(size, ethernet::LENGTH as u32, offset);
            }
        }
    }

    /// Loads a field behind the IPv4 header that begins at `header`. That says how long it is.
    fn load_behind(&mut self, size: u32, header: u32, offset: u32) {
        self.step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, header);
        self.step(LOAD | size | libc::BPF_IND, 0, 0, header + offset);
    }

    fn field(mut self, size: u32, at: At, value: u32) -> Self {
        self.load(size, at);
        self.step(EQUAL, 1, 0, value);
        self.step(RETURN, 0, 0, DROP);
        self
    }

    /// The byte has this value.
    pub(super) fn byte(self, at: At, value: u8) -> Self {
        self.field(libc::BPF_B, at, u32::from(value))
    }

    /// The 16-bit word, in network byte order, has this value.
    pub(super) fn half(self, at: At, value: u16) -> Self {
        self.field(libc::BPF_H, at, u32::from(value))
    }

    /// The 32-bit word, in network byte order, has this value.
    pub(super) fn word(self, at: At, value: u32) -> Self {
        self.field(libc::BPF_W, at, value)
    }

    /// At least one of these bits of the byte is set.
    pub(super) fn any_bit(mut self, at: At, bits: u8) -> Self {
        self.load(libc::BPF_B, at);
        let test = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
        self.step(test, 1, 0, u32::from(bits));
        self.step(RETURN, 0, 0, DROP);
        self
    }

    /// The packet came in by this interface.
    pub(super) fn interface(self, index: u32) -> Self {
        self.of_packet(libc::SKF_AD_IFINDEX, index)
    }

    /// The packet leaves this host (packet(7), `PACKET_OUTGOING`).
    pub(super) fn outgoing(self) -> Self {
        self.of_packet(libc::SKF_AD_PKTTYPE, u32::from(libc::PACKET_OUTGOING))
    }

    /// What the kernel notes about a packet has this value. `note` is one of `SKF_AD_...`
    /// (include/uapi/linux/filter.h).
    fn of_packet(mut self, note: libc::c_int, value: u32) -> Self {
        let place = libc::SKF_AD_OFF.wrapping_add(note);
        self.step(
            LOAD | libc::BPF_W | libc::BPF_ABS,
            0,
            0,
            place.cast_unsigned(),
        );
        self.step(EQUAL, 1, 0, value);
        self.step(RETURN, 0, 0, DROP);
        self
    }

    /// An untagged Ethernet frame with a packet that meets the conditions of its family.
    pub(super) fn of_family(mut self, v4: Self, v6: Self) -> Self {
        let ether_type = At::Data(ethernet::LENGTH as u32 - 2);
        let v4 = v4.finish();
        self.load(libc::BPF_H, ether_type);
        let ipv4 = u32::from(ethernet::ether_type::IPV4.get());
        self.step(EQUAL, 1, 0, ipv4);
        // The operand of an unconditional jump has room for any length.
        self.step(libc::BPF_JMP | libc::BPF_JA, 0, 0, v4.len() as u32);
        self.0.extend(v4);
        let mut this = self.half(ether_type, ethernet::ether_type::IPV6.get());
        this.0.extend(v6.0);
        this
    }

    /// The address there is one of these. Those of the other family do not count.
    pub(super) fn address(mut self, at: At, v4: bool, addresses: &[IpAddr]) -> Self {
        let wanted: Vec<Vec<u32>> = addresses
            .iter()
            .filter(|address| address.is_ipv4() == v4)
            .map(|address| match address {
                IpAddr::V4(address) => vec![u32::from(*address)],
                IpAddr::V6(address) => {
                    let bits = u128::from(*address);
                    (0..4)
                        .map(|word| (bits >> (96 - 32 * word)) as u32)
                        .collect()
                }
            })
            .collect();
        // Each address is a load and a comparison for each of its words, and a jump to the end.
        let longest = wanted.first().map_or(0, Vec::len) * 2 + 1;
        for (place, words) in wanted.iter().enumerate() {
            for (word, value) in words.iter().enumerate() {
                let start = self.0.len();
                self.load(libc::BPF_W, at.plus(4 * word as u32));
                debug_assert_eq!(self.0.len(), start + 1, "a load is one step");
                let to_next = 2 * (words.len() - word - 1) + 1;
                self.step(EQUAL, 0, to_next as u8, *value);
            }
            let to_end = (wanted.len() - place - 1) * longest + 1;
            self.step(libc::BPF_JMP | libc::BPF_JA, 0, 0, to_end as u32);
        }
        self.step(RETURN, 0, 0, DROP);
        self
    }

    /// No packet meets it.
    pub(super) fn nothing() -> Self {
        let mut filter = Self::default();
        filter.step(RETURN, 0, 0, DROP);
        filter
    }

    /// A packet of the IP family from one of these addresses that no router has passed on: its TTL
    /// or hop limit is 255 (RFC 5082).
    pub(super) fn neighbours(v4: bool, sources: &[IpAddr]) -> Self {
        let (ttl, source) = if v4 { (8, 12) } else { (7, 8) };
        Self::default()
            .byte(At::Network(ttl), u8::MAX)
            .address(At::Network(source), v4, sources)
    }

    /// All its steps, of which the last one takes what meets the conditions.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.step(RETURN, 0, 0, TAKE);
        self.0
    }

    /// Puts it on a socket, in the place of another one.
    pub(super) fn attach(self, socket: &Socket) -> io::Result<()> {
        socket.attach_filter(&self.finish())
    }
}

impl At {
    fn plus(self, bytes: u32) -> Self {
        match self {
            Self::Data(offset) => Self::Data(offset + bytes),
            Self::Network(offset) => Self::Network(offset + bytes),
            Self::BehindIpv4(offset) => Self::BehindIpv4(offset + bytes),
            Self::BehindIpv4InFrame(offset) => Self::BehindIpv4InFrame(offset + bytes),
        }
    }
}
