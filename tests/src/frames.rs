//! Building and reading Ethernet frames, for tests that need frames no kernel would send.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// ARP operation "request".
pub const ARP_REQUEST: u16 = 1;
/// ARP operation "reply".
pub const ARP_REPLY: u16 = 2;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// `ff:ff:ff:ff:ff:ff`.
pub const BROADCAST: Mac = Mac([0xff; 6]);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok())
            .collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not an Ethernet address such as 02:00:00:00:00:01"))
    }
}

/// The Ethernet address of an interface in the current network namespace.
///
/// # Errors
/// There is no such interface.
pub fn own_mac(interface: &str) -> Result<Mac> {
    let path = format!("/sys/class/net/{interface}/address");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.trim().parse().map_err(anyhow::Error::msg)
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(source: Mac, destination: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug)]
pub struct Arp {
    /// Request or reply.
    pub operation: u16,
    /// Ethernet address of the sender.
    pub sender_mac: Mac,
    /// IPv4 address of the sender.
    pub sender_ip: Ipv4Addr,
    /// Ethernet address of the target.
    pub target_mac: Mac,
    /// IPv4 address of the target.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// The whole frame, 42 bytes.
    #[must_use]
    pub fn frame(&self, source: Mac, destination: Mac) -> Vec<u8> {
        // Ethernet, IPv4, their address lengths.
        let mut payload = vec![0, 1, 8, 0, 6, 4];
        payload.extend(self.operation.to_be_bytes());
        payload.extend(self.sender_mac.0);
        payload.extend(self.sender_ip.octets());
        payload.extend(self.target_mac.0);
        payload.extend(self.target_ip.octets());
        ethernet(source, destination, ETHERTYPE_ARP, &payload)
    }

    /// Reads a frame; `None` if it is not such a one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (head, payload) = frame.split_at_checked(14)?;
        if head[12..] != ETHERTYPE_ARP.to_be_bytes()
            || payload.len() < 28
            || payload[..6] != [0, 1, 8, 0, 6, 4]
        {
            return None;
        }
        let mac = |at: usize| Some(Mac(payload.get(at..at + 6)?.try_into().ok()?));
        let ip = |at: usize| {
            let bytes: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes))
        };
        Some(Self {
            operation: u16::from_be_bytes([payload[6], payload[7]]),
            sender_mac: mac(8)?,
            sender_ip: ip(14)?,
            target_mac: mac(18)?,
            target_ip: ip(24)?,
        })
    }
}

/// An IPv4 packet with a right header checksum and no options.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4 {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
    /// Flags (upper 3 bits) and fragment offset in units of 8 bytes.
    pub fragment: u16,
}

impl Ipv4 {
    /// The packet around a payload.
    #[must_use]
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        let sum = checksum(&packet, 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }
}

/// A TCP segment with a right checksum and no payload.
#[must_use]
pub fn tcp(ip: &Ipv4, source: u16, destination: u16, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    // Sequence and acknowledgement numbers.
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
    segment.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    let pseudo = ip
        .source
        .octets()
        .chunks(2)
        .chain(ip.destination.octets().chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum::<u32>()
        + u32::from(TCP)
        + u32::try_from(segment.len()).unwrap_or(0);
    let sum = checksum(&segment, pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The Internet checksum (RFC 1071), begun with a sum.
#[must_use]
pub fn checksum(bytes: &[u8], begin: u32) -> u16 {
    let mut sum = begin;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arp_round_trips_and_rejects_a_frame_cut_short() {
        let arp = Arp {
            operation: ARP_REPLY,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender_ip: Ipv4Addr::new(10, 0, 0, 10),
            target_mac: Mac([2, 0, 0, 0, 0, 2]),
            target_ip: Ipv4Addr::new(10, 0, 0, 100),
        };
        let frame = arp.frame(arp.sender_mac, arp.target_mac);
        let read = Arp::parse(&frame).expect("whole");
        assert_eq!(read.frame(arp.sender_mac, arp.target_mac), frame);
        assert!(Arp::parse(&frame[..41]).is_none());
    }

    #[test]
    fn checksum_of_a_packet_with_its_checksum_is_zero() {
        let ip = Ipv4 {
            source: Ipv4Addr::new(10, 0, 0, 100),
            destination: Ipv4Addr::new(10, 0, 0, 10),
            protocol: TCP,
            ttl: 64,
            fragment: 0,
        };
        assert_eq!(checksum(&ip.packet(&[])[..20], 0), 0);
    }
}
