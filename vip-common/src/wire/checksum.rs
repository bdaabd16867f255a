//! The Internet checksum (RFC 1071), and its incremental update (RFC 1624).

use super::addr::{Be16, Be128};

/// A one's complement sum of 16-bit words. The words are summed as the machine loads them, because
/// the sum does not depend on the byte order (RFC 1071, section 2(B)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds a word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: Be16) -> Self {
        Self(self.0 + word.raw() as u64)
    }

    /// Adds an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, address: Be128) -> Self {
        let [a, b] = address.words();
        let low = 0xffff_ffff;
        Self(self.0 + (a & low) + (a >> 32) + (b & low) + (b >> 32))
    }

    /// Adds eight bytes as they lie in the frame.
    #[inline(always)]
    #[must_use]
    pub const fn eight(self, bytes: [u8; 8]) -> Self {
        let word = u64::from_ne_bytes(bytes);
        Self(self.0 + (word & 0xffff_ffff) + (word >> 32))
    }

    /// Adds the pseudo-header of IPv6 (RFC 8200, section 8.1), or that of IPv4 (RFC 9293, section
    /// 3.1) for mapped addresses: their prefix is a word of ones, which is 0 in this sum. `length`
    /// is that of the upper-layer packet, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn pseudo_header(
        self,
        source: Be128,
        destination: Be128,
        length: u16,
        protocol: u8,
    ) -> Self {
        self.address(source)
            .address(destination)
            .word(Be16::new(length))
            .word(Be16::new(protocol as u16))
    }

    /// The sum, folded to 16 bits.
    #[inline(always)]
    const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The checksum of the message, whose checksum field was 0 in this sum.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> Be16 {
        Be16::from_raw(!self.fold())
    }

    /// Whether the checksum of the message, which this sum includes, is right.
    #[inline(always)]
    #[must_use]
    pub const fn is_right(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum after one word that it covers has changed from `from` to `to` (RFC 1624, equation
/// 3).
#[inline(always)]
#[must_use]
pub const fn adjusted(checksum: Be16, from: Be16, to: Be16) -> Be16 {
    let sum = !checksum.raw() as u32 & 0xffff;
    let sum = sum + (!from.raw() as u32 & 0xffff) + to.raw() as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    Be16::from_raw(!((sum & 0xffff) + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::blocks;

    /// RFC 1071, computed in the simplest way.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum: u32 = bytes
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn sums_are_those_of_rfc_1071(bytes in prop::collection::vec(any::<[u8; 8]>(), 1..7)) {
            let message = bytes.concat();
            let sum = blocks::<_, 7>(&message[..], 0, message.len()).expect("not too long");
            prop_assert_eq!(sum.checksum().get(), slow(&message));
            // With its checksum in place it is right.
            let mut message = message;
            message[0..2].fill(0);
            let sum = slow(&message);
            message[0..2].copy_from_slice(&sum.to_be_bytes());
            let sum = blocks::<_, 7>(&message[..], 0, message.len()).expect("not too long");
            prop_assert!(sum.is_right());
        }

        #[test]
        fn an_incremental_update_equals_a_new_sum(mut message: [u8; 24], to: u16) {
            let before = slow(&message);
            let from = u16::from_be_bytes([message[4], message[5]]);
            message[4..6].copy_from_slice(&to.to_be_bytes());
            let ours = adjusted(Be16::new(before), Be16::new(from), Be16::new(to)).get();
            // One's complement has two zeros; no header with an address sums to the other one.
            prop_assert!(ours == slow(&message) || slow(&message) == 0xffff);
        }
    }

    #[test]
    fn messages_that_are_too_long_or_no_multiple_of_eight_are_refused() {
        let bytes = [0; 64];
        for length in [7, 20, 64] {
            assert!(blocks::<_, 7>(&bytes[..], 0, length).is_none());
        }
        assert!(blocks::<_, 7>(&bytes[..], 16, 56).is_none(), "past the end");
    }
}
