//! What the kernel side and the agent share.
//!
//! Everything here is pure and `no_std`: it neither reads a clock nor does I/O, so the very
//! functions that run under XDP also run in unit tests, property tests and fuzzers on the host.
//!
//! Read [`ingress`] first: it is the product.
#![cfg_attr(not(any(test, feature = "testing")), no_std)]

pub mod abi;
pub mod bfd_port;
pub mod connect;
#[cfg(test)]
mod corpus;
pub mod egress;
pub mod env;
pub mod hash;
pub mod ingress;
pub mod rate_limit;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
pub mod wire;
