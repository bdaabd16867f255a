//! Frames of ARP and Neighbor Discovery.

use std::vec::Vec;

use super::addresses::{CLIENT, CLIENT_MAC, CLIENT6};
use crate::wire::addr::{Be32, Be128, Mac};
use crate::wire::{arp, icmp, ipv6, ndp};

/// A frame of Neighbor Discovery with a right checksum. `from` and `to` are Ethernet and IPv6
/// addresses.
#[must_use]
pub fn ndp_frame(from: (Mac, Be128), to: (Mac, Be128), message: &[u8]) -> Vec<u8> {
    let length = message.len() as u16;
    let icmp = ipv6::next_header::ICMP;
    let header = ipv6::Header::new(from.1, to.1, icmp, ndp::HOP_LIMIT, length);
    let mut message = Vec::from(message);
    message[icmp::CHECKSUM..][..2].fill(0);
    let sum = ndp::checksum(&message, from.1, to.1);
    message[icmp::CHECKSUM..][..2].copy_from_slice(&sum.get().to_be_bytes());
    let mut frame = Vec::new();
    frame.extend(to.0.to_wire());
    frame.extend(from.0.to_wire());
    frame.extend([0x86, 0xdd]);
    frame.extend(bytemuck::bytes_of(&header));
    frame.extend(message);
    frame
}

/// The client's solicitation for `target`. `unspecified`: it is an address probe of duplicate
/// address detection, from `::` (RFC 4862, section 5.4.2).
#[must_use]
pub fn solicitation(target: Be128, unspecified: bool) -> Vec<u8> {
    let group = ndp::solicited_node(target);
    let mut message = Vec::from(bytemuck::bytes_of(&ndp::Message::solicitation(target)));
    let source = if unspecified {
        Be128::UNSPECIFIED
    } else {
        // The option with the client's link-layer address (RFC 4861, section 4.6.1).
        message.extend([1, 1]);
        message.extend(CLIENT_MAC.to_wire());
        CLIENT6
    };
    let to = (ndp::group_mac(group), group);
    ndp_frame((CLIENT_MAC, source), to, &message)
}

/// The frame of an ARP packet.
#[must_use]
pub fn arp_frame(to: Mac, from: Mac, packet: arp::Packet) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.to_wire());
    frame.extend(from.to_wire());
    frame.extend([0x08, 0x06]);
    frame.extend(bytemuck::bytes_of(&packet));
    frame
}

/// The client's ARP request for `target`.
#[must_use]
pub fn arp_request(target: Be32) -> Vec<u8> {
    let packet = arp::Packet::new(
        arp::operation::REQUEST,
        (CLIENT_MAC, CLIENT),
        (Mac::default(), target),
    );
    arp_frame(Mac::BROADCAST, CLIENT_MAC, packet)
}
