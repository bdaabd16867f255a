//! The decision about a frame that is about to leave by the NIC. It has three purposes:
//!
//! - No ARP or Neighbor Discovery that names the VIP as its sender leaves a node which is not the
//!   owner.
//! - A segment from a service with another target leaves with the port that clients know.
//! - Connections of this node and its pods to a member that is gone are reset. The connect programs
//!   made them: they are between own addresses, so no node that lives ever sees their segments.
//!
//! When a node answers a client from the VIP, it may first have to ask for the client's Ethernet
//! address. Its kernel names the VIP as the sender of that ARP request (`arp_announce=0`, the
//! default), and the whole segment would learn that the VIP is here. The request is therefore
//! rewritten to name the node; dropped, it would leave the client without an answer. With IPv6 the
//! kernel names an address of the NIC (`ndisc_solicit` in net/ipv6/ndisc.c).

use crate::abi::lookup::{find_ipv4, find_ipv6, is_own_address_of, is_target, service};
use crate::abi::{BackendMask, Counter, State, Vip, lease_stands};
use crate::env::Tables;
use crate::wire::addr::{Be16, Be128};
use crate::wire::checksum::Sum;
use crate::wire::time::BootNanos;
use crate::wire::{Frame, Shorten, arp, ethernet, ipv4, ipv6, ndp, tcp};

/// The action on a frame that is about to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Let it leave as it is.
    Pass,
    /// Let it leave with the node's own address as its ARP sender.
    NameNode,
    /// Let it leave with the service's port as its source port.
    NamePort,
    /// Discard it.
    Drop,
    /// Discard it: it is the agent's self-test of this program.
    SelfTest,
    /// Answer it with a reset in the name of the member that it goes to, which is gone.
    Reset,
    /// Let it come in by the NIC as it is: the agent sends it in the name of a member that is gone.
    Return,
}

/// The way of a frame once it is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It leaves.
    Leave,
    /// It is discarded.
    Drop,
    /// It comes in by the NIC that it was about to leave by. So connection tracking and NAT bring it
    /// to the socket, in a pod too.
    ComeIn,
}

impl From<bool> for Action {
    /// A frame leaves if it was rewritten as it must be.
    #[inline(always)]
    fn from(rewritten: bool) -> Self {
        if rewritten { Self::Leave } else { Self::Drop }
    }
}

/// The decision about a frame that is about to leave. Flat for the same reason as
/// [`verdict::Verdict`](crate::verdict::Verdict).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    kind: Kind,
    /// Offset of the TCP header in the frame, in bytes, for [`Kind::NamePort`] and [`Kind::Reset`].
    tcp: u32,
    port: Be16,
}

impl Verdict {
    #[inline(always)]
    const fn new(kind: Kind) -> Self {
        let port = Be16::new(0);
        Self { kind, tcp: 0, port }
    }

    /// The action that the program takes.
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Whether the frame will come in by the NIC instead of leaving.
    #[inline(always)]
    #[must_use]
    pub const fn comes_in(self) -> bool {
        matches!(self.kind, Kind::Reset | Kind::Return)
    }

    /// The counter that the frame adds to; `None` if it is not counted.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Option<Counter> {
        match self.kind {
            Kind::Pass | Kind::NamePort | Kind::Return => None,
            Kind::NameNode => Some(Counter::GuardRewritten),
            Kind::Drop => Some(Counter::GuardDropped),
            Kind::SelfTest => Some(Counter::GuardTested),
            Kind::Reset => Some(Counter::GoneReset),
        }
    }
}

/// Whether no IPv4 frame needs a decision: no service has another target, and no member is gone.
/// So it is in normal life, and nearly all frames leave after this question.
#[inline(always)]
#[must_use]
pub fn skips_ipv4(state: &State) -> bool {
    state.config.maps_ports == 0 && gone(state, state.config.ipv4_nodes).is_empty()
}

/// The members that are gone among these.
#[inline(always)]
fn gone(state: &State, nodes: BackendMask) -> BackendMask {
    nodes.without(state.masks.not_gone)
}

/// Decides about a frame that is about to leave.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Verdict {
    let Some(ethernet) = frame.view::<ethernet::Header>(0) else {
        return Verdict::new(Kind::Pass);
    };
    let verdict = match ethernet.ether_type() {
        ethernet::ether_type::ARP => decide_arp(frame, ethernet, tables),
        ethernet::ether_type::IPV4 => decide_ipv4(frame, ethernet, tables),
        ethernet::ether_type::IPV6 => decide_ipv6(frame, ethernet, tables),
        _ => None,
    };
    verdict.unwrap_or(Verdict::new(Kind::Pass))
}

/// Lets the frame leave if this node is the owner.
#[inline(always)]
fn as_owner<T: Tables>(answer_until: BootNanos, tables: &T) -> Verdict {
    Verdict::new(if lease_stands(answer_until, tables.now()) {
        Kind::Pass
    } else {
        Kind::Drop
    })
}

#[inline(always)]
fn decide_arp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
) -> Option<Verdict> {
    let packet = frame.view::<arp::Packet>(ethernet::LENGTH)?;
    if !packet.is_ipv4_over_ethernet() {
        return None;
    }
    if packet.operation() == arp::operation::SELF_TEST
        && ethernet.source() == ethernet.destination()
    {
        return Some(Verdict::new(Kind::SelfTest));
    }
    let vip = find_ipv4(tables.state(), packet.sender_address())?;
    // An announcement has the VIP as sender and as target address (RFC 5227, section 3). Replies
    // come from the ingress program: where it is a tcx program, its frames pass here.
    let announces = packet.target_address() == packet.sender_address();
    Some(
        if announces || packet.operation() == arp::operation::REPLY {
            as_owner(vip.answer_until, tables)
        } else {
            Verdict::new(Kind::NameNode)
        },
    )
}

#[inline(always)]
fn decide_ipv4<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
) -> Option<Verdict> {
    let state = tables.state();
    if skips_ipv4(state) {
        return None;
    }
    let ip = frame.view::<ipv4::Header>(ethernet::LENGTH)?;
    if ip.protocol() != ipv4::protocol::TCP || ip.is_fragment() {
        return None;
    }
    let gone = gone(state, state.config.ipv4_nodes);
    // No TCP sends options, so that a reset has its headers where the segment has them.
    if !gone.is_empty() && ip.has_no_options() {
        let ends = [ip.source().into(), ip.destination().into()];
        let tcp = ethernet::LENGTH + ipv4::LENGTH;
        let verdict = end_connection(frame, ethernet, tables, gone, ends, tcp);
        if verdict.is_some() {
            return verdict;
        }
    }
    if state.config.maps_ports == 0 {
        return None;
    }
    let vip = find_ipv4(state, ip.source())?;
    name_port(frame, state, vip, ethernet::LENGTH + ip.header_length())
}

#[inline(always)]
fn decide_ipv6<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
) -> Option<Verdict> {
    let state = tables.state();
    if state.config.ipv6_count == 0 {
        return None;
    }
    let ip = frame.view::<ipv6::Header>(ethernet::LENGTH)?;
    let behind = ethernet::LENGTH + ipv6::LENGTH;
    match ip.next_header() {
        ipv6::next_header::ICMP => {
            let message = frame.view::<ndp::Message>(behind)?;
            match message.kind() {
                ndp::kind::SOLICITATION => {
                    let _vip = find_ipv6(state, ip.source())?;
                    Some(Verdict::new(Kind::Drop))
                }
                ndp::kind::ADVERTISEMENT => {
                    let vip = find_ipv6(state, message.target())?;
                    Some(as_owner(vip.answer_until, tables))
                }
                _ => None,
            }
        }
        // What the kernel's TCP sends has no extension headers.
        ipv6::next_header::TCP => {
            let gone = gone(state, state.config.ipv6_nodes);
            if !gone.is_empty() {
                let ends = [ip.source(), ip.destination()];
                let verdict = end_connection(frame, ethernet, tables, gone, ends, behind);
                if verdict.is_some() {
                    return verdict;
                }
            }
            if state.config.maps_ports == 0 {
                return None;
            }
            name_port(frame, state, find_ipv6(state, ip.source())?, behind)
        }
        _ => None,
    }
}

/// The verdict about a segment to or from one of the members that are `gone`. `ends`: its source
/// and destination. `tcp` is the offset of the TCP header in the frame, in bytes.
///
/// These members are gone by the same facts by which the ingress decision resets a client's segment.
#[inline(always)]
fn end_connection<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
    gone: BackendMask,
    ends: [Be128; 2],
    tcp: usize,
) -> Option<Verdict> {
    let state = tables.state();
    let [source, destination] = ends;
    let own = state.config.own_mac;
    // Never sent to a switch: only the agent sends such frames.
    let returns = ethernet.source() == own && ethernet.destination() == own;
    let member = if returns { source } else { destination };
    let knows_peers = state.masks.no_forward.is_empty();
    if !knows_peers
        || !is_own_address_of(state, gone, member)
        || !lease_stands(state.resets_until, tables.now())
    {
        return None;
    }
    if returns {
        return Some(Verdict::new(Kind::Return));
    }
    let segment = frame.view::<tcp::Header>(tcp)?;
    // A SYN leaves as it is: probes are to find a member that is back.
    let ends = segment.is_answered_by_reset() && is_target(state, segment.destination_port());
    ends.then_some(Verdict {
        tcp: tcp as u32,
        ..Verdict::new(Kind::Reset)
    })
}

/// The verdict about a segment from a VIP, if its service has another target. `tcp` is the offset
/// of the TCP header in the frame, in bytes.
#[inline(always)]
fn name_port<F: Frame + ?Sized>(
    frame: &F,
    state: &State,
    vip: &Vip,
    tcp: usize,
) -> Option<Verdict> {
    let port = frame.view::<tcp::Header>(tcp)?.source_port();
    let service = service(state, vip, |service| service.target == port)?;
    service.maps_port().then_some(Verdict {
        kind: Kind::NamePort,
        tcp: tcp as u32,
        port: service.port,
    })
}

/// Rewrites the frame for which the verdict was given.
#[inline(always)]
pub fn apply<F, T>(verdict: Verdict, frame: &mut F, tables: &T) -> Action
where
    F: Shorten + ?Sized,
    T: Tables,
{
    match verdict.kind {
        Kind::Pass => Action::Leave,
        Kind::Drop | Kind::SelfTest => Action::Drop,
        Kind::Return => Action::ComeIn,
        Kind::Reset => {
            let by_ipv6 = verdict.tcp as usize == ethernet::LENGTH + ipv6::LENGTH;
            let reset = if by_ipv6 {
                become_reset_by_ipv6(frame)
            } else {
                become_reset_by_ipv4(frame)
            };
            // The sender repeats a segment that cannot be shortened for want of memory.
            reset.map_or(Action::Drop, |()| Action::ComeIn)
        }
        Kind::NameNode => {
            let own = tables.state().config.own_address;
            let packet = frame.view_mut::<arp::Packet>(ethernet::LENGTH);
            Action::from(
                packet
                    .map(|packet| packet.set_sender_address(own))
                    .is_some(),
            )
        }
        Kind::NamePort => {
            // The verifier of Linux 6.1 has lost the upper bound of this offset.
            let tcp = verdict.tcp as usize;
            let tcp = tables
                .state()
                .hide_from_verifier::<{ ipv6::MAX_OFFSET }>(tcp);
            Action::from(frame.replace(tcp, tcp + tcp::CHECKSUM, verdict.port))
        }
    }
}

/// The TTL or hop limit of a reset, as Linux has it (`IPDEFTTL`, include/uapi/linux/ip.h).
const RESET_TTL: u8 = 64;

/// Turns a segment into the reset that answers it. `None` if the frame no longer has the headers, or
/// cannot be shortened.
#[inline(always)]
fn become_reset_by_ipv4<F: Shorten + ?Sized>(frame: &mut F) -> Option<()> {
    let tcp = ethernet::LENGTH + ipv4::LENGTH;
    if !frame.shorten(tcp + tcp::LENGTH) {
        return None;
    }
    let ip = frame.view_mut::<ipv4::Header>(ethernet::LENGTH)?;
    let (source, destination) = (ip.destination(), ip.source());
    let (protocol, length) = (ipv4::protocol::TCP, tcp::LENGTH as u16);
    *ip = ipv4::Header::new(source, destination, protocol, RESET_TTL, length);
    let ends = [source.into(), destination.into()];
    become_reset(frame, tcp, ends)
}

/// The same by IPv6.
#[inline(always)]
fn become_reset_by_ipv6<F: Shorten + ?Sized>(frame: &mut F) -> Option<()> {
    let tcp = ethernet::LENGTH + ipv6::LENGTH;
    if !frame.shorten(tcp + tcp::LENGTH) {
        return None;
    }
    let ip = frame.view_mut::<ipv6::Header>(ethernet::LENGTH)?;
    let (source, destination) = (ip.destination(), ip.source());
    let (protocol, length) = (ipv6::next_header::TCP, tcp::LENGTH as u16);
    *ip = ipv6::Header::new(source, destination, protocol, RESET_TTL, length);
    become_reset(frame, tcp, [source, destination])
}

/// Turns the TCP header at `tcp` and the Ethernet header into those of the reset between these
/// addresses.
///
/// Its checksum is the whole one. In a socket buffer whose checksum the NIC was to complete
/// (`CHECKSUM_PARTIAL`) it is not asked for: the kernel trusts what it has sent itself.
#[inline(always)]
fn become_reset<F: Shorten + ?Sized>(frame: &mut F, tcp: usize, ends: [Be128; 2]) -> Option<()> {
    let [source, destination] = ends;
    let (protocol, length) = (ipv4::protocol::TCP, tcp::LENGTH as u16);
    let pseudo_header = Sum::default().pseudo_header(source, destination, length, protocol);
    let segment = frame.view_mut::<tcp::Header>(tcp)?;
    let ports = [segment.destination_port(), segment.source_port()];
    *segment = tcp::Header::reset(ports, segment.acknowledgement(), pseudo_header);
    let ethernet = frame.view_mut::<ethernet::Header>(0)?;
    let (to, from) = (ethernet.source(), ethernet.destination());
    ethernet.readdress(to, from);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        ACKNOWLEDGEMENT, CLIENT, CLIENT_MAC, NOW, PORT, Seen, Segment, VIP, VIP6, World, arp_frame,
        arp_request, checksums_are_right, ndp_frame, node_address, node_mac,
    };
    use crate::wire::addr::{Be32, Mac};

    fn kind(frame: &[u8], world: &World) -> Kind {
        decide(frame, world).kind()
    }

    #[test]
    fn no_arp_from_the_vip_leaves_but_the_owners_announcement_and_reply() {
        let owner = World::new(3, 0).owning(true);
        let other = World::new(3, 0);
        let request = |sender, target| {
            let packet = arp::Packet::new(
                arp::operation::REQUEST,
                (node_mac(0), sender),
                (Mac::default(), target),
            );
            arp_frame(Mac::BROADCAST, node_mac(0), packet)
        };
        for world in [&owner, &other] {
            // The kernel asks for the address of a client that it answers from the VIP.
            let mut frame = request(VIP, CLIENT);
            let verdict = decide(&frame, world);
            assert_eq!(verdict.kind(), Kind::NameNode);
            assert_eq!(apply(verdict, &mut frame, world), Action::Leave);
            assert_eq!(frame, request(node_address(0), CLIENT));
            for other in [request(node_address(0), CLIENT), arp_request(VIP)] {
                assert_eq!(kind(&other, world), Kind::Pass);
            }
        }
        let announcement = request(VIP, VIP);
        assert_eq!(kind(&announcement, &owner), Kind::Pass);
        assert_eq!(kind(&announcement, &other), Kind::Drop);
        assert_eq!(kind(&announcement[..41], &other), Kind::Pass);
        let to_client = (CLIENT_MAC, CLIENT);
        let answer = arp::Packet::new(arp::operation::REPLY, (node_mac(0), VIP), to_client);
        let answer = arp_frame(CLIENT_MAC, node_mac(0), answer);
        assert_eq!(kind(&answer, &owner), Kind::Pass);
        assert_eq!(kind(&answer, &other), Kind::Drop);
    }

    #[test]
    fn the_self_test_of_the_egress_program_is_counted_and_does_not_leave() {
        let own = (node_mac(0), Be32::default());
        let packet = arp::Packet::new(arp::operation::SELF_TEST, own, own);
        for world in [World::new(3, 0).owning(true), World::new(3, 0)] {
            let mut test = arp_frame(node_mac(0), node_mac(0), packet);
            let verdict = decide(&test, &world);
            assert_eq!(verdict.counter(), Some(Counter::GuardTested));
            assert_eq!(apply(verdict, &mut test, &world), Action::Drop);
            // The same operation between two other addresses is not the agent's.
            let other = arp_frame(CLIENT_MAC, node_mac(0), packet);
            assert_eq!(kind(&other, &world), Kind::Pass);
        }
    }

    #[test]
    fn no_neighbor_discovery_from_the_vip_leaves_but_the_owners_advertisement() {
        let owner = World::new(3, 0).owning(true);
        let other = World::new(3, 0);
        let node = Be128::from_wire([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]);
        let advertisement = |target| {
            let to = ipv6::ALL_NODES;
            let message = ndp::Advertisement::new(target, node_mac(0), 0x20, node, to);
            ndp_frame(
                (node_mac(0), node),
                (Mac::BROADCAST, to),
                bytemuck::bytes_of(&message),
            )
        };
        assert_eq!(kind(&advertisement(VIP6), &owner), Kind::Pass);
        assert_eq!(kind(&advertisement(VIP6), &other), Kind::Drop);
        assert_eq!(kind(&advertisement(node), &other), Kind::Pass);
        let solicitation = |from| {
            let message = ndp::Message::solicitation(node);
            let to = (Mac::BROADCAST, ndp::solicited_node(node));
            ndp_frame((node_mac(0), from), to, bytemuck::bytes_of(&message))
        };
        assert_eq!(kind(&solicitation(VIP6), &owner), Kind::Drop);
        assert_eq!(kind(&solicitation(node), &owner), Kind::Pass);
    }

    #[test]
    fn a_segment_from_the_vip_leaves_with_the_port_that_clients_know() {
        for (vip, client) in [(VIP.into(), CLIENT.into()), (VIP6, crate::testing::CLIENT6)] {
            let answer = |port| Segment {
                to: CLIENT_MAC,
                from: node_mac(0),
                source: vip,
                destination: client,
                source_port: port,
                port: 40_000,
                ..Segment::new(0, 0, tcp::ACK)
            };
            let world = World::new(3, 0).mapping(443, PORT);
            let mut frame = answer(PORT).build();
            let verdict = decide(&frame, &world);
            assert_eq!(verdict.kind(), Kind::NamePort);
            assert_eq!(apply(verdict, &mut frame, &world), Action::Leave);
            assert_eq!(frame, answer(443).build());
            assert!(checksums_are_right(&frame));
            // From a port without a service, and from a node's own address.
            assert_eq!(kind(&answer(22).build(), &world), Kind::Pass);
            let own = Segment {
                source: node_address(0).into(),
                destination: CLIENT.into(),
                ..answer(PORT)
            };
            assert_eq!(kind(&own.build(), &world), Kind::Pass);
            let unmapped = World::new(3, 0);
            assert_eq!(kind(&answer(PORT).build(), &unmapped), Kind::Pass);
        }
    }
    /// A segment of a connection of node 0 or of a pod behind it to the server of node 1.
    fn to_member(flags: u8) -> Segment {
        Segment {
            to: node_mac(1),
            from: node_mac(0),
            source: node_address(0).into(),
            destination: node_address(1).into(),
            ..Segment::new(0, 40_000, flags)
        }
    }

    fn world_without(member: usize) -> World {
        World::new(3, 0).seeing(member, Seen::Gone)
    }

    #[test]
    fn a_segment_to_a_member_that_is_gone_is_answered_by_a_reset_in_its_name() {
        let world = world_without(1);
        for flags in [
            tcp::ACK,
            tcp::ACK | 0x08,
            tcp::FIN | tcp::ACK,
            tcp::SYN | tcp::ACK,
        ] {
            for segment in [to_member(flags), to_member(flags).ipv6()] {
                let reset = Segment {
                    to: segment.from,
                    from: segment.to,
                    source: segment.destination,
                    destination: segment.source,
                    source_port: segment.port,
                    port: segment.source_port,
                    flags: tcp::RST,
                    sequence: ACKNOWLEDGEMENT,
                    ..segment
                };
                for data in [0, 1, 1400] {
                    let mut frame = segment.build();
                    frame.resize(frame.len() + data, 0x17);
                    let verdict = decide(&frame, &world);
                    assert_eq!(verdict.counter(), Some(Counter::GoneReset));
                    assert_eq!(apply(verdict, &mut frame, &world), Action::ComeIn);
                    assert!(checksums_are_right(&frame));
                    let mut expected = reset.build();
                    let same = 14..if expected[12] == 8 { 26 } else { 54 };
                    // It acknowledges nothing, has no window, and another header than the test's.
                    expected[same.clone()].copy_from_slice(&frame[same]);
                    let tcp = expected.len() - tcp::LENGTH;
                    expected[tcp + 8..][..4].fill(0);
                    expected[tcp + 14..][..4].copy_from_slice(&[
                        0,
                        0,
                        frame[tcp + 16],
                        frame[tcp + 17],
                    ]);
                    assert_eq!(frame, expected);
                    assert_eq!(kind(&frame, &world), Kind::Pass, "no reset is answered");
                }
            }
        }
    }

    #[test]
    fn other_segments_leave_and_so_do_all_while_no_member_is_known_to_be_gone() {
        let gone = world_without(1);
        let to = |node: usize| Segment {
            destination: node_address(node).into(),
            ..to_member(tcp::ACK)
        };
        let leaves = |world: &World, segment: Segment, why: &str| {
            for segment in [segment, segment.ipv6()] {
                assert_eq!(kind(&segment.build(), world), Kind::Pass, "{why}");
            }
        };
        for flags in [
            tcp::SYN,
            tcp::RST,
            tcp::RST | tcp::ACK,
            tcp::FIN,
            tcp::SYN | tcp::FIN,
            0,
        ] {
            leaves(&gone, to_member(flags), "no segment that a reset answers");
        }
        let other_port = Segment {
            port: 22,
            ..to_member(tcp::ACK)
        };
        leaves(&gone, other_port, "no service's target");
        leaves(&gone, to(2), "a member that lives");
        leaves(&gone, to(0), "this node");
        leaves(&gone, to(7), "no member");
        let with_options = Segment {
            options: 1,
            ..to_member(tcp::ACK)
        };
        leaves(&gone, with_options, "IP options");
        for seen in [Seen::Up, Seen::Suspect, Seen::Away] {
            let world = World::new(3, 0).seeing(1, seen);
            leaves(&world, to_member(tcp::ACK), "it may have the socket");
        }
        let mut world = world_without(1);
        world.state.masks.no_forward = BackendMask::ALL;
        leaves(&world, to_member(tcp::ACK), "isolated");
        for until in [NOW, BootNanos(u64::MAX)] {
            let mut world = world_without(1);
            world.state.resets_until = until;
            leaves(&world, to_member(tcp::ACK), "the agent may be dead");
        }
        // It counts where the servers listen.
        let mapped = world_without(1).mapping(443, PORT);
        assert_eq!(kind(&to_member(tcp::ACK).build(), &mapped), Kind::Reset);
        let to_443 = Segment {
            port: 443,
            ..to_member(tcp::ACK)
        };
        leaves(&mapped, to_443, "no server listens there");
        // A node that has forgotten its own place is not gone to itself.
        let world = world_without(0);
        leaves(&world, to(0), "this node");
    }

    #[test]
    fn ipv4_is_not_looked_at_while_all_are_there() {
        let world = World::new(3, 0);
        assert!(skips_ipv4(&world.state));
        assert!(skips_ipv4(&world.seeing(1, Seen::Away).state));
        assert!(!skips_ipv4(&world_without(1).state));
        assert!(!skips_ipv4(&World::new(3, 0).mapping(443, PORT).state));
    }

    #[test]
    fn a_segment_in_the_name_of_a_member_that_is_gone_comes_in_as_it_is() {
        let from = |node: usize| Segment {
            to: node_mac(0),
            from: node_mac(0),
            source: node_address(node).into(),
            destination: node_address(0).into(),
            source_port: PORT,
            port: 40_000,
            ..Segment::new(0, 0, tcp::ACK)
        };
        let world = world_without(1);
        for segment in [from(1), from(1).ipv6()] {
            let mut frame = segment.build();
            let verdict = decide(&frame, &world);
            assert_eq!((verdict.kind(), verdict.counter()), (Kind::Return, None));
            assert_eq!(apply(verdict, &mut frame, &world), Action::ComeIn);
            assert_eq!(frame, segment.build());
            for (to, from) in [(0, 1), (1, 0), (1, 1)] {
                let between = Segment {
                    to: node_mac(to),
                    from: node_mac(from),
                    ..segment
                };
                assert_eq!(kind(&between.build(), &world), Kind::Pass);
            }
            let lives = World::new(3, 0);
            assert_eq!(kind(&segment.build(), &lives), Kind::Pass);
        }
        for node in [0, 2, 7] {
            for segment in [from(node), from(node).ipv6()] {
                assert_eq!(kind(&segment.build(), &world), Kind::Pass);
            }
        }
    }
}
