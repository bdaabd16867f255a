//! The flow hash, whose low bits are the bucket.

use bytemuck::{Pod, Zeroable};

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

/// The SipHash-1-3 state that all flows of a service share.
///
/// The message begins with the fields that are the same for all these flows. The agent hashes them
/// once for each service; the programs continue from this state with the client's fields. The state
/// includes the first half of the next round, which does not depend on its block. This saves time:
/// BPF has no rotate instruction, so a round takes 32 instructions, and the hash is half the cost
/// of a packet.
///
/// The messages, in network byte order:
///
/// - IPv4, 14 bytes: destination address, destination port, two zero bytes, source address, source
///   port.
/// - IPv6, 36 bytes: destination address, source address, source port, destination port.
///
/// The hash has a key, so that a client cannot choose the server for its connections. SipHash:
/// J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012. The variant 1-3 has
/// one round for each block and three at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct ServiceHash([u64; 4]);

impl ServiceHash {
    /// The state for flows to an address, of either family, and a port. `key` is `k0`, `k1`.
    #[must_use]
    pub fn new(key: [u64; 2], address: Be128, port: Be16) -> Self {
        let state = [
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ];
        let state = match address.ipv4() {
            Some(address) => absorb(state, block(address, port)),
            None => address
                .words()
                .into_iter()
                .fold(state, |state, word| absorb(state, u64::from_le(word))),
        };
        Self(first_half(state))
    }

    /// The hash of an IPv4 flow from a client's address and port.
    #[inline(always)]
    #[must_use]
    pub fn flow_ipv4(&self, source: Be32, source_port: Be16) -> u64 {
        // The highest byte of the last block is the length of the message.
        finish(absorb_rest(self.0, block(source, source_port) | 14 << 56))
    }

    /// The hash of an IPv6 flow from a client's address and port to the service's port.
    #[inline(always)]
    #[must_use]
    pub fn flow_ipv6(&self, source: Be128, source_port: Be16, port: Be16) -> u64 {
        let [high, low] = source.words();
        let state = absorb_rest(self.0, u64::from_le(high));
        let state = absorb(state, u64::from_le(low));
        let ports =
            u64::from(u16::from_le(source_port.raw())) | u64::from(u16::from_le(port.raw())) << 16;
        finish(absorb(state, ports | 36 << 56))
    }
}

/// Hashes a block.
#[inline(always)]
fn absorb(state: [u64; 4], block: u64) -> [u64; 4] {
    after(round(before(state, block)), block)
}

/// Hashes a block; the first half of its round is done already.
#[inline(always)]
fn absorb_rest(state: [u64; 4], block: u64) -> [u64; 4] {
    after(second_half(before(state, block)), block)
}

/// Does the last three rounds, and returns the hash.
#[inline(always)]
fn finish(mut state: [u64; 4]) -> u64 {
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// The block of an IPv4 address and a port: eight bytes of the message, little-endian.
#[inline(always)]
fn block(address: Be32, port: Be16) -> u64 {
    u64::from(u32::from_le(address.raw())) | u64::from(u16::from_le(port.raw())) << 32
}

/// Adds a block before its round.
#[inline(always)]
fn before([a, b, c, d]: [u64; 4], block: u64) -> [u64; 4] {
    [a, b, c, d ^ block]
}

/// Adds a block after its round.
#[inline(always)]
fn after([a, b, c, d]: [u64; 4], block: u64) -> [u64; 4] {
    [a ^ block, b, c, d]
}

/// One SipRound.
#[inline(always)]
fn round(state: [u64; 4]) -> [u64; 4] {
    second_half(first_half(state))
}

/// The first half of a SipRound: it reads only the first pair of words.
#[inline(always)]
fn first_half([mut a, mut b, c, d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    [a, b, c, d]
}

/// The second half of a SipRound.
#[inline(always)]
fn second_half([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_hash_of_an_ipv4_flow_is_siphash_1_3_of_14_bytes(
            key: [u64; 2], source: [u8; 4], destination: [u8; 4], ports: [u8; 4],
        ) {
            let mut reference = siphasher::sip::SipHasher13::new_with_keys(key[0], key[1]);
            reference.write(&[&destination[..], &ports[2..], &[0, 0], &source, &ports[..2]].concat());
            let [a, b, c, d] = ports;
            let port = Be16::from_wire([c, d]);
            let service = ServiceHash::new(key, Be32::from_wire(destination).into(), port);
            let ours = service.flow_ipv4(Be32::from_wire(source), Be16::from_wire([a, b]));
            prop_assert_eq!(ours, reference.finish());
        }

        #[test]
        fn the_hash_of_an_ipv6_flow_is_siphash_1_3_of_36_bytes(
            key: [u64; 2], source: [u8; 16], destination: [u8; 16], ports: [u8; 4],
        ) {
            let mut reference = siphasher::sip::SipHasher13::new_with_keys(key[0], key[1]);
            reference.write(&[&destination[..], &source, &ports].concat());
            let [a, b, c, d] = ports;
            let port = Be16::from_wire([c, d]);
            let service = ServiceHash::new(key, Be128::from_wire(destination), port);
            let source = Be128::from_wire(source);
            let ours = service.flow_ipv6(source, Be16::from_wire([a, b]), port);
            prop_assert_eq!(ours, reference.finish());
        }
    }
}
