//! Ports and addresses in network byte order.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// A 16-bit word in network byte order: a port, an EtherType, a checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From the host's byte order.
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// In the host's byte order.
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// From the word as it lies in memory.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The word as it lies in memory: what the kernel's `__be16` fields hold.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.get())
    }
}

/// A 32-bit word in network byte order: an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// From the host's byte order.
    #[must_use]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The bytes as they lie in the frame.
    #[must_use]
    pub const fn to_wire(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// From the word as it lies in memory.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The word as it lies in memory: what the kernel's `__be32` fields hold.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl From<core::net::Ipv4Addr> for Be32 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::from_wire(address.octets())
    }
}

impl From<Be32> for core::net::Ipv4Addr {
    fn from(word: Be32) -> Self {
        Self::from(word.to_wire())
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&core::net::Ipv4Addr::from(*self), f)
    }
}

/// A 128-bit word in network byte order: an IPv6 address, or an IPv4-mapped IPv6 address
/// (`::ffff:0:0/96`; RFC 4291, section 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be128([u64; 2]);

impl Be128 {
    /// The unspecified address, `::`.
    pub const UNSPECIFIED: Self = Self([0; 2]);

    /// Third 32-bit word of an IPv4-mapped address; the first two are 0.
    const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(b: [u8; 16]) -> Self {
        Self([
            u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        ])
    }

    /// From both halves as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn from_words_on_wire([a, b]: [[u8; 8]; 2]) -> Self {
        Self([u64::from_ne_bytes(a), u64::from_ne_bytes(b)])
    }

    /// Both halves as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn to_words_on_wire(self) -> [[u8; 8]; 2] {
        [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes()]
    }

    /// The bytes as they lie in the frame.
    #[must_use]
    pub const fn to_wire(self) -> [u8; 16] {
        let [a, b] = self.to_words_on_wire();
        [
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5],
            b[6], b[7],
        ]
    }

    /// Both halves as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        self.0
    }

    /// From both halves as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// From four words as they lie in memory, as in the kernel's `__be32 [4]` fields.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(words: [u32; 4]) -> Self {
        let [a, b, c, d] = words;
        Self([pair(a, b), pair(c, d)])
    }

    /// Four words as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn to_raw(self) -> [u32; 4] {
        let [a, b] = self.to_words_on_wire();
        [
            u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
            u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        ]
    }

    /// The IPv4 address; `None` if it is an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(self) -> Option<Be32> {
        let [a, b, c, d] = self.to_raw();
        if a == 0 && b == 0 && c == u32::from_ne_bytes(Self::MAPPED) {
            Some(Be32(d))
        } else {
            None
        }
    }

    /// Whether it is an IPv6 multicast group (RFC 4291, section 2.7).
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] == 0xff
    }

    /// Whether it is `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0
    }
}

/// Two 32-bit words that follow each other in memory.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

impl From<Be32> for Be128 {
    #[inline(always)]
    fn from(address: Be32) -> Self {
        Self::from_raw([0, 0, u32::from_ne_bytes(Self::MAPPED), address.raw()])
    }
}

impl From<core::net::IpAddr> for Be128 {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(address) => Be32::from(address).into(),
            core::net::IpAddr::V6(address) => Self::from_wire(address.octets()),
        }
    }
}

impl From<Be128> for core::net::IpAddr {
    fn from(word: Be128) -> Self {
        core::net::Ipv6Addr::from(word.to_wire()).to_canonical()
    }
}

impl fmt::Debug for Be128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&core::net::IpAddr::from(*self), f)
    }
}

/// An Ethernet address in one 64-bit word, so that one instruction compares two of them. The first
/// byte on the wire is the lowest, and the upper 16 bits are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Mac(u64);

impl Mac {
    /// All zeros: an address that is not known or not used.
    pub const UNKNOWN: Self = Self(0);

    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self::from_wire([0xff; 6]);

    /// From the bytes as they lie in the frame.
    #[must_use]
    pub const fn from_wire(b: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([
            b[0], b[1], b[2], b[3], b[4], b[5], 0, 0,
        ]))
    }

    /// From the first four and the last two bytes as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(first: [u8; 4], last: [u8; 2]) -> Self {
        Self(u32::from_le_bytes(first) as u64 | (u16::from_le_bytes(last) as u64) << 32)
    }

    /// The first four and the last two bytes as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn to_words(self) -> ([u8; 4], [u8; 2]) {
        (
            (self.0 as u32).to_le_bytes(),
            ((self.0 >> 32) as u16).to_le_bytes(),
        )
    }

    /// The bytes as they lie in the frame.
    #[must_use]
    pub const fn to_wire(self) -> [u8; 6] {
        let b = self.0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }

    /// The last byte on the wire.
    #[inline(always)]
    pub(crate) const fn last_byte(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Whether it is [`Self::UNKNOWN`].
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        self.0 == 0
    }

    /// Whether it is a multicast or the broadcast address (IEEE 802.3, the I/G bit).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0 & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.to_wire();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_convert_between_network_and_host_byte_order() {
        assert_eq!(Be16::new(6443).get(), 6443);
        assert_eq!(Be16::from_wire([0x19, 0x2b]).get(), 6443);
        assert_eq!(Be32::from_wire([10, 0, 0, 1]).to_wire(), [10, 0, 0, 1]);
        let mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
        assert_eq!(Mac::from_wire(mac).to_wire(), mac);
        assert!(Mac::BROADCAST.is_multicast() && !Mac::from_wire(mac).is_multicast());
    }

    #[test]
    fn addresses_of_both_families_keep_their_bytes() {
        use core::net::IpAddr;
        for text in ["10.1.2.3", "fd00:1:2:3:4:5:6:7", "::", "ff02::1"] {
            let address: IpAddr = text.parse().expect("an address");
            let word = Be128::from(address);
            assert_eq!(IpAddr::from(word), address);
            assert_eq!(Be128::from_raw(word.to_raw()), word);
            assert_eq!(Be128::from_words_on_wire(word.to_words_on_wire()), word);
            assert_eq!(Be128::from_wire(word.to_wire()), word);
            assert_eq!(word.ipv4().is_some(), address.is_ipv4());
            assert_eq!(word.is_multicast(), address.is_multicast());
            assert_eq!(word.is_unspecified(), address.is_unspecified());
        }
    }
}
