//! IPv6 (RFC 8200): the header, and the search for the upper layer behind extension headers.

use bytemuck::{Pod, Zeroable};

use super::ethernet;
use super::frame::Frame;
use crate::wire::addr::{Be16, Be128};

/// Length of the header in bytes.
pub const LENGTH: usize = size_of::<Header>();

/// Most extension headers of a packet. No TCP stack sends more.
pub const MAX_EXTENSIONS: usize = 6;

/// Upper bound of the upper layer's offset in a frame, in bytes: each extension header has at most
/// 2048 bytes. A power of two.
pub const MAX_OFFSET: usize = 16_384;

const _: () = assert!(ethernet::LENGTH + LENGTH + MAX_EXTENSIONS * 2048 < MAX_OFFSET);

/// Protocol numbers and extension headers (IANA).
pub mod next_header {
    /// Hop-by-hop options, RFC 8200, section 4.3.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// Routing, RFC 8200, section 4.4.
    pub const ROUTING: u8 = 43;
    /// Fragment, RFC 8200, section 4.5.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6, RFC 4443.
    pub const ICMP: u8 = 58;
    /// Destination options, RFC 8200, section 4.6.
    pub const DESTINATION: u8 = 60;
}

/// All nodes on the segment (RFC 4291, section 2.7.1).
pub const ALL_NODES: Be128 = Be128::from_wire([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// The header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    version_class_and_label: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [[u8; 8]; 2],
    destination: [[u8; 8]; 2],
}

impl Header {
    /// A header without traffic class and flow label.
    #[must_use]
    pub fn new(
        source: Be128,
        destination: Be128,
        next_header: u8,
        hop_limit: u8,
        payload_length: u16,
    ) -> Self {
        Self {
            version_class_and_label: [0x60, 0, 0, 0],
            payload_length: payload_length.to_be_bytes(),
            next_header,
            hop_limit,
            source: source.to_words_on_wire(),
            destination: destination.to_words_on_wire(),
        }
    }

    /// The version, which must be 6.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_class_and_label[0] >> 4
    }

    /// Length of the payload in bytes, extension headers included. 0 in a packet that the kernel
    /// merged from segments (BIG TCP).
    #[inline(always)]
    #[must_use]
    pub fn payload_length(&self) -> usize {
        usize::from(Be16::from_wire(self.payload_length).get())
    }

    /// The type of the next header: see [`next_header`].
    #[inline(always)]
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.next_header
    }

    /// The hop limit: the number of hops left.
    #[inline(always)]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Sets the hop limit. The header has no checksum.
    #[inline(always)]
    pub fn set_hop_limit(&mut self, to: u8) {
        self.hop_limit = to;
    }

    /// The source address.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Be128 {
        Be128::from_words_on_wire(self.source)
    }

    /// The destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Be128 {
        Be128::from_words_on_wire(self.destination)
    }
}

/// The first eight bytes of an extension header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Extension {
    next_header: u8,
    /// In units of eight bytes, without the first eight. Reserved in a fragment header, which is
    /// always eight bytes long.
    length: u8,
    /// In a fragment header: offset, two reserved bits, `M`.
    first: [u8; 2],
    rest: [u8; 4],
}

/// Mask of `M` and of the offset in a fragment header. At least one of the two is not 0, unless the
/// packet is an atomic fragment (RFC 8200, section 4.5; RFC 6946).
const FRAGMENT: Be16 = Be16::new(0xfff9);

impl Extension {
    /// For a fragment header: whether the packet has other fragments.
    #[inline(always)]
    fn is_fragmented(&self) -> bool {
        Be16::from_wire(self.first).raw() & FRAGMENT.raw() != 0
    }
}

/// Finds the protocol behind the extension headers, and its offset in the frame, in bytes.
///
/// `first` is the type of the header at `offset`, which the IPv6 header before it names. A header
/// of an unknown type counts as the protocol, and so does a fragment header. `None` if the frame
/// ends before the protocol, or if there are more than [`MAX_EXTENSIONS`].
#[inline(always)]
pub fn upper_layer<F: Frame + ?Sized>(
    frame: &F,
    first: u8,
    mut offset: usize,
) -> Option<(u8, usize)> {
    let mut protocol = first;
    let mut seen = 0;
    loop {
        match protocol {
            next_header::HOP_BY_HOP | next_header::ROUTING | next_header::DESTINATION => {}
            other => return Some((other, offset)),
        }
        if seen == MAX_EXTENSIONS {
            return None;
        }
        seen += 1;
        let extension = frame.view::<Extension>(offset)?;
        protocol = extension.next_header;
        offset += (usize::from(extension.length) + 1) * 8;
    }
}

/// Skips the fragment header that [`upper_layer`] found, if the packet is an atomic fragment (RFC
/// 6946): one with a fragment header, but no other fragments. Some translators send these. Any
/// other protocol and offset are returned unchanged. `None` if the frame ends before.
///
/// This is no part of the loop above, because it would double the paths of the verifier with each
/// round. The fragment header must therefore be the last extension header.
#[inline(always)]
pub fn past_fragment_header<F: Frame + ?Sized>(
    frame: &F,
    (protocol, offset): (u8, usize),
) -> Option<(u8, usize)> {
    if protocol != next_header::FRAGMENT {
        return Some((protocol, offset));
    }
    let extension = frame.view::<Extension>(offset)?;
    Some(if extension.is_fragmented() {
        (protocol, offset)
    } else {
        (extension.next_header, offset + size_of::<Extension>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extension headers of these kinds and lengths (in eights less one), then `last`.
    fn chain(headers: &[(u8, u8)], last: u8) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        for (place, (_, length)) in headers.iter().enumerate() {
            let next = headers.get(place + 1).map_or(last, |(kind, _)| *kind);
            bytes.extend([next, *length]);
            bytes.resize(bytes.len() + 6 + 8 * usize::from(*length), 0);
        }
        (headers.first().map_or(last, |(kind, _)| *kind), bytes)
    }

    #[test]
    fn the_protocol_is_found_behind_the_extension_headers() {
        use next_header::*;
        for (headers, last, expected) in [
            (&[][..], TCP, Some((TCP, 0))),
            (&[(HOP_BY_HOP, 0)][..], TCP, Some((TCP, 8))),
            (
                &[(HOP_BY_HOP, 1), (ROUTING, 2), (DESTINATION, 0)][..],
                TCP,
                Some((TCP, 48)),
            ),
            (&[(DESTINATION, 255)][..], ICMP, Some((ICMP, 2048))),
            (&[(ROUTING, 0)][..], FRAGMENT, Some((FRAGMENT, 8))),
            (
                &[(DESTINATION, 0); MAX_EXTENSIONS][..],
                TCP,
                Some((TCP, 48)),
            ),
            (&[(DESTINATION, 0); MAX_EXTENSIONS + 1][..], TCP, None),
        ] {
            let (first, bytes) = chain(headers, last);
            assert_eq!(upper_layer(&bytes[..], first, 0), expected, "{headers:?}");
            if headers.len() > 1 {
                let cut = &bytes[..8];
                assert_eq!(upper_layer(cut, first, 0), None, "{headers:?} cut short");
            }
        }
    }

    #[test]
    fn only_the_fragment_header_of_an_atomic_fragment_is_skipped() {
        use next_header::*;
        for (reserved, first, is_fragmented) in [
            (0, [0, 0], false),
            (9, [0, 0], false),
            (0, [0, 6], false),
            (0, [0, 1], true),
            (0, [0, 8], true),
            (0, [0x80, 0], true),
        ] {
            let bytes = [TCP, reserved, first[0], first[1], 1, 2, 3, 4];
            let expected = if is_fragmented {
                (FRAGMENT, 0)
            } else {
                (TCP, 8)
            };
            let found = past_fragment_header(&bytes[..], (FRAGMENT, 0));
            assert_eq!(found, Some(expected), "{bytes:02x?}");
            assert_eq!(past_fragment_header(&bytes[..7], (FRAGMENT, 0)), None);
            let other = past_fragment_header(&bytes[..], (TCP, 0));
            assert_eq!(other, Some((TCP, 0)), "not a fragment header");
        }
    }
}
