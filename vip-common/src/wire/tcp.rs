//! TCP (RFC 9293).

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::Be16;
use crate::wire::checksum::{Sum, adjusted};

/// Length of a header without options, in bytes.
pub const LENGTH: usize = size_of::<Header>();

/// Offset of the checksum in the header, in bytes.
pub const CHECKSUM: usize = 16;

/// Offset of the destination port in the header, in bytes.
pub const DESTINATION_PORT: usize = 2;

/// Flag: the sender has no more data.
pub const FIN: u8 = 0x01;
/// Flag: the segment synchronizes sequence numbers, to open a connection.
pub const SYN: u8 = 0x02;
/// Flag: the segment resets the connection.
pub const RST: u8 = 0x04;
/// Flag: the acknowledgement number is valid.
pub const ACK: u8 = 0x10;

/// The header without its options.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    data_offset: u8,
    flags: u8,
    window: [u8; 2],
    checksum: [u8; 2],
    urgent: [u8; 2],
}

/// The first four of the eight bytes of TCP that an ICMP error quotes at least (RFC 792).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
}

impl Ports {
    /// The source port.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Be16 {
        Be16::from_wire(self.source)
    }

    /// The destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Be16 {
        Be16::from_wire(self.destination)
    }
}

impl Header {
    /// A reset without options and data, from the first of these ports to the second, with this
    /// sequence number in host byte order. `pseudo_header`: the sum of the pseudo-header of a
    /// segment of [`LENGTH`] bytes.
    #[inline(always)]
    #[must_use]
    pub fn reset([source, destination]: [Be16; 2], sequence: u32, pseudo_header: Sum) -> Self {
        let mut header = Self {
            source_port: source.raw().to_ne_bytes(),
            destination_port: destination.raw().to_ne_bytes(),
            sequence: sequence.to_be_bytes(),
            data_offset: (LENGTH as u8 / 4) << 4,
            flags: RST,
            ..Self::zeroed()
        };
        let sum = pseudo_header.word(source).word(destination);
        let sum = header.changeable().into_iter().fold(sum, Sum::word);
        header.checksum = sum.checksum().raw().to_ne_bytes();
        header
    }

    /// The source port.
    #[inline(always)]
    #[must_use]
    pub fn source_port(&self) -> Be16 {
        Be16::from_wire(self.source_port)
    }

    /// The destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination_port(&self) -> Be16 {
        Be16::from_wire(self.destination_port)
    }

    /// Length of the header with its options in bytes, `0..=60`. Below [`LENGTH`] it is not valid.
    #[inline(always)]
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Turns the segment into a reset with this sequence number, in host byte order. The checksum,
    /// which covers what is behind the header too, follows.
    #[inline(always)]
    pub fn become_reset(&mut self, sequence: u32) {
        let before = *self;
        self.sequence = sequence.to_be_bytes();
        self.flags = RST;
        let mut checksum = Be16::from_wire(self.checksum);
        for (from, to) in before.changeable().into_iter().zip(self.changeable()) {
            checksum = adjusted(checksum, from, to);
        }
        self.checksum = checksum.raw().to_ne_bytes();
    }

    /// The words with the sequence number and the flags.
    #[inline(always)]
    fn changeable(&self) -> [Be16; 3] {
        let [a, b, c, d] = self.sequence;
        [[a, b], [c, d], [self.data_offset, self.flags]].map(Be16::from_wire)
    }

    /// Whether the segment asks for a new connection: SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub fn opens(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Sequence number of the first byte, in host byte order.
    #[inline(always)]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.sequence)
    }

    /// The acknowledgement number, in host byte order. It is valid if the segment
    /// [acknowledges](Self::acknowledges).
    #[inline(always)]
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes(self.acknowledgement)
    }

    /// Whether the segment acknowledges something.
    #[inline(always)]
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        self.flags & ACK != 0
    }

    /// Whether a host without the connection answers the segment with a reset whose sequence number
    /// is the [acknowledgement number](Self::acknowledgement) (RFC 9293, section 3.10.7.1): the
    /// segment acknowledges something and is no reset. No segment that [opens](Self::opens) a
    /// connection does.
    #[inline(always)]
    #[must_use]
    pub fn is_answered_by_reset(&self) -> bool {
        self.flags & (RST | ACK) == ACK
    }

    /// Whether the segment may acknowledge a SYN cookie: `bpf_tcp_check_syncookie`
    /// (net/core/filter.c) refuses any other combination of flags.
    #[inline(always)]
    #[must_use]
    pub fn may_acknowledge_cookie(&self) -> bool {
        self.flags & (SYN | RST | ACK) == ACK
    }
}
