//! The code that the eBPF programs and the agent share.
//!
//! Everything here is pure and `no_std`: it neither reads a clock nor does I/O. The functions that
//! run under XDP therefore also run in unit tests, property tests and fuzzers on the host.
//!
//! Read [`ingress`] first: it is the product.
//!
//! # Glossary
//! Each word has one meaning in this crate and in vip-ebpf.
//!
//! - **Node**: a machine of the cluster's configured list. It runs the agent and the programs.
//!   *This node* is the one that the code runs on.
//! - **Peer**: another node than this one.
//! - **Backend**: a node as a destination of packets. It is an entry of
//!   [`State::backends`](abi::State::backends), and a [`BackendIndex`](abi::BackendIndex) names it.
//! - **Client**: a host that connects to a VIP. A **stranger** is any host that is not a node.
//! - **Service**: a TCP port of a VIP. Clients connect to its *port*; nodes listen on its *target*.
//! - **Bucket**: the result of a flow's hash. Its **row** lists all backends; a backend's place in
//!   the row is its **rank**.
//! - **Alive**: the node answers. **Usable**: it may get this segment: alive, and for a SYN also
//!   chosen by the agent for new connections.
//! - **Forward**: send a frame on to a peer. One such transmission is a **hop**.
//! - **Owner**: the node that answers ARP and Neighbor Discovery for a VIP. It may do so until its
//!   **answer lease** ends ([`Vip::answer_until`](abi::Vip::answer_until)).
//! - **Claimant**: a host that says a VIP is its own address and is no living node.
//! - **Joining**: the first moments of a node, before it knows its peers and they know it.
//! - **TIME-WAIT socket**: the state that TCP keeps on the side that closed a connection first
//!   (RFC 9293, section 3.6.1).
//! - **Ingress**, **egress** and **connect programs**: they run on frames that arrive at the NIC,
//!   on frames that leave by it, and on calls of `connect` and `getpeername`. The counters call the
//!   egress program `guard`.
//! - **Self-test**: a frame or a call by which the agent sees that a program runs.
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
pub mod roster;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
pub mod wire;
