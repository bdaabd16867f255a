//! The types of a checked configuration that no key has for itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use vip_common::abi::CheckIndex;

use crate::probe::Ask;

/// A virtual address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vip {
    /// A unicast address that no node has as its own.
    pub address: IpAddr,
    /// What is reached there, 1 to 8, no port twice. The first one is the API.
    pub services: Vec<Service>,
}

impl Vip {
    /// Its first service, as `ADDRESS:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        let port = self.services.first().map_or(0, |service| service.port);
        SocketAddr::new(self.address, port)
    }
}

/// A TCP port of a VIP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// What clients connect to. Not 0.
    pub port: u16,
    /// What the nodes listen on. Not 0, and another one for each service of a VIP.
    pub target: u16,
    /// Its place in [`Config::checks`](super::Config::checks).
    pub check: CheckIndex,
    /// Who may use it; everybody if it is empty.
    pub allow: Vec<Network>,
    /// New connections a second that one source may open; any number if `None`.
    pub syn_rate: Option<u32>,
}

/// How a server is asked whether it is ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// The port on the nodes.
    pub port: u16,
    /// What is asked of it.
    pub ask: Ask,
}

/// An address, or all that begin as it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Network {
    /// The address, with zeros behind the prefix.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix_len: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// A control-plane node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its own address on the VIP's segment.
    pub address: IpAddr,
    /// Its address of the other family, for its own and the other nodes' connections to VIPs of
    /// that family.
    pub other_address: Option<IpAddr>,
    /// What to call it; the address if nothing else is given.
    pub name: String,
    /// Its share of new connections relative to the others', at least 1.
    pub weight: u16,
}

impl Node {
    /// One of which only the address is given.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self {
            address,
            other_address: None,
            name: address.to_string(),
            weight: 1,
        }
    }
}

/// This node, in a cluster whose agents find each other: all of it but its address, which is that
/// of its NIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnNode {
    /// As [`Node::name`]; `None`: the host's.
    pub name: Option<String>,
    /// As [`Node::other_address`].
    pub other_address: Option<IpAddr>,
    /// As [`Node::weight`].
    pub weight: u16,
}

impl Default for OwnNode {
    fn default() -> Self {
        Self {
            name: None,
            other_address: None,
            weight: 1,
        }
    }
}

/// Where advertisements go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VrrpMode {
    /// To each node by itself.
    Unicast,
    /// To the multicast group of VRRP.
    Multicast,
}

/// Where the agent listens for HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// At an address, the same on all nodes that have this configuration.
    At(SocketAddr),
    /// At this port of each node's own address on the VIP's segment, and of loopback: the kubelet
    /// on the node asks there, whatever becomes of the node's address.
    Node(u16),
}

impl Listen {
    /// The TCP port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::At(address) => address.port(),
            Self::Node(port) => port,
        }
    }

    /// The addresses, on the node with this address of its own.
    #[must_use]
    pub fn on(self, node: IpAddr) -> Vec<SocketAddr> {
        match self {
            Self::At(address) => vec![address],
            Self::Node(port) => {
                let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                vec![loopback, SocketAddr::new(node, port)]
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Node(port) => write!(f, "node:{port}"),
        }
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// In the driver if that works, else in the stack.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the stack: works with every driver, and costs more.
    Generic,
    /// As a tcx program or clsact filter on the way in, beside whatever XDP program there is.
    Tc,
}

/// What API servers are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CheckKind {
    Readyz,
    Tls,
    Tcp,
}
