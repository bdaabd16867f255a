//! The environment of a decision: the node's tables, clock and sockets.
//!
//! Programs implement it with BPF maps and helpers, tests with plain values.

use core::num::NonZeroU32;

use crate::abi::{FirstRanks, LaterRanks, Service, State};
use crate::hash::Flow;
use crate::wire::Frame;
use crate::wire::addr::{Be16, Be32, Be128};
use crate::wire::time::BootNanos;

/// The tables that the agent writes, and the clock of their leases.
pub trait Tables {
    /// Everything but the rank table and the tables of clients.
    fn state(&self) -> &State;
    /// The first ranks of a row of the rank table, `0..2 * BUCKETS` over both halves. The index is
    /// taken modulo this number.
    fn first_ranks(&self, row: u32) -> FirstRanks;
    /// The later ranks of that row.
    fn later_ranks(&self, row: u32) -> LaterRanks;
    /// The current time.
    fn now(&self) -> BootNanos;
    /// Whether the allow list of the service has the source.
    fn allows(&self, service: &Service, source: Be128) -> bool;
    /// Whether the source may open one more connection to the service. If so, it is counted.
    fn admits(&self, service: &Service, source: Be128) -> bool;
}

/// An IPv4 or IPv6 address.
pub trait Address: Copy + PartialEq + Default + Into<Be128> {
    /// Whether the type is that of IPv6 addresses.
    const IPV6: bool;

    /// The bucket of a flow from a client to a service.
    fn bucket(service: &Service, source: Self, source_port: Be16) -> u16;
}

impl Address for Be32 {
    const IPV6: bool = false;

    #[inline(always)]
    fn bucket(service: &Service, source: Self, source_port: Be16) -> u16 {
        service.hash.bucket_ipv4(source, source_port)
    }
}

impl Address for Be128 {
    const IPV6: bool = true;

    #[inline(always)]
    fn bucket(service: &Service, source: Self, source_port: Be16) -> u16 {
        service.hash.bucket_ipv6(source, source_port)
    }
}

/// The socket that the node's TCP stack has for a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// No socket.
    None,
    /// A socket that listens on the address and port, and no other.
    Listener,
    /// A listener, and the segment acknowledges a SYN cookie that this node sent.
    Cookie,
    /// A request for a connection: SYN-RECEIVED (RFC 9293, section 3.3.2). It stays for up to a
    /// minute if the client has no use for it, because another node has answered its SYN too.
    Request {
        /// The acknowledgement number that completes it, in host byte order; `None` if the kernel
        /// does not give it to programs, or if it is 0.
        expects: Option<NonZeroU32>,
    },
    /// A connection: ESTABLISHED, or half closed.
    Connection,
    /// A TIME-WAIT socket: this node closed the connection first, and waits for the client's FIN
    /// or for late segments. (Linux uses one for FIN-WAIT-2 as well.)
    TimeWait {
        /// The sequence number that it expects next, in host byte order; `None` as above.
        expects: Option<NonZeroU32>,
    },
}

/// The node's own sockets.
pub trait Sockets {
    /// Looks up the socket for a flow as [`lookup`](Self::lookup) does, but tells no cookies, and
    /// no number that a socket expects. That is all that most segments need.
    fn peek<A: Address>(&self, flow: &Flow<A>) -> Socket;
    /// Looks up the socket for a flow, whose destination port is the service's target.
    ///
    /// `cookie`: the segment may acknowledge a SYN cookie; only then can the answer be
    /// [`Socket::Cookie`]. `tcp` is the offset of the TCP header in the frame, in bytes.
    fn lookup<F, A>(&self, frame: &F, flow: &Flow<A>, cookie: bool, tcp: usize) -> Socket
    where
        F: Frame + ?Sized,
        A: Address;
    /// Whether a socket listens at the flow's destination, whether or not the flow has a
    /// connection.
    fn listens<A: Address>(&self, flow: &Flow<A>) -> bool;
}
