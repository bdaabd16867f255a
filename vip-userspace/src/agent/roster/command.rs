//! What the thread is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use vip_node::roster::Connection;

use crate::agent::peer_channel::PeerChannel;
use crate::net::Nic;

/// Where connections come in on this node.
#[derive(Clone)]
pub(in crate::agent) struct Network {
    pub(in crate::agent) nic: Nic,
    pub(in crate::agent) channel: Arc<PeerChannel>,
}

/// Whose connections are in rosters.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Servers {
    /// The VIPs.
    pub(in crate::agent) vips: BTreeSet<IpAddr>,
    /// This node's own addresses.
    pub(in crate::agent) own: BTreeSet<IpAddr>,
    /// Where servers of this node have their ends of connections: at VIPs, and at its own addresses,
    /// where other nodes' programs bring the connections of their own.
    pub(in crate::agent) ends: BTreeSet<SocketAddr>,
    /// The ends at VIPs as clients know them, and as servers do.
    pub(in crate::agent) mapped: BTreeMap<SocketAddr, SocketAddr>,
    /// As in the configuration: after that time, others take this node for gone.
    pub(in crate::agent) reset_after: Duration,
}

impl Servers {
    /// Whether a connection belongs in the roster: a server's, and of another host.
    pub(super) fn lists(&self, one: &Connection) -> bool {
        self.ends.contains(&one.server) && self.is_others(one.client.ip())
    }

    /// Whether a client is another host or a pod, and not this node itself.
    pub(in crate::agent) fn is_others(&self, client: IpAddr) -> bool {
        !self.own.contains(&client) && !self.vips.contains(&client)
    }
}

/// What the thread is told.
pub(in crate::agent) enum Command {
    /// Another NIC, or another channel.
    Network(Box<Network>),
    Servers(Box<Servers>),
    /// These are the other members.
    Peers(BTreeSet<IpAddr>),
    /// This node owns the VIP, or does not.
    Owner(bool),
    /// A node does not answer: its clients may have to be asked soon.
    Away(IpAddr),
    /// A node is gone. All its addresses, the one by which it is known first.
    Gone(Vec<IpAddr>),
    /// It is there again.
    Back(IpAddr),
    /// A session with a node has come up or gone down.
    Session(IpAddr, bool),
    /// Something has changed that may have kept rows from ending in a reset.
    Again,
}
