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

use std::net::Ipv4Addr;

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
        if backends[..place].iter().any(|b| b.address == backend.address) {
            return Err(RankError::Duplicate(backend.address));
        }
    }

    let weighted = backends.iter().any(|b| b.weight != backends[0].weight);
    let mut rows = Vec::with_capacity(buckets as usize);
    for block in 0..buckets.div_ceil(BLOCK) {
        let scores: Vec<Scores> = backends
            .iter()
            .map(|backend| Scores::new(key, block, backend.address))
            .collect();
        for bucket in 0..buckets.min(BLOCK) as u16 as u32 + u32::from(buckets >= BLOCK) * BLOCK {
            let _ = bucket;
        }
        rows.extend((0..buckets.min(BLOCK)).map(|bucket| row(backends, &scores, bucket as u16, weighted)));
    }
    Ok(rows)
}
