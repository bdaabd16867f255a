//! What the kernel side and the agent share.
//!
//! Everything here is pure and `no_std`: it neither reads a clock nor does I/O, so the very
//! functions that run under XDP also run in unit tests, property tests and fuzzers on the host.
//!
//! Read [`steer`] first: it is the product.
#![cfg_attr(not(any(test, feature = "testing")), no_std)]

pub mod bfd_port;
#[cfg(test)]
mod corpus;
pub mod guard;
pub mod hash;
pub mod layout;
pub mod limit;
pub mod local;
pub mod neighbour;
pub mod node;
pub mod steer;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod untag;
pub mod wire;
