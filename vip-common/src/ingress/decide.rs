//! The decision about a frame that arrived: its headers are checked, then [`walk`] finds its node.

use super::neighbor;
use super::passage::Passage;
use super::refused::refused;
use super::straight::Known;
use super::walk::{Purpose, Segment, walk};
use crate::abi::lookup::{find_ipv4, find_ipv6, service};
use crate::abi::{Counter, State, Vip};
use crate::env::{Address, Sockets, Tables};
use crate::hash::Flow;
use crate::verdict::{PortField, Verdict, VerdictHandler};
use crate::wire::addr::{Be32, Be128};
use crate::wire::{Frame, ethernet, icmp, ipv4, ipv6, tcp};

/// Decides about a frame that the straight path leaves, and calls `next` at the place where the
/// verdict is found. `known` is what the straight path has found out about the frame, from which
/// tags have been taken off since ([`untag`](super::untag())).
#[inline(always)]
pub fn decide<F, T, S, N>(frame: &F, tables: &T, sockets: &S, known: Known, next: N) -> N::Outcome
where
    F: Frame + ?Sized,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let Some(ethernet) = frame.view::<ethernet::Header>(0) else {
        return next.handle(Verdict::pass(Counter::Short));
    };
    let known = known.hidden(tables.state());
    match ethernet.ether_type() {
        ethernet::ether_type::IPV4 => decide_ipv4(frame, ethernet, tables, sockets, known, next),
        ethernet::ether_type::IPV6 => decide_ipv6(frame, ethernet, tables, sockets, known, next),
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
    known: Known,
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
    // Frames that are not for a VIP return here, after as few instructions as possible.
    let state = tables.state();
    let Some(vip) = find_ipv4(state, ip.destination()) else {
        return next.handle(Verdict::UNTOUCHED);
    };
    // A NIC in promiscuous mode also receives frames that a switch floods. If nodes forwarded
    // those, each node would send a copy.
    if !state.config.is_own(ethernet.destination()) {
        return next.handle(other_host(ethernet));
    }

    let mut length = ip.total_length();
    let header = ip.header_length();
    if length < header {
        if length != 0 || !exceeds_length_field(frame, ethernet::LENGTH) {
            return next.handle(Verdict::drop(Counter::Malformed));
        }
        length = MAX_LENGTH;
    }
    let end = ethernet::LENGTH + length;
    if ip.version() != 4
        || header < ipv4::LENGTH
        // Only the beginning of a large frame can be viewed.
        || end > frame.length() && end > frame.whole_length()
    {
        return next.handle(Verdict::drop(Counter::Malformed));
    }
    let datagram = Datagram {
        vip,
        source: ip.source(),
        destination: ip.destination(),
        passage: Passage::of(state, ethernet.source(), ip.ttl()),
        end,
        known,
    };
    let payload = ethernet::LENGTH + header;
    match ip.protocol() {
        // Only the first fragment has the ports. The MSS keeps TCP segments from being fragmented.
        ipv4::protocol::TCP if ip.is_fragment() => next.handle(Verdict::drop(Counter::Fragment)),
        ipv4::protocol::TCP => decide_tcp(frame, &datagram, payload, tables, sockets, next),
        // A later fragment has no ICMP header.
        ipv4::protocol::ICMP if ip.is_fragment() => next.handle(Verdict::pass(Counter::Icmp)),
        ipv4::protocol::ICMP => match quoted_ipv4(frame, state, &datagram, payload) {
            Some(segment) => walk(frame, &segment, tables, sockets, next),
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
    known: Known,
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
    let found = find_ipv6(state, ip.destination());
    // Solicitations are sent to a multicast group.
    if ip.next_header() == ipv6::next_header::ICMP
        && state.config.ipv6_count != 0
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
    if length == 0 && exceeds_length_field(frame, behind) {
        length = MAX_LENGTH;
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
        passage: Passage::of(state, ethernet.source(), ip.hop_limit()),
        end,
        known,
    };
    match protocol {
        ipv6::next_header::TCP => decide_tcp(frame, &datagram, payload, tables, sockets, next),
        ipv6::next_header::FRAGMENT => next.handle(Verdict::drop(Counter::Fragment)),
        ipv6::next_header::ICMP => match quoted_ipv6(frame, state, &datagram, payload) {
            Some(segment) => walk(frame, &segment, tables, sockets, next),
            None => next.handle(Verdict::pass(Counter::Icmp)),
        },
        _ => next.handle(Verdict::drop(Counter::OtherProtocol)),
    }
}

/// The verdict about a frame for a VIP whose Ethernet destination is not this NIC's address. The
/// stack discards a frame for another host. It would accept one for a multicast group, except TCP.
#[inline(always)]
fn other_host(ethernet: &ethernet::Header) -> Verdict {
    if ethernet.destination().is_multicast() {
        Verdict::drop(Counter::OtherHost)
    } else {
        Verdict::pass(Counter::OtherHost)
    }
}

/// Largest length in bytes that the field of an IP header can hold.
const MAX_LENGTH: usize = 0xffff;

/// Whether the packet at offset `begin` of the frame is longer than its header's field can hold.
/// The kernel writes a length of 0 into such packets, which it merges from segments (BIG TCP;
/// `iphdr_set_totlen` in include/linux/ip.h, `ipv6_gro_complete` in net/ipv6/ip6_offload.c).
/// They count with [`MAX_LENGTH`] bytes, so that the verifier sees one range of lengths.
#[inline(always)]
fn exceeds_length_field<F: Frame + ?Sized>(frame: &F, begin: usize) -> bool {
    frame.whole_length() > begin + MAX_LENGTH
}

/// A datagram for a VIP.
struct Datagram<'t, A> {
    vip: &'t Vip,
    source: A,
    destination: A,
    passage: Passage,
    /// Offset of its end in the frame, in bytes.
    end: usize,
    /// What the straight path has found out.
    known: Known,
}

/// Decides about a TCP segment for a VIP. Its header is at `offset` in the frame, in bytes.
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
    // A peer that handed the segment on has counted it.
    let counted = datagram.passage.from_peer;
    if syn
        && service.flags != 0
        && !datagram.known.admitted
        && let Some(counter) = refused(service, datagram.source.into(), counted, tables)
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
        purpose: if syn {
            Purpose::Open
        } else {
            Purpose::Continue
        },
        cookie: tcp.may_acknowledge_cookie(),
        sequence: tcp.sequence(),
        acknowledgement: tcp.acknowledgement(),
        acknowledges: tcp.acknowledges(),
        tcp: offset,
        port: PortField::of_segment(offset),
        no_socket: datagram.known.no_socket,
        passage: datagram.passage,
        bytes: datagram.end as u32,
    };
    walk(frame, &segment, tables, sockets, next)
}

/// The segment from the VIP that an ICMP error quotes; `None` if it quotes none. The message is at
/// `offset` in the frame, in bytes.
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
    // The kernel's TCP sends no extension headers, and routers add none.
    let quotes = ip.version() == 6
        && ip.next_header() == ipv6::next_header::TCP
        && ip.source() == datagram.destination;
    if !quotes {
        return None;
    }
    let tcp = quote + ipv6::LENGTH;
    quoted(frame, state, datagram, ip.destination(), offset, tcp)
}

/// The quoted segment as its client would send it: source and destination are swapped. `icmp` and
/// `tcp` are the offsets of the message and of the quoted header in the frame, in bytes.
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
        purpose: Purpose::Error,
        cookie: false,
        sequence: 0,
        acknowledgement: 0,
        acknowledges: false,
        tcp,
        // The compiler knows: if the later header lies within the frame, the earlier one does too.
        // It would check only the later one, and the verifier would refuse the access.
        port: PortField {
            offset: tcp,
            checksum: state.hide_from_verifier::<{ ipv6::MAX_OFFSET }>(icmp + icmp::CHECKSUM),
        },
        no_socket: false,
        passage: datagram.passage,
        bytes: datagram.end as u32,
    })
}
