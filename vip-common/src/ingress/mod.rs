//! The packet decision: steering without a connection table.
//!
//! The flow of a packet for the VIP is hashed to a bucket of the rank table. The bucket's row lists
//! all backends, in an order that is the same on every node. The node that receives the packet
//! walks down that order:
//!
//! - It begins at the first rank if a client or a router sent the packet, and at its own rank if a
//!   peer forwarded it.
//! - At a peer's rank it forwards the packet, if the peer is usable.
//! - At its own rank it looks for the socket in its kernel, and keeps the packet if there is one.
//! - After the last rank it sends the packet to a suspect, a peer whose packets stay out. Without
//!   one, its own TCP stack answers with a reset, if no other member may have the socket.
//!
//! Most frames take the [straight path](straight()), which does the same for a plain segment
//! that the first rank decides about.
//!
//! Every hop but the last resort goes down the order, so no packet loops. A frame also carries the
//! number of nodes that have looked for its socket (`passage.rs`). It bounds the hops of frames
//! whose nodes do not know each other's MACs or have different tables.
//!
//! The kernels' socket tables are both the connection table and the first health check. A node
//! whose API server has crashed has no listener, so it forwards the SYN.

mod apply;
mod decide;
mod neighbor;
pub(crate) mod passage;
mod refused;
mod straight;
mod untag;
mod walk;

pub use self::apply::{Action, apply};
pub use self::decide::decide;
pub use self::straight::{Known, straight};
pub use self::untag::untag;
#[cfg(test)]
mod tests;
