//! Nudges: one packet to each client of a dead node, so that the client learns of the end at once.
//!
//! A client that sends nothing, such as one with a watch, would wait for a dead server until its
//! keepalive fails. So the owner of the VIP sends it a segment in the dead server's name. The client
//! answers with an ACK. No node has the socket, so the last node of the row resets the connection. A
//! client of a living node answers too, but its node has the socket, and nothing happens.
//!
//! 1. [`Ways`] finds out how a packet reaches each client.
//! 2. [`Sender`] sends the [`Segment`]s.
//! 3. [`ResetTap`] tells which of the connections this node's kernel has reset.
//!
//! The frames go by a packet socket, because the node's own packet filter may drop what connection
//! tracking does not know (state `INVALID`). The route and the neighbour must then be looked up here.

mod segment;
mod sender;
mod tap;
mod ways;

pub use self::segment::{Kind, Segment};
pub use self::sender::Sender;
pub use self::tap::ResetTap;
pub use self::ways::{Hop, Pair, Way, Ways};

#[cfg(test)]
mod tests;
