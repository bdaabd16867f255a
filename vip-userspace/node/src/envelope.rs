//! What a hello is sent in: a datagram of the peer channel, sealed where the agents share a key.
//!
//! ```text
//! "vip" 3 | kind 1 | hello                                     kind 0: plain
//! "vip" 3 | kind 1 | fingerprint 8 | nonce 24 | hello | tag 16     kind 1: sealed
//! ```
//!
//! The seal also covers the first four bytes and the sender's address, so a datagram is of no use
//! under another one.

use std::net::IpAddr;

use thiserror::Error;

use crate::hello::{Hello, HelloError};
use crate::seal::{Fingerprint, KeyRing, MAX_DATAGRAM, Nonce, OpenError};

/// Greatest length of a datagram in bytes.
pub const MAX_LENGTH: usize = HEAD + MAX_DATAGRAM;

/// Bytes before the hello or what is sealed.
const HEAD: usize = 4;

const PLAIN: [u8; HEAD] = *b"vip\0";
const SEALED: [u8; HEAD] = *b"vip\x01";

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
}

impl Refused {
    /// What each reason is called in metrics.
    pub const CODES: [&'static str; 6] = [
        "foreign",
        "plain",
        "sealed",
        "unknown_key",
        "forged",
        "malformed",
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
        }
    }
}

/// The datagram for a hello from this address. `None` if the hello is too long or does not fit its
/// format.
#[must_use]
pub fn wrap(keys: Option<&KeyRing>, nonce: Nonce, from: IpAddr, hello: &Hello) -> Option<Vec<u8>> {
    let hello = hello.emit()?;
    Some(match keys {
        None => [&PLAIN[..], &hello].concat(),
        Some(keys) => {
            let sealed = keys.seal(nonce, &bound(from), &hello).ok()?;
            [&SEALED[..], &sealed].concat()
        }
    })
}

/// The hello in a datagram from this address.
///
/// # Errors
/// Why it is not taken.
pub fn unwrap(keys: Option<&KeyRing>, from: IpAddr, datagram: &[u8]) -> Result<Hello, Refused> {
    let (head, rest) = datagram
        .split_first_chunk::<HEAD>()
        .ok_or(Refused::Foreign)?;
    let opened;
    let hello = match (*head, keys) {
        (PLAIN, None) => rest,
        (PLAIN, Some(_)) => return Err(Refused::Plain),
        (SEALED, None) => return Err(Refused::Sealed),
        (SEALED, Some(keys)) => {
            opened = keys.open(&bound(from), rest).map_err(|error| match error {
                OpenError::UnknownKey(fingerprint) => Refused::UnknownKey(fingerprint),
                OpenError::Forged(_) | OpenError::TooShort(_) | OpenError::TooLong(_) => {
                    Refused::Forged
                }
            })?;
            &opened.1[..]
        }
        _ => return Err(Refused::Foreign),
    };
    Hello::parse(hello).map_err(Refused::Malformed)
}

/// What a seal covers beside the hello.
fn bound(from: IpAddr) -> Vec<u8> {
    match from {
        IpAddr::V4(from) => [&SEALED[..], &from.octets()].concat(),
        IpAddr::V6(from) => [&SEALED[..], &from.octets()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::hello::{Instance, Line};
    use crate::seal::Secret;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 12));

    fn hello() -> Hello {
        let instance = Instance(NonZeroU64::MIN);
        Hello {
            instance,
            number: 1,
            leaves: false,
            drains: false,
            vips: vec![1],
            members: vec![Line {
                address: FROM,
                instance: Some(instance),
                weight: 1,
                installed: true,
                age: Some(Duration::ZERO),
                latest: 0,
                row_number: 1,
                row: 1,
            }],
            own: 0,
            heard: Vec::new(),
            forgotten: Vec::new(),
            text: "cp1".to_owned(),
        }
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
}
