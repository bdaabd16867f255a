//! The node's network: links and addresses by netlink, VRRP, ARP and NDP by raw sockets.
//!
//! A thin layer: the decisions are in [`vip_node`].

mod arp;
pub mod bfd;
pub mod bond;
mod datagram;
mod devconf;
pub mod diag;
pub mod echo;
mod filter;
mod frames;
mod heard;
pub mod hello;
mod ndp;
mod neighbours;
pub mod netlink;
mod nic;
pub mod nudge;
pub mod overhear;
pub mod port;
mod raw;
mod sources;
pub mod stranded;
#[cfg(test)]
pub(crate) mod testing;
pub mod vrrp;
mod witness;

pub use devconf::{HostNic, port_macs};
pub use heard::Heard;
pub use ndp::Groups;
pub use neighbours::Neighbours;
pub use nic::Nic;
pub use raw::netns_cookie;
pub use sources::SourceSocket;
pub use witness::WitnessSocket;

use std::io;
use std::net::IpAddr;

/// What can be wrong with the node's network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A request that the kernel refused, or a socket that could not be had.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// None of the configured nodes is this machine.
    #[error(
        "none of the nodes ({nodes}) is this machine, whose addresses are {local}; \
         correct the nodes, or wait until the address is up"
    )]
    NotANode {
        /// The configured nodes.
        nodes: String,
        /// The addresses found here.
        local: String,
    },
    /// The agents find each other, and this machine has no address for that.
    #[error(
        "no interface of this machine has an address in the subnet of VIP {vip}; its addresses are \
         {local}; correct the VIP, name the interface if this is meant (--interface), or wait until the \
         address is up"
    )]
    NoAddress {
        /// The VIP.
        vip: IpAddr,
        /// The addresses found here.
        local: String,
    },
    /// The VIP is an address that this machine has on a NIC.
    #[error(
        "VIP {vip} is this machine's own address on {interface}; choose an address of that subnet that \
         no host has, or take it off {interface} if it is not the node's own (keepalived, kube-vip)"
    )]
    OwnAddress {
        /// The VIP.
        vip: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// The agents find each other, and several interfaces may be meant.
    #[error(
        "interfaces {names} all have an address in the subnet of VIP {vip}; name the one whose \
         network the clients are in (--interface, or `interface` in the file)"
    )]
    ManyInterfaces {
        /// The VIP.
        vip: IpAddr,
        /// The interfaces.
        names: String,
    },
    /// The kernel still runs duplicate address detection for the node's address.
    #[error(
        "node address {address} on {interface} cannot be used yet: duplicate address detection \
         has not ended (tentative)"
    )]
    Tentative {
        /// The node's address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// The kernel has found the node's address at another host.
    #[error(
        "node address {address} on {interface} cannot be used: another host has it, too (duplicate \
         address detection failed); take it off that host, and add it here again"
    )]
    Duplicate {
        /// The node's address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// Two of the configured nodes are this machine.
    #[error("nodes {0} and {1} are both this machine; name each node once")]
    TwoNodes(IpAddr, IpAddr),
    /// The configured interface does not exist.
    #[error("no interface {name}; there are {there}")]
    NoInterface {
        /// The configured name.
        name: String,
        /// Those that exist.
        there: String,
    },
    /// The configured interface does not have the node's address.
    #[error(
        "node address {address} is on {holder}, not on the configured interface {name} nor on a \
         bridge or bond that this is a port of; set `interface = \"{holder}\"`, or leave it out"
    )]
    OtherInterface {
        /// The node's address.
        address: IpAddr,
        /// The interface that has it.
        holder: String,
        /// The configured one.
        name: String,
    },
    /// The clients' ARP requests for the VIP would not reach this NIC.
    #[error(
        "VIP {vip} is not in the subnet of {interface} ({address}/{prefix_len}); \
         correct the VIP, or name the interface if this is meant"
    )]
    OtherSubnet {
        /// The VIP.
        vip: IpAddr,
        /// The interface that has the node's address.
        interface: String,
        /// The node's address.
        address: IpAddr,
        /// Its prefix length.
        prefix_len: u8,
    },
    /// No host can have it: the others' kernels take it for the network's name or for broadcast.
    #[error(
        "{what} {address} is the first or the last address of the subnet of {interface} \
         ({own}/{prefix_len}), which no host can have; take another one"
    )]
    NoHost {
        /// What it is to be.
        what: &'static str,
        /// The address.
        address: IpAddr,
        /// The NIC.
        interface: String,
        /// This node's address of that subnet.
        own: IpAddr,
        /// Its prefix length.
        prefix_len: u8,
    },
    /// No agent would hear another one.
    #[error(
        "this node reaches {peers} by way of {router}, not directly: all nodes must be on one segment, \
         and {interface} ({address}/{prefix_len}) must reach them without a router"
    )]
    OffLink {
        /// The other nodes.
        peers: String,
        /// The gateway of the route to the first one.
        router: IpAddr,
        /// The NIC.
        interface: String,
        /// The node's own address.
        address: IpAddr,
        /// Its prefix length.
        prefix_len: u8,
    },
    /// No Ethernet, no ARP, no MAC addresses to steer by.
    #[error("interface {interface}, which has node address {address}, is not Ethernet")]
    NotEthernet {
        /// The interface.
        interface: String,
        /// The node's address.
        address: IpAddr,
    },
}

impl NetError {
    /// Whether it may end by itself, as at a boot: the NIC or its address comes late.
    #[must_use]
    pub const fn may_come(&self) -> bool {
        matches!(
            self,
            Self::NotANode { .. }
                | Self::NoAddress { .. }
                | Self::NoInterface { .. }
                | Self::Tentative { .. }
                | Self::Duplicate { .. }
        )
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |error| Self::Io { what, error }
    }
}
