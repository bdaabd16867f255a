//! Ethernet II (IEEE 802.3, clause 3).

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Mac};

/// Length of the header in bytes, without VLAN tags.
pub const LENGTH: usize = size_of::<Header>();

/// EtherTypes (IEEE 802 numbers, IANA), in network byte order.
pub mod ether_type {
    use crate::wire::addr::Be16;

    /// IPv4.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// ARP.
    pub const ARP: Be16 = Be16::new(0x0806);
    /// IPv6.
    pub const IPV6: Be16 = Be16::new(0x86dd);
}

/// Destination, source, EtherType.
///
/// The addresses are words of four and two bytes. LLVM would load and store six bytes one by one.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    destination_4: [u8; 4],
    destination_2: [u8; 2],
    source_4: [u8; 4],
    source_2: [u8; 2],
    ether_type: [u8; 2],
}

impl Header {
    /// The destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Mac {
        Mac::from_words(self.destination_4, self.destination_2)
    }

    /// The source address.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Mac {
        Mac::from_words(self.source_4, self.source_2)
    }

    /// The EtherType of the payload, or of a VLAN tag.
    #[inline(always)]
    #[must_use]
    pub fn ether_type(&self) -> Be16 {
        Be16::from_wire(self.ether_type)
    }

    /// Replaces both addresses.
    #[inline(always)]
    pub fn readdress(&mut self, destination: Mac, source: Mac) {
        (self.destination_4, self.destination_2) = destination.to_words();
        (self.source_4, self.source_2) = source.to_words();
    }
}
