//! Other people's daemons, as Debian packages them, on the hosts of a topology: what the product
//! must understand, and what it is compared with.
//!
//! All are started in the foreground, with files of their own in the cluster's work folder, and
//! ended by their pid.

mod bird;
mod frr;
pub mod haproxy;
pub mod keepalived;
pub mod rival;

pub use bird::Bird;
pub use frr::Frr;

use crate::cluster::Cluster;
use crate::topology::Host;

/// The host that a daemon runs on, or that it has a session with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// A node, by its number.
    Node(usize),
    /// The client on the nodes' segment.
    Client,
}

impl Seat {
    /// The host.
    #[must_use]
    pub fn host(self, cluster: &Cluster) -> &dyn Host {
        match self {
            Self::Node(node) => cluster.host(node),
            Self::Client => cluster.topology.client.as_ref(),
        }
    }
}
