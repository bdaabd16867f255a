//! The shared key of a cluster: it seals the datagrams that agents send each other, so that only
//! who has the key can read or make one.
//!
//! Every node has the same 32 random bytes, a [`Secret`], from a [`KeyFile`]. Each purpose has a
//! key of its own, derived from them by HKDF-SHA256 (RFC 5869). A [`KeyRing`] has those of one
//! secret or, while an operator changes the key, of two.
//!
//! A datagram has at most [`MAX_DATAGRAM`] bytes:
//!
//! ```text
//! 0             4           28                              n - 16        n
//! +-------------+-----------+-------------------------------+-------------+
//! | fingerprint |   nonce   |          ciphertext           |     tag     |
//! +-------------+-----------+-------------------------------+-------------+
//! ```
//!
//! - The fingerprint names the secret, and also this format: another one would be derived by
//!   another label. It is not secret. By it, the receiver finds the key without trying, and can
//!   name a key that it does not have.
//! - The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): fast without AES instructions,
//!   and with nonces of 192 bits. All nodes seal with one key and do not know each other's nonces.
//!   Random ones of this length do not repeat in practice; with the 96 bits of AES-GCM or of
//!   ChaCha20-Poly1305 (RFC 8439), one key would be good for 2^32 datagrams only.
//!
//! What sealing does not do: a datagram that was recorded opens again, and any node can seal in
//! another one's name. Whoever uses this puts a counter or a challenge into the plaintext.

mod file;
mod ring;
mod secret;

pub use self::file::{Entry, FileError, KeyFile, LineError};
pub use self::ring::{
    Alike, KeyRing, MAX_DATAGRAM, MAX_PLAINTEXT, Nonce, OVERHEAD, OpenError, TooLong, Which,
};
pub use self::secret::{Fingerprint, Malformed, Secret};
