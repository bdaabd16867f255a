//! Other people's daemons, as Debian packages them, on the hosts of a topology: what the product
//! must understand, and what it is compared with.
//!
//! All are started in the foreground, with files of their own in the cluster's work folder, and
//! ended by their pid.

mod bird;
mod frr;
pub mod haproxy;
pub mod keepalived;

pub use bird::Bird;
pub use frr::Frr;
