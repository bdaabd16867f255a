//! Neighbor Discovery (RFC 4861): solicitations and advertisements.

use bytemuck::{Pod, Zeroable};

use super::ipv6;
use crate::wire::addr::{Be16, Be128, Mac};
use crate::wire::checksum::Sum;

/// Length of a message without options, in bytes.
pub const LENGTH: usize = size_of::<Message>();

/// Length of a message with one link-layer address option, in bytes.
pub const WITH_OPTION: usize = size_of::<Advertisement>();

/// Hop limit of every message. A message with another one has passed a router (section 7.1).
pub const HOP_LIMIT: u8 = 255;

/// Types of messages (section 4).
pub mod kind {
    /// Neighbor solicitation: the sender asks who has the target address.
    pub const SOLICITATION: u8 = 135;
    /// Neighbor advertisement: the sender has the target address.
    pub const ADVERTISEMENT: u8 = 136;
}

/// Flags of an advertisement (section 4.4).
pub mod flag {
    /// The message answers a solicitation.
    pub const SOLICITED: u8 = 0x40;
    /// The receiver replaces a link-layer address that it has cached.
    pub const OVERRIDE: u8 = 0x20;
}

/// Type of the option with the target's link-layer address (section 4.6.1).
const TARGET_LINK_LAYER: u8 = 2;

/// A solicitation or an advertisement without its options.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Message {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    flags: u8,
    reserved: [u8; 3],
    target: [[u8; 8]; 2],
}

impl Message {
    /// The type of the message: see [`kind`].
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// Whether the message is a solicitation or an advertisement.
    #[inline(always)]
    #[must_use]
    pub fn is_about_address(&self) -> bool {
        matches!(self.kind, kind::SOLICITATION | kind::ADVERTISEMENT)
    }

    /// The code, which must be 0.
    #[inline(always)]
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The address that the message is about.
    #[inline(always)]
    #[must_use]
    pub fn target(&self) -> Be128 {
        Be128::from_words_on_wire(self.target)
    }

    /// A solicitation for `target` without options, and with a checksum of 0. Without the option of
    /// the sender's link-layer address, the receiver has to find that address first if it answers
    /// by unicast.
    #[must_use]
    pub fn solicitation(target: Be128) -> Self {
        Self {
            kind: kind::SOLICITATION,
            target: target.to_words_on_wire(),
            ..Self::zeroed()
        }
    }
}

/// An advertisement with the link-layer address of its target.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Advertisement {
    message: Message,
    option: u8,
    /// In units of eight bytes.
    option_length: u8,
    mac: [u8; 6],
}

impl Advertisement {
    /// An advertisement that `mac` has `target`. `flags` are bits of [`flag`]; `source` and
    /// `destination` are those of the IPv6 header, for the checksum.
    #[inline(always)]
    #[must_use]
    pub fn new(target: Be128, mac: Mac, flags: u8, source: Be128, destination: Be128) -> Self {
        let mut advertisement = Self {
            message: Message {
                kind: kind::ADVERTISEMENT,
                code: 0,
                checksum: [0; 2],
                flags,
                reserved: [0; 3],
                target: target.to_words_on_wire(),
            },
            option: TARGET_LINK_LAYER,
            option_length: 1,
            mac: mac.to_wire(),
        };
        let head = [kind::ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        let [a, b, c, d, e, f] = mac.to_wire();
        let sum = Sum::default()
            .pseudo_header(
                source,
                destination,
                WITH_OPTION as u16,
                ipv6::next_header::ICMP,
            )
            .eight(head)
            .address(target)
            .eight([TARGET_LINK_LAYER, 1, a, b, c, d, e, f]);
        advertisement.message.checksum = sum.checksum().raw().to_ne_bytes();
        advertisement
    }
}

/// The solicited-node multicast group of an address (RFC 4291, section 2.7.1).
#[must_use]
pub const fn solicited_node(address: Be128) -> Be128 {
    let [.., a, b, c] = address.to_wire();
    Be128::from_wire([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464, section 7).
#[inline(always)]
#[must_use]
pub const fn group_mac(group: Be128) -> Mac {
    let [.., a, b, c, d] = group.to_wire();
    Mac::from_wire([0x33, 0x33, a, b, c, d])
}

/// The checksum of an ICMPv6 message, whose checksum field is 0. `source` and `destination` are
/// those of the IPv6 header.
#[must_use]
pub fn checksum(message: &[u8], source: Be128, destination: Be128) -> Be16 {
    let sum = Sum::default().pseudo_header(
        source,
        destination,
        message.len() as u16,
        ipv6::next_header::ICMP,
    );
    let sum = message.chunks(8).fold(sum, |sum, chunk| {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        sum.eight(eight)
    });
    sum.checksum()
}
