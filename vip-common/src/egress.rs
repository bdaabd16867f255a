//! The decision about a frame that is about to leave by the NIC. It has two purposes:
//!
//! - No ARP or Neighbor Discovery that names the VIP as its sender leaves a node which is not the
//!   owner.
//! - A segment from a service with another target leaves with the port that clients know.
//!
//! When a node answers a client from the VIP, it may first have to ask for the client's Ethernet
//! address. Its kernel names the VIP as the sender of that ARP request (`arp_announce=0`, the
//! default), and the whole segment would learn that the VIP is here. The request is therefore
//! rewritten to name the node; dropped, it would leave the client without an answer. With IPv6 the
//! kernel names an address of the NIC (`ndisc_solicit` in net/ipv6/ndisc.c).

use crate::abi::lookup::{find_ipv4, find_ipv6, service};
use crate::abi::{Counter, State, Vip, lease_stands};
use crate::env::Tables;
use crate::wire::addr::Be16;
use crate::wire::time::BootNanos;
use crate::wire::{Frame, FrameMut, arp, ethernet, ipv4, ipv6, ndp, tcp};

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
}

/// The decision about a frame that is about to leave. Flat for the same reason as
/// [`verdict::Verdict`](crate::verdict::Verdict).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    kind: Kind,
    /// Offset of the TCP header in the frame, in bytes, for [`Kind::NamePort`].
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

    /// The counter that the frame adds to; `None` if it is not counted.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Option<Counter> {
        match self.kind {
            Kind::Pass | Kind::NamePort => None,
            Kind::NameNode => Some(Counter::GuardRewritten),
            Kind::Drop => Some(Counter::GuardDropped),
            Kind::SelfTest => Some(Counter::GuardTested),
        }
    }
}

/// Decides about a frame that is about to leave.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Verdict {
    let Some(ethernet) = frame.view::<ethernet::Header>(0) else {
        return Verdict::new(Kind::Pass);
    };
    let verdict = match ethernet.ether_type() {
        ethernet::ether_type::ARP => decide_arp(frame, ethernet, tables),
        ethernet::ether_type::IPV4 => decide_ipv4(frame, tables),
        ethernet::ether_type::IPV6 => decide_ipv6(frame, tables),
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
fn decide_ipv4<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Option<Verdict> {
    let state = tables.state();
    if state.config.maps_ports == 0 {
        return None;
    }
    let ip = frame.view::<ipv4::Header>(ethernet::LENGTH)?;
    let vip = find_ipv4(state, ip.source())?;
    if ip.protocol() != ipv4::protocol::TCP || ip.is_fragment() {
        return None;
    }
    name_port(frame, state, vip, ethernet::LENGTH + ip.header_length())
}

#[inline(always)]
fn decide_ipv6<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Option<Verdict> {
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
        ipv6::next_header::TCP if state.config.maps_ports != 0 => {
            name_port(frame, state, find_ipv6(state, ip.source())?, behind)
        }
        _ => None,
    }
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

/// Rewrites the frame for which the verdict was given. False if the frame may not leave.
#[inline(always)]
pub fn apply<F: FrameMut + ?Sized, T: Tables>(verdict: Verdict, frame: &mut F, tables: &T) -> bool {
    match verdict.kind {
        Kind::Pass => true,
        Kind::Drop | Kind::SelfTest => false,
        Kind::NameNode => {
            let own = tables.state().config.own_address;
            let packet = frame.view_mut::<arp::Packet>(ethernet::LENGTH);
            packet
                .map(|packet| packet.set_sender_address(own))
                .is_some()
        }
        Kind::NamePort => {
            // The verifier of Linux 6.1 has lost the upper bound of this offset.
            let tcp = verdict.tcp as usize;
            let tcp = tables
                .state()
                .hide_from_verifier::<{ ipv6::MAX_OFFSET }>(tcp);
            frame.replace(tcp, tcp + tcp::CHECKSUM, verdict.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        CLIENT, CLIENT_MAC, PORT, Segment, VIP, VIP6, World, arp_frame, arp_request,
        checksums_are_right, ndp_frame, node_address, node_mac,
    };
    use crate::wire::addr::{Be32, Be128, Mac};

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
            assert!(apply(verdict, &mut frame, world));
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
            assert!(!apply(verdict, &mut test, &world));
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
            assert!(apply(verdict, &mut frame, &world));
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
}
