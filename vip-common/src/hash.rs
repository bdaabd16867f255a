//! From a flow to its bucket.

use bytemuck::{Pod, Zeroable};

use crate::wire::addr::{Be16, Be32, Be128};

/// A TCP flow to a VIP as the stack of the node that has it names it, the addresses being those of
/// IPv4 ([`Be32`]) or IPv6 ([`Be128`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow<A> {
    /// The client.
    pub source: A,
    /// The VIP.
    pub destination: A,
    /// The client's port.
    pub source_port: Be16,
    /// The service's port on the nodes.
    pub destination_port: Be16,
}

/// SipHash-1-3 of a flow, as far as it is the same for all flows of a service: the state after
/// the blocks that say so and the first half of the next round, into which its block does not
/// go yet. The agent computes it once and the packet path goes on from there. (BPF has no
/// rotation, so that a round is 32 instructions, and the hash half of what a packet costs.)
///
/// The message of IPv4 is destination address, destination port, two zero bytes, source address,
/// source port: 14 bytes, as they lie in the headers. That of IPv6 is destination address, source
/// address, source port, destination port: 36 bytes. A keyed hash, so that nobody outside can
/// choose which server its connections gather on. (J.-P. Aumasson, D. J. Bernstein, "SipHash: a
/// fast short-input PRF", 2012; one round a block and three to finish, as in Rust's own hash
/// tables.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct ServiceHash([u64; 4]);

impl ServiceHash {
    /// For flows to an address, of either family, and port.
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

    /// The hash of the flow from a client's address and port, of IPv4.
    #[inline(always)]
    #[must_use]
    pub fn flow_ipv4(&self, source: Be32, source_port: Be16) -> u64 {
        // The last block ends in the length of the message.
        finish(absorb_rest(self.0, block(source, source_port) | 14 << 56))
    }

    /// The hash of the flow from a client's address and port to the service's port, of IPv6.
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

/// Takes a block in.
#[inline(always)]
fn absorb(state: [u64; 4], block: u64) -> [u64; 4] {
    after(round(before(state, block)), block)
}

/// Takes a block in, the first half of its round being done.
#[inline(always)]
fn absorb_rest(state: [u64; 4], block: u64) -> [u64; 4] {
    after(second_half(before(state, block)), block)
}

/// The three last rounds.
#[inline(always)]
fn finish(mut state: [u64; 4]) -> u64 {
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// An address and a port as a little-endian word of the message.
#[inline(always)]
fn block(address: Be32, port: Be16) -> u64 {
    u64::from(u32::from_le(address.raw())) | u64::from(u16::from_le(port.raw())) << 32
}

/// Takes a block in, before its round.
#[inline(always)]
fn before([a, b, c, d]: [u64; 4], block: u64) -> [u64; 4] {
    [a, b, c, d ^ block]
}

/// Takes a block in, after its round.
#[inline(always)]
fn after([a, b, c, d]: [u64; 4], block: u64) -> [u64; 4] {
    [a ^ block, b, c, d]
}

/// One SipRound.
#[inline(always)]
fn round(state: [u64; 4]) -> [u64; 4] {
    second_half(first_half(state))
}

/// What a SipRound does without looking at its second pair of words.
#[inline(always)]
fn first_half([mut a, mut b, c, d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    [a, b, c, d]
}

/// The rest of it.
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
        fn is_siphash_1_3_of_the_fourteen_bytes(
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
        fn is_siphash_1_3_of_the_thirty_six_bytes(
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
