//! What a decision may ask of the node it runs on: its tables, its clock, its sockets.
//!
//! In the kernel these are BPF maps and helpers, on the host plain values.

use crate::hash::Flow;
use crate::layout::{
    BackendIndex, Be32, Be128, BootNanos, MAX_BACKENDS, MAX_PORTS, MAX_VIPS, Mac, RankRow, Service,
    State, Vip,
};

/// The tables, as the agent wrote them, and the clock that their fences are read by.
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

/// The VIP with this address of IPv4.
#[inline(always)]
pub(crate) fn find_ipv4(state: &State, address: Be32) -> Option<&Vip> {
    // The verifier wants to see an end. (The least of both, not two conditions: those LLVM
    // unrolls sixteen times.)
    let count = (state.config.ipv4_count as usize).min(MAX_VIPS);
    let mut index = 0;
    while index < count {
        // That it is one of IPv4 is known.
        if state.vips[index].address.to_raw()[3] == address.raw() {
            return Some(&state.vips[state.any_below::<MAX_VIPS>(index)]);
        }
        index += 1;
    }
    None
}

/// The VIP with this address, of either family.
#[inline(always)]
pub(crate) fn find(state: &State, address: Be128) -> Option<&Vip> {
    let count = (state.config.vip_count as usize).min(MAX_VIPS);
    // From the first on, though those of IPv4 come before those of IPv6: the verifier follows
    // an index that begins with a number, not one that begins with a variable.
    let mut index = 0;
    while index < count {
        if state.vips[index].address == address {
            return Some(&state.vips[state.any_below::<MAX_VIPS>(index)]);
        }
        index += 1;
    }
    None
}

/// The first service of a VIP that is `wanted`.
#[inline(always)]
pub(crate) fn service<'v>(
    state: &State,
    vip: &'v Vip,
    wanted: impl Fn(&Service) -> bool,
) -> Option<&'v Service> {
    let count = (vip.service_count as usize).min(MAX_PORTS);
    let mut index = 0;
    while index < count {
        if wanted(&vip.services[index]) {
            return Some(&vip.services[state.any_below::<MAX_PORTS>(index)]);
        }
        index += 1;
    }
    None
}

/// Whether frames from this Ethernet address are another node's.
#[inline(always)]
pub(crate) fn is_peer(state: &State, mac: Mac) -> bool {
    // Nearly all frames come from clients and routers, and the filter tells most of them apart
    // without a look at the backends.
    state.config.peers.may_hold(mac) && is_node(state, mac, |_| true)
}

/// Whether the Ethernet address is that of another node that is alive: of one whose agent was
/// heard, and may so own the VIP.
#[inline(always)]
pub(crate) fn is_living_peer(state: &State, mac: Mac) -> bool {
    is_node(state, mac, |index| {
        BackendIndex::new(index).is_some_and(|one| state.masks.alive.contains(one))
    })
}

/// Whether the Ethernet address is that of another node, which is `wanted`: the one that it is
/// reached at, or the one that its frames come from.
#[inline(always)]
fn is_node(state: &State, mac: Mac, wanted: impl Fn(usize) -> bool) -> bool {
    let count = (state.config.backend_count as usize).min(MAX_BACKENDS);
    let mut index = 0;
    while index < count {
        let backend = &state.backends[index];
        if backend.mac == mac || backend.source == mac {
            return index as u32 != state.config.own_index && !mac.is_unknown() && wanted(index);
        }
        index += 1;
    }
    false
}
