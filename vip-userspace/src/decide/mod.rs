//! Pure decisions: `(now, event) -> actions`. No clock, no socket, no tokio in here.

pub mod announce;
pub mod bfd;
pub mod choice;
pub mod health;
pub mod hooks;
pub mod node;
pub mod sources;
pub mod vrrp;
