//! The straight path: nearly all frames need no more than this.
//!
//! It reads the headers of a plain TCP segment for this node at one place, and answers if the first
//! rank decides: another node that may be used, or this node, which has the socket. Every other
//! frame takes the longer way: [`untag`](super::untag::untag), [`decide`](super::decide()), the
//! walk. Where the straight path answers, the longer way would answer the same; the fuzzer and the
//! tests compare them (`testing::check`).

use core::ops::ControlFlow;

use bytemuck::{Pod, Zeroable};

use super::passage;
use super::refused::refused;
use super::walk::{keep_here, usable};
use crate::abi::lookup::{find_ipv4, find_ipv6, is_peer, service};
use crate::abi::{Counter, Service, State, Vip};
use crate::env::{Address, Socket, Sockets, Tables};
use crate::hash::Flow;
use crate::verdict::{PortField, Steered, Verdict, VerdictHandler};
use crate::wire::addr::{Be32, Be128, Mac};
use crate::wire::{FrameMut, ethernet, ipv4, ipv6, tcp};

/// What the straight path has found out about a frame that it does not decide about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// This node has no socket for the segment.
    pub no_socket: bool,
    /// The source is on the service's allow list and within its limit, for which it was counted.
    pub admitted: bool,
}

impl Known {
    /// As a word, for a call in a program.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.no_socket as u32 | (self.admitted as u32) << 1
    }

    /// From such a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            no_socket: bits & 1 != 0,
            admitted: bits & 2 != 0,
        }
    }

    /// The same, hidden from the verifier: it would verify the longer way once for each
    /// combination.
    #[inline(always)]
    pub(super) fn hidden(self, state: &State) -> Self {
        let hide = |bit: bool| state.hide_from_verifier::<2>(bit.into()) != 0;
        Self {
            no_socket: hide(self.no_socket),
            admitted: hide(self.admitted),
        }
    }
}

/// The headers of a TCP segment over IPv4 without options.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Ipv4Headers {
    ethernet: ethernet::Header,
    ip: ipv4::Header,
    tcp: tcp::Header,
}

/// The headers of a TCP segment over IPv6 without extension headers.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Ipv6Headers {
    ethernet: ethernet::Header,
    ip: ipv6::Header,
    tcp: tcp::Header,
}

/// The headers of a TCP segment.
trait Headers: Pod + Steered {
    type Address: Address;

    fn ethernet(&self) -> &ethernet::Header;
    fn tcp(&self) -> &tcp::Header;
    fn source(&self) -> Self::Address;
    fn destination(&self) -> Self::Address;
    /// TTL or hop limit.
    fn ttl(&self) -> u8;
    /// The VIP that the packet is for.
    fn vip<'s>(&self, state: &'s State) -> Option<&'s Vip>;
    /// Whether a packet may be about a VIP that it is not for.
    fn may_be_about_vip(&self) -> bool;
    /// Whether the headers are these: TCP follows, and this is no fragment.
    fn are_plain(&self) -> bool;
    /// Length of the frame in bytes by the IP header, padding and FCS not included.
    fn frame_length(&self) -> usize;
}

impl Headers for Ipv4Headers {
    type Address = Be32;

    #[inline(always)]
    fn ethernet(&self) -> &ethernet::Header {
        &self.ethernet
    }

    #[inline(always)]
    fn tcp(&self) -> &tcp::Header {
        &self.tcp
    }

    #[inline(always)]
    fn source(&self) -> Be32 {
        self.ip.source()
    }

    #[inline(always)]
    fn destination(&self) -> Be32 {
        self.ip.destination()
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ip.ttl()
    }

    #[inline(always)]
    fn vip<'s>(&self, state: &'s State) -> Option<&'s Vip> {
        find_ipv4(state, self.ip.destination())
    }

    #[inline(always)]
    fn may_be_about_vip(&self) -> bool {
        false
    }

    #[inline(always)]
    fn are_plain(&self) -> bool {
        self.ip.has_no_options()
            && self.ip.protocol() == ipv4::protocol::TCP
            && !self.ip.is_fragment()
    }

    #[inline(always)]
    fn frame_length(&self) -> usize {
        ethernet::LENGTH + self.ip.total_length()
    }
}

impl Headers for Ipv6Headers {
    type Address = Be128;

    #[inline(always)]
    fn ethernet(&self) -> &ethernet::Header {
        &self.ethernet
    }

    #[inline(always)]
    fn tcp(&self) -> &tcp::Header {
        &self.tcp
    }

    #[inline(always)]
    fn source(&self) -> Be128 {
        self.ip.source()
    }

    #[inline(always)]
    fn destination(&self) -> Be128 {
        self.ip.destination()
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ip.hop_limit()
    }

    #[inline(always)]
    fn vip<'s>(&self, state: &'s State) -> Option<&'s Vip> {
        find_ipv6(state, self.ip.destination())
    }

    /// Neighbor Discovery is.
    #[inline(always)]
    fn may_be_about_vip(&self) -> bool {
        self.ip.next_header() == ipv6::next_header::ICMP
    }

    #[inline(always)]
    fn are_plain(&self) -> bool {
        self.ip.version() == 6 && self.ip.next_header() == ipv6::next_header::TCP
    }

    #[inline(always)]
    fn frame_length(&self) -> usize {
        ethernet::LENGTH + ipv6::LENGTH + self.ip.payload_length()
    }
}

impl Steered for Ipv4Headers {
    #[inline(always)]
    fn forward_to(&mut self, mac: Mac) {
        let own_mac = self.ethernet.destination();
        self.ip.lower_ttl(passage::FIRST);
        self.ethernet.readdress(mac, own_mac);
    }
}

impl Steered for Ipv6Headers {
    #[inline(always)]
    fn forward_to(&mut self, mac: Mac) {
        let own_mac = self.ethernet.destination();
        self.ip.set_hop_limit(passage::FIRST);
        self.ethernet.readdress(mac, own_mac);
    }
}

/// Decides about a frame if the straight path can, and calls `next` with the verdict.
#[inline(always)]
pub fn straight<F, T, S, N>(
    frame: &mut F,
    tables: &T,
    sockets: &S,
    next: N,
) -> ControlFlow<N::Outcome, Known>
where
    F: FrameMut + ?Sized,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let length = frame.least_length();
    let Some(headers) = frame.view_mut::<Ipv4Headers>(0) else {
        return ControlFlow::Continue(Known::default());
    };
    let ether_type = headers.ethernet.ether_type();
    if ether_type == ethernet::ether_type::IPV4 {
        return steer(headers, length, tables, sockets, next);
    }
    if ether_type == ethernet::ether_type::IPV6
        && let Some(headers) = frame.view_mut::<Ipv6Headers>(0)
    {
        return steer(headers, length, tables, sockets, next);
    }
    ControlFlow::Continue(Known::default())
}

/// Decides about a segment with these headers. The frame has at least `length` bytes. A longer one
/// may lie in several buffers; the longer way asks the kernel for its length.
#[inline(always)]
fn steer<H, T, S, N>(
    headers: &mut H,
    length: usize,
    tables: &T,
    sockets: &S,
    next: N,
) -> ControlFlow<N::Outcome, Known>
where
    H: Headers,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let state = tables.state();
    let Some(vip) = headers.vip(state) else {
        if headers.may_be_about_vip() {
            return ControlFlow::Continue(Known::default());
        }
        return ControlFlow::Break(next.handle(Verdict::UNTOUCHED));
    };
    let tcp = headers.tcp();
    let end = headers.frame_length();
    if !headers.are_plain()
        || headers.ethernet().destination() != state.config.straight_mac
        || tcp.header_length() < tcp::LENGTH
        || end < size_of::<H>() - tcp::LENGTH + tcp.header_length()
        || end > length
    {
        return ControlFlow::Continue(Known::default());
    }
    let Some(service) = service(state, vip, |service| service.port == tcp.destination_port())
    else {
        return ControlFlow::Continue(Known::default());
    };
    let segment = Segment {
        headers,
        service,
        bytes: end as u32,
    };
    // Two functions, each of which knows this: it is asked for five times.
    if segment.headers.tcp().opens() {
        segment.steer::<true, _, _, _>(tables, sockets, next)
    } else {
        segment.steer::<false, _, _, _>(tables, sockets, next)
    }
}

/// A segment for a service.
struct Segment<'f, 's, H> {
    headers: &'f mut H,
    service: &'s Service,
    /// Length of the frame in bytes, padding and FCS not included.
    bytes: u32,
}

impl<H: Headers> Segment<'_, '_, H> {
    /// Decides about the segment. `SYN`: it opens a connection.
    #[inline(always)]
    fn steer<const SYN: bool, T, S, N>(
        self,
        tables: &T,
        sockets: &S,
        next: N,
    ) -> ControlFlow<N::Outcome, Known>
    where
        T: Tables,
        S: Sockets,
        N: VerdictHandler,
    {
        let state = tables.state();
        let config = &state.config;
        let mut known = Known::default();
        let from_peer = passage::may_be_handed_on(self.headers.ttl());
        if from_peer && !is_peer(state, self.headers.ethernet().source()) {
            return ControlFlow::Continue(known);
        }
        if SYN && self.service.flags != 0 {
            let source = self.headers.source().into();
            if let Some(counter) = refused(self.service, source, from_peer, tables) {
                return ControlFlow::Break(next.handle(Verdict::drop(counter)));
            }
            known.admitted = true;
        }
        let usable = usable(state, self.service, SYN);
        if from_peer {
            if config.own_index >= config.slot_count {
                return ControlFlow::Continue(known);
            }
        } else {
            let (source, port) = (self.headers.source(), self.headers.tcp().source_port());
            let bucket = H::Address::bucket(self.service, source, port);
            let row = config.rank_base.wrapping_add(bucket.into());
            let first = tables.first_ranks(row).first();
            if first.get() as u32 != config.own_index {
                let mac = state.backends[first.get()].mac;
                if mac.is_unknown() || !usable.without(state.masks.no_forward).contains(first) {
                    return ControlFlow::Continue(known);
                }
                let (backend, ttl) = (first.get() as u32, passage::FIRST);
                let verdict = Verdict::forward(backend, mac, ttl, SYN, H::Address::IPV6);
                return ControlFlow::Break(next.forward(verdict.of(self.bytes), self.headers));
            }
        }
        let flow = Flow {
            source: self.headers.source(),
            destination: self.headers.destination(),
            source_port: self.headers.tcp().source_port(),
            destination_port: self.service.target,
        };
        match sockets.peek(&flow) {
            Socket::Connection => {}
            Socket::Listener if SYN && usable.has_index(config.own_index) => {}
            socket => {
                known.no_socket = socket == Socket::None;
                return ControlFlow::Continue(known);
            }
        }
        let counter = if SYN {
            Counter::LocalSyn
        } else {
            Counter::LocalSegment
        };
        let verdict = Verdict::local(counter, config.own_index, SYN).of(self.bytes);
        let port = PortField::of_segment(size_of::<H>() - tcp::LENGTH);
        ControlFlow::Break(next.handle(keep_here(verdict, self.service, port)))
    }
}
