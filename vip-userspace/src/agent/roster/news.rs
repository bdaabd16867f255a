//! What the thread tells.

use std::net::IpAddr;

use vip_node::roster::Outcome;

/// What the thread tells.
#[derive(Debug)]
pub(in crate::agent) enum RosterNews {
    /// Rosters cannot be kept, or clients not be asked: why.
    Unable(String),
    /// Clients of this node, which is gone, were asked.
    Told(IpAddr, Clients, Outcome),
}

/// Which clients of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::agent) enum Clients {
    /// Of the VIPs, by any node.
    Vip,
    /// This node's own and those of its pods, by that node's own address.
    Local,
}
