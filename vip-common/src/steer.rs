//! The packet decision: steering without a connection table.
//!
//! A packet for the VIP is hashed by its flow to a bucket of the rank table. The bucket lists
//! all backends, in an order that is the same on every node. Whoever receives the packet walks
//! down that order: from the top if it came from a client or a router, from its own rank on if
//! a peer sent it. Another node that may be used gets the packet. At its own rank the node asks
//! its kernel for the socket, and keeps the packet if there is one. Past the last rank the
//! packet stays here, so that the node's own TCP stack answers with a reset.
//!
//! Every handover goes down the order, so nothing loops, and the kernels' socket tables are
//! both the connection table and the first health check: a node whose API server has crashed
//! has no listener, and the SYN goes on.

use crate::hash::{Flow, ServiceHash};
use crate::layout::{Be16, Counter, MAX_BACKENDS, MAX_PORTS, Mac, NOT_A_BACKEND, Vip};
use crate::neighbour;
use crate::node::{Socket, Sockets, Tables, find_vip, is_peer};
use crate::wire::{Frame, FrameMut, arp, ethernet, ipv4, tcp};

/// What to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To this node's stack.
    Pass,
    /// Nowhere.
    Drop,
    /// To this node's stack, as one of the backends.
    Local,
    /// Out of the NIC it came in by, to another node.
    Forward,
    /// Back to its sender, as the answer to his ARP request.
    AnswerArp,
}

/// The decision about a frame.
///
/// Flat, and made only by functions that set every field: the bytes that an enum leaves
/// undefined in its smaller variants are spilled like any others when registers run short, and
/// the verifier refuses a program that reads what was never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    kind: Kind,
    counter: Counter,
    backend: u32,
    mac: Mac,
    syn: bool,
    chained: bool,
}

impl Verdict {
    /// Nothing of ours.
    pub const UNTOUCHED: Self = Self::pass(Counter::Untouched);

    #[inline(always)]
    const fn new(kind: Kind, counter: Counter) -> Self {
        let mac = Mac::UNKNOWN;
        Self {
            kind,
            counter,
            backend: NOT_A_BACKEND,
            mac,
            syn: false,
            chained: false,
        }
    }

    /// To this node's stack.
    #[inline(always)]
    #[must_use]
    pub const fn pass(counter: Counter) -> Self {
        Self::new(Kind::Pass, counter)
    }

    /// Nowhere.
    #[inline(always)]
    #[must_use]
    pub const fn drop(counter: Counter) -> Self {
        Self::new(Kind::Drop, counter)
    }

    /// Somebody who is no node claims the VIP. `asked`: he says so to the VIP itself, and the
    /// stack, which has it, would answer him.
    #[inline(always)]
    #[must_use]
    pub const fn conflict(claimant: Mac, asked: bool) -> Self {
        let kind = if asked { Kind::Drop } else { Kind::Pass };
        Self {
            mac: claimant,
            ..Self::new(kind, Counter::ArpConflict)
        }
    }

    /// To this node's stack: this node, which is the backend `own_index`, is the one. `syn`: the
    /// segment opens a connection.
    #[inline(always)]
    #[must_use]
    pub const fn local(counter: Counter, own_index: u32, syn: bool) -> Self {
        Self {
            backend: own_index,
            syn,
            ..Self::new(Kind::Local, counter)
        }
    }

    /// To another node.
    ///
    /// `chained`: a peer sent it here, so this is not its first hop, and it costs one TTL. With
    /// equal tables that never matters; with different ones (a node with another
    /// configuration) it ends what would go round for ever.
    #[inline(always)]
    #[must_use]
    pub const fn forward(backend: u32, mac: Mac, syn: bool, chained: bool) -> Self {
        let counter = if syn {
            Counter::ForwardedSyn
        } else {
            Counter::ForwardedSegment
        };
        Self {
            kind: Kind::Forward,
            counter,
            backend,
            mac,
            syn,
            chained,
        }
    }

    /// Back to the asker.
    #[inline(always)]
    #[must_use]
    pub const fn answer_arp() -> Self {
        Self::new(Kind::AnswerArp, Counter::ArpAnswered)
    }

    /// What to do.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What to count it as.
    #[inline(always)]
    #[must_use]
    pub const fn counter(&self) -> Counter {
        self.counter
    }

    /// The backend that the frame goes to, for [`Kind::Forward`] and [`Kind::Local`]; else
    /// [`NOT_A_BACKEND`].
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> u32 {
        self.backend
    }

    /// Where the frame goes, for [`Kind::Forward`]; who claims the VIP, for
    /// [`Counter::ArpConflict`]; else [`Mac::UNKNOWN`].
    #[inline(always)]
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// Whether it opens a connection there.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.syn
    }
}

/// What is to happen to the frame once it is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Up the stack (`XDP_PASS`).
    Pass,
    /// Away (`XDP_DROP`).
    Drop,
    /// Out of the NIC it came in by (`XDP_TX`).
    Transmit,
}

/// What happens next to a verdict.
pub trait Next: Copy {
    /// What comes of it.
    type Outcome;

    /// A verdict was found. To be inlined: see [`decide_and`].
    fn found(self, verdict: Verdict) -> Self::Outcome;
}

/// Nothing more: the verdict itself is what comes of it.
#[derive(Clone, Copy)]
struct Found;

impl Next for Found {
    type Outcome = Verdict;

    #[inline(always)]
    fn found(self, verdict: Verdict) -> Verdict {
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
    decide_and(frame, tables, sockets, Found)
}

/// Decides about a frame that came in, and goes on with `next` from the very place where the
/// verdict is found: what is known there need not be kept and asked for again. That is a third
/// of the time a steered packet takes in the kernel.
#[inline(always)]
pub fn decide_and<F, T, S, N>(frame: &F, tables: &T, sockets: &S, next: N) -> N::Outcome
where
    F: Frame + ?Sized,
    T: Tables,
    S: Sockets,
    N: Next,
{
    let Some(ethernet) = frame.view::<ethernet::Header>(0) else {
        return next.found(Verdict::pass(Counter::Short));
    };
    match ethernet.ether_type() {
        ethernet::ether_type::IPV4 => decide_ipv4(frame, ethernet, tables, sockets, next),
        ethernet::ether_type::ARP => next.found(neighbour::decide(frame, ethernet, tables)),
        _ => next.found(Verdict::UNTOUCHED),
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
    N: Next,
{
    let Some(ip) = frame.view::<ipv4::Header>(ethernet::LENGTH) else {
        return next.found(Verdict::pass(Counter::Short));
    };
    // Everything not for a VIP leaves here, after the fewest possible instructions.
    let state = tables.state();
    let Some(vip) = find_vip(state, ip.destination()) else {
        return next.found(Verdict::UNTOUCHED);
    };
    // A NIC in promiscuous mode also sees what a switch floods to others. Were that steered,
    // each node would send its own copy.
    if ethernet.destination() != state.config.own_mac {
        return next.found(Verdict::pass(Counter::OtherHost));
    }

    let length = ip.total_length();
    let ip_header = ip.header_length();
    if ip.version() != 4
        || ip_header < ipv4::LENGTH
        || length < ip_header
        || ethernet::LENGTH + length > frame.length()
    {
        return next.found(Verdict::drop(Counter::Malformed));
    }
    match ip.protocol() {
        ipv4::protocol::TCP => {}
        ipv4::protocol::ICMP => return next.found(Verdict::pass(Counter::Icmp)),
        _ => return next.found(Verdict::drop(Counter::OtherProtocol)),
    }
    // Only the first fragment has the ports. The MSS keeps TCP from being fragmented.
    if ip.is_fragment() {
        return next.found(Verdict::drop(Counter::Fragment));
    }
    let tcp_offset = ethernet::LENGTH + ip_header;
    let Some(tcp) = frame.view::<tcp::Header>(tcp_offset) else {
        return next.found(Verdict::drop(Counter::Malformed));
    };
    let tcp_header = tcp.header_length();
    if tcp_header < tcp::LENGTH || ip_header + tcp_header > length {
        return next.found(Verdict::drop(Counter::Malformed));
    }
    let Some(service) = declared(vip, tcp.destination_port()) else {
        return next.found(Verdict::drop(Counter::UndeclaredPort));
    };

    let segment = Segment {
        service,
        flow: Flow {
            source: ip.source(),
            destination: ip.destination(),
            source_port: tcp.source_port(),
            destination_port: tcp.destination_port(),
        },
        syn: tcp.opens(),
        cookie: tcp.may_acknowledge_cookie(),
        bare_fin: tcp.closes() && ip_header + tcp_header == length,
        tcp_offset,
        chained: is_peer(state, ethernet.source()),
        ttl: ip.ttl(),
    };
    walk(&segment, tables, sockets, next)
}

/// What the walk needs to know of a TCP segment.
struct Segment<'t> {
    service: &'t ServiceHash,
    flow: Flow,
    /// It asks for a new connection.
    syn: bool,
    /// It may acknowledge a SYN cookie.
    cookie: bool,
    /// It ends a connection and carries no data.
    bare_fin: bool,
    /// Offset of the TCP header in the frame, in bytes.
    tcp_offset: usize,
    /// It came from another node of the cluster.
    chained: bool,
    /// Hops left.
    ttl: u8,
}

/// The walk down the ranks.
#[inline(always)]
fn walk<T: Tables, S: Sockets, N: Next>(
    segment: &Segment<'_>,
    tables: &T,
    sockets: &S,
    next: N,
) -> N::Outcome {
    let state = tables.state();
    let config = &state.config;
    let hash = segment
        .service
        .flow(segment.flow.source, segment.flow.source_port);
    let bucket = hash as u32 & config.bucket_mask;
    let Some(row) = tables.row(config.rank_base.wrapping_add(bucket)) else {
        return next.found(Verdict::pass(Counter::NoSocket));
    };
    let usable = if segment.syn {
        state.masks.for_new_connections()
    } else {
        state.masks.alive
    };

    let mut row = row;
    let mut left = (config.backend_count as usize).min(MAX_BACKENDS);
    // A peer has walked down to my rank already.
    if segment.chained {
        while left > 0 && row.first().get() as u32 != config.own_index {
            row = row.rest();
            left -= 1;
        }
    }
    while left > 0 {
        let index = row.first();
        row = row.rest();
        left -= 1;
        let backend = index.get() as u32;
        if backend == config.own_index {
            // One look into the socket table is enough: a node has one rank in a row.
            if let Some(counter) = keep(segment, usable.contains(index), sockets) {
                return next.found(Verdict::local(counter, backend, segment.syn));
            }
            continue;
        }
        let to = state.backends[index.get()].mac;
        if usable.contains(index) && !to.is_unknown() {
            if segment.chained && segment.ttl <= 1 {
                return next.found(Verdict::drop(Counter::TtlExceeded));
            }
            return next.found(Verdict::forward(backend, to, segment.syn, segment.chained));
        }
    }
    next.found(Verdict::pass(Counter::NoSocket))
}

/// Whether this node's own stack wants the segment, and as what that counts. `usable`: it may
/// take new connections.
#[inline(always)]
fn keep<S: Sockets>(segment: &Segment<'_>, usable: bool, sockets: &S) -> Option<Counter> {
    match sockets.lookup(&segment.flow, segment.cookie, segment.tcp_offset) {
        // A SYN that is sent again belongs to the request it made the first time, and one for
        // a connection gets its challenge (RFC 5961), even when this node takes no new ones.
        Socket::Connection if segment.syn => Some(Counter::LocalSyn),
        Socket::Connection => Some(Counter::LocalSegment),
        // A client may use his port again while this is still here: only the side that closes
        // first waits. If this node was not ready then, his new connection is at a node further
        // down, and so must its segments go there. The old one can still be meant only by a
        // FIN: its last one, which may come late or twice.
        Socket::TimeWait if segment.syn => {
            (usable && sockets.listens(&segment.flow)).then_some(Counter::LocalSyn)
        }
        Socket::TimeWait => segment.bare_fin.then_some(Counter::LocalSegment),
        Socket::Listener | Socket::Cookie if segment.syn && usable => Some(Counter::LocalSyn),
        Socket::Cookie if !segment.syn => Some(Counter::LocalCookie),
        Socket::Listener | Socket::Cookie | Socket::None => None,
    }
}

/// What flows to the port are hashed with, if it is declared.
#[inline(always)]
fn declared(vip: &Vip, port: Be16) -> Option<&ServiceHash> {
    let count = (vip.port_count as usize).min(MAX_PORTS);
    let mut index = 0;
    while index < count {
        if vip.ports[index] == port {
            return Some(&vip.hashes[index]);
        }
        index += 1;
    }
    None
}

/// Carries a verdict out on the frame it was given for.
#[inline(always)]
pub fn apply<F, T>(verdict: Verdict, frame: &mut F, tables: &T) -> Action
where
    F: FrameMut + ?Sized,
    T: Tables,
{
    match verdict.kind {
        Kind::Pass | Kind::Local => Action::Pass,
        Kind::Drop => Action::Drop,
        Kind::Forward => forward(verdict.mac, verdict.chained, frame),
        Kind::AnswerArp => answer(frame, tables),
    }
}

#[inline(always)]
fn forward<F: FrameMut + ?Sized>(mac: Mac, chained: bool, frame: &mut F) -> Action {
    if chained {
        let Some(ip) = frame.view_mut::<ipv4::Header>(ethernet::LENGTH) else {
            return Action::Drop;
        };
        ip.decrement_ttl();
    }
    let Some(ethernet) = frame.view_mut::<ethernet::Header>(0) else {
        return Action::Drop;
    };
    // Only frames to this node's own address come this far.
    let own_mac = ethernet.destination();
    ethernet.readdress(mac, own_mac);
    Action::Transmit
}

#[inline(always)]
fn answer<F: FrameMut + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Action {
    let own_mac = tables.state().config.own_mac;
    let Some(packet) = frame.view_mut::<arp::Packet>(ethernet::LENGTH) else {
        return Action::Drop;
    };
    let asker = packet.sender_mac();
    packet.answer(own_mac);
    let Some(ethernet) = frame.view_mut::<ethernet::Header>(0) else {
        return Action::Drop;
    };
    ethernet.readdress(asker, own_mac);
    Action::Transmit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{BackendMask, RankRow};
    use crate::testing::{
        BUCKETS, CLIENT, CLIENT_MAC, Random, Segment as Tcp, VIP, World, arp_frame, arp_request,
        backend, ipv4_checksum_is_right, node_address, node_mac,
    };

    fn forward(to: usize, syn: bool, chained: bool) -> Verdict {
        Verdict::forward(to as u32, node_mac(to), syn, chained)
    }

    fn local(counter: Counter, syn: bool) -> Verdict {
        Verdict::local(counter, 0, syn)
    }

    /// A node's world, changed for one row of the table.
    fn world(change: impl FnOnce(&mut World)) -> World {
        let mut world = World::new(3, 0);
        change(&mut world);
        world
    }

    /// Flows that have node 0 (this one), 1 or 2 first; the order goes round from there.
    fn to(first: usize, flags: u8) -> Tcp {
        Tcp::new(0, 0, flags).first_at(&World::new(3, 0), first)
    }

    fn unready(node: usize) -> impl FnOnce(&mut World) {
        move |world| world.state.masks.ready = world.state.masks.ready.with(backend(node), false)
    }

    fn dead(node: usize) -> impl FnOnce(&mut World) {
        move |world| world.state.masks.alive = world.state.masks.alive.with(backend(node), false)
    }

    fn socket(socket: Socket) -> impl FnOnce(&mut World) {
        move |world| world.socket = socket
    }

    #[test]
    fn every_segment_goes_where_the_table_says() {
        use Counter::*;
        use tcp::{ACK, FIN, RST, SYN};
        let same = |_: &mut World| {};
        let peer = |first, flags| Tcp {
            from: node_mac(2),
            ..to(first, flags)
        };
        let rows: Vec<(&str, World, Tcp, Verdict)> = vec![
            // From a client: from the first rank on.
            (
                "SYN to the first",
                world(same),
                to(1, SYN),
                forward(1, true, false),
            ),
            (
                "data to the first",
                world(same),
                to(1, ACK),
                forward(1, false, false),
            ),
            (
                "SYN past an unready one",
                world(unready(1)),
                to(1, SYN),
                forward(2, true, false),
            ),
            (
                "data to an unready one",
                world(unready(1)),
                to(1, ACK),
                forward(1, false, false),
            ),
            (
                "data past a dead one",
                world(dead(1)),
                to(1, ACK),
                forward(2, false, false),
            ),
            (
                "SYN past a dead one",
                world(dead(1)),
                to(1, SYN),
                forward(2, true, false),
            ),
            (
                "past one whose Ethernet address nobody knows",
                world(|w| w.state.backends[1].mac = Mac::default()),
                to(1, SYN),
                forward(2, true, false),
            ),
            (
                "nobody ready: whoever lives",
                world(|w| w.state.masks.ready = BackendMask::EMPTY),
                to(1, SYN),
                forward(1, true, false),
            ),
            // At its own rank the node asks its stack.
            (
                "SYN, listener",
                world(socket(Socket::Listener)),
                to(0, SYN),
                local(LocalSyn, true),
            ),
            (
                "SYN, none",
                world(same),
                to(0, SYN),
                forward(1, true, false),
            ),
            (
                "SYN, listener that takes no new ones",
                world(|w| {
                    w.socket = Socket::Listener;
                    unready(0)(w);
                }),
                to(0, SYN),
                forward(1, true, false),
            ),
            (
                "SYN sent again while this node drains",
                world(|w| {
                    w.socket = Socket::Connection;
                    unready(0)(w);
                }),
                to(0, SYN),
                local(LocalSyn, true),
            ),
            (
                "data, connection",
                world(socket(Socket::Connection)),
                to(0, ACK),
                local(LocalSegment, false),
            ),
            (
                "data, none",
                world(same),
                to(0, ACK),
                forward(1, false, false),
            ),
            // What is left of a connection takes its FIN, and a new connection if it may.
            (
                "the last FIN, sent again",
                world(socket(Socket::TimeWait)),
                to(0, ACK | FIN),
                local(LocalSegment, false),
            ),
            (
                "SYN from a port that was used before",
                world(|w| {
                    w.socket = Socket::TimeWait;
                    w.listens = true;
                }),
                to(0, SYN),
                local(LocalSyn, true),
            ),
            (
                "the same, but the server has crashed",
                world(socket(Socket::TimeWait)),
                to(0, SYN),
                forward(1, true, false),
            ),
            (
                "the same, but this node takes no new ones",
                world(|w| {
                    w.socket = Socket::TimeWait;
                    w.listens = true;
                    unready(0)(w);
                }),
                to(0, SYN),
                forward(1, true, false),
            ),
            (
                "data of the new connection at another node",
                world(socket(Socket::TimeWait)),
                to(0, ACK),
                forward(1, false, false),
            ),
            (
                "its reset",
                world(socket(Socket::TimeWait)),
                to(0, ACK | RST),
                forward(1, false, false),
            ),
            (
                "data, only a listener",
                world(socket(Socket::Listener)),
                to(0, ACK),
                forward(1, false, false),
            ),
            (
                "cookie",
                world(socket(Socket::Cookie)),
                to(0, ACK),
                local(LocalCookie, false),
            ),
            (
                "cookie with FIN",
                world(socket(Socket::Cookie)),
                to(0, ACK | FIN),
                local(LocalCookie, false),
            ),
            (
                "a reset is no cookie",
                world(socket(Socket::Cookie)),
                to(0, ACK | RST),
                forward(1, false, false),
            ),
            // From a peer: from the own rank on, never back up.
            (
                "chained, mine",
                world(socket(Socket::Connection)),
                peer(2, ACK),
                local(LocalSegment, false),
            ),
            (
                "chained, not mine",
                world(same),
                peer(2, ACK),
                forward(1, false, true),
            ),
            (
                "chained, nobody is left",
                world(same),
                peer(1, ACK),
                Verdict::pass(NoSocket),
            ),
            (
                "chained once too often",
                world(same),
                Tcp {
                    ttl: 1,
                    ..peer(2, ACK)
                },
                Verdict::drop(TtlExceeded),
            ),
            (
                "a last TTL from a client is his own affair",
                world(same),
                Tcp {
                    ttl: 1,
                    ..to(1, ACK)
                },
                forward(1, false, false),
            ),
            // End of the order.
            (
                "nobody else lives and no socket",
                world(|w| {
                    dead(1)(w);
                    dead(2)(w);
                }),
                to(0, ACK),
                Verdict::pass(NoSocket),
            ),
            // Not for the VIP, or not so that we want it.
            (
                "another address",
                world(same),
                Tcp {
                    destination: CLIENT,
                    ..to(1, SYN)
                },
                Verdict::UNTOUCHED,
            ),
            (
                "another host's frame",
                world(same),
                Tcp {
                    to: node_mac(1),
                    ..to(1, SYN)
                },
                Verdict::pass(OtherHost),
            ),
            (
                "broadcast",
                world(same),
                Tcp {
                    to: Mac::BROADCAST,
                    ..to(1, SYN)
                },
                Verdict::pass(OtherHost),
            ),
            (
                "another port",
                world(same),
                Tcp {
                    port: 22,
                    ..to(1, SYN)
                },
                Verdict::drop(UndeclaredPort),
            ),
            (
                "IPv4 options",
                world(same),
                Tcp {
                    options: 10,
                    ..to(1, SYN)
                },
                forward(1, true, false),
            ),
        ];
        for (name, world, segment, expected) in rows {
            let mut frame = segment.build();
            let before = frame.clone();
            let (verdict, action) = world.run(&mut frame);
            assert_eq!(verdict, expected, "{name}");
            match expected.kind {
                Kind::Forward => {
                    assert_eq!(action, Action::Transmit, "{name}");
                    assert_eq!(frame[..6], expected.mac.to_wire(), "{name}: destination");
                    assert_eq!(frame[6..12], node_mac(0).to_wire(), "{name}: source");
                    assert!(ipv4_checksum_is_right(&frame), "{name}: checksum");
                    assert_eq!(
                        frame[22],
                        segment.ttl - u8::from(expected.chained),
                        "{name}: TTL"
                    );
                    assert_eq!(frame[26..], before[26..], "{name}: the rest");
                }
                _ => assert_eq!(frame, before, "{name}: untouched"),
            }
        }
    }

    #[test]
    fn frames_that_contradict_themselves_are_dropped() {
        use Counter::*;
        let good = to(1, tcp::SYN).build();
        let with = |place: usize, value: u8| {
            let mut frame = good.clone();
            frame[place] = value;
            frame
        };
        let rows = [
            ("version 6", with(14, 0x65), Verdict::drop(Malformed)),
            (
                "header of 16 bytes",
                with(14, 0x44),
                Verdict::drop(Malformed),
            ),
            (
                "header longer than the datagram",
                with(14, 0x4f),
                Verdict::drop(Malformed),
            ),
            (
                "datagram longer than the frame",
                with(17, 0xff),
                Verdict::drop(Malformed),
            ),
            (
                "datagram shorter than its header",
                with(17, 10),
                Verdict::drop(Malformed),
            ),
            (
                "datagram shorter than TCP",
                with(17, 39),
                Verdict::drop(Malformed),
            ),
            (
                "TCP header of 16 bytes",
                with(46, 0x40),
                Verdict::drop(Malformed),
            ),
            (
                "TCP header longer than the datagram",
                with(46, 0x60),
                Verdict::drop(Malformed),
            ),
            ("more fragments", with(20, 0x20), Verdict::drop(Fragment)),
            ("a later fragment", with(21, 0x01), Verdict::drop(Fragment)),
            ("UDP", with(23, 17), Verdict::drop(OtherProtocol)),
            ("ICMP", with(23, 1), Verdict::pass(Icmp)),
            ("another EtherType", with(12, 0x86), Verdict::UNTOUCHED),
            ("IPv4 cut short", good[..33].to_vec(), Verdict::pass(Short)),
            (
                "TCP cut short",
                good[..53].to_vec(),
                Verdict::drop(Malformed),
            ),
            (
                "Ethernet cut short",
                good[..13].to_vec(),
                Verdict::pass(Short),
            ),
            ("nothing", vec![], Verdict::pass(Short)),
        ];
        for (name, mut frame, expected) in rows {
            assert_eq!(World::new(3, 0).run(&mut frame).0, expected, "{name}");
        }
    }

    #[test]
    fn only_the_owner_answers_arp_for_the_vip() {
        use Counter::*;
        let owner = World::new(3, 0).owning(true);
        let mut frame = arp_request(VIP);
        assert_eq!(
            owner.run(&mut frame),
            (Verdict::answer_arp(), Action::Transmit)
        );
        let answer = arp::Packet::new(
            arp::operation::REPLY,
            (node_mac(0), VIP),
            (CLIENT_MAC, CLIENT),
        );
        assert_eq!(frame, arp_frame(CLIENT_MAC, node_mac(0), answer));

        let other = World::new(3, 0);
        assert_eq!(
            other.run(&mut arp_request(VIP)).0,
            Verdict::drop(ArpNotOwner)
        );
        for world in [&owner, &other] {
            let request = |from, sender, target| {
                let packet = arp::Packet::new(
                    arp::operation::REQUEST,
                    (from, sender),
                    (Mac::default(), target),
                );
                arp_frame(Mac::BROADCAST, from, packet)
            };
            let stranger = Mac::from_wire([2, 9, 9, 9, 9, 9]);
            let mut rows = [
                (
                    "for a node",
                    arp_request(node_address(0)),
                    Verdict::pass(ArpPassed),
                ),
                (
                    "peer announces",
                    request(node_mac(1), VIP, VIP),
                    Verdict::drop(ArpAnnouncement),
                ),
                (
                    "stranger claims",
                    request(stranger, VIP, VIP),
                    Verdict::conflict(stranger, true),
                ),
                (
                    "stranger asks",
                    request(stranger, VIP, CLIENT),
                    Verdict::conflict(stranger, false),
                ),
                (
                    "cut short",
                    arp_request(VIP)[..41].to_vec(),
                    Verdict::pass(Short),
                ),
            ];
            for (name, frame, expected) in &mut rows {
                assert_eq!(world.run(frame).0, *expected, "{name}");
            }
            let mut unicast = arp_request(VIP);
            unicast[..6].copy_from_slice(&node_mac(2).to_wire());
            assert_eq!(world.run(&mut unicast).0, Verdict::pass(OtherHost));
        }
    }

    #[test]
    fn a_million_random_and_mutated_frames_do_no_harm() {
        let mut random = Random(0x5eed);
        let mut seen = std::collections::HashSet::new();
        let sockets = [
            Socket::None,
            Socket::Listener,
            Socket::Cookie,
            Socket::Connection,
            Socket::TimeWait,
        ];
        let mut world = World::new(3, 0);
        for _ in 0..1_000_000 {
            world = world.owning(random.below(2) == 0);
            world.socket = random.pick(&sockets);
            world.listens = random.below(2) == 0;
            let mut frame = random.frame(3, 0, true);
            let before = frame.len();
            let (verdict, _) = world.run(&mut frame);
            seen.insert(verdict.counter());
            assert_eq!(frame.len(), before);
        }
        // The generator reaches every verdict, so the run means something.
        let guard = [Counter::GuardRewritten, Counter::GuardDropped];
        for counter in Counter::ALL
            .iter()
            .filter(|counter| !guard.contains(counter))
        {
            assert!(
                seen.contains(counter),
                "no frame was counted as {counter:?}"
            );
        }
    }

    /// A cluster on one segment: the nodes' masks may differ, as they do for a moment in life.
    struct Cluster(Vec<World>);

    impl Cluster {
        /// Sends the segment to a node and follows it. Returns the nodes it visited and the
        /// last verdict.
        fn send(&self, segment: Tcp, mut node: usize) -> (Vec<usize>, Verdict) {
            let mut visited = vec![node];
            let mut frame = Tcp {
                to: node_mac(node),
                ..segment
            }
            .build();
            loop {
                let verdict = self.0[node].run(&mut frame).0;
                if verdict.kind != Kind::Forward {
                    return (visited, verdict);
                }
                node = verdict.backend as usize;
                visited.push(node);
                assert!(visited.len() <= self.0.len() + 1, "goes round: {visited:?}");
            }
        }
    }

    proptest! {
        /// Whatever the nodes believe of each other, a packet never loops. It visits no node
        /// twice but the one that it entered by, which has not walked past its own rank then.
        #[test]
        fn a_packet_never_loops(
            nodes in 1..=7_usize, entry in 0..7_usize, port: u16, syn: bool,
            beliefs in proptest::collection::vec((any::<u8>(), any::<u8>()), 7),
            sockets: [bool; 7],
        ) {
            let cluster = Cluster((0..nodes).map(|me| {
                let mut world = World::new(nodes, me);
                for other in 0..nodes {
                    let (alive, ready) = beliefs[me];
                    world.state.masks.alive = world.state.masks.alive.with(backend(other), alive >> other & 1 == 1);
                    world.state.masks.ready = world.state.masks.ready.with(backend(other), ready >> other & 1 == 1);
                }
                world.socket = if sockets[me] { Socket::Connection } else { Socket::None };
                world
            }).collect());
            let flags = if syn { tcp::SYN } else { tcp::ACK };
            let (visited, _) = cluster.send(Tcp::new(0, port, flags), entry % nodes);
            let mut later = visited[1..].to_vec();
            later.sort_unstable();
            later.dedup();
            prop_assert_eq!(later.len(), visited.len() - 1, "{:?}", visited);
        }

        /// With one belief on all nodes, a segment ends at the node that has its connection, by
        /// whichever node it enters, and at one reset if none has it.
        #[test]
        fn a_segment_finds_its_connection(
            nodes in 1..=7_usize, entry in 0..7_usize, holder in 0..8_usize, port: u16, alive: u8,
        ) {
            let entry = entry % nodes;
            let mut mask = BackendMask::EMPTY;
            for node in 0..nodes {
                // A node that runs the program is alive to itself.
                mask = mask.with(backend(node), node == entry || alive >> node & 1 == 1);
            }
            let cluster = Cluster((0..nodes).map(|me| {
                let mut world = World::new(nodes, me);
                world.state.masks.alive = mask;
                world.socket = if me == holder { Socket::Connection } else { Socket::None };
                world
            }).collect());
            let (visited, verdict) = cluster.send(Tcp::new(0, port, tcp::ACK), entry);
            if holder < nodes && mask.contains(backend(holder)) {
                prop_assert_eq!(visited.last(), Some(&holder));
                prop_assert_eq!(verdict, Verdict::local(Counter::LocalSegment, holder as u32, false));
            } else {
                prop_assert_eq!(verdict, Verdict::pass(Counter::NoSocket));
            }
        }
    }

    #[test]
    fn nodes_with_different_tables_cannot_send_a_packet_round_for_ever() {
        // Two nodes that disagree about every order: a mistake in the configuration.
        let mut worlds = [World::new(2, 0), World::new(2, 1)];
        for row in 0..BUCKETS as usize {
            worlds[0].rows[row] = RankRow::new([0, 1].map(backend));
            worlds[1].rows[row] = RankRow::new([1, 0].map(backend));
        }
        let mut frame = Tcp::new(0, 1, tcp::ACK).build();
        let mut node = 0;
        for _ in 0..=64 {
            let verdict = worlds[node].run(&mut frame).0;
            if verdict.kind != Kind::Forward {
                assert_eq!(verdict, Verdict::drop(Counter::TtlExceeded));
                return;
            }
            node = verdict.backend as usize;
        }
        panic!("still going after 64 hops");
    }
}
