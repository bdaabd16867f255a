//! What a node decides: `(now, input) -> actions`. No clock, no socket, no map.
//!
//! [`Node`] puts the parts together that elect the owner of the VIP, find out who lives, and choose
//! where new connections go. Each part owns its state. The modules after them decide about this host
//! alone: programs on its NICs, kernel settings, routes, alarms.

mod action;
mod announce;
pub mod bfd;
pub mod choice;
mod conflict;
pub mod election;
mod faults;
pub mod health;
mod input;
mod liveness;
mod membership;
mod node;
mod ownership;
mod random;
pub mod rank;
mod selection;
mod transfer;
mod view;

pub mod alarm;
pub mod hearing;
pub mod hooks;
pub mod settings;
pub mod sources;
pub mod ways;

#[cfg(test)]
mod testing;

pub use self::action::*;
pub use self::faults::Fault;
pub use self::input::*;
pub use self::node::Node;
