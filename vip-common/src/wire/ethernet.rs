//! Ethernet II (IEEE 802.3, clause 3).

use bytemuck::{Pod, Zeroable};

use crate::layout::{Be16, Mac};

/// Length of the header in bytes, without VLAN tags.
pub const LENGTH: usize = size_of::<Header>();

/// EtherTypes (IEEE 802 numbers, IANA), in network byte order.
pub mod ether_type {
    use crate::layout::Be16;

    /// IPv4.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// ARP.
    pub const ARP: Be16 = Be16::new(0x0806);
}

/// Destination, source, EtherType.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    destination: [u8; 6],
    source: [u8; 6],
    ether_type: [u8; 2],
}

impl Header {
    /// Where the frame goes.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Mac {
        let [a, b, c, d, e, f] = self.destination;
        // One load of eight bytes, and the two that are not the address taken off.
        let [g, h, ..] = self.source;
        Mac::from_first_six([a, b, c, d, e, f, g, h])
    }

    /// Where the frame comes from.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Mac {
        let [a, b, c, d, e, f] = self.source;
        let [g, h] = self.ether_type;
        Mac::from_first_six([a, b, c, d, e, f, g, h])
    }

    /// What follows.
    #[inline(always)]
    #[must_use]
    pub fn ether_type(&self) -> Be16 {
        Be16::from_wire(self.ether_type)
    }

    /// Sends the frame on: to `destination`, from `source`.
    #[inline(always)]
    pub fn readdress(&mut self, destination: Mac, source: Mac) {
        self.destination = destination.to_wire();
        self.source = source.to_wire();
    }
}
