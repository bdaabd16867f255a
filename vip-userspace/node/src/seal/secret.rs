//! A secret, and the keys that are derived from it.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// What a secret begins with as a text.
const PREFIX: &str = "vip1:";

/// The salt of all derivations. Another version of this module's formats gets another one.
const SALT: &[u8] = b"vip1";

/// 32 random bytes that all nodes of a cluster have. They are overwritten when this is dropped,
/// and nothing prints them but [`Secret::text`].
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes bytes that must come from the kernel's random number generator.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads what [`Secret::text`] writes: `vip1:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// It is something else. The error does not repeat it: it may be a key with a slip in it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let digits = text.strip_prefix(PREFIX).ok_or(Malformed::Prefix)?;
        if let Some(c) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(Malformed::Digit(c));
        }
        // All are ASCII, so these are bytes as well as characters.
        if digits.len() != 64 {
            return Err(Malformed::Length(digits.len()));
        }
        let mut secret = Self([0; 32]);
        for (byte, pair) in secret.0.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | value(*digit));
        }
        Ok(secret)
    }

    /// As it stands in a key file.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        // Of its full length from the start: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 64));
        text.push_str(PREFIX);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or_default());
            }
        }
        text
    }

    /// Names the secret without revealing anything of it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.derive(b"fingerprint"))
    }

    /// The key that seals datagrams.
    pub(super) fn datagrams(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.derive(b"datagrams, XChaCha20-Poly1305"))
    }

    /// The key that authenticates BFD packets.
    pub(super) fn bfd(&self) -> BfdKey {
        BfdKey {
            id: self.fingerprint().bfd(),
            key: self.derive(b"BFD, keyed SHA1"),
        }
    }

    /// The key for a purpose: HKDF-SHA256 with the purpose's label as its info.
    fn derive<const N: usize>(&self, label: &[u8]) -> [u8; N] {
        let mut key = [0; N];
        let derived = Hkdf::<Sha256>::new(Some(SALT), &self.0).expand(label, &mut key);
        derived.expect("a key is shorter than 255 hashes (RFC 5869, section 2.3)");
        key
    }
}

/// What a hexadecimal digit is worth.
const fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

/// Why a text is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// It does not begin as one.
    #[error("a key begins with `{PREFIX}`")]
    Prefix,
    /// A character that is no hexadecimal digit.
    #[error("`{}` is no hexadecimal digit", .0.escape_default())]
    Digit(char),
    /// Too few digits, or too many.
    #[error("{0} hexadecimal digits after `{PREFIX}`, must be 64")]
    Length(usize),
}

/// Names a secret, in datagrams and to operators. It is no secret, and reveals nothing of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fingerprint([u8; Self::LENGTH]);

impl Fingerprint {
    /// Bytes of one.
    pub const LENGTH: usize = 4;

    /// As it stands in a datagram.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// As it stands in a datagram.
    #[must_use]
    pub const fn bytes(self) -> [u8; Self::LENGTH] {
        self.0
    }

    /// The id of the secret's key for BFD: the first byte.
    pub(super) const fn bfd(self) -> u8 {
        self.0[0]
    }
}

/// Eight hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:08x}", u32::from_be_bytes(self.0)))
    }
}

/// A key for BFD's Keyed SHA1 and Meticulous Keyed SHA1 (RFC 5880, section 4.4).
#[derive(Clone)]
pub(super) struct BfdKey {
    id: u8,
    key: [u8; 20],
}

impl BfdKey {
    /// `Auth Key ID`, by which a receiver chooses the key.
    #[must_use]
    pub(super) const fn id(&self) -> u8 {
        self.id
    }

    /// What stands in the field `Auth Key/Hash` while the hash is computed.
    #[must_use]
    pub(super) const fn key(&self) -> &[u8; 20] {
        &self.key
    }
}

impl Drop for BfdKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl ZeroizeOnDrop for BfdKey {}

impl fmt::Debug for BfdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BfdKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes 0 to 31.
    fn counted() -> Secret {
        Secret::new(std::array::from_fn(|place| place as u8))
    }

    const COUNTED: &str = "vip1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Computed with Python's `hmac`, after RFC 5869.
    #[test]
    fn derivations_are_those_that_other_versions_make() {
        let secret = counted();
        assert_eq!(secret.fingerprint().to_string(), "5e6eee2a");
        assert_eq!(
            hex(&*secret.datagrams()),
            "b4315b1fd8b9f31e471c499fb0f6b1126abc6f7e8860a07602f0527c33e0801d"
        );
        assert_eq!(
            hex(secret.bfd().key()),
            "c69da2e8e52805505face0cb6c8a2b5907736cea"
        );
        assert_eq!(secret.bfd().id(), secret.fingerprint().bytes()[0]);
    }

    #[test]
    fn text_is_read_as_it_is_written() {
        let secret = counted();
        assert_eq!(secret.text().as_str(), COUNTED);
        let again = Secret::parse(COUNTED).expect("a key");
        assert_eq!(again.0, secret.0);
        let upper = COUNTED.to_uppercase().replace("VIP1", "vip1");
        assert_eq!(Secret::parse(&upper).expect("a key").0, secret.0);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for (text, error) in [
            ("", Malformed::Prefix),
            (&COUNTED[5..], Malformed::Prefix),
            ("vip2:00", Malformed::Prefix),
            ("vip1:", Malformed::Length(0)),
            (&COUNTED[..COUNTED.len() - 1], Malformed::Length(63)),
            (&format!("{COUNTED}0"), Malformed::Length(65)),
            (&COUNTED.replace("1f", "1g"), Malformed::Digit('g')),
            (
                &COUNTED.replace("1f", "1\u{e9}"),
                Malformed::Digit('\u{e9}'),
            ),
            (&COUNTED.replace("1f", "+f"), Malformed::Digit('+')),
        ] {
            assert_eq!(Secret::parse(text).err(), Some(error), "{text}");
            assert!(!error.to_string().contains("0001"), "{error}");
        }
    }

    #[test]
    fn nothing_prints_a_key() {
        let secret = counted();
        let named = secret.fingerprint().to_string();
        assert_eq!(format!("{secret:?}"), format!("Secret({named})"));
        let bfd = secret.bfd();
        assert_eq!(format!("{bfd:?}"), format!("BfdKey({})", bfd.id()));
    }
}
