//! IPv4 (RFC 791).

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Be32};
use crate::wire::checksum::Sum;

/// Length of a header without options, in bytes.
pub const LENGTH: usize = size_of::<Header>();

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
}

/// Mask of `MF` and of the fragment offset. At least one of the two is not 0 in a fragment.
const FRAGMENT: Be16 = Be16::new(0x3fff);

/// The flag `DF`.
const DO_NOT_FRAGMENT: Be16 = Be16::new(0x4000);

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
    /// A header without options, of a datagram that may not be fragmented and therefore needs no
    /// identification (RFC 6864). `payload_length` is in bytes.
    #[inline(always)]
    #[must_use]
    pub fn new(
        source: Be32,
        destination: Be32,
        protocol: u8,
        ttl: u8,
        payload_length: u16,
    ) -> Self {
        let version_and_length = 0x45;
        let total_length = Be16::new(LENGTH as u16 + payload_length);
        // The prefix of a mapped address is a word of ones, which is 0 in this sum.
        let sum = Sum::default()
            .word(Be16::from_wire([version_and_length, 0]))
            .word(total_length)
            .word(DO_NOT_FRAGMENT)
            .word(Be16::from_wire([ttl, protocol]))
            .address(source.into())
            .address(destination.into());
        Self {
            version_and_length,
            tos: 0,
            total_length: total_length.raw().to_ne_bytes(),
            identification: [0; 2],
            flags_and_offset: DO_NOT_FRAGMENT.raw().to_ne_bytes(),
            ttl,
            protocol,
            checksum: sum.checksum().raw().to_ne_bytes(),
            source: source.to_wire(),
            destination: destination.to_wire(),
        }
    }

    /// The version, which must be 4.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_and_length >> 4
    }

    /// Whether this is a header of version 4 without options.
    #[inline(always)]
    #[must_use]
    pub fn has_no_options(&self) -> bool {
        self.version_and_length == 0x45
    }

    /// Length of the header with its options in bytes, `0..=60`. Below [`LENGTH`] it is not valid.
    #[inline(always)]
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.version_and_length & 0xf) * 4
    }

    /// Length of the datagram in bytes, this header included. 0 in a packet that the kernel merged
    /// from segments (BIG TCP).
    #[inline(always)]
    #[must_use]
    pub fn total_length(&self) -> usize {
        usize::from(Be16::from_wire(self.total_length).get())
    }

    /// Whether this is a fragment of a datagram; the first fragment is one too.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        Be16::from_wire(self.flags_and_offset).raw() & FRAGMENT.raw() != 0
    }

    /// The TTL: the number of hops left.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The protocol of the payload: see [`protocol`].
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The source address.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Be32 {
        Be32::from_wire(self.source)
    }

    /// The destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Be32 {
        Be32::from_wire(self.destination)
    }

    /// Lowers the TTL to `to`, and updates the header checksum (RFC 1624, equation 3). The sum does
    /// not depend on the byte order (RFC 1071, section 2), so the words stay as they lie in memory.
    #[inline(always)]
    pub fn lower_ttl(&mut self, to: u8) {
        let difference = u16::from_ne_bytes([self.ttl.wrapping_sub(to), 0]);
        self.ttl = to;
        // The checksum is the complement of the sum, so it grows by the difference.
        let sum = u32::from(u16::from_ne_bytes(self.checksum)) + u32::from(difference);
        self.checksum = ((sum + (sum >> 16)) as u16).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, computed in the simplest way.
    fn checksum_is_right(header: &Header) -> bool {
        let sum: u32 = bytemuck::bytes_of(header)
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    #[test]
    fn the_checksum_is_right_after_the_ttl_is_lowered() {
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
