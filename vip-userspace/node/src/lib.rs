//! The decisions of a node: `(now, input) -> actions`, without clock, socket or map. The agent and
//! the simulator run the same code.
//!
//! [`Node`] puts these parts together. It passes inputs to them, and turns their events into
//! actions. Each part owns its state in private fields. An arrow means "asks"; there is no circle.
//!
//! ```text
//!        Input: packets, probes, faults, commands      Action: packets, lease, masks, reports
//!                          |                                          ^
//! +-- node ----------------v------------------------------------------|--------------------+
//! |                                                                                        |
//! |               view: the next owner, and the takeover delay                             |
//! |                |               |                   |                   |               |
//! |                v               |                   v                   v               |
//! |     selection: masks           |        ownership: owners     election: VRRP and       |
//! |     for connections            |        that are heard        the answer lease         |
//! |      |    |    |               |                   |                                   |
//! |      v    |    v               v                   v                                   |
//! |  health   |   liveness: BFD sessions, and questions to kernels                         |
//! |  choice   v    v                                                                       |
//! |         membership: who is a member, and who knows whom; joining                       |
//! |                                                                                        |
//! |  By themselves:  transfer   handover and shutdown     conflict   RFC 5227              |
//! |                  faults     of this node              announce   gratuitous ARP        |
//! +----------------------------------------------------------------------------------------+
//! ```
//!
//! Four modules decide about this host alone: [`hooks`] (do the programs run?), [`settings`]
//! (kernel settings), [`ways`] (other NICs for answers) and [`sources`] (MACs of other nodes).
//! [`hearing`] and [`alarm`] find and hold problems of the segment. [`rank`] computes the rank
//! table, and [`allow`] the allow lists that the programs search. [`seal`] has the cluster's key, and
//! [`remote`] the requests of agents to each other.

mod action;
mod announce;
pub mod backlog;
pub mod bfd;
pub mod choice;
mod conflict;
pub mod election;
pub mod envelope;
mod faults;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
pub mod health;
pub mod hello;
mod input;
mod lateness;
mod liveness;
mod membership;
mod node;
mod ownership;
pub mod patience;
mod priority;
mod random;
pub mod rank;
mod selection;
mod transfer;
mod view;

pub mod alarm;
pub mod allow;
pub mod hearing;
pub mod hooks;
pub mod remote;
pub mod roster;
pub mod seal;
pub mod settings;
pub mod slots;
pub mod sources;
pub mod ways;

#[cfg(test)]
mod testing;

pub use self::action::*;
pub use self::faults::Fault;
pub use self::input::*;
pub use self::lateness::MAX_SLOWDOWN;
pub use self::liveness::PeerState;
pub use self::membership::Installation;
pub use self::node::Node;
