//! Authentication of BFD packets: "Meticulous Keyed SHA1" (RFC 5880, section 6.7.4).
//!
//! The digest proves that a packet was made by somebody who has the key, and the sequence number
//! that it is not an older one of the same session. Against packets of *earlier* sessions there is
//! a rule of our own: after each Down, a session takes a new local discriminator, and only packets
//! that name it count for more than a greeting. So nothing that was recorded before can bring a
//! session up, end it, or keep it up.
//!
//! ```text
//!   digest                      a key of this session, or the packet is refused
//!   Your Discriminator = 0      a greeting: only while the session is not up (its number is not
//!                               looked at: a system that has restarted begins with another one)
//!   Your Discriminator = ours   its number must be higher than the last; while the session is up,
//!                               by 3 * Detect Mult at most
//!   another one                 an earlier session: ignored
//! ```
//!
//! While a session is not up, any higher number counts. The RFC's limit would refuse the other side
//! for two detection times (6 s, with packets that announce one a second) after a loss of ten
//! packets, which last 350 ms while both sides [hurry](super::HURRY).

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};

use sha1::{Digest as _, Sha1};
use vip_common::wire::bfd::{Authentication, ControlPacket, Digest, MAX_LENGTH};
use vip_common::wire::time::BootNanos;

use crate::random::mix;

/// A shared key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    id: u8,
    secret: Digest,
}

impl Key {
    /// A key with the number by which packets name it. A secret of fewer than 20 bytes is padded
    /// with zeros, as section 4.4 wants it; of a longer one the first 20 bytes count.
    #[must_use]
    pub fn new(id: u8, secret: &[u8]) -> Self {
        let mut padded = Digest::default();
        for (to, from) in padded.iter_mut().zip(secret) {
            *to = *from;
        }
        Self { id, secret: padded }
    }

    /// Digest of a packet with the key in the digest's place.
    fn digest(&self, packet: &ControlPacket, authentication: Authentication) -> Digest {
        let keyed = ControlPacket {
            authentication: Some(Authentication {
                digest: self.secret,
                ..authentication
            }),
            ..*packet
        };
        let mut buffer = [0; MAX_LENGTH];
        Sha1::digest(keyed.emit(&mut buffer)).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret must not get into a log.
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys of a session. To change a key without a break: set the new one as `other` on all
/// nodes, then as `current` with the old one as `other`, then remove the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth {
    /// Authenticates what this side sends.
    pub current: Key,
    /// Is accepted, too.
    pub other: Option<Key>,
}

impl Auth {
    /// Whether a packet was made by somebody who has a key.
    fn verify(&self, packet: &ControlPacket) -> Result<Authentication, Refused> {
        let authentication = packet.authentication.ok_or(Refused::Missing)?;
        let mut why = Refused::UnknownKey;
        for key in [Some(self.current), self.other].into_iter().flatten() {
            if key.id == authentication.key_id {
                if equal(&key.digest(packet, authentication), &authentication.digest) {
                    return Ok(authentication);
                }
                why = Refused::Digest;
            }
        }
        Err(why)
    }
}

/// Compares in a time that does not depend on where two digests differ.
fn equal(a: &Digest, b: &Digest) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0
}

/// Why a packet was refused (sections 6.7.4 and 6.8.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It has no authentication, which is set.
    #[error("BFD packet without authentication, which is set")]
    Missing,
    /// It has authentication, which is not set.
    #[error("BFD packet with authentication, which is not set")]
    Unexpected,
    /// Its key has another number than those that are set.
    #[error("BFD packet with a key of another number")]
    UnknownKey,
    /// Its digest is not that of the key: another key, or a forged packet.
    #[error("BFD packet with a wrong digest")]
    Digest,
    /// It is an older packet of this session, or many packets before it were lost.
    #[error("BFD packet with a sequence number out of range")]
    Sequence,
}

impl Refused {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 5] = [
        Self::Missing,
        Self::Unexpected,
        Self::UnknownKey,
        Self::Digest,
        Self::Sequence,
    ];

    /// The name in status and metrics, in `snake_case`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unexpected => "unexpected",
            Self::UnknownKey => "unknown_key",
            Self::Digest => "digest",
            Self::Sequence => "sequence",
        }
    }
}

/// What a session knows for authentication (section 6.8.1).
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    keys: Auth,
    seed: u64,
    /// Discriminators that the session has had.
    sessions: u64,
    /// `bfd.XmitAuthSeq`.
    sent: u32,
    /// `bfd.RcvAuthSeq`, and until when it is known (`bfd.AuthSeqKnown`).
    received: Option<(u32, BootNanos)>,
}

impl Authenticator {
    pub(super) fn new(keys: Auth, seed: u64) -> Self {
        Self {
            keys,
            seed,
            sessions: 0,
            sent: mix(seed, u64::MAX) as u32,
            received: None,
        }
    }

    /// Other keys are used from now on.
    pub(super) fn set_keys(&mut self, keys: Auth) {
        self.keys = keys;
    }

    /// Numbers a packet and adds the digest.
    pub(super) fn sign(&mut self, packet: &mut ControlPacket) {
        self.sent = self.sent.wrapping_add(1);
        let mut authentication = Authentication {
            key_id: self.keys.current.id,
            reserved: 0,
            sequence: self.sent,
            digest: Digest::default(),
        };
        authentication.digest = self.keys.current.digest(packet, authentication);
        packet.authentication = Some(authentication);
    }

    /// Checks the digest.
    pub(super) fn verify(&self, packet: &ControlPacket) -> Result<Authentication, Refused> {
        self.keys.verify(packet)
    }

    /// Checks the number of a packet, unless it is forgotten what the last one was.
    pub(super) fn in_order(
        &self,
        now: BootNanos,
        up: bool,
        detect_mult: NonZeroU8,
        sequence: u32,
    ) -> Result<(), Refused> {
        // While the session is up, nothing is forgotten: its detection time ends it before.
        let known = self.received.filter(|(_, until)| up || now < *until);
        let most = if up {
            3 * u32::from(detect_mult.get())
        } else {
            u32::MAX / 2
        };
        match known {
            Some((last, _)) if !(1..=most).contains(&sequence.wrapping_sub(last)) => {
                Err(Refused::Sequence)
            }
            _ => Ok(()),
        }
    }

    /// A packet was accepted.
    pub(super) fn accept(&mut self, sequence: u32, known_until: BootNanos) {
        self.received = Some((sequence, known_until));
    }

    /// The discriminator of the next session, of which no packet is known.
    pub(super) fn renew(&mut self) -> NonZeroU32 {
        self.received = None;
        self.sessions += 1;
        let discriminator = (mix(self.seed, self.sessions) >> 32) as u32;
        NonZeroU32::new(discriminator).unwrap_or(NonZeroU32::MIN)
    }
}

#[cfg(test)]
mod tests;
