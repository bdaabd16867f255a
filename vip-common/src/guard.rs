//! The egress decision: the local kernel never speaks for the VIP.
//!
//! A node that asks for a client's Ethernet address while it answers from the VIP would name
//! the VIP as the sender of its request (`arp_announce=0`, the default) and so teach the whole
//! segment that the VIP is here. Dropping the request would leave the client without an
//! answer, so it is rewritten to name the node.

use crate::layout::Counter;
use crate::node::{Tables, find_vip};
use crate::wire::{Frame, FrameMut, arp, ethernet};

/// What to do with a frame that is about to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It may leave as it is.
    Pass,
    /// It may leave once the node's own address stands in it as the sender.
    Rewrite,
    /// It may not leave.
    Drop,
}

impl Verdict {
    /// What to count it as, if it is counted.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Option<Counter> {
        match self {
            Self::Pass => None,
            Self::Rewrite => Some(Counter::GuardRewritten),
            Self::Drop => Some(Counter::GuardDropped),
        }
    }
}

/// Decides about a frame that is about to leave.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Verdict {
    let (Some(ethernet), Some(packet)) = (
        frame.view::<ethernet::Header>(0),
        frame.view::<arp::Packet>(ethernet::LENGTH),
    ) else {
        return Verdict::Pass;
    };
    if ethernet.ether_type() != ethernet::ether_type::ARP || !packet.is_ipv4_over_ethernet() {
        return Verdict::Pass;
    }
    let Some(vip) = find_vip(tables.state(), packet.sender_address()) else {
        return Verdict::Pass;
    };
    // Only an announcement names the VIP on both sides (RFC 5227, section 3), and only the
    // owner may make it.
    if packet.target_address() != packet.sender_address() {
        Verdict::Rewrite
    } else if tables.now() < vip.owner_until {
        Verdict::Pass
    } else {
        Verdict::Drop
    }
}

/// Names the node as the sender. False if the frame has no ARP packet, which cannot be after
/// [`Verdict::Rewrite`].
#[inline(always)]
pub fn rewrite<F: FrameMut + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> bool {
    let Some(packet) = frame.view_mut::<arp::Packet>(ethernet::LENGTH) else {
        return false;
    };
    packet.set_sender_address(tables.state().config.own_address);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Mac;
    use crate::testing::{
        CLIENT, CLIENT_MAC, VIP, World, arp_frame, arp_request, node_address, node_mac,
    };

    #[test]
    fn no_arp_leaves_with_the_vip_as_sender_but_the_owners_announcement() {
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
            // The kernel looks for a client that it answers from the VIP.
            let mut frame = request(VIP, CLIENT);
            assert_eq!(decide(frame.as_slice(), world), Verdict::Rewrite);
            assert!(rewrite(frame.as_mut_slice(), world));
            assert_eq!(frame, request(node_address(0), CLIENT));
            for innocent in [request(node_address(0), CLIENT), arp_request(VIP)] {
                assert_eq!(decide(innocent.as_slice(), world), Verdict::Pass);
            }
        }
        let announcement = request(VIP, VIP);
        assert_eq!(decide(announcement.as_slice(), &owner), Verdict::Pass);
        assert_eq!(decide(announcement.as_slice(), &other), Verdict::Drop);
        assert_eq!(decide(&announcement[..41], &other), Verdict::Pass);
        let claim = arp::Packet::new(arp::operation::REPLY, (node_mac(0), VIP), (CLIENT_MAC, VIP));
        let claim = arp_frame(Mac::BROADCAST, node_mac(0), claim);
        assert_eq!(decide(claim.as_slice(), &other), Verdict::Drop);
    }
}
