//! What the programs that read this node's connections hand to the agent.

use bytemuck::{Pod, Zeroable};

/// Ports of servers that are looked for, at most.
pub const PORTS: usize = 32;

/// Name of the map with what is looked for.
pub const WANTED: &str = "VIP_ROSTER_WANTED";

/// Name of the global with the layout.
pub const LAYOUT: &str = "VIP_ROSTER_LAYOUT";

/// Name of the ring buffer with changes.
pub const CHANGES: &str = "VIP_ROSTER_CHANGES";

/// Name of the map that counts changes for which the ring buffer had no room.
pub const LOST: &str = "VIP_ROSTER_LOST";

/// Which connections are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Wanted {
    /// The ports of the servers, in host byte order; 0 is none.
    pub ports: [u16; PORTS],
    /// Number of the agent's network namespace (`ino` of `/proc/self/ns/net`).
    pub netns: u32,
}

/// Offsets in bytes of fields of the kernel's `struct tcp_sock`, with which `struct sock_common`
/// begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// `skc_family`.
    pub family: u32,
    /// `skc_state`.
    pub state: u32,
    /// `skc_num`: the server's port, in host byte order.
    pub port: u32,
    /// `skc_dport`: the client's port.
    pub client_port: u32,
    /// `skc_daddr`.
    pub client_v4: u32,
    /// `skc_rcv_saddr`.
    pub server_v4: u32,
    /// `skc_v6_daddr`.
    pub client: u32,
    /// `skc_v6_rcv_saddr`.
    pub server: u32,
    /// `snd_una`.
    pub unacknowledged: u32,
    /// `rcv_nxt`.
    pub expected: u32,
    /// `skc_net`: a pointer to a `struct net`.
    pub net: u32,
    /// The number of a network namespace in `struct net`, `ns.inum`.
    pub netns: u32,
}

impl Layout {
    /// Before the agent has set it.
    pub const UNKNOWN: Self = Self {
        family: 0,
        state: 0,
        port: 0,
        client_port: 0,
        client_v4: 0,
        server_v4: 0,
        client: 0,
        server: 0,
        unacknowledged: 0,
        expected: 0,
        net: 0,
        netns: 0,
    };
}

/// A connection, as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Connection {
    /// The client's IPv6 address in words of network byte order, if the socket is of that family: IPv4
    /// in its mapped form, too.
    pub client: [u32; 4],
    /// The server's, likewise.
    pub server: [u32; 4],
    /// The client's IPv4 address in network byte order, if the socket is of that family.
    pub client_v4: u32,
    /// The server's, likewise.
    pub server_v4: u32,
    /// First sequence number that the client has not acknowledged, in host byte order.
    pub unacknowledged: u32,
    /// Next one that is expected from the client, in host byte order.
    pub expected: u32,
    /// The client's port, in network byte order.
    pub client_port: u16,
    /// The server's port, in host byte order.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`, in host byte order.
    pub family: u16,
    /// Not 0 if it has ended.
    pub ended: u16,
}
