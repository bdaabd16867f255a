//! What a decision may ask of the node it runs on: its tables, its clock, its sockets.
//!
//! In the kernel these are BPF maps and helpers, on the host plain values.

use crate::abi::{RankRow, Service, State};
use crate::hash::Flow;
use crate::wire::addr::{Be32, Be128};
use crate::wire::time::BootNanos;

/// The tables, as the agent wrote them, and the clock that their leases are read by.
pub trait Tables {
    /// All but the rank table.
    fn state(&self) -> &State;
    /// A row of the rank table, both halves counted through.
    fn row(&self, index: u32) -> Option<RankRow>;
    /// The time.
    fn now(&self) -> BootNanos;
    /// Whether the source is on the allow list of the service with this [`Service::id`].
    fn allows(&self, service: u16, source: Be128) -> bool;
    /// Whether the source may open one more connection to the service; if so, it has.
    fn admits(&self, service: &Service, source: Be128) -> bool;
}

/// An address of one of the two families.
pub trait Address: Copy + PartialEq + Default + Into<Be128> {
    /// It is one of IPv6.
    const IPV6: bool;

    /// The hash of a flow to a service.
    fn hash(service: &Service, flow: &Flow<Self>) -> u64;
}

impl Address for Be32 {
    const IPV6: bool = false;

    #[inline(always)]
    fn hash(service: &Service, flow: &Flow<Self>) -> u64 {
        service.hash.flow_ipv4(flow.source, flow.source_port)
    }
}

impl Address for Be128 {
    const IPV6: bool = true;

    #[inline(always)]
    fn hash(service: &Service, flow: &Flow<Self>) -> u64 {
        let port = service.port;
        service.hash.flow_ipv6(flow.source, flow.source_port, port)
    }
}

/// What the node's TCP stack knows of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// Nothing.
    None,
    /// Only a socket that listens on the address and port.
    Listener,
    /// A listener, and the segment acknowledges a SYN cookie that it gave out.
    Cookie,
    /// A connection: established, being established (request), or half closed.
    Connection,
    /// What is left of a connection that this node's side closed first: it waits for the other
    /// side's FIN, or for segments that are late (time-wait).
    TimeWait {
        /// The sequence number that it expects next, in host byte order; `None` if the kernel
        /// does not tell.
        expects: Option<u32>,
    },
}

/// The node's own sockets.
pub trait Sockets {
    /// Looks the flow up, its destination port being that which the node listens on. `cookie`:
    /// the segment may acknowledge a SYN cookie; only then is [`Socket::Cookie`] looked for.
    /// `tcp` is the offset of the TCP header in the frame, in bytes.
    fn lookup<A: Address>(&self, flow: &Flow<A>, cookie: bool, tcp: usize) -> Socket;
    /// Whether a socket listens where the flow goes, whatever else there is for the flow.
    fn listens<A: Address>(&self, flow: &Flow<A>) -> bool;
}
