//! What hellos, rosters, requests and advertisements are sent in, sealed where the agents share a key.
//!
//! ```text
//! "vip" 3 | kind 1 | hello                              kind 0: a hello in a datagram, plain
//! "vip" 3 | kind 1 | fingerprint 8 | nonce 24 | sealed | tag 16
//!
//!                    kind 1: a hello in a datagram      sealed: hello
//!                    kind 2: in an IP packet of VRRP    sealed: instance 8 | number 8 | VRRP packet
//!                    kind 4: a roster in a datagram     sealed: roster message
//!
//!                    kind 5: a request in a datagram    sealed: request or reply of an agent
//!
//! "vip" 3 | kind 1 | roster message                     kind 3: a roster in a datagram, plain
//! ```
//!
//! The seal also covers the first four bytes and the sender's address, so what is sealed is of no use
//! in another place. Other VRRP routers take kind 2 for version 7 of VRRP, and leave it alone.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU64;

use thiserror::Error;

use crate::election::Sealed;
use crate::hello::{Hello, HelloError, Instance};
use crate::remote;
use crate::roster::{Message, MessageError};
use crate::seal::{Fingerprint, KeyRing, MAX_DATAGRAM, Nonce, OpenError};

/// Greatest length of a datagram in bytes.
pub const MAX_LENGTH: usize = HEAD + MAX_DATAGRAM;

/// Bytes before the hello or what is sealed.
const HEAD: usize = 4;

const PLAIN: [u8; HEAD] = *b"vip\0";
const SEALED: [u8; HEAD] = *b"vip\x01";
const ADVERT: [u8; HEAD] = *b"vip\x02";
const PLAIN_ROSTER: [u8; HEAD] = *b"vip\x03";
const SEALED_ROSTER: [u8; HEAD] = *b"vip\x04";
const REMOTE: [u8; HEAD] = *b"vip\x05";

/// Bytes before the VRRP packet in a sealed advertisement.
const ADVERT_HEAD: usize = size_of::<u64>() * 2;

/// Why a datagram is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// No agent has sent it, or one of a later version.
    #[error("no hello")]
    Foreign,
    /// It is not sealed, and this node has a key.
    #[error("not sealed, and this node has a key (`key_file`)")]
    Plain,
    /// It is sealed, and this node has no key.
    #[error("sealed, and this node has no key (`key_file`)")]
    Sealed,
    /// It was sealed by a key that this node does not have.
    #[error("sealed with key {0}, which this node does not have")]
    UnknownKey(Fingerprint),
    /// It was changed on its way, or made by somebody who has no key, or comes from another host.
    #[error("its seal is wrong")]
    Forged,
    /// It is no hello of this version.
    #[error("hello is malformed: {0}")]
    Malformed(HelloError),
    /// It is no roster message of this version.
    #[error("roster message is malformed: {0}")]
    MalformedRoster(MessageError),
    /// It is no request or reply of this version.
    #[error("request is malformed: {0}")]
    MalformedRequest(remote::MessageError),
}

impl Refused {
    /// What each reason is called in metrics.
    pub const CODES: [&'static str; 8] = [
        "foreign",
        "plain",
        "sealed",
        "unknown_key",
        "forged",
        "malformed",
        "malformed_roster",
        "malformed_request",
    ];

    /// Its place in [`Self::CODES`].
    #[must_use]
    pub const fn code(self) -> usize {
        match self {
            Self::Foreign => 0,
            Self::Plain => 1,
            Self::Sealed => 2,
            Self::UnknownKey(_) => 3,
            Self::Forged => 4,
            Self::Malformed(_) => 5,
            Self::MalformedRoster(_) => 6,
            Self::MalformedRequest(_) => 7,
        }
    }
}

/// How the two kinds of a datagram begin: plain, and sealed.
type Kinds = [[u8; HEAD]; 2];

const HELLO: Kinds = [PLAIN, SEALED];
const ROSTER: Kinds = [PLAIN_ROSTER, SEALED_ROSTER];

/// The datagram for a hello from this address. `None` if the hello is too long or does not fit its
/// format.
#[must_use]
pub fn wrap(keys: Option<&KeyRing>, nonce: Nonce, from: IpAddr, hello: &Hello) -> Option<Vec<u8>> {
    enclose(HELLO, keys, nonce, from, &hello.emit()?)
}

/// The hello in a datagram from this address.
///
/// # Errors
/// Why it is not taken.
pub fn unwrap(keys: Option<&KeyRing>, from: IpAddr, datagram: &[u8]) -> Result<Hello, Refused> {
    let hello = disclose(HELLO, keys, from, datagram)?;
    Hello::parse(&hello).map_err(Refused::Malformed)
}

/// The datagram for a roster message from this address. `None` if the message is too long or does not
/// fit its format.
#[must_use]
pub fn wrap_roster(
    keys: Option<&KeyRing>,
    nonce: Nonce,
    from: IpAddr,
    message: &Message,
) -> Option<Vec<u8>> {
    enclose(ROSTER, keys, nonce, from, &message.emit()?)
}

/// Whether a datagram has a roster message.
#[must_use]
pub fn is_roster(datagram: &[u8]) -> bool {
    ROSTER.iter().any(|kind| datagram.starts_with(kind))
}

/// The roster message in a datagram from this address.
///
/// # Errors
/// Why it is not taken.
pub fn unwrap_roster(
    keys: Option<&KeyRing>,
    from: IpAddr,
    datagram: &[u8],
) -> Result<Message, Refused> {
    let message = disclose(ROSTER, keys, from, datagram)?;
    Message::parse(&message).map_err(Refused::MalformedRoster)
}

/// The datagram for a request or reply from this address. There is none without a key: whoever is on the
/// segment must not command an agent. `None` if the message is too long.
#[must_use]
pub fn wrap_remote(
    keys: &KeyRing,
    nonce: Nonce,
    from: IpAddr,
    message: &remote::Message,
) -> Option<Vec<u8>> {
    let sealed = keys
        .seal(nonce, &bound(REMOTE, from), &message.emit()?)
        .ok()?;
    Some([&REMOTE[..], &sealed].concat())
}

/// Whether a datagram has a request or a reply.
#[must_use]
pub fn is_remote(datagram: &[u8]) -> bool {
    datagram.starts_with(&REMOTE)
}

/// The request or reply in a datagram from this address.
///
/// # Errors
/// Why it is not taken.
pub fn unwrap_remote(
    keys: Option<&KeyRing>,
    from: IpAddr,
    datagram: &[u8],
) -> Result<remote::Message, Refused> {
    let rest = datagram.strip_prefix(&REMOTE).ok_or(Refused::Foreign)?;
    let opened = open(keys.ok_or(Refused::Sealed)?, REMOTE, from, rest)?;
    remote::Message::parse(&opened).map_err(Refused::MalformedRequest)
}

fn enclose(
    [plain, sealed]: Kinds,
    keys: Option<&KeyRing>,
    nonce: Nonce,
    from: IpAddr,
    content: &[u8],
) -> Option<Vec<u8>> {
    Some(match keys {
        None => [&plain[..], content].concat(),
        Some(keys) => {
            let content = keys.seal(nonce, &bound(sealed, from), content).ok()?;
            [&sealed[..], &content].concat()
        }
    })
}

fn disclose<'d>(
    [plain, sealed]: Kinds,
    keys: Option<&KeyRing>,
    from: IpAddr,
    datagram: &'d [u8],
) -> Result<Cow<'d, [u8]>, Refused> {
    let (head, rest) = datagram
        .split_first_chunk::<HEAD>()
        .ok_or(Refused::Foreign)?;
    match keys {
        None if *head == plain => Ok(rest.into()),
        Some(_) if *head == plain => Err(Refused::Plain),
        None if *head == sealed => Err(Refused::Sealed),
        Some(keys) if *head == sealed => open(keys, sealed, from, rest).map(Cow::from),
        _ => Err(Refused::Foreign),
    }
}

/// The payload of an IP packet of VRRP with a sealed advertisement from this address. `packet`: the
/// VRRP packet.
#[must_use]
pub fn wrap_advert(
    keys: &KeyRing,
    nonce: Nonce,
    from: IpAddr,
    sealed: Sealed,
    packet: &[u8],
) -> Option<Vec<u8>> {
    let Sealed { instance, number } = sealed;
    let instance = instance.0.get().to_be_bytes();
    let plaintext = [&instance[..], &number.to_be_bytes(), packet].concat();
    let sealed = keys.seal(nonce, &bound(ADVERT, from), &plaintext).ok()?;
    Some([&ADVERT[..], &sealed].concat())
}

/// Whether the payload of an IP packet of VRRP is a sealed advertisement.
#[must_use]
pub fn is_sealed_advert(payload: &[u8]) -> bool {
    payload.starts_with(&ADVERT)
}

/// The VRRP packet in such a payload from this address, and how it came.
///
/// # Errors
/// Why it is not taken.
pub fn unwrap_advert(
    keys: Option<&KeyRing>,
    from: IpAddr,
    payload: &[u8],
) -> Result<(Sealed, Vec<u8>), Refused> {
    let rest = payload.strip_prefix(&ADVERT).ok_or(Refused::Foreign)?;
    let keys = keys.ok_or(Refused::Sealed)?;
    let mut packet = open(keys, ADVERT, from, rest)?;
    let short = Refused::Malformed(HelloError::Truncated);
    let (head, _) = packet.split_first_chunk::<ADVERT_HEAD>().ok_or(short)?;
    let word = |at: usize| {
        let bytes: [u8; 8] = std::array::from_fn(|byte| head[at + byte]);
        u64::from_be_bytes(bytes)
    };
    let range = Refused::Malformed(HelloError::Range("instance"));
    let instance = Instance(NonZeroU64::new(word(0)).ok_or(range)?);
    let number = word(8);
    packet.drain(..ADVERT_HEAD);
    Ok((Sealed { instance, number }, packet))
}

fn open(keys: &KeyRing, kind: [u8; HEAD], from: IpAddr, sealed: &[u8]) -> Result<Vec<u8>, Refused> {
    let opened = keys.open(&bound(kind, from), sealed);
    opened
        .map(|(_, plaintext)| plaintext)
        .map_err(|error| match error {
            OpenError::UnknownKey(fingerprint) => Refused::UnknownKey(fingerprint),
            OpenError::Forged(_) | OpenError::TooShort(_) | OpenError::TooLong(_) => {
                Refused::Forged
            }
        })
}

/// What a seal covers beside the plaintext.
fn bound(kind: [u8; HEAD], from: IpAddr) -> Vec<u8> {
    match from {
        IpAddr::V4(from) => [&kind[..], &from.octets()].concat(),
        IpAddr::V6(from) => [&kind[..], &from.octets()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Body;
    use crate::seal::Secret;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 12));

    fn hello() -> Hello {
        Hello::sample(&[FROM])
    }

    fn ring(byte: u8) -> KeyRing {
        KeyRing::new(&Secret::new([byte; 32]), None).expect("one key")
    }

    #[test]
    fn a_hello_arrives_in_the_form_that_both_have() {
        let keys = ring(1);
        for keys in [None, Some(&keys)] {
            let datagram = wrap(keys, [7; 24], FROM, &hello()).expect("fits");
            assert!(datagram.len() <= MAX_LENGTH);
            assert_eq!(unwrap(keys, FROM, &datagram), Ok(hello()));
        }
        let plain = wrap(None, [7; 24], FROM, &hello()).expect("fits");
        assert_eq!(unwrap(Some(&keys), FROM, &plain), Err(Refused::Plain));
        let sealed = wrap(Some(&keys), [7; 24], FROM, &hello()).expect("fits");
        assert_eq!(unwrap(None, FROM, &sealed), Err(Refused::Sealed));
        assert_eq!(unwrap(None, FROM, b"vip"), Err(Refused::Foreign));
        assert_eq!(unwrap(None, FROM, b"vip\x02"), Err(Refused::Foreign));
    }

    #[test]
    fn a_roster_message_arrives_and_is_no_hello() {
        let keys = ring(1);
        let message = Message {
            to: None,
            answers: 0,
            from: Instance(NonZeroU64::MIN),
            number: 1,
            body: Body::Answered(Vec::new()),
        };
        for keys in [None, Some(&keys)] {
            let datagram = wrap_roster(keys, [7; 24], FROM, &message).expect("fits");
            assert!(is_roster(&datagram));
            assert_eq!(unwrap_roster(keys, FROM, &datagram), Ok(message.clone()));
            assert_eq!(unwrap(keys, FROM, &datagram), Err(Refused::Foreign));
            let hello = wrap(keys, [7; 24], FROM, &hello()).expect("fits");
            assert!(!is_roster(&hello));
            assert_eq!(unwrap_roster(keys, FROM, &hello), Err(Refused::Foreign));
            // Nor does the seal of a hello hold for a roster.
            let mut changed = hello;
            changed[3] += 3;
            unwrap_roster(keys, FROM, &changed).expect_err("a hello");
        }
        let sealed = wrap_roster(Some(&keys), [7; 24], FROM, &message).expect("fits");
        assert_eq!(
            unwrap_roster(Some(&keys), OTHER, &sealed),
            Err(Refused::Forged)
        );
    }

    #[test]
    fn a_request_arrives_sealed_and_is_of_no_use_elsewhere() {
        let keys = ring(1);
        let (call, body) = (remote::Id([1; 16]), remote::Body::Call);
        let message = remote::Message { call, body };
        let datagram = wrap_remote(&keys, [7; 24], FROM, &message).expect("fits");
        assert!(is_remote(&datagram) && !is_roster(&datagram));
        assert_eq!(unwrap_remote(Some(&keys), FROM, &datagram), Ok(message));
        let without = unwrap_remote(None, FROM, &datagram);
        assert_eq!(without, Err(Refused::Sealed));
        let other = unwrap_remote(Some(&keys), OTHER, &datagram);
        assert_eq!(other, Err(Refused::Forged));
        assert_eq!(unwrap(Some(&keys), FROM, &datagram), Err(Refused::Foreign));
        // Nor does the seal of another kind hold.
        let mut hello = wrap(Some(&keys), [7; 24], FROM, &hello()).expect("fits");
        hello[..HEAD].copy_from_slice(&REMOTE);
        let changed = unwrap_remote(Some(&keys), FROM, &hello);
        assert_eq!(changed, Err(Refused::Forged));
    }

    #[test]
    fn a_sealed_hello_is_of_no_use_to_others() {
        let keys = ring(1);
        let sealed = wrap(Some(&keys), [7; 24], FROM, &hello()).expect("fits");
        assert_eq!(unwrap(Some(&keys), OTHER, &sealed), Err(Refused::Forged));
        let other = unwrap(Some(&ring(2)), FROM, &sealed);
        assert_eq!(other, Err(Refused::UnknownKey(keys.current())));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            unwrap(Some(&keys), FROM, &changed).expect_err("changed");
            unwrap(Some(&keys), FROM, &sealed[..place]).expect_err("cut short");
        }
    }

    #[test]
    fn a_sealed_advertisement_arrives_and_is_of_no_use_elsewhere() {
        let keys = ring(1);
        let sealed = Sealed {
            instance: Instance(NonZeroU64::MIN),
            number: 7,
        };
        let payload = wrap_advert(&keys, [7; 24], FROM, sealed, b"VRRP").expect("fits");
        assert!(is_sealed_advert(&payload) && !is_sealed_advert(b"\x31\x0a"));
        let opened = unwrap_advert(Some(&keys), FROM, &payload);
        assert_eq!(opened, Ok((sealed, b"VRRP".to_vec())));
        assert_eq!(unwrap_advert(None, FROM, &payload), Err(Refused::Sealed));
        unwrap_advert(Some(&keys), OTHER, &payload).expect_err("another sender");
        unwrap_advert(Some(&ring(2)), FROM, &payload).expect_err("another key");
        // Nor as a hello.
        let mut hello = payload.clone();
        hello[..HEAD].copy_from_slice(&SEALED);
        assert_eq!(unwrap(Some(&keys), FROM, &hello), Err(Refused::Forged));
        for place in 0..payload.len() {
            unwrap_advert(Some(&keys), FROM, &payload[..place]).expect_err("cut short");
        }
    }
}
