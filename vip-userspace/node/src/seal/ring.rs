//! The keys of a cluster: sealing and opening.

use std::fmt;

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, Tag, XChaCha20Poly1305};

use crate::bfd::{Auth, Key};

use super::secret::{BfdKey, Fingerprint, Secret};

/// Longest datagram, in bytes: it fits an Ethernet frame without IP fragments, also with IPv6 and a
/// VLAN tag or two.
pub const MAX_DATAGRAM: usize = 1400;

/// Bytes of a datagram beside the ciphertext, which is as long as the plaintext.
pub const OVERHEAD: usize = HEADER + TAG;

/// Longest plaintext, in bytes.
pub const MAX_PLAINTEXT: usize = MAX_DATAGRAM - OVERHEAD;

/// Fingerprint and nonce.
const HEADER: usize = Fingerprint::LENGTH + size_of::<Nonce>();

const TAG: usize = size_of::<Tag>();

/// Random bytes from the kernel, new for each datagram: two datagrams with the same nonce reveal
/// their plaintexts.
pub type Nonce = [u8; 24];

/// The keys that a node has: one that seals, and perhaps another one that is only accepted, while
/// the key is changed.
#[derive(Debug)]
pub struct KeyRing {
    current: Keys,
    other: Option<Keys>,
}

/// What is derived from one secret.
#[derive(Debug)]
struct Keys {
    fingerprint: Fingerprint,
    datagrams: XChaCha20Poly1305,
    bfd: BfdKey,
}

/// One of a ring's secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// That which seals.
    Current,
    /// That which is only accepted: the next one or the last one.
    Other,
}

/// A plaintext is longer than a datagram has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes to be sealed; a datagram has room for {MAX_PLAINTEXT}")]
pub struct TooLong(pub usize);

/// Why a datagram is not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Not even fingerprint, nonce and tag.
    #[error("{0} bytes; a sealed datagram has at least {OVERHEAD}")]
    TooShort(usize),
    /// More than is ever sent.
    #[error("{0} bytes; a sealed datagram has at most {MAX_DATAGRAM}")]
    TooLong(usize),
    /// It was sealed with another cluster's key, or with one that this node does not have yet or
    /// any more. Or it was not sealed at all.
    #[error("sealed with a key that this node does not have (fingerprint {0})")]
    UnknownKey(Fingerprint),
    /// It was changed on its way, or its sender only knows the key's fingerprint. Or sender and
    /// receiver differ in the associated data.
    #[error("not sealed by a holder of key {0}, or changed on its way")]
    Forged(Fingerprint),
}

/// Two secrets that cannot be told apart on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Alike {
    /// They are the same.
    #[error("both are the key {0}")]
    Same(Fingerprint),
    /// Their keys for BFD have the same id, as of two random keys in 256 pairs.
    #[error("keys {0} and {1} have the same first byte, which is BFD's key id")]
    BfdId(Fingerprint, Fingerprint),
}

impl KeyRing {
    /// The keys of one secret, or of two: `current` seals, both are accepted.
    ///
    /// # Errors
    /// They cannot be told apart.
    pub fn new(current: &Secret, other: Option<&Secret>) -> Result<Self, Alike> {
        let (current, other) = (Keys::of(current), other.map(Keys::of));
        if let Some(other) = &other {
            let (ours, theirs) = (current.fingerprint, other.fingerprint);
            if ours == theirs {
                return Err(Alike::Same(ours));
            }
            if current.bfd.id() == other.bfd.id() {
                return Err(Alike::BfdId(ours, theirs));
            }
        }
        Ok(Self { current, other })
    }

    /// Seals a plaintext. `associated_data` is not sent; it must be the same where the datagram is
    /// opened, so it binds the datagram to where it belongs: its kind, its sender.
    ///
    /// # Errors
    /// The plaintext is longer than [`MAX_PLAINTEXT`].
    pub fn seal(
        &self,
        nonce: Nonce,
        associated_data: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, TooLong> {
        let too_long = TooLong(plaintext.len());
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(too_long);
        }
        let Keys {
            fingerprint,
            datagrams,
            ..
        } = &self.current;
        let mut datagram = Vec::with_capacity(plaintext.len() + OVERHEAD);
        datagram.extend(fingerprint.bytes());
        datagram.extend(nonce);
        datagram.extend(plaintext);
        let text = &mut datagram[HEADER..];
        let tag = datagrams
            .encrypt_inout_detached(&nonce.into(), associated_data, text.into())
            // The cipher's own limit is 256 GiB.
            .map_err(|_| too_long)?;
        datagram.extend(tag);
        Ok(datagram)
    }

    /// Opens a datagram: what was sealed, and by which of the keys.
    ///
    /// # Errors
    /// It was not sealed by a key of this ring with this associated data.
    pub fn open(
        &self,
        associated_data: &[u8],
        datagram: &[u8],
    ) -> Result<(Which, Vec<u8>), OpenError> {
        let length = datagram.len();
        if length > MAX_DATAGRAM {
            return Err(OpenError::TooLong(length));
        }
        let too_short = OpenError::TooShort(length);
        let (name, rest) = datagram.split_first_chunk().ok_or(too_short)?;
        let (nonce, rest) = rest.split_first_chunk::<24>().ok_or(too_short)?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(too_short)?;
        let fingerprint = Fingerprint::from_bytes(*name);
        let unknown = OpenError::UnknownKey(fingerprint);
        let (which, keys) = self.named(fingerprint).ok_or(unknown)?;
        let mut plaintext = text.to_vec();
        keys.datagrams
            .decrypt_inout_detached(
                nonce.into(),
                associated_data,
                plaintext.as_mut_slice().into(),
                tag.into(),
            )
            .map_err(|_| OpenError::Forged(fingerprint))?;
        Ok((which, plaintext))
    }

    /// The fingerprint of the key that seals.
    #[must_use]
    pub const fn current(&self) -> Fingerprint {
        self.current.fingerprint
    }

    /// The fingerprint of the key that is only accepted.
    #[must_use]
    pub fn other(&self) -> Option<Fingerprint> {
        self.other.as_ref().map(|keys| keys.fingerprint)
    }

    /// The keys that authenticate BFD packets.
    #[must_use]
    pub fn bfd_auth(&self) -> Auth {
        let key = |keys: &Keys| Key::new(keys.bfd.id(), keys.bfd.key());
        Auth {
            current: key(&self.current),
            other: self.other.as_ref().map(key),
        }
    }

    fn named(&self, fingerprint: Fingerprint) -> Option<(Which, &Keys)> {
        self.all().find(|(_, keys)| keys.fingerprint == fingerprint)
    }

    fn all(&self) -> impl Iterator<Item = (Which, &Keys)> {
        let other = self.other.as_ref().map(|keys| (Which::Other, keys));
        [(Which::Current, &self.current)].into_iter().chain(other)
    }
}

/// The fingerprints of both keys.
impl fmt::Display for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} seals", self.current())?;
        match self.other() {
            Some(other) => write!(f, ", key {other} is accepted as well"),
            None => Ok(()),
        }
    }
}

impl Keys {
    fn of(secret: &Secret) -> Self {
        Self {
            fingerprint: secret.fingerprint(),
            datagrams: XChaCha20Poly1305::new((&*secret.datagrams()).into()),
            bfd: secret.bfd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ring(current: u8, other: Option<u8>) -> KeyRing {
        let other = other.map(|byte| Secret::new([byte; 32]));
        KeyRing::new(&Secret::new([current; 32]), other.as_ref()).expect("they differ")
    }

    fn fingerprint(byte: u8) -> Fingerprint {
        Secret::new([byte; 32]).fingerprint()
    }

    /// Computed with an implementation of its own, of RFC 8439 and draft-irtf-cfrg-xchacha-03.
    #[test]
    fn a_datagram_is_that_of_other_versions() {
        let secret = Secret::new(std::array::from_fn(|place| place as u8));
        let ring = KeyRing::new(&secret, None).expect("one key");
        let nonce = std::array::from_fn(|place| 0x40 + place as u8);
        let datagram = ring.seal(nonce, b"hello", b"from cp1").expect("short");
        let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5e6eee2a404142434445464748494a4b4c4d4e4f50515253545556579e2293fcc9d626ea916f6a43580c20bd9b4255c5586421bb"
        );
    }

    #[test]
    fn a_key_is_changed_node_by_node_without_a_datagram_that_nobody_opens() {
        // Before and after each step, one after the other: old, old and new, new and old, new.
        let steps = [
            ring(1, None),
            ring(1, Some(2)),
            ring(2, Some(1)),
            ring(2, None),
        ];
        for pair in steps.windows(2) {
            for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (from, to) = (&pair[from], &pair[to]);
                let datagram = from.seal([7; 24], b"a", b"hello").expect("short");
                let (which, plaintext) = to.open(b"a", &datagram).expect("accepted");
                assert_eq!(plaintext, b"hello");
                let is_current = to.current() == from.current();
                assert_eq!(which == Which::Current, is_current);
                let accepted = to.bfd_auth();
                let sent_with = from.bfd_auth().current;
                assert!([Some(accepted.current), accepted.other].contains(&Some(sent_with)));
            }
        }
        // Whoever leaves a step out is told which key is missing.
        let datagram = steps[0].seal([7; 24], b"a", b"hello").expect("short");
        let error = steps[3].open(b"a", &datagram).expect_err("not any more");
        assert_eq!(error, OpenError::UnknownKey(fingerprint(1)));
        assert!(error.to_string().contains(&fingerprint(1).to_string()));
        assert_ne!(steps[3].bfd_auth().current, steps[0].bfd_auth().current);
        assert_eq!(steps[3].bfd_auth().other, None);
    }

    #[test]
    fn lengths_are_bounded() {
        let ring = ring(1, None);
        let longest = vec![0; MAX_PLAINTEXT + 1];
        let refused = ring.seal([0; 24], b"", &longest);
        assert_eq!(refused, Err(TooLong(MAX_PLAINTEXT + 1)));
        let longest = &longest[1..];
        let mut datagram = ring.seal([0; 24], b"", longest).expect("fits");
        assert_eq!(datagram.len(), MAX_DATAGRAM);
        assert_eq!(ring.open(b"", &datagram).expect("sealed").1, longest);
        datagram.push(0);
        let error = OpenError::TooLong(MAX_DATAGRAM + 1);
        assert_eq!(ring.open(b"", &datagram), Err(error));
        let empty = ring.seal([0; 24], b"", b"").expect("fits");
        assert_eq!(empty.len(), OVERHEAD);
        assert_eq!(ring.open(b"", &empty), Ok((Which::Current, vec![])));
        for length in 0..OVERHEAD {
            let error = OpenError::TooShort(length);
            assert_eq!(ring.open(b"", &empty[..length]), Err(error));
        }
    }

    #[test]
    fn keys_that_cannot_be_told_apart_are_refused() {
        let secret = |byte| Secret::new([byte; 32]);
        let refused = |one, two| KeyRing::new(&secret(one), Some(&secret(two))).err();
        assert_eq!(refused(1, 1), Some(Alike::Same(fingerprint(1))));
        let pairs = (0..=255).flat_map(|two| (0..two).map(move |one| (one, two)));
        let mut alike =
            pairs.filter(|(one, two)| fingerprint(*one).bytes()[0] == fingerprint(*two).bytes()[0]);
        let (one, two) = alike.next().expect("one of 32,640 pairs");
        let error = Alike::BfdId(fingerprint(one), fingerprint(two));
        assert_eq!(refused(one, two), Some(error));
    }

    #[test]
    fn a_ring_prints_no_key() {
        let text = format!("{:?}", ring(1, Some(2)));
        assert!(text.contains("Fingerprint"), "{text}");
        // Of a key's array, two elements at least would stand beside each other.
        let secret = Secret::new([1; 32]);
        let (datagrams, bfd) = (secret.datagrams(), secret.bfd());
        let keys = [&datagrams[..2], &bfd.key()[..2]];
        for key in keys.map(|start| format!("{}, {}", start[0], start[1])) {
            assert!(!text.contains(&key), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(
            nonce: Nonce,
            data in vec(any::<u8>(), 0..64),
            plaintext in vec(any::<u8>(), 0..=MAX_PLAINTEXT),
        ) {
            let datagram = ring(1, None).seal(nonce, &data, &plaintext).expect("fits");
            prop_assert_eq!(datagram.len(), plaintext.len() + OVERHEAD);
            let opened = ring(2, Some(1)).open(&data, &datagram);
            prop_assert_eq!(opened, Ok((Which::Other, plaintext)));
        }

        #[test]
        fn any_flipped_bit_is_noticed(
            nonce: Nonce,
            data in vec(any::<u8>(), 1..32),
            plaintext in vec(any::<u8>(), 0..64),
        ) {
            // Two keys, so that a changed fingerprint may name the other one.
            let ring = ring(1, Some(2));
            let sealed = ring.seal(nonce, &data, &plaintext).expect("fits");
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = ring.open(&data, &flipped).expect_err("it was changed");
                if bit / 8 >= Fingerprint::LENGTH {
                    prop_assert_eq!(error, OpenError::Forged(fingerprint(1)));
                } else {
                    prop_assert!(matches!(error, OpenError::UnknownKey(_)));
                }
            }
            for bit in 0..data.len() * 8 {
                let mut flipped = data.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = ring.open(&flipped, &sealed).expect_err("it was changed");
                prop_assert_eq!(error, OpenError::Forged(fingerprint(1)));
            }
            let mut renamed = sealed;
            renamed[..Fingerprint::LENGTH].copy_from_slice(&fingerprint(2).bytes());
            let error = ring.open(&data, &renamed).expect_err("it was changed");
            prop_assert_eq!(error, OpenError::Forged(fingerprint(2)));
        }

        #[test]
        fn no_bytes_upset_it(datagram in vec(any::<u8>(), 0..2 * MAX_DATAGRAM)) {
            prop_assert!(ring(1, Some(2)).open(b"", &datagram).is_err());
        }
    }
}
