//! Rank tables: which backend comes first in a bucket, which second, and so on.
//!
//! This is weighted rendezvous hashing. Each backend has a score in each bucket, and the order
//! is that of the scores. A score depends on the cluster's key, the bucket and this one
//! backend's address and weight, so the order of two backends in a bucket never depends on a
//! third: one that comes or goes moves nothing but itself.
//!
//! # Scores
//! With independent random scores, shares of 65,536 buckets scatter by 1 % (7 backends) to
//! 1.5 % (16), and the worst share of a table is off by two to three times that. So scores are
//! not independent. For backends in the same /24 (/120 of IPv6, and so below) they form a
//! *digital net*:
//!
//! 1. The bucket's number is permuted, by a Feistel network keyed with the cluster's key and
//!    the /24, and read as two elements `u`, `v` of GF(256).
//! 2. The address' last byte `a` picks four linear forms over GF(16) of (`u`, `v`), the digits
//!    of a 16-bit number. The first forms of all addresses are an ovoid of PG(3, 16): any three
//!    are independent. The first two span a line of a regular spread: the lines of any two
//!    addresses are independent. The first three span the tangent plane at the ovoid's point:
//!    those of any other address' first form are independent of it. So any three backends of a
//!    /24 meet each combination of the first 4 bits of their scores equally often, any two each
//!    one of their first 8 bits, and each one has each of the 65,536 scores exactly once.
//!    (J. W. P. Hirschfeld, "Finite Projective Spaces of Three Dimensions", 1985, chapters 16
//!    and 17; H. Niederreiter, "Point sets and sequences with small discrepancy", 1987.)
//! 3. The number's bits are scrambled, each by a coin that depends on the address and on the
//!    bits above it (A. B. Owen, "Randomly permuted (t,m,s)-nets", 1995). This keeps all of
//!    the above and takes the regularity out of the rest.
//!
//! Backends of different /24 are as good as independent, but for the last property. There are
//! more addresses than vectors that could all be orthogonal, so some must be.
//!
//! [`worst_share`] says how even a table is. Over 1,000 random clusters with random keys, with
//! all backends in use and with each one out in turn, the worst share of 65,536 buckets was off
//! by (median, worst):
//!
//! | backends | 3 | 5 | 7 | 16 |
//! |---|---|---|---|---|
//! | of one /24 | 0.08, 0.67 % | 0.32, 1.89 % | 0.64, 1.49 % | 1.58, 2.95 % |
//! | of anywhere | 0.42, 1.51 % | 0.93, 2.24 % | 1.32, 2.60 % | 2.56, 4.92 % |
//!
//! So in one /24, 2 % held in all of them up to 7 backends, and not in 9 of 100 with 16. Of
//! clusters from anywhere, 4 in 100 with 7 backends and 93 in 100 with 16 are off by more.
//! `cargo xtask bench ranks` measures it again.
//!
//! # The same on every machine
//! All arithmetic is on integers of fixed size, logarithms included: `f64::ln` may differ in
//! its last bit from one C library to another, and one such bit can be one bucket with another
//! order on one of the nodes. A test compares digests of some tables.

use std::array;
use std::cmp::Reverse;
use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;
use thiserror::Error;
use vip_common::abi::{BUCKETS, BackendIndex, MAX_BACKENDS, RankRow};

use crate::slots::Slots;

/// The properties of a backend that its ranks depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node's own address.
    pub address: IpAddr,
    /// Its share of first ranks, relative to those of the others; at least 1.
    pub weight: u16,
}

/// Why there is no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RankError {
    /// More than fit into a row.
    #[error("{0} backends: at most {MAX_BACKENDS} are possible; leave some out")]
    Backends(usize),
    /// The same address twice.
    #[error("backend {0} is listed twice; list it once and raise its weight")]
    Duplicate(IpAddr),
    /// A weight of zero.
    #[error("backend {0} has weight 0; give it 1 or more, or leave it out")]
    Weight(IpAddr),
}

/// Computes the table: one row for each bucket, with indices into `backends`.
///
/// # Errors
/// Too many backends, two of them with one address, or one with a weight of zero.
pub fn table(key: [u64; 2], backends: &[Identity]) -> Result<Vec<RankRow>, RankError> {
    beginning(key, backends, BUCKETS)
}

/// The same with the members' slots in place of indices. Another node may have the same members in
/// other slots; the order of members is the same.
///
/// # Errors
/// As [`table`].
pub fn table_of_slots(key: [u64; 2], members: &Slots<Identity>) -> Result<Vec<RankRow>, RankError> {
    let identities: Vec<Identity> = members.values().copied().collect();
    let slots: Vec<BackendIndex> = members.mask().iter().collect();
    let mut rows = table(key, &identities)?;
    for row in &mut rows {
        let order = row.order(slots.len());
        *row = RankRow::new(order.map(|place| slots[place.get()]));
    }
    Ok(rows)
}

/// Computes the first rows of the table.
fn beginning(key: [u64; 2], backends: &[Identity], rows: usize) -> Result<Vec<RankRow>, RankError> {
    if backends.len() > MAX_BACKENDS {
        return Err(RankError::Backends(backends.len()));
    }
    for (place, backend) in backends.iter().enumerate() {
        if backend.weight == 0 {
            return Err(RankError::Weight(backend.address));
        }
        if backends[..place]
            .iter()
            .any(|b| b.address == backend.address)
        {
            return Err(RankError::Duplicate(backend.address));
        }
    }

    let weighted = backends.iter().any(|b| b.weight != backends[0].weight);
    let scores: Vec<Vec<u64>> = backends
        .iter()
        .map(|backend| scores(key, backend.address, rows))
        .collect();
    Ok((0..rows)
        .map(|bucket| row(backends, &scores, bucket, weighted))
        .collect())
}

/// The key if none is configured: SipHash-1-3 of the VIP's bytes under two fixed keys. It is not
/// secret. It is the same on every node of a cluster, and another one in each other cluster.
#[must_use]
pub fn default_key(vip: IpAddr) -> [u64; 2] {
    [0, 1].map(|half| {
        let mut hash = SipHasher13::new_with_keys(0x7669_7020_6b65_7920, half);
        hash.write(&octets(vip));
        hash.finish()
    })
}

/// How uneven a table is: the largest distance of a backend's share of first ranks from what
/// its weight says, as a fraction of that (0.02 is 2 %), with all backends in use and with each
/// one in turn left out.
#[must_use]
pub fn worst_share(backends: &[Identity], rows: &[RankRow]) -> f64 {
    let mut first = [0_u32; MAX_BACKENDS];
    let mut second = [[0_u32; MAX_BACKENDS]; MAX_BACKENDS];
    for row in rows {
        let mut order = row.order(backends.len()).map(BackendIndex::get);
        if let Some(one) = order.next() {
            first[one] += 1;
            if let Some(two) = order.next() {
                second[one][two] += 1;
            }
        }
    }
    let places = 0..backends.len();
    let mut worst = 0_f64;
    for out in places.clone().map(Some).chain([None]) {
        let in_use = || places.clone().filter(|&place| Some(place) != out);
        let total: f64 = in_use().map(|p| f64::from(backends[p].weight)).sum();
        for place in in_use() {
            let got = first[place] + out.map_or(0, |out| second[out][place]);
            let share = f64::from(got) / rows.len() as f64;
            let wanted = f64::from(backends[place].weight) / total;
            worst = worst.max((share / wanted - 1.0).abs());
        }
    }
    worst
}

/// One bucket's order: by distance, the shortest first.
fn row(backends: &[Identity], scores: &[Vec<u64>], bucket: usize, weighted: bool) -> RankRow {
    // Equal distances are told apart by score, and no two scores are equal.
    let mut order = [(0, Reverse(0), 0); MAX_BACKENDS];
    let order = &mut order[..backends.len()];
    for (place, backend) in backends.iter().enumerate() {
        let score = scores[place][bucket];
        // Equal weights put distances in the order of scores, which is known already.
        let distance = if weighted {
            distance(score, backend.weight)
        } else {
            0
        };
        order[place] = (distance, Reverse(score), place);
    }
    order.sort_unstable();
    RankRow::new(
        order
            .iter()
            .filter_map(|&(_, _, place)| BackendIndex::new(place)),
    )
}

/// `-log2(u) / weight` in units of 2^-48, `u` being the upper half of the score as a fraction
/// of 2^32: exponentially distributed with a mean that is the inverse of the weight, so the
/// backend is the nearest one with a probability in proportion to its weight.
///
/// It never grows when the score does, whatever is rounded.
fn distance(score: u64, weight: u16) -> u64 {
    /// Binary digits of the logarithm behind the point.
    const DIGITS: u32 = 24;
    // Half a unit up, so that u is never 0.
    let u = (score >> 32 << 1) | 1;
    let magnitude = u.ilog2();
    // u / 2^magnitude, in [1, 2), in units of 2^-31. A square carries one digit of its
    // logarithm into the place before the point.
    let mut x = if magnitude > 31 {
        u >> (magnitude - 31)
    } else {
        u << (31 - magnitude)
    };
    let mut log2 = u64::from(magnitude);
    for _ in 0..DIGITS {
        x = (x * x) >> 31;
        let digit = x >> 32;
        x >>= digit;
        log2 = log2 << 1 | digit;
    }
    (((33 << DIGITS) - log2) << (48 - DIGITS)) / u64::from(weight)
}

/// The use of a stream, as the first byte of its SipHash input.
#[derive(Clone, Copy)]
enum Purpose {
    Permute = 1,
    Scramble = 2,
    Fraction = 3,
}

/// A stream of random words: SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable
/// pseudorandom number generators", 2014), which starts at a SipHash of what it is for.
struct Stream(u64);

impl Stream {
    fn new(key: [u64; 2], purpose: Purpose, address: &[u8]) -> Self {
        let mut hash = SipHasher13::new_with_keys(key[0], key[1]);
        hash.write(&[purpose as u8]);
        hash.write(address);
        Self(hash.finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// One backend's scores in the first buckets. The higher, the nearer.
///
/// 16 bits of the net, 16 of a hash, and the end of the address, so that no two backends of a
/// subnet have the same.
fn scores(key: [u64; 2], address: IpAddr, buckets: usize) -> Vec<u64> {
    let address = octets(address);
    // No address is empty.
    let (last, subnet) = address.split_last().unwrap_or((&0, &[]));
    let permute = permutation(Stream::new(key, Purpose::Permute, subnet));
    let scramble = scrambling(Stream::new(key, Purpose::Scramble, &address));
    let mut fraction = Stream::new(key, Purpose::Fraction, &address);
    let low = address
        .iter()
        .fold(0_u32, |low, byte| low << 8 | u32::from(*byte));
    // The forms are linear: a sum of what they make of each byte.
    let net = net(*last);
    let of_u: [u16; 256] = array::from_fn(|u| net(u as u8, 0));
    let of_v: [u16; 256] = array::from_fn(|v| net(0, v as u8));
    (0..buckets)
        .map(|bucket| {
            let [u, v] = permute(bucket as u16);
            let place = of_u[usize::from(u)] ^ of_v[usize::from(v)];
            u64::from(scramble[usize::from(place)]) << 48
                | fraction.next() >> 48 << 32
                | u64::from(low)
        })
        .collect()
}

/// The bytes of an address.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A permutation of the 16-bit numbers: a Feistel network of four rounds.
fn permutation(mut stream: Stream) -> impl Fn(u16) -> [u8; 2] {
    let rounds: [[u8; 256]; 4] = array::from_fn(|_| array::from_fn(|_| stream.next() as u8));
    move |number| {
        let [left, right] = number.to_be_bytes();
        rounds.iter().fold([left, right], |[left, right], round| {
            [right, left ^ round[usize::from(right)]]
        })
    }
}

/// Owen's scrambling of the 16-bit numbers in base 16, as a table: each digit is permuted, and
/// the permutation belongs to the digits above it.
///
/// Not in base 2: the four bits of a digit would stay linear, and the few sets of four backends
/// whose first digits are dependent would be uneven by far more than chance.
fn scrambling(mut stream: Stream) -> Vec<u16> {
    let mut table = vec![0];
    for _ in 0..4 {
        table = table
            .into_iter()
            .flat_map(|above: u16| {
                let mut digits: [u16; 16] = array::from_fn(|digit| digit as u16);
                for end in (1..16_usize).rev() {
                    // Multiply and shift: as even as 32 bits for a number below 16 can be.
                    let other = ((stream.next() >> 32) * (end as u64 + 1)) >> 32;
                    digits.swap(end, other as usize);
                }
                digits.map(|digit| above << 4 | digit)
            })
            .collect();
    }
    table
}

/// The coordinate that belongs to the address' last byte `a`: the digits of a point (`u`, `v`).
///
/// A form over GF(16) is the trace of `x * u + y * v`, and its vector is (`x`, `y`). The spread
/// is that of the lines of all (`m * a`, `m`). They are totally isotropic for the trace of
/// `x * y' + x' * y`. The ovoid's quadric is the trace of `x * y + x^2 + BETA * y^2`; on a line
/// that is the trace of `m^2 * (a^2 + a + BETA)`, which is 0 for one `m` but for its multiples
/// by GF(16), since only the elements of GF(16) have no trace. The tangent plane is what is
/// orthogonal to the point.
fn net(a: u8) -> impl Fn(u8, u8) -> u16 {
    let m = power(multiply(a, a) ^ a ^ BETA, 127);
    let inverse = power(m, 254);
    let digits = |z| u16::from(trace(z)) << 4 | u16::from(trace(multiply(GAMMA, z)));
    move |u, v| {
        let line = multiply(m, multiply(a, u) ^ v);
        let rest = multiply(inverse, u);
        digits(line) << 8 | digits(rest)
    }
}

/// Makes `a^2 + a + BETA` have no root in GF(256).
const BETA: u8 = 0x20;

/// Any element outside of GF(16): with 1, a basis of GF(256) over it.
const GAMMA: u8 = 0x02;

/// Product in GF(256), modulo x^8 + x^4 + x^3 + x + 1.
fn multiply(a: u8, b: u8) -> u8 {
    (0..8).rev().fold(0, |product: u8, bit| {
        let carry = if product & 0x80 != 0 { 0x1b } else { 0 };
        product << 1 ^ carry ^ if b >> bit & 1 != 0 { a } else { 0 }
    })
}

/// Power in GF(256).
fn power(a: u8, exponent: u8) -> u8 {
    (0..8).rev().fold(1, |power, bit| {
        let square = multiply(power, power);
        if exponent >> bit & 1 != 0 {
            multiply(square, a)
        } else {
            square
        }
    })
}

/// Trace from GF(256) to GF(16), as the four of its bits that tell the elements of GF(16) apart.
fn trace(z: u8) -> u8 {
    let trace = z ^ power(z, 16);
    trace >> 4 & 0b1100 | trace >> 1 & 0b10 | trace & 1
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    const DIGEST: u64 = 0xa9ab_febb_628c_f481;
    const DIGEST_WEIGHTED: u64 = 0x8c02_5cad_09b8_3168;
    const DEFAULT_KEY: [u64; 2] = [0xb524_011e_1777_4ca4, 0xd05d_4ebb_a2cd_af77];

    fn equal(addresses: impl IntoIterator<Item = u32>) -> Vec<Identity> {
        let address = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
        let identity = |bits| Identity {
            address: address(bits),
            weight: 1,
        };
        addresses.into_iter().map(identity).collect()
    }

    /// That many different addresses, whose bits under the mask are random.
    fn anywhere(random: &mut Stream, mask: u32, count: usize) -> Vec<Identity> {
        let base = random.next() as u32 & !mask;
        let mut found: Vec<u32> = vec![];
        while found.len() < count {
            let bits = base | random.next() as u32 & mask;
            if !found.contains(&bits) {
                found.push(bits);
            }
        }
        equal(found)
    }

    /// The 16 linear forms of each last byte, most significant digit first.
    fn forms() -> &'static [[u16; 16]; 256] {
        static FORMS: LazyLock<[[u16; 16]; 256]> = LazyLock::new(|| {
            array::from_fn(|last| {
                let columns: [u16; 16] = array::from_fn(|input| {
                    let [u, v] = (1_u16 << input).to_be_bytes();
                    net(last as u8)(u, v)
                });
                array::from_fn(|bit| {
                    let bits = columns.iter().enumerate();
                    bits.fold(0, |form, (input, column)| {
                        form | (column >> (15 - bit) & 1) << input
                    })
                })
            })
        });
        &FORMS
    }

    /// Rank of the forms that make up the first bits of some backends: (last byte, bits).
    fn rank_of(parts: &[(u8, usize)]) -> usize {
        // Vectors by their highest bit.
        let mut basis = [0_u16; 16];
        for &(last, bits) in parts {
            for &form in &forms()[usize::from(last)][..bits] {
                let mut rest = form;
                while rest != 0 {
                    let vector = &mut basis[rest.ilog2() as usize];
                    if *vector == 0 {
                        *vector = rest;
                        break;
                    }
                    rest ^= *vector;
                }
            }
        }
        basis.iter().filter(|&&vector| vector != 0).count()
    }

    #[test]
    fn any_two_of_a_24_are_independent_in_all_16_bits_they_share() {
        for a in 0..=255 {
            assert_eq!(rank_of(&[(a, 16)]), 16);
            for b in 0..a {
                for (of_a, of_b) in [(8, 8), (12, 4), (4, 12)] {
                    assert_eq!(rank_of(&[(a, of_a), (b, of_b)]), 16, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn quadric_has_no_line() {
        for a in 0..=255 {
            assert_ne!(multiply(a, a) ^ a ^ BETA, 0);
        }
        // GAMMA is not in GF(16).
        assert_ne!(power(GAMMA, 16), GAMMA);
    }

    #[test]
    fn shares_are_within_2_percent_of_equal_up_to_7_backends_of_a_24() {
        let mut random = Stream(1);
        for count in [3, 5, 7] {
            for _ in 0..8 {
                let key = [random.next(), random.next()];
                let backends = anywhere(&mut random, 0xff, count);
                let rows = table(key, &backends).unwrap();
                let worst = worst_share(&backends, &rows);
                assert!(worst < 0.02, "{worst} {key:x?} {backends:?}");
            }
        }
    }

    #[test]
    fn shares_of_16_backends_of_a_24_are_within_3_percent() {
        let mut random = Stream(2);
        for _ in 0..8 {
            let key = [random.next(), random.next()];
            let backends = anywhere(&mut random, 0xff, 16);
            let rows = table(key, &backends).unwrap();
            let worst = worst_share(&backends, &rows);
            assert!(worst < 0.03, "{worst} {key:x?} {backends:?}");
        }
    }

    #[test]
    fn first_ranks_are_in_proportion_to_weights() {
        let mut backends = equal([0x0a00_000b, 0x0a00_000c, 0x0a00_000d]);
        backends[1].weight = 2;
        backends[2].weight = 5;
        let rows = table(KEY, &backends).unwrap();
        let worst = worst_share(&backends, &rows);
        assert!(worst < 0.02, "{worst}");
        // Only their proportion matters.
        for backend in &mut backends {
            backend.weight *= 1000;
        }
        let same = table(KEY, &backends).unwrap();
        let differ = rows.iter().zip(&same).filter(|(a, b)| a != b).count();
        assert!(differ < 4, "{differ}");
    }

    fn row<const N: usize>(order: [usize; N]) -> RankRow {
        RankRow::new(order.map(|place| BackendIndex::new(place).unwrap()))
    }

    #[test]
    fn worst_share_sees_what_is_uneven() {
        let backends = equal([1, 2]);
        assert_eq!(worst_share(&backends, &[row([0, 1]), row([1, 0])]), 0.0);
        let rows = [row([0, 1]), row([0, 1]), row([0, 1]), row([1, 0])];
        assert_eq!(worst_share(&backends, &rows), 0.5);
        // Even at first, and not when the third is out.
        let backends = equal([1, 2, 3]);
        let rows = [row([0, 2, 1]), row([1, 2, 0]), row([2, 0, 1])];
        let worst = worst_share(&backends, &rows);
        assert!((worst - 1.0 / 3.0).abs() < 1e-9, "{worst}");
    }

    #[test]
    fn slots_change_nothing_but_names() {
        let backends = equal([0x0a00_000b, 0x0a00_000c, 0x0a00_000d]);
        let slots = [7, 0, 15].map(|slot| BackendIndex::new(slot).unwrap());
        // By their slots, the second backend is the first member.
        let members = slots.into_iter().zip(backends.iter().copied()).collect();
        let rows = table(KEY, &backends).unwrap();
        let found = table_of_slots(KEY, &members).unwrap();
        for (row, found) in rows.iter().zip(found) {
            let named: Vec<_> = row.order(3).map(|place| slots[place.get()]).collect();
            assert!(found.order(3).eq(named));
        }
    }

    /// A digest of a table, by which machines can be compared.
    fn digest(rows: &[RankRow], backends: usize) -> u64 {
        let mut hash = SipHasher13::new_with_keys(0, 0);
        for row in rows {
            let mut bytes = [0xff; MAX_BACKENDS];
            for (byte, backend) in bytes.iter_mut().zip(row.order(backends)) {
                *byte = backend.get() as u8;
            }
            hash.write(&bytes);
        }
        hash.finish()
    }

    #[test]
    fn tables_are_these_on_every_machine() {
        let backends = equal([0x0a00_000b, 0x0a00_000c, 0x0a00_000d, 0xc0a8_0101]);
        let digest_of =
            |backends: &[Identity]| digest(&table(KEY, backends).unwrap(), backends.len());
        assert_eq!(digest_of(&backends), DIGEST);
        let mut weighted = backends;
        weighted[1].weight = 3;
        assert_eq!(digest_of(&weighted), DIGEST_WEIGHTED);
        assert_eq!(default_key(IpAddr::from([10, 0, 0, 10])), DEFAULT_KEY);
    }

    #[test]
    fn keys_are_clusters_own() {
        let backends = equal([1, 2, 3]);
        let of = |key| beginning(key, &backends, 64).unwrap();
        assert_ne!(of(KEY), of([KEY[0] ^ 1, KEY[1]]));
        assert_ne!(of(KEY), of([KEY[0], KEY[1] ^ 1]));
        let key = default_key(IpAddr::from([10, 0, 0, 10]));
        assert_ne!(key, default_key(IpAddr::from([10, 0, 0, 11])));
        assert_ne!(key[0], key[1]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let two = equal([0x0a00_000b, 0x0a00_000c]);
        let many = equal(1..=17);
        assert_eq!(table(KEY, &many), Err(RankError::Backends(17)));
        let twice = equal([0x0a00_000b, 0x0a00_000b]);
        let address = IpAddr::from([10, 0, 0, 11]);
        assert_eq!(table(KEY, &twice), Err(RankError::Duplicate(address)));
        let mut none = two;
        none[0].weight = 0;
        assert_eq!(table(KEY, &none), Err(RankError::Weight(address)));
        let empty = beginning(KEY, &[], 16).unwrap();
        assert_eq!(empty, [row([]); 16]);
    }

    prop_compose! {
        fn any_backends()(
            backends in prop::collection::btree_map(
                // Neighbours, most of the time.
                prop_oneof![0x0a00_0000_u32..0x0a00_0200, any::<u32>()],
                prop_oneof![Just(1_u16), 1_u16..],
                1..=MAX_BACKENDS,
            ),
        ) -> Vec<Identity> {
            let address = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
            let backends = backends.into_iter();
            backends.map(|(bits, weight)| Identity { address: address(bits), weight }).collect()
        }
    }

    proptest! {
        #[test]
        fn first_bits_of_any_three_of_a_24_are_independent(a: u8, b: u8, c: u8) {
            prop_assume!(a != b && b != c && a != c);
            prop_assert_eq!(rank_of(&[(a, 4), (b, 4), (c, 4)]), 12);
        }

        #[test]
        fn distance_is_the_logarithm_and_never_grows_with_the_score(a: u64, b: u64, weight in 1_u16..) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(distance(low, weight) >= distance(high, weight));
            let u = ((low >> 32) as f64 + 0.5) / 2_f64.powi(32);
            let wanted = -u.log2() / f64::from(weight);
            let got = distance(low, weight) as f64 / 2_f64.powi(48);
            prop_assert!((got - wanted).abs() < 1e-6, "{} {}", got, wanted);
        }
    }

    proptest! {
        // Each of them makes whole tables.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn row_holds_every_backend_once(backends in any_backends(), key: [u64; 2]) {
            for row in beginning(key, &backends, 256).unwrap() {
                let mut order: Vec<_> = row.order(backends.len()).map(BackendIndex::get).collect();
                order.sort_unstable();
                prop_assert!(order.iter().copied().eq(0..backends.len()));
            }
        }

        #[test]
        fn order_of_the_others_stays_when_backends_go_and_the_list_is_shuffled(
            backends in any_backends(), key: [u64; 2],
            (stay, order) in (any::<u16>(), Just((0..MAX_BACKENDS).collect::<Vec<_>>()).prop_shuffle()),
        ) {
            let some: Vec<Identity> = order
                .iter()
                .filter(|&&place| stay >> place & 1 != 0)
                .filter_map(|&place| backends.get(place).copied())
                .collect();
            let named = |backends: &[Identity], row: &RankRow| -> Vec<IpAddr> {
                let order = row.order(backends.len());
                order.map(|backend| backends[backend.get()].address).collect()
            };
            let all_rows = beginning(key, &backends, 256).unwrap();
            let some_rows = beginning(key, &some, 256).unwrap();
            for (all, fewer) in all_rows.iter().zip(&some_rows) {
                let fewer = named(&some, fewer);
                let mut left = named(&backends, all);
                left.retain(|address| some.iter().any(|b| b.address == *address));
                prop_assert_eq!(left, fewer);
            }
        }

        #[test]
        fn scores_of_a_backend_are_spread_evenly(address: u32, key: [u64; 2]) {
            let scores = scores(key, Ipv4Addr::from_bits(address).into(), BUCKETS);
            let mut seen: Vec<u64> = scores.iter().map(|score| score >> 48).collect();
            seen.sort_unstable();
            prop_assert!(seen.iter().copied().eq(0..65_536));
        }
    }

    #[test]
    fn addresses_of_ipv6_are_as_even_as_those_of_ipv4() {
        let ipv6: Vec<Identity> = (0x11..0x16)
            .map(|last| Identity {
                address: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]),
                weight: 1,
            })
            .collect();
        let rows = table(KEY, &ipv6).unwrap();
        assert!(worst_share(&ipv6, &rows) < 0.02);
    }
}
