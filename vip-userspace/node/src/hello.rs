//! The hello: the datagram in which agents tell each other which members they know.
//!
//! Numbers are in network byte order. An address has 4 or 16 bytes, by the family.
//!
//! ```text
//! version 1 | family 1 | flags 1 | own 1 | instance 8 | number 4
//! VIPs 1 | members 1 | heard 1 | forgotten 1
//! for each VIP:              tag 8
//! for each member:           address 4 or 16 | instance 8 | weight 2 | flags 1
//!                            age 4 | latest 4 | row's number 4 | row 2
//! for each host heard:       address 4 or 16 | instance 8 | latest 4
//! for each forgotten member: address 4 or 16 | instance 8
//! rest: a text about the sender
//! ```
//!
//! A *row* is the set of members that a member has in its rank table, one bit for each member of this
//! hello, the first member the lowest bit. So a hello carries the sender's own row, and what it was
//! told of the others': one broken link keeps nobody from learning who knows whom.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use thiserror::Error;
use vip_common::abi::{MAX_BACKENDS, MAX_VIPS};

use crate::rank::Identity;

/// Greatest length of a hello in bytes: one packet on any Ethernet, with room for what seals it.
pub const MAX_LENGTH: usize = 1300;

/// Members that were forgotten, in one hello at most.
pub const MAX_FORGOTTEN: usize = 4;

/// Greatest length of a hello's text in bytes.
pub const MAX_TEXT: usize = 280;

/// Hosts that are heard and not believed yet, in one hello at most.
pub const MAX_HEARD: usize = 4;

const VERSION: u8 = 1;
const LEAVES: u8 = 1;
const DRAINS: u8 = 2;
const JOINS: u8 = 4;
const ESTABLISHED: u8 = 8;
const INSTALLED: u8 = 1;

/// One run of an agent: a random number, another one after each start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Instance(pub NonZeroU64);

/// A hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The run of the agent that sends it.
    pub instance: Instance,
    /// It sends its hellos with the numbers 1, 2, 3 and so on.
    pub number: u32,
    /// The node leaves the cluster: nobody is to expect it back.
    pub leaves: bool,
    /// The node drains.
    pub drains: bool,
    /// The node is joining: it forwards nothing yet, so it must not get segments.
    pub joins: bool,
    /// The node is established: it has owned the VIP, or has other members. One that is not gives
    /// way to it.
    pub established: bool,
    /// A [`tag`] for each VIP. Agents with no tag in common are of different clusters.
    pub vips: Vec<u64>,
    /// The members that the sender knows, itself among them; [`MAX_BACKENDS`] at most, all of one
    /// family.
    pub members: Vec<Line>,
    /// Place of the sender among them.
    pub own: usize,
    /// Agents that the sender hears, and does not believe yet: new ones, and new runs of members;
    /// [`MAX_HEARD`] at most.
    pub heard: Vec<Heard>,
    /// Members that were forgotten lately; [`MAX_FORGOTTEN`] at most.
    pub forgotten: Vec<(IpAddr, Instance)>,
    /// A text about the sender, for other nodes' status: of [`MAX_TEXT`] bytes at most, and of any
    /// characters.
    pub text: String,
}

/// An agent that is heard and not believed yet. It is believed once a hello of it answers: it names
/// a number of the receiver's own. So nobody can send an old hello again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Its address.
    pub address: IpAddr,
    /// Its run.
    pub instance: Instance,
    /// Number of its last hello.
    pub latest: u32,
}

/// What the sender of a hello knows of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The member.
    pub address: IpAddr,
    /// The run of its agent; `None` if the sender has not heard of it.
    pub instance: Option<Instance>,
    /// Its share of new connections, at least 1.
    pub weight: u16,
    /// It is in the sender's rank table.
    pub installed: bool,
    /// Age of the freshest evidence that the member lives, which anybody has; `None` if there is
    /// none. At most [`OLDEST`].
    pub age: Option<Duration>,
    /// Number of the last hello that the sender heard from it itself, in the last seconds; 0 if it
    /// heard none.
    pub latest: u32,
    /// Number of the hello by which the member told its row; 0 if that is not known.
    pub row_number: u32,
    /// Its row: one bit for each place in [`Hello::members`].
    pub row: u16,
}

impl Line {
    /// What the member's ranks depend on.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        let Self {
            address, weight, ..
        } = *self;
        Identity { address, weight }
    }
}

/// The greatest age that a hello can tell: 49 days.
pub const OLDEST: Duration = Duration::from_millis(u32::MAX as u64 - 1);

/// What a hello names a VIP by: 64 bits of a hash. It need not be secret.
#[must_use]
pub fn tag(vip: IpAddr) -> u64 {
    let mut hash = SipHasher13::new_with_keys(0x7669_7020_6865_6c6c, 0x6f20_7469_6720_6970);
    match vip {
        IpAddr::V4(vip) => hash.write(&vip.octets()),
        IpAddr::V6(vip) => hash.write(&vip.octets()),
    }
    hash.finish()
}

/// 16 bits of a hash, by which agents see that a value differs. It need not be secret.
#[must_use]
pub fn digest(bytes: &[u8]) -> u16 {
    let mut hash = SipHasher13::new_with_keys(0x7669_7020_6469_6765, 0x7374_206f_6620_6974);
    hash.write(bytes);
    hash.finish() as u16
}

/// Why a datagram is no hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HelloError {
    /// It ends too early.
    #[error("truncated")]
    Truncated,
    /// It is longer than [`MAX_LENGTH`].
    #[error("too long")]
    TooLong,
    /// Another version of this format.
    #[error("version {0} of the format, which this agent does not know")]
    Version(u8),
    /// A field has a value that it cannot have.
    #[error("field `{0}` is out of range")]
    Range(&'static str),
}

impl Hello {
    /// The datagram; `None` if it would be longer than [`MAX_LENGTH`], or has too many entries.
    #[must_use]
    pub fn emit(&self) -> Option<Vec<u8>> {
        let own = self.members.get(self.own)?;
        let v4 = own.address.is_ipv4();
        let fits = self.members.len() <= MAX_BACKENDS
            && self.vips.len() <= MAX_VIPS
            && self.heard.len() <= MAX_HEARD
            && self.forgotten.len() <= MAX_FORGOTTEN
            && self.text.len() <= MAX_TEXT;
        if !fits {
            return None;
        }
        let mut out = Vec::with_capacity(MAX_LENGTH);
        let family = if v4 { 4 } else { 6 };
        let flags = flag(self.leaves, LEAVES)
            | flag(self.drains, DRAINS)
            | flag(self.joins, JOINS)
            | flag(self.established, ESTABLISHED);
        out.extend([VERSION, family, flags, self.own as u8]);
        out.extend(self.instance.0.get().to_be_bytes());
        out.extend(self.number.to_be_bytes());
        let (vips, members) = (self.vips.len(), self.members.len());
        let counts = [vips, members, self.heard.len(), self.forgotten.len()];
        out.extend(counts.map(|count| count as u8));
        for vip in &self.vips {
            out.extend(vip.to_be_bytes());
        }
        for line in &self.members {
            put_address(&mut out, line.address, v4)?;
            let instance = line.instance.map_or(0, |instance| instance.0.get());
            out.extend(instance.to_be_bytes());
            out.extend(line.weight.to_be_bytes());
            out.push(flag(line.installed, INSTALLED));
            let age = line
                .age
                .map_or(u32::MAX, |age| age.min(OLDEST).as_millis() as u32);
            out.extend(age.to_be_bytes());
            out.extend(line.latest.to_be_bytes());
            out.extend(line.row_number.to_be_bytes());
            out.extend(line.row.to_be_bytes());
        }
        for heard in &self.heard {
            put_address(&mut out, heard.address, v4)?;
            out.extend(heard.instance.0.get().to_be_bytes());
            out.extend(heard.latest.to_be_bytes());
        }
        for (address, instance) in &self.forgotten {
            put_address(&mut out, *address, v4)?;
            out.extend(instance.0.get().to_be_bytes());
        }
        out.extend(self.text.as_bytes());
        (out.len() <= MAX_LENGTH).then_some(out)
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no hello of this version.
    pub fn parse(datagram: &[u8]) -> Result<Self, HelloError> {
        if datagram.len() > MAX_LENGTH {
            return Err(HelloError::TooLong);
        }
        let mut rest = Reader(datagram);
        let [version] = rest.take()?;
        if version != VERSION {
            return Err(HelloError::Version(version));
        }
        let [family, flags, own] = rest.take()?;
        let v4 = match family {
            4 => true,
            6 => false,
            _ => return Err(HelloError::Range("family")),
        };
        let instance = rest.instance()?.ok_or(HelloError::Range("instance"))?;
        let number = u32::from_be_bytes(rest.take()?);
        let [vips, members, heard, forgotten] = rest.take()?.map(usize::from);
        let own = usize::from(own);
        let fits = members <= MAX_BACKENDS
            && vips <= MAX_VIPS
            && heard <= MAX_HEARD
            && forgotten <= MAX_FORGOTTEN;
        if !fits || own >= members || number == 0 {
            return Err(HelloError::Range("counts"));
        }
        let vips = (0..vips).map(|_| Ok(u64::from_be_bytes(rest.take()?)));
        let vips = vips.collect::<Result<_, HelloError>>()?;
        let members = (0..members).map(|_| rest.line(v4, members));
        let members: Vec<Line> = members.collect::<Result<_, _>>()?;
        let is_twice = |(place, line): (usize, &Line)| {
            members[..place]
                .iter()
                .any(|other| other.address == line.address)
        };
        if members.iter().enumerate().any(is_twice) {
            return Err(HelloError::Range("address"));
        }
        let heard = (0..heard).map(|_| {
            Ok(Heard {
                address: rest.address(v4)?,
                instance: rest.instance()?.ok_or(HelloError::Range("instance"))?,
                latest: u32::from_be_bytes(rest.take()?),
            })
        });
        let heard = heard.collect::<Result<_, HelloError>>()?;
        let forgotten = (0..forgotten).map(|_| {
            let address = rest.address(v4)?;
            let instance = rest.instance()?.ok_or(HelloError::Range("instance"))?;
            Ok((address, instance))
        });
        let forgotten = forgotten.collect::<Result<_, HelloError>>()?;
        let text = rest.0;
        if text.len() > MAX_TEXT {
            return Err(HelloError::Range("text"));
        }
        let text = std::str::from_utf8(text).map_err(|_| HelloError::Range("text"))?;
        Ok(Self {
            instance,
            number,
            leaves: flags & LEAVES != 0,
            drains: flags & DRAINS != 0,
            joins: flags & JOINS != 0,
            established: flags & ESTABLISHED != 0,
            vips,
            members,
            own,
            heard,
            forgotten,
            text: text.to_owned(),
        })
    }

    /// What the sender tells of itself.
    #[must_use]
    pub fn sender(&self) -> &Line {
        &self.members[self.own]
    }
}

#[cfg(any(test, feature = "testing"))]
impl Hello {
    /// The first hello of the first of these members, which all have all in their rank tables, for tests
    /// and benchmarks.
    #[must_use]
    pub fn sample(members: &[IpAddr]) -> Self {
        let instance = Instance(NonZeroU64::MIN);
        let line = |address: &IpAddr| Line {
            address: *address,
            instance: Some(instance),
            weight: 1,
            installed: true,
            age: Some(Duration::ZERO),
            latest: 1,
            row_number: 1,
            row: ((1_u32 << members.len()) - 1) as u16,
        };
        Self {
            instance,
            number: 1,
            leaves: false,
            drains: false,
            joins: false,
            established: false,
            vips: vec![1],
            members: members.iter().map(line).collect(),
            own: 0,
            heard: Vec::new(),
            forgotten: Vec::new(),
            text: "cp1".to_owned(),
        }
    }
}

const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// `None` if the address is of the other family.
fn put_address(out: &mut Vec<u8>, address: IpAddr, v4: bool) -> Option<()> {
    match address {
        IpAddr::V4(address) if v4 => out.extend(address.octets()),
        IpAddr::V6(address) if !v4 => out.extend(address.octets()),
        _ => return None,
    }
    Some(())
}

/// The rest of a datagram.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(HelloError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn address(&mut self, v4: bool) -> Result<IpAddr, HelloError> {
        Ok(if v4 {
            Ipv4Addr::from(self.take::<4>()?).into()
        } else {
            Ipv6Addr::from(self.take::<16>()?).into()
        })
    }

    fn instance(&mut self) -> Result<Option<Instance>, HelloError> {
        let number = u64::from_be_bytes(self.take()?);
        Ok(NonZeroU64::new(number).map(Instance))
    }

    fn line(&mut self, v4: bool, members: usize) -> Result<Line, HelloError> {
        let address = self.address(v4)?;
        let instance = self.instance()?;
        let weight = u16::from_be_bytes(self.take()?);
        let [flags] = self.take()?;
        let age = u32::from_be_bytes(self.take()?);
        let latest = u32::from_be_bytes(self.take()?);
        let row_number = u32::from_be_bytes(self.take()?);
        let row = u16::from_be_bytes(self.take()?);
        if weight == 0 {
            return Err(HelloError::Range("weight"));
        }
        if u32::from(row) >> members != 0 {
            return Err(HelloError::Range("row"));
        }
        Ok(Line {
            address,
            instance,
            weight,
            installed: flags & INSTALLED != 0,
            age: (age != u32::MAX).then(|| Duration::from_millis(age.into())),
            latest,
            row_number,
            row,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn instance()(number in 1_u64..) -> Instance {
            Instance(NonZeroU64::new(number).expect("not 0"))
        }
    }

    prop_compose! {
        fn line(members: usize)(
            instance in proptest::option::of(instance()),
            weight in 1_u16..,
            installed in any::<bool>(),
            age in proptest::option::of(0..u32::MAX),
            numbers in any::<(u32, u32)>(),
            row in any::<u16>(),
        ) -> Line {
            Line {
                address: IpAddr::from([0, 0, 0, 0]),
                instance,
                weight,
                installed,
                age: age.map(|age| Duration::from_millis(age.into())),
                latest: numbers.0,
                row_number: numbers.1,
                row: (u32::from(row) & ((1 << members) - 1)) as u16,
            }
        }
    }

    fn address(v4: bool, place: usize) -> IpAddr {
        if v4 {
            [10, 0, 0, place as u8].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, place as u16].into()
        }
    }

    prop_compose! {
        fn hello()(members in 1..=MAX_BACKENDS)(
            lines in vec(line(members), members),
            own in 0..members,
            instance in instance(),
            number in 1_u32..,
            flags in any::<(bool, bool, bool, bool, bool)>(),
            vips in vec(any::<u64>(), 0..=MAX_VIPS),
            heard in vec((instance(), any::<u32>()), 0..=MAX_HEARD),
            forgotten in vec(instance(), 0..=MAX_FORGOTTEN),
            text in "[ -~]{0,280}",
        ) -> Hello {
            let v4 = flags.2;
            let place = |(place, line): (usize, Line)| Line { address: address(v4, place), ..line };
            let forgotten = forgotten.into_iter().enumerate();
            let heard = heard.into_iter().enumerate().map(|(place, (instance, latest))| Heard {
                address: address(v4, 200 + place),
                instance,
                latest,
            });
            Hello {
                instance,
                number,
                leaves: flags.0,
                drains: flags.1,
                joins: flags.3,
                established: flags.4,
                vips,
                members: lines.into_iter().enumerate().map(place).collect(),
                own,
                heard: heard.collect(),
                forgotten: forgotten
                    .map(|(place, instance)| (address(v4, 100 + place), instance))
                    .collect(),
                text,
            }
        }
    }

    proptest! {
        #[test]
        fn datagram_says_what_the_hello_does(hello in hello()) {
            let datagram = hello.emit().expect("fits");
            prop_assert_eq!(Hello::parse(&datagram), Ok(hello));
        }

        #[test]
        fn one_that_ends_too_early_is_refused(hello in hello(), end: prop::sample::Index) {
            let whole = Hello { text: String::new(), ..hello };
            let datagram = whole.emit().expect("fits");
            let end = end.index(datagram.len());
            prop_assert_eq!(Hello::parse(&datagram[..end]), Err(HelloError::Truncated));
        }

        #[test]
        fn anything_is_read_or_refused(mut datagram in vec(any::<u8>(), 0..MAX_LENGTH + 2)) {
            if let Some(version) = datagram.first_mut() {
                *version = VERSION;
            }
            if let Ok(hello) = Hello::parse(&datagram) {
                prop_assert!(hello.emit().is_some());
            }
        }
    }

    #[test]
    fn the_longest_fits_and_leaves_room_for_a_text() {
        let instance = Instance(NonZeroU64::MIN);
        let heard = Heard {
            address: address(false, 50),
            instance,
            latest: 1,
        };
        let members: Vec<IpAddr> = (0..MAX_BACKENDS)
            .map(|place| address(false, place))
            .collect();
        let hello = Hello {
            vips: vec![0; MAX_VIPS],
            heard: vec![heard; MAX_HEARD],
            forgotten: vec![(address(false, 100), instance); MAX_FORGOTTEN],
            text: "x".repeat(MAX_TEXT),
            ..Hello::sample(&members)
        };
        let mut datagram = hello.emit().expect("fits");
        assert!(datagram.len() > 1200);
        datagram.push(b'x');
        let too_long = Hello::parse(&datagram);
        assert_eq!(too_long, Err(HelloError::Range("text")));
        let text = "x".repeat(MAX_TEXT + 1);
        assert_eq!(Hello { text, ..hello }.emit(), None);
    }
}
