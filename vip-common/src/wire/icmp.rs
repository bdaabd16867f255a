//! ICMP (RFC 792) and ICMPv6 (RFC 4443), as far as errors go: which of a node's connections an
//! error is about stands in the packet that it quotes.

use bytemuck::{Pod, Zeroable};

/// Length of the header in bytes. What an error quotes follows.
pub const LENGTH: usize = size_of::<Header>();

/// Offset of the checksum in the header, in bytes.
pub const CHECKSUM: usize = 2;

/// The header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    rest: [u8; 4],
}

impl Header {
    /// What the message is.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// Whether an ICMP message quotes the packet that it is about: destination unreachable
    /// (fragmentation needed is one of these), time exceeded, parameter problem.
    #[inline(always)]
    #[must_use]
    pub fn quotes_ipv4(&self) -> bool {
        matches!(self.kind, 3 | 11 | 12)
    }

    /// Whether an ICMPv6 message quotes the packet that it is about: destination unreachable,
    /// packet too big, time exceeded, parameter problem.
    #[inline(always)]
    #[must_use]
    pub fn quotes_ipv6(&self) -> bool {
        matches!(self.kind, 1..=4)
    }
}
