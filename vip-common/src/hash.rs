//! From a flow to its bucket.

use crate::layout::{Be16, Be32};

/// A TCP flow as its packets name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// The client.
    pub source: Be32,
    /// The VIP.
    pub destination: Be32,
    /// The client's port.
    pub source_port: Be16,
    /// The service's port.
    pub destination_port: Be16,
}

/// SipHash-1-3 of a flow: source, destination, source port, destination port, the twelve bytes
/// as they lie in the headers.
///
/// A keyed hash, so that nobody outside can choose which server his connections gather on.
/// (J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012; one round a
/// block and three to finish, as in Rust's own hash tables.)
#[inline(always)]
#[must_use]
pub fn flow(key: [u64; 2], flow: &Flow) -> u64 {
    let little = |word: u32| u64::from(u32::from_le(word));
    let addresses = little(flow.source.raw()) | little(flow.destination.raw()) << 32;
    let ports = u64::from(u16::from_le(flow.source_port.raw()))
        | u64::from(u16::from_le(flow.destination_port.raw())) << 16;
    // The last block ends in the length of the message.
    let last = ports | 12 << 56;

    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    for block in [addresses, last] {
        state[3] ^= block;
        state = round(state);
        state[0] ^= block;
    }
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// One SipRound.
#[inline(always)]
fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
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
        fn is_siphash_1_3_of_the_twelve_bytes(
            key: [u64; 2], source: [u8; 4], destination: [u8; 4], ports: [u8; 4],
        ) {
            let mut reference = siphasher::sip::SipHasher13::new_with_keys(key[0], key[1]);
            reference.write(&[&source[..], &destination, &ports].concat());
            let ours = flow(key, &Flow {
                source: Be32::from_wire(source),
                destination: Be32::from_wire(destination),
                source_port: Be16::from_wire([ports[0], ports[1]]),
                destination_port: Be16::from_wire([ports[2], ports[3]]),
            });
            prop_assert_eq!(ours, reference.finish());
        }
    }
}
