//! BFD control packets (RFC 5880, section 4.1), without authentication or with "Meticulous Keyed
//! SHA1" (section 4.4).

use core::fmt;
use core::num::{NonZeroU8, NonZeroU32};
use core::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::frame::Frame as _;

/// UDP port of single-hop sessions (RFC 5881, section 4).
pub const PORT: u16 = 3784;

/// UDP source port of agents, which tells their packets from those of other BFD programs. RFC 5881,
/// section 4, requires a port of 49152 to 65535. This one is above the ephemeral ports of Linux,
/// which BIRD uses, and far above the first port of FRR.
pub const AGENT_PORT: u16 = 63_784;

/// TTL or hop limit of every packet. A packet with another one has passed a router (RFC 5881,
/// section 5).
pub const TTL: u8 = 255;

/// Length of a packet without authentication in bytes.
pub const LENGTH: usize = size_of::<Packet>();

/// Length of a packet with authentication, the longest that is sent or read.
pub const MAX_LENGTH: usize = LENGTH + size_of::<Section>();

const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// The packet as it lies in the datagram; numbers are in network byte order.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Packet {
    version_and_diagnostic: u8,
    state_and_flags: u8,
    detect_mult: u8,
    length: u8,
    my_discriminator: [u8; 4],
    your_discriminator: [u8; 4],
    desired_min_tx: [u8; 4],
    required_min_rx: [u8; 4],
    required_min_echo_rx: [u8; 4],
}

/// Authentication type "Meticulous Keyed SHA1".
const METICULOUS_KEYED_SHA1: u8 = 5;

/// The authentication section behind the packet (section 4.4).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Section {
    kind: u8,
    length: u8,
    key_id: u8,
    reserved: u8,
    sequence: [u8; 4],
    digest: Digest,
}

/// A SHA-1 digest; while it is computed, the key lies in its place.
pub type Digest = [u8; 20];

/// Authentication of a packet (section 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authentication {
    /// Which of the keys it is.
    pub key_id: u8,
    /// 0 from those that keep to the RFC. A receiver ignores it, but the digest covers it.
    pub reserved: u8,
    /// Number of the packet, one more than that of the packet before.
    pub sequence: u32,
    /// Digest of the packet with the key in this place.
    pub digest: Digest,
}

/// State of a session (section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The operator holds the session down.
    AdminDown,
    /// The session is down, or new.
    Down,
    /// This side hears the other side, which does not yet hear this one.
    Init,
    /// Both sides hear each other.
    Up,
}

impl State {
    const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    /// The name in status and metrics, in `snake_case`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminDown => "admin_down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }
}

macro_rules! diagnostics {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal,)+) => {
        /// Why a session last went down (section 4.1).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Diagnostic {
            $($(#[doc = $doc])+ $variant,)+
            /// A code that the RFC does not name, `9..=31`.
            Other(u8),
        }

        impl Diagnostic {
            const fn from_code(code: u8) -> Self {
                match code {
                    $($code => Self::$variant,)+
                    other => Self::Other(other),
                }
            }

            const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)+
                    Self::Other(code) => code & 0x1f,
                }
            }
        }
    };
}

diagnostics! {
    /// It never went down.
    None = 0,
    /// No packet arrived for a detection time.
    ControlDetectionTimeExpired = 1,
    /// An echo packet did not return.
    EchoFunctionFailed = 2,
    /// The other side signaled that the session is down.
    NeighborSignaledSessionDown = 3,
    /// The forwarding plane was reset.
    ForwardingPlaneReset = 4,
    /// The path is down.
    PathDown = 5,
    /// A path that this one is concatenated with is down.
    ConcatenatedPathDown = 6,
    /// The operator holds it down.
    AdministrativelyDown = 7,
    /// A path that this one is concatenated with is down in the other direction.
    ReverseConcatenatedPathDown = 8,
}

/// An interval in microseconds, the unit of the packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub u32);

impl Micros {
    /// From a duration; at most `u32::MAX` microseconds, a little more than 71 minutes.
    #[must_use]
    pub const fn from_duration(duration: Duration) -> Self {
        let micros = duration.as_micros();
        Self(if micros > u32::MAX as u128 {
            u32::MAX
        } else {
            micros as u32
        })
    }

    /// The same interval as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_micros(self.0 as u64)
    }
}

impl fmt::Debug for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us", self.0)
    }
}

/// The fields of a packet, in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlPacket {
    /// The sender's state of the session.
    pub state: State,
    /// Why the sender's session last went down.
    pub diagnostic: Diagnostic,
    /// The sender asks for an answer with `final_` set.
    pub poll: bool,
    /// The packet answers one with `poll` set.
    pub final_: bool,
    /// The sender's BFD continues if its control plane fails.
    pub control_plane_independent: bool,
    /// Demand mode: the sender asks for no periodic packets (section 6.6).
    pub demand: bool,
    /// Number of intervals without a packet after which the receiver declares the session down.
    pub detect_mult: NonZeroU8,
    /// The sender's identifier of the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's identifier of the session; 0 if the sender does not know it.
    pub your_discriminator: u32,
    /// The shortest interval at which the sender would like to send.
    pub desired_min_tx: Micros,
    /// The shortest interval at which the sender can receive; 0 if it asks for no packets.
    pub required_min_rx: Micros,
    /// The shortest interval at which the sender can return echo packets; 0 if it returns none.
    pub required_min_echo_rx: Micros,
    /// Proof that the sender has a key, which is still to be checked.
    pub authentication: Option<Authentication>,
}

/// Why a packet is not valid (section 6.8.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than a packet, or than its length field.
    Truncated,
    /// A version other than 1.
    Version(u8),
    /// A detection multiplier of 0.
    DetectMult,
    /// The multipoint bit, which is reserved.
    Multipoint,
    /// A discriminator of 0.
    MyDiscriminator,
    /// No discriminator of the receiver, in a state in which the sender must know it.
    YourDiscriminator,
    /// An authentication type other than Meticulous Keyed SHA1.
    AuthenticationType(u8),
    /// The authentication section, or the packet with it, has another length than it must have.
    AuthenticationLength,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("BFD packet ends too early"),
            Self::Version(version) => write!(f, "BFD version {version} instead of 1"),
            Self::DetectMult => f.write_str("BFD detection multiplier 0"),
            Self::Multipoint => f.write_str("BFD packet for multipoint sessions"),
            Self::MyDiscriminator => f.write_str("BFD packet without the sender's discriminator"),
            Self::YourDiscriminator => {
                f.write_str("BFD packet without the receiver's discriminator")
            }
            Self::AuthenticationType(kind) => {
                write!(
                    f,
                    "BFD authentication type {kind} instead of {METICULOUS_KEYED_SHA1}"
                )
            }
            Self::AuthenticationLength => {
                f.write_str("BFD packet with an authentication section of a wrong length")
            }
        }
    }
}

impl core::error::Error for Error {}

impl ControlPacket {
    /// Parses the payload of a datagram, and makes the checks that need neither session nor key.
    ///
    /// # Errors
    /// The bytes are not a valid control packet (section 6.8.6).
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let packet: &Packet = bytes.view(0).ok_or(Error::Truncated)?;
        let version = packet.version_and_diagnostic >> 5;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let length = usize::from(packet.length);
        if length < LENGTH || length > bytes.len() {
            return Err(Error::Truncated);
        }
        let detect_mult = NonZeroU8::new(packet.detect_mult).ok_or(Error::DetectMult)?;
        let flag = |bit| packet.state_and_flags & bit != 0;
        if flag(MULTIPOINT) {
            return Err(Error::Multipoint);
        }
        let authentication = if flag(AUTHENTICATION) {
            Some(Authentication::parse(&bytes[LENGTH..length])?)
        } else {
            None
        };
        let my_discriminator = NonZeroU32::new(u32::from_be_bytes(packet.my_discriminator))
            .ok_or(Error::MyDiscriminator)?;
        let your_discriminator = u32::from_be_bytes(packet.your_discriminator);
        let state = State::ALL[usize::from(packet.state_and_flags >> 6)];
        if your_discriminator == 0 && matches!(state, State::Init | State::Up) {
            return Err(Error::YourDiscriminator);
        }
        let micros = |bytes| Micros(u32::from_be_bytes(bytes));
        Ok(Self {
            state,
            diagnostic: Diagnostic::from_code(packet.version_and_diagnostic & 0x1f),
            poll: flag(POLL),
            final_: flag(FINAL),
            control_plane_independent: flag(CONTROL_PLANE_INDEPENDENT),
            demand: flag(DEMAND),
            detect_mult,
            my_discriminator,
            your_discriminator,
            desired_min_tx: micros(packet.desired_min_tx),
            required_min_rx: micros(packet.required_min_rx),
            required_min_echo_rx: micros(packet.required_min_echo_rx),
            authentication,
        })
    }

    /// Writes the packet as the payload of a datagram: [`LENGTH`] bytes, or [`MAX_LENGTH`] with
    /// authentication.
    pub fn emit<'a>(&self, buffer: &'a mut [u8; MAX_LENGTH]) -> &'a [u8] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let length = match self.authentication {
            Some(_) => MAX_LENGTH,
            None => LENGTH,
        };
        let packet = Packet {
            version_and_diagnostic: VERSION << 5 | self.diagnostic.code(),
            state_and_flags: (self.state as u8) << 6
                | flag(self.poll, POLL)
                | flag(self.final_, FINAL)
                | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
                | flag(self.authentication.is_some(), AUTHENTICATION)
                | flag(self.demand, DEMAND),
            detect_mult: self.detect_mult.get(),
            length: length as u8,
            my_discriminator: self.my_discriminator.get().to_be_bytes(),
            your_discriminator: self.your_discriminator.to_be_bytes(),
            desired_min_tx: self.desired_min_tx.0.to_be_bytes(),
            required_min_rx: self.required_min_rx.0.to_be_bytes(),
            required_min_echo_rx: self.required_min_echo_rx.0.to_be_bytes(),
        };
        let (head, section) = buffer.split_at_mut(LENGTH);
        head.copy_from_slice(bytemuck::bytes_of(&packet));
        if let Some(authentication) = &self.authentication {
            section.copy_from_slice(bytemuck::bytes_of(&authentication.section()));
        }
        &buffer[..length]
    }
}

impl Authentication {
    /// Parses what lies between the packet and the end that its length field tells.
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        // Type and length of a section are those of each type (section 4.1).
        let &[kind, length, ..] = bytes else {
            return Err(Error::AuthenticationLength);
        };
        if kind != METICULOUS_KEYED_SHA1 {
            return Err(Error::AuthenticationType(kind));
        }
        let section: &Section = bytes.view(0).ok_or(Error::AuthenticationLength)?;
        if usize::from(length) != size_of::<Section>() || bytes.len() != size_of::<Section>() {
            return Err(Error::AuthenticationLength);
        }
        Ok(Self {
            key_id: section.key_id,
            reserved: section.reserved,
            sequence: u32::from_be_bytes(section.sequence),
            digest: section.digest,
        })
    }

    fn section(&self) -> Section {
        Section {
            kind: METICULOUS_KEYED_SHA1,
            length: size_of::<Section>() as u8,
            key_id: self.key_id,
            reserved: self.reserved,
            sequence: self.sequence.to_be_bytes(),
            digest: self.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Up, poll, multiplier 3, 50 ms both ways, no echo.
    const KNOWN: [u8; LENGTH] = [
        0x21, 0xe0, 3, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50, 0, 0, 0, 0,
    ];

    fn known() -> ControlPacket {
        ControlPacket {
            state: State::Up,
            diagnostic: Diagnostic::ControlDetectionTimeExpired,
            poll: true,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_mult: NonZeroU8::new(3).unwrap(),
            my_discriminator: NonZeroU32::new(7).unwrap(),
            your_discriminator: 9,
            desired_min_tx: Micros::from_duration(Duration::from_millis(50)),
            required_min_rx: Micros(50_000),
            required_min_echo_rx: Micros(0),
            authentication: None,
        }
    }

    /// The same with authentication.
    fn authenticated() -> (ControlPacket, [u8; MAX_LENGTH]) {
        let digest = core::array::from_fn(|at| at as u8);
        let mut packet = known();
        packet.authentication = Some(Authentication {
            key_id: 3,
            reserved: 0,
            sequence: 0x0102_0304,
            digest,
        });
        let mut bytes = [0; MAX_LENGTH];
        bytes[..LENGTH].copy_from_slice(&KNOWN);
        (bytes[1], bytes[3]) = (0xe4, 52);
        bytes[LENGTH..LENGTH + 8].copy_from_slice(&[5, 28, 3, 0, 1, 2, 3, 4]);
        bytes[LENGTH + 8..].copy_from_slice(&digest);
        (packet, bytes)
    }

    #[test]
    fn a_packet_has_the_bytes_of_the_rfc() {
        let mut buffer = [0xff; MAX_LENGTH];
        assert_eq!(known().emit(&mut buffer), KNOWN);
        assert_eq!(ControlPacket::parse(&KNOWN), Ok(known()));
        let (packet, bytes) = authenticated();
        assert_eq!(packet.emit(&mut buffer), bytes);
        assert_eq!(ControlPacket::parse(&bytes), Ok(packet));
    }

    #[test]
    fn authentication_of_another_type_or_length_is_refused() {
        let (packet, bytes) = authenticated();
        let changed = |changes: &[(usize, u8)]| {
            let mut bytes = bytes;
            for &(at, byte) in changes {
                bytes[at] = byte;
            }
            ControlPacket::parse(&bytes)
        };
        for kind in (0..=255).filter(|kind| *kind != 5) {
            assert_eq!(changed(&[(24, kind)]), Err(Error::AuthenticationType(kind)));
        }
        for length in (0..=255).filter(|length| *length != 28) {
            let changed = changed(&[(25, length)]);
            assert_eq!(changed, Err(Error::AuthenticationLength), "{length}");
        }
        for length in 24..52 {
            let error = Err(Error::AuthenticationLength);
            assert_eq!(changed(&[(3, length)]), error, "{length}");
            let truncated = ControlPacket::parse(&bytes[..usize::from(length)]);
            assert_eq!(truncated, Err(Error::Truncated), "{length}");
        }
        let mut longer = [0; 60];
        longer[..52].copy_from_slice(&bytes);
        // What lies behind the packet does not belong to it: padding of an Ethernet frame.
        assert_eq!(ControlPacket::parse(&longer), Ok(packet));
        for length in 53..=60 {
            longer[3] = length;
            let parsed = ControlPacket::parse(&longer);
            assert_eq!(parsed, Err(Error::AuthenticationLength), "{length}");
        }
        // Without the A bit it is no section.
        assert_eq!(changed(&[(1, 0xe0)]), Ok(known()));
    }

    #[test]
    fn each_defect_of_a_packet_has_its_error() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = KNOWN;
            bytes[at] = byte;
            ControlPacket::parse(&bytes)
        };
        assert_eq!(ControlPacket::parse(&KNOWN[..23]), Err(Error::Truncated));
        assert_eq!(changed(0, 0x41), Err(Error::Version(2)));
        assert_eq!(changed(3, 23), Err(Error::Truncated));
        assert_eq!(changed(3, 25), Err(Error::Truncated));
        assert_eq!(changed(2, 0), Err(Error::DetectMult));
        assert_eq!(changed(1, 0xe1), Err(Error::Multipoint));
        assert_eq!(changed(1, 0xe4), Err(Error::AuthenticationLength));
        assert_eq!(changed(7, 0), Err(Error::MyDiscriminator));
        assert_eq!(changed(11, 0), Err(Error::YourDiscriminator));
        let mut init = KNOWN;
        (init[1], init[11]) = (0x80, 0);
        assert_eq!(ControlPacket::parse(&init), Err(Error::YourDiscriminator));
        (init[1], init[11]) = (0x40, 0);
        assert!(ControlPacket::parse(&init).is_ok(), "down");
    }

    proptest! {
        #[test]
        fn a_parsed_packet_is_emitted_with_the_same_bytes(
            bytes: [u8; MAX_LENGTH], state in 0_u8..4, authenticated: bool,
        ) {
            let mut bytes = bytes;
            let (length, flag) = if authenticated { (MAX_LENGTH, 4) } else { (LENGTH, 0) };
            bytes[0] = 0x20 | bytes[0] & 0x1f;
            bytes[1] = state << 6 | bytes[1] & 0x3a | flag;
            bytes[3] = length as u8;
            (bytes[24], bytes[25]) = (5, 28);
            if let Ok(packet) = ControlPacket::parse(&bytes[..length]) {
                prop_assert_eq!(packet.authentication.is_some(), authenticated);
                let mut emitted = [0; MAX_LENGTH];
                prop_assert_eq!(packet.emit(&mut emitted), &bytes[..length]);
            }
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            crate::testing::check_bfd(&bytes);
        }
    }
}
