//! VRRP version 3 advertisements for IPv4 and IPv6 (RFC 9568, section 5).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::frame::Frame as _;

/// IP protocol number (section 5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// IPv4 group that advertisements are sent to in multicast mode (section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// IPv6 group that advertisements are sent to in multicast mode (section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// TTL or hop limit of every advertisement. An advertisement with another one has passed a router
/// (section 5.1.1.3).
pub const TTL: u8 = 255;

/// Priority in the advertisement of an Active Router that resigns (section 5.2.4).
pub const PRIORITY_RESIGNED: u8 = 0;

/// Most addresses of an advertisement here. The protocol allows 255.
pub const MAX_ADDRESSES: usize = 20;

/// Length in bytes of the longest advertisement here.
pub const MAX_LENGTH: usize = size_of::<Header>() + 16 * MAX_ADDRESSES;

/// Version 3, type 1 (section 5.2.1 and 5.2.2).
const VERSION: u8 = 3;
const ADVERTISEMENT: u8 = 1;

/// The fields before the addresses (section 5.2).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    version_and_type: u8,
    router_id: u8,
    priority: u8,
    address_count: u8,
    /// Four reserved bits, then the interval in centiseconds in twelve bits.
    interval: [u8; 2],
    checksum: [u8; 2],
}

/// Interval between advertisements in centiseconds, `1..=4095` (section 5.2.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Centiseconds(u16);

impl Centiseconds {
    /// The longest interval: 40.95 s.
    pub const MAX: Self = Self(0xfff);

    /// `None` for 0 and from 4096 on.
    #[must_use]
    pub const fn new(centiseconds: u16) -> Option<Self> {
        if centiseconds == 0 || centiseconds > Self::MAX.0 {
            None
        } else {
            Some(Self(centiseconds))
        }
    }

    /// `None` unless the duration is a whole number of centiseconds in range.
    #[must_use]
    pub const fn from_duration(duration: Duration) -> Option<Self> {
        let nanos = duration.as_nanos();
        if !nanos.is_multiple_of(10_000_000) || nanos > 40_950_000_000 {
            return None;
        }
        Self::new((nanos / 10_000_000) as u16)
    }

    /// The number of centiseconds.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The same interval as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

impl fmt::Debug for Centiseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cs", self.0)
    }
}

/// The virtual addresses of an advertisement, all of one family, at most [`MAX_ADDRESSES`].
#[derive(Clone, Copy)]
pub struct Addresses {
    count: u8,
    all: [IpAddr; MAX_ADDRESSES],
}

impl Addresses {
    /// `None` if there are none, more than [`MAX_ADDRESSES`], or addresses of both families.
    #[must_use]
    pub fn new(addresses: &[IpAddr]) -> Option<Self> {
        let first = addresses.first()?;
        if addresses.iter().any(|one| one.is_ipv4() != first.is_ipv4()) {
            return None;
        }
        let mut all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); MAX_ADDRESSES];
        all.get_mut(..addresses.len())?.copy_from_slice(addresses);
        Some(Self {
            count: addresses.len() as u8,
            all,
        })
    }

    /// The addresses as a slice, which is never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.all[..usize::from(self.count)]
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.as_slice().contains(&address)
    }

    /// Length of one address on the wire, in bytes.
    fn width(&self) -> usize {
        width(self.all[0])
    }
}

fn width(address: IpAddr) -> usize {
    if address.is_ipv4() { 4 } else { 16 }
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Addresses {}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// The fields of an advertisement, in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// Identifier of the virtual router, `1..=255`.
    pub router_id: u8,
    /// The sender's priority; [`PRIORITY_RESIGNED`] if it resigns.
    pub priority: u8,
    /// The interval after which the sender sends the next advertisement.
    pub interval: Centiseconds,
    /// The addresses of the virtual router.
    pub addresses: Addresses,
}

/// Why an advertisement is not valid (section 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than its header, or than its number of addresses requires.
    Truncated,
    /// A version other than 3.
    Version(u8),
    /// A type other than 1, the only one that exists.
    Type(u8),
    /// The checksum does not match the bytes and the addresses of the IP header.
    Checksum,
    /// The identifier 0, which no virtual router has.
    RouterId,
    /// No address at all, or more than [`MAX_ADDRESSES`].
    AddressCount(u8),
    /// An interval of 0.
    Interval,
    /// The two addresses of the IP header are of different families.
    Family,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("VRRP packet ends too early"),
            Self::Version(version) => write!(f, "VRRP version {version} instead of 3"),
            Self::Type(number) => write!(f, "VRRP packet of type {number} instead of 1"),
            Self::Checksum => f.write_str("VRRP checksum is wrong"),
            Self::RouterId => f.write_str("VRRP router id 0"),
            Self::AddressCount(count) => {
                write!(
                    f,
                    "VRRP packet with {count} addresses instead of 1 to {MAX_ADDRESSES}"
                )
            }
            Self::Interval => f.write_str("VRRP advertisement interval 0"),
            Self::Family => f.write_str("VRRP packet between an IPv4 and an IPv6 address"),
        }
    }
}

impl core::error::Error for Error {}

impl Advertisement {
    /// Length on the wire in bytes, at most [`MAX_LENGTH`].
    #[must_use]
    pub fn length(&self) -> usize {
        size_of::<Header>() + self.addresses.width() * self.addresses.as_slice().len()
    }

    /// Parses the payload of an IP packet from `source` to `destination`. The virtual addresses are
    /// of the same family. Bytes after the last address are padding, which the checksum does not
    /// cover.
    ///
    /// # Errors
    /// The bytes are not a valid advertisement (section 7.1).
    pub fn parse(bytes: &[u8], source: IpAddr, destination: IpAddr) -> Result<Self, Error> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(Error::Family);
        }
        let header: &Header = bytes.view(0).ok_or(Error::Truncated)?;
        match header.version_and_type >> 4 {
            VERSION => {}
            other => return Err(Error::Version(other)),
        }
        match header.version_and_type & 0xf {
            ADVERTISEMENT => {}
            other => return Err(Error::Type(other)),
        }
        let count = usize::from(header.address_count);
        let width = width(source);
        let length = size_of::<Header>() + width * count;
        let bytes = bytes.get(..length).ok_or(Error::Truncated)?;
        if checksum(bytes, source, destination) != 0 {
            return Err(Error::Checksum);
        }
        if header.router_id == 0 {
            return Err(Error::RouterId);
        }
        let mut all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); MAX_ADDRESSES];
        let too_many = Error::AddressCount(header.address_count);
        for (place, octets) in bytes[size_of::<Header>()..].chunks_exact(width).enumerate() {
            *all.get_mut(place).ok_or(too_many)? = address(octets).ok_or(Error::Truncated)?;
        }
        let interval = u16::from_be_bytes(header.interval) & Centiseconds::MAX.0;
        Ok(Self {
            router_id: header.router_id,
            priority: header.priority,
            interval: Centiseconds::new(interval).ok_or(Error::Interval)?,
            addresses: Addresses::new(&all[..count]).ok_or(too_many)?,
        })
    }

    /// Writes the payload of an IP packet from `source` to `destination` into `buffer`, and returns
    /// its part of the buffer. Both must be of the family of the virtual addresses.
    #[must_use]
    pub fn emit<'a>(
        &self,
        buffer: &'a mut [u8; MAX_LENGTH],
        source: IpAddr,
        destination: IpAddr,
    ) -> &'a [u8] {
        let header = Header {
            version_and_type: VERSION << 4 | ADVERTISEMENT,
            router_id: self.router_id,
            priority: self.priority,
            address_count: self.addresses.count,
            interval: self.interval.0.to_be_bytes(),
            checksum: [0; 2],
        };
        let bytes = &mut buffer[..self.length()];
        let (front, back) = bytes.split_at_mut(size_of::<Header>());
        front.copy_from_slice(bytemuck::bytes_of(&header));
        let places = back.chunks_exact_mut(self.addresses.width());
        for (place, address) in places.zip(self.addresses.as_slice()) {
            match address {
                IpAddr::V4(address) => place.copy_from_slice(&address.octets()),
                IpAddr::V6(address) => place.copy_from_slice(&address.octets()),
            }
        }
        let checksum = checksum(bytes, source, destination);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or(v6).ok()
}

/// Offset of the checksum in the header, in bytes.
const CHECKSUM_AT: usize = core::mem::offset_of!(Header, checksum);

/// The Internet checksum over the packet and a pseudo-header (section 5.2.8). 0 if the packet
/// contains its right checksum.
///
/// The pseudo-header has the addresses of the IP header, also in unicast mode; keepalived does the
/// same by default. It has the same sum in both families.
fn checksum(bytes: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    let address = |address| match address {
        IpAddr::V4(address) => words(&Ipv4Addr::octets(&address)),
        IpAddr::V6(address) => words(&Ipv6Addr::octets(&address)),
    };
    let sum = address(source)
        + address(destination)
        + u32::from(PROTOCOL)
        + bytes.len() as u32
        + words(bytes);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SOURCE: IpAddr = v4(11);
    const PEER: IpAddr = v4(12);
    const VIP: IpAddr = v4(10);

    const fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    const fn v6(last: u16) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
    }

    /// Computed by hand: 0a00+000b + 0a00+000c + 0070 + 000c (pseudo-header), 310a+fa01+000a
    /// (header), 0a00+000a (VIP) is 149b2, with the carry added 49b3, whose complement is b64c.
    const KNOWN: [u8; 12] = [0x31, 0x0a, 0xfa, 0x01, 0x00, 0x0a, 0xb6, 0x4c, 10, 0, 0, 10];

    fn known() -> Advertisement {
        Advertisement {
            router_id: 10,
            priority: 250,
            interval: Centiseconds(10),
            addresses: Addresses::new(&[VIP]).unwrap(),
        }
    }

    /// The bytes with their checksum set right.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
        let sum = checksum(&bytes, SOURCE, PEER).to_be_bytes();
        bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Advertisement, Error> {
        Advertisement::parse(bytes, SOURCE, PEER)
    }

    #[test]
    fn an_advertisement_has_the_bytes_of_the_rfc() {
        let mut buffer = [0xff; MAX_LENGTH];
        assert_eq!(known().emit(&mut buffer, SOURCE, PEER), KNOWN);
        assert_eq!(parse(&KNOWN), Ok(known()));
    }

    /// The same between fd00::11 and fd00::12, for fd00::10. By hand: fd00 three times and
    /// 11+12+10 (addresses), 70+18 (pseudo-header), 310a+fa01+a (header) is 422d0, with the carry
    /// added 22d4, whose complement is dd2b.
    #[test]
    fn an_advertisement_for_ipv6_has_the_bytes_of_the_rfc() {
        let known = Advertisement {
            addresses: Addresses::new(&[v6(0x10)]).unwrap(),
            ..known()
        };
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&[0x31, 0x0a, 0xfa, 0x01, 0x00, 0x0a, 0xdd, 0x2b]);
        (bytes[8], bytes[23]) = (0xfd, 0x10);
        let mut buffer = [0xff; MAX_LENGTH];
        assert_eq!(known.emit(&mut buffer, v6(0x11), v6(0x12)), bytes);
        let parsed = Advertisement::parse(&bytes, v6(0x11), v6(0x12));
        assert_eq!(parsed, Ok(known));
        assert!(known.addresses.contains(v6(0x10)) && !known.addresses.contains(VIP));
    }

    #[test]
    fn addresses_of_different_families_are_refused() {
        assert_eq!(Addresses::new(&[VIP, v6(1)]), None);
        assert_eq!(Addresses::new(&[]), None);
        assert_eq!(
            Advertisement::parse(&KNOWN, SOURCE, v6(1)),
            Err(Error::Family)
        );
        // Four bytes are no IPv6 address.
        assert_eq!(
            Advertisement::parse(&KNOWN, v6(1), v6(2)),
            Err(Error::Truncated)
        );
    }

    #[test]
    fn each_defect_of_an_advertisement_has_its_error() {
        let with = |at: usize, value: u8| {
            let mut bytes = KNOWN.to_vec();
            bytes[at] = value;
            parse(&sealed(bytes))
        };
        assert_eq!(with(0, 0x21), Err(Error::Version(2)));
        assert_eq!(with(0, 0x32), Err(Error::Type(2)));
        assert_eq!(with(1, 0), Err(Error::RouterId));
        assert_eq!(with(3, 2), Err(Error::Truncated));
        assert_eq!(with(5, 0), Err(Error::Interval));
        let mut many = KNOWN[..8].to_vec();
        many[3] = 21;
        many.resize(8 + 4 * 21, 1);
        assert_eq!(parse(&sealed(many)), Err(Error::AddressCount(21)));
        let mut none = KNOWN[..8].to_vec();
        none[3] = 0;
        assert_eq!(parse(&sealed(none)), Err(Error::AddressCount(0)));
        for end in 0..KNOWN.len() {
            assert_eq!(parse(&KNOWN[..end]), Err(Error::Truncated));
        }
    }

    #[test]
    fn reserved_bits_and_padding_are_ignored() {
        let mut bytes = KNOWN.to_vec();
        bytes[4] |= 0xf0;
        let mut bytes = sealed(bytes);
        bytes.extend([0xaa; 6]);
        assert_eq!(parse(&bytes), Ok(known()));
    }

    #[test]
    fn an_interval_is_a_whole_number_of_centiseconds_in_range() {
        let from =
            |ms| Centiseconds::from_duration(Duration::from_millis(ms)).map(Centiseconds::get);
        assert_eq!(from(10), Some(1));
        assert_eq!(from(40_950), Some(4095));
        assert_eq!([from(0), from(9), from(15), from(40_960)], [None; 4]);
    }

    prop_compose! {
        fn any_advertisement()(
            router_id in 1_u8.., priority: u8, interval in 1_u16..=4095,
            addresses in prop_oneof![
                prop::collection::vec(any::<Ipv4Addr>().prop_map(IpAddr::from), 1..=MAX_ADDRESSES),
                prop::collection::vec(any::<Ipv6Addr>().prop_map(IpAddr::from), 1..=MAX_ADDRESSES),
            ],
        ) -> Advertisement {
            Advertisement {
                router_id,
                priority,
                interval: Centiseconds(interval),
                addresses: Addresses::new(&addresses).unwrap(),
            }
        }
    }

    proptest! {
        #[test]
        fn an_emitted_advertisement_is_parsed_as_the_same(
            sent in any_advertisement(), source: u128, destination: u128,
        ) {
            let family = |bits: u128| match sent.addresses.as_slice()[0] {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from_bits(bits as u32)),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::from_bits(bits)),
            };
            let (source, destination) = (family(source), family(destination));
            let mut buffer = [0; MAX_LENGTH];
            let bytes = sent.emit(&mut buffer, source, destination);
            prop_assert_eq!(bytes.len(), sent.length());
            prop_assert_eq!(Advertisement::parse(bytes, source, destination), Ok(sent));
        }

        #[test]
        fn one_wrong_bit_is_an_error(sent in any_advertisement(), bit: prop::sample::Index) {
            let (source, peer) = match sent.addresses.as_slice()[0] {
                IpAddr::V4(_) => (SOURCE, PEER),
                IpAddr::V6(_) => (v6(1), v6(2)),
            };
            let mut buffer = [0; MAX_LENGTH];
            let mut bytes = sent.emit(&mut buffer, source, peer).to_vec();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Advertisement::parse(&bytes, source, peer).is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, count: u8) {
            let _ = parse(&bytes);
            // The same after a valid header, so that the later checks are reached.
            let mut bytes = [&KNOWN[..8], &bytes].concat();
            bytes[3] = count;
            let _ = parse(&sealed(bytes));
        }

        #[test]
        fn another_source_is_an_error(other: u32) {
            let other = Ipv4Addr::from(other);
            // The sum does not distinguish 0 from 0xffff, nor the two halves of an address.
            let words = |a: Ipv4Addr| (a.to_bits() >> 16) + (a.to_bits() & 0xffff);
            prop_assume!(words(other) % 0xffff != words(Ipv4Addr::new(10, 0, 0, 11)) % 0xffff);
            let parsed = Advertisement::parse(&KNOWN, other.into(), PEER);
            prop_assert_eq!(parsed, Err(Error::Checksum));
        }
    }
}
