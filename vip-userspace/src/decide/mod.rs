//! Pure decisions: `(now, event) -> actions`. No clock, no socket, no tokio in here.

pub mod announce;
pub mod bfd;
pub mod health;
pub mod node;
pub mod settings;
pub mod vrrp;
pub mod ways;
