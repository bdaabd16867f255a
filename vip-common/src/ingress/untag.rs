//! Priority-tagged frames (IEEE 802.1Q): the kernel reads a frame with a tag of VLAN 0 as if it had
//! none, and so do the programs.
//!
//! A NIC may take a tag off and report it beside the frame; such a tag needs no care. This module
//! takes off tags in the frame itself, before the decision, if the frame is about a VIP. It is
//! forwarded without them: the priority was for the path to this node. All other frames stay as
//! they are, since a bridge on this node may forward them.

use crate::abi::State;
use crate::abi::lookup::{is_any_ipv4, is_any_ipv6};
use crate::env::Tables;
use crate::wire::addr::{Be16, Be128};
use crate::wire::{Frame, FrameMut, arp, ethernet, ipv4, ipv6, ndp, vlan};

/// Takes the tags of VLAN 0 off a frame from, to or about a VIP: up to two, a provider's and a
/// customer's. False if a tag could not be taken off: the frame may be damaged then.
#[inline(always)]
pub fn untag<F: FrameMut, T: Tables>(frame: &mut F, tables: &T) -> bool {
    let tagged = frame
        .view::<ethernet::Header>(0)
        .is_some_and(|ethernet| vlan::is_tag(ethernet.ether_type()));
    // Nearly every frame returns here, after as few instructions as possible.
    if !tagged {
        return true;
    }
    match tags(frame, tables.state()) {
        0 => true,
        1 => frame.remove_tag(),
        _ => frame.remove_tag() && frame.remove_tag(),
    }
}

/// How many tags are to be taken off, `0..=2`.
#[inline(always)]
fn tags<F: Frame + ?Sized>(frame: &F, state: &State) -> usize {
    let tag = |offset| {
        let tag = frame.view::<vlan::Tag>(offset)?;
        tag.says_priority_only().then(|| tag.ether_type())
    };
    let Some(mut ether_type) = tag(vlan::OFFSET) else {
        return 0;
    };
    let mut tags = 1;
    if vlan::is_tag(ether_type) {
        let Some(second) = tag(vlan::OFFSET + vlan::LENGTH) else {
            return 0;
        };
        (tags, ether_type) = (2, second);
    }
    // The verifier follows the search below once, not once for each number of tags.
    let offset = state.hide_from_verifier::<32>(ethernet::LENGTH + tags * vlan::LENGTH);
    if is_about_vip(frame, ether_type, offset, state) {
        tags
    } else {
        0
    }
}

/// Whether the packet at `offset` in the frame comes from a VIP, goes to one, or is ARP or Neighbor
/// Discovery about one.
#[inline(always)]
fn is_about_vip<F: Frame + ?Sized>(
    frame: &F,
    ether_type: Be16,
    offset: usize,
    state: &State,
) -> bool {
    let ipv4 = match ether_type {
        ethernet::ether_type::IPV4 => frame
            .view::<ipv4::Header>(offset)
            .map(|ip| [ip.destination(), ip.source()]),
        ethernet::ether_type::ARP => frame
            .view::<arp::Packet>(offset)
            .map(|packet| [packet.target_address(), packet.sender_address()]),
        ethernet::ether_type::IPV6 => {
            return frame.view::<ipv6::Header>(offset).is_some_and(|ip| {
                let target = target(frame, ip, offset).unwrap_or(ip.source());
                is_any_ipv6(state, [ip.destination(), ip.source(), target])
            });
        }
        _ => None,
    };
    ipv4.is_some_and(|addresses| is_any_ipv4(state, addresses))
}

/// The address that a message of Neighbor Discovery is about; `None` if the packet at `offset` is
/// none.
#[inline(always)]
fn target<F: Frame + ?Sized>(frame: &F, ip: &ipv6::Header, offset: usize) -> Option<Be128> {
    if ip.next_header() != ipv6::next_header::ICMP {
        return None;
    }
    let message = frame.view::<ndp::Message>(offset + ipv6::LENGTH)?;
    message.is_about_address().then(|| message.target())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        CLIENT, CLIENT6, Segment, VIP, VIP6, World, arp_request, node_address, solicitation,
    };
    use crate::wire::addr::Mac;
    use crate::wire::tcp;
    use crate::wire::vlan::tagged;

    #[test]
    fn a_frame_about_a_vip_loses_the_tags_of_vlan_0() {
        let world = World::new(3, 0);
        let syn = Segment::new(0, 1, tcp::SYN);
        let back = Segment {
            to: Mac::BROADCAST,
            source: VIP.into(),
            destination: CLIENT.into(),
            ..syn
        };
        let elsewhere = Segment {
            destination: CLIENT.into(),
            ..syn
        };
        let rows = [
            ("to a VIP", syn.build(), true),
            ("to a VIP by IPv6", syn.ipv6().build(), true),
            ("from a VIP", back.build(), true),
            ("from a VIP by IPv6", back.ipv6().build(), true),
            ("ARP for a VIP", arp_request(VIP), true),
            ("a solicitation for a VIP", solicitation(VIP6, false), true),
            ("to another host", elsewhere.build(), false),
            ("to another host by IPv6", elsewhere.ipv6().build(), false),
            ("ARP for a node", arp_request(node_address(0)), false),
            (
                "a solicitation for a host",
                solicitation(CLIENT6, false),
                false,
            ),
            ("cut short", syn.build()[..30].to_vec(), false),
            ("nothing behind it", syn.build()[..14].to_vec(), false),
        ];
        for (name, frame, about) in rows {
            for (kind, control) in [(0x8100, 0), (0x8100, 0x6000), (0x88a8, 0xe000)] {
                let once = tagged(&frame, kind, control);
                let twice = tagged(&once, 0x88a8, 0);
                for with in [once, twice] {
                    let mut found = with.clone();
                    assert!(untag(&mut found, &world));
                    let expected = if about { &frame } else { &with };
                    assert_eq!(&found, expected, "{name}: {kind:04x} {control:04x}");
                }
            }
            // No tag, a tag with a VLAN, and more tags than two.
            let tag = |frame: &[u8], control| tagged(frame, 0x8100, control);
            for other in [
                frame.clone(),
                tag(&frame, 5),
                tag(&tag(&frame, 5), 0),
                tag(&tag(&frame, 0), 5),
                tag(&tag(&tag(&frame, 0), 0), 0),
            ] {
                let mut found = other.clone();
                assert!(untag(&mut found, &world));
                assert_eq!(found, other, "{name}");
            }
        }
    }
}
