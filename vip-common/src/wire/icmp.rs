//! Errors of ICMP (RFC 792) and ICMPv6 (RFC 4443). The packet that an error quotes tells which
//! connection the error is about.

use bytemuck::{Pod, Zeroable};

/// Length of the header in bytes. In an error, the quoted packet follows.
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
    /// The type of the message.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// Whether the message is an ICMP error that quotes a packet: destination unreachable (which
    /// includes fragmentation needed), time exceeded, parameter problem.
    #[inline(always)]
    #[must_use]
    pub fn quotes_ipv4(&self) -> bool {
        matches!(self.kind, 3 | 11 | 12)
    }

    /// Whether the message is an ICMPv6 error that quotes a packet: destination unreachable, packet
    /// too big, time exceeded, parameter problem.
    #[inline(always)]
    #[must_use]
    pub fn quotes_ipv6(&self) -> bool {
        matches!(self.kind, 1..=4)
    }
}
