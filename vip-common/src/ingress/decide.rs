//! The decision about a frame that came in: its headers are checked, and the walk says where it goes.

use super::walk::{Segment, What, walk};
use super::{hops, neighbor};
use crate::abi::lookup::{find, find_ipv4, is_peer, service};
use crate::abi::{Counter, Service, State, Vip, flag};
use crate::env::{Address, Sockets, Tables};
use crate::hash::Flow;
use crate::verdict::{Verdict, VerdictHandler};
use crate::wire::addr::{Be32, Be128};
use crate::wire::{Frame, ethernet, icmp, ipv4, ipv6, tcp};

/// Nothing more: the verdict itself is what comes of it.
#[derive(Clone, Copy)]
struct Found;

impl VerdictHandler for Found {
    type Outcome = Verdict;

    #[inline(always)]
    fn handle(self, verdict: Verdict) -> Verdict {
        verdict
    }
}

/// Decides about a frame that came in. Changes nothing.
#[inline(always)]
pub fn decide<F, T, S>(frame: &F, tables: &T, sockets: &S) -> Verdict
where
    F: Frame + ?Sized,
    T: Tables,
    S: Sockets,
{
    decide_with(frame, tables, sockets, Found)
}

/// Decides about a frame that came in, and goes on with `next` from the very place where the
/// verdict is found: what is known there need not be kept and asked for again. That is a third
/// of the time a steered packet takes in the kernel.
#[inline(always)]
pub fn decide_with<F, T, S, N>(frame: &F, tables: &T, sockets: &S, next: N) -> N::Outcome
where
    F: Frame + ?Sized,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let Some(ethernet) = frame.view::<ethernet::Header>(0) else {
        return next.handle(Verdict::pass(Counter::Short));
    };
    match ethernet.ether_type() {
        ethernet::ether_type::IPV4 => decide_ipv4(frame, ethernet, tables, sockets, next),
        ethernet::ether_type::IPV6 => decide_ipv6(frame, ethernet, tables, sockets, next),
        ethernet::ether_type::ARP => next.handle(neighbor::decide_arp(frame, ethernet, tables)),
        _ => next.handle(Verdict::UNTOUCHED),
    }
}

#[inline(always)]
fn decide_ipv4<F, T, S, N>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
    sockets: &S,
    next: N,
) -> N::Outcome
where
    F: Frame + ?Sized,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let Some(ip) = frame.view::<ipv4::Header>(ethernet::LENGTH) else {
        return next.handle(Verdict::pass(Counter::Short));
    };
    // Everything not for a VIP leaves here, after the fewest possible instructions.
    let state = tables.state();
    let Some(vip) = find_ipv4(state, ip.destination()) else {
        return next.handle(Verdict::UNTOUCHED);
    };
    // A NIC in promiscuous mode also sees what a switch floods to others. Were that steered,
    // each node would send its own copy.
    if !state.config.is_own(ethernet.destination()) {
        return next.handle(other_host(ethernet));
    }

    let mut length = ip.total_length();
    let header = ip.header_length();
    if length < header {
        if length != 0 || !is_larger_than_said(frame, ethernet::LENGTH) {
            return next.handle(Verdict::drop(Counter::Malformed));
        }
        length = LONGEST_SAID;
    }
    let end = ethernet::LENGTH + length;
    if ip.version() != 4
        || header < ipv4::LENGTH
        // The frame may be a large one of which only the beginning can be viewed.
        || end > frame.length() && end > frame.whole_length()
    {
        return next.handle(Verdict::drop(Counter::Malformed));
    }
    let datagram = Datagram {
        vip,
        source: ip.source(),
        destination: ip.destination(),
        ttl: ip.ttl(),
        from_peer: is_from_peer(state, ethernet, ip.ttl()),
        end,
    };
    let payload = ethernet::LENGTH + header;
    match ip.protocol() {
        // Only the first fragment has the ports. The MSS keeps TCP from being fragmented.
        ipv4::protocol::TCP if ip.is_fragment() => next.handle(Verdict::drop(Counter::Fragment)),
        ipv4::protocol::TCP => decide_tcp(frame, &datagram, payload, tables, sockets, next),
        // What lies in a later fragment is no header.
        ipv4::protocol::ICMP if ip.is_fragment() => next.handle(Verdict::pass(Counter::Icmp)),
        ipv4::protocol::ICMP => match quoted_ipv4(frame, state, &datagram, payload) {
            Some(segment) => walk(&segment, tables, sockets, next),
            None => next.handle(Verdict::pass(Counter::Icmp)),
        },
        _ => next.handle(Verdict::drop(Counter::OtherProtocol)),
    }
}

#[inline(always)]
fn decide_ipv6<F, T, S, N>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
    sockets: &S,
    next: N,
) -> N::Outcome
where
    F: Frame + ?Sized,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let Some(ip) = frame.view::<ipv6::Header>(ethernet::LENGTH) else {
        return next.handle(Verdict::pass(Counter::Short));
    };
    let state = tables.state();
    let found = find(state, ip.destination());
    // Solicitations come by multicast.
    if ip.next_header() == ipv6::next_header::ICMP
        && state.config.vip_count != state.config.ipv4_count
        && let Some(verdict) = neighbor::decide_ndp(frame, ethernet, ip, tables)
    {
        return next.handle(verdict);
    }
    let Some(vip) = found else {
        return next.handle(Verdict::UNTOUCHED);
    };
    if !state.config.is_own(ethernet.destination()) {
        return next.handle(other_host(ethernet));
    }

    let behind = ethernet::LENGTH + ipv6::LENGTH;
    let mut length = ip.payload_length();
    if length == 0 && is_larger_than_said(frame, behind) {
        length = LONGEST_SAID;
    }
    let end = behind + length;
    if ip.version() != 6 || end > frame.length() && end > frame.whole_length() {
        return next.handle(Verdict::drop(Counter::Malformed));
    }
    let Some((protocol, payload)) = ipv6::upper_layer(frame, ip.next_header(), behind)
        .and_then(|found| ipv6::past_fragment_header(frame, found))
    else {
        return next.handle(Verdict::drop(Counter::Malformed));
    };
    let payload = state.hide_from_verifier::<{ ipv6::MAX_OFFSET }>(payload);
    let datagram = Datagram {
        vip,
        source: ip.source(),
        destination: ip.destination(),
        ttl: ip.hop_limit(),
        from_peer: is_from_peer(state, ethernet, ip.hop_limit()),
        end,
    };
    match protocol {
        ipv6::next_header::TCP => decide_tcp(frame, &datagram, payload, tables, sockets, next),
        ipv6::next_header::FRAGMENT => next.handle(Verdict::drop(Counter::Fragment)),
        ipv6::next_header::ICMP => match quoted_ipv6(frame, state, &datagram, payload) {
            Some(segment) => walk(&segment, tables, sockets, next),
            None => next.handle(Verdict::pass(Counter::Icmp)),
        },
        _ => next.handle(Verdict::drop(Counter::OtherProtocol)),
    }
}

/// A frame for a VIP, but not for this NIC's address. The stack has no use for one to another
/// host, but takes what is sent to a group and to an address of its own, if it is not TCP.
#[inline(always)]
fn other_host(ethernet: &ethernet::Header) -> Verdict {
    if ethernet.destination().is_multicast() {
        Verdict::drop(Counter::OtherHost)
    } else {
        Verdict::pass(Counter::OtherHost)
    }
}

/// Longest datagram whose length a header can say, in bytes.
const LONGEST_SAID: usize = 0xffff;

/// Whether what begins at `begin` in the frame is longer than its header can say: what the kernel
/// has put together from more segments (BIG TCP; `iphdr_set_totlen` in include/linux/ip.h,
/// `ipv6_gro_complete` in net/ipv6/ip6_offload.c) says 0. It is counted as the longest that can be
/// said, which the verifier does not tell from any other length.
#[inline(always)]
fn is_larger_than_said<F: Frame + ?Sized>(frame: &F, begin: usize) -> bool {
    frame.whole_length() > begin + LONGEST_SAID
}

/// Whether the walk begins at this node's own rank: another node has handed the frame over, or it
/// has made all its hops, and nobody else will look for its socket. Nodes also send what is their
/// own, or what they route for others: that has another TTL, and begins like a client's.
#[inline(always)]
fn is_from_peer(state: &State, ethernet: &ethernet::Header, ttl: u8) -> bool {
    hops::may_be_handed_on(ttl)
        && (is_peer(state, ethernet.source())
            || hops::are_spent(ttl.into(), state.config.backend_count))
}

/// A datagram for a VIP.
struct Datagram<'t, A> {
    vip: &'t Vip,
    source: A,
    destination: A,
    /// Hops left.
    ttl: u8,
    /// It begins at this node's own rank: another node has handed it over, or it has made all its
    /// hops.
    from_peer: bool,
    /// Where it ends in the frame, in bytes.
    end: usize,
}

/// Decides about a TCP segment for a VIP, whose header is at `offset`.
#[inline(always)]
fn decide_tcp<F, A, T, S, N>(
    frame: &F,
    datagram: &Datagram<'_, A>,
    offset: usize,
    tables: &T,
    sockets: &S,
    next: N,
) -> N::Outcome
where
    F: Frame + ?Sized,
    A: Address,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let Some(tcp) = frame.view::<tcp::Header>(offset) else {
        return next.handle(Verdict::drop(Counter::Malformed));
    };
    let header = tcp.header_length();
    if header < tcp::LENGTH || offset + header > datagram.end {
        return next.handle(Verdict::drop(Counter::Malformed));
    }
    let state = tables.state();
    let Some(service) = service(state, datagram.vip, |service| {
        service.port == tcp.destination_port()
    }) else {
        return next.handle(Verdict::drop(Counter::UndeclaredPort));
    };
    let syn = tcp.opens();
    if service.flags != 0
        && let Some(counter) = refused(service, datagram, syn, tables)
    {
        return next.handle(Verdict::drop(counter));
    }
    let segment = Segment {
        service,
        flow: Flow {
            source: datagram.source,
            destination: datagram.destination,
            source_port: tcp.source_port(),
            destination_port: service.target,
        },
        what: if syn { What::Syn } else { What::Other },
        cookie: tcp.may_acknowledge_cookie(),
        sequence: tcp.sequence(),
        tcp: offset,
        port: (offset + tcp::DESTINATION_PORT, offset + tcp::CHECKSUM),
        from_peer: datagram.from_peer,
        ttl: datagram.ttl,
        bytes: datagram.end as u32,
    };
    walk(&segment, tables, sockets, next)
}

/// Why a segment may not use a service that not everybody may use as it likes.
#[inline(always)]
fn refused<A: Address, T: Tables>(
    service: &Service,
    datagram: &Datagram<'_, A>,
    syn: bool,
    tables: &T,
) -> Option<Counter> {
    if service.flags & flag::ALLOW_LIST != 0 && !tables.allows(service.id, datagram.source.into()) {
        return Some(Counter::NotAllowed);
    }
    // Once is enough: a SYN may pass several nodes. But a TTL is no proof that it has.
    let counted = datagram.from_peer
        && !hops::are_spent(datagram.ttl.into(), tables.state().config.backend_count);
    if service.flags & flag::SYN_LIMIT != 0
        && syn
        && !counted
        && !tables.admits(service, datagram.source.into())
    {
        return Some(Counter::SynLimited);
    }
    None
}

/// What an ICMP error is about, if that is a segment from the VIP. The message is at `offset`.
#[inline(always)]
fn quoted_ipv4<'t, F: Frame + ?Sized>(
    frame: &F,
    state: &State,
    datagram: &Datagram<'t, Be32>,
    offset: usize,
) -> Option<Segment<'t, Be32>> {
    if !frame.view::<icmp::Header>(offset)?.quotes_ipv4() {
        return None;
    }
    let quote = offset + icmp::LENGTH;
    let ip = frame.view::<ipv4::Header>(quote)?;
    let quotes = ip.version() == 4
        && ip.protocol() == ipv4::protocol::TCP
        && ip.header_length() >= ipv4::LENGTH
        && !ip.is_fragment()
        && ip.source() == datagram.destination;
    if !quotes {
        return None;
    }
    let tcp = quote + ip.header_length();
    quoted(frame, state, datagram, ip.destination(), offset, tcp)
}

/// The same for ICMPv6.
#[inline(always)]
fn quoted_ipv6<'t, F: Frame + ?Sized>(
    frame: &F,
    state: &State,
    datagram: &Datagram<'t, Be128>,
    offset: usize,
) -> Option<Segment<'t, Be128>> {
    if !frame.view::<icmp::Header>(offset)?.quotes_ipv6() {
        return None;
    }
    let quote = offset + icmp::LENGTH;
    let ip = frame.view::<ipv6::Header>(quote)?;
    // What the kernel's TCP sent has no extension headers, and routers add none.
    let quotes = ip.version() == 6
        && ip.next_header() == ipv6::next_header::TCP
        && ip.source() == datagram.destination;
    if !quotes {
        return None;
    }
    let tcp = quote + ipv6::LENGTH;
    quoted(frame, state, datagram, ip.destination(), offset, tcp)
}

/// The flow of a quoted segment, as its client's segments name it.
#[inline(always)]
fn quoted<'t, F: Frame + ?Sized, A: Address>(
    frame: &F,
    state: &State,
    datagram: &Datagram<'t, A>,
    client: A,
    icmp: usize,
    tcp: usize,
) -> Option<Segment<'t, A>> {
    let ports = frame.view::<tcp::Ports>(tcp)?;
    let service = service(state, datagram.vip, |service| {
        service.port == ports.source()
    })?;
    Some(Segment {
        service,
        flow: Flow {
            source: client,
            destination: datagram.destination,
            source_port: ports.destination(),
            destination_port: service.target,
        },
        what: What::Error,
        cookie: false,
        sequence: 0,
        tcp,
        // The compiler knows that what comes earlier in the frame is within it if what comes
        // later is, and would look only at that; the verifier does not know it.
        port: (
            tcp,
            state.hide_from_verifier::<{ ipv6::MAX_OFFSET }>(icmp + icmp::CHECKSUM),
        ),
        from_peer: datagram.from_peer,
        ttl: datagram.ttl,
        bytes: datagram.end as u32,
    })
}
