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
//! not independent. For backends in the same /24 they form a *digital net*:
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
//! [`worst_share`] says how even a table is. How even tables are in general, is measured by
//! `cargo test -p vip-userspace --release rank -- --ignored --nocapture`.
//!
//! # The same on every machine
//! All arithmetic is on integers of fixed size, logarithms included: `f64::ln` may differ in
//! its last bit from one C library to another, and one such bit is one bucket of which two
//! nodes think differently. A test holds the digest of some tables fast.

use std::array;
use std::cmp::Reverse;
use std::hash::Hasher as _;
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;
use thiserror::Error;
use vip_common::layout::{MAX_BACKENDS, NO_RANK, RankRow};

/// Fewest buckets a table can have.
pub const MIN_BUCKETS: u32 = 16;

/// Most buckets a table can have.
pub const MAX_BUCKETS: u32 = 1 << 20;

/// A backend as far as ranks go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node's own address.
    pub address: Ipv4Addr,
    /// Its share, relative to those of the others; at least 1.
    pub weight: u16,
}

/// Why there is no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RankError {
    /// Not a power of two, or out of range.
    #[error(
        "{0} buckets: must be a power of two from {MIN_BUCKETS} to {MAX_BUCKETS}; 65536 is a good number"
    )]
    Buckets(u32),
    /// More than a row has places.
    #[error("{0} backends: at most {MAX_BACKENDS} are possible; leave some out")]
    Backends(usize),
    /// The same address twice.
    #[error("backend {0} is listed twice; list it once and raise its weight")]
    Duplicate(Ipv4Addr),
    /// A weight of zero.
    #[error("backend {0} has weight 0; give it 1 or more, or leave it out")]
    Weight(Ipv4Addr),
}

/// The table: one row a bucket, filled with places in `backends`.
///
/// # Errors
/// A number of buckets or backends that is out of range, two backends with one address, or a
/// weight of zero.
pub fn table(
    key: [u64; 2],
    backends: &[Identity],
    buckets: u32,
) -> Result<Vec<RankRow>, RankError> {
    if !buckets.is_power_of_two() || !(MIN_BUCKETS..=MAX_BUCKETS).contains(&buckets) {
        return Err(RankError::Buckets(buckets));
    }
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
    let mut rows = Vec::with_capacity(buckets as usize);
    for block in 0..buckets.div_ceil(BLOCK) {
        let scores: Vec<Vec<u64>> = backends
            .iter()
            .map(|backend| scores(key, block, backend.address, buckets.min(BLOCK)))
            .collect();
        for bucket in 0..buckets.min(BLOCK) as usize {
            rows.push(row(backends, &scores, bucket, weighted));
        }
    }
    Ok(rows)
}

/// The key when none is configured: SipHash-1-3 of the VIP's bytes under two fixed keys. Not a
/// secret, but the same on every node of a cluster and another one in the next.
#[must_use]
pub fn default_key(vip: Ipv4Addr) -> [u64; 2] {
    [0, 1].map(|half| {
        let mut hash = SipHasher13::new_with_keys(0x7669_7020_6b65_7920, half);
        hash.write(&vip.octets());
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
    for RankRow(row) in rows {
        if row[0] != NO_RANK {
            first[usize::from(row[0])] += 1;
        }
        if row[1] != NO_RANK {
            second[usize::from(row[0])][usize::from(row[1])] += 1;
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

/// Buckets of one net. A larger table is made of several, a smaller one is a sample of one.
const BLOCK: u32 = 1 << 16;

/// One bucket's order: by distance, the shortest first.
fn row(backends: &[Identity], scores: &[Vec<u64>], bucket: usize, weighted: bool) -> RankRow {
    // Equal distances are told apart by score, and no two scores are equal.
    let mut order = [(0, Reverse(0), NO_RANK); MAX_BACKENDS];
    for (place, backend) in backends.iter().enumerate() {
        let score = scores[place][bucket];
        // Equal weights put distances in the order of scores, which is known already.
        let distance = if weighted {
            distance(score, backend.weight)
        } else {
            0
        };
        order[place] = (distance, Reverse(score), place as u8);
    }
    order[..backends.len()].sort_unstable();
    RankRow(order.map(|(_, _, place)| place))
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

/// What the bytes fed to SipHash are for.
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
    fn new(key: [u64; 2], purpose: Purpose, block: u32, address: &[u8]) -> Self {
        let mut hash = SipHasher13::new_with_keys(key[0], key[1]);
        hash.write(&[purpose as u8]);
        hash.write(&block.to_le_bytes());
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

/// One backend's scores in the buckets of a block. The higher, the nearer.
///
/// 16 bits of the net, 16 of a hash, and the address, so that no two backends have the same.
fn scores(key: [u64; 2], block: u32, address: Ipv4Addr, buckets: u32) -> Vec<u64> {
    let [a, b, c, last] = address.octets();
    let permute = permutation(Stream::new(key, Purpose::Permute, block, &[a, b, c]));
    let scramble = scrambling(Stream::new(
        key,
        Purpose::Scramble,
        block,
        &address.octets(),
    ));
    let mut fraction = Stream::new(key, Purpose::Fraction, block, &address.octets());
    // The forms are linear: a sum of what they make of each byte.
    let of_u: [u16; 256] = array::from_fn(|u| net(last, u as u8, 0));
    let of_v: [u16; 256] = array::from_fn(|v| net(last, 0, v as u8));
    (0..buckets)
        .map(|bucket| {
            let [u, v] = permute(bucket as u16);
            let place = of_u[usize::from(u)] ^ of_v[usize::from(v)];
            u64::from(scramble[usize::from(place)]) << 48
                | fraction.next() >> 48 << 32
                | u64::from(address.to_bits())
        })
        .collect()
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
                    let other = (stream.next() >> 32) * (end as u64 + 1) >> 32;
                    digits.swap(end, other as usize);
                }
                digits.map(|digit| above << 4 | digit)
            })
            .collect();
    }
    table
}

/// The digits of the net's point (`u`, `v`) in the coordinate that belongs to the address' last
/// byte `a`.
///
/// A form over GF(16) is the trace of `x * u + y * v`, and its vector is (`x`, `y`). The spread
/// is that of the lines of all (`m * a`, `m`). They are totally isotropic for the trace of
/// `x * y' + x' * y`. The ovoid's quadric is the trace of `x * y + x^2 + BETA * y^2`; on a line
/// that is the trace of `m^2 * (a^2 + a + BETA)`, which is 0 for one `m` but for its multiples
/// by GF(16), since only the elements of GF(16) have no trace. The tangent plane is what is
/// orthogonal to the point.
fn net(a: u8, u: u8, v: u8) -> u16 {
    let m = power(multiply(a, a) ^ a ^ BETA, 127);
    let line = multiply(m, multiply(a, u) ^ v);
    let rest = multiply(inverse(m), u);
    let digits = |z| u16::from(trace(z)) << 4 | u16::from(trace(multiply(GAMMA, z)));
    digits(line) << 8 | digits(rest)
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

/// Inverse in GF(256).
fn inverse(a: u8) -> u8 {
    power(a, 254)
}

/// Trace from GF(256) to GF(16), as the four of its bits that tell the elements of GF(16) apart.
fn trace(z: u8) -> u8 {
    let trace = z ^ power(z, 16);
    trace >> 4 & 0b1100 | trace >> 1 & 0b10 | trace & 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    struct Sets {
        name: &'static str,
        mask: u32,
    }

    #[test]
    #[ignore = "measures, promises nothing; run it with --release --nocapture"]
    fn shares_of_many_random_clusters() {
        let mut random = Stream(1);
        let runs = std::env::var("RUNS").map_or(300, |n| n.parse().unwrap());
        for Sets { name, mask } in [
            Sets {
                name: "same /24",
                mask: 0xff,
            },
            Sets {
                name: "same /16",
                mask: 0xffff,
            },
            Sets {
                name: "anywhere",
                mask: !0,
            },
            Sets {
                name: "in a row",
                mask: 0,
            },
        ] {
            for count in [3, 5, 7, 16] {
                let mut worst: Vec<f64> = (0..runs)
                    .map(|_| {
                        let key = [random.next(), random.next()];
                        let base = random.next() as u32;
                        let mut backends: Vec<Identity> = vec![];
                        while backends.len() < count {
                            let bits = if mask == 0 {
                                (base & !0x80) + backends.len() as u32
                            } else {
                                base & !mask | random.next() as u32 & mask
                            };
                            let address = Ipv4Addr::from_bits(bits);
                            if backends.iter().all(|b| b.address != address) {
                                backends.push(Identity { address, weight: 1 });
                            }
                        }
                        worst_share(&backends, &table(key, &backends, BLOCK).unwrap())
                    })
                    .collect();
                worst.sort_by(f64::total_cmp);
                let at = |part: f64| worst[((worst.len() - 1) as f64 * part) as usize] * 100.0;
                let over = worst.iter().filter(|w| **w > 0.02).count();
                println!(
                    "{name}, {count} backends: median {:.2} %, p99 {:.2} %, worst {:.2} %, over 2 %: {over} of {runs}",
                    at(0.5),
                    at(0.99),
                    at(1.0)
                );
            }
        }
    }
}
