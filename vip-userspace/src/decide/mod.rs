//! Pure decisions: `(now, event) -> actions`. No clock, no socket, no tokio in here.

pub mod announce;
pub mod health;
pub mod vrrp;
