//! Who is connected to which node: the roster of each member's connections, so that the clients of a
//! node that is gone can be told.
//!
//! Each node scans its own connections ([`Own`]) and tells its peers, which keep what they were told
//! ([`Told`]). Datagrams may be lost. So a roster is cut into [`BUCKETS`] by a hash, and a digest of
//! each bucket is told now and then. A peer asks for the buckets that differ. A peer that knows
//! nothing yet asks for all of them in the same way.
//!
//! A roster need not be exact. What it has too much is asked for nothing; who is missing is told when
//! it sends the next segment, as without a roster.

mod exchange;
mod message;
mod nudges;
mod own;
mod told;

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

pub use self::exchange::{Exchange, Taken};
pub use self::message::{Body, MAX_LENGTH, Message, MessageError};
pub use self::nudges::{Nudge, Nudges, Outcome, Probe};
pub use self::own::Own;
pub use self::told::Told;

/// Connections in one roster at most; the others are counted and not told.
pub const MAX_CONNECTIONS: usize = 1 << 17;

/// Connections of all peers together at most: some 50 MB.
pub const MAX_TOLD: usize = 4 * MAX_CONNECTIONS;

/// Parts of a roster that have a digest of their own.
pub const BUCKETS: usize = 256;

/// The addresses and ports that the connections of one roster lead to, at most: the VIPs' and the
/// node's own.
pub const MAX_SERVERS: usize = 255;

/// Bytes that may be acknowledged or received before a connection's numbers are told again: half of
/// the least window that middleboxes follow. In this range they take a packet with the numbers told
/// before for one of the connection.
pub const RENEW: u32 = 1 << 15;

/// A connection between a client and the server of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// The client's end.
    pub client: SocketAddr,
    /// The end that the client connected to: a VIP, or the node's own address.
    pub server: SocketAddr,
    /// The sequence number of the first byte that the client has not acknowledged (`SND.UNA` of RFC
    /// 9293).
    pub unacknowledged: u32,
    /// The sequence number that is expected next from the client (`RCV.NXT`).
    pub expected: u32,
}

/// A connection that has come or gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is open.
    Come(Connection),
    /// It is not any more.
    Gone(Key),
}

impl Connection {
    /// What the connection is found by.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(self.client, self.server)
    }
}

/// A connection's name: a hash of its ends. Two of 100,000 connections have the same name once in
/// four billion rosters, and then one of them is missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key(u64);

impl Key {
    /// The name of the connection between a client and a server; the same on all nodes. It need not be
    /// secret.
    #[must_use]
    pub fn of(client: SocketAddr, server: SocketAddr) -> Self {
        let mut hash = SipHasher13::new_with_keys(0x7669_7020_726f_7374, 0x6572_206f_6620_6974);
        for end in [client, server] {
            match end.ip() {
                IpAddr::V4(ip) => hash.write(&ip.octets()),
                IpAddr::V6(ip) => hash.write(&ip.octets()),
            }
            hash.write_u16(end.port());
        }
        Self(hash.finish())
    }

    const fn bucket(self) -> usize {
        (self.0 >> (u64::BITS - BUCKETS.ilog2())) as usize
    }
}

/// The digest of a bucket: it changes with each connection that comes or goes, and not with the
/// order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Digest(u32);

impl Digest {
    /// The digest after this connection has come, or has gone.
    const fn with(self, key: Key) -> Self {
        Self(self.0 ^ key.0 as u32)
    }
}

/// A digest of each bucket.
pub type Digests = [Digest; BUCKETS];

/// A set of buckets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Buckets([u64; BUCKETS / u64::BITS as usize]);

impl Buckets {
    /// No bucket.
    pub const NONE: Self = Self([0; 4]);

    fn insert(&mut self, bucket: usize) {
        self.0[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Takes the first one out.
    fn pop(&mut self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        let bit = self.0[word].trailing_zeros() as usize;
        self.0[word] &= self.0[word] - 1;
        Some(word * 64 + bit)
    }

    /// Those in either set.
    fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}

#[cfg(test)]
mod tests;
