//! The flow hash, which selects the bucket.

use core::hash::Hasher as _;

use bytemuck::{Pod, Zeroable};
use siphasher::sip::SipHasher13;

use crate::wire::addr::{Be16, Be32, Be128};

/// A TCP flow to a VIP, with the port by which a node's TCP stack knows it. The addresses are those
/// of IPv4 ([`Be32`]) or IPv6 ([`Be128`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow<A> {
    /// The client.
    pub source: A,
    /// The VIP.
    pub destination: A,
    /// The client's port.
    pub source_port: Be16,
    /// The service's target.
    pub destination_port: Be16,
}

/// The hash of a service's flows, with its seven keys.
///
/// It must be even for structured inputs, such as the ports of one client or the addresses of one
/// subnet, and it must be cheap: BPF multiplies in one instruction but has no rotation. It need not
/// be cryptographic. A client that sees which of N servers it has reached needs N tries for each
/// connection to one of them, whatever the hash is.
///
/// With 64-bit keys `k0` to `k6`, and all numbers read as little-endian:
///
/// - IPv4: `x = (address + k0) * (port + k1)`.
/// - IPv6, an address of the words `w0` to `w3`:
///   `x = (w0 + k0) * (w1 + k1) + (w2 + k2) * (w3 + k3) + port * k4 + k5`.
/// - Both: the hash is `((x ^ x >> 32) * k6) >> 32`, with an odd `k6`. Its upper 16 bits are the
///   bucket.
///
/// `x` is Multilinear-HM (D. Lemire, O. Kaser, "Strongly universal string hashing is fast", 2014):
/// its upper half is strongly universal, so no two inputs collide for all keys. It is linear in the
/// port, however. Ports of one client would hit some buckets more often than others: shares of a
/// node were off by up to 17 % in place of 3 %. The second multiplication breaks that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct ServiceHash([u64; 7]);

impl ServiceHash {
    /// The hash for flows to an address, of either family, and a port. `key` is the cluster's, from
    /// which SipHash-1-3 derives the keys.
    #[must_use]
    pub fn new(key: [u64; 2], address: Be128, port: Be16) -> Self {
        let mut keys = [0, 1, 2, 3, 4, 5, 6].map(|number: u8| {
            let mut hash = SipHasher13::new_with_keys(key[0], key[1]);
            hash.write(&address.to_wire());
            hash.write(&port.get().to_be_bytes());
            hash.write(&[number]);
            hash.finish()
        });
        keys[6] |= 1;
        Self(keys)
    }

    /// The bucket of an IPv4 flow from a client's address and port.
    #[inline(always)]
    #[must_use]
    pub fn bucket_ipv4(&self, source: Be32, source_port: Be16) -> u16 {
        let [k0, k1, ..] = self.0;
        let address = u64::from(u32::from_le(source.raw()));
        let x = address
            .wrapping_add(k0)
            .wrapping_mul(port(source_port).wrapping_add(k1));
        self.mix(x)
    }

    /// The bucket of an IPv6 flow from a client's address and port.
    #[inline(always)]
    #[must_use]
    pub fn bucket_ipv6(&self, source: Be128, source_port: Be16) -> u16 {
        let [k0, k1, k2, k3, k4, k5, _] = self.0;
        let [w0, w1, w2, w3] = source.to_raw().map(|word| u64::from(u32::from_le(word)));
        let high = w0.wrapping_add(k0).wrapping_mul(w1.wrapping_add(k1));
        let low = w2.wrapping_add(k2).wrapping_mul(w3.wrapping_add(k3));
        let ports = port(source_port).wrapping_mul(k4).wrapping_add(k5);
        self.mix(high.wrapping_add(low).wrapping_add(ports))
    }

    /// The second multiplication, and the upper 16 bits of its upper half.
    #[inline(always)]
    fn mix(&self, x: u64) -> u16 {
        ((x ^ x >> 32).wrapping_mul(self.0[6]) >> 48) as u16
    }
}

/// A port as the hash reads it.
#[inline(always)]
fn port(port: Be16) -> u64 {
    u64::from(u16::from_le(port.raw()))
}

#[cfg(test)]
mod tests;
