//! What a node decides: `(now, event) -> actions`. No clock, no socket, no map.
//!
//! [`Node`](node::Node) puts the parts together that elect the owner of the VIP, find out who
//! lives, and choose where new connections go. The other modules decide about this host alone:
//! programs on its NICs, kernel settings, routes, alarms.

pub mod alarm;
pub mod announce;
pub mod bfd;
pub mod choice;
pub mod election;
pub mod health;
pub mod hearing;
pub mod hooks;
pub mod node;
pub mod rank;
pub mod settings;
pub mod sources;
pub mod ways;
