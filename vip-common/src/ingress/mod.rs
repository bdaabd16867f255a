//! The packet decision: steering without a connection table.
//!
//! A packet for the VIP is hashed by its flow to a bucket of the rank table. The bucket lists
//! all backends, in an order that is the same on every node. Whoever receives the packet walks
//! down that order: from the top if it came from a client or a router, from its own rank on if
//! a peer sent it. Another node that may be used gets the packet. At its own rank the node asks
//! its kernel for the socket, and keeps the packet if there is one. Past the last rank the
//! packet stays here, so that the node's own TCP stack answers with a reset.
//!
//! Every handover goes down the order, so nothing loops; and a frame carries a bound of its own
//! ([`hops`]), should nodes not know each other by their MACs or have different tables. The
//! kernels' socket tables are both the connection table and the first health check: a node whose
//! API server has crashed has no listener, and the SYN goes on.

mod apply;
mod decide;
pub mod hops;
mod neighbor;
pub mod untag;
mod walk;

pub use self::apply::{Action, apply};
pub use self::decide::{decide, decide_with};

#[cfg(test)]
mod tests;
