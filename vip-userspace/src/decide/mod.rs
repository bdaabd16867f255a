//! Pure decisions: `(now, event) -> actions`. No clock, no socket, no tokio in here.

pub mod alarm;
pub mod announce;
pub mod bfd;
pub mod choice;
pub mod health;
pub mod hearing;
pub mod hooks;
pub mod node;
pub mod settings;
pub mod sources;
pub mod vrrp;
pub mod ways;
