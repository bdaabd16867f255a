//! IPv4 (RFC 791).

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Be32};

/// Length of a header without options, in bytes.
pub const LENGTH: usize = size_of::<Header>();

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
}

/// `MF` and the fragment offset: not zero in every fragment of a datagram.
const FRAGMENT: Be16 = Be16::new(0x3fff);

/// The header without its options.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    version_and_length: u8,
    tos: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    flags_and_offset: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

impl Header {
    /// 4, if this is IPv4.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_and_length >> 4
    }

    /// Length of the header with its options in bytes, `0..=60`. Less than [`LENGTH`] is wrong.
    #[inline(always)]
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.version_and_length & 0xf) * 4
    }

    /// Length of the datagram with this header, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn total_length(&self) -> usize {
        usize::from(Be16::from_wire(self.total_length).get())
    }

    /// Whether this is a piece of a datagram, the first one included.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        Be16::from_wire(self.flags_and_offset).raw() & FRAGMENT.raw() != 0
    }

    /// Hops left.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// What follows.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the datagram comes from.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Be32 {
        Be32::from_wire(self.source)
    }

    /// Where the datagram goes.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Be32 {
        Be32::from_wire(self.destination)
    }

    /// Leaves fewer hops, and sets the checksum right by the difference (RFC 1624, equation 3;
    /// the TTL is the upper byte of its 16-bit word).
    #[inline(always)]
    pub fn lower_ttl(&mut self, to: u8) {
        let difference = u32::from(self.ttl.wrapping_sub(to));
        self.ttl = to;
        let old = u32::from(Be16::from_wire(self.checksum).get());
        // Less in the sum is more in its complement, with the carry folded in.
        let sum = old + (difference << 8);
        let sum = (sum & 0xffff) + (sum >> 16);
        self.checksum = Be16::new(sum as u16).raw().to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, the slow and obvious way.
    fn checksum_is_right(header: &Header) -> bool {
        let sum: u32 = bytemuck::bytes_of(header)
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    #[test]
    fn a_lower_ttl_keeps_the_checksum_right() {
        for identification in 0..=u16::MAX {
            let mut header = Header {
                version_and_length: 0x45,
                identification: identification.to_be_bytes(),
                ttl: 64,
                protocol: protocol::TCP,
                source: [10, 0, 0, 1],
                destination: [10, 0, 0, 10],
                ..Zeroable::zeroed()
            };
            let sum: u32 = bytemuck::bytes_of(&header)
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            header.checksum = (!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes();
            assert!(checksum_is_right(&header));
            for to in [63, 34, 34, 33, 0] {
                header.lower_ttl(to);
                assert_eq!(header.ttl(), to);
                assert!(
                    checksum_is_right(&header),
                    "identification {identification:#x}, TTL {to}"
                );
            }
        }
    }
}
