//! ARP for IPv4 over Ethernet (RFC 826; announcements and probes: RFC 5227).

use bytemuck::{Pod, Zeroable};

use super::ethernet::ether_type;
use crate::wire::addr::{Be16, Be32, Mac};

/// Length of the packet in bytes, Ethernet header not included.
pub const LENGTH: usize = size_of::<Packet>();

/// Operations (RFC 826), in network byte order.
pub mod operation {
    use crate::wire::addr::Be16;

    /// The sender asks who has the target address.
    pub const REQUEST: Be16 = Be16::new(1);
    /// The sender has it.
    pub const REPLY: Be16 = Be16::new(2);
    /// An agent's self-test of the egress program: `OP_EXP1` (RFC 5494), an operation for
    /// experiments that hosts ignore.
    pub const SELF_TEST: Be16 = Be16::new(24);
}

/// Hardware type Ethernet (RFC 826, IANA).
const ETHERNET: Be16 = Be16::new(1);

/// Hardware type IEEE 802. The kernel accepts and answers both types on Ethernet (`arp_process` in
/// net/ipv4/arp.c).
const IEEE_802: Be16 = Be16::new(6);

/// The packet after the Ethernet header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Packet {
    hardware_type: [u8; 2],
    protocol_type: [u8; 2],
    hardware_length: u8,
    protocol_length: u8,
    operation: [u8; 2],
    sender_mac: [u8; 6],
    sender_address: [u8; 4],
    target_mac: [u8; 6],
    target_address: [u8; 4],
}

impl Packet {
    /// A packet for IPv4 over Ethernet. `sender` and `target` are the addresses of the two hosts.
    #[must_use]
    pub fn new(operation: Be16, sender: (Mac, Be32), target: (Mac, Be32)) -> Self {
        Self {
            hardware_type: ETHERNET.raw().to_ne_bytes(),
            protocol_type: ether_type::IPV4.raw().to_ne_bytes(),
            hardware_length: 6,
            protocol_length: 4,
            operation: operation.raw().to_ne_bytes(),
            sender_mac: sender.0.to_wire(),
            sender_address: sender.1.to_wire(),
            target_mac: target.0.to_wire(),
            target_address: target.1.to_wire(),
        }
    }

    /// Whether types and lengths are those of IPv4 over Ethernet. Otherwise the addresses are not
    /// valid.
    #[inline(always)]
    #[must_use]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        let hardware = Be16::from_wire(self.hardware_type);
        (hardware == ETHERNET || hardware == IEEE_802)
            && Be16::from_wire(self.protocol_type) == ether_type::IPV4
            && self.hardware_length == 6
            && self.protocol_length == 4
    }

    /// The operation: see [`operation`].
    #[inline(always)]
    #[must_use]
    pub fn operation(&self) -> Be16 {
        Be16::from_wire(self.operation)
    }

    /// The sender's Ethernet address.
    #[inline(always)]
    #[must_use]
    pub fn sender_mac(&self) -> Mac {
        Mac::from_wire(self.sender_mac)
    }

    /// The sender's IPv4 address; 0.0.0.0 in an address probe (RFC 5227, section 2.1.1).
    #[inline(always)]
    #[must_use]
    pub fn sender_address(&self) -> Be32 {
        Be32::from_wire(self.sender_address)
    }

    /// The target's IPv4 address: in a request, the one that is asked for.
    #[inline(always)]
    #[must_use]
    pub fn target_address(&self) -> Be32 {
        Be32::from_wire(self.target_address)
    }

    /// Turns a request into its reply, which says that `mac` has the target address.
    #[inline(always)]
    pub fn answer(&mut self, mac: Mac) {
        let asked = self.target_address;
        self.hardware_type = ETHERNET.raw().to_ne_bytes();
        self.operation = operation::REPLY.raw().to_ne_bytes();
        self.target_mac = self.sender_mac;
        self.target_address = self.sender_address;
        self.sender_mac = mac.to_wire();
        self.sender_address = asked;
    }

    /// Replaces the sender's IPv4 address.
    #[inline(always)]
    pub fn set_sender_address(&mut self, address: Be32) {
        self.sender_address = address.to_wire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_swaps_sender_and_target_and_names_the_owner() {
        let asker = (
            Mac::from_wire([2, 0, 0, 0, 0, 9]),
            Be32::from_wire([10, 0, 0, 9]),
        );
        let vip = Be32::from_wire([10, 0, 0, 10]);
        let owner = Mac::from_wire([2, 0, 0, 0, 0, 1]);
        let mut packet = Packet::new(operation::REQUEST, asker, (Mac::default(), vip));
        assert!(packet.is_ipv4_over_ethernet());
        packet.answer(owner);
        let expected = Packet::new(operation::REPLY, (owner, vip), asker);
        assert_eq!(bytemuck::bytes_of(&packet), bytemuck::bytes_of(&expected));
    }
}
