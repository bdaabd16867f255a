//! ARP and Neighbor Discovery: answers of the owner, announcements and claims.

use super::*;
use crate::testing::{
    CLIENT_MAC, CLIENT6, VIP6, arp_frame, arp_request, ndp_frame, node_address, node_address6,
    solicitation,
};
use crate::wire::time::BootNanos;
use crate::wire::{arp, ndp};

#[test]
fn only_the_owner_answers_solicitations_for_the_vip() {
    use Counter::*;
    let owner = world(dead(2)).owning(true);
    let other = World::new(3, 0);
    let answer = |to: (Mac, Be128), flags| {
        let message = ndp::Advertisement::new(VIP6, node_mac(0), flags, VIP6, to.1);
        ndp_frame((node_mac(0), VIP6), to, bytemuck::bytes_of(&message))
    };
    let all = (ndp::group_mac(ipv6::ALL_NODES), ipv6::ALL_NODES);
    for (unspecified, expected) in [
        (false, answer((CLIENT_MAC, CLIENT6), 0x60)),
        (true, answer(all, 0x20)),
    ] {
        let mut frame = solicitation(VIP6, unspecified);
        assert_eq!(
            owner.run(&mut frame),
            (Verdict::answer_ndp(), Action::Transmit)
        );
        assert_eq!(frame, expected, "from ::: {unspecified}");
        let silent = other.run(&mut solicitation(VIP6, unspecified)).0;
        assert_eq!(silent, Verdict::drop(NdpNotOwner));
    }

    let good = solicitation(VIP6, false);
    let with = |place: usize, value: u8| {
        let mut frame = good.clone();
        frame[place] = value;
        frame
    };
    let to_node = |mac: Mac| {
        let mut frame = good.clone();
        frame[..6].copy_from_slice(&mac.to_wire());
        frame
    };
    let stranger = Mac::from_wire([2, 9, 9, 9, 9, 9]);
    let claim = |mac, source, target| {
        let message = ndp::Advertisement::new(target, mac, 0x20, source, all.1);
        ndp_frame((mac, source), all, bytemuck::bytes_of(&message))
    };
    for (name, mut frame, expected) in [
        (
            "with another hop limit",
            with(21, 254),
            Verdict::drop(Malformed),
        ),
        ("with a code", with(55, 1), Verdict::drop(Malformed)),
        (
            "with a wrong checksum",
            with(56, 0xaa),
            Verdict::drop(Malformed),
        ),
        ("cut short", good[..80].to_vec(), Verdict::drop(Malformed)),
        (
            "for a node",
            solicitation(node_address6(0), false),
            Verdict::pass(NdpPassed),
        ),
        ("to this node", to_node(node_mac(0)), Verdict::answer_ndp()),
        (
            "to another host",
            to_node(node_mac(1)),
            Verdict::pass(OtherHost),
        ),
        (
            "a peer announces",
            claim(node_mac(1), node_address6(1), VIP6),
            Verdict::pass(NdpAnnouncement),
        ),
        (
            "a peer whose agent is not heard claims",
            claim(node_mac(2), node_address6(2), VIP6),
            Verdict::conflict(NdpConflict, node_mac(2), false),
        ),
        (
            "a stranger claims",
            claim(stranger, CLIENT6, VIP6),
            Verdict::conflict(NdpConflict, stranger, false),
        ),
        (
            "a stranger sends from the VIP",
            claim(stranger, VIP6, CLIENT6),
            Verdict::conflict(NdpConflict, stranger, false),
        ),
        (
            "a stranger announces its own address",
            claim(stranger, CLIENT6, CLIENT6),
            Verdict::pass(NdpPassed),
        ),
    ] {
        assert_eq!(owner.run(&mut frame).0, expected, "{name}");
    }
    assert_eq!(
        ndp::solicited_node(VIP6).to_wire()[11..],
        [1, 0xff, 0, 0, 0x10]
    );
}

#[test]
fn only_the_owner_answers_arp_for_the_vip() {
    use Counter::*;
    let owner = world(dead(2)).owning(true);
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
    let answer = arp_frame(CLIENT_MAC, node_mac(0), answer);
    assert_eq!(frame, answer);
    // Hardware type IEEE 802, which the kernel answers like Ethernet.
    let mut frame = arp_request(VIP);
    frame[15] = 6;
    assert_eq!(owner.run(&mut frame).0, Verdict::answer_arp());
    assert_eq!(frame, answer);
    // With a priority tag.
    for mut frame in [arp_request(VIP), solicitation(VIP6, false)] {
        let mut expected = frame.clone();
        let (verdict, _) = owner.run(&mut expected);
        frame = tagged(&frame, 0x8100, 0x2000);
        assert_eq!(owner.run(&mut frame).0, verdict);
        assert_eq!(frame, expected);
    }
    // A lease that is too long does not stand.
    let mut for_ever = World::new(3, 0);
    for vip in &mut for_ever.state.vips[..2] {
        vip.answer_until = BootNanos(u64::MAX);
    }
    let silent = for_ever.run(&mut arp_request(VIP)).0;
    assert_eq!(silent, Verdict::drop(ArpNotOwner));
    let silent = for_ever.run(&mut solicitation(VIP6, false)).0;
    assert_eq!(silent, Verdict::drop(NdpNotOwner));

    let other = world(dead(2));
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
                "a peer announces",
                request(node_mac(1), VIP, VIP),
                Verdict::drop(ArpAnnouncement),
            ),
            (
                "a peer whose agent is not heard claims",
                request(node_mac(2), VIP, VIP),
                Verdict::conflict(ArpConflict, node_mac(2), true),
            ),
            (
                "a stranger claims",
                request(stranger, VIP, VIP),
                Verdict::conflict(ArpConflict, stranger, true),
            ),
            (
                "a stranger asks from the VIP",
                request(stranger, VIP, CLIENT),
                Verdict::conflict(ArpConflict, stranger, false),
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
